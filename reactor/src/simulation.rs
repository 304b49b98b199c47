//! The simulated executor: all reactors in one thread, in an order drawn from a seed, on a virtual clock.

use std::time::Duration;

use crate::counters::Counters;
use crate::executor::Executor;
use crate::mailbox::Receiver;
use crate::net::sim::SimNetwork;
use crate::net::world::Trace;
use crate::net::wrap::{Opened, StreamWrapper, Wrap};
use crate::net::{Net, Stream};
use crate::reactor::Reactor;
use crate::rng::Rng;
use crate::service::{Progress, Service};
use crate::time::Time;

/// Virtual time that a busy turn takes. Idle turns take none, so spinning costs nothing; but a service that always finds
/// work must see time pass.
const BUSY_TURN: Duration = Duration::from_micros(1);

/// One reactor of a simulation.
struct Member {
    /// `None` once it has stopped.
    reactor: Option<Reactor>,
    counters: Counters,
    started: bool,
    /// Its last turn was idle and nothing has happened since that could give it work.
    quiet: bool,
    /// It has no turn before this time.
    still_until: Time,
    /// Its messages wait until then.
    messages_from: Time,
}

/// Runs reactors in one thread with nothing left to chance: order, randomness, network and clock all follow from one
/// seed, so a run that failed can be repeated. Services cannot tell it from real threads.
///
/// The clock starts at [`Time::ZERO`]. It moves a microsecond with each busy turn, and when every reactor is idle it jumps
/// to the next timer or the next arrival of bytes.
pub struct Simulation {
    now: Time,
    rng: Rng,
    members: Vec<Member>,
    network: SimNetwork,
    wraps: Vec<Wrap>,
    /// The network's activity that every reactor has had a turn to notice, or will.
    seen_activity: u64,
    trace: Trace,
}

/// What one step came to.
enum Step {
    Turn(Progress),
    /// All are idle, and the clock has jumped.
    Jump,
    /// All are idle, and nothing will ever happen unless it comes from outside.
    Stuck,
}

impl Simulation {
    /// A simulation without reactors, whose whole course follows from `seed` and from what is done to it between steps.
    pub fn new(seed: u64) -> Simulation {
        let mut rng = Rng::seeded(seed);
        let network = SimNetwork::new(Rng::seeded(rng.next_u64()));
        Simulation {
            now: Time::ZERO,
            rng,
            members: Vec::new(),
            network,
            wraps: Vec::new(),
            seen_activity: 0,
            trace: Trace::default(),
        }
    }

    /// Adds a reactor and returns its index, counted from 0.
    pub fn add_reactor(&mut self) -> usize {
        let index = self.members.len();
        let net = Net::simulated(self.network.clone(), index, self.wraps.clone());
        let rng = Rng::seeded(self.rng.next_u64());
        self.members.push(Member {
            reactor: Some(Reactor::new(index, net, rng)),
            counters: Counters::default(),
            started: false,
            quiet: false,
            still_until: Time::ZERO,
            messages_from: Time::ZERO,
        });
        index
    }

    /// As [`Group::wrap_streams`](crate::Group::wrap_streams), for the reactors that are added from now on.
    pub fn wrap_streams(
        &mut self,
        wrap: impl Fn(Stream, Opened) -> Box<dyn StreamWrapper> + Send + Sync + 'static,
    ) {
        self.wraps.push(Wrap::new(wrap));
    }

    /// Adds a service to a reactor, before the reactor's first turn. `build` makes it now, on this thread, so neither has
    /// to be `Send`.
    ///
    /// # Panics
    ///
    /// If `reactor` is not an index that [`Simulation::add_reactor`] returned, or the reactor has had a turn already.
    pub fn add_service<S: Service>(
        &mut self,
        reactor: usize,
        receiver: Receiver<S::Message>,
        build: impl FnOnce() -> S,
    ) {
        match self.members.get_mut(reactor) {
            Some(Member {
                reactor: Some(reactor),
                started: false,
                ..
            }) => reactor.seat(build(), receiver, None),
            Some(_) => panic!("reactor {reactor} has started already"),
            None => panic!("there is no reactor {reactor} in this simulation"),
        }
    }

    /// The virtual time.
    pub fn now(&self) -> Time {
        self.now
    }

    /// The network's knobs.
    pub fn network(&mut self) -> &mut SimNetwork {
        &mut self.network
    }

    /// Gives a reactor no turn for the virtual time `duration`, as if the system had taken its core away; messages, timers and
    /// bytes wait for it. The last call counts: a duration of zero ends it.
    ///
    /// # Panics
    ///
    /// If `reactor` is not an index that [`Simulation::add_reactor`] returned.
    pub fn stand_still(&mut self, reactor: usize, duration: Duration) {
        let until = self.now + duration;
        match self.members.get_mut(reactor) {
            Some(member) => member.still_until = until,
            None => panic!("there is no reactor {reactor} in this simulation"),
        }
    }

    /// Has all messages to a reactor wait for the virtual time `duration`, as if whoever sent them were slow; their order
    /// stays, and timers and bytes do not wait. The last call counts: a duration of zero ends it.
    ///
    /// # Panics
    ///
    /// If `reactor` is not an index that [`Simulation::add_reactor`] returned.
    pub fn hold_messages(&mut self, reactor: usize, duration: Duration) {
        let until = self.now + duration;
        let Some(member) = self.members.get_mut(reactor) else {
            panic!("there is no reactor {reactor} in this simulation");
        };
        member.messages_from = until;
        if let Some(reactor) = &mut member.reactor {
            reactor.hold_messages(until);
        }
        member.quiet = false;
    }

    /// Gives one reactor, drawn from those that may have something to do, a turn. When there is none, the clock jumps to
    /// the next deadline instead.
    ///
    /// Busy if the turn was, or if the clock jumped. Idle in a row as often as there are reactors means that nothing will
    /// happen any more unless it comes from outside.
    pub fn step(&mut self) -> Progress {
        match self.advance(Time::MAX) {
            Step::Turn(progress) => progress,
            Step::Jump => Progress::Busy,
            Step::Stuck => Progress::Idle,
        }
    }

    /// Runs for the virtual time `duration`; timers that are due at its end fire.
    pub fn run_for(&mut self, duration: Duration) {
        self.run_until(duration, || false);
    }

    /// Runs until `condition` holds, which is asked before each step; true if it came to hold within the virtual time
    /// `limit`.
    pub fn run_until(&mut self, limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
        let end = self.now + limit;
        while self.now < end {
            if condition() {
                return true;
            }
            if let Step::Stuck = self.advance(end) {
                self.jump(end);
            }
        }
        // What is due at the very end happens too.
        self.network.set_now(self.now);
        for index in 0..self.members.len() {
            if condition() {
                return true;
            }
            // Busy or not, each has one turn.
            let _ = self.turn(index);
        }
        condition()
    }

    /// Stops every reactor in good order: `on_stop` of each service, then the services are dropped.
    pub fn stop(&mut self) {
        for index in 0..self.members.len() {
            self.stop_reactor(index);
        }
    }

    /// The counters of each reactor. Busy time is virtual.
    pub fn counters(&self) -> Vec<Counters> {
        self.members
            .iter()
            .map(|member| match &member.reactor {
                Some(reactor) => reactor.counters(),
                None => member.counters,
            })
            .collect()
    }

    /// A hash of all that happened: which reactor had a turn when, whether it found work, and every move of bytes. Two
    /// runs of the same seed have the same one; anything else betrays a hidden clock or a random order.
    pub fn trace(&self) -> u64 {
        let mut trace = self.trace;
        trace.add(self.network.trace());
        trace.0
    }

    /// A turn of somebody, or a jump of the clock, not beyond `limit`.
    fn advance(&mut self, limit: Time) -> Step {
        self.network.set_now(self.now);
        // A service may have written and still called its turn idle, or a knob was turned: whoever it concerns must look.
        let activity = self.network.activity();
        if activity != self.seen_activity {
            self.seen_activity = activity;
            self.wake_all();
        }
        let now = self.now;
        for member in &mut self.members {
            if member.quiet
                && let Some(reactor) = &mut member.reactor
            {
                let due = reactor.next_deadline().is_some_and(|at| at <= now);
                let hears = member.messages_from <= now;
                member.quiet = !(due || hears && reactor.has_messages());
            }
        }
        let is_runnable = |member: &Member| {
            member.reactor.is_some() && !member.quiet && member.still_until <= now
        };
        let count = self.members.iter().filter(|m| is_runnable(m)).count();
        if count == 0 {
            return match self.next_deadline() {
                Some(at) if at <= limit => {
                    self.jump(at);
                    Step::Jump
                }
                _ => Step::Stuck,
            };
        }
        let draw = self.rng.below(count as u64);
        #[expect(clippy::expect_used, reason = "one below their count was drawn")]
        let index = (0..self.members.len())
            .filter(|&index| is_runnable(&self.members[index]))
            .zip(0..)
            .find_map(|(index, n)| (n == draw).then_some(index))
            .expect("fewer reactors than were counted");
        Step::Turn(self.turn(index))
    }

    fn turn(&mut self, index: usize) -> Progress {
        let before = self.network.activity();
        let member = &mut self.members[index];
        let Some(reactor) = &mut member.reactor else {
            return Progress::Idle;
        };
        if member.still_until > self.now {
            return Progress::Idle;
        }
        if !member.started {
            member.started = true;
            reactor.start(self.now);
        }
        let mut progress = reactor.poll_once(self.now);
        if reactor.stop_requested() {
            self.stop_reactor(index);
            progress = Progress::Busy;
        }
        if let Some(reactor) = &mut self.members[index].reactor
            && reactor.next_deadline().is_some_and(|at| at <= self.now)
        {
            // What is due and not done costs time, as on a real reactor, or the clock would never move again.
            progress = Progress::Busy;
        }
        self.trace.add(index as u64);
        self.trace.add(self.now.as_nanos());
        self.trace.add(u64::from(progress == Progress::Busy));
        if progress == Progress::Busy || self.network.activity() != before {
            self.wake_all();
            self.now = self.now + BUSY_TURN;
        } else {
            self.members[index].quiet = true;
        }
        progress
    }

    fn next_deadline(&mut self) -> Option<Time> {
        let now = self.now;
        self.members
            .iter_mut()
            .filter_map(|member| match &mut member.reactor {
                // There may be more for it than timers when it has turns again.
                Some(_) if member.still_until > now => Some(member.still_until),
                Some(reactor) => {
                    let held = Some(member.messages_from).filter(|&at| at > now);
                    held.into_iter().chain(reactor.next_deadline()).min()
                }
                None => None,
            })
            .chain(self.network.next_deadline())
            .min()
    }

    fn jump(&mut self, to: Time) {
        self.now = to;
        self.network.set_now(to);
        // A service may look at the clock without a timer.
        self.wake_all();
    }

    fn wake_all(&mut self) {
        for member in &mut self.members {
            member.quiet = false;
        }
    }

    fn stop_reactor(&mut self, index: usize) {
        let member = &mut self.members[index];
        if let Some(mut reactor) = member.reactor.take() {
            if member.started {
                reactor.stop(self.now);
            }
            member.counters = reactor.counters();
        }
    }
}

impl Executor for Simulation {
    fn reactors(&self) -> usize {
        self.members.len()
    }

    fn add_service<S: Service>(
        &mut self,
        reactor: usize,
        receiver: Receiver<S::Message>,
        build: impl FnOnce() -> S + Send + 'static,
    ) {
        Simulation::add_service(self, reactor, receiver, build);
    }

    fn allows_threads(&self) -> bool {
        false
    }
}

impl std::fmt::Debug for Simulation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Simulation")
            .field("now", &self.now)
            .field("reactors", &self.members.len())
            .finish_non_exhaustive()
    }
}
