//! Faults that are injected into I/O: they end as if the controller had said so, and wherever an I/O that is held back
//! is, it can be aborted, has a deadline, and goes elsewhere with its connection.

use std::sync::mpsc;
use std::time::Duration;

use pollux_multipath::{
    Aborting, ControllerChange, FaultChange, HostRequest, InjectedFault, IoError, Op,
};
use pollux_nvme_tcp::spec::opcode::nvm;
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::testing::Seen;

use crate::common::{World, options};

const HELD: Duration = Duration::from_millis(500);

/// Two paths; the first is preferred.
fn world(seed: u64) -> World {
    let mut w = World::tapped(seed, 2, 1, 0);
    for path in 0..2 {
        w.attach_with(path, options()).unwrap();
    }
    w
}

fn inject(w: &mut World, change: FaultChange) {
    let (sender, answer) = mpsc::channel();
    w.request(HostRequest::Fault {
        name: "Nvme0".into(),
        admin: false,
        change,
        reply: Box::new(move |answer| sender.send(answer).unwrap()),
    });
    assert_eq!(w.wait(answer), Ok(()));
}

fn reads(count: u32, status: Status, held_for: Option<Duration>) -> FaultChange {
    let mut fault = InjectedFault::new(nvm::READ, count, status);
    fault.held_for = held_for;
    FaultChange::Add(fault)
}

fn sent(w: &World) -> usize {
    w.tap.borrow().count(Seen::is_read)
}

/// B6: an injected status is a status like any other: it is retried as often as the limit says, and told then.
#[test]
fn an_injected_status_is_treated_as_the_controllers() {
    let mut w = world(2500);
    inject(&mut w, reads(2, Status::INTERNAL_ERROR, None));
    assert_eq!(w.io(0, Op::Read, 0), Ok(()));
    assert_eq!(sent(&w), 3);
    assert_eq!(w.io(0, Op::Read, 0), Ok(()), "both are used up");
    assert_eq!(sent(&w), 4);

    inject(&mut w, reads(4, Status::INTERNAL_ERROR, None));
    let error = IoError::Status(Status::INTERNAL_ERROR);
    assert_eq!(w.io(0, Op::Read, 0), Err(error));
    assert_eq!(sent(&w), 8);
    assert_eq!(w.io(0, Op::Write, 0), Ok(()), "of another opcode");

    inject(&mut w, reads(4, Status::INTERNAL_ERROR, None));
    inject(&mut w, FaultChange::Remove(nvm::READ));
    assert_eq!(w.io(0, Op::Read, 0), Ok(()));
    assert_eq!(sent(&w), 9);
}

/// B6, B13.1: what is held back is outstanding on its path, is not sent, and ends with its status when its time has
/// come.
#[test]
fn what_is_held_back_is_not_sent() {
    let mut w = world(2501);
    inject(&mut w, reads(1, Status::ABORTED_BY_REQUEST, Some(HELD)));
    let start = w.sim.now();
    let id = w.submit(0, Op::Read, 0);
    w.sim.run_for(HELD / 2);
    assert_eq!(sent(&w), 0);
    let outstanding = |w: &mut World| w.status()[0].reactors[0].paths[0].outstanding;
    assert_eq!(outstanding(&mut w), 1);
    w.expect_ended(&[id], Duration::from_secs(1));
    let (result, at) = w.ended(id).unwrap();
    assert_eq!(result, Err(IoError::Status(Status::ABORTED_BY_REQUEST)));
    let took = at.saturating_since(start);
    assert!(took >= HELD && took < HELD + HELD / 10, "{took:?}");
    assert_eq!((sent(&w), outstanding(&mut w)), (0, 0));
}

/// B9.3: what is held back is with no controller: it ends at once when it is aborted, and at its deadline.
#[test]
fn what_is_held_back_can_be_aborted_and_has_a_deadline() {
    let mut w = world(2502);
    let hour = Duration::from_secs(3600);
    inject(&mut w, reads(2, Status::INTERNAL_ERROR, Some(hour)));
    let id = w.submit(0, Op::Read, 0);
    w.sim.run_for(Duration::from_millis(1));
    assert_eq!(w.abort(0, id), Aborting::Ended);
    w.hand.borrow_mut().limit = Some(HELD);
    let id = w.submit(0, Op::Read, 0);
    w.expect_ended(&[id], HELD * 2);
    assert_eq!(w.ended(id).unwrap().0, Err(IoError::Deadline));
    assert_eq!(sent(&w), 0);
    assert_eq!(w.tap.borrow().count(Seen::is_abort), 0);
}

/// B6, B8.1: what is held back goes by another path when its connection ends, and the connection that follows has no
/// faults injected.
#[test]
fn what_is_held_back_goes_elsewhere_with_its_connection() {
    let mut w = world(2503);
    let hour = Duration::from_secs(3600);
    // One for each path: the other path's is used up first.
    inject(&mut w, reads(1, Status::INTERNAL_ERROR, Some(hour)));
    w.detach(Some(1)).unwrap();
    w.attach_with(1, options()).unwrap();
    let id = w.submit(0, Op::Read, 0);
    w.sim.run_for(Duration::from_millis(1));
    assert_eq!((w.ended(id), sent(&w)), (None, 0));
    let cntlid = w.controller(0).cntlid;
    w.change(Some(cntlid), ControllerChange::Reset).unwrap();
    w.expect_ended(&[id], Duration::from_secs(1));
    assert_eq!(w.ended(id).unwrap().0, Ok(()));
    assert_eq!(w.carried_by(id), Some(1));
    w.sim.run_for(Duration::from_secs(1));
    let next = w.submit(0, Op::Read, 0);
    w.expect_ended(&[next], Duration::from_secs(1));
    assert_eq!(w.carried_by(next), Some(0));
}
