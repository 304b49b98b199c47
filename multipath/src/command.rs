//! An I/O on a volume, as its submitter sees it.

use pollux_reactor::Time;

use crate::error::IoError;
use crate::ids::{ControllerId, VolumeId};

/// What an I/O does (NVM Command Set 1.1, 3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Read blocks into the buffer.
    Read,
    /// Write blocks from the buffer.
    Write,
    /// Make everything written before durable; no blocks.
    Flush,
    /// Set blocks to zero; no buffer.
    WriteZeroes,
    /// Tell that the contents of blocks are no longer needed. Uses the first 16 bytes of the buffer.
    Deallocate,
    /// Compare blocks with the buffer.
    Compare,
}

/// One I/O. The buffer is handed in with it and handed back with its completion.
#[derive(Debug)]
pub struct Io {
    /// What to do.
    pub op: Op,
    /// First block.
    pub lba: u64,
    /// Number of blocks; 0 for a flush.
    pub blocks: u32,
    /// At least `blocks` blocks long where data moves.
    pub buffer: Vec<u8>,
    /// Whatever the submitter wants to find again in the completion.
    pub user: u64,
}

/// An I/O that ended; each I/O ends exactly once.
#[derive(Debug)]
pub struct Completion {
    /// The I/O, with its buffer.
    pub io: Io,
    /// How it ended.
    pub result: Result<(), IoError>,
    /// The volume it was submitted to.
    pub volume: VolumeId,
    /// The path that carried it last, if any did.
    pub path: Option<ControllerId>,
    /// When it was submitted first, by the reactor's clock.
    pub submitted: Time,
}

impl Io {
    /// An I/O on `blocks` blocks from `lba` on.
    pub fn new(op: Op, lba: u64, blocks: u32, buffer: Vec<u8>) -> Self {
        Self {
            op,
            lba,
            blocks,
            buffer,
            user: 0,
        }
    }
}
