//! An I/O in flight: from its submission to its completion, wherever it waits or is.

use pollux_nvme_tcp::host::{Buffer, Command, Request, Transfer};
use pollux_reactor::Time;

use super::select::PathSet;
use crate::command::{Io, Op};
use crate::error::{EndedEarly, IoError};
use crate::ids::{VolumeId, VolumeInfo};

/// What is known of an I/O beside the command and the buffer that a queue pair needs. It travels with them, and
/// the queue pair hands it back unseen with how the command ended: where its connection was lost, with whether a
/// byte of it was handed over, without which it surely was not executed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InFlight {
    /// As its submitter has said.
    pub op: Op,
    pub lba: u64,
    pub blocks: u32,
    pub user: u64,
    pub volume: VolumeId,
    /// Its place in the order of submission.
    pub sequence: u64,
    /// When it was submitted first.
    pub submitted: Time,
    /// When something is done about it if it has not ended; [`Time::MAX`]: never.
    pub deadline: Time,
    /// Retries that were counted (rule B6).
    pub retries: u32,
    /// Paths that have just failed it.
    pub avoid: PathSet,
    pub unwanted: Unwanted,
    /// An earlier attempt was sent to a controller that may still execute it (rule B14).
    pub in_doubt: bool,
}

impl InFlight {
    /// The error that the I/O ends with where no controller has ended it.
    pub fn ended(&self, error: IoError) -> IoError {
        let early = match error {
            _ if !self.in_doubt => return error,
            IoError::Removed => EndedEarly::Removed,
            IoError::Deadline => EndedEarly::Deadline,
            IoError::NoPath(why) => EndedEarly::NoPath(why),
            IoError::Status(_)
            | IoError::Data
            | IoError::Buffer
            | IoError::Refused(_)
            | IoError::Stopped
            | IoError::InDoubt(_) => EndedEarly::Aborted,
        };
        IoError::InDoubt(early)
    }

    /// The I/O as it was submitted, with its buffer.
    #[inline]
    pub fn io(&self, buffer: Buffer) -> Io {
        Io {
            op: self.op,
            lba: self.lba,
            blocks: self.blocks,
            buffer,
            user: self.user,
        }
    }
}

/// Bytes of a range of blocks that are to be deallocated (NVM Command Set 1.1, 3.3.3).
const RANGE_LEN: usize = 16;

/// An I/O with its command and its buffer.
pub(crate) type IoRequest = Request<InFlight>;

/// Why an I/O that is with a controller is not to be submitted again, whatever becomes of it.
///
/// It is as wide as a register, since a queue pair's table tells free slots by it: with a single byte, what stands before
/// it is moved in pieces that overlap, and the processor reads such a place only once everything written before has left
/// its store buffer, the data just copied for the reader included (a twelfth of the host's time at depth 128).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Unwanted {
    /// The I/O is wanted.
    No,
    /// Its submitter has aborted it.
    Aborted,
    /// Its deadline has passed.
    Overdue,
}

/// Makes the request of an I/O on a volume, which was checked to fit it.
#[inline]
pub(super) fn request_of(
    io: Io,
    volume: &VolumeInfo,
    sequence: u64,
    now: Time,
    deadline: Time,
) -> IoRequest {
    let in_flight = InFlight {
        op: io.op,
        lba: io.lba,
        blocks: io.blocks,
        user: io.user,
        volume: volume.id,
        sequence,
        submitted: now,
        deadline,
        retries: 0,
        avoid: PathSet::EMPTY,
        unwanted: Unwanted::No,
        in_doubt: false,
    };
    command_of(io, volume.nsid, volume.block_shift).with(in_flight)
}

/// Whether the buffer has room for the data of its command.
#[inline]
pub(super) fn has_room(io: &Io, block_shift: u8) -> bool {
    if io.op.moves_blocks() {
        return io.buffer.len() >= (io.blocks as usize) << block_shift;
    }
    io.op != Op::Deallocate || io.buffer.is_vec() || io.buffer.len() >= RANGE_LEN
}

/// The command of an I/O on a namespace of `1 << block_shift` byte blocks (NVM Command Set 1.1, 3.3).
#[inline]
fn command_of(io: Io, nsid: u32, block_shift: u8) -> Request {
    match io.op {
        Op::Flush => flush(io, nsid),
        Op::Deallocate => deallocate(io, nsid),
        op => Request::block(op.opcode(), nsid, io.lba, io.blocks, block_shift, io.buffer),
    }
}

fn flush(io: Io, nsid: u32) -> Request {
    let command = Command {
        opcode: io.op.opcode(),
        nsid,
        ..Command::default()
    };
    Request::plain(command, Transfer::None, 0, io.buffer)
}

/// Dataset Management with one range (NVM Command Set 1.1, 3.3.3), attribute Deallocate.
fn deallocate(io: Io, nsid: u32) -> Request {
    let mut buffer = io.buffer;
    if let Some(vec) = buffer.as_mut_vec()
        && vec.len() < RANGE_LEN
    {
        vec.resize(RANGE_LEN, 0);
    }
    let mut range = [0; RANGE_LEN];
    let (blocks, lba) = range.split_at_mut(8);
    blocks[4..].copy_from_slice(&io.blocks.to_le_bytes());
    lba.copy_from_slice(&io.lba.to_le_bytes());
    // An owner that has failed is found out when the command is submitted.
    if let Some(start) = buffer.as_mut_slice().and_then(|b| b.first_chunk_mut()) {
        *start = range;
    }
    let command = Command {
        opcode: io.op.opcode(),
        nsid,
        cdw: [0, 1 << 2, 0, 0, 0, 0],
    };
    Request::plain(command, Transfer::ToController, RANGE_LEN, buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_io_comes_back_as_it_was_handed_in() {
        let volume = VolumeInfo {
            id: VolumeId {
                slot: 0,
                generation: 1,
            },
            name: "Nvme0n1".into(),
            nsid: 5,
            blocks: 1 << 40,
            block_shift: 9,
        };
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
                buffer: vec![7; 4096].into(),
                user: 42,
            };
            let request = request_of(io, &volume, 1, Time::ZERO, Time::MAX);
            assert_eq!(request.command.nsid, 5);
            let back = request.user.io(request.buffer);
            assert_eq!((back.op, back.lba, back.blocks), (op, lba, blocks));
            assert_eq!((back.user, back.buffer.len()), (42, 4096));
        }
    }
}
