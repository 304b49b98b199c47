//! The part of every target service that serves I/O queues: what one reactor knows of controllers and
//! namespaces, and the queues that were given to it.

use std::collections::BTreeMap;

use pollux_reactor::Progress;

use super::Turn;
use super::connection::End;
use super::io_command::Namespaces;
use super::io_queue::IoQueue;
use super::message::{ControllerKey, HomeMessage, IoMessage, ReactorReport};
use super::staging::StagingPool;
use super::status::{Fault, QpairCounters, ReactorStatus};

/// One controller on this reactor.
#[derive(Debug, Default)]
struct IoController {
    namespaces: Namespaces,
    queues: Vec<IoQueue>,
    /// Of queues that are closed.
    closed: QpairCounters,
}

/// The I/O part.
#[derive(Debug)]
pub(super) struct IoPart {
    reactor: usize,
    controllers: BTreeMap<ControllerKey, IoController>,
    pool: StagingPool,
    /// Queues that ended in this turn, by connection.
    ended: Vec<(ControllerKey, u64, End)>,
    /// I/O queues since the start.
    qpairs: u64,
    /// Of queues that are closed.
    closed: QpairCounters,
    closed_staging_waits: u64,
    /// Place of the queue that was served last, counted from 1 in the order in which they are kept.
    served: usize,
}

impl IoPart {
    pub(super) fn new(reactor: usize) -> Self {
        Self {
            reactor,
            controllers: BTreeMap::new(),
            pool: StagingPool::default(),
            ended: Vec::new(),
            qpairs: 0,
            closed: QpairCounters::default(),
            closed_staging_waits: 0,
            served: 0,
        }
    }

    pub(super) fn on_message(&mut self, message: IoMessage, turn: &mut Turn<'_, '_>) {
        match message {
            IoMessage::Open { key } => {
                self.controllers.insert(key, IoController::default());
            }
            IoMessage::Namespace { key, nsid, view } => {
                if let Some(controller) = self.controllers.get_mut(&key) {
                    controller.namespaces.set(nsid, view);
                }
            }
            IoMessage::Adopt { key, mut queue } => {
                // The controller may be gone by now; then so is its queue.
                if let Some(controller) = self.controllers.get_mut(&key)
                    && turn.cx.net().adopt(&mut queue.conn.stream).is_ok()
                {
                    if self.qpairs == 0 {
                        self.pool = StagingPool::new();
                    }
                    self.qpairs += 1;
                    controller.queues.push(*queue);
                }
            }
            IoMessage::CloseQueues { key } => {
                if let Some(controller) = self.controllers.get_mut(&key) {
                    for queue in std::mem::take(&mut controller.queues) {
                        let counters = self.bury(queue, End::Closed, turn);
                        if let Some(controller) = self.controllers.get_mut(&key) {
                            controller.closed.add(&counters);
                        }
                    }
                }
            }
            IoMessage::Close { key } => {
                if let Some(controller) = self.controllers.remove(&key) {
                    for queue in controller.queues {
                        self.bury(queue, End::Closed, turn);
                    }
                }
            }
            IoMessage::Abort {
                key,
                qid,
                cid,
                admin_cid,
            } => {
                let aborted = self
                    .controllers
                    .get_mut(&key)
                    .and_then(|c| c.queues.iter_mut().find(|q| q.qid == qid))
                    .is_some_and(|q| q.abort(cid));
                turn.links.send_home(HomeMessage::Aborted {
                    key,
                    admin_cid,
                    aborted,
                });
            }
            IoMessage::Sync { token, report } => {
                let report = report.then(|| Box::new(self.report()));
                turn.links.send_home(HomeMessage::Synced { token, report });
            }
        }
    }

    /// Serves the queues in turn, up to the first that has something to do: what else runs on this reactor
    /// waits for one queue, not for all of them.
    #[inline]
    pub(super) fn poll(&mut self, turn: &mut Turn<'_, '_>) -> Progress {
        // Those behind the one that was served last, then the others.
        let last = self.served;
        let mut progress = self.serve(|place| place > last, turn);
        if progress == Progress::Idle && last > 0 {
            progress = self.serve(|place| place <= last, turn);
        }
        while let Some((key, connection, end)) = self.ended.pop() {
            self.end(key, connection, end, turn);
            progress = Progress::Busy;
        }
        progress
    }

    /// Serves queues, of those whose places are `wanted`, until one had something to do.
    #[inline]
    fn serve(&mut self, wanted: impl Fn(usize) -> bool, turn: &mut Turn<'_, '_>) -> Progress {
        let mut place = 0;
        for (&key, controller) in &mut self.controllers {
            for queue in &mut controller.queues {
                place += 1;
                if !wanted(place) {
                    continue;
                }
                match queue.poll(&controller.namespaces, &mut self.pool, turn.cx) {
                    Ok(Progress::Idle) => {}
                    Ok(Progress::Busy) => {
                        self.served = place;
                        return Progress::Busy;
                    }
                    Err(end) => self.ended.push((key, queue.conn.id, end)),
                }
            }
        }
        Progress::Idle
    }

    /// A queue has ended by itself.
    #[cold]
    fn end(&mut self, key: ControllerKey, connection: u64, end: End, turn: &mut Turn<'_, '_>) {
        let Some(controller) = self.controllers.get_mut(&key) else {
            return;
        };
        let Some(at) = controller
            .queues
            .iter()
            .position(|q| q.conn.id == connection)
        else {
            return;
        };
        let queue = controller.queues.swap_remove(at);
        controller.closed.add(&queue.counters);
        let reason = match end {
            End::Fault(reason) => Some(reason),
            End::Terminated => Some("host sent H2CTermReq"),
            End::Closed | End::Disconnected => None,
        };
        turn.links.send_home(HomeMessage::QueueClosed {
            key,
            qid: queue.qid,
            connection: queue.conn.id,
            fault: reason.map(|reason| Fault {
                at: turn.cx.now(),
                peer: queue.conn.peer,
                qid: Some(queue.qid),
                reason,
            }),
        });
        self.bury(queue, end, turn);
    }

    /// Takes a queue apart. Returns its counters.
    fn bury(&mut self, mut queue: IoQueue, end: End, turn: &mut Turn<'_, '_>) -> QpairCounters {
        queue.release(&mut self.pool, turn.cx);
        let counters = queue.counters;
        self.closed.add(&counters);
        self.closed_staging_waits += queue.staging_waits();
        turn.lingering.add(queue.conn, end, turn.cx);
        counters
    }

    fn report(&self) -> ReactorReport {
        let mut report = ReactorReport {
            reactor: self.reactor,
            status: ReactorStatus {
                io_qpairs: self.qpairs,
                io: self.closed,
                staging_waits: self.closed_staging_waits,
                ..ReactorStatus::default()
            },
            ..ReactorReport::default()
        };
        for (&key, controller) in &self.controllers {
            let mut sum = controller.closed;
            for queue in &controller.queues {
                sum.add(&queue.counters);
                report.status.io.add(&queue.counters);
                report.status.staging_waits += queue.staging_waits();
                report.qpairs.push((key, queue.status(self.reactor)));
            }
            report.status.current_io_qpairs += controller.queues.len();
            report.controllers.push((key, sum));
        }
        report
    }
}
