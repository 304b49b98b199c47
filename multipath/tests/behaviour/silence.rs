//! A queue pair that says nothing (rule B9.4).

use std::time::Duration;

use pollux_multipath::Op;
use pollux_nvme_tcp::spec::opcode::nvm;
use pollux_nvme_tcp::testing::{Seen, Verdict};

use crate::common::{World, options};

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A probe of a silent queue: Flush of a namespace that is not there.
fn is_probe(seen: &Seen) -> bool {
    seen.qid != 0 && seen.opcode() == nvm::FLUSH && seen.nsid() == u32::MAX - 1
}

fn world(seed: u64) -> World {
    let mut w = World::tapped(seed, 2, 1, 0);
    for path in 0..2 {
        w.attach_with(path, options()).unwrap();
    }
    w
}

/// B9.4: only the I/O connection of a path is swallowed, its admin connection goes on. The queue is probed, its controller
/// is reset, and I/O goes on by the other path.
#[test]
fn a_silent_flow_is_noticed() {
    for (seed, depth) in [(1600, 1), (1601, 127)] {
        let mut w = world(seed);
        let connects = |w: &World| w.tap.borrow().count(|s| s.path == 0 && s.is_connect());
        let before = connects(&w);
        w.on_command(
            |seen| match seen.path == 0 && seen.qid != 0 && !seen.is_connect() {
                true => Verdict::Lose,
                false => Verdict::Pass,
            },
        );
        let start = w.sim.now();
        let ids: Vec<_> = (0..depth)
            .map(|lba| w.submit(0, Op::Write, lba % 8))
            .collect();
        w.expect_ended(&ids, secs(10));
        for id in &ids {
            assert_eq!(w.ended(*id).unwrap().0, Ok(()));
        }
        let took = w.sim.now().saturating_since(start);
        assert!(took >= secs(5), "not before it is suspect: {took:?}");
        assert_eq!(w.carried_by(ids[0]), Some(1));
        let probes = w.tap.borrow().count(is_probe);
        assert_eq!(probes, 1, "also where the queue is full: depth {depth}");
        let error = w.controller(0).last_error.unwrap();
        assert!(error.contains("silent"), "{error}");
        w.sim.run_for(secs(3));
        assert!(connects(&w) > before, "it is connected again");
        assert_eq!(
            w.controller(1).last_error,
            None,
            "the other one never was lost"
        );
    }
}

/// B9.4: a disk that takes long is no silent flow: the probe is answered, nothing is reset, and I/O ends well, also where
/// the queue is full and more I/O waits for room. A queue without commands is not probed.
#[test]
fn a_slow_disk_is_not_taken_for_a_silent_flow() {
    let mut w = world(1610);
    w.sim.run_for(secs(60));
    assert_eq!(w.tap.borrow().count(is_probe), 0, "idle");
    w.on_command(|seen| match seen.is_io() {
        true => Verdict::Hold,
        false => Verdict::Pass,
    });
    w.tap.borrow_mut().hold = true;
    let ids: Vec<_> = (0..300).map(|n| w.submit(0, Op::Write, n % 8)).collect();
    w.sim.run_for(secs(60));
    assert!(ids.iter().all(|id| w.ended(*id).is_none()));
    let probes = w.tap.borrow().count(is_probe);
    assert!((8..=12).contains(&probes), "{probes} probes");
    w.tap.borrow_mut().hold = false;
    w.expect_ended(&ids, secs(1));
    assert!(ids.iter().all(|id| w.ended(*id).unwrap().0 == Ok(())));
    for path in 0..2 {
        assert_eq!(w.controller(path).last_error, None);
    }
    let status = w.status();
    let longest = status[0].reactors[0].paths[0].longest_silence;
    assert!(longest >= secs(4) && longest < secs(8), "{longest:?}");
}

/// B9.4: the limit is set with the attach, and none is kept where there is none.
#[test]
fn the_silence_timeout_is_an_option() {
    for (seed, limit, ended) in [(1620, Some(secs(1)), true), (1621, None, false)] {
        let mut w = World::tapped(seed, 2, 1, 0);
        for path in 0..2 {
            let mut with = options();
            with.silence_timeout = limit;
            w.attach_with(path, with).unwrap();
        }
        w.on_command(
            |seen| match seen.path == 0 && seen.qid != 0 && !seen.is_connect() {
                true => Verdict::Lose,
                false => Verdict::Pass,
            },
        );
        let id = w.submit(0, Op::Read, 0);
        w.sim.run_for(if ended { secs(2) } else { secs(60) });
        assert_eq!(w.ended(id).is_some(), ended);
    }
}
