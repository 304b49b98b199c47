//! The part of every target service that serves I/O queues: what one reactor knows of controllers and
//! namespaces, and the queues that were given to it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use pollux_reactor::{Part, Progress, Time};

use super::connection::End;
use super::io_command::Namespaces;
use super::io_job::Helpers;
use super::io_queue::IoQueue;
use super::message::{ControllerKey, HomeMessage, IoMessage, ReactorReport};
use super::staging::StagingPool;
use super::status::{Fault, QpairCounters, ReactorStatus};
use super::{Turn, token};
use crate::spec::Sqe;
use crate::spec::status::Status;

/// Queues that are read in turn without waiting for an edge. That takes about as long as the reactor lets pass
/// between two looks at its events; with more of them the edges are the quicker way.
const HOT_MAX: usize = 64;

/// How often it is looked at whether data that was asked for comes.
const LOOK: Duration = Duration::from_secs(1);

/// One controller on this reactor.
#[derive(Debug)]
struct IoController {
    /// Its host's number in the books of the staging memory.
    host: usize,
    namespaces: Namespaces,
    /// Places of its queues.
    queues: Vec<usize>,
    /// Of queues that are closed.
    closed: QpairCounters,
}

/// A queue at its place.
#[derive(Debug)]
struct Seat {
    key: ControllerKey,
    queue: Box<IoQueue>,
    /// Its place is in [`IoPart::polled`].
    is_polled: bool,
}

/// A command that a disk still works for although nobody waits for it any more: connection and command identifier.
type Stopping = (u64, u16);

/// The I/O part.
#[derive(Debug)]
pub(super) struct IoPart {
    reactor: usize,
    helpers: Helpers,
    controllers: BTreeMap<ControllerKey, IoController>,
    /// Queues stay at their places, which name them in tokens.
    seats: Vec<Option<Seat>>,
    free: Vec<usize>,
    /// Places of the queues that are polled, the next one first. All others wait for an edge, a timer or a
    /// message and cost nothing until then.
    polled: VecDeque<usize>,
    pool: StagingPool,
    /// What was in flight on disks for queues and namespaces that are gone, with the number of answers that are
    /// missing. It may touch the disk until then.
    stopping: BTreeMap<Stopping, usize>,
    /// Removals that are answered when these have stopped.
    removals: Vec<(Part<()>, BTreeSet<Stopping>)>,
    /// When `check_transfers` is to look, if its timer is set.
    look_at: Option<Time>,
    /// Connections that were ended because data did not come.
    data_timeouts: u64,
    /// I/O queues since the start.
    qpairs: u64,
    /// Of queues that are closed.
    closed: QpairCounters,
    closed_staging_waits: u64,
}

impl IoPart {
    pub(super) fn new(reactor: usize, helpers: Helpers) -> Self {
        Self {
            reactor,
            helpers,
            controllers: BTreeMap::new(),
            seats: Vec::new(),
            free: Vec::new(),
            polled: VecDeque::new(),
            pool: StagingPool::default(),
            stopping: BTreeMap::new(),
            removals: Vec::new(),
            look_at: None,
            data_timeouts: 0,
            qpairs: 0,
            closed: QpairCounters::default(),
            closed_staging_waits: 0,
        }
    }

    pub(super) fn on_message(&mut self, message: IoMessage, turn: &mut Turn<'_, '_>) {
        match message {
            IoMessage::Open { key, host } => {
                let controller = IoController {
                    host: self.pool.enter(host),
                    namespaces: Namespaces::default(),
                    queues: Vec::new(),
                    closed: QpairCounters::default(),
                };
                self.controllers.insert(key, controller);
            }
            IoMessage::Namespace { key, nsid, view } => {
                if view.is_none() {
                    self.end_commands(key, nsid);
                }
                if let Some(controller) = self.controllers.get_mut(&key) {
                    controller.namespaces.set(nsid, view);
                }
            }
            IoMessage::Adopt { key, queue } => self.adopt(key, queue, turn),
            IoMessage::CloseQueues { key } => self.close_queues(key, turn),
            IoMessage::Close { key } => {
                self.close_queues(key, turn);
                if let Some(controller) = self.controllers.remove(&key) {
                    self.pool.shares.leave(controller.host);
                }
            }
            IoMessage::JobDone {
                token,
                connection,
                cid,
                result,
            } => self.job_done((token, connection, cid), result, turn),
            IoMessage::Abort {
                key,
                qid,
                cid,
                admin_cid,
            } => {
                let aborted = self.place_of(key, qid).is_some_and(|place| {
                    // Its answer is to be sent.
                    self.poll_at(place);
                    let seat = self.seats.get_mut(place).and_then(Option::as_mut);
                    let (pool, now) = (&mut self.pool, turn.cx.now());
                    seat.is_some_and(|seat| seat.queue.abort(cid, pool, now))
                });
                turn.links.send_home(HomeMessage::Aborted {
                    key,
                    admin_cid,
                    aborted,
                });
            }
            IoMessage::Sync(part) => part.answer(()),
            IoMessage::AwaitRemovals(part) if self.stopping.is_empty() => part.answer(()),
            IoMessage::AwaitRemovals(part) => {
                let commands = self.stopping.keys().copied().collect();
                self.removals.push((part, commands));
            }
            IoMessage::Report(part) => part.answer(self.report(turn.cx.now())),
        }
    }

    fn adopt(&mut self, key: ControllerKey, mut queue: Box<IoQueue>, turn: &mut Turn<'_, '_>) {
        // The controller may be gone by now; then so is its queue.
        let Some(controller) = self.controllers.get_mut(&key) else {
            return;
        };
        if turn.cx.net().adopt(&mut queue.conn.stream).is_err() {
            return;
        }
        self.qpairs += 1;
        let place = self.free.pop().unwrap_or(self.seats.len());
        if place == self.seats.len() {
            self.seats.push(None);
        }
        queue.token = token::of(token::QUEUE, place as u64);
        queue.helpers = self.helpers.clone();
        turn.cx.watch(&mut queue.conn.stream, queue.token);
        queue.client = self.pool.shares.open(controller.host, place);
        controller.queues.push(place);
        let seat = Seat {
            key,
            queue,
            is_polled: false,
        };
        if let Some(empty) = self.seats.get_mut(place) {
            *empty = Some(seat);
        }
        self.poll_at(place);
    }

    /// A disk has done a task for a command; its queue may be gone, and another in its place.
    fn job_done(
        &mut self,
        (token, connection, cid): (u64, u64, u16),
        result: Result<(), Status>,
        turn: &mut Turn<'_, '_>,
    ) {
        if result == Err(Status::WRITE_FAULT.with_dnr()) {
            turn.links.send_home(HomeMessage::DiskFailed);
        }
        self.stopped((connection, cid));
        let (_, place) = token::split(token);
        let at = usize::try_from(place).unwrap_or(usize::MAX);
        if let Some(Some(seat)) = self.seats.get_mut(at)
            && seat.queue.conn.id == connection
            && seat.queue.job_done(cid, result)
        {
            self.wake(place);
        }
    }

    /// A disk has answered for a command; if nobody waited for that but a removal, it may be over now.
    fn stopped(&mut self, command: Stopping) {
        let Some(missing) = self.stopping.get_mut(&command) else {
            return;
        };
        *missing -= 1;
        if *missing > 0 {
            return;
        }
        self.stopping.remove(&command);
        let is_over = |(_, commands): &mut (_, BTreeSet<Stopping>)| {
            commands.remove(&command);
            commands.is_empty()
        };
        for (part, _) in self.removals.extract_if(.., is_over) {
            part.answer(());
        }
    }

    /// A namespace is going away: what its disk does for the controller's commands comes to an end, and no data that
    /// is still to come is written.
    fn end_commands(&mut self, key: ControllerKey, nsid: u32) {
        let places = self.controllers.get(&key).map(|c| c.queues.clone());
        for place in places.unwrap_or_default() {
            if let Some(Some(seat)) = self.seats.get_mut(place) {
                seat.queue.disown_data(nsid);
                let of = |sqe: &Sqe| sqe.nsid.get() == nsid;
                Self::cancel(&mut self.stopping, &seat.queue, of);
            }
        }
    }

    /// Cancels what a queue has in flight on disks, and notes what may still execute.
    fn cancel(
        stopping: &mut BTreeMap<Stopping, usize>,
        queue: &IoQueue,
        of: impl Fn(&Sqe) -> bool,
    ) {
        for (cid, missing) in queue.cancel_jobs(of) {
            stopping.insert((queue.conn.id, cid), missing);
        }
    }

    fn place_of(&self, key: ControllerKey, qid: u16) -> Option<usize> {
        let mut places = self.controllers.get(&key)?.queues.iter().copied();
        places.find(|&place| self.queue(place).is_some_and(|queue| queue.qid == qid))
    }

    fn queue(&self, place: usize) -> Option<&IoQueue> {
        Some(&self.seats.get(place)?.as_ref()?.queue)
    }

    /// Has the next poll look at the queue that a token names; it may be gone.
    pub(super) fn wake(&mut self, place: u64) {
        self.poll_at(usize::try_from(place).unwrap_or(usize::MAX));
    }

    fn poll_at(&mut self, place: usize) {
        if let Some(Some(seat)) = self.seats.get_mut(place)
            && !seat.is_polled
        {
            seat.is_polled = true;
            self.polled.push_back(place);
        }
    }

    /// Polls the queues that may have something to do, up to the first that has: what else runs on this
    /// reactor waits for one queue, not for all of them.
    #[inline]
    pub(super) fn poll(&mut self, turn: &mut Turn<'_, '_>) -> Progress {
        let mut progress = self.poll_queues(turn);
        while let Some(place) = self.pool.shares.next_woken() {
            self.poll_at(place);
            progress = Progress::Busy;
        }
        if self.look_at.is_none() && self.pool.held() > 0 {
            let at = turn.cx.now() + LOOK;
            turn.cx.set_timer(at, token::of(token::STAGING, 0));
            self.look_at = Some(at);
        }
        progress
    }

    /// Looks whether data that was asked for comes, and ends connections whose data does not.
    pub(super) fn check_transfers(&mut self, turn: &mut Turn<'_, '_>) {
        let now = turn.cx.now();
        let late = self.look_at.take().map(|at| now.saturating_since(at));
        if late.is_none_or(|late| late > LOOK) {
            // The reactor stood still: what has come meanwhile is still to be read.
            return;
        }
        for place in 0..self.seats.len() {
            let Some(Some(seat)) = self.seats.get_mut(place) else {
                continue;
            };
            let contended = self.pool.shares.is_contended(seat.queue.client);
            if let Err(end) = seat.queue.check_transfers(contended, now) {
                self.data_timeouts += 1;
                self.end(place, end, turn);
            }
        }
    }

    #[inline]
    fn poll_queues(&mut self, turn: &mut Turn<'_, '_>) -> Progress {
        let mut progress = Progress::Idle;
        for _ in 0..self.polled.len() {
            let crowded = self.polled.len() > HOT_MAX;
            let Some(place) = self.polled.pop_front() else {
                break;
            };
            let seat = self.seats.get_mut(place).and_then(Option::as_mut);
            let found = seat.and_then(|seat| Some((self.controllers.get(&seat.key)?, seat)));
            // A queue goes out of the list when it ends, and all queues of a controller before it.
            let Some((controller, seat)) = found else {
                debug_assert!(false, "a queue that is polled has gone");
                continue;
            };
            seat.queue.conn.wake(turn.buffers);
            match seat
                .queue
                .poll(&controller.namespaces, &mut self.pool, turn.cx)
            {
                Ok(found) => {
                    // What was set aside for a queue that can make no use of it goes to others.
                    if seat.queue.conn.is_blocked() {
                        let client = seat.queue.client;
                        self.pool.shares.withdraw(client, turn.cx.now());
                    }
                    if found == Progress::Idle && seat.queue.may_rest(crowded, turn.cx.now()) {
                        seat.is_polled = false;
                        seat.queue.conn.rest(turn.buffers);
                        continue;
                    }
                    self.polled.push_back(place);
                    if found == Progress::Busy {
                        return Progress::Busy;
                    }
                }
                Err(end) => {
                    seat.is_polled = false;
                    self.end(place, end, turn);
                    progress = Progress::Busy;
                }
            }
        }
        progress
    }

    /// A queue has ended by itself.
    #[cold]
    fn end(&mut self, place: usize, end: End, turn: &mut Turn<'_, '_>) {
        let Some(Seat { key, queue, .. }) = self.remove(place) else {
            return;
        };
        turn.links.send_home(HomeMessage::QueueClosed {
            key,
            qid: queue.qid,
            connection: queue.conn.id,
            fault: end.reason().map(|reason| Fault {
                at: turn.cx.now(),
                peer: queue.conn.peer,
                qid: Some(queue.qid),
                reason,
            }),
        });
        self.bury(queue, end, turn);
    }

    fn close_queues(&mut self, key: ControllerKey, turn: &mut Turn<'_, '_>) {
        let places = self.controllers.get(&key).map(|c| c.queues.clone());
        for place in places.unwrap_or_default() {
            if let Some(seat) = self.remove(place) {
                self.bury(seat.queue, End::Closed, turn);
            }
        }
    }

    /// Takes a queue from its place.
    fn remove(&mut self, place: usize) -> Option<Seat> {
        let seat = self.seats.get_mut(place)?.take()?;
        self.free.push(place);
        if seat.is_polled {
            self.polled.retain(|&polled| polled != place);
        }
        if let Some(controller) = self.controllers.get_mut(&seat.key) {
            controller.queues.retain(|&at| at != place);
            controller.closed.add(&seat.queue.counters);
        }
        Some(seat)
    }

    /// Takes a queue apart.
    fn bury(&mut self, mut queue: Box<IoQueue>, end: End, turn: &mut Turn<'_, '_>) {
        Self::cancel(&mut self.stopping, &queue, |_| true);
        queue.release(&mut self.pool, turn.cx);
        self.closed.add(&queue.counters);
        self.closed_staging_waits += queue.staging_waits();
        turn.lingering.add(queue.conn, end, turn.buffers, turn.cx);
    }

    fn report(&self, now: Time) -> ReactorReport {
        let mut report = ReactorReport {
            status: ReactorStatus {
                io_qpairs: self.qpairs,
                io: self.closed,
                staging_waits: self.closed_staging_waits,
                staging_held: self.pool.held(),
                staging_longest_wait: self.pool.longest_wait(now),
                data_timeouts: self.data_timeouts,
                ..ReactorStatus::default()
            },
            ..ReactorReport::default()
        };
        for (&key, controller) in &self.controllers {
            let mut sum = controller.closed;
            for queue in controller.queues.iter().filter_map(|&at| self.queue(at)) {
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
