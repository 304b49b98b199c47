//! Buffers for data that a host sends on an R2T.

use crate::spec::Sqe;
use crate::spec::status::Status;

/// Largest data of one command in bytes; Identify Controller reports it as MDTS.
pub(super) const TRANSFER_MAX: u32 = 1 << 20;

/// Buffers per reactor. Commands beyond that wait for their R2T.
pub(super) const BUFFERS: usize = 32;

/// The staging buffers of one reactor. They are allocated zeroed at the start and the system provides their
/// pages on first use, so buffers that only ever hold small writes stay small.
#[derive(Debug, Default)]
pub(super) struct StagingPool {
    free: Vec<Box<[u8]>>,
}

impl StagingPool {
    /// A pool of [`BUFFERS`] buffers of [`TRANSFER_MAX`] bytes.
    pub(super) fn new() -> Self {
        let free = (0..BUFFERS)
            .map(|_| vec![0; TRANSFER_MAX as usize].into_boxed_slice())
            .collect();
        Self { free }
    }

    #[inline]
    pub(super) fn take(&mut self) -> Option<Box<[u8]>> {
        self.free.pop()
    }

    #[inline]
    pub(super) fn give(&mut self, buffer: Box<[u8]>) {
        self.free.push(buffer);
    }
}

/// A command whose data has been asked for. Its transfer tag is its place in the queue's table.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) sqe: Sqe,
    pub(super) buffer: Box<[u8]>,
    /// Length of the data in bytes.
    pub(super) len: u32,
    /// Bytes that came, in order from the start.
    pub(super) received: u32,
    /// Set when a data digest was wrong: the data is not used.
    pub(super) failed: Option<Status>,
}
