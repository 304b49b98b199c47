//! What a controller does because its time has come: steps, Keep Alive, AERs, aborts, a look at what is overdue.

use pollux_reactor::Time;

use super::keep_alive;
use super::steps::Step;
use super::{Asked, CommandTimeout, Controller, ControllerError, ControllerEvent};
use super::{Stage, StepState, TimeoutAction};
use crate::auth::LOOK_AGAIN;
use crate::host::LOG_FLAG;
use crate::host::admin::AdminCommand;
use crate::host::queue_pair::{Overdue, RejectedReason};

impl<U> Controller<U> {
    /// When it must be polled again at the latest although nothing arrives.
    pub fn deadline(&self) -> Option<Time> {
        if self.stage == Stage::Ended {
            return None;
        }
        let step = match self.step {
            Some((_, StepState::Due(at))) => Some(at.min(self.step_deadline)),
            Some((_, StepState::Sent)) => Some(self.step_deadline),
            None => None,
        };
        let always = [
            step,
            self.keep_alive.deadline(),
            self.admin.deadline(),
            self.faults.as_ref().and_then(|faults| faults.deadline()),
            self.age_at,
            self.authenticate_at,
        ];
        let while_ready = [
            self.aers.deadline(self.known.aerl()),
            self.notices.deadline(),
            self.reread_at,
            self.aborts.deadline(self.known.acl()),
        ];
        let while_ready = while_ready
            .into_iter()
            .filter(|_| self.stage == Stage::Ready);
        always.into_iter().chain(while_ready).flatten().min()
    }

    pub(super) fn do_what_is_due(&mut self, now: Time) -> Result<(), ControllerError> {
        if self.stage == Stage::Ready {
            self.follow_notices(now);
        }
        if self.step.is_none() && self.stage == Stage::Ready {
            if std::mem::take(&mut self.wants_status) {
                self.start_step(Step::Status, now);
            } else if std::mem::take(&mut self.wants_namespaces) {
                // Before the ANA log, which names namespaces that only then are known.
                self.start_step(Step::RESCAN, now);
            } else if std::mem::take(&mut self.wants_ana) {
                self.start_step(Step::ana(&self.known), now);
            }
        }
        self.send_step(now)?;
        if self.authenticate_at.is_some_and(|at| now >= at) {
            self.authenticate_at = match self.admin.go_on_authenticating(now)? {
                true => Some(now + LOOK_AGAIN),
                false => {
                    self.events.push_back(ControllerEvent::Authenticated);
                    None
                }
            };
        }
        match self.keep_alive.due(now) {
            keep_alive::Due::Nothing => {}
            keep_alive::Due::ReadStatus => self.wants_status = true,
            keep_alive::Due::Missed => return Err(ControllerError::KeepAlive),
            keep_alive::Due::Send => {
                if self
                    .send(AdminCommand::keep_alive(), Asked::KeepAlive)
                    .is_ok()
                {
                    self.keep_alive.sent(now);
                }
            }
        }
        if self.stage == Stage::Ready {
            self.arm_events(now);
            self.send_aborts(now);
            return self.age_commands(now);
        }
        Ok(())
    }

    fn send_step(&mut self, now: Time) -> Result<(), ControllerError> {
        let Some((step, state)) = &self.step else {
            return Ok(());
        };
        let name = step.name();
        if matches!(state, StepState::Due(at) if *at <= now) {
            let request = step.request(&self.known);
            match self.send(request, Asked::Step(self.step_number)) {
                Ok(()) => {
                    if let Some((_, state)) = &mut self.step {
                        *state = StepState::Sent;
                    }
                }
                Err(rejected) if rejected.reason == RejectedReason::QueueFull => {}
                Err(_) => return Err(ControllerError::BadData("step cannot be sent")),
            }
        }
        match now >= self.step_deadline {
            true => Err(ControllerError::Timeout(name)),
            false => Ok(()),
        }
    }

    pub(super) fn start_step(&mut self, step: Step, now: Time) {
        (self.polls, self.retries) = (0, 0);
        self.step_number += 1;
        self.ana_reads_begun += u64::from(step.begins_ana_read());
        self.step = Some((step, StepState::Due(now)));
        if self.stage != Stage::Stopping {
            self.step_deadline = now + self.known.options.connect.timeout;
        }
    }

    fn send_aborts(&mut self, now: Time) {
        let acl = self.known.acl();
        while let Some(abort) = self.aborts.take(acl, now) {
            let request = AdminCommand::abort(abort.queue_id, abort.cid);
            if let Err(rejected) = self.send(request, Asked::Abort(abort)) {
                if let Asked::Abort(abort) = rejected.request.user {
                    self.aborts.unsent(abort);
                }
                break;
            }
        }
    }

    /// Looks for admin commands that are overdue. AERs may take for ever.
    fn age_commands(&mut self, now: Time) -> Result<(), ControllerError> {
        let Some(timeout) = self.known.options.command_timeout else {
            return Ok(());
        };
        if self.age_at.is_some_and(|at| now < at) {
            return Ok(());
        }
        self.age_at = Some(now + timeout.tick());
        let mut overdue = 0;
        let mut count = |command: Overdue<'_, Asked<U>>| {
            let is_event = matches!(command.user, Asked::AsyncEvent);
            overdue += usize::from(!is_event && !command.again);
        };
        self.admin.age(CommandTimeout::TICKS, &mut count);
        if let Some(faults) = &mut self.faults {
            faults.age(CommandTimeout::TICKS, &mut count);
        }
        if overdue == 0 {
            return Ok(());
        }
        // No other queue exists to abort an admin command by.
        match timeout.action {
            TimeoutAction::None => {
                self.events.push_back(ControllerEvent::Overdue(overdue));
                Ok(())
            }
            TimeoutAction::Abort | TimeoutAction::Reset => Err(ControllerError::CommandTimeout),
        }
    }

    /// Keeps AERs outstanding (rule B3.2). A controller that announces faster than what it announces is read waits
    /// for its AERs until that is done, so that a storm does not cost a core.
    fn arm_events(&mut self, now: Time) {
        let aerl = self.known.aerl();
        while !self.notices.is_waiting() && self.aers.wants_more(aerl, now) {
            let request = AdminCommand::async_event_request();
            if self.send(request, Asked::AsyncEvent).is_err() {
                break;
            }
            let was_deaf = self.aers.deadline(aerl).is_some();
            self.aers.sent();
            if was_deaf {
                // What happened while none was outstanding may never be announced.
                self.notices.note(now, |wanted| {
                    wanted.ana = true;
                    wanted.namespaces = true;
                    wanted.discovery = true;
                    wanted.resets = true;
                });
            }
        }
    }

    /// Begins what notices have asked for, and reads again what could not be read.
    fn follow_notices(&mut self, now: Time) {
        if let Some((wanted, is_storm)) = self.notices.due(now) {
            self.wants_status |= wanted.status;
            self.wants_namespaces |= wanted.namespaces && !self.is_discovery();
            self.wants_ana |= (wanted.ana || wanted.namespaces) && self.reports_ana();
            if wanted.ana {
                self.events.push_back(ControllerEvent::AnaNotice);
            }
            if wanted.discovery && self.is_discovery() {
                self.events.push_back(ControllerEvent::DiscoveryLog);
            }
            if wanted.resets {
                self.events
                    .push_back(ControllerEvent::CrossControllerResetLog);
            }
            if is_storm {
                let remote = self.known.options.connect.remote;
                log::warn!(
                    target: LOG_FLAG,
                    "{remote}: the controller announces changes all the time; they are followed 100 times a second at most"
                );
            }
        }
        if self.reread_at.take_if(|at| now >= *at).is_some() {
            self.wants_namespaces = !self.is_discovery();
            self.wants_ana |= self.reports_ana();
        }
    }
}
