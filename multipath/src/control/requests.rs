//! What control is asked from outside.

use pollux_nvme_tcp::host::{Completed, ControllerError, FaultChange, Request};
use pollux_reactor::{Context, Time};

use super::Control;
use super::member::{Lifecycle, Member};
use super::queries::Then;
use crate::error::HostError;
use crate::ids::ControllerId;
use crate::messages::{Question, ToIo};
use crate::request::{ControllerChange, HostRequest, Reply};
use crate::status::{ControllerStatus, PathEventKind};
use crate::transport_id::TransportId;

/// A request that waits for controllers.
pub(super) struct Waiter {
    /// Those that are not there yet.
    missing: Vec<ControllerId>,
    until: Until,
    /// What the first that did not get there says.
    failure: Option<HostError>,
    reply: Reply<()>,
}

/// What a [`Waiter`] waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    Live,
    Gone,
}

impl<M: Send + 'static> Control<M> {
    pub(super) fn on_request(&mut self, request: HostRequest, cx: &mut Context<'_>) {
        let now = cx.now();
        match request {
            HostRequest::Attach(request, reply) => self.attach(*request, reply, cx),
            HostRequest::Detach {
                name,
                transport,
                reply,
            } => self.detach(&name, transport.map(|t| t.addr), reply, now),
            HostRequest::Change {
                name,
                cntlid,
                change,
                reply,
            } => match self.change(&name, cntlid, change, cx) {
                Ok(missing) => self.wait(missing, Until::Live, reply),
                Err(error) => reply(Err(error)),
            },
            HostRequest::SetPolicy {
                volume,
                policy,
                reply,
            } => {
                let id = match self.volumes.id_of(&volume) {
                    Ok(id) => id,
                    Err(error) => return reply(Err(error)),
                };
                if let Some(volume) = self.volumes.get_mut(id) {
                    volume.policy = policy;
                }
                self.broadcast(|| ToIo::SetPolicy { volume: id, policy });
                reply(Ok(()));
            }
            HostRequest::SetPreferredPath {
                volume,
                cntlid,
                reply,
            } => {
                let id = match self.volumes.id_of(&volume) {
                    Ok(id) => id,
                    Err(error) => return reply(Err(error)),
                };
                let member = self
                    .members
                    .iter()
                    .find(|m| m.cntlid == cntlid && m.paths.iter().any(|p| p.volume == id));
                let Some(controller) = member.map(|m| m.id) else {
                    return reply(Err(HostError::NotFound(format!(
                        "path: volume '{volume}' has none by controller {cntlid}"
                    ))));
                };
                self.broadcast(|| ToIo::SetPreferred {
                    volume: id,
                    controller: Some(controller),
                });
                reply(Ok(()));
            }
            HostRequest::SetRetryLimit(limit) => {
                self.broadcast(|| ToIo::SetRetryLimit { limit });
            }
            HostRequest::SetFailback(failback) => {
                self.broadcast(|| ToIo::SetFailback { failback });
            }
            HostRequest::Notifications(first, reply) => {
                reply(Ok(self.volumes.notifications(first).cloned().collect()));
            }
            HostRequest::Volumes(reply) => {
                self.ask(Question::Volumes(None), Then::Volumes(reply));
            }
            HostRequest::AwaitVolume {
                name,
                timeout,
                reply,
            } => self.awaited.push((name, now + timeout, reply)),
            HostRequest::ResetCounters {
                volumes,
                what,
                reply,
            } => {
                let wanted = |name: &String| volumes.is_empty() || volumes.contains(name);
                let ids = self.volumes.iter().filter(|v| wanted(&v.info.name));
                let ids = ids.map(|v| v.info.id).collect();
                self.ask(Question::Volumes(Some((ids, what))), Then::Volumes(reply));
            }
            HostRequest::Transport(reply) => self.ask(Question::Counters, Then::Counters(reply)),
            HostRequest::SetHistogram {
                volume,
                layout,
                reply,
            } => {
                let id = match self.volumes.id_of(&volume) {
                    Ok(id) => id,
                    Err(error) => return reply(Err(error)),
                };
                self.broadcast(|| ToIo::SetHistogram { volume: id, layout });
                reply(Ok(()));
            }
            HostRequest::Histogram { volume, reply } => match self.volumes.id_of(&volume) {
                Ok(id) => self.ask(Question::Histogram(id), Then::Histogram(reply)),
                Err(error) => reply(Err(error)),
            },
            HostRequest::Fault {
                name,
                admin,
                change,
                reply,
            } => reply(self.set_fault(&name, admin, change)),
            HostRequest::StartDiscovery(request, reply) => {
                self.start_discovery(*request, reply, now);
            }
            HostRequest::StopDiscovery { name, reply } => self.stop_discovery(&name, reply, now),
            HostRequest::Admin {
                name,
                command,
                reply,
            } => self.admin(&name, *command, reply),
            HostRequest::Discoveries(reply) => reply(Ok(self.discovery_status())),
            HostRequest::Controllers(reply) => reply(Ok(self
                .members
                .iter()
                .map(|m| ControllerStatus {
                    name: m.group.clone(),
                    controller: m.id,
                    cntlid: m.cntlid,
                    transport: TransportId::clone(&m.transport),
                    options: m.options.clone(),
                    alternates: m.alternates.iter().cloned().collect(),
                    state: m.state_name(),
                    last_error: m.last_error.clone(),
                    digests: m.controller.as_ref().map(|c| c.digests()),
                    bad_ana_logs: m.controller.as_ref().map_or(0, |c| c.bad_ana_logs()),
                    left_out: m.left_out.clone(),
                })
                .collect())),
            HostRequest::Shutdown(reply) => {
                self.end_discoveries();
                self.shutdown.push(reply);
                for index in (0..self.members.len()).rev() {
                    self.stop_member(index, now);
                }
            }
        }
    }

    /// Answers those who waited for a volume that is there now, or for too long.
    pub(super) fn answer_awaited(&mut self, now: Time) {
        let volumes = &self.volumes;
        let over = |name: &str, until| volumes.id_of(name).is_ok() || now >= until;
        for (name, _, reply) in self
            .awaited
            .extract_if(.., |(name, until, _)| over(name, *until))
        {
            reply(volumes.id_of(&name).map(|_| ()));
        }
    }

    /// Injects faults into commands to every controller of a name that is connected.
    fn set_fault(&mut self, name: &str, admin: bool, change: FaultChange) -> Result<(), HostError> {
        let mut ids = Vec::new();
        for member in self.members.iter_mut().filter(|m| m.group == name) {
            ids.push(member.id);
            if let Some(controller) = member.controller.as_mut().filter(|_| admin) {
                controller.inject(change);
            }
        }
        if ids.is_empty() {
            return Err(HostError::NotFound(format!("controller: '{name}'")));
        }
        for controller in ids.into_iter().filter(|_| !admin) {
            self.broadcast(|| ToIo::Fault { controller, change });
        }
        Ok(())
    }

    pub(super) fn finish_shutdown(&mut self) {
        if !self.shutdown.is_empty() && self.members.is_empty() {
            for reply in self.shutdown.drain(..) {
                reply(Ok(()));
            }
        }
    }

    pub(super) fn detach(
        &mut self,
        name: &str,
        addr: Option<std::net::SocketAddr>,
        reply: Reply<()>,
        now: Time,
    ) {
        if let Some(addr) = addr
            && let Some(index) = self
                .members
                .iter()
                .position(|m| m.group == name && !m.alternates.is_empty())
        {
            return reply(self.detach_address(index, addr, now));
        }
        let doomed: Vec<_> = self
            .members
            .iter()
            .filter(|m| m.group == name && addr.is_none_or(|a| a == m.transport.addr))
            .map(|m| m.id)
            .collect();
        if doomed.is_empty() {
            return reply(Err(HostError::NotFound(format!("controller: '{name}'"))));
        }
        self.stop_members(doomed, reply, now);
    }

    /// Ends controllers for good; answers when they are gone.
    pub(super) fn stop_members(&mut self, doomed: Vec<ControllerId>, reply: Reply<()>, now: Time) {
        self.wait(doomed.clone(), Until::Gone, reply);
        for id in doomed {
            if let Some(index) = self.member_index(id) {
                self.stop_member(index, now);
            }
        }
    }

    /// Detaches one of several failover addresses: a spare is forgotten, the connected one is left for the
    /// next.
    fn detach_address(
        &mut self,
        index: usize,
        addr: std::net::SocketAddr,
        now: Time,
    ) -> Result<(), HostError> {
        let Some(member) = self.members.get_mut(index) else {
            return Ok(());
        };
        let spares = member.alternates.len();
        member.alternates.retain(|t| t.addr != addr);
        if member.alternates.len() < spares {
            return Ok(());
        }
        if member.transport.addr != addr {
            return Err(HostError::NotFound(format!("controller: at {addr}")));
        }
        let error = ControllerError::OnRequest("address detached");
        self.lose(index, &error, now);
        if let Some(member) = self.members.get_mut(index) {
            if member.transport.addr == addr {
                // It was between two tries; nothing is connected there.
                member.next_address();
            }
            member.alternates.retain(|t| t.addr != addr);
        }
        Ok(())
    }

    fn change(
        &mut self,
        name: &str,
        cntlid: Option<u16>,
        change: ControllerChange,
        cx: &mut Context<'_>,
    ) -> Result<Vec<ControllerId>, HostError> {
        let chosen: Vec<usize> = (0..self.members.len())
            .filter(|&i| {
                self.members
                    .get(i)
                    .is_some_and(|m| m.group == name && cntlid.is_none_or(|id| id == m.cntlid))
            })
            .collect();
        if chosen.is_empty() {
            return Err(HostError::NotFound(match cntlid {
                Some(id) => format!("controller: '{name}' with CNTLID {id}"),
                None => format!("controller: '{name}'"),
            }));
        }
        // Of a whole name, those that are as wanted already are passed over.
        let chosen: Vec<usize> = chosen
            .into_iter()
            .filter(|&i| {
                let lifecycle = self.members.get(i).map(|m| m.lifecycle);
                let disabled = lifecycle == Some(Lifecycle::Disabled);
                disabled == (change == ControllerChange::Enable)
            })
            .collect();
        if chosen.is_empty() {
            return Err(match change {
                ControllerChange::Enable => HostError::Already("the controller is enabled already"),
                ControllerChange::Disable => {
                    HostError::Already("the controller is disabled already")
                }
                ControllerChange::Reset => HostError::Invalid("the controller is disabled"),
            });
        }
        let ids: Vec<_> = chosen
            .iter()
            .filter_map(|&i| self.members.get(i).map(|m| m.id))
            .collect();
        for &id in &ids {
            let Some(index) = self.member_index(id) else {
                continue;
            };
            match change {
                ControllerChange::Reset => self.reset(index, cx),
                ControllerChange::Disable => self.disable(index, cx.now()),
                ControllerChange::Enable => self.connect(index, cx),
            }
        }
        match change {
            ControllerChange::Disable => Ok(Vec::new()),
            ControllerChange::Reset | ControllerChange::Enable => Ok(ids),
        }
    }

    fn reset(&mut self, index: usize, cx: &mut Context<'_>) {
        match self.members.get(index).map(|m| m.lifecycle) {
            // It is not connected: the next try is now.
            Some(Lifecycle::Waiting(_) | Lifecycle::Failed) => self.connect(index, cx),
            // It is being connected: that is what a reset is to lead to.
            Some(Lifecycle::Connecting | Lifecycle::Queues) => {}
            Some(_) => {
                let error = ControllerError::OnRequest("reset");
                self.lose(index, &error, cx.now());
            }
            None => {}
        }
    }

    fn admin(&mut self, name: &str, command: Request, reply: Reply<Completed>) {
        if !self.members.iter().any(|m| m.group == name) {
            return reply(Err(HostError::NotFound(format!("controller: '{name}'"))));
        }
        let ready = |m: &&mut Member| m.group == name && m.lifecycle == Lifecycle::Live;
        let member = self.members.iter_mut().find(ready);
        let Some((id, controller)) = member.and_then(|m| Some((m.id, m.controller.as_mut()?)))
        else {
            return reply(Err(HostError::Cancelled("no controller is connected")));
        };
        self.admin_next += 1;
        match controller.submit(command.with(self.admin_next)) {
            Ok(()) => {
                self.admin.insert(self.admin_next, (id, reply));
            }
            Err(_) => reply(Err(HostError::Cancelled("the admin queue is full"))),
        }
    }

    pub(super) fn on_admin(&mut self, completed: Completed<u64>) {
        let outcome = completed.outcome;
        let (request, number) = completed.request.replace(());
        if let Some((_, reply)) = self.admin.remove(&number) {
            reply(Ok(Completed { request, outcome }));
        }
    }

    /// The admin queue is gone with all that was sent to it.
    pub(super) fn cancel_admin(&mut self, id: ControllerId) {
        let lost = self.admin.extract_if(.., |_, (of, _)| *of == id);
        for (_, (_, reply)) in lost {
            reply(Err(HostError::Cancelled("the controller was lost")));
        }
    }

    /// Answers once all of `missing` have come to where they should be.
    fn wait(&mut self, missing: Vec<ControllerId>, until: Until, reply: Reply<()>) {
        if missing.is_empty() {
            return reply(Ok(()));
        }
        self.waiters.push(Waiter {
            missing,
            until,
            failure: None,
            reply,
        });
    }

    /// A controller carries I/O, or a try to connect it has failed.
    pub(super) fn settle(&mut self, id: ControllerId, result: Result<(), HostError>) {
        self.arrived(id, Until::Live, &result);
    }

    /// A controller was removed.
    pub(super) fn gone(&mut self, id: ControllerId) {
        self.cancel_admin(id);
        self.arrived(id, Until::Gone, &Ok(()));
        let error = HostError::Cancelled("the controller was detached");
        self.arrived(id, Until::Live, &Err(error));
    }

    fn arrived(&mut self, id: ControllerId, until: Until, result: &Result<(), HostError>) {
        for waiter in self.waiters.iter_mut().filter(|w| w.until == until) {
            let before = waiter.missing.len();
            waiter.missing.retain(|m| *m != id);
            if waiter.missing.len() < before {
                waiter.failure = waiter.failure.take().or(result.clone().err());
            }
        }
        let (done, left): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiters)
            .into_iter()
            .partition(|w| w.missing.is_empty());
        self.waiters = left;
        for waiter in done {
            (waiter.reply)(waiter.failure.map_or(Ok(()), Err));
        }
    }

    /// Closes a controller's queue pairs for as long as it is disabled: I/O neither uses nor awaits it.
    fn disable(&mut self, index: usize, now: Time) {
        let Some(member) = self.members.get_mut(index) else {
            return;
        };
        if member.attach.is_some() {
            let error = HostError::Cancelled("the controller was disabled");
            return self.fail_attach(index, error);
        }
        let id = member.id;
        let error = HostError::Cancelled("the controller was disabled");
        self.cancel_admin(id);
        self.settle(id, Err(error));
        let Some(member) = self.members.get_mut(index) else {
            return;
        };
        member.lifecycle = Lifecycle::Disabled;
        member.controller = None;
        member.lost_at = None;
        member.stop_anatt();
        self.broadcast(|| ToIo::Disconnect {
            controller: id,
            recovering: false,
        });
        self.record_all(now, index, &PathEventKind::Closed("disabled"));
    }
}
