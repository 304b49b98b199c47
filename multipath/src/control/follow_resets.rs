//! The steps of Cross-Controller Resets: control asks, reads the log, takes in what is answered (see [`resets`](super::resets)).

use pollux_nvme_tcp::host::{AdminCommand, Outcome, Request};
use pollux_nvme_tcp::spec::cross_controller_reset::IMMEDIATE_RESET_SUCCESSFUL;
use pollux_nvme_tcp::spec::status::Status;
use pollux_reactor::Progress;

use super::journal::Who;
use super::lifecycle::Lifecycle;
use super::member::Member;
use super::resets::{Connection, LOG_LEN, Reset, Step, told_by};
use super::{Control, journal};
use crate::io::ToIo;
use crate::status::PathEventKind;

/// How often a controller that answers with a status that may pass is asked.
const TRIES_MAX: u32 = 8;

impl Control {
    /// Goes on with the resets of controllers that were lost.
    pub(super) fn follow_resets(&mut self) -> Progress {
        if self.shared.resets.wanted == 0 {
            self.shared.resets.answers.clear();
            return Progress::Idle;
        }
        let mut resets = std::mem::take(&mut self.shared.resets);
        let mut progress = Progress::Idle;
        while let Some((number, outcome, data)) = resets.answers.pop_front() {
            progress = Progress::Busy;
            let found = resets.list.iter().position(|reset| reset.awaits(number));
            if let Some(at) = found
                && self.reset_answered(&mut resets.list[at], outcome, &data)
            {
                let reset = resets.list.swap_remove(at);
                self.reset_done(&reset);
            }
        }
        let now = self.shared.now;
        resets.forget_over(now);
        for reset in resets.list.iter_mut().filter(|reset| reset.is_wanted()) {
            progress = progress.or(self.follow_reset(reset));
        }
        resets.count();
        self.shared.resets = resets;
        progress
    }

    fn follow_reset(&mut self, reset: &mut Reset) -> Progress {
        let now = self.shared.now;
        let is_there = |m: &Member, by: Connection| {
            m.lifecycle() == Lifecycle::Live && (m.id, m.incarnation) == by
        };
        if let Some((by, _)) = reset.by
            && !self.members.iter().any(|m| is_there(m, by))
        {
            (reset.by, reset.step) = (None, Step::Wanted(now));
        }
        match reset.step {
            Step::Wanted(at) if now >= at => self.ask_for_reset(reset),
            Step::Pending(at) if now >= at => {
                let number =
                    self.send_for(reset, AdminCommand::cross_controller_reset_log(LOG_LEN));
                reset.step = match number {
                    Some(number) => Step::Reading(number),
                    None => Step::Pending(now + reset.delay()),
                };
                Progress::Busy
            }
            _ => Progress::Idle,
        }
    }

    /// Asks another controller of the subsystem, or the same one connected again.
    fn ask_for_reset(&mut self, reset: &mut Reset) -> Progress {
        let now = self.shared.now;
        if reset.by.is_none() {
            let may_be_asked = |m: &&Member| {
                let connection = (m.id, m.incarnation);
                m.lifecycle() == Lifecycle::Live
                    && m.controller.as_ref().is_some_and(|c| c.resets_others())
                    && connection != reset.lost
                    && !reset.refused.contains(&connection)
            };
            let candidates = self.members.group(&reset.group).filter(may_be_asked);
            let Some(by) = candidates.min_by_key(|m| m.id == reset.lost.0) else {
                return Progress::Idle;
            };
            reset.by = Some(((by.id, by.incarnation), by.transport.addr));
            let by = by.transport.addr;
            self.record_reset(reset, &PathEventKind::ResetAsked { by });
        }
        let request = AdminCommand::cross_controller_reset(reset.impacted);
        reset.step = match self.send_for(reset, request) {
            Some(number) => Step::Asked(number),
            None => Step::Wanted(now + reset.delay()),
        };
        Progress::Busy
    }

    /// Sends an admin command to the controller that is asked. Returns its number.
    fn send_for(&mut self, reset: &Reset, request: Request) -> Option<u64> {
        let ((id, _), _) = reset.by?;
        let number = self.shared.admin_number();
        let controller = self.members.get_mut(id)?.controller.as_mut()?;
        controller.submit(request.with(number)).ok()?;
        Some(number)
    }

    /// Takes in what the controller that was asked has answered. Returns whether the lost one was reset.
    fn reset_answered(&mut self, reset: &mut Reset, outcome: Outcome, data: &[u8]) -> bool {
        let now = self.shared.now;
        let Outcome::Completed { status, result } = outcome else {
            // Whoever was asked is lost as well.
            (reset.by, reset.step) = (None, Step::Wanted(now));
            return false;
        };
        match (reset.step, status.is_success()) {
            (Step::Asked(_), true) => {
                if result & u64::from(IMMEDIATE_RESET_SUCCESSFUL) != 0 {
                    return true;
                }
                reset.tries = 0;
                reset.step = Step::Pending(now + reset.delay());
            }
            (Step::Asked(_), false) => self.reset_refused(reset, status),
            (Step::Reading(_), true) => match told_by(data, reset.impacted) {
                Some(true) => return true,
                Some(false) => {
                    let why = "the reset has failed".into();
                    self.record_refusal(reset, why);
                    reset.refuse(now);
                }
                None => reset.step = Step::Pending(now + reset.delay()),
            },
            // The log may be read another time; the fence has an end of its own.
            (Step::Reading(_), false) => reset.step = Step::Pending(now + reset.delay()),
            _ => reset.step = Step::Wanted(now + reset.delay()),
        }
        false
    }

    fn reset_refused(&mut self, reset: &mut Reset, status: Status) {
        let now = self.shared.now;
        let may_pass = matches!(
            status.code(),
            Status::CROSS_CONTROLLER_RESET_IN_PROGRESS
                | Status::CROSS_CONTROLLER_RESET_LIMIT_EXCEEDED
        ) || (status.is_transient() && reset.tries < TRIES_MAX);
        if status.code() == Status::CROSS_CONTROLLER_RESET_LOG_FULL {
            let read = AdminCommand::cross_controller_reset_log(LOG_LEN);
            if let Some(number) = self.send_for(reset, read) {
                reset.step = Step::Emptying(number);
                return;
            }
        }
        if may_pass {
            reset.step = Step::Wanted(now + reset.delay());
            return;
        }
        self.record_refusal(reset, status.to_string());
        reset.refuse(now);
    }

    /// Nothing of the lost connection can be executed any more.
    fn reset_done(&mut self, reset: &Reset) {
        if let Some((_, by)) = reset.by {
            self.record_reset(reset, &PathEventKind::Reset { by });
        }
        let (controller, incarnation) = reset.lost;
        self.shared.reactors.broadcast(|| ToIo::EndFence {
            controller,
            incarnation,
        });
    }

    fn record_refusal(&mut self, reset: &Reset, why: String) {
        if let Some((_, by)) = reset.by {
            self.record_reset(reset, &PathEventKind::ResetRefused { by, why });
        }
    }

    fn record_reset(&mut self, reset: &Reset, kind: &PathEventKind) {
        journal::reset(Who(&reset.group, reset.transport.addr), kind);
        let now = self.shared.now;
        for &volume in &reset.volumes {
            let path = (reset.lost.0, &reset.transport);
            self.shared.volumes.record(volume, now, path, kind.clone());
        }
    }
}
