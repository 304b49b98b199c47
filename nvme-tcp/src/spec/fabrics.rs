//! Fabrics commands: Connect, Property Get, Property Set, Disconnect (NVMe Base 2.1, 6).

use bitfield_struct::bitfield;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};
use zerocopy::{transmute, transmute_ref};

use super::authentication::AuthenticationCommand;
use super::nqn::{HostNqn, Nqn, NqnError};
use super::opcode::{FABRICS, fctype};
use super::sqe::{SglDescriptor, Sqe};

/// CNTLID in Connect data: the controller chooses (dynamic controller model).
pub const CNTLID_DYNAMIC: u16 = 0xFFFF;
/// CNTLID in Connect data: any controller will do (static controller model).
pub const CNTLID_ANY_STATIC: u16 = 0xFFFE;
/// Largest CNTLID a controller may have.
pub const CNTLID_MAX: u16 = 0xFFEF;
/// SQHD of the Connect response when SQ flow control was disabled.
pub const SQHD_FLOW_CONTROL_DISABLED: u16 = 0xFFFF;

/// CATTR of the Connect command (Base 2.1, 6.3).
pub mod cattr {
    /// Mask of the priority class.
    pub const PRIORITY_MASK: u8 = 0b11;
    /// Disable SQ flow control.
    pub const DISABLE_SQ_FLOW_CONTROL: u8 = 1 << 2;
    /// The host supports deletion of single I/O queues (Disconnect).
    pub const INDIVIDUAL_IO_QUEUE_DELETION: u8 = 1 << 3;
}

/// Offsets of the properties (Base 2.1, 3.1.4), for [`PropertyGet::ofst`] and
/// [`PropertySet::ofst`].
pub mod property {
    /// Controller Capabilities, 8 bytes.
    pub const CAP: u32 = 0x00;
    /// Version, 4 bytes.
    pub const VS: u32 = 0x08;
    /// Controller Configuration, 4 bytes.
    pub const CC: u32 = 0x14;
    /// Controller Status, 4 bytes.
    pub const CSTS: u32 = 0x1C;
    /// NVM Subsystem Reset, 4 bytes.
    pub const NSSR: u32 = 0x20;
    /// NVM Subsystem Shutdown, 4 bytes.
    pub const NSSD: u32 = 0x64;
    /// Controller Ready Timeouts, 4 bytes.
    pub const CRTO: u32 = 0x68;
    /// ATTRIB bits 2:0: the property has 4 bytes.
    pub const SIZE_4: u8 = 0b000;
    /// ATTRIB bits 2:0: the property has 8 bytes.
    pub const SIZE_8: u8 = 0b001;
    /// Mask of the size in ATTRIB.
    pub const SIZE_MASK: u8 = 0b111;
}

/// Connect command, 64 bytes (Base 2.1, 6.3). [`ConnectData`] follows in-capsule.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct ConnectCommand {
    /// Opcode: 7Fh.
    pub opcode: u8,
    /// PSDT in bits 7:6.
    pub flags: u8,
    /// Command Identifier.
    pub cid: U16,
    /// Fabrics Command Type: 01h.
    pub fctype: u8,
    /// Reserved.
    pub rsvd5: [u8; 19],
    /// SGL Entry 1.
    pub sgl: SglDescriptor,
    /// Record Format: 0.
    pub recfmt: U16,
    /// Queue ID: 0 for the Admin Queue.
    pub qid: U16,
    /// Submission Queue Size, minus one.
    pub sqsize_z: U16,
    /// Connect Attributes, see [`cattr`].
    pub cattr: u8,
    /// Reserved.
    pub rsvd47: u8,
    /// Keep Alive Timeout in milliseconds; zero disables. Admin Queue only.
    pub kato: U32,
    /// Reserved.
    pub rsvd52: [u8; 12],
}
assert_layout!(
    ConnectCommand, 64, fctype @ 4, sgl @ 24, recfmt @ 40, qid @ 42, sqsize_z @ 44, cattr @ 46, kato
    @ 48,
);

impl ConnectCommand {
    /// A Connect for queue `qid` with `entries` entries (2 to 65,536), data in-capsule.
    pub fn new(qid: u16, entries: u32, cattr: u8, kato_ms: u32) -> Self {
        Self {
            opcode: FABRICS,
            flags: Sqe::PSDT_SGL,
            fctype: fctype::CONNECT,
            sgl: SglDescriptor::in_capsule(0, ConnectData::LEN),
            qid: U16::new(qid),
            sqsize_z: U16::new(u16::try_from(entries.saturating_sub(1)).unwrap_or(u16::MAX)),
            cattr,
            kato: U32::new(kato_ms),
            ..Self::new_zeroed()
        }
    }

    /// The number of entries of the queue.
    pub const fn sqsize(&self) -> u32 {
        self.sqsize_z.get() as u32 + 1
    }
}

/// Data of the Connect command, 1,024 bytes (Base 2.1, 6.3).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ConnectData {
    /// Host Identifier.
    pub hostid: [u8; 16],
    /// Controller ID: [`CNTLID_DYNAMIC`] for an Admin Queue, the assigned one for I/O Queues.
    pub cntlid: U16,
    /// Reserved.
    pub rsvd18: [u8; 238],
    /// NVM Subsystem NVMe Qualified Name, padded with zeroes.
    pub subnqn: [u8; 256],
    /// Host NVMe Qualified Name, padded with zeroes.
    pub hostnqn: [u8; 256],
    /// Reserved.
    pub rsvd768: [u8; 256],
}
assert_layout!(ConnectData, 1024, cntlid @ 16, subnqn @ 256, hostnqn @ 512, rsvd768 @ 768);

impl ConnectData {
    /// Length in bytes.
    pub const LEN: u32 = 1024;

    /// The data of a Connect by this host to this subsystem.
    pub fn new(hostid: [u8; 16], cntlid: u16, subnqn: &Nqn, hostnqn: &Nqn) -> Self {
        Self {
            hostid,
            cntlid: U16::new(cntlid),
            subnqn: subnqn.to_field(),
            hostnqn: hostnqn.to_field(),
            ..Self::new_zeroed()
        }
    }

    /// SUBNQN as a checked name.
    ///
    /// # Errors
    /// The field does not hold an NQN.
    pub fn subnqn(&self) -> Result<Nqn, NqnError> {
        Nqn::from_field(&self.subnqn)
    }

    /// HOSTNQN, which need not have the form of an NQN and may be empty.
    ///
    /// # Errors
    /// The field does not end, or holds what cannot be a name.
    pub fn hostnqn(&self) -> Result<HostNqn, NqnError> {
        HostNqn::from_field(&self.hostnqn)
    }
}

/// Dword 0 of a successful Connect response (Base 2.1, 6.3).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ConnectSuccess {
    /// Controller ID.
    pub cntlid: u16,
    __: bool,
    /// Authentication Transaction Required.
    pub atr: bool,
    /// Authentication and Secure Channel Required.
    pub ascr: bool,
    #[bits(13)]
    __: u16,
}

/// Dword 0 of a Connect response with the status Connect Invalid Parameters (Base 2.1, 6.3).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ConnectInvalidParameter {
    /// Invalid Parameter Offset in bytes.
    pub ipo: u16,
    /// Invalid Attributes bit 0: the offset is into the Connect data, not into the SQE.
    pub in_data: bool,
    #[bits(15)]
    __: u16,
}

impl ConnectInvalidParameter {
    /// A field of the command; `offset` as of [`ConnectCommand`].
    pub const fn of_command(offset: u16) -> Self {
        Self::new().with_ipo(offset)
    }

    /// A field of the data; `offset` as of [`ConnectData`].
    pub const fn of_data(offset: u16) -> Self {
        Self::new().with_ipo(offset).with_in_data(true)
    }
}

/// Property Get command, 64 bytes; the value comes in the result (Base 2.1, 6.5).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct PropertyGet {
    /// Opcode: 7Fh.
    pub opcode: u8,
    /// PSDT; reserved.
    pub flags: u8,
    /// Command Identifier.
    pub cid: U16,
    /// Fabrics Command Type: 04h.
    pub fctype: u8,
    /// Reserved.
    pub rsvd5: [u8; 35],
    /// Attributes: the size in bits 2:0, see [`property`].
    pub attrib: u8,
    /// Reserved.
    pub rsvd41: [u8; 3],
    /// Offset of the property.
    pub ofst: U32,
    /// Reserved.
    pub rsvd48: [u8; 16],
}
assert_layout!(PropertyGet, 64, fctype @ 4, attrib @ 40, ofst @ 44, rsvd48 @ 48);

impl PropertyGet {
    /// Reads the property at `ofst`; `size` is [`property::SIZE_4`] or [`property::SIZE_8`].
    pub fn new(ofst: u32, size: u8) -> Self {
        Self {
            opcode: FABRICS,
            flags: Sqe::PSDT_SGL,
            fctype: fctype::PROPERTY_GET,
            attrib: size,
            ofst: U32::new(ofst),
            ..Self::new_zeroed()
        }
    }
}

/// Property Set command, 64 bytes (Base 2.1, 6.6).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct PropertySet {
    /// Opcode: 7Fh.
    pub opcode: u8,
    /// PSDT; reserved.
    pub flags: u8,
    /// Command Identifier.
    pub cid: U16,
    /// Fabrics Command Type: 00h.
    pub fctype: u8,
    /// Reserved.
    pub rsvd5: [u8; 35],
    /// Attributes: the size in bits 2:0, see [`property`].
    pub attrib: u8,
    /// Reserved.
    pub rsvd41: [u8; 3],
    /// Offset of the property.
    pub ofst: U32,
    /// Value; a property of 4 bytes uses the lower half.
    pub value: U64,
    /// Reserved.
    pub rsvd56: [u8; 8],
}
assert_layout!(PropertySet, 64, fctype @ 4, attrib @ 40, ofst @ 44, value @ 48);

impl PropertySet {
    /// Writes the property of 4 bytes at `ofst`.
    pub fn new(ofst: u32, value: u32) -> Self {
        Self {
            opcode: FABRICS,
            flags: Sqe::PSDT_SGL,
            fctype: fctype::PROPERTY_SET,
            attrib: property::SIZE_4,
            ofst: U32::new(ofst),
            value: U64::new(u64::from(value)),
            ..Self::new_zeroed()
        }
    }
}

/// Disconnect command for one I/O Queue, 64 bytes (Base 2.1, 6.4).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct DisconnectCommand {
    /// Opcode: 7Fh.
    pub opcode: u8,
    /// PSDT; reserved.
    pub flags: u8,
    /// Command Identifier.
    pub cid: U16,
    /// Fabrics Command Type: 08h.
    pub fctype: u8,
    /// Reserved.
    pub rsvd5: [u8; 35],
    /// Record Format: 0.
    pub recfmt: U16,
    /// Reserved.
    pub rsvd42: [u8; 22],
}
assert_layout!(DisconnectCommand, 64, fctype @ 4, recfmt @ 40);

impl DisconnectCommand {
    /// A Disconnect of the queue it is sent on.
    pub fn new() -> Self {
        Self {
            opcode: FABRICS,
            flags: Sqe::PSDT_SGL,
            fctype: fctype::DISCONNECT,
            ..Self::new_zeroed()
        }
    }
}

impl Default for DisconnectCommand {
    fn default() -> Self {
        Self::new()
    }
}

macro_rules! sqe_views {
    ($($command:ty, $view:ident, $text:literal;)*) => {
        impl Sqe {
            $(
                #[doc = concat!("The same 64 bytes seen as a ", $text, " command.")]
                pub fn $view(&self) -> &$command {
                    transmute_ref!(self)
                }
            )*
        }

        $(
            impl From<$command> for Sqe {
                fn from(command: $command) -> Self {
                    transmute!(command)
                }
            }
        )*
    };
}

sqe_views! {
    ConnectCommand, as_connect, "Connect";
    PropertyGet, as_property_get, "Property Get";
    PropertySet, as_property_set, "Property Set";
    DisconnectCommand, as_disconnect, "Disconnect";
    AuthenticationCommand, as_authentication, "Authentication Send or Receive";
}
