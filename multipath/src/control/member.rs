//! One controller of a group, as control keeps it: from attach through resets to its end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use pollux_nvme_tcp::host::{ConnectOptions, Controller, ControllerOptions, HostIdentity};
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_reactor::Time;

use super::asker::AttachAsker;
use super::authentication::Unexplained;
use super::journal::{self, Who};
use super::lifecycle::Lifecycle;
use super::retry::Retries;
use super::shared::Shared;
use crate::ids::{ControllerId, VolumeId, VolumeInfo};
use crate::options::AttachOptions;
use crate::path_state::PathState;
use crate::request::AttachRequest;
use crate::status::PathEventKind;
use crate::transport_id::TransportId;

/// A path as control keeps it.
#[derive(Debug)]
pub(super) struct MemberPath {
    pub volume: VolumeId,
    pub nsid: u32,
    pub state: PathState,
    /// When ANATT runs out, while it runs (rule B4.1).
    pub anatt_at: Option<Time>,
    /// It has run out for the stay in inaccessible or change that still goes on.
    pub anatt_expired: bool,
}

/// One controller. What happens to it is in `recovery`, what it makes of its namespaces in `paths`.
pub(super) struct Member {
    pub id: ControllerId,
    /// Name of the group.
    pub group: String,
    /// Shared with what is said of it, which is a great deal more often than it changes.
    pub transport: Arc<TransportId>,
    /// Addresses to turn to when this one fails, the next one first (rule B12).
    pub alternates: VecDeque<TransportId>,
    /// Addresses tried since it was live.
    pub addresses_tried: usize,
    pub options: AttachOptions,
    pub controller_options: ControllerOptions,
    lifecycle: Lifecycle,
    pub controller: Option<Controller<u64>>,
    /// Counts connections, so that news of an older one is told apart.
    pub incarnation: u32,
    /// I/O queue pairs of this incarnation that are connected.
    pub queues_ready: usize,
    /// The attach that is not answered yet, and when it fails. A reconnect has no one to answer.
    pub attach: Option<AttachAsker>,
    pub attach_deadline: Time,
    /// When it was lost, until it is live again.
    pub lost_at: Option<Time>,
    /// Tries to connect it again that have failed since, and when that is said again for the same reason.
    pub retries: Retries,
    pub still_lost_at: Time,
    pub excluded: bool,
    pub last_error: Option<String>,
    pub paths: Vec<MemberPath>,
    /// Namespaces that do not fit their volume, and why (rule B1.3).
    pub left_out: Vec<(u32, String)>,
    pub cntlid: u16,
    /// Queues that authenticate again and have not ended that: 0 is the admin queue, an I/O reactor's is one more than its
    /// number.
    pub authenticating: Vec<usize>,
    /// A loss that waits for what they have to say of it.
    pub unexplained: Option<Unexplained>,
    /// When it authenticates again by itself.
    pub authenticate_at: Option<Time>,
}

impl Member {
    /// A controller that is about to be connected for the first time.
    pub fn new(
        id: ControllerId,
        request: AttachRequest,
        asker: AttachAsker,
        identity: &HostIdentity,
        io_queues: u16,
    ) -> Member {
        let AttachRequest {
            name,
            transport,
            options,
        } = request;
        let mut host = identity.clone();
        if let Some(nqn) = &transport.hostnqn {
            host.nqn = nqn.clone();
        }
        let mut connect = ConnectOptions::admin(transport.addr, transport.subnqn.clone(), host);
        connect.keep_alive_ms = options.keep_alive_ms;
        connect.digests = options.digests;
        connect.require_digests = options.require_digests;
        connect.disable_sq_flow_control = !options.sq_flow_control;
        connect.timeout = options.connect_timeout;
        connect.tcp_timeout = options.tcp_connect_timeout;
        connect.local = options.local;
        connect.auth = options.auth.clone();
        connect.tls = options.tls.clone();
        connect.ktls = options.ktls;
        let mut controller_options = ControllerOptions::new(connect);
        controller_options.io_queues = io_queues;
        controller_options.io_queue_size = options.queue_size;
        controller_options.command_timeout = options.admin_timeout;
        Member {
            id,
            group: name,
            transport: transport.into(),
            alternates: VecDeque::new(),
            addresses_tried: 0,
            controller_options,
            options,
            lifecycle: Lifecycle::Connecting,
            controller: None,
            incarnation: 0,
            queues_ready: 0,
            attach: Some(asker),
            attach_deadline: Time::MAX,
            lost_at: None,
            retries: Retries::default(),
            still_lost_at: Time::ZERO,
            excluded: false,
            last_error: None,
            paths: Vec::new(),
            left_out: Vec::new(),
            cntlid: 0,
            authenticating: Vec::new(),
            unexplained: None,
            authenticate_at: None,
        }
    }

    /// Where it stands.
    pub fn lifecycle(&self) -> Lifecycle {
        self.lifecycle
    }

    /// Goes on to where the table of [`Lifecycle`] allows.
    pub fn enter(&mut self, next: Lifecycle) {
        let from = self.lifecycle;
        assert!(
            from.may_become(next),
            "controller {:?} cannot go from {from:?} to {next:?}",
            self.id
        );
        self.lifecycle = next;
        // What authenticates again has gone on until now, or is beginning anew.
        self.authenticating.clear();
        self.unexplained = None;
    }

    /// What lines in the log call it.
    pub fn who(&self) -> Who<'_> {
        Who(&self.group, self.transport.addr)
    }

    /// Whether it is being connected for the first time.
    pub fn is_new(&self) -> bool {
        self.lifecycle != Lifecycle::Live && self.lost_at.is_none()
    }

    /// Tells one volume that it has a path by this controller to which something has happened.
    pub fn record(&self, volume: VolumeId, kind: PathEventKind, shared: &mut Shared) {
        // A volume that has gone has no history any more.
        if let Some(volume) = shared.volumes.get(volume) {
            let who = Who(&volume.info.name, self.transport.addr);
            journal::path_event(who, &kind, self.is_new());
            let id = volume.info.id;
            let (now, path) = (shared.now, (self.id, &self.transport));
            shared.volumes.record(id, now, path, kind);
        }
    }

    /// Something has happened to the controller, and so to all its paths.
    pub fn record_all(&self, kind: &PathEventKind, shared: &mut Shared) {
        journal::controller_event(self.who(), kind);
        for path in &self.paths {
            self.record(path.volume, kind.clone(), shared);
        }
    }

    /// The volumes that it is a path of.
    pub fn volumes(&self, shared: &Shared) -> Vec<VolumeInfo> {
        let volumes = self
            .paths
            .iter()
            .filter_map(|p| shared.volumes.get(p.volume));
        volumes.map(|v| v.info.clone()).collect()
    }

    /// It is a controller of its subsystem at this time.
    pub fn is_connected(&self) -> bool {
        matches!(self.lifecycle, Lifecycle::Queues | Lifecycle::Live)
    }

    /// The next moment at which something is due although nothing arrives.
    pub fn deadline(&self) -> Option<Time> {
        let mut at: Vec<Time> = Vec::new();
        at.extend(self.controller.as_ref().and_then(Controller::deadline));
        match self.lifecycle {
            Lifecycle::Connecting | Lifecycle::Queues => at.push(self.attach_deadline),
            Lifecycle::Waiting(retry) => at.push(retry),
            Lifecycle::Live => {
                at.extend(self.authenticate_at);
                at.extend(self.unexplained.as_ref().map(|loss| loss.until));
            }
            Lifecycle::Failed | Lifecycle::Disabled | Lifecycle::Stopping | Lifecycle::Gone => {}
        }
        at.extend(self.loss_deadline());
        at.extend(self.exclusion_deadline());
        at.extend(self.paths.iter().filter_map(|p| p.anatt_at));
        at.into_iter().min()
    }

    /// When `ctrlr_loss_timeout_sec` runs out. Without a reconnect delay each address has one try, however
    /// long that takes.
    pub fn loss_deadline(&self) -> Option<Time> {
        let recovery = self.options.recovery;
        if recovery.reconnect_delay.is_zero() {
            return None;
        }
        Some(self.lost_at? + recovery.controller_loss_timeout?)
    }

    /// When `fast_io_fail_timeout_sec` runs out.
    pub fn exclusion_deadline(&self) -> Option<Time> {
        if self.excluded {
            return None;
        }
        Some(self.lost_at? + self.options.recovery.fast_io_fail_timeout?)
    }

    /// Turns to the next address, if there are others; true until each was tried once.
    pub fn next_address(&mut self) -> bool {
        let Some(next) = self.alternates.pop_front() else {
            return false;
        };
        let failed = std::mem::replace(&mut self.transport, Arc::new(next));
        self.alternates.push_back(Arc::unwrap_or_clone(failed));
        self.addresses_tried += 1;
        self.addresses_tried <= self.alternates.len()
    }

    /// How its path of a volume is, for a line in the log; `None` if it has none.
    pub fn describe_path(&self, volume: VolumeId) -> Option<String> {
        let path = self.paths.iter().find(|p| p.volume == volume)?;
        let addr = self.transport.addr;
        Some(match self.lifecycle {
            Lifecycle::Live => format!("{addr} {}", path.state.ana),
            _ => format!(
                "{addr} {}: {}",
                self.state_name(),
                self.last_error.as_deref().unwrap_or("no answer yet")
            ),
        })
    }

    pub fn state_name(&self) -> &'static str {
        match self.lifecycle {
            Lifecycle::Connecting | Lifecycle::Queues if self.lost_at.is_none() => "connecting",
            Lifecycle::Live => "enabled",
            Lifecycle::Disabled => "disabled",
            Lifecycle::Failed => "failed",
            Lifecycle::Stopping => "stopping",
            _ => "reconnecting",
        }
    }
}

impl MemberPath {
    /// Takes a new state over; starts, keeps or cancels ANATT (rules B4.1, B4.4). Returns the state before.
    pub fn apply(&mut self, state: PathState, anatt_at: Time) -> AnaState {
        let ana = state.ana;
        let before = self.state.ana;
        if !ana.is_transient() {
            self.anatt_at = None;
            self.anatt_expired = false;
        } else if self.anatt_at.is_none() && !self.anatt_expired {
            self.anatt_at = Some(anatt_at);
        }
        self.state = state;
        before
    }

    pub fn anatt_remaining(&self, now: Time) -> Option<Duration> {
        self.anatt_at.map(|at| at.saturating_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(ana: AnaState, epoch: u64) -> PathState {
        PathState {
            epoch,
            ana,
            group: 1,
            active: true,
            log_read: epoch,
        }
    }

    fn path() -> MemberPath {
        MemberPath {
            volume: VolumeId {
                slot: 0,
                generation: 1,
            },
            nsid: 1,
            state: state(AnaState::OPTIMIZED, 1),
            anatt_at: None,
            anatt_expired: false,
        }
    }

    const T1: Time = Time::from_nanos(100);
    const T2: Time = Time::from_nanos(200);

    /// B4.1
    #[test]
    fn anatt_starts_once_and_is_cancelled_by_an_accessible_state() {
        let mut p = path();
        assert_eq!(
            p.apply(state(AnaState::INACCESSIBLE, 2), T1),
            AnaState::OPTIMIZED
        );
        assert_eq!(p.anatt_at, Some(T1));
        p.apply(state(AnaState::CHANGE, 3), T2);
        assert_eq!(p.anatt_at, Some(T1), "not restarted");
        p.apply(state(AnaState::NON_OPTIMIZED, 4), T2);
        assert_eq!(p.anatt_at, None);
        p.apply(state(AnaState::CHANGE, 5), T2);
        assert_eq!(p.anatt_at, Some(T2));
    }

    /// B4.1, B4.3: once expired it stays so until the path is accessible again.
    #[test]
    fn an_expired_anatt_is_not_restarted_by_further_reports() {
        let mut p = path();
        p.apply(state(AnaState::INACCESSIBLE, 2), T1);
        p.anatt_at = None;
        p.anatt_expired = true;
        p.apply(state(AnaState::INACCESSIBLE, 3), T2);
        assert_eq!((p.anatt_at, p.anatt_expired), (None, true));
        p.apply(state(AnaState::OPTIMIZED, 4), T2);
        assert!(!p.anatt_expired);
    }

    /// B4.4
    #[test]
    fn persistent_loss_runs_no_timer() {
        let mut p = path();
        p.apply(state(AnaState::INACCESSIBLE, 2), T1);
        p.apply(state(AnaState::PERSISTENT_LOSS, 3), T2);
        assert_eq!(p.anatt_at, None);
    }
}
