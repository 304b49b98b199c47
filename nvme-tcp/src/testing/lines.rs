//! Connections in a simulation, whose time passes while a test waits for bytes.

use std::cell::RefCell;
use std::io::{ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use pollux_reactor::{Context, Progress, Sender, Service, Simulation, Stream, Time, mailbox};

use super::{Bytes, Initiator, Pdu};

/// More virtual time than any answer takes.
const MINUTE: Duration = Duration::from_secs(60);

/// One connection, as the reactor that moves its bytes has it.
struct Wire {
    addr: SocketAddr,
    stream: Option<Stream>,
    out: Vec<u8>,
    received: Vec<u8>,
    closing: bool,
    closed: bool,
    deaf: bool,
}

impl Wire {
    fn poll(&mut self, cx: &mut Context<'_>) -> Progress {
        if self.closed {
            return Progress::Idle;
        }
        if self.closing {
            self.stream = None;
            self.closed = true;
            return Progress::Busy;
        }
        let addr = self.addr;
        let stream = self
            .stream
            .get_or_insert_with(|| cx.net().connect(addr, None).unwrap());
        if !stream.connected().unwrap() {
            return Progress::Idle;
        }
        let mut progress = Progress::Idle;
        while !self.out.is_empty() {
            match stream.write_vectored(&[IoSlice::new(&self.out)]) {
                Ok(n) => {
                    self.out.drain(..n);
                    progress = Progress::Busy;
                }
                Err(_) => break,
            }
        }
        if self.deaf {
            return progress;
        }
        let mut buffer = vec![0; 65536];
        loop {
            match stream.read(&mut buffer) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => return progress,
                Ok(0) | Err(_) => {
                    self.closed = true;
                    return Progress::Busy;
                }
                Ok(n) => {
                    self.received.extend(buffer.iter().take(n));
                    progress = Progress::Busy;
                }
            }
        }
    }
}

/// Moves the bytes of all connections.
struct Mover(Rc<RefCell<Vec<Rc<RefCell<Wire>>>>>);

impl Service for Mover {
    type Message = ();

    fn on_message(&mut self, (): (), _: &mut Context<'_>) {}

    fn poll(&mut self, cx: &mut Context<'_>) -> Progress {
        let mut progress = Progress::Idle;
        for wire in self.0.borrow().iter() {
            progress = progress.or(wire.borrow_mut().poll(cx));
        }
        progress
    }
}

/// Opens connections in a simulation, on a reactor of its own.
pub struct Lines {
    sim: Rc<RefCell<Simulation>>,
    wires: Rc<RefCell<Vec<Rc<RefCell<Wire>>>>>,
    _alive: Sender<()>,
}

impl Lines {
    /// Adds the reactor. The simulation is borrowed whenever one of the connections waits.
    pub fn new(sim: &Rc<RefCell<Simulation>>) -> Self {
        let wires = Rc::default();
        let (alive, receiver) = mailbox(1);
        let reactor = sim.borrow_mut().add_reactor();
        let mover = Mover(Rc::clone(&wires));
        sim.borrow_mut()
            .add_service(reactor, receiver, move || mover);
        Self {
            sim: Rc::clone(sim),
            wires,
            _alive: alive,
        }
    }

    /// A connection to this address; it is made when time passes.
    pub fn connect(&self, addr: SocketAddr) -> Line {
        let wire = Rc::new(RefCell::new(Wire {
            addr,
            stream: None,
            out: Vec::new(),
            received: Vec::new(),
            closing: false,
            closed: false,
            deaf: false,
        }));
        self.wires.borrow_mut().push(Rc::clone(&wire));
        Line {
            sim: Rc::clone(&self.sim),
            wire,
        }
    }
}

/// A connection in a simulation.
pub struct Line {
    sim: Rc<RefCell<Simulation>>,
    wire: Rc<RefCell<Wire>>,
}

impl Line {
    /// Closes it, and sees the peer notice.
    pub fn close(self) {
        self.wire.borrow_mut().closing = true;
        self.sim.borrow_mut().run_for(Duration::from_millis(1));
    }

    /// Whether the peer has closed it.
    pub fn is_closed(&self) -> bool {
        self.wire.borrow().closed
    }

    /// Reads nothing of what comes from now on.
    pub fn stop_reading(&self) {
        self.wire.borrow_mut().deaf = true;
    }

    fn now(&self) -> Time {
        self.sim.borrow().now()
    }

    /// Waits for bytes, for up to `limit` of virtual time, and appends them. Returns whether any came.
    pub fn receive_within(&mut self, limit: Duration, into: &mut Vec<u8>) -> bool {
        let wire = &self.wire;
        let settled = || {
            let wire = wire.borrow();
            !wire.received.is_empty() || wire.closed
        };
        self.sim.borrow_mut().run_until(limit, settled);
        let received = &mut wire.borrow_mut().received;
        let any = !received.is_empty();
        into.append(received);
        any
    }
}

impl Initiator<Line> {
    /// The next PDU, if it comes within `limit` of virtual time.
    pub fn receive_within(&mut self, limit: Duration) -> Option<Pdu> {
        let end = self.stream.now() + limit;
        loop {
            if let Some(pdu) = self.take_received() {
                return Some(pdu);
            }
            let left = end.saturating_since(self.stream.now());
            if !self.stream.receive_within(left, &mut self.received) {
                return None;
            }
        }
    }
}

impl Bytes for Line {
    fn send(&mut self, bytes: &[u8]) {
        self.wire.borrow_mut().out.extend_from_slice(bytes);
        // The reactor that moves the bytes has to be told that there are some.
        self.sim.borrow_mut().run_for(Duration::ZERO);
    }

    fn receive(&mut self, into: &mut Vec<u8>) -> bool {
        let any = self.receive_within(MINUTE, into);
        assert!(
            any || self.is_closed(),
            "nothing came within a minute of virtual time"
        );
        any
    }
}
