//! Attaching controllers, bringing them up again, and detaching them (rules B1, B8, B11).

use std::collections::VecDeque;
use std::time::Duration;

use pollux_nvme_tcp::host::{ConnectOptions, Controller, ControllerOptions, Namespace};
use pollux_nvme_tcp::spec::identify::ctrl::CMIC_MULTI_CONTROLLER;
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_reactor::{Context, Time};

use super::member::{Lifecycle, Member, MemberPath};
use super::retry::Retries;
use super::{Control, journal};
use crate::error::HostError;
use crate::ids::{ControllerId, VolumeId};
use crate::messages::ToIo;
use crate::options::Mode;
use crate::path_state::PathState;
use crate::request::{AttachRequest, Attached, AttachedVolume, Reply};
use crate::status::PathEventKind;
use crate::transport_id::TransportId;

/// Time for TCP to connect again to a controller that was lost: enough for one segment to be sent once more. A path that
/// swallowed the first ones is tried anew after that, instead of waiting for retransmissions further and further apart.
const RECONNECT_TCP_MAX: Duration = Duration::from_secs(3);

impl<M: Send + 'static> Control<M> {
    /// Starts an attach; its reply follows when the path is usable or has failed (rule B1.4).
    pub(super) fn attach(
        &mut self,
        mut request: AttachRequest,
        reply: Reply<Attached>,
        cx: &mut Context<'_>,
    ) {
        if request.options.adopt_policy
            && let Some(first) = self.members.iter().find(|m| m.group == request.name)
        {
            request.options.policy = first.options.policy;
        }
        if let Err(error) = self.check_attach(&request) {
            return reply(Err(error));
        }
        if let Some(index) = self.failover_member(&request) {
            let volumes = self.volumes_of(index);
            if let Some(member) = self.members.get_mut(index) {
                member.alternates.push_back(request.transport);
            }
            return reply(Ok(Attached { volumes }));
        }
        let Some((slot, generation)) = self.slots.take() else {
            return reply(Err(HostError::Invalid("too many controllers")));
        };
        let mut host = self.identity.clone();
        if let Some(nqn) = &request.transport.hostnqn {
            host.nqn = nqn.clone();
        }
        let options = request.options;
        let subnqn = request.transport.subnqn.clone();
        let connect = ConnectOptions {
            keep_alive_ms: options.keep_alive_ms,
            digests: options.digests,
            require_digests: options.require_digests,
            disable_sq_flow_control: !options.sq_flow_control,
            timeout: options.connect_timeout,
            tcp_timeout: options.tcp_connect_timeout,
            local: options.local,
            ..ConnectOptions::admin(request.transport.addr, subnqn, host)
        };
        self.members.push(Member {
            id: ControllerId { slot, generation },
            group: request.name,
            transport: request.transport.into(),
            alternates: VecDeque::new(),
            addresses_tried: 0,
            controller_options: ControllerOptions {
                connect,
                io_queues: u16::try_from(self.reactors.len()).unwrap_or(u16::MAX),
                io_queue_size: options.queue_size,
                command_timeout: options.admin_timeout,
            },
            attach_deadline: cx.now() + options.connect_timeout,
            options,
            lifecycle: Lifecycle::Connecting,
            controller: None,
            incarnation: 0,
            queues_ready: 0,
            attach: Some(reply),
            lost_at: None,
            reconnect: Retries::default(),
            still_lost_at: Time::ZERO,
            excluded: false,
            last_error: None,
            paths: Vec::new(),
            left_out: Vec::new(),
            cntlid: 0,
        });
        self.connect(self.members.len() - 1, cx);
    }

    /// What can be said before anything is sent (rule B1.2).
    fn check_attach(&self, request: &AttachRequest) -> Result<(), HostError> {
        request.options.recovery.check()?;
        let keep_alive_ms = request.options.keep_alive_ms;
        request.options.fencing.check(keep_alive_ms)?;
        if request.name.is_empty() {
            return Err(HostError::Invalid("the controller name is empty"));
        }
        if !(2..=1024).contains(&request.options.queue_size) {
            return Err(HostError::Invalid("queue size: 2 to 1024 entries"));
        }
        let Some(first) = self.members.iter().find(|m| m.group == request.name) else {
            return Ok(());
        };
        let mut group = self.members.iter().filter(|m| m.group == request.name);
        if request.options.mode == Mode::Disable {
            return Err(HostError::Exists(request.name.clone()));
        }
        let known = |t: &TransportId| t.addr == request.transport.addr;
        if group.any(|m| known(&m.transport) || m.alternates.iter().any(known)) {
            return Err(HostError::Exists(request.transport.to_string()));
        }
        let mismatch = |text: String| Err(HostError::Mismatch(text));
        let count = self
            .members
            .iter()
            .filter(|m| m.group == request.name)
            .count();
        match request.options.mode {
            Mode::Failover if count > 1 => {
                return mismatch(format!(
                    "'{}' has {count} paths: failover is for a name with one",
                    request.name
                ));
            }
            Mode::Multipath if !first.alternates.is_empty() => {
                return mismatch(format!(
                    "'{}' has failover addresses: no further path can be added",
                    request.name
                ));
            }
            _ => {}
        }
        if first.transport.subnqn != request.transport.subnqn {
            return mismatch(format!(
                "subsystem NQN '{}' differs from '{}' of the controllers under the name '{}'",
                request.transport.subnqn.as_str(),
                first.transport.subnqn.as_str(),
                request.name
            ));
        }
        if first.transport.hostnqn != request.transport.hostnqn {
            return mismatch(format!(
                "host NQN differs from that of the controllers under the name '{}'",
                request.name
            ));
        }
        if first.options.policy != request.options.policy {
            return mismatch(format!(
                "multipath policy '{}' differs from '{}' of the controllers under the name '{}'",
                request.options.policy, first.options.policy, request.name
            ));
        }
        Ok(())
    }

    /// The member that a failover address is for.
    fn failover_member(&self, request: &AttachRequest) -> Option<usize> {
        if request.options.mode != Mode::Failover {
            return None;
        }
        self.members.iter().position(|m| m.group == request.name)
    }

    fn volumes_of(&self, index: usize) -> Vec<AttachedVolume> {
        let paths = self.members.get(index).map(|m| m.paths.as_slice());
        paths
            .unwrap_or_default()
            .iter()
            .filter_map(|path| self.volumes.get(path.volume))
            .map(|v| AttachedVolume {
                volume: v.info.id,
                name: v.info.name.clone(),
                blocks: v.info.blocks,
                block_size: v.info.block_size(),
            })
            .collect()
    }

    /// Connects the admin queue: for the first time or again.
    pub(super) fn connect(&mut self, index: usize, cx: &mut Context<'_>) {
        let now = cx.now();
        let Some(member) = self.members.get_mut(index) else {
            return;
        };
        member.lifecycle = Lifecycle::Connecting;
        member.incarnation += 1;
        member.queues_ready = 0;
        let options = &member.options;
        let (mut limit, mut tcp_limit) = (options.connect_timeout, options.tcp_connect_timeout);
        if member.attach.is_none() {
            // A try to connect again that hangs must not keep a path away that has healed meanwhile.
            if options.keep_alive_ms > 0 {
                limit = limit.min(Duration::from_millis(options.keep_alive_ms.into()));
            }
            tcp_limit = Some(tcp_limit.map_or(RECONNECT_TCP_MAX, |t| t.min(RECONNECT_TCP_MAX)));
        }
        member.attach_deadline = now + limit;
        member.controller_options.connect.tcp_timeout = tcp_limit;
        member.controller_options.connect.remote = member.transport.addr;
        match Controller::connect(cx.net(), now, member.controller_options.clone()) {
            Ok(controller) => member.controller = Some(controller),
            Err(e) => {
                let error = HostError::Socket(member.transport.to_string(), e.kind());
                self.lose_by(index, error, now);
            }
        }
    }

    /// Admin queue up, everything read: connect an I/O queue pair on every I/O reactor.
    pub(super) fn on_controller_ready(&mut self, index: usize, now: Time) {
        let needed = self.reactors.len();
        if let Err(error) = self.check_controller(index) {
            // What is at that address now is not what was attached: wait for it to come back.
            return self.lose_by(index, error, now);
        }
        let Some(member) = self.members.get_mut(index) else {
            return;
        };
        let Some(controller) = &member.controller else {
            return;
        };
        member.lifecycle = Lifecycle::Queues;
        member.cntlid = controller.id();
        let id = member.id;
        let incarnation = member.incarnation;
        let timeout = member.options.io_timeout;
        let silence = member.options.silence_timeout;
        let keep_alive = Duration::from_millis(member.options.keep_alive_ms.into());
        let traffic = (controller.counts_traffic() && !keep_alive.is_zero())
            // With this and the half of KATO after which Keep Alive is sent there is a quarter to spare.
            .then_some(keep_alive / 4);
        let cqt = controller
            .identify()
            .map_or(0, |identify| identify.cqt.get());
        let (options, traffic_based) = (&member.options, controller.counts_traffic());
        let fence = options
            .fencing
            .time(options.keep_alive_ms, traffic_based, cqt)
            .ok()
            .flatten();
        let retry_delays = controller.identify().map_or([0; 3], |identify| {
            [
                identify.crdt1.get(),
                identify.crdt2.get(),
                identify.crdt3.get(),
            ]
        });
        let options: Vec<_> = (1..=needed)
            .map(|queue| Box::new(controller.io_options(u16::try_from(queue).unwrap_or(u16::MAX))))
            .collect();
        for (reactor, options) in self.reactors.iter_mut().zip(options) {
            reactor.post(crate::messages::IoMessage::control(ToIo::Connect {
                controller: id,
                incarnation,
                options,
                retry_delays,
                timeout,
                traffic,
                silence,
                fence,
            }));
        }
    }

    fn check_controller(&self, index: usize) -> Result<(), HostError> {
        let Some((member, controller)) = self
            .members
            .get(index)
            .and_then(|m| Some((m, m.controller.as_ref()?)))
        else {
            return Err(HostError::Cancelled("the controller went away"));
        };
        let needed = self.reactors.len();
        if usize::from(controller.io_queues()) < needed {
            return Err(HostError::TooFewQueues {
                transport: member.transport.to_string(),
                granted: controller.io_queues(),
                needed,
            });
        }
        let cqt = controller
            .identify()
            .map_or(0, |identify| identify.cqt.get());
        let options = &member.options;
        options.fencing.time(options.keep_alive_ms, false, cqt)?;
        let mut group = self
            .members
            .iter()
            .filter(|m| m.group == member.group && m.id != member.id);
        let twin = group
            .clone()
            .find(|m| m.is_connected() && m.cntlid == controller.id());
        if let Some(twin) = twin {
            // Two controllers of one subsystem never share an identifier: one of them is of another, copied one.
            let text = format!(
                "{}: controller identifier {} is in use by the path {} of the same subsystem",
                member.transport,
                controller.id(),
                twin.transport.addr
            );
            if !self.is_discovered(&member.transport) {
                return Err(HostError::Mismatch(text));
            }
            // Nobody has named by hand what a discovery service lists: it is taken, and said.
            log::warn!(target: crate::LOG_FLAG, "{text}");
        }
        let others = group.next().is_some();
        let shared = controller
            .identify()
            .is_some_and(|id| id.cmic & CMIC_MULTI_CONTROLLER != 0);
        if others && !shared {
            return Err(HostError::Mismatch(format!(
                "{}: the subsystem allows one controller only (CMIC)",
                member.transport
            )));
        }
        Ok(())
    }

    /// All queue pairs are connected: the paths may carry I/O (rule B8.2).
    pub(super) fn go_live(&mut self, index: usize, now: Time) {
        self.update_paths(index, now);
        self.apply_ana(index, now);
        let Some(member) = self.members.get_mut(index) else {
            return;
        };
        let id = member.id;
        member.lifecycle = Lifecycle::Live;
        let again = member.lost_at.take().is_some();
        member.reconnect.succeeded();
        member.still_lost_at = Time::ZERO;
        member.excluded = false;
        let reply = member.attach.take();
        member.addresses_tried = 0;
        self.broadcast(|| ToIo::Enable { controller: id });
        if again {
            self.record_all(now, index, &PathEventKind::Reconnected);
        }
        if let Some(reply) = reply {
            journal::attached(self.members.get(index));
            let volumes = self.volumes_of(index);
            reply(Ok(Attached { volumes }));
        }
        self.settle(id, Ok(()));
    }

    /// Makes the controller's paths match its active namespaces (rules B1.3, B10).
    pub(super) fn update_paths(&mut self, index: usize, now: Time) {
        let Some((member, controller)) = self
            .members
            .get(index)
            .and_then(|m| Some((m, m.controller.as_ref()?)))
        else {
            return;
        };
        let id = member.id;
        let group = member.group.clone();
        let policy = member.options.policy;
        let namespaces: Vec<Namespace> = controller.namespaces().copied().collect();
        let mut left_out: Vec<_> = controller
            .left_out()
            .map(|(nsid, why)| (nsid, why.to_owned()))
            .collect();
        let gone: Vec<_> = member
            .paths
            .iter()
            .filter(|p| !namespaces.iter().any(|n| n.nsid == p.nsid))
            .map(|p| p.volume)
            .collect();
        for volume in gone {
            if let Some((member, volume)) = self.members.get(index).zip(self.volumes.get(volume)) {
                journal::not_listed(member, &volume.info.name);
            }
            self.remove_path(index, volume, now);
        }
        for namespace in namespaces {
            self.end_replaced(index, &group, &namespace, now);
            let (volume, fits) = match self.volumes.by_nsid(&group, namespace.nsid) {
                Some(volume) => (volume.info.id, volume.accepts(&namespace)),
                None => {
                    let Some(volume) = self.volumes.add(&group, &namespace, policy) else {
                        left_out.push((namespace.nsid, "too many volumes".into()));
                        continue;
                    };
                    let info = volume.info.clone();
                    let id = info.id;
                    self.broadcast(|| ToIo::AddVolume {
                        info: info.clone(),
                        policy,
                    });
                    (id, Ok(()))
                }
            };
            let known = self
                .members
                .get_mut(index)
                .is_some_and(|m| m.path_mut(volume).is_some());
            match fits {
                Ok(()) if known => {}
                Ok(()) => self.add_path(index, id, volume, &namespace, now),
                Err(why) => {
                    left_out.push((namespace.nsid, why));
                    if known {
                        self.remove_path(index, volume, now);
                    }
                }
            }
            self.resize_volume(volume);
        }
        if let Some(member) = self.members.get_mut(index) {
            journal::left_out(member, &left_out);
            member.left_out = left_out;
        }
    }

    /// Other identifiers behind an NSID end the old path loudly, and with the last path the old volume, so that the
    /// namespace can be a new one (rule B10).
    fn end_replaced(&mut self, index: usize, group: &str, namespace: &Namespace, now: Time) {
        let Some(member) = self.members.get(index) else {
            return;
        };
        let Some(volume) = self.volumes.by_nsid(group, namespace.nsid) else {
            return;
        };
        let id = volume.info.id;
        if let Err(why) = volume.accepts(namespace)
            && member.paths.iter().any(|p| p.volume == id)
        {
            journal::replaced(member, &volume.info.name, &why);
            self.remove_path(index, id, now);
        }
    }

    /// Namespaces that did not fit a volume may be volumes of their own now that it is gone.
    pub(super) fn look_at_left_out(&mut self, now: Time) {
        let ids: Vec<_> = self
            .members
            .iter()
            .filter(|m| m.lifecycle == Lifecycle::Live && !m.left_out.is_empty())
            .map(|m| m.id)
            .collect();
        for id in ids {
            if let Some(index) = self.member_index(id) {
                self.update_paths(index, now);
                self.apply_ana(index, now);
            }
        }
    }

    fn add_path(
        &mut self,
        index: usize,
        controller: ControllerId,
        volume: VolumeId,
        namespace: &Namespace,
        now: Time,
    ) {
        let epoch = self.next_epoch();
        // Not accessible until the ANA state is applied, which follows at once.
        let state = PathState {
            epoch,
            ana: AnaState::INACCESSIBLE,
            group: namespace.ana_group,
            active: true,
            log_read: 0,
        };
        if let Some(member) = self.members.get_mut(index) {
            member.paths.push(MemberPath {
                volume,
                nsid: namespace.nsid,
                state,
                anatt_at: None,
                anatt_expired: false,
            });
        }
        self.broadcast(|| ToIo::AddPath {
            volume,
            controller,
            state,
        });
        self.record(now, index, volume, PathEventKind::Added(state.ana));
    }

    /// The smallest capacity that any path reports holds (rule B1.3).
    fn resize_volume(&mut self, id: VolumeId) {
        let reported = |m: &Member| {
            let path = m.paths.iter().find(|p| p.volume == id)?;
            let mut namespaces = m.controller.as_ref()?.namespaces();
            namespaces.find(|n| n.nsid == path.nsid).map(|n| n.blocks)
        };
        let smallest = self.members.iter().filter_map(reported).min();
        let Some((blocks, volume)) = smallest.zip(self.volumes.get(id)) else {
            return;
        };
        if volume.info.blocks == blocks {
            return;
        }
        journal::resized(&volume.info, blocks);
        self.volumes.resize(id, blocks);
        self.broadcast(|| ToIo::ResizeVolume { volume: id, blocks });
    }

    /// Takes one path away; the volume goes with its last.
    fn remove_path(&mut self, index: usize, volume: VolumeId, now: Time) {
        self.record(now, index, volume, PathEventKind::Removed);
        let Some(member) = self.members.get_mut(index) else {
            return;
        };
        let controller = member.id;
        member.paths.retain(|p| p.volume != volume);
        let last = !self
            .members
            .iter()
            .any(|m| m.paths.iter().any(|p| p.volume == volume));
        if last {
            if let Some(volume) = self.volumes.get(volume) {
                journal::volume_removed(&volume.info.name);
            }
            self.look_at_left_out = true;
            self.volumes.remove(volume);
            self.broadcast(|| ToIo::RemoveVolume { volume });
        } else {
            self.broadcast(|| ToIo::RemovePath { volume, controller });
            self.resize_volume(volume);
        }
    }

    /// An attach has failed: the member goes, the reply says why, everything else is as it was.
    pub(super) fn fail_attach(&mut self, index: usize, error: HostError) {
        journal::not_attached(self.members.get(index), &error);
        if let Some(member) = self.members.get_mut(index) {
            if let Some(mut controller) = member.controller.take() {
                controller.close();
            }
            let reply = member.attach.take();
            self.remove_member(index);
            if let Some(reply) = reply {
                reply(Err(error));
            }
        }
    }

    /// Ends a controller for good: its paths go first, so that its I/O finds another one.
    pub(super) fn stop_member(&mut self, index: usize, now: Time) {
        let volumes: Vec<_> = self
            .members
            .get(index)
            .map(|m| m.paths.iter().map(|p| p.volume).collect())
            .unwrap_or_default();
        for volume in volumes {
            self.remove_path(index, volume, now);
        }
        journal::detached(self.members.get(index));
        let Some(member) = self.members.get_mut(index) else {
            return;
        };
        if let Some(reply) = member.attach.take() {
            reply(Err(HostError::Cancelled("the controller was detached")));
        }
        let Some(member) = self.members.get_mut(index) else {
            return;
        };
        member.lifecycle = Lifecycle::Stopping;
        let id = member.id;
        let gone = match &mut member.controller {
            Some(controller) => {
                controller.shut_down(now);
                false
            }
            None => true,
        };
        self.broadcast(|| ToIo::RemoveController { controller: id });
        if gone {
            self.remove_member(index);
        }
    }

    /// Forgets a controller whose paths are gone.
    pub(super) fn remove_member(&mut self, index: usize) {
        if index >= self.members.len() {
            return;
        }
        let member = self.members.remove(index);
        let id = member.id;
        self.broadcast(|| ToIo::RemoveController { controller: id });
        self.slots.give_back(id.slot);
        self.gone(id);
    }
}
