//! Cross-Controller Reset (NVMe Base 2.3, 5.4.3 and 8.3.3): a host asks one controller of an NVM subsystem to reset
//! another one of its own, the *impacted* controller, which it can no longer reach. Once that has succeeded nothing that was
//! sent to the impacted controller is executed any more.

use bitfield_struct::bitfield;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::opcode;
use super::sqe::Sqe;

/// Dword 10 of the command.
#[bitfield(u32)]
struct Cdw10 {
    icid: u16,
    ciu: u8,
    __: u8,
}

/// Whom a Cross-Controller Reset is about, as its Identify Controller data has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Impacted {
    /// Impacted Controller ID: its CNTLID.
    pub icid: u16,
    /// Its Controller Instance Uniquifier.
    pub ciu: u8,
    /// Its Controller Instance Random Number.
    pub cirn: u64,
}

/// Dword 0 of the completion, bit 0, Immediate Reset Successful: the reset is done. Else it is in progress; the log tells
/// how it ends.
pub const IMMEDIATE_RESET_SUCCESSFUL: u32 = 1 << 0;

impl Impacted {
    /// Reads the fields of a command.
    pub const fn from_sqe(sqe: &Sqe) -> Self {
        let cdw10 = Cdw10::from_bits(sqe.cdw10.get());
        Self {
            icid: cdw10.icid(),
            ciu: cdw10.ciu(),
            cirn: sqe.cdw12.get() as u64 | (sqe.cdw13.get() as u64) << 32,
        }
    }

    /// The command.
    pub fn to_sqe(self) -> Sqe {
        let [a, b, c, d, e, f, g, h] = self.cirn.to_le_bytes();
        let mut sqe = Sqe::new(opcode::admin::CROSS_CONTROLLER_RESET, 0);
        sqe.cdw10 = U32::new(
            Cdw10::new()
                .with_icid(self.icid)
                .with_ciu(self.ciu)
                .into_bits(),
        );
        sqe.cdw12 = U32::from_bytes([a, b, c, d]);
        sqe.cdw13 = U32::from_bytes([e, f, g, h]);
        sqe
    }
}

/// Log Specific Parameter bit 0 of Get Log Page: the entries of resets that have ended are removed from the log once it
/// was read.
pub const LSP_REMOVE_COMPLETED: u8 = 1 << 0;

/// Entries of the log at most: it is 4,096 bytes long.
pub const LOG_ENTRIES_MAX: usize = 511;

/// Header of the Cross-Controller Reset log, 8 bytes (log page 1Eh). [`LogEntry`]s follow.
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
pub struct LogHeader {
    /// Number of Entries.
    pub ne: U16,
    /// Reserved.
    pub rsvd2: [u8; 6],
}
assert_layout!(LogHeader, 8, ne @ 0);

/// An entry of the Cross-Controller Reset log, 8 bytes: one request.
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
pub struct LogEntry {
    /// Impacted Controller ID.
    pub icid: U16,
    /// Its Controller Instance Uniquifier.
    pub ciu: u8,
    /// Reserved.
    pub rsvd3: u8,
    /// Alternate Controller ID: another controller that the host may ask.
    pub acid: U16,
    /// How it went.
    pub ccrs: ResetStatus,
    /// Flags, see [`ccrf`].
    pub ccrf: u8,
}
assert_layout!(LogEntry, 8, icid @ 0, ciu @ 2, acid @ 4, ccrs @ 6, ccrf @ 7);

open_code! {
    /// Cross-Controller Reset Status.
    #[derive(Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
    ResetStatus(u8) {
        /// Not ended.
        IN_PROGRESS = 0, "in progress";
        /// Nothing of the impacted controller is executed any more.
        SUCCESSFUL = 1, "successful";
        /// It was of no avail.
        FAILED = 2, "failed";
    }
}

/// Flags of [`LogEntry::ccrf`].
pub mod ccrf {
    /// ICID, CIU and CIRN were found to be those of a controller.
    pub const VALIDATED: u8 = 1 << 0;
    /// A Controller Level Reset of the impacted controller was initiated.
    pub const RESET_INITIATED: u8 = 1 << 1;
}
