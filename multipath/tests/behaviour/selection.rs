//! Selection of paths (rule B5) and what status says of it (rule B13.2), seen on the wire.

use std::time::Duration;

use crate::common::{World, addr, options};
use pollux_multipath::{HostRequest, Op, Policy, Selector};
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::testing::{Seen, Verdict};

const T: bool = true;
const F: bool = false;

const QUEUE_DEPTH: Policy = Policy::ActiveActive(Selector::QueueDepth);

fn robin(min_io: u32) -> Policy {
    Policy::ActiveActive(Selector::RoundRobin { min_io })
}

fn world(seed: u64, paths: u16, io: usize, policy: Policy) -> World {
    let mut w = World::tapped(seed, paths, io, 0);
    for path in 0..paths {
        let mut options = options();
        options.policy = policy;
        w.attach_with(path, options).unwrap();
    }
    w.sim.run_for(Duration::from_millis(100));
    w.tap.borrow_mut().seen.clear();
    w
}

/// The paths of the I/Os seen since the last time, in order.
fn used(w: &World) -> Vec<u16> {
    let mut tap = w.tap.borrow_mut();
    let used = tap.seen.iter().filter(|s| s.is_io()).map(|s| s.path);
    let used = used.collect();
    tap.seen.clear();
    used
}

/// Submits and awaits I/Os one after the other; returns the paths that they took.
fn one_by_one(w: &mut World, reactor: usize, count: u64) -> Vec<u16> {
    used(w);
    for lba in 0..count {
        assert_eq!(w.io(reactor, Op::Read, lba), Ok(()));
    }
    used(w)
}

/// B5.1: a retry selects from the table of its own moment.
#[test]
fn a_retry_selects_again() {
    let mut w = World::tapped(402, 2, 1, 0);
    w.target(pollux_nvme_tcp::target::TargetRequest::set_retry_delays([
        10, 0, 0,
    ]));
    w.attach(0);
    w.attach(1);
    w.on_command(|seen| match seen.path == 0 && seen.is_io() {
        true => Verdict::Answer(Status::INTERNAL_ERROR.with_crd(1)),
        false => Verdict::Pass,
    });
    let id = w.submit(0, Op::Write, 3);
    w.sim.run_for(Duration::from_millis(500));
    assert_eq!(w.ended(id), None, "waits a second");
    w.ana(0, AnaState::INACCESSIBLE);
    w.expect_ended(&[id], Duration::from_secs(2));
    assert_eq!(w.ended(id).unwrap().0, Ok(()));
    assert_eq!(w.carried_by(id), Some(1));
}

/// B5.2: the preferred path if it is in the best class, else the first of the best class in attach order.
#[test]
fn the_preferred_path_is_taken_while_it_is_in_the_best_class() {
    let mut w = world(403, 3, 2, Policy::ActivePassive);
    assert_eq!(one_by_one(&mut w, 0, 3), [0; 3]);
    w.prefer(2);
    w.expect_paths(&[(0, F, T, T), (1, F, T, T), (2, T, T, T)]);
    assert_eq!(one_by_one(&mut w, 0, 3), [2; 3]);
    assert_eq!(one_by_one(&mut w, 1, 3), [2; 3]);
    w.ana(2, AnaState::NON_OPTIMIZED);
    w.expect_paths(&[(0, T, T, T), (1, F, T, T), (2, F, T, T)]);
    w.ana(0, AnaState::NON_OPTIMIZED);
    w.expect_paths(&[(0, F, T, T), (1, T, T, T), (2, F, T, T)]);
    w.ana(1, AnaState::NON_OPTIMIZED);
    w.expect_paths(&[(0, F, T, T), (1, F, T, T), (2, T, T, T)]);
    w.ana(0, AnaState::OPTIMIZED);
    w.ana(1, AnaState::OPTIMIZED);
    w.ana(2, AnaState::OPTIMIZED);
    w.expect_paths(&[(0, F, T, T), (1, F, T, T), (2, T, T, T)]);
    // It stays the preferred one over a reconnect, and is so no more once it is detached.
    w.sim.network().sever(addr(2));
    w.expect_paths(&[(0, T, T, T), (1, F, T, T), (2, F, F, T)]);
    w.expect_paths(&[(0, F, T, T), (1, F, T, T), (2, T, T, T)]);
    w.detach(Some(2)).unwrap();
    w.attach(2);
    w.expect_paths(&[(0, T, T, T), (1, F, T, T), (2, F, T, T)]);
}

/// B5.2: with automatic failback off, the path in use stays for as long as it is in the best class, on each reactor.
#[test]
fn without_failback_io_stays_where_it_is() {
    let mut w = world(404, 2, 2, Policy::ActivePassive);
    w.request(HostRequest::SetFailback(false));
    for reactor in 0..2 {
        assert_eq!(one_by_one(&mut w, reactor, 2), [0; 2]);
    }
    w.ana(0, AnaState::INACCESSIBLE);
    w.expect_paths(&[(0, F, T, F), (1, T, T, T)]);
    for reactor in 0..2 {
        assert_eq!(one_by_one(&mut w, reactor, 2), [1; 2]);
    }
    w.ana(0, AnaState::OPTIMIZED);
    w.sim.run_for(Duration::from_millis(100));
    w.expect_paths(&[(0, F, T, T), (1, T, T, T)]);
    assert_eq!(one_by_one(&mut w, 0, 2), [1; 2]);
    // Only for as long as it is in the best class.
    w.ana(1, AnaState::NON_OPTIMIZED);
    w.expect_paths(&[(0, T, T, T), (1, F, T, T)]);
    assert_eq!(one_by_one(&mut w, 0, 2), [0; 2]);
    w.ana(1, AnaState::OPTIMIZED);
    w.sim.run_for(Duration::from_millis(100));
    w.ana(0, AnaState::INACCESSIBLE);
    w.expect_paths(&[(0, F, T, F), (1, T, T, T)]);
    assert_eq!(one_by_one(&mut w, 1, 2), [1; 2]);
    w.ana(0, AnaState::OPTIMIZED);
    w.sim.run_for(Duration::from_millis(100));
    assert_eq!(one_by_one(&mut w, 1, 2), [1; 2]);
    // Switched on again, I/O goes back by itself.
    w.request(HostRequest::SetFailback(true));
    w.expect_paths(&[(0, T, T, T), (1, F, T, T)]);
    assert_eq!(one_by_one(&mut w, 1, 2), [0; 2]);
}

/// B5.3: the next path of the best class after `min_io` I/Os; the default is 1.
#[test]
fn round_robin_goes_round_the_best_class() {
    let mut w = world(405, 3, 1, "active_active".parse().unwrap());
    assert_eq!(one_by_one(&mut w, 0, 6), [0, 1, 2, 0, 1, 2]);
    w.ana(1, AnaState::NON_OPTIMIZED);
    w.expect_paths(&[(0, T, T, T), (1, F, T, T), (2, T, T, T)]);
    assert_eq!(one_by_one(&mut w, 0, 4), [0, 2, 0, 2]);
    let mut w = world(406, 3, 1, robin(3));
    assert_eq!(one_by_one(&mut w, 0, 8), [0, 0, 0, 1, 1, 1, 2, 2]);
    // A path that goes in the middle of its turn loses the rest of it.
    w.ana(2, AnaState::INACCESSIBLE);
    w.expect_paths(&[(0, T, T, T), (1, T, T, T), (2, F, T, F)]);
    assert_eq!(one_by_one(&mut w, 0, 4), [0, 0, 0, 1]);
}

/// B5.4: the path with the fewest I/Os outstanding on this reactor; what other reactors have there does not count.
#[test]
fn queue_depth_counts_what_is_outstanding_on_this_reactor() {
    let mut w = world(407, 3, 2, QUEUE_DEPTH);
    assert_eq!(one_by_one(&mut w, 0, 4), [0, 1, 2, 0], "ties go round");
    // Blocks from 100 on are not answered.
    w.on_command(|seen| match seen.is_io() && seen.lba() >= 100 {
        true => Verdict::Hold,
        false => Verdict::Pass,
    });
    w.tap.borrow_mut().hold = true;
    let held: Vec<_> = (100..102).map(|lba| w.submit(0, Op::Read, lba)).collect();
    w.sim.run_for(Duration::from_millis(10));
    assert_eq!(used(&w), [1, 2]);
    assert_eq!(one_by_one(&mut w, 0, 4), [0; 4]);
    assert_eq!(
        one_by_one(&mut w, 1, 3),
        [0, 1, 2],
        "the other reactor's own"
    );
    w.release();
    w.expect_ended(&held, Duration::from_secs(1));
    assert_eq!(one_by_one(&mut w, 0, 3).len(), 3);
}

/// B5.5, B5.1: a change of policy, selector, `min_io` or preferred path takes effect on every reactor; what is in
/// flight stays where it is and is not sent again.
#[test]
fn a_change_of_policy_reaches_every_reactor_and_no_io_in_flight() {
    let mut w = world(408, 2, 4, Policy::ActivePassive);
    w.on_command(|seen| match seen.is_io() && seen.lba() >= 100 {
        true => Verdict::Hold,
        false => Verdict::Pass,
    });
    w.tap.borrow_mut().hold = true;
    let held: Vec<_> = (0..4)
        .map(|reactor| w.submit(reactor, Op::Read, 100))
        .collect();
    w.sim.run_for(Duration::from_millis(10));
    assert_eq!(used(&w), [0; 4]);
    for (policy, wanted) in [
        (robin(1), [0, 1, 0, 1]),
        (robin(2), [0, 0, 1, 1]),
        (QUEUE_DEPTH, [1, 1, 1, 1]),
        (Policy::ActivePassive, [0, 0, 0, 0]),
    ] {
        w.set_policy(policy);
        w.sim.run_for(Duration::from_millis(1));
        let both = matches!(policy, Policy::ActiveActive(_));
        w.expect_paths(&[(0, T, T, T), (1, both, T, T)]);
        for reactor in 0..4 {
            let mut paths = one_by_one(&mut w, reactor, 4);
            // Where a round begins depends on what was before.
            if paths[0] != wanted[0] {
                paths.iter_mut().for_each(|p| *p = 1 - *p);
            }
            assert_eq!(paths, wanted, "{policy} on {reactor}");
        }
        assert_eq!(w.status()[0].policy, policy);
    }
    w.prefer(1);
    w.sim.run_for(Duration::from_millis(1));
    for reactor in 0..4 {
        assert_eq!(one_by_one(&mut w, reactor, 2), [1; 2]);
        assert_eq!(w.path(reactor, 0).outstanding, 1, "still where it was");
    }
    assert!(held.iter().all(|id| w.ended(*id).is_none()));
    w.tap.borrow_mut().seen.clear();
    w.release();
    w.expect_ended(&held, Duration::from_secs(1));
    for id in held {
        assert_eq!(w.ended(id).unwrap().0, Ok(()));
        assert_eq!(w.carried_by(id), Some(0));
    }
    assert_eq!(w.tap.borrow().count(Seen::is_io), 0, "none was sent again");
}

/// B13.2: what is current is where the next I/O goes, under each policy, when the optimized path is inaccessible, is
/// gone, or was detached.
#[test]
fn the_next_io_goes_where_status_says() {
    let takes = |w: &mut World, reactor: usize| {
        let current: Vec<_> = w.paths()[reactor]
            .iter()
            .filter(|p| p.1)
            .map(|p| p.0)
            .collect();
        let mut used = one_by_one(w, reactor, 6);
        used.sort_unstable();
        used.dedup();
        (current, used)
    };
    for policy in [Policy::ActivePassive, robin(1), robin(2), QUEUE_DEPTH] {
        let mut w = world(409, 3, 2, policy);
        w.ana(1, AnaState::NON_OPTIMIZED);
        w.ana(2, AnaState::NON_OPTIMIZED);
        w.expect_paths(&[(0, T, T, T), (1, F, T, T), (2, F, T, T)]);
        type Change = fn(&mut World);
        let changes: [(&str, Change); 5] = [
            ("nothing", |_| {}),
            ("inaccessible", |w| w.ana(0, AnaState::INACCESSIBLE)),
            ("gone", |w| w.unlisten(0)),
            ("detached", |w| w.detach(Some(0)).unwrap()),
            ("another one optimized", |w| w.ana(2, AnaState::OPTIMIZED)),
        ];
        for (what, change) in changes {
            change(&mut w);
            w.sim.run_for(Duration::from_millis(50));
            for reactor in 0..2 {
                let (current, used) = takes(&mut w, reactor);
                assert!(!current.is_empty());
                assert_eq!(current, used, "{policy}, {what}");
            }
        }
    }
}
