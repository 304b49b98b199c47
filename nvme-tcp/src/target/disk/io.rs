//! One I/O of a disk: what it is made of and how it is answered.

use std::ops::{Deref, DerefMut};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

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

/// Memory in pieces of this many bytes, aligned to as many: what devices transfer into and out of without a copy.
pub(in crate::target) const PAGE_LEN: usize = 4096;

/// A piece of memory.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(4096))]
pub(in crate::target) struct Page([u8; PAGE_LEN]);

impl Page {
    pub(in crate::target) const ZERO: Self = Self([0; PAGE_LEN]);

    /// So many pages of zeroes.
    pub(in crate::target) fn zeroed(count: usize) -> Box<[Self]> {
        vec![Self::ZERO; count].into_boxed_slice()
    }
}

/// Data on its way between a host and a disk, at an address that is a multiple of 4,096.
#[derive(Debug, Default)]
pub struct Buffer {
    pages: Box<[Page]>,
    len: usize,
}

impl Buffer {
    /// The first `len` bytes of `pages`, or all if there are fewer.
    pub(in crate::target) fn new(pages: Box<[Page]>, len: usize) -> Self {
        let len = len.min(size_of_val(&*pages));
        Self { pages, len }
    }

    /// Bytes of memory that it takes.
    pub(in crate::target) fn capacity(&self) -> usize {
        size_of_val(&*self.pages)
    }

    pub(in crate::target) fn into_pages(self) -> Box<[Page]> {
        self.pages
    }
}

impl Deref for Buffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.pages.as_bytes()[..self.len]
    }
}

impl DerefMut for Buffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.pages.as_mut_bytes()[..self.len]
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

    /// Whether what is read, written or zeroed starts and ends at multiples of `alignment`, a power of two.
    pub(super) fn is_aligned(&self, alignment: u32) -> bool {
        let (offset, len) = match self.op {
            Op::Read { offset } | Op::Write { offset, .. } | Op::Compare { offset } => {
                (offset, self.data.len() as u64)
            }
            Op::Zero { range, .. } => (range.offset, range.len),
            Op::Deallocate { .. } | Op::Flush => return true,
        };
        (offset | len) & u64::from(alignment - 1) == 0
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
