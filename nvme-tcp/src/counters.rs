//! What is counted of I/O: of a path of the host, of a disk of the target.

use std::time::Duration;

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
    /// Counts one of so many bytes.
    #[inline]
    pub fn count(&mut self, bytes: u64, latency: Duration) {
        // Longer than 584 years is the longest.
        let latency_ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.count += 1;
        self.bytes += bytes;
        self.latency_ns += latency_ns;
        self.latency_min_ns = self.latency_min_ns.min(latency_ns);
        self.latency_max_ns = self.latency_max_ns.max(latency_ns);
    }

    /// Adds those of another reactor.
    pub fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.bytes += other.bytes;
        self.latency_ns += other.latency_ns;
        self.latency_min_ns = self.latency_min_ns.min(other.latency_min_ns);
        self.latency_max_ns = self.latency_max_ns.max(other.latency_max_ns);
    }

    /// Begins the shortest and the longest latency anew.
    pub fn forget_extremes(&mut self) {
        self.latency_min_ns = u64::MAX;
        self.latency_max_ns = 0;
    }
}

/// Which counters to begin anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CounterReset {
    /// All of them.
    All,
    /// The shortest and the longest latencies.
    Extremes,
    /// The counters of errors.
    Errors,
}

/// I/O by kinds, and what failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct IoCounters {
    /// Reads.
    pub reads: OpCounters,
    /// Writes, and whatever is not counted elsewhere.
    pub writes: OpCounters,
    /// Deallocations.
    pub deallocations: OpCounters,
    /// Completions with an error, and on a host commands lost with their connection.
    pub errors: u64,
}

impl IoCounters {
    /// I/Os that succeeded.
    pub fn ios(&self) -> u64 {
        self.reads.count + self.writes.count + self.deallocations.count
    }

    /// Adds those of another reactor.
    pub fn add(&mut self, other: &Self) {
        self.reads.add(&other.reads);
        self.writes.add(&other.writes);
        self.deallocations.add(&other.deallocations);
        self.errors += other.errors;
    }

    /// Begins some of them anew.
    pub fn reset(&mut self, what: CounterReset) {
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
