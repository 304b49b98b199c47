//! The target: NVM subsystems that hosts reach over NVMe/TCP.
//!
//! [`target`] makes one [`TargetService`] per reactor and a [`TargetHandle`] to configure them. The service
//! of the first reactor is the *home*: it listens, answers ICReq and Connect, runs all admin queues and owns
//! the configuration. The connection of an I/O queue is moved as a whole to the reactor of its queue
//! identifier, (QID - 1) modulo the number of reactors, once its Connect was accepted; from then on that
//! reactor serves it without asking anybody: it has its own copy of what it needs of each controller's
//! namespaces and their ANA states, which home updates by message.
//!
//! ```no_run
//! use pollux_nvme_tcp::spec::Nqn;
//! use pollux_nvme_tcp::target::{
//!     Backend, NamespaceConfig, SubsystemConfig, TargetRequest, target,
//! };
//! use pollux_reactor::{Group, Idle};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (handle, parts) = target(1);
//! let mut group = Group::new();
//! for part in parts {
//!     let reactor = group.add_reactor(None, Idle::Yield);
//!     group.add_service(reactor, part.receiver, move || part.service);
//! }
//! let running = group.start()?;
//! let nqn: Nqn = "nqn.2014-08.org.example:disk1".parse()?;
//! handle.call(TargetRequest::CreateSubsystem(SubsystemConfig::new(nqn.clone())))?;
//! handle.call(TargetRequest::AddNamespace {
//!     nqn: nqn.clone(),
//!     nsid: None,
//!     namespace: NamespaceConfig::new(Backend::Memory { bytes: 1 << 30 }, 512),
//! })?;
//! handle.call(TargetRequest::AddListener { nqn, addr: "127.0.0.1:4420".parse()? })?;
//! # running.stop();
//! # Ok(())
//! # }
//! ```
//!
//! # Limits
//!
//! * No authentication, no TLS, no metadata, no protection information, no reservations, no fused commands.
//! * Commands that bring data on an admin queue must bring it in-capsule (8 KiB at most).
//! * Files are read and written by threads that each file has (at most four), by way of the page cache.
//! * A controller's I/O queues must come through the listener of its admin queue.
//! * Data that hosts send on an R2T takes memory, and so does what is read from disks that do not answer in place: 32 MiB a
//!   reactor that its hosts share, and as much again for hosts that hold none. A host that sends nothing for 30 s of what
//!   it was asked for loses its connection, after 10 s if others wait for the memory; then also one that takes nothing of
//!   what it has read.

mod admin;
mod admission;
mod ana;
mod buffers;
mod channels;
mod configure;
mod connection;
mod controller;
mod discovery;
pub mod disk;
mod events;
mod features;
mod handle;
mod handshake;
mod home;
mod identify;
mod io_command;
mod io_data;
mod io_execute;
mod io_part;
mod io_queue;
mod io_table;
mod linger;
mod links;
mod log_page;
mod message;
mod read;
mod request;
pub mod rpc;
mod said;
mod shares;
mod staging;
mod status;
mod subsystem;
mod sync;

use pollux_reactor::{Context, Progress, Receiver, Service, mailbox};

use self::buffers::Buffers;
use self::home::Home;
use self::io_part::IoPart;
use self::linger::Lingering;
use self::links::Links;
use self::message::Envelope;

/// The flag of the target's lines in the log.
pub const LOG_FLAG: &str = "nvmf";

pub use self::admission::AdmissionCounters;
pub use self::ana::{ANA_GROUP_MAX, ANATT_SECS};
pub use self::disk::{Backend, Disk, DiskRef};
pub use self::handle::TargetHandle;
pub use self::message::TargetMessage;
pub use self::request::{
    NamespaceConfig, Referral, Reply, SubsystemConfig, TargetError, TargetReply, TargetRequest,
};
pub use self::status::{
    ControllerStatus, Fault, ListenerStatus, NamespaceStatus, QpairCounters, QpairStatus,
    ReactorStatus, SubsystemStatus, TargetStatus,
};
pub use self::subsystem::NAMESPACES_MAX;

/// Messages that a service's mailbox holds.
const MAILBOX_CAPACITY: usize = 1024;

/// A target's service for one reactor, with its mailbox; both go to `add_service`.
#[derive(Debug)]
pub struct TargetPart {
    /// The mailbox.
    pub receiver: Receiver<TargetMessage>,
    /// The service.
    pub service: TargetService,
}

/// Makes a target for `reactors` reactors (at least one): a handle, and the services in the order of their
/// reactors. The target has no subsystems and no listeners at first.
pub fn target(reactors: usize) -> (TargetHandle, Vec<TargetPart>) {
    disk::note_cores();
    build(reactors, false)
}

/// As [`target`], for a simulation: what otherwise a thread of a disk would do is done in the turn, so that nothing
/// depends on how threads run.
pub fn simulated_target(reactors: usize) -> (TargetHandle, Vec<TargetPart>) {
    build(reactors, true)
}

fn build(reactors: usize, simulated: bool) -> (TargetHandle, Vec<TargetPart>) {
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..reactors.max(1))
        .map(|_| mailbox::<TargetMessage>(MAILBOX_CAPACITY))
        .unzip();
    let parts = receivers
        .into_iter()
        .zip(&senders)
        .enumerate()
        .map(|(index, (receiver, own))| TargetPart {
            receiver,
            service: TargetService {
                home: (index == 0).then(|| {
                    let own = own.clone();
                    // A mailbox that is full of other messages gives home its turn as well.
                    let wake = move || drop(own.send(TargetMessage(Envelope::Woken)));
                    Box::new(Home::new(wake))
                }),
                io: IoPart::new(index, (!simulated).then(|| own.clone())),
                links: Links::new(index, &senders),
                lingering: Lingering::default(),
                buffers: Buffers::default(),
            },
        })
        .collect();
    let home = senders.into_iter().next();
    let handle = TargetHandle {
        home: home.unwrap_or_else(|| mailbox(1).0),
    };
    (handle, parts)
}

/// The part of a target that runs on one reactor.
#[derive(Debug)]
pub struct TargetService {
    home: Option<Box<Home>>,
    io: IoPart,
    links: Links,
    lingering: Lingering,
    buffers: Buffers,
}

/// What the parts of a service may use during one call.
struct Turn<'t, 'c> {
    links: &'t mut Links,
    lingering: &'t mut Lingering,
    buffers: &'t mut Buffers,
    cx: &'t mut Context<'c>,
}

/// Tokens of timers and of watched streams: a kind in the top byte, below it what it is about.
mod token {
    /// The time of a connection to send its Connect.
    pub(super) const CONNECT: u8 = 1;
    /// The keep-alive timer of a controller.
    pub(super) const KEEP_ALIVE: u8 = 2;
    /// A connection of the home part.
    pub(super) const CONNECTION: u8 = 3;
    /// An I/O queue, by its place on its reactor.
    pub(super) const QUEUE: u8 = 4;
    /// Time to see who holds staging memory and does not send.
    pub(super) const STAGING: u8 = 6;
    /// Time to poll a disk.
    pub(super) const DISKS: u8 = 8;
    /// The time that a removal may take.
    pub(super) const REMOVAL: u8 = 7;
    /// A connection that is about to be closed.
    pub(super) const LINGERING: u8 = 5;

    pub(super) const fn of(kind: u8, id: u64) -> u64 {
        ((kind as u64) << 56) | (id & ((1 << 56) - 1))
    }

    pub(super) const fn split(token: u64) -> (u8, u64) {
        (token.to_be_bytes()[0], token & ((1 << 56) - 1))
    }
}

impl TargetService {
    fn dispatch(&mut self, envelope: Envelope, cx: &mut Context<'_>) {
        let mut turn = Turn {
            links: &mut self.links,
            lingering: &mut self.lingering,
            buffers: &mut self.buffers,
            cx,
        };
        match envelope {
            Envelope::Io(message) => self.io.on_message(message, &mut turn),
            Envelope::Woken => {}
            Envelope::Home(message) => {
                if let Some(home) = &mut self.home {
                    home.on_message(message, &mut turn);
                }
            }
        }
    }

    /// Has the next poll look at what the token names. False if it names nothing that is polled.
    fn wake(&mut self, token: u64) -> bool {
        match (token::split(token), &mut self.home) {
            ((token::QUEUE, place), _) => self.io.wake(place),
            ((token::CONNECTION, id), Some(home)) => home.wake(id),
            ((token::LINGERING, _), _) => self.lingering.wake(),
            _ => return false,
        }
        true
    }

    /// Delivers what this service has sent itself, and what that makes it send.
    #[inline]
    fn deliver_local(&mut self, cx: &mut Context<'_>) {
        while let Some(envelope) = self.links.next_local() {
            self.dispatch(envelope, cx);
        }
    }
}

impl Service for TargetService {
    type Message = TargetMessage;

    fn on_message(&mut self, TargetMessage(envelope): TargetMessage, cx: &mut Context<'_>) {
        self.dispatch(envelope, cx);
        self.deliver_local(cx);
    }

    fn on_timer(&mut self, token: u64, cx: &mut Context<'_>) {
        if !self.wake(token) {
            let mut turn = Turn {
                links: &mut self.links,
                lingering: &mut self.lingering,
                buffers: &mut self.buffers,
                cx,
            };
            if token == token::of(token::STAGING, 0) {
                self.io.check_transfers(&mut turn);
            } else if let Some(home) = &mut self.home {
                home.on_timer(token, &mut turn);
            }
        }
        self.deliver_local(cx);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Progress {
        while let Some(token) = cx.next_ready() {
            self.wake(token);
        }
        let mut turn = Turn {
            links: &mut self.links,
            lingering: &mut self.lingering,
            buffers: &mut self.buffers,
            cx,
        };
        let mut progress = self.io.poll(&mut turn);
        if let Some(home) = &mut self.home {
            progress = progress.or(home.poll(&mut turn));
        }
        progress = progress.or(self.lingering.poll(&mut self.buffers, cx));
        self.deliver_local(cx);
        let due = self.home.as_ref().is_some_and(|h| h.has_due());
        if self.links.flush() || due {
            progress = Progress::Busy;
        }
        progress
    }
}
