//! What status tells of volumes, paths and their history (rule B13).

use std::time::Duration;

use crate::common::{BLOCK, World, addr, options};
use pollux_multipath::{ControllerChange, Op, PathEventKind as Kind, Policy, Selector};
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::testing::Verdict;

const BYTES: u64 = BLOCK as u64;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// B13.1: counters and latency per path and reactor, and errors by status, say what has happened there and nothing
/// else.
#[test]
fn counters_are_those_of_the_path_and_the_reactor() {
    let mut w = World::tapped(1000, 2, 2, 0);
    w.attach(0);
    w.attach(1);
    for lba in 0..3 {
        assert_eq!(w.io(0, Op::Read, lba), Ok(()));
    }
    for lba in 0..2 {
        assert_eq!(w.io(0, Op::Write, lba), Ok(()));
    }
    w.prefer(1);
    assert_eq!(w.io(1, Op::Read, 0), Ok(()));
    assert_eq!(w.io(1, Op::Flush, 0), Ok(()));

    let counters = |w: &mut World, reactor, path| w.path(reactor, path).counters;
    let first = counters(&mut w, 0, 0);
    assert_eq!(
        (
            first.reads.count,
            first.reads.bytes,
            first.writes.count,
            first.writes.bytes,
            first.errors
        ),
        (3, 3 * BYTES, 2, 2 * BYTES, 0)
    );
    // There and back twice, by way of the tap: 800 us each, and a little for turns.
    let mean =
        Duration::from_nanos((first.reads.latency_ns + first.writes.latency_ns) / first.ios());
    assert!(
        mean >= Duration::from_micros(800) && mean < ms(1),
        "{mean:?}"
    );
    let second = counters(&mut w, 1, 1);
    assert_eq!(
        (
            second.reads.count,
            second.reads.bytes,
            second.writes.count,
            second.writes.bytes,
            second.errors
        ),
        (1, BYTES, 1, 0, 0)
    );
    for (reactor, path) in [(0, 1), (1, 0)] {
        assert_eq!(counters(&mut w, reactor, path), Default::default());
    }

    // An error counts where it happened, also when the I/O ends well.
    let mut once = true;
    w.on_command(
        move |seen| match seen.is_io() && std::mem::take(&mut once) {
            true => Verdict::Answer(Status::new(3, 0x02).with_more()),
            false => Verdict::Pass,
        },
    );
    assert_eq!(w.io(1, Op::Write, 0), Ok(()));
    assert_eq!(counters(&mut w, 1, 1).errors, 1);
    assert_eq!(
        counters(&mut w, 1, 0).writes.count,
        1,
        "it went by the other path"
    );
    let status = w.status();
    let reactor = |index| {
        let mut all = status[0].reactors.iter();
        all.find(|r| r.reactor == index).unwrap()
    };
    assert_eq!(reactor(1).errors, [(Status::new(3, 0x02), 1)]);
    assert_eq!(reactor(0).errors, []);

    // What a path counted is not lost with it.
    w.detach(Some(0)).unwrap();
    let status = w.status();
    let mut all = status[0].reactors.iter();
    let view = all.find(|r| r.reactor == 0).unwrap();
    assert_eq!(
        (view.removed.reads.count, view.removed.writes.count),
        (3, 2)
    );
}

/// B13.1, B4.5: state and group, epoch, ANATT, what is outstanding and what waits, on every reactor.
#[test]
fn status_tells_the_state_of_every_path() {
    let mut w = World::tapped(1001, 2, 3, 0);
    w.attach(0);
    w.attach(1);
    w.on_command(|seen| match seen.is_io() {
        true => Verdict::Hold,
        false => Verdict::Pass,
    });
    w.tap.borrow_mut().hold = true;
    let mut ids: Vec<_> = (0..3)
        .flat_map(|reactor| (0..=reactor).map(move |_| reactor))
        .map(|reactor| w.submit(reactor, Op::Read, 0))
        .collect();
    w.sim.run_for(ms(10));
    for reactor in 0..3 {
        let (first, second) = (w.path(reactor, 0), w.path(reactor, 1));
        assert_eq!((first.outstanding, second.outstanding), (reactor + 1, 0));
        assert!(first.current && first.connected && first.accessible);
        assert!(!second.current && second.connected && second.accessible);
        assert_eq!((first.ana_state, first.ana_group), (AnaState::OPTIMIZED, 1));
        assert!(!first.log_pending && !first.anatt_expired);
        assert_eq!(first.anatt_remaining, None);
        assert_eq!(first.transport.addr, addr(0));
        assert_ne!(first.cntlid, second.cntlid);
        assert_ne!(first.epoch, 0);
    }
    for path in 0..2 {
        w.ana(path, AnaState::CHANGE);
    }
    w.sim.run_for(ms(10));
    ids.extend((0..3).map(|reactor| w.submit(reactor, Op::Read, 0)));
    w.sim.run_for(ms(10));
    let status = w.status();
    assert_eq!(status[0].reactors.len(), 3);
    for view in &status[0].reactors {
        assert_eq!(view.waiting, 1);
        assert!(view.paths.iter().all(|p| !p.current && p.connected));
        assert!(view.paths.iter().all(|p| p.anatt_remaining.is_some()));
    }
    for path in 0..2 {
        w.ana(path, AnaState::OPTIMIZED);
    }
    w.release();
    w.expect_ended(&ids, Duration::from_secs(1));
    for id in ids {
        assert_eq!(w.ended(id).unwrap().0, Ok(()));
    }
}

/// B13.2: `current` follows at once what the reactor itself has seen, before control has said anything.
#[test]
fn what_a_reactor_sees_is_in_its_status_at_once() {
    let mut w = World::tapped(1002, 2, 2, 0);
    let mut robin = options();
    robin.policy = Policy::ActiveActive(Selector::QueueDepth);
    w.attach_with(0, robin.clone()).unwrap();
    w.attach_with(1, robin).unwrap();
    w.on_command(|seen| match seen {
        s if s.path == 0 && s.is_io() => Verdict::Answer(Status::new(3, 0x02)),
        s if s.path == 0 && s.qid == 0 => Verdict::Hold,
        _ => Verdict::Pass,
    });
    w.tap.borrow_mut().hold = true;
    let ids = [w.submit(0, Op::Read, 0), w.submit(0, Op::Read, 1)];
    w.expect_ended(&ids, ms(10));
    let view = |w: &mut World, reactor| {
        let (first, second) = (w.path(reactor, 0), w.path(reactor, 1));
        (first.current, first.accessible, second.current)
    };
    assert_eq!(view(&mut w, 0), (false, false, true));
    assert_eq!(view(&mut w, 1), (true, true, true), "it has seen nothing");
}

/// The events of the only volume, without those that each reactor adds.
fn history(w: &mut World) -> Vec<(u16, String)> {
    let status = w.status();
    let told = status[0].events.iter();
    told.filter(|e| !matches!(e.kind, Kind::Applied { .. }))
        .map(|e| {
            let text = e.kind.to_string();
            let text = text.split(" (epoch").next().unwrap().to_owned();
            (e.transport.addr.port() - 4420, text)
        })
        .collect()
}

/// B13.3: the history tells what changed, why, when, and which reactor saw it when.
#[test]
fn the_history_tells_what_happened_and_why() {
    let mut w = World::tapped(1003, 2, 2, 0);
    for path in 0..2 {
        w.attach(path);
    }
    let told = history(&mut w);
    let up = |path: u16| {
        [
            (path, "added, inaccessible".to_owned()),
            (path, "inaccessible -> optimized".to_owned()),
        ]
    };
    assert_eq!(told, [up(0), up(1)].concat());
    let mut seen = told.len();
    let mut since = |w: &mut World| {
        let told = history(w);
        let news = told[seen..].to_vec();
        seen = told.len();
        news
    };
    let event = |path: u16, text: &str| (path, text.to_owned());

    w.ana(0, AnaState::INACCESSIBLE);
    w.sim.run_for(ms(10));
    assert_eq!(
        since(&mut w),
        [
            event(0, "ANA change announced"),
            event(0, "optimized -> inaccessible")
        ]
    );
    w.sim.run_for(Duration::from_secs(11));
    assert_eq!(since(&mut w), [event(0, "ANATT expired")]);
    w.ana(0, AnaState::OPTIMIZED);
    w.sim.run_for(ms(10));
    since(&mut w);

    let mut once = true;
    w.on_command(
        move |seen| match seen.is_io() && std::mem::take(&mut once) {
            true => Verdict::Answer(Status::new(3, 0x02)),
            false => Verdict::Pass,
        },
    );
    assert_eq!(w.io(1, Op::Read, 0), Ok(()));
    w.sim.run_for(ms(10));
    assert_eq!(
        since(&mut w),
        [event(0, "ANA status seen on I/O reactor 1")]
    );

    let cntlid = w.controller(1).cntlid;
    w.change(Some(cntlid), ControllerChange::Reset).unwrap();
    w.sim.run_for(ms(10));
    assert_eq!(
        since(&mut w),
        [event(1, "reset on request"), event(1, "reconnected")]
    );
    w.detach(Some(1)).unwrap();
    assert_eq!(since(&mut w), [event(1, "removed")]);

    // Times and epochs: each change was applied by each reactor after it was made, within a turn or two.
    let status = w.status();
    let events = &status[0].events;
    assert!(events.is_sorted_by_key(|e| e.at));
    let mut changes = 0;
    for change in events {
        let Kind::Ana { epoch, .. } = change.kind else {
            continue;
        };
        changes += 1;
        let mut reactors: Vec<_> = events
            .iter()
            .filter_map(|e| match e.kind {
                Kind::Applied {
                    epoch: of,
                    reactor,
                    at,
                } if of == epoch => Some((reactor, at)),
                _ => None,
            })
            .collect();
        reactors.sort_unstable();
        assert_eq!(reactors.len(), 2, "{change:?}");
        for (index, (reactor, at)) in reactors.into_iter().enumerate() {
            assert_eq!(reactor, index);
            let late = at.saturating_since(change.at);
            assert!(
                at >= change.at && late < Duration::from_micros(100),
                "{late:?}"
            );
        }
    }
    assert_eq!(changes, 4);
}

/// B13.3: why a controller was lost is in the history: by whom, and after what.
#[test]
fn the_history_tells_why_a_controller_was_lost() {
    type Lose = fn(&mut World);
    let ways: [(&str, Lose); 3] = [
        ("lost: socket error", |w| w.sim.network().sever(addr(0))),
        ("lost: keep-alive", |w| {
            w.on_command(|seen| match seen.is_keep_alive() {
                true => Verdict::Mute,
                false => Verdict::Pass,
            });
            w.sim.run_for(Duration::from_secs(20));
        }),
        ("disabled on request", |w| {
            w.change(None, ControllerChange::Disable).unwrap();
        }),
    ];
    for (words, lose) in ways {
        let mut w = World::tapped(1004, 1, 1, 0);
        let mut options = options();
        options.recovery.reconnect_delay = Duration::from_secs(60);
        w.attach_with(0, options).unwrap();
        lose(&mut w);
        w.sim.run_for(ms(20));
        let told = history(&mut w);
        let why = told.iter().filter(|(_, text)| text.starts_with(words));
        assert_eq!(why.count(), 1, "{words} in {told:?}");
    }
}

/// B13.3: the history is bounded: the latest is kept.
#[test]
fn the_history_keeps_the_latest() {
    let mut w = World::new(1005, 1, 2, 0);
    w.attach(0);
    for round in 0..200 {
        let states = [AnaState::NON_OPTIMIZED, AnaState::OPTIMIZED];
        w.ana(0, states[round % 2]);
        // No faster than notices are followed.
        w.sim.run_for(ms(12));
    }
    let status = w.status();
    let events = &status[0].events;
    assert_eq!(events.len(), 256);
    let last = events.iter().rev().find_map(|e| match e.kind {
        Kind::Ana { to, .. } => Some(to),
        _ => None,
    });
    assert_eq!(last, Some(AnaState::OPTIMIZED));
}

/// B13.1: the reactors are listed in order, whichever answers first.
#[test]
fn reactors_are_listed_in_order() {
    for seed in 1006..1016 {
        let mut w = World::new(seed, 1, 4, 0);
        w.attach(0);
        let status = w.status();
        assert!(status[0].reactors.iter().map(|r| r.reactor).eq(0..4));
    }
}
