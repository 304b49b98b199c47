//! The bookkeeping of `verify`: what each block must contain, and which blocks have an I/O in flight.

use std::ops::Range;

use super::workload::Operation;

const BUSY: u32 = 1 << 31;
const KNOWN: u32 = 1 << 30;
const GENERATION: u32 = KNOWN - 1;

/// One word per block of a job's region: its generation, whether that is known to be on the volume, and whether an I/O
/// is in flight.
///
/// In flight means reads too: what a read returns while the same block is written is open, so the two never meet.
#[derive(Debug)]
pub struct Ledger {
    start: u64,
    blocks: Vec<u32>,
}

impl Ledger {
    /// A ledger in which nothing is known of `region`, at 4 bytes a block.
    pub fn new(region: Range<u64>) -> Self {
        let length = place(region.end - region.start);
        Self {
            start: region.start,
            blocks: vec![0; length],
        }
    }

    /// Takes the blocks of `operation` if none of them has an I/O in flight.
    pub fn reserve(&mut self, operation: Operation) -> bool {
        let blocks = self.slice(operation);
        if blocks.iter().any(|block| block & BUSY != 0) {
            return false;
        }
        blocks.iter_mut().for_each(|block| *block |= BUSY);
        true
    }

    /// Gives the blocks of `operation` free again.
    pub fn release(&mut self, operation: Operation) {
        for block in self.slice(operation) {
            assert!(*block & BUSY != 0, "{operation:?} was not in flight");
            *block &= !BUSY;
        }
    }

    /// A write of the next generation was acknowledged.
    pub fn written(&mut self, operation: Operation) {
        self.advance(operation, KNOWN);
    }

    /// A write failed: old or new, the contents are open until the next one succeeds.
    ///
    /// The generation counts on, so that the failed write is recognized if it shows up later.
    pub fn write_failed(&mut self, operation: Operation) {
        self.advance(operation, 0);
    }

    /// The generation that a write of block `lba` carries now.
    pub fn next_generation(&self, lba: u64) -> u32 {
        self.word(lba).wrapping_add(1) & GENERATION
    }

    /// The generation that block `lba` must read as; `None` where that is open.
    pub fn expected(&self, lba: u64) -> Option<u32> {
        let word = self.word(lba);
        (word & KNOWN != 0).then_some(word & GENERATION)
    }

    /// Whether at least one block of `operation` can be checked.
    pub fn checkable(&self, operation: Operation) -> bool {
        operation.range().any(|lba| self.expected(lba).is_some())
    }

    /// The first block at or after `lba` that can be checked.
    pub fn next_known(&self, lba: u64) -> Option<u64> {
        let skip = usize::try_from(lba.saturating_sub(self.start)).ok()?;
        let tail = self.blocks.get(skip..)?;
        let ahead = tail.iter().position(|word| word & KNOWN != 0)?;
        Some(self.start + (skip + ahead) as u64)
    }

    /// Blocks whose contents are known, and blocks whose latest write failed or has not ended.
    pub fn count(&self) -> (u64, u64) {
        let (mut known, mut open) = (0, 0);
        for word in &self.blocks {
            known += u64::from(word & KNOWN != 0);
            open += u64::from(word & KNOWN == 0 && word & GENERATION != 0);
        }
        (known, open)
    }

    /// Blocks of `operation` that can be checked.
    pub fn known_in(&self, operation: Operation) -> u64 {
        let known = |&lba: &u64| self.expected(lba).is_some();
        operation.range().filter(known).count() as u64
    }

    fn advance(&mut self, operation: Operation, known: u32) {
        for block in self.slice(operation) {
            *block = (*block & BUSY) | known | (block.wrapping_add(1) & GENERATION);
        }
    }

    fn word(&self, lba: u64) -> u32 {
        self.blocks[place(lba - self.start)]
    }

    fn slice(&mut self, operation: Operation) -> &mut [u32] {
        let first = place(operation.lba - self.start);
        &mut self.blocks[first..first + operation.blocks as usize]
    }
}

/// Every region is cut to what a ledger of a few megabytes can hold, so that its blocks can be counted in memory.
#[expect(clippy::expect_used, reason = "plans cut the region before")]
fn place(blocks: u64) -> usize {
    usize::try_from(blocks).expect("a verified region fits in memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(lba: u64, blocks: u32) -> Operation {
        Operation {
            op: pollux_multipath::Op::Write,
            lba,
            blocks,
        }
    }

    #[test]
    fn blocks_in_flight_are_refused_at_every_overlap() {
        let mut ledger = Ledger::new(100..200);
        assert!(ledger.reserve(operation(120, 8)));
        for (lba, blocks) in [(120, 8), (119, 2), (127, 1), (110, 30), (123, 1)] {
            assert!(!ledger.reserve(operation(lba, blocks)), "{lba}+{blocks}");
        }
        assert!(ledger.reserve(operation(112, 8)) && ledger.reserve(operation(128, 8)));
        ledger.release(operation(120, 8));
        assert!(
            ledger.reserve(operation(123, 1)),
            "a refused reservation holds nothing"
        );
    }

    #[test]
    fn generations_grow_and_a_failed_write_opens_the_block() {
        let mut ledger = Ledger::new(0..10);
        assert_eq!((ledger.expected(3), ledger.next_generation(3)), (None, 1));
        ledger.written(operation(2, 3));
        assert_eq!(
            (ledger.expected(3), ledger.next_generation(3)),
            (Some(1), 2)
        );
        ledger.write_failed(operation(3, 1));
        assert_eq!((ledger.expected(3), ledger.next_generation(3)), (None, 3));
        assert_eq!(ledger.expected(2), Some(1));
        ledger.written(operation(3, 1));
        assert_eq!(ledger.expected(3), Some(3));
    }

    #[test]
    fn a_generation_wraps_without_touching_the_flags() {
        let mut ledger = Ledger::new(0..1);
        ledger.blocks[0] = KNOWN | GENERATION;
        assert!(ledger.reserve(operation(0, 1)));
        assert_eq!(ledger.next_generation(0), 0);
        ledger.written(operation(0, 1));
        assert_eq!(ledger.expected(0), Some(0));
        assert!(!ledger.reserve(operation(0, 1)), "still in flight");
        ledger.release(operation(0, 1));
        assert_eq!(ledger.blocks[0], KNOWN);
    }

    #[test]
    fn known_blocks_are_found() {
        let mut ledger = Ledger::new(50..100);
        assert_eq!(ledger.next_known(50), None);
        ledger.written(operation(60, 2));
        assert_eq!(ledger.next_known(50), Some(60));
        assert_eq!(ledger.next_known(61), Some(61));
        assert_eq!(ledger.next_known(62), None);
        assert_eq!(ledger.next_known(1000), None);
        ledger.write_failed(operation(70, 3));
        assert_eq!(ledger.count(), (2, 3));
        assert_eq!(ledger.known_in(operation(61, 10)), 1);
        assert!(ledger.checkable(operation(58, 3)) && !ledger.checkable(operation(58, 2)));
    }

    #[test]
    #[should_panic(expected = "was not in flight")]
    fn releasing_what_was_not_taken_is_a_bug() {
        Ledger::new(0..10).release(operation(1, 1));
    }
}
