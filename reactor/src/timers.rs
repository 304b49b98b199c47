//! Timers of one service.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::time::Time;

/// Names a timer that was set with [`Context::set_timer`](crate::Context::set_timer).
///
/// An id stays unique to its timer: when the timer has fired or was cancelled, the id of a later one is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerId {
    slot: usize,
    serial: u64,
}

#[derive(Debug, Default)]
struct Slot {
    /// Serial number of the timer that holds this slot; `None` when the slot is free.
    serial: Option<u64>,
    token: u64,
}

/// When, in which order among equals, which slot.
type Entry = Reverse<(Time, u64, usize)>;

/// Entries of cancelled timers that may stay in the heap before it is worth cleaning up.
const STALE_MIN: usize = 64;

/// A heap of deadlines. Cancelling frees the slot and leaves the heap entry behind, to be skipped when it comes up: cheap,
/// because most timers of a protocol are cancelled and set anew long before they are due.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Entry>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    next_serial: u64,
}

impl Timers {
    pub(crate) fn set(&mut self, at: Time, token: u64) -> TimerId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        let serial = self.next_serial;
        self.next_serial += 1;
        self.slots[slot] = Slot {
            serial: Some(serial),
            token,
        };
        self.heap.push(Reverse((at, serial, slot)));
        TimerId { slot, serial }
    }

    /// False if the timer has fired or was cancelled before.
    pub(crate) fn cancel(&mut self, id: TimerId) -> bool {
        if !holds(&self.slots, id.slot, id.serial) {
            return false;
        }
        self.release(id.slot);
        let live = self.slots.len() - self.free.len();
        if self.heap.len() > 2 * live + STALE_MIN {
            let slots = &self.slots;
            self.heap
                .retain(|&Reverse((_, serial, slot))| holds(slots, slot, serial));
        }
        true
    }

    /// Takes the token of the earliest timer that is due; equal times in the order in which they were set.
    #[inline]
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<u64> {
        // Nothing is due before the first entry, whether its timer was cancelled or not.
        let Reverse((first, _, _)) = self.heap.peek()?;
        if *first > now || self.next_deadline()? > now {
            return None;
        }
        let Reverse((_, _, slot)) = self.heap.pop()?;
        let token = self.slots[slot].token;
        self.release(slot);
        Some(token)
    }

    /// When the next timer is due.
    pub(crate) fn next_deadline(&mut self) -> Option<Time> {
        while let Some(&Reverse((at, serial, slot))) = self.heap.peek() {
            if holds(&self.slots, slot, serial) {
                return Some(at);
            }
            self.heap.pop();
        }
        None
    }

    fn release(&mut self, slot: usize) {
        self.slots[slot].serial = None;
        self.free.push(slot);
    }
}

fn holds(slots: &[Slot], slot: usize, serial: u64) -> bool {
    slots
        .get(slot)
        .is_some_and(|held| held.serial == Some(serial))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn at(nanos: u64) -> Time {
        Time::from_nanos(nanos)
    }

    fn due(timers: &mut Timers, now: u64) -> Vec<u64> {
        std::iter::from_fn(|| timers.pop_due(at(now))).collect()
    }

    #[test]
    fn fire_in_order_of_time_then_of_setting() {
        let mut timers = Timers::default();
        for (time, token) in [(30, 1), (10, 2), (20, 3), (10, 4), (40, 5)] {
            timers.set(at(time), token);
        }
        assert_eq!(timers.next_deadline(), Some(at(10)));
        assert_eq!(due(&mut timers, 9), [0; 0]);
        assert_eq!(due(&mut timers, 30), [2, 4, 3, 1]);
        assert_eq!(due(&mut timers, 39), [0; 0]);
        assert_eq!(due(&mut timers, 1_000), [5]);
        assert_eq!(timers.next_deadline(), None);
    }

    #[test]
    fn cancelled_timers_do_not_fire() {
        let mut timers = Timers::default();
        let first = timers.set(at(10), 1);
        timers.set(at(20), 2);
        assert!(timers.cancel(first));
        assert!(!timers.cancel(first));
        assert_eq!(timers.next_deadline(), Some(at(20)));
        assert_eq!(due(&mut timers, 100), [2]);
    }

    #[test]
    fn an_old_id_does_not_touch_the_timer_that_reuses_its_slot() {
        let mut timers = Timers::default();
        let cancelled = timers.set(at(10), 1);
        timers.cancel(cancelled);
        let fired = timers.set(at(10), 2);
        assert_eq!(cancelled.slot, fired.slot);
        assert!(!timers.cancel(cancelled));
        assert_eq!(due(&mut timers, 10), [2]);
        timers.set(at(10), 3);
        assert!(!timers.cancel(fired));
        assert_eq!(due(&mut timers, 10), [3]);
    }

    #[test]
    fn setting_and_cancelling_for_ever_keeps_the_heap_small() {
        let mut timers = Timers::default();
        let keep = timers.set(at(1), 0);
        for n in 0..10_000 {
            let id = timers.set(at(1_000_000 + n), n);
            assert!(timers.cancel(id));
        }
        assert!(timers.heap.len() <= 2 + STALE_MIN, "{}", timers.heap.len());
        assert!(timers.cancel(keep));
    }

    #[test]
    fn agrees_with_a_sorted_list() {
        for seed in 0..20 {
            let mut rng = Rng::seeded(seed);
            let mut timers = Timers::default();
            let mut oracle: Vec<(Time, u64, TimerId)> = Vec::new();
            let mut now = 0;
            for token in 0..500 {
                match rng.below(4) {
                    0 | 1 => {
                        let time = at(now + rng.below(50));
                        let id = timers.set(time, token);
                        oracle.push((time, token, id));
                    }
                    2 if !oracle.is_empty() => {
                        let n = u64::try_from(oracle.len()).unwrap();
                        let (_, _, id) = oracle.remove(usize::try_from(rng.below(n)).unwrap());
                        assert!(timers.cancel(id));
                    }
                    _ => {
                        now += rng.below(20);
                        // Stable, and tokens grow: equal times keep the order of setting.
                        oracle.sort_by_key(|&(time, _, _)| time);
                        let split = oracle.partition_point(|&(time, _, _)| time <= at(now));
                        let expected: Vec<u64> =
                            oracle.drain(..split).map(|(_, token, _)| token).collect();
                        assert_eq!(due(&mut timers, now), expected, "seed {seed}");
                    }
                }
            }
        }
    }
}
