//! Rule B14 as a model that is explored to the end: one host, a controller that is lost and perhaps connected again, another
//! one that is not lost, and all orders in which what they send can arrive.
//!
//! The host's part is [`Fence`] itself, with the time of [`Fencing::time`]; the target's lease is that of its own
//! [`lease_time`]. Time goes in steps of a quarter of KATO. What is bounded: a Keep Alive arrives within KATO (and a tick,
//! where a model says so), a message between two reactors of the host within half of KATO, a disk ends within half of CQT
//! what it has begun, and clocks drift apart by no more than one tick. What is not: commands are delivered, queues are
//! closed, resets are asked for and answered as late as can be. A clock that errs to the other side only makes a fence
//! longer.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::time::Duration;

use pollux_nvme_tcp::target::lease_time;
use pollux_reactor::Time;

use super::{Doubt, Fence, blocks};
use crate::command::{Io, Op};
use crate::ids::{ControllerId, VolumeId, VolumeInfo};
use crate::io::in_flight::{IoRequest, request_of};
use crate::options::{Fencing, Reported};

const TICK: Duration = Duration::from_millis(250);
const KATO_MS: u32 = 1000;
const CQT_MS: u16 = 1000;
/// In ticks: how late a message of a reactor, what a disk has begun, and a Keep Alive may be.
const MESSAGE_MAX: u8 = 2;
const DISK_MAX: u8 = 2;
const KEEP_ALIVE_MAX: u8 = 4;
/// The writes: the second one is submitted when the first has ended.
const OLD: usize = 0;
const NEW: usize = 1;
const CONTROLLER: ControllerId = ControllerId {
    generation: 1,
    slot: 0,
};
const NOW: Time = Time::from_nanos(1_000_000_000_000);

/// An I/O of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Write {
    NotSubmitted,
    /// To be given to a path.
    Ready,
    /// Given to this connection of the controller that is lost.
    Given(usize),
    /// Given to the controller that is not lost.
    GivenToOther,
    /// In doubt since this connection was lost.
    Fenced,
    Behind,
    Done,
    /// Ended by its deadline.
    Overdue,
}

/// What a connection's controller has of an I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Stage {
    None,
    /// Sent, not received.
    Network,
    /// Begun so many ticks ago.
    Disk(u8),
    Executed,
    /// Arrived too late.
    Dropped,
}

/// How a Cross-Controller Reset stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Reset {
    None,
    Asked,
    /// The target's home has told the reactor.
    Closing,
    Closed,
    /// Success was answered.
    Answered,
    Over,
}

/// A doubt of the fence: ticks left, and whether control has given the controller up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Left {
    ticks: u8,
    given_up: bool,
}

/// One connection of the controller that is lost: both ends, and the network between them. Messages and Keep Alives are
/// ages in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Life {
    /// As the I/O reactor and as control see it.
    connected: bool,
    controlled: bool,
    lost_told: Option<u8>,
    given_up_told: Option<u8>,
    keep_alive: Option<u8>,
    /// Ticks for which the target serves it.
    lease: u8,
    copies: [Stage; 2],
    doubts: [Option<Left>; 2],
    reset: Reset,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    writes: [Write; 2],
    lives: [Life; 2],
    /// Whether the controller was connected again.
    again: bool,
    drift: u8,
    /// Why data may be lost.
    stale: bool,
}

/// When the target answers a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answers {
    AtOnce,
    /// Before the reactor has heard.
    WhenClosing,
    /// Before its disks have ended what they have.
    WhenClosed,
    WhenEnded,
}

/// Takes one thing that can happen next: what it is, and what it changes.
type Step<'a> = &'a mut dyn FnMut(&'static str, &dyn Fn(&mut State));

impl State {
    fn is_fenced(&self) -> bool {
        self.lives.iter().any(|life| life.doubts != [None; 2])
    }
}

/// What a model is of: the product's own values, or broken ones.
#[derive(Debug, Clone, Copy)]
struct Model {
    op: Op,
    /// For how long a write is fenced, and until when the target serves without another Keep Alive.
    fence: Option<u8>,
    lease: u8,
    /// The controllers reset each other.
    resets: bool,
    answers: Answers,
    /// The controller may be connected again while something is fenced.
    reconnects: bool,
    /// The host counts from when control has given up, too.
    counts_given_up: bool,
    keep_alive_max: u8,
    drift_max: u8,
}

fn ticks(time: Duration) -> u8 {
    let ticks = time.as_nanos() / TICK.as_nanos();
    u8::try_from(ticks).unwrap()
}

impl Model {
    /// The product as it is, over an operation.
    fn product(op: Op) -> Self {
        let reported = Reported {
            cqt_ms: CQT_MS,
            ..Reported::default()
        };
        let fence = Fencing::default().time(KATO_MS, reported).unwrap();
        let cqt = Duration::from_millis(CQT_MS.into());
        Self {
            op,
            fence: fence.map(ticks),
            lease: ticks(lease_time(KATO_MS, cqt).unwrap()),
            resets: true,
            answers: Answers::WhenEnded,
            reconnects: true,
            counts_given_up: true,
            keep_alive_max: KEEP_ALIVE_MAX,
            drift_max: 1,
        }
    }

    fn start(&self) -> State {
        let life = Life {
            connected: false,
            controlled: false,
            lost_told: None,
            given_up_told: None,
            keep_alive: None,
            lease: 0,
            copies: [Stage::None; 2],
            doubts: [None; 2],
            reset: Reset::None,
        };
        State {
            writes: [Write::NotSubmitted; 2],
            lives: [self.connected(life), life],
            again: false,
            drift: self.drift_max,
            stale: false,
        }
    }

    fn connected(&self, life: Life) -> Life {
        Life {
            connected: true,
            controlled: true,
            lease: self.lease,
            ..life
        }
    }

    fn request(&self, which: usize) -> IoRequest {
        let volume = VolumeInfo {
            id: VolumeId {
                slot: 0,
                generation: 1,
            },
            name: "disk0n1".into(),
            nsid: 1,
            blocks: 1 << 20,
            block_shift: 9,
        };
        let io = Io::new(self.op, 7, 1, Vec::new()).with_user(which as u64);
        request_of(io, &volume, which as u64, NOW, Time::MAX)
    }

    /// The fence as the product keeps it, of a state.
    fn fence_of(&self, state: &State) -> Fence {
        let mut fence = Fence::default();
        for (incarnation, life) in (0..).zip(&state.lives) {
            for (which, left) in life.doubts.iter().enumerate() {
                let Some(left) = left else { continue };
                let request = self.request(which);
                fence.doubts.push(Doubt {
                    controller: CONTROLLER,
                    incarnation,
                    blocks: blocks(&request.user),
                    until: NOW + TICK * u32::from(left.ticks),
                    given_up: left.given_up,
                    told: true,
                    request: (state.writes[which] == Write::Fenced).then_some(request),
                });
            }
        }
        for (which, write) in state.writes.iter().enumerate() {
            if *write == Write::Behind {
                fence.hold(self.request(which));
            }
        }
        fence
    }

    /// Writes the fence back into the state.
    fn keep(&self, state: &mut State, fence: &Fence) {
        for (incarnation, life) in (0..).zip(&mut state.lives) {
            life.doubts = [None; 2];
            for doubt in fence.doubts.iter().filter(|d| d.incarnation == incarnation) {
                // Both writes are to the same block, so that they differ by their place alone.
                let at = usize::from(life.doubts[OLD].is_some());
                let at = doubt.request.as_ref().map_or(at, index);
                life.doubts[at] = Some(Left {
                    ticks: ticks(doubt.until.saturating_since(NOW)),
                    given_up: doubt.given_up,
                });
            }
        }
    }

    /// The I/O reactor finds the connection lost.
    fn lose(&self, state: &mut State, at: usize) {
        let mut fence = self.fence_of(state);
        state.lives[at].connected = false;
        for which in [OLD, NEW] {
            if state.writes[which] != Write::Given(at) {
                continue;
            }
            let sent = state.lives[at].copies[which] != Stage::None;
            match self.fence.filter(|_| sent && self.op.changes_data()) {
                Some(time) => {
                    let lost = (CONTROLLER, u32::try_from(at).unwrap());
                    let until = NOW + TICK * u32::from(time);
                    fence.add(lost, until, self.request(which));
                    state.writes[which] = Write::Fenced;
                }
                None => state.writes[which] = Write::Ready,
            }
        }
        self.keep(state, &fence);
    }

    /// The I/O reactor hears that control has given the controller up.
    fn hear_given_up(&self, state: &mut State, at: usize) {
        state.lives[at].given_up_told = None;
        if state.lives[at].connected {
            self.lose(state, at);
        }
        if let Some(time) = self.fence.filter(|_| self.counts_given_up) {
            let mut fence = self.fence_of(state);
            fence.given_up(CONTROLLER, NOW + TICK * u32::from(time));
            self.keep(state, &fence);
        }
    }

    fn release(&self, state: &mut State, fence: &mut Fence) {
        let (free, _) = fence.release(NOW);
        for request in free {
            state.writes[index(&request)] = Write::Ready;
            let io = request.user.io(request.buffer);
            debug_assert_eq!(io.op, self.op);
        }
        self.keep(state, fence);
    }

    /// A copy is executed by the controller that is lost.
    fn execute(&self, state: &mut State, at: usize, which: usize) {
        state.lives[at].copies[which] = Stage::Executed;
        let harm = match self.op {
            Op::Write | Op::WriteZeroes | Op::Deallocate => true,
            Op::Read | Op::Flush | Op::Compare => false,
        };
        // Of what was acknowledged no other copy may come, since anything may have been written after it; of what has
        // failed, none after another write was acknowledged.
        let ended = match state.writes[which] {
            Write::Done => true,
            Write::Overdue => state.writes[NEW] == Write::Done,
            _ => false,
        };
        state.stale |= harm && ended;
    }

    /// Everything that can happen next.
    fn steps(&self, state: &State, next: &mut Vec<(&'static str, State)>) {
        let mut step = |what, change: &dyn Fn(&mut State)| {
            let mut after = *state;
            change(&mut after);
            next.push((what, after));
        };
        self.host_steps(state, &mut step);
        for at in [0, 1] {
            self.connection_steps(state, at, &mut step);
            self.reset_steps(state, at, &mut step);
        }
        self.time_steps(state, &mut step);
    }

    fn host_steps(&self, state: &State, step: Step<'_>) {
        let ended = |write| matches!(write, Write::Done | Write::Overdue);
        for which in [OLD, NEW] {
            match state.writes[which] {
                Write::NotSubmitted if which == OLD || ended(state.writes[OLD]) => {
                    step("an I/O is submitted", &|s| s.writes[which] = Write::Ready);
                }
                Write::Ready => {
                    if state.is_fenced() && self.fence_of(state).holds(&self.request(which).user) {
                        step("it stays behind", &|s| s.writes[which] = Write::Behind);
                        continue;
                    }
                    for at in [0, 1] {
                        if state.lives[at].connected && state.lives[at].copies[which] == Stage::None
                        {
                            step("it is given to the controller", &|s| {
                                s.writes[which] = Write::Given(at);
                            });
                        }
                    }
                    step("it is given to the other controller", &|s| {
                        s.writes[which] = Write::GivenToOther;
                    });
                }
                Write::GivenToOther => {
                    step("it is done by the other controller", &|s| {
                        s.writes[which] = Write::Done
                    });
                }
                Write::Given(at) if state.lives[at].copies[which] == Stage::None => {
                    step("it is sent", &|s| {
                        s.lives[at].copies[which] = Stage::Network
                    });
                }
                Write::Given(at) if state.lives[at].copies[which] == Stage::Executed => {
                    step("its answer arrives", &|s| s.writes[which] = Write::Done);
                }
                Write::Fenced | Write::Behind if which == OLD => {
                    step("its deadline passes", &|s| s.writes[which] = Write::Overdue);
                }
                _ => {}
            }
        }
        if state.is_fenced() && self.fence_of(state).next() <= NOW {
            step("a fence is over", &|s| {
                let mut fence = self.fence_of(s);
                self.release(s, &mut fence);
            });
        }
        let lost = &state.lives[0];
        if self.reconnects && !state.again && !lost.controlled && !lost.connected {
            step("the controller is connected again", &|s| {
                s.again = true;
                s.lives[1] = self.connected(s.lives[1]);
            });
        }
    }

    fn connection_steps(&self, state: &State, at: usize, step: Step<'_>) {
        let life = &state.lives[at];
        if life.connected {
            step("the I/O connection is lost", &|s| {
                self.lose(s, at);
                s.lives[at].lost_told = s.lives[at].controlled.then_some(0);
            });
        }
        if life.controlled {
            step("control gives the controller up", &|s| {
                let life = &mut s.lives[at];
                life.controlled = false;
                life.lost_told = None;
                life.given_up_told = Some(0);
            });
            if life.keep_alive.is_none() && life.lease > 0 {
                step("Keep Alive is sent", &|s| s.lives[at].keep_alive = Some(0));
            }
        }
        if life.given_up_told.is_some() {
            step("the I/O reactor hears it", &|s| self.hear_given_up(s, at));
        }
        if life.keep_alive.is_some() {
            step("Keep Alive arrives", &|s| {
                let life = &mut s.lives[at];
                life.keep_alive = None;
                if life.lease > 0 {
                    life.lease = self.lease;
                }
            });
        }
        for which in [OLD, NEW] {
            match life.copies[which] {
                Stage::Network if life.lease > 0 => {
                    step("a command arrives", &|s| {
                        s.lives[at].copies[which] = Stage::Disk(0)
                    });
                }
                Stage::Disk(_) => {
                    step("a command is executed", &|s| self.execute(s, at, which));
                }
                _ => {}
            }
        }
    }

    fn reset_steps(&self, state: &State, at: usize, step: Step<'_>) {
        let life = &state.lives[at];
        let drained = !life.copies.iter().any(|c| matches!(c, Stage::Disk(_)));
        match life.reset {
            Reset::None if self.resets && !life.connected && life.doubts != [None; 2] => {
                step("a reset is asked for", &|s| {
                    s.lives[at].reset = Reset::Asked
                });
            }
            Reset::Asked => {
                step("the target closes the controller", &|s| {
                    s.lives[at].reset = Reset::Closing;
                });
            }
            Reset::Closing => {
                step("its queues are closed", &|s| {
                    s.lives[at].reset = Reset::Closed;
                    s.lives[at].lease = 0;
                });
            }
            Reset::Answered => {
                step("the reset is known to be done", &|s| {
                    s.lives[at].reset = Reset::Over;
                    let mut fence = self.fence_of(s);
                    fence.reset((CONTROLLER, u32::try_from(at).unwrap()), NOW);
                    self.release(s, &mut fence);
                });
            }
            _ => {}
        }
        let answers = match life.reset {
            Reset::Asked => self.answers == Answers::AtOnce,
            Reset::Closing => self.answers == Answers::WhenClosing,
            Reset::Closed => self.answers == Answers::WhenClosed || drained,
            _ => false,
        };
        if answers {
            step("the reset is answered", &|s| {
                s.lives[at].reset = Reset::Answered
            });
        }
    }

    fn time_steps(&self, state: &State, step: Step<'_>) {
        let late = |age: Option<u8>, max| age.is_some_and(|age| age >= max);
        let must_happen = state.lives.iter().any(|life| {
            let disk = |copy: &Stage| matches!(copy, Stage::Disk(age) if *age >= DISK_MAX);
            late(life.lost_told, MESSAGE_MAX)
                || late(life.given_up_told, MESSAGE_MAX)
                || late(life.keep_alive, self.keep_alive_max)
                || life.copies.iter().any(disk)
        });
        if !must_happen {
            step("a tick passes", &|s| {
                pass_host(s);
                pass_target(s);
                pass(s);
            });
            if state.drift > 0 {
                step(
                    "a tick passes, which the target's clock does not count",
                    &|s| {
                        s.drift -= 1;
                        pass_host(s);
                        pass(s);
                    },
                );
            }
        }
        if state.drift > 0 {
            step("the host's clock counts a tick that has not passed", &|s| {
                s.drift -= 1;
                pass_host(s);
            });
        }
    }

    /// Explores all states; how many there are, and what of the interesting ones was reached. Or the shortest way to
    /// stale data.
    fn explore(&self) -> Result<Explored, String> {
        let mut seen = HashSet::new();
        let mut states = vec![(self.start(), 0, "the start")];
        seen.insert(self.start());
        let (mut at, mut explored) = (0, Explored::default());
        let mut next = Vec::new();
        while let Some(&(state, ..)) = states.get(at) {
            if state.stale {
                return Err(way_to(&states, at));
            }
            explored.note(&state);
            if is_over(&state) {
                at += 1;
                continue;
            }
            self.steps(&state, &mut next);
            for (what, state) in next.drain(..) {
                let state = essential(state);
                if seen.insert(state) {
                    states.push((state, at, what));
                }
            }
            at += 1;
        }
        explored.states = at;
        Ok(explored)
    }
}

fn index(request: &IoRequest) -> usize {
    usize::try_from(request.user.user).unwrap()
}

fn pass_host(state: &mut State) {
    for left in state
        .lives
        .iter_mut()
        .flat_map(|life| life.doubts.iter_mut().flatten())
    {
        left.ticks = left.ticks.saturating_sub(1);
    }
}

fn pass_target(state: &mut State) {
    for life in &mut state.lives {
        life.lease = life.lease.saturating_sub(1);
    }
}

/// All is ended, and nothing can be executed any more.
fn is_over(state: &State) -> bool {
    let ended = |write: &Write| matches!(write, Write::Done | Write::Overdue);
    let alive = |copy: &Stage| matches!(copy, Stage::Network | Stage::Disk(_));
    let mut copies = state.lives.iter().flat_map(|life| &life.copies);
    state.writes.iter().all(ended) && !copies.any(alive)
}

/// The state without what can have no effect any more, so that states that differ by nothing else are one.
fn essential(mut state: State) -> State {
    for life in &mut state.lives {
        let is_awaited = |copy: &Stage| *copy == Stage::Network;
        if !life.connected && !life.copies.iter().any(is_awaited) {
            life.lease = 0;
        }
        if life.lease == 0 {
            // No lease begins again.
            life.keep_alive = None;
            for copy in life.copies.iter_mut().filter(|copy| is_awaited(copy)) {
                *copy = Stage::Dropped;
            }
        }
        if !life.connected && life.doubts == [None; 2] {
            life.given_up_told = None;
            if life.reset != Reset::None {
                life.reset = Reset::Over;
            }
        }
    }
    state
}

/// Everything that is on its way gets older.
fn pass(state: &mut State) {
    for life in &mut state.lives {
        let ages = [
            &mut life.lost_told,
            &mut life.given_up_told,
            &mut life.keep_alive,
        ];
        for age in ages.into_iter().flatten() {
            *age += 1;
        }
        for copy in &mut life.copies {
            if let Stage::Disk(age) = copy {
                *age += 1;
            }
        }
    }
}

fn way_to(states: &[(State, usize, &'static str)], mut at: usize) -> String {
    let mut steps = vec![at];
    while at > 0 {
        at = states[at].1;
        steps.push(at);
    }
    steps.iter().rev().fold(String::new(), |mut text, &at| {
        let _ = writeln!(text, "{}", states[at].2);
        text
    })
}

/// What was found of a model that loses nothing.
#[derive(Debug, Default)]
struct Explored {
    states: usize,
    /// States in which both writes are acknowledged, after a fence that time has ended, and after one that a reset has.
    done: usize,
    done_after_time: usize,
    done_after_reset: usize,
    fenced: usize,
    /// The old write's first copy was executed, and the write sent again.
    twice: usize,
}

impl Explored {
    fn note(&mut self, state: &State) {
        let done = state.writes == [Write::Done; 2];
        self.done += usize::from(done);
        let was_reset = state.lives[0].reset == Reset::Over;
        self.done_after_reset += usize::from(done && was_reset);
        let lost = !state.lives[0].connected && state.lives[0].copies[OLD] == Stage::Dropped;
        self.done_after_time += usize::from(done && lost && !was_reset);
        self.fenced += usize::from(state.writes.contains(&Write::Fenced));
        let executed = state.lives[0].copies[OLD] == Stage::Executed;
        self.twice += usize::from(executed && state.writes[OLD] == Write::GivenToOther);
    }
}

/// B14.2, B14.3, B14.6: in none of the 800,000 states that a write can come to is acknowledged data lost, and both ways out of
/// a fence lead to the end.
#[test]
fn no_order_of_events_brings_an_old_write_back() {
    let found = Model::product(Op::Write).explore();
    let found = found.unwrap_or_else(|way| panic!("a write came back:\n{way}"));
    println!("{found:?}");
    assert!(found.done > 0 && found.done_after_reset > 0 && found.done_after_time > 0);
    assert!(found.fenced > 0 && found.twice > 0);
}

/// B14.1: what the host fences is what does harm; the rest never waits.
#[test]
fn no_operation_comes_back_and_reads_never_wait() {
    for op in Op::ALL {
        let model = Model {
            reconnects: false,
            ..Model::product(op)
        };
        let found = model.explore();
        let found = found.unwrap_or_else(|way| panic!("{op:?} came back:\n{way}"));
        assert!(found.done > 0 && found.twice > 0, "{op:?}");
        assert_eq!(found.fenced > 0, op.changes_data(), "{op:?}");
    }
}

/// The model finds what is wrong: each of these loses data, in the order of events that it prints.
#[test]
fn what_is_broken_loses_data() {
    let product = Model {
        reconnects: false,
        ..Model::product(Op::Write)
    };
    let half = product.fence.map(|time| time / 2);
    let broken = [
        (
            "no fence",
            Model {
                fence: None,
                ..product
            },
        ),
        (
            "half the time",
            Model {
                fence: half,
                ..product
            },
        ),
        (
            "no lease",
            Model {
                lease: 200,
                ..product
            },
        ),
        (
            "only the loss that the I/O reactor sees",
            Model {
                counts_given_up: false,
                ..product
            },
        ),
        (
            "a reset that is answered as it is asked for",
            Model {
                answers: Answers::AtOnce,
                ..product
            },
        ),
        (
            "one that is answered before queues are closed",
            Model {
                answers: Answers::WhenClosing,
                ..product
            },
        ),
        (
            "one that is answered before disks have ended",
            Model {
                answers: Answers::WhenClosed,
                ..product
            },
        ),
        (
            "clocks that drift twice as far",
            Model {
                drift_max: 2,
                ..product
            },
        ),
    ];
    for (what, model) in broken {
        match model.explore() {
            Ok(found) => panic!("{what}: no way to lost data in {} states", found.states),
            Err(way) => println!("{what}:\n{way}"),
        }
    }
}

/// A Keep Alive that is later than KATO does no harm either: the lease is over before it arrives, and none begins again.
#[test]
fn a_keep_alive_that_is_too_late_prolongs_nothing() {
    let model = Model {
        keep_alive_max: 3 * KEEP_ALIVE_MAX,
        reconnects: false,
        ..Model::product(Op::Write)
    };
    assert!(model.explore().is_ok());
}
