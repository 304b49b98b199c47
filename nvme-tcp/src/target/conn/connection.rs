//! One TCP connection: stream, buffers and the framing that ICReq and ICResp agreed on. It moves as a whole
//! from the home reactor to the one that serves its queue.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use pollux_reactor::{Progress, Stream};

use crate::pdu::{
    Before, DataDigest, Frame, ProtocolError, Receiver, RxFraming, TxFraming, emit_term_req,
};
use crate::spec::Cqe;
use crate::spec::pdu::{C2hData, CapsuleResp, PduType, R2t, flags};
use crate::stream::{NoPayloads, RxBuffer, TxQueue};
use crate::target::conn::buffers::{Buffers, RX_CAPACITY, TX_INLINE, TX_SEGMENTS};
use crate::tls::{Session, TlsError};

/// Most data in a command capsule, in bytes; reported by IOCCSZ for I/O queues and granted on admin queues
/// (NVMe/TCP 1.1, 3.3.2.1: 8,192 bytes are the rule there).
pub(in crate::target) const IN_CAPSULE_MAX: usize = 8192;

/// MAXH2CDATA: most data in one H2CData PDU, in bytes. As large as the largest command, so that a host can
/// answer each R2T with one PDU.
pub(in crate::target) const MAXH2CDATA: u32 = 1 << 20;

/// Largest PLEN of a PDU with data: H2CData with the longest padding and both digests.
const MAX_PLEN: u32 = MAXH2CDATA + 128 + 4;

/// Bytes to keep free for an answer without data: a response and a TermReq fit.
const ANSWER_ROOM: usize = 512;

/// Why a connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::target) enum End {
    /// The peer closed it or it broke.
    Closed,
    /// The host sent Disconnect and has its answer.
    Disconnected,
    /// The host sent H2CTermReq.
    Terminated,
    /// The peer broke the protocol; it has been sent a TermReq.
    Fault(&'static str),
    /// The peer let a time pass; it is told nothing.
    Overdue(&'static str),
    /// The connection did not become secure, or is so no longer.
    Insecure(TlsError),
}

impl End {
    /// What was wrong, unless the peer just went.
    pub(in crate::target) fn reason(self) -> Option<&'static str> {
        match self {
            Self::Fault(reason) | Self::Overdue(reason) => Some(reason),
            Self::Insecure(error) => Some(match error {
                TlsError::Closed => return None,
                TlsError::Alert(_) => "TLS: the host refuses our key",
                TlsError::UnknownIdentity => "TLS: the host offers no PSK identity that is known",
                TlsError::WrongKey => "TLS: the host has another key for its PSK identity",
                TlsError::NotTls => "the host does no TLS, and this listener is secure",
                TlsError::NoKey => "TLS: no pre-shared key was used",
                TlsError::TooLong => "TLS: more bytes than a handshake takes",
                TlsError::KeyUpdate => {
                    "TLS: the host changes its keys (KeyUpdate), which the kernel that encrypts does not follow"
                }
                TlsError::KeyLimit => "TLS: one key has encrypted as many records as it may",
                TlsError::Failed(_) => "TLS: what the host sends is not what TLS 1.3 wants",
            }),
            Self::Terminated => Some("host sent H2CTermReq"),
            Self::Closed | Self::Disconnected => None,
        }
    }
}

/// What is to be sent on a connection.
#[derive(Debug)]
pub(in crate::target) struct Outgoing {
    pub(in crate::target) tx: TxQueue,
    pub(in crate::target) framing: TxFraming,
    /// No more is queued once so many bytes are.
    pub(in crate::target) pending_max: usize,
}

impl Outgoing {
    /// Whether an answer without data, and a TermReq after it, can be queued.
    #[inline]
    pub(in crate::target) fn has_room(&self) -> bool {
        self.tx.inline_space() >= ANSWER_ROOM && self.tx.segment_space() >= 4 && !self.is_enough()
    }

    /// Whether as much is queued as may be.
    #[inline]
    pub(in crate::target) fn is_enough(&self) -> bool {
        self.tx.pending() >= self.pending_max
    }

    /// Whether `len` bytes of data and the end of the command can be queued.
    pub(in crate::target) fn has_room_for(&self, len: usize) -> bool {
        self.has_room() && self.tx.inline_space() >= ANSWER_ROOM + len
    }

    /// Queues a C2HData PDU with a copy of `data`, which starts at `offset` of the command's data.
    pub(in crate::target) fn put_data(&mut self, cid: u16, offset: usize, data: &[u8], last: bool) {
        let framing = self.framing;
        let header = C2hData::new(
            cid,
            wire_len(offset),
            wire_len(data.len()),
            if last { flags::LAST_PDU } else { 0 },
        );
        self.tx.put(|out| {
            let layout = framing.put_header(out, &header, data.len());
            out.extend_from_slice(data);
            if layout.ddgst {
                let mut digest = DataDigest::new();
                digest.update(data);
                out.extend_from_slice(&digest.finish());
            }
        });
    }

    /// Queues a response.
    #[inline]
    pub(in crate::target) fn complete(&mut self, cqe: Cqe) {
        let framing = self.framing;
        self.tx
            .put(|out| framing.put_header(out, &CapsuleResp::new(cqe), 0));
    }

    /// Queues an R2T for all data of a command.
    #[inline]
    pub(in crate::target) fn request_data(&mut self, cid: u16, ttag: u16, len: u32) {
        let framing = self.framing;
        self.tx
            .put(|out| framing.put_header(out, &R2t::new(cid, ttag, 0, len), 0));
    }
}

/// A connection.
#[derive(Debug)]
pub(in crate::target) struct Connection {
    /// Never used again for another connection of this target.
    pub(in crate::target) id: u64,
    pub(in crate::target) stream: Stream,
    /// Its TLS, on a secure listener.
    pub(in crate::target) session: Option<Session>,
    pub(in crate::target) rx: RxBuffer,
    pub(in crate::target) rx_framing: RxFraming,
    rx_before: Before,
    pub(in crate::target) out: Outgoing,
    /// The stream took no more: nothing is sent before an edge tells of room.
    blocked: bool,
    pub(in crate::target) peer: SocketAddr,
    pub(in crate::target) local: SocketAddr,
    /// The configured address of the listener that it came through.
    pub(in crate::target) listener: SocketAddr,
}

impl Connection {
    /// Whether it is a connection by TLS.
    pub(in crate::target) fn is_secure(&self) -> bool {
        self.session.as_ref().is_some_and(Session::is_open)
    }

    /// Whether the kernel encrypts it.
    pub(in crate::target) fn is_ktls(&self) -> bool {
        self.session.as_ref().is_some_and(Session::is_ktls)
    }

    pub(in crate::target) fn new(
        id: u64,
        (stream, session): (Stream, Option<Session>),
        peer: SocketAddr,
        listener: SocketAddr,
    ) -> Self {
        let local = stream.local_addr().unwrap_or(listener);
        Self {
            id,
            stream,
            session,
            rx: RxBuffer::detached(RX_CAPACITY),
            rx_framing: RxFraming {
                receiver: Receiver::Controller,
                hdgst: false,
                ddgst: false,
                pda: 0,
                max_plen: MAX_PLEN,
                initialized: false,
            },
            rx_before: Before::default(),
            out: Outgoing {
                tx: TxQueue::detached(TX_INLINE, TX_SEGMENTS),
                framing: TxFraming::default(),
                pending_max: usize::MAX,
            },
            blocked: false,
            peer,
            local,
            listener,
        }
    }

    /// Gets buffers, so that it can receive and send.
    #[inline]
    pub(in crate::target) fn wake(&mut self, buffers: &mut Buffers) {
        buffers.lend(&mut self.rx, &mut self.out.tx);
    }

    /// Gives the buffers back that it makes no use of.
    pub(in crate::target) fn rest(&mut self, buffers: &mut Buffers) {
        buffers.take_back(&mut self.rx, &mut self.out.tx);
    }

    /// One receive, if there is room. Returns the bytes taken; zero if nothing has arrived.
    pub(in crate::target) fn fill(&mut self) -> Result<usize, End> {
        if self.rx.data().len() == self.rx.capacity() {
            return Ok(0);
        }
        none_if_would_block(self.rx.fill(&mut self.stream))
    }

    /// Sends what waits, unless the peer has to make room first.
    #[inline]
    pub(in crate::target) fn flush(&mut self) -> Result<Progress, End> {
        let before = self.out.tx.pending();
        if before == 0 || (self.blocked && !self.stream.take_room()) {
            return Ok(Progress::Idle);
        }
        let sent = self.out.tx.flush(&mut self.stream, &mut NoPayloads);
        self.blocked = !sent.map_err(|_| End::Closed)?;
        Ok(match self.out.tx.pending() < before {
            true => Progress::Busy,
            false => Progress::Idle,
        })
    }

    /// Whether what waits to be sent has to wait for the peer to read.
    #[inline]
    pub(in crate::target) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// The PDU at the start of the receive buffer; a capsule only once it is there as a whole.
    #[inline]
    pub(in crate::target) fn next_frame(&mut self) -> Result<Option<Frame>, End> {
        let bytes = self.rx.data();
        match self.rx_framing.frame_after(&mut self.rx_before, bytes) {
            Ok(frame) => Ok(frame),
            Err(error) => Err(self.fault(error)),
        }
    }

    /// The peer broke the protocol with the PDU at the start of the receive buffer: queues the TermReq.
    #[cold]
    pub(in crate::target) fn fault(&mut self, error: ProtocolError) -> End {
        let offending = self.rx.data();
        // A TermReq is not answered with another one, not even one that is wrong itself (NVMe/TCP 1.1,
        // 3.6.2.4).
        if offending.first() == Some(&PduType::H2C_TERM_REQ.0) {
            return End::Terminated;
        }
        // A peer that reads nothing need not be told.
        if self.out.has_room() {
            self.out
                .tx
                .put(|out| emit_term_req(out, Receiver::Controller, error, offending));
        }
        End::Fault(error.reason)
    }
}

/// A length or offset within the data of one command, as PDUs have it.
#[inline]
#[expect(
    clippy::expect_used,
    reason = "no command has more data than MAXH2CDATA bytes"
)]
pub(in crate::target) fn wire_len(len: usize) -> u32 {
    u32::try_from(len).expect("an offset within the data of a command")
}

/// Bytes received, zero for none.
#[inline]
pub(in crate::target) fn none_if_would_block(result: io::Result<usize>) -> Result<usize, End> {
    match result {
        Ok(n) => Ok(n),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
        Err(e) => Err(TlsError::of(&e).map_or(End::Closed, End::Insecure)),
    }
}
