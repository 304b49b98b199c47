//! What needs all reactors: an answer that may only be given when every one of them has taken a change in, and sums
//! over all of them.

use std::time::Duration;

use crate::target::control::Home;
use crate::target::control::HomeTurn;
use crate::target::control::request::{Removed, Reply};
use crate::target::error::TargetError;
use crate::target::io::ControllerKey;
use crate::target::io::channels::Scope;
use crate::target::io::message::{IoMessage, ReactorReport};
use pollux_reactor::{Part, Time};

/// A removal that is not over.
pub(super) struct Removal {
    reply: Reply<Removed>,
    /// When it is answered even if it is not over.
    pub(super) deadline: Option<Time>,
}

impl Home {
    /// Asks every reactor: `message` makes the message that brings it its part, `then` is done with the answers.
    pub(super) fn ask<A: Send + 'static>(
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
        reply: Reply<Removed>,
        answer: Result<Removed, TargetError>,
        (scope, limit): (Scope, Option<Duration>),
        turn: &mut HomeTurn<'_, '_>,
    ) {
        let removal = self.new_id();
        let deadline = limit.map(|limit| turn.cx.now() + limit);
        self.removals.insert(removal, Removal { reply, deadline });
        let then = move |home: &mut Home, _| {
            if let Some(removal) = home.removals.remove(&removal) {
                (removal.reply)(answer);
            }
        };
        let message = |part| IoMessage::AwaitRemoval(scope.clone(), part);
        self.ask(message, then, turn);
    }

    /// Does `then` once nothing that was in flight for a controller whose queues were closed before can execute any more.
    pub(super) fn await_end(
        &mut self,
        key: ControllerKey,
        turn: &mut HomeTurn<'_, '_>,
        then: impl FnOnce(&mut Home) + Send + 'static,
    ) {
        let message = |part| IoMessage::AwaitEnd(key, part);
        self.ask(message, |home, _| then(home), turn);
    }

    /// Answers removals whose time is over.
    #[inline]
    pub(super) fn end_overdue_removals(&mut self, now: Time) {
        if self.removals.is_empty() {
            return;
        }
        let is_overdue =
            |_: &u64, removal: &mut Removal| removal.deadline.is_some_and(|at| now >= at);
        for (_, removal) in self.removals.extract_if(.., is_overdue) {
            (removal.reply)(Err(TargetError::Timeout));
        }
    }
}
