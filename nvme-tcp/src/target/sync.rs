//! Things that need all reactors: an answer that may only be given when every one of them has taken a change
//! in, and sums over all of them.

use std::time::Duration;

use super::home::Home;
use super::log_page;
use super::message::{ControllerKey, IoMessage, ReactorReport};
use super::request::{Reply, TargetError, TargetReply};
use super::status::QpairCounters;
use super::{Turn, token};
use crate::spec::status::Status;

/// What is to happen when every reactor has answered.
pub(super) enum Then {
    /// Answer a request.
    Reply(Reply, Result<TargetReply, TargetError>),
    /// Answer a status request.
    Status(Reply),
    /// Answer Get Log Page for the SMART log.
    Smart {
        key: ControllerKey,
        cid: u16,
        offset: u64,
        len: usize,
    },
}

/// Waits for all reactors.
pub(super) struct Pending {
    missing: usize,
    reports: Vec<ReactorReport>,
    then: Then,
}

impl Home {
    /// Does `then` once every reactor has taken in all that was sent to it so far.
    pub(super) fn sync(&mut self, then: Then, turn: &mut Turn<'_, '_>) {
        self.sync_all(then, false, turn);
    }

    /// Answers a removal once every reactor has taken it in and nothing that was in flight for what is gone can execute
    /// any more; with an error if that takes longer than `limit`, and the removal goes on. An answer that it is gone already
    /// waits as well: who hears it may use the disk for something else.
    pub(super) fn sync_removal(
        &mut self,
        reply: Reply,
        answer: Result<TargetReply, TargetError>,
        limit: Option<Duration>,
        turn: &mut Turn<'_, '_>,
    ) {
        let token = self.sync_all(Then::Reply(reply, answer), true, turn);
        if let Some(limit) = limit {
            let at = turn.cx.now() + limit;
            turn.cx.set_timer(at, token::of(token::REMOVAL, token));
        }
    }

    /// The time for a removal is over.
    pub(super) fn removal_overdue(&mut self, token: u64) {
        if let Some(Pending {
            then: Then::Reply(reply, _),
            ..
        }) = self.syncs.remove(&token)
        {
            reply(Err(TargetError::Timeout));
        }
    }

    fn sync_all(&mut self, then: Then, wait: bool, turn: &mut Turn<'_, '_>) -> u64 {
        let token = self.new_id();
        let report = !matches!(then, Then::Reply(..));
        let missing = turn.links.reactors();
        for reactor in 0..missing {
            turn.links.send_io(
                reactor,
                IoMessage::Sync {
                    token,
                    report,
                    wait,
                },
            );
        }
        self.syncs.insert(
            token,
            Pending {
                missing,
                reports: Vec::new(),
                then,
            },
        );
        token
    }

    pub(super) fn synced(&mut self, token: u64, report: Option<Box<ReactorReport>>) {
        let Some(sync) = self.syncs.get_mut(&token) else {
            return;
        };
        sync.reports.extend(report.map(|r| *r));
        sync.missing -= 1;
        if sync.missing > 0 {
            return;
        }
        let Some(Pending {
            mut reports, then, ..
        }) = self.syncs.remove(&token)
        else {
            return;
        };
        reports.sort_by_key(|r| r.reactor);
        match then {
            Then::Reply(reply, answer) => reply(answer),
            Then::Status(reply) => reply(Ok(TargetReply::Status(Box::new(self.status(reports))))),
            Then::Smart {
                key,
                cid,
                offset,
                len,
            } => self.answer_smart(key, cid, offset, len, &reports),
        }
    }

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
        let subsystem = self.subsystems.get(&controller.subnqn);
        let log = log_page::smart(subsystem, &sum, controller.error_count, age);
        match super::admin::cut(log, offset, len) {
            Ok(data) => controller.answer(cid, Status::SUCCESS, 0, data),
            Err(status) => controller.answer(cid, status, 0, Vec::new()),
        }
        self.due.push(controller.admin.connection);
    }
}
