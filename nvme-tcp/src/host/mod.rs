//! The host (initiator): one [`QueuePair`] per connection, and the [`Controller`] that brings a
//! controller up over its admin queue pair and keeps it alive.
//!
//! `queue_pair` is the connection: how it begins, its table of commands, its receive and send halves. `controller` is
//! what happens on the admin queue: what is known, what is due, what follows from answers, and the steps of bringing
//! up, reading again and shutting down. A [`FaultInjection`] stands beside a queue pair where faults are wanted.
//!
//! Nothing here blocks or owns a thread. Each object is a state machine that its reactor polls; time
//! comes in as an argument, bytes through [`pollux_reactor::Stream`].

mod admin;
mod ana_log;
mod buffer;
mod controller;
mod fault_injection;
mod namespaces;
mod queue_pair;
mod request;

/// The flag of the host's lines in the log.
pub const LOG_FLAG: &str = "nvme";

pub use admin::AdminCommand;
pub use ana_log::{AnaGroup, AnaLog};
pub use buffer::Buffer;
pub use controller::{
    CommandTimeout, Controller, ControllerError, ControllerEvent, ControllerOptions, Stage,
    TimeoutAction,
};
pub use fault_injection::{FaultChange, FaultInjection, InjectedFault};
pub use namespaces::{Namespace, NamespaceIds};
pub use queue_pair::{
    ConnectOptions, Digests, HostIdentity, Overdue, QueueError, QueuePair, Rejected,
    RejectedReason, Withdrawn,
};
pub use request::{Command, Completed, Lost, Outcome, Request, Transfer};
