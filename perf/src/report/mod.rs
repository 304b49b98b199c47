//! What a run of load came to, and the object that programs read.

mod table;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pollux_multipath::Op;
use serde_json::{Value, json};

pub use self::table::{Rates, write_latency, write_rates};
use crate::load::{Backlog, Rate, Verified};
use crate::machine::Machine;
use crate::results::Results;
use crate::run::Steady;
use crate::stats::{
    Interval, JobStats, LatencySummary, PathIos, RunStats, encode, hdr_log, latency_json,
    percentile_text, with_events,
};

/// Version of the JSON object, of which `perf/schema` says what it has. It grows with every change that a reader has to know of.
pub const SCHEMA_VERSION: u64 = 1;

/// A path and what it carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathReport {
    /// IP address.
    pub traddr: String,
    /// Port.
    pub trsvcid: String,
    /// I/Os that ended on it.
    pub ios: PathIos,
    /// Its state at the end.
    pub ana_state: String,
}

/// What to report of a run.
#[derive(Debug)]
pub struct Report {
    /// What was run, in one line.
    pub title: String,
    /// Which program part: `run` or `floor`.
    pub kind: &'static str,
    /// The options that make the number, for the JSON object.
    pub options: Value,
    /// Each job, of several that ran at the same time.
    pub jobs: Vec<JobReport>,
    /// All counters.
    pub stats: RunStats,
    /// First submission, in the clock of the statistics.
    pub start_ns: u64,
    /// The time was up, or the last completion after that.
    pub end_ns: u64,
    /// I/Os handed out and I/Os that came back, with success or without.
    pub submitted: u64,
    /// See `submitted`.
    pub completed: u64,
    /// What `verify` read once more at the end.
    pub verified: Option<Verified>,
    /// A signal ended it before its time.
    pub interrupted: bool,
    /// How long was waited for what was in flight at the end.
    pub waited: Duration,
    /// Socket calls of the side under test, where they are counted.
    pub socket_calls: Option<u64>,
    /// Paths in attach order.
    pub paths: Vec<PathReport>,
    /// Cores of the side under test.
    pub host_cores: Vec<usize>,
    /// Core of the peer, where it runs in this process.
    pub target_core: Option<usize>,
    /// Where it was measured.
    pub machine: Machine,
    /// The share of the time in which each core of the side under test had something to do, where that is known.
    pub host_busy: Vec<f64>,
    /// What makes the number doubtful.
    pub doubts: Vec<String>,
    /// What each interval gave.
    pub series: Vec<Interval>,
    /// How it was loaded, in an open loop.
    pub open_loop: Option<OpenLoop>,
    /// What was left out at the start.
    pub ramp: Option<Ramp>,
    /// Whether it became steady, where that would end it.
    pub steady: Option<Steady>,
    /// When it began, on the clock on the wall.
    pub began: SystemTime,
    /// What was measured, for the reader who wants to repeat it.
    pub target: Value,
}

/// One of several jobs and what it did.
#[derive(Debug)]
pub struct JobReport {
    /// What it is called.
    pub name: String,
    /// What it did, in a few words.
    pub what: String,
    /// The options that make its workload.
    pub options: Value,
    /// Its counters, but for gaps and events.
    pub stats: JobStats,
    /// How it was loaded, in an open loop.
    pub open_loop: Option<OpenLoop>,
}

/// Load that does not wait for what it loads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OpenLoop {
    /// What was asked for.
    pub rate: Rate,
    /// I/Os that were due and not started: the most at a time, and at the end.
    pub backlog: Backlog,
}

/// The time before the results begin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ramp {
    /// How long it was.
    pub time: Duration,
    /// I/Os that failed in it, and data that was wrong.
    pub failures: u64,
}

impl Report {
    /// Seconds from the first submission to the end.
    #[expect(
        clippy::cast_precision_loss,
        reason = "53 bits of nanoseconds are 104 days"
    )]
    fn seconds(&self) -> f64 {
        self.end_ns.saturating_sub(self.start_ns).max(1) as f64 / 1e9
    }

    /// I/Os per second, of those that succeeded.
    #[expect(clippy::cast_precision_loss, reason = "for display")]
    pub fn iops(&self) -> f64 {
        self.stats.total.ios() as f64 / self.seconds()
    }

    #[expect(clippy::cast_precision_loss, reason = "for display")]
    fn bytes_per_sec(&self) -> f64 {
        self.stats.total.bytes as f64 / self.seconds()
    }

    #[expect(clippy::cast_precision_loss, reason = "for display")]
    fn socket_calls_per_io(&self) -> Option<f64> {
        let calls = self.socket_calls? as f64;
        // What was read once more at the end took calls as well.
        let succeeded = self.completed.saturating_sub(self.stats.total.errors);
        (succeeded > 0).then(|| calls / succeeded as f64)
    }

    /// I/Os that never came back.
    pub fn lost(&self) -> u64 {
        self.submitted.saturating_sub(self.completed)
    }

    fn latency(&self) -> LatencySummary {
        let total = &self.stats.total;
        LatencySummary::with_unfinished(&total.latency, &total.unfinished)
    }
}

/// How many of each operation succeeded, where there were any.
fn operations(stats: &JobStats) -> Value {
    let counts = Op::ALL.map(|op| (op.name(), stats.count_of(op)));
    let there = counts.into_iter().filter(|(_, count)| *count > 0);
    Value::Object(
        there
            .map(|(name, count)| (name.to_owned(), count.into()))
            .collect(),
    )
}

impl OpenLoop {
    fn json(self) -> Value {
        json!({
            "rate_iops": self.rate.iops,
            "arrivals": self.rate.process.name(),
            "backlog_max": self.backlog.most,
            "backlog_end": self.backlog.now,
        })
    }
}

impl JobReport {
    fn latency(&self) -> LatencySummary {
        LatencySummary::with_unfinished(&self.stats.latency, &self.stats.unfinished)
    }

    #[expect(clippy::cast_precision_loss, reason = "for display")]
    fn json(&self, seconds: f64) -> Value {
        let stats = &self.stats;
        json!({
            "name": self.name,
            "options": self.options,
            "iops": stats.ios() as f64 / seconds,
            "bytes_per_sec": stats.bytes as f64 / seconds,
            "reads": stats.reads,
            "writes": stats.writes,
            "operations": operations(stats),
            "errors": stats.errors,
            "miscompares": stats.miscompares,
            "latency_ns": latency_json(&self.latency()),
            "open_loop": self.open_loop.map(OpenLoop::json),
            "histogram": encode(&stats.latency),
        })
    }
}

/// Names of the percentiles in the JSON object that are lower bounds.
pub fn lower_bounds(latency: &LatencySummary) -> Vec<&'static str> {
    let percentiles = latency.percentiles().into_iter();
    let percentiles = percentiles.chain([("max", Some(latency.max))]);
    let mean = latency.at_least_from.map(|_| "mean");
    let bounds = percentiles
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .filter(|(_, value)| latency.is_lower_bound(*value));
    mean.into_iter()
        .chain(bounds.map(|(name, _)| name))
        .collect()
}

impl Results for Report {
    /// Errors, wrong data and I/Os that never ended: what makes the exit code 1. Who interrupts a run did not want to
    /// wait for what was in flight.
    fn failures(&self) -> u64 {
        let lost = if self.interrupted { 0 } else { self.lost() };
        let wrong = self.stats.total.errors + self.stats.total.miscompares;
        wrong + lost + self.ramp.map_or(0, |ramp| ramp.failures)
    }

    fn interrupted(&self) -> bool {
        self.interrupted
    }

    /// One object; the schema only grows.
    fn json(&self) -> Value {
        let total = &self.stats.total;
        let latency = self.latency();
        let failed = LatencySummary::of(&total.failed_latency);
        let since_start = |at_ns: u64| at_ns.saturating_sub(self.start_ns);
        let events: Vec<Value> = self
            .stats
            .event_costs()
            .into_iter()
            .map(|event| {
                json!({
                    "at_ns": since_start(event.at_ns),
                    "path": event.path,
                    "from": event.from,
                    "to": event.to,
                    "pause_ns": event.pause_ns,
                    "pause_open": event.open,
                })
            })
            .collect();
        let series = self.series.iter().map(|point| point.json(self.start_ns));
        let series = with_events(series.collect(), &events);
        let paths: Vec<Value> = self
            .paths
            .iter()
            .map(|path| {
                json!({
                    "traddr": path.traddr,
                    "trsvcid": path.trsvcid,
                    "ios": path.ios.ios,
                    "errors": path.ios.errors,
                    "ana_state": path.ana_state,
                })
            })
            .collect();
        json!({
            "schema_version": SCHEMA_VERSION,
            "kind": self.kind,
            "title": self.title,
            "version": env!("CARGO_PKG_VERSION"),
            "commit": option_env!("POLLUX_COMMIT"),
            "command": std::env::args().collect::<Vec<_>>(),
            "began_unix_seconds": self.began.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()),
            "options": self.options,
            "jobs": self.jobs.iter().map(|job| job.json(self.seconds())).collect::<Vec<_>>(),
            "seconds": self.seconds(),
            "iops": self.iops(),
            "bytes_per_sec": self.bytes_per_sec(),
            "reads": total.reads,
            "writes": total.writes,
            "operations": operations(total),
            "compares_differing": total.differing,
            "errors": total.errors,
            "miscompares": total.miscompares,
            "submitted": self.submitted,
            "completed": self.completed,
            "interrupted": self.interrupted,
            "unfinished": {
                "count": self.lost(),
                "oldest_ns": total.unfinished.max(),
                "waited_seconds": self.waited.as_secs_f64(),
            },
            "swept_blocks": self.verified.map_or(0, |verified| verified.right),
            "verified": self.verified.map(Verified::json),
            "socket_calls_per_io": self.socket_calls_per_io(),
            "first_error": total.first_error,
            "latency_ns": latency_json(&latency),
            "latency_lower_bounds": lower_bounds(&latency),
            "failed_latency_ns": (failed.count > 0).then(|| latency_json(&failed)),
            "longest_gap_ns": total.longest.length_ns(),
            "longest_gap": {
                "at_ns": since_start(total.longest.start_ns),
                "job": total.longest.job,
                "open": total.longest.open,
                "around": self.stats.around_longest(),
            },
            "paths": paths,
            "path_events": events,
            "cores": { "host": self.host_cores, "target": self.target_core },
            "host_busy": self.host_busy,
            "machine": self.machine.json(),
            "target": self.target,
            "open_loop": self.open_loop.map(OpenLoop::json),
            "ramp": self.ramp.map(|ramp| json!({
                "seconds": ramp.time.as_secs_f64(),
                "failures": ramp.failures,
            })),
            "steadystate": self.steady.map(|steady| steady.json()),
            "histogram": encode(&total.latency),
            "failed_histogram": (failed.count > 0).then(|| encode(&total.failed_latency)),
            "unfinished_histogram": (!total.unfinished.is_empty()).then(|| encode(&total.unfinished)),
            "series": series,
            "doubts": self.doubts,
            "merged_from": null,
        })
    }

    fn hdr_log(&self) -> String {
        hdr_log(&self.series, self.start_ns, self.began)
    }

    fn hdr_text(&self) -> String {
        percentile_text(&self.stats.total.latency)
    }

    /// The table at the end.
    fn table(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.write_table(&mut text);
        text
    }
}

#[cfg(test)]
mod tests;
