//! Control: the service that owns the controllers of all groups and the truth about their paths.
//!
//! It reacts to four things: requests, what the controllers report, what the I/O reactors report, and
//! time. Whatever changes a path's state ends in a message with a new epoch to every I/O reactor; control
//! itself never touches an I/O.

mod attach;
mod discovery;
mod discovery_log;
mod discovery_service;
mod journal;
mod member;
mod queries;
mod requests;
mod retry;
mod slots;
mod volumes;

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::Duration;

use pollux_nvme_tcp::host::{Completed, ControllerError, ControllerEvent, Stage};
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_reactor::{Context, Outbox, Progress, Sender, Service, Time};

use self::discovery::{AttachResult, Discovery};
use self::member::{Lifecycle, Member};
use self::queries::Query;
use self::requests::Waiter;
use self::slots::Slots;
use self::volumes::Volumes;
use crate::error::HostError;
use crate::ids::{ControllerId, VolumeId};
use crate::messages::{ControlMessage, FromIo, IoMessage, ToIo};
use crate::path_state::PathState;
use crate::request::Reply;
use crate::status::PathEventKind;
use pollux_nvme_tcp::host::HostIdentity;

/// The control service; `M` is what the applications on the I/O reactors take.
pub(crate) struct Control<M: Send + 'static> {
    identity: HostIdentity,
    reactors: Vec<Outbox<IoMessage<M>>>,
    members: Vec<Member>,
    slots: Slots,
    volumes: Volumes,
    /// Grows with every path state that is sent out.
    epoch: u64,
    /// A volume has gone, and a namespace that was left out because of it may be one now.
    look_at_left_out: bool,
    queries: Vec<Query>,
    query_next: u64,
    shutdown: Vec<Reply<()>>,
    /// Requests that are answered when controllers have come to where they should be.
    waiters: Vec<Waiter>,
    /// Requests that are answered when a volume appears, and when they have failed.
    awaited: Vec<(String, Time, Reply<()>)>,
    /// Admin commands of requests, by their number.
    admin: BTreeMap<u64, (ControllerId, Reply<Completed>)>,
    admin_next: u64,
    discoveries: Vec<Discovery>,
    /// How the attaches of the discoveries have ended.
    attach_results: (mpsc::Sender<AttachResult>, mpsc::Receiver<AttachResult>),
    /// Nothing is due before this time.
    due: Time,
}

impl<M: Send + 'static> Control<M> {
    pub fn new(identity: HostIdentity, reactors: Vec<Sender<IoMessage<M>>>) -> Self {
        Self {
            identity,
            reactors: reactors.into_iter().map(Outbox::new).collect(),
            members: Vec::new(),
            slots: Slots::default(),
            volumes: Volumes::default(),
            epoch: 0,
            look_at_left_out: false,
            queries: Vec::new(),
            query_next: 0,
            shutdown: Vec::new(),
            waiters: Vec::new(),
            awaited: Vec::new(),
            admin: BTreeMap::new(),
            admin_next: 0,
            discoveries: Vec::new(),
            attach_results: mpsc::channel(),
            due: Time::ZERO,
        }
    }

    /// Sends a message, made for each, to every I/O reactor.
    fn broadcast(&mut self, mut message: impl FnMut() -> ToIo) {
        for reactor in &mut self.reactors {
            reactor.post(IoMessage::control(message()));
        }
    }

    fn member_index(&self, id: ControllerId) -> Option<usize> {
        self.members.iter().position(|m| m.id == id)
    }

    /// The member, if this is its present connection.
    fn incarnation(&self, id: ControllerId, incarnation: u32) -> Option<usize> {
        let is_it = |m: &Member| m.id == id && m.incarnation == incarnation;
        self.members.iter().position(is_it)
    }

    fn next_epoch(&mut self) -> u64 {
        self.epoch += 1;
        self.epoch
    }

    fn record(&mut self, now: Time, index: usize, volume: VolumeId, kind: PathEventKind) {
        let Some(member) = self.members.get(index) else {
            return;
        };
        if let Some(volume) = self.volumes.get_mut(volume) {
            journal::path_event(member, &volume.info.name, &kind);
            volume.record(now, member.id, &member.transport, kind);
        }
    }

    fn record_all(&mut self, now: Time, index: usize, kind: &PathEventKind) {
        journal::controller_event(self.members.get(index), kind);
        let volumes: Vec<_> = self
            .members
            .get(index)
            .map(|m| m.paths.iter().map(|p| p.volume).collect())
            .unwrap_or_default();
        for volume in volumes {
            self.record(now, index, volume, kind.clone());
        }
    }

    /// Takes the controller's last ANA log over into its paths and tells every I/O reactor.
    ///
    /// A state is sent even where it has not changed: it is the answer that a reactor waits for which has
    /// stopped using the path because of an ANA status (rule B3.4).
    fn apply_ana(&mut self, index: usize, now: Time) {
        let Some(member) = self.members.get(index) else {
            return;
        };
        let Some(controller) = &member.controller else {
            return;
        };
        let anatt_at = now + controller.anatt();
        let log = controller.ana();
        let log_read = controller.ana_reads();
        let states: Vec<_> = member
            .paths
            .iter()
            .map(|path| {
                let (group, ana) = match log {
                    // Without ANA reporting every active namespace is optimized (rule B2.2).
                    None => (0, AnaState::OPTIMIZED),
                    // A namespace that the log leaves out is reached by no group: not accessible.
                    Some(log) => log
                        .of_namespace(path.nsid)
                        .unwrap_or((path.state.group, AnaState::INACCESSIBLE)),
                };
                (path.volume, group, ana)
            })
            .collect();
        let id = member.id;
        for (volume, group, ana) in states {
            let epoch = self.next_epoch();
            let Some(path) = self.members.get_mut(index).and_then(|m| m.path_mut(volume)) else {
                continue;
            };
            let state = PathState {
                epoch,
                ana,
                group,
                active: true,
                log_read,
            };
            let before = path.apply(state, anatt_at);
            self.broadcast(|| ToIo::SetPath {
                volume,
                controller: id,
                state,
            });
            if before != ana {
                let kind = PathEventKind::Ana {
                    from: before,
                    to: ana,
                    epoch,
                };
                self.record(now, index, volume, kind);
            }
        }
    }

    /// A controller is lost: its I/O goes elsewhere, it is connected again (rule B8). An attach that was
    /// under way has failed.
    fn lose(&mut self, index: usize, error: &ControllerError, now: Time) {
        let Some(member) = self.members.get(index) else {
            return;
        };
        let error = HostError::Connect {
            transport: member.transport.to_string(),
            error: *error,
        };
        self.lose_by(index, error, now);
    }

    /// As [`lose`](Self::lose), for any reason.
    fn lose_by(&mut self, index: usize, error: HostError, now: Time) {
        let Some(member) = self.members.get_mut(index) else {
            return;
        };
        if matches!(
            member.lifecycle,
            Lifecycle::Waiting(_) | Lifecycle::Failed | Lifecycle::Disabled | Lifecycle::Stopping
        ) {
            return;
        }
        let id = member.id;
        let text = match &error {
            // The address stands beside it.
            HostError::Connect { error, .. } => error.to_string(),
            error => error.to_string(),
        };
        member.last_error = Some(text.clone());
        if member.attach.is_some() {
            return self.fail_attach(index, error);
        }
        member.controller = None;
        member.queues_ready = 0;
        self.cancel_admin(id);
        let Some(member) = self.members.get_mut(index) else {
            return;
        };
        // The first try follows at once, as does one at each other address; further ones after the delay.
        let first = member.lost_at.is_none();
        member.lost_at.get_or_insert(now);
        let at_once = member.next_address() || first;
        let delay = member.options.recovery.reconnect_delay;
        let recovering = at_once || !delay.is_zero();
        member.lifecycle = match (recovering, at_once) {
            (false, _) => Lifecycle::Failed,
            (true, true) => Lifecycle::Waiting(now),
            (true, false) => Lifecycle::Waiting(now + delay + spread(id, delay)),
        };
        member.stop_anatt();
        self.broadcast(|| ToIo::Disconnect {
            controller: id,
            recovering,
        });
        if first {
            let kind = match error {
                HostError::Connect {
                    error: ControllerError::OnRequest(what),
                    ..
                } => PathEventKind::Closed(what),
                _ => PathEventKind::Lost(text),
            };
            self.record_all(now, index, &kind);
        } else {
            journal::still_lost(self.members.get_mut(index), &text, now);
            self.settle(id, Err(error));
        }
    }

    fn on_event(&mut self, index: usize, event: ControllerEvent<u64>, now: Time) {
        match event {
            ControllerEvent::Ready => self.on_controller_ready(index, now),
            ControllerEvent::AnaNotice => {
                self.record_all(now, index, &PathEventKind::AnaNotice);
            }
            ControllerEvent::Ana => self.apply_ana(index, now),
            ControllerEvent::Namespaces => {
                self.update_paths(index, now);
                self.apply_ana(index, now);
            }
            ControllerEvent::Ended(error) => match self.members.get(index).map(|m| m.lifecycle) {
                Some(Lifecycle::Stopping) => self.remove_member(index),
                Some(_) => self.lose(index, &error, now),
                None => {}
            },
            ControllerEvent::Admin(completed) => self.on_admin(completed),
            ControllerEvent::Overdue(commands) => {
                let reactor = None;
                let kind = PathEventKind::CommandTimeout { reactor, commands };
                self.record_all(now, index, &kind);
            }
            // What could not be aborted is ended with its connection (rule B9.1).
            ControllerEvent::AbortFailed(status) => {
                let step = "Abort";
                self.lose(index, &ControllerError::Refused { step, status }, now);
            }
            ControllerEvent::DiscoveryLog => {}
        }
    }

    fn on_io(&mut self, reactor: usize, message: FromIo, now: Time) {
        match message {
            FromIo::QueueReady {
                controller,
                incarnation,
            } => {
                let needed = self.reactors.len();
                let Some(index) = self.member_index(controller) else {
                    return;
                };
                let Some(member) = self.members.get_mut(index) else {
                    return;
                };
                if member.incarnation == incarnation && member.lifecycle == Lifecycle::Queues {
                    member.queues_ready += 1;
                    if member.queues_ready == needed {
                        self.go_live(index, now);
                    }
                }
            }
            FromIo::QueueLost {
                controller,
                incarnation,
                error,
            } => {
                if let Some(index) = self.incarnation(controller, incarnation) {
                    self.lose(index, &error.into(), now);
                }
            }
            FromIo::AnaStatus {
                volume,
                controller,
                at,
            } => {
                if let Some(index) = self.member_index(controller) {
                    let member = self.members.get_mut(index);
                    let read = member.and_then(|m| Some(m.controller.as_mut()?.read_ana()));
                    if let Some((read, reactor)) = read.zip(self.reactors.get_mut(reactor)) {
                        reactor.post(IoMessage::control(ToIo::AwaitLog {
                            volume,
                            controller,
                            read,
                        }));
                    }
                    let kind = PathEventKind::AnaStatus { reactor, at };
                    self.record(now, index, volume, kind);
                }
            }
            FromIo::Applied {
                volume,
                controller,
                epoch,
                at,
            } => {
                if let Some(index) = self.member_index(controller) {
                    let kind = PathEventKind::Applied { epoch, reactor, at };
                    self.record(now, index, volume, kind);
                }
            }
            FromIo::Stalled {
                volume,
                waiting,
                since,
            } => self.on_stalled(volume, reactor, waiting, now - since),
            FromIo::Resumed { volume, since } => self.on_resumed(volume, reactor, now - since),
            FromIo::Fenced {
                volume,
                controller,
                writes,
                time,
            } => {
                if let Some(index) = self.member_index(controller) {
                    let kind = PathEventKind::Fenced {
                        reactor,
                        writes,
                        time,
                    };
                    self.record(now, index, volume, kind);
                }
            }
            FromIo::FenceOver { volume, controller } => {
                if let Some(index) = self.member_index(controller) {
                    self.record(now, index, volume, PathEventKind::FenceOver { reactor });
                }
            }
            FromIo::Traffic {
                controller,
                incarnation,
            } => {
                let index = self.incarnation(controller, incarnation);
                let member = index.and_then(|index| self.members.get_mut(index));
                if let Some(controller) = member.and_then(|m| m.controller.as_mut()) {
                    controller.note_traffic(now);
                }
            }
            FromIo::CommandTimeout {
                controller,
                incarnation,
                commands,
            } => {
                if let Some(index) = self.incarnation(controller, incarnation) {
                    let reactor = Some(reactor);
                    let kind = PathEventKind::CommandTimeout { reactor, commands };
                    self.record_all(now, index, &kind);
                }
            }
            FromIo::Abort {
                controller,
                incarnation,
                queue_id,
                commands,
                overdue,
            } => {
                let member = self
                    .incarnation(controller, incarnation)
                    .and_then(|index| self.members.get_mut(index));
                if let Some(controller) = member.and_then(|m| m.controller.as_mut()) {
                    for cid in commands {
                        controller.abort(queue_id, cid, overdue);
                    }
                }
            }
            FromIo::Told { request, answer } => self.on_told(request, reactor, answer, now),
        }
    }

    /// I/O of a volume waits on a reactor, and has no path there.
    fn on_stalled(&mut self, id: VolumeId, reactor: usize, waiting: usize, length: Duration) {
        let Some(volume) = self.volumes.get_mut(id) else {
            return;
        };
        let is_first = volume.stalled.is_empty();
        volume.stalled.push(reactor);
        if is_first {
            let name = volume.info.name.clone();
            journal::stalled(&name, id, &self.members, waiting, length);
        }
    }

    fn on_resumed(&mut self, id: VolumeId, reactor: usize, length: Duration) {
        let Some(volume) = self.volumes.get_mut(id) else {
            return;
        };
        volume.stalled.retain(|&stalled| stalled != reactor);
        if volume.stalled.is_empty() {
            journal::resumed(&volume.info.name, length);
        }
    }

    /// Everything that is due by time: reconnects, ANATT, timeouts.
    fn do_what_is_due(&mut self, index: usize, cx: &mut Context<'_>) {
        let now = cx.now();
        let Some(member) = self.members.get_mut(index) else {
            return;
        };
        let id = member.id;
        if member.loss_deadline().is_some_and(|at| now >= at) {
            journal::given_up(member);
            member.lost_at = None;
            return self.stop_member(index, now);
        }
        if member.exclusion_deadline().is_some_and(|at| now >= at) {
            member.excluded = true;
            self.broadcast(|| ToIo::Exclude { controller: id });
        }
        let Some(member) = self.members.get_mut(index) else {
            return;
        };
        let mut expired = Vec::new();
        for path in &mut member.paths {
            if path.anatt_at.is_some_and(|at| now >= at) {
                path.anatt_at = None;
                path.anatt_expired = true;
                expired.push((path.volume, path.state.epoch));
            }
        }
        match member.lifecycle {
            Lifecycle::Waiting(at) if now >= at => self.connect(index, cx),
            Lifecycle::Connecting | Lifecycle::Queues if now >= member.attach_deadline => {
                let name = member.transport.to_string();
                match member.attach {
                    Some(_) => self.fail_attach(index, HostError::Timeout(name)),
                    None => {
                        let error = ControllerError::Timeout("connection");
                        self.lose(index, &error, now);
                    }
                }
            }
            _ => {}
        }
        for (volume, epoch) in expired {
            self.broadcast(|| ToIo::AnattExpired {
                volume,
                controller: id,
                epoch,
            });
            self.record(now, index, volume, PathEventKind::AnattExpired);
        }
    }

    /// When something is due next.
    fn next_due(&self) -> Time {
        let members = self.members.iter().filter_map(Member::deadline);
        let awaited = self.awaited.iter().map(|(_, until, _)| *until);
        let deadline = members
            .chain(self.discovery_deadline())
            .chain(awaited)
            .min();
        deadline.unwrap_or(Time::MAX)
    }
}

/// What a controller waits longer than the reconnect delay, so that those which were lost together do not come back
/// all at once to a target that has just started: up to an eighth, by its place in the table.
fn spread(id: ControllerId, delay: Duration) -> Duration {
    const STEPS: u32 = 64;
    delay * (u32::from(id.slot) % STEPS) / (STEPS * 8)
}

impl<M: Send + 'static> Service for Control<M> {
    type Message = ControlMessage;

    fn on_message(&mut self, message: ControlMessage, cx: &mut Context<'_>) {
        match message {
            ControlMessage::Io { reactor, message } => self.on_io(reactor, message, cx.now()),
            ControlMessage::Request(request) => self.on_request(request, cx),
        }
        self.due = Time::ZERO;
    }

    fn deadline(&self) -> Option<Time> {
        (self.due < Time::MAX).then_some(self.due)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Progress {
        let now = cx.now();
        let mut progress = Progress::Idle;
        let mut index = 0;
        while let Some(member) = self.members.get_mut(index) {
            let id = member.id;
            if let Some(controller) = &mut member.controller {
                progress = progress.or(controller.poll(now));
            }
            while let Some(event) = self
                .members
                .get_mut(index)
                .filter(|m| m.id == id)
                .and_then(|m| m.controller.as_mut())
                .and_then(|c| c.next_event())
            {
                self.on_event(index, event, now);
                progress = Progress::Busy;
            }
            if self.members.get(index).is_some_and(|m| m.id == id) {
                index += 1;
            }
        }
        if std::mem::take(&mut self.look_at_left_out) {
            self.look_at_left_out(now);
            progress = Progress::Busy;
        }
        if !self.discoveries.is_empty() {
            progress = progress.or(self.poll_discoveries(cx));
        }
        let is_due = now >= self.due;
        if is_due {
            for index in (0..self.members.len()).rev() {
                self.do_what_is_due(index, cx);
            }
        }
        if is_due || progress == Progress::Busy {
            self.due = self.next_due();
        }
        if !self.awaited.is_empty() {
            self.answer_awaited(now);
        }
        self.finish_shutdown();
        for reactor in &mut self.reactors {
            reactor.flush();
        }
        progress
    }

    fn on_stop(&mut self, _cx: &mut Context<'_>) {
        for member in &mut self.members {
            if let Some(controller) = &mut member.controller
                && controller.stage() != Stage::Ended
            {
                controller.close();
            }
        }
        self.end_discoveries();
        for reply in self.shutdown.drain(..) {
            reply(Err(HostError::Cancelled("the host is stopping")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// B8.3
    #[test]
    fn controllers_lost_together_come_back_one_after_the_other() {
        let delay = Duration::from_secs(1);
        let of = |slot| {
            let generation = 1;
            spread(ControllerId { slot, generation }, delay)
        };
        assert_eq!(of(0), Duration::ZERO, "one alone waits no longer");
        assert!((1..64).all(|slot| of(slot) > of(slot - 1)));
        assert!(of(63) < delay / 8);
    }
}
