//! The bounded lock-free queue under every mailbox.

use crossbeam_queue::ArrayQueue;

/// A bounded queue, many producers and many consumers, first in first out.
///
/// Everything that crosses threads goes through this type, so a model checker, which needs its own atomics, has one
/// type to replace.
#[derive(Debug)]
pub(crate) struct Ring<T> {
    queue: ArrayQueue<T>,
}

impl<T> Ring<T> {
    /// A ring for `capacity` values; the least is 1.
    pub(crate) fn new(capacity: usize) -> Ring<T> {
        Ring {
            queue: ArrayQueue::new(capacity.max(1)),
        }
    }

    /// Appends `value`, or gives it back when the ring is full.
    pub(crate) fn push(&self, value: T) -> Result<(), T> {
        self.queue.push(value)
    }

    /// Takes the oldest value.
    #[inline]
    pub(crate) fn pop(&self) -> Option<T> {
        // A mailbox is looked at in every turn and is mostly empty: two loads say so, and the queue's own answer costs a
        // fence on top.
        if self.queue.is_empty() {
            return None;
        }
        self.queue.pop()
    }

    /// Whether there is nothing to take at this moment.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;

    use super::*;
    use crate::rng::Rng;

    #[test]
    fn behaves_like_a_bounded_vec_deque() {
        for seed in 0..20 {
            let mut rng = Rng::seeded(seed);
            let capacity = usize::try_from(rng.below(9)).unwrap();
            let ring = Ring::new(capacity);
            let mut oracle = VecDeque::new();
            for value in 0..2_000u64 {
                if rng.below(2) == 0 {
                    let expected = if oracle.len() < capacity.max(1) {
                        oracle.push_back(value);
                        Ok(())
                    } else {
                        Err(value)
                    };
                    assert_eq!(ring.push(value), expected, "seed {seed}");
                } else {
                    assert_eq!(ring.pop(), oracle.pop_front(), "seed {seed}");
                }
                assert_eq!(ring.is_empty(), oracle.is_empty(), "seed {seed}");
            }
        }
    }

    #[test]
    fn keeps_each_producers_order_across_threads() {
        const EACH: u64 = 5_000;
        let ring = Arc::new(Ring::new(16));
        let producers: Vec<_> = (0..2u64)
            .map(|producer| {
                let ring = Arc::clone(&ring);
                std::thread::spawn(move || {
                    for n in 0..EACH {
                        while ring.push((producer, n)).is_err() {
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let mut next = [0u64; 2];
        while next != [EACH; 2] {
            match ring.pop() {
                Some((producer, n)) => {
                    let expected = &mut next[usize::try_from(producer).unwrap()];
                    assert_eq!(n, *expected);
                    *expected += 1;
                }
                None => std::thread::yield_now(),
            }
        }
        for producer in producers {
            producer.join().unwrap();
        }
        assert!(ring.is_empty());
    }
}
