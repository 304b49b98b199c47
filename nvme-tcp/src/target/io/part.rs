//! The part of every target service that serves I/O queues: what one reactor knows of controllers and
//! namespaces, and the queues that were given to it.

use std::collections::BTreeMap;
use std::time::Duration;

use pollux_reactor::{Progress, Time};

use crate::target::conn::Turn;
use crate::target::conn::connection::End;
use crate::target::disk::Doorbell;
use crate::target::io::ControllerKey;
use crate::target::io::channels::{Channels, CommandRef, HandedBack};
use crate::target::io::command::{Namespaces, View};
use crate::target::io::message::{
    Authenticated, IoEvent, IoMessage, KEEP_ALIVE_TIMEOUT, NamespaceView, ReactorReport,
};
use crate::target::io::queue::execute::{Authenticate, Serving};
use crate::target::io::queue::{IoQueue, Visit};
use crate::target::io::round::Round;
use crate::target::io::staging::StagingPool;
use crate::target::status::{Fault, QpairCounters, ReactorStatus};
use crate::target::token;

/// Queues that are read in turn without waiting for an edge. That takes about as long as the reactor lets pass
/// between two looks at its events; with more of them the edges are the quicker way.
const HOT_MAX: usize = 64;

/// How often it is looked at whether data that was asked for comes.
const LOOK: Duration = Duration::from_secs(1);

/// One controller on this reactor.
#[derive(Debug)]
struct IoController {
    /// The host's number in the books of the staging memory.
    host: usize,
    namespaces: Namespaces,
    /// Places of its queues.
    queues: Vec<usize>,
    /// When its queues end.
    lease: Time,
    /// Sums over queues that are closed.
    closed: QpairCounters,
}

/// A queue at its place.
#[derive(Debug)]
struct Seat {
    key: ControllerKey,
    /// As in its controller.
    host: usize,
    queue: Box<IoQueue>,
    /// The seat is listed in [`IoPart::polled`].
    is_polled: bool,
}

/// The I/O part.
#[derive(Debug)]
pub(in crate::target) struct IoPart {
    reactor: usize,
    controllers: BTreeMap<ControllerKey, IoController>,
    /// Queues stay at their places, which name them in tokens.
    seats: Vec<Option<Seat>>,
    free: Vec<usize>,
    /// The queues that are polled. All others wait for an edge, a timer or a message and cost nothing until then.
    polled: Round,
    pool: StagingPool,
    channels: Channels,
    /// What disks have answered and is to be passed on.
    answers: Vec<HandedBack>,
    /// When `check_transfers` is to look, if anybody waits for data or memory.
    look_at: Option<Time>,
    /// No lease ends before.
    lease_at: Time,
    /// Connections that were ended because data did not come.
    data_timeouts: u64,
    /// What home is to hear, and what it is to carry out.
    pub(in crate::target) told: Vec<IoEvent>,
    for_home: Vec<Authenticate>,
    /// I/O queues since the start.
    qpairs: u64,
    /// Sums over queues that are closed.
    closed: QpairCounters,
    closed_staging_waits: u64,
}

impl IoPart {
    /// `doorbell`: the way to this reactor for the threads of disks, unless it is simulated.
    pub(in crate::target) fn new(reactor: usize, doorbell: Option<Doorbell>) -> Self {
        Self {
            reactor,
            controllers: BTreeMap::new(),
            seats: Vec::new(),
            free: Vec::new(),
            polled: Round::default(),
            pool: StagingPool::default(),
            channels: Channels::new(reactor, doorbell),
            answers: Vec::new(),
            look_at: None,
            lease_at: Time::MAX,
            data_timeouts: 0,
            told: Vec::new(),
            for_home: Vec::new(),
            qpairs: 0,
            closed: QpairCounters::default(),
            closed_staging_waits: 0,
        }
    }

    pub(in crate::target) fn on_message(&mut self, message: IoMessage, turn: &mut Turn<'_, '_>) {
        match message {
            IoMessage::Open { key, host, owner } => {
                let controller = IoController {
                    host: self.pool.enter(host),
                    namespaces: Namespaces::default(),
                    queues: Vec::new(),
                    lease: Time::MAX,
                    closed: QpairCounters::default(),
                };
                self.channels.enter(key, owner);
                self.controllers.insert(key, controller);
            }
            IoMessage::Lease { key, lease } => {
                if let Some(controller) = self.controllers.get_mut(&key) {
                    controller.lease = lease;
                    self.lease_at = self.lease_at.min(lease);
                }
            }
            IoMessage::Namespace { key, nsid, view } => self.set_view(key, nsid, view, turn),
            IoMessage::Adopt { key, queue } => self.adopt(key, queue, turn),
            IoMessage::CloseQueues { key } => self.close_queues(key, turn),
            IoMessage::Close { key } => {
                self.close_queues(key, turn);
                if let Some(controller) = self.controllers.remove(&key) {
                    self.pool.shares.leave(controller.host);
                    for (_, view) in controller.namespaces.iter() {
                        self.channels.release(view.channel);
                    }
                    self.channels.leave(key);
                }
            }
            IoMessage::DiskAwake { channel } => self.channels.wake(channel),
            IoMessage::Abort {
                key,
                qid,
                cid,
                admin_cid,
            } => {
                let aborted = self.place_of(key, qid).is_some_and(|place| {
                    // The answer is to be sent.
                    self.poll_at(place);
                    self.abort(place, cid, turn.cx.now())
                });
                self.told.push(IoEvent::Aborted {
                    key,
                    admin_cid,
                    aborted,
                });
            }
            IoMessage::Authenticated(answer) => self.authenticated(*answer, turn),
            IoMessage::Sync(part) => part.answer(()),
            IoMessage::AwaitRemoval(scope, part) => self.channels.await_removal(&scope, part),
            IoMessage::AwaitEnd(key, part) => self.channels.await_end(key, part),
            IoMessage::Report(part) => part.answer(self.report(turn.cx.now())),
            IoMessage::ResetCounters(disks, what, part) => {
                self.channels.reset(disks.as_deref(), what);
                part.answer(());
            }
            IoMessage::SetRateLimits { disk, id, limits } => {
                if let Some(at) = self.channels.set_limits(&disk, (id, limits)) {
                    let capabilities = self.channels.capabilities(at);
                    for controller in self.controllers.values_mut() {
                        controller.namespaces.set_capabilities(at, capabilities);
                    }
                }
            }
            IoMessage::Grant { id, slice } => self.channels.granted(id, slice),
            IoMessage::SetHistogram(disk, layout) => self.channels.set_histogram(&disk, layout),
            IoMessage::Histogram(disk, part) => part.answer(self.channels.histogram(&disk)),
        }
        self.tell_home();
    }

    /// Passes on what home says to an authentication, unless the queue has gone meanwhile.
    fn authenticated(&mut self, said: Authenticated, turn: &mut Turn<'_, '_>) {
        let place = self.place_of(said.key, said.qid);
        let seat = place.and_then(|place| Some((place, self.seats.get_mut(place)?.as_mut()?)));
        let Some((place, seat)) = seat.filter(|(_, seat)| seat.queue.conn.id == said.connection)
        else {
            return;
        };
        let queue = &mut seat.queue;
        if let Some((cid, result)) = said.answer {
            queue.authenticated(cid, result, &mut self.pool);
        }
        match said.end {
            None => self.poll_at(place),
            Some(reason) => {
                // The host is told why as far as there is room for that.
                queue.conn.wake(turn.buffers);
                queue.answer_all(&mut self.pool, turn.cx.now());
                self.end(place, End::Fault(reason), turn);
            }
        }
    }

    fn abort(&mut self, place: usize, cid: u16, now: Time) -> bool {
        let Some(Some(seat)) = self.seats.get_mut(place) else {
            return false;
        };
        let Some(controller) = self.controllers.get(&seat.key) else {
            return false;
        };
        let mut serving = Serving {
            namespaces: &controller.namespaces,
            channels: &mut self.channels,
            pool: &mut self.pool,
            for_home: &mut self.for_home,
        };
        seat.queue.abort(cid, &mut serving, now)
    }

    /// What home has not heard of its disks and of authentications.
    fn tell_home(&mut self) {
        if !self.for_home.is_empty() {
            let asked = self.for_home.drain(..).map(IoEvent::Authenticate);
            self.told.extend(asked);
        }
        if std::mem::take(&mut self.channels.changed) {
            self.told.push(IoEvent::DiskChanged);
        }
        if !self.channels.asks.is_empty() {
            let reactor = self.reactor;
            let asked = self.channels.asks.drain(..);
            let asked = asked.map(|(id, ask)| IoEvent::AskSlice { reactor, id, ask });
            self.told.extend(asked);
        }
    }

    /// A controller's view of a namespace is now this one, or gone: then what disks do for its commands comes to an end,
    /// and no data that is still to come is written.
    fn set_view(
        &mut self,
        key: ControllerKey,
        nsid: u32,
        view: Option<NamespaceView>,
        turn: &mut Turn<'_, '_>,
    ) {
        let Some(controller) = self.controllers.get_mut(&key) else {
            return;
        };
        let has_gone = view.is_none();
        let view = view.map(|view| {
            let channel = self.channels.acquire(&view.disk, turn.cx);
            View {
                channel,
                capabilities: self.channels.capabilities(channel),
                block_shift: view.block_shift,
                blocks: view.blocks,
                limits: view.limits,
                ana: view.ana,
            }
        });
        let before = controller.namespaces.set(nsid, view);
        if has_gone {
            for &place in &controller.queues {
                if let Some(Some(seat)) = self.seats.get_mut(place) {
                    seat.queue.disown(nsid);
                }
            }
            self.cancel(|of| of.key == key && of.nsid == nsid, true, turn);
        }
        if let Some(before) = before {
            self.channels.release(before.channel);
        }
    }

    fn cancel(&mut self, of: impl Fn(&CommandRef) -> bool, removed: bool, turn: &mut Turn<'_, '_>) {
        let now = turn.cx.now();
        let pool = (&mut self.pool, now);
        self.channels.cancel(of, removed, &mut self.answers, pool);
        self.pass_on_answers(now);
    }

    /// Passes on what disks have answered to the queues that it is for; they may be gone, and others in their places.
    fn pass_on_answers(&mut self, now: Time) {
        let mut answers = std::mem::take(&mut self.answers);
        for answer in answers.drain(..) {
            let CommandRef {
                queue,
                connection,
                client,
                ..
            } = answer.command;
            match self.seats.get_mut(queue) {
                Some(Some(seat)) if seat.queue.conn.id == connection => {
                    seat.queue.on_answer(answer);
                    self.poll_at(queue);
                }
                _ => self.pool.give(client, answer.data, now),
            }
        }
        self.answers = answers;
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
        self.lease_at = self.lease_at.min(controller.lease);
        let place = self.free.pop().unwrap_or(self.seats.len());
        if place == self.seats.len() {
            self.seats.push(None);
        }
        queue.token = token::of(token::QUEUE, place as u64);
        queue.place = place;
        turn.cx.watch(&mut queue.conn.stream, queue.token);
        queue.client = self.pool.shares.open(controller.host, place);
        controller.queues.push(place);
        let seat = Seat {
            key,
            host: controller.host,
            queue,
            is_polled: false,
        };
        if let Some(empty) = self.seats.get_mut(place) {
            *empty = Some(seat);
        }
        self.poll_at(place);
    }

    fn place_of(&self, key: ControllerKey, qid: u16) -> Option<usize> {
        let mut places = self.controllers.get(&key)?.queues.iter().copied();
        places.find(|&place| self.queue(place).is_some_and(|queue| queue.qid == qid))
    }

    fn queue(&self, place: usize) -> Option<&IoQueue> {
        Some(&self.seats.get(place)?.as_ref()?.queue)
    }

    /// Has the next poll look at the queue that a token names; it may be gone.
    pub(in crate::target) fn wake(&mut self, place: u64) {
        #[expect(clippy::expect_used, reason = "tokens are made of places")]
        self.poll_at(usize::try_from(place).expect("the place of a queue"));
    }

    /// The same for the descriptor of the disk at this place.
    pub(in crate::target) fn wake_disk(&mut self, place: u64) {
        #[expect(clippy::expect_used, reason = "tokens are made of places")]
        self.channels
            .wake(usize::try_from(place).expect("the place of a disk"));
    }

    fn poll_at(&mut self, place: usize) {
        if let Some(Some(seat)) = self.seats.get_mut(place)
            && !seat.is_polled
        {
            seat.is_polled = true;
            self.polled.enter(seat.host, place);
        }
    }

    /// Polls the queues that may have something to do, up to the first that has: what else runs on this
    /// reactor waits for one queue, not for all of them.
    #[inline]
    pub(in crate::target) fn poll(&mut self, turn: &mut Turn<'_, '_>) -> Progress {
        let mut progress = Progress::Idle;
        if turn.cx.now() >= self.lease_at {
            self.end_leases(turn);
        }
        if self.look_at.is_some_and(|at| turn.cx.now() >= at) {
            self.check_transfers(turn);
        }
        if self
            .channels
            .poll(&mut self.answers, &mut self.pool, turn.cx)
        {
            self.pass_on_answers(turn.cx.now());
            progress = Progress::Busy;
        }
        progress = progress.or(self.poll_queues(turn));
        self.tell_home();
        while let Some(place) = self.pool.shares.next_woken() {
            self.poll_at(place);
            progress = Progress::Busy;
        }
        let is_needed = self.pool.awaited > 0 || self.pool.shares.is_waited_for();
        if self.look_at.is_none() && is_needed {
            self.look_at = Some(turn.cx.now() + LOOK);
        }
        progress
    }

    /// When it is to be polled even if nothing wakes it.
    pub(in crate::target) fn deadline(&self) -> Option<Time> {
        let lease = Some(self.lease_at).filter(|&at| at < Time::MAX);
        let times = lease.into_iter().chain(self.look_at);
        times.chain(self.channels.deadline()).min()
    }

    /// Ends the queues of controllers whose leases are over, before anything that has come for them is looked at.
    #[cold]
    fn end_leases(&mut self, turn: &mut Turn<'_, '_>) {
        let now = turn.cx.now();
        let over = self.controllers.values().filter(|c| c.lease <= now);
        let places: Vec<usize> = over.flat_map(|c| c.queues.clone()).collect();
        for place in places {
            self.end(place, End::Overdue(KEEP_ALIVE_TIMEOUT), turn);
        }
        // Home closes controllers whose leases are over, or tells of other ones.
        let later = self.controllers.values().map(|c| c.lease);
        let next = later.filter(|&lease| lease > now).min();
        self.lease_at = next.unwrap_or(Time::MAX);
    }

    /// Looks whether data that was asked for comes, and ends connections whose data does not.
    #[cold]
    fn check_transfers(&mut self, turn: &mut Turn<'_, '_>) {
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

    /// The reactor is about to sleep: what is polled in every turn is not polled any more until there is an edge.
    pub(in crate::target) fn before_sleep(&mut self) {
        for place in self.polled.places() {
            if let Some(Some(seat)) = self.seats.get_mut(place) {
                seat.queue.want_edges();
            }
        }
    }

    /// Visits hosts in turn, and of each its queues in turn, up to the first that has something to do.
    #[inline]
    fn poll_queues(&mut self, turn: &mut Turn<'_, '_>) -> Progress {
        let mut progress = Progress::Idle;
        for _ in 0..self.polled.hosts() {
            let Some(host) = self.polled.next_host() else {
                break;
            };
            for _ in 0..self.polled.queues_of(host) {
                let Some(place) = self.polled.next_of(host) else {
                    break;
                };
                match self.visit(place, turn) {
                    Ok(Progress::Busy) => return Progress::Busy,
                    Ok(Progress::Idle) => {}
                    Err(end) => {
                        self.end(place, end, turn);
                        progress = Progress::Busy;
                    }
                }
            }
        }
        progress
    }

    /// Polls one queue, and has it rest if it need not be polled again before something happens to it.
    #[inline]
    fn visit(&mut self, place: usize, turn: &mut Turn<'_, '_>) -> Result<Progress, End> {
        // The connections of one host need no protection from each other: short visits would cost it a tenth of its speed.
        let visit = match self.polled.hosts() {
            1 => Visit::ALONE,
            _ => Visit::AMONG_OTHERS,
        };
        let seat = self.seats.get_mut(place).and_then(Option::as_mut);
        let found = seat.and_then(|seat| Some((self.controllers.get(&seat.key)?, seat)));
        // A queue goes out of the round when it ends, and all queues of a controller before it.
        let Some((controller, seat)) = found else {
            debug_assert!(false, "a queue that is polled has gone");
            return Ok(Progress::Idle);
        };
        seat.queue.conn.wake(turn.buffers);
        let mut serving = Serving {
            namespaces: &controller.namespaces,
            channels: &mut self.channels,
            pool: &mut self.pool,
            for_home: &mut self.for_home,
        };
        let found = seat.queue.poll(visit, &mut serving, turn.cx)?;
        // What was set aside for a queue that can make no use of it goes to others.
        if seat.queue.conn.is_blocked() {
            let client = seat.queue.client;
            self.pool.shares.withdraw(client, turn.cx.now());
        }
        let crowded = self.polled.len() > HOT_MAX;
        if found == Progress::Idle && seat.queue.may_rest(crowded, turn.cx.now()) {
            seat.is_polled = false;
            seat.queue.conn.rest(turn.buffers);
            self.polled.leave(seat.host, place);
        }
        Ok(found)
    }

    /// A queue has ended by itself.
    #[cold]
    fn end(&mut self, place: usize, end: End, turn: &mut Turn<'_, '_>) {
        let Some(Seat { key, queue, .. }) = self.remove(place) else {
            return;
        };
        self.told.push(IoEvent::QueueClosed {
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
            self.polled.leave(seat.host, place);
        }
        if let Some(controller) = self.controllers.get_mut(&seat.key) {
            controller.queues.retain(|&at| at != place);
            controller.closed.add(&seat.queue.counters);
        }
        Some(seat)
    }

    /// Takes a queue apart.
    fn bury(&mut self, mut queue: Box<IoQueue>, end: End, turn: &mut Turn<'_, '_>) {
        // The queue has left its place, so that its buffers go back to the pool.
        let connection = queue.conn.id;
        self.cancel(|of| of.connection == connection, false, turn);
        queue.release(&mut self.pool, turn.cx.now());
        self.closed.add(&queue.counters);
        self.closed_staging_waits += queue.staging_waits();
        turn.lingering.add(queue.conn, end, turn.buffers, turn.cx);
    }

    fn report(&mut self, now: Time) -> ReactorReport {
        let mut report = ReactorReport {
            at: now,
            disks: self.channels.disks().collect(),
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
