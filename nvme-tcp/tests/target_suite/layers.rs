//! Disks over disks on reactors that really sleep: what is held must wake them.

use std::time::Duration;

use pollux_nvme_tcp::spec::nvm::dsm;
use pollux_nvme_tcp::spec::opcode::{admin, nvm};
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::spec::{SglDescriptor, Sqe};
use pollux_nvme_tcp::testing::{Initiator, ManagedTarget, NQN, Options, nqn, pattern};
use pollux_reactor::Idle;
use pollux_reactor::rpc::Config;
use serde_json::json;

/// Reactors park as soon as they have nothing to do.
pub const PARKED: Idle = Idle::Park {
    after: Duration::ZERO,
};

#[test]
fn a_parked_reactor_wakes_for_what_it_holds() {
    let mut t = ManagedTarget::start(PARKED, Config::default());
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
    t.add_ns("Delay0");
    let addr = t.listen();
    let nqn = nqn();
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
}
