//! The seam between services and what runs them.
//!
//! Whoever brings services (a host, a target, an RPC server) installs them on an [`Executor`], and need not know which:
//! [`Group`](crate::Group) runs them on threads, [`Simulation`](crate::Simulation) in virtual time.
//!
//! The contract:
//!
//! * Reactors are counted from 0 in the order in which they were added, before anything is installed on them.
//! * A service is made on the thread of its reactor and never leaves it, so it need not be `Send`. What makes it travels
//!   there and is called once; of an executor that never starts, not at all.
//! * One call at a time: `on_start`, then turn after turn (messages, timers, `poll`), then `on_stop`. Services of one
//!   reactor have their turns in the order in which they were added.
//! * A mailbox takes messages before its service runs, and closes when the service ends or will never run.
//! * An executor may seat something else in a service's place that passes every call on: a test that counts, a tracer.

use crate::mailbox::Receiver;
use crate::service::Service;

/// What runs services.
pub trait Executor {
    /// How many reactors have been added.
    fn reactors(&self) -> usize;

    /// Adds a service to a reactor; `build` makes it there.
    ///
    /// # Panics
    ///
    /// If there is no such reactor, or it runs already.
    fn add_service<S: Service>(
        &mut self,
        reactor: usize,
        receiver: Receiver<S::Message>,
        build: impl FnOnce() -> S + Send + 'static,
    );

    /// Whether a service may have threads of its own help it. False where a run has to be repeatable: then it does in its
    /// turns what they would do.
    fn allows_threads(&self) -> bool;
}
