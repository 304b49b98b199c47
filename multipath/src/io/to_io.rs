//! What an I/O reactor is sent: by control, and by the other parts of the application.

use std::time::Duration;

use pollux_nvme_tcp::host::{CommandTimeout, ConnectOptions};

use super::poll_group::PollGroup;
use crate::ids::{ControllerId, VolumeId, VolumeInfo};
use crate::path_state::PathState;
use crate::policy::Policy;

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
    /// Nothing that was sent by this connection of the controller can be executed any more (rule B14.6).
    EndFence {
        controller: ControllerId,
        incarnation: u32,
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
    /// There are path events for whoever has subscribed to them here.
    PathEvents,
    /// Carry out a setting, or answer a question: whatever concerns no one path.
    Call(Call),
}

/// What control has done on a poll group.
pub(crate) struct Call(Box<dyn FnOnce(&mut PollGroup) + Send>);

impl Call {
    pub fn new(call: impl FnOnce(&mut PollGroup) + Send + 'static) -> Call {
        Call(Box::new(call))
    }

    pub fn run(self, group: &mut PollGroup) {
        (self.0)(group);
    }
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Call")
    }
}

/// To an I/O reactor: from control, or from the application's other parts to the application there.
#[derive(Debug)]
pub struct IoMessage<M>(pub(crate) IoMessageKind<M>);

#[derive(Debug)]
pub(crate) enum IoMessageKind<M> {
    /// In a box, since it is large and rare: what comes for each I/O is small.
    Control(Box<ToIo>),
    Application(M),
}

impl<M> IoMessage<M> {
    /// A message for the application on the reactor.
    pub fn application(message: M) -> Self {
        Self(IoMessageKind::Application(message))
    }

    /// What a mailbox has given back.
    pub(crate) fn into_application(self) -> M {
        match self.0 {
            IoMessageKind::Application(message) => message,
            IoMessageKind::Control(_) => unreachable!("a message for the application was sent"),
        }
    }

    pub(crate) fn control(message: ToIo) -> Self {
        Self(IoMessageKind::Control(Box::new(message)))
    }
}
