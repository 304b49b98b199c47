//! Layers on layers.

use std::time::Duration;

use pollux_nvme_tcp::spec::opcode::nvm;
use pollux_nvme_tcp::spec::pdu::PduType;
use pollux_nvme_tcp::spec::status::Status;
use serde_json::json;

use crate::world::{SLACK, World, bring, pattern, read, write};

const READ: Duration = Duration::from_millis(20);
const WRITE: Duration = Duration::from_millis(50);

/// A delay over errors over memory.
fn delay_over_errors() -> World {
    World::new(|w| {
        let base = w.malloc("Malloc0");
        let errors = w.error_disk(&base);
        vec![w.delay("Delay0", &errors, 20_000, 50_000)]
    })
}

fn is_about(took: Duration, expected: Duration) -> bool {
    (expected..expected + SLACK).contains(&took)
}

#[test]
fn an_error_below_a_delay_is_late() {
    let mut w = delay_over_errors();
    let (_admin, mut io) = w.connect(true);
    w.inject("EE_Malloc0", "all", "failure", json!({}));
    for (sqe, late) in [
        (read(1, 0, 1), READ),
        (write(1, 0, 1), WRITE),
        (bring(nvm::WRITE, 1, 0, 1, false), WRITE),
    ] {
        w.inject("EE_Malloc0", "all", "failure", json!({}));
        let (status, took) = w.timed(&mut io, sqe, &[1; 512]);
        assert_eq!(status, Status::INTERNAL_ERROR);
        assert!(is_about(took, late), "{took:?}");
    }
    w.inject("EE_Malloc0", "clear", "failure", json!({}));
    // Without memory at first: one delay, and the wait.
    w.inject("EE_Malloc0", "read", "nomem", json!({"num": 2}));
    let (status, took) = w.timed(&mut io, read(1, 0, 1), &[]);
    assert!(status.is_success() && is_about(took, READ + Duration::from_millis(2)));
    // Changed data is late like any other.
    let corrupt = json!({"corrupt_offset": 3, "corrupt_value": 9});
    w.inject("EE_Malloc0", "read", "corrupt_data", corrupt.clone());
    let start = w.now();
    assert_eq!(io.read(1, 0, 1).unwrap()[..5], [0, 0, 0, 9, 0]);
    assert!(is_about(w.now() - start, READ));
    w.inject("EE_Malloc0", "write", "corrupt_data", corrupt);
    let sqe = bring(nvm::WRITE, 1, 0, 1, false);
    let (status, took) = w.timed(&mut io, sqe, &[4; 512]);
    assert!(status.is_success() && is_about(took, WRITE));
    assert_eq!(io.read(1, 0, 1).unwrap()[..5], [4, 4, 4, 13, 4]);
}

#[test]
fn an_error_above_a_delay_is_not_late() {
    let mut w = World::new(|w| {
        let base = w.malloc("Malloc0");
        let delay = w.delay("Delay0", &base, 20_000, 50_000);
        vec![w.error_disk(&delay)]
    });
    let (_admin, mut io) = w.connect(false);
    w.inject("EE_Delay0", "read", "failure", json!({}));
    let (status, took) = w.timed(&mut io, read(1, 0, 1), &[]);
    assert!(!status.is_success() && took < SLACK);
    let (status, took) = w.timed(&mut io, read(1, 0, 1), &[]);
    assert!(status.is_success() && is_about(took, READ));
}

#[test]
fn delays_add_up() {
    let mut w = World::new(|w| {
        let base = w.malloc("Malloc0");
        let low = w.delay("Low", &base, 1_000, 2_000);
        vec![w.delay("High", &low, 30_000, 40_000)]
    });
    let (_admin, mut io) = w.connect(false);
    let took = w.timed(&mut io, read(1, 0, 1), &[]).1;
    assert!(is_about(took, Duration::from_millis(31)), "{took:?}");
    let took = w.timed(&mut io, write(1, 0, 1), &[1; 512]).1;
    assert!(is_about(took, Duration::from_millis(42)), "{took:?}");
}

#[test]
fn what_was_pending_below_a_delay_is_late_from_then_on() {
    let mut w = delay_over_errors();
    let (mut admin, mut io) = w.connect(false);
    let data = pattern(512, 1);
    w.inject("EE_Malloc0", "all", "pending", json!({}));
    let reading = io.submit(read(1, 0, 1), &[]);
    let writing = io.submit(bring(nvm::WRITE, 1, 5, 1, false), &[]);
    let r2t = io.receive();
    assert_eq!(r2t.frame.pdu_type, PduType::R2T);
    assert_eq!(io.answer_r2t(&r2t, &data), writing);
    assert!(io.receive_within(Duration::from_secs(9)).is_none());
    let start = w.now();
    w.call("bdev_error_resume_pending", json!({"name": "EE_Malloc0"}));
    assert!(io.finish(reading, &[]).0.status().is_success());
    assert!(is_about(w.now() - start, READ));
    // It is in its delay now; an abort finds it done.
    assert!(w.abort(&mut admin, writing));
    let (cqe, _) = io.finish(writing, &[]);
    assert_eq!(cqe.status(), Status::ABORTED_BY_REQUEST);
    assert_eq!(io.read(1, 5, 1).unwrap(), data);
}

#[test]
fn two_layers_of_errors_hold_one_after_the_other() {
    let mut w = World::new(|w| {
        let base = w.malloc("Malloc0");
        let low = w.error_disk(&base);
        vec![w.error_disk(&low)]
    });
    let (_admin, mut io) = w.connect(false);
    w.inject("EE_Malloc0", "read", "pending", json!({}));
    w.inject("EE_EE_Malloc0", "read", "pending", json!({}));
    let held = io.submit(read(1, 0, 1), &[]);
    // The lower one does not have it yet.
    w.call("bdev_error_resume_pending", json!({"name": "EE_Malloc0"}));
    assert!(io.receive_within(SLACK).is_none());
    w.call(
        "bdev_error_resume_pending",
        json!({"name": "EE_EE_Malloc0"}),
    );
    assert!(io.receive_within(SLACK).is_none());
    w.call("bdev_error_resume_pending", json!({"name": "EE_Malloc0"}));
    assert!(io.finish(held, &[]).0.status().is_success());
}
