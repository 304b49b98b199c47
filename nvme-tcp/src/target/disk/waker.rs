//! How a disk's own threads reach the reactors that it is open on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pollux_reactor::Sender;

use crate::target::message::{Envelope, IoMessage, TargetMessage};

/// Has a channel polled soon, from any thread.
#[derive(Debug, Clone)]
pub struct Waker {
    /// There is none in tests of a disk by itself.
    sender: Option<Sender<TargetMessage>>,
    /// The channel's place on its reactor.
    channel: usize,
    /// It was called since the last poll: one message is enough.
    called: Arc<AtomicBool>,
}

impl Waker {
    /// Has the channel polled soon. Costs next to nothing if that was asked for already.
    pub fn wake(&self) {
        if self.called.swap(true, Ordering::AcqRel) {
            return;
        }
        let Some(sender) = &self.sender else {
            return;
        };
        let message = IoMessage::DiskAwake {
            channel: self.channel,
        };
        if sender.send(TargetMessage(Envelope::Io(message))).is_err() {
            // A reactor with a full mailbox does not sleep, and polls every channel that has I/Os in each of its turns.
            self.called.store(false, Ordering::Release);
        }
    }

    /// The channel is about to be polled.
    pub(in crate::target) fn rearm(&self) {
        self.called.store(false, Ordering::Release);
    }
}

/// How a disk is opened: by whom, and where to.
#[derive(Debug, Clone)]
pub struct Opening {
    waker: Waker,
    simulated: bool,
}

impl Opening {
    /// For the channel at this place of the reactor with this mailbox; in a simulation there is no way from threads to
    /// reactors.
    pub(in crate::target) fn new(channel: usize, sender: Option<Sender<TargetMessage>>) -> Self {
        Self {
            simulated: sender.is_none(),
            waker: Waker {
                sender,
                channel,
                called: Arc::default(),
            },
        }
    }

    /// Has the channel polled.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Nothing may depend on how threads run: what takes long is done in [`submit`](super::DiskChannel::submit).
    pub fn is_simulated(&self) -> bool {
        self.simulated
    }
}
