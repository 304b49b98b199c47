//! What a test shares with services of a simulation, in one thread.
#![expect(
    clippy::disallowed_types,
    reason = "never waited for: one thread uses it"
)]

use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// As `Rc<RefCell<T>>`, but may travel into the closure that makes a service.
#[derive(Debug, Default)]
pub struct Shared<T>(Arc<RwLock<T>>);

impl<T> Shared<T> {
    pub fn new(value: T) -> Self {
        Self(Arc::new(RwLock::new(value)))
    }

    pub fn borrow(&self) -> RwLockReadGuard<'_, T> {
        self.0.try_read().expect("mutably borrowed already")
    }

    pub fn borrow_mut(&self) -> RwLockWriteGuard<'_, T> {
        self.0.try_write().expect("borrowed already")
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}
