//! How a target hears of disks that have changed, whoever has changed them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Tells a target that a disk is not what it was, from any thread: the target then asks all its disks. Two are equal if they
/// tell the same target.
#[derive(Clone)]
pub struct DiskChange(Arc<Told>);

struct Told {
    is_told: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl DiskChange {
    /// `wake` gives the target's home a turn.
    pub(in crate::target) fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(Told {
            is_told: AtomicBool::new(false),
            wake: Box::new(wake),
        }))
    }

    /// The target is to ask its disks. Costs next to nothing if it was told already.
    pub fn tell(&self) {
        if !self.0.is_told.swap(true, Ordering::AcqRel) {
            (self.0.wake)();
        }
    }

    /// Whether it was told since this was asked last.
    #[inline]
    pub(in crate::target) fn take(&self) -> bool {
        self.0.is_told.load(Ordering::Relaxed) && self.0.is_told.swap(false, Ordering::AcqRel)
    }
}

impl PartialEq for DiskChange {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for DiskChange {}

impl fmt::Debug for DiskChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DiskChange")
    }
}
