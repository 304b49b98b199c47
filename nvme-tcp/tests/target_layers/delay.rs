//! Delay disks: how late answers are, what overtakes what, aborts.

use std::time::Duration;

use pollux_nvme_tcp::spec::Sqe;
use pollux_nvme_tcp::spec::opcode::nvm;
use pollux_nvme_tcp::spec::pdu::PduType;
use pollux_nvme_tcp::spec::status::Status;
use serde_json::json;

use crate::world::{SLACK, World, bring, deallocate, pattern, read, write};

/// One delayed namespace, and one that is not.
fn world(read: u64, write: u64) -> World {
    World::new(|world| {
        let base = world.malloc("Malloc0");
        vec![
            world.delay("Delay0", &base, read, write),
            world.malloc("Malloc1"),
        ]
    })
}

const fn micros(n: u64) -> Duration {
    Duration::from_micros(n)
}

#[test]
fn each_kind_of_command_is_late_by_its_latency() {
    let mut w = world(3_000, 70_000);
    for ddgst in [false, true] {
        let (_admin, mut io) = w.connect(ddgst);
        let (dsm, range) = deallocate(1, 64, 8);
        let data = pattern(4096, 5);
        let big = pattern(1 << 20, 6);
        let zeroes = Sqe::for_blocks(nvm::WRITE_ZEROES, 1, 0, 8192);
        for (sqe, data, latency) in [
            (read(1, 0, 8), &[][..], 3_000),
            (read(1, 0, 2048), &[], 3_000),
            (write(1, 8, 8), &data, 70_000),
            (bring(nvm::WRITE, 1, 8, 8, false), &data, 70_000),
            (bring(nvm::COMPARE, 1, 8, 8, true), &data, 70_000),
            (bring(nvm::WRITE, 1, 2048, 2048, false), &big, 70_000),
            (bring(nvm::COMPARE, 1, 2048, 2048, false), &big, 70_000),
            (zeroes, &[], 70_000),
            (dsm, &range, 70_000),
            (Sqe::new(nvm::FLUSH, 1), &[], 0),
            (Sqe::new(nvm::FLUSH, u32::MAX), &[], 0),
            (write(2, 8, 8), &data, 0),
            (read(2, 8, 8), &[], 0),
            // What is refused is refused at once.
            (read(1, 1 << 40, 8), &[], 0),
        ] {
            let (status, took) = w.timed(&mut io, sqe, data);
            let refused = sqe.opcode == nvm::READ && sqe.slba() == 1 << 40;
            assert_eq!(status.is_success(), !refused, "{sqe:?}: {status}");
            let late = micros(latency);
            assert!((late..late + SLACK).contains(&took), "{sqe:?}: {took:?}");
        }
        // An error that the disk itself finds is as late as any other answer.
        let compare = bring(nvm::COMPARE, 1, 8, 8, true);
        let (status, took) = w.timed(&mut io, compare, &data);
        assert_eq!(status.code(), Status::COMPARE_FAILURE);
        assert!(took >= micros(70_000));
    }
}

#[test]
fn what_was_written_late_is_read_late() {
    let mut w = world(500, 700);
    let (_admin, mut io) = w.connect(true);
    for (blocks, in_capsule) in [(8, true), (8, false), (600, false), (2048, false)] {
        let data = pattern(blocks as usize * 512, blocks.into());
        let sqe = bring(nvm::WRITE, 1, 100, blocks, in_capsule);
        assert!(io.command(sqe, &data).0.status().is_success());
        assert!(io.read(1, 100, blocks).unwrap() == data);
    }
    let (dsm, range) = deallocate(1, 101, 2);
    assert!(io.command(dsm, &range).0.status().is_success());
    assert_eq!(io.read(1, 101, 2).unwrap(), [0; 1024]);
    let stats = w.call("nvmf_get_stats", json!({}));
    let io = &stats["poll_groups"][0]["pollux"];
    assert_eq!((&io["reads"], &io["writes"]), (&json!(5), &json!(4)));
}

#[test]
fn later_commands_overtake() {
    let mut w = world(5_000, 9_000);
    let (_admin, mut io) = w.connect(false);
    let start = w.now();
    let data = pattern(512, 1);
    let late = io.submit(write(1, 0, 1), &data);
    let early = io.submit(read(1, 0, 1), &[]);
    let prompt = io.submit(read(2, 0, 1), &[]);
    let big = io.submit(bring(nvm::WRITE, 2, 0, 512, false), &[]);
    for (cid, at) in [(prompt, 0), (big, 0), (early, 5_000), (late, 9_000)] {
        let (cqe, _) = io.finish(cid, &[9; 512 * 512]);
        assert!(cqe.status().is_success());
        let took = w.now() - start;
        assert!((micros(at)..micros(at) + SLACK).contains(&took), "{took:?}");
    }

    // A latency that is lowered holds for what comes from then on.
    let slow = io.submit(read(1, 0, 1), &[]);
    for latency in ["avg_read", "p99_read"] {
        let update = json!({"delay_bdev_name": "Delay0", "latency_type": latency, "latency_us": 0});
        w.call("bdev_delay_update_latency", update);
    }
    let fast = io.submit(read(1, 0, 1), &[]);
    for cid in [fast, slow] {
        assert_eq!(io.finish(cid, &[]).1, data);
    }
}

#[test]
fn many_large_reads_that_are_due_at_once_all_come() {
    let mut w = world(1_000, 0);
    let (_admin, mut io) = w.connect(false);
    let data = pattern(1 << 20, 3);
    for lba in [0, 2048] {
        let write = bring(nvm::WRITE, 1, lba, 2048, false);
        assert!(io.command(write, &data).0.status().is_success());
    }
    let cids: Vec<u16> = (0..12)
        .map(|i| io.submit(read(1, i % 2 * 2048, 2048), &[]))
        .collect();
    for cid in cids {
        let (cqe, read) = io.finish(cid, &[]);
        assert!(cqe.status().is_success() && read == data);
    }
}

#[test]
fn one_in_a_hundred_takes_longer() {
    let mut w = World::new(|w| {
        let base = w.malloc("Malloc0");
        let delay = json!({
            "name": "Delay0",
            "base_bdev_name": base,
            "avg_read_latency": 10,
            "p99_read_latency": 20_000,
            "avg_write_latency": 10,
            "p99_write_latency": 10,
        });
        w.call("bdev_delay_create", delay);
        vec!["Delay0".into()]
    });
    let (_admin, mut io) = w.connect(false);
    let mut outliers = 0;
    for _ in 0..1_000 {
        let (status, took) = w.timed(&mut io, read(1, 0, 1), &[]);
        assert!(status.is_success() && took >= micros(10));
        if took >= micros(20_000) {
            outliers += 1;
        } else {
            assert!(took < micros(10) + SLACK);
        }
    }
    assert!((1..40).contains(&outliers), "{outliers} of 1000");
}

#[test]
fn a_delayed_command_is_aborted_at_once() {
    // 30 s: no answer comes by itself.
    let mut w = world(30_000_000, 30_000_000);
    let (mut admin, mut io) = w.connect(false);
    let data = pattern(512, 1);
    let sqes = [
        read(1, 0, 1),
        write(1, 0, 1),
        bring(nvm::WRITE, 1, 0, 1, false),
    ];
    for sqe in sqes {
        let start = w.now();
        let in_capsule = sqe.opcode == nvm::WRITE && sqe != bring(nvm::WRITE, 1, 0, 1, false);
        let cid = io.submit(sqe, if in_capsule { &data } else { &[] });
        if sqe.opcode == nvm::WRITE && !in_capsule {
            // Its data comes, and its answer is held.
            let r2t = io.receive();
            assert_eq!(r2t.frame.pdu_type, PduType::R2T);
            io.answer_r2t(&r2t, &data);
        }
        let other = io.submit(read(2, 0, 1), &[]);
        assert!(io.finish(other, &[]).0.status().is_success());
        assert!(w.abort(&mut admin, cid), "{sqe:?}");
        let (cqe, none) = io.finish(cid, &[]);
        assert_eq!(cqe.status(), Status::ABORTED_BY_REQUEST);
        assert!(none.is_empty() && w.now() - start < SLACK);
        // It is gone: there is nothing left to abort, and its identifier is free.
        assert!(!w.abort(&mut admin, cid));
        let again = io.submit_as(cid, read(2, 0, 1), &[]);
        assert!(io.finish(again, &[]).0.status().is_success());
    }
    assert!(io.receive_within(Duration::from_secs(40)).is_none());
    // The writes had been carried out before they were aborted.
    assert_eq!(io.read(1, 0, 1).unwrap(), data);
}

#[test]
fn a_held_command_keeps_its_identifier_and_its_slot() {
    let mut w = world(1_000_000, 1_000_000);
    let (_admin, mut io) = w.connect_with(false, 4);
    let held = io.submit(read(1, 0, 1), &[]);
    io.submit_as(held, read(1, 0, 1), &[]);
    let conflict = io.receive().cqe();
    assert_eq!(conflict.status().code(), Status::COMMAND_ID_CONFLICT);
    for _ in 0..4 {
        io.submit(read(1, 0, 1), &[]);
    }
    // More commands than the queue has entries.
    let end = io.receive_within(SLACK).expect("the queue is overrun");
    assert_eq!(end.frame.pdu_type, PduType::C2H_TERM_REQ);
}

#[test]
fn what_a_closed_queue_held_is_forgotten() {
    let mut w = world(1_000_000, 1_000_000);
    let (admin, mut io) = w.connect(false);
    for lba in 0..10 {
        io.submit(read(1, lba, 1), &[]);
        io.submit(write(1, lba, 1), &[1; 512]);
    }
    io.stream.close();
    let turns = |w: &World| w.sim.borrow_mut().counters()[0].turns;
    // Until the target has seen that the connection is closed.
    w.sim.borrow_mut().run_for(micros(10_000));
    let before = turns(&w);
    w.sim.borrow_mut().run_for(Duration::from_secs(2));
    // A run ends with a turn.
    assert_eq!(turns(&w), before + 1, "a turn for a queue that is gone");
    admin.stream.close();
    let (_admin, mut io) = w.connect(false);
    let start = w.now();
    io.read(1, 0, 1).unwrap();
    // Nobody else's answer has come, and nobody else's timer was in the way.
    assert!((micros(1_000_000)..micros(1_000_000) + SLACK).contains(&(w.now() - start)));
    let queues = w.call(
        "nvmf_subsystem_get_qpairs",
        json!({"nqn": crate::world::NQN}),
    );
    assert_eq!(queues.as_array().unwrap().len(), 2);
}

#[test]
fn a_namespace_that_goes_ends_what_is_held() {
    let mut w = world(20_000, 20_000);
    let (_admin, mut io) = w.connect(false);
    let reading = io.submit(read(1, 0, 1), &[]);
    let writing = io.submit(write(1, 0, 1), &[1; 512]);
    assert_eq!(w.call("bdev_delay_delete", json!({"name": "Delay0"})), true);
    let (cqe, _) = io.finish(reading, &[]);
    assert_eq!(cqe.status().code(), Status::INVALID_NAMESPACE);
    assert!(io.finish(writing, &[]).0.status().is_success());
}
