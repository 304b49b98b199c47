//! A target in a simulation, a client of its management, and an initiator: time is virtual, so how late an answer is can
//! be told to the microsecond.

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pollux_nvme_tcp::pdu::{DataDigest, Frame, Receiver, RxFraming, TxFraming};
use pollux_nvme_tcp::spec::fabrics::{
    CNTLID_DYNAMIC, ConnectCommand, ConnectData, PropertySet, property,
};
use pollux_nvme_tcp::spec::opcode::{admin, nvm};
use pollux_nvme_tcp::spec::pdu::{C2hData, CapsuleCmd, CapsuleResp, H2cData, Icreq, PduType, R2t};
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::spec::{Cqe, Nqn, SglDescriptor, Sqe};
use pollux_nvme_tcp::target::{self, rpc};
use pollux_reactor::rpc::{Config, Methods, Server};
use pollux_reactor::{
    Context, Group, Idle, Progress, Running, Sender, Service, Simulation, Stream, Time, mailbox,
};
use serde_json::{Value, json};
use zerocopy::{FromBytes, IntoBytes};

pub const NQN: &str = "nqn.2014-08.org.example:disk";
const HOST: &str = "nqn.2014-08.org.example:host";

/// More virtual time than anything here takes.
pub const MINUTE: Duration = Duration::from_secs(60);

/// Virtual time that is spent on the way, with much to spare.
pub const SLACK: Duration = Duration::from_micros(500);

/// One connection of the initiator.
struct Wire {
    addr: SocketAddr,
    stream: Option<Stream>,
    out: Vec<u8>,
    received: Vec<u8>,
    /// The initiator is to close it.
    closing: bool,
    /// It is over.
    closed: bool,
    /// The initiator reads nothing.
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
        if self.stream.is_none() {
            self.stream = Some(cx.net().connect(self.addr, None).unwrap());
        }
        let Some(stream) = &mut self.stream else {
            return Progress::Idle;
        };
        if !stream.connected().unwrap() {
            return Progress::Idle;
        }
        let mut progress = Progress::Idle;
        while !self.out.is_empty() {
            match stream.write_vectored(&[std::io::IoSlice::new(&self.out)]) {
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
                Ok(0) => {
                    self.closed = true;
                    return Progress::Busy;
                }
                Ok(n) => {
                    self.received.extend_from_slice(&buffer[..n]);
                    progress = Progress::Busy;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return progress,
                Err(_) => {
                    self.closed = true;
                    return Progress::Busy;
                }
            }
        }
    }
}

/// Moves the bytes of all connections.
struct Wires(Rc<RefCell<Vec<Wire>>>);

impl Service for Wires {
    type Message = ();

    fn on_message(&mut self, (): (), _: &mut Context<'_>) {}

    fn poll(&mut self, cx: &mut Context<'_>) -> Progress {
        let mut progress = Progress::Idle;
        for wire in self.0.borrow_mut().iter_mut() {
            progress = progress.or(wire.poll(cx));
        }
        progress
    }
}

/// The simulated target, and its management, which is served by a thread of its own: sockets are not simulated.
pub struct World {
    pub sim: Simulation,
    wires: Rc<RefCell<Vec<Wire>>>,
    _wires_alive: Sender<()>,
    management: Option<Running>,
    client: UnixStream,
    answers: Vec<u8>,
    port: u16,
    /// What the host calls itself that connects.
    pub host: &'static str,
}

impl World {
    /// A target on two reactors that has nothing yet.
    pub fn empty(name: &str) -> World {
        World::configured(name, Config::default())
    }

    pub fn configured(name: &str, config: Config) -> World {
        let mut sim = Simulation::new(7);
        let reactors = [0; 2].map(|_| sim.add_reactor());
        let handle = target::install(&mut sim, &reactors);
        let wires = Rc::new(RefCell::new(Vec::new()));
        let (alive, receiver) = mailbox(1);
        let reactor = sim.add_reactor();
        sim.add_service(reactor, receiver, || Wires(Rc::clone(&wires)));

        // Tests of this process run at the same time, and may choose the same name.
        static WORLDS: AtomicUsize = AtomicUsize::new(0);
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        let file = format!("pollux-layers-{}-{number}-{name}", std::process::id());
        let path: PathBuf = std::env::temp_dir().join(file);
        let mut methods = Methods::new();
        rpc::register(&mut methods, handle);
        let mut server = Server::new(methods);
        server.listen_unix(&path).unwrap();
        server.configure(config, false).unwrap();
        let mut group = Group::new();
        let reactor = group.add_reactor(None, Idle::Yield);
        server.install(&mut group, reactor);
        let management = Some(group.start().unwrap());
        let client = UnixStream::connect(&path).unwrap();
        client.set_nonblocking(true).unwrap();
        World {
            sim,
            wires,
            _wires_alive: alive,
            management,
            client,
            answers: Vec::new(),
            port: 4420,
            host: HOST,
        }
    }

    /// A subsystem that listens, with these disks of 512-byte blocks as namespaces 1, 2 and so on, made by `disks`.
    pub fn new(name: &str, disks: impl FnOnce(&mut World) -> Vec<String>) -> World {
        let mut world = World::empty(name);
        world.call("nvmf_create_transport", json!({"trtype": "tcp"}));
        let subsystem = json!({"nqn": NQN, "allow_any_host": true});
        world.call("nvmf_create_subsystem", subsystem);
        for disk in disks(&mut world) {
            world.add_ns(&disk);
        }
        let address = json!({"trtype": "tcp", "traddr": "10.0.0.1", "trsvcid": "4420"});
        let listener = json!({"nqn": NQN, "listen_address": address});
        world.call("nvmf_subsystem_add_listener", listener);
        world
    }

    pub fn add_ns(&mut self, bdev: &str) -> Value {
        let namespace = json!({"nqn": NQN, "namespace": {"bdev_name": bdev}});
        self.call("nvmf_subsystem_add_ns", namespace)
    }

    /// A disk in memory of 8 MiB.
    pub fn malloc(&mut self, name: &str) -> String {
        let disk = json!({"name": name, "num_blocks": 16384, "block_size": 512});
        self.call("bdev_malloc_create", disk);
        name.to_owned()
    }

    /// A delay disk with these latencies for reads and for writes, in microseconds.
    pub fn delay(&mut self, name: &str, base: &str, read: u64, write: u64) -> String {
        let delay = json!({
            "name": name,
            "base_bdev_name": base,
            "avg_read_latency": read,
            "p99_read_latency": read,
            "avg_write_latency": write,
            "p99_write_latency": write,
        });
        assert_eq!(self.call("bdev_delay_create", delay), name);
        name.to_owned()
    }

    pub fn error_disk(&mut self, base: &str) -> String {
        self.call("bdev_error_create", json!({"base_name": base}));
        format!("EE_{base}")
    }

    /// `more`: parameters beside name, kind and error.
    pub fn inject(&mut self, disk: &str, io_type: &str, error_type: &str, more: Value) {
        let mut params = json!({"name": disk, "io_type": io_type, "error_type": error_type});
        if let (Some(params), Value::Object(more)) = (params.as_object_mut(), more) {
            params.extend(more);
        }
        assert_eq!(self.call("bdev_error_inject_error", params), true);
    }

    /// Answers of the management come while virtual time stands, but for what the target does meanwhile.
    pub fn answer(&mut self, method: &str, params: Value) -> Value {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let text = request.to_string();
        self.client.write_all(text.as_bytes()).unwrap();
        for _ in 0..30_000_000 {
            self.sim.run_for(Duration::ZERO);
            let mut buffer = [0; 16384];
            match self.client.read(&mut buffer) {
                Ok(0) => panic!("{method}: the management has closed"),
                Ok(n) => self.answers.extend_from_slice(&buffer[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(e) => panic!("{method}: {e}"),
            }
            if self.answers.ends_with(b"\n") {
                let line = std::mem::take(&mut self.answers);
                return serde_json::from_slice(&line).unwrap();
            }
        }
        panic!("{method}: no answer");
    }

    pub fn call(&mut self, method: &str, params: Value) -> Value {
        let answer = self.answer(method, params);
        assert!(answer["error"].is_null(), "{method}: {answer}");
        answer["result"].clone()
    }

    pub fn error(&mut self, method: &str, params: Value) -> (i64, String) {
        let answer = self.answer(method, params);
        let error = &answer["error"];
        let message = error["message"].as_str();
        let message = message.unwrap_or_else(|| panic!("{method} must fail: {answer}"));
        (error["code"].as_i64().unwrap(), message.to_owned())
    }

    pub fn bdev(&mut self, name: &str) -> Value {
        self.call("bdev_get_bdevs", json!({"name": name}))[0].clone()
    }

    pub fn config(&mut self) -> Value {
        let subsystems = self.call("framework_get_subsystems", json!({}));
        let mut list = Vec::new();
        for entry in subsystems.as_array().unwrap() {
            let name = &entry["subsystem"];
            let config = self.call("framework_get_config", json!({"name": name}));
            list.push(json!({"subsystem": name, "config": config}));
        }
        json!({"subsystems": list})
    }

    /// Admin queue and I/O queue 1 (of 128 entries) of a new controller.
    pub fn connect(&mut self, ddgst: bool) -> (Queue, Queue) {
        self.connect_with(ddgst, 128)
    }

    pub fn connect_with(&mut self, ddgst: bool, entries: u32) -> (Queue, Queue) {
        let mut admin = self.open(ddgst);
        let cntlid = self.fabrics_connect(&mut admin, 0, 32, CNTLID_DYNAMIC);
        let enable = PropertySet::new(property::CC, 0x0046_0001);
        assert!(self.command(&mut admin, enable.into(), &[]).0.is_success());
        admin.cntlid = cntlid;
        let mut io = self.open(ddgst);
        self.fabrics_connect(&mut io, 1, entries, cntlid);
        (admin, io)
    }

    /// One more I/O queue of a controller.
    pub fn io_queue(&mut self, admin: &Queue, qid: u16) -> Queue {
        let mut io = self.open(false);
        self.fabrics_connect(&mut io, qid, 128, admin.cntlid);
        io
    }

    fn fabrics_connect(&mut self, queue: &mut Queue, qid: u16, entries: u32, cntlid: u16) -> u16 {
        let nqn: Nqn = NQN.parse().unwrap();
        let host: Nqn = self.host.parse().unwrap();
        let data = ConnectData::new([7; 16], cntlid, &nqn, &host);
        let command = ConnectCommand::new(qid, entries, 0, 0);
        let cid = self.submit(queue, command.into(), data.as_bytes());
        let (cqe, _) = self.finish(queue, cid, &[]);
        assert!(cqe.status().is_success(), "{}", cqe.status());
        u16::try_from(cqe.dw0()).unwrap()
    }

    fn open(&mut self, ddgst: bool) -> Queue {
        let mut wires = self.wires.borrow_mut();
        wires.push(Wire {
            addr: SocketAddr::from(([10, 0, 0, 1], self.port)),
            stream: None,
            out: Vec::new(),
            received: Vec::new(),
            closing: false,
            closed: false,
            deaf: false,
        });
        let mut queue = Queue {
            wire: wires.len() - 1,
            tx: TxFraming::default(),
            rx: RxFraming {
                receiver: Receiver::Host,
                hdgst: false,
                ddgst: false,
                pda: 0,
                max_plen: 4 << 20,
                initialized: false,
            },
            next_cid: 100,
            cntlid: 0,
        };
        drop(wires);
        let mut out = Vec::new();
        let icreq = Icreq::new(0, u8::from(ddgst) << 1, 0);
        queue.tx.put_header(&mut out, &icreq, 0);
        self.send(&queue, &out);
        let response = self.receive(&queue);
        assert_eq!(response.frame.pdu_type, PduType::ICRESP);
        (queue.tx.ddgst, queue.rx.ddgst) = (ddgst, ddgst);
        queue.rx.initialized = true;
        queue
    }

    pub fn send(&mut self, queue: &Queue, bytes: &[u8]) {
        self.wires.borrow_mut()[queue.wire]
            .out
            .extend_from_slice(bytes);
        // Whoever looks at the queue of bytes has to be told that there are some.
        self.sim.run_for(Duration::ZERO);
    }

    /// Closes a connection, and sees the target notice.
    pub fn close(&mut self, queue: Queue) {
        self.wires.borrow_mut()[queue.wire].closing = true;
        self.sim.run_for(Duration::from_millis(1));
    }

    /// Whether the target has closed a connection.
    /// Reads nothing of what comes on a connection from now on.
    pub fn stop_reading(&mut self, queue: &Queue) {
        self.wires.borrow_mut()[queue.wire].deaf = true;
    }

    pub fn is_closed(&self, queue: &Queue) -> bool {
        self.wires.borrow()[queue.wire].closed
    }

    /// The next PDU, if it comes within `limit` of virtual time.
    pub fn receive_within(&mut self, queue: &Queue, limit: Duration) -> Option<Pdu> {
        let wires = Rc::clone(&self.wires);
        let mut found = None;
        self.sim.run_until(limit, || {
            let received = &mut wires.borrow_mut()[queue.wire].received;
            if let Some(frame) = queue.rx.frame(received).unwrap()
                && received.len() >= frame.total_len
            {
                let bytes = received.drain(..frame.total_len).collect();
                found = Some(Pdu { frame, bytes });
            }
            found.is_some()
        });
        if let Some(pdu) = &found
            && pdu.frame.ddgst
        {
            let mut digest = DataDigest::new();
            digest.update(pdu.data());
            let end = pdu.frame.data_offset + pdu.frame.data_len;
            assert_eq!(pdu.bytes[end..], digest.finish());
        }
        found
    }

    pub fn receive(&mut self, queue: &Queue) -> Pdu {
        self.receive_within(queue, MINUTE)
            .expect("nothing came within a minute of virtual time")
    }

    /// Sends a command capsule; returns its command identifier.
    pub fn submit(&mut self, queue: &mut Queue, sqe: Sqe, data: &[u8]) -> u16 {
        queue.next_cid += 1;
        self.submit_as(queue, queue.next_cid, sqe, data)
    }

    pub fn submit_as(&mut self, queue: &Queue, cid: u16, mut sqe: Sqe, data: &[u8]) -> u16 {
        sqe.cid = cid.into();
        let mut out = Vec::new();
        let capsule = CapsuleCmd::new(sqe);
        let layout = queue.tx.put_header(&mut out, &capsule, data.len());
        put_data(&mut out, layout.ddgst, data);
        self.send(queue, &out);
        cid
    }

    /// Sends the data that an R2T asks for. Returns the command's identifier.
    pub fn answer_r2t(&mut self, queue: &Queue, pdu: &Pdu, data: &[u8]) -> u16 {
        let (r2t, _) = R2t::read_from_prefix(&pdu.bytes).unwrap();
        let (cid, len) = (r2t.cccid.get(), u32::try_from(data.len()).unwrap());
        assert_eq!((r2t.r2to.get(), r2t.r2tl.get()), (0, len));
        let header = H2cData::new(cid, r2t.ttag.get(), 0, len, true);
        let mut out = Vec::new();
        let layout = queue.tx.put_header(&mut out, &header, data.len());
        put_data(&mut out, layout.ddgst, data);
        self.send(queue, &out);
        cid
    }

    /// Waits for the end of a command, sending `data` if it is asked for. Returns the completion and the data that came.
    pub fn finish(&mut self, queue: &Queue, cid: u16, data: &[u8]) -> (Cqe, Vec<u8>) {
        let mut incoming = Vec::new();
        loop {
            let pdu = self.receive(queue);
            match pdu.frame.pdu_type {
                PduType::R2T => assert_eq!(self.answer_r2t(queue, &pdu, data), cid),
                PduType::C2H_DATA => {
                    let (header, _) = C2hData::read_from_prefix(&pdu.bytes).unwrap();
                    assert_eq!(header.cccid.get(), cid);
                    assert_eq!(header.datao.get() as usize, incoming.len());
                    incoming.extend_from_slice(pdu.data());
                }
                _ => {
                    let cqe = pdu.cqe();
                    assert_eq!(cqe.cid.get(), cid);
                    return (cqe, incoming);
                }
            }
        }
    }

    /// Sends a command and waits for its end. In-capsule data is sent along.
    pub fn command(&mut self, queue: &mut Queue, sqe: Sqe, data: &[u8]) -> (Status, Vec<u8>) {
        let in_capsule = sqe.sgl.kind == SglDescriptor::IN_CAPSULE;
        let cid = self.submit(queue, sqe, if in_capsule { data } else { &[] });
        let (cqe, data) = self.finish(queue, cid, data);
        (cqe.status(), data)
    }

    /// As [`command`](Self::command), and how long it took.
    pub fn timed(&mut self, queue: &mut Queue, sqe: Sqe, data: &[u8]) -> (Status, Duration) {
        let start = self.sim.now();
        let (status, _) = self.command(queue, sqe, data);
        (status, self.sim.now() - start)
    }

    pub fn read(&mut self, queue: &mut Queue, nsid: u32, lba: u64, blocks: u32) -> Vec<u8> {
        let (status, data) = self.command(queue, read(nsid, lba, blocks), &[]);
        assert!(status.is_success(), "{status}");
        assert_eq!(data.len(), blocks as usize * 512);
        data
    }

    /// Aborts a command; whether it was. It must take no time.
    pub fn abort(&mut self, admin: &mut Queue, cid: u16) -> bool {
        let start = self.sim.now();
        let mut sqe = Sqe::new(admin::ABORT, 0);
        sqe.cdw10 = (1 | u32::from(cid) << 16).into();
        let abort = self.submit(admin, sqe, &[]);
        let (cqe, _) = self.finish(admin, abort, &[]);
        assert!(cqe.status().is_success(), "{}", cqe.status());
        assert!(self.sim.now() - start < SLACK);
        cqe.dw0() & 1 == 0
    }

    pub fn now(&self) -> Time {
        self.sim.now()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.sim.stop();
        if let Some(management) = self.management.take() {
            management.stop();
            management.join();
        }
    }
}

/// What is known of one connection.
pub struct Queue {
    wire: usize,
    tx: TxFraming,
    rx: RxFraming,
    next_cid: u16,
    /// Of an admin queue's controller.
    cntlid: u16,
}

/// A received PDU: where its parts are, and its bytes.
pub struct Pdu {
    pub frame: Frame,
    pub bytes: Vec<u8>,
}

impl Pdu {
    pub fn data(&self) -> &[u8] {
        &self.bytes[self.frame.data_offset..][..self.frame.data_len]
    }

    pub fn cqe(&self) -> Cqe {
        assert_eq!(self.frame.pdu_type, PduType::CAPSULE_RESP);
        CapsuleResp::read_from_prefix(&self.bytes).unwrap().0.cqe
    }
}

fn put_data(out: &mut Vec<u8>, ddgst: bool, data: &[u8]) {
    out.extend_from_slice(data);
    if ddgst {
        let mut digest = DataDigest::new();
        digest.update(data);
        out.extend_from_slice(&digest.finish());
    }
}

pub fn read(nsid: u32, lba: u64, blocks: u32) -> Sqe {
    let mut sqe = Sqe::for_blocks(nvm::READ, nsid, lba, blocks);
    sqe.sgl = SglDescriptor::transport(blocks * 512);
    sqe
}

/// A command that brings so many blocks, in its capsule or on an R2T.
pub fn bring(opcode: u8, nsid: u32, lba: u64, blocks: u32, in_capsule: bool) -> Sqe {
    let mut sqe = Sqe::for_blocks(opcode, nsid, lba, blocks);
    sqe.sgl = if in_capsule {
        SglDescriptor::in_capsule(0, blocks * 512)
    } else {
        SglDescriptor::transport(blocks * 512)
    };
    sqe
}

/// Writes in the capsule.
pub fn write(nsid: u32, lba: u64, blocks: u32) -> Sqe {
    bring(nvm::WRITE, nsid, lba, blocks, true)
}

/// Deallocates one range.
pub fn deallocate(nsid: u32, lba: u64, blocks: u32) -> (Sqe, Vec<u8>) {
    let mut range = vec![0; 16];
    range[4..8].copy_from_slice(&blocks.to_le_bytes());
    range[8..16].copy_from_slice(&lba.to_le_bytes());
    let mut sqe = Sqe::new(nvm::DATASET_MANAGEMENT, nsid);
    // One range, counted from zero; attribute Deallocate.
    sqe.cdw10 = 0.into();
    sqe.cdw11 = 4.into();
    sqe.sgl = SglDescriptor::in_capsule(0, 16);
    (sqe, range)
}

/// Bytes that differ from place to place.
pub fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}
