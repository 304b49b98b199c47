//! What can be asked of a running target, and its answers. Every change of configuration is one of these
//! messages to the home reactor.

use std::net::SocketAddr;
use std::time::Duration;

use crate::spec::log::AnaState;
use crate::spec::nqn::{HostNqn, Nqn};
use crate::target::config::{NamespaceConfig, Referral, SubsystemConfig};
use crate::target::error::TargetError;
use crate::target::status::{SubsystemStatus, TargetStatus};

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
        /// The group, 1 to [`ANA_GROUP_MAX`](crate::target::ANA_GROUP_MAX).
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

/// Runs once with the answer, on the home reactor.
pub type Reply = Box<dyn FnOnce(Result<TargetReply, TargetError>) + Send>;
