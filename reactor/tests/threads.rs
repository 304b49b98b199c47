//! Reactors as real threads over loopback TCP.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::time::Duration;

use common::{Client, ClientResult, EchoServer, Never, PATIENCE, Temper};
use pollux_reactor::{
    Context, Counters, Group, Idle, Outbox, Progress, Receiver, Sender, Service, StartError,
    WatchedDescriptor, available_cores, mailbox,
};

const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Sleeps at the first idle turn: every lost wake-up shows.
const PARK: Idle = Idle::Park {
    after: Duration::ZERO,
};

/// Passes a number on, one larger, until it reaches the limit; then stops itself and, with a last message, its partner.
struct Relay {
    name: &'static str,
    limit: u64,
    next: Outbox<u64>,
    stops: mpsc::Sender<&'static str>,
}

impl Service for Relay {
    type Message = u64;

    fn on_message(&mut self, n: u64, cx: &mut Context<'_>) {
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
        let _ = self.stops.send(self.name);
    }
}

/// Does nothing but say that it was stopped.
struct Bystander {
    name: &'static str,
    stops: mpsc::Sender<&'static str>,
}

impl Service for Bystander {
    type Message = Never;

    fn on_message(&mut self, message: Never, _cx: &mut Context<'_>) {
        match message {}
    }

    fn on_timer(&mut self, token: u64, _cx: &mut Context<'_>) {
        panic!("timer {token}");
    }

    fn poll(&mut self, _cx: &mut Context<'_>) -> Progress {
        Progress::Idle
    }

    fn on_stop(&mut self, _cx: &mut Context<'_>) {
        let _ = self.stops.send(self.name);
    }
}

/// A group of two reactors that play `limit` messages to and fro, with what to kick it off with.
fn relay_group(
    cores: [Option<usize>; 2],
    idle: Idle,
    limit: u64,
) -> (Group, Sender<u64>, mpsc::Receiver<&'static str>) {
    let (stops, stopped) = mpsc::channel();
    let mut group = Group::new();
    let (to_a, of_a) = mailbox(4);
    let (to_b, of_b) = mailbox(4);
    let seats: [(_, Sender<u64>, Receiver<u64>); 2] =
        [("a", to_b, of_a), ("b", to_a.clone(), of_b)];
    for (core, (name, next, receiver)) in cores.into_iter().zip(seats) {
        let reactor = group.add_reactor(core, idle);
        let stops = stops.clone();
        group.add_service(reactor, receiver, move || Relay {
            name,
            limit,
            next: Outbox::new(next),
            stops,
        });
    }
    (group, to_a, stopped)
}

#[test]
fn messages_cross_between_reactors_and_end_them() {
    for idle in [Idle::Spin, Idle::Yield, PARK] {
        let (group, to_a, stopped) = relay_group([None, None], idle, 2_000);
        // Sent before the reactor runs: not lost.
        to_a.send(0).unwrap();
        let counters = group.start().unwrap().join();
        // 0 to 2000 by turns, and the last one's message that ends the other.
        assert_eq!(counters[0].messages, 1_001, "{idle:?}");
        assert_eq!(counters[1].messages, 1_001, "{idle:?}");
        let mut names: Vec<_> = stopped.iter().collect();
        names.sort_unstable();
        assert_eq!(names, ["a", "b"]);
        assert!(to_a.is_closed());
        assert_eq!(to_a.send(0), Err(0));
    }
}

#[test]
fn two_spinning_reactors_on_one_core_both_get_on() {
    let core = available_cores().first().copied();
    assert!(core.is_some());
    let (group, to_a, _stopped) = relay_group([core, core], Idle::Spin, 5_000);
    to_a.send(0).unwrap();
    let counters = group.start().unwrap().join();
    assert_eq!([counters[0].messages, counters[1].messages], [2_501; 2]);
}

#[test]
fn services_of_a_reactor_stop_in_the_order_in_which_they_were_added() {
    let (stops, stopped) = mpsc::channel();
    let mut group = Group::new();
    let reactor = group.add_reactor(None, PARK);
    for name in ["first", "second", "third"] {
        let stops = stops.clone();
        group.add_service(reactor, mailbox(1).1, move || Bystander { name, stops });
    }
    drop(stops);
    let running = group.start().unwrap();
    assert!(!running.is_finished());
    running.stop();
    running.join();
    let order: Vec<_> = stopped.iter().collect();
    assert_eq!(order, ["first", "second", "third"]);
}

#[test]
fn dropping_a_running_group_stops_it() {
    let (stops, stopped) = mpsc::channel();
    let mut group = Group::new();
    let reactor = group.add_reactor(None, Idle::Yield);
    group.add_service(reactor, mailbox(1).1, move || Bystander {
        name: "it",
        stops,
    });
    drop(group.start().unwrap());
    assert_eq!(stopped.try_recv(), Ok("it"));
}

/// Answers each message, and each timer that it sets on request.
struct Answer {
    answers: mpsc::Sender<u64>,
}

impl Service for Answer {
    type Message = (u64, Duration);

    fn on_message(&mut self, (n, delay): (u64, Duration), cx: &mut Context<'_>) {
        if delay.is_zero() {
            let _ = self.answers.send(n);
        } else {
            cx.set_timer(cx.now() + delay, n);
        }
    }

    fn on_timer(&mut self, token: u64, _cx: &mut Context<'_>) {
        let _ = self.answers.send(token);
    }

    fn poll(&mut self, _cx: &mut Context<'_>) -> Progress {
        Progress::Idle
    }
}

#[test]
fn a_parked_reactor_wakes_for_each_message_and_timer() {
    let (answers, answered) = mpsc::channel();
    let (sender, receiver) = mailbox(4);
    let mut group = Group::new();
    let reactor = group.add_reactor(None, PARK);
    group.add_service(reactor, receiver, move || Answer { answers });
    let running = group.start().unwrap();
    // Each message meets the reactor on its way to sleep or asleep: a wake-up lost in between would end the test here.
    for n in 0..3_000 {
        sender.send((n, Duration::ZERO)).unwrap();
        assert_eq!(answered.recv_timeout(PATIENCE), Ok(n));
    }
    for (n, micros) in [1, 300, 1_000, 2_500].into_iter().enumerate() {
        let n = u64::try_from(n).unwrap();
        sender.send((n, Duration::from_micros(micros))).unwrap();
        assert_eq!(answered.recv_timeout(PATIENCE), Ok(n));
    }
    running.stop();
    let counters = running.join();
    assert_eq!((counters[0].messages, counters[0].timers), (3_004, 4));
}

#[test]
fn counters_can_be_read_while_the_reactor_runs() {
    let mut group = Group::new();
    let (sender, receiver) = mailbox(4);
    let reactor = group.add_reactor(None, PARK);
    let (answers, answered) = mpsc::channel();
    group.add_service(reactor, receiver, move || Answer { answers });
    let running = group.start().unwrap();
    sender.send((1, Duration::ZERO)).unwrap();
    assert_eq!(answered.recv_timeout(PATIENCE), Ok(1));
    // Published before each park, and the reactor parks after the message at the latest.
    let seen = loop {
        let counters = running.counters();
        if counters[0].messages == 1 {
            break counters[0];
        }
        std::thread::yield_now();
    };
    assert!(seen.turns >= 1 && seen.busy_turns >= 1 && seen.busy_ns > 0);
    running.stop();
    let Counters { turns, .. } = running.join()[0];
    assert!(turns >= seen.turns);
}

/// An echo server on a reactor of its own, then `test` with its address.
fn with_echo_server<R>(temper: Temper, idle: Idle, test: impl FnOnce(SocketAddr) -> R) -> R {
    let (listening, listens) = mpsc::channel();
    let (ended, _) = mpsc::channel();
    let mut group = Group::new();
    let reactor = group.add_reactor(None, idle);
    group.add_service(reactor, mailbox(1).1, move || {
        EchoServer::new(LOOPBACK, temper, listening, ended)
    });
    let _running = group.start().unwrap();
    test(listens.recv_timeout(PATIENCE).unwrap())
}

#[test]
fn a_parked_reactor_wakes_for_each_socket_event() {
    for temper in [Temper::Hot, Temper::Cold] {
        with_echo_server(temper, PARK, |addr| {
            let mut stream = TcpStream::connect(addr).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_nodelay(true).unwrap();
            for n in 0..500u32 {
                stream.write_all(&n.to_le_bytes()).unwrap();
                let mut echo = [0; 4];
                stream.read_exact(&mut echo).unwrap();
                assert_eq!(u32::from_le_bytes(echo), n, "{temper:?}");
            }
        });
    }
}

/// Counts the bytes of a descriptor that it watches.
struct Watcher {
    input: std::io::PipeReader,
    watched: Option<WatchedDescriptor>,
    seen: mpsc::Sender<usize>,
}

impl Service for Watcher {
    type Message = Never;

    fn on_start(&mut self, cx: &mut Context<'_>) {
        self.watched = Some(cx.watch_descriptor(self.input.as_fd(), 7).unwrap());
    }

    fn on_message(&mut self, message: Never, _: &mut Context<'_>) {
        match message {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Progress {
        let Some(token) = cx.next_ready() else {
            return Progress::Idle;
        };
        assert_eq!(token, 7);
        assert!(self.watched.as_mut().unwrap().take_ready());
        let len = self.input.read(&mut [0; 16]).unwrap();
        self.seen.send(len).unwrap();
        Progress::Busy
    }
}

#[test]
fn a_parked_reactor_wakes_for_a_descriptor_that_it_watches() {
    let (input, mut output) = std::io::pipe().unwrap();
    let (seen, counted) = mpsc::channel();
    let (_sender, receiver) = mailbox(4);
    let mut group = Group::new();
    let reactor = group.add_reactor(None, PARK);
    group.add_service(reactor, receiver, move || Watcher {
        input,
        watched: None,
        seen,
    });
    let running = group.start().unwrap();
    for _ in 0..500 {
        output.write_all(&[1]).unwrap();
        assert_eq!(counted.recv_timeout(PATIENCE), Ok(1));
    }
    running.stop();
    running.join();
}

#[test]
fn large_transfers_go_through_full_socket_buffers() {
    const TOTAL: usize = 8 << 20;
    for temper in [Temper::Hot, Temper::Cold] {
        with_echo_server(temper, PARK, |addr| {
            let mut stream = TcpStream::connect(addr).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut writer = stream.try_clone().unwrap();
            // Nothing is read until all is written or the buffers are full, so both directions run into them.
            let writing = std::thread::spawn(move || {
                let bytes: Vec<u8> = (0..TOTAL).map(|n| (n % 251).try_into().unwrap()).collect();
                writer.write_all(&bytes).unwrap();
            });
            let mut bytes = vec![0; TOTAL];
            stream.read_exact(&mut bytes).unwrap();
            writing.join().unwrap();
            let wrong = bytes
                .iter()
                .zip(0..)
                .find(|(byte, n)| **byte as usize != n % 251);
            assert_eq!(wrong, None);
        });
    }
}

#[test]
fn a_client_and_a_server_meet_on_two_reactors() {
    let (listening, listens) = mpsc::channel();
    let (ended, ends) = mpsc::channel();
    let (outcome, outcomes) = mpsc::channel();
    let mut server = Group::new();
    let reactor = server.add_reactor(None, Idle::Yield);
    server.add_service(reactor, mailbox(1).1, move || {
        EchoServer::new(LOOPBACK, Temper::Hot, listening, ended)
    });
    let server = server.start().unwrap();
    let addr = listens.recv_timeout(PATIENCE).unwrap();

    let mut client = Group::new();
    let reactor = client.add_reactor(None, PARK);
    client.add_service(reactor, mailbox(1).1, move || {
        Client::new(addr, 300_000, outcome).with_local(Ipv4Addr::new(127, 0, 0, 2).into())
    });
    let client = client.start().unwrap();
    let result = outcomes.recv_timeout(PATIENCE).unwrap();
    let ClientResult::Echoed { socket_calls, .. } = result else {
        panic!("{result:?}");
    };
    // A connect, some writes of at most 5000 bytes, some reads of at most 3000.
    assert!(socket_calls >= 1 + 60 + 100, "{socket_calls}");
    assert_eq!(ends.recv_timeout(PATIENCE), Ok(None));
    client.stop();
    server.stop();
    assert!(client.join()[0].socket_calls > socket_calls);
    server.join();
}

#[test]
fn a_stream_that_was_accepted_on_one_reactor_works_on_another() {
    let (listening, listens) = mpsc::channel();
    let (ended, ends) = mpsc::channel();
    let (to_worker, worker) = mailbox(4);
    let mut group = Group::new();
    let home = group.add_reactor(None, PARK);
    let other = group.add_reactor(None, PARK);
    let (ended_at_home, ends_at_home) = mpsc::channel();
    group.add_service(home, mailbox(1).1, move || {
        EchoServer::new(LOOPBACK, Temper::Cold, listening, ended_at_home)
            .handing_on(Outbox::new(to_worker))
    });
    let (unused, _) = mpsc::channel();
    group.add_service(other, worker, move || {
        EchoServer::new(LOOPBACK, Temper::Cold, unused, ended)
    });
    let running = group.start().unwrap();
    let addr = listens.recv_timeout(PATIENCE).unwrap();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        for n in 0..50u8 {
            stream.write_all(&[n; 10]).unwrap();
            let mut echo = [0; 10];
            stream.read_exact(&mut echo).unwrap();
            assert_eq!(echo, [n; 10]);
        }
        drop(stream);
        assert_eq!(ends.recv_timeout(PATIENCE), Ok(None));
    }
    running.stop();
    running.join();
    assert_eq!(ends_at_home.try_iter().count(), 0);
}

#[test]
fn many_connections_one_after_the_other() {
    // More than the flag table holds before it looks for streams that are gone.
    with_echo_server(Temper::Cold, PARK, |addr| {
        let mut kept = Vec::new();
        for n in 0..300u32 {
            let mut stream = TcpStream::connect(addr).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(&n.to_le_bytes()).unwrap();
            let mut echo = [0; 4];
            stream.read_exact(&mut echo).unwrap();
            assert_eq!(u32::from_le_bytes(echo), n);
            if n % 10 == 0 {
                kept.push(stream);
            }
        }
        for stream in &mut kept {
            stream.write_all(b"on").unwrap();
            let mut echo = [0; 2];
            stream.read_exact(&mut echo).unwrap();
            assert_eq!(&echo, b"on");
        }
    });
}

fn client_outcome(remote: SocketAddr, local: Option<IpAddr>) -> ClientResult {
    let (outcome, outcomes) = mpsc::channel();
    let mut group = Group::new();
    let reactor = group.add_reactor(None, PARK);
    group.add_service(reactor, mailbox(1).1, move || {
        let client = Client::new(remote, 1, outcome);
        match local {
            Some(local) => client.with_local(local),
            None => client,
        }
    });
    let _running = group.start().unwrap();
    outcomes.recv_timeout(PATIENCE).unwrap()
}

#[test]
fn connects_that_cannot_work_say_why() {
    // A port that was free a moment ago.
    let free = TcpListener::bind(LOOPBACK).unwrap().local_addr().unwrap();
    assert_eq!(
        client_outcome(free, None),
        ClientResult::Failed(ErrorKind::ConnectionRefused)
    );
    assert_eq!(
        client_outcome(free, Some(IpAddr::from([192, 0, 2, 1]))),
        ClientResult::Failed(ErrorKind::AddrNotAvailable)
    );
    assert_eq!(
        client_outcome(free, Some("::1".parse().unwrap())),
        ClientResult::Failed(ErrorKind::InvalidInput)
    );
}

/// Says what listening on an address came to.
struct TryListen {
    addr: SocketAddr,
    result: mpsc::Sender<Option<ErrorKind>>,
}

impl Service for TryListen {
    type Message = Never;

    fn on_start(&mut self, cx: &mut Context<'_>) {
        let result = cx.net().listen(self.addr);
        let _ = self.result.send(result.err().map(|error| error.kind()));
    }

    fn on_message(&mut self, message: Never, _cx: &mut Context<'_>) {
        match message {}
    }

    fn on_timer(&mut self, token: u64, _cx: &mut Context<'_>) {
        panic!("timer {token}");
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Progress {
        cx.request_stop();
        Progress::Idle
    }
}

#[test]
fn a_port_in_use_is_an_error() {
    let holder = TcpListener::bind(LOOPBACK).unwrap();
    let addr = holder.local_addr().unwrap();
    let (result, results) = mpsc::channel();
    let mut group = Group::new();
    let reactor = group.add_reactor(None, Idle::Spin);
    group.add_service(reactor, mailbox(1).1, move || TryListen { addr, result });
    group.start().unwrap().join();
    assert_eq!(results.try_recv(), Ok(Some(ErrorKind::AddrInUse)));
}

#[test]
fn a_core_that_does_not_exist_is_an_error_that_names_those_that_do() {
    let cores = available_cores();
    let missing = cores.iter().max().unwrap() + 1;
    for missing in [missing, 1_000_000] {
        let (stops, _) = mpsc::channel();
        let mut group = Group::new();
        group.add_reactor(cores.first().copied(), Idle::Spin);
        let reactor = group.add_reactor(Some(missing), Idle::Spin);
        group.add_service(reactor, mailbox(1).1, move || Bystander {
            name: "never",
            stops,
        });
        let error = group.start().unwrap_err();
        assert!(matches!(&error, StartError::NoSuchCore { core, .. } if *core == missing));
        let list: Vec<String> = cores.iter().map(ToString::to_string).collect();
        let expected = format!(
            "core {missing} cannot be had; cores that can: {}",
            list.join(", ")
        );
        assert_eq!(error.to_string(), expected);
    }
}

/// Tells on which reactor and which cores it runs.
struct WhereAmI {
    tell: mpsc::Sender<(usize, Vec<usize>)>,
}

impl Service for WhereAmI {
    type Message = Never;

    fn on_message(&mut self, message: Never, _cx: &mut Context<'_>) {
        match message {}
    }

    fn on_timer(&mut self, token: u64, _cx: &mut Context<'_>) {
        panic!("timer {token}");
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Progress {
        let _ = self.tell.send((cx.reactor_index(), available_cores()));
        cx.request_stop();
        Progress::Busy
    }
}

#[test]
fn a_pinned_reactor_runs_on_its_core_only() {
    let cores = available_cores();
    let (tell, told) = mpsc::channel();
    let mut group = Group::new();
    for &core in &cores {
        let reactor = group.add_reactor(Some(core), Idle::Yield);
        let tell = tell.clone();
        group.add_service(reactor, mailbox(1).1, move || WhereAmI { tell });
    }
    drop(tell);
    group.start().unwrap().join();
    let mut found: Vec<_> = told.iter().collect();
    found.sort_unstable();
    let expected: Vec<_> = cores.iter().map(|&core| vec![core]).enumerate().collect();
    assert_eq!(found, expected);
}

/// Breaks when it is told to, and again when it is asked what it was doing.
struct Breaks {
    asked: mpsc::Sender<()>,
}

impl Service for Breaks {
    type Message = ();

    fn on_message(&mut self, (): (), _cx: &mut Context<'_>) {
        panic!("as told");
    }

    fn in_flight(&self, _out: &mut String) {
        self.asked.send(()).unwrap();
        panic!("and once more");
    }

    fn poll(&mut self, _cx: &mut Context<'_>) -> Progress {
        Progress::Idle
    }
}

#[test]
fn a_panic_stops_the_group_and_comes_out_at_join() {
    let (stops, stopped) = mpsc::channel();
    let (sender, receiver) = mailbox(1);
    let mut group = Group::new();
    let healthy = group.add_reactor(None, PARK);
    group.add_service(healthy, mailbox(1).1, move || Bystander {
        name: "healthy",
        stops,
    });
    let sick = group.add_reactor(None, PARK);
    let (asked, was_asked) = mpsc::channel();
    group.add_service(sick, receiver, move || Breaks { asked });
    let running = group.start().unwrap();
    sender.send(()).unwrap();
    let payload = catch_unwind(AssertUnwindSafe(|| running.join())).unwrap_err();
    assert_eq!(payload.downcast_ref(), Some(&"as told"));
    assert_eq!(stopped.try_recv(), Ok("healthy"));
    assert_eq!(was_asked.try_recv(), Ok(()), "what was in flight");
}
