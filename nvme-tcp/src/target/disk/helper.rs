//! What takes longer than a turn of a reactor may: it is done by a thread that the disk has for it.
//!
//! A reactor hands in a [`Job`]; the answer comes back as a message. Each disk has its own thread, started for its first
//! job, so that a slow disk keeps nobody waiting but its own users. Syncs that wait together are one system call, and long
//! zeroing goes on in steps between them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};

use crossbeam_queue::SegQueue;
use pollux_reactor::Sender;

use super::{Store, sys};
use crate::spec::status::Status;
use crate::target::message::{Envelope, IoMessage, TargetMessage};

/// Most bytes that one step zeroes or gives back: what a sync waits for.
const STEP: u64 = 256 << 20;

/// A range of blocks in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::target) struct Range {
    pub(in crate::target) offset: u64,
    pub(in crate::target) len: u64,
}

/// What a job is to do.
#[derive(Debug)]
pub(in crate::target) enum Task {
    /// Make what was written before it survive a loss of power.
    Sync,
    /// Make ranges read as zeroes.
    Zero {
        ranges: Vec<Range>,
        /// Give their space back.
        deallocate: bool,
        /// Make that survive a loss of power.
        sync: bool,
    },
    /// Give the space of ranges back where that can be done.
    Deallocate { ranges: Vec<Range> },
}

impl Task {
    /// Does the next step. Returns whether all that is left is a sync, or nothing.
    fn step(&mut self, store: &Store) -> Result<Left, Status> {
        let (ranges, sync) = match self {
            Self::Sync => return Ok(Left::Sync),
            Self::Zero { ranges, sync, .. } => (ranges, *sync),
            Self::Deallocate { ranges } => (ranges, false),
        };
        let Some(range) = ranges.last_mut() else {
            return Ok(if sync { Left::Sync } else { Left::Nothing });
        };
        let (offset, len) = (range.offset, range.len.min(STEP));
        range.offset += len;
        range.len -= len;
        if range.len == 0 {
            ranges.pop();
        }
        match self {
            Self::Zero { deallocate, .. } => store.zero(offset, len, *deallocate)?,
            Self::Sync | Self::Deallocate { .. } => store.deallocate(offset, len)?,
        }
        Ok(Left::More)
    }

    /// Does all of it, here and now.
    pub(in crate::target) fn run(&mut self, store: &Store) -> Result<(), Status> {
        loop {
            match self.step(store)? {
                Left::More => {}
                Left::Sync => return store.sync(),
                Left::Nothing => return Ok(()),
            }
        }
    }
}

impl Task {
    /// The list of ranges, whatever is left in it.
    pub(in crate::target) fn into_ranges(self) -> Vec<Range> {
        match self {
            Self::Sync => Vec::new(),
            Self::Zero { ranges, .. } | Self::Deallocate { ranges } => ranges,
        }
    }
}

enum Left {
    More,
    Sync,
    Nothing,
}

/// Where the answer to a job goes: a command of a queue that may be gone by then.
#[derive(Debug)]
pub(in crate::target) struct Asker {
    pub(in crate::target) sender: Sender<TargetMessage>,
    /// Token of the queue.
    pub(in crate::target) token: u64,
    pub(in crate::target) connection: u64,
    pub(in crate::target) cid: u16,
}

impl Asker {
    fn answer(self, result: Result<(), Status>) {
        let message = IoMessage::JobDone {
            token: self.token,
            connection: self.connection,
            cid: self.cid,
            result,
        };
        let mut message = TargetMessage(Envelope::Io(message));
        // The reactor empties its mailbox in each turn.
        while let Err(back) = self.sender.send(message) {
            if self.sender.is_closed() {
                return;
            }
            message = back;
            thread::yield_now();
        }
    }
}

/// Work on a disk for one command. The answer comes when nothing of it can execute any more.
#[derive(Debug)]
pub(in crate::target) struct Job {
    pub(in crate::target) store: Store,
    pub(in crate::target) task: Task,
    /// Nobody waits for it any more: what it has not done yet is left undone, and it ends as aborted.
    pub(in crate::target) cancelled: Arc<AtomicBool>,
    pub(in crate::target) asker: Asker,
}

#[derive(Default)]
struct Shared {
    queue: SegQueue<Job>,
    /// Jobs that have not been answered.
    unanswered: AtomicUsize,
    closed: AtomicBool,
}

impl Shared {
    /// Does what there is to do; returns when nothing is left.
    fn work(&self) {
        let mut jobs = VecDeque::new();
        loop {
            while let Some(job) = self.queue.pop() {
                jobs.push_back(job);
            }
            if jobs.is_empty() {
                return;
            }
            self.sync(&mut jobs);
            self.step(&mut jobs);
        }
    }

    /// Answers all that only a sync is missing for, by one.
    fn sync(&self, jobs: &mut VecDeque<Job>) {
        let (syncs, others) = std::mem::take(jobs)
            .into_iter()
            .partition::<Vec<_>, _>(|job| matches!(job.task, Task::Sync));
        *jobs = others.into();
        // A disk that was resized shares its thread's queue with none; all jobs here are for the same blocks.
        let result = syncs.first().map(|job| job.store.sync());
        for job in syncs {
            self.answer(job, result.unwrap_or(Ok(())));
        }
    }

    fn step(&self, jobs: &mut VecDeque<Job>) {
        let Some(mut job) = jobs.pop_front() else {
            return;
        };
        if job.cancelled.load(Ordering::Relaxed) {
            self.answer(job, Err(Status::ABORTED_BY_REQUEST));
            return;
        }
        match job.task.step(&job.store) {
            Ok(Left::Nothing) => self.answer(job, Ok(())),
            Err(status) => self.answer(job, Err(status)),
            Ok(Left::More) => jobs.push_back(job),
            Ok(Left::Sync) => {
                job.task = Task::Sync;
                jobs.push_back(job);
            }
        }
    }

    fn answer(&self, job: Job, result: Result<(), Status>) {
        let Job { store, asker, .. } = job;
        // The disk may be gone but for this job; it is closed before anybody hears that the job is done.
        drop(store);
        self.unanswered.fetch_sub(1, Ordering::Release);
        asker.answer(result);
    }
}

/// The thread of a disk, and its way there.
#[derive(Default)]
pub(in crate::target) struct Helper {
    shared: Arc<Shared>,
    thread: OnceLock<Option<Thread>>,
}

impl Helper {
    /// Has a job done. Where no thread can be had it is done here.
    pub(super) fn submit(&self, job: Job) {
        self.shared.unanswered.fetch_add(1, Ordering::Relaxed);
        self.shared.queue.push(job);
        match self.thread.get_or_init(|| self.start()) {
            Some(thread) => thread.unpark(),
            None => self.shared.work(),
        }
    }

    /// Jobs that are not done. None of them can touch the disk any more once this is 0.
    pub(super) fn unanswered(&self) -> usize {
        self.shared.unanswered.load(Ordering::Acquire)
    }

    fn start(&self) -> Option<Thread> {
        let shared = Arc::clone(&self.shared);
        let run = move || {
            sys::leave_core();
            loop {
                shared.work();
                if shared.closed.load(Ordering::Acquire) && shared.queue.is_empty() {
                    return;
                }
                thread::park();
            }
        };
        let started = thread::Builder::new().name("pollux-disk".into()).spawn(run);
        match started {
            Ok(handle) => Some(handle.thread().clone()),
            Err(error) => {
                log::warn!(
                    target: crate::target::LOG_FLAG,
                    "no thread for a disk ({error}): its flushes keep others waiting"
                );
                None
            }
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        if let Some(Some(thread)) = self.thread.get() {
            thread.unpark();
        }
    }
}

impl fmt::Debug for Helper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Helper")
            .field("unanswered", &self.unanswered())
            .finish_non_exhaustive()
    }
}
