//! The answer to a read command: C2HData PDUs and, unless the last of them says SUCCESS, a response.

use crate::pdu::{DataDigest, TxFraming};
use crate::spec::Cqe;
use crate::spec::pdu::{C2hData, CapsuleResp, flags};
use crate::spec::status::Status;
use crate::stream::TxQueue;
use crate::target::conn::connection::{Outgoing, wire_len};

/// Most data in one C2HData PDU, in bytes: half of what the send queue holds, so that sending one and
/// reading the next overlap.
const CHUNK: u64 = 128 * 1024;

/// Bytes around the data of a PDU: header, digests, padding, and the response.
const OVERHEAD: usize = 192;

/// Zeroes that are copied where they make an answer one piece: the system takes 0.3 us less to send it than to write two.
const COPIED_MAX: usize = 4096;

/// Zeroes for the data digest of null reads.
static ZEROES: [u8; 4096] = [0; 4096];

/// Where the data of a read comes from.
pub(in crate::target) enum Source<F> {
    /// Nothing but zeroes.
    Zeroes,
    /// Appends so many bytes from this offset on to what is to be sent.
    Stored(F),
}

/// A read command and how far its data is queued.
#[derive(Debug, Clone, Copy)]
pub(in crate::target) struct ReadCursor {
    pub(in crate::target) cid: u16,
    pub(in crate::target) nsid: u32,
    /// Start of the data at its source in bytes.
    offset: u64,
    len: u64,
    done: u64,
}

impl ReadCursor {
    #[inline]
    pub(in crate::target) fn new(cid: u16, nsid: u32, offset: u64, len: u64) -> Self {
        Self {
            cid,
            nsid,
            offset,
            len,
            done: 0,
        }
    }

    /// The same when so many bytes are queued already.
    pub(in crate::target) fn resumed(self, done: u64) -> Self {
        Self { done, ..self }
    }

    pub(in crate::target) fn done(&self) -> u64 {
        self.done
    }

    pub(in crate::target) fn len(&self) -> u64 {
        self.len
    }

    pub(in crate::target) fn left(&self) -> u64 {
        self.len - self.done
    }

    /// Queues as much as there is room for. `Ok(true)`: all, including the end of the command.
    ///
    /// `respond`: end with a response, else with the SUCCESS flag, which the host only expects if it has
    /// disabled SQ flow control (NVMe/TCP 1.1, 3.6.2.9).
    #[inline]
    pub(in crate::target) fn advance(
        &mut self,
        out: &mut Outgoing,
        source: &mut Source<impl FnMut(u64, usize, &mut Vec<u8>) -> Result<(), Status>>,
        cqe: Cqe,
        respond: bool,
    ) -> Result<bool, Status> {
        while self.done < self.len {
            let n = self.left().min(CHUNK);
            let last = n == self.left();
            #[expect(clippy::expect_used, reason = "it is at most CHUNK")]
            let len = usize::try_from(n).expect("the length of a chunk");
            let (inline, segments) = if matches!(source, Source::Zeroes) {
                (OVERHEAD, TxQueue::zero_segments(len) + 2)
            } else {
                (OVERHEAD + len, 2)
            };
            let has_room = out.tx.inline_space() >= inline && out.tx.segment_space() >= segments;
            if !has_room || out.is_enough() {
                return Ok(false);
            }
            let end = match (last, respond) {
                (false, _) => 0,
                (true, true) => flags::LAST_PDU,
                (true, false) => flags::LAST_PDU | flags::SUCCESS,
            };
            #[expect(
                clippy::expect_used,
                reason = "no command has more data than 32 bits count"
            )]
            let done = u32::try_from(self.done).expect("an offset within the data of a command");
            let header = C2hData::new(self.cid, done, wire_len(len), end);
            let response = (last && respond).then_some(cqe);
            let framing = out.framing;
            match source {
                Source::Zeroes if len <= COPIED_MAX && out.tx.is_empty() => {
                    let zeroes = |bytes: &mut Vec<u8>| {
                        bytes.resize(bytes.len() + len, 0);
                        Ok(())
                    };
                    out.tx
                        .put(|bytes| put_stored(bytes, framing, &header, zeroes, len, response))?;
                }
                Source::Zeroes => put_zeroes(&mut out.tx, framing, &header, len, response),
                Source::Stored(read) => {
                    let offset = self.offset + self.done;
                    let read = |bytes: &mut Vec<u8>| read(offset, len, bytes);
                    out.tx
                        .put(|bytes| put_stored(bytes, framing, &header, read, len, response))?;
                }
            }
            self.done += n;
        }
        Ok(true)
    }
}

/// Header, data from its source, digest and response as one piece. Nothing is left behind on an error.
#[inline]
fn put_stored(
    out: &mut Vec<u8>,
    framing: TxFraming,
    header: &C2hData,
    read: impl FnOnce(&mut Vec<u8>) -> Result<(), Status>,
    len: usize,
    response: Option<Cqe>,
) -> Result<(), Status> {
    let start = out.len();
    let layout = framing.put_header(out, header, len);
    let data_start = out.len();
    let mut result = read(out);
    if out.len() != data_start + len {
        // A disk that says it is done and has given something else.
        result = result.and(Err(Status::INTERNAL_ERROR));
    }
    if let Err(status) = result {
        out.truncate(start);
        return Err(status);
    }
    if layout.ddgst {
        let mut digest = DataDigest::new();
        digest.update(&out[data_start..]);
        out.extend_from_slice(&digest.finish());
    }
    if let Some(cqe) = response {
        framing.put_header(out, &CapsuleResp::new(cqe), 0);
    }
    Ok(())
}

/// The same with zeroes, which are not copied.
#[inline]
fn put_zeroes(
    tx: &mut TxQueue,
    framing: TxFraming,
    header: &C2hData,
    len: usize,
    response: Option<Cqe>,
) {
    let layout = tx.put(|out| framing.put_header(out, header, len));
    tx.put_zeroes(len);
    if !layout.ddgst && response.is_none() {
        return;
    }
    tx.put(|out| {
        if layout.ddgst {
            let mut digest = DataDigest::new();
            let mut left = len;
            while let Some(piece) = ZEROES.get(..left.min(ZEROES.len()))
                && !piece.is_empty()
            {
                digest.update(piece);
                left -= piece.len();
            }
            out.extend_from_slice(&digest.finish());
        }
        if let Some(cqe) = response {
            framing.put_header(out, &CapsuleResp::new(cqe), 0);
        }
    });
}
