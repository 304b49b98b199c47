//! What control is asked from outside, and the status that it gathers from the I/O reactors.

use pollux_nvme_tcp::host::ControllerError;
use pollux_reactor::{Context, Time};

use super::Control;
use crate::messages::ToIo;
use crate::request::{HostError, HostRequest, Reply};
use crate::status::{ControllerStatus, ReactorVolumeStatus, VolumeStatus};

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
            HostRequest::Reset { name, reply } => self.reset(&name, reply, now),
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

    fn reset(&mut self, name: &str, reply: Reply<()>, now: Time) {
        let mut found = false;
        for index in 0..self.members.len() {
            let Some(member) = self.members.get_mut(index) else {
                continue;
            };
            if member.group != name {
                continue;
            }
            found = true;
            if let Some(controller) = &mut member.controller {
                controller.close();
            }
            let error = ControllerError::BadData("reset on request");
            self.lose(index, &error, now);
        }
        reply(if found {
            Ok(())
        } else {
            Err(HostError::NotFound(format!("controller: '{name}'")))
        });
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
