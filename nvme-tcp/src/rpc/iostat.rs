//! Parameters and answers of methods about what was counted of I/O: `bdev_get_iostat`, `bdev_reset_iostat`.

use pollux_reactor::rpc::{Params, RpcError};
use serde_json::{Map, Value, json};

use crate::counters::{CounterReset, IoCounters, OpCounters};

const EINVAL: i32 = 22;

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

impl IoCounters {
    /// The members that clients of SPDK read; latencies in ticks of a nanosecond.
    pub fn show(&self) -> Map<String, Value> {
        let kinds = [
            ("read", "read", self.reads),
            ("write", "written", self.writes),
            ("unmap", "unmapped", self.deallocations),
            // There are no copies.
            ("copy", "copied", OpCounters::default()),
        ];
        let mut members = Map::new();
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
        members.insert("pollux".into(), json!({"errors": self.errors}));
        members
    }
}
