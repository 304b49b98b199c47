//! What is counted of I/O: of a path of the host, of a disk of the target.

use std::time::Duration;

use pollux_reactor::rpc::{Params, RpcError};

const EINVAL: i32 = 22;

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

impl CounterReset {
    /// Takes the parameter of this name that says it as SPDK's clients do; `None`: it is not given, or asks for nothing.
    ///
    /// # Errors
    /// It is neither `none`, `all`, `maxmin` nor `error`.
    pub fn take(params: &mut Params, name: &str) -> Result<Option<Self>, RpcError> {
        let modes = [
            ("none", None),
            ("all", Some(Self::All)),
            ("maxmin", Some(Self::Extremes)),
            ("error", Some(Self::Errors)),
        ];
        Ok(params.one_of(name, &modes)?.flatten())
    }
}

/// What `bdev_get_iostat` is asked for.
#[derive(Debug)]
#[non_exhaustive]
pub struct IostatParams {
    /// Whose counters; empty: those of all that there are.
    pub names: Vec<String>,
    /// Of the one that is named, by reactor.
    pub per_channel: bool,
    /// What is to be begun anew then.
    pub reset: Option<CounterReset>,
}

impl IostatParams {
    /// Takes all parameters of the method; `one` is what names are of.
    ///
    /// # Errors
    /// One is unknown, of the wrong type, or does not go with another.
    pub fn take(params: &mut Params, one: &str) -> Result<Self, RpcError> {
        let mut names: Vec<String> = params.optional("names")?.unwrap_or_default();
        names.extend(params.optional::<String>("name")?);
        let per_channel = params.optional("per_channel")?.unwrap_or(false);
        let reset = CounterReset::take(params, "reset_mode")?;
        params.finish()?;
        if per_channel && names.len() != 1 {
            let text = format!("'per_channel' is for one {one}, named in 'names'");
            return Err(RpcError::errno_of(EINVAL, text));
        }
        if per_channel && reset.is_some() {
            let text = "'per_channel' goes with the reset_mode 'none' only";
            return Err(RpcError::errno_of(EINVAL, text));
        }
        Ok(Self {
            names,
            per_channel,
            reset,
        })
    }
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

    /// The members that clients of SPDK read; latencies in ticks of a nanosecond.
    pub fn show(&self) -> serde_json::Map<String, serde_json::Value> {
        let kinds = [
            ("read", "read", self.reads),
            ("write", "written", self.writes),
            ("unmap", "unmapped", self.deallocations),
            // There are no copies.
            ("copy", "copied", OpCounters::default()),
        ];
        let mut members = serde_json::Map::new();
        for (name, past, kind) in kinds {
            members.insert(format!("bytes_{past}"), kind.bytes.into());
            members.insert(format!("num_{name}_ops"), kind.count.into());
        }
        for (name, _, kind) in kinds {
            let min = match kind.latency_min_ns {
                // None yet, or none since the extremes were reset.
                u64::MAX => 0,
                min => min,
            };
            for (what, ticks) in [
                ("", kind.latency_ns),
                ("max_", kind.latency_max_ns),
                ("min_", min),
            ] {
                members.insert(format!("{what}{name}_latency_ticks"), ticks.into());
            }
        }
        members.insert("pollux".into(), serde_json::json!({"errors": self.errors}));
        members
    }
}
