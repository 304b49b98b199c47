//! What a queue pair is asked to do, and what it answers.

use std::fmt;

use pollux_reactor::Time;

use crate::spec::opcode;
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
#[derive(Debug)]
pub struct Request {
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
    pub buffer: Vec<u8>,
    /// Whatever the submitter wants to find again in the completion.
    pub user: u64,
    /// Which of the submitter's objects the request belongs to; kept by the submitter.
    pub owner: u32,
    /// How often this request was submitted before; kept by the submitter.
    pub attempts: u32,
    /// Where not to submit it again, if it can be helped; kept by the submitter.
    pub avoid: u32,
    /// Its place in the order of submission; kept by the submitter.
    pub sequence: u64,
    /// When the request was first submitted; kept by the submitter.
    pub submitted: Time,
    /// When the submitter does something about the request if it has not ended, [`Time::MAX`]: never; kept by
    /// the submitter.
    pub deadline: Time,
    /// Whether the submitter still wants it done; kept by the submitter.
    pub unwanted: Unwanted,
}

/// Why a request that is with a controller is not to be submitted again, whatever becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unwanted {
    /// It is wanted.
    #[default]
    No,
    /// Its submitter has aborted it.
    Aborted,
    /// Its deadline has passed.
    Overdue,
}

impl Request {
    /// A block command (read, write, compare, write zeroes) on `blocks` blocks of `1 << block_shift` bytes
    /// from `lba` on (NVM Command Set 1.1, 3.3).
    #[inline]
    pub fn block(
        opcode: u8,
        nsid: u32,
        lba: u64,
        blocks: u32,
        block_shift: u8,
        buffer: Vec<u8>,
    ) -> Self {
        let transfer = match opcode {
            opcode::nvm::READ => Transfer::FromController,
            opcode::nvm::WRITE | opcode::nvm::COMPARE => Transfer::ToController,
            _ => Transfer::None,
        };
        let mut request = Self::plain(
            Command {
                opcode,
                nsid,
                ..Command::default()
            },
            transfer,
            (blocks as usize) << block_shift,
            buffer,
        );
        request.block_shift = block_shift;
        request.set_lba(lba);
        request
    }

    /// Any other command.
    #[inline]
    pub fn plain(command: Command, transfer: Transfer, length: usize, buffer: Vec<u8>) -> Self {
        Self {
            command,
            transfer,
            length,
            block_shift: 0,
            buffer,
            user: 0,
            owner: 0,
            attempts: 0,
            avoid: 0,
            sequence: 0,
            submitted: Time::ZERO,
            deadline: Time::MAX,
            unwanted: Unwanted::No,
        }
    }

    /// First block of a block command.
    #[inline]
    pub fn lba(&self) -> u64 {
        u64::from(self.command.cdw[0]) | u64::from(self.command.cdw[1]) << 32
    }

    #[inline]
    fn set_lba(&mut self, lba: u64) {
        let bytes = lba.to_le_bytes();
        let [a, b, c, d, e, f, g, h] = bytes;
        self.command.cdw[0] = u32::from_le_bytes([a, b, c, d]);
        self.command.cdw[1] = u32::from_le_bytes([e, f, g, h]);
    }
}

/// How a command ended.
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
pub enum Lost {
    /// The connection ended. `sent` tells whether a byte of the command may have reached the controller.
    Connection {
        /// False if no byte of the command was handed to the stream.
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

/// A request that ended, with its buffer.
#[derive(Debug)]
pub struct Completed {
    /// The request as it was submitted.
    pub request: Request,
    /// How it ended.
    pub outcome: Outcome,
}
