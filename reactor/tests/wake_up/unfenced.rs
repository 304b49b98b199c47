//! The channel, were there no fences in it.

#[path = "../../src/mailbox/channel.rs"]
pub(crate) mod channel;

use crate::ring;

mod sync {
    pub(super) use crate::sync::{Arc, AtomicBool, OnceLock, Ordering, Waker};

    pub(super) fn fence(_: Ordering) {}
}
