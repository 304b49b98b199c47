//! What I/O waits for, when it goes on, and when it fails (rule B7).

use std::time::Duration;

use crate::common::{BLOCK, World, addr, nqn, options};
use pollux_multipath::{
    AttachOptions, ControllerChange, IoError, NoPath, Op, PathEventKind, Recovery,
};
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_nvme_tcp::target::TargetRequest;
use pollux_nvme_tcp::testing::Verdict;
use pollux_reactor::Time;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn with(recovery: Recovery) -> AttachOptions {
    let mut options = options();
    options.recovery = recovery;
    options
}

/// One path with these times, tapped, on two reactors.
fn world(seed: u64, recovery: Recovery) -> World {
    let mut w = World::tapped(seed, 1, 2, 0);
    w.attach_with(0, with(recovery)).unwrap();
    w
}

fn submit_on_both(w: &mut World) -> Vec<u64> {
    let ids = (0..2)
        .flat_map(|reactor| (0..4).map(move |lba| (reactor, lba)))
        .map(|(reactor, lba)| w.submit(reactor, Op::Write, lba))
        .collect();
    w.sim.run_for(ms(1));
    ids
}

fn expect_waiting(w: &mut World, ids: &[u64]) {
    for id in ids {
        assert_eq!(w.ended(*id), None);
    }
    for reactor in &w.status()[0].reactors {
        assert_eq!(reactor.waiting, 4);
    }
}

/// All have ended like this.
fn expect_result(w: &mut World, ids: &[u64], within: Duration, result: Result<(), IoError>) {
    w.expect_ended(ids, within);
    for id in ids {
        assert_eq!(w.ended(*id).unwrap().0, result);
    }
}

/// All have failed in one turn of their reactor, and so have come within so little time of `at`.
fn expect_failed(w: &mut World, ids: &[u64], at: Time, why: IoError) {
    expect_result(w, ids, Duration::from_secs(60), Err(why));
    for id in ids {
        let (_, ended) = w.ended(*id).unwrap();
        let late = ended.saturating_since(at);
        assert!(late < Duration::from_micros(100), "{late:?} after {why}");
    }
}

fn recovery() -> Recovery {
    let mut recovery = Recovery::default();
    recovery.reconnect_delay = Duration::from_secs(1);
    recovery.controller_loss_timeout = Some(Duration::from_secs(20));
    recovery.fast_io_fail_timeout = Some(Duration::from_secs(4));
    recovery
}

/// B7.1: I/O waits for a controller that is connected and may become accessible, that is being reset, that waits to be
/// connected again, and that does not answer while it is.
#[test]
fn io_waits_for_what_may_become_available() {
    type Change = fn(&mut World);
    let changes: [(&str, Change, Change); 4] = [
        (
            "inaccessible",
            |w| w.ana(0, AnaState::INACCESSIBLE),
            |w| w.ana(0, AnaState::OPTIMIZED),
        ),
        (
            "change",
            |w| w.ana(0, AnaState::CHANGE),
            |w| w.ana(0, AnaState::NON_OPTIMIZED),
        ),
        ("gone", |w| w.unlisten(0), |w| w.listen(0)),
        (
            "silent",
            |w| {
                w.on_command(|_| Verdict::Lose);
                w.sim.network().sever(addr(0));
            },
            |w| {
                w.on_command(|_| Verdict::Pass);
                w.sim.network().sever(addr(0));
            },
        ),
    ];
    for (what, begin, end) in changes {
        let mut no_fast_fail = recovery();
        no_fast_fail.fast_io_fail_timeout = None;
        let mut w = world(600, no_fast_fail);
        begin(&mut w);
        w.sim.run_for(ms(10));
        let ids = submit_on_both(&mut w);
        w.sim.run_for(Duration::from_secs(5));
        expect_waiting(&mut w, &ids);
        end(&mut w);
        w.expect_ended(&ids, Duration::from_secs(2));
        for id in ids {
            assert_eq!(w.ended(id).unwrap().0, Ok(()), "{what}");
        }
    }
}

/// B7.1: what comes when there is no hope fails at once, and says why.
#[test]
fn without_hope_io_fails_at_once_and_says_why() {
    type Change = fn(&mut World);
    let rows: [(NoPath, Change); 5] = [
        (NoPath::PersistentLoss, |w| {
            w.ana(0, AnaState::PERSISTENT_LOSS)
        }),
        (NoPath::AnattExpired, |w| {
            w.ana(0, AnaState::INACCESSIBLE);
            w.sim.run_for(Duration::from_secs(11));
        }),
        (NoPath::FastIoFail, |w| {
            w.unlisten(0);
            w.sim.run_for(Duration::from_secs(5));
        }),
        (NoPath::ControllerLost, |w| {
            let cntlid = w.controller(0).cntlid;
            w.change(Some(cntlid), ControllerChange::Disable).unwrap();
        }),
        (NoPath::ControllerLost, |w| {
            w.sim.network().sever(addr(0));
            w.change(None, ControllerChange::Disable).unwrap();
        }),
    ];
    for (why, change) in rows {
        let mut w = world(601, recovery());
        change(&mut w);
        w.sim.run_for(ms(10));
        for reactor in 0..2 {
            let before = w.sim.now();
            let id = w.submit(reactor, Op::Read, 0);
            expect_failed(&mut w, &[id], before, IoError::NoPath(why));
        }
    }
}

/// B7.2: waiting I/O goes on in the turn in which the state that frees it is applied.
#[test]
fn waiting_io_goes_on_in_the_turn_that_frees_it() {
    let mut w = world(602, recovery());
    w.ana(0, AnaState::INACCESSIBLE);
    w.sim.run_for(ms(10));
    let ids = submit_on_both(&mut w);
    expect_waiting(&mut w, &ids);
    w.tap.borrow_mut().seen.clear();
    w.ana(0, AnaState::NON_OPTIMIZED);
    expect_result(&mut w, &ids, ms(5), Ok(()));
    // When each reactor had applied the state, and when its I/Os came by on the wire, a network's latency later.
    let latency = Duration::from_micros(200);
    w.sim.run_for(ms(1));
    let status = w.status();
    for reactor in 0..2 {
        let applied = status[0].events.iter().rev().find_map(|e| match e.kind {
            PathEventKind::Applied { reactor: r, at, .. } if r == reactor => Some(at),
            _ => None,
        });
        let qid = u16::try_from(reactor + 1).unwrap();
        let tap = w.tap.borrow();
        let io = tap.seen.iter().filter(|s| s.is_io() && s.qid == qid);
        let times: Vec<_> = io.map(|s| s.at).collect();
        assert_eq!(times.len(), 4);
        for at in times {
            let took = at.saturating_since(applied.unwrap());
            assert!(took <= latency + Duration::from_micros(20), "{took:?}");
        }
    }
}

/// B7.2: so it goes on with a path that is attached, a controller that is enabled, and one that is reconnected.
#[test]
fn waiting_io_goes_on_with_a_new_path() {
    let mut w = World::tapped(603, 2, 2, 0);
    w.attach_with(0, with(recovery())).unwrap();
    w.ana(0, AnaState::INACCESSIBLE);
    w.sim.run_for(ms(10));
    let ids = submit_on_both(&mut w);
    expect_waiting(&mut w, &ids);
    w.attach_with(1, with(recovery())).unwrap();
    expect_result(&mut w, &ids, ms(2), Ok(()));

    let second = w.controller(1).cntlid;
    w.change(Some(second), ControllerChange::Disable).unwrap();
    let ids = submit_on_both(&mut w);
    expect_waiting(&mut w, &ids);
    w.change(Some(second), ControllerChange::Enable).unwrap();
    expect_result(&mut w, &ids, ms(2), Ok(()));
}

/// B7.3: with ANATT, with fast-I/O-fail, with the controller's loss, and with its end on request, what waits fails in
/// that turn, on every reactor.
#[test]
fn waiting_io_fails_in_the_turn_in_which_the_last_hope_goes() {
    // ANATT
    let mut w = world(604, recovery());
    w.ana(0, AnaState::INACCESSIBLE);
    w.sim.run_for(ms(10));
    let ids = submit_on_both(&mut w);
    let left = w.path(0, 0).anatt_remaining.unwrap();
    let at = w.sim.now() + left;
    expect_failed(&mut w, &ids, at, IoError::NoPath(NoPath::AnattExpired));

    // Fast I/O fail
    let mut w = world(605, recovery());
    w.sim.network().refuse(addr(0), true);
    let lost = w.sim.now();
    w.sim.network().sever(addr(0));
    w.sim.run_for(ms(10));
    let ids = submit_on_both(&mut w);
    let at = lost + Duration::from_secs(4);
    expect_failed(&mut w, &ids, at, IoError::NoPath(NoPath::FastIoFail));

    // Controller loss: the volume goes with it.
    let mut no_fast_fail = recovery();
    no_fast_fail.fast_io_fail_timeout = None;
    let mut w = world(606, no_fast_fail);
    w.sim.network().refuse(addr(0), true);
    let lost = w.sim.now();
    w.sim.network().sever(addr(0));
    w.sim.run_for(ms(10));
    let ids = submit_on_both(&mut w);
    let at = lost + Duration::from_secs(20);
    expect_failed(&mut w, &ids, at, IoError::Removed);
    assert!(w.status().is_empty());

    // Persistent loss
    let mut w = world(607, no_fast_fail);
    w.ana(0, AnaState::INACCESSIBLE);
    w.sim.run_for(ms(10));
    let ids = submit_on_both(&mut w);
    expect_waiting(&mut w, &ids);
    w.ana(0, AnaState::PERSISTENT_LOSS);
    let loss = IoError::NoPath(NoPath::PersistentLoss);
    expect_result(&mut w, &ids, ms(5), Err(loss));
}

/// B7.3: with a detach, a disable, or the removal of the namespace, what waits fails with what has happened.
#[test]
fn waiting_io_fails_with_the_request_that_takes_the_last_hope() {
    type Change = fn(&mut World);
    let rows: [(IoError, Change); 3] = [
        (IoError::Removed, |w| w.detach(None).unwrap()),
        (IoError::NoPath(NoPath::ControllerLost), |w| {
            w.change(None, ControllerChange::Disable).unwrap();
        }),
        (IoError::Removed, |w| {
            w.target(TargetRequest::remove_namespace(nqn(), 1));
        }),
    ];
    for (why, change) in rows {
        let mut w = world(608, recovery());
        w.ana(0, AnaState::INACCESSIBLE);
        w.sim.run_for(ms(10));
        let ids = submit_on_both(&mut w);
        expect_waiting(&mut w, &ids);
        change(&mut w);
        expect_result(&mut w, &ids, ms(5), Err(why));
    }
}

/// B7.1, B7.3: with several paths, I/O waits until the last of them gives no more hope; the status names what came last
/// for that path.
#[test]
fn io_waits_for_the_last_of_several_hopes() {
    let mut w = World::tapped(609, 3, 2, 0);
    for path in 0..3 {
        w.attach_with(path, with(recovery())).unwrap();
    }
    w.ana(0, AnaState::PERSISTENT_LOSS);
    w.ana(1, AnaState::INACCESSIBLE);
    w.sim.network().refuse(addr(2), true);
    let lost = w.sim.now();
    w.sim.network().sever(addr(2));
    w.sim.run_for(ms(10));
    let ids = submit_on_both(&mut w);
    // Fast-I/O-fail of path 2 after 4 s; ANATT of path 1 after 10 s is the last.
    w.sim.run_for(Duration::from_secs(9));
    expect_waiting(&mut w, &ids);
    w.expect_ended(&ids, Duration::from_secs(2));
    assert!(w.sim.now().saturating_since(lost) >= ms(9900));
    for id in ids {
        let (result, _) = w.ended(id).unwrap();
        assert!(matches!(result, Err(IoError::NoPath(_))), "{result:?}");
    }
}

/// B7.1: room in the queue is waited for as well, and no I/O fails or is lost for want of it.
#[test]
fn io_waits_for_room_in_the_queue() {
    let mut w = World::tapped(610, 1, 1, 0);
    let mut small = options();
    small.queue_size = 2;
    w.attach_with(0, small).unwrap();
    let ids: Vec<_> = (0..100).map(|lba| w.submit(0, Op::Write, lba)).collect();
    w.expect_ended(&ids, Duration::from_secs(1));
    let ended: Vec<_> = w.hand.borrow().ended.iter().map(|e| e.id).collect();
    assert_eq!(ended, ids, "in order");
}

/// Volumes that share a queue pair take turns: one that always has more than it holds leaves room to the others.
#[test]
fn volumes_that_wait_for_room_take_turns() {
    let mut w = World::new(340, 1, 1, 0);
    w.add_namespace(2, 64);
    w.attach(0);
    let volumes: Vec<_> = w.status().iter().map(|status| status.volume).collect();
    assert_eq!(volumes.len(), 2);
    for (greedy, polite) in [(0, 1), (1, 0)] {
        let submit = |w: &mut World, volume: usize, lba: u64| {
            w.submit_to(0, Some(volumes[volume]), Op::Read, lba, vec![0; BLOCK])
        };
        let many: Vec<u64> = (0..1000).map(|n| submit(&mut w, greedy, n % 8)).collect();
        let one = submit(&mut w, polite, 0);
        w.expect_ended(&[one], Duration::from_secs(1));
        let before = many.iter().filter(|&&id| w.ended(id).is_some()).count();
        // A queue pair holds 127, and so many may have come back since.
        assert!(before <= 300, "{before} of the other came first");
        w.expect_ended(&many, Duration::from_secs(1));
    }
}
