//! One I/O of a disk: what it is made of and how it is answered.

use std::ops::{Deref, DerefMut};

use crate::spec::status::Status;

/// A range of blocks in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Where it starts.
    pub offset: u64,
    /// How long it is.
    pub len: u64,
}

/// What is to be done. There may come more; a disk ends what it does not know with [`Status::INVALID_OPCODE`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Op {
    /// Fill the buffer from the disk.
    Read {
        /// Where it starts.
        offset: u64,
    },
    /// Store the buffer.
    Write {
        /// Where it starts.
        offset: u64,
        /// So that it survives a loss of power.
        fua: bool,
    },
    /// Compare the buffer with what is stored; ends with [`Status::COMPARE_FAILURE`] if that is something else.
    Compare {
        /// Where it starts.
        offset: u64,
    },
    /// Make a range read as zeroes.
    Zero {
        /// The range.
        range: Range,
        /// Give its space back if that can be done.
        deallocate: bool,
        /// So that it survives a loss of power.
        fua: bool,
    },
    /// Give the space of ranges back where that can be done. A host only says that it does not need what is there.
    Deallocate {
        /// The ranges.
        ranges: Vec<Range>,
    },
    /// Make what was written before survive a loss of power.
    Flush,
}

impl Op {
    /// Whether what is read afterwards may be something else.
    pub(super) fn changes_data(&self) -> bool {
        match self {
            Self::Write { .. } | Self::Zero { .. } | Self::Deallocate { .. } => true,
            Self::Read { .. } | Self::Compare { .. } | Self::Flush => false,
        }
    }

    /// Takes the next piece of what is to be zeroed or deallocated, at most `max` bytes of it; `None` if nothing is left.
    pub(super) fn next_piece(&mut self, max: u64) -> Option<Range> {
        let range = match self {
            Self::Zero { range, .. } => range,
            Self::Deallocate { ranges } => {
                while ranges.last().is_some_and(|range| range.len == 0) {
                    ranges.pop();
                }
                ranges.last_mut()?
            }
            Self::Read { .. } | Self::Write { .. } | Self::Compare { .. } | Self::Flush => {
                return None;
            }
        };
        let piece = Range {
            len: range.len.min(max),
            ..*range
        };
        range.offset += piece.len;
        range.len -= piece.len;
        (piece.len > 0).then_some(piece)
    }
}

/// Names an I/O. A name is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct IoId(pub(in crate::target) IoName);

/// Where an I/O is in the books of the reactor that submitted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::target) struct IoName {
    /// Unlike all others of the process.
    pub(in crate::target) serial: u64,
    pub(in crate::target) reactor: u32,
    pub(in crate::target) place: u32,
}

/// Data on its way between a host and a disk.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Box<[u8]>,
    len: usize,
}

impl Buffer {
    /// The first `len` bytes of `bytes`, or all if there are fewer.
    pub(in crate::target) fn new(bytes: Box<[u8]>, len: usize) -> Self {
        let len = len.min(bytes.len());
        Self { bytes, len }
    }

    /// Bytes of memory that it takes.
    pub(in crate::target) fn capacity(&self) -> usize {
        self.bytes.len()
    }

    pub(in crate::target) fn into_bytes(self) -> Box<[u8]> {
        self.bytes
    }
}

impl Deref for Buffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl DerefMut for Buffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

/// An I/O. Whoever has it has to hand it back, as a [`Done`].
#[derive(Debug)]
#[must_use]
pub struct Io {
    id: IoId,
    /// What is to be done.
    pub op: Op,
    /// The data of a read, write or compare, as long as its range; of all others empty.
    pub data: Buffer,
}

impl Io {
    pub(in crate::target) fn new(id: IoId, op: Op, data: Buffer) -> Self {
        Self { id, op, data }
    }

    /// The name of the I/O, to know it again when it is cancelled.
    pub fn id(&self) -> IoId {
        self.id
    }

    /// Ends the I/O.
    pub fn done(self, result: Result<(), Status>) -> Done {
        Done { io: self, result }
    }
}

/// An I/O that has come to its end: nothing of it can execute any more.
#[derive(Debug)]
#[must_use]
pub struct Done {
    /// The I/O.
    pub io: Io,
    /// How it ended.
    pub result: Result<(), Status>,
}
