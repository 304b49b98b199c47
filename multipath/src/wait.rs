//! How a thread waits for a waker's call, asleep or by a descriptor in an event loop of its own, and how a reactor calls one.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use crate::LOG_FLAG;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

thread_local! {
    static UNPARK: Waker = Waker::from(Arc::new(Unpark(thread::current())));
    static WATCH: Cell<Watch> = const { Cell::new(Watch::NEW) };
}

/// How long a thread looks for what it waits for before it sleeps: longer than a turn of a busy reactor, which would have to
/// wake it in each.
const WATCH_TIME: Duration = Duration::from_micros(50);
/// Looks between two at the clock.
const LOOKS: usize = 32;
/// A thread that has looked in vain sleeps at once the next time, then the next three times, and so on up to this.
const PASSED_MAX: u8 = 63;

/// Whether it is worth a thread's while to look.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Watch {
    /// Until when it looks, while it does.
    until: Option<Instant>,
    /// How often it sleeps at once after it has looked in vain again.
    futile: u8,
    /// How often it does so from now on.
    passed: u8,
}

impl Watch {
    const NEW: Self = Self {
        until: None,
        futile: 0,
        passed: 0,
    };

    /// What was looked for is there.
    pub fn has_found(&mut self) {
        if self.until.take().is_some() {
            (self.futile, self.passed) = (0, 0);
        }
    }

    /// It is not there: whether to look again, and not to sleep, for which there would be so long.
    pub fn goes_on(&mut self, limit: Duration) -> bool {
        if self.passed > 0 {
            self.passed -= 1;
            return false;
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "threads that are no reactors go by the system's clock"
        )]
        let now = Instant::now();
        let until = *self.until.get_or_insert(now + limit.min(WATCH_TIME));
        if now < until {
            return true;
        }
        self.until = None;
        self.futile = (self.futile * 2 + 1).min(PASSED_MAX);
        self.passed = self.futile;
        false
    }
}

/// Looks for a while for something that may be there soon, unless that was in vain lately.
pub(crate) fn watch<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let mut watch = WATCH.get();
    let mut found = look();
    while found.is_none() && watch.goes_on(limit) {
        found = (0..LOOKS).find_map(|_| {
            std::hint::spin_loop();
            look()
        });
    }
    if found.is_some() {
        watch.has_found();
    }
    WATCH.set(watch);
    found
}

/// The waker that ends [`thread::park`] of the calling thread.
fn thread_waker() -> Waker {
    UNPARK.with(Waker::clone)
}

/// Blocks the calling thread until the future is there.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
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

/// Blocks the calling thread until `take` has something, at most for so long. What it has not is there when the waker that it
/// is given is woken.
pub(crate) fn wait_for<T>(limit: Duration, mut take: impl FnMut(&Waker) -> Poll<T>) -> Option<T> {
    #[expect(
        clippy::disallowed_methods,
        reason = "threads that are no reactors go by the system's clock"
    )]
    let now = Instant::now;
    // A limit beyond what the clock can tell is none.
    let end = now().checked_add(limit);
    let waker = thread_waker();
    loop {
        if let Poll::Ready(taken) = take(&waker) {
            return Some(taken);
        }
        match end {
            None => thread::park(),
            Some(end) => {
                let left = end.saturating_duration_since(now());
                if left.is_zero() {
                    return None;
                }
                thread::park_timeout(left);
            }
        }
    }
}

/// Calls what is a waker's, and outlives it if it panics: it is its owner's, and the reactor is everybody's.
pub(crate) fn call(wake: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(wake)) {
        // What it has panicked with might panic as well when it is dropped.
        std::mem::forget(panic);
        log::error!(target: LOG_FLAG, "a waker that a reactor has called has panicked");
    }
}

/// A descriptor that is readable from a waker's call on, until it is cleared.
#[derive(Debug)]
pub(crate) struct Event {
    fd: Arc<EventFd>,
    waker: Waker,
}

#[derive(Debug)]
struct EventFd(OwnedFd);

impl Event {
    fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let fd = Arc::new(EventFd(fd));
        let waker = Waker::from(Arc::clone(&fd));
        Ok(Self { fd, waker })
    }

    /// The descriptor of what is waited for, which is made when it is asked for first.
    pub fn of(event: &mut Option<Self>) -> io::Result<BorrowedFd<'_>> {
        let made = match event.take() {
            Some(made) => made,
            None => {
                let made = Self::new()?;
                // What is there already is told by the first look.
                made.waker().wake_by_ref();
                made
            }
        };
        Ok(event.insert(made).fd())
    }

    /// What makes it readable.
    pub fn waker(&self) -> &Waker {
        &self.waker
    }

    pub fn clear(&self) {
        // It fails if there was nothing to clear.
        let _ = rustix::io::read(&self.fd.0, &mut [0; 8]);
    }

    fn fd(&self) -> BorrowedFd<'_> {
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
