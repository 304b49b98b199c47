//! What the statuses of admin commands lead to: those that may pass are asked again, and take nothing away.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use pollux_multipath::Op;
use pollux_nvme_tcp::spec::identify::cns;
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::testing::{Seen, Verdict};

use crate::common::{World, addr, options};

const T: bool = true;
const F: bool = false;

/// Results of asynchronous events (type 2, notice): ANA change, and namespace attribute changed.
const ANA_CHANGE: u32 = 0x0c_03_02;
const NAMESPACE_CHANGED: u32 = 0x04_00_02;

const TRANSIENT: [Status; 6] = [
    Status::INTERNAL_ERROR,
    Status::ABORTED_BY_REQUEST,
    Status::COMMAND_INTERRUPTED,
    Status::TRANSIENT_TRANSPORT_ERROR,
    Status::NAMESPACE_NOT_READY,
    Status::ASYMMETRIC_ACCESS_TRANSITION,
];

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// What a command asks for, apart from its queue and place.
fn kind(seen: &Seen) -> (u8, u8, u8) {
    (seen.opcode(), seen.sqe[4], seen.sqe[40])
}

/// Admin commands that are answered, but those that wait for events and Connect.
fn is_step(seen: &Seen) -> bool {
    seen.qid == 0 && !seen.is_event_request() && !seen.is_connect()
}

/// Lets the first admin command of each kind on a path end with this status.
fn first_of_each_fails(w: &World, path: u16, status: Status) {
    let known = RefCell::new(BTreeSet::new());
    w.on_command(move |seen| {
        let is_first = seen.path == path && is_step(seen) && known.borrow_mut().insert(kind(seen));
        match is_first {
            true => Verdict::Answer(status),
            false => Verdict::Pass,
        }
    });
}

/// B9.5: every step of bringing a controller up is asked again after a transient status: in an attach, of a second
/// path, and after a reconnect, where the volume stays and I/O goes on.
#[test]
fn every_step_is_asked_again() {
    for (seed, status) in (1500..).zip(TRANSIENT) {
        let mut w = World::tapped(seed, 2, 2, 0);
        first_of_each_fails(&w, 0, status);
        w.attach_with(0, options()).unwrap();
        first_of_each_fails(&w, 1, status);
        w.attach_with(1, options()).unwrap();
        w.expect_paths(&[(0, T, T, T), (1, F, T, T)]);
        let volume = w.status()[0].volume;
        for path in 0..2 {
            first_of_each_fails(&w, path, status);
            w.sim.network().sever(addr(path));
        }
        assert_eq!(w.io(0, Op::Write, 7), Ok(()), "{status}");
        w.sim.run_for(Duration::from_secs(5));
        w.expect_paths(&[(0, T, T, T), (1, F, T, T)]);
        assert_eq!(w.status()[0].volume, volume, "{status}: the same volume");
        w.finish();
    }
}

/// B9.5: a step that ends so each time fails the attach with its name and the status, after a bounded number of
/// tries.
#[test]
fn a_step_that_never_succeeds_fails_the_attach() {
    let mut w = World::tapped(1510, 1, 1, 0);
    w.on_command(|seen| match seen.is_identify(cns::NAMESPACE) {
        true => Verdict::Answer(Status::NAMESPACE_NOT_READY),
        false => Verdict::Pass,
    });
    let error = w.attach_with(0, options()).unwrap_err().to_string();
    assert!(error.contains("Identify Namespace"), "{error}");
    assert!(error.contains("Namespace Not Ready"), "{error}");
    assert_eq!(w.tap.borrow().count(|s| s.is_identify(cns::NAMESPACE)), 7);
}

/// B9.5: a status with Do Not Retry is the last word.
#[test]
fn a_final_status_is_not_asked_again() {
    let mut w = World::tapped(1511, 1, 1, 0);
    w.on_command(|seen| match seen.is_identify(cns::ACTIVE_NAMESPACE_LIST) {
        true => Verdict::Answer(Status::INTERNAL_ERROR.with_dnr()),
        false => Verdict::Pass,
    });
    w.attach_with(0, options()).unwrap_err();
    let lists = w
        .tap
        .borrow()
        .count(|s| s.is_identify(cns::ACTIVE_NAMESPACE_LIST));
    assert_eq!(lists, 1);
}

/// B9.5, B10: what a scan cannot read takes nothing away, whichever of its commands it is and however often, and is
/// read again later.
#[test]
fn a_scan_that_cannot_read_takes_nothing_away() {
    let is_scan: [fn(&Seen) -> bool; 4] = [
        |s| s.is_identify(cns::ACTIVE_NAMESPACE_LIST),
        |s| s.is_identify(cns::NAMESPACE),
        |s| s.is_identify(cns::NAMESPACE_ID_DESCRIPTORS),
        |s| s.opcode() == 0x02 && s.qid == 0 && s.sqe[40] == 0x04,
    ];
    for (seed, part) in (1520..).zip(is_scan) {
        let mut w = World::tapped(seed, 1, 2, 0);
        w.on_command(|seen| match seen.is_event_request() {
            true => Verdict::Lose,
            false => Verdict::Pass,
        });
        w.attach(0);
        let volume = w.status()[0].volume;
        let fails = Rc::new(Cell::new(true));
        let failing = Rc::clone(&fails);
        w.on_command(move |seen| match seen {
            s if s.is_event_request() => Verdict::Lose,
            s if part(s) && failing.get() => Verdict::Answer(Status::NAMESPACE_NOT_READY),
            _ => Verdict::Pass,
        });
        w.tap.borrow_mut().events.push_back((0, NAMESPACE_CHANGED));
        w.sim.run_for(Duration::from_secs(20));
        assert_eq!(w.io(1, Op::Write, 7), Ok(()));
        w.expect_paths(&[(0, T, T, T)]);
        assert_eq!(w.status()[0].volume, volume, "the same volume");
        assert_eq!(w.controller(0).last_error, None);
        fails.set(false);
        let before = w.tap.borrow().count(part);
        w.run_until("another try", |t| t.count(part) > before);
        w.finish();
    }
}

/// B3.4, B9.5: an ANA log that cannot be read for a transient reason counts as a bad log, not as a lost controller;
/// the state that was known holds, and the log is read again later.
#[test]
fn an_ana_log_that_cannot_be_read_loses_no_controller() {
    let mut w = World::tapped(1530, 1, 1, 0);
    w.attach(0);
    let fails = Rc::new(Cell::new(true));
    let failing = Rc::clone(&fails);
    w.on_command(move |seen| match seen.is_ana_log() && failing.get() {
        true => Verdict::Answer(Status::INTERNAL_ERROR),
        false => Verdict::Pass,
    });
    w.ana(0, AnaState::INACCESSIBLE);
    w.sim.run_for(Duration::from_secs(4));
    assert_eq!(w.controller(0).last_error, None);
    assert_eq!(
        w.tap.borrow().count(Seen::is_connect),
        2,
        "one connection of each queue"
    );
    w.expect_paths(&[(0, T, T, T)]);
    fails.set(false);
    w.sim.run_for(Duration::from_secs(6));
    w.expect_paths(&[(0, F, T, F)]);
}

/// B3.2, B9.5: AERs that end with a transient status are sent again, and what happened meanwhile is read.
#[test]
fn event_requests_that_end_are_sent_again() {
    for (seed, status) in (1540..).zip(TRANSIENT) {
        let mut w = World::tapped(seed, 1, 1, 0);
        let fails = Rc::new(Cell::new(true));
        let failing = Rc::clone(&fails);
        w.on_command(move |seen| match seen.is_event_request() && failing.get() {
            true => Verdict::Answer(status),
            false => Verdict::Pass,
        });
        w.attach(0);
        // Nobody hears of this one.
        w.ana(0, AnaState::INACCESSIBLE);
        w.sim.run_for(ms(3000));
        let sent = w.tap.borrow().count(Seen::is_event_request);
        assert!((8..=32).contains(&sent), "{sent} in three seconds");
        fails.set(false);
        w.sim.run_for(ms(6000));
        w.expect_paths(&[(0, F, T, F)]);
        w.ana(0, AnaState::OPTIMIZED);
        w.expect_paths(&[(0, T, T, T)]);
        assert_eq!(w.controller(0).last_error, None);
    }
}

/// B9.2, B9.5: a transient status of Keep Alive is an answer, and it is sent again soon; a controller that does not
/// know the command is not asked again, and its end is noticed all the same.
#[test]
fn keep_alive_that_is_not_carried_out_loses_no_controller() {
    let mut with_kato = options();
    with_kato.keep_alive_ms = 4000;
    let mut w = World::tapped(1550, 1, 1, 0);
    w.on_command(|seen| match seen.is_keep_alive() {
        true => Verdict::Answer(Status::INTERNAL_ERROR),
        false => Verdict::Pass,
    });
    w.attach_with(0, with_kato.clone()).unwrap();
    w.sim.run_for(Duration::from_secs(20));
    assert_eq!(w.controller(0).last_error, None);
    assert!(w.tap.borrow().count(Seen::is_keep_alive) > 30);

    for (seed, status) in [
        (1551, Status::INVALID_OPCODE),
        (1552, Status::INVALID_OPCODE.with_dnr()),
    ] {
        let mut w = World::tapped(seed, 1, 1, 0);
        w.on_command(move |seen| match seen.is_keep_alive() {
            true => Verdict::Answer(status),
            false => Verdict::Pass,
        });
        w.attach_with(0, with_kato.clone()).unwrap();
        w.sim.run_for(Duration::from_secs(20));
        assert_eq!(w.controller(0).last_error, None);
        assert_eq!(w.tap.borrow().count(Seen::is_keep_alive), 1);
    }
}

/// B9.5: Keep Alive is not sent to a controller that does not offer it (KAS 0). Its status register is read at half
/// of KATO instead, so that its end is noticed.
#[test]
fn a_controller_without_keep_alive_is_watched_by_its_status() {
    let mut w = World::tapped(1560, 1, 1, 0);
    w.on_data(|seen, data| {
        if seen.is_identify(cns::CONTROLLER) {
            data[320..322].fill(0);
        }
    });
    let mut with_kato = options();
    with_kato.keep_alive_ms = 4000;
    w.attach_with(0, with_kato).unwrap();
    let reads = w.tap.borrow().count(Seen::is_csts);
    w.sim.run_for(Duration::from_secs(21));
    assert_eq!(w.tap.borrow().count(Seen::is_keep_alive), 0);
    assert_eq!(w.tap.borrow().count(Seen::is_csts) - reads, 10);
    assert_eq!(w.controller(0).last_error, None);
    w.on_command(|seen| match seen.is_csts() {
        true => Verdict::Lose,
        false => Verdict::Pass,
    });
    w.sim.run_for(Duration::from_secs(15));
    assert!(
        w.controller(0).last_error.is_some(),
        "its silence is noticed"
    );
}

/// B3.1: the first notice is followed at once; of a storm of them at most 100 reads a second come, and the last one is
/// followed too. A read that an ANA status causes waits for none of that.
#[test]
fn a_storm_of_notices_is_followed_a_hundred_times_a_second() {
    let mut w = World::tapped(1570, 1, 1, 0);
    w.on_command(|seen| match seen.is_event_request() {
        true => Verdict::Lose,
        false => Verdict::Pass,
    });
    w.attach(0);
    let reads = |w: &World| w.tap.borrow().count(Seen::is_ana_log);
    let before = reads(&w);
    for _ in 0..8000 {
        w.tap.borrow_mut().events.push_back((0, ANA_CHANGE));
        w.sim.run_for(Duration::from_micros(250));
    }
    let storm = reads(&w) - before;
    assert!((190..=210).contains(&storm), "{storm} reads in 2 s");
    let armed = w.tap.borrow().count(Seen::is_event_request);
    assert!(armed <= 4 + 5 * storm, "{armed} event requests");
    assert_eq!(w.controller(0).last_error, None);
}

/// B3.2, B9.5: notices that ask for nothing are limited too: a controller that sends them all the time does not cost a
/// core, and a change among them is followed.
#[test]
fn a_storm_of_notices_that_ask_for_nothing_is_limited() {
    let mut w = World::tapped(1571, 1, 1, 0);
    w.on_command(|seen| match seen.is_event_request() {
        true => Verdict::Lose,
        false => Verdict::Pass,
    });
    w.attach(0);
    let armed = |w: &World| w.tap.borrow().count(Seen::is_event_request);
    let (before, reads) = (armed(&w), w.tap.borrow().count(is_step));
    // SMART / health, firmware activation, and one of the vendor's.
    for event in [0x02_00_01, 0x03_01_02, 0xff_07]
        .into_iter()
        .cycle()
        .take(8000)
    {
        w.tap.borrow_mut().events.push_back((0, event));
        w.sim.run_for(Duration::from_micros(250));
    }
    let storm = armed(&w) - before;
    assert!(storm <= 5 * 210, "{storm} event requests in 2 s");
    assert_eq!(w.tap.borrow().count(is_step), reads, "nothing is read");
    w.tap.borrow_mut().events.clear();
    w.ana(0, AnaState::INACCESSIBLE);
    w.tap.borrow_mut().events.push_back((0, ANA_CHANGE));
    w.sim.run_for(ms(500));
    w.expect_paths(&[(0, F, T, F)]);
    assert_eq!(w.controller(0).last_error, None);
}

/// B9.5: an orderly shutdown is asked for again where that ends with a transient status.
#[test]
fn a_shutdown_is_asked_for_again() {
    let is_shutdown = |seen: &Seen| {
        let is_set = seen.qid == 0 && seen.opcode() == 0x7f && seen.sqe[4] == 0;
        is_set && seen.sqe[44] == 0x14 && seen.sqe[49] & 0xc0 != 0
    };
    let mut w = World::tapped(1580, 1, 1, 0);
    w.attach(0);
    let first = Cell::new(true);
    w.on_command(
        move |seen| match is_shutdown(seen) && first.replace(false) {
            true => Verdict::Answer(Status::INTERNAL_ERROR),
            false => Verdict::Pass,
        },
    );
    w.detach(None).unwrap();
    w.run_until("another try", |tap| tap.count(is_shutdown) == 2);
}
