//! Features: identifiers and values (NVMe Base 2.1, 5.1.25; Get Features: 5.1.11).

use bitfield_struct::bitfield;

/// Feature Identifier (Base 2.1, 5.1.25).
pub mod fid {
    /// Arbitration.
    pub const ARBITRATION: u8 = 0x01;
    /// Power Management.
    pub const POWER_MANAGEMENT: u8 = 0x02;
    /// Temperature Threshold.
    pub const TEMPERATURE_THRESHOLD: u8 = 0x04;
    /// Error Recovery.
    pub const ERROR_RECOVERY: u8 = 0x05;
    /// Volatile Write Cache.
    pub const VOLATILE_WRITE_CACHE: u8 = 0x06;
    /// Number of Queues.
    pub const NUMBER_OF_QUEUES: u8 = 0x07;
    /// Interrupt Coalescing.
    pub const INTERRUPT_COALESCING: u8 = 0x08;
    /// Interrupt Vector Configuration.
    pub const INTERRUPT_VECTOR_CONFIGURATION: u8 = 0x09;
    /// Write Atomicity Normal.
    pub const WRITE_ATOMICITY_NORMAL: u8 = 0x0A;
    /// Asynchronous Event Configuration; its bits are those of [`crate::spec::log::event`].
    pub const ASYNC_EVENT_CONFIG: u8 = 0x0B;
    /// Autonomous Power State Transition.
    pub const AUTONOMOUS_POWER_STATE_TRANSITION: u8 = 0x0C;
    /// Host Memory Buffer.
    pub const HOST_MEMORY_BUFFER: u8 = 0x0D;
    /// Timestamp.
    pub const TIMESTAMP: u8 = 0x0E;
    /// Keep Alive Timer: the timeout in milliseconds.
    pub const KEEP_ALIVE_TIMER: u8 = 0x0F;
    /// Host Controlled Thermal Management.
    pub const HOST_CONTROLLED_THERMAL_MANAGEMENT: u8 = 0x10;
    /// Non-Operational Power State Config.
    pub const NON_OPERATIONAL_POWER_STATE: u8 = 0x11;
    /// Read Recovery Level Config.
    pub const READ_RECOVERY_LEVEL: u8 = 0x12;
    /// Host Behavior Support.
    pub const HOST_BEHAVIOR_SUPPORT: u8 = 0x16;
    /// Sanitize Config.
    pub const SANITIZE_CONFIG: u8 = 0x17;
    /// Endurance Group Event Configuration.
    pub const ENDURANCE_GROUP_EVENTS: u8 = 0x18;
    /// I/O Command Set Profile.
    pub const IO_COMMAND_SET_PROFILE: u8 = 0x19;
    /// Software Progress Marker.
    pub const SOFTWARE_PROGRESS_MARKER: u8 = 0x80;
    /// Host Identifier: 8 or 16 bytes of data.
    pub const HOST_IDENTIFIER: u8 = 0x81;
    /// Reservation Notification Mask.
    pub const RESERVATION_NOTIFICATION_MASK: u8 = 0x82;
    /// Reservation Persistence.
    pub const RESERVATION_PERSISTENCE: u8 = 0x83;
    /// Namespace Write Protection Config.
    pub const NAMESPACE_WRITE_PROTECTION: u8 = 0x84;
}

/// Dword 10 of Set Features (Base 2.1, 5.1.25).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct SetFeaturesCdw10 {
    /// Feature Identifier, see [`fid`].
    pub fid: u8,
    #[bits(23)]
    __: u32,
    /// Save.
    pub sv: bool,
}

/// Dword 10 of Get Features (Base 2.1, 5.1.11).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct GetFeaturesCdw10 {
    /// Feature Identifier, see [`fid`].
    pub fid: u8,
    /// Select, see [`select`].
    #[bits(3)]
    pub sel: u8,
    #[bits(21)]
    __: u32,
}

/// Select of Get Features (Base 2.1, 5.1.11).
pub mod select {
    /// Current value.
    pub const CURRENT: u8 = 0b000;
    /// Default value.
    pub const DEFAULT: u8 = 0b001;
    /// Saved value.
    pub const SAVED: u8 = 0b010;
    /// Supported capabilities: bit 0 saveable, bit 1 namespace specific, bit 2 changeable, in dword
    /// 0 of the result.
    pub const SUPPORTED_CAPABILITIES: u8 = 0b011;
}

/// Value of Number of Queues, in Dword 11 of the request and Dword 0 of the result (Base 2.1,
/// 5.1.25). Admin queues are not counted.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct NumberOfQueues {
    /// I/O Submission Queues, minus one.
    pub nsq_z: u16,
    /// I/O Completion Queues, minus one.
    pub ncq_z: u16,
}

impl NumberOfQueues {
    /// `count` (1 to 65,535) queues of each kind.
    pub fn of(count: u16) -> Self {
        let count_z = count.saturating_sub(1);
        Self::new().with_nsq_z(count_z).with_ncq_z(count_z)
    }

    /// How many queue pairs this allows.
    pub fn pairs(&self) -> u32 {
        u32::from(self.nsq_z().min(self.ncq_z())) + 1
    }
}

/// Dword 11 of the Host Identifier feature: the identifier has 16 bytes. Always so on fabrics (Base
/// 2.1, 5.1.25).
pub const HOST_IDENTIFIER_EXHID: u32 = 1 << 0;
/// Dword 11 of the Volatile Write Cache feature: the cache is enabled.
pub const VOLATILE_WRITE_CACHE_WCE: u32 = 1 << 0;
