//! Limits of volumes: how fast one may be used, by all reactors and over all paths together, and what becomes of what waits.

use std::sync::mpsc;
use std::time::Duration;

use pollux_multipath::{Aborting, HostRequest, IoError, Op};
use pollux_nvme_tcp::rate_limit::RateLimits;
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_nvme_tcp::spec::status::Status;

use crate::common::{World, options};

fn world(seed: u64) -> World {
    let mut w = World::new(seed, 2, 2, 0);
    for path in 0..2 {
        w.attach_with(path, options()).unwrap();
    }
    w
}

fn limit(w: &mut World, limits: RateLimits) {
    let (tell, told) = mpsc::channel();
    let volume = w.status()[0].name.clone();
    w.request(HostRequest::SetRateLimits {
        volume,
        change: limits.into(),
        reply: Box::new(move |answer| drop(tell.send(answer))),
    });
    w.wait(told).unwrap();
    assert_eq!(w.status()[0].limits, limits);
}

fn ended(w: &World, ids: &[u64]) -> usize {
    let ended = ids.iter().filter_map(|&id| w.ended(id));
    let succeeded = ended.map(|(result, _)| result.unwrap());
    succeeded.count()
}

#[test]
fn a_limit_holds_over_reactors_and_paths_and_changes_at_once() {
    let mut w = world(2700);
    limit(&mut w, RateLimits::default().with_ios(100));
    let ids: Vec<u64> = (0..800)
        .map(|n| {
            w.submit(
                n % 2,
                if n < 400 { Op::Read } else { Op::Write },
                n as u64 % 8,
            )
        })
        .collect();
    w.sim.run_for(Duration::from_millis(500));
    let before = ended(&w, &ids);
    w.sim.run_for(Duration::from_secs(1));
    w.ana(0, AnaState::INACCESSIBLE);
    w.sim.run_for(Duration::from_secs(1));
    let (after, wanted) = (ended(&w, &ids) - before, 200);
    assert!(after.abs_diff(wanted) * 100 <= 2 * wanted, "{after} in 2 s");
    let waiting: usize = w.status()[0].reactors.iter().map(|r| r.waiting).sum();
    assert!(waiting > 500, "{waiting}");
    limit(&mut w, RateLimits::default());
    w.expect_ended(&ids, Duration::from_millis(100));
    assert_eq!(ended(&w, &ids), 800);
}

#[test]
fn what_waits_for_a_limit_is_aborted_overdue_and_removed_in_time() {
    let mut w = world(2701);
    limit(&mut w, RateLimits::default().with_ios(1));
    // One goes, and pays for the next second.
    assert_eq!(w.io(0, Op::Read, 0), Ok(()));
    let first = w.submit(0, Op::Write, 1);
    let aborted = w.submit(0, Op::Write, 2);
    w.sim.run_for(Duration::from_millis(1));
    assert_eq!(w.abort(0, aborted), Aborting::Ended);
    w.expect_ended(&[aborted], Duration::from_millis(1));
    let result = w.ended(aborted).unwrap().0;
    assert_eq!(result, Err(IoError::Status(Status::ABORTED_BY_REQUEST)));
    w.hand.borrow_mut().limit = Some(Duration::from_millis(50));
    let overdue = w.submit(0, Op::Write, 3);
    w.expect_ended(&[overdue], Duration::from_millis(55));
    assert_eq!(w.ended(overdue).unwrap().0, Err(IoError::Deadline));
    w.hand.borrow_mut().limit = None;
    let last = w.submit(1, Op::Write, 4);
    w.sim.run_for(Duration::from_millis(1));
    assert!(w.ended(first).is_none() && w.ended(last).is_none());
    w.detach(None).unwrap();
    w.expect_ended(&[first, last], Duration::from_millis(1));
    for id in [first, last] {
        assert_eq!(w.ended(id).unwrap().0, Err(IoError::Removed));
    }
}
