//! Reading the ANA log (rule B3): when, how often, and what it changes.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::common::{World, addr, nqn};
use pollux_multipath::Op;
use pollux_nvme_tcp::spec::identify::cns;
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::target::TargetRequest;
use pollux_nvme_tcp::testing::{Seen, Verdict};

const T: bool = true;
const F: bool = false;

/// Results of asynchronous events (type 2, notice): ANA change, and namespace attribute changed.
const ANA_CHANGE: u32 = 0x0c_03_02;
const NAMESPACE_CHANGED: u32 = 0x04_00_02;

const ANA_STATUSES: [Status; 3] = [
    Status::new(3, 0x01),
    Status::new(3, 0x02),
    Status::new(3, 0x03),
];

fn reads(w: &World, path: u16) -> usize {
    w.tap.borrow().count(|s| s.path == path && s.is_ana_log())
}

/// Answers the next I/O on a path with this status.
fn answer_next(w: &World, path: u16, status: Status) {
    let left = Cell::new(true);
    w.on_command(move |seen| {
        match seen.path == path && seen.is_io() && left.replace(left.get() && !seen.is_io()) {
            true => Verdict::Answer(status),
            false => Verdict::Pass,
        }
    });
}

/// A settled world of two paths by way of the tap, with no I/O of its own.
fn settled(seed: u64, io: usize) -> World {
    let mut w = World::tapped(seed, 2, io, 0);
    w.attach(0);
    w.attach(1);
    w.sim.run_for(Duration::from_millis(100));
    w
}

/// B3.1: a notice, a new connection and each of the three ANA statuses make control read the log once, and only
/// that of the controller concerned.
#[test]
fn the_log_is_read_for_each_reason_once() {
    let mut w = settled(200, 2);
    assert_eq!((reads(&w, 0), reads(&w, 1)), (1, 1), "new connections");
    w.ana(0, AnaState::NON_OPTIMIZED);
    w.expect_paths(&[(0, F, T, T), (1, T, T, T)]);
    w.ana(0, AnaState::OPTIMIZED);
    w.expect_paths(&[(0, T, T, T), (1, F, T, T)]);
    assert_eq!((reads(&w, 0), reads(&w, 1)), (3, 1), "two notices");
    for (count, status) in (4..).zip(ANA_STATUSES) {
        answer_next(&w, 0, status);
        assert_eq!(w.io(1, Op::Read, 0), Ok(()));
        w.sim.run_for(Duration::from_millis(100));
        assert_eq!((reads(&w, 0), reads(&w, 1)), (count, 1), "{status}");
    }
    w.sim.network().sever(addr(0));
    w.sim.run_for(Duration::from_millis(100));
    w.expect_paths(&[(0, T, T, T), (1, F, T, T)]);
    assert_eq!((reads(&w, 0), reads(&w, 1)), (7, 1), "a reconnect");
}

/// B3.1: another path related status says nothing of ANA: no log is read.
#[test]
fn a_path_error_without_ana_reads_no_log() {
    let mut w = settled(201, 1);
    answer_next(&w, 0, Status::new(3, 0x00));
    assert_eq!(w.io(0, Op::Read, 0), Ok(()));
    w.sim.run_for(Duration::from_millis(100));
    assert_eq!(reads(&w, 0), 1);
}

/// B3.1: whatever asks while a read is under way leads to exactly one more.
#[test]
fn requests_during_a_read_cause_exactly_one_more() {
    let mut w = settled(202, 2);
    let status = Rc::new(Cell::new(ANA_STATUSES[0]));
    let answer = status.clone();
    w.on_command(move |seen| match seen {
        s if s.is_ana_log() && s.path == 0 => Verdict::Hold,
        s if s.is_event_request() => Verdict::Lose,
        s if s.is_io() && s.path == 0 => Verdict::Answer(answer.get()),
        _ => Verdict::Pass,
    });
    w.tap.borrow_mut().hold = true;
    w.ana(0, AnaState::NON_OPTIMIZED);
    w.run_until("the read for the notice", |t| {
        t.count(|s| s.path == 0 && s.is_ana_log()) == 2
    });
    // One more notice, and ANA statuses on each reactor.
    w.tap.borrow_mut().events.push_back((0, ANA_CHANGE));
    w.wake_tap();
    w.sim.run_for(Duration::from_millis(10));
    for reactor in 0..2 {
        for status_now in ANA_STATUSES {
            status.set(status_now);
            assert_eq!(w.io(reactor, Op::Read, 0), Ok(()));
        }
    }
    w.sim.run_for(Duration::from_millis(100));
    assert_eq!(reads(&w, 0), 2, "one read at a time");
    w.release();
    w.sim.run_for(Duration::from_secs(1));
    assert_eq!(reads(&w, 0), 3);
    w.expect_paths(&[(0, F, T, T), (1, T, T, T)]);
}

/// B3.2: as many event requests are outstanding as AERL allows, four at most.
#[test]
fn several_event_requests_are_outstanding() {
    for (aerl, requests) in [(0, 1), (1, 2), (3, 4), (200, 4)] {
        let mut w = World::tapped(203, 1, 1, 0);
        w.on_data(move |seen, data| {
            if seen.is_identify(cns::CONTROLLER) {
                data[259] = aerl;
            }
        });
        w.attach(0);
        w.sim.run_for(Duration::from_millis(100));
        assert_eq!(w.tap.borrow().count(Seen::is_event_request), requests);
    }
}

/// B3.2: a burst of events is taken whole, each request is armed again in the turn of its event, not after the logs
/// were read.
#[test]
fn a_burst_of_events_is_taken_and_requests_are_armed_again_at_once() {
    let mut w = World::tapped(204, 1, 1, 0);
    w.on_command(|seen| match seen.is_event_request() {
        true => Verdict::Lose,
        false => Verdict::Pass,
    });
    w.attach(0);
    w.sim.run_for(Duration::from_millis(100));
    w.on_command(|seen| match seen {
        s if s.is_event_request() => Verdict::Lose,
        // What the events lead to is not answered.
        s if s.qid == 0 => Verdict::Hold,
        _ => Verdict::Pass,
    });
    let mut tap = w.tap.borrow_mut();
    tap.hold = true;
    tap.seen.clear();
    tap.events.extend([
        (0, ANA_CHANGE),
        (0, NAMESPACE_CHANGED),
        (0, ANA_CHANGE),
        (0, NAMESPACE_CHANGED),
    ]);
    drop(tap);
    w.wake_tap();
    w.sim.run_for(Duration::from_millis(100));
    let seen = w.tap.borrow().seen.clone();
    let requests: Vec<_> = seen
        .iter()
        .filter(|s| s.is_event_request())
        .map(|s| s.at)
        .collect();
    assert_eq!(requests.len(), 4);
    let other = seen.iter().find(|s| !s.is_event_request()).unwrap();
    assert_eq!(requests, [other.at; 4], "in the turn of the first read");
    w.on_command(|_| Verdict::Pass);
    w.release();
    w.sim.run_for(Duration::from_millis(100));
    let tap = w.tap.borrow();
    assert_eq!(
        tap.count(|s| s.is_identify(cns::ACTIVE_NAMESPACE_LIST)),
        1,
        "the namespaces are read once for both"
    );
    assert_eq!(tap.count(Seen::is_ana_log), 1, "as is the ANA log");
}

/// Where one group descriptor of an ANA log begins, and its state within.
const GROUP: usize = 16;
const STATE: usize = GROUP + 16;

/// B3.3: a log with one thing wrong changes no path and is read again once; a good one is applied after it.
#[test]
fn a_bad_log_changes_nothing_and_is_read_again_once() {
    type Spoil = fn(&mut [u8]);
    let spoils: [(&str, Spoil); 6] = [
        ("more groups than bytes", |d| d[8..10].fill(0xff)),
        ("more namespaces than bytes", |d| {
            d[GROUP + 4..GROUP + 8].fill(0xff)
        }),
        ("group 0", |d| d[GROUP..GROUP + 4].fill(0)),
        ("namespace 0", |d| d[GROUP + 32..GROUP + 36].fill(0)),
        ("a state that is none", |d| d[STATE] = 7),
        ("state 0", |d| d[STATE] = 0),
    ];
    for (what, spoil) in spoils {
        let mut w = World::tapped(205, 2, 2, 4);
        w.attach(0);
        w.attach(1);
        w.expect_progress(20);
        let before = w.path(1, 0);
        let bad = Rc::new(Cell::new(true));
        let is_bad = bad.clone();
        w.on_data(move |seen, data| {
            if is_bad.get() && seen.path == 0 && seen.is_ana_log() {
                spoil(data);
            }
        });
        *w.on.borrow_mut() = false;
        w.sim.run_for(Duration::from_millis(100));
        let count = reads(&w, 0);
        w.ana(0, AnaState::NON_OPTIMIZED);
        w.sim.run_for(Duration::from_secs(1));
        assert_eq!(reads(&w, 0), count + 2, "{what}");
        let after = w.path(1, 0);
        assert_eq!(
            (
                after.ana_state,
                after.ana_group,
                after.accessible,
                after.current
            ),
            (before.ana_state, before.ana_group, true, true),
            "{what}"
        );
        bad.set(false);
        w.ana(0, AnaState::INACCESSIBLE);
        w.expect_paths(&[(0, F, T, F), (1, T, T, T)]);
        *w.on.borrow_mut() = true;
        w.expect_progress(20);
        w.finish();
    }
}

/// B3.3: with a log that stays bad, what the I/Os themselves say still keeps them off the path: none fails.
#[test]
fn io_gets_by_without_a_good_log() {
    let mut w = World::tapped(206, 2, 2, 4);
    w.attach(0);
    w.attach(1);
    w.expect_progress(20);
    w.on_data(|seen, data| {
        if seen.path == 0 && seen.is_ana_log() {
            data[STATE] = 0xe;
        }
    });
    w.ana(0, AnaState::INACCESSIBLE);
    w.expect_progress(500);
    w.finish();
}

/// B3.3: a controller whose first log is bad twice cannot be attached; once is forgiven.
#[test]
fn the_first_log_may_be_bad_once() {
    for (bad, usable) in [(1, true), (2, false)] {
        let mut w = World::tapped(207, 1, 1, 0);
        let left = Cell::new(bad);
        w.on_data(move |seen, data| {
            if seen.is_ana_log() && left.get() > 0 {
                left.set(left.get() - 1);
                data[STATE] = 0xe;
            }
        });
        let attached = w.attach_with(0, crate::common::options());
        assert_eq!(attached.is_ok(), usable, "{attached:?}");
        if let Err(error) = attached {
            assert!(error.to_string().contains("ANA log"), "{error}");
        }
    }
}

/// B3.4, B2.2: for each ANA status, the reactor that sees it uses the path no more from that turn on, while the log
/// is not read; the I/O itself goes elsewhere and ends well.
#[test]
fn an_ana_status_takes_the_path_out_in_the_same_turn() {
    for status in ANA_STATUSES {
        let mut w = settled(208, 2);
        w.on_command(move |seen| match seen {
            s if s.path != 0 => Verdict::Pass,
            s if s.is_ana_log() => Verdict::Hold,
            s if s.is_io() => Verdict::Answer(status),
            _ => Verdict::Pass,
        });
        w.tap.borrow_mut().hold = true;
        let ids: Vec<_> = (0..8).map(|lba| w.submit(0, Op::Read, lba)).collect();
        w.expect_ended(&ids, Duration::from_secs(1));
        let first = w.tap.borrow().count(|s| s.path == 0 && s.is_io());
        assert_eq!(first, 8, "all were on the way when the first came back");
        let more: Vec<_> = (0..8).map(|lba| w.submit(0, Op::Write, lba)).collect();
        w.expect_ended(&more, Duration::from_secs(1));
        for id in ids.into_iter().chain(more) {
            assert_eq!(w.ended(id).unwrap().0, Ok(()));
            assert_eq!(w.carried_by(id), Some(1));
        }
        let path = w.path(0, 0);
        assert!(
            path.log_pending && !path.accessible && path.connected,
            "{path:?}"
        );
        assert_eq!(path.ana_state, AnaState::OPTIMIZED, "as last read");
        assert_eq!(w.tap.borrow().count(|s| s.path == 0 && s.is_io()), 8);
        // The log still says optimized.
        w.on_command(|_| Verdict::Pass);
        w.release();
        w.expect_paths(&[(0, T, T, T), (1, F, T, T)]);
        assert!(!w.path(0, 0).log_pending);
    }
}

/// B2.2, B3.4: an ANA status counts until a log that was asked for after it: what an older answer says is no reason
/// to go back.
#[test]
fn a_log_that_was_read_before_the_ana_status_does_not_bring_the_path_back() {
    let mut w = settled(209, 1);
    w.on_command(|seen| match seen {
        s if s.path == 0 && s.is_ana_log() => Verdict::Hold,
        s if s.path == 0 && s.is_io() => Verdict::Answer(ANA_STATUSES[1]),
        _ => Verdict::Pass,
    });
    w.tap.borrow_mut().hold = true;
    w.ana(0, AnaState::NON_OPTIMIZED);
    w.run_until("the read for the notice", |t| {
        t.count(|s| s.path == 0 && s.is_ana_log()) == 2
    });
    assert_eq!(w.io(0, Op::Read, 0), Ok(()));
    // The first read is answered, the one for the ANA status is not sent on.
    let released = Cell::new(false);
    w.on_command(move |seen| match seen {
        s if s.path == 0 && s.is_ana_log() && !released.replace(true) => Verdict::Lose,
        _ => Verdict::Pass,
    });
    w.release();
    w.run_until("the read for the ANA status", |t| {
        t.count(|s| s.path == 0 && s.is_ana_log()) == 3
    });
    w.sim.run_for(Duration::from_millis(10));
    let path = w.path(0, 0);
    assert!(path.log_pending && !path.accessible, "{path:?}");
}

/// B2.2, B3.4: reading the namespaces again is not reading the ANA log.
#[test]
fn a_scan_of_namespaces_does_not_bring_the_path_back() {
    let mut w = settled(210, 1);
    w.on_command(|seen| match seen {
        s if s.path == 0 && s.is_identify(cns::ACTIVE_NAMESPACE_LIST) => Verdict::Hold,
        s if s.path == 0 && s.is_ana_log() => Verdict::Lose,
        s if s.path == 0 && s.is_io() => Verdict::Answer(ANA_STATUSES[1]),
        _ => Verdict::Pass,
    });
    w.tap.borrow_mut().hold = true;
    w.resize_namespace(1, 4096);
    w.run_until("the scan", |t| {
        t.count(|s| s.path == 0 && s.is_identify(cns::ACTIVE_NAMESPACE_LIST)) == 2
    });
    assert_eq!(w.io(0, Op::Read, 0), Ok(()));
    w.release();
    w.run_until("the read for the ANA status", |t| {
        t.count(|s| s.path == 0 && s.is_ana_log()) == 2
    });
    w.sim.run_for(Duration::from_millis(10));
    let path = w.path(0, 0);
    assert!(path.log_pending && !path.accessible, "{path:?}");
}

fn move_to(w: &mut World, group: u32) {
    w.target(TargetRequest::set_namespace_ana_group(nqn(), 1, group));
}

/// B3.6: a namespace that moves to another group has that group's state, on every path and reactor.
#[test]
fn a_namespace_takes_on_the_state_of_the_group_it_moves_to() {
    let mut w = World::tapped(211, 2, 2, 4);
    w.attach(0);
    w.attach(1);
    w.ana_of(0, Some(2), AnaState::INACCESSIBLE);
    w.ana_of(1, Some(2), AnaState::NON_OPTIMIZED);
    w.expect_progress(50);
    w.expect_paths(&[(0, T, T, T), (1, F, T, T)]);
    move_to(&mut w, 2);
    w.expect_paths(&[(0, F, T, F), (1, T, T, T)]);
    w.sim.run_for(Duration::from_millis(10));
    for reactor in 0..2 {
        assert_eq!(
            (w.path(reactor, 0).ana_group, w.path(reactor, 1).ana_group),
            (2, 2)
        );
        assert_eq!(w.path(reactor, 1).ana_state, AnaState::NON_OPTIMIZED);
    }
    w.expect_progress(50);
    move_to(&mut w, 1);
    w.expect_paths(&[(0, T, T, T), (1, F, T, T)]);
    w.expect_progress(50);
    w.finish();
}

/// B3.6: a namespace that no group of the log names is not accessible, and is again once it is named.
#[test]
fn a_namespace_that_the_log_leaves_out_is_not_accessible() {
    let mut w = World::tapped(212, 2, 2, 4);
    w.attach(0);
    w.attach(1);
    let absent = Rc::new(Cell::new(true));
    let is_absent = absent.clone();
    w.on_data(move |seen, data| {
        if is_absent.get() && seen.path == 0 && seen.is_ana_log() {
            // Another namespace instead of number 1.
            data[GROUP + 32..GROUP + 36].copy_from_slice(&9u32.to_le_bytes());
        }
    });
    w.ana(0, AnaState::OPTIMIZED);
    w.ana(0, AnaState::NON_OPTIMIZED);
    w.expect_paths(&[(0, F, T, F), (1, T, T, T)]);
    w.expect_progress(20);
    absent.set(false);
    w.ana(0, AnaState::OPTIMIZED);
    w.expect_paths(&[(0, T, T, T), (1, F, T, T)]);
    w.expect_progress(20);
    w.finish();
}

/// B3.1: of a log that ends before what the controller says it may grow to, only what there is is read: what lies behind
/// its end is refused by many.
#[test]
fn a_short_log_is_read_no_further_than_its_end() {
    let mut w = World::tapped(214, 1, 1, 2);
    w.on_data(|seen, data| {
        if seen.is_identify(cns::CONTROLLER) {
            // Two pages at most in one transfer, and far more groups than there are.
            data[77] = 1;
            data[348..352].copy_from_slice(&4000u32.to_le_bytes());
        }
    });
    w.attach(0);
    assert_eq!(reads(&w, 0), 1);
    w.ana(0, AnaState::NON_OPTIMIZED);
    w.run_until("it is read again", |tap| tap.count(Seen::is_ana_log) == 2);
    w.expect_progress(20);
    w.finish();
}

/// B3.6: a log that changed between the reads of its parts, as its change count tells, is read again from the start.
#[test]
fn a_log_that_changes_between_its_parts_is_read_again() {
    const GROUPS: u16 = 300;
    let mut w = World::tapped(213, 2, 2, 4);
    w.on_data(|seen, data| {
        if seen.path == 0 && seen.is_identify(cns::CONTROLLER) {
            // Two pages at most in one transfer, and more groups than fit.
            data[77] = 1;
            data[348..352].copy_from_slice(&400u32.to_le_bytes());
        }
    });
    let reads_of_parts = Cell::new(0u8);
    w.on_command(move |seen| {
        if seen.path != 0 || !seen.is_ana_log() {
            return Verdict::Pass;
        }
        // It changes between the parts of each read. Inaccessible at first; the third change makes it optimized, and
        // then it stays.
        let version = reads_of_parts.get().div_ceil(2).min(3);
        reads_of_parts.set(reads_of_parts.get() + 1);
        let mut log = vec![0; 16 * 1024];
        log[0] = version;
        log[8..10].copy_from_slice(&GROUPS.to_le_bytes());
        (log[GROUP], log[GROUP + 4]) = (1, 1);
        log[STATE] = if version == 3 { 1 } else { 3 };
        log[GROUP + 32] = 1;
        // The others have no namespaces.
        for group in 2..=GROUPS {
            let at = GROUP + 36 + 32 * usize::from(group - 2);
            log[at..at + 2].copy_from_slice(&group.to_le_bytes());
            log[at + 16] = 1;
        }
        let offset = usize::from(seen.sqe[49]) << 8 | usize::from(seen.sqe[48]);
        let dwords = usize::from(seen.sqe[43]) << 8 | usize::from(seen.sqe[42]);
        Verdict::Data(log[offset..offset + 4 * (dwords + 1)].to_vec())
    });
    w.attach(0);
    w.attach(1);
    w.expect_paths(&[(0, T, T, T), (1, F, T, T)]);
    assert!(reads(&w, 0) >= 6, "{}", reads(&w, 0));
    w.expect_progress(20);
    w.finish();
}
