//! Commands that need a buffer, and the data that a host sends on an R2T: asked for, checked, received into the buffer.

use std::time::Duration;

use pollux_reactor::{Context, Time};
use zerocopy::FromBytes;

use crate::pdu::{DataDigest, Frame, ProtocolError};
use crate::spec::Sqe;
use crate::spec::opcode::nvm;
use crate::spec::pdu::{DIGEST_LEN, Fes, H2cData};
use crate::spec::status::Status;
use crate::target::conn::connection::{End, MAXH2CDATA};
use crate::target::disk::Buffer;
use crate::target::io::queue::IoQueue;
use crate::target::io::queue::execute::Serving;
use crate::target::io::queue::table::{Receiving, Stage};

/// How long a connection may send nothing of the data that it was asked for.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// The same while others wait for the memory that is kept for it.
const SILENCE_MAX_CONTENDED: Duration = Duration::from_secs(10);

/// Bytes per second at which the data of the command that was asked for first has to come while others wait, besides the
/// silence that is allowed: who sends a byte now and then holds the memory no longer than who sends none.
const RATE_MIN: u64 = 64 * 1024;

/// The data that has been asked for longest, as of the last look.
#[derive(Debug, Clone, Copy)]
pub(in crate::target) struct Oldest {
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
pub(in crate::target) struct Incoming {
    pub(in crate::target) slot: usize,
    /// Data bytes to come.
    pub(in crate::target) left: usize,
    ddgst: bool,
    digest: DataDigest,
}

impl IoQueue {
    /// Goes on with the first command that waits for a buffer, if there is one for it: asks for its data, or has its disk
    /// read.
    pub(in crate::target) fn start_waiting(
        &mut self,
        serving: &mut Serving<'_>,
        cx: &mut Context<'_>,
    ) -> bool {
        if !self.conn.out.has_room() {
            return false;
        }
        let Some(&slot) = self.waiting.front() else {
            return false;
        };
        let command = self.table.command(slot);
        let (sqe, len) = (command.sqe, command.sqe.sgl.length.get());
        let Some(buffer) = serving.pool.take(self.client, len, cx.now()) else {
            return false;
        };
        self.waiting.pop_front();
        command.data = buffer;
        if sqe.opcode == nvm::READ {
            self.hand_to_disk(slot, serving, cx);
            return true;
        }
        command.stage = Stage::Receiving(Receiving {
            received: 0,
            failed: None,
            asked_at: cx.now(),
        });
        serving.pool.awaited += 1;
        #[expect(clippy::expect_used, reason = "a queue has at most 65,536 entries")]
        let ttag = u16::try_from(slot).expect("a place in the table");
        self.conn.out.request_data(sqe.cid.get(), ttag, len);
        true
    }

    /// Checks the H2CData header at the start of the receive buffer.
    pub(in crate::target) fn begin_data(&mut self, frame: &Frame) -> Result<(), End> {
        #[expect(
            clippy::expect_used,
            reason = "framing says that it is there, and its length was waited for"
        )]
        let (header, _) = H2cData::read_from_prefix(self.conn.rx.data()).expect("a header");
        let slot = usize::from(header.ttag.get());
        let (datao, datal) = (header.datao.get(), header.datal.get());
        let checked = match self.table.receiving(slot) {
            Some((sqe, buffer, receiving)) => {
                let asked = (sqe, buffer.len(), receiving.received);
                check_data(asked, &header, frame, (datao, datal))
            }
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
        self.conn.rx.expect_payloads(frame.data_len);
        self.conn.rx.consume(frame.data_offset);
        Ok(())
    }

    /// Moves received payload into its buffer, and carries the command out once it is complete.
    /// Returns whether the PDU is finished.
    pub(in crate::target) fn take_data(
        &mut self,
        serving: &mut Serving<'_>,
        busy: &mut bool,
        cx: &mut Context<'_>,
    ) -> bool {
        let Some(mut incoming) = self.incoming else {
            return true;
        };
        #[expect(
            clippy::expect_used,
            reason = "the header was checked, and the command stays until its data is there"
        )]
        let (_, buffer, receiving) = self
            .table
            .receiving(incoming.slot)
            .expect("a command that has asked for data");
        let data = self.conn.rx.data();
        let n = data.len().min(incoming.left);
        if n > 0 {
            let start = receiving.received;
            buffer[start..start + n].copy_from_slice(&data[..n]);
            self.conn.rx.consume(n);
            receiving.take(n, buffer, &mut incoming);
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
                receiving.failed = Some(Status::TRANSIENT_TRANSPORT_ERROR);
            }
            self.conn.rx.consume(DIGEST_LEN);
        }
        *busy = true;
        self.incoming = None;
        if receiving.received == buffer.len() {
            serving.pool.awaited -= 1;
            match receiving.failed {
                Some(status) => self.ended(incoming.slot, Err(status)),
                None => self.hand_to_disk(incoming.slot, serving, cx),
            }
        }
        true
    }
}

impl IoQueue {
    /// Looks whether the data that was asked for comes, and whether the host takes its own. `contended`: others wait for
    /// staging memory.
    pub(in crate::target) fn check_transfers(
        &mut self,
        contended: bool,
        now: Time,
    ) -> Result<(), End> {
        let is_over = |since| now.saturating_since(since) >= SILENCE_MAX_CONTENDED;
        if contended && self.untaken.is_some_and(is_over) {
            return Err(End::Overdue(
                "the host takes nothing of the data that it has asked for: no byte in 10 s, while others wait for the \
                 memory",
            ));
        }
        let asked = self
            .table
            .iter()
            .filter_map(|(slot, command)| match command.stage {
                Stage::Receiving(Receiving { asked_at, .. }) => {
                    Some((asked_at, slot, command.data.len()))
                }
                _ => None,
            });
        let Some((asked_at, slot, len)) = asked.min() else {
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
        let enough = SILENCE_MAX_CONTENDED + Duration::from_millis(len as u64 * 1000 / RATE_MIN);
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

impl Receiving {
    /// Notes `n` bytes that are in the buffer now.
    #[inline]
    pub(in crate::target) fn take(&mut self, n: usize, buffer: &Buffer, incoming: &mut Incoming) {
        let start = self.received;
        if incoming.ddgst {
            incoming.digest.update(&buffer[start..start + n]);
        }
        self.received += n;
        incoming.left -= n;
    }
}

/// Checks an H2CData PDU against the R2T it answers: data comes in order, within the range that was asked
/// for, and LAST_PDU marks its end (NVMe/TCP 1.1, 3.6.2.8).
fn check_data(
    (sqe, len, received): (&Sqe, usize, usize),
    header: &H2cData,
    frame: &Frame,
    (datao, datal): (u32, u32),
) -> Result<(), ProtocolError> {
    if sqe.cid != header.cccid {
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
        .map(|end| end as usize)
        .filter(|&end| end <= len)
        .ok_or(ProtocolError::new(
            Fes::DATA_TRANSFER_OUT_OF_RANGE,
            "H2CData beyond the range of the R2T",
        ))?;
    if datao as usize != received {
        return Err(ProtocolError::sequence("H2CData out of order"));
    }
    if frame.is_last() != (end == len) {
        return Err(ProtocolError::sequence(
            "LAST_PDU does not mark the end of the data",
        ));
    }
    Ok(())
}
