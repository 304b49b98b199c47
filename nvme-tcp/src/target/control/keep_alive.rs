//! The keep-alive timers of controllers (NVMe Base 2.1, 3.9), and how long reactors may serve a controller.
//!
//! A host that has lost a controller takes it that nothing of it is executed any more 2 x KATO + CQT later: one KATO in which
//! the last Keep Alive that it has sent may still arrive, one until the controller notices that no other follows, and CQT
//! for what has begun. Where a CQT is reported, that is kept by a *lease*: a reactor serves a controller until KATO + CQT/4
//! after its last Keep Alive and no longer, whatever becomes of this reactor meanwhile; both may have stood still, and the
//! other one be the first to run again, with old commands in its sockets and on its disks. Only Keep Alive counts: of other
//! commands a host may have sent many, which the network delivers one by one. That the network brings a Keep Alive late
//! costs another CQT/4 at most; the rest, half of CQT, is left for disks.

use pollux_reactor::Time;

use crate::target::admin::controller::KEEP_ALIVE_GRACE;
use crate::target::control::{Home, HomeTurn};
use crate::target::io::ControllerKey;
use crate::target::io::message::{IoMessage, KEEP_ALIVE_TIMEOUT};
use crate::target::status::Fault;
use crate::target::token;

impl Home {
    /// (Re)starts the keep-alive timer of a controller, which reactors know already.
    pub(in crate::target) fn start_keep_alive(
        &mut self,
        key: ControllerKey,
        turn: &mut HomeTurn<'_, '_>,
    ) {
        // What starts the timer came over the controller's own admin queue.
        #[expect(
            clippy::expect_used,
            reason = "an admin queue goes with its controller"
        )]
        let controller = self
            .controllers
            .get_mut(&key)
            .expect("a controller that is gone was kept alive");
        if let Some(timer) = controller.keep_alive.timer.take() {
            turn.cx.cancel_timer(timer);
        }
        controller.keep_alive.since = turn.cx.now();
        controller.keep_alive.in_grace = false;
        if let Some(timeout) = controller.keep_alive_timeout() {
            let token = token::of(token::KEEP_ALIVE, controller.key.0);
            let timer = turn.cx.set_timer(turn.cx.now() + timeout, token);
            controller.keep_alive.timer = Some(timer);
        }
        self.send_lease(key, turn);
    }

    /// Tells the reactors how long they may serve a controller.
    fn send_lease(&self, key: ControllerKey, turn: &mut HomeTurn<'_, '_>) {
        let controller = self.controllers.get(&key);
        let Some(controller) = controller.filter(|c| !c.is_discovery()) else {
            return;
        };
        let lease = controller.lease();
        for reactor in 0..turn.links.reactors() {
            turn.links.send_io(reactor, IoMessage::Lease { key, lease });
        }
    }

    pub(super) fn check_keep_alive(&mut self, key: ControllerKey, turn: &mut HomeTurn<'_, '_>) {
        let Some(controller) = self.controllers.get_mut(&key) else {
            return;
        };
        controller.keep_alive.timer = None;
        let (now, lease) = (turn.cx.now(), controller.lease());
        // Where nothing is promised, a host lives as long as it says anything.
        if let Some(timeout) = controller.keep_alive_timeout()
            && lease == Time::MAX
            && now < controller.last_seen + timeout
        {
            let token = token::of(token::KEEP_ALIVE, key.0);
            let timer = turn.cx.set_timer(controller.last_seen + timeout, token);
            controller.keep_alive.timer = Some(timer);
            controller.keep_alive.in_grace = false;
            return;
        }
        if !controller.keep_alive.in_grace && now < lease {
            controller.keep_alive.in_grace = true;
            let token = token::of(token::KEEP_ALIVE, key.0);
            let end = lease.min(now + KEEP_ALIVE_GRACE);
            controller.keep_alive.timer = Some(turn.cx.set_timer(end, token));
            return;
        }
        let fault = Fault {
            at: now,
            peer: controller.admin.peer,
            qid: Some(0),
            reason: KEEP_ALIVE_TIMEOUT,
        };
        self.note_fault(fault);
        self.close_controller(key, turn);
    }
}
