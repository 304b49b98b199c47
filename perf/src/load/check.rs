//! What `verify` checks: read-backs, later reads, and all blocks once more at the end.

use serde_json::{Value, json};

use super::Stage;
use super::ledger::Ledger;
use super::pattern::Pattern;
use super::workload::Operation;
use crate::stats::JobStats;

#[derive(Debug)]
pub(super) struct Verify {
    pub ledger: Ledger,
    pub pattern: Pattern,
    pub verified: Verified,
}

/// What the last reading of all that was written came to, in blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// With known contents: their latest write succeeded.
    pub written: u64,
    /// Written ones that were read once more at the end, and were right.
    pub right: u64,
    /// Written ones in a read whose data was wrong.
    pub wrong: u64,
    /// Whose latest write failed or has not ended: what they contain is open.
    pub open: u64,
}

impl Verified {
    /// Blocks that were not read once more, or whose read failed.
    pub fn unread(&self) -> u64 {
        self.written.saturating_sub(self.right + self.wrong)
    }

    /// For programs.
    pub fn json(self) -> Value {
        json!({
            "blocks_written": self.written,
            "blocks_right": self.right,
            "blocks_wrong": self.wrong,
            "blocks_unread": self.unread(),
            "blocks_open": self.open,
        })
    }

    /// Adds another job's.
    pub fn add(&mut self, other: Self) {
        self.written += other.written;
        self.right += other.right;
        self.wrong += other.wrong;
        self.open += other.open;
    }
}

impl Verify {
    /// Takes the end of an I/O; what its slot does next.
    pub fn settle(
        &mut self,
        operation: Operation,
        buffer: &[u8],
        success: bool,
        swept: bool,
        stats: &mut JobStats,
    ) -> Stage {
        match (operation.writes(), success) {
            (true, true) => {
                self.ledger.written(operation);
                return Stage::Written(operation);
            }
            (true, false) => self.ledger.write_failed(operation),
            (false, false) => {}
            (false, true) => {
                let ledger = &self.ledger;
                let check = self
                    .pattern
                    .check(buffer, operation.lba, |lba| ledger.expected(lba));
                if swept {
                    let blocks = self.ledger.known_in(operation);
                    *(match check {
                        Ok(()) => &mut self.verified.right,
                        Err(_) => &mut self.verified.wrong,
                    }) += blocks;
                }
                if let Err(miscompare) = check {
                    stats.miscompares += 1;
                    stats.note_error(|| miscompare.to_string());
                }
            }
        }
        self.ledger.release(operation);
        Stage::Free
    }
}
