//! One volume over several NVMe paths.
//!
//! A [`Host`] puts a control service on one reactor and an I/O service on each I/O reactor. Control owns
//! the controllers: admin queues, ANA logs, ANATT timers, reconnects. Each I/O reactor owns, in plain
//! memory, one queue pair per controller and a copy of every path's state; an
//! [`Application`] runs beside them on the same thread and submits through its [`PollGroup`].
//!
//! Between the two travel messages only. Each path state carries an epoch; what is older than what a
//! reactor holds is dropped. Every submission and every retry selects a path again from the reactor's own
//! table, and a status request is answered from that same table by that same selection (rule B13.2), so
//! that what is reported and what I/O does cannot differ.
//!
//! Rules named `B…` are those of the project's multipath behaviour: B1 identity, B2 path state, B3 ANA,
//! B4 ANATT, B5 selection, B6 completion, B7 waiting, B8 recovery, B9 timeouts and keep-alive, B10 namespaces
//! that change, B11 detach, B12 failover mode, B13 status, B14 fencing. `RULES.md` beside this crate names their tests.
#![deny(missing_docs)]

mod command;
mod control;
mod counters;
mod error;
mod histogram;
mod host;
mod ids;
mod io;
mod messages;
mod options;
mod path_state;
mod policy;
mod request;
pub mod rpc;
mod status;
mod transport_id;

/// The flag of this crate's lines in the log.
pub const LOG_FLAG: &str = "bdev_nvme";

pub use command::{Completion, Io, Op};
pub use counters::{CounterReset, OpCounters, PathCounters};
pub use error::{EndedEarly, HostError, IoError, NoPath, SubmitError};
pub use histogram::{HistogramLayout, LatencyHistogram};
pub use host::{Host, HostHandle};
pub use ids::{ControllerId, VolumeId, VolumeInfo};
pub use io::{Aborting, Application, IoMessage, PollGroup};
pub use options::{AttachOptions, Fencing, FencingMode, Mode, Recovery};
pub use policy::{Policy, Selector};
pub use pollux_nvme_tcp::host::{FaultChange, InjectedFault};
pub use request::{
    AttachRequest, Attached, AttachedVolume, ControllerChange, DiscoveryRequest, HostRequest, Reply,
};
pub use status::{
    ControllerStatus, DiscoveryStatus, FenceStatus, NotAttached, Notification, NotificationKind,
    PathEvent, PathEventKind, PathStatus, ReactorCounters, ReactorVolumeStatus, VolumeStatus,
};
pub use transport_id::{TransportId, TransportIdError};
