//! One volume over several NVMe paths.
//!
//! This is the one crate that a program names which embeds Pollux: reactors ([`Group`], [`Simulation`]), the host, and
//! the [`target`] with its disks are all here. [`spec`] has the standard's structures, [`reactor`] what else reactors offer,
//! such as the log, pcap files, and with the feature `rpc` a JSON-RPC server and the methods for it.
//!
//! A target with one namespace in memory, and a host that writes a block of it and reads it back:
//!
//! ```
//! use std::sync::mpsc::{Sender, channel};
//!
//! use pollux_multipath::target::{self, Backend, NamespaceConfig, SubsystemConfig};
//! use pollux_multipath::{
//!     Application, AttachRequest, Context, Group, Host, Idle, Io, Nqn, Op, PollGroup, Progress, TransportId,
//! };
//!
//! /// Runs on the I/O reactor, beside the queue pairs.
//! struct WriteThenRead(Sender<Vec<u8>>);
//!
//! impl Application for WriteThenRead {
//!     /// What it is told to write.
//!     type Message = u8;
//!
//!     fn on_message(&mut self, byte: u8, group: &mut PollGroup, _: &mut Context<'_>) {
//!         let volume = group.volumes().next().expect("one was attached").id;
//!         let write = Io::new(Op::Write, 7, 1, vec![byte; 512]);
//!         group.submit(volume, write).expect("a block within the volume");
//!     }
//!
//!     fn poll(&mut self, group: &mut PollGroup, _: &mut Context<'_>) -> Progress {
//!         let Some(done) = group.next_completion() else {
//!             return Progress::Idle;
//!         };
//!         done.result.expect("the target is there");
//!         if done.io.op == Op::Write {
//!             let read = Io::new(Op::Read, 7, 1, done.io.buffer);
//!             group.submit(done.volume, read).expect("the same block");
//!         } else {
//!             let _ = self.0.send(done.io.buffer.into_vec());
//!         }
//!         Progress::Busy
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut group = Group::new();
//! let reactor = group.add_reactor(None, Idle::Yield);
//! let target = target::install(&mut group, &[reactor]);
//! let (sender, read) = channel();
//! let host = Host::builder().install(&mut group, move |_| WriteThenRead(sender.clone()));
//! let running = group.start()?;
//!
//! let nqn: Nqn = "nqn.2014-08.org.example:disk1".parse()?;
//! target.create_subsystem(SubsystemConfig::new(nqn.clone()))?;
//! target.add_namespace(&nqn, NamespaceConfig::new(Backend::Memory { bytes: 1 << 20 }, 512))?;
//! let addr = target.add_listener(&nqn, "127.0.0.1:0".parse()?)?;
//!
//! host.attach(AttachRequest::new("disk0", TransportId::new(addr, nqn)))?;
//! host.tell(0, b'*').map_err(|_| "the mailbox is full")?;
//! assert_eq!(read.recv()?, [b'*'; 512]);
//! assert_eq!(host.volume("disk0n1").status()?.blocks, 2048);
//!
//! host.shut_down()?;
//! running.stop();
//! # Ok(())
//! # }
//! ```
//!
//! # How it works
//!
//! A [`Host`] has a control service on one reactor and an I/O service on each I/O reactor. Control owns
//! the controllers: admin queues, ANA logs, ANATT timers, reconnects. Each I/O reactor owns, in plain
//! memory, one queue pair per controller and a copy of every path's state; an
//! [`Application`] runs beside them on the same thread and submits through its [`PollGroup`].
//!
//! Between the two travel messages only. Each path state carries an epoch; what is older than what a
//! reactor holds is dropped. Every submission and every retry selects a path again from the reactor's own
//! table, and a status request is answered from that same table by that same selection (rule B13.2), so
//! that what is reported and what I/O does cannot differ.
//!
//! # Features
//!
//! All are off unless asked for.
//!
//! * `auth`: in-band authentication (DH-HMAC-CHAP) of host and target.
//! * `rpc`: management of host and target by JSON-RPC, with the names and shapes of SPDK's methods.
//! * `tls`: TLS 1.3 with pre-shared keys; implies `auth`, and wants a C compiler.
//!
//! # Rules
//!
//! Rules named `B…` are those of the project's multipath behaviour: B1 identity, B2 path state, B3 ANA,
//! B4 ANATT, B5 selection, B6 completion, B7 waiting, B8 recovery, B9 timeouts and keep-alive, B10 namespaces
//! that change, B11 detach, B12 failover mode, B13 status, B14 fencing. `RULES.md` beside this crate names their tests.
#![deny(missing_docs)]

mod command;
mod control;
mod counters;
mod error;
mod host;
mod ids;
mod io;
mod messages;
mod options;
mod path_events;
mod path_state;
mod policy;
pub mod queue;
mod request;
#[cfg(feature = "rpc")]
pub mod rpc;
mod status;
mod transport_id;
mod volume_disk;
mod wait;

/// The flag of this crate's lines in the log.
pub const LOG_FLAG: &str = "bdev_nvme";

pub use command::{Completion, Io, Op};
pub use counters::{CounterReset, IoCounters, OpCounters};
pub use error::{EndedEarly, HostError, IoError, NoPath, SubmitError};
pub use host::{Host, HostBuilder, VolumeHandle};
pub use ids::{ControllerId, VolumeId, VolumeInfo};
pub use io::{Aborting, Application, IoMessage, PollGroup};
pub use options::{AttachOptions, Fencing, FencingMode, Mode, Recovery};
pub use path_events::PathEvents;
pub use policy::{Policy, Selector};
pub use pollux_nvme_tcp::histogram::{HistogramLayout, LatencyHistogram};
pub use pollux_nvme_tcp::host::{Buffer, Digests, FaultChange, HostIdentity, InjectedFault};
pub use pollux_nvme_tcp::spec::log::AnaState;
pub use pollux_nvme_tcp::spec::nqn::Nqn;
pub use pollux_nvme_tcp::spec::status::Status;
pub use pollux_nvme_tcp::{spec, target};
pub use pollux_reactor as reactor;
pub use pollux_reactor::{Context, Executor, Group, Idle, Progress, Running, Simulation, Time};
pub use queue::{Completions, Pending, Queue, QueueMessage, Queues};
pub use request::{
    AttachRequest, Attached, ControllerChange, DiscoveryRequest, HostRequest, Reply,
};
pub use status::{
    ControllerIdentity, ControllerStatus, DiscoveryStatus, FenceStatus, NotAttached, Notification,
    NotificationKind, PathEvent, PathEventKind, PathStatus, PathView, ReactorCounters,
    ReactorVolumeStatus, VolumeStatus,
};
pub use transport_id::{TransportId, TransportIdError};
pub use volume_disk::VolumeDisk;

/// The page that a registry shows has an example, which is tried with the others.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
