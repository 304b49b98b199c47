//! What rings are made of, under the eyes of loom.

use std::task::Waker;

pub(crate) use loom::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicUsize, Ordering, fence,
};

use crate::ring;

/// As the product's, but with room for two at least, which is what the model's stamps can tell apart.
pub(crate) struct Ring<T>(ring::Ring<T>);

impl<T> Ring<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self(ring::Ring::new(capacity.max(2)))
    }

    pub(crate) fn push(&self, value: T) -> Result<(), T> {
        self.0.push(value)
    }

    pub(crate) fn pop(&self) -> Option<T> {
        self.0.pop()
    }
}

/// Loom's, by the names of the product's.
pub(crate) struct AtomicWaker(loom::future::AtomicWaker);

impl AtomicWaker {
    pub(crate) fn new() -> Self {
        Self(loom::future::AtomicWaker::new())
    }

    pub(crate) fn register(&self, waker: &Waker) {
        self.0.register_by_ref(waker);
    }

    pub(crate) fn take(&self) -> Option<Waker> {
        self.0.take_waker()
    }
}

/// Loom's, which panics where two threads touch it at a time.
pub(crate) struct Cell<T>(loom::cell::UnsafeCell<T>);

impl<T> Cell<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::cell::UnsafeCell::new(value))
    }

    pub(crate) fn with_mut<R>(&self, touch: impl FnOnce(*mut T) -> R) -> R {
        self.0.with_mut(touch)
    }
}
