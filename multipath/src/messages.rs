//! What control is sent: by the I/O reactors, and from outside.

use std::sync::Weak;
use std::time::Duration;

use pollux_nvme_tcp::host::QueueError;
use pollux_nvme_tcp::rate_limit::Ask;
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_nvme_tcp::target::disk::DiskChange;
use pollux_reactor::Time;

use crate::ids::{ControllerId, VolumeId};
use crate::path_events::Publisher;
use crate::request::HostRequest;
use crate::volume_disk::WatchedVolume;

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
    Resumed { volume: VolumeId, since: Time },
    /// Writes of a controller that was lost wait for this long (rule B14).
    Fenced {
        volume: VolumeId,
        controller: ControllerId,
        incarnation: u32,
        writes: usize,
        time: Duration,
    },
    /// Fenced writes of the controller wait no more.
    FenceOver {
        volume: VolumeId,
        controller: ControllerId,
    },
    /// A volume that is followed has another ANA state on the reactor.
    VolumeAna { volume: VolumeId, state: AnaState },
    /// Somebody there is to be told of path events.
    Subscribe(Publisher),
    /// I/O waits for a slice of the volume's limit, the one of this number.
    AskSlice {
        volume: VolumeId,
        number: u64,
        ask: Ask,
    },
    /// There were answers on the controller's queue pair since the last time.
    Traffic {
        controller: ControllerId,
        incarnation: u32,
    },
    /// The controller's queue pair has authenticated again.
    Authenticated {
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
}

/// To control.
pub(crate) enum ControlMessage {
    Io {
        reactor: usize,
        message: FromIo,
    },
    Request(HostRequest),
    /// A target has a namespace on a volume, and is to be told when that changes.
    Watch {
        volume: Weak<WatchedVolume>,
        change: DiskChange,
    },
    /// A question to the I/O reactors may be answered, or a volume is watched no more: control has a turn.
    Woken,
}
