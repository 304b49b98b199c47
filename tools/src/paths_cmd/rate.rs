//! What a path has done between two snapshots.

use std::time::Duration;

use super::snapshot::{Counters, Path, Snapshot};

/// Per second, but for the errors.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    pub iops: f64,
    pub mib_per_sec: f64,
    /// In the time between.
    pub errors: u64,
}

/// An earlier snapshot.
#[derive(Debug)]
pub struct Before {
    pub snapshot: Snapshot,
    /// How long ago it was when the later one was taken.
    pub ago: Duration,
}

impl Before {
    /// `None` for a path that was not there, that does not count, or that was added anew since.
    pub fn rate(&self, volume: &str, path: &Path) -> Option<Rate> {
        let before = self.snapshot.path(volume, &path.addr)?.counters?;
        rate(before, path.counters?, self.ago)
    }
}

fn rate(before: Counters, after: Counters, time: Duration) -> Option<Rate> {
    let seconds = time.as_secs_f64();
    if seconds <= 0.0 {
        return None;
    }
    let ios = after.reads.checked_sub(before.reads)? + after.writes.checked_sub(before.writes)?;
    let bytes = after.read_bytes.checked_sub(before.read_bytes)?
        + after.write_bytes.checked_sub(before.write_bytes)?;
    #[expect(clippy::cast_precision_loss, reason = "for display")]
    let per_second = |count: u64| count as f64 / seconds;
    Some(Rate {
        iops: per_second(ios),
        mib_per_sec: per_second(bytes) / f64::from(1 << 20),
        errors: after.errors.checked_sub(before.errors)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_differences_over_time() {
        let before = Counters {
            reads: 100,
            errors: 1,
            ..Counters::default()
        };
        let after = Counters {
            reads: 300,
            writes: 100,
            read_bytes: 1 << 20,
            write_bytes: 1 << 20,
            errors: 4,
        };
        let two = Duration::from_secs(2);
        let expected = Rate {
            iops: 150.0,
            mib_per_sec: 1.0,
            errors: 3,
        };
        assert_eq!(rate(before, after, two), Some(expected));
        assert_eq!(
            rate(after, before, two),
            None,
            "another path at the address"
        );
        assert_eq!(rate(before, after, Duration::ZERO), None);
    }
}
