//! Attaching controllers: what can be said before anything is sent, and once it is known what is there (rule B1).

use pollux_nvme_tcp::spec::identify::ctrl::CMIC_MULTI_CONTROLLER;
use pollux_reactor::Context;

use super::Control;
use super::asker::AttachAsker;
use super::member::Member;
use crate::error::HostError;
use crate::ids::ControllerId;
use crate::options::{Mode, Reported};
use crate::request::{AttachRequest, Attached};
use crate::transport_id::TransportId;

impl Control {
    /// Starts an attach; its answer follows when the path is usable or has failed (rule B1.4).
    pub(super) fn attach(
        &mut self,
        mut request: AttachRequest,
        asker: AttachAsker,
        cx: &mut Context<'_>,
    ) {
        if request.options.adopt_policy
            && let Some(first) = self.members.first(&request.name)
        {
            request.options.policy = first.options.policy;
        }
        if let Err(error) = self.check_attach(&request) {
            return self.shared.answer_attach(asker, Err(error));
        }
        if request.options.mode == Mode::Failover
            && let Some(id) = self.members.find(|m| m.group == request.name)
        {
            self.with(id, |member, shared| {
                let volumes = member.volumes(shared);
                member.alternates.push_back(request.transport);
                shared.answer_attach(asker, Ok(Attached { volumes }));
            });
            return;
        }
        let Some((slot, generation)) = self.slots.take() else {
            let error = HostError::Invalid("too many controllers");
            return self.shared.answer_attach(asker, Err(error));
        };
        let id = ControllerId { slot, generation };
        // More reactors than queues can be counted are refused when it is known how many the controller grants.
        let io_queues = u16::try_from(self.shared.reactors.len()).unwrap_or(u16::MAX);
        let identity = &self.shared.identity;
        let member = Member::new(id, request, asker, identity, io_queues);
        self.members.push(member);
        self.with(id, |member, shared| member.connect(shared, cx));
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
        let needed = self.shared.reactors.len();
        if let Some(max) = request.options.max_io_queues
            && usize::try_from(max).is_ok_and(|max| max < needed)
        {
            return Err(HostError::QueueLimit { max, needed });
        }
        let mut group = self.members.group(&request.name);
        let count = group.clone().count();
        let Some(first) = self.members.first(&request.name) else {
            return Ok(());
        };
        if request.options.mode == Mode::Disable {
            return Err(HostError::Exists(request.name.clone()));
        }
        let known = |t: &TransportId| t.addr == request.transport.addr;
        if group.any(|m| known(&m.transport) || m.alternates.iter().any(known)) {
            return Err(HostError::Exists(request.transport.to_string()));
        }
        let mismatch = |text: String| Err(HostError::Mismatch(text));
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

    /// Everything of a controller is read: whether it is what its name stands for.
    pub(super) fn on_controller_ready(&mut self, id: ControllerId) {
        let checked = self.check_controller(id);
        self.with(id, |member, shared| match checked {
            Ok(()) => member.connect_queues(shared),
            // What is at that address now is not what was attached: wait for it to come back.
            Err(error) => member.lose_by(error, shared),
        });
    }

    fn check_controller(&self, id: ControllerId) -> Result<(), HostError> {
        let member = self.members.get(id);
        let Some((member, controller)) = member.and_then(|m| Some((m, m.controller.as_ref()?)))
        else {
            unreachable!("what is ready is a controller");
        };
        let needed = self.shared.reactors.len();
        if usize::from(controller.io_queues()) < needed {
            return Err(HostError::TooFewQueues {
                transport: member.transport.to_string(),
                granted: controller.io_queues(),
                needed,
            });
        }
        let options = &member.options;
        let reported = Reported::by(controller);
        options.fencing.time(options.keep_alive_ms, reported)?;
        let mut others = self.members.group(&member.group).filter(|m| m.id != id);
        let twin = others
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
        let shared = controller
            .identify()
            .is_some_and(|id| id.cmic & CMIC_MULTI_CONTROLLER != 0);
        if others.next().is_some() && !shared {
            return Err(HostError::Mismatch(format!(
                "{}: the subsystem allows one controller only (CMIC)",
                member.transport
            )));
        }
        Ok(())
    }
}
