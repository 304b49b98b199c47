//! What control is asked from outside, and the status that it gathers from the I/O reactors.

use pollux_nvme_tcp::host::ControllerError;
use pollux_reactor::{Context, Time};

use super::Control;
use super::member::Lifecycle;
use crate::messages::ToIo;
use crate::request::{ControllerChange, HostError, HostRequest, Reply};
use crate::status::{ControllerStatus, PathEventKind, ReactorVolumeStatus, VolumeStatus};

/// A status question that waits for the answers of the I/O reactors.
pub(super) struct StatusQuery {
    id: u64,
    missing: usize,
    parts: Vec<ReactorVolumeStatus>,
    reply: Reply<Vec<VolumeStatus>>,
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
            } => reply(self.change(&name, cntlid, change, cx)),
            HostRequest::SetPolicy {
                volume,
                policy,
                reply,
            } => {
                let Some(id) = self.volumes.by_name(&volume).map(|v| v.info.id) else {
                    return reply(Err(HostError::NotFound(format!("volume: '{volume}'"))));
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
                let Some(id) = self.volumes.by_name(&volume).map(|v| v.info.id) else {
                    return reply(Err(HostError::NotFound(format!("volume: '{volume}'"))));
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
            HostRequest::Volumes(reply) => {
                self.query_next += 1;
                let id = self.query_next;
                self.queries.push(StatusQuery {
                    id,
                    missing: self.reactors.len(),
                    parts: Vec::new(),
                    reply,
                });
                self.broadcast(|| ToIo::Status { request: id });
            }
            HostRequest::Controllers(reply) => reply(Ok(self
                .members
                .iter()
                .map(|m| ControllerStatus {
                    name: m.group.clone(),
                    controller: m.id,
                    cntlid: m.cntlid,
                    transport: m.transport.clone(),
                    alternates: m.alternates.iter().cloned().collect(),
                    state: m.state_name(),
                    last_error: m.last_error.clone(),
                    left_out: m.left_out.clone(),
                })
                .collect())),
            HostRequest::Shutdown(reply) => {
                self.shutdown.push(reply);
                for index in (0..self.members.len()).rev() {
                    self.stop_member(index, now);
                }
            }
        }
    }

    pub(super) fn finish_shutdown(&mut self) {
        if !self.shutdown.is_empty() && self.members.is_empty() {
            for reply in self.shutdown.drain(..) {
                reply(Ok(()));
            }
        }
    }

    fn detach(
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
        let Some((&last, _)) = doomed.split_last() else {
            return reply(Err(HostError::NotFound(format!("controller: '{name}'"))));
        };
        if let Some(member) = self.members.iter_mut().find(|m| m.id == last) {
            member.detach.push(reply);
        }
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
        let error = ControllerError::BadData("address detached");
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
    ) -> Result<(), HostError> {
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
        let disabled = |this: &Self, i: usize| {
            this.members
                .get(i)
                .is_some_and(|m| m.lifecycle == Lifecycle::Disabled)
        };
        // All or none: what does not apply to one of them is done to none.
        for &index in &chosen {
            match change {
                ControllerChange::Enable if !disabled(self, index) => {
                    return Err(HostError::Invalid("the controller is enabled already"));
                }
                ControllerChange::Disable if disabled(self, index) => {
                    return Err(HostError::Invalid("the controller is disabled already"));
                }
                ControllerChange::Reset if disabled(self, index) => {
                    return Err(HostError::Invalid("the controller is disabled"));
                }
                _ => {}
            }
        }
        for index in chosen {
            match change {
                ControllerChange::Reset => {
                    let error = ControllerError::BadData("reset on request");
                    self.lose(index, &error, cx.now());
                }
                ControllerChange::Disable => self.disable(index, cx.now()),
                ControllerChange::Enable => self.connect(index, cx),
            }
        }
        Ok(())
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
        member.lifecycle = Lifecycle::Disabled;
        member.controller = None;
        member.lost_at = None;
        member.stop_anatt();
        self.broadcast(|| ToIo::Disconnect {
            controller: id,
            recovering: false,
        });
        self.record_all(
            now,
            index,
            &PathEventKind::Lost("disabled on request".into()),
        );
    }

    /// One reactor's answer; with the last one the question is answered.
    pub(super) fn on_status(&mut self, id: u64, parts: Vec<ReactorVolumeStatus>, now: Time) {
        let Some(index) = self.queries.iter().position(|q| q.id == id) else {
            return;
        };
        if let Some(query) = self.queries.get_mut(index) {
            query.parts.extend(parts);
            query.missing -= 1;
            if query.missing > 0 {
                return;
            }
        }
        let mut query = self.queries.swap_remove(index);
        for path in query.parts.iter_mut().flat_map(|part| &mut part.paths) {
            if let Some(member) = self.members.iter().find(|m| m.id == path.controller) {
                path.cntlid = member.cntlid;
                path.transport = Some(member.transport.clone());
            }
        }
        let volumes = self
            .volumes
            .iter()
            .map(|volume| VolumeStatus {
                name: volume.info.name.clone(),
                volume: volume.info.id,
                blocks: volume.info.blocks,
                block_size: volume.info.block_size(),
                policy: volume.policy,
                reactors: query
                    .parts
                    .iter()
                    .filter(|part| part.volume == volume.info.id)
                    .cloned()
                    .map(|mut part| {
                        for path in &mut part.paths {
                            path.anatt_remaining = self
                                .members
                                .iter()
                                .filter(|m| m.id == path.controller)
                                .flat_map(|m| &m.paths)
                                .find(|p| p.volume == volume.info.id)
                                .and_then(|p| p.anatt_remaining(now));
                        }
                        part
                    })
                    .collect(),
                events: volume.events.iter().cloned().collect(),
            })
            .collect();
        (query.reply)(Ok(volumes));
    }
}
