//! Mailbox, sleep and stop, in every order of their steps that the memory model permits (loom). The code is the product's
//! own, `src/mailbox/channel.rs`, compiled here over loom's atomics; beneath it are a queue with the orderings of the
//! product's, and a model of the event descriptor that wakes a reactor.
//!
//! That this finds what it is for is shown by the same code without its fences.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]
#![expect(
    clippy::duplicate_mod,
    reason = "the same code, with its fences and without"
)]

mod checked;
mod ring;
mod sync;
mod unfenced;

use loom::model::Builder;
use loom::thread;

/// Tries all orders, but for those in which threads are interrupted more than `preemptions` times.
fn every_order(preemptions: usize, run: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(run);
}

/// The same cases over the channel with its fences and without.
macro_rules! cases {
    ($channel:path) => {
        use $channel::{Bell, Receiver, mailbox};

        use super::*;
        use crate::sync::{Arc, Waker};

        /// What a reactor does that parks whenever it has nothing to do, until it has received so many or is stopped.
        fn reactor(
            bell: &Bell,
            waker: &Waker,
            receiver: &mut Receiver<u32>,
            wanted: usize,
        ) -> Vec<u32> {
            let mut received = Vec::new();
            while received.len() < wanted && !bell.stop_requested() {
                match receiver.receive() {
                    Some(message) => received.push(message),
                    None => bell.sleep_unless(|| !receiver.is_empty(), || waker.wait()),
                }
            }
            received
        }

        /// A message to a reactor that falls asleep, from a sender that may not know yet whom to wake.
        pub(super) fn a_message_wakes() {
            let (sender, mut receiver) = mailbox(2);
            let waker = Waker::default();
            let sending = thread::spawn(move || sender.send(7).unwrap());
            let bell = Arc::new(Bell::new(waker.clone()));
            receiver.bind(&bell);
            assert_eq!(reactor(&bell, &waker, &mut receiver, 1), [7]);
            sending.join().unwrap();
        }

        /// Messages of two senders, one of which may find the other's wake-up under way.
        pub(super) fn two_messages_wake() {
            let (sender, mut receiver) = mailbox(2);
            let waker = Waker::default();
            let bell = Arc::new(Bell::new(waker.clone()));
            receiver.bind(&bell);
            let other = sender.clone();
            let sending = [(sender, 1), (other, 2)]
                .map(|(sender, message)| thread::spawn(move || sender.send(message).unwrap()));
            let mut received = reactor(&bell, &waker, &mut receiver, 2);
            received.sort_unstable();
            assert_eq!(received, [1, 2]);
            for sending in sending {
                sending.join().unwrap();
            }
        }

        /// What is put elsewhere and then rung for, as the edges of wrapped streams are.
        pub(super) fn a_ring_wakes() {
            let waker = Waker::default();
            let bell = Arc::new(Bell::new(waker.clone()));
            let raised = Arc::new(crate::sync::AtomicBool::new(false));
            let (bell_of_other, raised_by_other) = (bell.clone(), raised.clone());
            let ringing = thread::spawn(move || {
                raised_by_other.store(true, crate::sync::Ordering::Release);
                loom::sync::atomic::fence(crate::sync::Ordering::SeqCst);
                bell_of_other.ring();
            });
            let is_raised = || raised.load(crate::sync::Ordering::Acquire);
            while !is_raised() {
                bell.sleep_unless(is_raised, || waker.wait());
            }
            ringing.join().unwrap();
        }

        /// A stop reaches a reactor wherever it is.
        pub(super) fn a_stop_wakes() {
            let (_sender, mut receiver) = mailbox(2);
            let waker = Waker::default();
            let bell = Arc::new(Bell::new(waker.clone()));
            receiver.bind(&bell);
            let bell_of_other = bell.clone();
            let stopping = thread::spawn(move || bell_of_other.request_stop());
            assert_eq!(reactor(&bell, &waker, &mut receiver, 1), []);
            stopping.join().unwrap();
        }

        /// A message to a reactor that ends is handed back or dropped: whoever waits for an answer learns that none comes.
        pub(super) fn no_message_is_kept_by_the_dead() {
            let (sender, receiver) = mailbox(2);
            let message = std::sync::Arc::new(());
            let witness = message.clone();
            let ending = thread::spawn(move || drop(receiver));
            drop(sender.send(message));
            ending.join().unwrap();
            assert!(sender.is_closed());
            assert_eq!(std::sync::Arc::strong_count(&witness), 1);
        }
    };
}

mod with_fences {
    cases!(crate::checked::channel);
}

mod without_fences {
    cases!(crate::unfenced::channel);
}

#[test]
fn a_message_wakes_a_reactor_that_falls_asleep() {
    every_order(3, with_fences::a_message_wakes);
}

#[test]
fn the_messages_of_two_senders_wake_it() {
    every_order(2, with_fences::two_messages_wake);
}

#[test]
fn an_edge_of_a_wrapped_stream_wakes_it() {
    every_order(3, with_fences::a_ring_wakes);
}

#[test]
fn a_stop_wakes_it() {
    every_order(3, with_fences::a_stop_wakes);
}

#[test]
fn a_mailbox_whose_reactor_ends_keeps_no_message() {
    every_order(3, with_fences::no_message_is_kept_by_the_dead);
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_fences_a_message_can_be_slept_through() {
    every_order(3, without_fences::a_message_wakes);
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_fences_two_messages_can_be_slept_through() {
    every_order(2, without_fences::two_messages_wake);
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_fences_an_edge_can_be_slept_through() {
    every_order(3, without_fences::a_ring_wakes);
}

#[test]
#[should_panic(expected = "left: 2")]
fn without_fences_a_message_can_be_kept_by_the_dead() {
    every_order(3, without_fences::no_message_is_kept_by_the_dead);
}

/// A stop needs no fence: it always rings.
#[test]
fn without_fences_a_stop_wakes_it() {
    every_order(3, without_fences::a_stop_wakes);
}
