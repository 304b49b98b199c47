//! I/Os with a deadline, aborts that come to nothing, and I/O that has no path (rules B7.1, B9.3).

use std::time::Duration;

use pollux_multipath::{Aborting, IoError, Op};
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::target::TargetRequest;
use pollux_nvme_tcp::testing::{Seen, Verdict};

use crate::common::{World, lines, options};

const LIMIT: Duration = Duration::from_millis(50);
/// How long a controller has to give back what it was asked to abort.
const GIVE_BACK: Duration = Duration::from_secs(1);
/// How much later a deadline is noticed at most, with the way of what was sent.
const LATE: Duration = Duration::from_millis(2);

const OVERDUE: Result<(), IoError> = Err(IoError::Deadline);
const ABORTED: Result<(), IoError> = Err(IoError::Status(Status::ABORTED_BY_REQUEST));

fn world(seed: u64) -> World {
    let mut w = World::tapped(seed, 2, 1, 0);
    for path in 0..2 {
        w.attach_with(path, options()).unwrap();
    }
    w
}

fn lose_io(w: &World) {
    w.on_command(|seen| match seen.path == 0 && seen.is_io() {
        true => Verdict::Lose,
        false => Verdict::Pass,
    });
}

fn connects(w: &World) -> (usize, usize) {
    let tap = w.tap.borrow();
    let of = |path| tap.count(|seen| seen.path == path && seen.is_connect());
    (of(0), of(1))
}

fn limit(w: &World, limit: Duration) {
    w.hand.borrow_mut().limit = Some(limit);
}

/// Runs until an I/O has ended; returns how, and how long that took from now on.
fn end(w: &mut World, id: u64) -> (Result<(), IoError>, Duration) {
    let start = w.sim.now();
    w.expect_ended(&[id], Duration::from_secs(10));
    let (result, at) = w.ended(id).unwrap();
    (result, at.saturating_since(start))
}

fn expect(took: Duration, wanted: Duration) {
    assert!(took >= wanted && took < wanted + LATE, "{took:?}");
}

/// B7.1, B9.3: an I/O that waits for a path ends at its deadline, and not before; one without a deadline goes on
/// waiting.
#[test]
fn what_waits_for_a_path_ends_at_its_deadline() {
    let mut w = world(2300);
    for path in 0..2 {
        w.ana(path, AnaState::INACCESSIBLE);
    }
    w.expect_paths(&[(0, false, true, false), (1, false, true, false)]);
    let forever = w.submit(0, Op::Write, 0);
    w.sim.run_for(Duration::from_millis(1));
    limit(&w, LIMIT);
    let id = w.submit(0, Op::Write, 1);
    let (result, took) = end(&mut w, id);
    assert_eq!(result, OVERDUE);
    expect(took, LIMIT);
    w.ana(1, AnaState::OPTIMIZED);
    assert_eq!(end(&mut w, forever).0, Ok(()));
    assert_eq!(w.tap.borrow().count(Seen::is_write), 1);
}

/// B9.3: an I/O that waits for its retry ends at its deadline and is not tried again.
#[test]
fn what_waits_for_a_retry_ends_at_its_deadline() {
    let mut w = world(2301);
    w.target(TargetRequest::set_retry_delays([50, 0, 0]));
    w.change(None, pollux_multipath::ControllerChange::Reset)
        .unwrap();
    w.on_command(|seen| match seen.is_io() {
        true => Verdict::Answer(Status::INTERNAL_ERROR.with_crd(1)),
        false => Verdict::Pass,
    });
    limit(&w, LIMIT);
    let id = w.submit(0, Op::Read, 0);
    let (result, took) = end(&mut w, id);
    assert_eq!(result, OVERDUE);
    expect(took, LIMIT);
    w.sim.run_for(Duration::from_secs(6));
    assert_eq!(w.tap.borrow().count(Seen::is_io), 1);
}

/// B9.3: an I/O that was sent is aborted at its deadline, and ends when it is given back, its status whatever it may
/// be; nothing is reset.
#[test]
fn what_was_sent_is_aborted_at_its_deadline() {
    for status in [
        Status::ABORTED_BY_REQUEST,
        Status::ABORTED_SQ_DELETION,
        Status::INTERNAL_ERROR,
    ] {
        let mut w = world(2302);
        lose_io(&w);
        limit(&w, LIMIT);
        let start = w.sim.now();
        let id = w.submit(0, Op::Write, 0);
        w.run_until("an Abort is sent", |tap| tap.count(Seen::is_abort) == 1);
        expect(w.sim.now().saturating_since(start), LIMIT);
        let aborts: Vec<_> = {
            let tap = w.tap.borrow();
            tap.seen.iter().filter(|s| s.is_abort()).cloned().collect()
        };
        let (qid, cid) = aborts[0].aborts();
        w.tap.borrow_mut().complete.push((0, qid, cid, status));
        w.wake_tap();
        assert_eq!(end(&mut w, id).0, OVERDUE, "{status}");
        w.sim.run_for(GIVE_BACK * 2);
        assert_eq!(connects(&w), (2, 2));
        assert_eq!(w.tap.borrow().count(Seen::is_io), 1, "not tried again");
    }
}

/// B9.3, B8.1: what a controller does not give back ends with its connection, a second after the abort was asked for;
/// what else was on the way there goes by the other path, which is not touched.
#[test]
fn what_is_not_given_back_ends_with_its_connection() {
    let mut w = world(2303);
    lose_io(&w);
    let other = w.submit(0, Op::Write, 1);
    w.sim.run_for(Duration::from_millis(1));
    limit(&w, LIMIT);
    let id = w.submit(0, Op::Write, 0);
    let (result, took) = end(&mut w, id);
    assert_eq!(result, OVERDUE);
    expect(took, LIMIT + GIVE_BACK);
    assert_eq!(end(&mut w, other).0, Ok(()));
    assert_eq!(w.carried_by(other), Some(1));
    w.sim.run_for(Duration::from_millis(100));
    assert_eq!(connects(&w), (4, 2));
    let error = w.controller(0).last_error.unwrap();
    assert!(error.contains("not given back"), "{error}");

    let mut w = world(2304);
    lose_io(&w);
    let id = w.submit(0, Op::Write, 0);
    w.run_until("it is sent", |tap| tap.count(Seen::is_io) == 1);
    assert_eq!(w.abort(0, id), Aborting::Asked);
    let (result, took) = end(&mut w, id);
    assert_eq!(result, ABORTED);
    assert!(took < GIVE_BACK + LATE, "{took:?}");
}

/// B9.3: what was aborted and comes back with an error that would be tried again is not.
#[test]
fn what_was_aborted_is_not_tried_again() {
    let mut w = world(2305);
    w.on_command(|seen| match seen {
        seen if seen.is_io() => Verdict::Hold,
        seen if seen.is_abort() => Verdict::Answer(Status::INVALID_OPCODE),
        _ => Verdict::Pass,
    });
    w.tap.borrow_mut().hold = true;
    let id = w.submit(0, Op::Read, 0);
    w.run_until("it is sent", |tap| tap.count(Seen::is_io) == 1);
    assert_eq!(w.abort(0, id), Aborting::Asked);
    let (qid, cid) = {
        let tap = w.tap.borrow();
        let io = tap.seen.iter().find(|s| s.is_io()).unwrap();
        (io.qid, io.cid())
    };
    let status = Status::INTERNAL_ERROR;
    w.tap.borrow_mut().complete.push((0, qid, cid, status));
    w.wake_tap();
    assert_eq!(end(&mut w, id).0, ABORTED);
}

/// B9.3: I/O that ends in time never notices its deadline.
#[test]
fn what_ends_in_time_is_not_touched() {
    let mut w = world(2306);
    limit(&w, Duration::from_millis(20));
    let ids: Vec<_> = (0..200)
        .map(|n| {
            w.sim.run_for(Duration::from_micros(300));
            w.submit(0, if n % 2 == 0 { Op::Write } else { Op::Read }, n)
        })
        .collect();
    w.expect_ended(&ids, Duration::from_secs(1));
    for id in ids {
        assert_eq!(w.ended(id).unwrap().0, Ok(()));
    }
    w.sim.run_for(Duration::from_secs(2));
    assert_eq!(w.tap.borrow().count(Seen::is_abort), 0);
    assert_eq!(connects(&w), (2, 2));
}

/// B7.1, B13.1: I/O that waits because no path is left is told once, with what is wrong with each path, and once more
/// when it goes on; status says since when.
#[test]
fn io_that_has_no_path_is_told_once() {
    lines::keep();
    let mut w = world(2307);
    for path in 0..2 {
        w.ana(path, AnaState::CHANGE);
    }
    w.expect_paths(&[(0, false, true, false), (1, false, true, false)]);
    let since = w.sim.now();
    let ids = [w.submit(0, Op::Write, 0), w.submit(0, Op::Write, 1)];
    w.sim.run_for(Duration::from_secs(5));
    let told = lines::with("no path is available");
    assert_eq!(told.len(), 1, "{told:?}");
    for part in [
        "Nvme0n1",
        "2 I/Os",
        "10.0.0.1:4420 change",
        "10.0.0.1:4421 change",
    ] {
        assert!(told[0].contains(part), "{part}: {told:?}");
    }
    let status = w.status().remove(0).reactors.remove(0);
    let no_path = status.no_path_since.unwrap();
    assert!(no_path.saturating_since(since) < LATE);
    w.ana(0, AnaState::OPTIMIZED);
    w.expect_ended(&ids, Duration::from_secs(1));
    w.sim.run_for(Duration::from_secs(5));
    assert_eq!(lines::with("waits for a path no more").len(), 1);
    assert_eq!(w.status().remove(0).reactors.remove(0).no_path_since, None);
    assert_eq!(lines::with("no path is available").len(), 1);
}
