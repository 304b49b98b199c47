//! What a queue pair is asked to do, and what it answers.

use std::fmt;

use super::buffer::Buffer;
use crate::spec::opcode::DataDirection;
use crate::spec::status::Status;

/// The fields of a submission queue entry that say what to do (NVMe Base 2.1, 4.1.1); the queue pair adds
/// the command identifier and the SGL.
///
/// Fabrics commands fit the same shape: FCTYPE stands where `nsid` has its lowest byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Command {
    /// Opcode (CDW0 bits 7:0).
    pub opcode: u8,
    /// Namespace identifier, or FCTYPE for Fabrics commands.
    pub nsid: u32,
    /// CDW10 to CDW15.
    pub cdw: [u32; 6],
}

/// Which way a command moves data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transfer {
    /// None.
    None,
    /// From the request's buffer to the controller.
    ToController,
    /// From the controller into the request's buffer.
    FromController,
}

/// One command with its buffer. The buffer is handed in with the request and handed back with its
/// completion; the queue pair never allocates or frees one.
///
/// `T` is the submitter's: whatever it wants to find again in the completion. A queue pair carries it along
/// unseen.
#[derive(Debug)]
pub struct Request<T = ()> {
    /// What to do.
    pub command: Command,
    /// Which way data moves.
    pub transfer: Transfer,
    /// Bytes the command covers. With a transfer they are the first `length` bytes of `buffer`.
    pub length: usize,
    /// Log2 of the block size in bytes for block commands, which are split where they exceed what the
    /// controller takes at once; 0 for all others, which are refused then.
    pub block_shift: u8,
    /// The data.
    pub buffer: Buffer,
    /// The submitter's own.
    pub user: T,
}

impl Request {
    /// A block command (read, write, compare, write zeroes, verify) on `blocks` blocks of `1 << block_shift` bytes
    /// from `lba` on (NVM Command Set 1.1, 3.3).
    #[inline]
    pub fn block(
        opcode: u8,
        nsid: u32,
        lba: u64,
        blocks: u32,
        block_shift: u8,
        buffer: impl Into<Buffer>,
    ) -> Self {
        let transfer = match DataDirection::of(opcode) {
            DataDirection::ControllerToHost => Transfer::FromController,
            DataDirection::HostToController => Transfer::ToController,
            // No block command moves data both ways.
            DataDirection::None | DataDirection::Bidirectional => Transfer::None,
        };
        let mut command = Command {
            opcode,
            nsid,
            ..Command::default()
        };
        command.set_lba(lba);
        Self {
            block_shift,
            ..Self::plain(command, transfer, (blocks as usize) << block_shift, buffer)
        }
    }

    /// Any other command.
    #[inline]
    pub fn plain(
        command: Command,
        transfer: Transfer,
        length: usize,
        buffer: impl Into<Buffer>,
    ) -> Self {
        Self {
            command,
            transfer,
            length,
            block_shift: 0,
            buffer: buffer.into(),
            user: (),
        }
    }
}

impl<T> Request<T> {
    /// The same request, carrying something else; what it has carried so far is dropped.
    #[inline]
    pub fn with<U>(self, user: U) -> Request<U> {
        self.replace(user).0
    }

    /// The same request, carrying something else, and what it has carried so far.
    #[inline]
    pub fn replace<U>(self, user: U) -> (Request<U>, T) {
        let request = Request {
            command: self.command,
            transfer: self.transfer,
            length: self.length,
            block_shift: self.block_shift,
            buffer: self.buffer,
            user,
        };
        (request, self.user)
    }
}

impl Command {
    /// First block of a block command (CDW10 and CDW11).
    #[inline]
    pub fn lba(&self) -> u64 {
        u64::from(self.cdw[0]) | u64::from(self.cdw[1]) << 32
    }

    /// Sets the first block of a block command.
    #[inline]
    pub fn set_lba(&mut self, lba: u64) {
        let [a, b, c, d, e, f, g, h] = lba.to_le_bytes();
        self.cdw[0] = u32::from_le_bytes([a, b, c, d]);
        self.cdw[1] = u32::from_le_bytes([e, f, g, h]);
    }
}

/// How a command ended: there is no third way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The controller completed it.
    Completed {
        /// Status field of the completion.
        status: Status,
        /// Dwords 0 and 1 of the completion.
        result: u64,
    },
    /// No usable completion was received.
    Lost(Lost),
}

impl Outcome {
    /// True if the controller completed the command with status Successful Completion.
    #[inline]
    pub fn is_success(&self) -> bool {
        matches!(self, Outcome::Completed { status, .. } if status.is_success())
    }
}

/// Why a command ended without a completion that can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lost {
    /// The connection ended. Only a request of which nothing was handed to the connection is sure not to have
    /// been executed, nor to be executed later.
    Connection {
        /// A byte of the request, or of an earlier part of one that was split, was handed to the connection.
        sent: bool,
    },
    /// Data arrived that does not match its digest (NVMe/TCP 1.1, 3.3.1.1).
    DataDigest,
    /// The controller reported success but sent, or asked for, less data than the command covers.
    ShortData,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lost::Connection { .. } => "connection lost",
            Lost::DataDigest => "data digest error",
            Lost::ShortData => "less data than the command covers",
        })
    }
}

/// A request that ended, with its buffer. What the buffer of one holds that reads and has not succeeded is of no meaning: it
/// may be data of other requests.
#[derive(Debug)]
pub struct Completed<T = ()> {
    /// The request as it was submitted.
    pub request: Request<T>,
    /// How it ended.
    pub outcome: Outcome,
}
