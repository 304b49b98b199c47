//! Disks over disks on reactors that really sleep: what is held must wake them.

use std::net::SocketAddr;
use std::time::Duration;

use pollux_nvme_tcp::spec::nvm::dsm;
use pollux_nvme_tcp::spec::opcode::{admin, nvm};
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::spec::{Nqn, SglDescriptor, Sqe};
use pollux_nvme_tcp::target::{self, rpc};
use pollux_reactor::rpc::{Client, Methods, Server};
use pollux_reactor::{Group, Idle, Running};
use serde_json::{Value, json};

use crate::initiator::{Initiator, Options, pattern};

pub const NQN: &str = "nqn.2014-08.org.example:test";

/// A target on two reactors that park as soon as they have nothing to do, and its management on a third.
pub struct Parked {
    pub running: Running,
    client: Client,
}

impl Parked {
    pub fn start(name: &str) -> Self {
        let file = format!("pollux-target-suite-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(file);
        let mut group = Group::new();
        let idle = Idle::Park {
            after: Duration::ZERO,
        };
        let reactors = [0; 2].map(|_| group.add_reactor(None, idle));
        let mut methods = Methods::new();
        rpc::register(&mut methods, target::install(&mut group, &reactors));
        let mut server = Server::new(methods);
        server.listen_unix(&path).unwrap();
        let reactor = group.add_reactor(None, idle);
        server.install(&mut group, reactor);
        let running = group.start().unwrap();
        let client = Client::connect(&path, None).unwrap();
        Self { running, client }
    }

    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.client.call(method, Some(params)).unwrap()
    }

    /// The answer, whether it is a result or an error.
    pub fn answer(&mut self, method: &str, params: Value) -> Value {
        self.client.send(method, Some(params)).unwrap();
        self.client.answer().unwrap()
    }

    pub fn listen(&mut self) -> SocketAddr {
        let free = json!({"trtype": "tcp", "traddr": "127.0.0.1", "trsvcid": "0"});
        let params = json!({"nqn": NQN, "listen_address": free});
        self.call("nvmf_subsystem_add_listener", params);
        let listeners = self.call("nvmf_subsystem_get_listeners", json!({"nqn": NQN}));
        let port = listeners[0]["address"]["trsvcid"].as_str().unwrap();
        SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()))
    }
}

#[test]
fn a_parked_reactor_wakes_for_what_it_holds() {
    let mut t = Parked::start("layers");
    t.call("nvmf_create_transport", json!({"trtype": "tcp"}));
    let subsystem = json!({"nqn": NQN, "allow_any_host": true});
    t.call("nvmf_create_subsystem", subsystem);
    let disk = json!({"name": "Malloc0", "num_blocks": 8192, "block_size": 512});
    t.call("bdev_malloc_create", disk);
    t.call("bdev_error_create", json!({"base_name": "Malloc0"}));
    let delay = json!({
        "name": "Delay0",
        "base_bdev_name": "EE_Malloc0",
        "avg_read_latency": 2_000,
        "p99_read_latency": 3_000,
        "avg_write_latency": 2_000,
        "p99_write_latency": 3_000,
    });
    t.call("bdev_delay_create", delay);
    let namespace = json!({"nqn": NQN, "namespace": {"bdev_name": "Delay0"}});
    t.call("nvmf_subsystem_add_ns", namespace);
    let addr = t.listen();
    let nqn: Nqn = NQN.parse().unwrap();
    let options = Options {
        ddgst: true,
        ..Options::default()
    };
    let mut admin = Initiator::admin(addr, &nqn, options);
    for qid in [1, 2] {
        let mut io = Initiator::io(addr, &nqn, admin.cntlid, qid, options);
        for (i, len) in [4096, 65536, 300_032].into_iter().enumerate() {
            let data = pattern(len, i as u64);
            assert_eq!(io.write(1, 8, &data), Status::SUCCESS);
            let blocks = u32::try_from(len / 512).unwrap();
            assert!(io.read(1, 8, blocks).unwrap() == data);
        }
        let mut zero = vec![0; 16];
        zero[4..8].copy_from_slice(&8u32.to_le_bytes());
        let mut sqe = Sqe::new(nvm::DATASET_MANAGEMENT, 1);
        sqe.cdw11 = dsm::DEALLOCATE.into();
        sqe.sgl = SglDescriptor::in_capsule(0, 16);
        assert_eq!(io.command(sqe, &zero).0.status(), Status::SUCCESS);

        let mut held = Sqe::for_blocks(nvm::READ, 1, 8, 8);
        held.sgl = SglDescriptor::transport(4096);
        let inject = json!({
            "name": "EE_Malloc0", "io_type": "read", "error_type": "pending", "num": 2
        });
        t.call("bdev_error_inject_error", inject);
        let (aborted, resumed) = (io.submit(held, &[]), io.submit(held, &[]));
        // On the same connection behind them, and answered before.
        let flush = io.submit(Sqe::new(nvm::FLUSH, 1), &[]);
        assert_eq!(io.finish(flush, &[]).0.status(), Status::SUCCESS);
        let mut abort = Sqe::new(admin::ABORT, 0);
        abort.cdw10 = (u32::from(qid) | u32::from(aborted) << 16).into();
        assert_eq!(admin.command(abort, &[]).0.dw0(), 0);
        let (cqe, _) = io.finish(aborted, &[]);
        assert_eq!(cqe.status(), Status::ABORTED_BY_REQUEST);
        t.call("bdev_error_resume_pending", json!({"name": "EE_Malloc0"}));
        assert_eq!(io.finish(resumed, &[]).0.status(), Status::SUCCESS);
    }
    t.running.stop();
}
