//! The I/O under disturbance: a job on each I/O reactor, counted in slices of time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::bail;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::bench::Bench;
use crate::clock::{now, sleep_until};
use crate::ending::Ending;
use crate::load::Verified;
use crate::load::Workload;
use crate::load::{Collected, JobMessage, News, Start};
use crate::load::{Work, plans, random_seed};
use crate::size::IoSizes;
use crate::stats::{Gap, JobStats, PathIos, add, latency_histogram};
use crate::text::{duration, grouped, rounded};
use crate::volume::Volume;

/// The longest that a job may take to hand out its counters. A reactor that is blocked for so long is the fault that is
/// looked for.
const COLLECT_MAX: Duration = Duration::from_secs(30);
/// The longest that a signal waits to be noticed.
const NOTICE: Duration = Duration::from_millis(100);

/// What all jobs together did in some time.
pub struct Slice {
    /// I/Os that succeeded.
    pub ios: u64,
    /// The same per second, the sum of the jobs'.
    pub iops: f64,
    /// How long it was.
    pub seconds: f64,
    /// From submission to completion, of those that succeeded.
    pub latency: Histogram<u64>,
    /// Longest time without a success on one job.
    pub longest_gap_ns: u64,
    /// The longer gaps between completions.
    pub gaps: Vec<Gap>,
}

impl Slice {
    /// For a line of a table.
    pub fn shown(&self) -> String {
        format!(
            "{}, longest gap between completions {}",
            grouped(rounded(self.iops)),
            duration(self.longest_gap_ns)
        )
    }
}

/// All counters since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    /// I/Os handed out.
    pub submitted: u64,
    /// I/Os that came back.
    pub completed: u64,
    /// I/Os that failed.
    pub errors: u64,
    /// Reads whose data was wrong.
    pub miscompares: u64,
    /// What was read once more at the end, under `verify`.
    pub verified: Option<Verified>,
    /// I/Os by path, in attach order.
    pub paths: Vec<PathIos>,
    /// The longest time that an I/O had been in flight which did not come back.
    pub oldest_ns: u64,
    /// It ended before its time, so that what was not waited for is no failure.
    pub interrupted: bool,
    /// The first error or miscompare.
    pub first_error: Option<String>,
}

impl Totals {
    /// I/Os that never came back.
    pub fn lost(&self) -> u64 {
        self.submitted.saturating_sub(self.completed)
    }

    /// What was wrong, in words.
    pub fn failures(&self) -> Vec<String> {
        let counts = [
            (self.errors, "I/O errors"),
            (self.miscompares, "miscompares"),
        ];
        let first = self.first_error.as_deref().unwrap_or("no more is known");
        let bad = counts.iter().filter(|(count, _)| *count > 0);
        let mut failures: Vec<String> = bad
            .map(|(count, what)| format!("{count} {what}; the first: {first}"))
            .collect();
        if self.lost() > 0 && !self.interrupted {
            failures.push(format!(
                "{} I/Os have not come back, the oldest for {}",
                self.lost(),
                duration(self.oldest_ns)
            ));
        }
        if let Some(verified) = self.verified
            && verified.unread() > 0
            && !self.interrupted
        {
            failures.push(format!(
                "{} of {} blocks that had been written were not read once more at the end",
                verified.unread(),
                verified.written
            ));
        }
        if self.completed == 0 {
            failures.push("no I/O completed".to_owned());
        }
        failures
    }

    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "submitted": self.submitted,
            "completed": self.completed,
            "errors": self.errors,
            "miscompares": self.miscompares,
            "lost": self.lost(),
            "swept_blocks": self.verified.map_or(0, |verified| verified.right),
            "verified": self.verified.map(Verified::json),
            "path_ios": self.paths.iter().map(|path| path.ios).collect::<Vec<_>>(),
            "path_errors": self.paths.iter().map(|path| path.errors).collect::<Vec<_>>(),
            "first_error": self.first_error,
        })
    }
}

/// Jobs that run.
pub struct Drive<'b> {
    bench: &'b Bench,
    news: mpsc::Receiver<News>,
    jobs: Vec<Job>,
    verify: bool,
    totals: Totals,
}

/// One job as the main thread knows it.
struct Job {
    /// The counters that the job does not have at the moment.
    spare: Option<Box<JobStats>>,
    drained: bool,
    account: (u64, u64),
    verified: Option<Verified>,
    /// When it handed its counters out last.
    at_ns: u64,
}

impl<'b> Drive<'b> {
    /// Starts a job on each I/O reactor.
    pub fn start(
        bench: &'b Bench,
        volume: &Volume,
        workload: Workload,
        depth: u32,
    ) -> anyhow::Result<Self> {
        let io_size: IoSizes = "4k".parse().map_err(anyhow::Error::msg)?;
        let work = Work::new(workload, &io_size, depth);
        let jobs = bench.reactors();
        let plans = plans(&work, volume.blocks, volume.block_size, jobs, random_seed())?;
        let (sender, news) = mpsc::channel();
        for plan in plans {
            let job = plan.job;
            let start = Start {
                plan,
                volume: volume.id,
                paths: volume.paths.clone(),
                io_timeout: None,
                stop_on_error: false,
                news: sender.clone(),
            };
            bench.tell(job, JobMessage::Start(Box::new(start)))?;
        }
        let job = |_| Job {
            spare: Some(Box::new(JobStats::new())),
            drained: false,
            account: (0, 0),
            verified: None,
            at_ns: 0,
        };
        let mut drive = Self {
            bench,
            news,
            jobs: (0..jobs).map(job).collect(),
            verify: workload == Workload::Verify,
            totals: Totals::default(),
        };
        drive.exchange()?;
        Ok(drive)
    }

    /// What happens from now on for so long, or until `stop`.
    pub fn slice(&mut self, time: Duration, stop: &AtomicBool) -> anyhow::Result<Slice> {
        self.exchange()?;
        let end = now() + time;
        while !stop.load(Ordering::Relaxed) && now() < end {
            sleep_until(end.min(now() + NOTICE));
        }
        self.exchange()
    }

    /// What has happened since the last exchange.
    pub fn exchange(&mut self) -> anyhow::Result<Slice> {
        for job in 0..self.jobs.len() {
            if let Some(empty) = self.jobs.get_mut(job).and_then(|job| job.spare.take()) {
                self.bench.tell(job, JobMessage::Collect { job, empty })?;
            }
        }
        let mut slice = Slice {
            ios: 0,
            iops: 0.0,
            seconds: 0.0,
            latency: latency_histogram(),
            longest_gap_ns: 0,
            gaps: Vec::new(),
        };
        let deadline = now() + COLLECT_MAX;
        while self.jobs.iter().any(|job| job.spare.is_none()) {
            if !self.take_news(deadline, &mut slice)? {
                bail!("an I/O reactor does not answer within {COLLECT_MAX:?}");
            }
        }
        Ok(slice)
    }

    /// Ends the I/O, reads back once more what was written, and returns the counters of all. `stop` shortens it.
    pub fn finish(mut self, stop: &AtomicBool) -> anyhow::Result<Totals> {
        self.tell_all(|| JobMessage::Stop)?;
        self.drain(stop)?;
        let drained = self.jobs.iter().all(|job| job.drained);
        if self.verify && drained && !stop.load(Ordering::Relaxed) {
            self.jobs.iter_mut().for_each(|job| job.drained = false);
            self.tell_all(|| JobMessage::Sweep)?;
            self.drain(stop)?;
        }
        self.tell_all(|| JobMessage::Close)?;
        self.exchange()?;
        self.tell_all(|| JobMessage::Forget)?;
        self.totals.interrupted = stop.load(Ordering::Relaxed);
        let sum = |part: fn(&Job) -> u64| self.jobs.iter().map(part).sum();
        self.totals.submitted = sum(|job| job.account.0);
        self.totals.completed = sum(|job| job.account.1);
        for part in self.jobs.iter().filter_map(|job| job.verified) {
            self.totals.verified.get_or_insert_default().add(part);
        }
        Ok(self.totals)
    }

    fn drain(&mut self, stop: &AtomicBool) -> anyhow::Result<()> {
        let mut ending = Ending::new(stop);
        // Nothing that is exchanged meanwhile is asked for.
        let mut none = self.exchange()?;
        while self.jobs.iter().any(|job| !job.drained) {
            let left = ending.left();
            if left.is_zero() {
                break;
            }
            self.take_news(now() + left.min(NOTICE), &mut none)?;
        }
        Ok(())
    }

    fn tell_all(&self, message: impl Fn() -> JobMessage) -> anyhow::Result<()> {
        (0..self.jobs.len()).try_for_each(|job| self.bench.tell(job, message()))
    }

    /// Takes one piece of news; false if none comes in time.
    fn take_news(&mut self, deadline: Instant, slice: &mut Slice) -> anyhow::Result<bool> {
        let left = deadline.saturating_duration_since(now());
        match self.news.recv_timeout(left) {
            Ok(News::Drained { job }) => {
                if let Some(job) = self.jobs.get_mut(job) {
                    job.drained = true;
                }
            }
            Ok(News::Collected(collected)) => self.take(*collected, slice),
            // The counters say so as well.
            Ok(News::Failed) => {}
            Err(RecvTimeoutError::Timeout) => return Ok(false),
            Err(RecvTimeoutError::Disconnected) => bail!("an I/O reactor has ended before its job"),
        }
        Ok(true)
    }

    fn take(&mut self, collected: Collected, slice: &mut Slice) {
        let Collected {
            job,
            at_ns,
            stats,
            account,
            verified,
            ..
        } = collected;
        let Some(job) = self.jobs.get_mut(job) else {
            return;
        };
        let seconds = at_ns.saturating_sub(job.at_ns) as f64 / 1e9;
        slice.ios += stats.ios();
        slice.iops += stats.ios() as f64 / seconds.max(1e-9);
        slice.seconds = slice.seconds.max(seconds);
        add(&mut slice.latency, &stats.latency);
        slice.longest_gap_ns = slice.longest_gap_ns.max(stats.longest.length_ns());
        slice.gaps.extend_from_slice(&stats.gaps);
        let totals = &mut self.totals;
        totals.errors += stats.errors;
        totals.miscompares += stats.miscompares;
        totals.oldest_ns = totals.oldest_ns.max(stats.unfinished.max());
        if totals.paths.len() < stats.paths.len() {
            totals.paths.resize(stats.paths.len(), PathIos::default());
        }
        for (sum, part) in totals.paths.iter_mut().zip(&stats.paths) {
            sum.ios += part.ios;
            sum.errors += part.errors;
        }
        if totals.first_error.is_none() {
            totals.first_error.clone_from(&stats.first_error);
        }
        *job = Job {
            spare: Some(stats),
            drained: job.drained,
            account,
            verified,
            at_ns,
        };
    }
}
