//! The keep-alive timers of controllers (NVMe Base 2.1, 3.9).

use std::time::Duration;

use crate::target::admin::controller::Controller;
use crate::target::control::{Home, HomeTurn};
use crate::target::io::ControllerKey;
use crate::target::status::Fault;
use crate::target::token;

/// Time added to a keep-alive timeout that has passed.
const KEEP_ALIVE_GRACE: Duration = Duration::from_secs(1);

impl Home {
    /// (Re)starts the keep-alive timer of a controller.
    pub(in crate::target) fn start_keep_alive(
        controller: &mut Controller,
        turn: &mut HomeTurn<'_, '_>,
    ) {
        if let Some(timer) = controller.keep_alive.timer.take() {
            turn.cx.cancel_timer(timer);
        }
        if let Some(timeout) = controller.keep_alive_timeout() {
            let token = token::of(token::KEEP_ALIVE, controller.key.0);
            let timer = turn.cx.set_timer(controller.last_seen + timeout, token);
            controller.keep_alive.timer = Some(timer);
        }
    }

    pub(super) fn check_keep_alive(&mut self, key: ControllerKey, turn: &mut HomeTurn<'_, '_>) {
        let Some(controller) = self.controllers.get_mut(&key) else {
            return;
        };
        controller.keep_alive.timer = None;
        let Some(timeout) = controller.keep_alive_timeout() else {
            return;
        };
        if turn.cx.now() < controller.last_seen + timeout {
            Self::start_keep_alive(controller, turn);
            return;
        }
        if !controller.keep_alive.in_grace {
            controller.keep_alive.in_grace = true;
            let token = token::of(token::KEEP_ALIVE, key.0);
            let timer = turn.cx.set_timer(turn.cx.now() + KEEP_ALIVE_GRACE, token);
            controller.keep_alive.timer = Some(timer);
            return;
        }
        let fault = Fault {
            at: turn.cx.now(),
            peer: controller.admin.peer,
            qid: Some(0),
            reason: "keep-alive timeout",
        };
        self.note_fault(fault);
        self.close_controller(key, turn);
    }
}
