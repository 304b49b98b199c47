//! ANA changes, ANATT and status on simulated reactors, in virtual time.

use std::time::Duration;

use crate::common::{self, World};
use pollux_nvme_tcp::spec::log::AnaState;

const T: bool = true;
const F: bool = false;

#[test]
fn one_path_carries_io() {
    let mut w = World::new(1, 1, 1, 4);
    let attached = w.attach(0);
    assert_eq!(attached.volumes.len(), 1);
    assert_eq!(attached.volumes[0].name, "Nvme0n1");
    assert_eq!(attached.volumes[0].blocks, common::BLOCKS);
    w.expect_progress(500);
    w.expect_paths(&[(0, T, T, T)]);
    w.finish();
}

/// B3.1, B3.4, B5.2, B13.2: I/O moves with the ANA states, no error, nothing lost, on two reactors.
#[test]
fn io_follows_the_ana_states() {
    for seed in 0..8 {
        let mut w = World::new(seed, 2, 2, 8);
        w.attach(0);
        w.attach(1);
        let (o, n, i) = (
            AnaState::OPTIMIZED,
            AnaState::NON_OPTIMIZED,
            AnaState::INACCESSIBLE,
        );
        for (s0, s1, wanted) in [
            (o, o, [(0, T, T, T), (1, F, T, T)]),
            (n, o, [(0, F, T, T), (1, T, T, T)]),
            (n, n, [(0, T, T, T), (1, F, T, T)]),
            (i, n, [(0, F, T, F), (1, T, T, T)]),
            (i, i, [(0, F, T, F), (1, F, T, F)]),
            (i, o, [(0, F, T, F), (1, T, T, T)]),
            (o, n, [(0, T, T, T), (1, F, T, T)]),
        ] {
            w.ana(0, s0);
            w.ana(1, s1);
            w.expect_paths(&wanted);
            if s0 != i || s1 != i {
                w.expect_progress(50);
            }
        }
        w.finish();
    }
}

/// B4.2, B4.3, B7.1, B7.3: with every path inaccessible I/O waits until ANATT, then fails, saying why.
#[test]
fn io_waits_until_anatt_has_run_out() {
    let mut w = World::new(3, 2, 2, 4);
    w.attach(0);
    w.attach(1);
    w.expect_progress(50);
    w.ana(0, AnaState::INACCESSIBLE);
    w.ana(1, AnaState::INACCESSIBLE);
    w.expect_paths(&[(0, F, T, F), (1, F, T, F)]);
    let done = w.seen.borrow().done;
    w.sim.run_for(Duration::from_secs(9));
    assert_eq!(w.seen.borrow().done, done, "waiting, not failing");
    let status = w.status();
    let path = &status[0].reactors[0].paths[0];
    let remaining = path.anatt_remaining.expect("B4.5: the time left is shown");
    assert!(remaining <= Duration::from_secs(1), "{remaining:?}");
    assert_eq!(status[0].reactors[0].waiting, 4);
    *w.on.borrow_mut() = false;
    w.sim.run_for(Duration::from_secs(2));
    {
        let seen = w.seen.borrow();
        assert_eq!(
            seen.done, seen.submitted,
            "all failed in the turn of the expiry"
        );
        assert_eq!(seen.errors.len(), 8);
        assert!(seen.errors[0].contains("ANATT"), "{:?}", seen.errors);
    }
    w.seen.borrow_mut().errors.clear();
    // B4.1: an accessible state makes the path good again.
    *w.on.borrow_mut() = true;
    w.ana(1, AnaState::OPTIMIZED);
    w.expect_paths(&[(0, F, T, F), (1, T, T, T)]);
    w.seen.borrow_mut().errors.clear();
    w.expect_progress(20);
    w.finish();
}

/// B7.2: waiting I/O goes on when a path becomes available in time.
#[test]
fn waiting_io_is_resumed_by_the_message_that_frees_it() {
    let mut w = World::new(4, 2, 2, 4);
    w.attach(0);
    w.attach(1);
    w.expect_progress(50);
    w.ana(0, AnaState::INACCESSIBLE);
    w.ana(1, AnaState::INACCESSIBLE);
    w.expect_paths(&[(0, F, T, F), (1, F, T, F)]);
    w.sim.run_for(Duration::from_secs(5));
    w.ana(0, AnaState::NON_OPTIMIZED);
    w.expect_paths(&[(0, T, T, T), (1, F, T, F)]);
    w.expect_progress(50);
    w.finish();
}

/// B4.4: persistent loss is not waited for.
#[test]
fn persistent_loss_of_the_last_path_fails_io_at_once() {
    let mut w = World::new(5, 1, 1, 4);
    w.attach(0);
    w.expect_progress(50);
    w.ana(0, AnaState::PERSISTENT_LOSS);
    w.expect_paths(&[(0, F, T, F)]);
    w.sim.run_for(Duration::from_millis(10));
    *w.on.borrow_mut() = false;
    w.sim.run_for(Duration::from_millis(10));
    let seen = w.seen.borrow();
    assert_eq!(seen.done, seen.submitted);
    assert!(
        seen.errors.iter().all(|e| e.contains("persistent loss")),
        "{:?}",
        seen.errors.first()
    );
    assert!(!seen.errors.is_empty());
}

/// B13.3: the history tells what moved the I/O and when each reactor saw it.
#[test]
fn the_history_tells_why_io_moved() {
    use pollux_multipath::PathEventKind as Kind;
    let mut w = World::new(6, 2, 2, 4);
    w.attach(0);
    w.attach(1);
    w.expect_progress(50);
    w.ana(0, AnaState::INACCESSIBLE);
    w.expect_paths(&[(0, F, T, F), (1, T, T, T)]);
    w.sim.run_for(Duration::from_millis(1));
    let status = w.status();
    let events = &status[0].events;
    let change = events
        .iter()
        .find_map(|e| match e.kind {
            Kind::Ana {
                from: AnaState::OPTIMIZED,
                to: AnaState::INACCESSIBLE,
                epoch,
            } => Some(epoch),
            _ => None,
        })
        .expect("the change is in the history");
    let reactors = events
        .iter()
        .filter(|e| matches!(e.kind, Kind::Applied { epoch, .. } if epoch == change))
        .count();
    assert_eq!(reactors, 2, "both reactors have applied it: {events:?}");
    w.finish();
}

/// B13.2: 2,000 ANA changes 1 ms apart under I/O on two reactors; no status contradicts itself (which `paths()`
/// checks), no I/O fails.
#[test]
fn status_holds_under_fire() {
    let mut w = World::new(77, 2, 2, 8);
    w.attach(0);
    w.attach(1);
    w.ana(1, AnaState::NON_OPTIMIZED);
    w.expect_paths(&[(0, T, T, T), (1, F, T, T)]);
    let mut states_seen = Vec::new();
    for i in 0..2000 {
        let state = [AnaState::INACCESSIBLE, AnaState::OPTIMIZED][i % 2];
        w.ana(0, state);
        w.sim.run_for(Duration::from_millis(1));
        let view = w.paths();
        if !states_seen.contains(&view) {
            states_seen.push(view);
        }
    }
    assert!(states_seen.len() > 1, "it was looked at while it changed");
    w.expect_paths(&[(0, T, T, T), (1, F, T, T)]);
    w.expect_progress(100);
    w.finish();
}
