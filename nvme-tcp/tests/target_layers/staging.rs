//! Hosts that share the staging memory of a reactor: one that asks for much, one that does not send what it was asked for.

use std::time::Duration;

use pollux_nvme_tcp::pdu::TxFraming;
use pollux_nvme_tcp::spec::opcode::nvm;
use pollux_nvme_tcp::spec::pdu::{H2cData, PduType, R2t};
use serde_json::{Value, json};
use zerocopy::FromBytes;

use crate::world::{Pdu, Queue, SLACK, World, bring, pattern, read};

const OTHER: &str = "nqn.2014-08.org.example:other";

const MIB: u32 = 1 << 20;

fn world() -> World {
    World::new(|world| vec![world.malloc("Malloc0")])
}

/// What the statistics say of the reactor of queue 1.
fn figures(world: &mut World) -> Value {
    world.call("nvmf_get_stats", json!({}))["poll_groups"][0]["pollux"].clone()
}

/// Submits writes of 1 MiB, and takes the R2Ts that come at once.
fn begin_writes(queue: &mut Queue, count: usize) -> Vec<Pdu> {
    for _ in 0..count {
        queue.submit(bring(nvm::WRITE, 1, 0, 2048, false), &[]);
    }
    let mut asked = Vec::new();
    while let Some(pdu) = queue.receive_within(Duration::from_millis(1)) {
        assert_eq!(pdu.frame.pdu_type, PduType::R2T);
        asked.push(pdu);
    }
    asked
}

/// A write of 64 KiB; how long it took.
fn small_write(world: &mut World, queue: &mut Queue) -> Duration {
    let data = pattern(65_536, 1);
    let (status, took) = world.timed(queue, bring(nvm::WRITE, 1, 0, 128, false), &data);
    assert!(status.is_success(), "{status}");
    took
}

#[test]
fn a_host_that_never_sends_its_data_takes_nothing_from_others_and_is_told_so() {
    let mut w = world();
    let (_admin, mut greedy) = w.connect(false);
    let asked = begin_writes(&mut greedy, 100);
    assert!((8..32).contains(&asked.len()), "{}", asked.len());
    w.host = OTHER;
    let (_other_admin, mut other) = w.connect(false);
    // Nearly half a minute.
    for _ in 0..1_000 {
        assert!(small_write(&mut w, &mut other) < SLACK);
        w.sim.borrow_mut().run_for(Duration::from_millis(28));
    }
    assert!(!greedy.stream.is_closed());
    let held = &figures(&mut w)["staging_held_bytes"];
    assert_eq!(held.as_u64(), Some(asked.len() as u64 * u64::from(MIB)));
    w.sim.borrow_mut().run_for(Duration::from_secs(10));
    assert!(greedy.stream.is_closed());
    let figures = figures(&mut w);
    assert_eq!(figures["staging_held_bytes"], 0);
    assert_eq!(figures["data_timeouts"], 1);
    assert!(figures["staging_longest_wait_us"].as_u64().is_some());
    assert!(small_write(&mut w, &mut other) < SLACK);
}

#[test]
fn while_others_wait_for_the_memory_the_time_to_send_data_is_short() {
    let mut w = world();
    let (_admin, mut silent) = w.connect(false);
    begin_writes(&mut silent, 100);
    w.host = OTHER;
    let (_other_admin, mut other) = w.connect(false);
    let mut asked = begin_writes(&mut other, 100);
    assert!(asked.len() >= 2);
    // It waits for more, and goes on meanwhile: what it gives back it gets again.
    let mut done = 0;
    let data = pattern(1 << 20, 2);
    let start = w.now();
    while !silent.stream.is_closed() {
        let took = w.now() - start;
        assert!(
            took < Duration::from_secs(12),
            "the silent one is still there"
        );
        if let Some(r2t) = asked.pop() {
            other.answer_r2t(&r2t, &data);
        }
        while let Some(pdu) = other.receive_within(Duration::from_millis(200)) {
            match pdu.frame.pdu_type {
                PduType::R2T => asked.push(pdu),
                _ => done += usize::from(pdu.cqe().status().is_success()),
            }
        }
    }
    assert!(w.now() - start >= Duration::from_secs(9));
    assert!(done >= 10, "{done}");
    assert!(!other.stream.is_closed());
    // Now there is more for the other one.
    while let Some(pdu) = other.receive_within(Duration::from_millis(1)) {
        asked.push(pdu);
    }
    assert!(asked.len() >= 15, "{}", asked.len());
    assert_eq!(figures(&mut w)["data_timeouts"], 1);
}

#[test]
fn a_byte_now_and_then_is_not_enough_while_others_wait() {
    let mut w = world();
    let (_admin, mut slow) = w.connect(false);
    let asked = begin_writes(&mut slow, 100);
    let (r2t, _) = R2t::read_from_prefix(&asked[0].bytes).unwrap();
    w.host = OTHER;
    let (_other_admin, mut other) = w.connect(false);
    let mut of_other = begin_writes(&mut other, 100);
    let data = pattern(1 << 20, 2);
    let start = w.now();
    let mut sent = 0;
    while !slow.stream.is_closed() {
        assert!(w.now() - start < Duration::from_secs(32), "still there");
        let mut out = Vec::new();
        let header = H2cData::new(r2t.cccid.get(), r2t.ttag.get(), sent, 1, false);
        TxFraming::default().put_header(&mut out, &header, 1);
        out.push(0);
        slow.send_raw(&out);
        sent += 1;
        // The other one does its share, so that it is not the one to go.
        if let Some(r2t) = of_other.pop() {
            other.answer_r2t(&r2t, &data);
        }
        while let Some(pdu) = other.receive_within(Duration::from_millis(500)) {
            if pdu.frame.pdu_type == PduType::R2T {
                of_other.push(pdu);
            }
        }
    }
    // 10 s, and 16 s for 1 MiB.
    assert!(w.now() - start >= Duration::from_secs(25));
    assert!(!other.stream.is_closed());
}

/// What is read late has a buffer until the host has taken it.
#[test]
fn a_host_that_does_not_take_what_it_reads_is_ended_when_others_wait_for_the_memory() {
    let mut w = World::new(|world| {
        let base = world.malloc("Malloc0");
        vec![world.delay("Delay0", &base, 10, 10)]
    });
    let (_admin, mut deaf) = w.connect(false);
    deaf.stream.stop_reading();
    for _ in 0..100 {
        deaf.submit(read(1, 0, 2048), &[]);
    }
    w.sim.borrow_mut().run_for(Duration::from_secs(60));
    let held = figures(&mut w)["staging_held_bytes"].as_u64().unwrap();
    assert!(held >= 4 << 20, "{held}");
    assert_eq!(figures(&mut w)["data_timeouts"], 0, "nobody else wants it");
    w.host = OTHER;
    let (_other_admin, mut other) = w.connect(false);
    let cids: Vec<u16> = (0..60)
        .map(|_| other.submit(read(1, 0, 2048), &[]))
        .collect();
    for cid in cids {
        assert!(other.finish(cid, &[]).0.status().is_success());
    }
    assert_eq!(figures(&mut w)["data_timeouts"], 0, "it has enough without");
    let asked = begin_writes(&mut other, 100);
    assert!(asked.len() < 100, "it waits for more");
    w.sim.borrow_mut().run_for(Duration::from_secs(12));
    assert_eq!(figures(&mut w)["data_timeouts"], 1);
    assert!(!other.stream.is_closed());
}

/// Two hosts that want all they can get have about the same of it, whoever came first.
#[test]
fn a_deep_queue_leaves_a_shallow_one_its_share() {
    let mut w = world();
    let (_admin, mut deep) = w.connect(false);
    let mut of_deep = begin_writes(&mut deep, 120);
    w.host = OTHER;
    let (_other_admin, mut shallow) = w.connect(false);
    let data = pattern(1 << 20, 2);
    let mut done = [0; 2];
    for _ in 0..40 {
        // Each finishes one after the other, as fast as it is asked.
        if let Some(r2t) = of_deep.pop() {
            deep.answer_r2t(&r2t, &data);
        }
        let sqe = bring(nvm::WRITE, 1, 0, 2048, false);
        let (status, took) = w.timed(&mut shallow, sqe, &data);
        assert!(status.is_success());
        assert!(took < SLACK, "{took:?}");
        done[1] += 1;
        while let Some(pdu) = deep.receive_within(Duration::from_micros(10)) {
            match pdu.frame.pdu_type {
                PduType::R2T => of_deep.push(pdu),
                _ => done[0] += 1,
            }
        }
    }
    assert!(done[0] >= 30 && done[1] == 40, "{done:?}");
    let figures = figures(&mut w);
    assert!(figures["staging_waits"].as_u64().unwrap() >= 80);
}
