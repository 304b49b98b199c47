//! What travels between control and the I/O reactors.

use std::time::Duration;

use pollux_nvme_tcp::host::{CommandTimeout, ConnectOptions, FaultChange, QueueError};
use pollux_reactor::Time;

use crate::counters::CounterReset;
use crate::histogram::{HistogramLayout, LatencyHistogram};
use crate::ids::{ControllerId, VolumeId, VolumeInfo};
use crate::path_state::PathState;
use crate::policy::Policy;
use crate::request::HostRequest;
use crate::status::{ReactorCounters, ReactorVolumeStatus};

/// From control to an I/O reactor.
#[derive(Debug)]
pub(crate) enum ToIo {
    /// Connect a queue pair; it carries no I/O before `Enable`. `incarnation` counts the controller's
    /// connections, so that news of an older one is told apart.
    Connect {
        controller: ControllerId,
        incarnation: u32,
        options: Box<ConnectOptions>,
        /// CRDT1 to CRDT3, in 100 ms.
        retry_delays: [u16; 3],
        timeout: Option<CommandTimeout>,
        /// Tell in this interval if there was an answer to a command (rule B9.2).
        traffic: Option<Duration>,
        /// Time after which a queue pair that says nothing is probed (rule B9.4).
        silence: Option<Duration>,
        /// How long a command may be executed after the controller was lost (rule B14); `None`: no fencing.
        fence: Option<Duration>,
    },
    /// All of the controller is in place: its paths may carry I/O.
    Enable {
        controller: ControllerId,
    },
    /// Close the queue pair. With `recovering` it may come back (rule B7.1).
    Disconnect {
        controller: ControllerId,
        recovering: bool,
    },
    /// `fast_io_fail_timeout_sec` ran out: I/O no longer waits for this controller.
    Exclude {
        controller: ControllerId,
    },
    /// Forget the controller; all its paths have been removed.
    RemoveController {
        controller: ControllerId,
    },
    AddVolume {
        info: VolumeInfo,
        policy: Policy,
    },
    ResizeVolume {
        volume: VolumeId,
        blocks: u64,
    },
    RemoveVolume {
        volume: VolumeId,
    },
    AddPath {
        volume: VolumeId,
        controller: ControllerId,
        state: PathState,
    },
    SetPath {
        volume: VolumeId,
        controller: ControllerId,
        state: PathState,
    },
    /// The answer to [`FromIo::AnaStatus`]: what this read of the ANA log, or a later one, tells holds again.
    AwaitLog {
        volume: VolumeId,
        controller: ControllerId,
        read: u64,
    },
    /// ANATT ran out for the state of `epoch` (rule B4.2).
    AnattExpired {
        volume: VolumeId,
        controller: ControllerId,
        epoch: u64,
    },
    RemovePath {
        volume: VolumeId,
        controller: ControllerId,
    },
    SetPolicy {
        volume: VolumeId,
        policy: Policy,
    },
    SetPreferred {
        volume: VolumeId,
        controller: Option<ControllerId>,
    },
    /// Retries of an I/O that are counted; `None`: no limit.
    SetRetryLimit {
        limit: Option<u32>,
    },
    /// Whether to go back to a better path of the same class, on all volumes (rule B5.2).
    SetFailback {
        failback: bool,
    },
    /// Inject faults on the controller's present connection, or stop that.
    Fault {
        controller: ControllerId,
        change: FaultChange,
    },
    /// Count latencies in this way from now on; `None`: no more.
    SetHistogram {
        volume: VolumeId,
        layout: Option<HistogramLayout>,
    },
    /// Answer with what `question` asks for.
    Ask {
        request: u64,
        question: Question,
    },
}

/// What an I/O reactor is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Question {
    /// The counters of these volumes begin anew then.
    Volumes(Option<(Vec<VolumeId>, CounterReset)>),
    Counters,
    Histogram(VolumeId),
}

/// What it answers.
#[derive(Debug)]
pub(crate) enum Told {
    Volumes(Vec<ReactorVolumeStatus>),
    Counters(ReactorCounters),
    Histogram(Option<Box<LatencyHistogram>>),
}

/// To an I/O reactor: from control, or from the application's other parts to the application there.
#[derive(Debug)]
pub struct IoMessage<M>(pub(crate) IoMessageKind<M>);

#[derive(Debug)]
pub(crate) enum IoMessageKind<M> {
    Control(ToIo),
    Application(M),
}

impl<M> IoMessage<M> {
    /// A message for the application on the reactor.
    pub fn application(message: M) -> Self {
        Self(IoMessageKind::Application(message))
    }

    pub(crate) fn control(message: ToIo) -> Self {
        Self(IoMessageKind::Control(message))
    }
}

/// From an I/O reactor to control.
#[derive(Debug)]
pub(crate) enum FromIo {
    QueueReady {
        controller: ControllerId,
        incarnation: u32,
    },
    QueueLost {
        controller: ControllerId,
        incarnation: u32,
        error: QueueError,
    },
    /// A completion carried an ANA status; the path is not used until a log that was read after it arrives.
    AnaStatus {
        volume: VolumeId,
        controller: ControllerId,
        at: Time,
    },
    /// A path state is in this reactor's table since `at`.
    Applied {
        volume: VolumeId,
        controller: ControllerId,
        epoch: u64,
        at: Time,
    },
    /// I/O of a volume waits and no path is available.
    Stalled {
        volume: VolumeId,
        waiting: usize,
        since: Time,
    },
    /// I/O waits for a path no more: there is one, or nothing waits.
    Resumed {
        volume: VolumeId,
        since: Time,
    },
    /// Writes of a controller that was lost wait for this long (rule B14).
    Fenced {
        volume: VolumeId,
        controller: ControllerId,
        writes: usize,
        time: Duration,
    },
    /// They wait no more.
    FenceOver {
        volume: VolumeId,
        controller: ControllerId,
    },
    /// There were answers on the controller's queue pair since the last time.
    Traffic {
        controller: ControllerId,
        incarnation: u32,
    },
    /// Commands were not answered in time (rule B9.1).
    CommandTimeout {
        controller: ControllerId,
        incarnation: u32,
        commands: usize,
    },
    /// Commands of a queue to be aborted.
    Abort {
        controller: ControllerId,
        incarnation: u32,
        queue_id: u16,
        commands: Vec<u16>,
        /// The commands were not answered in time.
        overdue: bool,
    },
    Told {
        request: u64,
        answer: Told,
    },
}

/// To control.
pub(crate) enum ControlMessage {
    Io { reactor: usize, message: FromIo },
    Request(HostRequest),
}
