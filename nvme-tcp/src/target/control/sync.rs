//! What needs all reactors: an answer that may only be given when every one of them has taken a change in, and sums
//! over all of them.

use std::time::Duration;

use crate::spec::status::Status;
use crate::target::admin::log_page;
use crate::target::control::Home;
use crate::target::control::HomeTurn;
use crate::target::control::request::{Reply, TargetReply};
use crate::target::error::TargetError;
use crate::target::io::ControllerKey;
use crate::target::io::channels::Scope;
use crate::target::io::message::{IoMessage, ReactorReport};
use crate::target::status::QpairCounters;
use crate::target::token;
use pollux_reactor::Part;

impl Home {
    /// Asks every reactor: `message` makes the message that brings it its part, `then` is done with the answers.
    fn ask<A: Send + 'static>(
        &mut self,
        message: impl Fn(Part<A>) -> IoMessage,
        then: impl FnOnce(&mut Home, Vec<A>) + Send + 'static,
        turn: &mut HomeTurn<'_, '_>,
    ) {
        let parts = self.gather.ask(turn.links.reactors(), then);
        for (reactor, part) in parts.into_iter().enumerate() {
            turn.links.send_io(reactor, message(part));
        }
    }

    /// Does `then` once every reactor has taken in all that was sent to it so far.
    pub(in crate::target) fn sync(
        &mut self,
        turn: &mut HomeTurn<'_, '_>,
        then: impl FnOnce(&mut Home) + Send + 'static,
    ) {
        self.ask(IoMessage::Sync, |home, _| then(home), turn);
    }

    /// Does `then` with what every reactor has to tell, in their order.
    pub(in crate::target) fn report(
        &mut self,
        turn: &mut HomeTurn<'_, '_>,
        then: impl FnOnce(&mut Home, Vec<ReactorReport>) + Send + 'static,
    ) {
        self.ask(IoMessage::Report, then, turn);
    }

    /// Answers a removal once every reactor has taken it in and nothing that was in flight for what is gone, and is within
    /// `scope`, can execute any more; with an error if that takes longer than `limit`, and the removal goes on. An answer
    /// that it is gone already waits as well: who hears it may use the disk for something else.
    pub(in crate::target) fn sync_removal(
        &mut self,
        reply: Reply,
        answer: Result<TargetReply, TargetError>,
        (scope, limit): (Scope, Option<Duration>),
        turn: &mut HomeTurn<'_, '_>,
    ) {
        let removal = self.new_id();
        self.removals.insert(removal, reply);
        let then = move |home: &mut Home, _| {
            if let Some(reply) = home.removals.remove(&removal) {
                reply(answer);
            }
        };
        let message = |part| IoMessage::AwaitRemoval(scope.clone(), part);
        self.ask(message, then, turn);
        if let Some(limit) = limit {
            let at = turn.cx.now() + limit;
            turn.cx.set_timer(at, token::of(token::REMOVAL, removal));
        }
    }

    /// The time for a removal is over.
    pub(in crate::target) fn removal_overdue(&mut self, removal: u64) {
        if let Some(reply) = self.removals.remove(&removal) {
            reply(Err(TargetError::Timeout));
        }
    }

    /// Answers Get Log Page for the SMART log.
    pub(in crate::target) fn answer_smart(
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
        let subsystem = self.subsystems.get(&controller.subnqn);
        let log = log_page::smart(subsystem, &sum, controller.error_count, age);
        match crate::target::admin::command::cut(log, offset, len) {
            Ok(data) => controller.answer(cid, Status::SUCCESS, 0, data),
            Err(status) => controller.answer(cid, status, 0, Vec::new()),
        }
        self.due.push(controller.admin.connection);
    }
}
