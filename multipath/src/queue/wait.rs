//! How a thread waits for a waker's call: asleep, or by a descriptor in an event loop of its own.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use rustix::event::{EventfdFlags, eventfd};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

thread_local! {
    static UNPARK: Waker = Waker::from(Arc::new(Unpark(thread::current())));
}

/// The waker that ends [`thread::park`] of the calling thread.
pub(super) fn thread_waker() -> Waker {
    UNPARK.with(Waker::clone)
}

/// Blocks the calling thread until the future is there.
pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    let waker = thread_waker();
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// A descriptor that is readable from a waker's call on, until it is cleared.
#[derive(Debug)]
pub(super) struct Event {
    fd: Arc<EventFd>,
    waker: Waker,
}

#[derive(Debug)]
struct EventFd(OwnedFd);

impl Event {
    pub fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let fd = Arc::new(EventFd(fd));
        let waker = Waker::from(Arc::clone(&fd));
        Ok(Self { fd, waker })
    }

    /// What makes it readable.
    pub fn waker(&self) -> &Waker {
        &self.waker
    }

    pub fn clear(&self) {
        // It fails if there was nothing to clear.
        let _ = rustix::io::read(&self.fd.0, &mut [0; 8]);
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.0.as_fd()
    }
}

impl Wake for EventFd {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // It fails only when its counter is full, and then it is readable.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}
