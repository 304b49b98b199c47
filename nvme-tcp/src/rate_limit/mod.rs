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

pub use self::budget::{Budget, Granted};
pub use self::throttle::{Ask, Cost, Throttle};

/// For how long a limit that nobody uses up adds to what can be used at once.
pub const BURST: Duration = Duration::from_millis(20);

/// Bytes of a megabyte, as SPDK counts them.
const MEGABYTE: u64 = 1 << 20;

/// The most of each limit: what can be counted in nanoseconds.
pub(crate) const IOS_MAX: u64 = 1_000_000_000;
pub(crate) const MEGABYTES_MAX: u64 = 1 << 24;

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
    /// All of them, in that order.
    pub(crate) const ALL: [Self; 4] = [Self::Ios, Self::Bytes, Self::BytesRead, Self::BytesWritten];
}

/// The limits of one disk or volume, by [`Resource`]: I/Os, and megabytes of 2^20 bytes, per second. 0: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateLimits(pub(crate) [u64; 4]);

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
}

/// What `bdev_set_qos_limit` changes: limits that are not given stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateChange(pub(crate) [Option<u64>; 4]);

impl RateChange {
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
