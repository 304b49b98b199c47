//! A host with one command at a time beside one with many, on one reactor: how much of the other's work comes before its own.

use std::cell::RefCell;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use pollux_nvme_tcp::spec::opcode::nvm;
use pollux_nvme_tcp::spec::pdu::PduType;
use pollux_nvme_tcp::spec::{SglDescriptor, Sqe};
use pollux_nvme_tcp::target::{self, Backend};
use pollux_nvme_tcp::testing::{Initiator, Lines, Options, nqn, set_up};
use pollux_reactor::{Opened, Simulation, Stream, StreamWrapper};

use crate::world::{Pdu, Queue, bring, read};

/// A connection, and how many bytes the target has moved on it.
type Moved = (usize, usize);

/// Notes what the target moves on a connection.
#[derive(Debug)]
struct Noting {
    stream: Stream,
    /// None at the hosts' end.
    connection: Option<usize>,
    moved: Sender<Moved>,
}

impl Noting {
    fn note(&self, len: usize) {
        if let Some(connection) = self.connection {
            self.moved.send((connection, len)).unwrap();
        }
    }
}

impl StreamWrapper for Noting {
    fn inner(&self) -> &Stream {
        &self.stream
    }

    fn inner_mut(&mut self) -> &mut Stream {
        &mut self.stream
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let len = self.stream.read_vectored(bufs)?;
        self.note(len);
        Ok(len)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let len = self.stream.write_vectored(bufs)?;
        self.note(len);
        Ok(len)
    }
}

/// A target on one reactor, the first of the simulation, whose connections are counted from 0 in the order in which they
/// are made.
struct Rig {
    sim: Rc<RefCell<Simulation>>,
    lines: Lines,
    addr: SocketAddr,
    moved: Receiver<Moved>,
    connections: usize,
}

impl Rig {
    fn new() -> Self {
        let (noted, moved) = mpsc::channel();
        let mut sim = Simulation::new(11);
        let accepted = AtomicUsize::new(0);
        sim.wrap_streams(move |stream, opened| {
            let is_accepted = opened == Opened::Accepted;
            let connection = is_accepted.then(|| accepted.fetch_add(1, Ordering::Relaxed));
            Box::new(Noting {
                stream,
                connection,
                moved: noted.clone(),
            })
        });
        let reactor = sim.add_reactor();
        let handle = target::install(&mut sim, &[reactor]);
        let addr = SocketAddr::from(([10, 0, 0, 1], 4420));
        set_up(&handle, &[Backend::Memory { bytes: 8 << 20 }], &[addr]);
        sim.run_for(Duration::from_millis(1));
        let sim = Rc::new(RefCell::new(sim));
        Self {
            lines: Lines::new(&sim),
            sim,
            addr,
            moved,
            connections: 0,
        }
    }

    /// An admin queue and so many I/O queues of a host; and the number of the first of these.
    fn connect(&mut self, host: &str, queues: u16) -> (Queue, Vec<Queue>, usize) {
        let options = Options::default();
        let open = |rig: &mut Self| {
            let mut queue = Initiator::over(rig.lines.connect(rig.addr));
            queue.hostnqn = format!("nqn.2014-08.org.example:{host}").parse().unwrap();
            queue.initialize(options);
            rig.connections += 1;
            queue
        };
        let mut admin = open(self);
        admin.enable(&nqn(), options);
        let first = self.connections;
        let queues = (1..=queues).map(|qid| {
            let mut io = open(self);
            io.join(&nqn(), admin.cntlid, qid, 1024, options);
            io
        });
        let queues = queues.collect();
        (admin, queues, first)
    }
}

/// Waits for the ends of so many commands.
fn finish(queue: &mut Queue, commands: usize) {
    let mut ended = 0;
    while ended < commands {
        let pdu = queue.receive();
        // What is read comes with a response as well.
        if pdu.frame.pdu_type != PduType::C2H_DATA {
            assert!(pdu.cqe().status().is_success(), "{}", pdu.cqe().status());
            ended += 1;
        }
    }
}

/// The most that the target moves for a host that has `depth` commands like this one, over so many queues, from when it has
/// something of both hosts to the answer that the other waits for.
fn moved_before(queues: u16, depth: usize, sqe: Sqe) -> usize {
    let mut rig = Rig::new();
    let (_greedy_admin, mut greedy, first) = rig.connect("greedy", queues);
    let (_polite_admin, mut polite, answered) = rig.connect("polite", 1);
    let data = vec![7; sqe.sgl.length.get() as usize];
    let is_in_capsule = sqe.sgl.kind == SglDescriptor::IN_CAPSULE;
    let in_capsule = if is_in_capsule { &data[..] } else { &[] };
    let is_asked_for = sqe.opcode == nvm::WRITE && !is_in_capsule;
    let depth = depth / usize::from(queues);
    let mut most = 0;
    for _ in 0..6 {
        let submit = |queue: &mut Queue| {
            for _ in 0..depth {
                queue.submit(sqe, in_capsule);
            }
        };
        let mut r2ts = Vec::new();
        if is_asked_for {
            for queue in &mut greedy {
                submit(queue);
                r2ts.push((0..depth).map(|_| queue.receive()).collect());
            }
        }
        // Then it is the greedy host's turn.
        let (cqe, _) = polite[0].command(read(1, 0, 8), &[]);
        assert!(cqe.status().is_success(), "{}", cqe.status());
        // Meanwhile all of it arrives.
        let still = Duration::from_millis(100);
        let start = rig.sim.borrow().now();
        rig.sim.borrow_mut().stand_still(0, still);
        if !is_asked_for {
            greedy.iter_mut().for_each(submit);
        }
        for (queue, r2ts) in greedy.iter_mut().zip(r2ts) {
            let r2ts: Vec<Pdu> = r2ts;
            for r2t in r2ts {
                queue.answer_r2t(&r2t, &data);
            }
        }
        let cid = polite[0].submit(read(1, 0, 8), &[]);
        assert!(
            rig.sim.borrow().now() < start + still,
            "it has moved already"
        );
        rig.moved.try_iter().for_each(drop);
        polite[0].finish(cid, &[]);
        {
            let moved: Vec<Moved> = rig.moved.try_iter().collect();
            // Its command is read, and its answer written last.
            let its = |(connection, _): &(usize, usize)| *connection == answered;
            let at = moved.iter().rposition(its).unwrap();
            let others = first..first + greedy.len();
            let others = moved[..at].iter().filter(|(at, _)| others.contains(at));
            most = most.max(others.map(|(_, len)| len).sum());
        }
        for queue in &mut greedy {
            finish(queue, depth);
        }
    }
    most
}

/// Bytes of capsules that one receive takes, and what a visit has received and made ready for sending at most when it is over.
const RECEIVED: usize = 160 << 10;
const ANSWERED: usize = 64 << 10;

fn check((depth, sqe): (usize, Sqe), least: usize, most: usize) {
    for queues in [1, 8] {
        let moved = moved_before(queues, depth, sqe);
        assert!(
            moved >= least,
            "{queues} queues: nothing of the other came first"
        );
        assert!(moved <= most, "{queues} queues: {moved} bytes");
    }
}

#[test]
fn a_visit_takes_a_few_of_many_small_reads() {
    check((256, read(1, 0, 8)), 32 << 10, RECEIVED + ANSWERED + 4096);
}

#[test]
fn a_visit_takes_a_piece_of_large_reads() {
    check((16, read(1, 0, 2048)), 64 << 10, RECEIVED + (129 << 10));
}

#[test]
fn a_visit_takes_a_few_of_many_small_writes() {
    check(
        (256, bring(nvm::WRITE, 1, 0, 8, true)),
        4096,
        RECEIVED + 4096,
    );
}

#[test]
fn a_visit_takes_a_piece_of_large_writes() {
    let sqe = bring(nvm::WRITE, 1, 0, 256, false);
    check((16, sqe), 32 << 10, RECEIVED + 4096);
}
