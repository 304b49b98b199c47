//! A target in a simulation, a client of its management, and an initiator: time is virtual, so how late an answer is can
//! be told to the microsecond.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use pollux_nvme_tcp::spec::fabrics::CNTLID_DYNAMIC;
use pollux_nvme_tcp::spec::opcode::{admin, nvm};
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::spec::{SglDescriptor, Sqe};
use pollux_nvme_tcp::target::{self, rpc};
use pollux_nvme_tcp::testing::{Initiator, Line, Lines, ManagementClient, Options, manage, nqn};
pub use pollux_nvme_tcp::testing::{NQN, Pdu, pattern};
use pollux_reactor::rpc::{Config, Methods};
use pollux_reactor::{Group, Idle, Running, Simulation, Time};
use serde_json::{Value, json};

const HOST: &str = "nqn.2014-08.org.example:host";

/// Virtual time that is spent on the way, with much to spare.
pub const SLACK: Duration = Duration::from_micros(500);

/// The simulated target, and its management, which is served by a thread of its own: sockets are not simulated.
pub struct World {
    pub sim: Rc<RefCell<Simulation>>,
    lines: Lines,
    management: Option<Running>,
    client: ManagementClient,
    port: u16,
    /// What the host calls itself that connects.
    pub host: &'static str,
}

impl World {
    /// A target on two reactors that has nothing yet.
    pub fn configured(config: Config) -> World {
        let mut sim = Simulation::new(7);
        let reactors = [0; 2].map(|_| sim.add_reactor());
        let handle = target::install(&mut sim, &reactors);
        let sim = Rc::new(RefCell::new(sim));
        let lines = Lines::new(&sim);
        let mut methods = Methods::new();
        rpc::register(&mut methods, handle);
        let mut group = Group::new();
        let reactor = group.add_reactor(None, Idle::Yield);
        let socket = manage(&mut group, reactor, methods, config);
        let management = Some(group.start().unwrap());
        World {
            sim,
            lines,
            management,
            client: ManagementClient::connect(&socket),
            port: 4420,
            host: HOST,
        }
    }

    /// A subsystem that listens, with these disks of 512-byte blocks as namespaces 1, 2 and so on, made by `disks`.
    pub fn new(disks: impl FnOnce(&mut World) -> Vec<String>) -> World {
        let mut world = World::configured(Config::default());
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

    /// Has the client make calls, once what was sent before is there. Virtual time stands meanwhile, but for what the target
    /// does: it has few turns, since each of them may take some.
    fn ask<T: Send>(&mut self, ask: impl FnOnce(&mut ManagementClient) -> T + Send) -> T {
        let client = &mut self.client;
        let (asked, answer) = mpsc::channel();
        self.sim.borrow_mut().run_for(SLACK / 10);
        std::thread::scope(|scope| {
            scope.spawn(move || asked.send(ask(client)));
            loop {
                self.sim.borrow_mut().run_for(Duration::ZERO);
                match answer.recv_timeout(Duration::from_millis(1)) {
                    Err(RecvTimeoutError::Timeout) => {}
                    answer => return answer.expect("a call that ends as it must"),
                }
            }
        })
    }

    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.ask(|client| client.call(method, params))
    }

    pub fn error(&mut self, method: &str, params: Value) -> (i64, String) {
        self.ask(|client| client.error(method, params))
    }

    pub fn bdev(&mut self, name: &str) -> Value {
        self.call("bdev_get_bdevs", json!({"name": name}))[0].clone()
    }

    pub fn config(&mut self) -> Value {
        self.ask(ManagementClient::config)
    }

    /// Admin queue and I/O queue 1 (of 128 entries) of a new controller.
    pub fn connect(&mut self, ddgst: bool) -> (Queue, Queue) {
        self.connect_with(ddgst, 128)
    }

    pub fn connect_with(&mut self, ddgst: bool, entries: u32) -> (Queue, Queue) {
        let options = Options {
            ddgst,
            ..Options::default()
        };
        self.connect_by(options, entries)
    }

    pub fn connect_as(&mut self, options: Options) -> (Queue, Queue) {
        self.connect_by(options, 128)
    }

    fn connect_by(&mut self, options: Options, entries: u32) -> (Queue, Queue) {
        let mut admin = self.open(options);
        admin.enable(&nqn(), options);
        let mut io = self.open(options);
        io.join(&nqn(), admin.cntlid, 1, entries, options);
        (admin, io)
    }

    /// The status of the Connect of one more admin queue, which is closed then.
    pub fn try_connect(&mut self) -> Status {
        let mut admin = self.open(Options::default());
        let cqe = admin.connect(0, 32, CNTLID_DYNAMIC, &nqn(), Options::default());
        admin.stream.close();
        cqe.status()
    }

    /// One more I/O queue of a controller.
    pub fn io_queue(&mut self, admin: &Queue, qid: u16) -> Queue {
        let mut io = self.open(Options::default());
        io.join(&nqn(), admin.cntlid, qid, 128, Options::default());
        io
    }

    fn open(&mut self, options: Options) -> Queue {
        let addr = SocketAddr::from(([10, 0, 0, 1], self.port));
        let mut queue = Initiator::over(self.lines.connect(addr));
        queue.hostnqn = self.host.parse().unwrap();
        queue.initialize(options);
        queue
    }

    /// Sends a command and waits for its end; its status, and how long it took.
    pub fn timed(&mut self, queue: &mut Queue, sqe: Sqe, data: &[u8]) -> (Status, Duration) {
        let start = self.sim.borrow().now();
        let status = queue.command(sqe, data).0.status();
        (status, self.sim.borrow().now() - start)
    }

    /// Aborts a command; whether it was. It must take no time.
    pub fn abort(&mut self, admin: &mut Queue, cid: u16) -> bool {
        let start = self.sim.borrow().now();
        let mut sqe = Sqe::new(admin::ABORT, 0);
        sqe.cdw10 = (1 | u32::from(cid) << 16).into();
        let abort = admin.submit(sqe, &[]);
        let (cqe, _) = admin.finish(abort, &[]);
        assert!(cqe.status().is_success(), "{}", cqe.status());
        assert!(self.sim.borrow().now() - start < SLACK);
        cqe.dw0() & 1 == 0
    }

    pub fn now(&self) -> Time {
        self.sim.borrow().now()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.sim.borrow_mut().stop();
        if let Some(management) = self.management.take() {
            management.stop();
            management.join();
        }
    }
}

/// One connection.
pub type Queue = Initiator<Line>;

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
