//! An I/O on a volume, from submission to completion.

use std::fmt;

use pollux_nvme_tcp::host::{Command, Request, Transfer};
use pollux_nvme_tcp::spec::opcode::nvm;
use pollux_nvme_tcp::spec::status::Status;
use pollux_reactor::Time;

use crate::messages::{ControllerId, VolumeId};

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

/// Why an I/O failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IoError {
    /// The controller completed it with an error that is not retried, or was retried often enough.
    #[error("{0}")]
    Status(Status),
    /// No path can carry it, and none may become available in time.
    #[error("no path: {0}")]
    NoPath(NoPath),
    /// The data that arrived does not match its digest or is incomplete, more often than the retry limit.
    #[error("data lost on the way")]
    Data,
    /// The volume was removed.
    #[error("volume removed")]
    Removed,
    /// It had not ended by its deadline ([`Channels::submit_within`](crate::Channels::submit_within)). What it
    /// writes may have been written or not, where it had been sent.
    #[error("deadline passed")]
    Deadline,
}

/// Why a volume has no path left that could be waited for (rule B7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoPath {
    /// The volume has no path at all.
    NoPaths,
    /// The namespace is not active behind any controller.
    NamespaceInactive,
    /// ANA state persistent loss.
    PersistentLoss,
    /// Inaccessible for longer than ANATT.
    AnattExpired,
    /// The controller is unreachable for longer than `fast_io_fail_timeout_sec`.
    FastIoFail,
    /// The controller is gone and is not reconnected to.
    ControllerLost,
}

impl fmt::Display for NoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NoPath::NoPaths => "the volume has none",
            NoPath::NamespaceInactive => "the namespace is not active",
            NoPath::PersistentLoss => "ANA persistent loss",
            NoPath::AnattExpired => "inaccessible for longer than ANATT",
            NoPath::FastIoFail => "unreachable for longer than fast_io_fail_timeout_sec",
            NoPath::ControllerLost => "controller lost",
        })
    }
}

/// Why an I/O was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// No such volume.
    #[error("no such volume")]
    NoVolume,
    /// No blocks, or blocks beyond the end of the volume.
    #[error("blocks outside the volume")]
    OutOfRange,
    /// The buffer is shorter than the blocks.
    #[error("buffer shorter than the blocks")]
    BufferTooShort,
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

    /// Makes the request that a queue pair takes, on a namespace of `1 << block_shift` byte blocks.
    #[inline]
    pub(crate) fn into_request(self, nsid: u32, block_shift: u8) -> Request {
        let opcode = match self.op {
            Op::Read => nvm::READ,
            Op::Write => nvm::WRITE,
            Op::Compare => nvm::COMPARE,
            Op::WriteZeroes => nvm::WRITE_ZEROES,
            Op::Flush => nvm::FLUSH,
            Op::Deallocate => return self.into_deallocate(nsid),
        };
        let mut request = match self.op {
            Op::Flush => {
                let command = Command {
                    opcode,
                    nsid,
                    ..Command::default()
                };
                Request::plain(command, Transfer::None, 0, self.buffer)
            }
            _ => Request::block(
                opcode,
                nsid,
                self.lba,
                self.blocks,
                block_shift,
                self.buffer,
            ),
        };
        request.user = self.user;
        request
    }

    /// Dataset Management with one range (NVM Command Set 1.1, 3.3.3), attribute Deallocate.
    fn into_deallocate(mut self, nsid: u32) -> Request {
        const RANGE_LEN: usize = 16;
        if self.buffer.len() < RANGE_LEN {
            self.buffer.resize(RANGE_LEN, 0);
        }
        let mut range = [0; RANGE_LEN];
        let (blocks, lba) = range.split_at_mut(8);
        blocks[4..].copy_from_slice(&self.blocks.to_le_bytes());
        lba.copy_from_slice(&self.lba.to_le_bytes());
        self.buffer[..RANGE_LEN].copy_from_slice(&range);
        let command = Command {
            opcode: nvm::DATASET_MANAGEMENT,
            nsid,
            cdw: [0, 1 << 2, 0, 0, 0, 0],
        };
        let mut request = Request::plain(command, Transfer::ToController, RANGE_LEN, self.buffer);
        request.user = self.user;
        request
    }

    /// Takes the I/O back out of a request made by [`into_request`](Self::into_request).
    #[inline]
    pub(crate) fn from_request(request: Request) -> Self {
        let op = match request.command.opcode {
            nvm::READ => Op::Read,
            nvm::WRITE => Op::Write,
            nvm::COMPARE => Op::Compare,
            nvm::WRITE_ZEROES => Op::WriteZeroes,
            nvm::DATASET_MANAGEMENT => Op::Deallocate,
            _ => Op::Flush,
        };
        let (lba, blocks) = match op {
            Op::Flush => (0, 0),
            Op::Deallocate => {
                let at = |i: usize| request.buffer.get(i).copied().unwrap_or(0);
                (
                    u64::from_le_bytes([8, 9, 10, 11, 12, 13, 14, 15].map(at)),
                    u32::from_le_bytes([4, 5, 6, 7].map(at)),
                )
            }
            _ => {
                let blocks = request.length >> request.block_shift;
                (request.lba(), u32::try_from(blocks).unwrap_or(u32::MAX))
            }
        };
        Io {
            op,
            lba,
            blocks,
            user: request.user,
            buffer: request.buffer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_io_comes_back_as_it_was_handed_in() {
        for (op, blocks) in [
            (Op::Read, 8),
            (Op::Write, 1),
            (Op::Compare, 3),
            (Op::WriteZeroes, 70_000),
            (Op::Flush, 0),
            (Op::Deallocate, 123_456),
        ] {
            let lba = if op == Op::Flush { 0 } else { 0x1_2345_6789 };
            let io = Io {
                op,
                lba,
                blocks,
                buffer: vec![7; 4096],
                user: 42,
            };
            let back = Io::from_request(io.into_request(5, 9));
            assert_eq!((back.op, back.lba, back.blocks), (op, lba, blocks));
            assert_eq!((back.user, back.buffer.len()), (42, 4096));
        }
    }
}
