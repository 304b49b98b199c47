//! Data that a host sends on an R2T: asked for, checked, received into a staging buffer.

use pollux_reactor::Context;
use zerocopy::FromBytes;

use super::connection::{End, MAXH2CDATA};
use super::io_command::{Namespaces, execute};
use super::io_layers::spoil;
use super::io_queue::IoQueue;
use super::staging::{StagingPool, Transfer};
use crate::pdu::{DataDigest, Frame, ProtocolError};
use crate::spec::pdu::{DIGEST_LEN, Fes, H2cData};
use crate::spec::status::Status;

/// An H2CData PDU whose header was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Incoming {
    pub(super) slot: usize,
    /// Data bytes to come.
    pub(super) left: usize,
    ddgst: bool,
    digest: DataDigest,
}

impl IoQueue {
    /// Asks for the data of the first command that waits, if there is a staging buffer.
    pub(super) fn start_waiting(&mut self, pool: &mut StagingPool) -> bool {
        if !self.conn.out.has_room() {
            return false;
        }
        let Some(slot) = self.transfers.iter().position(Option::is_none) else {
            return false;
        };
        let Some(buffer) = pool.take() else {
            return false;
        };
        let Some(sqe) = self.waiting.pop_front() else {
            pool.give(buffer);
            return false;
        };
        let len = sqe.sgl.length.get();
        let ttag = u16::try_from(slot).unwrap_or(u16::MAX);
        self.conn.out.request_data(sqe.cid.get(), ttag, len);
        if let Some(place) = self.transfers.get_mut(slot) {
            *place = Some(Transfer {
                sqe,
                buffer,
                len,
                received: 0,
                failed: None,
            });
        }
        true
    }

    /// Checks the H2CData header at the start of the receive buffer.
    pub(super) fn begin_data(&mut self, frame: &Frame) -> Result<(), End> {
        let Ok((header, _)) = H2cData::read_from_prefix(self.conn.rx.data()) else {
            return Ok(());
        };
        let slot = usize::from(header.ttag.get());
        let (datao, datal) = (header.datao.get(), header.datal.get());
        let checked = match self.transfers.get(slot) {
            Some(Some(t)) => check_data(t, &header, frame, datao, datal),
            _ => Err(ProtocolError::field(10, "H2CData for an unknown TTAG")),
        };
        if let Err(error) = checked {
            return Err(self.conn.fault(error));
        }
        self.incoming = Some(Incoming {
            slot,
            left: frame.data_len,
            ddgst: frame.ddgst,
            digest: DataDigest::new(),
        });
        self.conn.rx.consume(frame.data_offset);
        Ok(())
    }

    /// Moves received payload into its staging buffer, and carries the command out once it is complete.
    /// Returns whether the PDU is finished.
    pub(super) fn take_data(
        &mut self,
        namespaces: &Namespaces,
        pool: &mut StagingPool,
        busy: &mut bool,
        cx: &Context<'_>,
    ) -> bool {
        let Some(mut incoming) = self.incoming else {
            return true;
        };
        let Some(Some(transfer)) = self.transfers.get_mut(incoming.slot) else {
            self.incoming = None;
            return true;
        };
        let data = self.conn.rx.data();
        let data = data.get(..incoming.left).unwrap_or(data);
        let n = data.len();
        if n > 0 {
            let start = transfer.received as usize;
            if let Some(to) = transfer.buffer.get_mut(start..start + n) {
                to.copy_from_slice(data);
            }
            self.conn.rx.consume(n);
            transfer.take(n, &mut incoming);
            *busy = true;
        }
        if incoming.left > 0 {
            self.incoming = Some(incoming);
            return false;
        }
        if incoming.ddgst {
            let Some(received) = self.conn.rx.data().first_chunk::<DIGEST_LEN>() else {
                self.incoming = Some(incoming);
                return false;
            };
            if *received != incoming.digest.finish() {
                transfer.failed = Some(Status::TRANSIENT_TRANSPORT_ERROR);
            }
            self.conn.rx.consume(DIGEST_LEN);
        }
        *busy = true;
        self.incoming = None;
        if transfer.received == transfer.len
            && let Some(mut done) = self.transfers.get_mut(incoming.slot).and_then(Option::take)
        {
            self.outstanding -= 1;
            let ruling = self.ruling(done.sqe.cid.get());
            if let Some(ruling) = ruling {
                let data = done.buffer.get_mut(..done.len as usize);
                spoil(&done.sqe, ruling, data.unwrap_or_default());
            }
            let result = match done.failed {
                Some(status) => Err(status),
                None => {
                    let data = done.buffer.get(..done.len as usize).unwrap_or_default();
                    execute(&done.sqe, data, namespaces, &mut self.ranges)
                }
            };
            pool.give(done.buffer);
            match ruling {
                None => self.conclude(&done.sqe, result),
                Some(ruling) => self.conclude_ruled(&done.sqe, result, ruling, cx),
            }
        }
        true
    }
}

impl Transfer {
    /// Notes `n` bytes that are in the buffer now.
    #[inline]
    pub(super) fn take(&mut self, n: usize, incoming: &mut Incoming) {
        let start = self.received as usize;
        if incoming.ddgst {
            let new = self.buffer.get(start..start + n).unwrap_or_default();
            incoming.digest.update(new);
        }
        // `n` is within the length of one PDU, which is 32 bits.
        self.received += u32::try_from(n).unwrap_or(0);
        incoming.left -= n;
    }
}

/// Checks an H2CData PDU against the R2T it answers: data comes in order, within the range that was asked
/// for, and LAST_PDU marks its end (NVMe/TCP 1.1, 3.6.2.8).
fn check_data(
    transfer: &Transfer,
    header: &H2cData,
    frame: &Frame,
    datao: u32,
    datal: u32,
) -> Result<(), ProtocolError> {
    if transfer.sqe.cid != header.cccid {
        return Err(ProtocolError::field(8, "CCCID is not that of the R2T"));
    }
    if datal > MAXH2CDATA {
        return Err(ProtocolError::new(
            Fes::LIMIT_EXCEEDED,
            "more data than MAXH2CDATA allows",
        ));
    }
    let end = datao
        .checked_add(datal)
        .filter(|&end| end <= transfer.len)
        .ok_or(ProtocolError::new(
            Fes::DATA_TRANSFER_OUT_OF_RANGE,
            "H2CData beyond the range of the R2T",
        ))?;
    if datao != transfer.received {
        return Err(ProtocolError::sequence("H2CData out of order"));
    }
    if frame.is_last() != (end == transfer.len) {
        return Err(ProtocolError::sequence(
            "LAST_PDU does not mark the end of the data",
        ));
    }
    Ok(())
}
