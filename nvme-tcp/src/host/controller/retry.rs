//! How a controller's own commands are sent again that end with a status that may pass (rule B9.5).

use std::time::Duration;

/// How often one is sent again.
pub(super) const RETRIES_MAX: u32 = 6;
/// Time until it is sent again for the first time, doubled with each that follows, unless the status names
/// a delay (CRD); and the longest that a controller may ask for.
pub(super) const RETRY_DELAY: (Duration, Duration) =
    (Duration::from_millis(50), Duration::from_secs(5));

/// Time until a command is sent again that has ended with a transient status after so many retries.
pub(super) fn retry_delay(retries: u32) -> Duration {
    let (first, longest) = RETRY_DELAY;
    (first * (1 << retries)).min(longest)
}
