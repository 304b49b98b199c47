//! What is counted of a disk on one reactor.

use std::time::Duration;

use crate::counters::IoCounters;
use crate::histogram::LatencyHistogram;
use crate::spec::opcode::nvm;
use crate::spec::status::Status;
use crate::target::disk::{DiskRef, Op, WeakDisk};

/// The opcode that an I/O is counted by, and the bytes that it moves, or deallocates.
pub(in crate::target) fn counted_as(op: &Op, len: usize) -> (u8, u64) {
    let opcode = match op {
        Op::Read { .. } => nvm::READ,
        Op::Write { .. } => nvm::WRITE,
        Op::Compare { .. } => nvm::COMPARE,
        Op::Zero { .. } => nvm::WRITE_ZEROES,
        Op::Flush => nvm::FLUSH,
        Op::Deallocate { ranges } => {
            let bytes = ranges.iter().map(|range| range.len).sum();
            return (nvm::DATASET_MANAGEMENT, bytes);
        }
    };
    (opcode, len as u64)
}

/// What is counted of a disk.
#[derive(Debug, Default)]
pub(in crate::target) struct Counted {
    pub(in crate::target) counters: IoCounters,
    /// How long I/Os took, while that is counted.
    pub(in crate::target) histogram: Option<Box<LatencyHistogram>>,
}

impl Counted {
    /// Counts an I/O that moved so many bytes.
    #[inline]
    pub(in crate::target) fn count(
        &mut self,
        opcode: u8,
        result: Result<u64, Status>,
        latency: Duration,
    ) {
        if let Some(histogram) = &mut self.histogram {
            histogram.record(opcode, latency);
        }
        let counters = &mut self.counters;
        let Ok(bytes) = result else {
            counters.errors += 1;
            return;
        };
        let kind = match opcode {
            nvm::READ => &mut counters.reads,
            nvm::DATASET_MANAGEMENT => &mut counters.deallocations,
            _ => &mut counters.writes,
        };
        kind.count(bytes, latency);
    }
}

/// What is counted of disks that are not open, for as long as the disks are there.
#[derive(Debug, Default)]
pub(in crate::target) struct Past(Vec<(WeakDisk, Counted)>);

impl Past {
    pub(in crate::target) fn keep(&mut self, disk: &DiskRef, counted: Counted) {
        self.0.retain(|(disk, _)| disk.get().is_some());
        self.0.push((disk.downgrade(), counted));
    }

    pub(in crate::target) fn take(&mut self, disk: &DiskRef) -> Counted {
        let is_it = |(kept, _): &(WeakDisk, _)| kept.get().is_some_and(|kept| kept == *disk);
        let found = self.0.iter().position(is_it);
        found.map(|at| self.0.swap_remove(at).1).unwrap_or_default()
    }

    pub(in crate::target) fn iter_mut(&mut self) -> impl Iterator<Item = (DiskRef, &mut Counted)> {
        let all = self.0.iter_mut();
        all.filter_map(|(disk, counted)| Some((disk.get()?, counted)))
    }
}
