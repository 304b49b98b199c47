//! What a run of load came to, and the object that programs read.

mod table;

use std::time::Duration;

use serde_json::{Value, json};

use crate::load::Verified;
use crate::machine::Machine;
use crate::results::Results;
use crate::stats::{LatencySummary, PathIos, RunStats};

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
    /// What makes the number doubtful.
    pub doubts: Vec<String>,
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

/// Names of the percentiles in the JSON object that are lower bounds.
fn lower_bounds(latency: &LatencySummary) -> Vec<&'static str> {
    let percentiles = [
        ("p50", latency.p50),
        ("p90", latency.p90),
        ("p99", latency.p99),
        ("p999", latency.p999),
        ("p9999", latency.p9999),
        ("max", latency.max),
    ];
    let mean = latency.at_least_from.map(|_| "mean");
    let bounds = percentiles
        .into_iter()
        .filter(|(_, value)| latency.is_lower_bound(*value));
    mean.into_iter()
        .chain(bounds.map(|(name, _)| name))
        .collect()
}

fn latency_json(latency: &LatencySummary) -> Value {
    json!({
        "mean": latency.mean,
        "p50": latency.p50,
        "p90": latency.p90,
        "p99": latency.p99,
        "p999": latency.p999,
        "p9999": latency.p9999,
        "max": latency.max,
    })
}

impl Results for Report {
    /// Errors, wrong data and I/Os that never ended: what makes the exit code 1. Who interrupts a run did not want to
    /// wait for what was in flight.
    fn failures(&self) -> u64 {
        let lost = if self.interrupted { 0 } else { self.lost() };
        let wrong = self.stats.total.errors + self.stats.total.miscompares;
        wrong + lost
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
            "kind": self.kind,
            "version": env!("CARGO_PKG_VERSION"),
            "options": self.options,
            "seconds": self.seconds(),
            "iops": self.iops(),
            "bytes_per_sec": self.bytes_per_sec(),
            "reads": total.reads,
            "writes": total.writes,
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
            "machine": self.machine.json(),
            "doubts": self.doubts,
        })
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
