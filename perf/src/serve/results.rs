//! What `perform_tests` answers, in the shape that `bdevperf` gives it.

use std::ops::Range;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::orders::Orders;
use crate::load::Collected;
use crate::load::Workload;

/// How a run ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunStatus {
    /// The time was up.
    Finished,
    /// A signal came first.
    Terminated,
}

/// What one job has done.
#[derive(Debug)]
pub(super) struct JobResult {
    volume: String,
    core_mask: u64,
    region: Range<u64>,
    runtime_sec: f64,
    ios: u64,
    bytes: u64,
    failed: u64,
    miscompares: u64,
    /// I/Os that did not come back.
    lost: u64,
    /// Mean, minimum and maximum; of I/Os that did not come back the time until the end.
    latency_us: [f64; 3],
    /// The same of I/Os that failed.
    failed_latency_us: [f64; 3],
    longest_gap_us: f64,
    first_error: Option<String>,
}

impl JobResult {
    pub fn new(volume: &str, core_mask: u64, region: Range<u64>) -> JobResult {
        JobResult {
            volume: volume.to_owned(),
            core_mask,
            region,
            runtime_sec: 0.0,
            ios: 0,
            bytes: 0,
            failed: 0,
            miscompares: 0,
            lost: 0,
            latency_us: [0.0; 3],
            failed_latency_us: [0.0; 3],
            longest_gap_us: 0.0,
            first_error: None,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "for display")]
    pub fn take(&mut self, collected: Collected) {
        let Collected {
            stats,
            account: (submitted, completed),
            span_ns: (start, end),
            ..
        } = collected;
        self.runtime_sec = end.saturating_sub(start) as f64 / 1e9;
        self.ios = stats.ios();
        self.bytes = stats.bytes;
        self.failed = stats.errors;
        self.miscompares = stats.miscompares;
        self.lost = submitted - completed;
        self.first_error = stats.first_error;
        let mut latency = stats.latency;
        crate::stats::add(&mut latency, &stats.unfinished);
        self.latency_us = figures_us(&latency);
        self.failed_latency_us = figures_us(&stats.failed_latency);
        self.longest_gap_us = stats.longest.length_ns() as f64 / 1e3;
    }

    /// Why the run has failed, if it has because of this job.
    pub fn failure(&self, keep_going: bool, status: RunStatus) -> Option<String> {
        let is_bad = self.miscompares > 0 || (!keep_going && self.failed > 0);
        if is_bad {
            let error = self.first_error.as_deref().unwrap_or("I/O failed");
            return Some(format!("{}: {error}", self.volume));
        }
        // Who ends a run by a signal does not want to wait for what is in flight.
        let is_lost = !keep_going && self.lost > 0 && status == RunStatus::Finished;
        is_lost.then(|| {
            format!(
                "{}: {} I/Os had not ended long after the end of the run",
                self.volume, self.lost
            )
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "for display")]
    fn show(&self, status: RunStatus, orders: &Orders) -> Value {
        let per_sec = |count: u64| match self.runtime_sec > 0.0 {
            true => count as f64 / self.runtime_sec,
            false => 0.0,
        };
        let [mean, min, max] = self.latency_us;
        let mut members = Map::new();
        let mut put = |name: &str, value: Value| {
            members.insert(name.into(), value);
        };
        put("job", json!(self.volume));
        put("core_mask", json!(format!("{:#x}", self.core_mask)));
        put("workload", json!(orders.workload.name()));
        if matches!(orders.workload, Workload::Rw | Workload::RandRw) {
            put("percentage", json!(orders.read_share.unwrap_or(50)));
        }
        let status = match status {
            RunStatus::Finished => "finished",
            RunStatus::Terminated => "terminated",
        };
        put("status", json!(status));
        if orders.workload == Workload::Verify {
            let length = self.region.end - self.region.start;
            put(
                "verify_range",
                json!({"start": self.region.start, "length": length}),
            );
        }
        put("queue_depth", json!(orders.depth));
        put("io_size", json!(orders.io_size.max()));
        put("runtime", json!(self.runtime_sec));
        put("iops", json!(per_sec(self.ios)));
        put("mibps", json!(per_sec(self.bytes) / f64::from(1 << 20)));
        put("io_failed", json!(self.failed));
        put("io_timeout", json!(self.lost));
        put("avg_latency_us", json!(mean));
        put("min_latency_us", json!(min));
        put("max_latency_us", json!(max));
        if self.lost > 0 {
            // Each has taken at least so long.
            put(
                "latency_lower_bounds",
                json!(["avg_latency_us", "max_latency_us"]),
            );
        }
        let [mean, min, max] = self.failed_latency_us;
        put("avg_failed_latency_us", json!(mean));
        put("min_failed_latency_us", json!(min));
        put("max_failed_latency_us", json!(max));
        put("longest_gap_us", json!(self.longest_gap_us));
        members.into()
    }
}

/// Mean, minimum and maximum; zero of nothing.
#[expect(clippy::cast_precision_loss, reason = "for display")]
fn figures_us(histogram: &Histogram<u64>) -> [f64; 3] {
    match histogram.is_empty() {
        true => [0.0; 3],
        false => [
            histogram.mean() / 1e3,
            histogram.min() as f64 / 1e3,
            histogram.max() as f64 / 1e3,
        ],
    }
}

/// The whole answer.
pub(super) fn show(
    jobs: &[JobResult],
    status: RunStatus,
    orders: &Orders,
    core_masks: &[u64],
) -> Value {
    let list: Vec<Value> = jobs.iter().map(|job| job.show(status, orders)).collect();
    json!({"results": list, "core_count": core_masks.len()})
}
