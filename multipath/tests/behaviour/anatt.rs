//! The ANA transition time (rule B4), to the millisecond of virtual time.

use std::time::Duration;

use crate::common::World;
use pollux_multipath::{ControllerChange, IoError, NoPath, Op};
use pollux_nvme_tcp::spec::identify::cns;
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_reactor::Time;

const ANATT_EXPIRED: Result<(), IoError> = Err(IoError::NoPath(NoPath::AnattExpired));
const LOSS: Result<(), IoError> = Err(IoError::NoPath(NoPath::PersistentLoss));

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A world whose controllers report this ANATT, with `paths` attached.
fn world(seed: u64, paths: u16, io: usize, anatt: u8) -> World {
    let mut w = World::tapped(seed, paths, io, 0);
    w.on_data(move |seen, data| {
        if seen.is_identify(cns::CONTROLLER) {
            data[342] = anatt;
        }
    });
    for path in 0..paths {
        w.attach(path);
    }
    w
}

/// Sets the state of path 0 and waits until it is applied; returns when.
fn set(w: &mut World, state: AnaState) -> Time {
    w.ana(0, state);
    for _ in 0..1000 {
        if w.path(0, 0).ana_state == state {
            return w.sim.now();
        }
        w.sim.run_for(Duration::from_micros(100));
    }
    panic!("{state} is never applied");
}

/// An I/O that is waiting now fails with ANATT, so long after `start`, give or take the network.
fn expect_expiry(w: &mut World, id: u64, start: Time, after: Duration) {
    assert_eq!(w.ended(id), None);
    w.expect_ended(&[id], Duration::from_secs(60));
    let (result, at) = w.ended(id).unwrap();
    assert_eq!(result, ANATT_EXPIRED);
    let took = at.saturating_since(start);
    assert!(
        took <= after && took + ms(20) >= after,
        "{took:?} instead of {after:?}"
    );
}

/// B4.1: ANATT is what the controller reports, and 10 s if it reports 0; inaccessible starts it, and so does change.
#[test]
fn anatt_is_what_the_controller_reports() {
    for (anatt, seconds) in [(3, 3), (0, 10), (255, 255)] {
        for state in [AnaState::INACCESSIBLE, AnaState::CHANGE] {
            let mut w = world(300, 1, 1, anatt);
            let start = set(&mut w, state);
            let id = w.submit(0, Op::Read, 0);
            w.sim.run_for(Duration::from_secs(seconds) - ms(100));
            expect_expiry(&mut w, id, start, Duration::from_secs(seconds));
        }
    }
}

/// B4.1: further reports, of the same state or of the other, do not start it again.
#[test]
fn repeated_reports_do_not_restart_anatt() {
    let mut w = world(301, 1, 1, 3);
    let start = set(&mut w, AnaState::INACCESSIBLE);
    let id = w.submit(0, Op::Read, 0);
    for state in [
        AnaState::CHANGE,
        AnaState::INACCESSIBLE,
        AnaState::CHANGE,
        AnaState::INACCESSIBLE,
    ] {
        w.sim.run_for(ms(600));
        set(&mut w, state);
        assert!(w.path(0, 0).anatt_remaining.is_some());
    }
    expect_expiry(&mut w, id, start, Duration::from_secs(3));
    // Nor after it has run out: what comes now fails at once.
    set(&mut w, AnaState::CHANGE);
    let now = w.sim.now();
    assert_eq!(w.io(0, Op::Read, 0), ANATT_EXPIRED);
    assert!(w.sim.now().saturating_since(now) < ms(1));
}

/// B4.1: an accessible state cancels it, and the next stay gets its whole time.
#[test]
fn an_accessible_state_cancels_anatt() {
    for state in [AnaState::OPTIMIZED, AnaState::NON_OPTIMIZED] {
        let mut w = world(302, 1, 1, 3);
        set(&mut w, AnaState::INACCESSIBLE);
        w.sim.run_for(ms(2500));
        set(&mut w, state);
        assert_eq!(w.path(0, 0).anatt_remaining, None);
        assert_eq!(w.io(0, Op::Read, 0), Ok(()));
        w.sim.run_for(ms(300));
        let start = set(&mut w, AnaState::CHANGE);
        let id = w.submit(0, Op::Read, 0);
        expect_expiry(&mut w, id, start, Duration::from_secs(3));
    }
}

/// B4.2: a log that is on its way when ANATT runs out: whichever comes first, in the end the path is good, nothing of
/// the expiry is left, and an I/O that waited has either succeeded or failed with ANATT.
#[test]
fn an_expiry_that_is_overtaken_is_void() {
    let mut ends = Vec::new();
    for step in 0..60u64 {
        let mut w = world(303 + step, 1, 2, 3);
        set(&mut w, AnaState::INACCESSIBLE);
        let ids = [w.submit(0, Op::Read, 0), w.submit(1, Op::Read, 0)];
        // From 3 ms before to 3 ms after.
        let left = w.path(0, 0).anatt_remaining.unwrap();
        w.sim
            .run_for(left - ms(3) + Duration::from_micros(100) * u32::try_from(step).unwrap());
        w.ana(0, AnaState::OPTIMIZED);
        w.expect_ended(&ids, Duration::from_secs(1));
        for id in ids {
            let (result, _) = w.ended(id).unwrap();
            assert!(result == Ok(()) || result == ANATT_EXPIRED, "{result:?}");
            if !ends.contains(&result) {
                ends.push(result);
            }
        }
        w.sim.run_for(ms(50));
        for reactor in 0..2 {
            let path = w.path(reactor, 0);
            assert!(path.accessible && !path.anatt_expired, "{path:?}");
            assert_eq!(path.anatt_remaining, None);
            assert_eq!(w.io(reactor, Op::Read, 0), Ok(()));
        }
    }
    assert_eq!(ends.len(), 2, "both were met: {ends:?}");
}

/// B4.2: the expiry reaches every reactor.
#[test]
fn the_expiry_reaches_every_reactor() {
    let mut w = world(304, 1, 4, 3);
    set(&mut w, AnaState::INACCESSIBLE);
    let ids: Vec<_> = (0..4)
        .map(|reactor| w.submit(reactor, Op::Read, 0))
        .collect();
    w.expect_ended(&ids, Duration::from_secs(4));
    for (reactor, id) in ids.into_iter().enumerate() {
        assert_eq!(w.ended(id).unwrap().0, ANATT_EXPIRED);
        assert!(w.path(reactor, 0).anatt_expired);
    }
}

/// B4.3: after the expiry the state is still inaccessible, I/O no longer waits for the path, but for another one it
/// does.
#[test]
fn an_expired_path_is_not_hoped_for_but_another_one_is() {
    let mut w = world(305, 2, 1, 3);
    set(&mut w, AnaState::INACCESSIBLE);
    w.sim.run_for(ms(3100));
    let path = w.path(0, 0);
    assert!(path.anatt_expired && !path.accessible && path.connected);
    assert_eq!(path.ana_state, AnaState::INACCESSIBLE);
    assert_eq!(path.anatt_remaining, None);
    assert_eq!(w.io(0, Op::Read, 0), Ok(()), "by the other path");

    w.ana(1, AnaState::INACCESSIBLE);
    w.sim.run_for(ms(10));
    let start = w.sim.now();
    let id = w.submit(0, Op::Read, 0);
    w.sim.run_for(ms(2900));
    assert_eq!(w.ended(id), None, "the other path's time runs");
    w.expect_ended(&[id], ms(200));
    assert_eq!(w.ended(id).unwrap().0, ANATT_EXPIRED);
    assert!(w.sim.now().saturating_since(start) > ms(2900));
    set(&mut w, AnaState::NON_OPTIMIZED);
    assert_eq!(w.io(0, Op::Read, 0), Ok(()));
}

/// B4.4: persistent loss runs no timer, ends one that runs, fails what waits in that turn, and holds until a log says
/// otherwise.
#[test]
fn persistent_loss_holds_until_a_log_says_otherwise() {
    let mut w = world(306, 1, 2, 3);
    set(&mut w, AnaState::INACCESSIBLE);
    let ids = [w.submit(0, Op::Read, 0), w.submit(1, Op::Read, 0)];
    w.sim.run_for(ms(1000));
    w.ana(0, AnaState::PERSISTENT_LOSS);
    w.expect_ended(&ids, ms(10));
    for id in ids {
        assert_eq!(w.ended(id).unwrap().0, LOSS);
    }
    let path = w.path(0, 0);
    assert_eq!((path.anatt_remaining, path.anatt_expired), (None, false));
    w.sim.run_for(Duration::from_secs(30));
    assert_eq!(w.io(1, Op::Read, 0), LOSS);
    // Inaccessible is a state that may end.
    let start = set(&mut w, AnaState::INACCESSIBLE);
    let id = w.submit(0, Op::Read, 0);
    expect_expiry(&mut w, id, start, Duration::from_secs(3));
    set(&mut w, AnaState::OPTIMIZED);
    assert_eq!(w.io(0, Op::Read, 0), Ok(()));
}

/// B4.5: status tells the time left, on every reactor, of the path whose time runs and of no other.
#[test]
fn the_time_left_runs_down_in_status() {
    let mut w = world(307, 2, 2, 20);
    set(&mut w, AnaState::INACCESSIBLE);
    let mut last = w.path(0, 0).anatt_remaining.unwrap();
    assert!(last > Duration::from_millis(19_980), "{last:?}");
    for _ in 0..10 {
        w.sim.run_for(Duration::from_secs(1));
        let left = w.path(0, 0).anatt_remaining.unwrap();
        let passed = last - left;
        assert!(
            passed >= Duration::from_secs(1) && passed < ms(1005),
            "{left:?} after {last:?}"
        );
        last = left;
        let other = w.path(1, 0).anatt_remaining.unwrap();
        assert!(left - other < ms(5), "{left:?}, {other:?}");
        assert_eq!(w.path(0, 1).anatt_remaining, None);
    }
}

/// B4.1, B4.3: a reset does not leave the reactors and control of two minds: a time that runs again is waited for.
#[test]
fn anatt_after_a_reset_is_the_same_everywhere() {
    let mut w = world(308, 1, 2, 3);
    set(&mut w, AnaState::INACCESSIBLE);
    w.sim.run_for(ms(3100));
    assert!(w.path(0, 0).anatt_expired);
    w.change(None, ControllerChange::Reset).unwrap();
    w.sim.run_for(ms(10));
    for reactor in 0..2 {
        let path = w.path(reactor, 0);
        assert_eq!(path.ana_state, AnaState::INACCESSIBLE);
        assert_ne!(
            path.anatt_expired,
            path.anatt_remaining.is_some(),
            "expired, or running: {path:?}"
        );
    }
}

/// B4.1: while a controller is lost its ANATT does not run: what it is after the reconnect, its log says.
#[test]
fn anatt_does_not_run_out_while_the_controller_is_lost() {
    let mut w = world(309, 1, 1, 3);
    set(&mut w, AnaState::INACCESSIBLE);
    let id = w.submit(0, Op::Read, 0);
    w.sim.run_for(ms(1000));
    w.unlisten(0);
    w.sim.run_for(Duration::from_secs(20));
    assert_eq!(w.ended(id), None, "it waits for the reconnect");
    w.listen(0);
    w.expect_ended(&[id], ms(2000));
    assert_eq!(w.ended(id).unwrap().0, Ok(()));
}
