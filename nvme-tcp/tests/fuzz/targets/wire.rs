//! A host and a target in a simulation, and between them somebody who changes, drops, doubles, turns round and invents what
//! they send each other. The first byte says what they agree on, each PDU then takes what becomes of it from the rest;
//! when nothing is left, PDUs go on as they are.
//!
//! Whatever happens, every request of the host ends exactly once, and the target serves the next one who comes.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use pollux_nvme_tcp::host::{
    Completed, ConnectOptions, Controller, ControllerEvent, ControllerOptions, Digests,
    HostIdentity, QueuePair, Request,
};
use pollux_nvme_tcp::spec::opcode::nvm;
use pollux_nvme_tcp::target::{self, Backend};
use pollux_nvme_tcp::testing::{Initiator, Lines, Options, nqn, set_up};
use pollux_reactor::{Context, Listener, Progress, Service, Simulation, Stream, mailbox};

const FRONT: ([u8; 4], u16) = ([10, 0, 0, 1], 4420);
const BEHIND: ([u8; 4], u16) = ([10, 0, 0, 2], 4420);

/// The bytes that say what happens.
#[derive(Default)]
struct Script(Vec<u8>, usize);

impl Script {
    fn next(&mut self) -> Option<u8> {
        let byte = self.0.get(self.1).copied();
        self.1 += 1;
        byte
    }

    fn word(&mut self) -> usize {
        let low = self.next().unwrap_or(0);
        usize::from(u16::from_le_bytes([low, self.next().unwrap_or(0)]))
    }

    fn some(&mut self, most: usize) -> Vec<u8> {
        let len = usize::from(self.next().unwrap_or(0)) % (most + 1);
        let from = self.1.min(self.0.len());
        let to = (from + len).min(self.0.len());
        self.1 = to;
        self.0[from..to].to_vec()
    }
}

/// One direction of a connection.
#[derive(Default)]
struct Way {
    arrived: Vec<u8>,
    /// A PDU that the next one overtakes.
    held: Vec<u8>,
    out: Vec<u8>,
}

/// A connection through the one in between.
struct Passage {
    streams: [Stream; 2],
    ways: [Way; 2],
    is_cut: bool,
}

/// The one in between.
struct Between {
    script: Rc<RefCell<Script>>,
    listener: Option<Listener>,
    passages: Vec<Passage>,
}

impl Service for Between {
    type Message = ();

    fn on_start(&mut self, cx: &mut Context<'_>) {
        self.listener = Some(cx.net().listen(FRONT.into()).unwrap());
    }

    fn on_message(&mut self, (): (), _: &mut Context<'_>) {}

    fn poll(&mut self, cx: &mut Context<'_>) -> Progress {
        let mut progress = Progress::Idle;
        let listener = self.listener.as_mut().unwrap();
        while let Ok(Some((host, _))) = listener.accept(cx.net()) {
            let target = cx.net().connect(BEHIND.into(), None).unwrap();
            self.passages.push(Passage {
                streams: [host, target],
                ways: Default::default(),
                is_cut: false,
            });
            progress = Progress::Busy;
        }
        let script = &mut *self.script.borrow_mut();
        for passage in &mut self.passages {
            progress = progress.or(passage.poll(script));
        }
        self.passages.retain(|passage| !passage.is_cut);
        progress
    }
}

impl Passage {
    fn poll(&mut self, script: &mut Script) -> Progress {
        let mut progress = Progress::Idle;
        for from in [0, 1] {
            let way = &mut self.ways[from];
            match read(&mut self.streams[from], &mut way.arrived) {
                Some(0) => {}
                Some(_) => progress = Progress::Busy,
                None => self.is_cut = true,
            }
            while let Some(pdu) = next_pdu(&mut way.arrived) {
                self.is_cut |= !way.pass(pdu, script);
            }
            if write(&mut self.streams[1 - from], &mut way.out).is_none() {
                self.is_cut = true;
            }
        }
        progress
    }
}

impl Way {
    /// Does with a PDU what the script says. False: the connection is cut.
    fn pass(&mut self, mut pdu: Vec<u8>, script: &mut Script) -> bool {
        let what = script.next().unwrap_or(0);
        let mut goes_on = true;
        match what {
            0..0x60 => {}
            0x60..0x80 => {
                let at = usize::from(script.next().unwrap_or(0)) % pdu.len();
                pdu[at] = script.next().unwrap_or(0);
            }
            0x80..0xa0 => {
                let at = script.word() % pdu.len();
                let new = script.some(16);
                let places = pdu.iter_mut().skip(at).zip(new);
                places.for_each(|(place, byte)| *place = byte);
            }
            0xa0..0xb0 => pdu.clear(),
            0xb0..0xc0 => self.out.extend(&pdu),
            0xc0..0xd0 => self.out.extend(script.some(255)),
            0xd0..0xe0 => {
                let before = std::mem::replace(&mut self.held, std::mem::take(&mut pdu));
                self.out.extend(before);
            }
            0xe0..0xf0 => pdu.truncate(script.word() % pdu.len()),
            0xf0.. => {
                pdu.truncate(script.word() % pdu.len());
                goes_on = false;
            }
        }
        self.out.extend(pdu);
        if what < 0xd0 {
            self.out.append(&mut self.held);
        }
        goes_on
    }
}

fn next_pdu(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let len = u32::from_le_bytes(bytes.get(4..8)?.try_into().unwrap()) as usize;
    (bytes.len() >= len).then(|| bytes.drain(..len).collect())
}

/// `None`: the other side has closed.
fn read(stream: &mut Stream, into: &mut Vec<u8>) -> Option<usize> {
    let mut buffer = [0; 16 * 1024];
    let mut total = 0;
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return None,
            Ok(n) => {
                into.extend_from_slice(&buffer[..n]);
                total += n;
            }
            Err(e) => return (e.kind() == ErrorKind::WouldBlock).then_some(total),
        }
    }
}

fn write(stream: &mut Stream, bytes: &mut Vec<u8>) -> Option<()> {
    while !bytes.is_empty() {
        match stream.write_vectored(&[IoSlice::new(bytes)]) {
            Ok(n) => drop(bytes.drain(..n)),
            Err(e) => return (e.kind() == ErrorKind::WouldBlock).then_some(()),
        }
    }
    Some(())
}

/// What the host has in flight, and whether it is to give up.
#[derive(Default)]
struct Book {
    in_flight: BTreeSet<u32>,
    submitted: u32,
    give_up: bool,
    gave_up: bool,
}

/// A host with one I/O queue, which writes, reads, compares and flushes.
struct Host {
    options: ControllerOptions,
    admin: Option<Controller>,
    io: Option<QueuePair<u32>>,
    book: Rc<RefCell<Book>>,
}

/// Requests of one run.
const REQUESTS: u32 = 12;

fn request(number: u32) -> Request {
    let block = |opcode, blocks: u32| {
        let buffer = vec![7; blocks as usize * 512];
        Request::block(opcode, 1, u64::from(number), blocks, 9, buffer)
    };
    match number % 6 {
        0 => block(nvm::WRITE, 8),
        1 => block(nvm::WRITE, 48),
        2 => block(nvm::READ, 8),
        3 => block(nvm::COMPARE, 1),
        4 => block(nvm::READ, 300),
        _ => block(nvm::WRITE_ZEROES, 4),
    }
}

impl Service for Host {
    type Message = ();

    fn on_start(&mut self, cx: &mut Context<'_>) {
        let now = cx.now();
        let admin = Controller::connect(cx.net(), now, self.options.clone());
        self.admin = Some(admin.unwrap());
        cx.set_timer(now + Duration::from_millis(20), 0);
    }

    fn on_message(&mut self, (): (), _: &mut Context<'_>) {}

    fn on_timer(&mut self, _: u64, cx: &mut Context<'_>) {
        let at = cx.now() + Duration::from_millis(20);
        cx.set_timer(at, 0);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Progress {
        let now = cx.now();
        let book = &mut *self.book.borrow_mut();
        let mut progress = Progress::Idle;
        if let Some(admin) = &mut self.admin {
            progress = admin.poll(now);
            while let Some(event) = admin.next_event() {
                if let ControllerEvent::Ready = event {
                    let options = admin.io_options(1);
                    self.io = Some(QueuePair::connect(cx.net(), now, options).unwrap());
                }
            }
        }
        let mut end = |completed: Completed<u32>| {
            let number = completed.request.user;
            assert!(book.in_flight.remove(&number), "{number} ended twice");
        };
        if let Some(io) = &mut self.io {
            match io.receive(now, false, &mut end) {
                Ok(busy) => progress = progress.or(busy),
                Err(_) => io.close(&mut end),
            }
            if book.give_up {
                io.close(&mut end);
            }
            while io.is_ready() && book.submitted < REQUESTS {
                let number = book.submitted;
                if io.submit(request(number).with(number)).is_err() {
                    break;
                }
                book.submitted += 1;
                book.in_flight.insert(number);
            }
            let mut end = |completed: Completed<u32>| {
                let number = completed.request.user;
                assert!(book.in_flight.remove(&number), "{number} ended twice");
            };
            if io.error().is_none() && io.transmit(&mut end).is_err() {
                io.close(&mut end);
            }
        }
        if book.give_up {
            self.admin = None;
            book.gave_up = true;
        }
        progress
    }
}

pub fn run(bytes: &[u8]) {
    let Some((&how, rest)) = bytes.split_first() else {
        return;
    };
    let mut sim = Simulation::new(u64::from(how));
    let reactor = sim.add_reactor();
    let handle = target::install(&mut sim, &[reactor]);
    let behind = SocketAddr::from(BEHIND);
    set_up(&handle, &[Backend::Memory { bytes: 1 << 20 }], &[behind]);
    let (_alive, receiver) = mailbox(1);
    let between = Between {
        script: Rc::new(RefCell::new(Script(rest.to_vec(), 0))),
        listener: None,
        passages: Vec::new(),
    };
    let reactor = sim.add_reactor();
    sim.add_service(reactor, receiver, || between);
    sim.run_for(Duration::from_millis(1));

    let mut connect = ConnectOptions::admin(FRONT.into(), nqn(), HostIdentity::random());
    connect.timeout = Duration::from_millis(200);
    connect.digests = Digests {
        header: how & 1 == 1,
        data: how & 2 == 2,
    };
    let mut options = ControllerOptions::new(connect);
    options.io_queues = 1;
    options.io_queue_size = 8;
    let book = Rc::new(RefCell::new(Book::default()));
    let host = Host {
        options,
        admin: None,
        io: None,
        book: Rc::clone(&book),
    };
    let (_alive, receiver) = mailbox(1);
    let reactor = sim.add_reactor();
    sim.add_service(reactor, receiver, || host);
    let is_over = || {
        let book = book.borrow();
        book.submitted == REQUESTS && book.in_flight.is_empty()
    };
    sim.run_until(Duration::from_millis(500), is_over);
    book.borrow_mut().give_up = true;
    sim.run_until(Duration::from_secs(1), || book.borrow().gave_up);
    assert!(book.borrow().gave_up && book.borrow().in_flight.is_empty());

    let sim = Rc::new(RefCell::new(sim));
    let lines = Lines::new(&sim);
    let mut admin = Initiator::over(lines.connect(behind));
    admin.initialize(Options::default());
    admin.enable(&nqn(), Options::default());
    let mut io = Initiator::over(lines.connect(behind));
    io.initialize(Options::default());
    io.join(&nqn(), admin.cntlid, 1, 16, Options::default());
    assert!(io.write(1, 3, &[9; 512]).is_success());
    assert_eq!(io.read(1, 3, 1).unwrap(), [9; 512]);
    drop((admin, io, lines));
    let sim = Rc::into_inner(sim);
    sim.expect("nobody else has it").into_inner().stop();
}
