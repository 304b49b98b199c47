//! The clock: nanoseconds since an epoch that the whole process shares.

use std::ops::{Add, Sub};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A point in time, in nanoseconds since the process-wide epoch (the first reading of the clock).
///
/// Inside a [`Simulation`](crate::Simulation) it is virtual time and starts at [`Time::ZERO`].
/// 64 bits of nanoseconds last 584 years, so arithmetic saturates instead of reporting an overflow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The epoch.
    pub const ZERO: Time = Time(0);
    /// Later than any time that can be read: "never" for a deadline.
    pub const MAX: Time = Time(u64::MAX);

    /// The time `nanos` nanoseconds after the epoch.
    pub const fn from_nanos(nanos: u64) -> Time {
        Time(nanos)
    }

    /// Nanoseconds since the epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How much later `self` is than `earlier`; zero if it is not later.
    pub const fn saturating_since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Reads the real clock, for threads beside the reactors: a service takes [`Context::now`](crate::Context::now). All
    /// threads of the process share the epoch, so times may travel in messages.
    pub fn read_clock() -> Time {
        static EPOCH: OnceLock<u64> = OnceLock::new();
        let now = clock_gettime(ClockId::Monotonic);
        // The system's monotonic clock counts from a start in the past, in fractions below a second.
        let now = now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned();
        Time(now.saturating_sub(*EPOCH.get_or_init(|| now)))
    }
}

/// A duration in nanoseconds, capped at `u64::MAX` (584 years).
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Time {
    type Output = Time;

    /// Saturates at [`Time::MAX`].
    fn add(self, duration: Duration) -> Time {
        Time(self.0.saturating_add(nanos(duration)))
    }
}

impl Sub<Time> for Time {
    type Output = Duration;

    /// Saturates at zero.
    fn sub(self, earlier: Time) -> Duration {
        self.saturating_since(earlier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        let t = Time::from_nanos(5);
        assert_eq!(t + Duration::from_nanos(7), Time::from_nanos(12));
        assert_eq!(t - Time::from_nanos(2), Duration::from_nanos(3));
        assert_eq!(t - Time::from_nanos(9), Duration::ZERO);
        assert_eq!(Time::MAX + Duration::from_secs(1), Time::MAX);
        assert_eq!(t + Duration::MAX, Time::MAX);
    }

    #[test]
    fn threads_share_the_epoch() {
        let before = Time::read_clock();
        let other = std::thread::spawn(Time::read_clock).join().unwrap();
        assert!(before <= other);
        assert!(other <= Time::read_clock());
    }
}
