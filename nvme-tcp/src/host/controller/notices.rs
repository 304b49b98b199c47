//! What a controller announces: Asynchronous Event Requests kept outstanding (rule B3.2), and a limit on the
//! work that announcements cause.

use std::time::Duration;

use pollux_reactor::Time;

/// AERs kept outstanding at most (rule B3.2); the controller's AERL holds if it is lower.
pub(super) const AERS_MAX: usize = 4;

/// Time between two rounds of work that notices cause, in the long run: at most 100 a second.
const PERIOD: Duration = Duration::from_millis(10);

/// How far the rounds may run ahead of that, so that a few changes in a row are each followed at once.
const AHEAD: Duration = Duration::from_millis(50);

/// Rounds of one storm that had to wait, after which the controller is said to announce too
/// much.
const STORM_ROUNDS: u32 = 20;

/// Time until an AER that ended with a transient status is sent again; doubled with each that follows, up to
/// the second one.
const REARM_DELAY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What notices ask for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Read the ANA log again.
    pub ana: bool,
    /// Scan the namespaces again.
    pub namespaces: bool,
    /// Read the status register.
    pub status: bool,
    /// Tell the owner that the discovery log has changed.
    pub discovery: bool,
    /// Tell the owner that a Cross-Controller Reset has ended.
    pub resets: bool,
    /// Nothing, but it is an answer to an AER all the same, and counts.
    pub nothing: bool,
}

/// Notices that were not followed yet. The first ones are followed at once; while they keep coming, all that
/// came in a period are followed by one round of work at its end.
#[derive(Debug, Default)]
pub(super) struct Notices {
    wanted: Wanted,
    /// When all rounds so far would have ended at one per period: a round may begin [`AHEAD`] of that.
    paid: Time,
    /// Rounds that had to wait since all were paid for.
    late: u32,
    has_waited: bool,
}

impl Notices {
    /// Takes a notice up.
    pub fn note(&mut self, now: Time, set: impl FnOnce(&mut Wanted)) {
        set(&mut self.wanted);
        self.has_waited |= self.is_too_early(now);
    }

    fn is_too_early(&self, now: Time) -> bool {
        self.paid.saturating_since(now) > AHEAD
    }

    /// True while there are notices that wait for the end of a period.
    pub fn is_waiting(&self) -> bool {
        self.wanted != Wanted::default()
    }

    pub fn deadline(&self) -> Option<Time> {
        let ahead = self.paid.saturating_since(Time::ZERO).saturating_sub(AHEAD);
        self.is_waiting().then_some(Time::ZERO + ahead)
    }

    /// What is to be done now, if anything, and whether a storm is to be told of.
    pub fn due(&mut self, now: Time) -> Option<(Wanted, bool)> {
        if !self.is_waiting() || self.is_too_early(now) {
            return None;
        }
        // A storm ends when all rounds so far are paid for.
        let has_waited = std::mem::take(&mut self.has_waited);
        if self.paid <= now {
            self.late = 0;
        }
        let before = self.late;
        self.late = before.saturating_add(u32::from(has_waited));
        self.paid = self.paid.max(now) + PERIOD;
        let is_storm = before < STORM_ROUNDS && self.late >= STORM_ROUNDS;
        Some((std::mem::take(&mut self.wanted), is_storm))
    }
}

/// The AERs of a controller.
#[derive(Debug)]
pub(super) struct Aers {
    outstanding: usize,
    /// Most that the controller takes, as far as its answers have shown.
    limit: usize,
    /// How many ended with a transient status one after the other, and until when none is sent.
    failures: u32,
    not_before: Time,
}

impl Default for Aers {
    fn default() -> Self {
        Self {
            outstanding: 0,
            limit: AERS_MAX,
            failures: 0,
            not_before: Time::ZERO,
        }
    }
}

impl Aers {
    /// Whether one more is to be sent to a controller that takes `aerl` of them.
    pub fn wants_more(&self, aerl: usize, now: Time) -> bool {
        self.outstanding < self.limit.min(aerl) && now >= self.not_before
    }

    pub fn sent(&mut self) {
        self.outstanding += 1;
    }

    /// When one is sent again after a transient status.
    pub fn deadline(&self, aerl: usize) -> Option<Time> {
        (self.failures > 0 && self.outstanding < self.limit.min(aerl)).then_some(self.not_before)
    }

    /// One brought an event.
    pub fn fired(&mut self) {
        self.outstanding = self.outstanding.saturating_sub(1);
        self.failures = 0;
    }

    /// One ended with a status that may pass. Several that end together count once.
    pub fn failed(&mut self, now: Time) {
        self.outstanding = self.outstanding.saturating_sub(1);
        if now >= self.not_before {
            let (first, longest) = REARM_DELAY;
            self.not_before = now + (first * (1 << self.failures.min(8))).min(longest);
            self.failures += 1;
        }
    }

    /// One was refused for good: no more than are outstanding are sent from now on.
    pub fn refused(&mut self) {
        self.outstanding = self.outstanding.saturating_sub(1);
        self.limit = self.outstanding;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Time {
        Time::from_nanos(ms * 1_000_000)
    }

    fn note(notices: &mut Notices, now: Time) {
        notices.note(now, |wanted| wanted.ana = true);
    }

    #[test]
    fn the_first_notice_is_followed_at_once_and_a_storm_a_hundred_times_a_second() {
        let mut notices = Notices::default();
        let (mut rounds, mut told) = (0, 0);
        for ms in 0..3000 {
            note(&mut notices, at(ms));
            if let Some((wanted, storm)) = notices.due(at(ms)) {
                assert!(wanted.ana);
                rounds += 1;
                told += u32::from(storm);
            }
            if ms < 5 {
                assert_eq!(rounds, 1 + ms, "at {ms} ms");
            }
            assert!(rounds <= 6 + ms / 10, "{rounds} at {ms} ms");
        }
        assert!(rounds >= 300, "{rounds}");
        assert_eq!(told, 1, "a storm is told of once");
        // The last notice of the storm is not lost.
        let last = notices.deadline().unwrap();
        assert!(last <= at(3010), "{last:?}");
        assert!(notices.due(last).is_some());
        assert_eq!(notices.deadline(), None);
        note(&mut notices, at(4000));
        assert!(notices.due(at(4000)).is_some(), "at once again");
    }

    #[test]
    fn notices_that_ask_for_nothing_are_limited_too() {
        let mut notices = Notices::default();
        let mut rounds = 0;
        for ms in 0..1000 {
            notices.note(at(ms), |wanted| wanted.nothing = true);
            rounds += u32::from(notices.due(at(ms)).is_some());
        }
        assert!((100..=106).contains(&rounds), "{rounds}");
    }

    #[test]
    fn aers_that_fail_are_sent_again_with_growing_delays() {
        let mut aers = Aers::default();
        let mut now = at(0);
        let mut delays = Vec::new();
        for _ in 0..8 {
            while aers.wants_more(4, now) {
                aers.sent();
            }
            for _ in 0..4 {
                aers.failed(now);
            }
            let next = aers.deadline(4).unwrap();
            assert!(!aers.wants_more(4, now));
            delays.push((next - now).as_millis());
            now = next;
        }
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        aers.sent();
        aers.fired();
        assert_eq!(aers.deadline(4), None);
    }

    #[test]
    fn a_controller_that_takes_fewer_aers_is_believed() {
        let mut aers = Aers::default();
        for _ in 0..4 {
            assert!(aers.wants_more(4, at(0)));
            aers.sent();
        }
        aers.refused();
        assert!(!aers.wants_more(4, at(9)));
        aers.fired();
        assert!(aers.wants_more(4, at(9)), "the three others are sent again");
        aers.sent();
        for _ in 0..3 {
            aers.refused();
        }
        assert!(!aers.wants_more(4, at(9)));
    }
}
