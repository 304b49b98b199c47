//! The end of a controller, and Cross-Controller Reset (NVMe Base 2.3, 5.4.3 and 8.3.3).
//!
//! A controller has ended when no reactor can execute anything of it any more: its queues are closed on all of them, and no
//! disk has anything of it. Home asks every reactor for that. Whoever was asked to reset another controller of its host
//! answers when that one has ended; where it takes long, it answers that the reset has begun, and the log tells of its end.
//!
//! Only of controllers that this target has had it is said that they have ended: another process may serve the same
//! subsystem, and what that one still executes is not known here. Their names have a random number (CIRN), so that none
//! is taken for another one.

use std::collections::VecDeque;
use std::time::Duration;

use pollux_reactor::{Rng, Time};

use crate::spec::cross_controller_reset::{IMMEDIATE_RESET_SUCCESSFUL, Impacted};
use crate::spec::nqn::{HostNqn, Nqn};
use crate::spec::status::Status;
use crate::target::LOG_FLAG;
use crate::target::admin::controller::{Controller, Promised};
use crate::target::admin::events::Kind;
use crate::target::admin::reset_log::RESETS_MAX;
use crate::target::control::{Home, HomeTurn};
use crate::target::io::ControllerKey;
use crate::target::io::message::IoMessage;

/// For how long the answer waits for the end of the other controller.
const ANSWER_AFTER: Duration = Duration::from_millis(50);

/// Controllers that have ended and are remembered, of all hosts and of one.
const ENDED_MAX: usize = 1024;
const ENDED_OF_HOST_MAX: usize = 32;

/// The owner of a controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Of {
    subnqn: Nqn,
    hostnqn: HostNqn,
    hostid: [u8; 16],
}

impl Of {
    pub(super) fn controller(controller: &Controller) -> Self {
        Self {
            subnqn: controller.subnqn.clone(),
            hostnqn: controller.hostnqn.clone(),
            hostid: controller.hostid,
        }
    }
}

/// An instance of a controller whose queues are closed, and that may still have something with a disk.
#[derive(Debug)]
struct Ending {
    id: u64,
    of: Of,
    instance: Impacted,
    promised: Promised,
    /// When the log says that it takes too long.
    late_at: Option<Time>,
    asked: Option<Asked>,
}

/// A Cross-Controller Reset of it.
#[derive(Debug)]
struct Asked {
    /// The controller that was asked.
    by: ControllerKey,
    /// The command, and when it is answered in any case; none once that was done.
    command: Option<(u16, Time)>,
}

/// The ends of controllers.
#[derive(Debug, Default)]
pub(super) struct Ends {
    ending: Vec<Ending>,
    /// The latest last.
    ended: VecDeque<(Of, Impacted)>,
}

/// How a reset stands.
pub(super) enum Reset {
    Done,
    /// It is answered later.
    Begun,
}

impl Ends {
    /// A controller that has asked for resets is gone, or was reset itself.
    pub(super) fn forget(&mut self, by: ControllerKey) {
        for ending in &mut self.ending {
            ending.asked.take_if(|asked| asked.by == by);
        }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        let times = self.ending.iter().flat_map(|ending| {
            let command = ending.asked.as_ref().and_then(|asked| asked.command);
            [ending.late_at, command.map(|(_, at)| at)]
        });
        times.flatten().min()
    }

    fn remember(&mut self, of: Of, instance: Impacted) {
        let of_host = |(other, _): &&(Of, Impacted)| *other == of;
        if self.ended.iter().filter(of_host).count() >= ENDED_OF_HOST_MAX
            && let Some(oldest) = self.ended.iter().position(|(other, _)| *other == of)
        {
            self.ended.remove(oldest);
        }
        if self.ended.len() >= ENDED_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back((of, instance));
    }
}

/// The name of the first instance of a controller.
pub(super) fn first_instance(cntlid: u16, rng: &mut Rng) -> Impacted {
    let [ciu, ..] = rng.next_u64().to_le_bytes();
    let before = Impacted {
        icid: cntlid,
        ciu,
        cirn: 0,
    };
    next_instance(before, rng)
}

/// The name of the instance that follows: the uniquifier counts, and is never 0.
fn next_instance(before: Impacted, rng: &mut Rng) -> Impacted {
    Impacted {
        ciu: before.ciu.checked_add(1).unwrap_or(1),
        cirn: rng.next_u64().max(1),
        ..before
    }
}

impl Home {
    /// A controller was disabled or shut down: its queues go. Being disabled is a reset, after which it is another instance.
    pub(super) fn controller_stopped(&mut self, key: ControllerKey, turn: &mut HomeTurn<'_, '_>) {
        self.drop_authenticating(key);
        for reactor in 0..turn.links.reactors() {
            turn.links.send_io(reactor, IoMessage::CloseQueues { key });
        }
        self.ends.forget(key);
        let controller = self.controllers.get_mut(&key);
        let Some(controller) = controller.filter(|c| !c.cc.en() && !c.is_discovery()) else {
            return;
        };
        let (of, before) = (Of::controller(controller), controller.instance);
        let promised = controller.promised;
        controller.instance = next_instance(before, turn.cx.rng());
        controller.resets = Default::default();
        self.begin_end(key, of, (before, promised), turn);
    }

    /// The queues of a controller were closed, for good or by a reset: sees to it that its end is known.
    pub(super) fn begin_end(
        &mut self,
        key: ControllerKey,
        of: Of,
        (instance, promised): (Impacted, Promised),
        turn: &mut HomeTurn<'_, '_>,
    ) {
        if !promised.resets_others() {
            return;
        }
        let id = self.new_id();
        self.ends.ending.push(Ending {
            id,
            of,
            instance,
            promised,
            // The other half of CQT is for what comes before.
            late_at: Some(turn.cx.now() + promised.cqt() / 2),
            asked: None,
        });
        self.await_end(key, turn, move |home| home.has_ended(id));
    }

    /// Nothing of a controller can be executed any more.
    fn has_ended(&mut self, id: u64) {
        let mut ended = self.ends.ending.extract_if(.., |ending| ending.id == id);
        let Some(ending) = ended.next() else {
            return;
        };
        drop(ended);
        self.ends.remember(ending.of, ending.instance);
        let Some(asked) = ending.asked else {
            return;
        };
        let Some(controller) = self.controllers.get_mut(&asked.by) else {
            return;
        };
        match asked.command {
            Some((cid, _)) if controller.admin.pending.remove(&cid) => {
                let result = IMMEDIATE_RESET_SUCCESSFUL.into();
                controller.answer(cid, Status::SUCCESS, result, Vec::new());
            }
            Some(_) => {}
            None => {
                controller.resets.end(ending.instance);
                controller.events.raise(Kind::Reset);
                controller.deliver_events();
            }
        }
        self.due.push(controller.admin.connection);
    }

    /// Answers resets that take long, and says so of ends that do.
    #[inline]
    pub(super) fn check_ends(&mut self, now: Time) {
        if self.ends.ending.is_empty() {
            return;
        }
        for ending in &mut self.ends.ending {
            if ending.late_at.take_if(|at| now >= *at).is_some() {
                log::error!(
                    target: LOG_FLAG,
                    "controller {} of {} for host {}: a disk still has commands of it {} ms after its end, which is too long for the CQT of {} ms \
                     that hosts are told; nvmf_set_config cqt_ms (--cqt) must be twice as long as the slowest disk may take",
                    ending.instance.icid, ending.of.subnqn, ending.of.hostnqn, ending.promised.cqt_ms / 2, ending.promised.cqt_ms
                );
            }
            let Some(asked) = &mut ending.asked else {
                continue;
            };
            let command = asked.command.take_if(|(_, at)| now >= *at);
            if let Some((cid, _)) = command
                && let Some(controller) = self.controllers.get_mut(&asked.by)
                && controller.admin.pending.remove(&cid)
            {
                controller.resets.begin(ending.instance, controller.cntlid);
                controller.answer(cid, Status::SUCCESS, 0, Vec::new());
                self.due.push(controller.admin.connection);
            }
        }
    }

    /// Cross-Controller Reset, of which `cid` is the command: ends another controller of the same host.
    pub(super) fn reset_another(
        &mut self,
        key: ControllerKey,
        cid: u16,
        impacted: Impacted,
        turn: &mut HomeTurn<'_, '_>,
    ) -> Result<Reset, Status> {
        let controller = self.controllers.get(&key).ok_or(Status::INTERNAL_ERROR)?;
        if controller.instance == impacted {
            return Err(Status::INVALID_FIELD.with_dnr());
        }
        let of = Of::controller(controller);
        if self.ends.ended.contains(&(of.clone(), impacted)) {
            return Ok(Reset::Done);
        }
        let is_it = |ending: &Ending| ending.instance == impacted && ending.of == of;
        let ending = self.ends.ending.iter().find(|ending| is_it(ending));
        let mut controllers = self.controllers.values();
        let live = controllers.find(|c| c.instance == impacted && Of::controller(c) == of);
        let live = live.map(|c| c.key);
        // Of another host's controller nothing is told but that it is not one of this host's.
        if live.is_none() && ending.is_none() {
            return Err(Status::INVALID_CONTROLLER_ID.with_dnr());
        }
        if ending.is_some_and(|ending| ending.asked.is_some()) {
            return Err(Status::CROSS_CONTROLLER_RESET_IN_PROGRESS);
        }
        let asked = self.ends.ending.iter().filter_map(|e| e.asked.as_ref());
        let pending = asked.filter(|asked| asked.by == key).count();
        if pending >= usize::from(RESETS_MAX) {
            return Err(Status::CROSS_CONTROLLER_RESET_LIMIT_EXCEEDED);
        }
        if !controller.resets.has_room(pending) {
            return Err(Status::CROSS_CONTROLLER_RESET_LOG_FULL);
        }
        if let Some(live) = live {
            log::warn!(
                target: LOG_FLAG,
                "controller {} of {} is reset by way of another one, as host {} wants it",
                impacted.icid, of.subnqn, of.hostnqn
            );
            self.close_controller(live, turn);
        }
        let ending = self.ends.ending.iter_mut().find(|ending| is_it(ending));
        let ending = ending.ok_or(Status::INTERNAL_ERROR)?;
        ending.asked = Some(Asked {
            by: key,
            command: Some((cid, turn.cx.now() + ANSWER_AFTER)),
        });
        if let Some(controller) = self.controllers.get_mut(&key) {
            controller.admin.pending.insert(cid);
        }
        Ok(Reset::Begun)
    }
}
