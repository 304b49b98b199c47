//! Fields of the I/O commands of the NVM command set (NVM Command Set 1.1, 3).

use bitfield_struct::bitfield;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::sqe::Sqe;

/// Command Dword 12 of Read, Write, Compare, Write Zeroes and Verify (NVM Command Set 1.1, 3.3.4,
/// 3.3.6, 3.3.8).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct NvmCdw12 {
    /// Number of Logical Blocks, minus one.
    pub nlb_z: u16,
    #[bits(9)]
    __: u16,
    /// Deallocate; Write Zeroes only.
    pub deac: bool,
    /// Protection Information.
    #[bits(4)]
    pub prinfo: u8,
    /// Force Unit Access.
    pub fua: bool,
    /// Limited Retry.
    pub lr: bool,
}

impl Sqe {
    /// A command of the NVM command set for `blocks` logical blocks (1 to 65,536) from `slba` on.
    pub fn for_blocks(opcode: u8, nsid: u32, slba: u64, blocks: u32) -> Self {
        let nlb_z = u16::try_from(blocks.saturating_sub(1)).unwrap_or(u16::MAX);
        let mut sqe = Self::new(opcode, nsid);
        sqe.set_slba(slba);
        sqe.cdw12 = U32::new(NvmCdw12::new().with_nlb_z(nlb_z).into_bits());
        sqe
    }

    /// Starting LBA: Dwords 10 and 11.
    pub const fn slba(&self) -> u64 {
        self.cdw10.get() as u64 | (self.cdw11.get() as u64) << 32
    }

    /// Sets the Starting LBA.
    pub const fn set_slba(&mut self, slba: u64) {
        let [a, b, c, d, e, f, g, h] = slba.to_le_bytes();
        self.cdw10 = U32::from_bytes([a, b, c, d]);
        self.cdw11 = U32::from_bytes([e, f, g, h]);
    }

    /// Dword 12, where the command is one with blocks.
    pub const fn nvm_cdw12(&self) -> NvmCdw12 {
        NvmCdw12::from_bits(self.cdw12.get())
    }

    /// Number of logical blocks: 1 to 65,536.
    pub const fn blocks(&self) -> u32 {
        self.nvm_cdw12().nlb_z() as u32 + 1
    }
}

/// Attributes of Dataset Management (NVM Command Set 1.1, 3.3.3).
pub mod dsm {
    /// Dword 11: Deallocate.
    pub const DEALLOCATE: u32 = 1 << 2;
    /// Dword 11: Integral Dataset for Write.
    pub const INTEGRAL_WRITE: u32 = 1 << 1;
    /// Dword 11: Integral Dataset for Read.
    pub const INTEGRAL_READ: u32 = 1 << 0;
    /// Dword 10, bits 7:0: Number of Ranges, minus one.
    pub const NR_MASK: u32 = 0xFF;
    /// The most ranges one command can have.
    pub const MAX_RANGES: u32 = 256;
}

/// Range of a Dataset Management command, 16 bytes (NVM Command Set 1.1, 3.3.3).
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
pub struct DatasetRange {
    /// Context Attributes.
    pub cattr: U32,
    /// Length in logical blocks; not minus one.
    pub nlb: U32,
    /// Starting LBA.
    pub slba: U64,
}
assert_layout!(DatasetRange, 16, nlb @ 4, slba @ 8);
