//! The host (initiator): one [`QueuePair`] per connection, and the [`Controller`] that brings a
//! controller up over its admin queue pair and keeps it alive.
//!
//! Nothing here blocks or owns a thread. Each object is a state machine that its reactor polls; time
//! comes in as an argument, bytes through [`pollux_reactor::Stream`].

mod aborts;
mod admin;
mod ana_log;
mod controller;
mod faults;
mod handshake;
mod keep_alive;
mod namespaces;
mod notices;
mod queue_pair;
mod receive;
mod request;
mod steps;
mod table;
mod transmit;

/// The flag of the host's lines in the log.
pub const LOG_FLAG: &str = "nvme";

pub use admin::AdminCommand;
pub use ana_log::{AnaGroup, AnaLog};
pub use controller::{
    CommandTimeout, Controller, ControllerError, ControllerEvent, ControllerOptions, Stage,
    TimeoutAction,
};
pub use faults::Fault;
pub use handshake::{ConnectOptions, Digests, HostIdentity};
pub use namespaces::{Namespace, NamespaceIds};
pub use queue_pair::{QueueError, QueuePair, Rejected, RejectedReason, Withdrawn};
pub use request::{Command, Completed, Lost, Outcome, Request, Transfer, Unwanted};
pub use table::Overdue;
