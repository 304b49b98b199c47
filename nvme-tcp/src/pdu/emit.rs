//! Emission of PDUs.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use super::digest::header_digest;
use super::error::ProtocolError;
use super::frame::Receiver;
use crate::spec::pdu::{CommonHeader, DIGEST_LEN, MAX_PDA, PduType, TermReq, flags};

/// How this side sends, as agreed by ICReq and ICResp. Before that all is off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TxFraming {
    /// Header digests are on.
    pub hdgst: bool,
    /// Data digests are on.
    pub ddgst: bool,
    /// The peer's alignment of data in dwords, minus one: CPDA for a host, HPDA for a controller.
    /// At most [`MAX_PDA`]; larger values are to be refused when ICReq or ICResp is read.
    pub pda: u8,
}

/// Where the parts of a PDU go. All in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// What comes before the data: header, header digest and padding.
    pub head_len: usize,
    /// Start of the data from the start of the PDU; zero where there is no data.
    pub pdo: usize,
    /// A data digest of 4 bytes has to follow the data.
    pub ddgst: bool,
    /// Length of the whole PDU.
    pub plen: usize,
}

impl TxFraming {
    /// The layout of a PDU with a header of `hlen` bytes and this much data.
    #[inline]
    pub fn layout(&self, hlen: usize, data_len: usize) -> Layout {
        debug_assert!(self.pda <= MAX_PDA, "PDA {} was not checked", self.pda);
        let head = hlen + usize::from(self.hdgst) * DIGEST_LEN;
        if data_len == 0 {
            return Layout {
                head_len: head,
                pdo: 0,
                ddgst: false,
                plen: head,
            };
        }
        let alignment = (usize::from(self.pda & MAX_PDA) + 1) * 4;
        let pdo = head.next_multiple_of(alignment);
        Layout {
            head_len: pdo,
            pdo,
            ddgst: self.ddgst,
            plen: pdo + data_len + usize::from(self.ddgst) * DIGEST_LEN,
        }
    }

    /// Appends a header with its digest and padding to `out`: [`Layout::head_len`] bytes. `header`
    /// starts with a [`CommonHeader`] that has type and flags set; the flags of the digests, HLEN,
    /// PDO and PLEN are filled in here. `data_len` bytes of data and, where the layout says so,
    /// their digest are to follow by the caller.
    ///
    /// Not for TermReq PDUs, which never have digests: see [`emit_term_req`].
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "HLEN is at most 128, and so is PDO; PLEN is bounded by what one PDU may carry"
    )]
    pub fn put_header<H: IntoBytes + Immutable>(
        &self,
        out: &mut Vec<u8>,
        header: &H,
        data_len: usize,
    ) -> Layout {
        const { assert!(size_of::<H>() >= size_of::<CommonHeader>() && size_of::<H>() <= 128) };
        let layout = self.layout(size_of::<H>(), data_len);
        debug_assert!(u32::try_from(layout.plen).is_ok(), "PDU of 4 GiB or more");
        let start = out.len();
        out.extend_from_slice(header.as_bytes());
        let common = common_header(&mut out[start..]);
        common.flags |= u8::from(self.hdgst) * flags::HDGSTF;
        common.flags |= u8::from(layout.ddgst) * flags::DDGSTF;
        common.hlen = size_of::<H>() as u8;
        common.pdo = layout.pdo as u8;
        common.plen = U32::new(layout.plen as u32);
        if self.hdgst {
            let digest = header_digest(&out[start..]);
            out.extend_from_slice(&digest);
        }
        out.resize(start + layout.head_len, 0);
        layout
    }
}

/// The common header of a PDU that was appended just now.
#[inline]
fn common_header(pdu: &mut [u8]) -> &mut CommonHeader {
    #[expect(
        clippy::expect_used,
        reason = "every header begins with the common one"
    )]
    let (common, _) = CommonHeader::mut_from_prefix(pdu).expect("a header");
    common
}

/// Appends the TermReq PDU by which `found_by` ends the connection because of `error`: H2CTermReq
/// by a host, C2HTermReq by a controller. `offending` is the PDU that was at fault, from its start;
/// its header goes along, up to the 128 bytes that fit: as long as its HLEN says, or the common header
/// if that is more than there is.
pub fn emit_term_req(
    out: &mut Vec<u8>,
    found_by: Receiver,
    error: ProtocolError,
    offending: &[u8],
) {
    let pdu_type = match found_by {
        Receiver::Host => PduType::H2C_TERM_REQ,
        Receiver::Controller => PduType::C2H_TERM_REQ,
    };
    const COMMON: usize = size_of::<CommonHeader>();
    let hlen = CommonHeader::ref_from_prefix(offending).map_or(COMMON, |(ch, _)| ch.hlen.into());
    let header_len = match hlen {
        COMMON..=TermReq::MAX_DATA if hlen <= offending.len() => hlen,
        _ => COMMON,
    };
    let data = offending.get(..header_len).unwrap_or(offending);
    let header = TermReq {
        ch: CommonHeader::new(pdu_type, 0),
        fes: U16::new(error.fes.0),
        fei: U32::new(error.fei),
        ..TermReq::new_zeroed()
    };
    let start = out.len();
    TxFraming::default().put_header(out, &header, data.len());
    // PDO is reserved in a TermReq.
    common_header(&mut out[start..]).pdo = 0;
    out.extend_from_slice(data);
}
