//! The rings of a queue, in every order of their steps that the memory model permits (loom). The code is the product's own,
//! `src/queue/rings.rs`, compiled here over loom's atomics; beneath it are a ring with the orderings of the product's, and
//! loom's model of a waker that is set and taken. The way to the reactor, and how that is woken, are the mailbox's, which
//! `reactor/tests/wake_up` tries.
//!
//! That this finds what it is for is shown by the same code without its fences.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]
#![expect(unsafe_code, reason = "an end is written and taken without a lock")]
#![expect(
    clippy::duplicate_mod,
    reason = "the same code, with its fences and without"
)]

mod checked;
#[path = "../../../reactor/tests/wake_up/ring.rs"]
mod ring;
mod sync;
mod unfenced;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

use loom::future::block_on;
use loom::model::Builder;
use loom::thread;

/// Tries all orders, but for those in which threads are interrupted more than `preemptions` times.
fn every_order(preemptions: usize, run: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(run);
}

/// The end of an I/O, whose drop can be seen.
type End = Arc<u32>;

/// The same cases over the rings with their fences and without.
macro_rules! cases {
    ($rings:path) => {
        use $rings::*;

        use super::*;

        /// Ends an I/O that is taken in turn, as a reactor does at the end of a turn.
        fn end_in_turn(rings: &Rings<End>, place: u16, end: End) {
            // SAFETY: each I/O of these cases ends once.
            unsafe { rings.write(place, end) };
            rings.put(&[place], &mut Waker::wake);
        }

        /// The taker of ends sleeps, and is woken for each.
        pub(super) fn the_taker_is_woken() {
            let rings = Arc::new(Rings::<End>::new(2));
            let places = [0; 2].map(|_| rings.take_place().unwrap().place);
            let reactor = {
                let rings = Arc::clone(&rings);
                thread::spawn(move || {
                    for (place, n) in places.into_iter().zip(1..) {
                        end_in_turn(&rings, place, Arc::new(n));
                    }
                })
            };
            for n in 1..=2 {
                let end = block_on(poll_fn(|cx| {
                    match rings.take_or_wait(cx.waker(), &mut Waker::wake) {
                        Some(end) => Poll::Ready(end),
                        None => Poll::Pending,
                    }
                }));
                assert_eq!(*end, n);
            }
            reactor.join().unwrap();
            assert!(rings.take_place().is_some() && rings.take_place().is_some());
        }

        /// What has ended in one turn is told at once, and comes in order.
        pub(super) fn the_taker_is_told_of_all() {
            let rings = Arc::new(Rings::<End>::new(2));
            let places = [0; 2].map(|_| rings.take_place().unwrap().place);
            let reactor = {
                let rings = Arc::clone(&rings);
                thread::spawn(move || {
                    for (place, n) in places.into_iter().zip(1..) {
                        // SAFETY: each I/O of these cases ends once.
                        unsafe { rings.write(place, Arc::new(n)) };
                    }
                    rings.put(&places, &mut Waker::wake);
                })
            };
            for n in 1..=2 {
                let end = block_on(poll_fn(|cx| {
                    match rings.take_or_wait(cx.waker(), &mut Waker::wake) {
                        Some(end) => Poll::Ready(end),
                        None => Poll::Pending,
                    }
                }));
                assert_eq!(*end, n);
            }
            reactor.join().unwrap();
        }

        /// A taker that goes while an I/O ends leaves nothing behind.
        pub(super) fn nothing_is_kept_for_a_taker_that_has_gone() {
            let rings = Arc::new(Rings::<End>::new(2));
            let place = rings.take_place().unwrap().place;
            let end = Arc::new(1);
            let reactor = {
                let (rings, end) = (Arc::clone(&rings), Arc::clone(&end));
                thread::spawn(move || end_in_turn(&rings, place, end))
            };
            rings.taker_goes(&mut Waker::wake);
            reactor.join().unwrap();
            assert_eq!(Arc::strong_count(&end), 1);
            assert!(rings.take_place().is_some() && rings.take_place().is_some());
        }

        /// An I/O that is awaited by itself, and after it another one at the same place, whose waker the first one's
        /// reactor may still be at.
        pub(super) fn a_future_is_woken() {
            let rings = Arc::new(Rings::<End>::new(2));
            // The other place stays taken.
            rings.take_place().unwrap();
            let (sender, receiver) = loom::sync::mpsc::channel();
            let reactor = {
                let rings = Arc::clone(&rings);
                thread::spawn(move || {
                    for n in 1..=2 {
                        let place = receiver.recv().unwrap();
                        // SAFETY: each I/O of these cases ends once.
                        unsafe { rings.write(place, Arc::new(n)) };
                        if let Some(waker) = rings.end(place) {
                            waker.wake();
                        }
                    }
                })
            };
            for n in 1..=2 {
                let ticket = rings.take_place().unwrap();
                assert_eq!(ticket.turn, n - 1);
                sender.send(ticket.place).unwrap();
                let end = block_on(poll_fn(|cx| {
                    match rings.take_end(ticket.place, cx.waker()) {
                        Some(end) => Poll::Ready(end),
                        None => Poll::Pending,
                    }
                }));
                assert_eq!(*end, n);
            }
            reactor.join().unwrap();
        }

        /// Ends an I/O that is awaited by itself, as a reactor does at the end of a turn.
        fn end_awaited(rings: &Rings<End>, place: u16, end: End) {
            // SAFETY: each I/O of these cases ends once.
            unsafe { rings.write(place, end) };
            if !rings.put_awaited(&[place], &mut Waker::wake)
                && let Some(waker) = rings.end(place)
            {
                waker.wake();
            }
        }

        /// One task hands over what another awaits; here they are one, which is woken as the first.
        pub(super) fn an_awaited_end_is_handed_over() {
            let rings = Arc::new(Rings::<End>::new(2));
            rings.deliver();
            let place = rings.take_place().unwrap().place;
            let reactor = {
                let rings = Arc::clone(&rings);
                thread::spawn(move || end_awaited(&rings, place, Arc::new(7)))
            };
            let end = block_on(poll_fn(|cx| {
                let in_turn = rings.take_or_wait(cx.waker(), &mut Waker::wake);
                assert!(in_turn.is_none());
                match rings.take_end(place, cx.waker()) {
                    Some(end) => Poll::Ready(end),
                    None => Poll::Pending,
                }
            }));
            assert_eq!(*end, 7);
            reactor.join().unwrap();
        }

        /// Whoever hands over goes while an I/O ends that is awaited: it is handed over all the same.
        pub(super) fn an_awaited_end_is_not_lost_with_who_hands_over() {
            let rings = Arc::new(Rings::<End>::new(2));
            rings.deliver();
            let place = rings.take_place().unwrap().place;
            let reactor = {
                let rings = Arc::clone(&rings);
                thread::spawn(move || end_awaited(&rings, place, Arc::new(7)))
            };
            rings.taker_goes(&mut Waker::wake);
            reactor.join().unwrap();
            assert!(rings.has_ended(place));
        }

        /// A future that is dropped while its I/O ends: the end is dropped once, and its place is free once.
        pub(super) fn a_future_is_dropped() {
            let rings = Arc::new(Rings::<End>::new(2));
            rings.take_place().unwrap();
            let place = rings.take_place().unwrap().place;
            let end = Arc::new(1);
            let reactor = {
                let (rings, end) = (Arc::clone(&rings), Arc::clone(&end));
                thread::spawn(move || {
                    // SAFETY: each I/O of these cases ends once.
                    unsafe { rings.write(place, end) };
                    assert!(rings.end(place).is_none());
                })
            };
            rings.drop_end(place);
            reactor.join().unwrap();
            assert_eq!(Arc::strong_count(&end), 1);
            assert!(rings.take_place().is_some());
            assert!(rings.take_place().is_none());
        }
    };
}

mod with_fences {
    cases!(crate::checked::rings);
}

mod without_fences {
    cases!(crate::unfenced::rings);
}

#[test]
fn the_taker_is_woken_for_what_has_ended() {
    every_order(3, with_fences::the_taker_is_woken);
    every_order(3, with_fences::the_taker_is_told_of_all);
}

#[test]
fn a_taker_that_goes_leaves_nothing_behind() {
    every_order(3, with_fences::nothing_is_kept_for_a_taker_that_has_gone);
}

#[test]
fn a_future_is_woken_when_its_io_has_ended() {
    every_order(3, with_fences::a_future_is_woken);
}

#[test]
fn an_awaited_end_is_handed_over_as_long_as_somebody_does_that() {
    every_order(3, with_fences::an_awaited_end_is_handed_over);
    every_order(
        3,
        with_fences::an_awaited_end_is_not_lost_with_who_hands_over,
    );
}

#[test]
#[should_panic(expected = "has_ended")]
fn without_fences_an_awaited_end_is_lost_with_who_hands_over() {
    every_order(
        3,
        without_fences::an_awaited_end_is_not_lost_with_who_hands_over,
    );
}

#[test]
fn a_future_that_is_dropped_leaves_its_place_free_once() {
    every_order(3, with_fences::a_future_is_dropped);
}

#[test]
#[should_panic(expected = "left: 2")]
fn without_fences_an_end_is_kept_for_a_taker_that_has_gone() {
    every_order(3, without_fences::nothing_is_kept_for_a_taker_that_has_gone);
}

/// Those that need no fence, as the order of a waker's own steps is enough.
#[test]
fn without_fences_wakers_are_called() {
    every_order(3, without_fences::the_taker_is_woken);
    every_order(3, without_fences::the_taker_is_told_of_all);
    every_order(3, without_fences::an_awaited_end_is_handed_over);
    every_order(3, without_fences::a_future_is_woken);
    every_order(3, without_fences::a_future_is_dropped);
}
