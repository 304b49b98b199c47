//! One side of a connection as PDUs of any content, with a deadline.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::is_end;
use crate::pdu::{DataDigest, TxFraming};
use crate::spec::pdu::{CommonHeader, PduType};

/// Any step that takes longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What a step has come to: the error says what was seen instead of what, so that a test can name the row of its table.
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
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Wire {
    /// A connection of which nothing was sent or read.
    pub fn new(stream: TcpStream) -> Checked<Self> {
        stream
            .set_nodelay(true)
            .and_then(|()| stream.set_read_timeout(Some(PATIENCE)))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
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

    /// Says that nothing more will be sent.
    pub fn finish(&mut self) {
        // Fails only if the connection is over already.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// The next PDU, or the end.
    pub fn receive(&mut self) -> Checked<Received> {
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
        match self.receive()? {
            Received::Pdu(bytes) if bytes.first() == Some(&pdu_type.0) => Ok(bytes),
            other => Err(format!("{} instead of {pdu_type}", describe(&other))),
        }
    }

    /// The end, with nothing before it.
    pub fn expect_end(&mut self) -> Checked<()> {
        match self.receive()? {
            Received::End => Ok(()),
            other => Err(format!("{} instead of the end", describe(&other))),
        }
    }
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
