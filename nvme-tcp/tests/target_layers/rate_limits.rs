//! `bdev_set_qos_limit`: how fast hosts may use a disk, over all reactors, and what becomes of what waits.

use std::time::Duration;

use pollux_nvme_tcp::spec::opcode::nvm;
use pollux_nvme_tcp::spec::pdu::PduType;
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::spec::{Sqe, sqe::NSID_ALL};
use serde_json::{Value, json};

use crate::world::{NQN, Queue, SLACK, World, bring, deallocate, pattern, read, write};

/// A limited namespace, and one that is not.
fn world() -> World {
    World::new(|w| vec![w.malloc("Malloc0"), w.malloc("Malloc1")])
}

fn limit(w: &mut World, disk: &str, limits: Value) {
    let mut params = limits;
    params["name"] = disk.into();
    assert_eq!(w.call("bdev_set_qos_limit", params), true);
}

/// I/Os that ended on these queues within so much time, when as many are under way at any time as there are now.
fn run(w: &World, queues: &mut [Queue], sqe: Sqe, time: Duration) -> Vec<u64> {
    let end = w.now() + time;
    let mut ended = vec![0; queues.len()];
    while w.now() < end {
        for (queue, ended) in queues.iter_mut().zip(&mut ended) {
            while ended_within(queue, Duration::ZERO).is_some() {
                *ended += 1;
                begin(queue, sqe, 1);
            }
        }
        w.sim.borrow_mut().run_for(Duration::from_micros(100));
    }
    ended
}

fn begin(queue: &mut Queue, sqe: Sqe, depth: usize) {
    let len = match sqe.opcode {
        nvm::READ => 0,
        _ => sqe.sgl.length.get() as usize,
    };
    for _ in 0..depth {
        queue.submit(sqe, &[7; 4096][..len]);
    }
}

/// The identifier of a command that ends within so much time.
fn ended_within(queue: &mut Queue, limit: Duration) -> Option<u16> {
    loop {
        let pdu = queue.receive_within(limit)?;
        // What is read comes with a response as well.
        if pdu.frame.pdu_type != PduType::C2H_DATA {
            let cqe = pdu.cqe();
            assert!(cqe.status().is_success(), "{}", cqe.status());
            return Some(cqe.cid.get());
        }
    }
}

#[test]
fn a_limit_holds_over_reactors_and_changes_at_once() {
    let mut w = world();
    let (admin, first) = w.connect(false);
    let second = w.io_queue(&admin, 2);
    let mut queues = [first, second];
    let stats = w.call("nvmf_get_stats", json!({}));
    let serving = |at: usize| stats["poll_groups"][at]["current_io_qpairs"].clone();
    assert_eq!([serving(0), serving(1)], [1, 1], "each has a reactor");
    for (ios, sqe) in [(100, read(1, 0, 8)), (10_000, write(1, 0, 8))] {
        limit(&mut w, "Malloc0", json!({"rw_ios_per_sec": ios}));
        for queue in &mut queues {
            begin(queue, sqe, 16);
        }
        run(&w, &mut queues, sqe, Duration::from_millis(100));
        let ended = run(&w, &mut queues, sqe, Duration::from_secs(2));
        let (total, wanted) = (ended.iter().sum::<u64>(), 2 * ios);
        assert!(
            total.abs_diff(wanted) * 100 <= 2 * wanted,
            "{ended:?} at {ios}"
        );
        assert!(ended[0].abs_diff(ended[1]) * 20 <= total, "{ended:?}");
        // Without a limit all that waits goes on at once.
        limit(&mut w, "Malloc0", json!({"rw_ios_per_sec": 0}));
        w.sim.borrow_mut().run_for(SLACK);
        for queue in &mut queues {
            let left = std::iter::from_fn(|| ended_within(queue, Duration::ZERO));
            assert_eq!(left.count(), 16);
        }
    }
}

#[test]
fn bytes_are_limited_and_reads_do_not_wait_for_writes() {
    let mut w = world();
    let (_admin, mut io) = w.connect(true);
    limit(&mut w, "Malloc0", json!({"w_mbytes_per_sec": 2}));
    let data = pattern(1 << 20, 3);
    let start = w.now();
    // The first is paid off before the second.
    let writes: Vec<u16> = (0..3)
        .map(|n| io.submit(bring(nvm::WRITE, 1, n * 2048, 2048, false), &[]))
        .collect();
    let r2ts: Vec<_> = writes.iter().map(|_| io.receive()).collect();
    for r2t in r2ts {
        io.answer_r2t(&r2t, &data);
    }
    for (n, cid) in writes.into_iter().enumerate() {
        assert!(io.finish(cid, &[]).0.status().is_success());
        let due = Duration::from_millis(500 * n as u64);
        let took = w.now() - start;
        // What was not used for 20 ms before the first is of use to it.
        let earliest = due.saturating_sub(Duration::from_millis(20));
        assert!(took >= earliest && took < due + 10 * SLACK, "{took:?}");
        let (status, took) = w.timed(&mut io, read(1, 0, 2048), &[]);
        assert!(status.is_success() && took < SLACK, "{status} {took:?}");
    }
    // Of what moves no data nothing is counted.
    let start = w.now();
    w.sim.borrow_mut().run_for(Duration::from_secs(1));
    let (dsm, range) = deallocate(1, 0, 8);
    for (sqe, data) in [
        (Sqe::new(nvm::FLUSH, 1), &[][..]),
        (Sqe::new(nvm::FLUSH, NSID_ALL), &[]),
        (Sqe::for_blocks(nvm::WRITE_ZEROES, 1, 0, 8192), &[]),
        (dsm, &range),
    ] {
        let (status, took) = w.timed(&mut io, sqe, data);
        assert!(status.is_success() && took < SLACK, "{sqe:?} {took:?}");
    }
    assert!(w.now() - start < Duration::from_millis(1_010));
    assert!(io.read(1, 0, 8).unwrap() == [0; 4096]);
}

#[test]
fn what_waits_is_answered_in_order_and_others_are_not_touched() {
    let mut w = world();
    let (_admin, mut io) = w.connect(false);
    limit(&mut w, "Malloc0", json!({"rw_ios_per_sec": 10}));
    let cids: Vec<u16> = (0..12)
        .map(|n| match n % 3 {
            0 => io.submit(write(1, n, 1), &pattern(512, n)),
            1 => io.submit(read(1, n, 1), &[]),
            _ => io.submit(bring(nvm::COMPARE, 1, 100 + n, 1, true), &[0; 512]),
        })
        .collect();
    let start = w.now();
    let mut ended = Vec::new();
    while ended.len() < cids.len() {
        let Some(cid) = ended_within(&mut io, Duration::from_millis(50)) else {
            let other = io.submit(read(2, 0, 1), &[]);
            assert_eq!(io.finish(other, &[]).0.status(), Status::SUCCESS);
            continue;
        };
        ended.push(cid);
    }
    assert_eq!(ended, cids);
    let took = w.now() - start;
    let expected = Duration::from_millis(1_100);
    assert!(
        (expected - SLACK..expected + Duration::from_millis(60)).contains(&took),
        "{took:?}"
    );
}

/// Everything that ends what waits does so at once.
#[test]
fn what_waits_is_aborted_and_removed_at_once() {
    let mut w = world();
    let (mut admin, mut io) = w.connect(false);
    limit(&mut w, "Malloc0", json!({"rw_mbytes_per_sec": 1}));
    // Paid off after some 8 s.
    for lba in [0, 0, 0, 0, 0, 0, 0, 0, 0] {
        let _ = io.submit(read(1, lba, 2048), &[]);
    }
    while io.receive_within(SLACK).is_some() {}
    let read_again = io.submit(read(1, 0, 1), &[]);
    let written = io.submit(write(1, 0, 1), &[9; 512]);
    for cid in [read_again, written] {
        assert!(w.abort(&mut admin, cid));
        assert_eq!(io.finish(cid, &[]).0.status(), Status::ABORTED_BY_REQUEST);
        assert!(!w.abort(&mut admin, cid));
    }
    // A connection that goes takes with it what waits, and a removal does not wait for the limit.
    let mut other = w.io_queue(&admin, 2);
    let _ = other.submit(write(1, 8, 8), &[9; 4096]);
    other.stream.close();
    let start = w.now();
    let remove = json!({"nqn": NQN, "nsid": 1});
    assert_eq!(w.call("nvmf_subsystem_remove_ns", remove), true);
    assert!(w.now() - start < Duration::from_millis(5));
    let ended = (0..8).map(|_| io.receive().cqe().status());
    assert!(ended.eq([Status::INVALID_NAMESPACE.with_dnr(); 8]));
    // The limit is the disk's, and stays with it: also where it is not open.
    assert_eq!(
        w.bdev("Malloc0")["assigned_rate_limits"]["rw_mbytes_per_sec"],
        1
    );
    assert_eq!(w.add_ns("Malloc0"), 1);
    let (status, _) = w.timed(&mut io, read(1, 0, 2048), &[]);
    assert!(status.is_success());
    let (status, took) = w.timed(&mut io, read(1, 0, 2048), &[]);
    assert!(
        status.is_success() && took > Duration::from_millis(900),
        "{took:?}"
    );
    limit(&mut w, "Malloc0", json!({"rw_mbytes_per_sec": 0}));
    // Nothing of what was aborted, removed or lost with its connection was written.
    assert_eq!(io.read(1, 0, 16).unwrap(), [0; 8192]);
}

/// What lies over a disk is what hosts use, so that it has the limit.
#[test]
fn layers_have_limits_and_what_lies_under_them_has_none() {
    let mut w = World::new(|w| {
        let base = w.malloc("Malloc0");
        vec![w.delay("Delay0", &base, 1_000, 1_000)]
    });
    let limits = json!({"name": "Malloc0", "rw_ios_per_sec": 5});
    let (code, text) = w.error("bdev_set_qos_limit", limits);
    assert_eq!(code, -16, "{text}");
    assert!(text.contains("'Delay0'"), "{text}");
    limit(&mut w, "Delay0", json!({"rw_ios_per_sec": 50}));
    let (_admin, io) = w.connect(false);
    let mut queues = [io];
    let sqe = read(1, 0, 1);
    begin(&mut queues[0], sqe, 32);
    run(&w, &mut queues, sqe, Duration::from_millis(100));
    let ended = run(&w, &mut queues, sqe, Duration::from_secs(2))[0];
    assert!((99..=101).contains(&ended), "{ended}");

    w.malloc("Malloc1");
    limit(&mut w, "Malloc1", json!({"rw_ios_per_sec": 5}));
    let (code, text) = w.error("bdev_error_create", json!({"base_name": "Malloc1"}));
    assert_eq!(code, -16, "{text}");
    assert!(text.contains("rate limit"), "{text}");
    limit(&mut w, "Malloc1", json!({"rw_ios_per_sec": 0}));
    w.error_disk("Malloc1");
}
