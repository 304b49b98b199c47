//! A bounded queue with the steps and the memory orderings of the one under mailboxes (crossbeam's `ArrayQueue`), which
//! loom cannot look into.

#![expect(
    clippy::disallowed_types,
    reason = "of no order that loom does not see: whoever has the stamp is alone"
)]

use loom::hint::spin_loop;
use loom::sync::atomic::{AtomicUsize, Ordering, fence};

struct Slot<T> {
    /// Which position may be put here next, or, one higher, be taken.
    stamp: AtomicUsize,
    value: std::sync::Mutex<Option<T>>,
}

pub(crate) struct Ring<T> {
    head: AtomicUsize,
    tail: AtomicUsize,
    slots: Vec<Slot<T>>,
}

impl<T> Ring<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        assert!(capacity > 1, "stamps tell full from empty from 2 on");
        let slot = |at| Slot {
            stamp: AtomicUsize::new(at),
            value: std::sync::Mutex::default(),
        };
        Self {
            head: AtomicUsize::new(0),
            tail: AtomicUsize::new(0),
            slots: (0..capacity).map(slot).collect(),
        }
    }

    pub(crate) fn push(&self, value: T) -> Result<(), T> {
        let mut tail = self.tail.load(Ordering::Relaxed);
        loop {
            let slot = &self.slots[tail % self.slots.len()];
            let stamp = slot.stamp.load(Ordering::Acquire);
            if stamp == tail {
                match self.step(&self.tail, tail) {
                    Ok(_) => {
                        *slot.value.lock().unwrap() = Some(value);
                        slot.stamp.store(tail + 1, Ordering::Release);
                        return Ok(());
                    }
                    Err(now) => tail = now,
                }
                continue;
            }
            if stamp + self.slots.len() == tail + 1 {
                fence(Ordering::SeqCst);
                if self.head.load(Ordering::Relaxed) + self.slots.len() == tail {
                    return Err(value);
                }
            }
            spin_loop();
            tail = self.tail.load(Ordering::Relaxed);
        }
    }

    pub(crate) fn pop(&self) -> Option<T> {
        // As the product's ring does before it asks the queue.
        if self.is_empty() {
            return None;
        }
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            let slot = &self.slots[head % self.slots.len()];
            let stamp = slot.stamp.load(Ordering::Acquire);
            if stamp == head + 1 {
                match self.step(&self.head, head) {
                    Ok(_) => {
                        let value = slot.value.lock().unwrap().take();
                        slot.stamp.store(head + self.slots.len(), Ordering::Release);
                        return value;
                    }
                    Err(now) => head = now,
                }
                continue;
            }
            if stamp == head {
                fence(Ordering::SeqCst);
                if self.tail.load(Ordering::Relaxed) == head {
                    return None;
                }
            }
            spin_loop();
            head = self.head.load(Ordering::Relaxed);
        }
    }

    fn step(&self, end: &AtomicUsize, from: usize) -> Result<usize, usize> {
        end.compare_exchange_weak(from, from + 1, Ordering::SeqCst, Ordering::Relaxed)
    }

    pub(crate) fn is_empty(&self) -> bool {
        let head = self.head.load(Ordering::SeqCst);
        self.tail.load(Ordering::SeqCst) == head
    }
}
