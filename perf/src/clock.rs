//! Time for threads that are not reactors: the floor's and the main one.

use std::time::{Instant, SystemTime};

/// The present moment.
#[expect(
    clippy::disallowed_methods,
    reason = "these threads have no reactor whose clock they could read"
)]
pub fn now() -> Instant {
    Instant::now()
}

/// The time of day, for those who look for other logs of that time.
#[expect(
    clippy::disallowed_methods,
    reason = "no thread with a reactor asks for it"
)]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// Sleeps until `at`. Never for a thread that is a reactor.
pub fn sleep_until(at: Instant) {
    loop {
        let left = at.saturating_duration_since(now());
        if left.is_zero() {
            return;
        }
        // It may return early, and nobody unparks these threads.
        std::thread::park_timeout(left);
    }
}
