//! The two ends of a mailbox, and the bell that wakes a reactor which sleeps. `tests/wake_up` has all orders of their steps
//! tried.

use std::fmt;

use super::ring::Ring;
use super::sync::{Arc, AtomicBool, OnceLock, Ordering, Waker, fence};

/// What a sender needs in order to wake the reactor that a mailbox belongs to. One per reactor.
#[derive(Debug)]
pub(crate) struct Bell {
    /// The reactor has announced that it is about to block, or is blocked, in its event poll.
    sleeping: AtomicBool,
    /// The reactor has been asked from outside to stop.
    stop: AtomicBool,
    waker: Waker,
}

impl Bell {
    pub(crate) fn new(waker: Waker) -> Bell {
        Bell {
            sleeping: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            waker,
        }
    }

    /// Has the reactor sleep, which is what `sleep` does, unless it has something to do: what was put before the sleep was
    /// announced rings no bell.
    pub(crate) fn sleep_unless(&self, is_ready: impl FnOnce() -> bool, sleep: impl FnOnce()) {
        self.sleeping.store(true, Ordering::Relaxed);
        // Pairs with the fence before `ring`: either the sender sees the flag, or the reactor sees the message.
        fence(Ordering::SeqCst);
        if !is_ready() && !self.stop_requested() {
            sleep();
        }
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
    /// [`Outbox`](crate::Outbox) keeps such messages until there is room.
    pub fn send(&self, message: M) -> Result<(), M> {
        if self.is_closed() {
            return Err(message);
        }
        self.shared.ring.push(message)?;
        // Pairs with the fences in `Bell::sleep_unless` and in the receiver's drop.
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
