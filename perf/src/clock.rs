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
