//! How a disk's own threads reach the reactors that it is open on.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The way from any thread to a reactor: has the channel at a place of it polled soon. False if the reactor takes no
/// message at present.
#[derive(Clone)]
pub(in crate::target) struct Doorbell(Arc<dyn Fn(usize) -> bool + Send + Sync>);

impl Doorbell {
    pub(in crate::target) fn new(ring: impl Fn(usize) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(ring))
    }
}

impl fmt::Debug for Doorbell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Doorbell")
    }
}

/// Has a channel polled soon, from any thread.
#[derive(Debug, Clone)]
pub struct Waker {
    /// `None` in a simulation, and in tests of a disk by itself.
    doorbell: Option<Doorbell>,
    /// The channel's place on its reactor.
    channel: usize,
    /// The waker was called since the last poll: one message is enough.
    called: Arc<AtomicBool>,
}

impl Waker {
    /// Has the channel polled soon. Costs next to nothing if that was asked for already.
    pub fn wake(&self) {
        if self.called.swap(true, Ordering::AcqRel) {
            return;
        }
        let Some(doorbell) = &self.doorbell else {
            return;
        };
        if !(doorbell.0)(self.channel) {
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
    reactor: usize,
    simulated: bool,
}

impl Opening {
    /// For the channel at this place of the reactor of this number, with this doorbell; in a simulation there is no way
    /// from threads to reactors.
    pub(in crate::target) fn new(
        reactor: usize,
        channel: usize,
        doorbell: Option<Doorbell>,
    ) -> Self {
        Self {
            reactor,
            simulated: doorbell.is_none(),
            waker: Waker {
                doorbell,
                channel,
                called: Arc::default(),
            },
        }
    }

    /// Has the channel polled.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// The number of the reactor in its group.
    pub fn reactor(&self) -> usize {
        self.reactor
    }

    /// Nothing may depend on how threads run: what takes long is done in [`submit`](super::DiskChannel::submit).
    pub fn is_simulated(&self) -> bool {
        self.simulated
    }
}
