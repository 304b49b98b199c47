//! The threads of a file disk: they do the calls that block.
//!
//! A channel hands in a [`Job`]; its answer goes back to that channel. There are a few threads for each disk, started when
//! there is more to do than those that there are have taken on, so that a slow disk keeps nobody waiting but its own
//! users, and one slow call of it not all others. Flushes that wait together are one system call, and long zeroing goes on
//! in steps between other jobs.
//!
//! A process may be stopped for so long that its hosts have turned elsewhere, and its threads be the first to run again. So
//! they change nothing for a reactor that has not looked at the disk for a while: they hand the I/O back, and do it if the
//! reactor hands it in again, which knows by then whose time is over. What a thread has begun it ends.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::Duration;

use crossbeam_queue::SegQueue;
use pollux_reactor::Time;

use super::open_file::{OpenFile, Step};
use crate::spec::status::Status;
use crate::target::disk::{Done, Io, Op, Waker};

/// Most threads of one disk.
const THREADS_MAX: usize = 4;

/// A reactor that has not looked for longer has to be asked. Leases are longer by this, at most.
const STILL: Duration = Duration::from_millis(20);

/// The sign of an I/O that nobody waits for it any more: what it has not done yet is left undone.
pub(super) type Cancelled = Arc<AtomicBool>;

/// Where a channel finds its answers.
#[derive(Debug)]
pub(super) struct Answers {
    done: SegQueue<Done>,
    /// I/Os of which it is not known whether they are still wanted.
    asked: SegQueue<(Io, Cancelled)>,
    /// When the channel looked last, in nanoseconds.
    looked: AtomicU64,
    waker: Waker,
}

impl Answers {
    pub(super) fn new(waker: Waker) -> Self {
        Self {
            done: SegQueue::new(),
            asked: SegQueue::new(),
            looked: AtomicU64::new(0),
            waker,
        }
    }

    /// The channel looks: what is cancelled by now has its sign.
    pub(super) fn look(&self, now: Time) {
        self.looked.store(now.as_nanos(), Ordering::Relaxed);
    }

    pub(super) fn next_asked(&self) -> Option<(Io, Cancelled)> {
        self.asked.pop()
    }

    fn stands_still(&self) -> bool {
        let looked = Time::from_nanos(self.looked.load(Ordering::Relaxed));
        Time::read_clock().saturating_since(looked) > STILL
    }

    fn ask(&self, io: Io, cancelled: Cancelled) {
        self.asked.push((io, cancelled));
        self.waker.wake();
    }

    pub(super) fn next(&self) -> Option<Done> {
        self.done.pop()
    }

    fn put(&self, done: Done) {
        self.done.push(done);
        self.waker.wake();
    }
}

/// An I/O for the threads.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) io: Io,
    pub(super) file: Arc<OpenFile>,
    pub(super) cancelled: Cancelled,
    pub(super) answers: Arc<Answers>,
}

impl Job {
    fn answer(self, result: Result<(), Status>) {
        let Self {
            io, file, answers, ..
        } = self;
        // The disk may be gone but for this job; it is closed before anybody hears that the job is done.
        drop(file);
        answers.put(io.done(result));
    }
}

/// A thread, if it was started.
#[derive(Default)]
struct Worker {
    state: AtomicU8,
    thread: OnceLock<Thread>,
}

/// The states of a thread.
mod state {
    pub(super) const NONE: u8 = 0;
    /// The thread looks for work before it sleeps.
    pub(super) const AWAKE: u8 = 1;
    /// The thread sleeps, or is about to.
    pub(super) const ASLEEP: u8 = 2;
}

impl Worker {
    /// Makes it awake if it was in this state, for one of those who try.
    fn claim(&self, from: u8) -> bool {
        let (state, relaxed) = (&self.state, Ordering::Relaxed);
        state.load(relaxed) == from
            && state
                .compare_exchange(from, state::AWAKE, Ordering::AcqRel, relaxed)
                .is_ok()
    }
}

#[derive(Default)]
struct Shared {
    jobs: SegQueue<Job>,
    /// Jobs for which nothing but a sync is missing.
    syncs: SegQueue<Job>,
    /// A thread syncs; what comes meanwhile waits for the next one.
    syncing: AtomicBool,
    threads: [Worker; THREADS_MAX],
    closed: AtomicBool,
}

impl Shared {
    /// Does what there is to do; returns when nothing is left that this thread could do.
    fn work(&self) {
        loop {
            if self.sync() {
                continue;
            }
            let Some(job) = self.jobs.pop() else {
                return;
            };
            self.step(job);
        }
    }

    /// Answers all that only a sync is missing for, by one. Returns whether there was any.
    fn sync(&self) -> bool {
        if self.syncs.is_empty() || self.syncing.swap(true, Ordering::Acquire) {
            return false;
        }
        let mut waiting = Vec::new();
        while let Some(job) = self.syncs.pop() {
            waiting.push(job);
        }
        let result = waiting.first().map_or(Ok(()), |job| job.file.sync());
        self.syncing.store(false, Ordering::Release);
        for job in waiting {
            job.answer(result);
        }
        true
    }

    fn step(&self, mut job: Job) {
        // A flush that nobody waits for does no harm, and is one with those that somebody waits for.
        if job.cancelled.load(Ordering::Relaxed) && job.io.op != Op::Flush {
            job.answer(Err(Status::ABORTED_BY_REQUEST));
            return;
        }
        if job.io.op.changes_data() && job.answers.stands_still() {
            let Job {
                io,
                file,
                cancelled,
                answers,
            } = job;
            drop(file);
            answers.ask(io, cancelled);
            return;
        }
        match job.file.step(&mut job.io) {
            Ok(Step::More) => self.jobs.push(job),
            Ok(Step::Sync) => self.syncs.push(job),
            Ok(Step::Finished) => job.answer(Ok(())),
            Err(status) => job.answer(Err(status)),
        }
    }

    fn has_work(&self) -> bool {
        let syncs = !self.syncs.is_empty() && !self.syncing.load(Ordering::Acquire);
        syncs || !self.jobs.is_empty()
    }

    fn run(&self, worker: &Worker) {
        pollux_reactor::leave_core();
        worker.thread.get_or_init(thread::current);
        loop {
            self.work();
            worker.state.store(state::ASLEEP, Ordering::Release);
            // Either the submitter sees that this thread sleeps, or this thread sees the job.
            fence(Ordering::SeqCst);
            if self.has_work() {
                worker.claim(state::ASLEEP);
                continue;
            }
            while worker.state.load(Ordering::Acquire) == state::ASLEEP {
                if self.closed.load(Ordering::Acquire) {
                    return;
                }
                thread::park();
            }
        }
    }
}

/// The threads, and the way to them.
#[derive(Default)]
pub(super) struct Workers {
    shared: Arc<Shared>,
}

impl Workers {
    /// Has a job done. Where no thread can be had it is done here.
    pub(super) fn submit(&self, job: Job) {
        self.shared.jobs.push(job);
        fence(Ordering::SeqCst);
        let workers = &self.shared.threads;
        if let Some(worker) = workers.iter().find(|worker| worker.claim(state::ASLEEP)) {
            if let Some(thread) = worker.thread.get() {
                thread.unpark();
            }
            return;
        }
        let new = workers.iter().position(|worker| worker.claim(state::NONE));
        if let Some(at) = new
            && !self.start(at)
            && at == 0
        {
            self.shared.work();
        }
    }

    /// Starts the thread of this place.
    fn start(&self, at: usize) -> bool {
        let shared = Arc::clone(&self.shared);
        let run = move || {
            if let Some(worker) = shared.threads.get(at) {
                shared.run(worker);
            }
        };
        let started = thread::Builder::new().name("pollux-disk".into()).spawn(run);
        if let Err(error) = &started {
            log::warn!(
                target: crate::target::LOG_FLAG,
                "no thread for a disk ({error}): its I/O may keep others waiting"
            );
            if let Some(worker) = self.shared.threads.get(at) {
                worker.state.store(state::NONE, Ordering::Release);
            }
        }
        started.is_ok()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        let threads = self.shared.threads.iter();
        threads
            .filter_map(|worker| worker.thread.get())
            .for_each(Thread::unpark);
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers")
            .field("waiting", &self.shared.jobs.len())
            .finish_non_exhaustive()
    }
}
