//! What can be asked of a running target, and its answers. Every change of configuration is one of these
//! messages to the home reactor.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use uuid::Uuid;

use super::disk::Backend;
use super::status::{SubsystemStatus, TargetStatus};
use crate::spec::log::AnaState;
use crate::spec::nqn::{HostNqn, Nqn};

/// Settings of a new subsystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubsystemConfig {
    /// Its name; must not be in use.
    pub nqn: Nqn,
    /// Serial number: up to 20 printable ASCII characters.
    pub serial: String,
    /// Model number: up to 40 printable ASCII characters.
    pub model: String,
    /// Highest namespace identifier, 1 to 1024.
    pub max_namespaces: u32,
    /// Report ANA (CMIC bit 3, ANA log page, ANA statuses).
    pub ana_reporting: bool,
    /// Hosts need not be listed to connect.
    pub allow_any_host: bool,
    /// Lowest controller identifier given to a host, at least 1.
    pub min_cntlid: u16,
    /// Highest controller identifier given to a host, at most 65519 (FFEFh).
    pub max_cntlid: u16,
}

impl SubsystemConfig {
    /// A subsystem that any host may use, with ANA reporting, 32 namespaces and all controller identifiers.
    pub fn new(nqn: Nqn) -> Self {
        Self {
            nqn,
            serial: "POLLUX00000000000001".into(),
            model: "Pollux NVMe/TCP target".into(),
            max_namespaces: 32,
            ana_reporting: true,
            allow_any_host: true,
            min_cntlid: 1,
            max_cntlid: 0xffef,
        }
    }
}

/// Settings of a new namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceConfig {
    /// What its blocks are kept in; the size must be a multiple of the block size, and not zero.
    pub backend: Backend,
    /// Bytes per logical block: a power of two from 512 to 65536.
    pub block_size: u32,
    /// Reported with Identify CNS 03h. `None`: one that follows from subsystem and NSID, so that hosts know the
    /// namespace again after a restart.
    pub uuid: Option<Uuid>,
    /// Reported with Identify CNS 00h and 03h. `None`: the bytes of the UUID, since some hosts know a namespace by
    /// nothing else.
    pub nguid: Option<[u8; 16]>,
    /// Reported with Identify CNS 00h and 03h if given.
    pub eui64: Option<[u8; 8]>,
    /// ANA group, 1 to [`ANA_GROUP_MAX`](super::ANA_GROUP_MAX); `None`: the NSID (modulo the maximum).
    pub ana_group: Option<u32>,
}

impl NamespaceConfig {
    /// A namespace with default UUID and ANA group.
    pub fn new(backend: Backend, block_size: u32) -> Self {
        Self {
            backend,
            block_size,
            uuid: None,
            nguid: None,
            eui64: None,
            ana_group: None,
        }
    }
}

/// An entry of the discovery log that points at a subsystem or discovery service elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Referral {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Its NQN: the discovery NQN, or that of an NVM subsystem. Address and NQN identify the entry.
    pub subnqn: Nqn,
}

/// A request to a running target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetRequest {
    /// Makes a subsystem without namespaces and listeners.
    CreateSubsystem(SubsystemConfig),
    /// Removes a subsystem; answered when all its controllers are gone.
    DeleteSubsystem {
        /// The subsystem.
        nqn: Nqn,
    },
    /// Sets the largest data of a command, which Identify Controller reports as MDTS to whoever asks from then on: a
    /// power of two, 4 KiB to 1 MiB.
    SetMaxIoSize {
        /// Bytes.
        bytes: u32,
    },
    /// Adds a namespace; answered with [`TargetReply::Namespace`].
    AddNamespace {
        /// The subsystem.
        nqn: Nqn,
        /// Wanted identifier; `None`: the lowest that is free.
        nsid: Option<u32>,
        /// Its settings.
        namespace: NamespaceConfig,
    },
    /// Removes a namespace; answered when no reactor serves it any more.
    RemoveNamespace {
        /// The subsystem.
        nqn: Nqn,
        /// The namespace.
        nsid: u32,
    },
    /// Changes the size of a namespace.
    ResizeNamespace {
        /// The subsystem.
        nqn: Nqn,
        /// The namespace.
        nsid: u32,
        /// New size in bytes, a multiple of the block size.
        bytes: u64,
    },
    /// Moves a namespace to another ANA group.
    SetNamespaceAnaGroup {
        /// The subsystem.
        nqn: Nqn,
        /// The namespace.
        nsid: u32,
        /// The group, 1 to [`ANA_GROUP_MAX`](super::ANA_GROUP_MAX).
        group: u32,
    },
    /// Lets hosts connect to a subsystem at an address; answered with [`TargetReply::Listener`]. Several
    /// subsystems may share an address. All groups start out optimized.
    AddListener {
        /// The subsystem, or the discovery NQN for an address that serves discovery only.
        nqn: Nqn,
        /// Where; port 0 takes a free one.
        addr: SocketAddr,
    },
    /// Removes a listener and the controllers that came through it; answered when they are gone.
    RemoveListener {
        /// The subsystem.
        nqn: Nqn,
        /// Its listener.
        addr: SocketAddr,
    },
    /// Changes what one listener reports for one ANA group or all; answered when every reactor uses it.
    SetAnaState {
        /// The subsystem.
        nqn: Nqn,
        /// Its listener.
        addr: SocketAddr,
        /// The group; `None`: all.
        group: Option<u32>,
        /// The state.
        state: AnaState,
    },
    /// Allows a host.
    AddHost {
        /// The subsystem.
        nqn: Nqn,
        /// The host's name.
        host: HostNqn,
    },
    /// Forbids a host and disconnects it; answered when its controllers are gone.
    RemoveHost {
        /// The subsystem.
        nqn: Nqn,
        /// The host's name.
        host: HostNqn,
    },
    /// Allows every host, or only those listed. Hosts that are connected stay connected.
    AllowAnyHost {
        /// The subsystem.
        nqn: Nqn,
        /// Whether every host is allowed.
        allow: bool,
    },
    /// Adds an entry to the discovery log.
    AddReferral(Referral),
    /// Removes an entry from the discovery log.
    RemoveReferral(Referral),
    /// The referrals; answered with [`TargetReply::Referrals`].
    Referrals,
    /// Sets the command retry delay times that Identify Controller reports (CRDT1 to CRDT3).
    SetRetryDelays {
        /// In units of 100 ms.
        crdt: [u16; 3],
    },
    /// Carries out a removal (of a subsystem, namespace, listener or host) and answers with [`TargetError::Timeout`] if
    /// something of what is removed may still execute after this time. The removal goes on then. Other requests take
    /// no time.
    Within {
        /// The time.
        limit: Duration,
        /// The removal.
        request: Box<TargetRequest>,
    },
    /// Changes nothing; answered when every reactor has taken in all that was asked for before.
    Sync,
    /// The configuration; answered with [`TargetReply::Subsystems`].
    Subsystems,
    /// Configuration, controllers, queues, counters and latest faults; answered with
    /// [`TargetReply::Status`].
    Status,
}

/// The answer to a [`TargetRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetReply {
    /// Done, nothing to tell.
    Done,
    /// The identifier of the new namespace.
    Namespace {
        /// Its NSID.
        nsid: u32,
    },
    /// The address of the new listener, with the port that was taken.
    Listener {
        /// Where it listens.
        addr: SocketAddr,
    },
    /// The referrals.
    Referrals(Vec<Referral>),
    /// The subsystems in order of their NQNs, without controllers.
    Subsystems(Vec<SubsystemStatus>),
    /// Everything.
    Status(Box<TargetStatus>),
}

/// Why a [`TargetRequest`] was refused. A refused request changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetError {
    /// No subsystem of that name.
    NoSuchSubsystem(Nqn),
    /// The name is in use.
    SubsystemExists(Nqn),
    /// The discovery subsystem cannot be changed in this way.
    Discovery,
    /// Serial or model number too long or not printable.
    InvalidParameters(String),
    /// Controller identifiers not within 1 to 65519, or the lowest above the highest.
    InvalidCntlidRange {
        /// The lowest asked for.
        min: u16,
        /// The highest asked for.
        max: u16,
    },
    /// No namespace of that identifier.
    NoSuchNamespace(u32),
    /// The identifier is in use, or none is free.
    NamespaceExists(u32),
    /// All namespace identifiers of the subsystem are in use.
    NoFreeNamespace,
    /// A value out of range: names it and what is allowed.
    InvalidValue(String),
    /// No such listener on the subsystem.
    NoSuchListener(SocketAddr),
    /// The subsystem has that listener already.
    ListenerExists(SocketAddr),
    /// The host is not on the list.
    NoSuchHost(HostNqn),
    /// The host is on the list already.
    HostExists(HostNqn),
    /// No such referral.
    NoSuchReferral,
    /// The referral exists.
    ReferralExists,
    /// A socket or file could not be opened: what was tried, and the system's error.
    Io {
        /// What could not be opened.
        what: String,
        /// The system's error text.
        error: String,
    },
    /// Something of what was removed may still execute, and the time for that is over
    /// ([`TargetRequest::Within`]). The removal goes on.
    Timeout,
    /// The home reactor's mailbox is full; try again.
    Busy,
    /// The target has stopped.
    Stopped,
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchSubsystem(nqn) => write!(f, "no subsystem '{nqn}'"),
            Self::SubsystemExists(nqn) => write!(f, "subsystem '{nqn}' exists already"),
            Self::Discovery => write!(f, "not possible for the discovery subsystem"),
            Self::InvalidParameters(what) => write!(f, "Invalid parameters: {what}"),
            Self::InvalidCntlidRange { min, max } => write!(
                f,
                "Invalid cntlid range {min} to {max}: 1 to 65519 is allowed, the lowest first"
            ),
            Self::NoSuchNamespace(nsid) => write!(f, "no namespace {nsid}"),
            Self::NamespaceExists(nsid) => write!(f, "namespace {nsid} exists already"),
            Self::NoFreeNamespace => write!(f, "all namespace identifiers are in use"),
            Self::InvalidValue(what) => write!(f, "{what}"),
            Self::NoSuchListener(addr) => write!(f, "no listener {addr}"),
            Self::ListenerExists(addr) => write!(f, "listener {addr} exists already"),
            Self::NoSuchHost(nqn) => write!(f, "host '{nqn}' is not on the list"),
            Self::HostExists(nqn) => write!(f, "host '{nqn}' is on the list already"),
            Self::NoSuchReferral => write!(f, "no such referral"),
            Self::ReferralExists => write!(f, "referral exists already"),
            Self::Io { what, error } => write!(f, "{what}: {error}"),
            Self::Timeout => write!(f, "what was removed has not come to its end in time"),
            Self::Busy => write!(f, "the target is too busy to take requests"),
            Self::Stopped => write!(f, "the target has stopped"),
        }
    }
}

impl std::error::Error for TargetError {}

/// Runs once with the answer, on the home reactor.
pub type Reply = Box<dyn FnOnce(Result<TargetReply, TargetError>) + Send>;
