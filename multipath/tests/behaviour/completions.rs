//! What becomes of each completion (rule B6), row by row and end to end.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::common::{BLOCK, World, addr, options};
use pollux_multipath::{
    AttachOptions, ControllerChange, HostRequest, IoError, Op, Policy, Selector,
};
use pollux_nvme_tcp::host::Digests;
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::target::TargetRequest;
use pollux_nvme_tcp::testing::{Seen, Verdict};

fn world(seed: u64, paths: u16) -> World {
    let mut w = World::tapped(seed, paths, 1, 0);
    w.target(TargetRequest::set_retry_delays([3, 10, 50]));
    for path in 0..paths {
        w.attach(path);
    }
    w
}

/// Answers the first `count` I/Os on path 0 with this status.
fn answer(w: &World, count: u32, status: Status) {
    let left = Cell::new(count);
    w.on_command(move |seen| {
        if seen.path != 0 || !seen.is_io() || left.get() == 0 {
            return Verdict::Pass;
        }
        left.set(left.get() - 1);
        Verdict::Answer(status)
    });
}

/// I/Os seen on a path.
fn seen(w: &World, path: u16) -> usize {
    w.tap.borrow().count(|s| s.path == path && s.is_io())
}

/// B6: success, DNR and an abort by request end the I/O; DNR also where the status is path related.
#[test]
fn what_is_final_is_not_tried_again() {
    for status in [
        Status::INVALID_FIELD.with_dnr(),
        Status::INTERNAL_ERROR.with_dnr().with_crd(1),
        Status::new(3, 0x00).with_dnr(),
        Status::new(3, 0x02).with_dnr(),
        Status::ABORTED_SQ_DELETION.with_dnr(),
        Status::ABORTED_BY_REQUEST,
    ] {
        let mut w = world(500, 2);
        answer(&w, 1, status);
        assert_eq!(w.io(0, Op::Write, 1), Err(IoError::Status(status)));
        assert_eq!((seen(&w, 0), seen(&w, 1)), (1, 0), "{status}");
        assert_eq!(w.io(0, Op::Write, 1), Ok(()));
    }
}

/// B6: any other error is tried again on the same path, as often as the limit says, and then ends with its status;
/// without a limit, until it succeeds.
#[test]
fn other_errors_are_counted_against_the_retry_limit() {
    let status = Status::INTERNAL_ERROR;
    for (limit, errors, tries, result) in [
        (None, 3, 4, Ok(())),
        (None, 4, 4, Err(IoError::Status(status))),
        (Some(Some(0)), 1, 1, Err(IoError::Status(status))),
        (Some(Some(1)), 1, 2, Ok(())),
        (Some(Some(1)), 2, 2, Err(IoError::Status(status))),
        (Some(None), 200, 201, Ok(())),
    ] {
        let mut w = world(501, 2);
        if let Some(limit) = limit {
            w.request(HostRequest::SetRetryLimit(limit));
        }
        answer(&w, errors, status);
        assert_eq!(w.io(0, Op::Read, 1), result, "{limit:?}, {errors}");
        assert_eq!((seen(&w, 0), seen(&w, 1)), (tries, 0));
    }
}

/// B6: each I/O has its own count: errors of one take nothing from another.
#[test]
fn each_io_is_counted_on_its_own() {
    let mut w = world(502, 1);
    for lba in 0..5 {
        answer(&w, 3, Status::INTERNAL_ERROR);
        assert_eq!(w.io(0, Op::Read, lba), Ok(()));
    }
}

/// B6: the retry comes after the time that the status's CRD names, CRDT x 100 ms, and at once without one.
#[test]
fn a_retry_waits_for_the_time_of_its_crd() {
    for (crd, delay) in [(0, 0), (1, 300), (2, 1000), (3, 5000)] {
        let mut w = world(503, 2);
        answer(&w, 1, Status::INTERNAL_ERROR.with_crd(crd));
        assert_eq!(w.io(0, Op::Read, 1), Ok(()));
        let tap = w.tap.borrow();
        let times: Vec<_> = tap
            .seen
            .iter()
            .filter(|s| s.is_io())
            .map(|s| s.at)
            .collect();
        assert_eq!(times.len(), 2);
        let took = times[1].saturating_since(times[0]);
        let delay = Duration::from_millis(delay);
        assert!(
            took >= delay && took < delay + Duration::from_millis(1),
            "CRD {crd}: {took:?}"
        );
    }
}

/// B6: an I/O that waits for its retry holds no other one up.
#[test]
fn others_go_on_while_a_retry_waits() {
    let mut w = world(504, 1);
    answer(&w, 1, Status::INTERNAL_ERROR.with_crd(3));
    let late = w.submit(0, Op::Read, 0);
    for lba in 1..10 {
        assert_eq!(w.io(0, Op::Read, lba), Ok(()));
    }
    assert_eq!(w.ended(late), None);
    w.expect_ended(&[late], Duration::from_secs(6));
    assert_eq!(w.ended(late).unwrap().0, Ok(()));
}

/// B6: what is path related, or aborted with its queue, goes by another path and is not counted as a retry.
#[test]
fn path_errors_go_elsewhere_and_are_not_counted() {
    for status in [
        Status::new(3, 0x01),
        Status::new(3, 0x02),
        Status::new(3, 0x03),
    ] {
        let mut w = world(505, 2);
        w.request(HostRequest::SetRetryLimit(Some(0)));
        answer(&w, 1, status);
        let id = w.submit(0, Op::Write, 1);
        w.expect_ended(&[id], Duration::from_millis(5));
        assert_eq!(w.ended(id).unwrap().0, Ok(()), "{status}");
        assert_eq!(w.carried_by(id), Some(1));
        assert_eq!((seen(&w, 0), seen(&w, 1)), (1, 1), "{status}");
    }
}

/// B6: so it is for those that say nothing of ANA.
#[test]
fn path_errors_without_ana_go_elsewhere() {
    for policy in [
        Policy::ActivePassive,
        Policy::ActiveActive(Selector::RoundRobin { min_io: 1 }),
    ] {
        for status in [
            Status::new(3, 0x00),
            Status::new(3, 0x60),
            Status::new(3, 0x70),
            Status::ABORTED_SQ_DELETION,
        ] {
            let mut w = world(506, 2);
            w.set_policy(policy);
            w.request(HostRequest::SetRetryLimit(Some(0)));
            answer(&w, u32::MAX, status);
            for lba in 0..4 {
                let id = w.submit(0, Op::Write, lba);
                w.expect_ended(&[id], Duration::from_millis(5));
                assert_eq!(w.ended(id).unwrap().0, Ok(()), "{policy}, {status}");
                assert_eq!(w.carried_by(id), Some(1));
            }
        }
    }
}

/// B6: with no other path, one that answers with path errors is tried again, uncounted, until it does better, and not
/// in a busy loop.
#[test]
fn path_errors_of_the_only_path_are_not_counted() {
    let mut w = world(507, 1);
    w.request(HostRequest::SetRetryLimit(Some(0)));
    answer(&w, 100, Status::new(3, 0x00));
    let start = w.sim.now();
    assert_eq!(w.io(0, Op::Read, 1), Ok(()));
    assert_eq!(seen(&w, 0), 101);
    assert!(w.sim.now().saturating_since(start) >= Duration::from_millis(500));
}

/// B6: with a lost connection, what was on it goes elsewhere at once and is not counted.
#[test]
fn a_lost_connection_is_not_counted() {
    let mut w = world(508, 2);
    w.request(HostRequest::SetRetryLimit(Some(0)));
    w.on_command(|seen| match seen.path == 0 && seen.is_io() {
        true => Verdict::Lose,
        false => Verdict::Pass,
    });
    let ids: Vec<_> = (0..8).map(|lba| w.submit(0, Op::Write, lba)).collect();
    w.sim.run_for(Duration::from_millis(5));
    assert_eq!(seen(&w, 0), 8);
    w.sim.network().sever(addr(0));
    w.expect_ended(&ids, Duration::from_millis(5));
    for id in ids {
        assert_eq!(w.ended(id).unwrap().0, Ok(()));
        assert_eq!(w.carried_by(id), Some(1));
    }
}

/// B6: what was on a controller that is reset on request goes elsewhere, and each ends once.
#[test]
fn a_reset_fails_what_is_outstanding_over() {
    let mut w = world(509, 2);
    w.on_command(|seen| match seen.path == 0 && seen.is_io() {
        true => Verdict::Lose,
        false => Verdict::Pass,
    });
    let ids: Vec<_> = (0..8).map(|lba| w.submit(0, Op::Write, lba)).collect();
    w.sim.run_for(Duration::from_millis(5));
    let cntlid = w.controller(0).cntlid;
    w.change(Some(cntlid), ControllerChange::Reset).unwrap();
    w.expect_ended(&ids, Duration::from_millis(5));
    w.sim.run_for(Duration::from_secs(1));
    assert_eq!(w.hand.borrow().ended.len(), 8, "each once");
    assert!(w.hand.borrow().ended.iter().all(|e| e.result.is_ok()));
}

fn with_digests() -> AttachOptions {
    let mut options = options();
    options.digests = Digests {
        header: true,
        data: true,
    };
    options
}

/// B6: data that does not match its digest is not handed out: the I/O is tried again and ends with the right data; the
/// connection goes on, as the specification has it for data digests.
#[test]
fn a_wrong_data_digest_is_a_path_error() {
    let mut w = World::tapped(510, 2, 1, 0);
    w.attach_with(0, with_digests()).unwrap();
    w.attach_with(1, with_digests()).unwrap();
    let pattern: Vec<u8> = (0..BLOCK).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let write = w.submit_to(0, None, Op::Write, 9, pattern.clone());
    w.expect_ended(&[write], Duration::from_secs(1));
    let left = Cell::new(2);
    w.on_data(move |seen, data| {
        if seen.is_read() && left.get() > 0 {
            left.set(left.get() - 1);
            data[100] ^= 4;
        }
    });
    let connects = w.tap.borrow().count(Seen::is_connect);
    let read = w.submit(0, Op::Read, 9);
    w.expect_ended(&[read], Duration::from_secs(1));
    let hand = w.hand.borrow();
    let ended = hand.ended.iter().find(|e| e.id == read).unwrap();
    assert_eq!(ended.result, Ok(()));
    assert!(ended.buffer == pattern);
    assert_eq!(w.tap.borrow().count(Seen::is_connect), connects);
}

/// B6: a path on which every digest is wrong fails no I/O while there is another one.
#[test]
fn a_path_that_spoils_all_data_fails_no_io() {
    let mut w = World::tapped(511, 2, 1, 0);
    w.attach_with(0, with_digests()).unwrap();
    w.attach_with(1, with_digests()).unwrap();
    w.on_data(|seen, data| {
        if seen.path == 0 && seen.is_read() {
            data[100] ^= 4;
        }
    });
    let id = w.submit(0, Op::Read, 9);
    w.expect_ended(&[id], Duration::from_secs(1));
    assert_eq!(w.ended(id).unwrap().0, Ok(()));
    assert_eq!(w.carried_by(id), Some(1));
}

/// B6, B8.1: a wrong header digest ends the connection; its I/O goes elsewhere and the controller is connected again.
#[test]
fn a_wrong_header_digest_ends_the_connection() {
    let mut w = World::tapped(512, 2, 1, 0);
    w.attach_with(0, with_digests()).unwrap();
    w.attach_with(1, with_digests()).unwrap();
    let connects = w.tap.borrow().count(|s| s.path == 0 && s.is_connect());
    w.tap.borrow_mut().spoil_header = true;
    let id = w.submit(0, Op::Read, 9);
    w.expect_ended(&[id], Duration::from_millis(5));
    assert_eq!(w.ended(id).unwrap().0, Ok(()));
    assert_eq!(w.carried_by(id), Some(1));
    w.sim.run_for(Duration::from_millis(100));
    w.expect_paths(&[(0, true, true, true), (1, false, true, true)]);
    let after = w.tap.borrow().count(|s| s.path == 0 && s.is_connect());
    assert_eq!(after, connects + 2, "admin and I/O queue");
}

/// The blocks of the I/Os that were seen, in order.
fn blocks(w: &World) -> Vec<u64> {
    let tap = w.tap.borrow();
    let io = tap.seen.iter().filter(|s| s.is_io());
    io.map(Seen::lba).collect()
}

/// B6, B7.2: I/Os that wait for a path go in the order in which they were submitted.
#[test]
fn waiting_io_keeps_its_order() {
    let mut w = world(513, 1);
    w.unlisten(0);
    w.sim.run_for(Duration::from_millis(5));
    let ids: Vec<_> = (0..300).map(|lba| w.submit(0, Op::Write, lba)).collect();
    w.sim.run_for(Duration::from_millis(5));
    w.listen(0);
    w.expect_ended(&ids, Duration::from_secs(1));
    assert_eq!(blocks(&w), (0..300).collect::<Vec<_>>());
}

/// B6: what comes back from a lost connection keeps the order in which it was submitted.
#[test]
fn io_that_comes_back_keeps_its_order() {
    let mut w = world(515, 1);
    // Slots that were free again in this order are used in the other one.
    let ids: Vec<_> = (0..8).map(|lba| w.submit(0, Op::Write, lba)).collect();
    w.expect_ended(&ids, Duration::from_secs(1));
    let lose = Rc::new(Cell::new(true));
    let is_lost = lose.clone();
    w.on_command(move |seen| match seen.is_io() && is_lost.get() {
        true => Verdict::Lose,
        false => Verdict::Pass,
    });
    let ids: Vec<_> = (100..108).map(|lba| w.submit(0, Op::Write, lba)).collect();
    w.sim.run_for(Duration::from_millis(5));
    w.tap.borrow_mut().seen.clear();
    lose.set(false);
    w.sim.network().sever(addr(0));
    w.expect_ended(&ids, Duration::from_secs(1));
    assert_eq!(blocks(&w), (100..108).collect::<Vec<_>>());
}

/// B6: what comes back from a lost connection waits in front of what was submitted later.
#[test]
fn io_that_comes_back_goes_before_what_was_submitted_later() {
    let mut w = World::tapped(514, 1, 1, 0);
    let mut small = options();
    small.queue_size = 9;
    w.attach_with(0, small).unwrap();
    let lose = Rc::new(Cell::new(false));
    let is_lost = lose.clone();
    w.on_command(move |seen| match seen.is_io() && is_lost.get() {
        true => Verdict::Lose,
        false => Verdict::Pass,
    });
    lose.set(true);
    // Eight fit the queue, the others wait.
    let ids: Vec<_> = (100..120).map(|lba| w.submit(0, Op::Write, lba)).collect();
    w.sim.run_for(Duration::from_millis(5));
    w.tap.borrow_mut().seen.clear();
    lose.set(false);
    w.sim.network().sever(addr(0));
    w.expect_ended(&ids, Duration::from_secs(1));
    assert_eq!(blocks(&w), (100..120).collect::<Vec<_>>());
}

/// B6: whatever happens to its paths, each I/O ends exactly once, with its own number, under errors of every kind on
/// both paths at the same time.
#[test]
fn each_io_ends_exactly_once() {
    for seed in 520..530 {
        let mut w = world(seed, 2);
        w.request(HostRequest::SetRetryLimit(None));
        let mut turn = 0u32;
        w.on_command(move |seen| {
            if !seen.is_io() {
                return Verdict::Pass;
            }
            turn += 1;
            match turn % 11 {
                1 => Verdict::Answer(Status::INTERNAL_ERROR),
                3 => Verdict::Answer(Status::new(3, 0x02)),
                5 => Verdict::Answer(Status::INTERNAL_ERROR.with_crd(1)),
                7 => Verdict::Answer(Status::ABORTED_SQ_DELETION),
                _ => Verdict::Pass,
            }
        });
        let mut ids = Vec::new();
        for round in 0..20u64 {
            ids.extend((0..10).map(|i| w.submit(0, Op::Write, round * 10 + i)));
            w.sim.run_for(Duration::from_millis(3));
            if round % 5 == 4 {
                w.sim.network().sever(addr(u16::from(round % 2 == 0)));
            }
        }
        w.expect_ended(&ids, Duration::from_secs(30));
        w.sim.run_for(Duration::from_secs(5));
        let mut ended: Vec<_> = w.hand.borrow().ended.iter().map(|e| e.id).collect();
        ended.sort_unstable();
        assert_eq!(ended, ids);
        assert!(w.hand.borrow().ended.iter().all(|e| e.result.is_ok()));
    }
}

/// What has ended once the host has stopped, of one I/O that was on its way.
fn ended_at_stop(status: Option<Status>) -> Vec<Result<(), IoError>> {
    let mut w = world(516, 1);
    w.on_command(move |seen| match (seen.is_io(), status) {
        (true, Some(status)) => Verdict::Answer(status),
        (true, None) => Verdict::Lose,
        _ => Verdict::Pass,
    });
    w.submit(0, Op::Write, 0);
    w.sim.run_for(Duration::from_millis(5));
    w.sim.stop();
    let hand = w.hand.borrow();
    hand.ended.iter().map(|e| e.result).collect()
}

/// B6: what is on its way when the host stops ends as well.
#[test]
fn a_host_that_stops_ends_what_is_on_its_way() {
    assert_eq!(ended_at_stop(None), [Err(IoError::Removed)]);
}

/// B6: so does what waits for its retry.
#[test]
fn a_host_that_stops_ends_what_waits_for_its_retry() {
    let later = Status::INTERNAL_ERROR.with_crd(3);
    assert_eq!(ended_at_stop(Some(later)), [Err(IoError::Removed)]);
}
