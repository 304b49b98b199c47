//! The target: NVM subsystems that hosts reach over NVMe/TCP.
//!
//! [`install`] puts a service on each of some reactors and returns a [`TargetHandle`] to configure them. The
//! service of the first is the *home*: it listens, answers ICReq and Connect, runs all admin queues and owns
//! the configuration. The connection of an I/O queue is moved as a whole to the reactor of its queue
//! identifier, (QID - 1) modulo the number of reactors, once its Connect was accepted; from then on that
//! reactor serves it without asking anybody: it has its own copy of what it needs of each controller's
//! namespaces and their ANA states, which home updates by message.
//!
//! ```no_run
//! use pollux_nvme_tcp::spec::Nqn;
//! use pollux_nvme_tcp::target::{self, Backend, NamespaceConfig, SubsystemConfig};
//! use pollux_reactor::{Group, Idle};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut group = Group::new();
//! let reactor = group.add_reactor(None, Idle::Yield);
//! let handle = target::install(&mut group, &[reactor]);
//! let running = group.start()?;
//! let nqn: Nqn = "nqn.2014-08.org.example:disk1".parse()?;
//! handle.create_subsystem(SubsystemConfig::new(nqn.clone()))?;
//! let memory = Backend::Memory { bytes: 1 << 30 };
//! handle.add_namespace(&nqn, NamespaceConfig::new(memory, 512))?;
//! handle.add_listener(&nqn, "127.0.0.1:4420".parse()?)?;
//! # running.stop();
//! # Ok(())
//! # }
//! ```
//!
//! # Limits
//!
//! * No metadata, no protection information, no reservations, no fused commands.
//! * Commands that bring data on an admin queue must bring it in-capsule (8 KiB at most).
//! * Files are read and written by threads that each file has (at most four), by way of the page cache.
//! * A controller's I/O queues must come through the listener of its admin queue.
//! * Data that hosts send on an R2T takes memory, and so does what is read from disks that do not answer in place: 32 MiB a
//!   reactor that its hosts share, and as much again for hosts that hold none. A host that sends nothing for 30 s of what
//!   it was asked for loses its connection, after 10 s if others wait for the memory; then also one that takes nothing of
//!   what it has read.

mod admin;
mod config;
mod conn;
mod control;
pub mod disk;
mod error;
mod io;
#[cfg(feature = "rpc")]
pub mod rpc;
mod service;
mod status;
mod subsystem;
mod token;

use zerocopy::FromZeros;

/// The flag of the target's lines in the log.
pub const LOG_FLAG: &str = "nvmf";

#[cfg(feature = "testing")]
pub use self::admin::controller::lease_time;
pub use self::config::{HostAccess, HostKeys, NamespaceConfig, Referral, SubsystemConfig};
pub use self::control::handle::TargetHandle;
pub use self::control::request::{Removed, TargetRequest};
pub use self::disk::{Backend, Disk, DiskRef, FileEngine};
pub use self::error::TargetError;
pub use self::service::install;
pub use self::status::{
    AdmissionCounters, ControllerStatus, DiskStatus, Fault, ListenerStatus, NamespaceStatus,
    QpairCounters, QpairStatus, ReactorStatus, SubsystemStatus, TargetStatus,
};
pub use self::subsystem::NAMESPACES_MAX;
pub use self::subsystem::ana::{ANA_GROUP_MAX, ANATT_SECS};

/// A structure in which every field is zero. Without memory for it the process ends, as with any other allocation.
fn zeroed<T: FromZeros>() -> Box<T> {
    #[expect(clippy::expect_used, reason = "the only error is a lack of memory")]
    T::new_box_zeroed().expect("memory for a structure of at most 4 KiB")
}
