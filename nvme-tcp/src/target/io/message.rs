//! What the I/O part of a reactor is told, and what it tells. Messages between two services arrive in order.

use pollux_reactor::{Part, Time};

use crate::counters::{CounterReset, IoCounters};
use crate::histogram::{HistogramLayout, LatencyHistogram};
use crate::rate_limit::{Ask, RateLimits};
use crate::spec::log::AnaState;
use crate::spec::status::Status;
use crate::target::disk::DiskRef;
use crate::target::io::ControllerKey;
use crate::target::io::channels::{Owner, Scope};
use crate::target::io::command::Limits;
use crate::target::io::queue::IoQueue;
use crate::target::io::queue::execute::Authenticate;
use crate::target::io::shares::HostName;
use crate::target::status::{Fault, QpairCounters, QpairStatus, ReactorStatus};

/// Why queues end whose host was not heard of.
pub(in crate::target) const KEEP_ALIVE_TIMEOUT: &str = "keep-alive timeout";

/// A namespace as one controller's I/O queues see it.
#[derive(Debug, Clone)]
pub(in crate::target) struct NamespaceView {
    pub(in crate::target) disk: DiskRef,
    /// Log2 of the block size in bytes.
    pub(in crate::target) block_shift: u8,
    pub(in crate::target) blocks: u64,
    pub(in crate::target) limits: Limits,
    /// State of its ANA group through the controller's listener.
    pub(in crate::target) ana: AnaState,
}

/// What an I/O part has to tell home.
#[derive(Debug)]
pub(in crate::target) enum IoEvent {
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
    /// An authentication command has come on an I/O queue.
    Authenticate(Authenticate),
    /// A disk has another size, or takes no more writes.
    DiskChanged,
    /// A reactor asks for a slice of the limit of this number.
    AskSlice { reactor: usize, id: u64, ask: Ask },
}

/// To the I/O part of a service.
#[derive(Debug)]
pub(in crate::target) enum IoMessage {
    /// A controller of a host came to be.
    Open {
        key: ControllerKey,
        host: HostName,
        owner: Owner,
    },
    /// A controller is to be served until then, unless another time is said before.
    Lease { key: ControllerKey, lease: Time },
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
    /// What home says to [`IoEvent::Authenticate`].
    Authenticated(Box<Authenticated>),
    /// Answer: what was sent before has then taken effect.
    Sync(Part<()>),
    /// Answer when nothing that was in flight for what was removed before, and is within this scope, can execute any more.
    AwaitRemoval(Scope, Part<()>),
    /// Answer when nothing that was in flight for a controller whose queues were closed before can execute any more.
    AwaitEnd(ControllerKey, Part<()>),
    /// Answer with what this reactor has to tell.
    Report(Part<ReactorReport>),
    /// Begins counters of these disks, or of all, anew.
    ResetCounters(Option<Vec<DiskRef>>, CounterReset, Part<()>),
    /// The limits of a disk are these from now on, under this number.
    SetRateLimits {
        disk: DiskRef,
        id: u64,
        limits: RateLimits,
    },
    /// A slice of the limit of this number.
    Grant { id: u64, slice: Ask },
    /// Begin to count the latencies of a disk in this way, or end it.
    SetHistogram(DiskRef, Option<HistogramLayout>),
    /// Answer with what was counted since, if anything is.
    Histogram(DiskRef, Part<Option<LatencyHistogram>>),
}

/// How the authentication of an I/O queue goes on.
#[derive(Debug)]
pub(in crate::target) struct Authenticated {
    pub(in crate::target) key: ControllerKey,
    pub(in crate::target) qid: u16,
    pub(in crate::target) connection: u64,
    /// The answer to the command with this identifier: data, or why not.
    pub(in crate::target) answer: Option<(u16, Result<Vec<u8>, Status>)>,
    /// The queue is to end after that, and why.
    pub(in crate::target) end: Option<&'static str>,
}

/// A disk as one reactor has used it.
#[derive(Debug, Clone)]
pub(in crate::target) struct DiskReport {
    pub(in crate::target) disk: DiskRef,
    pub(in crate::target) in_flight: usize,
    pub(in crate::target) counters: IoCounters,
}

/// What one reactor has to tell.
#[derive(Debug, Default)]
pub(in crate::target) struct ReactorReport {
    pub(in crate::target) at: Time,
    pub(in crate::target) disks: Vec<DiskReport>,
    pub(in crate::target) status: ReactorStatus,
    pub(in crate::target) qpairs: Vec<(ControllerKey, QpairStatus)>,
    /// Sums over all queues that a controller has or had on this reactor.
    pub(in crate::target) controllers: Vec<(ControllerKey, QpairCounters)>,
}
