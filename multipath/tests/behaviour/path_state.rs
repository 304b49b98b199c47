//! What a reactor knows of a path, and what makes it accessible and available (rule B2).

use std::time::Duration;

use pollux_multipath::{ControllerChange, Op, PathEventKind, Policy, Selector};
use pollux_nvme_tcp::spec::identify::cns;
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_nvme_tcp::testing::Verdict;

use crate::common::{World, options};

const T: bool = true;
const F: bool = false;

/// Two paths by way of the tap, settled, with no I/O of their own.
fn world(seed: u64, io: usize, policy: Policy) -> World {
    let mut w = World::tapped(seed, 2, io, 0);
    for path in 0..2 {
        let mut options = options();
        options.policy = policy;
        w.attach_with(path, options).unwrap();
    }
    w.sim.run_for(Duration::from_millis(100));
    w
}

/// The paths that some I/Os take, one after the other.
fn one_by_one(w: &mut World, reactor: usize, count: u64) -> Vec<u16> {
    w.tap.borrow_mut().seen.clear();
    for lba in 0..count {
        assert_eq!(w.io(reactor, Op::Read, lba), Ok(()));
    }
    let tap = w.tap.borrow();
    let io = tap.seen.iter().filter(|s| s.is_io());
    io.map(|s| s.path).collect()
}

/// B2.2: without ANA reporting every active namespace is optimized, and no log is read.
#[test]
fn without_ana_reporting_every_namespace_is_optimized() {
    let mut w = World::tapped(214, 2, 2, 4);
    w.on_data(|seen, data| {
        if seen.is_identify(cns::CONTROLLER) && seen.path == 0 {
            data[76] &= !(1 << 3);
        }
    });
    w.ana(0, AnaState::NON_OPTIMIZED);
    w.attach(0);
    w.attach(1);
    w.expect_paths(&[(0, T, T, T), (1, F, T, T)]);
    let path = w.path(0, 0);
    assert_eq!((path.ana_state, path.ana_group), (AnaState::OPTIMIZED, 0));
    assert_eq!(w.tap.borrow().count(|s| s.path == 0 && s.is_ana_log()), 0);
    w.expect_progress(20);
    w.finish();
}

/// B2.2: of the five ANA states two are accessible.
#[test]
fn optimized_and_non_optimized_are_accessible() {
    let mut w = world(215, 2, Policy::ActivePassive);
    for (state, accessible) in [
        (AnaState::NON_OPTIMIZED, T),
        (AnaState::INACCESSIBLE, F),
        (AnaState::OPTIMIZED, T),
        (AnaState::PERSISTENT_LOSS, F),
        (AnaState::CHANGE, F),
        (AnaState::OPTIMIZED, T),
    ] {
        w.ana(0, state);
        let current = state == AnaState::OPTIMIZED;
        w.expect_paths(&[(0, current, T, accessible), (1, !current, T, T)]);
        w.sim.run_for(Duration::from_millis(10));
        for reactor in 0..2 {
            assert_eq!(w.path(reactor, 0).ana_state, state);
        }
    }
}

/// B2.1, B3.5: each state that is applied carries a higher epoch than the one before, and every reactor comes to hold
/// the same one.
#[test]
fn epochs_grow_and_reach_every_reactor() {
    let mut w = world(216, 3, Policy::ActivePassive);
    let mut last = w.path(0, 0).epoch;
    for state in [AnaState::NON_OPTIMIZED, AnaState::OPTIMIZED].repeat(3) {
        w.ana(0, state);
        w.sim.run_for(Duration::from_millis(10));
        let epochs: Vec<_> = (0..3).map(|r| w.path(r, 0).epoch).collect();
        assert!(epochs[0] > last, "{epochs:?} after {last}");
        assert_eq!(epochs, [epochs[0]; 3]);
        last = epochs[0];
    }
    // A path that is made again does not start over.
    w.detach(Some(0)).unwrap();
    w.attach(0);
    assert!(w.path(0, 0).epoch > last);
    let status = w.status();
    let applied = status[0].events.iter().filter_map(|e| match e.kind {
        PathEventKind::Ana { epoch, .. } => Some(epoch),
        _ => None,
    });
    assert!(applied.is_sorted());
}

/// B2.3, B5.1: for each thing that keeps a path from being available, I/O goes by the other one, though that is
/// non-optimized; and comes back when it is over.
#[test]
fn a_path_that_is_not_available_carries_nothing() {
    for policy in [
        Policy::ActivePassive,
        Policy::ActiveActive(Selector::default()),
        Policy::ActiveActive(Selector::QueueDepth),
    ] {
        let mut w = world(400, 2, policy);
        w.ana(1, AnaState::NON_OPTIMIZED);
        w.expect_paths(&[(0, T, T, T), (1, F, T, T)]);
        assert_eq!(one_by_one(&mut w, 0, 4), [0; 4], "{policy}");
        // Not accessible.
        w.ana(0, AnaState::INACCESSIBLE);
        w.expect_paths(&[(0, F, T, F), (1, T, T, T)]);
        assert_eq!(one_by_one(&mut w, 0, 4), [1; 4], "{policy}");
        w.ana(0, AnaState::OPTIMIZED);
        w.expect_paths(&[(0, T, T, T), (1, F, T, T)]);
        // Not connected.
        w.unlisten(0);
        w.expect_paths(&[(0, F, F, T), (1, T, T, T)]);
        assert_eq!(one_by_one(&mut w, 1, 4), [1; 4], "{policy}");
        w.listen(0);
        w.expect_paths(&[(0, T, T, T), (1, F, T, T)]);
        // Being reset: connected only when all of it is in place.
        let cntlid = w.controller(0).cntlid;
        w.on_command(|seen| match seen.path == 0 && seen.is_ana_log() {
            true => Verdict::Hold,
            false => Verdict::Pass,
        });
        w.tap.borrow_mut().hold = true;
        let reset = w.start_change(Some(cntlid), ControllerChange::Reset);
        w.expect_paths(&[(0, F, F, T), (1, T, T, T)]);
        w.sim.run_for(Duration::from_millis(200));
        assert_eq!(one_by_one(&mut w, 0, 4), [1; 4], "{policy}");
        w.release();
        w.wait(reset).unwrap();
        w.expect_paths(&[(0, T, T, T), (1, F, T, T)]);
        assert_eq!(one_by_one(&mut w, 1, 4), [0; 4], "{policy}");
    }
}

/// B2.1, B2.3: a path that was excluded by fast-I/O-fail is available again once it is connected.
#[test]
fn an_excluded_path_comes_back_with_its_connection() {
    let mut w = World::tapped(401, 1, 2, 0);
    let mut options = options();
    options.recovery.reconnect_delay = Duration::from_secs(1);
    options.recovery.fast_io_fail_timeout = Some(Duration::from_secs(2));
    w.attach_with(0, options).unwrap();
    w.unlisten(0);
    w.sim.run_for(Duration::from_secs(3));
    assert!(w.io(1, Op::Read, 0).is_err());
    w.listen(0);
    w.expect_paths(&[(0, T, T, T)]);
    assert_eq!(w.io(1, Op::Read, 0), Ok(()));
    // The time starts anew with the next loss.
    w.unlisten(0);
    w.sim.run_for(Duration::from_millis(1500));
    let id = w.submit(0, Op::Read, 0);
    w.sim.run_for(Duration::from_millis(100));
    assert_eq!(w.ended(id), None);
}
