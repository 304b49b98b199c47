//! Commands that take too long, and I/O that is aborted (rules B9.1, B9.3); a controller that is not well (B8.1).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use pollux_multipath::{
    Aborting, AttachOptions, HostRequest, IoError, Op, PathEventKind, ReactorCounters,
};
use pollux_nvme_tcp::host::{CommandTimeout, TimeoutAction};
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::target::TargetRequest;
use pollux_nvme_tcp::testing::{Seen, Verdict};

use crate::common::{World, options};

const T: bool = true;
const F: bool = false;

/// The limit, and how much later it is noticed at most: an eighth of it, and the way.
const LIMIT: Duration = Duration::from_millis(80);
const LATE: Duration = Duration::from_millis(11);

const ABORTED: Result<(), IoError> = Err(IoError::Status(Status::ABORTED_BY_REQUEST));

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn limits(io: Option<TimeoutAction>, admin: Option<TimeoutAction>) -> AttachOptions {
    let limit = |action| CommandTimeout {
        after: LIMIT,
        action,
    };
    let mut options = options();
    options.io_timeout = io.map(limit);
    options.admin_timeout = admin.map(limit);
    options.keep_alive_ms = 0;
    options
}

/// Two paths whose I/O commands have a limit; no I/O but by hand.
fn world(seed: u64, action: TimeoutAction) -> World {
    let mut w = World::tapped(seed, 2, 1, 0);
    for path in 0..2 {
        w.attach_with(path, limits(Some(action), None)).unwrap();
    }
    w
}

/// I/Os on path 0 are lost from now on, until they are passed again.
fn lose_io(w: &World) {
    w.on_command(|seen| match seen.path == 0 && seen.is_io() {
        true => Verdict::Lose,
        false => Verdict::Pass,
    });
}

fn pass_all(w: &World) {
    w.tap.borrow_mut().on_command = None;
}

fn connects(w: &World, path: u16) -> usize {
    let tap = w.tap.borrow();
    tap.count(|seen| seen.path == path && seen.is_connect())
}

fn aborts(w: &World) -> Vec<Seen> {
    let tap = w.tap.borrow();
    tap.seen.iter().filter(|s| s.is_abort()).cloned().collect()
}

fn counters(w: &mut World) -> Vec<ReactorCounters> {
    let (sender, receiver) = std::sync::mpsc::channel();
    w.request(HostRequest::Transport(Box::new(move |answer| {
        sender.send(answer).unwrap();
    })));
    w.wait(receiver).unwrap()
}

/// How often the history tells of overdue commands.
fn timeouts_told(w: &mut World) -> Vec<(Option<usize>, usize)> {
    let events = w.status().remove(0).events.into_iter();
    let told = events.filter_map(|event| match event.kind {
        PathEventKind::CommandTimeout { reactor, commands } => Some((reactor, commands)),
        _ => None,
    });
    told.collect()
}

/// How long an I/O took that is submitted now.
fn time(w: &mut World, op: Op) -> (u64, Duration) {
    let start = w.sim.now();
    let id = w.submit(0, op, 3);
    w.expect_ended(&[id], Duration::from_secs(5));
    let end = w.ended(id).unwrap().1;
    (id, end.saturating_since(start))
}

/// B9.1, B8.1: action reset: a command that is not answered in time ends its connection in that turn and goes by the
/// other path; the controller is connected again, the other one is not touched.
#[test]
fn a_reset_follows_a_command_that_takes_too_long() {
    let mut w = world(1200, TimeoutAction::Reset);
    lose_io(&w);
    let (id, took) = time(&mut w, Op::Write);
    assert_eq!(w.ended(id).unwrap().0, Ok(()));
    assert_eq!(w.carried_by(id), Some(1));
    assert!(took >= LIMIT && took < LIMIT + LATE, "{took:?}");
    pass_all(&w);
    w.sim.run_for(ms(100));
    w.expect_paths(&[(0, T, T, T), (1, F, T, T)]);
    assert_eq!((connects(&w, 0), connects(&w, 1)), (4, 2));
    assert_eq!(timeouts_told(&mut w), [(Some(0), 1)]);
    assert_eq!(counters(&mut w)[0].timeouts, 1);
    let error = w.controller(0).last_error.unwrap();
    assert!(error.contains("command timeout"), "{error}");
    assert!(aborts(&w).is_empty());
}

/// B9.1: action none: it is told and counted, once, and the command goes on.
#[test]
fn nothing_follows_where_nothing_is_wanted() {
    let mut w = world(1201, TimeoutAction::None);
    w.on_command(|seen| match seen.is_io() {
        true => Verdict::Hold,
        false => Verdict::Pass,
    });
    w.tap.borrow_mut().hold = true;
    let id = w.submit(0, Op::Read, 0);
    w.sim.run_for(LIMIT * 5);
    assert!(w.ended(id).is_none());
    w.release();
    w.expect_ended(&[id], ms(10));
    assert_eq!(w.ended(id).unwrap().0, Ok(()));
    assert_eq!(w.carried_by(id), Some(0));
    assert_eq!(timeouts_told(&mut w), [(Some(0), 1)]);
    assert_eq!(counters(&mut w)[0].timeouts, 1);
    assert_eq!(connects(&w, 0), 2);
    assert!(aborts(&w).is_empty());
}

/// B9.1: action abort: the command is aborted by name, ends with what the controller says, and nothing is reset.
#[test]
fn an_abort_follows_a_command_that_takes_too_long() {
    let mut w = world(1202, TimeoutAction::Abort);
    lose_io(&w);
    let start = w.sim.now();
    let id = w.submit(0, Op::Write, 0);
    w.run_until("an Abort is sent", |tap| tap.count(Seen::is_abort) == 1);
    let abort = aborts(&w).remove(0);
    let after = abort.at.saturating_since(start);
    assert!(after >= LIMIT && after < LIMIT + LATE, "{after:?}");
    let lost = {
        let tap = w.tap.borrow();
        let io = tap.seen.iter().find(|s| s.is_io()).unwrap();
        (io.qid, io.cid())
    };
    assert_eq!((abort.path, abort.aborts()), (0, lost));
    let ended = (0, lost.0, lost.1, Status::ABORTED_BY_REQUEST);
    w.tap.borrow_mut().complete.push(ended);
    w.wake_tap();
    w.expect_ended(&[id], ms(10));
    assert_eq!(w.ended(id).unwrap().0, ABORTED);
    w.sim.run_for(LIMIT * 3);
    assert_eq!(aborts(&w).len(), 1);
    assert_eq!((connects(&w, 0), connects(&w, 1)), (2, 2));
}

/// B9.1: an abort that is of no avail for as long again, and one that is refused at once, end in a reset; the I/O goes
/// by the other path.
#[test]
fn a_reset_follows_an_abort_in_vain() {
    // The target knows no such command, and says that it has not aborted it.
    let mut w = world(1203, TimeoutAction::Abort);
    lose_io(&w);
    let (id, took) = time(&mut w, Op::Write);
    assert_eq!(w.carried_by(id), Some(1));
    assert!(took >= LIMIT * 2 && took < LIMIT * 2 + LATE * 2, "{took:?}");
    assert_eq!(aborts(&w).len(), 1);

    let mut w = world(1204, TimeoutAction::Abort);
    w.on_command(|seen| match seen {
        seen if seen.path == 0 && seen.is_io() => Verdict::Lose,
        seen if seen.is_abort() => Verdict::Answer(Status::INVALID_OPCODE),
        _ => Verdict::Pass,
    });
    let (id, took) = time(&mut w, Op::Write);
    assert_eq!(w.carried_by(id), Some(1));
    assert!(took >= LIMIT && took < LIMIT + LATE, "{took:?}");
    let error = w.controller(0).last_error.unwrap();
    assert!(error.contains("Abort"), "{error}");
}

/// B9.1, B9.5: an Abort that ends with a transient status is sent again, and nothing is reset.
#[test]
fn an_abort_that_ends_with_a_transient_status_is_sent_again() {
    let mut w = world(1206, TimeoutAction::Abort);
    let first = Cell::new(true);
    w.on_command(move |seen| match seen {
        seen if seen.path == 0 && seen.is_io() => Verdict::Lose,
        seen if seen.is_abort() && first.replace(false) => Verdict::Answer(Status::INTERNAL_ERROR),
        _ => Verdict::Pass,
    });
    let id = w.submit(0, Op::Write, 0);
    w.run_until("another Abort is sent", |tap| {
        tap.count(Seen::is_abort) == 2
    });
    let abort = aborts(&w).remove(1);
    let (queue, cid) = abort.aborts();
    let ended = (0, queue, cid, Status::ABORTED_BY_REQUEST);
    w.tap.borrow_mut().complete.push(ended);
    w.wake_tap();
    w.expect_ended(&[id], ms(10));
    assert_eq!(w.ended(id).unwrap().0, ABORTED);
    assert_eq!((connects(&w, 0), connects(&w, 1)), (2, 2));
}

/// B9.1: many commands at once: no more Aborts are on the way than the controller takes (ACL), none is forgotten.
#[test]
fn aborts_keep_to_the_limit_of_the_controller() {
    let mut w = world(1205, TimeoutAction::Abort);
    let outstanding = Rc::new(RefCell::new((0usize, 0usize)));
    let seen_aborts = outstanding.clone();
    w.on_command(move |seen| match seen {
        seen if seen.path == 0 && seen.is_io() => Verdict::Lose,
        seen if seen.is_abort() => {
            let mut counts = seen_aborts.borrow_mut();
            counts.0 += 1;
            counts.1 = counts.1.max(counts.0);
            Verdict::Hold
        }
        _ => Verdict::Pass,
    });
    w.tap.borrow_mut().hold = true;
    let ids: Vec<_> = (0..20).map(|lba| w.submit(0, Op::Read, lba)).collect();
    w.run_until("the first Aborts", |tap| tap.count(Seen::is_abort) > 0);
    w.sim.run_for(ms(5));
    // The target's ACL is 3, which is 0's based.
    assert_eq!(outstanding.borrow().1, 4);
    w.release();
    w.run_until("an Abort of each", |tap| tap.count(Seen::is_abort) == 20);
    let mut named: Vec<_> = aborts(&w).iter().map(Seen::aborts).collect();
    named.sort_unstable();
    named.dedup();
    assert_eq!(named.len(), 20);
    w.expect_ended(&ids, Duration::from_secs(1));
    assert_eq!(timeouts_told(&mut w), [(Some(0), 20)]);
}

/// B9.1: a command that is answered in time is young again as the next one; commands that come and go for long are not
/// overdue.
#[test]
fn what_is_answered_in_time_is_never_overdue() {
    let mut w = World::tapped(1206, 2, 2, 8);
    for path in 0..2 {
        w.attach_with(path, limits(Some(TimeoutAction::Reset), None))
            .unwrap();
    }
    w.sim.network().set_latency(ms(17));
    w.expect_progress(500);
    w.finish();
    assert_eq!(timeouts_told(&mut w), []);
    assert_eq!((connects(&w, 0), connects(&w, 1)), (3, 3));
}

/// B9.1: a command that the connection does not even take counts as well.
#[test]
fn a_command_that_cannot_be_sent_is_overdue_too() {
    let mut w = World::new(1207, 2, 1, 0);
    for path in 0..2 {
        w.attach_with(path, limits(Some(TimeoutAction::Abort), None))
            .unwrap();
    }
    w.sim.network().black_hole(crate::common::addr(0), true);
    let (id, took) = time(&mut w, Op::Write);
    assert_eq!(w.ended(id).unwrap().0, Ok(()));
    assert_eq!(w.carried_by(id), Some(1));
    assert!(took >= LIMIT * 2 && took < LIMIT * 2 + LATE * 2, "{took:?}");
}

/// B9.1: admin commands have a limit of their own, and no other action than a reset; events are waited for without one.
#[test]
fn admin_commands_have_their_own_limit() {
    let with = |w: &mut World, action| {
        for path in 0..2 {
            w.attach_with(path, limits(None, Some(action))).unwrap();
        }
    };
    let lose_log = |w: &World| {
        w.on_command(|seen| match seen.path == 0 && seen.is_ana_log() {
            true => Verdict::Lose,
            false => Verdict::Pass,
        });
    };
    for action in [TimeoutAction::Abort, TimeoutAction::Reset] {
        let mut w = World::tapped(1208, 2, 1, 0);
        with(&mut w, action);
        w.sim.run_for(Duration::from_secs(60));
        assert_eq!(connects(&w, 0), 2, "events may take for ever");
        lose_log(&w);
        let start = w.sim.now();
        w.ana(0, AnaState::NON_OPTIMIZED);
        w.run_until("it is lost", |tap| tap.count(Seen::is_connect) > 4);
        let took = w.sim.now().saturating_since(start);
        assert!(took >= LIMIT && took < LIMIT + LATE, "{took:?}");
        assert_eq!(aborts(&w).len(), 0);
        let error = w.controller(0).last_error.unwrap();
        assert!(error.contains("command timeout"), "{error}");
    }
    let mut w = World::tapped(1209, 2, 1, 0);
    with(&mut w, TimeoutAction::None);
    lose_log(&w);
    w.ana(0, AnaState::NON_OPTIMIZED);
    w.sim.run_for(LIMIT * 3);
    assert_eq!(timeouts_told(&mut w), [(None, 1)]);
    assert_eq!(connects(&w, 0), 2);
}

/// B9.3: an I/O that waits for a path, or for its retry, is aborted where it is, at once.
#[test]
fn an_abort_reaches_what_waits() {
    let mut w = world(1210, TimeoutAction::None);
    w.target(TargetRequest::set_retry_delays([50, 0, 0]));
    for path in 0..2 {
        w.ana(path, AnaState::INACCESSIBLE);
    }
    w.expect_paths(&[(0, F, T, F), (1, F, T, F)]);
    let waiting: Vec<_> = (0..3).map(|lba| w.submit(0, Op::Write, lba)).collect();
    assert_eq!(w.abort(0, waiting[1]), Aborting::Ended);
    w.expect_ended(&waiting[1..2], ms(1));
    assert_eq!(w.ended(waiting[1]).unwrap().0, ABORTED);
    let never = waiting[2] + 1;
    assert_eq!(w.abort(0, never), Aborting::NotFound);
    w.ana(0, AnaState::OPTIMIZED);
    w.expect_ended(&[waiting[0], waiting[2]], ms(10));
    for id in [waiting[0], waiting[2]] {
        assert_eq!(w.ended(id).unwrap().0, Ok(()));
    }
    let written = w.tap.borrow().count(Seen::is_write);
    assert_eq!(written, 2, "the aborted one was never sent");

    let mut w = World::tapped(1211, 1, 1, 0);
    w.target(TargetRequest::set_retry_delays([50, 0, 0]));
    w.attach(0);
    w.on_command(|seen| match seen.is_io() {
        true => Verdict::Answer(Status::INTERNAL_ERROR.with_crd(1)),
        false => Verdict::Pass,
    });
    let id = w.submit(0, Op::Read, 0);
    w.sim.run_for(ms(10));
    assert_eq!(w.abort(0, id), Aborting::Ended);
    w.expect_ended(&[id], ms(1));
    assert_eq!(w.ended(id).unwrap().0, ABORTED);
    w.sim.run_for(Duration::from_secs(6));
    assert_eq!(w.tap.borrow().count(Seen::is_io), 1, "not tried again");
}

/// B9.3: an I/O that was sent is aborted by its controller; what that refuses or comes too late for changes nothing.
#[test]
fn an_abort_reaches_what_was_sent() {
    let mut w = world(1212, TimeoutAction::None);
    lose_io(&w);
    let id = w.submit(0, Op::Write, 0);
    w.run_until("it is sent", |tap| tap.count(Seen::is_io) == 1);
    assert_eq!(w.abort(0, id), Aborting::Asked);
    w.run_until("an Abort is sent", |tap| tap.count(Seen::is_abort) == 1);
    let (qid, cid) = aborts(&w)[0].aborts();
    let ended = (0, qid, cid, Status::ABORTED_BY_REQUEST);
    w.tap.borrow_mut().complete.push(ended);
    w.wake_tap();
    w.expect_ended(&[id], ms(10));
    assert_eq!(w.ended(id).unwrap().0, ABORTED);

    // The command is done when its abort arrives, and the Abort itself is refused: no reset follows.
    w.on_command(|seen| match seen {
        seen if seen.is_io() => Verdict::Hold,
        seen if seen.is_abort() => Verdict::Answer(Status::INVALID_OPCODE),
        _ => Verdict::Pass,
    });
    w.tap.borrow_mut().hold = true;
    let id = w.submit(0, Op::Read, 0);
    w.sim.run_for(ms(2));
    assert_eq!(w.abort(0, id), Aborting::Asked);
    w.release();
    w.expect_ended(&[id], ms(10));
    assert_eq!(w.ended(id).unwrap().0, Ok(()));
    w.sim.run_for(ms(100));
    assert_eq!((connects(&w, 0), connects(&w, 1)), (2, 2));
}

/// B9.3: an I/O that was queued for the connection in this very turn is taken back before a byte of it leaves.
#[test]
fn an_abort_reaches_what_is_queued() {
    let mut w = world(1213, TimeoutAction::None);
    let start = w.tap.borrow().count(Seen::is_io);
    // Both are done in one turn of the reactor: submitted, then aborted.
    let id = w.submit(0, Op::Write, 0);
    assert_eq!(w.abort(0, id), Aborting::Ended);
    w.expect_ended(&[id], ms(1));
    assert_eq!(w.ended(id).unwrap().0, ABORTED);
    w.sim.run_for(ms(10));
    assert_eq!(w.tap.borrow().count(Seen::is_io), start);
    assert_eq!(w.io(0, Op::Write, 0), Ok(()));
}

/// B8.1: a controller that says that something is wrong is asked how it is, as it is with each Keep Alive; one with a
/// fatal status is reset, one without is not.
#[test]
fn a_fatal_status_is_a_reset() {
    const READY: u32 = 1;
    const FATAL: u32 = 2;
    // An asynchronous event of the type Error, Persistent Internal Error.
    const ERROR_EVENT: u32 = 3 << 8;
    let keep_alive = |keep_alive_ms| {
        let mut options = options();
        options.keep_alive_ms = keep_alive_ms;
        options
    };
    for (csts, connections) in [(READY, 2), (READY | FATAL, 4)] {
        let mut w = World::tapped(1214, 2, 1, 0);
        w.on_command(|seen| match seen.is_event_request() {
            true => Verdict::Lose,
            false => Verdict::Pass,
        });
        for path in 0..2 {
            w.attach_with(path, keep_alive(0)).unwrap();
        }
        w.tap.borrow_mut().csts = Some((0, csts));
        w.tap.borrow_mut().events.push_back((0, ERROR_EVENT));
        w.wake_tap();
        w.sim.run_for(ms(100));
        assert_eq!((connects(&w, 0), connects(&w, 1)), (connections, 2));

        let mut w = World::tapped(1215, 2, 1, 0);
        for path in 0..2 {
            w.attach_with(path, keep_alive(4000)).unwrap();
        }
        w.tap.borrow_mut().csts = Some((0, csts));
        w.sim.run_for(Duration::from_secs(3));
        assert_eq!((connects(&w, 0), connects(&w, 1)), (connections, 2));
    }
}
