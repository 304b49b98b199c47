//! Layers between a namespace and its blocks that make I/O late or let it fail, for tests of hosts.
//!
//! The management owns them; I/O reactors share them and touch them only for namespaces that have some. What
//! is changed is one atomic word at a time, so that no reactor waits for another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pollux_reactor::Rng;

use crate::spec::opcode::nvm;
use crate::spec::status::Status;

/// The layers of a disk, the one next to the namespace first.
pub(super) type Layers = Arc<[Layer]>;

/// One layer.
#[derive(Debug, Clone)]
pub(super) enum Layer {
    Delay(Arc<Delay>),
    Faults(Arc<Faults>),
}

impl Layer {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Delay(a), Self::Delay(b)) => Arc::ptr_eq(a, b),
            (Self::Faults(a), Self::Faults(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

/// The very same layers, not merely layers of the same kind.
pub(super) fn are_same(a: Option<&Layers>, b: Option<&Layers>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.is(b)),
        _ => false,
    }
}

/// Which of the latencies of a [`Delay`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Latency {
    AverageRead,
    P99Read,
    AverageWrite,
    P99Write,
}

/// Makes I/O late: reads by the read latencies; writes, zeroing, deallocation and compares by the write
/// latencies; flushes not at all. One I/O in a hundred, drawn at random, gets the P99 latency.
#[derive(Debug)]
pub(super) struct Delay {
    average_read: AtomicU64,
    p99_read: AtomicU64,
    average_write: AtomicU64,
    p99_write: AtomicU64,
}

impl Delay {
    /// A delay; latencies in microseconds.
    pub(super) fn new(
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
    pub(super) fn latency(&self, which: Latency) -> u64 {
        self.cell(which).load(Ordering::Relaxed)
    }

    /// Changes a latency, in microseconds, for the I/Os that come from now on.
    pub(super) fn set(&self, which: Latency, micros: u64) {
        self.cell(which).store(micros, Ordering::Relaxed);
    }

    fn draw(&self, opcode: u8, rng: &mut Rng) -> Duration {
        let which = match (opcode, rng.below(100)) {
            (nvm::FLUSH, _) => return Duration::ZERO,
            (nvm::READ, 0) => Latency::P99Read,
            (nvm::READ, _) => Latency::AverageRead,
            (_, 0) => Latency::P99Write,
            (_, _) => Latency::AverageWrite,
        };
        Duration::from_micros(self.latency(which))
    }
}

/// Kinds of I/O that faults are injected into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IoKind {
    /// Read and Compare.
    Read,
    /// Write and Write Zeroes.
    Write,
    /// Dataset Management.
    Unmap,
    Flush,
}

impl IoKind {
    pub(super) const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Unmap, Self::Flush];

    fn of(opcode: u8) -> Self {
        match opcode {
            nvm::READ | nvm::COMPARE => Self::Read,
            nvm::DATASET_MANAGEMENT => Self::Unmap,
            nvm::FLUSH => Self::Flush,
            _ => Self::Write,
        }
    }
}

/// What is done to an I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It ends with this status, and nothing is read or written.
    Fail(Status),
    /// It is held until [`Faults::resume`], and nothing is read or written before.
    Pend,
    /// A byte of its data is changed; that of an I/O without data is not.
    Corrupt(Corruption),
    /// It is tried again a moment later, as if there had been no memory for it.
    NoMemory,
}

/// A byte of the data of an I/O that is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Corruption {
    /// Which one, counted from the start of the I/O's data. Shorter I/Os stay as they are.
    pub(super) offset: u64,
    /// What it is changed by: exclusive or.
    pub(super) value: u8,
}

impl Corruption {
    /// Changes the byte if it is in `data`, which starts at `from` of the I/O's data.
    pub(super) fn apply(&self, from: u64, data: &mut [u8]) {
        let at = self.offset.checked_sub(from);
        let at = at.and_then(|at| usize::try_from(at).ok());
        if let Some(byte) = at.and_then(|at| data.get_mut(at)) {
            *byte ^= self.value;
        }
    }
}

/// What is to be done to one kind of I/O.
#[derive(Debug, Default)]
struct Slot {
    /// How many more I/Os, and what: one word, so that no I/O sees half of a change.
    word: AtomicU64,
    /// Of a [`Corruption`]. Set before the word.
    offset: AtomicU64,
    /// Other commands that the queue must hold. Set before the word.
    queue_depth: AtomicU64,
}

/// The word: I/Os in the low half, then what is done to them in a byte, then its argument.
mod word {
    pub(super) const COUNT: u64 = 0xffff_ffff;
    pub(super) const FAIL: u8 = 0;
    pub(super) const PEND: u8 = 1;
    pub(super) const CORRUPT: u8 = 2;
    pub(super) const NO_MEMORY: u8 = 3;

    pub(super) fn make(count: u32, what: u8, argument: u16) -> u64 {
        u64::from(count) | u64::from(what) << 32 | u64::from(argument) << 40
    }

    /// What, and its argument.
    pub(super) fn split(word: u64) -> (u8, u16) {
        let [_, _, _, _, what, low, high, _] = word.to_le_bytes();
        (what, u16::from_le_bytes([low, high]))
    }
}

impl Slot {
    fn arm(&self, fault: Fault, count: u32, queue_depth: u64) {
        let (what, argument) = match fault {
            Fault::Fail(status) => (word::FAIL, status.bits()),
            Fault::Pend => (word::PEND, 0),
            Fault::Corrupt(corruption) => (word::CORRUPT, corruption.value.into()),
            Fault::NoMemory => (word::NO_MEMORY, 0),
        };
        // In between, nothing is injected rather than a mixture.
        self.word.store(0, Ordering::Release);
        if let Fault::Corrupt(corruption) = fault {
            self.offset.store(corruption.offset, Ordering::Relaxed);
        }
        self.queue_depth.store(queue_depth, Ordering::Relaxed);
        let word = word::make(count, what, argument);
        self.word.store(word, Ordering::Release);
    }

    fn strike(&self, queue_depth: u64) -> Option<Fault> {
        let mut seen = self.word.load(Ordering::Acquire);
        loop {
            if seen & word::COUNT == 0 || queue_depth < self.queue_depth.load(Ordering::Relaxed) {
                return None;
            }
            let less = seen - 1;
            match self
                .word
                .compare_exchange(seen, less, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => break,
                Err(other) => seen = other,
            }
        }
        let (what, argument) = word::split(seen);
        Some(match what {
            word::PEND => Fault::Pend,
            word::CORRUPT => Fault::Corrupt(Corruption {
                offset: self.offset.load(Ordering::Relaxed),
                value: argument.to_le_bytes()[0],
            }),
            word::NO_MEMORY => Fault::NoMemory,
            _ => Fault::Fail(Status::from_bits(argument)),
        })
    }
}

/// Lets I/O fail, as often as it was told to.
#[derive(Debug, Default)]
pub(super) struct Faults {
    read: Slot,
    write: Slot,
    unmap: Slot,
    flush: Slot,
    /// How often [`resume`](Self::resume) was called: what was held before goes on.
    resumed: AtomicU64,
}

impl Faults {
    fn slot(&self, kind: IoKind) -> &Slot {
        match kind {
            IoKind::Read => &self.read,
            IoKind::Write => &self.write,
            IoKind::Unmap => &self.unmap,
            IoKind::Flush => &self.flush,
        }
    }

    /// Does `fault` to the next `count` I/Os of a kind that come while their queue holds at least `queue_depth`
    /// other commands. Takes the place of what was said before about that kind.
    pub(super) fn inject(&self, kind: IoKind, fault: Fault, count: u32, queue_depth: u64) {
        self.slot(kind).arm(fault, count, queue_depth);
    }

    /// Does nothing more to any I/O; what is held stays held.
    pub(super) fn clear(&self) {
        for kind in IoKind::ALL {
            self.slot(kind).word.store(0, Ordering::Release);
        }
    }

    /// Lets everything that is held go on. A reactor sees it when it is awake.
    pub(super) fn resume(&self) {
        self.resumed.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn resumed(&self) -> u64 {
        self.resumed.load(Ordering::Acquire)
    }
}

/// The way of a command down through the layers.
#[derive(Debug)]
pub(super) struct Descent {
    layers: Layers,
    /// The next layer.
    at: usize,
    /// By how much its answer is late.
    pub(super) delay: Duration,
    /// What is done to its data.
    pub(super) corruption: Option<Corruption>,
}

/// How far a command came.
#[derive(Debug)]
pub(super) enum Reached {
    /// The blocks.
    Bottom,
    /// A layer that lets it fail.
    Refused(Status),
    /// A layer that holds it until [`Faults::resumed`] is another number.
    Pending { faults: Arc<Faults>, resumed: u64 },
    /// A layer that takes it a moment later.
    NoMemory,
}

impl Descent {
    pub(super) fn new(layers: Layers) -> Self {
        Self {
            layers,
            at: 0,
            delay: Duration::ZERO,
            corruption: None,
        }
    }

    /// Whether these are the layers that it goes through.
    pub(super) fn is_through(&self, layers: Option<&Layers>) -> bool {
        are_same(Some(&self.layers), layers)
    }

    /// Goes on, for a command that has this many others beside it on its queue.
    pub(super) fn go_on(&mut self, opcode: u8, others: usize, rng: &mut Rng) -> Reached {
        while let Some(layer) = self.layers.get(self.at) {
            match layer {
                Layer::Delay(delay) => {
                    self.delay = self.delay.saturating_add(delay.draw(opcode, rng));
                }
                Layer::Faults(faults) => {
                    // Read before, so that it is not held by a fault that is resumed just now.
                    let resumed = faults.resumed();
                    match faults.slot(IoKind::of(opcode)).strike(others as u64) {
                        None => {}
                        Some(Fault::Fail(status)) => return Reached::Refused(status),
                        Some(Fault::Pend) => {
                            let faults = Arc::clone(faults);
                            self.at += 1;
                            return Reached::Pending { faults, resumed };
                        }
                        Some(Fault::Corrupt(corruption)) => self.corruption = Some(corruption),
                        Some(Fault::NoMemory) => return Reached::NoMemory,
                    }
                }
            }
            self.at += 1;
        }
        Reached::Bottom
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descend(layers: &Layers, opcode: u8, others: usize, rng: &mut Rng) -> (Descent, Reached) {
        let mut descent = Descent::new(Arc::clone(layers));
        let reached = descent.go_on(opcode, others, rng);
        (descent, reached)
    }

    #[test]
    fn one_in_a_hundred_is_an_outlier() {
        let delay = Arc::new(Delay::new(10, 500, 20, 700));
        let layers: Layers = Arc::new([Layer::Delay(Arc::clone(&delay))]);
        let mut rng = Rng::seeded(3);
        let mut count = |opcode, micros| {
            let hits = (0..20_000).filter(|_| {
                let (descent, _) = descend(&layers, opcode, 0, &mut rng);
                descent.delay == Duration::from_micros(micros)
            });
            hits.count()
        };
        for (opcode, average, p99) in [
            (nvm::READ, 10, 500),
            (nvm::WRITE, 20, 700),
            (nvm::WRITE_ZEROES, 20, 700),
            (nvm::COMPARE, 20, 700),
            (nvm::DATASET_MANAGEMENT, 20, 700),
        ] {
            assert!((120..280).contains(&count(opcode, p99)));
            assert!(count(opcode, average) > 19_000);
        }
        assert_eq!(count(nvm::FLUSH, 0), 20_000);
        delay.set(Latency::AverageRead, 11);
        assert_eq!(count(nvm::READ, 10), 0);
    }

    #[test]
    fn a_fault_strikes_as_often_as_it_was_told_to() {
        let faults = Arc::new(Faults::default());
        let layers: Layers = Arc::new([Layer::Faults(Arc::clone(&faults))]);
        let mut rng = Rng::seeded(1);
        let status = Status::new(2, 0x81);
        faults.inject(IoKind::Read, Fault::Fail(status), 2, 0);
        for opcode in [nvm::COMPARE, nvm::WRITE, nvm::READ, nvm::READ] {
            let (_, reached) = descend(&layers, opcode, 0, &mut rng);
            match reached {
                Reached::Refused(s) => assert_eq!((s, opcode == nvm::WRITE), (status, false)),
                Reached::Bottom => assert!(matches!(opcode, nvm::WRITE | nvm::READ)),
                other => panic!("{other:?}"),
            }
        }
        faults.inject(IoKind::Read, Fault::NoMemory, u32::MAX, 3);
        let (_, reached) = descend(&layers, nvm::READ, 2, &mut rng);
        assert!(matches!(reached, Reached::Bottom), "the queue is too short");
        let (_, reached) = descend(&layers, nvm::READ, 3, &mut rng);
        assert!(matches!(reached, Reached::NoMemory));
        faults.clear();
        let (_, reached) = descend(&layers, nvm::READ, 3, &mut rng);
        assert!(matches!(reached, Reached::Bottom));
    }

    #[test]
    fn what_is_held_goes_on_below_the_layer_that_held_it() {
        let (upper, lower) = (Arc::new(Faults::default()), Arc::new(Faults::default()));
        let layers: Layers = Arc::new([
            Layer::Faults(Arc::clone(&upper)),
            Layer::Faults(Arc::clone(&lower)),
        ]);
        let mut rng = Rng::seeded(1);
        let corruption = Corruption {
            offset: 1 << 40,
            value: 0x80,
        };
        upper.inject(IoKind::Flush, Fault::Pend, 5, 0);
        lower.inject(IoKind::Flush, Fault::Corrupt(corruption), 1, 0);
        let (mut descent, reached) = descend(&layers, nvm::FLUSH, 0, &mut rng);
        let Reached::Pending { faults, resumed } = reached else {
            panic!("{reached:?}")
        };
        assert_eq!(faults.resumed(), resumed);
        upper.resume();
        assert_ne!(faults.resumed(), resumed);
        let reached = descent.go_on(nvm::FLUSH, 0, &mut rng);
        assert!(matches!(reached, Reached::Bottom));
        assert_eq!(descent.corruption, Some(corruption));
    }

    #[test]
    fn a_corruption_changes_one_byte_of_its_piece() {
        let corruption = Corruption {
            offset: 5,
            value: 0xff,
        };
        let mut data = [0; 4];
        for from in [0, 6, u64::MAX] {
            corruption.apply(from, &mut data);
            assert_eq!(data, [0; 4]);
        }
        corruption.apply(4, &mut data);
        assert_eq!(data, [0, 0xff, 0, 0]);
    }
}
