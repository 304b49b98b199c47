//! Mailboxes: how one reactor talks to another, and how any other thread talks to a reactor.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, OnceLock};

use crate::ring::Ring;

/// What a sender needs in order to wake the reactor that a mailbox belongs to. One per reactor.
#[derive(Debug)]
pub(crate) struct Bell {
    /// The reactor has announced that it is about to block, or is blocked, in its event poll.
    sleeping: AtomicBool,
    /// The reactor has been asked from outside to stop.
    stop: AtomicBool,
    waker: mio::Waker,
}

impl Bell {
    pub(crate) fn new(waker: mio::Waker) -> Bell {
        Bell {
            sleeping: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            waker,
        }
    }

    /// Announces a sleep. The caller must look at its mailboxes once more after this and before it blocks: a message
    /// that was put before the announcement rings no bell.
    pub(crate) fn announce_sleep(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        // Pairs with the fence in `ring`: either the sender sees the flag, or the reactor sees the message.
        fence(Ordering::SeqCst);
    }

    pub(crate) fn awake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// Wakes the reactor if it sleeps. What it is woken for was put before, and a `SeqCst` fence stands between.
    pub(crate) fn ring(&self) {
        // The plain load keeps the line shared while the reactor runs; only one of several senders pays the wake-up.
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::Relaxed) {
            self.wake();
        }
    }

    pub(crate) fn request_stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
    }

    pub(crate) fn stop_requested(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn wake(&self) {
        // An event descriptor fails only when its counter is full, and then the reactor is being woken already.
        let _ = self.waker.wake();
    }
}

struct Shared<M> {
    ring: Ring<M>,
    /// The receiving end is gone: what is sent now would never be read.
    closed: AtomicBool,
    bell: OnceLock<Arc<Bell>>,
}

impl<M> Shared<M> {
    fn drain(&self) {
        while self.ring.pop().is_some() {}
    }
}

/// Makes a mailbox for at most `capacity` messages (at least 1), all of them allocated now.
///
/// It can be made and filled before the reactor it will live on is started.
pub fn mailbox<M: Send + 'static>(capacity: usize) -> (Sender<M>, Receiver<M>) {
    let shared = Arc::new(Shared {
        ring: Ring::new(capacity),
        closed: AtomicBool::new(false),
        bell: OnceLock::new(),
    });
    (
        Sender {
            shared: Arc::clone(&shared),
        },
        Receiver { shared },
    )
}

/// The sending end of a mailbox. Clones send to the same mailbox.
pub struct Sender<M> {
    shared: Arc<Shared<M>>,
}

impl<M> Sender<M> {
    /// Puts a message into the mailbox and wakes the reactor if it is parked. Never blocks.
    ///
    /// Messages of one sender arrive in the order in which they were sent.
    ///
    /// # Errors
    ///
    /// Gives the message back when the mailbox is full, or when its reactor has ended ([`Sender::is_closed`]).
    /// [`Outbox`] keeps such messages until there is room.
    pub fn send(&self, message: M) -> Result<(), M> {
        if self.is_closed() {
            return Err(message);
        }
        self.shared.ring.push(message)?;
        // Pairs with the fences in `Bell::announce_sleep` and in the receiver's drop.
        fence(Ordering::SeqCst);
        if self.is_closed() {
            // The receiver went away meanwhile and may have drained the ring before this message was in it. Whoever
            // waits for an answer must see its message dropped, so that it does not wait for ever.
            self.shared.drain();
        } else if let Some(bell) = self.shared.bell.get() {
            bell.ring();
        }
        Ok(())
    }

    /// Whether the receiving end is gone, with its reactor or before it ever ran. It never comes back.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }
}

impl<M> Clone for Sender<M> {
    fn clone(&self) -> Sender<M> {
        Sender {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<M> fmt::Debug for Sender<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

/// The receiving end of a mailbox: handed to the executor together with the service that will read it.
///
/// Dropping it drops the messages that were not read.
pub struct Receiver<M> {
    shared: Arc<Shared<M>>,
}

impl<M> Receiver<M> {
    /// Says which reactor a sender has to wake.
    pub(crate) fn bind(&self, bell: &Arc<Bell>) {
        let bound = self.shared.bell.set(Arc::clone(bell));
        assert!(bound.is_ok(), "a receiver has one seat, and is bound once");
    }

    pub(crate) fn receive(&mut self) -> Option<M> {
        self.shared.ring.pop()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.shared.ring.is_empty()
    }
}

impl<M> Drop for Receiver<M> {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        self.shared.drain();
    }
}

impl<M> fmt::Debug for Receiver<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
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
