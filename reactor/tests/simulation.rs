//! The same services on simulated reactors.

mod common;

use std::cell::RefCell;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use common::{Client, ClientResult, EchoServer, Never, Temper};
use pollux_reactor::{Context, Outbox, Progress, Rng, Service, Simulation, Time, mailbox};

const ADDR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 4420);
const MILLI: Duration = Duration::from_millis(1);

/// An echo server and a client, a reactor each.
struct Pair {
    sim: Simulation,
    outcomes: mpsc::Receiver<ClientResult>,
    ends: mpsc::Receiver<Option<ErrorKind>>,
}

impl Pair {
    fn new(seed: u64, temper: Temper, total: usize) -> Pair {
        let (outcome, outcomes) = mpsc::channel();
        let (ended, ends) = mpsc::channel();
        let (listening, _) = mpsc::channel();
        let mut sim = Simulation::new(seed);
        let server = sim.add_reactor();
        let service = EchoServer::new(ADDR, temper, listening, ended);
        sim.add_service(server, mailbox(1).1, || service);
        // Listening before anybody connects.
        let _ = sim.step();
        let client = sim.add_reactor();
        sim.add_service(client, mailbox(1).1, || Client::new(ADDR, total, outcome));
        Pair {
            sim,
            outcomes,
            ends,
        }
    }

    /// What the client came to within a virtual minute.
    fn outcome(&mut self) -> Option<ClientResult> {
        let mut outcome = None;
        let outcomes = &self.outcomes;
        self.sim.run_until(Duration::from_secs(60), || {
            outcome = outcomes.try_recv().ok();
            outcome.is_some()
        });
        outcome
    }
}

#[test]
fn latency_is_virtual_time() {
    let mut pair = Pair::new(1, Temper::Hot, 10);
    pair.sim.network().set_latency(MILLI);
    let Some(ClientResult::Echoed { at, .. }) = pair.outcome() else {
        panic!("not echoed");
    };
    // The handshake there and back, then the bytes there and back; the turns in between take microseconds.
    let spent = at - Time::ZERO;
    assert!(spent >= 4 * MILLI && spent < 5 * MILLI, "{spent:?}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut pair = Pair::new(seed, Temper::Cold, 20_000);
        pair.sim.network().set_max_chunk(900);
        pair.sim.network().set_latency(MILLI);
        pair.sim.network().set_jitter(MILLI);
        let outcome = pair.outcome();
        assert!(matches!(outcome, Some(ClientResult::Echoed { .. })));
        (pair.sim.trace(), pair.sim.now(), outcome)
    };
    assert_eq!(run(1), run(1));
    assert_eq!(run(2), run(2));
    assert_ne!(run(1).0, run(2).0);
}

#[test]
fn reads_and_writes_split_anywhere_keep_the_bytes_in_order() {
    for seed in 0..10 {
        for temper in [Temper::Hot, Temper::Cold] {
            let mut rng = Rng::seeded(seed);
            let mut pair = Pair::new(seed, temper, 2_000);
            let network = pair.sim.network();
            network.set_max_chunk(usize::try_from(1 + rng.below(40)).unwrap());
            network.set_jitter(MILLI);
            network.set_send_buffer(usize::try_from(1 + rng.below(500)).unwrap());
            // The client compares every byte.
            let outcome = pair.outcome();
            assert!(
                matches!(outcome, Some(ClientResult::Echoed { .. })),
                "seed {seed}, {temper:?}: {outcome:?}"
            );
        }
    }
}

#[test]
fn a_large_transfer_waits_for_the_other_sides_reads() {
    let mut pair = Pair::new(5, Temper::Cold, 2_000_000);
    pair.sim.network().set_latency(Duration::from_micros(50));
    let outcome = pair.outcome();
    let Some(ClientResult::Echoed { socket_calls, .. }) = outcome else {
        panic!("{outcome:?}");
    };
    let counters = pair.sim.counters();
    assert!(counters[1].socket_calls >= socket_calls);
    assert!(counters[0].socket_calls > 0 && counters[0].busy_turns > 0);
    assert!(counters[0].turns >= counters[0].busy_turns);
    // The client closes when it is done.
    pair.sim.run_for(MILLI);
    assert_eq!(pair.ends.try_recv(), Ok(None));
}

#[test]
fn a_severed_stream_is_an_error_on_both_sides() {
    let mut pair = Pair::new(3, Temper::Cold, 10_000_000);
    pair.sim.network().set_latency(MILLI);
    pair.sim.run_for(20 * MILLI);
    assert!(pair.outcomes.try_recv().is_err());
    pair.sim.network().sever(ADDR);
    let outcome = pair.outcome();
    assert_eq!(
        outcome,
        Some(ClientResult::Failed(ErrorKind::ConnectionReset))
    );
    pair.sim.run_for(MILLI);
    assert_eq!(pair.ends.try_recv(), Ok(Some(ErrorKind::ConnectionReset)));
}

#[test]
fn a_refused_connect_and_one_to_nobody_are_errors() {
    let mut pair = Pair::new(3, Temper::Hot, 1);
    pair.sim.network().refuse(ADDR, true);
    let refused = Some(ClientResult::Failed(ErrorKind::ConnectionRefused));
    assert_eq!(pair.outcome(), refused);

    let (outcome, outcomes) = mpsc::channel();
    let mut sim = Simulation::new(4);
    let reactor = sim.add_reactor();
    sim.add_service(reactor, mailbox(1).1, || Client::new(ADDR, 1, outcome));
    sim.run_for(MILLI);
    assert_eq!(outcomes.try_recv().ok(), refused);
}

#[test]
fn a_black_hole_tells_nobody_and_delivers_when_it_is_gone() {
    // Before the connection is up.
    let mut pair = Pair::new(3, Temper::Cold, 1_000_000);
    pair.sim.network().set_latency(MILLI);
    // No more than this in 1 ms, so the transfer takes 100 ms.
    pair.sim.network().set_send_buffer(10_000);
    pair.sim.network().black_hole(ADDR, true);
    pair.sim.run_for(Duration::from_secs(100));
    assert!(pair.outcomes.try_recv().is_err());
    assert_eq!(pair.sim.now(), Time::ZERO + Duration::from_secs(100));
    // In the middle of the transfer.
    pair.sim.network().black_hole(ADDR, false);
    pair.sim.run_for(20 * MILLI);
    pair.sim.network().black_hole(ADDR, true);
    pair.sim.run_for(Duration::from_secs(100));
    assert!(pair.outcomes.try_recv().is_err());
    pair.sim.network().black_hole(ADDR, false);
    assert!(matches!(pair.outcome(), Some(ClientResult::Echoed { .. })));
}

#[test]
fn the_end_of_a_server_is_the_end_of_its_streams() {
    let mut pair = Pair::new(3, Temper::Cold, 10_000_000);
    pair.sim.run_for(MILLI);
    pair.sim.stop();
    assert_eq!(pair.sim.step(), Progress::Idle);
    let (outcome, outcomes) = mpsc::channel();
    let late = pair.sim.add_reactor();
    pair.sim
        .add_service(late, mailbox(1).1, || Client::new(ADDR, 1, outcome));
    pair.sim.run_for(MILLI);
    let refused = ClientResult::Failed(ErrorKind::ConnectionRefused);
    assert_eq!(outcomes.try_recv().ok(), Some(refused));
}

/// Sets its timers at the start and writes down when they fire.
struct Alarm {
    seconds: Vec<u64>,
    fired: Rc<RefCell<Vec<(u64, Time)>>>,
}

impl Service for Alarm {
    type Message = Never;

    fn on_start(&mut self, cx: &mut Context<'_>) {
        for &seconds in &self.seconds {
            cx.set_timer(cx.now() + Duration::from_secs(seconds), seconds);
        }
        let cancelled = cx.set_timer(cx.now() + Duration::from_secs(4), 99);
        assert!(cx.cancel_timer(cancelled));
    }

    fn on_message(&mut self, message: Never, _cx: &mut Context<'_>) {
        match message {}
    }

    fn on_timer(&mut self, token: u64, cx: &mut Context<'_>) {
        self.fired.borrow_mut().push((token, cx.now()));
    }

    fn poll(&mut self, _cx: &mut Context<'_>) -> Progress {
        Progress::Idle
    }
}

#[test]
fn timers_of_all_reactors_fire_in_virtual_time() {
    let mut sim = Simulation::new(1);
    let fired = Rc::new(RefCell::new(Vec::new()));
    for seconds in [vec![3_600, 5, 7], vec![6, 10_000]] {
        let reactor = sim.add_reactor();
        let fired = Rc::clone(&fired);
        sim.add_service(reactor, mailbox(1).1, || Alarm { seconds, fired });
    }
    sim.run_for(Duration::from_secs(3_600));
    let due = |seconds| (seconds, Time::ZERO + Duration::from_secs(seconds));
    let late: Vec<_> = fired
        .borrow()
        .iter()
        .map(|&(token, at)| (token, at - due(token).1))
        .collect();
    assert_eq!(
        late.iter().map(|l| l.0).collect::<Vec<_>>(),
        [5, 6, 7, 3_600]
    );
    // On time, but for the microseconds that earlier busy turns took.
    assert!(
        late.iter().all(|l| l.1 < Duration::from_micros(10)),
        "{late:?}"
    );
    assert_eq!(fired.borrow().len(), 4);
    sim.run_for(Duration::from_secs(10_000));
    assert_eq!(fired.borrow().last().map(|last| last.0), Some(10_000));
}

/// Passes numbers on to the next, one larger, and writes down what it got.
struct Relay {
    next: Outbox<u64>,
    limit: u64,
    got: Rc<RefCell<Vec<u64>>>,
}

impl Service for Relay {
    type Message = u64;

    fn on_message(&mut self, n: u64, cx: &mut Context<'_>) {
        self.got.borrow_mut().push(n);
        if n >= self.limit {
            cx.request_stop();
        }
        if n <= self.limit {
            self.next.post(n + 1);
        }
    }

    fn on_timer(&mut self, token: u64, _cx: &mut Context<'_>) {
        panic!("timer {token}");
    }

    fn poll(&mut self, _cx: &mut Context<'_>) -> Progress {
        self.next.flush();
        Progress::Idle
    }

    fn on_stop(&mut self, _cx: &mut Context<'_>) {
        self.got.borrow_mut().push(u64::MAX);
    }
}

#[test]
fn messages_go_between_simulated_reactors_and_from_outside() {
    let mut sim = Simulation::new(9);
    let got = Rc::new(RefCell::new(Vec::new()));
    let (to_a, of_a) = mailbox(2);
    let (to_b, of_b) = mailbox(2);
    for (next, receiver) in [(to_b, of_a), (to_a.clone(), of_b)] {
        let reactor = sim.add_reactor();
        let relay = Relay {
            next: Outbox::new(next),
            limit: 100,
            got: Rc::clone(&got),
        };
        sim.add_service(reactor, receiver, || relay);
    }
    sim.run_for(MILLI);
    assert!(got.borrow().is_empty());
    to_a.send(0).unwrap();
    assert!(sim.run_until(MILLI, || got.borrow().len() == 50));
    sim.run_for(MILLI);
    let mut expected: Vec<u64> = (0..=100).collect();
    expected.extend([u64::MAX, 101, u64::MAX]);
    assert_eq!(*got.borrow(), expected);
    // Both have stopped, so their mailboxes are closed.
    assert!(to_a.is_closed());
}

#[test]
#[should_panic(expected = "there is no reactor 1 in this simulation")]
fn a_service_needs_a_reactor() {
    let mut sim = Simulation::new(0);
    let reactor = sim.add_reactor();
    let fired = Rc::default();
    let seconds = Vec::new();
    sim.add_service(reactor + 1, mailbox(1).1, || Alarm { seconds, fired });
}

#[test]
fn a_reactor_that_stands_still_has_no_turn_while_others_have() {
    let mut pair = Pair::new(9, Temper::Hot, 10);
    pair.sim.network().set_latency(MILLI);
    // The server was added first.
    pair.sim.stand_still(0, 50 * MILLI);
    let Some(ClientResult::Echoed { at, .. }) = pair.outcome() else {
        panic!("not echoed");
    };
    let spent = at - Time::ZERO;
    assert!(spent >= 50 * MILLI && spent < 53 * MILLI, "{spent:?}");
}

/// Says when it hears what, and when its timer is due.
struct Listener {
    heard: Rc<RefCell<Vec<(&'static str, Time)>>>,
}

impl Service for Listener {
    type Message = &'static str;

    fn on_start(&mut self, cx: &mut Context<'_>) {
        cx.set_timer(Time::ZERO + 5 * MILLI, 0);
    }

    fn on_message(&mut self, message: &'static str, cx: &mut Context<'_>) {
        self.heard.borrow_mut().push((message, cx.now()));
    }

    fn on_timer(&mut self, _: u64, cx: &mut Context<'_>) {
        self.heard.borrow_mut().push(("timer", cx.now()));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Progress {
        Progress::Idle
    }
}

#[test]
fn messages_that_are_held_arrive_late_and_in_order_while_timers_do_not_wait() {
    let mut sim = Simulation::new(9);
    let reactor = sim.add_reactor();
    let heard = Rc::new(RefCell::new(Vec::new()));
    let (sender, receiver) = mailbox(4);
    let listener = Listener {
        heard: Rc::clone(&heard),
    };
    sim.add_service(reactor, receiver, || listener);
    sim.hold_messages(reactor, 20 * MILLI);
    for message in ["one", "two"] {
        sender.send(message).unwrap();
    }
    sim.run_for(19 * MILLI);
    let names = || heard.borrow().iter().map(|h| h.0).collect::<Vec<_>>();
    assert_eq!(names(), ["timer"]);
    sim.run_for(2 * MILLI);
    assert_eq!(names(), ["timer", "one", "two"]);
    let first = heard.borrow()[1].1 - Time::ZERO;
    assert!((20 * MILLI..21 * MILLI).contains(&first), "{first:?}");
    // Held for less than before: what counts was said last.
    sim.hold_messages(reactor, 20 * MILLI);
    sim.hold_messages(reactor, Duration::ZERO);
    sender.send("three").unwrap();
    sim.run_for(MILLI);
    assert_eq!(names(), ["timer", "one", "two", "three"]);
}
