//! The receive half of a queue pair: PDUs from the controller, checked and applied.

use std::io::ErrorKind;

use pollux_reactor::Progress;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::handshake::R2TS_MAX;
use super::{QueueError, QueuePair, State};
use crate::host::request::{Completed, Lost, Outcome, Transfer};
use crate::pdu::{DataDigest, Frame, ProtocolError};
use crate::spec::pdu::{C2hData, CapsuleResp, Fes, Icresp, PduType, R2t, TermReq, flags};
use crate::spec::sqe::Cqe;
use crate::spec::status::Status;

/// Where the receive side stands between two receives.
#[derive(Debug, Clone, Copy)]
pub(super) enum Receiving {
    /// At the start of a PDU.
    Header,
    /// Inside the data of a C2HData PDU.
    Data(Incoming),
    /// Before the data digest of a C2HData PDU.
    Digest(Incoming),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Incoming {
    pub slot: u16,
    /// Range of the command's data that this PDU carries, and how far it has come.
    start: usize,
    pub at: usize,
    pub end: usize,
    digest: bool,
    flags: u8,
}

fn fault(fes: Fes, fei: u32, reason: &'static str) -> QueueError {
    QueueError::Protocol(ProtocolError { fes, fei, reason })
}

/// Byte offsets of header fields, for the FEI of a TermReq; statuses other than Invalid PDU Header Field
/// have none.
mod field {
    pub const CCCID: u32 = 8;
    pub const CQE_CID: u32 = 20;
    pub const R2TL: u32 = 16;
}

/// The header at the start of a PDU that framing has found: it is there as a whole.
#[inline]
#[expect(
    clippy::expect_used,
    reason = "framing waits for all bytes of the type's header"
)]
fn header<H: FromBytes + KnownLayout + Immutable + Unaligned>(bytes: &[u8]) -> &H {
    let (header, _) = H::ref_from_prefix(bytes).expect("framing found a header that is not there");
    header
}

impl<T> QueuePair<T> {
    /// One receive, then every PDU that is there.
    #[inline]
    pub(super) fn receive_once(
        &mut self,
        sink: &mut impl FnMut(Completed<T>),
    ) -> Result<Progress, QueueError> {
        let expects = self.expects();
        let received = match self.receiving {
            _ if expects => self.receive_expected(sink)?,
            Receiving::Data(ref mut incoming) if self.rx.data().is_empty() => {
                let rest = incoming.end - incoming.at;
                let direct = self
                    .table
                    .slot(incoming.slot)
                    .destination(incoming.at, rest)?;
                self.rx
                    .fill_direct(&mut self.stream, direct, usize::MAX)
                    .map(|(direct, _)| incoming.at += direct)
            }
            _ => self.rx.fill(&mut self.stream).map(|_| ()),
        };
        match received {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(Progress::Idle),
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Err(QueueError::Closed),
            Err(e) => return Err(QueueError::of_stream(&e)),
        }
        // A fault leaves the offending PDU at the front of the buffer, for the TermReq to quote.
        loop {
            let more = match self.receiving {
                Receiving::Header => self.on_header(sink)?,
                Receiving::Data(incoming) => self.on_data(incoming, sink)?,
                Receiving::Digest(incoming) => self.on_digest(incoming, sink)?,
            };
            if !more {
                return Ok(Progress::Busy);
            }
        }
    }

    /// Returns whether to go on: false if the bytes of the next step have not arrived.
    #[inline]
    fn on_header(&mut self, sink: &mut impl FnMut(Completed<T>)) -> Result<bool, QueueError> {
        let bytes = self.rx.data();
        let framed = self.framing.frame_after(&mut self.before, bytes);
        let Some(frame) = framed.map_err(QueueError::Protocol)? else {
            return Ok(false);
        };
        match frame.pdu_type {
            PduType::CAPSULE_RESP => {
                let pdu: &CapsuleResp = header(bytes);
                let cqe = pdu.cqe;
                self.on_response(&cqe, sink)?;
                self.rx.consume(frame.total_len);
            }
            PduType::C2H_DATA => {
                let pdu: &C2hData = header(bytes);
                let (cid, offset) = (pdu.cccid.get(), pdu.datao.get());
                let incoming = self.on_c2h_data(&frame, cid, offset)?;
                self.rx.expect_payloads(frame.data_len);
                self.rx.consume(frame.data_offset);
                return self.on_data(incoming, sink);
            }
            PduType::R2T => {
                let pdu: &R2t = header(bytes);
                let (cid, tag) = (pdu.cccid.get(), pdu.ttag.get());
                let (offset, length) = (pdu.r2to.get(), pdu.r2tl.get());
                self.on_r2t(cid, tag, offset, length)?;
                self.rx.consume(frame.total_len);
            }
            PduType::ICRESP => {
                let pdu: Icresp = *header(bytes);
                self.on_icresp(&pdu)?;
                self.rx.consume(frame.total_len);
            }
            PduType::C2H_TERM_REQ => {
                let pdu: &TermReq = header(bytes);
                return Err(QueueError::Terminated {
                    fes: pdu.fes.get(),
                    fei: pdu.fei.get(),
                });
            }
            _ => {
                return Err(fault(
                    Fes::INVALID_HEADER_FIELD,
                    0,
                    "PDU type not meant for a host",
                ));
            }
        }
        Ok(true)
    }

    #[inline]
    fn on_response(
        &mut self,
        cqe: &Cqe,
        sink: &mut impl FnMut(Completed<T>),
    ) -> Result<(), QueueError> {
        let Some((index, slot)) = self.table.find(cqe.cid.get()) else {
            return Err(fault(
                Fes::INVALID_HEADER_FIELD,
                field::CQE_CID,
                "completion for a command that is not outstanding",
            ));
        };
        let status = Status::from_cqe(cqe.status);
        if status.is_success() && slot.is_sending() {
            return Err(fault(
                Fes::SEQUENCE_ERROR,
                0,
                "success reported before the data was sent",
            ));
        }
        let short = slot.falls_short();
        let outcome = if status.is_success() && slot.digest_failed {
            Outcome::Lost(Lost::DataDigest)
        } else if status.is_success() && short {
            Outcome::Lost(Lost::ShortData)
        } else {
            Outcome::Completed {
                status,
                result: cqe.result.get(),
            }
        };
        self.finish(index, outcome, sink)
    }

    #[inline]
    pub(super) fn on_c2h_data(
        &mut self,
        frame: &Frame,
        cid: u16,
        offset: u32,
    ) -> Result<Incoming, QueueError> {
        let offset = offset as usize;
        let Some((index, slot)) = self.table.find(cid) else {
            return Err(fault(
                Fes::INVALID_HEADER_FIELD,
                field::CCCID,
                "data for a command that is not outstanding",
            ));
        };
        if slot.transfer != Transfer::FromController {
            return Err(fault(
                Fes::INVALID_HEADER_FIELD,
                field::CCCID,
                "data for a command that reads none",
            ));
        }
        let end = offset.saturating_add(frame.data_len);
        if end > slot.length {
            return Err(fault(
                Fes::DATA_TRANSFER_OUT_OF_RANGE,
                0,
                "data beyond what the command asked for",
            ));
        }
        if offset != slot.received || slot.last {
            return Err(fault(
                Fes::SEQUENCE_ERROR,
                0,
                "data out of order, or after LAST_PDU",
            ));
        }
        Ok(Incoming {
            slot: index,
            start: offset,
            at: offset,
            end,
            digest: frame.ddgst,
            flags: frame.flags,
        })
    }

    #[inline]
    fn on_data(
        &mut self,
        mut incoming: Incoming,
        sink: &mut impl FnMut(Completed<T>),
    ) -> Result<bool, QueueError> {
        let bytes = self.rx.data();
        let n = bytes.len().min(incoming.end - incoming.at);
        if n > 0 {
            self.table
                .slot(incoming.slot)
                .destination(incoming.at, n)?
                .copy_from_slice(&bytes[..n]);
            self.rx.consume(n);
            incoming.at += n;
        }
        if incoming.at < incoming.end {
            self.receiving = Receiving::Data(incoming);
            return Ok(false);
        }
        if incoming.digest {
            return self.on_digest(incoming, sink);
        }
        self.end_of_data(incoming, sink)?;
        Ok(true)
    }

    fn on_digest(
        &mut self,
        incoming: Incoming,
        sink: &mut impl FnMut(Completed<T>),
    ) -> Result<bool, QueueError> {
        let Some(&received) = self.rx.data().first_chunk::<4>() else {
            self.receiving = Receiving::Digest(incoming);
            return Ok(false);
        };
        self.rx.consume(4);
        let slot = self.table.slot(incoming.slot);
        let mut digest = DataDigest::new();
        let length = incoming.end - incoming.start;
        let bytes = slot.source(incoming.start, length);
        digest.update(bytes);
        // An owner that has failed since has nothing to be checked.
        slot.digest_failed |= bytes.len() != length;
        slot.digest_failed |= digest.finish() != received;
        self.end_of_data(incoming, sink)?;
        Ok(true)
    }

    #[inline]
    pub(super) fn end_of_data(
        &mut self,
        incoming: Incoming,
        sink: &mut impl FnMut(Completed<T>),
    ) -> Result<(), QueueError> {
        self.receiving = Receiving::Header;
        let slot = self.table.slot(incoming.slot);
        slot.received = incoming.end;
        slot.last = incoming.flags & flags::LAST_PDU != 0;
        if incoming.flags & flags::SUCCESS == 0 {
            return Ok(());
        }
        let outcome = if slot.digest_failed {
            Outcome::Lost(Lost::DataDigest)
        } else if slot.falls_short() {
            Outcome::Lost(Lost::ShortData)
        } else {
            Outcome::Completed {
                status: Status::SUCCESS,
                result: 0,
            }
        };
        self.finish(incoming.slot, outcome, sink)
    }

    fn on_r2t(&mut self, cid: u16, tag: u16, offset: u32, length: u32) -> Result<(), QueueError> {
        let (offset, length) = (offset as usize, length as usize);
        let Some((index, slot)) = self.table.find(cid) else {
            return Err(fault(
                Fes::INVALID_HEADER_FIELD,
                field::CCCID,
                "R2T for a command that is not outstanding",
            ));
        };
        if slot.transfer != Transfer::ToController {
            return Err(fault(
                Fes::INVALID_HEADER_FIELD,
                field::CCCID,
                "R2T for a command that sends no data",
            ));
        }
        if length == 0 {
            return Err(fault(
                Fes::INVALID_HEADER_FIELD,
                field::R2TL,
                "R2T for no data",
            ));
        }
        if offset.saturating_add(length) > slot.length {
            return Err(fault(
                Fes::DATA_TRANSFER_OUT_OF_RANGE,
                0,
                "R2T beyond the command's data",
            ));
        }
        if offset != slot.granted {
            return Err(fault(
                Fes::SEQUENCE_ERROR,
                0,
                "R2T out of order, or for data that went in the capsule",
            ));
        }
        if slot.r2ts >= R2TS_MAX {
            return Err(fault(
                Fes::LIMIT_EXCEEDED,
                0,
                "more R2Ts outstanding than MAXR2T allows",
            ));
        }
        slot.granted += length;
        slot.r2ts += 1;
        self.transmitter.grant(index, tag, offset, length);
        Ok(())
    }

    /// The current command of a slot has ended: issue the next part of its request, or hand it back.
    #[inline(always)]
    fn finish(
        &mut self,
        index: u16,
        outcome: Outcome,
        sink: &mut impl FnMut(Completed<T>),
    ) -> Result<(), QueueError> {
        if outcome.is_success() && self.transmitter.next_part(&mut self.table, index) {
            return Ok(());
        }
        let slot = self.table.slot(index);
        if slot.is_sending() {
            // The command failed while its data was on the way. The send queue still names its buffer,
            // and a PDU cannot be left half sent: it ends when the data has gone.
            slot.outcome = Some(outcome);
            self.deferred += 1;
            return Ok(());
        }
        match self.table.take(index) {
            Some(request) => sink(Completed { request, outcome }),
            None => return self.on_own_answer(index, outcome),
        }
        Ok(())
    }

    /// A command of the queue pair's own has been answered.
    #[cold]
    fn on_own_answer(&mut self, index: u16, outcome: Outcome) -> Result<(), QueueError> {
        let buffer = self.table.own_buffer(index);
        let authenticates = self.authenticating.as_ref().is_some_and(|a| a.has(index));
        match self.state {
            State::Connect => self.on_connect_answer(outcome),
            _ if authenticates => self.on_authentication_answer(outcome, &buffer),
            // A probe: that there was an answer is all that was wanted.
            _ => Ok(()),
        }
    }

    /// Hands over the requests whose commands failed while their data was on the way, once it has gone.
    pub(super) fn finish_deferred(
        &mut self,
        sink: &mut impl FnMut(Completed<T>),
    ) -> Result<(), QueueError> {
        while let Some((index, outcome)) = self.table.sent_and_failed() {
            self.deferred -= 1;
            self.finish(index, outcome, sink)?;
        }
        Ok(())
    }
}
