//! Resets, reconnects and what happens meanwhile (rule B8).

use std::time::Duration;

use crate::common::{World, addr, options, transport};
use pollux_multipath::{
    AttachRequest, ControllerChange, HostError, Op, Policy, Recovery, Selector,
};
use pollux_nvme_tcp::spec::identify::cns;
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_nvme_tcp::testing::{Seen, Verdict};

const T: bool = true;
const F: bool = false;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn slow() -> Recovery {
    let mut recovery = Recovery::default();
    recovery.reconnect_delay = Duration::from_secs(3);
    recovery
}

fn reset(w: &mut World, path: u16) -> Result<(), HostError> {
    let cntlid = w.controller(path).cntlid;
    w.change(Some(cntlid), ControllerChange::Reset)
}

fn connects(w: &World, path: u16) -> usize {
    w.tap.borrow().count(|s| s.path == path && s.is_connect())
}

/// B8.1: each way of losing a controller resets that one only: the others keep their connections and their I/O.
#[test]
fn other_controllers_are_not_touched() {
    type Lose = fn(&mut World);
    let ways: [(&str, Lose); 4] = [
        ("connection lost", |w| w.sim.network().sever(addr(0))),
        ("reset on request", |w| reset(w, 0).unwrap()),
        ("keep-alive", |w| {
            w.sim.network().black_hole(addr(0), true);
            w.sim.run_for(Duration::from_secs(10));
            w.sim.network().black_hole(addr(0), false);
        }),
        ("listener gone", |w| {
            w.unlisten(0);
            w.listen(0);
        }),
    ];
    for (what, lose) in ways {
        let mut w = World::tapped(700, 3, 2, 6);
        let mut robin = options();
        robin.policy = Policy::ActiveActive(Selector::RoundRobin { min_io: 1 });
        robin.keep_alive_ms = 4000;
        for path in 0..3 {
            w.attach_with(path, robin.clone()).unwrap();
        }
        w.expect_progress(100);
        let before = (connects(&w, 1), connects(&w, 2));
        let first = connects(&w, 0);
        let ids = |w: &mut World| (w.controller(1).cntlid, w.controller(2).cntlid);
        let cntlids = ids(&mut w);
        lose(&mut w);
        w.expect_paths(&[(0, T, T, T), (1, T, T, T), (2, T, T, T)]);
        w.expect_progress(100);
        assert!(connects(&w, 0) > first, "{what}");
        assert_eq!((connects(&w, 1), connects(&w, 2)), before, "{what}");
        assert_eq!(ids(&mut w), cntlids, "{what}");
        for path in 1..3 {
            assert_eq!(w.controller(path).last_error, None, "{what}");
        }
        w.finish();
    }
}

/// B8.1: with one controller lost for a long time, I/O by the other is as fast as before.
#[test]
fn the_others_are_not_slower() {
    let mut w = World::tapped(701, 2, 1, 0);
    for path in 0..2 {
        w.attach(path);
    }
    w.ana(0, AnaState::NON_OPTIMIZED);
    w.expect_paths(&[(0, F, T, T), (1, T, T, T)]);
    let time = |w: &mut World| {
        let start = w.sim.now();
        for lba in 0..100 {
            assert_eq!(w.io(0, Op::Read, lba), Ok(()));
        }
        w.sim.now().saturating_since(start)
    };
    let before = time(&mut w);
    w.sim.network().black_hole(addr(0), true);
    w.sim.network().sever(addr(0));
    w.sim.run_for(Duration::from_secs(1));
    let after = time(&mut w);
    // Turns of other reactors take a microsecond each.
    let slack = Duration::from_micros(20) * 100;
    assert!(after <= before + slack, "{after:?} after {before:?}");
}

/// B8.2: a reset fails all over, then connects admin queue and I/O queues on every reactor, identifies again, reads
/// the ANA log; only then the path is available.
#[test]
fn a_reset_brings_all_of_it_up_again_before_the_path_is_available() {
    type Stage = fn(&Seen) -> bool;
    let stages: [(&str, Stage); 5] = [
        ("the admin queue", |s| s.is_connect() && s.qid == 0),
        ("Identify Controller", |s| s.is_identify(cns::CONTROLLER)),
        ("the namespaces", |s| s.is_identify(cns::NAMESPACE)),
        ("the ANA log", Seen::is_ana_log),
        ("an I/O queue of one reactor", |s| {
            s.is_connect() && s.qid == 2
        }),
    ];
    let mut w = World::tapped(702, 2, 3, 3);
    w.attach(0);
    w.attach(1);
    w.expect_progress(50);
    for (what, stage) in stages {
        w.on_command(move |seen| match seen.path == 0 && stage(seen) {
            true => Verdict::Hold,
            false => Verdict::Pass,
        });
        w.tap.borrow_mut().hold = true;
        w.tap.borrow_mut().seen.clear();
        let cntlid = w.controller(0).cntlid;
        let answer = w.start_change(Some(cntlid), ControllerChange::Reset);
        w.run_until(what, |t| t.count(|s| s.path == 0 && stage(s)) > 0);
        w.sim.run_for(ms(20));
        w.expect_paths(&[(0, F, F, T), (1, T, T, T)]);
        let waiting = w.status()[0]
            .reactors
            .iter()
            .map(|r| r.waiting)
            .sum::<usize>();
        assert_eq!(waiting, 0, "all went to the other path");
        w.expect_progress(50);
        let tap = w.tap.borrow();
        let on_path: Vec<_> = tap.seen.iter().filter(|s| s.path == 0).collect();
        let again = on_path.iter().position(|s| s.is_connect()).unwrap();
        let early = on_path[again..].iter().any(|s| s.is_io());
        assert!(!early, "{what}: no I/O before all is in place");
        drop(tap);
        w.release();
        w.wait(answer).unwrap();
        w.expect_paths(&[(0, T, T, T), (1, F, T, T)]);
        let tap = w.tap.borrow();
        let queues: Vec<_> = tap
            .seen
            .iter()
            .filter(|s| s.path == 0 && s.is_connect())
            .map(|s| s.qid)
            .collect();
        assert_eq!(queues[0], 0);
        assert_eq!(queues.len(), 4, "{queues:?}");
    }
    w.expect_progress(50);
    w.finish();
}

/// B8.2: what the ANA log says after the reset is what counts.
#[test]
fn the_ana_log_after_a_reset_counts() {
    let mut w = World::tapped(703, 2, 2, 4);
    w.attach(0);
    w.attach(1);
    w.expect_progress(20);
    w.unlisten(0);
    w.expect_paths(&[(0, F, F, T), (1, T, T, T)]);
    w.listen(0);
    w.ana(0, AnaState::INACCESSIBLE);
    w.expect_paths(&[(0, F, T, F), (1, T, T, T)]);
    w.expect_progress(20);
    w.finish();
}

/// B8.3: the first try is at once, further ones follow after the delay.
#[test]
fn tries_to_reconnect_are_a_delay_apart() {
    let mut w = World::tapped(704, 1, 1, 0);
    let mut options = options();
    options.recovery = slow();
    options.keep_alive_ms = 0;
    w.attach_with(0, options).unwrap();
    // The tap takes connections; behind it there is nothing.
    w.unlisten(0);
    let lost = w.sim.now();
    w.tap.borrow_mut().accepted.clear();
    w.sim.run_for(Duration::from_secs(13));
    assert_eq!(w.controller(0).state, "reconnecting");
    let tries: Vec<_> = w.tap.borrow().accepted.iter().map(|a| a.1).collect();
    assert!(tries[0].saturating_since(lost) < ms(10), "at once");
    assert_eq!(tries.len(), 5, "{tries:?}");
    for pair in tries.windows(2) {
        let apart = pair[1].saturating_since(pair[0]);
        assert!(
            apart >= ms(2990) && apart <= ms(3010),
            "{apart:?} in {tries:?}"
        );
    }
}

/// B8.3: the times count from the loss, not from each try; a controller that comes back in between has them anew.
#[test]
fn loss_and_fast_fail_count_from_the_loss() {
    let mut w = World::new(705, 2, 1, 0);
    let mut options = options();
    options.recovery.reconnect_delay = Duration::from_secs(1);
    options.recovery.controller_loss_timeout = Some(Duration::from_secs(6));
    options.recovery.fast_io_fail_timeout = Some(Duration::from_secs(3));
    w.attach_with(0, options).unwrap();
    for _ in 0..2 {
        w.unlisten(0);
        w.sim.run_for(ms(4500));
        assert_eq!(w.controllers().len(), 1);
        w.listen(0);
        w.expect_paths(&[(0, T, T, T)]);
    }
    w.unlisten(0);
    let id = w.submit(0, Op::Read, 0);
    w.sim.run_for(ms(2900));
    assert_eq!(w.ended(id), None);
    w.expect_ended(&[id], ms(200));
    w.sim.run_for(ms(2800));
    assert_eq!(w.controllers().len(), 1);
    w.sim.run_for(ms(200));
    assert!(w.controllers().is_empty(), "6 s have passed");
    // What was deleted can be attached again.
    w.listen(0);
    w.attach(0);
    w.expect_paths(&[(0, T, T, T)]);
}

/// B8.4: resets one upon the other, at every point of the one before: each is answered, and in the end the controller
/// carries I/O.
#[test]
fn resets_at_the_same_time_end_well() {
    for step in 0..40u64 {
        let mut w = World::tapped(710 + step, 2, 2, 4);
        w.attach(0);
        w.attach(1);
        w.expect_progress(20);
        let mut answers = Vec::new();
        for _ in 0..3 {
            answers.push(w.start_change(None, ControllerChange::Reset));
            w.sim.run_for(Duration::from_micros(150 * step));
        }
        for answer in answers {
            // One that another one has cut short may say so.
            let result = w.wait(answer);
            assert!(
                matches!(result, Ok(()) | Err(HostError::Connect { .. })),
                "{result:?}"
            );
        }
        w.expect_paths(&[(0, T, T, T), (1, F, T, T)]);
        w.expect_progress(20);
        w.finish();
    }
}

/// B8.4, B8.3: so it is without a reconnect delay.
#[test]
fn resets_at_the_same_time_end_well_without_a_delay() {
    let mut w = World::tapped(750, 1, 1, 0);
    let mut options = options();
    options.recovery.reconnect_delay = Duration::ZERO;
    options.recovery.controller_loss_timeout = Some(Duration::ZERO);
    w.attach_with(0, options).unwrap();
    let first = w.start_change(None, ControllerChange::Reset);
    w.sim.run_for(ms(1));
    let second = w.start_change(None, ControllerChange::Reset);
    let _ = w.wait(first);
    w.wait(second).unwrap();
    w.expect_paths(&[(0, T, T, T)]);
}

/// B8.4: a reset during an attach comes to the same end as the attach, and both are answered.
#[test]
fn a_reset_during_an_attach_is_answered() {
    let mut w = World::tapped(751, 1, 1, 0);
    w.on_command(|seen| match seen.is_connect() {
        true => Verdict::Hold,
        false => Verdict::Pass,
    });
    w.tap.borrow_mut().hold = true;
    let mut request = AttachRequest::new("Nvme0", transport(0));
    request.options = options();
    let attach = w.start_attach(request);
    w.sim.run_for(ms(5));
    let reset = w.start_change(None, ControllerChange::Reset);
    assert!(w.wait(attach).is_err());
    assert!(w.wait(reset).is_err());
}

/// B8.4: a detach at every point of a reset takes the controller away for good; the reset is answered.
#[test]
fn a_detach_during_a_reset_removes_the_controller() {
    for step in 0..20u64 {
        let mut w = World::tapped(760 + step, 2, 2, 4);
        w.attach(0);
        w.attach(1);
        w.expect_progress(20);
        let cntlid = w.controller(0).cntlid;
        let reset = w.start_change(Some(cntlid), ControllerChange::Reset);
        w.sim.run_for(Duration::from_micros(300 * step));
        w.detach(Some(0)).unwrap();
        let result = w.wait(reset);
        assert!(
            matches!(result, Ok(()) | Err(HostError::Cancelled(_))),
            "{result:?}"
        );
        w.expect_paths(&[(1, T, T, T)]);
        assert_eq!(w.controllers().len(), 1);
        w.sim.run_for(Duration::from_secs(1));
        assert_eq!(
            w.tap.borrow().open,
            3,
            "one admin and two I/O queues are left"
        );
        w.expect_progress(20);
        w.finish();
    }
}

/// B8.4: a path that is added while another one is lost takes its I/O over at once.
#[test]
fn a_path_that_is_added_during_a_failover_takes_the_io() {
    for step in 0..20u64 {
        let mut w = World::new(800 + step, 2, 2, 4);
        w.attach(0);
        w.expect_progress(20);
        w.unlisten(0);
        w.sim.run_for(Duration::from_micros(170 * step));
        w.attach(1);
        w.expect_paths(&[(0, F, F, T), (1, T, T, T)]);
        w.expect_progress(20);
        w.listen(0);
        w.expect_paths(&[(0, T, T, T), (1, F, T, T)]);
        w.finish();
    }
}

/// B8.4: disable and enable at every point of a reset.
#[test]
fn a_disable_during_a_reset_holds() {
    for step in 0..20u64 {
        let mut w = World::new(820 + step, 2, 2, 4);
        w.attach(0);
        w.attach(1);
        w.expect_progress(20);
        let cntlid = w.controller(0).cntlid;
        let reset = w.start_change(Some(cntlid), ControllerChange::Reset);
        w.sim.run_for(Duration::from_micros(300 * step));
        // Each connection has a CNTLID of its own.
        let cntlid = w.controller(0).cntlid;
        w.change(Some(cntlid), ControllerChange::Disable).unwrap();
        // Answered one way or the other.
        let _ = w.wait(reset);
        w.sim.run_for(ms(200));
        w.expect_paths(&[(0, F, F, T), (1, T, T, T)]);
        w.change(Some(cntlid), ControllerChange::Enable).unwrap();
        w.expect_paths(&[(0, T, T, T), (1, F, T, T)]);
        w.finish();
    }
}

/// B8.4: whatever is asked of a controller while it is being detached, it goes, and everyone is answered.
#[test]
fn a_change_during_a_detach_does_not_keep_the_controller() {
    let changes = [ControllerChange::Disable, ControllerChange::Reset];
    for (seed, change) in (840..).zip(changes) {
        let mut w = World::tapped(seed, 2, 2, 4);
        w.attach(0);
        w.attach(1);
        w.expect_progress(20);
        let cntlid = w.controller(0).cntlid;
        // The shutdown takes round trips; the others are asked in between.
        let detach = w.start_detach("Nvme0", Some(0));
        let changed = w.start_change(Some(cntlid), change);
        let again = w.start_detach("Nvme0", Some(0));
        assert_eq!(w.wait(detach), Ok(()), "{change:?}");
        assert_eq!(w.wait(again), Ok(()), "{change:?}");
        let answer = w.wait(changed);
        let is_told = match change {
            ControllerChange::Reset => matches!(answer, Err(HostError::Cancelled(_))),
            _ => answer.is_ok(),
        };
        assert!(is_told, "{change:?}: {answer:?}");
        assert_eq!(w.controllers().len(), 1, "{change:?}");
        w.expect_paths(&[(1, T, T, T)]);
        w.expect_progress(20);
        w.finish();
    }
}

/// B8.5: a path that is refused, black-holed, half open or cut short: no turn of another path's I/O takes longer, no
/// I/O fails, and the path is back afterwards.
#[test]
fn whatever_the_network_does_io_goes_on() {
    type Change = fn(&mut World, bool);
    let kinds: [(&str, Change); 4] = [
        ("refused", |w, on| {
            w.sim.network().refuse(addr(0), on);
            w.sim.network().sever(addr(0));
        }),
        ("black-holed", |w, on| {
            w.sim.network().black_hole(addr(0), on)
        }),
        ("half open", |w, on| {
            // Connections are taken, and nothing is ever said.
            w.on_command(move |seen| match on && seen.path == 0 {
                true => Verdict::Lose,
                false => Verdict::Pass,
            });
            w.sim.network().sever(addr(0));
        }),
        ("cut within a PDU", |w, on| {
            w.sim
                .network()
                .set_max_chunk(if on { 50 } else { usize::MAX });
            w.sim.network().sever(addr(0));
            w.sim.run_for(Duration::from_micros(500));
            w.sim.network().sever(addr(0));
        }),
    ];
    for (what, change) in kinds {
        let mut w = World::tapped(840, 2, 2, 4);
        w.sim.network().set_latency(ms(1));
        let mut options = options();
        options.keep_alive_ms = 2000;
        options.connect_timeout = Duration::from_secs(2);
        for path in 0..2 {
            w.attach_with(path, options.clone()).unwrap();
        }
        w.expect_progress(50);
        change(&mut w, true);
        w.sim.run_for(Duration::from_secs(5));
        w.expect_progress(50);
        change(&mut w, false);
        w.expect_paths(&[(0, T, T, T), (1, F, T, T)]);
        w.expect_progress(50);
        w.finish();
        assert!(w.seen.borrow().errors.is_empty(), "{what}");
    }
}
