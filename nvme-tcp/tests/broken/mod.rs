//! What the tests of malformed input share: PDUs with any byte made wrong, a socket with a deadline, and
//! the check of the TermReq that answers them.
//!
//! What fails here is described by a text, so that a test can name the row of its table.

pub mod table;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use pollux_nvme_tcp::pdu::{DataDigest, TxFraming};
use pollux_nvme_tcp::spec::pdu::{CommonHeader, PduType};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Any step that takes longer has failed.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// Longest TermReq in bytes, and its header without data (NVMe/TCP 1.1, 3.6.2.4).
const TERM_REQ_MAX: usize = 152;
const TERM_REQ_HEADER: usize = 24;

/// Of a test's steps: the error says what was seen instead of what.
pub type Checked<T> = Result<T, String>;

/// A PDU as it should be.
pub fn pdu<H: IntoBytes + Immutable>(framing: TxFraming, header: &H, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let layout = framing.put_header(&mut out, header, data.len());
    out.extend_from_slice(data);
    if layout.ddgst {
        let mut digest = DataDigest::new();
        digest.update(data);
        out.extend_from_slice(&digest.finish());
    }
    out
}

/// A PDU that has nothing right but, perhaps, its common header, with zeroes up to `len` bytes.
pub fn bare(pdu_type: PduType, flags: u8, hlen: u8, pdo: u8, plen: u32, len: usize) -> Vec<u8> {
    let header = CommonHeader {
        pdu_type,
        flags,
        hlen,
        pdo,
        plen: plen.into(),
    };
    let mut out = header.as_bytes().to_vec();
    out.resize(len, 0);
    out
}

/// Makes bytes wrong.
pub trait Spoil: Sized {
    /// Puts `value` at `at`.
    fn with(self, at: usize, value: &[u8]) -> Self;
    /// Cuts off all but the first `len` bytes.
    fn cut(self, len: usize) -> Self;
    /// Flips the lowest bit of byte `at`.
    fn flip(self, at: usize) -> Self;
    /// Flips a bit of the last byte.
    fn flip_last(self) -> Self;
    /// FLAGS.
    fn flags(self, value: u8) -> Self {
        self.with(1, &[value])
    }
    /// HLEN.
    fn hlen(self, value: u8) -> Self {
        self.with(2, &[value])
    }
    /// PDO.
    fn pdo(self, value: u8) -> Self {
        self.with(3, &[value])
    }
    /// PLEN.
    fn plen(self, value: u32) -> Self {
        self.with(4, &value.to_le_bytes())
    }
}

impl Spoil for Vec<u8> {
    fn with(mut self, at: usize, value: &[u8]) -> Self {
        self[at..at + value.len()].copy_from_slice(value);
        self
    }

    fn cut(mut self, len: usize) -> Self {
        self.truncate(len);
        self
    }

    fn flip(mut self, at: usize) -> Self {
        self[at] ^= 1;
        self
    }

    fn flip_last(self) -> Self {
        let last = self.len() - 1;
        self.flip(last)
    }
}

/// Bytes that look random and are the same each time.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}

/// What came next on a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// A whole PDU.
    Pdu(Vec<u8>),
    /// The end of the connection, at the end of a PDU.
    End,
}

impl Received {
    /// Its PDU-Type, if it is a PDU.
    pub fn pdu_type(&self) -> Option<PduType> {
        match self {
            Received::Pdu(bytes) => bytes.first().map(|&b| PduType(b)),
            Received::End => None,
        }
    }
}

/// One side of a connection, blocking with a deadline.
pub struct Wire {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Wire {
    pub fn new(stream: TcpStream) -> Checked<Self> {
        stream
            .set_nodelay(true)
            .and_then(|()| stream.set_read_timeout(Some(DEADLINE)))
            .and_then(|()| stream.set_write_timeout(Some(DEADLINE)))
            .map_err(|e| format!("socket: {e}"))?;
        Ok(Self {
            stream,
            received: Vec::new(),
        })
    }

    /// Sends bytes. The peer may have had enough after the first of them.
    pub fn send(&mut self, bytes: &[u8]) -> Checked<()> {
        match self.stream.write_all(bytes) {
            Err(e) if !is_end(e.kind()) => Err(format!("sending: {e}")),
            _ => Ok(()),
        }
    }

    /// Sends bytes one by one, each in a segment of its own.
    pub fn send_slowly(&mut self, bytes: &[u8]) -> Checked<()> {
        bytes.chunks(1).try_for_each(|byte| self.send(byte))
    }

    /// Says that nothing more will be sent.
    pub fn finish(&mut self) {
        // Fails only if the connection is over already.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// The next PDU, or the end.
    pub fn next(&mut self) -> Checked<Received> {
        let mut buffer = [0; 16 * 1024];
        loop {
            if let Ok((ch, _)) = CommonHeader::ref_from_prefix(&self.received) {
                let plen = ch.plen.get() as usize;
                if plen < size_of::<CommonHeader>() {
                    return Err(format!("a PDU with PLEN {plen}: {:02x?}", self.received));
                }
                if self.received.len() >= plen {
                    return Ok(Received::Pdu(self.received.drain(..plen).collect()));
                }
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return self.ended(),
                Ok(n) => self.received.extend_from_slice(&buffer[..n]),
                Err(e) if is_end(e.kind()) => return self.ended(),
                Err(e) => return Err(format!("waiting for a PDU or the end: {e}")),
            }
        }
    }

    fn ended(&self) -> Checked<Received> {
        match self.received.len() {
            0 => Ok(Received::End),
            n => Err(format!(
                "the connection ended within a PDU, after {n} bytes of it"
            )),
        }
    }

    /// The next PDU, which must be of this type.
    pub fn expect(&mut self, pdu_type: PduType) -> Checked<Vec<u8>> {
        match self.next()? {
            Received::Pdu(bytes) if bytes.first() == Some(&pdu_type.0) => Ok(bytes),
            other => Err(format!("{} instead of {pdu_type}", describe(&other))),
        }
    }

    /// The end, with nothing before it.
    pub fn expect_end(&mut self) -> Checked<()> {
        match self.next()? {
            Received::End => Ok(()),
            other => Err(format!("{} instead of the end", describe(&other))),
        }
    }
}

/// The peer has closed or reset the connection.
fn is_end(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted
    )
}

/// For a message: the type of a PDU and its first bytes.
pub fn describe(received: &Received) -> String {
    match received {
        Received::Pdu(bytes) => {
            let shown = &bytes[..bytes.len().min(32)];
            let pdu_type = bytes
                .first()
                .map_or_else(String::new, |&b| PduType(b).to_string());
            format!("{pdu_type} {shown:02x?}")
        }
        Received::End => "the end of the connection".into(),
    }
}

/// Checks every byte of a TermReq: `offending` is the PDU that it answers.
pub fn check_term_req(
    received: &[u8],
    pdu_type: PduType,
    (fes, fei): (u16, u32),
    offending: &[u8],
) -> Checked<()> {
    let plen = u32::try_from(received.len()).unwrap_or(0);
    let mut expected = vec![pdu_type.0, 0, 24, 0];
    expected.extend_from_slice(&plen.to_le_bytes());
    expected.extend_from_slice(&fes.to_le_bytes());
    expected.extend_from_slice(&fei.to_le_bytes());
    expected.resize(TERM_REQ_HEADER, 0);
    let (header, data) = received
        .split_at_checked(TERM_REQ_HEADER)
        .ok_or(format!("TermReq of {plen} bytes"))?;
    if header != expected {
        return Err(format!("TermReq {header:02x?} instead of {expected:02x?}"));
    }
    // The header of the PDU at fault: all of it that can be told to be one.
    let least = offending.len().min(size_of::<CommonHeader>());
    if received.len() > TERM_REQ_MAX || data.len() < least || !offending.starts_with(data) {
        return Err(format!("TermReq quotes {data:02x?} of {offending:02x?}"));
    }
    Ok(())
}
