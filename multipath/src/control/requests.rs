//! What control is asked from outside.

use pollux_reactor::Context;

use super::Control;
use super::asker::AttachAsker;
use super::member::Member;
use super::waiters::Until;
use crate::error::HostError;
use crate::ids::ControllerId;
use crate::path_events;
use crate::policy::Policy;
use crate::request::{HostRequest, Reply};

impl Control {
    pub(super) fn on_request(&mut self, request: HostRequest, cx: &mut Context<'_>) {
        match request {
            HostRequest::Attach(request, reply) => {
                self.attach(*request, AttachAsker::Request(reply), cx);
            }
            HostRequest::Detach {
                name,
                transport,
                reply,
            } => self.detach(&name, transport.map(|t| t.addr), reply),
            HostRequest::Change {
                name,
                cntlid,
                change,
                reply,
            } => match self.change(&name, cntlid, change, cx) {
                Ok(missing) => self.shared.waiters.wait(missing, Until::Live, reply),
                Err(error) => reply(Err(error)),
            },
            HostRequest::SetKeys {
                name,
                auth,
                key_names,
                reply,
            } => self.set_keys(&name, auth.as_deref(), key_names.as_ref(), reply),
            HostRequest::SetPolicy {
                volume,
                policy,
                reply,
            } => reply(self.set_policy(&volume, policy)),
            HostRequest::SetRateLimits {
                volume,
                change,
                reply,
            } => self.set_rate_limits(&volume, change, reply),
            HostRequest::SetPreferredPath {
                volume,
                cntlid,
                reply,
            } => reply(self.set_preferred(&volume, cntlid)),
            HostRequest::SetRetryLimit(limit) => {
                self.set(move |group| group.set_retry_limit(limit))
            }
            HostRequest::SetFailback(on) => self.set(move |group| group.set_failback(on)),
            HostRequest::PathEvents { capacity, reply } => {
                let made = path_events::subscription(capacity);
                reply(made.map(|(publisher, events)| {
                    self.shared.volumes.subscribers.add(publisher, None);
                    events
                }));
            }
            HostRequest::Notifications(first, reply) => {
                let notifications = self.shared.volumes.notifications(first);
                reply(Ok(notifications.cloned().collect()));
            }
            HostRequest::Volumes(reply) => self.volumes(None, reply),
            HostRequest::AwaitVolume {
                name,
                timeout,
                reply,
            } => self.awaited.push((name, self.shared.now + timeout, reply)),
            HostRequest::ResetCounters {
                volumes,
                what,
                reply,
            } => {
                let wanted = |name: &String| volumes.is_empty() || volumes.contains(name);
                let chosen = self.shared.volumes.iter();
                let chosen = chosen.filter(|v| wanted(&v.info.name)).map(|v| v.info.id);
                let chosen = chosen.collect();
                self.volumes(Some((chosen, what)), reply);
            }
            HostRequest::Transport(reply) => {
                self.ask(|group| group.counters(), |_, counters| reply(Ok(counters)));
            }
            HostRequest::SetHistogram {
                volume,
                layout,
                reply,
            } => {
                let id = self.shared.volumes.id_of(&volume);
                reply(id.map(|id| self.set(move |group| group.set_histogram(id, layout))));
            }
            HostRequest::Histogram { volume, reply } => match self.shared.volumes.id_of(&volume) {
                Ok(id) => self.histogram(id, reply),
                Err(error) => reply(Err(error)),
            },
            HostRequest::Fault {
                name,
                admin,
                change,
                reply,
            } => reply(self.set_fault(&name, admin, change)),
            HostRequest::StartDiscovery(request, reply) => self.start_discovery(*request, reply),
            HostRequest::StopDiscovery { name, reply } => self.stop_discovery(&name, reply),
            HostRequest::Admin {
                name,
                command,
                reply,
            } => self.admin(&name, *command, reply),
            HostRequest::Discoveries(reply) => reply(Ok(self.discovery_status())),
            HostRequest::Controllers(reply) => reply(Ok(self.controllers())),
            HostRequest::Shutdown(reply) => {
                self.end_discoveries();
                self.shutdown.push(reply);
                for id in self.members.ids(|_| true).into_iter().rev() {
                    self.with(id, |member, shared| member.stop(shared));
                }
            }
        }
    }

    fn set_policy(&mut self, name: &str, policy: Policy) -> Result<(), HostError> {
        let id = self.shared.volumes.id_of(name)?;
        self.shared.volumes.of_path(id).policy = policy;
        self.set(move |group| group.set_policy(id, policy));
        Ok(())
    }

    fn set_preferred(&mut self, name: &str, cntlid: u16) -> Result<(), HostError> {
        let id = self.shared.volumes.id_of(name)?;
        let is_meant = |m: &Member| m.cntlid == cntlid && m.paths.iter().any(|p| p.volume == id);
        let Some(controller) = self.members.find(is_meant) else {
            return Err(HostError::NotFound(format!(
                "path: volume '{name}' has none by controller {cntlid}"
            )));
        };
        self.set(move |group| group.set_preferred(id, controller));
        Ok(())
    }

    /// Ends controllers for good; answers when they are gone.
    pub(super) fn stop_members(&mut self, doomed: Vec<ControllerId>, reply: Reply<()>) {
        self.shared.waiters.wait(doomed.clone(), Until::Gone, reply);
        for id in doomed {
            self.with(id, |member, shared| member.stop(shared));
        }
    }

    pub(super) fn finish_shutdown(&mut self) {
        if !self.shutdown.is_empty() && self.members.is_empty() {
            for reply in self.shutdown.drain(..) {
                reply(Ok(()));
            }
        }
    }
}
