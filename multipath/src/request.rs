//! What a host can be asked to do.

use std::time::Duration;

use pollux_nvme_tcp::auth::{HostAuth, KeyNames};
use pollux_nvme_tcp::host::{Completed, FaultChange, Request};
use pollux_nvme_tcp::rate_limit::RateChange;

use crate::counters::CounterReset;
use crate::error::HostError;
use crate::ids::VolumeInfo;
use crate::options::AttachOptions;
use crate::path_events::PathEvents;
use crate::policy::Policy;
use crate::status::{
    ControllerStatus, DiscoveryStatus, Notification, ReactorCounters, VolumeStatus,
};
use crate::transport_id::TransportId;
use pollux_nvme_tcp::histogram::{HistogramLayout, LatencyHistogram};

/// How the answer to a request comes back. It runs on the control reactor and must not block.
pub type Reply<T> = Box<dyn FnOnce(Result<T, HostError>) + Send>;

/// Connects a controller under a name. The first one creates the volumes, `<name>n<nsid>`; each further
/// one adds a path to them (rule B1).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AttachRequest {
    /// Name of the group of controllers.
    pub name: String,
    /// Where the controller is.
    pub transport: TransportId,
    /// How to connect.
    pub options: AttachOptions,
}

impl AttachRequest {
    /// An attach with the default options.
    pub fn new(name: &str, transport: TransportId) -> Self {
        Self {
            name: name.to_owned(),
            transport,
            options: AttachOptions::default(),
        }
    }
}

impl DiscoveryRequest {
    /// A discovery with the default options, answered at once.
    pub fn new(name: &str, transport: TransportId) -> Self {
        Self {
            name: name.to_owned(),
            transport,
            options: AttachOptions::default(),
            wait_for_attach: false,
            attach_timeout: None,
        }
    }
}

/// What an attach led to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attached {
    /// The volumes that the controller is a path of now.
    pub volumes: Vec<VolumeInfo>,
}

/// Follows a discovery service and those that it refers to: attaches what they list, under
/// `<name>0`, `<name>1` and so on, one name for each subsystem, and detaches what they no longer list.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DiscoveryRequest {
    /// Its name.
    pub name: String,
    /// Where the discovery controller is.
    pub transport: TransportId,
    /// How to connect to it and to what it lists.
    pub options: AttachOptions,
    /// Answer when what is listed at first is attached or has failed to, and not at once.
    pub wait_for_attach: bool,
    /// After so long that has failed, and the discovery is ended. Without a limit it is ended when the
    /// service itself could not be reached or read three times.
    pub attach_timeout: Option<Duration>,
}

/// What can be done to a controller that stays attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ControllerChange {
    /// Close all its queue pairs and connect again (rule B8.2).
    Reset,
    /// Close all its queue pairs and stay so.
    Disable,
    /// Connect again after it was disabled.
    Enable,
}

/// A request with the way its answer takes.
#[non_exhaustive]
pub enum HostRequest {
    /// Connect a controller.
    Attach(Box<AttachRequest>, Reply<Attached>),
    /// Detach one controller of a name, or all.
    Detach {
        /// Name.
        name: String,
        /// Only the controller here; `None`: all.
        transport: Option<TransportId>,
        /// Answers when it is gone.
        reply: Reply<()>,
    },
    /// Reset, disable or enable controllers of a name; answers when they carry I/O again or are disabled,
    /// or when the first try to connect has failed.
    Change {
        /// Name.
        name: String,
        /// Only the controller with this CNTLID; `None`: all.
        cntlid: Option<u16>,
        /// What to do.
        change: ControllerChange,
        /// Answer.
        reply: Reply<()>,
    },
    /// Give controllers of a name other keys, or none. Those that are connected authenticate with them on all queues;
    /// answers when they have.
    SetKeys {
        /// Name.
        name: String,
        /// With what to authenticate.
        auth: Option<Box<HostAuth>>,
        /// What those keys are called.
        key_names: Option<KeyNames>,
        /// Answer.
        reply: Reply<()>,
    },
    /// Set the policy of a volume.
    SetPolicy {
        /// Name of the volume.
        volume: String,
        /// The policy.
        policy: Policy,
        /// Answer.
        reply: Reply<()>,
    },
    /// Prefer the path by one controller.
    SetPreferredPath {
        /// Name of the volume.
        volume: String,
        /// CNTLID of the controller.
        cntlid: u16,
        /// Answer.
        reply: Reply<()>,
    },
    /// How often an I/O is retried after an error that counts; `None`: no limit.
    SetRetryLimit(Option<u32>),
    /// Whether `active_passive` goes back to a better path of the same class by itself (rule B5.2); on at
    /// first.
    SetFailback(bool),
    /// Change how fast a volume may be used, by all I/O reactors together; answered when they all keep to it.
    SetRateLimits {
        /// Name of the volume.
        volume: String,
        /// Which limits.
        change: RateChange,
        /// Answer.
        reply: Reply<()>,
    },
    /// Status of all volumes.
    Volumes(Reply<Vec<VolumeStatus>>),
    /// Answer once there is a volume of this name, or [`HostError::NotFound`] after a time without.
    AwaitVolume {
        /// Its name.
        name: String,
        /// How long to wait at most.
        timeout: Duration,
        /// Answer.
        reply: Reply<()>,
    },
    /// Status of all volumes, and then begin the counters of some anew.
    ResetCounters {
        /// Names of the volumes; empty: all.
        volumes: Vec<String>,
        /// Which counters.
        what: CounterReset,
        /// Answer; the last that is told of what was counted.
        reply: Reply<Vec<VolumeStatus>>,
    },
    /// What has happened to volumes, from the one with this number on.
    Notifications(u64, Reply<Vec<Notification>>),
    /// Tell of what happens to paths from now on; see [`Host::path_events`](crate::Host::path_events).
    PathEvents {
        /// How many may be there untaken.
        capacity: usize,
        /// Where they can be taken.
        reply: Reply<PathEvents>,
    },
    /// Follow a discovery service.
    StartDiscovery(Box<DiscoveryRequest>, Reply<()>),
    /// Follow it no more; answers when what it attached is gone.
    StopDiscovery {
        /// Its name.
        name: String,
        /// Answer.
        reply: Reply<()>,
    },
    /// Discovery services that are followed.
    Discoveries(Reply<Vec<DiscoveryStatus>>),
    /// Send an admin command to the first connected controller of a name.
    Admin {
        /// Name.
        name: String,
        /// The command with its buffer.
        command: Box<Request>,
        /// How it ended.
        reply: Reply<Completed>,
    },
    /// Inject faults into commands to all controllers of a name, or stop that.
    Fault {
        /// Name.
        name: String,
        /// Into admin commands; else into I/O commands, on the queue pair of each I/O reactor.
        admin: bool,
        /// What.
        change: FaultChange,
        /// Answer.
        reply: Reply<()>,
    },
    /// Begin or end to count the latencies of a volume's I/O; what was counted before is forgotten.
    SetHistogram {
        /// Name of the volume.
        volume: String,
        /// How; `None`: no more.
        layout: Option<HistogramLayout>,
        /// Answer.
        reply: Reply<()>,
    },
    /// What was counted since, on all I/O reactors; `None` if nothing is.
    Histogram {
        /// Name of the volume.
        volume: String,
        /// Answer.
        reply: Reply<Option<LatencyHistogram>>,
    },
    /// Counters of the I/O reactors, in their order.
    Transport(Reply<Vec<ReactorCounters>>),
    /// Status of all controllers.
    Controllers(Reply<Vec<ControllerStatus>>),
    /// End all controllers in order; answers when they are gone.
    Shutdown(Reply<()>),
}
