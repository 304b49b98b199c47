//! Rate limits (QoS) of disks and volumes: I/Os and bytes per second, over all reactors.
//!
//! One service owns the [`Budget`] of a limit, and time fills it. Each reactor has a [`Throttle`]: it asks the owner for
//! slices of the budget by message, spends them on I/Os, and keeps the I/Os that it has nothing for in order. Nothing is
//! shared, so that there is no lock and no atomic on the way of an I/O, and the limit holds however many reactors and paths
//! there are.
//!
//! * A slice is what the limit gives in a millisecond, or what the next I/O costs if that is more. So a reactor asks about a
//!   thousand times a second at most, and no I/O is too large for a small limit: it is paid off before the next one.
//! * What is not used is kept for [`BURST`] and no longer.
//! * Reads pass writes that wait for a limit on writes alone, and the other way round; besides, order is kept.
//! * Reads, writes and compares are limited. What moves no data costs nothing, but waits for its turn.

mod budget;
mod throttle;

use std::time::Duration;

use pollux_reactor::rpc::{Params, RpcError};
use serde_json::{Map, Value, json};

pub use self::budget::{Budget, Granted};
pub use self::throttle::{Ask, Cost, Throttle};

const EINVAL: i32 = 22;

/// For how long a limit that nobody uses up adds to what can be used at once.
pub const BURST: Duration = Duration::from_millis(20);

/// Bytes of a megabyte, as SPDK counts them.
const MEGABYTE: u64 = 1 << 20;

/// The most of each limit: what can be counted in nanoseconds.
const IOS_MAX: u64 = 1_000_000_000;
const MEGABYTES_MAX: u64 = 1 << 24;

/// What is limited, in the order of SPDK's parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resource {
    /// Reads and writes.
    Ios,
    /// Bytes that are read and written.
    Bytes,
    /// Bytes that are read.
    BytesRead,
    /// Bytes that are written.
    BytesWritten,
}

impl Resource {
    const ALL: [Self; 4] = [Self::Ios, Self::Bytes, Self::BytesRead, Self::BytesWritten];

    /// The parameter of `bdev_set_qos_limit`, and the largest value.
    fn parameter(self) -> (&'static str, u64) {
        match self {
            Self::Ios => ("rw_ios_per_sec", IOS_MAX),
            Self::Bytes => ("rw_mbytes_per_sec", MEGABYTES_MAX),
            Self::BytesRead => ("r_mbytes_per_sec", MEGABYTES_MAX),
            Self::BytesWritten => ("w_mbytes_per_sec", MEGABYTES_MAX),
        }
    }
}

/// The limits of one disk or volume, by [`Resource`]: I/Os, and megabytes of 2^20 bytes, per second. 0: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateLimits([u64; 4]);

impl RateLimits {
    /// Whether anything is limited.
    pub fn is_limited(self) -> bool {
        self != Self::default()
    }

    /// The same with another limit on I/Os per second.
    pub fn with_ios(mut self, per_second: u64) -> Self {
        self.0[Resource::Ios as usize] = per_second.min(IOS_MAX);
        self
    }

    /// The same with other limits on megabytes per second: of reads and writes together, of reads, of writes.
    pub fn with_megabytes(mut self, both: u64, reads: u64, writes: u64) -> Self {
        for (limit, value) in self.0[1..].iter_mut().zip([both, reads, writes]) {
            *limit = value.min(MEGABYTES_MAX);
        }
        self
    }

    /// Units per second of each resource: I/Os, and bytes.
    fn rates(self) -> [u64; 4] {
        let [ios, both, reads, writes] = self.0;
        let bytes = |megabytes: u64| megabytes * MEGABYTE;
        [ios, bytes(both), bytes(reads), bytes(writes)]
    }

    /// The members by which SPDK's clients know them; `all`: also those that limit nothing.
    pub fn show(self, all: bool) -> Map<String, Value> {
        let limits = Resource::ALL.into_iter().zip(self.0);
        let shown = limits.filter(|(_, value)| all || *value > 0);
        let shown = shown.map(|(resource, value)| (resource.parameter().0.into(), value.into()));
        shown.collect()
    }

    /// The call that limits the disk or volume of this name so; none if there is no limit.
    pub fn call(self, name: &str) -> Option<Value> {
        let mut params = self.show(false);
        if params.is_empty() {
            return None;
        }
        params.insert("name".into(), name.into());
        Some(json!({"method": "bdev_set_qos_limit", "params": params}))
    }
}

/// What `bdev_set_qos_limit` changes: limits that are not given stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateChange([Option<u64>; 4]);

impl RateChange {
    /// Takes the limits out of the parameters of the method, and those are all that there are then.
    ///
    /// # Errors
    /// One is no number from 0 up to what can be counted, another parameter is unknown, or no limit is given.
    pub fn take(params: &mut Params) -> Result<Self, RpcError> {
        let mut change = [None; 4];
        for (resource, value) in Resource::ALL.into_iter().zip(&mut change) {
            let (name, max) = resource.parameter();
            *value = params.optional::<u64>(name)?;
            if let Some(value) = *value
                && value > max
            {
                return Err(params.invalid(name, format!("{value}, at most {max} is allowed")));
            }
        }
        params.finish()?;
        if change == [None; 4] {
            return Err(RpcError::errno_of(EINVAL, "No rate limits specified"));
        }
        Ok(Self(change))
    }

    /// The limits after the change.
    pub fn apply(self, before: RateLimits) -> RateLimits {
        let mut after = before;
        for (limit, change) in after.0.iter_mut().zip(self.0) {
            *limit = change.unwrap_or(*limit);
        }
        after
    }
}

impl From<RateLimits> for RateChange {
    /// These and no others.
    fn from(limits: RateLimits) -> Self {
        Self(limits.0.map(Some))
    }
}

#[cfg(test)]
mod tests;
