//! The main thread's view of a run: counters collected once a second, the end awaited, all of it reported.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::json;

use super::RunArgs;
use super::live::{LiveLine, Moment};
use super::session::Session;
use crate::clock::now;
use crate::cores::Placement;
use crate::embedded::{Embedded, Failover};
use crate::ending::Ending;
use crate::load::{Collected, JobMessage, News, Verified, Workload};
use crate::machine::{self, Machine};
use crate::report::{PathReport, Report};
use crate::stats::{JobStats, LatencySummary, RunStats};
use crate::volume::Volume;

/// Counters are collected and shown this often.
const SECOND: Duration = Duration::from_secs(1);

/// The longest that a signal waits to be noticed. Each look takes a core from a reactor for a moment.
const NOTICE: Duration = Duration::from_millis(100);

/// The main thread's view of the run.
pub struct Watch<'a> {
    session: &'a Session,
    news: mpsc::Receiver<News>,
    jobs: Vec<JobView>,
    stats: RunStats,
    /// What the latest second added.
    second: JobStats,
    pub live: LiveLine,
    verify: bool,
    /// How long was waited for what was in flight at the end.
    waited: Duration,
}

/// The latest from one job.
struct JobView {
    /// The counters that the job does not have at the moment.
    spare: Option<Box<JobStats>>,
    drained: bool,
    account: (u64, u64),
    span_ns: (u64, u64),
    verified: Option<Verified>,
    socket_calls: u64,
    states: Vec<&'static str>,
    waiting: u64,
}

impl<'a> Watch<'a> {
    pub fn new(session: &'a Session, news: mpsc::Receiver<News>, workload: Workload) -> Self {
        let view = || JobView {
            spare: Some(Box::new(JobStats::new())),
            drained: false,
            account: (0, 0),
            span_ns: (0, 0),
            verified: None,
            socket_calls: 0,
            states: Vec::new(),
            waiting: 0,
        };
        Self {
            jobs: (0..session.jobs()).map(|_| view()).collect(),
            session,
            news,
            stats: RunStats::new(),
            second: JobStats::new(),
            live: LiveLine::new(),
            verify: workload == Workload::Verify,
            waited: Duration::ZERO,
        }
    }

    /// Until the time is up, all jobs have done their I/Os, an I/O was wrong under `verify`, or `stop`.
    pub fn run(
        &mut self,
        time: Duration,
        mut failover: Failover,
        embedded: Option<&Embedded>,
        stop: &AtomicBool,
    ) -> anyhow::Result<()> {
        let start = now();
        let mut tick = SECOND;
        let mut shown = Duration::ZERO;
        loop {
            let elapsed = start.elapsed();
            if elapsed >= time || stop.load(Ordering::Relaxed) || self.all_drained() {
                break;
            }
            if let (Some(state), Some(embedded)) = (failover.take_due(elapsed), embedded) {
                embedded.set(0, state)?;
                continue;
            }
            if elapsed >= tick {
                self.collect(start + tick + SECOND)?;
                self.show(tick, start.elapsed().saturating_sub(shown));
                shown = start.elapsed();
                tick += SECOND;
                if self.verify && self.stats.total.miscompares > 0 {
                    break;
                }
                continue;
            }
            let next = tick.min(time).min(failover.next_at().unwrap_or(time));
            self.wait(next.saturating_sub(elapsed).min(NOTICE))?;
        }
        self.send_all(|| JobMessage::Stop)
    }

    /// Waits until nothing is in flight, or for as long as that may take.
    pub fn drain(&mut self, what: &str, stop: &AtomicBool) -> anyhow::Result<()> {
        let begun = now();
        let mut ending = Ending::new(stop);
        let mut completed = self.completed();
        let mut looked = now();
        while !self.all_drained() {
            let left = ending.left();
            if left.is_zero() {
                break;
            }
            self.wait(left.min(NOTICE))?;
            if looked.elapsed() < SECOND {
                continue;
            }
            looked = now();
            self.collect(looked + SECOND)?;
            if self.completed() != completed {
                completed = self.completed();
                ending.moved();
            }
            let in_flight = self.submitted() - completed;
            self.live.say(&format!(
                "the time is up: {what}, {in_flight} I/Os; {} s more at most",
                ending.left().as_secs()
            ));
        }
        self.waited += begun.elapsed();
        Ok(())
    }

    pub fn sweep(&mut self, stop: &AtomicBool) -> anyhow::Result<()> {
        self.send_all(|| JobMessage::Sweep)?;
        self.jobs.iter_mut().for_each(|job| job.drained = false);
        self.drain("reading once more what was written", stop)
    }

    /// What has not ended by now is counted as such.
    pub fn close(&mut self) -> anyhow::Result<()> {
        self.send_all(|| JobMessage::Close)?;
        self.collect(now() + SECOND)
    }

    fn send_all(&self, message: impl Fn() -> JobMessage) -> anyhow::Result<()> {
        (0..self.jobs.len()).try_for_each(|job| self.session.send(job, message()))
    }

    pub fn all_drained(&self) -> bool {
        self.jobs.iter().all(|job| job.drained)
    }

    fn completed(&self) -> u64 {
        self.jobs.iter().map(|job| job.account.1).sum()
    }

    fn submitted(&self) -> u64 {
        self.jobs.iter().map(|job| job.account.0).sum()
    }

    /// Takes one piece of news, if one comes in time.
    fn wait(&mut self, time: Duration) -> anyhow::Result<()> {
        match self.news.recv_timeout(time) {
            Ok(News::Drained { job }) => {
                self.jobs[job].drained = true;
            }
            Ok(News::Collected(collected)) => self.take(*collected),
            // The counters say so as well.
            Ok(News::Failed) => {}
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => bail!("an I/O reactor has ended before its job"),
        }
        Ok(())
    }

    fn take(&mut self, collected: Collected) {
        let Collected {
            job,
            stats,
            account,
            span_ns,
            verified,
            socket_calls,
            states,
            waiting,
            ..
        } = collected;
        self.stats.merge(&stats);
        self.second.add_counts(&stats);
        let view = &mut self.jobs[job];
        *view = JobView {
            spare: Some(stats),
            drained: view.drained,
            account,
            span_ns,
            verified,
            socket_calls,
            states,
            waiting,
        };
    }

    /// Exchanges the counters of all jobs; one that does not answer by `deadline` is asked again next time.
    fn collect(&mut self, deadline: Instant) -> anyhow::Result<()> {
        self.second.clear();
        for job in 0..self.jobs.len() {
            if let Some(spare) = self.jobs.get_mut(job).and_then(|view| view.spare.take()) {
                self.session
                    .send(job, JobMessage::Collect { job, empty: spare })?;
            }
        }
        while self.jobs.iter().any(|job| job.spare.is_none()) {
            let left = deadline.saturating_duration_since(now());
            if left.is_zero() {
                break;
            }
            self.wait(left)?;
        }
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "for display")]
    fn show(&mut self, at: Duration, span: Duration) {
        let seconds = span.as_secs_f64().max(1e-3);
        self.live.show(&Moment {
            seconds: at.as_secs(),
            iops: self.second.ios() as f64 / seconds,
            bytes_per_sec: self.second.bytes as f64 / seconds,
            p99_ns: LatencySummary::of(&self.second.latency).p99,
            failed: self.stats.total.errors + self.stats.total.miscompares,
            states: self.states(),
            waiting: self.jobs.iter().map(|job| job.waiting).sum(),
        });
    }

    /// Of each path, what the first job sees; all are told the same within microseconds.
    fn states(&self) -> Vec<&'static str> {
        self.jobs
            .first()
            .map(|job| job.states.clone())
            .unwrap_or_default()
    }

    pub fn report(
        self,
        args: &RunArgs,
        placement: &Placement,
        available: Vec<usize>,
        seed: u64,
        interrupted: bool,
    ) -> Report {
        let machine = Machine::read(available);
        let mut doubts = machine.doubts();
        if self.session.embedded.is_some() && placement.shared {
            doubts.push("host and target share a core".to_owned());
        } else {
            doubts.extend(machine::interrupted(machine::preemptions(), args.time));
        }
        let volume = &self.session.volume;
        let states = self.states();
        let ios = &self.stats.total.paths;
        let paths = volume.addresses.iter().enumerate();
        let paths = paths
            .map(|(index, address)| PathReport {
                traddr: address.ip().to_string(),
                trsvcid: address.port().to_string(),
                ios: ios.get(index).copied().unwrap_or_default(),
                ana_state: states.get(index).copied().unwrap_or("unknown").to_owned(),
            })
            .collect();
        let reactors = self.jobs.len();
        let sum = |part: fn(&JobView) -> u64| self.jobs.iter().map(part).sum();
        let verified = self.jobs.iter().filter_map(|job| job.verified);
        let verified = verified.reduce(|mut sum, part| {
            sum.add(part);
            sum
        });
        Report {
            title: format!(
                "{} {}, depth {}{}, {} path{}, {}, seed {seed}{}",
                args.workload.name(),
                args.io_size,
                args.depth,
                if reactors > 1 {
                    format!(" on each of {reactors} reactors")
                } else {
                    String::new()
                },
                volume.paths.len(),
                if volume.paths.len() == 1 { "" } else { "s" },
                self.session.policy,
                namespace_in_words(volume),
            ),
            kind: "run",
            options: json!({
                "workload": args.workload.name(),
                "read_share": args.read_share,
                "depth": args.depth,
                "io_size": args.io_size.bytes(),
                "stride": args.stride,
                "policy": self.session.policy.to_string(),
                "hdgst": args.hdgst,
                "ddgst": args.ddgst,
                "require_digests": args.require_digests,
                "sq_flow_control": args.sq_flow_control,
                "seed": seed,
                "nsid": volume.nsid,
                "io_timeout_seconds": args.io_timeout.map(|limit| limit.as_secs_f64()),
                "embedded_target": self.session.embedded.is_some(),
                "volume_blocks": volume.blocks,
                "block_size": volume.block_size,
            }),
            start_ns: self.jobs.iter().map(|job| job.span_ns.0).min().unwrap_or(0),
            end_ns: self.jobs.iter().map(|job| job.span_ns.1).max().unwrap_or(0),
            submitted: sum(|job| job.account.0),
            completed: sum(|job| job.account.1),
            verified,
            interrupted,
            waited: self.waited,
            socket_calls: Some(sum(|job| job.socket_calls)),
            stats: self.stats,
            paths,
            host_cores: placement.host.clone(),
            target_core: self.session.embedded.is_some().then_some(placement.target),
            machine,
            doubts,
        }
    }
}

/// Which one it is, where there are several.
fn namespace_in_words(volume: &Volume) -> String {
    match volume.others.len() {
        0 => String::new(),
        others => format!(
            ", namespace {} of {} (--nsid takes another)",
            volume.nsid,
            others + 1
        ),
    }
}
