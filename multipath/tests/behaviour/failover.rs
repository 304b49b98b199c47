//! Failover mode (rule B12).

use std::time::Duration;

use pollux_multipath::{Mode, Recovery};

use crate::common::{World, addr, options};

/// B12: a name in failover mode has one connection; alternates are addresses only.
#[test]
fn alternates_are_not_connected() {
    let mut w = World::tapped(860, 3, 2, 4);
    let mut failover = options();
    failover.mode = Mode::Failover;
    failover.recovery = Recovery::default();
    failover.recovery.reconnect_delay = Duration::from_secs(3);
    for path in 0..3 {
        w.attach_with(path, failover.clone()).unwrap();
    }
    w.expect_progress(20);
    assert_eq!(w.tap.borrow().count(|s| s.path > 0), 0);
    assert_eq!(w.controllers().len(), 1);
    // The next address at once, not after the reconnect delay; and the one after it as well.
    let start = w.sim.now();
    w.unlisten(1);
    w.unlisten(0);
    w.expect_progress(20);
    assert!(w.sim.now().saturating_since(start) < Duration::from_millis(100));
    assert_eq!(w.controllers()[0].transport.addr, addr(2));
    let alternates: Vec<_> = w.controllers()[0]
        .alternates
        .iter()
        .map(|t| t.addr)
        .collect();
    assert_eq!(alternates, [addr(0), addr(1)]);
    w.finish();
}
