//! The disks that a reactor has open, and the books of what it has handed to them.
//!
//! A disk is trusted with nothing: what it hands back is looked up here by its name, and counts only if this reactor has
//! handed it to that disk, with that buffer. What is in the books is with a disk; a removal is over when nothing of what is
//! removed is in them any more.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use pollux_reactor::{Context, Part, Rng, Time, WatchedDescriptor};

use crate::counters::CounterReset;
use crate::histogram::{HistogramLayout, LatencyHistogram};
use crate::rate_limit::{Ask, Cost, RateLimits, Throttle};
use crate::spec::nqn::{HostNqn, Nqn};
use crate::spec::status::Status;
use crate::target::LOG_FLAG;
use crate::target::disk;
use crate::target::disk::WeakDisk;
use crate::target::disk::{
    Buffer, Capabilities, DiskChannel, DiskContext, DiskRef, Done, Doorbell, Io, IoId, IoName, Op,
    Opening,
};
use crate::target::io::ControllerKey;
use crate::target::io::counted::{Counted, Past, counted_as};
use crate::target::io::message::DiskReport;
use crate::target::io::staging::StagingPool;
use crate::target::token;

/// After this time without an answer the log names the disk.
const OVERDUE: Duration = Duration::from_secs(30);

/// I/Os of one disk that had to wait for its limit and go on in one poll, at most.
const RELEASED_MAX: usize = 256;

/// What of all that hosts do a removal is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::target) enum Scope {
    Subsystem(Nqn),
    Namespace(Nqn, u32),
    Listener(Nqn, SocketAddr),
    Host(Nqn, HostNqn),
    /// A namespace as far as this host sees it.
    Visibility(Nqn, u32, HostNqn),
}

/// The owner of a command.
#[derive(Debug, Clone)]
pub(in crate::target) struct Owner {
    pub(in crate::target) subsystem: Nqn,
    pub(in crate::target) listener: SocketAddr,
    pub(in crate::target) host: HostNqn,
}

impl Scope {
    fn holds(&self, owner: &Owner, nsid: u32) -> bool {
        match self {
            Self::Subsystem(nqn) => owner.subsystem == *nqn,
            Self::Namespace(nqn, of) => owner.subsystem == *nqn && nsid == *of,
            Self::Listener(nqn, addr) => owner.subsystem == *nqn && owner.listener == *addr,
            Self::Host(nqn, host) => owner.subsystem == *nqn && owner.host == *host,
            Self::Visibility(nqn, of, host) => {
                owner.subsystem == *nqn && nsid == *of && owner.host == *host
            }
        }
    }
}

/// The command that an I/O is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::target) struct CommandRef {
    pub(in crate::target) key: ControllerKey,
    /// The queue's place on the reactor, and its connection.
    pub(in crate::target) queue: usize,
    pub(in crate::target) connection: u64,
    /// The queue's number in the books of the staging memory.
    pub(in crate::target) client: usize,
    /// The command's place in the queue's table.
    pub(in crate::target) slot: usize,
    pub(in crate::target) nsid: u32,
}

/// An I/O that is with a disk.
#[derive(Debug)]
struct Open {
    serial: u64,
    command: CommandRef,
    /// Bytes of its buffer, and of the data in it.
    capacity: usize,
    len: usize,
    opcode: u8,
    /// Bytes that it moves, or deallocates.
    bytes: u64,
    since: Time,
    /// The disk was asked to end it.
    cancelled: bool,
    /// Because its namespace has gone.
    removed: bool,
}

/// An I/O that a disk has handed back.
#[derive(Debug)]
pub(in crate::target) struct HandedBack {
    pub(in crate::target) command: CommandRef,
    pub(in crate::target) result: Result<(), Status>,
    pub(in crate::target) data: Buffer,
    /// The namespace has gone meanwhile.
    pub(in crate::target) removed: bool,
}

/// What an I/O costs of a limit.
fn cost(op: &Op, len: usize) -> Cost {
    match op {
        Op::Read { .. } => Cost::Read(len as u64),
        Op::Write { .. } | Op::Compare { .. } => Cost::Write(len as u64),
        Op::Zero { .. } | Op::Deallocate { .. } | Op::Flush => Cost::Free,
    }
}

/// The limits of a disk, by the number that home has given them.
#[derive(Debug, Clone)]
struct Limited {
    disk: WeakDisk,
    id: u64,
    limits: RateLimits,
}

impl Limited {
    fn is_of(&self, disk: &DiskRef) -> bool {
        self.disk.get().is_some_and(|limited| limited == *disk)
    }
}

/// A disk that is open.
#[derive(Debug)]
struct Seat {
    disk: DiskRef,
    channel: Box<dyn DiskChannel>,
    /// While the disk has a limit, or something still waits for one that it had.
    throttle: Option<Box<Throttle<Io>>>,
    waker: disk::Waker,
    /// The channel's descriptor, if it has one.
    watched: Option<WatchedDescriptor>,
    /// Views of namespaces.
    users: usize,
    open: Vec<Option<Open>>,
    free: Vec<u32>,
    in_flight: usize,
    counted: Counted,
    /// Size and failure as home knows them.
    known: (u64, bool),
    lies: u64,
    /// When it is looked whether it still answers.
    look_at: Time,
    /// The disk has been woken since it was last polled.
    is_awake: bool,
    /// The seat is listed in [`Channels::active`].
    is_active: bool,
}

#[inline]
#[expect(
    clippy::expect_used,
    reason = "neither reactors nor I/Os in flight are as many as 32 bits count"
)]
fn count(number: usize) -> u32 {
    u32::try_from(number).expect("a number of reactors or I/Os")
}

/// A removal that is answered when these I/Os are with no disk any more.
#[derive(Debug)]
struct Removal {
    part: Part<()>,
    serials: BTreeSet<u64>,
}

/// All disks of one reactor.
#[derive(Debug)]
pub(in crate::target) struct Channels {
    reactor: u32,
    /// The way to this reactor for the disks' threads; none in a simulation.
    doorbell: Option<Doorbell>,
    seats: Vec<Option<Seat>>,
    /// Places of the disks that are to be polled: those that have I/Os, or were woken. No other is looked at.
    active: Vec<usize>,
    in_flight: usize,
    owners: BTreeMap<ControllerKey, Owner>,
    /// Controllers that have gone but for what is with a disk.
    gone: BTreeSet<ControllerKey>,
    removals: Vec<Removal>,
    done: Vec<Done>,
    /// What was counted of disks that are not open at present.
    past: Past,
    limits: Vec<Limited>,
    /// What home is to be asked for, with the number of the limit.
    pub(in crate::target) asks: Vec<(u64, Ask)>,
    last_serial: u64,
    /// A disk has another size than home knows, or has failed.
    pub(in crate::target) changed: bool,
}

impl Channels {
    pub(in crate::target) fn new(reactor: usize, doorbell: Option<Doorbell>) -> Self {
        Self {
            reactor: count(reactor),
            doorbell,
            seats: Vec::new(),
            active: Vec::new(),
            in_flight: 0,
            owners: BTreeMap::new(),
            gone: BTreeSet::new(),
            removals: Vec::new(),
            done: Vec::new(),
            past: Past::default(),
            limits: Vec::new(),
            asks: Vec::new(),
            last_serial: 0,
            changed: false,
        }
    }

    /// A controller came to be.
    pub(in crate::target) fn enter(&mut self, key: ControllerKey, owner: Owner) {
        self.owners.insert(key, owner);
    }

    /// A controller has gone, with all its queues.
    pub(in crate::target) fn leave(&mut self, key: ControllerKey) {
        self.gone.insert(key);
        self.forget_gone();
    }

    fn forget_gone(&mut self) {
        let open = self.seats.iter().flatten().flat_map(|seat| &seat.open);
        let busy: BTreeSet<_> = open.flatten().map(|open| open.command.key).collect();
        let owners = &mut self.owners;
        self.gone.retain(|key| {
            let is_busy = busy.contains(key);
            if !is_busy {
                owners.remove(key);
            }
            is_busy
        });
    }

    /// One more view of a namespace on this disk. Returns the place of its channel.
    pub(in crate::target) fn acquire(&mut self, disk: &DiskRef, cx: &mut Context<'_>) -> usize {
        let is_it = |seat: &Option<Seat>| seat.as_ref().is_some_and(|seat| seat.disk == *disk);
        let at = self.seats.iter().position(is_it).unwrap_or_else(|| {
            let free = self.seats.iter().position(Option::is_none);
            let at = free.unwrap_or(self.seats.len());
            let opening = Opening::new(cx.reactor_index(), at, self.doorbell.clone());
            let waker = opening.waker();
            let channel = disk.open(opening);
            let limited = self.limits.iter().find(|limited| limited.is_of(disk));
            let throttle = limited.map(|limited| Throttle::new(limited.id, limited.limits));
            let seat = Seat {
                throttle: throttle.map(Box::new),
                watched: watch(disk, &*channel, at, cx),
                disk: disk.clone(),
                waker,
                channel,
                users: 0,
                open: Vec::new(),
                free: Vec::new(),
                in_flight: 0,
                counted: self.past.take(disk),
                known: (disk.bytes(), disk.failure().is_some()),
                lies: 0,
                look_at: Time::ZERO,
                is_awake: false,
                is_active: false,
            };
            match self.seats.get_mut(at) {
                Some(empty) => *empty = Some(seat),
                None => self.seats.push(Some(seat)),
            }
            at
        });
        self.seat(at).users += 1;
        at
    }

    /// One view less.
    pub(in crate::target) fn release(&mut self, at: usize) {
        self.seat(at).users -= 1;
        self.close_unused(at);
    }

    /// Closes a disk that no namespace here is on, once it has nothing of this reactor's any more.
    fn close_unused(&mut self, at: usize) {
        let unused = |seat: &mut Seat| seat.users == 0 && seat.in_flight == 0;
        let closed = self.seats.get_mut(at).and_then(|seat| seat.take_if(unused));
        if let Some(seat) = closed {
            if seat.is_active {
                self.active.retain(|&active| active != at);
            }
            self.past.keep(&seat.disk, seat.counted);
        }
    }

    /// Has a disk polled.
    #[inline]
    fn activate(&mut self, at: usize) {
        if let Some(Some(seat)) = self.seats.get_mut(at)
            && !seat.is_active
        {
            seat.is_active = true;
            self.active.push(at);
        }
    }

    #[inline]
    #[expect(
        clippy::expect_used,
        reason = "a channel is there for as long as a view names it"
    )]
    fn seat(&mut self, at: usize) -> &mut Seat {
        let seat = self.seats.get_mut(at).and_then(Option::as_mut);
        seat.expect("a disk that is open")
    }

    /// What the disk at this place can do. Nothing is done in place that has to wait for a limit.
    pub(in crate::target) fn capabilities(&mut self, at: usize) -> Capabilities {
        let seat = self.seat(at);
        let capabilities = seat.disk.capabilities();
        let is_limited = seat
            .throttle
            .as_ref()
            .is_some_and(|t| t.limits().is_limited());
        Capabilities {
            in_place: capabilities.in_place && !is_limited,
            ..capabilities
        }
    }

    /// The limits of a disk are these from now on, under this number. What waits waits for them, or goes on. Returns the
    /// place of the disk if it is open.
    pub(in crate::target) fn set_limits(
        &mut self,
        disk: &DiskRef,
        (id, limits): (u64, RateLimits),
    ) -> Option<usize> {
        self.limits
            .retain(|limited| limited.disk.get().is_some() && !limited.is_of(disk));
        if limits.is_limited() {
            let disk = disk.downgrade();
            self.limits.push(Limited { disk, id, limits });
        }
        let is_it = |seat: &Option<Seat>| seat.as_ref().is_some_and(|seat| seat.disk == *disk);
        let at = self.seats.iter().position(is_it)?;
        let seat = self.seat(at);
        if !limits.is_limited() {
            seat.throttle.take_if(|throttle| throttle.waiting() == 0);
        }
        match &mut seat.throttle {
            Some(throttle) => throttle.set(id, limits),
            none if limits.is_limited() => *none = Some(Box::new(Throttle::new(id, limits))),
            _ => {}
        }
        self.wake(at);
        Some(at)
    }

    /// Home grants a slice of the limit of this number; the disk may have another one by now.
    pub(in crate::target) fn granted(&mut self, id: u64, slice: Ask) {
        let throttled = |seat: &mut Option<Seat>| {
            let throttle = seat.as_mut()?.throttle.as_mut()?;
            (throttle.id() == id).then(|| throttle.granted(id, slice))
        };
        if let Some(at) = self
            .seats
            .iter_mut()
            .position(|seat| throttled(seat).is_some())
        {
            self.wake(at);
        }
    }

    /// Hands an I/O to a disk with a limit, or keeps it until there is a slice for it.
    #[cold]
    fn submit_limited(&mut self, at: usize, io: Io, cx: &mut Context<'_>) -> Option<Done> {
        let mut asks = std::mem::take(&mut self.asks);
        let now = cx.now();
        let seat = self.seat(at);
        let cost = cost(&io.op, io.data.len());
        let admitted = match &mut seat.throttle {
            Some(throttle) => {
                let admitted = throttle.offer(cost, io);
                let id = throttle.id();
                asks.extend(throttle.asks().map(|ask| (id, ask)));
                admitted
            }
            None => Some(io),
        };
        let mut turn = DiskContext { now, rng: cx.rng() };
        let done = admitted.and_then(|io| seat.channel.submit(io, &mut turn));
        self.asks = asks;
        done
    }

    /// Hands what need not wait any longer to the disk at this place. Returns whether there was anything.
    #[cold]
    fn release_waiting(&mut self, at: usize, now: Time, rng: &mut Rng) -> bool {
        let mut asks = std::mem::take(&mut self.asks);
        let mut done = std::mem::take(&mut self.done);
        let mut released = 0;
        let seat = self.seat(at);
        if let Some(throttle) = &mut seat.throttle {
            while released < RELEASED_MAX
                && let Some(io) = throttle.next_admitted()
            {
                let mut turn = DiskContext {
                    now,
                    rng: &mut *rng,
                };
                done.extend(seat.channel.submit(io, &mut turn));
                released += 1;
            }
            let id = throttle.id();
            asks.extend(throttle.asks().map(|ask| (id, ask)));
            if throttle.waiting() == 0 && !throttle.limits().is_limited() {
                seat.throttle = None;
            }
        }
        self.asks = asks;
        self.done = done;
        released > 0
    }

    /// The channel of a view.
    #[inline]
    pub(in crate::target) fn channel(&mut self, at: usize) -> &mut dyn DiskChannel {
        &mut *self.seat(at).channel
    }

    /// A disk's thread has something to tell, or its descriptor has become readable.
    pub(in crate::target) fn wake(&mut self, at: usize) {
        // The disk may have been closed meanwhile.
        if let Some(Some(seat)) = self.seats.get_mut(at) {
            seat.is_awake = true;
            self.activate(at);
        }
    }

    /// What disks have of this reactor, and have done for it.
    pub(in crate::target) fn disks(&mut self) -> impl Iterator<Item = DiskReport> {
        let seats = self.seats.iter().flatten();
        let open = seats.map(|seat| DiskReport {
            disk: seat.disk.clone(),
            in_flight: seat.in_flight,
            counters: seat.counted.counters,
        });
        let past = self.past.iter_mut().map(|(disk, counted)| DiskReport {
            disk,
            in_flight: 0,
            counters: counted.counters,
        });
        open.chain(past)
    }

    /// What is counted of disks, whether they are open or not.
    fn counted(&mut self) -> impl Iterator<Item = (DiskRef, &mut Counted)> {
        let seats = self.seats.iter_mut().flatten();
        let open = seats.map(|seat| (seat.disk.clone(), &mut seat.counted));
        open.chain(self.past.iter_mut())
    }

    /// Begins counters of these disks anew, or of all.
    pub(in crate::target) fn reset(&mut self, disks: Option<&[DiskRef]>, what: CounterReset) {
        for (disk, counted) in self.counted() {
            if disks.is_none_or(|disks| disks.contains(&disk)) {
                counted.counters.reset(what);
            }
        }
    }

    /// Begins to count latencies of a disk in this way, or ends it.
    pub(in crate::target) fn set_histogram(
        &mut self,
        disk: &DiskRef,
        layout: Option<HistogramLayout>,
    ) {
        let histogram = layout.map(|layout| Box::new(LatencyHistogram::new(layout)));
        if let Some((_, counted)) = self.counted().find(|(known, _)| known == disk) {
            counted.histogram = histogram;
        } else {
            let counted = Counted {
                histogram,
                ..Counted::default()
            };
            self.past.keep(disk, counted);
        }
    }

    /// What was counted since, if anything is.
    pub(in crate::target) fn histogram(&mut self, disk: &DiskRef) -> Option<LatencyHistogram> {
        let (_, counted) = self.counted().find(|(known, _)| known == disk)?;
        counted.histogram.as_deref().cloned()
    }

    /// Counts what the disk at this place has done in place, in the turn in which it came.
    #[inline]
    pub(in crate::target) fn count(&mut self, at: usize, opcode: u8, result: Result<u64, Status>) {
        self.seat(at).counted.count(opcode, result, Duration::ZERO);
    }

    /// Hands an I/O to a disk. Returns its answer if the disk has one already.
    pub(in crate::target) fn submit(
        &mut self,
        at: usize,
        command: CommandRef,
        (op, data): (Op, Buffer),
        pool: &mut StagingPool,
        cx: &mut Context<'_>,
    ) -> Option<HandedBack> {
        self.last_serial += 1;
        let (serial, reactor) = (self.last_serial, self.reactor);
        let now = cx.now();
        let seat = self.seat(at);
        if seat.in_flight == 0 {
            seat.look_at = now + OVERDUE;
        }
        let (opcode, bytes) = counted_as(&op, data.len());
        let open = Open {
            serial,
            command,
            opcode,
            bytes,
            capacity: data.capacity(),
            len: data.len(),
            since: now,
            cancelled: false,
            removed: false,
        };
        let next = count(seat.open.len());
        let place = seat.free.pop().unwrap_or(next);
        match seat.open.get_mut(place as usize) {
            Some(empty) => *empty = Some(open),
            None => seat.open.push(Some(open)),
        }
        seat.in_flight += 1;
        let id = IoId(IoName {
            serial,
            reactor,
            place,
        });
        let io = Io::new(id, op, data);
        let done = if seat.throttle.is_some() {
            self.submit_limited(at, io, cx)
        } else {
            let mut turn = DiskContext { now, rng: cx.rng() };
            seat.channel.submit(io, &mut turn)
        };
        self.in_flight += 1;
        let Some(done) = done else {
            self.activate(at);
            return None;
        };
        self.take_back(at, done, pool, now)
    }

    /// Looks at what a disk has handed back. `None`: it counts for nothing.
    fn take_back(
        &mut self,
        at: usize,
        Done { io, result }: Done,
        pool: &mut StagingPool,
        now: Time,
    ) -> Option<HandedBack> {
        let own = self.reactor;
        // A disk that is done with all that it had may be closed already.
        let seat = self.seats.get_mut(at)?.as_mut()?;
        let IoId(IoName {
            serial,
            reactor,
            place,
        }) = io.id();
        let open = seat.open.get_mut(place as usize);
        let open = open.and_then(|open| open.take_if(|o| o.serial == serial && reactor == own));
        let Some(open) = open else {
            seat.note_lie("hands back an I/O that it was not given");
            return None;
        };
        seat.free.push(place);
        seat.in_flight -= 1;
        let Open {
            command,
            capacity,
            len,
            removed,
            opcode,
            bytes,
            since,
            ..
        } = open;
        let (result, data) = if (io.data.capacity(), io.data.len()) == (capacity, len) {
            (result, io.data)
        } else {
            seat.note_lie("hands back another buffer than it was given");
            pool.lose(command.client, capacity, now);
            (Err(Status::INTERNAL_ERROR), Buffer::default())
        };
        if result.is_err() {
            self.changed |= seat.has_changed();
        }
        let latency = now.saturating_since(since);
        seat.counted.count(opcode, result.map(|()| bytes), latency);
        self.in_flight -= 1;
        // The disk is closed before anybody hears that a removal is over.
        self.close_unused(at);
        self.note_end(serial);
        if self.gone.contains(&command.key) {
            self.forget_gone();
        }
        Some(HandedBack {
            command,
            result,
            data,
            removed,
        })
    }

    /// An I/O is with no disk any more; if a removal waited for nothing else, it is over.
    fn note_end(&mut self, serial: u64) {
        let is_over = |removal: &mut Removal| {
            removal.serials.remove(&serial);
            removal.serials.is_empty()
        };
        for removal in self.removals.extract_if(.., is_over) {
            removal.part.answer(());
        }
    }

    /// Takes in what disks have to tell. Returns whether there was anything.
    #[inline]
    pub(in crate::target) fn poll(
        &mut self,
        answers: &mut Vec<HandedBack>,
        pool: &mut StagingPool,
        cx: &mut Context<'_>,
    ) -> bool {
        let before = answers.len();
        let mut released = false;
        let mut next = 0;
        while let Some(&at) = self.active.get(next) {
            let seat = self.seat(at);
            if seat.in_flight == 0 && !seat.is_awake {
                seat.is_active = false;
                self.active.swap_remove(next);
                continue;
            }
            next += 1;
            let was_awake = std::mem::take(&mut seat.is_awake);
            let has_changed = was_awake && seat.has_changed();
            seat.waker.rearm();
            if let Some(watched) = &mut seat.watched {
                watched.take_ready();
            }
            let now = cx.now();
            seat.look(now);
            if seat.throttle.is_some() {
                released |= self.release_waiting(at, now, cx.rng());
            }
            let mut done = std::mem::take(&mut self.done);
            let rng = cx.rng();
            let channel = self.channel(at);
            channel.poll(&mut done, &mut DiskContext { now, rng });
            self.changed |= has_changed;
            for done in done.drain(..) {
                answers.extend(self.take_back(at, done, pool, now));
            }
            self.done = done;
        }
        released || answers.len() > before
    }

    /// When a disk is to be polled even if nothing wakes it.
    pub(in crate::target) fn deadline(&self) -> Option<Time> {
        let active = self.active.iter();
        let active = active.filter_map(|&at| self.seats.get(at)?.as_ref());
        let busy = active.filter(|seat| seat.in_flight > 0);
        let times = busy.flat_map(|seat| {
            // What home has told last may be known since the last poll.
            let look_at = if seat.is_awake {
                Time::ZERO
            } else {
                seat.look_at
            };
            [Some(look_at), seat.channel.deadline()]
        });
        times.flatten().min()
    }

    /// Has the disks end what they have for these commands; `removed`: since their namespace has gone. Puts what ended
    /// there and then into `answers`.
    pub(in crate::target) fn cancel(
        &mut self,
        of: impl Fn(&CommandRef) -> bool,
        removed: bool,
        answers: &mut Vec<HandedBack>,
        (pool, now): (&mut StagingPool, Time),
    ) {
        if self.in_flight == 0 {
            return;
        }
        for at in 0..self.seats.len() {
            let places = self.seats.get(at).and_then(Option::as_ref);
            let places = 0..places.map_or(0, |seat| seat.open.len());
            for place in places {
                let Some(Some(seat)) = self.seats.get_mut(at) else {
                    break;
                };
                let Some(Some(open)) = seat.open.get_mut(place) else {
                    continue;
                };
                if !of(&open.command) {
                    continue;
                }
                open.cancelled = true;
                open.removed |= removed;
                let id = IoId(IoName {
                    serial: open.serial,
                    reactor: self.reactor,
                    place: count(place),
                });
                let waiting = seat.throttle.as_mut();
                let waiting = waiting.and_then(|t| t.remove(|io| io.id() == id));
                let done = match waiting {
                    Some(io) => Some(io.done(Err(Status::ABORTED_BY_REQUEST))),
                    None => seat.channel.cancel(id),
                };
                if let Some(done) = done {
                    answers.extend(self.take_back(at, done, pool, now));
                }
            }
        }
    }

    /// Answers when nothing that was removed and is within `scope` is with a disk any more.
    pub(in crate::target) fn await_removal(&mut self, scope: &Scope, part: Part<()>) {
        let serials = self.cancelled(|of| {
            let owner = self.owners.get(&of.key);
            owner.is_some_and(|owner| scope.holds(owner, of.nsid))
        });
        self.await_these(serials, part);
    }

    /// Answers when nothing of queues of a controller that were closed is with a disk any more.
    pub(in crate::target) fn await_end(&mut self, key: ControllerKey, part: Part<()>) {
        let serials = self.cancelled(|of| of.key == key);
        self.await_these(serials, part);
    }

    /// I/Os of these commands that disks were asked to end and have not.
    fn cancelled(&self, of: impl Fn(&CommandRef) -> bool) -> BTreeSet<u64> {
        let open = self.seats.iter().flatten().flat_map(|seat| &seat.open);
        let open = open.flatten();
        let open = open.filter(|open| open.cancelled && of(&open.command));
        open.map(|open| open.serial).collect()
    }

    fn await_these(&mut self, serials: BTreeSet<u64>, part: Part<()>) {
        match serials.is_empty() {
            true => part.answer(()),
            false => self.removals.push(Removal { part, serials }),
        }
    }
}

/// Has the reactor watch the descriptor of a channel.
fn watch(
    disk: &DiskRef,
    channel: &dyn DiskChannel,
    at: usize,
    cx: &mut Context<'_>,
) -> Option<WatchedDescriptor> {
    let watched = cx.watch_descriptor(channel.descriptor()?, token::of(token::DISK, at as u64));
    let watched = watched.inspect_err(|error| {
        log::warn!(
            target: LOG_FLAG,
            "{}: a reactor that sleeps does not notice its answers ({error})",
            disk.name()
        );
    });
    watched.ok()
}

impl Seat {
    /// Whether the disk is another than home knows.
    fn has_changed(&mut self) -> bool {
        let now = (self.disk.bytes(), self.disk.failure().is_some());
        std::mem::replace(&mut self.known, now) != now
    }

    /// Says in the log what a disk does that it may not: the first time, the second, the fourth and so on.
    #[cold]
    fn note_lie(&mut self, what: &str) {
        self.lies += 1;
        if self.lies.is_power_of_two() {
            let (name, count) = (self.disk.name(), self.lies);
            log::error!(target: LOG_FLAG, "{name}: {what}; that is taken for nothing (fault {count} of this disk)");
        }
    }

    /// Names the disk in the log if it does not answer.
    #[inline]
    fn look(&mut self, now: Time) {
        if now < self.look_at || self.in_flight == 0 {
            return;
        }
        if self.throttle.as_ref().is_some_and(|t| t.waiting() > 0) {
            // The oldest may not be with the disk yet.
            self.look_at = now + OVERDUE;
            return;
        }
        let oldest = self.open.iter().flatten().map(|open| open.since).min();
        let oldest = oldest.unwrap_or(now);
        let waited = now.saturating_since(oldest);
        if waited < OVERDUE {
            self.look_at = oldest + OVERDUE;
            return;
        }
        log::warn!(
            target: LOG_FLAG,
            "{}: no answer to an I/O for {} s; {} are with it",
            self.disk.name(),
            waited.as_secs(),
            self.in_flight
        );
        // It is said again when that has lasted twice as long.
        self.look_at = now + waited;
    }
}
