//! Time for threads that are not reactors: the floor's and the main one.

use std::time::Instant;

/// The present moment.
#[expect(
    clippy::disallowed_methods,
    reason = "these threads have no reactor whose clock they could read"
)]
pub fn now() -> Instant {
    Instant::now()
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
