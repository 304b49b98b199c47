//! What is counted of the I/O on a path, on the reactor that does it.

use std::time::Duration;

use crate::command::Op;

/// I/Os of one kind that succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpCounters {
    /// How many.
    pub count: u64,
    /// Bytes that they moved, or deallocated.
    pub bytes: u64,
    /// Sum of their latencies, from first submission to completion, in ns.
    pub latency_ns: u64,
    /// The shortest latency in ns; `u64::MAX` if there was none.
    pub latency_min_ns: u64,
    /// The longest latency in ns.
    pub latency_max_ns: u64,
}

impl Default for OpCounters {
    fn default() -> Self {
        Self {
            count: 0,
            bytes: 0,
            latency_ns: 0,
            latency_min_ns: u64::MAX,
            latency_max_ns: 0,
        }
    }
}

impl OpCounters {
    #[inline]
    fn count(&mut self, bytes: u64, latency_ns: u64) {
        self.count += 1;
        self.bytes += bytes;
        self.latency_ns += latency_ns;
        self.latency_min_ns = self.latency_min_ns.min(latency_ns);
        self.latency_max_ns = self.latency_max_ns.max(latency_ns);
    }

    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.bytes += other.bytes;
        self.latency_ns += other.latency_ns;
        self.latency_min_ns = self.latency_min_ns.min(other.latency_min_ns);
        self.latency_max_ns = self.latency_max_ns.max(other.latency_max_ns);
    }

    fn forget_extremes(&mut self) {
        self.latency_min_ns = u64::MAX;
        self.latency_max_ns = 0;
    }
}

/// Counters of one path on one reactor since it was added, or since they were reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PathCounters {
    /// Reads.
    pub reads: OpCounters,
    /// Writes, and whatever is not counted elsewhere.
    pub writes: OpCounters,
    /// Deallocations.
    pub deallocations: OpCounters,
    /// Completions with an error, and commands lost with the connection.
    pub errors: u64,
}

/// Which counters to begin anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CounterReset {
    /// All of them.
    All,
    /// The shortest and the longest latencies.
    Extremes,
    /// The counters of errors.
    Errors,
}

impl PathCounters {
    /// I/Os that succeeded.
    pub fn ios(&self) -> u64 {
        self.reads.count + self.writes.count + self.deallocations.count
    }

    /// Adds another reactor's counters of the same path.
    pub fn add(&mut self, other: &Self) {
        self.reads.add(&other.reads);
        self.writes.add(&other.writes);
        self.deallocations.add(&other.deallocations);
        self.errors += other.errors;
    }

    /// Counts an I/O that has succeeded, and moved so many bytes if it moves any.
    #[inline]
    pub(crate) fn count(&mut self, op: Op, length: usize, latency: Duration) {
        let (kind, bytes) = match op {
            Op::Read => (&mut self.reads, length as u64),
            Op::Deallocate => (&mut self.deallocations, 0),
            op if op.moves_blocks() => (&mut self.writes, length as u64),
            _ => (&mut self.writes, 0),
        };
        // Longer than 584 years is the longest.
        let latency_ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        kind.count(bytes, latency_ns);
    }

    pub(crate) fn reset(&mut self, what: CounterReset) {
        match what {
            CounterReset::All => *self = Self::default(),
            CounterReset::Errors => self.errors = 0,
            CounterReset::Extremes => {
                for kind in [&mut self.reads, &mut self.writes, &mut self.deallocations] {
                    kind.forget_extremes();
                }
            }
        }
    }
}
