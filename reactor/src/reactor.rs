//! The loop's one turn.

use std::sync::Arc;
use std::time::Duration;

use crate::context::{Context, Core};
use crate::counters::Counters;
use crate::mailbox::{Bell, Receiver};
use crate::net::Net;
use crate::rng::Rng;
use crate::service::{Progress, Service};
use crate::status::{Place, ServiceCounters};
use crate::time::{Time, nanos};
use crate::timers::Timers;

/// Messages that one service is handed per turn, so that a flood of them cannot keep timers and sockets waiting.
const MESSAGES_PER_TURN: usize = 64;

/// Timers that fire for one service per turn, for the same reason.
const TIMERS_PER_TURN: usize = 64;

/// Least time between two looks at the event queue. Hot streams do not need it, they are read in every turn; this is the
/// latency of accepts, connects and cold streams, and it keeps the look (a system call of some 300 ns) to about 1 % of
/// the time.
const EVENT_POLL_INTERVAL: Duration = Duration::from_micros(20);

/// One service with its mailbox and its timers, whatever its type.
trait Seat {
    fn start(&mut self, now: Time, core: &mut Core);
    fn turn(&mut self, now: Time, messages: usize, core: &mut Core) -> Progress;
    fn before_sleep(&mut self);
    fn stop(&mut self, now: Time, core: &mut Core);
    fn in_flight(&self, out: &mut String);
    fn has_messages(&self) -> bool;
    fn next_deadline(&mut self) -> Option<Time>;
}

struct SeatOf<S: Service> {
    service: S,
    receiver: Receiver<S::Message>,
    timers: Timers,
    /// Its place among the reactor's seats.
    place: usize,
}

impl<S: Service> Seat for SeatOf<S> {
    fn start(&mut self, now: Time, core: &mut Core) {
        self.service
            .on_start(&mut Context::new(now, core, &mut self.timers, self.place));
    }

    fn turn(&mut self, now: Time, messages: usize, core: &mut Core) -> Progress {
        let mut progress = Progress::Idle;
        for _ in 0..messages {
            let Some(message) = self.receiver.receive() else {
                break;
            };
            core.counters.messages += 1;
            progress = Progress::Busy;
            let mut cx = Context::new(now, core, &mut self.timers, self.place);
            self.service.on_message(message, &mut cx);
        }
        for _ in 0..TIMERS_PER_TURN {
            let Some(token) = self.timers.pop_due(now) else {
                break;
            };
            core.counters.timers += 1;
            progress = Progress::Busy;
            let mut cx = Context::new(now, core, &mut self.timers, self.place);
            self.service.on_timer(token, &mut cx);
        }
        let mut cx = Context::new(now, core, &mut self.timers, self.place);
        progress.or(self.service.poll(&mut cx))
    }

    fn before_sleep(&mut self) {
        self.service.before_sleep();
    }

    fn stop(&mut self, now: Time, core: &mut Core) {
        self.service
            .on_stop(&mut Context::new(now, core, &mut self.timers, self.place));
    }

    fn in_flight(&self, out: &mut String) {
        self.service.in_flight(out);
    }

    fn has_messages(&self) -> bool {
        !self.receiver.is_empty()
    }

    fn next_deadline(&mut self) -> Option<Time> {
        let timer = self.timers.next_deadline();
        timer.into_iter().chain(self.service.deadline()).min()
    }
}

/// A set of services that share one thread. An executor calls `start` once, `poll_once` again and again, `stop` once.
pub(crate) struct Reactor {
    core: Core,
    seats: Vec<Box<dyn Seat>>,
    next_event_poll: Time,
    /// The events have just been taken by the wait of a park.
    has_fresh_events: bool,
    /// Messages wait until then.
    messages_from: Time,
    /// Start of the last turn, if that turn was busy.
    busy_since: Option<Time>,
}

impl Reactor {
    pub(crate) fn new(index: usize, net: Net, rng: Rng) -> Reactor {
        Reactor {
            core: Core {
                index,
                net,
                rng,
                stop: false,
                counters: Counters::default(),
                services: Vec::new(),
                started: Time::ZERO,
                place: None,
            },
            seats: Vec::new(),
            next_event_poll: Time::ZERO,
            has_fresh_events: false,
            messages_from: Time::ZERO,
            busy_since: None,
        }
    }

    /// Its number in the group.
    pub(crate) fn index(&self) -> usize {
        self.core.index
    }

    /// Says where the reactor runs, for who asks.
    pub(crate) fn set_place(&mut self, place: Place) {
        self.core.place = Some(place);
    }

    /// Seats a service. `bell` is what its senders ring, on a real reactor.
    pub(crate) fn seat<S: Service>(
        &mut self,
        service: S,
        receiver: Receiver<S::Message>,
        bell: Option<&Arc<Bell>>,
    ) {
        if let Some(bell) = bell {
            receiver.bind(bell);
        }
        self.core.services.push(ServiceCounters {
            type_name: std::any::type_name::<S>(),
            busy_turns: 0,
        });
        self.seats.push(Box::new(SeatOf {
            service,
            receiver,
            timers: Timers::default(),
            place: self.seats.len(),
        }));
    }

    pub(crate) fn start(&mut self, now: Time) {
        self.core.started = now;
        self.core.net.begin_turn();
        for seat in &mut self.seats {
            seat.start(now, &mut self.core);
        }
        self.core.net.end_turn();
    }

    /// One turn: socket events if it is time, then for each service its messages, its due timers, its poll.
    pub(crate) fn poll_once(&mut self, now: Time) -> Progress {
        if let Some(since) = self.busy_since {
            self.count_busy(now - since);
        }
        self.core.net.begin_turn();
        if now >= self.next_event_poll {
            self.next_event_poll = now + EVENT_POLL_INTERVAL;
            if !std::mem::take(&mut self.has_fresh_events) {
                self.core.net.poll_events();
            }
        }
        let messages = match now >= self.messages_from {
            true => MESSAGES_PER_TURN,
            false => 0,
        };
        let mut progress = Progress::Idle;
        for (index, seat) in self.seats.iter_mut().enumerate() {
            if seat.turn(now, messages, &mut self.core) == Progress::Busy {
                progress = Progress::Busy;
                self.core.services[index].busy_turns += 1;
            }
        }
        self.core.net.end_turn();
        self.core.counters.turns += 1;
        self.busy_since = match progress {
            Progress::Busy => {
                self.core.counters.busy_turns += 1;
                Some(now)
            }
            Progress::Idle => None,
        };
        progress
    }

    pub(crate) fn stop(&mut self, now: Time) {
        if let Some(since) = self.busy_since.take() {
            self.count_busy(now - since);
        }
        self.core.net.begin_turn();
        for seat in &mut self.seats {
            seat.stop(now, &mut self.core);
        }
        self.core.net.end_turn();
    }

    /// What its services have under way, a line each.
    pub(crate) fn in_flight(&self) -> String {
        let mut out = String::new();
        for seat in &self.seats {
            seat.in_flight(&mut out);
        }
        out
    }

    /// Blocks until a socket event, a ring of `bell`, or `timeout`. Returns at once if a message is there already.
    pub(crate) fn park(&mut self, bell: &Bell, timeout: Option<Duration>) {
        for seat in &mut self.seats {
            seat.before_sleep();
        }
        let (seats, net) = (&self.seats, &mut self.core.net);
        let mut has_slept = false;
        bell.sleep_unless(
            || seats.iter().any(|seat| seat.has_messages()),
            || {
                let timeout = match net.has_raised() {
                    true => Some(Duration::ZERO),
                    false => timeout,
                };
                net.begin_turn();
                net.wait_events(timeout);
                net.end_turn();
                has_slept = true;
            },
        );
        self.has_fresh_events |= has_slept;
    }

    /// Hands no message to any service before then.
    pub(crate) fn hold_messages(&mut self, until: Time) {
        self.messages_from = until;
    }

    pub(crate) fn stop_requested(&self) -> bool {
        self.core.stop
    }

    pub(crate) fn has_messages(&self) -> bool {
        self.seats.iter().any(|seat| seat.has_messages())
    }

    pub(crate) fn next_deadline(&mut self) -> Option<Time> {
        self.seats
            .iter_mut()
            .filter_map(|seat| seat.next_deadline())
            .min()
    }

    pub(crate) fn counters(&self) -> Counters {
        self.core.counters()
    }

    fn count_busy(&mut self, time: Duration) {
        self.core.counters.busy_ns += nanos(time);
    }
}
