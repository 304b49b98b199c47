//! Headers of the NVMe/TCP PDUs (NVMe/TCP 1.1, 3.6.2).

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::sqe::{Cqe, Sqe};

open_code! {
    /// PDU-Type (NVMe/TCP 1.1, 3.6.2).
    #[derive(Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
    PduType(u8) {
        /// Initialize Connection Request: host to controller.
        ICREQ = 0x00, "ICReq";
        /// Initialize Connection Response: controller to host.
        ICRESP = 0x01, "ICResp";
        /// Host to Controller Terminate Connection Request.
        H2C_TERM_REQ = 0x02, "H2CTermReq";
        /// Controller to Host Terminate Connection Request.
        C2H_TERM_REQ = 0x03, "C2HTermReq";
        /// Command Capsule: host to controller.
        CAPSULE_CMD = 0x04, "CapsuleCmd";
        /// Response Capsule: controller to host.
        CAPSULE_RESP = 0x05, "CapsuleResp";
        /// Host to Controller Data Transfer.
        H2C_DATA = 0x06, "H2CData";
        /// Controller to Host Data Transfer.
        C2H_DATA = 0x07, "C2HData";
        /// Ready to Transfer: controller to host.
        R2T = 0x09, "R2T";
    }
}

/// FLAGS of the common header. Which of them a PDU may carry depends on its type.
pub mod flags {
    /// A header digest follows the header.
    pub const HDGSTF: u8 = 1 << 0;
    /// A data digest follows the data.
    pub const DDGSTF: u8 = 1 << 1;
    /// H2CData, C2HData: the last PDU of this transfer.
    pub const LAST_PDU: u8 = 1 << 2;
    /// C2HData: the command succeeded and no CapsuleResp will follow; only together with
    /// [`LAST_PDU`].
    pub const SUCCESS: u8 = 1 << 3;
}

open_code! {
    /// Fatal Error Status of a TermReq PDU (NVMe/TCP 1.1, 3.6.2.4 and 3.6.2.5).
    #[derive(Default)]
    Fes(u16) {
        /// FEI is the offset of the field from the start of the PDU header.
        INVALID_HEADER_FIELD = 0x01, "Invalid PDU Header Field";
        /// A PDU that may not come at this point.
        SEQUENCE_ERROR = 0x02, "PDU Sequence Error";
        /// FEI is the HDGST that was received.
        HEADER_DIGEST_ERROR = 0x03, "Header Digest Error";
        /// Data outside the range of the command or of the R2T.
        DATA_TRANSFER_OUT_OF_RANGE = 0x04, "Data Transfer Out of Range";
        /// By the host: more R2Ts outstanding than MAXR2T. By the controller: an H2CData PDU above
        /// MAXH2CDATA.
        LIMIT_EXCEEDED = 0x05, "R2T or Data Transfer Limit Exceeded";
        /// FEI is the offset of the parameter in ICReq or ICResp.
        UNSUPPORTED_PARAMETER = 0x06, "Unsupported Parameter";
    }
}

/// Length of HDGST and of DDGST in bytes.
pub const DIGEST_LEN: usize = 4;
/// PDU Format Version 0, the only one there is.
pub const PFV: u16 = 0;
/// Largest CPDA or HPDA: alignment of data to 128 bytes.
pub const MAX_PDA: u8 = 31;
/// The least MAXH2CDATA a controller may state, in bytes.
pub const MIN_MAXH2CDATA: u32 = 4096;

/// Common header of all PDUs, 8 bytes (NVMe/TCP 1.1, 3.6.2.1).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
    Unaligned,
)]
#[repr(C)]
pub struct CommonHeader {
    /// PDU-Type.
    pub pdu_type: PduType,
    /// FLAGS, see [`flags`].
    pub flags: u8,
    /// Header Length in bytes: common header and PDU specific header, without digest and padding.
    pub hlen: u8,
    /// PDU Data Offset in bytes from the start of the PDU; zero where there is no data.
    pub pdo: u8,
    /// PDU Length in bytes: header, digests, padding and data.
    pub plen: U32,
}
assert_layout!(CommonHeader, 8, flags @ 1, hlen @ 2, pdo @ 3, plen @ 4);

impl CommonHeader {
    /// A header with type and flags; lengths are filled in by
    /// [`crate::pdu::TxFraming::put_header`].
    pub const fn new(pdu_type: PduType, flags: u8) -> Self {
        Self {
            pdu_type,
            flags,
            hlen: 0,
            pdo: 0,
            plen: U32::ZERO,
        }
    }
}

/// DGST of ICReq and ICResp: enable header digests.
pub const HDGST_ENABLE: u8 = 1 << 0;
/// DGST of ICReq and ICResp: enable data digests.
pub const DDGST_ENABLE: u8 = 1 << 1;

/// ICReq, 128 bytes (NVMe/TCP 1.1, 3.6.2.2).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Icreq {
    /// Common header.
    pub ch: CommonHeader,
    /// PDU Format Version.
    pub pfv: U16,
    /// Host PDU Data Alignment, in dwords minus one: 0 to 31. Applies to data the controller sends.
    pub hpda_z: u8,
    /// DGST: [`HDGST_ENABLE`], [`DDGST_ENABLE`].
    pub dgst: u8,
    /// Maximum Number of Outstanding R2T per command, minus one.
    pub maxr2t_z: U32,
    /// Reserved.
    pub rsvd16: [u8; 112],
}
assert_layout!(Icreq, 128, pfv @ 8, hpda_z @ 10, dgst @ 11, maxr2t_z @ 12, rsvd16 @ 16);

impl Icreq {
    /// A request for these digests (bits of DGST), alignment and number of R2Ts (both minus one).
    pub fn new(hpda_z: u8, dgst: u8, maxr2t_z: u32) -> Self {
        Self {
            ch: CommonHeader::new(PduType::ICREQ, 0),
            hpda_z,
            dgst,
            maxr2t_z: U32::new(maxr2t_z),
            ..Self::new_zeroed()
        }
    }
}

/// ICResp, 128 bytes (NVMe/TCP 1.1, 3.6.2.3).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Icresp {
    /// Common header.
    pub ch: CommonHeader,
    /// PDU Format Version.
    pub pfv: U16,
    /// Controller PDU Data Alignment, in dwords minus one: 0 to 31. Applies to data the host sends.
    pub cpda_z: u8,
    /// DGST: the digests that are enabled from now on.
    pub dgst: u8,
    /// Maximum Host to Controller Data length of one H2CData PDU in bytes: a multiple of 4, at
    /// least 4,096.
    pub maxh2cdata: U32,
    /// Reserved.
    pub rsvd16: [u8; 112],
}
assert_layout!(Icresp, 128, pfv @ 8, cpda_z @ 10, dgst @ 11, maxh2cdata @ 12, rsvd16 @ 16);

impl Icresp {
    /// A response that grants these digests (bits of DGST), with this alignment (minus one) and
    /// data limit in bytes.
    pub fn new(cpda_z: u8, dgst: u8, maxh2cdata: u32) -> Self {
        Self {
            ch: CommonHeader::new(PduType::ICRESP, 0),
            cpda_z,
            dgst,
            maxh2cdata: U32::new(maxh2cdata),
            ..Self::new_zeroed()
        }
    }
}

/// TermReq of either direction, 24 bytes; the header of the offending PDU follows as data (NVMe/TCP
/// 1.1, 3.6.2.4, 3.6.2.5).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct TermReq {
    /// Common header.
    pub ch: CommonHeader,
    /// Fatal Error Status; see [`TermReq::fes`].
    pub fes: U16,
    /// Fatal Error Information. At offset 10, so not aligned to 4 bytes.
    pub fei: U32,
    /// Reserved.
    pub rsvd14: [u8; 10],
}
assert_layout!(TermReq, 24, fes @ 8, fei @ 10, rsvd14 @ 14);

impl TermReq {
    /// The longest TermReq PDU in bytes.
    pub const MAX_PLEN: usize = 152;
    /// The most bytes of the offending PDU that fit.
    pub const MAX_DATA: usize = Self::MAX_PLEN - size_of::<Self>();

    /// Fatal Error Status.
    pub const fn fes(&self) -> Fes {
        Fes(self.fes.get())
    }
}

/// CapsuleCmd, 72 bytes and optional in-capsule data (NVMe/TCP 1.1, 3.6.2.6).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct CapsuleCmd {
    /// Common header.
    pub ch: CommonHeader,
    /// Command Capsule SQE.
    pub sqe: Sqe,
}
assert_layout!(CapsuleCmd, 72, sqe @ 8);

impl CapsuleCmd {
    /// A capsule for this command.
    pub const fn new(sqe: Sqe) -> Self {
        Self {
            ch: CommonHeader::new(PduType::CAPSULE_CMD, 0),
            sqe,
        }
    }
}

/// CapsuleResp, 24 bytes (NVMe/TCP 1.1, 3.6.2.7).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct CapsuleResp {
    /// Common header.
    pub ch: CommonHeader,
    /// Response Capsule CQE.
    pub cqe: Cqe,
}
assert_layout!(CapsuleResp, 24, cqe @ 8);

impl CapsuleResp {
    /// A capsule for this completion.
    pub const fn new(cqe: Cqe) -> Self {
        Self {
            ch: CommonHeader::new(PduType::CAPSULE_RESP, 0),
            cqe,
        }
    }
}

/// H2CData, 24 bytes and data (NVMe/TCP 1.1, 3.6.2.8).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct H2cData {
    /// Common header.
    pub ch: CommonHeader,
    /// Command Capsule CID.
    pub cccid: U16,
    /// Transfer Tag of the R2T that is answered.
    pub ttag: U16,
    /// Data Offset from the start of the command's data, in bytes.
    pub datao: U32,
    /// Data Length of this PDU in bytes.
    pub datal: U32,
    /// Reserved.
    pub rsvd20: [u8; 4],
}
assert_layout!(H2cData, 24, cccid @ 8, ttag @ 10, datao @ 12, datal @ 16);

impl H2cData {
    /// A data PDU for command `cccid` and R2T `ttag`; `last` marks the last PDU of the R2T.
    pub const fn new(cccid: u16, ttag: u16, datao: u32, datal: u32, last: bool) -> Self {
        Self {
            ch: CommonHeader::new(PduType::H2C_DATA, if last { flags::LAST_PDU } else { 0 }),
            cccid: U16::new(cccid),
            ttag: U16::new(ttag),
            datao: U32::new(datao),
            datal: U32::new(datal),
            rsvd20: [0; 4],
        }
    }
}

/// C2HData, 24 bytes and data (NVMe/TCP 1.1, 3.6.2.9).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct C2hData {
    /// Common header.
    pub ch: CommonHeader,
    /// Command Capsule CID.
    pub cccid: U16,
    /// Reserved.
    pub rsvd10: U16,
    /// Data Offset from the start of the command's data, in bytes.
    pub datao: U32,
    /// Data Length of this PDU in bytes.
    pub datal: U32,
    /// Reserved.
    pub rsvd20: [u8; 4],
}
assert_layout!(C2hData, 24, cccid @ 8, datao @ 12, datal @ 16);

impl C2hData {
    /// A data PDU for command `cccid`; `flags` is zero, [`flags::LAST_PDU`], or that with
    /// [`flags::SUCCESS`].
    pub const fn new(cccid: u16, datao: u32, datal: u32, flags: u8) -> Self {
        Self {
            ch: CommonHeader::new(PduType::C2H_DATA, flags),
            cccid: U16::new(cccid),
            rsvd10: U16::ZERO,
            datao: U32::new(datao),
            datal: U32::new(datal),
            rsvd20: [0; 4],
        }
    }
}

/// R2T, 24 bytes (NVMe/TCP 1.1, 3.6.2.10).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct R2t {
    /// Common header.
    pub ch: CommonHeader,
    /// Command Capsule CID.
    pub cccid: U16,
    /// Transfer Tag, chosen by the controller.
    pub ttag: U16,
    /// Requested Data Offset from the start of the command's data, in bytes.
    pub r2to: U32,
    /// Requested Data Length in bytes.
    pub r2tl: U32,
    /// Reserved.
    pub rsvd20: [u8; 4],
}
assert_layout!(R2t, 24, cccid @ 8, ttag @ 10, r2to @ 12, r2tl @ 16);

impl R2t {
    /// A request for `r2tl` bytes of command `cccid` from `r2to` on.
    pub const fn new(cccid: u16, ttag: u16, r2to: u32, r2tl: u32) -> Self {
        Self {
            ch: CommonHeader::new(PduType::R2T, 0),
            cccid: U16::new(cccid),
            ttag: U16::new(ttag),
            r2to: U32::new(r2to),
            r2tl: U32::new(r2tl),
            rsvd20: [0; 4],
        }
    }
}
