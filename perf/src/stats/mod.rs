//! What is counted: per job while it runs, merged for the report.
//!
//! A job fills a [`JobStats`]; once a second it is exchanged for an empty one and merged into [`RunStats`] by another
//! thread, so that a reactor never sums, sorts or prints.

mod events;
mod latency;
mod percentiles;
mod run;
mod series;

use hdrhistogram::Histogram;
use pollux_multipath::Op;

pub use self::events::{GAP_MIN_NS, Gap, PATH_LOOK_NS, PathEvent};
pub use self::latency::{LatencySummary, add, latency_histogram, latency_json};
pub use self::percentiles::percentile_text;
pub use self::run::RunStats;
pub use self::series::{Interval, decode, encode, hdr_log, with_events};

/// Length of a slot of time: a job keeps the longest of the gaps that end within it.
const GAP_SLOT_NS: u64 = 1_000_000;

/// Gaps that a job can hold between two exchanges, eight seconds' worth.
const GAPS_MAX: usize = 8_192;

/// What one path carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathIos {
    /// I/Os that succeeded.
    pub ios: u64,
    /// I/Os that failed and were on this path last.
    pub errors: u64,
}

/// Counters of one job since the last exchange. Nothing in it allocates while I/O completes.
#[derive(Clone, Debug)]
pub struct JobStats {
    /// Nanoseconds from submission to completion, of I/Os that succeeded.
    pub latency: Histogram<u64>,
    /// The same of I/Os that failed.
    pub failed_latency: Histogram<u64>,
    /// Nanoseconds since submission of I/Os that had not ended when the run was over.
    pub unfinished: Histogram<u64>,
    /// Reads that succeeded.
    pub reads: u64,
    /// Writes that succeeded.
    pub writes: u64,
    /// Other operations that succeeded, in the order of [`Op::ALL`].
    pub others: [u64; Op::ALL.len()],
    /// Compares among them that found a difference: they did what they had to.
    pub differing: u64,
    /// Payload bytes.
    pub bytes: u64,
    /// I/Os that failed.
    pub errors: u64,
    /// Reads whose data was wrong.
    pub miscompares: u64,
    /// I/Os that succeeded and that failed by path, in attach order.
    pub paths: Vec<PathIos>,
    /// Longest gap.
    pub longest: Gap,
    /// Gaps of at least [`GAP_MIN_NS`], the longest of each slot, in order of time.
    pub gaps: Vec<Gap>,
    /// Path states that changed.
    pub events: Vec<PathEvent>,
    /// The first error or miscompare in words.
    pub first_error: Option<String>,
}

impl JobStats {
    /// Empty counters with all memory they will need.
    pub fn new() -> Self {
        Self {
            latency: latency_histogram(),
            failed_latency: latency_histogram(),
            unfinished: latency_histogram(),
            reads: 0,
            writes: 0,
            others: [0; Op::ALL.len()],
            differing: 0,
            bytes: 0,
            errors: 0,
            miscompares: 0,
            paths: Vec::with_capacity(16),
            longest: Gap::default(),
            gaps: Vec::with_capacity(GAPS_MAX),
            events: Vec::new(),
            first_error: None,
        }
    }

    /// Empties it, keeping its memory.
    pub fn clear(&mut self) {
        for histogram in [
            &mut self.latency,
            &mut self.failed_latency,
            &mut self.unfinished,
        ] {
            // Each is large, and most are empty most of the time.
            if !histogram.is_empty() {
                histogram.reset();
            }
        }
        (self.reads, self.writes, self.bytes) = (0, 0, 0);
        (self.errors, self.miscompares) = (0, 0);
        (self.others, self.differing) = ([0; Op::ALL.len()], 0);
        self.paths.clear();
        self.longest = Gap::default();
        self.gaps.clear();
        self.events.clear();
        self.first_error = None;
    }

    /// I/Os that succeeded.
    pub fn ios(&self) -> u64 {
        self.reads + self.writes + self.others.iter().sum::<u64>()
    }

    /// Counts a success that was neither read nor write.
    pub fn note_other(&mut self, op: Op, payload: u64) {
        let place = Op::ALL.iter().position(|known| *known == op);
        if let Some(count) = place.and_then(|place| self.others.get_mut(place)) {
            *count += 1;
        }
        if op == Op::Compare {
            self.bytes += payload;
        }
    }

    /// How many of an operation succeeded.
    pub fn count_of(&self, op: Op) -> u64 {
        let others = Op::ALL.iter().zip(self.others);
        match op {
            Op::Read => self.reads,
            Op::Write => self.writes,
            _ => others
                .filter(|(known, _)| **known == op)
                .map(|(_, count)| count)
                .sum(),
        }
    }

    /// The counters of path number `path`.
    pub fn path(&mut self, path: usize) -> &mut PathIos {
        if self.paths.len() <= path {
            self.paths.resize(path + 1, PathIos::default());
        }
        &mut self.paths[path]
    }

    /// Adds what was counted elsewhere, but for gaps and events.
    pub fn add_counts(&mut self, part: &Self) {
        for (sum, part) in [
            (&mut self.latency, &part.latency),
            (&mut self.failed_latency, &part.failed_latency),
            (&mut self.unfinished, &part.unfinished),
        ] {
            if !part.is_empty() {
                add(sum, part);
            }
        }
        self.reads += part.reads;
        self.writes += part.writes;
        for (sum, part) in self.others.iter_mut().zip(part.others) {
            *sum += part;
        }
        self.differing += part.differing;
        self.bytes += part.bytes;
        self.errors += part.errors;
        self.miscompares += part.miscompares;
        for (index, part) in part.paths.iter().enumerate() {
            let sum = self.path(index);
            sum.ios += part.ios;
            sum.errors += part.errors;
        }
        if self.first_error.is_none() {
            self.first_error.clone_from(&part.first_error);
        }
    }

    /// Notes the time between two completions.
    pub fn note_gap(&mut self, gap: Gap) {
        if gap.length_ns() > self.longest.length_ns() {
            self.longest = gap;
        }
        if gap.length_ns() < GAP_MIN_NS {
            return;
        }
        let full = self.gaps.len() >= GAPS_MAX;
        match self.gaps.last_mut() {
            Some(last) if full || last.end_ns / GAP_SLOT_NS == gap.end_ns / GAP_SLOT_NS => {
                if gap.length_ns() > last.length_ns() {
                    *last = gap;
                }
            }
            _ => self.gaps.push(gap),
        }
    }

    /// Keeps the first error.
    pub fn note_error(&mut self, text: impl FnOnce() -> String) {
        self.first_error.get_or_insert_with(text);
    }
}

#[cfg(test)]
mod tests;
