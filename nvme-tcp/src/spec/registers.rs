//! Controller properties, reached on fabrics by Property Get and Property Set (NVMe Base 2.1,
//! 3.1.4).

use std::time::Duration;

use bitfield_struct::bitfield;

/// Controller Capabilities, property 0h, 8 bytes (Base 2.1, 3.1.4.1).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Cap {
    /// Maximum Queue Entries Supported, minus one.
    pub mqes_z: u16,
    /// Contiguous Queues Required.
    pub cqr: bool,
    /// Arbitration Mechanism Supported.
    #[bits(2)]
    pub ams: u8,
    #[bits(5)]
    __: u8,
    /// Timeout: the longest time to wait for CSTS.RDY to follow CC.EN, in units of 500 ms.
    pub to: u8,
    /// Doorbell Stride; zero on fabrics.
    #[bits(4)]
    pub dstrd: u8,
    /// NVM Subsystem Reset Supported.
    pub nssrs: bool,
    /// Command Sets Supported: bit 0 NVM, bit 6 the sets listed by Identify CNS 1Ch, bit 7 none.
    pub css: u8,
    /// Boot Partition Support.
    pub bps: bool,
    /// Controller Power Scope.
    #[bits(2)]
    pub cps: u8,
    /// Memory Page Size Minimum: 2^(12 + MPSMIN) bytes.
    #[bits(4)]
    pub mpsmin: u8,
    /// Memory Page Size Maximum: 2^(12 + MPSMAX) bytes.
    #[bits(4)]
    pub mpsmax: u8,
    /// Persistent Memory Region Supported.
    pub pmrs: bool,
    /// Controller Memory Buffer Supported.
    pub cmbs: bool,
    /// NVM Subsystem Shutdown Supported.
    pub nsss: bool,
    /// Controller Ready With Media Support.
    pub crwms: bool,
    /// Controller Ready Independent of Media Support.
    pub crims: bool,
    /// NVM Subsystem Shutdown Enhancements Supported.
    pub nsses: bool,
    #[bits(2)]
    __: u8,
}

impl Cap {
    /// CSS bit 0: the NVM command set.
    pub const CSS_NVM: u8 = 1 << 0;
    /// CSS bit 6: one or more I/O command sets, listed by Identify.
    pub const CSS_IOCS: u8 = 1 << 6;
    /// CSS bit 7: no I/O command set (administrative and discovery controllers).
    pub const CSS_ADMIN_ONLY: u8 = 1 << 7;

    /// The largest queue: 2 to 65,536 entries.
    pub const fn max_queue_entries(&self) -> u32 {
        self.mqes_z() as u32 + 1
    }

    /// The longest time CSTS.RDY may take to follow CC.EN.
    pub const fn timeout(&self) -> Duration {
        Duration::from_millis(self.to() as u64 * 500)
    }
}

/// Version, property 8h, 4 bytes; also VER of Identify Controller (Base 2.1, 3.1.4.2).
#[bitfield(u32)]
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub struct Vs {
    /// Tertiary Version Number.
    pub ter: u8,
    /// Minor Version Number.
    pub mnr: u8,
    /// Major Version Number.
    pub mjr: u16,
}

impl Vs {
    /// NVMe 1.3.
    pub const V1_3: Self = Self::of(1, 3, 0);
    /// NVMe 1.4.
    pub const V1_4: Self = Self::of(1, 4, 0);
    /// NVMe 2.0.
    pub const V2_0: Self = Self::of(2, 0, 0);
    /// NVMe 2.1.
    pub const V2_1: Self = Self::of(2, 1, 0);

    /// The version `major.minor.tertiary`.
    pub const fn of(major: u16, minor: u8, tertiary: u8) -> Self {
        Self::new()
            .with_mjr(major)
            .with_mnr(minor)
            .with_ter(tertiary)
    }
}

/// Controller Configuration, property 14h, 4 bytes (Base 2.1, 3.1.4.5).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Cc {
    /// Enable.
    pub en: bool,
    #[bits(3)]
    __: u8,
    /// I/O Command Set Selected: 000b NVM, 110b all supported, 111b none.
    #[bits(3)]
    pub css: u8,
    /// Memory Page Size: 2^(12 + MPS) bytes.
    #[bits(4)]
    pub mps: u8,
    /// Arbitration Mechanism Selected.
    #[bits(3)]
    pub ams: u8,
    /// Shutdown Notification.
    #[bits(2)]
    pub shn: u8,
    /// I/O Submission Queue Entry Size, a power of two: 6 for 64 bytes.
    #[bits(4)]
    pub iosqes: u8,
    /// I/O Completion Queue Entry Size, a power of two: 4 for 16 bytes.
    #[bits(4)]
    pub iocqes: u8,
    /// Controller Ready Independent of Media Enable.
    pub crime: bool,
    #[bits(7)]
    __: u8,
}

impl Cc {
    /// CSS: the NVM command set.
    pub const CSS_NVM: u8 = 0b000;
    /// CSS: all supported I/O command sets.
    pub const CSS_IOCS: u8 = 0b110;
    /// CSS: the Admin command set only.
    pub const CSS_ADMIN_ONLY: u8 = 0b111;
    /// SHN: no notification.
    pub const SHN_NONE: u8 = 0b00;
    /// SHN: normal shutdown.
    pub const SHN_NORMAL: u8 = 0b01;
    /// SHN: abrupt shutdown.
    pub const SHN_ABRUPT: u8 = 0b10;
}

/// Controller Status, property 1Ch, 4 bytes (Base 2.1, 3.1.4.6).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Csts {
    /// Ready.
    pub rdy: bool,
    /// Controller Fatal Status.
    pub cfs: bool,
    /// Shutdown Status.
    #[bits(2)]
    pub shst: u8,
    /// NVM Subsystem Reset Occurred.
    pub nssro: bool,
    /// Processing Paused.
    pub pp: bool,
    /// Shutdown Type: set when the whole NVM subsystem shuts down.
    pub st: bool,
    #[bits(25)]
    __: u32,
}

impl Csts {
    /// SHST: normal operation.
    pub const SHST_NORMAL: u8 = 0b00;
    /// SHST: shutdown is in progress.
    pub const SHST_OCCURRING: u8 = 0b01;
    /// SHST: shutdown is complete.
    pub const SHST_COMPLETE: u8 = 0b10;
}

/// Controller Ready Timeouts, property 68h, 4 bytes (Base 2.1, 3.1.4). Both are in units of 500 ms.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Crto {
    /// Controller Ready With Media Timeout.
    pub crwmt: u16,
    /// Controller Ready Independent of Media Timeout.
    pub crimt: u16,
}
