//! What a host can be asked to do.

use std::net::IpAddr;
use std::time::Duration;

use pollux_nvme_tcp::host::{
    CommandTimeout, Completed, ControllerError, Digests, FaultChange, Request,
};

use crate::counters::CounterReset;
use crate::histogram::{HistogramLayout, LatencyHistogram};
use crate::messages::VolumeId;
use crate::policy::Policy;
use crate::status::{
    ControllerStatus, DiscoveryStatus, Notification, ReactorCounters, VolumeStatus,
};
use crate::transport_id::TransportId;

/// How the answer to a request comes back. It runs on the control reactor and must not block.
pub type Reply<T> = Box<dyn FnOnce(Result<T, HostError>) + Send>;

/// How a lost controller is dealt with (rule B8.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovery {
    /// Time between tries to reconnect; the first try is at once.
    pub reconnect_delay: Duration,
    /// Time after which the controller is deleted; `None`: never.
    pub controller_loss_timeout: Option<Duration>,
    /// Time after which I/O no longer waits for it; `None`: not before the controller is deleted.
    pub fast_io_fail_timeout: Option<Duration>,
}

impl Default for Recovery {
    /// A try every second, for ever.
    fn default() -> Self {
        Self {
            reconnect_delay: Duration::from_secs(1),
            controller_loss_timeout: None,
            fast_io_fail_timeout: None,
        }
    }
}

impl Recovery {
    /// Checks the combination.
    ///
    /// # Errors
    /// Says which two values do not go together (rule B8.3).
    pub fn check(&self) -> Result<(), HostError> {
        let loss = self.controller_loss_timeout;
        let fail = |text| Err(HostError::Invalid(text));
        if self.reconnect_delay.is_zero() {
            if loss != Some(Duration::ZERO) {
                return fail("a reconnect delay of 0 needs a controller loss timeout of 0");
            }
            if self.fast_io_fail_timeout.is_some() {
                return fail("a reconnect delay of 0 allows no fast I/O fail timeout");
            }
            return Ok(());
        }
        if loss.is_some_and(|loss| loss < self.reconnect_delay) {
            return fail("the controller loss timeout must be -1 or at least the reconnect delay");
        }
        if let Some(fast) = self.fast_io_fail_timeout {
            if fast < self.reconnect_delay {
                return fail("the fast I/O fail timeout must be at least the reconnect delay");
            }
            if loss.is_some_and(|loss| fast >= loss) {
                return fail("the fast I/O fail timeout must be below the controller loss timeout");
            }
        }
        Ok(())
    }
}

/// What a further controller under a name in use is for (rule B1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// A further path of the volumes.
    #[default]
    Multipath,
    /// An address to turn to when the connected one fails (rule B12).
    Failover,
    /// Nothing: the name must be new.
    Disable,
}

/// How to connect to a controller.
#[derive(Debug, Clone)]
pub struct AttachOptions {
    /// What to do if the name is in use.
    pub mode: Mode,
    /// Digests to ask for.
    pub digests: Digests,
    /// Refuse a controller that does not grant them.
    pub require_digests: bool,
    /// Keep SQ flow control; without it, controllers may leave out the completion of reads that succeed.
    pub sq_flow_control: bool,
    /// Keep-alive timeout in ms; 0 turns keep-alive off.
    pub keep_alive_ms: u32,
    /// Entries of each I/O queue; 2 to 1024.
    pub queue_size: u16,
    /// Time until the whole attach must be done.
    pub connect_timeout: Duration,
    /// Time until TCP must be connected, if that is to be less; of the I/O queue pairs as well.
    pub tcp_connect_timeout: Option<Duration>,
    /// Time within which an I/O command must be answered; `None`: no limit (rule B9.1).
    pub io_timeout: Option<CommandTimeout>,
    /// The same of admin commands. There is no aborting them: that is a reset.
    pub admin_timeout: Option<CommandTimeout>,
    /// Time after which an I/O queue pair that says nothing, although commands are outstanding, is probed; if
    /// the probe is not answered for half as long either, the controller is reset (rule B9.4). `None`: never.
    pub silence_timeout: Option<Duration>,
    /// What to do when the controller is lost.
    pub recovery: Recovery,
    /// Policy of the volumes; must be the same for all controllers of a name.
    pub policy: Policy,
    /// Under a name in use, take the policy from there instead of comparing.
    pub adopt_policy: bool,
    /// Local address to connect from, if it matters.
    pub local: Option<IpAddr>,
}

impl Default for AttachOptions {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            digests: Digests::default(),
            require_digests: false,
            sq_flow_control: false,
            keep_alive_ms: 10_000,
            queue_size: 128,
            connect_timeout: Duration::from_secs(10),
            tcp_connect_timeout: None,
            io_timeout: None,
            admin_timeout: None,
            silence_timeout: Some(Duration::from_secs(5)),
            recovery: Recovery::default(),
            policy: Policy::default(),
            adopt_policy: false,
            local: None,
        }
    }
}

/// Connects a controller under a name. The first one creates the volumes, `<name>n<nsid>`; each further
/// one adds a path to them (rule B1).
#[derive(Debug, Clone)]
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

/// What an attach led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// The volumes that the controller is a path of now.
    pub volumes: Vec<AttachedVolume>,
}

/// A volume that an attached controller is a path of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachedVolume {
    /// Its identity in messages.
    pub volume: VolumeId,
    /// Its name.
    pub name: String,
    /// Size in blocks.
    pub blocks: u64,
    /// Block size in bytes.
    pub block_size: u32,
}

/// Why a request failed; nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// The controller could not be connected or brought up.
    #[error("{transport}: {error}")]
    Connect {
        /// Which one.
        transport: String,
        /// Why.
        error: ControllerError,
    },
    /// Not all of it was done by the connect timeout.
    #[error("{0}: not usable within the connect timeout")]
    Timeout(String),
    /// The controller grants fewer I/O queues than there are I/O reactors.
    #[error("{transport}: grants {granted} I/O queues, {needed} are needed (one per I/O reactor)")]
    TooFewQueues {
        /// Which one.
        transport: String,
        /// What it grants.
        granted: u16,
        /// What is needed.
        needed: usize,
    },
    /// The operating system refused.
    #[error("{0}: {1}")]
    Socket(String, std::io::ErrorKind),
    /// Already attached under this name.
    #[error("{0}: already attached under this name")]
    Exists(String),
    /// It does not fit to what is attached under the name.
    #[error("{0}")]
    Mismatch(String),
    /// A value or a combination of values is not allowed.
    #[error("{0}")]
    Invalid(&'static str),
    /// No such name.
    #[error("no such {0}")]
    NotFound(String),
    /// A discovery of this name or address is followed already.
    #[error("discovery {0}: started already")]
    DiscoveryExists(String),
    /// What a discovery service lists was not attached while somebody waited for it.
    #[error("{transport}: what it lists could not be attached{}: {cause}", if *.in_time { "" } else { " in time" })]
    Discovery {
        /// The service.
        transport: String,
        /// What has failed so far.
        cause: String,
        /// False if the attach timeout has passed, true if the service failed too often.
        in_time: bool,
    },
    /// It is in the wanted state already.
    #[error("{0}")]
    Already(&'static str),
    /// The host is stopping, or the object went away meanwhile.
    #[error("cancelled: {0}")]
    Cancelled(&'static str),
}

/// Follows a discovery service and those that it refers to: attaches what they list, under
/// `<name>0`, `<name>1` and so on, one name for each subsystem, and detaches what they no longer list.
#[derive(Debug, Clone)]
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
pub enum ControllerChange {
    /// Close all its queue pairs and connect again (rule B8.2).
    Reset,
    /// Close all its queue pairs and stay so.
    Disable,
    /// Connect again after it was disabled.
    Enable,
}

/// A request with the way its answer takes.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// B8.3
    #[test]
    fn invalid_combinations_of_timeouts_are_refused() {
        let s = Duration::from_secs;
        let check = |delay, loss: Option<u64>, fast: Option<u64>| {
            Recovery {
                reconnect_delay: s(delay),
                controller_loss_timeout: loss.map(s),
                fast_io_fail_timeout: fast.map(s),
            }
            .check()
            .is_ok()
        };
        assert!(check(0, Some(0), None));
        assert!(!check(0, Some(5), None));
        assert!(!check(0, None, None));
        assert!(!check(0, Some(0), Some(1)));
        assert!(check(2, None, None));
        assert!(check(2, Some(2), None));
        assert!(!check(2, Some(1), None));
        assert!(!check(2, Some(0), None));
        assert!(check(2, None, Some(2)));
        assert!(!check(2, None, Some(1)));
        assert!(check(2, Some(5), Some(4)));
        assert!(!check(2, Some(5), Some(5)));
    }
}
