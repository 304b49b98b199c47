//! Data that a host sends on an R2T: asked for, checked, received into a staging buffer.

use std::time::Duration;

use pollux_reactor::{Context, Time};
use zerocopy::FromBytes;

use super::connection::{End, MAXH2CDATA};
use super::io_command::{Namespaces, execute};
use super::io_layers::spoil;
use super::io_queue::IoQueue;
use super::staging::{StagingPool, Transfer};
use crate::pdu::{DataDigest, Frame, ProtocolError};
use crate::spec::pdu::{DIGEST_LEN, Fes, H2cData};
use crate::spec::status::Status;

/// How long a connection may send nothing of the data that it was asked for.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// The same while others wait for the memory that is kept for it.
const SILENCE_MAX_CONTENDED: Duration = Duration::from_secs(10);

/// Bytes per second at which the data of the command that was asked for first has to come while others wait, besides the
/// silence that is allowed: who sends a byte now and then holds the memory no longer than who sends none.
const RATE_MIN: u64 = 64 * 1024;

/// The data that has been asked for longest, as of the last look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Oldest {
    slot: usize,
    asked_at: Time,
    /// Since when it is the oldest.
    since: Time,
    /// When data of any command had come.
    heard_at: Time,
    /// Data of all commands by then.
    data_in: u64,
}

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
    /// Asks for the data of the first command that waits, if there is a staging buffer for it.
    pub(super) fn start_waiting(&mut self, pool: &mut StagingPool, now: Time) -> bool {
        if !self.conn.out.has_room() {
            return false;
        }
        let Some(len) = self.waiting.front().map(|sqe| sqe.sgl.length.get()) else {
            return false;
        };
        let Some(buffer) = pool.take(self.client, len, now) else {
            return false;
        };
        let Some(sqe) = self.waiting.pop_front() else {
            return false;
        };
        // There are at most as many as the queue has entries.
        let slot = self.free_tags.pop().unwrap_or(self.transfers.len());
        if slot == self.transfers.len() {
            self.transfers.push(None);
        }
        let ttag = u16::try_from(slot).unwrap_or(u16::MAX);
        self.conn.out.request_data(sqe.cid.get(), ttag, len);
        if let Some(place) = self.transfers.get_mut(slot) {
            *place = Some(Transfer {
                sqe,
                buffer,
                len,
                received: 0,
                failed: None,
                asked_at: now,
            });
        }
        true
    }

    /// A namespace is going away: what waits for its data is not for whatever has the same identifier next. The data is
    /// still taken, since it was asked for, and the commands end as any for a namespace that is not there.
    pub(super) fn disown_data(&mut self, nsid: u32) {
        /// No namespace has this identifier.
        const NOBODY: u32 = 0;
        let transfers = self.transfers.iter_mut().flatten().map(|t| &mut t.sqe);
        for sqe in transfers.chain(&mut self.waiting) {
            if sqe.nsid.get() == nsid {
                sqe.nsid = NOBODY.into();
            }
        }
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
            self.data_in += n as u64;
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
            self.free_tags.push(incoming.slot);
            pool.give(done.buffer, cx.now());
            match ruling {
                None => self.conclude(&done.sqe, result, namespaces),
                Some(ruling) => self.conclude_ruled(&done.sqe, result, ruling, namespaces, cx),
            }
        }
        true
    }
}

impl IoQueue {
    /// Looks whether the data that was asked for comes. `contended`: others wait for staging memory.
    pub(super) fn check_transfers(&mut self, contended: bool, now: Time) -> Result<(), End> {
        let transfers = self.transfers.iter().enumerate();
        let transfers = transfers.filter_map(|(slot, t)| Some((t.as_ref()?.asked_at, slot)));
        let Some((asked_at, slot)) = transfers.min() else {
            self.oldest = None;
            return Ok(());
        };
        let data_in = self.data_in;
        let oldest = self.oldest.get_or_insert(Oldest {
            slot,
            asked_at,
            since: asked_at,
            heard_at: asked_at,
            data_in,
        });
        if oldest.data_in != data_in {
            (oldest.data_in, oldest.heard_at) = (data_in, now);
        }
        if (oldest.slot, oldest.asked_at) != (slot, asked_at) {
            (oldest.slot, oldest.asked_at, oldest.since) = (slot, asked_at, now);
            oldest.heard_at = oldest.heard_at.max(asked_at);
        }
        let (silent, pending) = (
            now.saturating_since(oldest.heard_at),
            now.saturating_since(oldest.since),
        );
        let len = self.transfers.get(slot).and_then(Option::as_ref);
        let len = len.map_or(0, |transfer| u64::from(transfer.len));
        let enough = SILENCE_MAX_CONTENDED + Duration::from_millis(len * 1000 / RATE_MIN);
        if silent >= SILENCE_MAX {
            return Err(End::Overdue(
                "the host sends nothing of the data that it was asked for: no byte in 30 s",
            ));
        }
        if contended && silent >= SILENCE_MAX_CONTENDED {
            return Err(End::Overdue(
                "the host sends nothing of the data that it was asked for: no byte in 10 s, while others wait for \
                 the memory",
            ));
        }
        if contended && pending >= enough {
            return Err(End::Overdue(
                "the host sends the data that it was asked for slower than 64 KiB/s, while others wait for the memory",
            ));
        }
        Ok(())
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
