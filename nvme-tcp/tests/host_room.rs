//! A controller that does not read what a host sends costs the host nothing until it does, and what was not handed to
//! the connection when it ends is told apart: in a simulation, where every socket call is counted.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use pollux_nvme_tcp::host::{
    Completed, ConnectOptions, Controller, ControllerEvent, ControllerOptions, HostIdentity, Lost,
    Outcome, QueuePair, Request,
};
use pollux_nvme_tcp::spec::opcode::nvm;
use pollux_nvme_tcp::target::{self, Backend};
use pollux_nvme_tcp::testing::{nqn, set_up};
use pollux_reactor::{Context, Progress, Sender, Service, Simulation, mailbox};

const MILLI: Duration = Duration::from_millis(1);

/// More than a simulated connection takes before its send buffer is full.
const WRITES: u16 = 100;
const LEN: usize = 8192;

/// What the host has come to.
#[derive(Default)]
struct Seen {
    /// Writes are to be submitted.
    go: bool,
    /// The queue pair is to be closed.
    close: bool,
    ready: bool,
    written: u16,
    /// What has come back when it was closed: which write, and whether a byte of it was handed over.
    lost: Vec<(u16, bool)>,
    /// Socket calls of the turns so far.
    calls: u64,
}

/// An admin queue and an I/O queue, polled a thousand times a second at least.
struct Host {
    addr: SocketAddr,
    admin: Option<Controller>,
    io: Option<QueuePair<u16>>,
    seen: Rc<RefCell<Seen>>,
}

impl Service for Host {
    type Message = ();

    fn on_start(&mut self, cx: &mut Context<'_>) {
        let identity = HostIdentity::random();
        let mut options = ControllerOptions::new(ConnectOptions::admin(self.addr, nqn(), identity));
        options.io_queues = 1;
        options.io_queue_size = 128;
        let now = cx.now();
        self.admin = Some(Controller::connect(cx.net(), now, options).unwrap());
        cx.set_timer(now + MILLI, 0);
    }

    fn on_message(&mut self, (): (), _: &mut Context<'_>) {}

    fn on_timer(&mut self, _: u64, cx: &mut Context<'_>) {
        let at = cx.now() + MILLI;
        cx.set_timer(at, 0);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Progress {
        let now = cx.now();
        let before = cx.net().socket_calls();
        let seen = &mut *self.seen.borrow_mut();
        let admin = self.admin.as_mut().unwrap();
        let mut progress = admin.poll(now);
        while let Some(event) = admin.next_event() {
            if let ControllerEvent::Ready = event {
                let options = admin.io_options(1);
                self.io = Some(QueuePair::connect(cx.net(), now, options).unwrap());
            }
        }
        if let Some(io) = &mut self.io {
            let mut sink = |completed: Completed<u16>| match completed.outcome {
                Outcome::Lost(Lost::Connection { sent }) => {
                    seen.lost.push((completed.request.user, sent));
                }
                outcome => {
                    assert!(outcome.is_success());
                    seen.written += 1;
                }
            };
            progress = progress.or(io.receive(now, false, &mut sink).unwrap());
            if std::mem::take(&mut seen.close) {
                io.close(&mut sink);
            }
            seen.ready = io.is_ready();
            if std::mem::take(&mut seen.go) {
                let blocks = u32::try_from(LEN / 512).unwrap();
                for n in 0..WRITES {
                    let lba = u64::from(n) * u64::from(blocks);
                    let write = Request::block(nvm::WRITE, 1, lba, blocks, 9, vec![7; LEN]);
                    io.submit(write.with(n)).unwrap();
                }
            }
            io.transmit(&mut |_| ()).unwrap();
        }
        seen.calls += cx.net().socket_calls() - before;
        progress
    }
}

/// A host with a queue pair that is connected, the address of its controller, and what keeps its mailbox open.
fn world(seed: u64) -> (Simulation, Rc<RefCell<Seen>>, SocketAddr, Sender<()>) {
    let mut sim = Simulation::new(seed);
    let reactor = sim.add_reactor();
    let handle = target::install(&mut sim, &[reactor]);
    let addr = SocketAddr::from(([10, 0, 0, 1], 4420));
    set_up(&handle, &[Backend::Memory { bytes: 1 << 20 }], &[addr]);
    sim.run_for(MILLI);
    let seen = Rc::new(RefCell::new(Seen::default()));
    let (alive, receiver) = mailbox(1);
    let reactor = sim.add_reactor();
    let host = Host {
        addr,
        admin: None,
        io: None,
        seen: Rc::clone(&seen),
    };
    sim.add_service(reactor, receiver, || host);
    assert!(sim.run_until(Duration::from_secs(1), || seen.borrow().ready));
    (sim, seen, addr, alive)
}

#[test]
fn a_controller_that_does_not_read_is_not_sent_to_until_there_is_room() {
    let (mut sim, seen, addr, _alive) = world(3);
    // Nothing that is sent is read any more.
    sim.network().black_hole(addr, true);
    seen.borrow_mut().go = true;
    sim.run_for(Duration::from_millis(100));
    let before = seen.borrow().calls;
    // Two thousand turns.
    sim.run_for(Duration::from_secs(2));
    assert_eq!(seen.borrow().calls - before, 0);
    assert_eq!(seen.borrow().written, 0);

    sim.network().black_hole(addr, false);
    let all_written = || seen.borrow().written == WRITES;
    assert!(sim.run_until(Duration::from_secs(1), all_written));
    sim.stop();
}

/// B8.1: only a write of which no byte was handed over may safely be written elsewhere at once. The connection takes the
/// first ones, a part of one more, and nothing of those behind it.
#[test]
fn what_a_lost_connection_hands_back_says_whether_a_byte_of_it_was_handed_over() {
    let (mut sim, seen, addr, _alive) = world(4);
    sim.network().black_hole(addr, true);
    seen.borrow_mut().go = true;
    sim.run_for(Duration::from_millis(100));
    seen.borrow_mut().close = true;
    sim.run_for(MILLI);
    let seen = seen.borrow();
    let order: Vec<u16> = seen.lost.iter().map(|(n, _)| *n).collect();
    assert_eq!(order, (0..WRITES).collect::<Vec<_>>());
    let sent = seen.lost.iter().take_while(|(_, sent)| *sent).count();
    assert!(sent > 0 && sent < usize::from(WRITES), "{sent}");
    assert!(seen.lost[sent..].iter().all(|(_, sent)| !sent));
    drop(seen);
    sim.stop();
}
