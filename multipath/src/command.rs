//! An I/O on a volume, as its submitter sees it.

use pollux_nvme_tcp::host::Buffer;
use pollux_nvme_tcp::spec::opcode::{DataDirection, nvm};
use pollux_reactor::Time;

use crate::error::IoError;
use crate::ids::{ControllerId, VolumeId};

/// What an I/O does (NVM Command Set 1.1, 3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Op {
    /// Read blocks into the buffer.
    Read,
    /// Write blocks from the buffer.
    Write,
    /// Make everything written before durable; no blocks.
    Flush,
    /// Set blocks to zero; no buffer.
    WriteZeroes,
    /// Tell that the contents of blocks are no longer needed. Uses the first 16 bytes of the buffer; a `Vec`
    /// that is shorter is made as long.
    Deallocate,
    /// Compare blocks with the buffer.
    Compare,
}

impl Op {
    /// Everything that an I/O can do. Whoever takes one by name takes it from here.
    pub const ALL: [Self; 6] = [
        Self::Read,
        Self::Write,
        Self::Deallocate,
        Self::Flush,
        Self::WriteZeroes,
        Self::Compare,
    ];

    /// The name that SPDK's users know.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Deallocate => "unmap",
            Self::Flush => "flush",
            Self::WriteZeroes => "write_zeroes",
            Self::Compare => "compare",
        }
    }

    /// The command that does it.
    #[inline]
    pub(crate) fn opcode(self) -> u8 {
        match self {
            Self::Read => nvm::READ,
            Self::Write => nvm::WRITE,
            Self::Deallocate => nvm::DATASET_MANAGEMENT,
            Self::Flush => nvm::FLUSH,
            Self::WriteZeroes => nvm::WRITE_ZEROES,
            Self::Compare => nvm::COMPARE,
        }
    }

    /// Whether executing it may change what is in the blocks, so that it must not be executed twice with others in
    /// between (rule B14).
    #[inline]
    pub fn changes_data(self) -> bool {
        match self {
            Self::Read | Self::Flush | Self::Compare => false,
            Self::Write | Self::WriteZeroes | Self::Deallocate => true,
        }
    }

    /// The buffer holds what is in the blocks, or is to be.
    #[inline]
    pub(crate) fn moves_blocks(self) -> bool {
        self != Self::Deallocate && DataDirection::of(self.opcode()) != DataDirection::None
    }
}

/// One I/O, of [`Io::new`]. The buffer is handed in with it and handed back with its completion.
#[derive(Debug)]
#[non_exhaustive]
pub struct Io {
    /// What to do.
    pub op: Op,
    /// First block.
    pub lba: u64,
    /// Number of blocks; 0 for a flush.
    pub blocks: u32,
    /// At least `blocks` blocks long where data moves.
    pub buffer: Buffer,
    /// Whatever the submitter wants to find again in the completion.
    pub user: u64,
}

/// An I/O that ended; each I/O ends exactly once.
#[derive(Debug)]
#[non_exhaustive]
pub struct Completion {
    /// The I/O, with its buffer. What the buffer of a read holds that has not succeeded is of no meaning: it may be data of
    /// other reads.
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
    #[inline]
    pub fn new(op: Op, lba: u64, blocks: u32, buffer: impl Into<Buffer>) -> Self {
        Self {
            op,
            lba,
            blocks,
            buffer: buffer.into(),
            user: 0,
        }
    }

    /// With something that its submitter finds again in the completion.
    #[inline]
    pub fn with_user(self, user: u64) -> Self {
        Self { user, ..self }
    }
}
