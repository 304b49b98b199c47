//! The rings, were there no fence in them.

#[path = "../../src/queue/rings.rs"]
pub(crate) mod rings;

mod sync {
    pub(super) use crate::sync::{
        AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicUsize, AtomicWaker, Cell, Ordering, Ring,
    };

    pub(super) fn fence(_: Ordering) {}
}
