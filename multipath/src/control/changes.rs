//! Requests about the controllers of a name: detach, reset, disable, enable, inject faults, send an admin command.

use std::net::SocketAddr;

use pollux_nvme_tcp::host::{Completed, ControllerError, FaultChange, Request};
use pollux_reactor::Context;

use super::Control;
use super::lifecycle::Lifecycle;
use super::member::Member;
use super::shared::Shared;
use crate::error::HostError;
use crate::ids::ControllerId;
use crate::request::{ControllerChange, Reply};

fn not_found(name: &str) -> HostError {
    HostError::NotFound(format!("controller: '{name}'"))
}

impl Control {
    pub(super) fn detach(&mut self, name: &str, addr: Option<SocketAddr>, reply: Reply<()>) {
        let has_spares = |m: &Member| m.group == name && !m.alternates.is_empty();
        if let Some(addr) = addr
            && let Some(id) = self.members.find(has_spares)
        {
            self.with(id, |member, shared| {
                reply(member.detach_address(addr, shared));
            });
            return;
        }
        let is_meant = |m: &Member| m.group == name && addr.is_none_or(|a| a == m.transport.addr);
        let doomed = self.members.ids(is_meant);
        if doomed.is_empty() {
            return reply(Err(not_found(name)));
        }
        self.stop_members(doomed, reply);
    }

    /// Returns those that will carry I/O because of the change.
    pub(super) fn change(
        &mut self,
        name: &str,
        cntlid: Option<u16>,
        change: ControllerChange,
        cx: &mut Context<'_>,
    ) -> Result<Vec<ControllerId>, HostError> {
        let is_meant = |m: &Member| m.group == name && cntlid.is_none_or(|id| id == m.cntlid);
        if !self.members.iter().any(is_meant) {
            return Err(match cntlid {
                Some(id) => HostError::NotFound(format!("controller: '{name}' with CNTLID {id}")),
                None => not_found(name),
            });
        }
        // With a whole name, controllers that are as wanted already are passed over.
        let chosen = self.members.ids(|m| {
            let is_disabled = m.lifecycle() == Lifecycle::Disabled;
            is_meant(m) && is_disabled == (change == ControllerChange::Enable)
        });
        if chosen.is_empty() {
            return Err(match change {
                ControllerChange::Enable => HostError::Already("the controller is enabled already"),
                ControllerChange::Disable => {
                    HostError::Already("the controller is disabled already")
                }
                ControllerChange::Reset => HostError::Invalid("the controller is disabled"),
            });
        }
        for &id in &chosen {
            self.with(id, |member, shared| match change {
                ControllerChange::Reset => member.reset(shared, cx),
                ControllerChange::Disable => member.disable(shared),
                ControllerChange::Enable => member.reconnect(shared, cx),
            });
        }
        match change {
            ControllerChange::Disable => Ok(Vec::new()),
            ControllerChange::Reset | ControllerChange::Enable => Ok(chosen),
        }
    }

    /// Injects faults into commands to every controller of a name that is connected.
    pub(super) fn set_fault(
        &mut self,
        name: &str,
        admin: bool,
        change: FaultChange,
    ) -> Result<(), HostError> {
        let ids = self.members.ids(|m| m.group == name);
        if ids.is_empty() {
            return Err(not_found(name));
        }
        for id in ids {
            if !admin {
                self.set(move |group| group.inject(id, change));
            } else if let Some(member) = self.members.get_mut(id)
                && let Some(controller) = &mut member.controller
            {
                controller.inject(change);
            }
        }
        Ok(())
    }

    /// Sends an admin command to the first controller of a name that carries I/O.
    pub(super) fn admin(&mut self, name: &str, command: Request, reply: Reply<Completed>) {
        if self.members.first(name).is_none() {
            return reply(Err(not_found(name)));
        }
        let mut members = self.members.iter_mut();
        let ready = members.find(|m| m.group == name && m.lifecycle() == Lifecycle::Live);
        let Some((id, controller)) = ready.and_then(|m| Some((m.id, m.controller.as_mut()?)))
        else {
            return reply(Err(HostError::Cancelled("no controller is connected")));
        };
        let number = self.shared.admin_number();
        match controller.submit(command.with(number)) {
            Ok(()) => self.shared.await_admin(number, id, reply),
            Err(_) => reply(Err(HostError::Cancelled("the admin queue is full"))),
        }
    }
}

impl Member {
    /// Detaches one of several failover addresses: a spare is forgotten, the connected one is left for the
    /// next.
    fn detach_address(&mut self, addr: SocketAddr, shared: &mut Shared) -> Result<(), HostError> {
        let spares = self.alternates.len();
        self.alternates.retain(|t| t.addr != addr);
        if self.alternates.len() < spares {
            return Ok(());
        }
        if self.transport.addr != addr {
            return Err(HostError::NotFound(format!("controller: at {addr}")));
        }
        self.lose(ControllerError::OnRequest("address detached"), shared);
        if self.transport.addr == addr {
            // Between two tries nothing is connected there.
            self.next_address();
        }
        self.alternates.retain(|t| t.addr != addr);
        Ok(())
    }
}
