//! What a turn of the target's reactor costs: connections that nothing happens on are not looked at, nor are peers that do
//! not read what they asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pollux_nvme_tcp::spec::SglDescriptor;
use pollux_nvme_tcp::spec::Sqe;
use pollux_nvme_tcp::spec::opcode::nvm;
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::target::{self, Backend};
use pollux_nvme_tcp::testing::{Initiator, Options, TestTarget, Watching, pattern, wait_for};
use pollux_reactor::{Group, Idle};

/// Turns in a row without a socket call after which the target is said to be at rest.
const QUIET_TURNS: u64 = 10_000;

/// A target with one namespace, and how many turns in a row have made no socket call.
fn watched_target() -> (TestTarget, Arc<AtomicU64>) {
    let quiet_turns = Arc::new(AtomicU64::new(0));
    let mut group = Group::new();
    let reactor = group.add_reactor(None, Idle::Yield);
    let counted = Arc::clone(&quiet_turns);
    let after = move |calls| match calls {
        0 => drop(counted.fetch_add(1, Ordering::Relaxed)),
        _ => counted.store(0, Ordering::Relaxed),
    };
    let mut watching = Watching {
        group: &mut group,
        after,
    };
    let handle = target::install(&mut watching, &[reactor]);
    let running = group.start().unwrap();
    let target = TestTarget::serve(handle, running, &[Backend::Memory { bytes: 8 << 20 }]);
    (target, quiet_turns)
}

fn wait_for_rest(quiet_turns: &AtomicU64) {
    quiet_turns.store(0, Ordering::Relaxed);
    wait_for("a time without socket calls, as nothing happens,", || {
        quiet_turns.load(Ordering::Relaxed) >= QUIET_TURNS
    });
}

fn read_sqe(blocks: u32) -> Sqe {
    let mut sqe = Sqe::for_blocks(nvm::READ, 1, 0, blocks);
    sqe.sgl = SglDescriptor::transport(blocks * 512);
    sqe
}

#[test]
fn peers_that_do_not_read_cost_no_socket_calls_until_they_do() {
    let (target, quiet_turns) = watched_target();
    let options = Options::default();
    let mut admin = Initiator::admin(target.addr, &target.nqn, options);
    let mut queues = Vec::new();
    for qid in 1..=4 {
        let mut io = Initiator::io(target.addr, &target.nqn, admin.cntlid, qid, options);
        // 100 MiB are more than any two socket buffers hold.
        let cids: Vec<u16> = (0..100).map(|_| io.submit(read_sqe(2048), &[])).collect();
        queues.push((io, cids));
    }
    // An admin connection asks as well for more than fits.
    let identifies: Vec<u16> = (0..30)
        .map(|_| {
            let mut sqe = Sqe::new(pollux_nvme_tcp::spec::opcode::admin::IDENTIFY, 0);
            sqe.cdw10 = 1.into();
            sqe.sgl = SglDescriptor::transport(4096);
            admin.submit(sqe, &[])
        })
        .collect();
    // One that has broken the protocol, and is waited for to close.
    let mut broken = Initiator::io(target.addr, &target.nqn, admin.cntlid, 5, options);
    broken.send_data(1, 99, 0, &[0; 512], true);

    wait_for_rest(&quiet_turns);

    // One that dies is noticed, though nothing is sent to it.
    drop(queues.pop());
    wait_for("the end of a queue whose peer has died", || {
        target.status().reactors[0].current_io_qpairs == 3
    });
    for cid in identifies {
        assert_eq!(admin.finish(cid, &[]).0.status(), Status::SUCCESS);
    }
    for (mut io, cids) in queues {
        for cid in cids {
            let (cqe, data) = io.finish(cid, &[]);
            assert_eq!(cqe.status(), Status::SUCCESS);
            assert_eq!(data.len(), 1 << 20);
        }
    }
}

/// More queues than are read without an edge: each is served by its edges alone.
#[test]
fn idle_connections_cost_no_socket_calls_and_all_of_many_queues_are_served() {
    let (target, quiet_turns) = watched_target();
    let options = Options::default();
    let mut idle_admins = Vec::new();
    let mut queues = Vec::new();
    for n in 0..100u64 {
        let admin = Initiator::admin(target.addr, &target.nqn, options);
        let io = Initiator::io(target.addr, &target.nqn, admin.cntlid, 1, options);
        idle_admins.push(admin);
        queues.push((n, io));
    }
    wait_for_rest(&quiet_turns);
    for round in 0..20 {
        for (n, io) in &mut queues {
            assert_eq!(
                io.write(1, *n * 8, &pattern(4096, *n + round)),
                Status::SUCCESS
            );
        }
        // All at once.
        let reads = queues.iter_mut().map(|(n, io)| {
            let mut sqe = Sqe::for_blocks(nvm::READ, 1, *n * 8, 8);
            sqe.sgl = SglDescriptor::transport(4096);
            io.submit(sqe, &[])
        });
        let cids: Vec<u16> = reads.collect();
        for ((n, io), cid) in queues.iter_mut().zip(cids) {
            let (cqe, data) = io.finish(cid, &[]);
            assert_eq!(cqe.status(), Status::SUCCESS);
            assert!(data == pattern(4096, *n + round));
        }
    }
    wait_for_rest(&quiet_turns);
    let reactor = &target.status().reactors[0];
    assert_eq!(reactor.io.reads, 2_000);
    assert_eq!(reactor.io.writes, 2_000);
}
