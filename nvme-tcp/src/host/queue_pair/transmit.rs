//! The send half of a queue pair: command capsules and the data that the controller asks for.

use std::collections::VecDeque;

use pollux_reactor::Stream;
use zerocopy::little_endian::U32;
use zerocopy::{Immutable, IntoBytes};

use super::QueueError;
use super::handshake::{ConnectOptions, R2TS_MAX, Settled};
use super::table::{CommandTable, Slot};
use crate::host::request::Transfer;
use crate::pdu::{DataDigest, ProtocolError, Receiver, TxFraming, emit_term_req};
use crate::spec::fabrics::ConnectData;
use crate::spec::pdu::{CapsuleCmd, H2cData};
use crate::spec::sqe::{SglDescriptor, Sqe};
use crate::stream::{NoPayloads, TxQueue};

/// Inline bytes and pieces that one PDU takes at most: a header with its digest, padded to the
/// largest alignment a peer may ask for (128), and a data digest.
const PDU_INLINE_MAX: usize = 160;
const PDU_SEGMENTS_MAX: usize = 3;

/// Most blocks of one block command (NLB is a 0's based 16-bit field).
const BLOCKS_MAX: usize = 65_536;

#[derive(Debug, Clone, Copy)]
enum ToSend {
    /// Send the command of a slot's current part.
    Command(u16),
    /// Send data that an R2T asked for, `at .. end` of the command's data.
    Data {
        slot: u16,
        tag: u16,
        at: usize,
        end: usize,
    },
}

#[derive(Debug)]
pub(super) struct Transmitter {
    tx: TxQueue,
    framing: TxFraming,
    /// In the order in which it has to be sent; waits here while the send queue has no room.
    to_send: VecDeque<ToSend>,
    in_capsule_max: usize,
    max_h2c_data: usize,
    transfer_max: usize,
    /// Connect carries its data in the capsule whatever the controller says of other commands.
    connecting: bool,
    /// The stream took no more: nothing is sent before an edge tells of room.
    blocked: bool,
}

impl Transmitter {
    pub fn new(commands: u16, options: &ConnectOptions) -> Self {
        let commands = usize::from(commands);
        Self {
            tx: TxQueue::new(
                (commands + 16) * PDU_INLINE_MAX,
                (commands + 16) * PDU_SEGMENTS_MAX,
            ),
            framing: TxFraming {
                hdgst: false,
                ddgst: false,
                pda: 0,
            },
            to_send: VecDeque::with_capacity(commands * (1 + usize::from(R2TS_MAX))),
            in_capsule_max: options.in_capsule_max,
            max_h2c_data: 4096,
            transfer_max: transfer_max(options.transfer_max),
            connecting: true,
            blocked: false,
        }
    }

    pub fn transfer_max(&self) -> usize {
        self.transfer_max
    }

    pub fn set_transfer_max(&mut self, bytes: usize) {
        self.transfer_max = transfer_max(bytes);
    }

    pub fn settle(&mut self, settled: &Settled) {
        self.framing = TxFraming {
            hdgst: settled.digests.header,
            ddgst: settled.digests.data,
            pda: settled.cpda,
        };
        self.max_h2c_data = settled.max_h2c_data;
    }

    pub fn finish_connect(&mut self) {
        self.connecting = false;
    }

    #[inline]
    pub fn issue(&mut self, slot: u16) {
        self.to_send.push_back(ToSend::Command(slot));
    }

    /// Forgets to send the command of a slot.
    pub fn cancel(&mut self, slot: u16) {
        self.to_send
            .retain(|pdu| !matches!(pdu, ToSend::Command(s) if *s == slot));
    }

    pub fn grant(&mut self, slot: u16, tag: u16, at: usize, length: usize) {
        self.to_send.push_back(ToSend::Data {
            slot,
            tag,
            at,
            end: at + length,
        });
    }

    /// If the slot's request has a further part, issues it.
    #[inline]
    pub fn next_part<T>(&mut self, table: &mut CommandTable<T>, index: u16) -> bool {
        let slot = table.slot(index);
        let done = slot.offset + slot.length;
        if done >= slot.total {
            return false;
        }
        slot.offset = done;
        self.issue(index);
        true
    }

    /// Queues a PDU without digests as it is.
    pub fn put_plain(&mut self, pdu: &(impl IntoBytes + Immutable)) {
        self.tx.put(|out| out.extend_from_slice(pdu.as_bytes()));
    }

    /// Moves PDUs to the send queue as far as it has room, and sends, unless the peer has to make room first.
    #[inline]
    pub fn transmit<T>(
        &mut self,
        stream: &mut Stream,
        table: &mut CommandTable<T>,
    ) -> Result<(), QueueError> {
        loop {
            while let Some(&next) = self.to_send.front() {
                if self.tx.inline_space() < PDU_INLINE_MAX
                    || self.tx.segment_space() < PDU_SEGMENTS_MAX
                {
                    break;
                }
                match next {
                    ToSend::Command(slot) => {
                        self.to_send.pop_front();
                        self.put_command(table, slot);
                    }
                    ToSend::Data { slot, tag, at, end } => {
                        let at = self.put_data(table, slot, tag, at, end);
                        match self.to_send.front_mut() {
                            Some(ToSend::Data { at: next, .. }) if at < end => *next = at,
                            _ => {
                                self.to_send.pop_front();
                            }
                        }
                    }
                }
            }
            if self.tx.is_empty() || (self.blocked && !stream.take_room()) {
                return Ok(());
            }
            let all_sent = self
                .tx
                .flush(stream, table)
                .map_err(|e| QueueError::of_flush(&e))?;
            self.blocked = !all_sent;
            if !all_sent || self.to_send.is_empty() {
                return Ok(());
            }
        }
    }

    #[inline]
    fn put_command<T>(&mut self, table: &mut CommandTable<T>, index: u16) {
        let cid = table.begin(index);
        let slot = table.slot(index);
        slot.length = part_length(slot, self.transfer_max);
        slot.begins_at = self.tx.inline_end();
        let mut sqe = sqe_of(slot);
        sqe.cid.set(cid);
        let data = slot.data_length();
        let limit = if self.connecting {
            size_of::<ConnectData>()
        } else {
            self.in_capsule_max
        };
        let in_capsule = slot.transfer == Transfer::ToController && data <= limit;
        sqe.sgl = if in_capsule {
            SglDescriptor::in_capsule(0, dword(data))
        } else {
            SglDescriptor::transport(dword(data))
        };
        let carried = if in_capsule { data } else { 0 };
        self.tx
            .put(|out| self.framing.put_header(out, &CapsuleCmd::new(sqe), carried));
        if in_capsule {
            // What travels in the capsule is granted already: an R2T for it is a fault of the peer's.
            slot.granted = data;
            self.put_payload(slot, index, 0, data);
        }
        table.await_data(index, cid);
    }

    /// Queues one H2CData PDU; returns how far the data has come.
    fn put_data<T>(
        &mut self,
        table: &mut CommandTable<T>,
        index: u16,
        tag: u16,
        at: usize,
        end: usize,
    ) -> usize {
        let next = end.min(at + self.max_h2c_data);
        let cid = table.current_cid(index);
        let slot = table.slot(index);
        let length = next - at;
        if next == end {
            debug_assert!(slot.r2ts > 0, "data that no R2T asked for");
            slot.r2ts -= 1;
        }
        let pdu = H2cData::new(cid, tag, dword(at), dword(length), next == end);
        self.tx
            .put(|out| self.framing.put_header(out, &pdu, length));
        self.put_payload(slot, index, at, length);
        next
    }

    #[inline]
    fn put_payload<T>(&mut self, slot: &mut Slot<T>, index: u16, at: usize, length: usize) {
        if length == 0 {
            return;
        }
        slot.unsent += length;
        self.tx.put_payload(index, slot.offset + at, length);
        if self.framing.ddgst {
            let mut digest = DataDigest::new();
            // What is not there ends the connection when it is to be sent.
            digest.update(slot.source(at, length));
            self.tx.put(|out| out.extend_from_slice(&digest.finish()));
        }
    }

    /// Tells the controller why the connection ends, if the socket takes it.
    pub fn send_term_req<T>(
        &mut self,
        stream: &mut Stream,
        table: &mut CommandTable<T>,
        fault: ProtocolError,
        offending: &[u8],
    ) {
        if self.tx.flush(stream, table).unwrap_or(false) {
            self.tx
                .put(|out| emit_term_req(out, Receiver::Host, fault, offending));
            // Nothing depends on it: the connection ends either way.
            let _ = self.tx.flush(stream, &mut NoPayloads);
        }
    }

    /// How many of the send queue's inline bytes the stream has taken; see [`Slot::was_sent`].
    pub fn handed(&self) -> u64 {
        self.tx.inline_handed()
    }

    pub fn has_unsent(&self) -> bool {
        !self.tx.is_empty() || !self.to_send.is_empty()
    }

    pub fn clear(&mut self) {
        self.tx.clear();
        self.to_send.clear();
    }
}

/// The user decides how much one command may move; what cannot be said in 32 bits, or is less than a block, is
/// not believed.
fn transfer_max(asked: usize) -> usize {
    asked.clamp(512, 1 << 31)
}

/// A length or an offset of a command's data, which [`transfer_max`] keeps within 32 bits.
#[inline]
#[expect(clippy::expect_used, reason = "the largest transfer is below 4 GiB")]
fn dword(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a transfer of 4 GiB or more")
}

/// Bytes of the request's range that the next command covers.
#[inline]
fn part_length<T>(slot: &Slot<T>, transfer_max: usize) -> usize {
    let rest = slot.total - slot.offset;
    if slot.block_shift == 0 {
        return rest;
    }
    let blocks = BLOCKS_MAX << slot.block_shift;
    let most = match slot.transfer {
        Transfer::None => blocks,
        _ => blocks.min(transfer_max >> slot.block_shift << slot.block_shift),
    };
    rest.min(most.max(1 << slot.block_shift))
}

/// The submission queue entry of a slot's current command, but for its identifier and SGL.
#[inline]
fn sqe_of<T>(slot: &Slot<T>) -> Sqe {
    let mut command = slot.command;
    if slot.block_shift > 0 {
        let first = slot.command.lba() + (slot.offset >> slot.block_shift) as u64;
        command.set_lba(first);
        // A command of no blocks cannot be said; it is the submitter's to refuse.
        let blocks = dword(slot.length >> slot.block_shift);
        command.cdw[2] = command.cdw[2] & 0xffff_0000 | blocks.saturating_sub(1) & 0xffff;
    }
    let mut sqe = Sqe::new(command.opcode, command.nsid);
    let [a, b, c, d, e, f] = command.cdw.map(U32::new);
    (sqe.cdw10, sqe.cdw11, sqe.cdw12) = (a, b, c);
    (sqe.cdw13, sqe.cdw14, sqe.cdw15) = (d, e, f);
    sqe
}
