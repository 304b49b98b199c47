//! What the services of a target send each other. Messages between two services arrive in order.

use pollux_reactor::Part;

use super::channels::{Owner, Scope};
use super::disk::DiskRef;
use super::io_queue::IoQueue;
use super::request::{Reply, TargetRequest};
use super::shares::HostName;
use super::status::{Fault, QpairCounters, QpairStatus, ReactorStatus};
use crate::spec::log::AnaState;

/// A message to a [`TargetService`](super::TargetService); made by a [`TargetHandle`](super::TargetHandle)
/// and by the services themselves.
#[derive(Debug)]
pub struct TargetMessage(pub(super) Envelope);

#[derive(Debug)]
pub(super) enum Envelope {
    Home(HomeMessage),
    Io(IoMessage),
    /// A question to all reactors may be answered: home has a turn.
    Woken,
}

/// Names a controller for the lifetime of the target; unlike a CNTLID it is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ControllerKey(pub(super) u64);

/// A namespace as one controller's I/O queues see it.
#[derive(Debug, Clone)]
pub(super) struct NamespaceView {
    pub(super) disk: DiskRef,
    /// Log2 of the block size in bytes.
    pub(super) block_shift: u8,
    pub(super) blocks: u64,
    /// Most data of one command in bytes: what MDTS says.
    pub(super) transfer_max: u32,
    /// State of its ANA group through the controller's listener.
    pub(super) ana: AnaState,
}

/// To the home service.
pub(super) enum HomeMessage {
    /// From a handle.
    Request {
        request: TargetRequest,
        reply: Reply,
    },
    /// An I/O queue has ended by itself.
    QueueClosed {
        key: ControllerKey,
        qid: u16,
        connection: u64,
        fault: Option<Fault>,
    },
    /// Answer to [`IoMessage::Abort`].
    Aborted {
        key: ControllerKey,
        admin_cid: u16,
        aborted: bool,
    },
    /// A disk has another size, or takes no more writes.
    DiskChanged,
}

impl std::fmt::Debug for HomeMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Request { .. } => "Request",
            Self::QueueClosed { .. } => "QueueClosed",
            Self::Aborted { .. } => "Aborted",
            Self::DiskChanged => "DiskChanged",
        })
    }
}

/// To the I/O part of a service.
#[derive(Debug)]
pub(super) enum IoMessage {
    /// A controller of a host came to be.
    Open {
        key: ControllerKey,
        host: HostName,
        owner: Owner,
    },
    /// A controller's view of a namespace is now this one, or gone.
    Namespace {
        key: ControllerKey,
        nsid: u32,
        view: Option<NamespaceView>,
    },
    /// Serve this queue from now on.
    Adopt {
        key: ControllerKey,
        queue: Box<IoQueue>,
    },
    /// Drop the controller's queues; the controller stays.
    CloseQueues { key: ControllerKey },
    /// Drop the controller.
    Close { key: ControllerKey },
    /// A thread of the disk of this channel has something to tell.
    DiskAwake { channel: usize },
    /// Abort a command.
    Abort {
        key: ControllerKey,
        qid: u16,
        cid: u16,
        admin_cid: u16,
    },
    /// Answer: what was sent before has then taken effect.
    Sync(Part<()>),
    /// Answer when nothing that was in flight for what was removed before, and is within this scope, can execute any more.
    AwaitRemoval(Scope, Part<()>),
    /// Answer with what this reactor has to tell.
    Report(Part<ReactorReport>),
}

/// What one reactor has to tell.
#[derive(Debug, Default)]
pub(super) struct ReactorReport {
    /// How much disks have in flight for it.
    pub(super) disks: Vec<(DiskRef, usize)>,
    pub(super) status: ReactorStatus,
    pub(super) qpairs: Vec<(ControllerKey, QpairStatus)>,
    /// Sums over all queues that a controller has or had on this reactor.
    pub(super) controllers: Vec<(ControllerKey, QpairCounters)>,
}
