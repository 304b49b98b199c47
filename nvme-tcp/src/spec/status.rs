//! The status field of a completion (NVMe Base 2.1, 4.2.3).

use std::fmt;

use zerocopy::little_endian::U16;

/// Status Code Type (Base 2.1, 4.2.3).
pub mod sct {
    /// Generic Command Status.
    pub const GENERIC: u8 = 0;
    /// Command Specific Status.
    pub const COMMAND_SPECIFIC: u8 = 1;
    /// Media and Data Integrity Errors.
    pub const MEDIA: u8 = 2;
    /// Path Related Status.
    pub const PATH: u8 = 3;
    /// Vendor Specific.
    pub const VENDOR: u8 = 7;
}

/// The 15-bit status field: SC in bits 7:0, SCT in 10:8, CRD in 12:11, More in 13, DNR in 14.
///
/// Equality compares all 15 bits; to compare only what went wrong, use [`Status::code`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Status(u16);

const SCT_SHIFT: u32 = 8;
const CODE_MASK: u16 = 0x07FF;
const CRD_SHIFT: u32 = 11;
const CRD_MASK: u16 = 0x1800;
const MORE: u16 = 0x2000;
const DNR: u16 = 0x4000;
const FIELD_MASK: u16 = 0x7FFF;

impl Status {
    /// A status with this Status Code Type (0 to 7) and Status Code; CRD, More and DNR are zero.
    pub const fn new(sct: u8, sc: u8) -> Self {
        Self(((sct as u16 & 0x7) << SCT_SHIFT) | sc as u16)
    }

    /// From the status word of a completion: the phase tag in bit 0 is dropped.
    pub const fn from_cqe(word: U16) -> Self {
        Self(word.get() >> 1)
    }

    /// The status word of a completion, with a phase tag of zero.
    pub const fn to_cqe(self) -> U16 {
        U16::new(self.0 << 1)
    }

    /// From the 15 bits of the field itself; bit 15 is ignored.
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits & FIELD_MASK)
    }

    /// The 15 bits of the field.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Status Code Type.
    pub const fn sct(self) -> u8 {
        self.code_bytes()[1]
    }

    /// Status Code.
    pub const fn sc(self) -> u8 {
        self.code_bytes()[0]
    }

    /// SC, then SCT.
    const fn code_bytes(self) -> [u8; 2] {
        (self.0 & CODE_MASK).to_le_bytes()
    }

    /// The status reduced to SCT and SC, for comparison with the constants.
    pub const fn code(self) -> Self {
        Self(self.0 & CODE_MASK)
    }

    /// Command Retry Delay: 0 for at once, else the index (1 to 3) of the controller's CRDT1 to
    /// CRDT3.
    pub const fn crd(self) -> u8 {
        ((self.0 & CRD_MASK) >> CRD_SHIFT).to_le_bytes()[0]
    }

    /// More: the Error Information log has more about this command.
    pub const fn more(self) -> bool {
        self.0 & MORE != 0
    }

    /// Do Not Retry: the same command would fail again, on this controller.
    pub const fn dnr(self) -> bool {
        self.0 & DNR != 0
    }

    /// The same status with Do Not Retry set.
    #[must_use]
    pub const fn with_dnr(self) -> Self {
        Self(self.0 | DNR)
    }

    /// The same status with More set.
    #[must_use]
    pub const fn with_more(self) -> Self {
        Self(self.0 | MORE)
    }

    /// The same status with Command Retry Delay `crd` (0 to 3).
    #[must_use]
    pub const fn with_crd(self, crd: u8) -> Self {
        Self((self.0 & !CRD_MASK) | ((crd as u16) << CRD_SHIFT & CRD_MASK))
    }

    /// SCT and SC are zero.
    pub const fn is_success(self) -> bool {
        self.0 & CODE_MASK == 0
    }

    /// Refused because of the namespace's ANA state on this controller (SCT 3, SC 1 to 3; Base 2.1,
    /// 8.1.1).
    pub const fn is_ana(self) -> bool {
        self.sct() == sct::PATH && matches!(self.sc(), 0x01..=0x03)
    }

    /// Path Related Status (SCT 3): the command may do better on another path.
    pub const fn is_path_related(self) -> bool {
        self.sct() == sct::PATH
    }

    /// An error that may pass: the same command may succeed a little later on the same controller (rule B9.5).
    ///
    /// That is every error without Do Not Retry but those which say that the command or its content
    /// is not known: some controllers leave the bit out there.
    pub const fn is_transient(self) -> bool {
        !self.is_success()
            && !self.dnr()
            && !matches!(
                self.code(),
                Self::INVALID_OPCODE
                    | Self::INVALID_FIELD
                    | Self::INVALID_NAMESPACE
                    | Self::INVALID_LOG_PAGE
                    | Self::AER_LIMIT_EXCEEDED
            )
    }

    /// The specification's name, where SCT and SC have one.
    ///
    /// SCT 1, SC 80h to 83h are used twice, by Fabrics commands and by I/O commands; both names are
    /// given.
    pub const fn name(self) -> Option<&'static str> {
        name(self.code())
    }
}

macro_rules! statuses {
    ($( $(#[$doc:meta])* $konst:ident = ($sct:expr, $sc:expr), $text:literal; )*) => {
        impl Status {
            $(
                #[doc = concat!($text, ".")]
                $(#[$doc])*
                pub const $konst: Self = Self::new($sct, $sc);
            )*
        }

        const fn name(code: Status) -> Option<&'static str> {
            #[deny(unreachable_patterns)]
            match code {
                $( Status::$konst => Some($text), )*
                _ => None,
            }
        }
    };
}

impl Status {
    /// Command Size Limit Exceeded: what that code means for I/O commands.
    pub const COMMAND_SIZE_LIMIT_EXCEEDED: Self = Self::CONNECT_RESTART_DISCOVERY;
}

statuses! {
    SUCCESS = (0, 0x00), "Successful Completion";
    INVALID_OPCODE = (0, 0x01), "Invalid Command Opcode";
    INVALID_FIELD = (0, 0x02), "Invalid Field in Command";
    COMMAND_ID_CONFLICT = (0, 0x03), "Command ID Conflict";
    DATA_TRANSFER_ERROR = (0, 0x04), "Data Transfer Error";
    ABORTED_POWER_LOSS = (0, 0x05), "Commands Aborted due to Power Loss Notification";
    INTERNAL_ERROR = (0, 0x06), "Internal Error";
    ABORTED_BY_REQUEST = (0, 0x07), "Command Abort Requested";
    ABORTED_SQ_DELETION = (0, 0x08), "Command Aborted due to SQ Deletion";
    ABORTED_FAILED_FUSED = (0, 0x09), "Command Aborted due to Failed Fused Command";
    ABORTED_MISSING_FUSED = (0, 0x0A), "Command Aborted due to Missing Fused Command";
    INVALID_NAMESPACE = (0, 0x0B), "Invalid Namespace or Format";
    COMMAND_SEQUENCE_ERROR = (0, 0x0C), "Command Sequence Error";
    INVALID_SGL_SEGMENT_DESCRIPTOR = (0, 0x0D), "Invalid SGL Segment Descriptor";
    INVALID_NUMBER_OF_SGL_DESCRIPTORS = (0, 0x0E), "Invalid Number of SGL Descriptors";
    DATA_SGL_LENGTH_INVALID = (0, 0x0F), "Data SGL Length Invalid";
    METADATA_SGL_LENGTH_INVALID = (0, 0x10), "Metadata SGL Length Invalid";
    SGL_DESCRIPTOR_TYPE_INVALID = (0, 0x11), "SGL Descriptor Type Invalid";
    INVALID_USE_OF_CMB = (0, 0x12), "Invalid Use of Controller Memory Buffer";
    PRP_OFFSET_INVALID = (0, 0x13), "PRP Offset Invalid";
    ATOMIC_WRITE_UNIT_EXCEEDED = (0, 0x14), "Atomic Write Unit Exceeded";
    OPERATION_DENIED = (0, 0x15), "Operation Denied";
    SGL_OFFSET_INVALID = (0, 0x16), "SGL Offset Invalid";
    HOST_ID_INCONSISTENT_FORMAT = (0, 0x18), "Host Identifier Inconsistent Format";
    KEEP_ALIVE_TIMER_EXPIRED = (0, 0x19), "Keep Alive Timer Expired";
    KEEP_ALIVE_TIMEOUT_INVALID = (0, 0x1A), "Keep Alive Timeout Invalid";
    ABORTED_PREEMPT = (0, 0x1B), "Command Aborted due to Preempt and Abort";
    SANITIZE_FAILED = (0, 0x1C), "Sanitize Failed";
    SANITIZE_IN_PROGRESS = (0, 0x1D), "Sanitize In Progress";
    SGL_GRANULARITY_INVALID = (0, 0x1E), "SGL Data Block Granularity Invalid";
    NOT_SUPPORTED_IN_CMB = (0, 0x1F), "Command Not Supported for Queue in CMB";
    NAMESPACE_WRITE_PROTECTED = (0, 0x20), "Namespace is Write Protected";
    COMMAND_INTERRUPTED = (0, 0x21), "Command Interrupted";
    TRANSIENT_TRANSPORT_ERROR = (0, 0x22), "Transient Transport Error";
    COMMAND_PROHIBITED_BY_LOCKDOWN = (0, 0x23), "Command Prohibited by Command and Feature Lockdown";
    ADMIN_COMMAND_MEDIA_NOT_READY = (0, 0x24), "Admin Command Media Not Ready";
    LBA_OUT_OF_RANGE = (0, 0x80), "LBA Out of Range";
    CAPACITY_EXCEEDED = (0, 0x81), "Capacity Exceeded";
    NAMESPACE_NOT_READY = (0, 0x82), "Namespace Not Ready";
    RESERVATION_CONFLICT = (0, 0x83), "Reservation Conflict";
    FORMAT_IN_PROGRESS = (0, 0x84), "Format In Progress";

    COMPLETION_QUEUE_INVALID = (1, 0x00), "Completion Queue Invalid";
    INVALID_QUEUE_IDENTIFIER = (1, 0x01), "Invalid Queue Identifier";
    INVALID_QUEUE_SIZE = (1, 0x02), "Invalid Queue Size";
    ABORT_LIMIT_EXCEEDED = (1, 0x03), "Abort Command Limit Exceeded";
    AER_LIMIT_EXCEEDED = (1, 0x05), "Asynchronous Event Request Limit Exceeded";
    INVALID_FIRMWARE_SLOT = (1, 0x06), "Invalid Firmware Slot";
    INVALID_FIRMWARE_IMAGE = (1, 0x07), "Invalid Firmware Image";
    INVALID_INTERRUPT_VECTOR = (1, 0x08), "Invalid Interrupt Vector";
    INVALID_LOG_PAGE = (1, 0x09), "Invalid Log Page";
    INVALID_FORMAT = (1, 0x0A), "Invalid Format";
    INVALID_QUEUE_DELETION = (1, 0x0C), "Invalid Queue Deletion";
    FEATURE_NOT_SAVEABLE = (1, 0x0D), "Feature Identifier Not Saveable";
    FEATURE_NOT_CHANGEABLE = (1, 0x0E), "Feature Not Changeable";
    FEATURE_NOT_NAMESPACE_SPECIFIC = (1, 0x0F), "Feature Not Namespace Specific";
    OVERLAPPING_RANGE = (1, 0x14), "Overlapping Range";
    NAMESPACE_INSUFFICIENT_CAPACITY = (1, 0x15), "Namespace Insufficient Capacity";
    NAMESPACE_ID_UNAVAILABLE = (1, 0x16), "Namespace Identifier Unavailable";
    NAMESPACE_ALREADY_ATTACHED = (1, 0x18), "Namespace Already Attached";
    NAMESPACE_IS_PRIVATE = (1, 0x19), "Namespace Is Private";
    NAMESPACE_NOT_ATTACHED = (1, 0x1A), "Namespace Not Attached";
    CONTROLLER_LIST_INVALID = (1, 0x1C), "Controller List Invalid";
    INVALID_CONTROLLER_ID = (1, 0x1F), "Invalid Controller Identifier";
    ANA_GROUP_ID_INVALID = (1, 0x24), "ANA Group Identifier Invalid";
    ANA_ATTACH_FAILED = (1, 0x25), "ANA Attach Failed";
    IO_COMMAND_SET_NOT_SUPPORTED = (1, 0x29), "I/O Command Set Not Supported";
    IO_COMMAND_SET_NOT_ENABLED = (1, 0x2A), "I/O Command Set Not Enabled";
    IO_COMMAND_SET_COMBINATION_REJECTED = (1, 0x2B), "I/O Command Set Combination Rejected";
    INVALID_IO_COMMAND_SET = (1, 0x2C), "Invalid I/O Command Set";
    CROSS_CONTROLLER_RESET_IN_PROGRESS = (1, 0x3F), "Cross-Controller Reset in Progress";
    CROSS_CONTROLLER_RESET_LOG_FULL = (1, 0x40), "Cross-Controller Reset Log Page Full";
    CROSS_CONTROLLER_RESET_LIMIT_EXCEEDED = (1, 0x41), "Cross-Controller Reset Limit Exceeded";
    /// For I/O commands the same code means Conflicting Attributes.
    CONNECT_INCOMPATIBLE_FORMAT = (1, 0x80), "Connect Incompatible Format or Conflicting Attributes";
    /// For I/O commands the same code means Invalid Protection Information.
    CONNECT_CONTROLLER_BUSY = (1, 0x81), "Connect Controller Busy or Invalid Protection Information";
    /// For I/O commands the same code means Attempted Write to Read Only Range.
    CONNECT_INVALID_PARAMETERS = (1, 0x82), "Connect Invalid Parameters or Attempted Write to Read Only Range";
    /// For I/O commands the same code means Command Size Limit Exceeded.
    CONNECT_RESTART_DISCOVERY = (1, 0x83), "Connect Restart Discovery or Command Size Limit Exceeded";
    CONNECT_INVALID_HOST = (1, 0x84), "Connect Invalid Host";
    INVALID_QUEUE_TYPE = (1, 0x85), "Invalid Queue Type";
    DISCOVER_RESTART = (1, 0x90), "Discover Restart";
    AUTHENTICATION_REQUIRED = (1, 0x91), "Authentication Required";

    WRITE_FAULT = (2, 0x80), "Write Fault";
    UNRECOVERED_READ_ERROR = (2, 0x81), "Unrecovered Read Error";
    GUARD_CHECK_ERROR = (2, 0x82), "End-to-end Guard Check Error";
    APPLICATION_TAG_CHECK_ERROR = (2, 0x83), "End-to-end Application Tag Check Error";
    REFERENCE_TAG_CHECK_ERROR = (2, 0x84), "End-to-end Reference Tag Check Error";
    COMPARE_FAILURE = (2, 0x85), "Compare Failure";
    ACCESS_DENIED = (2, 0x86), "Access Denied";
    DEALLOCATED_BLOCK = (2, 0x87), "Deallocated or Unwritten Logical Block";
    STORAGE_TAG_CHECK_ERROR = (2, 0x88), "End-to-End Storage Tag Check Error";

    INTERNAL_PATH_ERROR = (3, 0x00), "Internal Path Error";
    ASYMMETRIC_ACCESS_PERSISTENT_LOSS = (3, 0x01), "Asymmetric Access Persistent Loss";
    ASYMMETRIC_ACCESS_INACCESSIBLE = (3, 0x02), "Asymmetric Access Inaccessible";
    ASYMMETRIC_ACCESS_TRANSITION = (3, 0x03), "Asymmetric Access Transition";
    CONTROLLER_PATHING_ERROR = (3, 0x60), "Controller Pathing Error";
    HOST_PATHING_ERROR = (3, 0x70), "Host Pathing Error";
    ABORTED_BY_HOST = (3, 0x71), "Command Aborted By Host";
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name)?,
            None => write!(f, "unknown status")?,
        }
        write!(f, " (SCT {:X}h, SC {:02X}h", self.sct(), self.sc())?;
        if self.crd() != 0 {
            write!(f, ", CRD {}", self.crd())?;
        }
        if self.more() {
            f.write_str(", More")?;
        }
        if self.dnr() {
            f.write_str(", DNR")?;
        }
        f.write_str(")")
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Status({self})")
    }
}
