//! What a reactor does with its core while there is nothing to do.

use std::time::Duration;

use crate::mailbox::Bell;
use crate::reactor::Reactor;
use crate::time::Time;

/// How a reactor rests after an idle turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Idle {
    /// Turn again at once: the shortest latency, and a core that is always busy.
    Spin,
    /// Give the core to another thread that wants it, then turn again.
    Yield,
    /// Spin; after this long without anything to do, sleep until a message, a socket event or the next timer.
    Park {
        /// How long a reactor spins before it sleeps.
        after: Duration,
    },
}

/// The event queue waits in steps of this.
const WAIT_STEP: Duration = Duration::from_millis(1);

/// How long a parked reactor may block so that it is never late for `deadline`: whole steps, the rest is spent
/// awake. `None`: not worth it.
fn wait_time(now: Time, deadline: Time) -> Option<Duration> {
    let steps = (deadline - now).as_nanos() / WAIT_STEP.as_nanos();
    // 49 days at most; the reactor just looks again then.
    let steps = u32::try_from(steps).unwrap_or(u32::MAX);
    (steps > 0).then(|| WAIT_STEP * steps)
}

/// Keeps track of how long a reactor has been idle, and rests accordingly.
#[derive(Debug)]
pub(crate) struct Rest {
    idle: Idle,
    idle_since: Option<Time>,
}

impl Rest {
    pub(crate) fn new(idle: Idle) -> Rest {
        Rest {
            idle,
            idle_since: None,
        }
    }

    pub(crate) fn was_busy(&mut self) {
        self.idle_since = None;
    }

    /// Whether the turn that began at `now` and found nothing should be followed by a sleep.
    pub(crate) fn is_sleep_due(&mut self, now: Time) -> bool {
        let Idle::Park { after } = self.idle else {
            return false;
        };
        now - *self.idle_since.get_or_insert(now) >= after
    }

    /// Rests after an idle turn that began at `now`.
    pub(crate) fn rest(&mut self, now: Time, reactor: &mut Reactor, bell: &Bell) {
        if self.is_sleep_due(now) {
            // The turn may have been a long one, and a sleep must not be longer than what is left.
            let now = Time::read_clock();
            match reactor.next_deadline() {
                None => self.sleep(reactor, bell, None),
                Some(deadline) => match wait_time(now, deadline) {
                    Some(timeout) => self.sleep(reactor, bell, Some(timeout)),
                    None => std::thread::yield_now(),
                },
            }
            return;
        }
        match self.idle {
            Idle::Spin | Idle::Park { .. } => std::hint::spin_loop(),
            Idle::Yield => std::thread::yield_now(),
        }
    }

    fn sleep(&mut self, reactor: &mut Reactor, bell: &Bell, timeout: Option<Duration>) {
        reactor.park(bell, timeout);
        // Whatever woke us is likely to be followed by more: the full time awake again.
        self.idle_since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_never_longer_than_the_time_that_is_left() {
        let now = Time::from_nanos(1_000);
        assert_eq!(wait_time(now, now), None);
        assert_eq!(wait_time(now, Time::ZERO), None);
        assert_eq!(wait_time(now, now + Duration::from_micros(999)), None);
        assert_eq!(
            wait_time(now, now + Duration::from_micros(2_999)),
            Some(Duration::from_millis(2))
        );
        assert!(wait_time(now, Time::MAX).is_some());
    }

    #[test]
    fn idle_time_is_counted_by_the_clock_from_the_first_idle_turn() {
        let at = |micros| Time::ZERO + Duration::from_micros(micros);
        let mut rest = Rest::new(Idle::Park {
            after: Duration::from_micros(50),
        });
        assert!(!rest.is_sleep_due(at(10)));
        assert!(!rest.is_sleep_due(at(59)));
        assert!(rest.is_sleep_due(at(60)));
        rest.was_busy();
        assert!(!rest.is_sleep_due(at(61)));
        assert!(rest.is_sleep_due(at(111)));
        assert!(!Rest::new(Idle::Yield).is_sleep_due(at(1_000_000)));
    }
}
