//! Submission and completion queue entries and SGL descriptors (NVMe Base 2.1, 4.1 to 4.3).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::opcode::{self, DataDirection};
use super::status::Status;

/// NSID that stands for all namespaces (Base 2.1, 3.2.1).
pub const NSID_ALL: u32 = 0xFFFF_FFFF;

/// SGL descriptor, 16 bytes (Base 2.1, 4.3.2). The two forms NVMe/TCP uses are made by
/// [`SglDescriptor::in_capsule`] and [`SglDescriptor::transport`] (NVMe/TCP 1.1, 3.3).
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
pub struct SglDescriptor {
    /// Address, or the offset into the capsule's data.
    pub address: U64,
    /// Length in bytes.
    pub length: U32,
    /// Reserved.
    pub rsvd: [u8; 3],
    /// SGL Descriptor Type (bits 7:4) and Sub Type (bits 3:0).
    pub kind: u8,
}
assert_layout!(SglDescriptor, 16, length @ 8, kind @ 15);

impl SglDescriptor {
    /// Data Block, sub type Offset: the data is in the command capsule.
    pub const IN_CAPSULE: u8 = 0x01;
    /// Transport Data Block, transport specific sub type: the data moves by C2HData, or by R2T and
    /// H2CData.
    pub const TRANSPORT: u8 = 0x5A;

    /// Data of `length` bytes at `offset` of the capsule's data.
    pub const fn in_capsule(offset: u64, length: u32) -> Self {
        Self {
            address: U64::new(offset),
            length: U32::new(length),
            rsvd: [0; 3],
            kind: Self::IN_CAPSULE,
        }
    }

    /// Data of `length` bytes that moves in data PDUs.
    pub const fn transport(length: u32) -> Self {
        Self {
            address: U64::ZERO,
            length: U32::new(length),
            rsvd: [0; 3],
            kind: Self::TRANSPORT,
        }
    }
}

/// Submission Queue Entry in the common command format, 64 bytes (Base 2.1, 4.1).
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
pub struct Sqe {
    /// Opcode.
    pub opcode: u8,
    /// FUSE in bits 1:0, PSDT in bits 7:6.
    pub flags: u8,
    /// Command Identifier.
    pub cid: U16,
    /// Namespace Identifier; in a Fabrics command its first byte is FCTYPE.
    pub nsid: U32,
    /// Command Dword 2.
    pub cdw2: U32,
    /// Command Dword 3.
    pub cdw3: U32,
    /// Metadata Pointer.
    pub mptr: U64,
    /// Data Pointer: SGL Entry 1.
    pub sgl: SglDescriptor,
    /// Command Dword 10.
    pub cdw10: U32,
    /// Command Dword 11.
    pub cdw11: U32,
    /// Command Dword 12.
    pub cdw12: U32,
    /// Command Dword 13.
    pub cdw13: U32,
    /// Command Dword 14.
    pub cdw14: U32,
    /// Command Dword 15.
    pub cdw15: U32,
}
assert_layout!(Sqe, 64, cid @ 2, nsid @ 4, mptr @ 16, sgl @ 24, cdw10 @ 40, cdw15 @ 60);

impl Sqe {
    /// Mask of PSDT in [`Sqe::flags`].
    pub const PSDT_MASK: u8 = 0xC0;
    /// PSDT 01b: SGL for the data, contiguous metadata buffer. Required on fabrics.
    pub const PSDT_SGL: u8 = 0x40;
    /// PSDT 10b: SGLs for data and for metadata.
    pub const PSDT_SGL_METADATA: u8 = 0x80;
    /// Mask of FUSE in [`Sqe::flags`].
    pub const FUSE_MASK: u8 = 0x03;

    /// A command with PSDT set for SGLs and all else zero. The SGL is a transport data block of no
    /// bytes.
    pub const fn new(opcode: u8, nsid: u32) -> Self {
        Self {
            opcode,
            flags: Self::PSDT_SGL,
            cid: U16::ZERO,
            nsid: U32::new(nsid),
            cdw2: U32::ZERO,
            cdw3: U32::ZERO,
            mptr: U64::ZERO,
            sgl: SglDescriptor::transport(0),
            cdw10: U32::ZERO,
            cdw11: U32::ZERO,
            cdw12: U32::ZERO,
            cdw13: U32::ZERO,
            cdw14: U32::ZERO,
            cdw15: U32::ZERO,
        }
    }

    /// FCTYPE of a Fabrics command: byte 4.
    pub const fn fctype(&self) -> u8 {
        self.nsid.to_bytes()[0]
    }

    /// Which way the data of this command goes.
    pub const fn data_direction(&self) -> DataDirection {
        if self.opcode == opcode::FABRICS {
            DataDirection::of(self.fctype())
        } else {
            DataDirection::of(self.opcode)
        }
    }
}

/// Completion Queue Entry, 16 bytes (Base 2.1, 4.2). On fabrics the phase tag is reserved, and SQHD
/// is only valid while SQ flow control is enabled.
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
pub struct Cqe {
    /// Dwords 0 and 1: command specific.
    pub result: U64,
    /// SQ Head Pointer.
    pub sqhd: U16,
    /// SQ Identifier; reserved on fabrics.
    pub sqid: U16,
    /// Command Identifier.
    pub cid: U16,
    /// Phase tag in bit 0, the status field above it; see [`Cqe::status`].
    pub status: U16,
}
assert_layout!(Cqe, 16, sqhd @ 8, sqid @ 10, cid @ 12, status @ 14);

impl Cqe {
    /// The completion of command `cid` with `status`; all else zero.
    pub const fn new(cid: u16, status: Status) -> Self {
        Self {
            result: U64::ZERO,
            sqhd: U16::ZERO,
            sqid: U16::ZERO,
            cid: U16::new(cid),
            status: status.to_cqe(),
        }
    }

    /// The status field, without the phase tag.
    pub const fn status(&self) -> Status {
        Status::from_cqe(self.status)
    }

    /// Dword 0 of the result.
    pub const fn dw0(&self) -> u32 {
        let [a, b, c, d, ..] = self.result.to_bytes();
        u32::from_le_bytes([a, b, c, d])
    }
}
