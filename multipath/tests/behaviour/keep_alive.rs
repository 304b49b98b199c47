//! Keep Alive (rule B9.2).

use std::time::Duration;

use pollux_multipath::Op;
use pollux_nvme_tcp::testing::{Seen, Verdict};

use crate::common::{World, options};

const T: bool = true;
const F: bool = false;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// B9.2: Keep Alive goes out at half of KATO, and a controller that leaves one unanswered is reset when KATO is over;
/// its I/O goes elsewhere.
#[test]
fn keep_alive_goes_out_at_half_of_kato() {
    let mut w = World::tapped(850, 2, 1, 0);
    let mut options = options();
    options.keep_alive_ms = 4000;
    for path in 0..2 {
        w.attach_with(path, options.clone()).unwrap();
    }
    w.sim.run_for(Duration::from_secs(21));
    let times = |w: &World| {
        let tap = w.tap.borrow();
        let alive = tap.seen.iter().filter(|s| s.path == 0 && s.is_keep_alive());
        alive.map(|s| s.at).collect::<Vec<_>>()
    };
    let sent = times(&w);
    assert_eq!(sent.len(), 10);
    for pair in sent.windows(2) {
        let apart = pair[1].saturating_since(pair[0]);
        assert!(apart >= ms(2000) && apart < ms(2005), "{apart:?}");
    }
    w.on_command(
        // The target gets it and is content; the host hears nothing of it.
        |seen| match seen.path == 0 && (seen.is_keep_alive() || seen.is_io()) {
            true => Verdict::Mute,
            false => Verdict::Pass,
        },
    );
    let id = w.submit(0, Op::Write, 0);
    w.expect_ended(&[id], Duration::from_secs(7));
    assert_eq!(w.carried_by(id), Some(1));
    let last = *times(&w).last().unwrap();
    let took = w.ended(id).unwrap().1.saturating_since(last);
    assert!(took >= ms(3990) && took < ms(4010), "{took:?}");
    let error = w.controller(0).last_error.unwrap();
    assert!(error.contains("keep-alive"), "{error}");
    // It is connected again; the other one never was.
    w.sim.run_for(ms(100));
    w.expect_paths(&[(0, T, T, T), (1, F, T, T)]);
    assert_eq!(w.tap.borrow().count(|s| s.path == 1 && s.is_connect()), 2);
}

/// B9.2: a controller that answers each Keep Alive late, but within KATO, is not reset; without KATO none is sent.
#[test]
fn a_slow_answer_to_keep_alive_is_an_answer() {
    let mut w = World::new(851, 1, 1, 0);
    let with = |keep_alive_ms| {
        let mut options = options();
        options.keep_alive_ms = keep_alive_ms;
        options
    };
    w.attach_with(0, with(4000)).unwrap();
    w.sim.network().set_latency(ms(900));
    w.sim.run_for(Duration::from_secs(60));
    assert_eq!(w.controller(0).last_error, None);
    assert_eq!(w.controller(0).state, "enabled");

    let mut w = World::tapped(852, 1, 1, 0);
    w.attach_with(0, with(0)).unwrap();
    w.sim.run_for(Duration::from_secs(60));
    assert_eq!(w.tap.borrow().count(Seen::is_keep_alive), 0);
}

/// B9.2: with a controller that counts all traffic as a sign of life (CTRATT, Traffic Based Keep Alive), none is sent
/// while there is other traffic.
#[test]
fn keep_alive_is_left_out_where_traffic_counts() {
    let mut w = World::tapped(853, 1, 1, 4);
    w.sim.network().set_latency(ms(5));
    w.on_data(|seen, data| {
        if seen.is_identify(0x01) {
            data[96] |= 1 << 6;
        }
    });
    let mut options = options();
    options.keep_alive_ms = 4000;
    w.attach_with(0, options).unwrap();
    w.sim.run_for(Duration::from_secs(10));
    assert_eq!(w.tap.borrow().count(Seen::is_keep_alive), 0);
    *w.on.borrow_mut() = false;
    w.sim.run_for(Duration::from_secs(10));
    assert!(w.tap.borrow().count(Seen::is_keep_alive) >= 4);
}
