//! The main thread's view of a run: counters collected once a second, the end awaited.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::bail;

use super::jobs::Seat;
use super::live::{LiveLine, Moment};
use super::session::{Session, Surroundings};
use super::steady::Steady;
use crate::clock::{now, wall};
use crate::embedded::{Embedded, Failover};
use crate::ending::Ending;
use crate::load::{Backlog, Collected, JobMessage, News, Verified};
use crate::report::Ramp;
use crate::stats::{Interval, JobStats, LatencySummary, RunStats};

/// Counters are collected and shown this often.
const SECOND: Duration = Duration::from_secs(1);

/// The longest that a signal waits to be noticed. Each look takes a core from a reactor for a moment.
const NOTICE: Duration = Duration::from_millis(100);

/// The main thread's view of the run.
pub struct Watch<'a> {
    pub session: &'a Session,
    news: mpsc::Receiver<News>,
    pub jobs: Vec<JobView>,
    pub stats: RunStats,
    /// What each job that was asked for has done.
    pub asked: Vec<JobStats>,
    /// What the latest interval added, and the latest second.
    latest: JobStats,
    second: JobStats,
    pub series: Vec<Interval>,
    /// Since then intervals are counted, and the latest one has ended.
    collected_ns: Option<u64>,
    /// The most that was due and not started in the latest interval.
    backlog_latest: Option<u64>,
    pub ramp: Option<Ramp>,
    pub began: SystemTime,
    /// When the results begin, and until the load ends.
    pub before: Surroundings,
    pub after: Surroundings,
    pub live: LiveLine,
    verify: bool,
    /// What ends the run before its time, and what was seen of it.
    pub steady: Option<Steady>,
    /// How long was waited for what was in flight at the end.
    pub waited: Duration,
}

/// The latest from one job that runs.
pub struct JobView {
    pub seat: Seat,
    /// The counters that the job does not have at the moment.
    spare: Option<Box<JobStats>>,
    drained: bool,
    pub account: (u64, u64),
    pub reached_depth: bool,
    pub span_ns: (u64, u64),
    pub verified: Option<Verified>,
    pub socket_calls: u64,
    states: Vec<&'static str>,
    waiting: u64,
    fenced: Option<Duration>,
    at_ns: u64,
    pub backlog: Option<Backlog>,
    /// What was left out at the start: until when, I/Os that had come back, socket calls.
    pub left_out: (Option<u64>, u64, u64),
}

impl<'a> Watch<'a> {
    pub fn new(
        session: &'a Session,
        live: LiveLine,
        news: mpsc::Receiver<News>,
        seats: Vec<Seat>,
        asked: usize,
        verify: bool,
    ) -> Self {
        let view = |seat| JobView {
            seat,
            spare: Some(Box::new(JobStats::new())),
            drained: false,
            account: (0, 0),
            reached_depth: false,
            span_ns: (0, 0),
            verified: None,
            socket_calls: 0,
            states: Vec::new(),
            waiting: 0,
            fenced: None,
            at_ns: 0,
            backlog: None,
            left_out: (None, 0, 0),
        };
        Self {
            jobs: seats.into_iter().map(view).collect(),
            asked: (0..asked).map(|_| JobStats::new()).collect(),
            session,
            news,
            stats: RunStats::new(),
            latest: JobStats::new(),
            second: JobStats::new(),
            series: Vec::new(),
            collected_ns: None,
            backlog_latest: None,
            ramp: None,
            began: wall(),
            before: session.surroundings(),
            after: Surroundings::default(),
            live,
            verify,
            steady: None,
            waited: Duration::ZERO,
        }
    }

    /// Until the time is up, all jobs have done their I/Os, an I/O was wrong under `verify`, or `stop`.
    pub fn run(
        &mut self,
        time: Duration,
        interval: Duration,
        mut failover: Failover,
        embedded: Option<&Embedded>,
        stop: &AtomicBool,
    ) -> anyhow::Result<()> {
        let start = now();
        let mut tick = interval;
        let mut shown = Duration::ZERO;
        let mut seconds = 1;
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
                let second = SECOND * seconds;
                if start.elapsed() >= second {
                    self.show(second, start.elapsed().saturating_sub(shown));
                    shown = start.elapsed();
                    seconds = u32::try_from(shown.as_secs()).map_or(u32::MAX, |s| s + 1);
                }
                // A look that was missed is not made up for.
                while tick <= start.elapsed() {
                    tick += interval;
                }
                if self.verify && self.stats.total.miscompares > 0 {
                    break;
                }
                if self.has_become_steady(elapsed) {
                    break;
                }
                continue;
            }
            let next = tick.min(time).min(failover.next_at().unwrap_or(time));
            self.wait(next.saturating_sub(elapsed).min(NOTICE))?;
        }
        self.after = self.session.surroundings();
        self.send_all(|| JobMessage::Stop)
    }

    fn has_become_steady(&mut self, at: Duration) -> bool {
        let Some(steady) = &mut self.steady else {
            return false;
        };
        if let Some(window) = steady.criterion.judge(&self.series, steady.duration) {
            steady.window = Some(window);
            steady.attained = window.is_steady.then_some(at);
        }
        steady.attained.is_some()
    }

    /// Lets the jobs run for a time of which only failures are kept.
    pub fn warm_up(&mut self, time: Duration, stop: &AtomicBool) -> anyhow::Result<()> {
        let start = now();
        // Nobody reads in less time.
        if time >= SECOND {
            let text = format!("warming up for {} s", time.as_secs_f64());
            self.live.say(&text);
        }
        loop {
            let left = time.saturating_sub(start.elapsed());
            if left.is_zero() || stop.load(Ordering::Relaxed) || self.all_drained() {
                break;
            }
            self.wait(left.min(NOTICE))?;
        }
        self.collect(now() + SECOND)?;
        let total = std::mem::replace(&mut self.stats, RunStats::new()).total;
        self.ramp = Some(Ramp {
            time,
            failures: total.errors + total.miscompares,
        });
        self.stats.total.first_error = total.first_error;
        self.series.clear();
        self.second.clear();
        self.asked.iter_mut().for_each(JobStats::clear);
        for job in &mut self.jobs {
            job.left_out = (Some(job.at_ns), job.account.1, job.socket_calls);
            job.backlog = None;
        }
        self.began = wall();
        self.before = self.session.surroundings();
        Ok(())
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
        (0..self.session.poll_groups()).try_for_each(|group| self.session.send(group, message()))
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
            reached_depth,
            span_ns,
            verified,
            socket_calls,
            states,
            waiting,
            fenced,
            at_ns,
            backlog,
        } = collected;
        self.stats.merge(&stats);
        self.latest.add_counts(&stats);
        let view = &mut self.jobs[job];
        self.asked[view.seat.asked].add_counts(&stats);
        *view = JobView {
            seat: view.seat,
            spare: Some(stats),
            drained: view.drained,
            account,
            reached_depth,
            span_ns,
            verified,
            socket_calls,
            states,
            waiting,
            fenced,
            at_ns,
            backlog: match (view.backlog, backlog) {
                (Some(before), Some(latest)) => Some(Backlog {
                    most: before.most.max(latest.most),
                    ..latest
                }),
                (None, latest) => latest,
                (before, None) => before,
            },
            left_out: view.left_out,
        };
        if let Some(backlog) = backlog {
            self.backlog_latest = Some(self.backlog_latest.unwrap_or(0) + backlog.most);
        }
    }

    /// Exchanges the counters of all jobs; one that does not answer by `deadline` is asked again next time.
    fn collect(&mut self, deadline: Instant) -> anyhow::Result<()> {
        self.latest.clear();
        self.backlog_latest = None;
        for job in 0..self.jobs.len() {
            if let Some(mut spare) = self.jobs[job].spare.take() {
                // Here rather than on the reactor.
                spare.clear();
                let poll_group = self.jobs[job].seat.poll_group;
                let collect = JobMessage::Collect { job, empty: spare };
                self.session.send(poll_group, collect)?;
            }
        }
        while self.jobs.iter().any(|job| job.spare.is_none()) {
            let left = deadline.saturating_duration_since(now());
            if left.is_zero() {
                break;
            }
            self.wait(left)?;
        }
        self.end_interval();
        self.second.add_counts(&self.latest);
        Ok(())
    }

    /// What has just been collected is one more point of the series.
    fn end_interval(&mut self) {
        let started = self.jobs.iter().map(|job| job.span_ns.0);
        let started_ns = started.filter(|&start_ns| start_ns > 0).min();
        let end_ns = self.jobs.iter().map(|job| job.at_ns).max().unwrap_or(0);
        let Some(start_ns) = self.collected_ns.or(started_ns) else {
            return;
        };
        if end_ns > start_ns {
            let latest = &self.latest;
            let interval = Interval::of(latest, start_ns, end_ns, self.backlog_latest);
            self.series.push(interval);
            self.collected_ns = Some(end_ns);
        }
    }

    /// The series up to the end of the load; what came home after it belongs to its last point.
    pub fn series_until(&self, end_ns: u64) -> Vec<Interval> {
        let series = self.series.iter();
        series
            .filter(|interval| interval.start_ns < end_ns)
            .cloned()
            .collect()
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
            waiting: self.waiting(),
            fenced: self.jobs.iter().filter_map(|job| job.fenced).max(),
        });
        self.second.clear();
    }

    /// The state of each path as the first job on it sees it; all are told the same within microseconds.
    pub fn states(&self) -> Vec<&'static str> {
        let paths = 0..self.session.paths.len();
        paths
            .map(|path| {
                let mut seen = self.jobs.iter().filter_map(|job| job.states.get(path));
                seen.find(|state| !state.is_empty()).copied().unwrap_or("")
            })
            .collect()
    }

    /// I/Os that wait for a path; jobs on one volume beside one poll group see the same.
    fn waiting(&self) -> u64 {
        self.sum_of_largest(
            |job| (job.seat.poll_group, job.seat.volume),
            |job| job.waiting,
        )
    }

    /// Socket calls without those that were left out; jobs beside one poll group see the same.
    pub fn socket_calls(&self) -> u64 {
        let calls = |job: &JobView| job.socket_calls.saturating_sub(job.left_out.2);
        self.sum_of_largest(|job| (job.seat.poll_group, 0), calls)
    }

    fn sum_of_largest(
        &self,
        place: impl Fn(&JobView) -> (usize, usize),
        number: impl Fn(&JobView) -> u64,
    ) -> u64 {
        let mut largest = BTreeMap::new();
        for job in &self.jobs {
            let known = largest.entry(place(job)).or_insert(0);
            *known = number(job).max(*known);
        }
        largest.values().sum()
    }
}
