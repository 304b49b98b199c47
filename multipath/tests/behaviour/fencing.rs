//! Fencing (rule B14): a write that a lost controller may still execute is not sent again before it no longer can.

use std::sync::mpsc;
use std::time::Duration;

use pollux_multipath::{
    Aborting, AttachOptions, ControllerChange, EndedEarly, FaultChange, FenceStatus, Fencing,
    FencingMode, HostError, HostRequest, InjectedFault, IoError, NoPath, Op,
};
use pollux_nvme_tcp::spec::opcode::nvm;
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::testing::{Seen, Verdict};
use pollux_reactor::Time;

use crate::common::{BLOCK, World, addr, options};

const KATO_MS: u32 = 1000;
const CQT: Duration = ms(70);
const FENCE: Duration = ms(2070);
/// What an I/O takes that nothing delays, its loss included, and by how much a time may be exceeded.
const SOON: Duration = ms(20);

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn with(mode: FencingMode, cqt: Option<Duration>) -> AttachOptions {
    let mut options = options();
    options.keep_alive_ms = KATO_MS;
    options.fencing = Fencing::default();
    options.fencing.mode = mode;
    options.fencing.cqt = cqt;
    options
}

fn always() -> AttachOptions {
    with(FencingMode::Always, Some(CQT))
}

fn world(seed: u64, paths: u16, options: &AttachOptions) -> World {
    let mut w = World::tapped(seed, paths, 1, 0);
    attach(&mut w, paths, options);
    w
}

fn attach(w: &mut World, paths: u16, options: &AttachOptions) {
    for path in 0..paths {
        w.attach_with(path, options.clone()).unwrap();
    }
    w.sim.run_for(ms(5));
}

/// The first `n` I/Os on path 0 are held on the wire: they have left the host and not reached the target.
fn hold(w: &World, n: usize) {
    w.tap.borrow_mut().hold = true;
    w.tap.borrow_mut().late = true;
    let mut left = n;
    w.on_command(move |seen| {
        if seen.path == 0 && seen.qid != 0 && !seen.is_connect() && left > 0 {
            left -= 1;
            return Verdict::Hold;
        }
        Verdict::Pass
    });
}

/// The connections of path 0 end, as far as the host can see.
fn lose(w: &mut World) -> Time {
    w.sim.run_for(ms(2));
    w.sim.network().sever(addr(0));
    w.sim.now()
}

/// A write in doubt: sent on path 0, which is then lost. Returns its number and when it was lost.
fn in_doubt(w: &mut World, lba: u64) -> (u64, Time) {
    hold(w, 1);
    let id = w.submit_to(0, None, Op::Write, lba, vec![b'A'; BLOCK]);
    let lost = lose(w);
    w.sim.run_for(ms(3));
    assert_eq!(w.ended(id), None);
    (id, lost)
}

fn expect_after(w: &World, id: u64, since: Time, wanted: Duration) {
    let (result, at) = w.ended(id).unwrap();
    assert_eq!(result, Ok(()));
    let took = at.saturating_since(since);
    assert!(
        took >= wanted && took < wanted + SOON,
        "{took:?} for {wanted:?}"
    );
}

fn fenced(w: &mut World) -> Option<FenceStatus> {
    w.status()[0].reactors[0].fenced
}

/// Writes of a block that were sent, on any path.
fn writes(w: &World, lba: u64) -> usize {
    let is_it = |s: &Seen| s.is_write() && s.lba() == lba;
    w.tap.borrow().count(is_it)
}

/// Has the controllers report a CQT, and count traffic as a sign of life.
fn report(w: &World, cqt_ms: u16, traffic_based: bool) {
    w.on_data(move |seen, data| {
        if seen.is_identify(0x01) {
            data[386..388].copy_from_slice(&cqt_ms.to_le_bytes());
            data[96] |= u8::from(traffic_based) << 6;
        }
    });
}

/// What block 7 holds after: A is held on path 0, which is lost; B follows as the application has it, as soon as A has
/// ended or at once; the network delivers the first A late.
fn late_delivery(options: &AttachOptions, cqt_ms: u16) -> u8 {
    let mut w = World::tapped(2600, 2, 1, 0);
    report(&w, cqt_ms, false);
    attach(&mut w, 2, options);
    hold(&w, 1);
    let first = w.submit_to(0, None, Op::Write, 7, vec![b'A'; BLOCK]);
    lose(&mut w);
    w.sim.run_for(SOON);
    let second = w.submit_to(0, None, Op::Write, 7, vec![b'B'; BLOCK]);
    w.sim.run_for(SOON);
    w.tap.borrow_mut().hold = false;
    w.wake_tap();
    w.sim.run_for(SOON);
    w.expect_ended(&[first, second], FENCE * 2);
    for id in [first, second] {
        assert_eq!(w.ended(id).unwrap().0, Ok(()));
    }
    let read = w.submit(0, Op::Read, 7);
    w.expect_ended(&[read], SOON);
    let hand = w.hand.borrow();
    let ended = hand.ended.iter().find(|e| e.id == read).unwrap();
    ended.buffer[0]
}

/// B14.1, B14.4: with fencing, on demand or because the controllers report a CQT, what was acknowledged last is what is
/// read; without, the first copy of an older write comes back over it.
#[test]
fn an_old_write_does_not_come_back_over_a_newer_one() {
    let auto = with(FencingMode::Auto, None);
    let off = with(FencingMode::Off, None);
    assert_eq!(late_delivery(&off, 70), b'A', "the hazard is real");
    assert_eq!(late_delivery(&auto, 0), b'A', "nothing to count with");
    assert_eq!(late_delivery(&auto, 70), b'B');
    assert_eq!(late_delivery(&always(), 0), b'B');
}

/// B14.2: what changes nothing, and what was not sent, goes to another path at once.
#[test]
fn reads_and_what_was_not_sent_move_at_once() {
    for op in Op::ALL {
        let mut w = world(2601, 2, &always());
        hold(&w, 1);
        let id = w.submit(0, op, 9);
        let lost = lose(&mut w);
        let wanted = if op.changes_data() {
            FENCE
        } else {
            Duration::ZERO
        };
        w.expect_ended(&[id], FENCE * 2);
        expect_after(&w, id, lost, wanted);
        // By then the first path is back, and carries it.
        let path = u16::from(!op.changes_data());
        assert_eq!(w.carried_by(id), Some(path), "{op:?}");
    }
    // A write that is still with the host.
    let mut w = World::tapped(2602, 2, 1, 0);
    attach(&mut w, 1, &always());
    let (sender, answer) = mpsc::channel();
    let mut fault = InjectedFault::new(nvm::WRITE, 1, Status::INTERNAL_ERROR);
    fault.held_for = Some(Duration::from_secs(3600));
    w.request(HostRequest::Fault {
        name: "Nvme0".into(),
        admin: false,
        change: FaultChange::Add(fault),
        reply: Box::new(move |answer| sender.send(answer).unwrap()),
    });
    assert_eq!(w.wait(answer), Ok(()));
    w.attach_with(1, always()).unwrap();
    let id = w.submit(0, Op::Write, 9);
    let lost = lose(&mut w);
    w.expect_ended(&[id], SOON);
    expect_after(&w, id, lost, Duration::ZERO);
}

/// B14.3: the time is 2 x KATO, 3 x with traffic-based keep-alive, + CQT, whether the controller reports that or it is
/// set; it counts from the loss, and the only path, connected again meanwhile, waits as any other.
#[test]
fn the_fence_lasts_as_long_as_the_specification_says() {
    let auto = |cqt| with(FencingMode::Auto, cqt);
    let rows = [
        (auto(None), 30, false, ms(2030)),
        (auto(None), 30, true, ms(3030)),
        (auto(Some(CQT)), 30, false, ms(2070)),
        (auto(Some(CQT)), 500, false, ms(2500)),
        (with(FencingMode::Always, Some(ms(0))), 0, true, ms(3000)),
    ];
    for (options, cqt_ms, traffic_based, wanted) in rows {
        for paths in [1, 2] {
            let mut w = World::tapped(2603, paths, 1, 0);
            report(&w, cqt_ms, traffic_based);
            attach(&mut w, paths, &options);
            let (id, lost) = in_doubt(&mut w, 3);
            w.expect_ended(&[id], wanted * 2);
            expect_after(&w, id, lost, wanted);
            assert_eq!(fenced(&mut w), None);
        }
    }
}

/// B14.1: it does not matter how the controller is lost: by a reset, a detach or a silence.
#[test]
fn however_the_controller_is_lost_its_writes_are_fenced() {
    type Lose = fn(&mut World);
    let rows: [(Duration, Lose); 3] = [
        (ms(0), |w| {
            let cntlid = w.controller(0).cntlid;
            w.change(Some(cntlid), ControllerChange::Reset).unwrap();
        }),
        (ms(0), |w| w.detach(Some(0)).unwrap()),
        // No Keep Alive is answered; within KATO that is noticed.
        (ms(1010), |w| {
            w.on_command(|seen| match seen.path == 0 && seen.is_keep_alive() {
                true => Verdict::Lose,
                false => Verdict::Pass,
            });
        }),
    ];
    for (noticed, lose) in rows {
        let mut w = world(2604, 2, &always());
        hold(&w, 1);
        let id = w.submit(0, Op::Write, 3);
        w.sim.run_for(ms(2));
        let start = w.sim.now();
        lose(&mut w);
        w.expect_ended(&[id], FENCE * 3);
        let (result, at) = w.ended(id).unwrap();
        assert_eq!(result, Ok(()));
        let took = at.saturating_since(start);
        assert!(
            took >= FENCE && took < FENCE + noticed + ms(600),
            "{took:?}"
        );
        assert_eq!(writes(&w, 3), 2);
    }
}

/// B14.5: a later write that overlaps a fenced one stays behind it, whatever it is; all other I/O goes on.
#[test]
fn what_overlaps_a_fenced_write_stays_behind_it() {
    let mut w = world(2605, 2, &always());
    let (first, lost) = in_doubt(&mut w, 5);
    let start = w.sim.now();
    let behind: Vec<_> = [Op::Write, Op::WriteZeroes, Op::Deallocate]
        .map(|op| w.submit(0, op, 5))
        .into();
    let others = [
        w.submit(0, Op::Read, 5),
        w.submit(0, Op::Compare, 5),
        w.submit(0, Op::Flush, 0),
        w.submit(0, Op::Write, 4),
        w.submit(0, Op::Write, 6),
    ];
    w.sim.run_for(SOON);
    for id in others {
        let (_, at) = w.ended(id).expect("nothing delays it");
        assert!(at.saturating_since(start) < SOON);
    }
    let status = fenced(&mut w).unwrap();
    assert_eq!((status.writes, status.behind), (1, 3));
    assert!(status.remaining < FENCE && status.remaining > FENCE - ms(100));
    assert_eq!(w.status()[0].reactors[0].waiting, 4);
    let mut all = vec![first];
    all.extend(&behind);
    w.expect_ended(&all, FENCE * 2);
    for &id in &all {
        expect_after(&w, id, lost, FENCE);
    }
    // Each is sent in its turn.
    let tap = w.tap.borrow();
    let sent = tap.seen.iter().filter(|s| {
        let is_it = [nvm::WRITE, nvm::WRITE_ZEROES, nvm::DATASET_MANAGEMENT];
        s.at > lost + FENCE && s.qid != 0 && is_it.contains(&s.opcode())
    });
    let sent: Vec<_> = sent.map(Seen::opcode).collect();
    let wanted = [
        nvm::WRITE,
        nvm::WRITE,
        nvm::WRITE_ZEROES,
        nvm::DATASET_MANAGEMENT,
    ];
    assert_eq!(sent, wanted);
}

/// B14.5: the history says how many writes were fenced, for how long, and when that was over.
#[test]
fn the_history_tells_of_the_fence() {
    let mut w = world(2606, 2, &always());
    let (id, _) = in_doubt(&mut w, 5);
    w.expect_ended(&[id], FENCE * 2);
    let status = w.status().remove(0);
    let events: Vec<_> = status.events.iter().map(|e| e.kind.to_string()).collect();
    for wanted in [
        "fenced 1 writes for 2.1 s on I/O reactor 0",
        "fence over on I/O reactor 0",
    ] {
        assert!(events.iter().any(|e| e == wanted), "{events:?}");
    }
}

/// B14.5: an abort or a deadline ends a fenced write with an error that says what may become of it; its blocks stay
/// fenced.
#[test]
fn a_fenced_write_that_ends_early_leaves_its_blocks_fenced() {
    for aborted in [true, false] {
        let mut w = world(2607, 2, &always());
        if !aborted {
            w.hand.borrow_mut().limit = Some(ms(50));
        }
        let (first, lost) = in_doubt(&mut w, 5);
        w.hand.borrow_mut().limit = None;
        let early = if aborted {
            assert_eq!(w.abort(0, first), Aborting::Ended);
            EndedEarly::Aborted
        } else {
            EndedEarly::Deadline
        };
        w.expect_ended(&[first], ms(100));
        let error = w.ended(first).unwrap().0.unwrap_err();
        assert_eq!(error, IoError::InDoubt(early));
        assert!(error.to_string().contains("may still be executed"));
        let next = w.submit(0, Op::Write, 5);
        // A write that only stands behind is in no doubt.
        let behind = w.submit(0, Op::Write, 5);
        w.sim.run_for(SOON);
        assert_eq!(w.abort(0, behind), Aborting::Ended);
        w.expect_ended(&[behind], SOON);
        let error = IoError::Status(Status::ABORTED_BY_REQUEST);
        assert_eq!(w.ended(behind).unwrap().0, Err(error));
        w.expect_ended(&[next], FENCE * 2);
        expect_after(&w, next, lost, FENCE);
        assert_eq!(writes(&w, 5), 2, "that one, and the first");
    }
}

/// B14.5, B9.3: so does a write whose abort was asked for when its controller was lost.
#[test]
fn a_write_that_is_being_aborted_leaves_its_blocks_fenced() {
    let mut w = world(2608, 2, &always());
    hold(&w, 1);
    let first = w.submit(0, Op::Write, 5);
    w.sim.run_for(ms(2));
    assert_eq!(w.abort(0, first), Aborting::Asked);
    let lost = lose(&mut w);
    w.expect_ended(&[first], SOON);
    let error = IoError::InDoubt(EndedEarly::Aborted);
    assert_eq!(w.ended(first).unwrap().0, Err(error));
    let next = w.submit(0, Op::Write, 5);
    w.expect_ended(&[next], FENCE * 2);
    expect_after(&w, next, lost, FENCE);
}

/// B14.5, B7.2: what is fenced ends when its volume goes away, and when no path is left to hope for.
#[test]
fn what_is_fenced_ends_with_its_volume_and_its_last_hope() {
    let mut w = world(2609, 2, &always());
    let (first, _) = in_doubt(&mut w, 5);
    let behind = w.submit(0, Op::Write, 5);
    w.detach(None).unwrap();
    w.expect_ended(&[first, behind], SOON);
    let error = IoError::InDoubt(EndedEarly::Removed);
    assert_eq!(w.ended(first).unwrap().0, Err(error));
    assert_eq!(w.ended(behind).unwrap().0, Err(IoError::Removed));

    let mut fails_fast = always();
    fails_fast.recovery = options().recovery;
    fails_fast.recovery.fast_io_fail_timeout = Some(ms(500));
    let mut w = world(2611, 1, &fails_fast);
    hold(&w, 1);
    let first = w.submit(0, Op::Write, 5);
    w.sim.run_for(ms(2));
    w.sim.network().black_hole(addr(0), true);
    let lost = lose(&mut w);
    let behind = w.submit(0, Op::Write, 5);
    w.expect_ended(&[first, behind], FENCE);
    let (result, at) = w.ended(first).unwrap();
    let why = NoPath::FastIoFail;
    assert_eq!(result, Err(IoError::InDoubt(EndedEarly::NoPath(why))));
    assert!(at.saturating_since(lost) < ms(500) + SOON);
    assert_eq!(w.ended(behind).unwrap().0, Err(IoError::NoPath(why)));
}

/// B14.5: a controller that was lost knows of no volumes: a namespace that is attached anew has its blocks fenced still.
#[test]
fn a_namespace_that_comes_back_has_its_blocks_fenced() {
    let mut w = world(2612, 2, &always());
    let (first, lost) = in_doubt(&mut w, 5);
    w.detach(None).unwrap();
    w.expect_ended(&[first], SOON);
    attach(&mut w, 2, &always());
    let (next, other) = (w.submit(0, Op::Write, 5), w.submit(0, Op::Write, 6));
    w.expect_ended(&[other], SOON);
    w.expect_ended(&[next], FENCE * 2);
    expect_after(&w, next, lost, FENCE);
}

/// B14.4: what contradicts itself is refused with the reason, at the attach already.
#[test]
fn settings_that_contradict_are_refused() {
    let without_kato = |mut options: AttachOptions| {
        options.keep_alive_ms = 0;
        options
    };
    let auto = with(FencingMode::Auto, None);
    let rows = [
        (with(FencingMode::Always, None), 0, Some("cqt_ms")),
        (without_kato(always()), 0, Some("keep-alive")),
        (
            without_kato(with(FencingMode::Auto, Some(CQT))),
            0,
            Some("keep-alive"),
        ),
        (without_kato(auto.clone()), 30, Some("keep-alive")),
        (without_kato(auto), 0, None),
        (without_kato(with(FencingMode::Off, Some(CQT))), 30, None),
    ];
    for (options, cqt_ms, wanted) in rows {
        let mut w = World::tapped(2612, 1, 1, 0);
        report(&w, cqt_ms, false);
        let attached = w.attach_with(0, options);
        match wanted {
            None => assert!(attached.is_ok(), "{attached:?}"),
            Some(wanted) => {
                let Err(HostError::Invalid(text)) = attached else {
                    panic!("{attached:?}")
                };
                assert!(text.contains(wanted), "{text}");
            }
        }
    }
}
