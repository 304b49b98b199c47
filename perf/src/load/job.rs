//! Jobs: the application that runs beside the poll group of an I/O reactor and keeps the queues of its volumes full.

use std::sync::mpsc;
use std::time::Duration;

use pollux_multipath::{
    Application, Completion, ControllerId, Io, IoError, Op, PathView, PollGroup, SubmitError,
    VolumeId,
};
use pollux_nvme_tcp::spec::status::Status;
use pollux_reactor::{Context, Progress};

use super::{Backlog, Load, Plan, Prepared, Verified};
use crate::stats::{JobStats, PATH_LOOK_NS, PathEvent};

/// What a job is told.
pub enum JobMessage {
    /// Run this, beside what is running.
    Start(Box<Start>),
    /// Exchange the counters of one job.
    Collect {
        /// Which job.
        job: usize,
        /// In exchange.
        empty: Box<JobStats>,
    },
    /// Start nothing new.
    Stop,
    /// Read once more what was written.
    Sweep,
    /// The run is over: what is still in flight is counted as unfinished, and not as anything else any more.
    Close,
    /// Forget all jobs; what is still in flight comes home to nobody.
    Forget,
}

/// A job's orders.
pub struct Start {
    /// What to do.
    pub plan: Plan,
    /// Where.
    pub volume: VolumeId,
    /// The volume's paths in attach order, with their addresses.
    pub paths: Vec<(ControllerId, String)>,
    /// Time within which an I/O must have ended, or it ends with an error.
    pub io_timeout: Option<Duration>,
    /// [`News::Failed`] is sent for an I/O that fails, and not only for wrong data.
    pub stop_on_error: bool,
    /// Where news go.
    pub news: mpsc::Sender<News>,
}

/// What a job tells.
pub enum News {
    /// The answer to [`JobMessage::Collect`].
    Collected(Box<Collected>),
    /// Data was wrong, or an I/O has failed where [`Start::stop_on_error`] says so; told once.
    Failed,
    /// Nothing is in flight any more, and nothing new will be.
    Drained {
        /// Which job.
        job: usize,
    },
}

/// A job's counters and what it sees.
pub struct Collected {
    /// Which job.
    pub job: usize,
    /// When, by the reactor's clock.
    pub at_ns: u64,
    /// Counters since the last time.
    pub stats: Box<JobStats>,
    /// I/Os handed out and I/Os that came back, since the start.
    pub account: (u64, u64),
    /// As many I/Os as its depth have been in flight, since the start.
    pub reached_depth: bool,
    /// Start and end, see [`Load::span_ns`].
    pub span_ns: (u64, u64),
    /// What was read once more at the end, under `verify`.
    pub verified: Option<Verified>,
    /// Socket calls of all queue pairs of its poll group since the start, until the job was drained.
    pub socket_calls: u64,
    /// State of each path, in the order of [`Start::paths`].
    pub states: Vec<&'static str>,
    /// I/Os that wait because there is no path to take.
    pub waiting: u64,
    /// Time until the last write that a lost controller may still execute goes on, if there is any.
    pub fenced: Option<Duration>,
    /// What was due and not started since the last time, in an open loop.
    pub backlog: Option<Backlog>,
}

/// The application: the jobs of one poll group.
pub struct Jobs {
    /// In the order of their numbers.
    running: Vec<Running>,
}

struct Running {
    load: Load,
    job: usize,
    volume: VolumeId,
    paths: Vec<(ControllerId, String)>,
    states: Vec<&'static str>,
    looked_ns: u64,
    /// I/Os that wait for a path, when there is none.
    waiting: u64,
    fenced: Option<Duration>,
    drained: bool,
    /// Its volume is gone: nothing can be submitted any more.
    gone: bool,
    closed: bool,
    io_timeout: Option<Duration>,
    stop_on_error: bool,
    failed: bool,
    /// It had completions in this turn.
    touched: bool,
    /// Count at the start.
    socket_calls_before: u64,
    /// Calls up to the moment when the job was drained.
    socket_calls: u64,
    news: mpsc::Sender<News>,
}

impl Jobs {
    /// Idle until one is told to start.
    pub fn new() -> Self {
        Self {
            running: Vec::new(),
        }
    }

    fn find(&mut self, job: usize) -> Option<&mut Running> {
        let place = self.running.binary_search_by_key(&job, |r| r.job).ok()?;
        self.running.get_mut(place)
    }
}

impl Application for Jobs {
    type Message = JobMessage;

    fn on_message(&mut self, message: JobMessage, group: &mut PollGroup, cx: &mut Context<'_>) {
        let now_ns = cx.now().as_nanos();
        match message {
            JobMessage::Start(start) => {
                let (job, latest) = (start.plan.job, self.running.last());
                assert!(
                    latest.is_none_or(|latest| latest.job < job),
                    "jobs are started in the order of their numbers"
                );
                self.running.push(Running::new(*start, group));
            }
            JobMessage::Collect { job, empty } => {
                if let Some(running) = self.find(job) {
                    running.collect(empty, group, now_ns);
                }
            }
            JobMessage::Stop => self.running.iter_mut().for_each(|r| r.load.stop(now_ns)),
            JobMessage::Sweep => {
                for running in &mut self.running {
                    running.load.start_sweep();
                    running.drained = false;
                }
            }
            JobMessage::Close => {
                for running in &mut self.running {
                    running.closed = true;
                    running.load.close(now_ns);
                }
            }
            JobMessage::Forget => self.running.clear(),
        }
    }

    fn poll(&mut self, group: &mut PollGroup, cx: &mut Context<'_>) -> Progress {
        let now_ns = cx.now().as_nanos();
        let mut progress = Progress::Idle;
        while let Some(completion) = group.next_completion() {
            progress = Progress::Busy;
            let job = job_of(completion.io.user);
            // One that nobody knows is of a job that was forgotten; one that was closed has counted it already.
            if let Some(running) = self.find(job)
                && !running.closed
            {
                running.complete(completion, now_ns);
            }
        }
        for running in self.running.iter_mut().filter(|r| !r.closed) {
            progress = progress.or(running.poll(group, now_ns));
        }
        progress
    }
}

/// Bits of [`Io::user`] that say which slot of its job an I/O is in; those above say which job.
const SLOT_BITS: u32 = 32;

fn job_of(user: u64) -> usize {
    (user >> SLOT_BITS) as usize
}

fn slot_of(user: u64) -> usize {
    (user & ((1 << SLOT_BITS) - 1)) as usize
}

impl Running {
    fn new(start: Start, group: &PollGroup) -> Self {
        Self {
            job: start.plan.job,
            load: Load::new(start.plan),
            volume: start.volume,
            states: vec![""; start.paths.len()],
            paths: start.paths,
            looked_ns: 0,
            waiting: 0,
            fenced: None,
            gone: false,
            closed: false,
            io_timeout: start.io_timeout,
            drained: false,
            stop_on_error: start.stop_on_error,
            failed: false,
            touched: false,
            socket_calls_before: group.socket_calls(),
            socket_calls: 0,
            news: start.news,
        }
    }

    fn poll(&mut self, group: &mut PollGroup, now_ns: u64) -> Progress {
        if std::mem::take(&mut self.touched) {
            self.load.note_completions(now_ns);
        }
        let progress = self.fill(group, now_ns);
        if now_ns.saturating_sub(self.looked_ns) >= PATH_LOOK_NS {
            self.note_changes(group, now_ns);
        }
        if !self.drained && self.load.drained() {
            self.drained = true;
            self.count_socket_calls(group);
            self.tell(News::Drained { job: self.job });
        }
        progress
    }

    fn complete(&mut self, completion: Completion, now_ns: u64) {
        let Completion {
            io, result, path, ..
        } = completion;
        let path = path.and_then(|id| self.paths.iter().position(|(known, _)| *known == id));
        self.touched = true;
        let result = match result {
            Err(IoError::Status(status)) if io.op == Op::Compare && is_compare_failure(status) => {
                self.load.stats_mut().differing += 1;
                Ok(())
            }
            result => result,
        };
        let ok = result.is_ok();
        self.load
            .complete(slot_of(io.user), io.buffer.into_vec(), result, path, now_ns);
        let bad = (self.stop_on_error && !ok) || self.load.stats_mut().miscompares > 0;
        if bad && !std::mem::replace(&mut self.failed, true) {
            self.tell(News::Failed);
        }
    }

    fn fill(&mut self, group: &mut PollGroup, now_ns: u64) -> Progress {
        let mut progress = Progress::Idle;
        // The time to run goes on, and counts; read-backs are still due at its end.
        if self.gone && self.load.is_running() {
            return progress;
        }
        while let Some(Prepared {
            slot,
            operation,
            buffer,
        }) = self.load.prepare(now_ns)
        {
            progress = Progress::Busy;
            let user = (self.job as u64) << SLOT_BITS | slot as u64;
            let io = Io::new(operation.op, operation.lba, operation.blocks, buffer).with_user(user);
            let submitted = match self.io_timeout {
                None => group.submit(self.volume, io),
                Some(limit) => group.submit_within(self.volume, io, limit),
            };
            if let Err((io, error)) = submitted {
                // The volume is gone or has shrunk; the next would be refused as well.
                self.load
                    .complete(slot, io.buffer.into_vec(), Err(error), None, now_ns);
                self.gone |= error == SubmitError::NoVolume;
                if self.stop_on_error && !std::mem::replace(&mut self.failed, true) {
                    self.tell(News::Failed);
                }
                break;
            }
        }
        progress
    }

    /// Without a listener the process is about to end.
    fn tell(&self, news: News) {
        let _ = self.news.send(news);
    }

    fn collect(&mut self, empty: Box<JobStats>, group: &PollGroup, now_ns: u64) {
        self.note_changes(group, now_ns);
        if !self.drained {
            self.count_socket_calls(group);
        }
        let collected = Collected {
            job: self.job,
            at_ns: now_ns,
            stats: self.load.exchange(empty),
            account: self.load.account(),
            reached_depth: self.load.reached_depth(),
            span_ns: self.load.span_ns(),
            verified: self.load.verified(),
            socket_calls: self.socket_calls,
            states: self.states.clone(),
            waiting: self.waiting,
            fenced: self.fenced,
            backlog: self.load.take_backlog(),
        };
        self.tell(News::Collected(Box::new(collected)));
    }

    /// A reactor that is idle goes on looking at its sockets; those calls are not the I/O's.
    fn count_socket_calls(&mut self, group: &PollGroup) {
        self.socket_calls = group
            .socket_calls()
            .saturating_sub(self.socket_calls_before);
    }

    /// Compares the paths' states with those of the last look.
    fn note_changes(&mut self, group: &PollGroup, now_ns: u64) {
        self.looked_ns = now_ns;
        for status in group.status() {
            if status.volume != self.volume {
                continue;
            }
            let usable = |path: &PathView| path.connected && path.accessible;
            self.waiting = match status.paths.iter().any(usable) {
                true => 0,
                false => status.waiting as u64,
            };
            self.fenced = status.fenced.map(|fence| fence.remaining);
            for (place, path) in status.paths.iter().enumerate() {
                let to = state_name(path);
                // Mostly both lists are in the same order: a search each would be felt with hundreds of paths.
                let is_it = |&index: &usize| {
                    let known = self.paths.get(index);
                    known.is_some_and(|(id, _)| *id == path.controller)
                };
                let here = Some(place).filter(is_it);
                let Some(index) = here.or_else(|| (0..self.paths.len()).find(is_it)) else {
                    continue;
                };
                let from = std::mem::replace(&mut self.states[index], to);
                if from != to && !from.is_empty() {
                    self.load.stats_mut().events.push(PathEvent {
                        job: self.job,
                        at_ns: now_ns,
                        path: self.paths[index].1.clone(),
                        from: from.to_owned(),
                        to: to.to_owned(),
                    });
                }
            }
        }
    }
}

/// The target has compared and found a difference.
fn is_compare_failure(status: Status) -> bool {
    Status::new(status.sct(), status.sc()) == Status::COMPARE_FAILURE
}

fn state_name(path: &PathView) -> &'static str {
    if !path.connected {
        return "disconnected";
    }
    path.ana_state.name().unwrap_or("unknown")
}
