//! How often something is tried that fails again and again, and what is said of it.

use std::time::Duration;

use crate::options::Recovery;
use crate::status::NotAttached;
use crate::transport_id::TransportId;

/// The least time between two tries.
const DELAY_MIN: Duration = Duration::from_secs(1);
/// The longest time between two tries, unless the reconnect delay is longer.
const DELAY_MAX: Duration = Duration::from_secs(30);

/// Failures one after the other.
#[derive(Debug, Default)]
pub(super) struct Retries {
    tries: u32,
    reason: Option<String>,
}

impl Retries {
    /// Counts a failure. True if its reason differs from that of the one before: it is worth a line.
    pub fn failed(&mut self, reason: String) -> bool {
        self.tries = self.tries.saturating_add(1);
        let is_news = self.reason.as_ref() != Some(&reason);
        self.reason = Some(reason);
        is_news
    }

    /// Begins anew. True if there were failures before.
    pub fn succeeded(&mut self) -> bool {
        std::mem::take(self).tries > 0
    }

    /// Failures since the last success.
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// Why the last try has failed.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// What is told of it, if the last try has failed.
    pub fn status(&self, transport: &TransportId) -> Option<NotAttached> {
        Some(NotAttached {
            transport: transport.clone(),
            reason: self.reason.clone()?,
            tries: self.tries,
        })
    }

    /// Time until the next try: the reconnect delay, at least 1 s, doubled with each failure up to 30 s.
    pub fn delay(&self, recovery: Recovery) -> Duration {
        let first = recovery.reconnect_delay.max(DELAY_MIN);
        let doublings = self.tries.saturating_sub(1).min(8);
        (first * (1 << doublings)).min(DELAY_MAX.max(first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_grows_to_a_limit_and_a_reason_is_news_once() {
        let mut retries = Retries::default();
        let recovery = Recovery::default();
        let mut delays = Vec::new();
        for n in 0..7 {
            assert_eq!(retries.failed("refused".to_owned()), n == 0);
            delays.push(retries.delay(recovery).as_secs());
        }
        assert_eq!(delays, [1, 2, 4, 8, 16, 30, 30]);
        assert!(retries.failed("no answer".to_owned()));
        assert_eq!((retries.tries(), retries.reason()), (8, Some("no answer")));
        assert!(retries.succeeded());
        assert!(!retries.succeeded());
        assert!(retries.failed("refused".to_owned()));
        let long = Recovery {
            reconnect_delay: Duration::from_secs(60),
            ..recovery
        };
        assert_eq!(retries.delay(long).as_secs(), 60);
    }
}
