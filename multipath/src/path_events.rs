//! What happens to paths, for whoever has subscribed to it.
//!
//! Control puts each event into the subscription's ring, and its subscriber takes it there, on whichever thread. A ring
//! is bounded: where it is full the oldest event makes room for the newest, and is counted. So a subscriber that does not
//! take anything costs the host its ring and nothing more, and one that comes back late finds what is new.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use atomic_waker::AtomicWaker;
use crossbeam_queue::ArrayQueue;

use crate::error::HostError;
use crate::status::PathEvent;
use crate::wait::{self, Event};

const CAPACITY_MAX: usize = 65_536;

/// What happens to the paths of a host's volumes, in the order in which control sees it. Made by
/// [`Host::path_events`](crate::Host::path_events) for any thread, and by
/// [`PollGroup::path_events`](crate::PollGroup::path_events) for an application on a reactor. Dropped, it is no more.
///
/// Events are taken without waiting, by a thread that waits, by a task, or by an event loop with a descriptor; one of these at
/// a time. An application on a reactor looks in its turn:
///
/// ```no_run
/// use pollux_multipath::{Application, Context, PathEvents, PollGroup, Progress};
///
/// struct Watcher(Option<PathEvents>);
///
/// impl Application for Watcher {
///     type Message = ();
///
///     fn on_message(&mut self, (): (), _: &mut PollGroup, _: &mut Context<'_>) {}
///
///     fn poll(&mut self, group: &mut PollGroup, _: &mut Context<'_>) -> Progress {
///         let events = self
///             .0
///             .get_or_insert_with(|| group.path_events(64).expect("a capacity that is allowed"));
///         let mut progress = Progress::Idle;
///         while let Some(event) = events.next_event() {
///             println!("{} {}: {}", event.name, event.transport.addr, event.kind);
///             progress = Progress::Busy;
///         }
///         progress
///     }
/// }
/// ```
pub struct PathEvents {
    ring: Arc<Ring>,
    /// Made when it is asked for.
    event: Option<Event>,
}

/// Control's end of a subscription; with it the subscription is closed.
pub(crate) struct Publisher(Arc<Ring>);

struct Ring {
    events: ArrayQueue<PathEvent>,
    dropped: AtomicU64,
    is_closed: AtomicBool,
    taker: AtomicWaker,
}

/// Makes a subscription.
pub(crate) fn subscription(capacity: usize) -> Result<(Publisher, PathEvents), HostError> {
    if capacity == 0 || capacity > CAPACITY_MAX {
        return Err(HostError::Invalid(
            "capacity for path events: 1 to 65,536 are allowed",
        ));
    }
    let ring = Arc::new(Ring {
        events: ArrayQueue::new(capacity),
        dropped: AtomicU64::new(0),
        is_closed: AtomicBool::new(false),
        taker: AtomicWaker::new(),
    });
    let events = PathEvents {
        ring: Arc::clone(&ring),
        event: None,
    };
    Ok((Publisher(ring), events))
}

impl Publisher {
    /// Nobody takes events any more.
    pub fn is_unused(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// Puts an event; [`wake`](Self::wake) follows the last of several.
    pub fn put(&self, event: PathEvent) {
        if self.0.events.force_push(event).is_some() {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn wake(&self) {
        if let Some(waker) = self.0.taker.take() {
            wait::call(|| waker.wake());
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.0.is_closed.store(true, Ordering::Release);
        self.wake();
    }
}

impl Ring {
    /// The next event, or `None` if none is to come; pending, the waker is woken when there may be one.
    fn take_or_wait(&self, waker: &Waker) -> Poll<Option<PathEvent>> {
        if let Some(event) = self.events.pop() {
            return Poll::Ready(Some(event));
        }
        self.taker.register(waker);
        // Asked first: what was put before the end is taken before it is told.
        let is_closed = self.is_closed.load(Ordering::Acquire);
        match self.events.pop() {
            None if !is_closed => Poll::Pending,
            taken => Poll::Ready(taken),
        }
    }
}

impl PathEvents {
    /// The next event, if there is one.
    pub fn next_event(&mut self) -> Option<PathEvent> {
        // Asked for in every turn of a reactor, and mostly there is none: two loads say so.
        if !self.ring.events.is_empty() {
            return self.ring.events.pop();
        }
        let event = self.event.as_ref()?;
        event.clear();
        match self.ring.take_or_wait(event.waker()) {
            Poll::Ready(taken) => taken,
            Poll::Pending => None,
        }
    }

    /// Blocks until there is an event, at most for so long; `None` also if none is to come. Not to be called on a reactor.
    pub fn wait(&mut self, limit: Duration) -> Option<PathEvent> {
        wait::wait_for(limit, |waker| self.ring.take_or_wait(waker)).flatten()
    }

    /// The next event, or `None` if none is to come; if there is none yet, the task is woken when there may be.
    ///
    /// ```no_run
    /// # async fn example(mut events: pollux_multipath::PathEvents) {
    /// while let Some(event) = std::future::poll_fn(|cx| events.poll_event(cx)).await {
    ///     println!("{} {}: {}", event.name, event.transport.addr, event.kind);
    /// }
    /// # }
    /// ```
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<PathEvent>> {
        self.ring.take_or_wait(cx.waker())
    }

    /// A descriptor (eventfd) for an event loop: it is readable when there may be something to take, and stays so until
    /// [`next_event`](Self::next_event) has said that there is nothing, which clears it.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub fn event_fd(&mut self) -> io::Result<BorrowedFd<'_>> {
        Event::of(&mut self.event)
    }

    /// How many events were dropped so far because they were not taken in time. The volumes' status still has what the paths
    /// are like, and the latest events of each.
    pub fn dropped(&self) -> u64 {
        self.ring.dropped.load(Ordering::Relaxed)
    }

    /// Whether the host has stopped. What happened before can still be taken.
    pub fn is_closed(&self) -> bool {
        self.ring.is_closed.load(Ordering::Acquire)
    }
}

impl fmt::Debug for PathEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PathEvents")
            .field("len", &self.ring.events.len())
            .field("dropped", &self.dropped())
            .field("is_closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Publisher")
    }
}
