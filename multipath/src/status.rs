//! What can be asked of a host: volumes, paths, controllers, and what happened to them (rule B13).

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use pollux_nvme_tcp::host::{Digests, NamespaceIds};
use pollux_nvme_tcp::rate_limit::RateLimits;
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_nvme_tcp::spec::status::Status;
use pollux_reactor::Time;

use crate::counters::IoCounters;
use crate::ids::{ControllerId, VolumeId, VolumeInfo};
use crate::options::AttachOptions;
use crate::policy::Policy;
use crate::transport_id::TransportId;

/// What one I/O reactor has done with its queue pairs since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ReactorCounters {
    /// Turns.
    pub polls: u64,
    /// Turns in which no queue pair had received anything.
    pub idle_polls: u64,
    /// Times that a queue pair had received something.
    pub receives: u64,
    /// Commands that ended.
    pub completions: u64,
    /// Commands that were given to a queue pair.
    pub submitted: u64,
    /// I/Os that had to wait for a path or for room in its queue.
    pub queued: u64,
    /// Commands that were not answered within the command timeout.
    pub timeouts: u64,
}

/// One path as one reactor computes it at the moment of the question.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PathView {
    /// The path's controller.
    pub controller: ControllerId,
    /// The next submission on this reactor could go here (rule B13.2). Implies `connected` and
    /// `accessible`.
    pub current: bool,
    /// The queue pair is connected and the controller is not resetting.
    pub connected: bool,
    /// Namespace active, ANA state optimized or non-optimized, log not being read again (rule B2.2).
    pub accessible: bool,
    /// ANA state, as last applied.
    pub ana_state: AnaState,
    /// ANA group, 0 without ANA reporting.
    pub ana_group: u32,
    /// Epoch of that state.
    pub epoch: u64,
    /// An ANA status was seen and the log is being read.
    pub log_pending: bool,
    /// ANATT has run out for that state.
    pub anatt_expired: bool,
    /// I/Os outstanding on the queue pair.
    pub outstanding: usize,
    /// The longest time that the queue pair has said nothing while commands were outstanding, since it was
    /// connected, to an eighth of the silence timeout (rule B9.4).
    pub longest_silence: Duration,
    /// Counters.
    pub counters: IoCounters,
}

/// One path as a reactor sees it, with what only control knows. What the reactor computed can be read as if it stood here.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PathStatus {
    /// What the reactor computed.
    pub view: PathView,
    /// Controller identifier (CNTLID).
    pub cntlid: u16,
    /// Where the controller is.
    pub transport: Arc<TransportId>,
    /// Time until ANATT runs out, if it runs (rule B4.5).
    pub anatt_remaining: Option<Duration>,
}

impl Deref for PathStatus {
    type Target = PathView;

    fn deref(&self) -> &PathView {
        &self.view
    }
}

/// Writes that a lost controller may still execute, and what stays behind them (rule B14).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FenceStatus {
    /// Writes in doubt, also those that were ended early: their blocks stay fenced.
    pub writes: usize,
    /// Writes that overlap them and stay behind.
    pub behind: usize,
    /// Time until the last of them goes on.
    pub remaining: Duration,
}

/// One volume as one reactor sees it. `P` is [`PathView`] on the reactor itself, and [`PathStatus`] once control has
/// completed it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ReactorVolumeStatus<P = PathStatus> {
    /// The volume.
    pub volume: VolumeId,
    /// I/O reactor, counted from 0.
    pub reactor: usize,
    /// I/Os that wait for a path, or for room in its queue.
    pub waiting: usize,
    /// Since when they wait because no path is available, by the reactor's clock.
    pub no_path_since: Option<Time>,
    /// What is fenced, if anything is.
    pub fenced: Option<FenceStatus>,
    /// Counters of paths that were removed since.
    pub removed: IoCounters,
    /// How often I/O came back with which error, also where it was retried.
    pub errors: Vec<(Status, u64)>,
    /// The paths, in attach order.
    pub paths: Vec<P>,
}

/// One volume.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct VolumeStatus {
    /// Its name, `<controller name>n<nsid>`.
    pub name: String,
    /// Its identity in messages.
    pub volume: VolumeId,
    /// Namespace identifier.
    pub nsid: u32,
    /// What identifies the namespace beyond that.
    pub ids: NamespaceIds,
    /// Size in blocks.
    pub blocks: u64,
    /// Block size in bytes.
    pub block_size: u32,
    /// How it selects paths.
    pub policy: Policy,
    /// How fast it may be used.
    pub limits: RateLimits,
    /// When control put this together, by the reactor's clock.
    pub at: Time,
    /// A snapshot from each I/O reactor.
    pub reactors: Vec<ReactorVolumeStatus>,
    /// The last path events, oldest first (rule B13.3).
    pub events: Vec<PathEvent>,
}

impl VolumeStatus {
    /// What the volume is: its identity, by which I/O is submitted to it, and its size.
    pub fn info(&self) -> VolumeInfo {
        VolumeInfo {
            id: self.volume,
            name: self.name.clone(),
            nsid: self.nsid,
            blocks: self.blocks,
            // A block size is a power of two.
            block_shift: u8::try_from(self.block_size.trailing_zeros()).unwrap_or(u8::MAX),
        }
    }
}

/// What a controller says that it is, in Identify Controller, without padding.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ControllerIdentity {
    /// Model number (MN).
    pub model: String,
    /// Serial number (SN).
    pub serial: String,
    /// Firmware revision (FR).
    pub firmware: String,
}

/// One controller.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ControllerStatus {
    /// The name it was attached under.
    pub name: String,
    /// Its identity in messages.
    pub controller: ControllerId,
    /// Controller identifier (CNTLID).
    pub cntlid: u16,
    /// Where it is.
    pub transport: TransportId,
    /// How it was attached.
    pub options: AttachOptions,
    /// Addresses to turn to when this one fails (mode `failover`).
    pub alternates: Vec<TransportId>,
    /// `connecting`, `enabled`, `reconnecting`, `failed`, `disabled`, `stopping`.
    pub state: &'static str,
    /// Why it was lost last.
    pub last_error: Option<String>,
    /// Digests in use; `None` while it is not connected.
    pub digests: Option<Digests>,
    /// Whether its admin queue comes by TLS, and then whether the kernel encrypts it (kTLS).
    pub ktls: Option<bool>,
    /// What it says that it is, once it has been asked.
    pub identity: Option<ControllerIdentity>,
    /// Commands that each of its I/O queue pairs takes at a time, once that is known.
    pub in_flight_max: Option<u16>,
    /// ANA logs that were refused since it was connected (rule B3.3).
    pub bad_ana_logs: u64,
    /// Namespaces that do not take part, and why.
    pub left_out: Vec<(u32, String)>,
}

/// A discovery service that is followed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DiscoveryStatus {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub transport: TransportId,
    /// How it and what it lists are connected to.
    pub options: AttachOptions,
    /// The services that it refers to.
    pub referrals: Vec<TransportId>,
    /// What was attached because of it, each under which name.
    pub attached: Vec<(String, TransportId)>,
    /// What is listed but could not be attached.
    pub not_attached: Vec<NotAttached>,
    /// The services, itself and those that it refers to, that cannot be reached or read.
    pub not_reached: Vec<NotAttached>,
}

/// Something that is tried again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotAttached {
    /// Where it should be.
    pub transport: TransportId,
    /// Why the last try has failed.
    pub reason: String,
    /// Tries that have failed one after the other.
    pub tries: u32,
}

/// Something that happened to a volume as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Notification {
    /// Counts from 0.
    pub id: u64,
    /// What happened.
    pub kind: NotificationKind,
    /// Name of the volume.
    pub volume: String,
}

/// What can happen to a volume as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotificationKind {
    /// Its first path was added.
    Added,
    /// Its last path was removed.
    Removed,
    /// Its size changed.
    Resized,
}

/// Something that happened to a path.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PathEvent {
    /// When control saw it, by the reactor's clock.
    pub at: Time,
    /// The volume that it is a path of.
    pub volume: VolumeId,
    /// Name of the volume.
    pub name: Arc<str>,
    /// The path's controller.
    pub controller: ControllerId,
    /// Where the controller is.
    pub transport: Arc<TransportId>,
    /// What happened.
    pub kind: PathEventKind,
}

/// What can happen to a path.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PathEventKind {
    /// It was added.
    Added(AnaState),
    /// It was removed.
    Removed,
    /// Its ANA state changed.
    Ana {
        /// Before.
        from: AnaState,
        /// After.
        to: AnaState,
        /// The epoch of the new state.
        epoch: u64,
    },
    /// The new state of an epoch is in a reactor's table.
    Applied {
        /// The epoch.
        epoch: u64,
        /// The I/O reactor.
        reactor: usize,
        /// When it was applied there.
        at: Time,
    },
    /// An I/O was completed with an ANA status on a reactor.
    AnaStatus {
        /// The I/O reactor.
        reactor: usize,
        /// When it was seen there; the path was not used from then on.
        at: Time,
    },
    /// The controller announced (asynchronous event) that its ANA log has changed.
    AnaNotice,
    /// ANATT ran out.
    AnattExpired,
    /// Commands were not answered within the command timeout (rule B9.1).
    CommandTimeout {
        /// The I/O reactor; `None`: admin commands.
        reactor: Option<usize>,
        /// How many.
        commands: usize,
    },
    /// The controller was lost with writes on the way that it may still execute; they wait (rule B14).
    Fenced {
        /// The I/O reactor.
        reactor: usize,
        /// How many.
        writes: usize,
        /// For how long.
        time: Duration,
    },
    /// The controller can no longer execute any of them.
    FenceOver {
        /// The I/O reactor.
        reactor: usize,
    },
    /// Another controller of the subsystem was asked to reset this one, which is lost (rule B14.6).
    ResetAsked {
        /// Where it is.
        by: SocketAddr,
    },
    /// The other controller has reset it: nothing that was sent to this one can be executed any more.
    Reset {
        /// Where it is.
        by: SocketAddr,
    },
    /// The other controller has not reset it: the fence lasts for its time, unless yet another one does it.
    ResetRefused {
        /// Where it is.
        by: SocketAddr,
        /// What it has answered.
        why: String,
    },
    /// The controller was lost.
    Lost(String),
    /// The controller's connections were closed on request: because it is reset, disabled or so.
    Closed(&'static str),
    /// The controller is connected again.
    Reconnected,
}

impl std::fmt::Display for PathEventKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Added(state) => write!(f, "added, {state}"),
            Self::Removed => f.write_str("removed"),
            Self::Ana { from, to, epoch } => write!(f, "{from} -> {to} (epoch {epoch})"),
            Self::Applied { epoch, reactor, .. } => {
                write!(f, "epoch {epoch} applied on I/O reactor {reactor}")
            }
            Self::AnaStatus { reactor, .. } => {
                write!(f, "ANA status seen on I/O reactor {reactor}")
            }
            Self::AnaNotice => f.write_str("ANA change announced"),
            Self::AnattExpired => f.write_str("ANATT expired"),
            Self::CommandTimeout {
                reactor: Some(reactor),
                commands,
            } => write!(f, "{commands} commands overdue on I/O reactor {reactor}"),
            Self::CommandTimeout {
                reactor: None,
                commands,
            } => write!(f, "{commands} admin commands overdue"),
            Self::Fenced {
                reactor,
                writes,
                time,
            } => {
                let seconds = time.as_secs_f64();
                write!(
                    f,
                    "fenced {writes} writes for {seconds:.1} s on I/O reactor {reactor}"
                )
            }
            Self::FenceOver { reactor } => write!(f, "fence over on I/O reactor {reactor}"),
            Self::ResetAsked { by } => write!(f, "reset asked for by way of {by}"),
            Self::Reset { by } => write!(f, "reset by way of {by}"),
            Self::ResetRefused { by, why } => write!(f, "not reset by way of {by}: {why}"),
            Self::Closed(why) => write!(f, "{why} on request"),
            Self::Lost(why) => write!(f, "lost: {why}"),
            Self::Reconnected => f.write_str("reconnected"),
        }
    }
}
