//! Cross-Controller Reset (rules B14.6 to B14.8): a controller that was lost with writes in doubt is reset by way of
//! another one of its subsystem, and what was fenced goes on.

use std::time::Duration;

use pollux_multipath::{AttachOptions, Fencing, FencingMode, Mode, Op};
use pollux_nvme_tcp::spec::opcode::admin;
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::target::TargetRequest;
use pollux_nvme_tcp::testing::{Seen, Verdict};
use pollux_reactor::Time;

use crate::common::{BLOCK, World, addr, options};

const KATO_MS: u32 = 1000;
const FENCE: Duration = ms(3000);
/// What an I/O takes that waits for a reset and nothing else.
const SOON: Duration = ms(20);

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn fenced_options() -> AttachOptions {
    let mut options = options();
    options.keep_alive_ms = KATO_MS;
    options.fencing = Fencing::default();
    options
}

/// A target that has a CQT, as it has by default.
fn tapped(seed: u64, paths: u16, io: usize) -> World {
    let mut w = World::tapped(seed, paths, io, 0);
    w.target(TargetRequest::set_quiesce_time(1000));
    w
}

fn world(seed: u64, paths: u16, io: usize) -> World {
    let mut w = tapped(seed, paths, io);
    for path in 0..paths {
        w.attach_with(path, fenced_options()).unwrap();
    }
    w.sim.run_for(ms(5));
    w
}

fn is_reset(seen: &Seen) -> bool {
    seen.qid == 0 && seen.opcode() == admin::CROSS_CONTROLLER_RESET
}

fn is_reset_log(seen: &Seen) -> bool {
    seen.qid == 0 && seen.opcode() == admin::GET_LOG_PAGE && seen.sqe[40] == 0x1e
}

/// Writes to block 5 on path 0 are held on the wire, which outlives the host's side of the connection; `decide` has its
/// say on everything else.
fn hold(w: &World, mut decide: impl FnMut(&Seen) -> Verdict + 'static) {
    w.tap.borrow_mut().hold = true;
    w.tap.borrow_mut().late = true;
    let mut held = false;
    w.on_command(move |seen| {
        if seen.path == 0 && seen.is_write() && seen.lba() == 5 && !held {
            held = true;
            return Verdict::Hold;
        }
        decide(seen)
    });
}

/// A write that is in doubt since path 0 is lost. Returns its number and when that was.
fn in_doubt(w: &mut World) -> (u64, Time) {
    let id = w.submit_to(0, None, Op::Write, 5, vec![b'A'; BLOCK]);
    w.sim.run_for(ms(2));
    w.sim.network().sever(addr(0));
    (id, w.sim.now())
}

fn took(w: &World, id: u64, since: Time) -> Duration {
    let (result, at) = w.ended(id).unwrap();
    assert_eq!(result, Ok(()));
    at.saturating_since(since)
}

fn events(w: &mut World) -> Vec<String> {
    let status = w.status().remove(0);
    status.events.iter().map(|e| e.kind.to_string()).collect()
}

/// B14.6, B14.1: success of the reset ends the fence at once, on every reactor; what the network then delivers late finds
/// nobody who executes it.
#[test]
fn a_reset_ends_the_fence_at_once() {
    let mut w = world(2701, 2, 2);
    hold(&w, |_| Verdict::Pass);
    let (first, lost) = in_doubt(&mut w);
    let behind = w.submit_to(0, None, Op::Write, 5, vec![b'B'; BLOCK]);
    w.expect_ended(&[first, behind], SOON);
    assert!(took(&w, first, lost) < SOON);
    assert_eq!(w.carried_by(first), Some(1));
    w.tap.borrow_mut().hold = false;
    w.wake_tap();
    w.sim.run_for(ms(50));
    let read = w.submit(0, Op::Read, 5);
    w.expect_ended(&[read], SOON);
    let hand = w.hand.borrow();
    let ended = hand.ended.iter().find(|e| e.id == read).unwrap();
    assert_eq!(ended.buffer[0], b'B');
    drop(hand);
    let by = addr(1);
    let events = events(&mut w);
    for wanted in [
        format!("reset asked for by way of {by}"),
        format!("reset by way of {by}"),
        "fence over on I/O reactor 0".into(),
    ] {
        assert!(events.contains(&wanted), "{events:?}");
    }
    assert_eq!(w.status()[0].reactors[0].fenced, None);
    let asked = w.tap.borrow().seen.iter().filter(|s| is_reset(s)).count();
    assert_eq!(asked, 1);
}

/// B14.6: without another path the same controller is asked, once it is connected again; and in failover mode whoever has
/// taken its place.
#[test]
fn whoever_is_connected_next_is_asked() {
    for failover in [false, true] {
        let mut w = tapped(2702, 2, 1);
        w.attach_with(0, fenced_options()).unwrap();
        if failover {
            let mut options = fenced_options();
            options.mode = Mode::Failover;
            w.attach_with(1, options).unwrap();
        }
        w.sim.run_for(ms(5));
        hold(&w, |_| Verdict::Pass);
        let (id, lost) = in_doubt(&mut w);
        w.expect_ended(&[id], FENCE);
        assert!(took(&w, id, lost) < ms(200), "{:?}", took(&w, id, lost));
        assert_eq!(w.carried_by(id), Some(u16::from(failover)));
    }
}

/// B14.7: what is refused, is not answered, or never ends leaves the time-based rule, and no longer time than that.
#[test]
fn without_success_the_fence_lasts_for_its_time() {
    type Decide = fn(&Seen) -> Verdict;
    let rows: [(Decide, &str); 4] = [
        (
            |seen| match is_reset(seen) {
                true => Verdict::Answer(Status::INVALID_CONTROLLER_ID.with_dnr()),
                false => Verdict::Pass,
            },
            "not reset by way of",
        ),
        (
            |seen| match is_reset(seen) {
                true => Verdict::Answer(Status::CROSS_CONTROLLER_RESET_LIMIT_EXCEEDED),
                false => Verdict::Pass,
            },
            "reset asked for",
        ),
        (
            |seen| match is_reset(seen) {
                true => Verdict::Lose,
                false => Verdict::Pass,
            },
            "reset asked for",
        ),
        // In progress, and the log says nothing.
        (
            |seen| match (is_reset(seen), is_reset_log(seen)) {
                (true, _) => Verdict::Answer(Status::SUCCESS),
                (_, true) => Verdict::Data(vec![0; 4096]),
                _ => Verdict::Pass,
            },
            "reset asked for",
        ),
    ];
    for (decide, wanted) in rows {
        let mut w = world(2703, 2, 1);
        hold(&w, decide);
        let (id, lost) = in_doubt(&mut w);
        w.expect_ended(&[id], FENCE * 2);
        let took = took(&w, id, lost);
        assert!((FENCE..FENCE + SOON).contains(&took), "{took:?}");
        let events = events(&mut w);
        assert!(events.iter().any(|e| e.starts_with(wanted)), "{events:?}");
    }
}

/// B14.7: one controller that refuses is not the last that is asked.
#[test]
fn another_controller_is_asked_where_one_refuses() {
    let mut w = world(2704, 3, 1);
    hold(&w, |seen| match is_reset(seen) && seen.path == 1 {
        true => Verdict::Answer(Status::INTERNAL_ERROR.with_dnr()),
        false => Verdict::Pass,
    });
    let (id, lost) = in_doubt(&mut w);
    w.expect_ended(&[id], SOON);
    assert!(took(&w, id, lost) < SOON);
    let tap = w.tap.borrow();
    let asked = tap.seen.iter().filter(|seen| is_reset(seen));
    assert_eq!(asked.map(|seen| seen.path).collect::<Vec<_>>(), [1, 2]);
}

/// B14.8: a reset that is in progress is over when the log says so about the lost controller; a log that says it of others
/// does not end the fence.
#[test]
fn the_log_tells_how_a_reset_ends() {
    for of_it in [true, false] {
        let mut w = world(2705, 2, 1);
        let mut impacted = [0; 4];
        let mut reads = 0;
        hold(&w, move |seen| {
            if is_reset(seen) {
                impacted.copy_from_slice(&seen.sqe[40..44]);
                return Verdict::Answer(Status::SUCCESS);
            }
            if !is_reset_log(seen) {
                return Verdict::Pass;
            }
            reads += 1;
            let mut log = vec![0; 4096];
            // More entries than there is room for.
            log[..2].copy_from_slice(&0xffffu16.to_le_bytes());
            log[8..12].copy_from_slice(&impacted);
            log[8] ^= u8::from(!of_it);
            log[14..16].copy_from_slice(&[u8::from(reads > 2), 0b11]);
            Verdict::Data(log)
        });
        let (id, lost) = in_doubt(&mut w);
        w.expect_ended(&[id], FENCE * 2);
        let took = took(&w, id, lost);
        match of_it {
            true => assert!((ms(60)..ms(250)).contains(&took), "{took:?}"),
            false => assert!((FENCE..FENCE + SOON).contains(&took), "{took:?}"),
        }
    }
}

/// B14.6, B14.4: nobody is reset where nothing is in doubt, or fencing is off.
#[test]
fn nobody_is_reset_without_need() {
    for mode in [FencingMode::Auto, FencingMode::Off] {
        let mut w = tapped(2706, 2, 1);
        let mut options = fenced_options();
        options.fencing = Fencing::default();
        options.fencing.mode = mode;
        for path in 0..2 {
            w.attach_with(path, options.clone()).unwrap();
        }
        let mut ids = Vec::new();
        if mode == FencingMode::Off {
            hold(&w, |_| Verdict::Pass);
            ids.push(in_doubt(&mut w).0);
        } else {
            ids.push(w.submit(0, Op::Read, 5));
            w.sim.network().sever(addr(0));
        }
        w.expect_ended(&ids, SOON);
        w.sim.run_for(FENCE);
        assert_eq!(
            w.tap.borrow().seen.iter().filter(|s| is_reset(s)).count(),
            0
        );
    }
}
