//! I/O from any thread: queues between the program's threads and an I/O reactor.
//!
//! A [`Queue`] is to any thread what a [`PollGroup`](crate::PollGroup) is to an application: I/Os are submitted with their
//! buffers, and come back with them. A host has queues if [`Queues`] is its application:
//!
//! ```
//! # use pollux_multipath::target::{self, Backend, NamespaceConfig, SubsystemConfig};
//! # use std::time::Duration;
//! use pollux_multipath::{AttachRequest, Group, Host, Idle, Io, Nqn, Op, Queues, TransportId};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut group = Group::new();
//! let reactor = group.add_reactor(None, Idle::Park { after: Duration::from_micros(50) });
//! # let target = target::install(&mut group, &[reactor]);
//! let host = Host::builder().install(&mut group, Queues::new);
//! let running = group.start()?;
//! # let nqn: Nqn = "nqn.2014-08.org.example:disk1".parse()?;
//! # target.create_subsystem(SubsystemConfig::new(nqn.clone()))?;
//! # target.add_namespace(&nqn, NamespaceConfig::new(Backend::Memory { bytes: 1 << 20 }, 512))?;
//! # let addr = target.add_listener(&nqn, "127.0.0.1:0".parse()?)?;
//! host.attach(AttachRequest::new("disk0", TransportId::new(addr, nqn)))?;
//! let volume = host.volume("disk0n1").info()?.id;
//! let (queue, mut completions) = host.queue(0, 128)?;
//!
//! // Each by itself: a future for any executor, or for this thread to wait for.
//! let write = queue.start(volume, Io::new(Op::Write, 7, 1, vec![b'*'; 512])).map_err(|(_, e)| e)?;
//! let done = write.wait();
//! done.result?;
//!
//! // In turn: from any thread, and taken by one.
//! queue.submit(volume, Io::new(Op::Read, 7, 1, done.io.buffer)).map_err(|(_, e)| e)?;
//! let done = completions.wait(Duration::from_secs(30)).ok_or("nothing has ended")?;
//! done.result?;
//! assert_eq!(done.io.buffer, [b'*'; 512]);
//! # host.shut_down()?;
//! # running.stop();
//! # Ok(())
//! # }
//! ```
//!
//! The contract:
//!
//! * **A queue is as deep as it was made**: so many I/Os have been submitted and not been taken back. What does not fit comes
//!   back with [`SubmitError::Full`], buffer and all. Nothing is ever dropped for want of room.
//! * **Every I/O ends exactly once**, and comes back with its buffer, in the [`Completions`] of its queue or from its
//!   [`Pending`]. What a reactor had not ended when it stopped ends with an error. Only where a reactor has panicked the
//!   buffers of what was under way are gone, and those I/Os come back without.
//! * **A reactor that sleeps is woken once** for all that is submitted until it runs; one that runs is not called at all.
//!   Whoever waits is woken once for all that has ended in a turn, after the last of it.
//! * **Wakers are called on the reactor** and must not block. One that panics harms nobody else.
//! * No lock is taken on either side, and the reactor allocates nothing.

mod ends;
mod pending;
mod reactor;
mod rings;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pollux_reactor::Sender;

pub use self::pending::Pending;
pub use self::reactor::{QueueMessage, Queues};
use self::reactor::{Submission, Told, Which};
use self::rings::{Rings, Ticket};
use crate::command::{Completion, Io};
use crate::error::{HostError, SubmitError};
use crate::ids::VolumeId;
use crate::io::IoMessage;
use crate::wait::{self, Event};

/// What rings are made of. `tests/queue_model` puts a model checker's own in its place.
mod sync {
    use std::cell::UnsafeCell;
    pub(super) use std::sync::atomic::{
        AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicUsize, Ordering, fence,
    };

    pub(super) use atomic_waker::AtomicWaker;
    pub(super) use crossbeam_queue::ArrayQueue as Ring;

    /// What one thread at a time may touch.
    pub(super) struct Cell<T>(UnsafeCell<T>);

    impl<T> Cell<T> {
        pub(super) fn new(value: T) -> Self {
            Self(UnsafeCell::new(value))
        }

        pub(super) fn with_mut<R>(&self, touch: impl FnOnce(*mut T) -> R) -> R {
            touch(self.0.get())
        }
    }
}

/// I/Os that all queues of one reactor may have together: what is meant for the reactor besides, from control above all, has
/// room in its mailbox whatever they do.
pub(crate) const DEPTH_MAX: usize = 4096;

/// Submits I/O to one I/O reactor, from any thread; clones are the same queue. Made by [`Host::queue`](crate::Host::queue).
#[derive(Clone)]
pub struct Queue(Arc<Shared>);

/// The I/Os of a [`Queue`] that have ended, but for those that have a [`Pending`]. Dropped, they are dropped as they end.
pub struct Completions {
    queue: Arc<Shared>,
    /// Made when it is asked for.
    event: Option<Event>,
}

/// What lies at the place of an I/O: the one that is to go to the reactor, or the one that has ended.
enum Carried {
    There(There),
    Back(End),
}

/// An I/O on its way to the reactor.
struct There {
    io: Io,
    volume: VolumeId,
    limit: Option<Duration>,
    /// Its end is waited for by itself, and not taken in turn.
    is_awaited: bool,
}

/// An I/O that has ended.
struct End {
    done: Completion,
    /// What the I/O has kept the queue by. Whoever takes the end drops it, and not the reactor: the thread that counts it
    /// down is mostly the one that has counted it up, and need not wait for another core to give the count away.
    _queue: Option<Arc<Shared>>,
}

impl Carried {
    fn done(self) -> Completion {
        match self {
            Self::Back(end) => end.done,
            Self::There(_) => unreachable!("the end of an I/O that has not ended was told"),
        }
    }

    fn there(self) -> There {
        match self {
            Self::There(there) => there,
            Self::Back(_) => unreachable!("an I/O that has ended was sent"),
        }
    }
}

/// A queue, as its ends and its I/Os know it.
struct Shared {
    rings: Rings<Carried>,
    reactor: Sender<IoMessage<QueueMessage>>,
    depth: usize,
    /// What the queues of the reactor have together.
    depth_of_all: Arc<AtomicUsize>,
}

/// Makes a queue; `depth_of_all` counts what the queues of the reactor have together.
pub(crate) fn queue(
    depth: usize,
    reactor: &Sender<IoMessage<QueueMessage>>,
    depth_of_all: &Arc<AtomicUsize>,
) -> Result<(Queue, Completions), HostError> {
    let places = u16::try_from(depth).unwrap_or(u16::MAX);
    if depth == 0 || depth > DEPTH_MAX {
        return Err(HostError::Invalid(
            "depth of a queue: 1 to 4,096 are allowed",
        ));
    }
    if reactor.is_closed() {
        return Err(HostError::Cancelled("the host has stopped"));
    }
    if depth_of_all.fetch_add(depth, Ordering::Relaxed) + depth > DEPTH_MAX {
        depth_of_all.fetch_sub(depth, Ordering::Relaxed);
        return Err(HostError::Invalid(
            "depth of a queue: all queues of one I/O reactor together may have 4,096",
        ));
    }
    let queue = Arc::new(Shared {
        rings: Rings::new(places),
        reactor: reactor.clone(),
        depth,
        depth_of_all: Arc::clone(depth_of_all),
    });
    let completions = Completions {
        queue: Arc::clone(&queue),
        event: None,
    };
    Ok((Queue(queue), completions))
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.depth_of_all.fetch_sub(self.depth, Ordering::Relaxed);
    }
}

impl Queue {
    /// Submits an I/O that comes back in the queue's [`Completions`]. Never blocks.
    ///
    /// # Errors
    /// The I/O with [`SubmitError::Full`] or [`SubmitError::Stopped`]. What else may be wrong with it is found on the
    /// reactor: then it ends with [`IoError::Refused`](crate::IoError::Refused).
    pub fn submit(&self, volume: VolumeId, io: Io) -> Result<(), (Io, SubmitError)> {
        self.send(volume, io, None, false).map(drop)
    }

    /// As [`submit`](Self::submit), with a deadline as of
    /// [`PollGroup::submit_within`](crate::PollGroup::submit_within), from when the reactor has the I/O.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn submit_within(
        &self,
        volume: VolumeId,
        io: Io,
        limit: Duration,
    ) -> Result<(), (Io, SubmitError)> {
        self.send(volume, io, Some(limit), false).map(drop)
    }

    /// Submits an I/O that is waited for by itself. It is under way from now on, whether it is awaited or not. Never blocks.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn start(&self, volume: VolumeId, io: Io) -> Result<Pending, (Io, SubmitError)> {
        let ticket = self.send(volume, io, None, true)?;
        Ok(Pending::new(self.clone(), volume, ticket))
    }

    /// As [`start`](Self::start), with a deadline as of [`submit_within`](Self::submit_within).
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn start_within(
        &self,
        volume: VolumeId,
        io: Io,
        limit: Duration,
    ) -> Result<Pending, (Io, SubmitError)> {
        let ticket = self.send(volume, io, Some(limit), true)?;
        Ok(Pending::new(self.clone(), volume, ticket))
    }

    /// Aborts the first I/O of this queue on the volume with this [`Io::user`], as
    /// [`PollGroup::abort`](crate::PollGroup::abort). It ends in any case, aborted or done.
    ///
    /// # Errors
    /// [`SubmitError::Full`], if it can be tried again, and [`SubmitError::Stopped`].
    pub fn abort(&self, volume: VolumeId, user: u64) -> Result<(), SubmitError> {
        self.tell_abort(volume, Which::User(user))
    }

    /// How many I/Os it has room for altogether.
    pub fn depth(&self) -> usize {
        self.0.depth
    }

    #[expect(
        unsafe_code,
        reason = "an I/O is written to the place that was taken for it"
    )]
    fn send(
        &self,
        volume: VolumeId,
        io: Io,
        limit: Option<Duration>,
        is_awaited: bool,
    ) -> Result<Ticket, (Io, SubmitError)> {
        if self.0.reactor.is_closed() {
            return Err((io, SubmitError::Stopped));
        }
        let Some(ticket) = self.0.rings.take_place() else {
            return Err((io, SubmitError::Full));
        };
        let place = ticket.place;
        let there = There {
            io,
            volume,
            limit,
            is_awaited,
        };
        // SAFETY: the place was just taken, for this I/O alone. Held by `tests/queue_model`.
        unsafe { self.0.rings.write(place, Carried::There(there)) };
        match self.tell(Told::Submit(Submission::new(Arc::clone(&self.0), place))) {
            Ok(()) => Ok(ticket),
            Err((Told::Submit(submission), error)) => {
                let (_, there) = submission.take();
                self.0.rings.give_back(place);
                Err((there.io, error))
            }
            Err((Told::Abort { .. }, _)) => unreachable!("a submission was sent"),
        }
    }

    fn tell_abort(&self, volume: VolumeId, which: Which) -> Result<(), SubmitError> {
        let queue = Arc::clone(&self.0);
        let abort = Told::Abort {
            queue,
            volume,
            which,
        };
        self.tell(abort).map_err(|(_, error)| error)
    }

    fn tell(&self, told: Told) -> Result<(), (Told, SubmitError)> {
        let message = IoMessage::application(QueueMessage(told));
        let sent = self.0.reactor.send(message);
        sent.map_err(|message| {
            let error = match self.0.reactor.is_closed() {
                true => SubmitError::Stopped,
                false => SubmitError::Full,
            };
            (message.into_application().0, error)
        })
    }
}

impl Completions {
    /// The next I/O that has ended, if one has.
    pub fn next_completion(&mut self) -> Option<Completion> {
        let Some(event) = &self.event else {
            return self.queue.rings.take(&mut Waker::wake).map(Carried::done);
        };
        let end = self.queue.rings.take(&mut Waker::wake).or_else(|| {
            event.clear();
            self.queue
                .rings
                .take_or_wait(event.waker(), &mut Waker::wake)
        });
        end.map(Carried::done)
    }

    /// Blocks until an I/O has ended, at most for so long. Not to be called on a reactor.
    ///
    /// The thread looks for it for up to 50 us before it sleeps, if that was not in vain lately: to wake it would take the
    /// reactor's time.
    pub fn wait(&mut self, limit: Duration) -> Option<Completion> {
        if let Some(end) = self.queue.rings.take(&mut Waker::wake) {
            return Some(end.done());
        }
        if let Some(end) = wait::watch(limit, || self.queue.rings.take(&mut Waker::wake)) {
            return Some(end.done());
        }
        wait::wait_for(limit, |waker| {
            let end = self.queue.rings.take_or_wait(waker, &mut Waker::wake);
            end.map_or(Poll::Pending, |end| Poll::Ready(end.done()))
        })
    }

    /// The next I/O that has ended; if there is none, the task is woken when there may be. One task awaits them at a time.
    ///
    /// ```no_run
    /// # async fn example(mut completions: pollux_multipath::Completions) {
    /// let done = std::future::poll_fn(|cx| completions.poll_completion(cx)).await;
    /// # }
    /// ```
    pub fn poll_completion(&mut self, cx: &mut Context<'_>) -> Poll<Completion> {
        match self.queue.rings.take_or_wait(cx.waker(), &mut Waker::wake) {
            Some(end) => Poll::Ready(end.done()),
            None => Poll::Pending,
        }
    }

    /// Hands over the ends of I/Os that have a [`Pending`], for as long as it is polled; what is taken in turn is dropped.
    ///
    /// Spawned on the executor on which those are awaited, it has the reactor wake one task for all that has ended in a turn,
    /// and wakes the others there, which is cheaper. While I/Os end, it keeps the executor from sleeping, as
    /// [`wait`](Self::wait) does the thread. I/Os that are awaited elsewhere wait for that executor then.
    ///
    /// ```no_run
    /// # async fn example(completions: pollux_multipath::Completions) {
    /// tokio::spawn(completions.deliver());
    /// # }
    /// ```
    pub async fn deliver(self) {
        self.queue.rings.deliver();
        let mut watch = wait::Watch::default();
        poll_fn(|cx| {
            let wake = &mut |waker: Waker| {
                watch.has_found();
                waker.wake();
            };
            while self.queue.rings.take(wake).is_some() {}
            if watch.goes_on(Duration::MAX) {
                cx.waker().wake_by_ref();
            } else {
                while self
                    .queue
                    .rings
                    .take_or_wait(cx.waker(), &mut Waker::wake)
                    .is_some()
                {}
            }
            Poll::<()>::Pending
        })
        .await;
    }

    /// A descriptor (eventfd) for an event loop: it is readable when there may be something to take, and stays so until
    /// [`next_completion`](Self::next_completion) has said that there is nothing, which clears it. It is written to once
    /// between two such answers; nobody else needs to read it.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub fn event_fd(&mut self) -> io::Result<BorrowedFd<'_>> {
        Event::of(&mut self.event)
    }
}

impl Drop for Completions {
    fn drop(&mut self) {
        let wake = &mut |waker: Waker| wait::call(|| waker.wake());
        self.queue.rings.taker_goes(wake);
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("depth", &self.0.depth)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Completions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completions")
            .field("event", &self.event)
            .finish_non_exhaustive()
    }
}
