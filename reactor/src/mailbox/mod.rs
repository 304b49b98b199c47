//! Mailboxes: how one reactor talks to another, and how any other thread talks to a reactor.

mod channel;

use std::collections::VecDeque;
use std::fmt;

pub(crate) use self::channel::Bell;
pub use self::channel::{Receiver, Sender, mailbox};
use crate::ring;

/// What the channel is made of. `tests/wake_up` puts a model checker's own in its place.
mod sync {
    pub(super) use std::sync::atomic::{AtomicBool, Ordering, fence};
    pub(super) use std::sync::{Arc, OnceLock};

    pub(super) use mio::Waker;
}

/// A [`Sender`] with a backlog, for messages that must not be lost when the mailbox is full.
///
/// The backlog has no bound: it is for messages whose number is bounded by something else (paths, volumes, commands in
/// flight), and its owner calls [`Outbox::flush`] in each turn.
pub struct Outbox<M> {
    sender: Sender<M>,
    backlog: VecDeque<M>,
}

impl<M> Outbox<M> {
    /// An outbox with nothing in it.
    pub fn new(sender: Sender<M>) -> Outbox<M> {
        Outbox {
            sender,
            backlog: VecDeque::new(),
        }
    }

    /// Sends `message` now, or as soon as what was posted before it has been sent.
    pub fn post(&mut self, message: M) {
        if self.flush() {
            if let Err(message) = self.sender.send(message) {
                self.keep(message);
            }
        } else {
            self.keep(message);
        }
    }

    /// Sends as much of the backlog as there is room for, in order. True when nothing is left.
    ///
    /// Messages to a mailbox whose reactor has ended are dropped.
    #[inline]
    pub fn flush(&mut self) -> bool {
        self.backlog.is_empty() || self.send_backlog()
    }

    fn send_backlog(&mut self) -> bool {
        while let Some(message) = self.backlog.pop_front() {
            if let Err(message) = self.sender.send(message) {
                if self.sender.is_closed() {
                    self.backlog.clear();
                    return true;
                }
                self.backlog.push_front(message);
                return false;
            }
        }
        true
    }

    fn keep(&mut self, message: M) {
        if !self.sender.is_closed() {
            self.backlog.push_back(message);
        }
    }
}

impl<M> fmt::Debug for Outbox<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox")
            .field("backlog", &self.backlog.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain<M>(receiver: &mut Receiver<M>) -> Vec<M> {
        std::iter::from_fn(|| receiver.receive()).collect()
    }

    #[test]
    fn a_full_mailbox_gives_the_message_back() {
        let (sender, mut receiver) = mailbox(2);
        assert_eq!(sender.send(1), Ok(()));
        assert_eq!(sender.clone().send(2), Ok(()));
        assert_eq!(sender.send(3), Err(3));
        assert_eq!(receiver.receive(), Some(1));
        assert_eq!(sender.send(4), Ok(()));
        assert_eq!(drain(&mut receiver), [2, 4]);
        assert!(receiver.is_empty());
    }

    #[test]
    fn an_outbox_keeps_what_does_not_fit_in_order() {
        let (sender, mut receiver) = mailbox(2);
        let mut outbox = Outbox::new(sender);
        for n in 0..5 {
            outbox.post(n);
        }
        assert!(!outbox.flush());
        let mut got = drain(&mut receiver);
        // There is room again, but 5 must not overtake the backlog.
        outbox.post(5);
        while got.len() < 6 {
            outbox.flush();
            got.append(&mut drain(&mut receiver));
        }
        assert_eq!(got, [0, 1, 2, 3, 4, 5]);
        assert!(outbox.flush());
    }

    #[test]
    fn messages_to_an_ended_reactor_are_dropped_not_kept() {
        let (sender, receiver) = mailbox(1);
        let (witness, dropped) = std::sync::mpsc::channel::<()>();
        assert!(sender.send(witness.clone()).is_ok());
        let mut outbox = Outbox::new(sender.clone());
        outbox.post(witness.clone());
        assert!(!outbox.flush());
        drop(receiver);
        assert!(sender.is_closed());
        assert!(sender.send(witness.clone()).is_err());
        assert!(outbox.flush());
        outbox.post(witness);
        assert!(outbox.flush());
        // All witnesses are gone, so the channel is disconnected rather than empty.
        assert_eq!(
            dropped.try_recv(),
            Err(std::sync::mpsc::TryRecvError::Disconnected)
        );
    }
}
