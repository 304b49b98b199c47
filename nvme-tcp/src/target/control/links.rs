//! The ways from one service of a target to the others.

use std::collections::VecDeque;

use pollux_reactor::{Outbox, Sender};

use crate::target::control::message::{Envelope, HomeMessage, TargetMessage};
use crate::target::io::message::IoMessage;

/// Outboxes to all services. What a service sends itself is delivered in the same turn.
#[derive(Debug)]
pub(in crate::target) struct Links {
    own: usize,
    outboxes: Vec<Outbox<TargetMessage>>,
    local: VecDeque<Envelope>,
    /// Something may be left in an outbox.
    backlog: bool,
}

impl Links {
    pub(in crate::target) fn new(own: usize, senders: &[Sender<TargetMessage>]) -> Self {
        Self {
            own,
            outboxes: senders.iter().cloned().map(Outbox::new).collect(),
            local: VecDeque::new(),
            backlog: false,
        }
    }

    pub(in crate::target) fn reactors(&self) -> usize {
        self.outboxes.len()
    }

    pub(in crate::target) fn send_home(&mut self, message: HomeMessage) {
        self.send(0, Envelope::Home(message));
    }

    pub(in crate::target) fn send_io(&mut self, reactor: usize, message: IoMessage) {
        self.send(reactor, Envelope::Io(message));
    }

    fn send(&mut self, reactor: usize, envelope: Envelope) {
        if reactor == self.own {
            self.local.push_back(envelope);
        } else if let Some(outbox) = self.outboxes.get_mut(reactor) {
            outbox.post(TargetMessage(envelope));
            self.backlog = true;
        }
    }

    /// The next message that this service has sent itself.
    #[inline]
    pub(in crate::target) fn next_local(&mut self) -> Option<Envelope> {
        self.local.pop_front()
    }

    /// Hands over what did not fit into mailboxes. Returns whether something is still left.
    #[inline]
    pub(in crate::target) fn flush(&mut self) -> bool {
        if self.backlog {
            self.backlog = false;
            for outbox in &mut self.outboxes {
                self.backlog |= !outbox.flush();
            }
        }
        self.backlog
    }
}
