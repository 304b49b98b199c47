//! Commands that have come on admin queues: counted, carried out, and answered, at once or when the reactors that were asked
//! have told what it takes.

use pollux_reactor::Time;

use crate::spec::Sqe;
use crate::spec::cross_controller_reset::IMMEDIATE_RESET_SUCCESSFUL;
use crate::spec::status::Status;
use crate::target::admin::controller::Controller;
use crate::target::admin::{Handled, command, log_page};
use crate::target::control::quiesce::Reset;
use crate::target::control::{Home, HomeTurn};
use crate::target::io::ControllerKey;
use crate::target::io::message::{IoMessage, ReactorReport};
use crate::target::status::QpairCounters;

impl Home {
    /// Counts a command that has come.
    pub(super) fn note_admin_command(&mut self, key: ControllerKey, now: Time) {
        if let Some(controller) = self.controllers.get_mut(&key) {
            controller.note_command(now);
        }
    }

    /// Carries out a command and queues the answer.
    pub(super) fn admin_command(
        &mut self,
        key: ControllerKey,
        sqe: &Sqe,
        data: &[u8],
        intact: bool,
        turn: &mut HomeTurn<'_, '_>,
    ) {
        let Some(controller) = self.controllers.get_mut(&key) else {
            return;
        };
        controller.note_command(turn.cx.now());
        let cid = sqe.cid.get();
        let result = if controller.admin.pending.contains(&cid) {
            Err(Status::COMMAND_ID_CONFLICT.with_dnr())
        } else if !intact {
            Err(Status::TRANSIENT_TRANSPORT_ERROR)
        } else {
            command::execute(controller, &self.config, sqe, data)
        };
        match result {
            Ok(Handled::Done(result)) => {
                controller.answer(cid, Status::SUCCESS, result, Vec::new());
            }
            Ok(Handled::Data(data)) => controller.answer(cid, Status::SUCCESS, 0, data),
            Ok(Handled::Later) => {}
            Ok(Handled::KeepAlive) => {
                controller.answer(cid, Status::SUCCESS, 0, Vec::new());
                self.start_keep_alive(key, turn);
            }
            Ok(Handled::Stopped) => {
                controller.answer(cid, Status::SUCCESS, 0, Vec::new());
                self.controller_stopped(key, turn);
            }
            Ok(Handled::Reset(impacted)) => {
                let result = self.reset_another(key, cid, impacted, turn);
                let Some(controller) = self.controllers.get_mut(&key) else {
                    return;
                };
                match result {
                    Ok(Reset::Done) => {
                        let result = IMMEDIATE_RESET_SUCCESSFUL.into();
                        controller.answer(cid, Status::SUCCESS, result, Vec::new());
                    }
                    Ok(Reset::Begun) => {}
                    Err(status) => refuse(controller, sqe, status),
                }
            }
            Ok(Handled::Abort {
                reactor,
                qid,
                cid: aborted,
            }) => {
                let message = IoMessage::Abort {
                    key,
                    qid,
                    cid: aborted,
                    admin_cid: cid,
                };
                turn.links.send_io(reactor, message);
            }
            Ok(Handled::Smart { offset, len }) => {
                controller.deliver_events();
                return self.report(turn, move |home, reports| {
                    home.answer_smart(key, cid, offset, len, &reports);
                });
            }
            Err(status) => refuse(controller, sqe, status),
        }
        if let Some(controller) = self.controllers.get_mut(&key) {
            controller.deliver_events();
        }
    }

    /// Answers Get Log Page for the SMART log.
    fn answer_smart(
        &mut self,
        key: ControllerKey,
        cid: u16,
        offset: u64,
        len: usize,
        reports: &[ReactorReport],
    ) {
        let Some(controller) = self.controllers.get_mut(&key) else {
            return;
        };
        if !controller.admin.pending.remove(&cid) {
            return;
        }
        let mut sum = QpairCounters::default();
        for (of, counters) in reports.iter().flat_map(|r| &r.controllers) {
            if *of == key {
                sum.add(counters);
            }
        }
        let age = controller.last_seen.saturating_since(controller.created);
        let subsystem = self.config.subsystems.get(&controller.subnqn);
        let of = (subsystem, &controller.hostnqn);
        let log = log_page::smart(of, &sum, controller.error_count, age);
        match command::cut(log, offset, len) {
            Ok(data) => controller.answer(cid, Status::SUCCESS, 0, data),
            Err(status) => controller.answer(cid, status, 0, Vec::new()),
        }
        self.due.push(controller.admin.connection);
    }
}

/// A command fails.
fn refuse(controller: &mut Controller, sqe: &Sqe, status: Status) {
    controller.log_error(0, sqe, status);
    controller.answer(sqe.cid.get(), status.with_more(), 0, Vec::new());
}
