//! Log pages and asynchronous events (NVMe Base 2.1, 5.1.12 and 5.1.2).

use bitfield_struct::bitfield;
use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::identify::{NamespaceList, text};
use super::nqn::{Nqn, NqnError};
use super::opcode;
use super::sqe::Sqe;
use super::status::Status;

/// Log Page Identifier (Base 2.1, 5.1.12.1).
pub mod lid {
    /// Supported Log Pages: [`LID_SUPPORTED_LEN`](super::LID_SUPPORTED_LEN) bytes that say for each
    /// identifier, whether it is supported.
    pub const SUPPORTED_LOG_PAGES: u8 = 0x00;
    /// Error Information: [`ErrorLogEntry`](super::ErrorLogEntry) list.
    pub const ERROR_INFORMATION: u8 = 0x01;
    /// SMART / Health Information: [`SmartLog`](super::SmartLog).
    pub const SMART: u8 = 0x02;
    /// Firmware Slot Information: [`FirmwareSlotLog`](super::FirmwareSlotLog).
    pub const FIRMWARE_SLOT: u8 = 0x03;
    /// Changed Attached Namespace List: [`ChangedNamespaceList`](super::ChangedNamespaceList).
    pub const CHANGED_NAMESPACE_LIST: u8 = 0x04;
    /// Commands Supported and Effects: [`CommandEffectsLog`](super::CommandEffectsLog).
    pub const COMMAND_EFFECTS: u8 = 0x05;
    /// Device Self-test.
    pub const DEVICE_SELF_TEST: u8 = 0x06;
    /// Telemetry Host-Initiated.
    pub const TELEMETRY_HOST: u8 = 0x07;
    /// Telemetry Controller-Initiated.
    pub const TELEMETRY_CONTROLLER: u8 = 0x08;
    /// Endurance Group Information.
    pub const ENDURANCE_GROUP: u8 = 0x09;
    /// Asymmetric Namespace Access: [`AnaLogHeader`](super::AnaLogHeader) and a list of
    /// [`AnaGroupDescriptor`](super::AnaGroupDescriptor).
    pub const ANA: u8 = 0x0C;
    /// Persistent Event Log.
    pub const PERSISTENT_EVENT: u8 = 0x0D;
    /// Feature Identifiers Supported and Effects.
    pub const FEATURE_EFFECTS: u8 = 0x12;
    /// Cross-Controller Reset: [`LogHeader`](crate::spec::cross_controller_reset::LogHeader) and a list of
    /// [`LogEntry`](crate::spec::cross_controller_reset::LogEntry).
    pub const CROSS_CONTROLLER_RESET: u8 = 0x1E;
    /// Discovery: [`DiscoveryLogHeader`](super::DiscoveryLogHeader) and a list of
    /// [`DiscoveryLogEntry`](super::DiscoveryLogEntry).
    pub const DISCOVERY: u8 = 0x70;
    /// Reservation Notification.
    pub const RESERVATION_NOTIFICATION: u8 = 0x80;
    /// Sanitize Status.
    pub const SANITIZE_STATUS: u8 = 0x81;
}

/// Length of the Supported Log Pages log in bytes.
pub const LID_SUPPORTED_LEN: usize = 1024;

/// What a Get Log Page command asks for (Base 2.1, 5.1.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetLogPage {
    /// Log Page Identifier, see [`lid`].
    pub lid: u8,
    /// Log Specific Parameter (7 bits).
    pub lsp: u8,
    /// Retain Asynchronous Event.
    pub rae: bool,
    /// Length in bytes: a multiple of 4, at least 4 and at most 2^34.
    pub len: u64,
    /// Offset into the log page in bytes (with `ot`: index of the entry).
    pub offset: u64,
    /// Offset Type: the offset is an index.
    pub ot: bool,
    /// Command Set Identifier.
    pub csi: u8,
}

/// Dword 10 of Get Log Page.
#[bitfield(u32)]
struct GetLogPageCdw10 {
    lid: u8,
    #[bits(7)]
    lsp: u8,
    rae: bool,
    numdl: u16,
}

/// Dword 14 of Get Log Page.
#[bitfield(u32)]
struct GetLogPageCdw14 {
    #[bits(7)]
    uuid_index: u8,
    #[bits(16)]
    __: u16,
    ot: bool,
    csi: u8,
}

impl GetLogPage {
    /// Asks for `len` bytes (a multiple of 4, not zero) of a log from `offset` on, and clears its
    /// event.
    pub const fn new(lid: u8, offset: u64, len: u32) -> Self {
        Self {
            lid,
            lsp: 0,
            rae: false,
            len: len as u64,
            offset,
            ot: false,
            csi: 0,
        }
    }

    /// Reads the fields of a command.
    pub const fn from_sqe(sqe: &Sqe) -> Self {
        let cdw10 = GetLogPageCdw10::from_bits(sqe.cdw10.get());
        let cdw14 = GetLogPageCdw14::from_bits(sqe.cdw14.get());
        // Number of Dwords, minus one: its lower half is in Dword 10, its upper half in Dword 11.
        let numd_z = cdw10.numdl() as u64 | ((sqe.cdw11.get() as u64 & 0xFFFF) << 16);
        Self {
            lid: cdw10.lid(),
            lsp: cdw10.lsp(),
            rae: cdw10.rae(),
            len: (numd_z + 1) * 4,
            offset: sqe.cdw12.get() as u64 | (sqe.cdw13.get() as u64) << 32,
            ot: cdw14.ot(),
            csi: cdw14.csi(),
        }
    }

    /// The command, for namespace `nsid`; its SGL has to be set by the caller.
    pub fn to_sqe(self, nsid: u32) -> Sqe {
        let numd_z = u32::try_from((self.len / 4).saturating_sub(1)).unwrap_or(u32::MAX);
        let [n0, n1, n2, n3] = numd_z.to_le_bytes();
        let [o0, o1, o2, o3, o4, o5, o6, o7] = self.offset.to_le_bytes();
        let mut sqe = Sqe::new(opcode::admin::GET_LOG_PAGE, nsid);
        sqe.cdw10 = U32::new(
            GetLogPageCdw10::new()
                .with_lid(self.lid)
                .with_lsp(self.lsp & 0x7F)
                .with_rae(self.rae)
                .with_numdl(u16::from_le_bytes([n0, n1]))
                .into_bits(),
        );
        sqe.cdw11 = U32::from_bytes([n2, n3, 0, 0]);
        sqe.cdw12 = U32::from_bytes([o0, o1, o2, o3]);
        sqe.cdw13 = U32::from_bytes([o4, o5, o6, o7]);
        sqe.cdw14 = U32::new(
            GetLogPageCdw14::new()
                .with_ot(self.ot)
                .with_csi(self.csi)
                .into_bits(),
        );
        sqe
    }
}

/// Result of an Asynchronous Event Request: dword 0 (Base 2.1, 5.1.2).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct AsyncEvent {
    /// Asynchronous Event Type, see [`event`].
    #[bits(3)]
    pub event_type: u8,
    #[bits(5)]
    __: u8,
    /// Asynchronous Event Information, its meaning depends on the type.
    pub info: u8,
    /// Log Page Identifier of the log that is to be read to allow further events of this type.
    pub lid: u8,
    __: u8,
}

impl AsyncEvent {
    /// A namespace was attached, detached or changed.
    pub const NAMESPACE_ATTRIBUTE_CHANGED: Self =
        Self::notice(event::NOTICE_NAMESPACE, lid::CHANGED_NAMESPACE_LIST);
    /// The reliability of the NVM subsystem is degraded.
    pub const RELIABILITY_DEGRADED: Self = Self::new()
        .with_event_type(event::TYPE_SMART)
        .with_info(event::SMART_RELIABILITY)
        .with_lid(lid::SMART);
    /// An ANA state changed.
    pub const ANA_CHANGE: Self = Self::notice(event::NOTICE_ANA, lid::ANA);
    /// The Discovery log changed.
    pub const DISCOVERY_CHANGE: Self = Self::notice(event::NOTICE_DISCOVERY, lid::DISCOVERY);
    /// A Cross-Controller Reset has ended.
    pub const CROSS_CONTROLLER_RESET_COMPLETED: Self = Self::notice(
        event::NOTICE_CROSS_CONTROLLER_RESET,
        lid::CROSS_CONTROLLER_RESET,
    );

    const fn notice(info: u8, lid: u8) -> Self {
        Self::new()
            .with_event_type(event::TYPE_NOTICE)
            .with_info(info)
            .with_lid(lid)
    }
}

/// Codes of asynchronous events (Base 2.1, 5.1.2) and the bits that enable them: those of OAES and
/// of the Asynchronous Event Configuration feature (5.1.25).
pub mod event {
    /// Type: error status.
    pub const TYPE_ERROR: u8 = 0b000;
    /// Type: SMART / health status.
    pub const TYPE_SMART: u8 = 0b001;
    /// Type: notice.
    pub const TYPE_NOTICE: u8 = 0b010;
    /// Type: immediate.
    pub const TYPE_IMMEDIATE: u8 = 0b011;
    /// Type: I/O command specific status.
    pub const TYPE_IO_COMMAND: u8 = 0b110;
    /// Type: vendor specific.
    pub const TYPE_VENDOR: u8 = 0b111;
    /// Notice: namespace attribute changed.
    pub const NOTICE_NAMESPACE: u8 = 0x00;
    /// Notice: firmware activation starting.
    pub const NOTICE_FIRMWARE_ACTIVATION: u8 = 0x01;
    /// Notice: ANA change.
    pub const NOTICE_ANA: u8 = 0x03;
    /// Notice: Discovery log changed.
    pub const NOTICE_DISCOVERY: u8 = 0xF0;
    /// Notice: Cross-Controller Reset completed (Base 2.3, 5.2.2.1).
    pub const NOTICE_CROSS_CONTROLLER_RESET: u8 = 0xF4;
    /// SMART / health status: the reliability of the NVM subsystem is degraded.
    pub const SMART_RELIABILITY: u8 = 0x00;
    /// Enable bits 7:0: SMART critical warnings.
    pub const ENABLE_SMART: u32 = 0xFF;
    /// Enable: critical warning that the reliability is degraded.
    pub const ENABLE_SMART_RELIABILITY: u32 = 1 << 2;
    /// Enable: namespace attribute notices.
    pub const ENABLE_NAMESPACE: u32 = 1 << 8;
    /// Enable: firmware activation notices.
    pub const ENABLE_FIRMWARE_ACTIVATION: u32 = 1 << 9;
    /// Enable: ANA change notices.
    pub const ENABLE_ANA: u32 = 1 << 11;
    /// Enable: Cross-Controller Reset completed notices (Base 2.3).
    pub const ENABLE_CROSS_CONTROLLER_RESET: u32 = 1 << 20;
    /// Enable: Discovery log change notices.
    pub const ENABLE_DISCOVERY: u32 = 1 << 31;
}

open_code! {
    /// ANA State of a group on one controller (Base 2.1, 8.1.1.4 to 8.1.1.8).
    #[derive(Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
    AnaState(u8) {
        /// ANA Optimized.
        OPTIMIZED = 0x1, "optimized";
        /// ANA Non-Optimized.
        NON_OPTIMIZED = 0x2, "non_optimized";
        /// ANA Inaccessible.
        INACCESSIBLE = 0x3, "inaccessible";
        /// ANA Persistent Loss.
        PERSISTENT_LOSS = 0x4, "persistent_loss";
        /// ANA Change: the state is changing.
        CHANGE = 0xF, "change";
    }
}

impl AnaState {
    /// I/O commands are processed in this state.
    pub const fn is_accessible(self) -> bool {
        matches!(self, Self::OPTIMIZED | Self::NON_OPTIMIZED)
    }

    /// A state that the group is meant to leave within ANATT (Base 2.1, 8.1.1).
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::INACCESSIBLE | Self::CHANGE)
    }

    /// The worse of two: what is reached through both is no better than either. I/O is processed in the better states, and
    /// of the others those are better that the group is meant to leave.
    #[must_use]
    pub const fn worse(self, other: Self) -> Self {
        if self.rank() < other.rank() {
            return other;
        }
        self
    }

    const fn rank(self) -> u8 {
        match self {
            Self::OPTIMIZED => 0,
            Self::NON_OPTIMIZED => 1,
            Self::CHANGE => 2,
            Self::INACCESSIBLE => 3,
            _ => 4,
        }
    }

    /// The status of an I/O command that the state forbids; None in a state in which I/O is
    /// processed.
    pub const fn refusal(self) -> Option<Status> {
        match self {
            Self::INACCESSIBLE => Some(Status::ASYMMETRIC_ACCESS_INACCESSIBLE),
            Self::PERSISTENT_LOSS => Some(Status::ASYMMETRIC_ACCESS_PERSISTENT_LOSS),
            Self::CHANGE => Some(Status::ASYMMETRIC_ACCESS_TRANSITION),
            _ => None,
        }
    }
}

/// The text is not the name of an ANA state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "ANA state must be one of: optimized, non_optimized, inaccessible, persistent_loss, change"
)]
pub struct AnaStateError;

impl std::str::FromStr for AnaState {
    type Err = AnaStateError;

    /// Reads the names that `Display` writes, with `-` for `_` as well.
    fn from_str(text: &str) -> Result<Self, AnaStateError> {
        Ok(match text {
            "optimized" => Self::OPTIMIZED,
            "non-optimized" | "non_optimized" => Self::NON_OPTIMIZED,
            "inaccessible" => Self::INACCESSIBLE,
            "persistent-loss" | "persistent_loss" => Self::PERSISTENT_LOSS,
            "change" => Self::CHANGE,
            _ => return Err(AnaStateError),
        })
    }
}

/// Header of the ANA log, 16 bytes (Base 2.1, 5.1.12.1.13). [`AnaGroupDescriptor`]s follow.
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
pub struct AnaLogHeader {
    /// Change Count of the log.
    pub chgcnt: U64,
    /// Number of ANA Group Descriptors.
    pub ngrps: U16,
    /// Reserved.
    pub rsvd10: [u8; 6],
}
assert_layout!(AnaLogHeader, 16, ngrps @ 8);

impl AnaLogHeader {
    /// Log Specific Parameter bit 0, Return Groups Only: descriptors without their NSIDs.
    pub const LSP_RGO: u8 = 1 << 0;
}

/// ANA Group Descriptor, 32 bytes (Base 2.1, 5.1.12.1.13). `nnv` NSIDs of 4 bytes follow,
/// ascending.
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
pub struct AnaGroupDescriptor {
    /// ANA Group ID.
    pub agid: U32,
    /// Number of NSID Values; 0 with Return Groups Only.
    pub nnv: U32,
    /// Change Count of this group.
    pub chgcnt: U64,
    /// ANA State in bits 3:0; see [`AnaGroupDescriptor::state`].
    pub anas: u8,
    /// Reserved.
    pub rsvd17: [u8; 15],
}
assert_layout!(AnaGroupDescriptor, 32, agid @ 0, nnv @ 4, chgcnt @ 8, anas @ 16);

impl AnaGroupDescriptor {
    /// A descriptor of group `agid`.
    pub fn new(agid: u32, nnv: u32, chgcnt: u64, state: AnaState) -> Self {
        Self {
            agid: U32::new(agid),
            nnv: U32::new(nnv),
            chgcnt: U64::new(chgcnt),
            anas: state.0,
            rsvd17: [0; 15],
        }
    }

    /// The group's ANA state, without the reserved bits.
    pub const fn state(&self) -> AnaState {
        AnaState(self.anas & 0x0F)
    }
}

/// The Changed Attached Namespace List log, 4,096 bytes (Base 2.1, 5.1.12.1.5): the NSIDs that
/// changed since it was last read; a first entry of [`NSID_ALL`](super::sqe::NSID_ALL) when there
/// were more than 1,024.
pub type ChangedNamespaceList = NamespaceList;

/// SMART / Health Information log, 512 bytes (Base 2.1, 5.1.12.1.3).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct SmartLog {
    /// Critical Warning.
    pub critical_warning: u8,
    /// Composite Temperature in kelvins. At offset 1, so not aligned.
    pub composite_temperature: U16,
    /// Available Spare in percent.
    pub available_spare: u8,
    /// Available Spare Threshold in percent.
    pub available_spare_threshold: u8,
    /// Percentage Used.
    pub percentage_used: u8,
    /// Endurance Group Critical Warning Summary.
    pub endurance_group_critical_warning: u8,
    /// Reserved.
    pub rsvd7: [u8; 25],
    /// Data Units Read: thousands of 512 bytes, rounded up.
    pub data_units_read: U128,
    /// Data Units Written: thousands of 512 bytes, rounded up.
    pub data_units_written: U128,
    /// Host Read Commands.
    pub host_read_commands: U128,
    /// Host Write Commands.
    pub host_write_commands: U128,
    /// Controller Busy Time in minutes.
    pub controller_busy_time: U128,
    /// Power Cycles.
    pub power_cycles: U128,
    /// Power On Hours.
    pub power_on_hours: U128,
    /// Unsafe Shutdowns.
    pub unsafe_shutdowns: U128,
    /// Media and Data Integrity Errors.
    pub media_errors: U128,
    /// Number of Error Information Log Entries.
    pub error_log_entries: U128,
    /// Warning Composite Temperature Time in minutes.
    pub warning_temperature_time: U32,
    /// Critical Composite Temperature Time in minutes.
    pub critical_temperature_time: U32,
    /// Temperature Sensors 1 to 8 in kelvins; 0 is no sensor.
    pub temperature_sensors: [U16; 8],
    /// Not used here.
    pub rsvd216: [u8; 296],
}
assert_layout!(
    SmartLog, 512,
    composite_temperature @ 1, available_spare @ 3, data_units_read @ 32, host_read_commands @ 64,
    power_on_hours @ 128,
    error_log_entries @ 176, warning_temperature_time @ 192, temperature_sensors @ 200, rsvd216 @
    216,
);

/// Entry of the Error Information log, 64 bytes (Base 2.1, 5.1.12.1.2).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct ErrorLogEntry {
    /// Error Count: a running number from 1; 0 is an unused entry.
    pub error_count: U64,
    /// Submission Queue ID.
    pub sqid: U16,
    /// Command ID.
    pub cid: U16,
    /// Status word of the completion, with phase tag.
    pub status: U16,
    /// Parameter Error Location: byte in bits 7:0, bit in 10:8.
    pub parameter_error_location: U16,
    /// LBA.
    pub lba: U64,
    /// Namespace.
    pub nsid: U32,
    /// Vendor Specific Information Available.
    pub vendor_specific: u8,
    /// Transport Type, as in [`DiscoveryLogEntry::trtype`].
    pub trtype: u8,
    /// Command Set Indicator.
    pub csi: u8,
    /// Opcode.
    pub opc: u8,
    /// Command Specific Information.
    pub command_specific: U64,
    /// Transport Type Specific Information.
    pub transport_specific: U16,
    /// Reserved.
    pub rsvd42: [u8; 21],
    /// Log Page Version.
    pub version: u8,
}
assert_layout!(
    ErrorLogEntry, 64,
    sqid @ 8, cid @ 10, status @ 12, parameter_error_location @ 14, lba @ 16, nsid @ 24, trtype @
    29, opc @ 31,
    command_specific @ 32, transport_specific @ 40, version @ 63,
);

/// Firmware Slot Information log, 512 bytes (Base 2.1, 5.1.12.1.4).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct FirmwareSlotLog {
    /// Active Firmware Info: the active slot in bits 2:0, the next one in bits 6:4.
    pub afi: u8,
    /// Reserved.
    pub rsvd1: [u8; 7],
    /// Firmware Revisions of slots 1 to 7, ASCII; zeroes for an empty slot.
    pub frs: [[u8; 8]; 7],
    /// Reserved.
    pub rsvd64: [u8; 448],
}
assert_layout!(FirmwareSlotLog, 512, frs @ 8, rsvd64 @ 64);

/// Commands Supported and Effects log, 4,096 bytes (Base 2.1, 5.1.12.1.6). Entries are made of
/// [`effects`].
#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct CommandEffectsLog {
    /// Admin Commands, by opcode.
    pub acs: [U32; 256],
    /// I/O Commands, by opcode.
    pub iocs: [U32; 256],
    /// Reserved.
    pub rsvd2048: [u8; 2048],
}
assert_layout!(CommandEffectsLog, 4096, iocs @ 1024, rsvd2048 @ 2048);

/// Bits of the entries of [`CommandEffectsLog`].
pub mod effects {
    /// Command Supported.
    pub const CSUPP: u32 = 1 << 0;
    /// Logical Block Content Change.
    pub const LBCC: u32 = 1 << 1;
    /// Namespace Capability Change.
    pub const NCC: u32 = 1 << 2;
    /// Namespace Inventory Change.
    pub const NIC: u32 = 1 << 3;
    /// Controller Capability Change.
    pub const CCC: u32 = 1 << 4;
}

/// Header of the Discovery log, 1,024 bytes (Base 2.1, 5.1.12.3.1). [`DiscoveryLogEntry`]s follow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct DiscoveryLogHeader {
    /// Generation Counter: changes with the log.
    pub genctr: U64,
    /// Number of Records.
    pub numrec: U64,
    /// Record Format: 0.
    pub recfmt: U16,
    /// Not used here.
    pub rsvd18: [u8; 1006],
}
assert_layout!(DiscoveryLogHeader, 1024, numrec @ 8, recfmt @ 16);

/// Entry of the Discovery log, 1,024 bytes (Base 2.1, 5.1.12.3.1).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct DiscoveryLogEntry {
    /// Transport Type, see [`discovery`].
    pub trtype: u8,
    /// Address Family, see [`discovery`].
    pub adrfam: u8,
    /// Subsystem Type, see [`discovery`].
    pub subtype: u8,
    /// Transport Requirements: secure channel in bits 1:0, SQ flow control may be disabled in bit
    /// 2.
    pub treq: u8,
    /// Port ID.
    pub portid: U16,
    /// Controller ID: FFFFh for the dynamic controller model.
    pub cntlid: U16,
    /// Admin Max SQ Size in entries.
    pub asqsz: U16,
    /// Entry Flags, see [`discovery`].
    pub eflags: U16,
    /// Reserved.
    pub rsvd12: [u8; 20],
    /// Transport Service Identifier (the TCP port in decimal), ASCII padded with spaces.
    pub trsvcid: [u8; 32],
    /// Reserved.
    pub rsvd64: [u8; 192],
    /// NVM Subsystem Qualified Name, padded with zeroes.
    pub subnqn: [u8; 256],
    /// Transport Address, ASCII padded with spaces.
    pub traddr: [u8; 256],
    /// Transport Specific Address Subtype; for TCP its first byte is the security type (0: none).
    pub tsas: [u8; 256],
}
assert_layout!(
    DiscoveryLogEntry, 1024,
    portid @ 4, cntlid @ 6, asqsz @ 8, eflags @ 10, trsvcid @ 32, subnqn @ 256, traddr @ 512, tsas @
    768,
);

impl DiscoveryLogEntry {
    /// TRADDR without the padding.
    pub fn traddr_text(&self) -> String {
        text(&self.traddr)
    }

    /// TRSVCID without the padding.
    pub fn trsvcid_text(&self) -> String {
        text(&self.trsvcid)
    }

    /// SUBNQN as a checked name.
    ///
    /// # Errors
    /// The field does not hold an NQN.
    pub fn subnqn(&self) -> Result<Nqn, NqnError> {
        Nqn::from_field(&self.subnqn)
    }
}

/// Codes of the Discovery log (Base 2.1, 5.1.12.3.1).
pub mod discovery {
    /// TRTYPE: RDMA.
    pub const TRTYPE_RDMA: u8 = 1;
    /// TRTYPE: Fibre Channel.
    pub const TRTYPE_FC: u8 = 2;
    /// TRTYPE: TCP.
    pub const TRTYPE_TCP: u8 = 3;
    /// ADRFAM: IPv4.
    pub const ADRFAM_IPV4: u8 = 1;
    /// ADRFAM: IPv6.
    pub const ADRFAM_IPV6: u8 = 2;
    /// SUBTYPE: referral to another discovery service.
    pub const SUBTYPE_REFERRAL: u8 = 1;
    /// SUBTYPE: NVM subsystem with I/O controllers.
    pub const SUBTYPE_NVM: u8 = 2;
    /// SUBTYPE: the discovery subsystem that was asked.
    pub const SUBTYPE_CURRENT: u8 = 3;
    /// TREQ bits 1:0: a secure channel is required.
    pub const TREQ_SECURE_REQUIRED: u8 = 0b01;
    /// TREQ bits 1:0: a secure channel is not required.
    pub const TREQ_SECURE_NOT_REQUIRED: u8 = 0b10;
    /// First byte of TSAS for TCP, SECTYPE: TLS 1.3 (NVMe/TCP 1.1, 3.1.1).
    pub const SECTYPE_TLS13: u8 = 2;
    /// TREQ: SQ flow control may be disabled.
    pub const TREQ_SQ_FLOW_CONTROL_OPTIONAL: u8 = 1 << 2;
    /// EFLAGS: other entries of this NVM subsystem lead to the same information.
    pub const EFLAGS_DUPRETINFO: u16 = 1 << 0;
    /// EFLAGS: explicit persistent connections to this discovery controller are supported.
    pub const EFLAGS_EPCSD: u16 = 1 << 1;
}
