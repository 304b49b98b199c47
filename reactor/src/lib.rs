//! Reactors: threads pinned to cores that poll, own all they touch, and talk only by messages.
//!
//! A [`Service`] is a state machine. It is handed messages from its [`mailbox`], its due timers, and in every turn a call
//! of [`Service::poll`]. Everything it needs of the world comes from the [`Context`] of that call: the time (one reading per
//! turn), timers, random numbers, and byte streams that never block.
//!
//! Two [`Executor`]s run services, and these cannot tell which one it is:
//!
//! * [`Group`]: a thread per reactor, pinned to its core, over TCP. When idle it spins, yields or parks ([`Idle`]).
//! * [`Simulation`]: all reactors in one thread, in an order drawn from a seed, on a virtual clock, over a simulated
//!   network that delays, splits, refuses, breaks and goes silent as it is told.
//!
//! ```
//! use std::time::Duration;
//! use pollux_reactor::{Context, Group, Idle, Progress, Service, available_cores, mailbox};
//!
//! /// Adds up what it is sent; reports the sum 1 ms later and ends.
//! struct Adder {
//!     sum: u64,
//!     report: std::sync::mpsc::Sender<u64>,
//! }
//!
//! impl Service for Adder {
//!     type Message = u64;
//!
//!     fn on_message(&mut self, message: u64, cx: &mut Context<'_>) {
//!         self.sum += message;
//!         if message == 0 {
//!             cx.set_timer(cx.now() + Duration::from_millis(1), 7);
//!         }
//!     }
//!
//!     fn on_timer(&mut self, token: u64, cx: &mut Context<'_>) {
//!         assert_eq!(token, 7);
//!         let _ = self.report.send(self.sum);
//!         cx.request_stop();
//!     }
//!
//!     fn poll(&mut self, _cx: &mut Context<'_>) -> Progress {
//!         Progress::Idle
//!     }
//! }
//!
//! let (report, reported) = std::sync::mpsc::channel();
//! let (sender, receiver) = mailbox(16);
//! let mut group = Group::new();
//! let idle = Idle::Park { after: Duration::from_micros(50) };
//! let reactor = group.add_reactor(available_cores().first().copied(), idle);
//! group.add_service(reactor, receiver, move || Adder { sum: 0, report });
//! let running = group.start()?;
//! for n in [20, 22, 0] {
//!     sender.send(n).map_err(|_| "mailbox full")?;
//! }
//! let counters = running.join();
//! assert_eq!(reported.recv()?, 42);
//! assert_eq!((counters[0].messages, counters[0].timers), (3, 1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A service that wants to know something of every reactor asks by [`Gather`].
//!
//! # Features
//!
//! * `rpc`, off unless asked for: a JSON-RPC server that is polled like any other service, and the methods about reactors
//!   and the log.
//!
//! # Limits
//!
//! * A service must not block; nothing takes a turn away from it.
//! * [`Context::now`] moves once a turn, so a time that is measured with it is as coarse as the turns are long.
//! * A reactor has tens of services and streams, not thousands: each turn visits every service.
//! * Linux, at most 1024 cores.
#![deny(missing_docs)]

mod context;
mod counters;
mod executor;
mod gather;
mod idle;
pub mod logging;
mod look_up;
mod mailbox;
mod net;
mod observer;
pub mod pcap;
mod reactor;
mod ring;
mod rng;
#[cfg(feature = "rpc")]
pub mod rpc;
mod service;
mod simulation;
mod status;
mod sys;
mod threads;
mod time;
mod timers;

pub use context::Context;
pub use counters::Counters;
pub use executor::Executor;
pub use gather::{Answered, Gather, Part};
pub use idle::Idle;
pub use look_up::{LookUpError, look_up};
pub use mailbox::{Outbox, Receiver, Sender, mailbox};
pub use net::sim::SimNetwork;
pub use net::wrap::{Edges, Opened, StreamWrapper};
pub use net::{Heat, Listener, Net, Stream, WatchedDescriptor};
pub use observer::{NotAsked, Observers};
pub use rng::Rng;
pub use service::{Progress, Service};
pub use simulation::Simulation;
pub use status::{ReactorStatus, ServiceStatus, ThreadStatus};
pub use threads::{
    Group, Running, StartError, available_cores, descriptors_max, descriptors_open, leave_core,
    stand_back,
};
pub use time::Time;
pub use timers::TimerId;

/// The page that a registry shows has an example, which is tried with the others.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
