//! Why a request to a target was refused.

use std::fmt;
use std::net::SocketAddr;

use crate::spec::nqn::{HostNqn, Nqn};

/// Why a [`TargetRequest`](super::TargetRequest) was refused. A refused request changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TargetError {
    /// No subsystem of that name.
    NoSuchSubsystem(Nqn),
    /// The name is in use.
    SubsystemExists(Nqn),
    /// There are as many subsystems as there may be.
    TooManySubsystems(usize),
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
    /// ([`TargetRequest::within`](super::TargetRequest::within)). The removal goes on.
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
            Self::TooManySubsystems(max) => write!(f, "there may be {max} subsystems, and are"),
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
