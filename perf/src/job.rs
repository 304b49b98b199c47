//! One job: the application that runs beside the channels of an I/O reactor and keeps its queue full.

use std::sync::mpsc;

use pollux_multipath::{
    Application, Channels, Completion, ControllerId, Io, Op, PathStatus, VolumeId,
};
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_reactor::{Context, Progress};

use crate::load::{Load, Plan, Prepared};
use crate::stats::{JobStats, PATH_LOOK_NS, PathEvent};

/// What a job is told.
pub enum JobMessage {
    /// Run this.
    Start(Box<Start>),
    /// Exchange the counters.
    Collect(Box<JobStats>),
    /// Start nothing new.
    Stop,
    /// Read once more what was written.
    Sweep,
}

/// A job's orders.
pub struct Start {
    /// What to do.
    pub plan: Plan,
    /// Where.
    pub volume: VolumeId,
    /// The volume's paths in attach order, with their addresses.
    pub paths: Vec<(ControllerId, String)>,
    /// Where news go.
    pub news: mpsc::Sender<News>,
}

/// What a job tells.
pub enum News {
    /// The answer to [`JobMessage::Collect`].
    Collected(Box<Collected>),
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
    /// Counters since the last time.
    pub stats: Box<JobStats>,
    /// I/Os handed out and I/Os that came back, since the start.
    pub account: (u64, u64),
    /// First submission and latest completion.
    pub span_ns: (u64, u64),
    /// Blocks read once more at the end.
    pub swept: u64,
    /// Socket calls of the queue pairs since the start, until the job was drained.
    pub socket_calls: u64,
    /// State of each path, in the order of [`Start::paths`].
    pub states: Vec<&'static str>,
}

/// The application.
pub struct Job {
    running: Option<Running>,
}

struct Running {
    load: Load,
    job: usize,
    volume: VolumeId,
    paths: Vec<(ControllerId, String)>,
    states: Vec<&'static str>,
    looked_ns: u64,
    drained: bool,
    /// Count at the start.
    socket_calls_before: u64,
    /// Calls up to the moment when the job was drained.
    socket_calls: u64,
    news: mpsc::Sender<News>,
}

impl Job {
    /// Idle until it is told to start.
    pub fn new() -> Self {
        Self { running: None }
    }
}

impl Application for Job {
    type Message = JobMessage;

    fn on_message(&mut self, message: JobMessage, channels: &mut Channels, cx: &mut Context<'_>) {
        let now_ns = cx.now().as_nanos();
        match (message, &mut self.running) {
            (JobMessage::Start(start), running) => *running = Some(Running::new(*start, channels)),
            (_, None) => {}
            (JobMessage::Collect(empty), Some(running)) => running.collect(empty, channels, now_ns),
            (JobMessage::Stop, Some(running)) => running.load.stop(),
            (JobMessage::Sweep, Some(running)) => {
                running.load.start_sweep();
                running.drained = false;
            }
        }
    }

    fn poll(&mut self, channels: &mut Channels, cx: &mut Context<'_>) -> Progress {
        match &mut self.running {
            None => Progress::Idle,
            Some(running) => running.poll(channels, cx.now().as_nanos()),
        }
    }
}

impl Running {
    fn new(start: Start, channels: &Channels) -> Self {
        Self {
            job: start.plan.job,
            load: Load::new(start.plan),
            volume: start.volume,
            states: vec![""; start.paths.len()],
            paths: start.paths,
            looked_ns: 0,
            drained: false,
            socket_calls_before: channels.socket_calls(),
            socket_calls: 0,
            news: start.news,
        }
    }

    fn poll(&mut self, channels: &mut Channels, now_ns: u64) -> Progress {
        let mut progress = Progress::Idle;
        while let Some(completion) = channels.next_completion() {
            self.complete(completion, now_ns);
            progress = Progress::Busy;
        }
        if progress == Progress::Busy {
            self.load.note_completions(now_ns);
        }
        progress = progress.or(self.fill(channels, now_ns));
        if now_ns.saturating_sub(self.looked_ns) >= PATH_LOOK_NS {
            self.note_changes(channels, now_ns);
        }
        if !self.drained && self.load.drained() {
            self.drained = true;
            self.count_socket_calls(channels);
            // Without a listener the process is about to end.
            let _ = self.news.send(News::Drained { job: self.job });
        }
        progress
    }

    fn complete(&mut self, completion: Completion, now_ns: u64) {
        let Completion {
            io, result, path, ..
        } = completion;
        let path = path.and_then(|id| self.paths.iter().position(|(known, _)| *known == id));
        let slot = usize::try_from(io.user).unwrap_or(usize::MAX);
        self.load.complete(slot, io.buffer, result, path, now_ns);
    }

    fn fill(&mut self, channels: &mut Channels, now_ns: u64) -> Progress {
        let mut progress = Progress::Idle;
        while let Some(Prepared {
            slot,
            operation,
            buffer,
        }) = self.load.prepare(now_ns)
        {
            progress = Progress::Busy;
            let io = Io {
                op: if operation.write { Op::Write } else { Op::Read },
                lba: operation.lba,
                blocks: operation.blocks,
                buffer,
                user: slot as u64,
            };
            if let Err((io, error)) = channels.submit(self.volume, io) {
                // The volume is gone or has shrunk; the next would be refused as well.
                self.load
                    .complete(slot, io.buffer, Err(error), None, now_ns);
                break;
            }
        }
        progress
    }

    fn collect(&mut self, empty: Box<JobStats>, channels: &Channels, now_ns: u64) {
        self.note_changes(channels, now_ns);
        if !self.drained {
            self.count_socket_calls(channels);
        }
        let collected = Collected {
            job: self.job,
            stats: self.load.exchange(empty),
            account: self.load.account(),
            span_ns: self.load.span_ns(),
            swept: self.load.swept(),
            socket_calls: self.socket_calls,
            states: self.states.clone(),
        };
        let _ = self.news.send(News::Collected(Box::new(collected)));
    }

    /// A reactor that is idle goes on looking at its sockets; those calls are not the I/O's.
    fn count_socket_calls(&mut self, channels: &Channels) {
        self.socket_calls = channels
            .socket_calls()
            .saturating_sub(self.socket_calls_before);
    }

    /// Compares the paths' states with those of the last look.
    fn note_changes(&mut self, channels: &Channels, now_ns: u64) {
        self.looked_ns = now_ns;
        for status in channels.status() {
            if status.volume != self.volume {
                continue;
            }
            for path in &status.paths {
                let to = state_name(path);
                let Some(index) = self.paths.iter().position(|(id, _)| *id == path.controller)
                else {
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

fn state_name(path: &PathStatus) -> &'static str {
    if !path.connected {
        return "disconnected";
    }
    match path.ana_state {
        AnaState::OPTIMIZED => "optimized",
        AnaState::NON_OPTIMIZED => "non_optimized",
        AnaState::INACCESSIBLE => "inaccessible",
        AnaState::PERSISTENT_LOSS => "persistent_loss",
        AnaState::CHANGE => "change",
        _ => "unknown",
    }
}
