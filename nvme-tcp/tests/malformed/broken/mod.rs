//! What the tests of malformed input share: PDUs with any byte made wrong, and the check of the TermReq that answers them.

pub mod table;

use pollux_nvme_tcp::spec::pdu::{CommonHeader, PduType};
use pollux_nvme_tcp::testing::wire::Checked;
use zerocopy::IntoBytes;

/// Longest TermReq in bytes, and its header without data (NVMe/TCP 1.1, 3.6.2.4).
const TERM_REQ_MAX: usize = 152;
const TERM_REQ_HEADER: usize = 24;

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
