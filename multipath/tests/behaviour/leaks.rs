//! What is left after a detach: nothing (rule B11).
#![expect(unsafe_code, reason = "a counting allocator cannot be had without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use pollux_multipath::{ControllerChange, HostError, Op};
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::testing::Verdict;
use pollux_reactor::Progress;

use crate::common::{World, addr, options};

thread_local! {
    /// Bytes that this thread holds; a simulation is one thread.
    static HELD: Cell<isize> = const { Cell::new(0) };
}

fn hold(bytes: isize) {
    // Threads that end free memory after their own cell is gone.
    let _ = HELD.try_with(|held| held.set(held.get() + bytes));
}

fn size(layout: Layout) -> isize {
    isize::try_from(layout.size()).unwrap_or(isize::MAX)
}

struct Counting;

// SAFETY: every call goes to the system allocator unchanged; the counter is a plain thread-local cell that
// neither allocates nor unwinds. Held by every test in this binary.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        hold(size(layout));
        // SAFETY: the caller's contract is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new: usize) -> *mut u8 {
        hold(isize::try_from(new).unwrap_or(isize::MAX) - size(layout));
        // SAFETY: the caller's contract is passed on.
        unsafe { System.realloc(pointer, layout, new) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        hold(-size(layout));
        // SAFETY: the caller's contract is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Steps until nothing will ever happen again by itself; fails if something is still to come.
fn expect_stillness(w: &mut World) {
    // What was closed is heard of by the other side.
    w.sim.run_for(Duration::from_secs(120));
    for _ in 0..100 {
        let progress = w.sim.step();
        assert_eq!(progress, Progress::Idle, "a timer or a byte is left");
    }
}

/// B11: after everything was detached no connection and no timer is left, whatever state the controllers were in.
#[test]
fn no_connection_and_no_timer_is_left() {
    type Before = fn(&mut World);
    let states: [(&str, Before); 6] = [
        ("live", |_| {}),
        ("ANATT runs", |w| w.ana(0, AnaState::INACCESSIBLE)),
        ("reconnecting", |w| w.unlisten(0)),
        ("connecting to silence", |w| {
            w.sim.network().black_hole(addr(0), true);
            w.sim.network().sever(addr(0));
            w.sim.run_for(Duration::from_millis(50));
        }),
        ("a retry waits", |w| {
            w.on_command(|seen| match seen.is_io() {
                true => Verdict::Answer(Status::INTERNAL_ERROR.with_crd(1)),
                false => Verdict::Pass,
            });
            w.submit(0, Op::Read, 0);
            w.sim.run_for(Duration::from_millis(5));
        }),
        ("disabled", |w| {
            w.change(None, ControllerChange::Disable).unwrap();
        }),
    ];
    for (what, before) in states {
        let mut w = World::tapped(1100, 2, 2, 0);
        for path in 0..2 {
            w.attach(path);
        }
        before(&mut w);
        w.detach(None).unwrap();
        w.sim.network().black_hole(addr(0), false);
        expect_stillness(&mut w);
        assert_eq!(w.tap.borrow().open, 0, "{what}");
        assert!(w.status().is_empty() && w.controllers().is_empty());
    }
}

/// B11, B1.4: so it is after attaches that failed.
#[test]
fn nothing_is_left_of_an_attach_that_failed() {
    let mut w = World::tapped(1101, 2, 2, 0);
    w.unlisten(0);
    let refused = w.attach_with(0, options());
    assert!(matches!(refused, Err(HostError::Connect { .. })));
    w.sim.network().black_hole(addr(1), true);
    assert!(w.attach_with(1, options()).is_err());
    w.sim.network().black_hole(addr(1), false);
    expect_stillness(&mut w);
    assert_eq!(w.tap.borrow().open, 0);
    assert!(w.status().is_empty() && w.controllers().is_empty());
}

/// One life of a name with two paths, with some events in it.
fn live(w: &mut World) -> (String, String) {
    *w.on.borrow_mut() = true;
    let attached = w.attach(0);
    w.attach(1);
    w.expect_progress(20);
    w.ana(0, AnaState::INACCESSIBLE);
    w.sim.network().sever(addr(1));
    w.expect_progress(20);
    w.ana(0, AnaState::OPTIMIZED);
    w.finish();
    let controller = w.controller(1).controller;
    w.detach(None).unwrap();
    (
        format!("{:?}", attached.volumes[0].id),
        format!("{controller:?}"),
    )
}

/// Lives of a name, one after the other, and the time for all that ends with time.
fn lives(w: &mut World, count: usize) -> Vec<(String, String)> {
    let lives = (0..count).map(|_| live(w)).collect();
    w.sim.run_for(Duration::from_secs(60));
    lives
}

/// B11: places in the tables are used again, by volumes and controllers that are not mistaken for their predecessors,
/// and memory does not grow.
#[test]
fn places_and_memory_are_used_again() {
    const LIVES: usize = 100;
    let mut w = World::new(1102, 2, 2, 4);
    // Whatever grows with the most that there ever was has grown then.
    drop(lives(&mut w, LIVES));
    let before = HELD.get();
    let names = lives(&mut w, LIVES);
    let mut seen = std::collections::BTreeSet::new();
    for (volume, controller) in &names {
        assert!(volume.contains("slot: 0"), "{volume}");
        assert!(controller.contains("slot: 1"), "{controller}");
        assert!(seen.insert(volume) && seen.insert(controller));
    }
    drop(seen);
    drop(names);
    // Notifications are kept, of which each life makes two. A queue pair or a controller would be far more.
    let grown = HELD.get() - before;
    let allowed = isize::try_from(LIVES * 500).unwrap();
    assert!(grown < allowed, "{grown} bytes more after {LIVES} lives");
}

/// B11: detaching one address removes that path on every reactor and fails its I/O over, none ends with an error.
#[test]
fn a_detached_path_hands_its_io_over() {
    let mut w = World::tapped(1103, 3, 3, 0);
    for path in 0..3 {
        w.attach(path);
    }
    w.on_command(|seen| match seen.path == 0 && seen.is_io() {
        true => Verdict::Lose,
        false => Verdict::Pass,
    });
    let ids: Vec<_> = (0..3)
        .map(|reactor| w.submit(reactor, Op::Write, 0))
        .collect();
    w.sim.run_for(Duration::from_millis(5));
    w.detach(Some(0)).unwrap();
    w.expect_ended(&ids, Duration::from_millis(10));
    for id in ids {
        assert_eq!(w.ended(id).unwrap().0, Ok(()));
        assert_eq!(w.carried_by(id), Some(1));
    }
    w.expect_paths(&[(1, true, true, true), (2, false, true, true)]);
}
