//! A disk over a disk with injected faults, for tests of hosts.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pollux_reactor::Time;

use super::stacked::Layer;
use super::{DiskChannel, DiskContext, Done, Io, IoId, Op};
use crate::spec::status::Status;

/// After this time an I/O that there was no memory for is tried again.
const NO_MEMORY_RETRY: Duration = Duration::from_millis(1);

/// Kinds of I/O that faults are injected into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::target) enum IoKind {
    /// Read and Compare.
    Read,
    /// Write and Write Zeroes.
    Write,
    /// Dataset Management.
    Unmap,
    Flush,
}

impl IoKind {
    pub(in crate::target) const ALL: [Self; 4] =
        [Self::Read, Self::Write, Self::Unmap, Self::Flush];

    fn of(op: &Op) -> Self {
        match op {
            Op::Read { .. } | Op::Compare { .. } => Self::Read,
            Op::Deallocate { .. } => Self::Unmap,
            Op::Flush => Self::Flush,
            Op::Write { .. } | Op::Zero { .. } => Self::Write,
        }
    }
}

/// What is done to an I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::target) enum Injection {
    /// The I/O ends with this status, and nothing is read or written.
    Fail(Status),
    /// The I/O is held until [`Faults::resume`], and nothing is read or written before.
    Pend,
    /// A byte of its data is changed; that of an I/O without data is not.
    Corrupt(Corruption),
    /// The I/O is tried again a moment later, as if there had been no memory for it.
    NoMemory,
}

/// A byte of the data of an I/O that is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::target) struct Corruption {
    /// Which one, counted from the start of the I/O's data. Shorter I/Os stay as they are.
    pub(in crate::target) offset: u64,
    /// What it is changed by: exclusive or.
    pub(in crate::target) value: u8,
}

impl Corruption {
    /// Changes the byte if the I/O's data is that long.
    fn apply(&self, data: &mut [u8]) {
        let at = usize::try_from(self.offset).ok();
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
    /// The numbers of a [`Corruption`], set before the word.
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
    fn arm(&self, injection: Injection, count: u32, queue_depth: u64) {
        let (what, argument) = match injection {
            Injection::Fail(status) => (word::FAIL, status.bits()),
            Injection::Pend => (word::PEND, 0),
            Injection::Corrupt(corruption) => (word::CORRUPT, corruption.value.into()),
            Injection::NoMemory => (word::NO_MEMORY, 0),
        };
        // In between, nothing is injected rather than a mixture.
        self.word.store(0, Ordering::Release);
        if let Injection::Corrupt(corruption) = injection {
            self.offset.store(corruption.offset, Ordering::Relaxed);
        }
        self.queue_depth.store(queue_depth, Ordering::Relaxed);
        let word = word::make(count, what, argument);
        self.word.store(word, Ordering::Release);
    }

    fn take(&self, queue_depth: u64) -> Option<Injection> {
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
            word::PEND => Injection::Pend,
            word::CORRUPT => Injection::Corrupt(Corruption {
                offset: self.offset.load(Ordering::Relaxed),
                value: argument.to_le_bytes()[0],
            }),
            word::NO_MEMORY => Injection::NoMemory,
            _ => Injection::Fail(Status::from_bits(argument)),
        })
    }
}

/// The faults that are to be injected, each as often as was said. The management sets them, one atomic word at a time.
#[derive(Debug, Default)]
pub(in crate::target) struct Faults {
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

    /// Does `injection` to the next `count` I/Os of a kind that come while their queue holds at least `queue_depth`
    /// other commands. Takes the place of what was said before about that kind.
    pub(in crate::target) fn inject(
        &self,
        kind: IoKind,
        injection: Injection,
        count: u32,
        queue_depth: u64,
    ) {
        self.slot(kind).arm(injection, count, queue_depth);
    }

    /// Does nothing more to any I/O; what is held stays held.
    pub(in crate::target) fn clear(&self) {
        for kind in IoKind::ALL {
            self.slot(kind).word.store(0, Ordering::Release);
        }
    }

    /// Lets everything that is held go on. A reactor sees it when it is awake.
    pub(in crate::target) fn resume(&self) {
        self.resumed.fetch_add(1, Ordering::AcqRel);
    }

    pub(in crate::target) fn resumed(&self) -> u64 {
        self.resumed.load(Ordering::Acquire)
    }
}

impl Layer for Faults {
    fn open(self: Arc<Self>, base: Box<dyn DiskChannel>) -> Box<dyn DiskChannel> {
        Box::new(ErrorChannel {
            base,
            faults: self,
            open: 0,
            pending: Vec::new(),
            again: Vec::new(),
            corrupted: Vec::new(),
            from_base: Vec::new(),
        })
    }
}

#[derive(Debug)]
struct ErrorChannel {
    base: Box<dyn DiskChannel>,
    faults: Arc<Faults>,
    /// I/Os that were not handed back.
    open: u64,
    /// I/Os that are held until [`Faults::resumed`] is another number.
    pending: Vec<(u64, Io)>,
    /// I/Os that there was no memory for, and when they are tried again.
    again: Vec<(Time, Io)>,
    /// Reads that the base has and whose data is changed.
    corrupted: Vec<(IoId, Corruption)>,
    from_base: Vec<Done>,
}

impl ErrorChannel {
    fn inject(&mut self, mut io: Io, cx: &mut DiskContext<'_>) -> Option<Done> {
        // Read before, so that it is not held by a fault that is resumed just now.
        let resumed = self.faults.resumed();
        let slot = self.faults.slot(IoKind::of(&io.op));
        match slot.take(self.open - 1) {
            None => {}
            Some(Injection::Fail(status)) => return Some(io.done(Err(status))),
            Some(Injection::Pend) => {
                self.pending.push((resumed, io));
                return None;
            }
            Some(Injection::NoMemory) => {
                self.again.push((cx.now + NO_MEMORY_RETRY, io));
                return None;
            }
            Some(Injection::Corrupt(corruption)) => match io.op {
                Op::Read { .. } => self.corrupted.push((io.id(), corruption)),
                _ => corruption.apply(&mut io.data),
            },
        }
        self.pass_on(io, cx)
    }

    fn pass_on(&mut self, io: Io, cx: &mut DiskContext<'_>) -> Option<Done> {
        let done = self.base.submit(io, cx)?;
        Some(self.corrupt(done))
    }

    fn corrupt(&mut self, mut done: Done) -> Done {
        let id = done.io.id();
        let at = self.corrupted.iter().position(|(read, _)| *read == id);
        if let Some(at) = at {
            self.corrupted.swap_remove(at).1.apply(&mut done.io.data);
        }
        done
    }
}

impl DiskChannel for ErrorChannel {
    fn submit(&mut self, io: Io, cx: &mut DiskContext<'_>) -> Option<Done> {
        self.open += 1;
        let done = self.inject(io, cx);
        self.open -= u64::from(done.is_some());
        done
    }

    fn poll(&mut self, done: &mut Vec<Done>, cx: &mut DiskContext<'_>) {
        let before = done.len();
        let mut from_base = std::mem::take(&mut self.from_base);
        self.base.poll(&mut from_base, cx);
        done.extend(from_base.drain(..).map(|late| self.corrupt(late)));
        self.from_base = from_base;
        let resumed = self.faults.resumed();
        while let Some(at) = self.pending.iter().position(|(seen, _)| *seen != resumed) {
            let (_, io) = self.pending.remove(at);
            done.extend(self.pass_on(io, cx));
        }
        while let Some(at) = self.again.iter().position(|(at, _)| *at <= cx.now) {
            let (_, io) = self.again.remove(at);
            done.extend(self.inject(io, cx));
        }
        self.open -= (done.len() - before) as u64;
    }

    fn deadline(&self) -> Option<Time> {
        let again = self.again.iter().map(|(at, _)| *at);
        again.chain(self.base.deadline()).min()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.base.descriptor()
    }

    fn cancel(&mut self, id: IoId) -> Option<Done> {
        let aborted = Err(Status::ABORTED_BY_REQUEST);
        let done = if let Some(at) = self.pending.iter().position(|(_, io)| io.id() == id) {
            self.pending.remove(at).1.done(aborted)
        } else if let Some(at) = self.again.iter().position(|(_, io)| io.id() == id) {
            self.again.remove(at).1.done(aborted)
        } else {
            let done = self.base.cancel(id)?;
            self.corrupt(done)
        };
        self.open -= 1;
        Some(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::disk::stacked::Stacked;
    use crate::target::disk::tests::Bench;
    use crate::target::disk::{Backend, DiskRef};

    const READ: Op = Op::Read { offset: 0 };
    const WRITE: Op = Op::Write {
        offset: 0,
        fua: false,
    };
    const COMPARE: Op = Op::Compare { offset: 0 };

    fn faulty(base: DiskRef) -> (DiskRef, Arc<Faults>) {
        let faults = Arc::new(Faults::default());
        (
            DiskRef::new(Stacked::new("errors".into(), base, Arc::clone(&faults))),
            faults,
        )
    }

    fn memory() -> DiskRef {
        DiskRef::open(&Backend::Memory { bytes: 4096 }).unwrap()
    }

    #[test]
    fn a_fault_is_injected_as_often_as_it_was_told_to() {
        let (disk, faults) = faulty(memory());
        let mut bench = Bench::new(&disk);
        let status = Status::new(2, 0x81);
        faults.inject(IoKind::Read, Injection::Fail(status), 2, 0);
        for (op, fails) in [(COMPARE, true), (WRITE, false), (READ, true), (READ, false)] {
            let done = bench.submit(op, &[0; 512]).unwrap();
            assert_eq!(done.result, if fails { Err(status) } else { Ok(()) });
        }
        faults.inject(IoKind::Flush, Injection::Pend, 3, 0);
        faults.inject(IoKind::Read, Injection::NoMemory, u32::MAX, 3);
        for _ in 0..2 {
            assert!(bench.submit(Op::Flush, &[]).is_none());
        }
        assert!(bench.submit(READ, &[0; 512]).is_some(), "too few others");
        assert!(bench.submit(Op::Flush, &[]).is_none());
        assert!(bench.submit(READ, &[0; 512]).is_none());
        faults.clear();
        assert!(bench.submit(READ, &[0; 512]).is_some());
        bench.wait(NO_MEMORY_RETRY);
        assert_eq!(bench.poll().len(), 1);
        faults.resume();
        assert_eq!(bench.poll().len(), 3);
        assert!(bench.poll().is_empty());
    }

    #[test]
    fn what_is_held_goes_on_below_the_disk_that_held_it() {
        let (lower, lower_faults) = faulty(memory());
        let (upper, upper_faults) = faulty(lower);
        let mut bench = Bench::new(&upper);
        upper_faults.inject(IoKind::Read, Injection::Pend, 5, 0);
        let corruption = Corruption {
            offset: 5,
            value: 0x80,
        };
        lower_faults.inject(IoKind::Read, Injection::Corrupt(corruption), 1, 0);
        let held = bench.submit(READ, &[1; 512]);
        assert!(held.is_none() && bench.poll().is_empty());
        upper_faults.resume();
        let done = bench.poll().remove(0);
        assert_eq!(done.io.data[..8], [0, 0, 0, 0, 0, 0x80, 0, 0]);
        // What is cancelled has done nothing, and is handed back once.
        upper_faults.inject(IoKind::Write, Injection::Pend, 1, 0);
        assert!(bench.submit(WRITE, &[7; 512]).is_none());
        let done = bench.cancel_last().unwrap();
        assert_eq!(done.result, Err(Status::ABORTED_BY_REQUEST));
        upper_faults.resume();
        assert!(bench.poll().is_empty() && bench.cancel_last().is_none());
        upper_faults.clear();
        assert!(bench.submit(COMPARE, &[0; 512]).unwrap().result.is_ok());
    }

    #[test]
    fn a_corruption_changes_one_byte_if_there_is_one() {
        let corruption = Corruption {
            offset: 1,
            value: 0xff,
        };
        let mut data = [0; 2];
        corruption.apply(&mut data);
        assert_eq!(data, [0, 0xff]);
        corruption.apply(&mut data[..1]);
        assert_eq!(data, [0, 0xff]);
    }
}
