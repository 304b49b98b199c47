//! Lost connections, reconnects and detach on simulated reactors, in virtual time.

use std::time::Duration;

use crate::common::{self, World, addr};
use pollux_multipath::{AttachOptions, ControllerChange, HostError, Mode};

const T: bool = true;
const F: bool = false;

/// B6, B8.1: a listener that goes takes its path along; its I/O goes elsewhere, and comes back with it.
#[test]
fn io_moves_when_a_listener_goes_and_comes_back() {
    for seed in 10..16 {
        let mut w = World::new(seed, 2, 2, 8);
        w.attach(0);
        w.attach(1);
        w.expect_progress(100);
        w.unlisten(0);
        w.expect_paths(&[(0, F, F, T), (1, T, T, T)]);
        w.expect_progress(100);
        w.listen(0);
        w.expect_paths(&[(0, T, T, T), (1, F, T, T)]);
        w.expect_progress(100);
        w.finish();
    }
}

/// B8.5: connections cut in the middle of whatever they were doing, again and again.
#[test]
fn io_survives_connections_that_are_cut() {
    for seed in 30..38 {
        let mut w = World::new(seed, 2, 2, 8);
        w.sim.network().set_max_chunk(700);
        w.attach(0);
        w.attach(1);
        for round in 0..6 {
            w.expect_progress(60 + round * 13);
            w.sim.network().sever(addr(u16::from(round % 2 == 0)));
        }
        w.expect_progress(100);
        w.expect_paths(&[(0, T, T, T), (1, F, T, T)]);
        w.finish();
    }
}

/// B9.2: a controller that no longer answers is noticed by keep-alive and its I/O goes elsewhere.
#[test]
fn a_black_hole_is_noticed_by_keep_alive() {
    let mut w = World::new(40, 2, 2, 4);
    let mut options = common::options();
    options.keep_alive_ms = 2000;
    w.attach_with(0, options.clone()).unwrap();
    w.attach_with(1, options).unwrap();
    w.expect_progress(100);
    w.sim.network().black_hole(addr(0), true);
    w.sim.run_for(Duration::from_secs(4));
    w.expect_paths(&[(0, F, F, T), (1, T, T, T)]);
    w.expect_progress(100);
    w.sim.network().black_hole(addr(0), false);
    w.expect_progress(100);
    w.finish();
}

/// B8.3: after `fast_io_fail_timeout_sec` I/O fails instead of waiting, after `ctrlr_loss_timeout_sec`
/// the controller and with it the volume is gone.
#[test]
fn io_fails_after_fast_io_fail_and_the_controller_goes_after_its_loss_timeout() {
    let mut w = World::new(50, 1, 1, 4);
    let mut options = AttachOptions::default();
    options.recovery.reconnect_delay = Duration::from_secs(1);
    options.recovery.controller_loss_timeout = Some(Duration::from_secs(20));
    options.recovery.fast_io_fail_timeout = Some(Duration::from_secs(5));
    w.attach_with(0, options).unwrap();
    w.expect_progress(50);
    w.unlisten(0);
    w.sim.run_for(Duration::from_secs(4));
    assert!(w.seen.borrow().errors.is_empty(), "still waiting");
    *w.on.borrow_mut() = false;
    w.sim.run_for(Duration::from_secs(2));
    {
        let seen = w.seen.borrow();
        assert_eq!(seen.done, seen.submitted);
        assert!(seen.errors[0].contains("fast_io_fail"), "{:?}", seen.errors);
    }
    assert_eq!(w.status().len(), 1);
    w.sim.run_for(Duration::from_secs(20));
    assert_eq!(w.status().len(), 0, "the volume went with its last path");
}

/// B8.2: a reset on request fails no I/O while another path or a reconnect can carry it.
#[test]
fn a_reset_fails_no_io() {
    let mut w = World::new(60, 1, 2, 8);
    w.attach(0);
    for _ in 0..5 {
        w.expect_progress(80);
        w.change(None, ControllerChange::Reset).unwrap();
    }
    w.expect_progress(80);
    w.finish();
}

/// B11: detaching one address fails its I/O over; detaching the last removes the volume.
#[test]
fn detach_fails_over_and_the_last_one_removes_the_volume() {
    let mut w = World::new(70, 2, 2, 8);
    w.attach(0);
    w.attach(1);
    w.expect_progress(100);
    w.detach(Some(0)).unwrap();
    w.expect_paths(&[(1, T, T, T)]);
    w.expect_progress(100);
    w.attach(0);
    w.expect_paths(&[(1, T, T, T), (0, F, T, T)]);
    w.finish();
    w.detach(None).unwrap();
    assert!(w.status().is_empty());
    assert!(matches!(w.detach(None), Err(HostError::NotFound(_))));
}

/// B1.2, B1.4: what cannot be attached is refused with its reason, and the paths there are stay.
#[test]
fn bad_attaches_are_refused_and_change_nothing() {
    let mut w = World::new(80, 1, 1, 4);
    w.attach(0);
    w.expect_progress(20);
    let again = w.attach_with(0, AttachOptions::default()).unwrap_err();
    assert!(matches!(again, HostError::Exists(_)), "{again}");
    let mut policy = AttachOptions::default();
    policy.policy = "active_active".parse().unwrap();
    let mismatch = w.attach_with(1, policy).unwrap_err();
    assert!(mismatch.to_string().contains("policy"), "{mismatch}");
    let refused = w.attach_with(7, AttachOptions::default()).unwrap_err();
    assert!(
        refused.to_string().contains("TCP connect failed"),
        "{refused}"
    );
    w.sim.network().black_hole(addr(5), true);
    *w.on.borrow_mut() = false;
    let silent = w.attach_with(5, AttachOptions::default()).unwrap_err();
    *w.on.borrow_mut() = true;
    assert!(
        silent.to_string().contains("within the connect timeout"),
        "{silent}"
    );
    w.expect_paths(&[(0, T, T, T)]);
    w.expect_progress(20);
    w.finish();
}

/// B12: one connection at a time; when it fails, the next address is tried at once.
#[test]
fn failover_turns_to_the_next_address() {
    let mut w = World::new(90, 3, 2, 8);
    let mut failover = common::options();
    failover.mode = Mode::Failover;
    for path in 0..3 {
        let attached = w.attach_with(path, failover.clone()).unwrap();
        assert_eq!(attached.volumes.len(), 1);
    }
    w.expect_paths(&[(0, T, T, T)]);
    w.expect_progress(50);
    for next in [1, 2] {
        w.unlisten(next - 1);
        w.expect_paths(&[(next, T, T, T)]);
        w.expect_progress(50);
    }
    w.listen(0);
    w.unlisten(2);
    w.expect_paths(&[(0, T, T, T)]);
    w.expect_progress(50);
    // The connected address is detached: the next one that answers takes over.
    w.listen(1);
    w.detach(Some(0)).unwrap();
    w.expect_paths(&[(1, T, T, T)]);
    w.expect_progress(50);
    w.detach(Some(2)).unwrap();
    w.expect_paths(&[(1, T, T, T)]);
    w.finish();
    w.detach(Some(1)).unwrap();
    assert!(w.status().is_empty());
}

/// B1.2: what the modes allow under a name in use.
#[test]
fn modes_that_do_not_go_together_are_refused() {
    let mut w = World::new(91, 4, 1, 1);
    let with = |mode| {
        let mut options = common::options();
        options.mode = mode;
        options
    };
    w.attach(0);
    let error = w.attach_with(1, with(Mode::Disable)).unwrap_err();
    assert!(matches!(error, HostError::Exists(_)), "{error}");
    w.attach_with(1, with(Mode::Failover)).unwrap();
    let error = w.attach_with(2, with(Mode::Multipath)).unwrap_err();
    assert!(error.to_string().contains("failover"), "{error}");
    w.detach(Some(1)).unwrap();
    w.attach_with(2, with(Mode::Multipath)).unwrap();
    let error = w.attach_with(3, with(Mode::Failover)).unwrap_err();
    assert!(error.to_string().contains("2 paths"), "{error}");
    w.expect_paths(&[(0, T, T, T), (2, F, T, T)]);
    w.finish();
}

/// B8.2: a disabled controller carries no I/O until it is enabled.
#[test]
fn a_disabled_controller_stays_out_until_it_is_enabled() {
    let mut w = World::new(92, 2, 2, 8);
    w.attach(0);
    w.attach(1);
    w.expect_progress(50);
    let first = w.controllers()[0].cntlid;
    w.change(Some(first), ControllerChange::Disable).unwrap();
    w.expect_paths(&[(0, F, F, T), (1, T, T, T)]);
    assert_eq!(w.controllers()[0].state, "disabled");
    w.expect_progress(50);
    let error = w
        .change(Some(first), ControllerChange::Disable)
        .unwrap_err();
    assert!(error.to_string().contains("disabled"), "{error}");
    assert!(w.change(Some(65000), ControllerChange::Reset).is_err());
    w.change(Some(first), ControllerChange::Enable).unwrap();
    w.expect_paths(&[(0, T, T, T), (1, F, T, T)]);
    w.expect_progress(50);
    w.finish();
}

/// B8.3: without a reconnect delay a lost controller has one try at once; it then stays where it is, no I/O
/// waits for it, and a reset on request brings it back.
#[test]
fn without_a_reconnect_delay_there_is_one_try() {
    let mut w = World::new(93, 1, 2, 4);
    let mut options = AttachOptions::default();
    options.recovery.reconnect_delay = Duration::ZERO;
    options.recovery.controller_loss_timeout = Some(Duration::ZERO);
    w.attach_with(0, options).unwrap();
    w.expect_progress(50);
    // Cut, but still there: the one try is enough.
    w.sim.network().sever(addr(0));
    w.expect_progress(50);
    *w.on.borrow_mut() = false;
    w.unlisten(0);
    w.sim.run_for(Duration::from_secs(1));
    assert_eq!(w.controllers()[0].state, "failed");
    let error = w.change(None, ControllerChange::Reset).unwrap_err();
    assert!(matches!(error, HostError::Connect { .. }), "{error}");
    *w.on.borrow_mut() = true;
    let seen = w.seen.clone();
    let failed = w
        .sim
        .run_until(Duration::from_secs(1), || !seen.borrow().errors.is_empty());
    *w.on.borrow_mut() = false;
    assert!(failed, "I/O does not wait");
    assert!(w.seen.borrow().errors[0].contains("controller lost"));
    w.listen(0);
    w.sim.run_for(Duration::from_secs(30));
    assert_eq!(w.controllers()[0].state, "failed", "no try of its own");
    w.seen.borrow_mut().errors.clear();
    w.change(None, ControllerChange::Reset).unwrap();
    w.expect_paths(&[(0, T, T, T)]);
    *w.on.borrow_mut() = true;
    w.expect_progress(50);
    w.finish();
}

/// B8.2: a reset is answered when its controllers carry I/O again, and a detach when they are gone.
#[test]
fn changes_are_answered_when_they_are_done() {
    let mut w = World::new(94, 2, 2, 4);
    w.attach(0);
    w.attach(1);
    w.expect_progress(50);
    w.change(None, ControllerChange::Reset).unwrap();
    assert!(w.controllers().iter().all(|c| c.state == "enabled"));
    w.expect_progress(50);
    w.finish();
    w.detach(None).unwrap();
    assert!(w.controllers().is_empty());
}
