//! A disk over a disk that makes its answers late.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pollux_reactor::{Rng, Time};

use super::stacked::Layer;
use super::{DiskChannel, DiskContext, Done, Io, IoId, Op};

/// Which of the [`Latencies`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::target) enum Latency {
    AverageRead,
    P99Read,
    AverageWrite,
    P99Write,
}

/// How late answers are, in microseconds: reads by the read latencies; writes, zeroing, deallocation and compares by the
/// write latencies; flushes not at all. One I/O in a hundred, drawn at random, gets the P99 latency.
///
/// The management changes them, one atomic word at a time.
#[derive(Debug)]
pub(in crate::target) struct Latencies {
    average_read: AtomicU64,
    p99_read: AtomicU64,
    average_write: AtomicU64,
    p99_write: AtomicU64,
}

impl Latencies {
    pub(in crate::target) fn new(
        average_read: u64,
        p99_read: u64,
        average_write: u64,
        p99_write: u64,
    ) -> Self {
        Self {
            average_read: average_read.into(),
            p99_read: p99_read.into(),
            average_write: average_write.into(),
            p99_write: p99_write.into(),
        }
    }

    fn cell(&self, which: Latency) -> &AtomicU64 {
        match which {
            Latency::AverageRead => &self.average_read,
            Latency::P99Read => &self.p99_read,
            Latency::AverageWrite => &self.average_write,
            Latency::P99Write => &self.p99_write,
        }
    }

    /// One of the latencies in microseconds.
    pub(in crate::target) fn latency(&self, which: Latency) -> u64 {
        self.cell(which).load(Ordering::Relaxed)
    }

    /// Changes a latency, in microseconds, for the I/Os that come from now on.
    pub(in crate::target) fn set(&self, which: Latency, micros: u64) {
        self.cell(which).store(micros, Ordering::Relaxed);
    }

    fn draw(&self, op: &Op, rng: &mut Rng) -> Duration {
        let which = match (op, rng.below(100)) {
            (Op::Flush, _) => return Duration::ZERO,
            (Op::Read { .. }, 0) => Latency::P99Read,
            (Op::Read { .. }, _) => Latency::AverageRead,
            (_, 0) => Latency::P99Write,
            (_, _) => Latency::AverageWrite,
        };
        Duration::from_micros(self.latency(which))
    }
}

impl Layer for Latencies {
    fn open(self: Arc<Self>, base: Box<dyn DiskChannel>) -> Box<dyn DiskChannel> {
        Box::new(DelayChannel {
            base,
            latencies: self,
            below: Vec::new(),
            held: Vec::new(),
            from_base: Vec::new(),
        })
    }
}

/// An I/O is carried out by the base at once, and handed back late.
#[derive(Debug)]
struct DelayChannel {
    base: Box<dyn DiskChannel>,
    latencies: Arc<Latencies>,
    /// I/Os that the base has, and how late they will be.
    below: Vec<(IoId, Duration)>,
    /// I/Os that are done and wait for their time.
    held: Vec<(Time, Done)>,
    from_base: Vec<Done>,
}

impl DiskChannel for DelayChannel {
    fn submit(&mut self, io: Io, cx: &mut DiskContext<'_>) -> Option<Done> {
        let (id, latency) = (io.id(), self.latencies.draw(&io.op, cx.rng));
        match self.base.submit(io, cx) {
            Some(done) if latency.is_zero() => Some(done),
            Some(done) => {
                self.held.push((cx.now + latency, done));
                None
            }
            None => {
                self.below.push((id, latency));
                None
            }
        }
    }

    fn poll(&mut self, done: &mut Vec<Done>, cx: &mut DiskContext<'_>) {
        self.base.poll(&mut self.from_base, cx);
        for late in self.from_base.drain(..) {
            let id = late.io.id();
            let at = self.below.iter().position(|(below, _)| *below == id);
            let latency = at.map(|at| self.below.swap_remove(at).1);
            // Whoever looks into the books of I/Os finds out that it was not handed in.
            self.held.push((cx.now + latency.unwrap_or_default(), late));
        }
        loop {
            // The earliest first, and of those for the same time the one that came first.
            let due = self.held.iter().enumerate();
            let due = due.filter(|(_, (at, _))| *at <= cx.now);
            let Some((at, _)) = due.min_by_key(|(_, (at, _))| *at) else {
                return;
            };
            done.push(self.held.remove(at).1);
        }
    }

    fn deadline(&self) -> Option<Time> {
        let held = self.held.iter().map(|(at, _)| *at);
        held.chain(self.base.deadline()).min()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.base.descriptor()
    }

    /// What is held has been carried out, and says so.
    fn cancel(&mut self, id: IoId) -> Option<Done> {
        if let Some(at) = self.held.iter().position(|(_, done)| done.io.id() == id) {
            return Some(self.held.remove(at).1);
        }
        let done = self.base.cancel(id)?;
        self.below.retain(|(below, _)| *below != id);
        Some(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::disk::Range;

    #[test]
    fn one_in_a_hundred_is_an_outlier() {
        let latencies = Latencies::new(10, 500, 20, 700);
        let mut rng = Rng::seeded(3);
        let mut count = |op: &Op, micros| {
            let hits = (0..20_000)
                .filter(|_| latencies.draw(op, &mut rng) == Duration::from_micros(micros));
            hits.count()
        };
        let range = Range {
            offset: 0,
            len: 512,
        };
        let zero = Op::Zero {
            range,
            deallocate: false,
            fua: false,
        };
        let ranges = vec![range];
        for (op, average, p99) in [
            (Op::Read { offset: 0 }, 10, 500),
            (
                Op::Write {
                    offset: 0,
                    fua: false,
                },
                20,
                700,
            ),
            (zero, 20, 700),
            (Op::Compare { offset: 0 }, 20, 700),
            (Op::Deallocate { ranges }, 20, 700),
        ] {
            assert!((120..280).contains(&count(&op, p99)));
            assert!(count(&op, average) > 19_000);
        }
        assert_eq!(count(&Op::Flush, 0), 20_000);
        latencies.set(Latency::AverageRead, 11);
        assert_eq!(count(&Op::Read { offset: 0 }, 10), 0);
    }
}
