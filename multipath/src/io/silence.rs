//! A queue pair that says nothing although commands are outstanding (rule B9.4).
//!
//! Keep Alive is answered on the admin queue, by another connection: it says nothing of a flow that the network,
//! or one core of the target, has swallowed. A slow disk is silent as well, so silence alone proves nothing:
//! the queue is probed with a command that any controller answers at once, and only if that is not answered
//! either does the connection end.

use std::time::Duration;

use pollux_reactor::Time;

/// Checks per limit.
const CHECKS: u32 = 8;

/// What a check has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    Fine,
    /// Silent for the limit: send a probe.
    Suspect,
    /// The probe was not answered for half as long.
    Dead,
}

/// The watch over one queue pair.
#[derive(Debug)]
pub(crate) struct Silence {
    limit: Duration,
    /// Nothing was outstanding, or something came, at this time.
    since: Time,
    probed_at: Option<Time>,
    longest: Duration,
    /// When it is checked next.
    pub check_at: Time,
}

impl Silence {
    pub fn new(limit: Duration, now: Time) -> Self {
        Self {
            limit,
            since: now,
            probed_at: None,
            longest: Duration::ZERO,
            check_at: now + limit / CHECKS,
        }
    }

    /// Looks at a queue pair that has received something at `received_at` last.
    pub fn check(&mut self, now: Time, outstanding: usize, received_at: Time) -> Finding {
        self.check_at = now + self.limit / CHECKS;
        if outstanding == 0 {
            self.since = now;
            self.probed_at = None;
        } else if received_at > self.since {
            self.longest = self.longest.max(received_at.saturating_since(self.since));
            self.since = received_at;
            self.probed_at = None;
        }
        let silence = now.saturating_since(self.since);
        self.longest = self.longest.max(silence);
        match self.probed_at {
            // Commands may be younger than the last check by one interval.
            None if silence >= self.limit + self.limit / CHECKS => Finding::Suspect,
            Some(at) if now.saturating_since(at) >= self.limit / 2 => Finding::Dead,
            _ => Finding::Fine,
        }
    }

    /// A probe is on its way.
    pub fn probed(&mut self, now: Time) {
        self.probed_at = Some(now);
    }

    /// The longest silence with commands outstanding, to the eighth of the limit, the present one included.
    pub fn longest(&self) -> Duration {
        self.longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Time {
        Time::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn silence_counts_while_commands_are_outstanding() {
        let mut silence = Silence::new(Duration::from_millis(800), at(0));
        for ms in (100..5000).step_by(100) {
            assert_eq!(silence.check(at(ms), 0, at(0)), Finding::Fine, "idle");
        }
        for ms in (5000..5800).step_by(100) {
            assert_eq!(silence.check(at(ms), 3, at(0)), Finding::Fine, "at {ms}");
        }
        assert_eq!(silence.check(at(5800), 3, at(0)), Finding::Suspect);
        silence.probed(at(5800));
        assert_eq!(silence.check(at(6100), 4, at(0)), Finding::Fine);
        assert_eq!(silence.check(at(6200), 4, at(0)), Finding::Dead);
        assert_eq!(
            silence.check(at(6300), 3, at(6250)),
            Finding::Fine,
            "answered"
        );
        assert_eq!(silence.longest(), Duration::from_millis(1350));
        assert_eq!(silence.check(at(7100), 3, at(6250)), Finding::Fine);
        assert_eq!(silence.check(at(7150), 3, at(6250)), Finding::Suspect);
    }
}
