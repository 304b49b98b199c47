//! What Identify tells of a controller (NVMe Base 2.1, 5.1.13.2.1; NVM Command Set 1.1, 4.1.5.4).

use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::text;
use crate::spec::nqn::{Nqn, NqnError};

/// Values of the bit fields of [`IdentifyController`] (Base 2.1, 5.1.13.2.1).
pub mod ctrl {
    /// CMIC: the NVM subsystem may have more than one port.
    pub const CMIC_MULTI_PORT: u8 = 1 << 0;
    /// CMIC: the NVM subsystem may have more than one controller.
    pub const CMIC_MULTI_CONTROLLER: u8 = 1 << 1;
    /// CMIC: ANA reporting is supported.
    pub const CMIC_ANA_REPORTING: u8 = 1 << 3;
    /// CTRATT: Host Identifiers of 128 bits.
    pub const CTRATT_HOST_ID_128: u32 = 1 << 0;
    /// CTRATT: Traffic Based Keep Alive.
    pub const CTRATT_TBKAS: u32 = 1 << 6;
    /// CTRATT: extended LBA formats.
    pub const CTRATT_ELBAS: u32 = 1 << 15;
    /// CNTRLTYPE: I/O controller.
    pub const CNTRLTYPE_IO: u8 = 1;
    /// CNTRLTYPE: discovery controller.
    pub const CNTRLTYPE_DISCOVERY: u8 = 2;
    /// CNTRLTYPE: administrative controller.
    pub const CNTRLTYPE_ADMINISTRATIVE: u8 = 3;
    /// OACS: Namespace Management and Namespace Attachment.
    pub const OACS_NAMESPACE_MANAGEMENT: u16 = 1 << 3;
    /// LPA: the SMART log is available per namespace.
    pub const LPA_SMART_PER_NAMESPACE: u8 = 1 << 0;
    /// LPA: the Commands Supported and Effects log is supported.
    pub const LPA_COMMAND_EFFECTS: u8 = 1 << 1;
    /// LPA: 32-bit lengths and offsets in Get Log Page.
    pub const LPA_EXTENDED_DATA: u8 = 1 << 2;
    /// ANACAP: the optimized state may be reported.
    pub const ANACAP_OPTIMIZED: u8 = 1 << 0;
    /// ANACAP: the non-optimized state may be reported.
    pub const ANACAP_NON_OPTIMIZED: u8 = 1 << 1;
    /// ANACAP: the inaccessible state may be reported.
    pub const ANACAP_INACCESSIBLE: u8 = 1 << 2;
    /// ANACAP: the persistent loss state may be reported.
    pub const ANACAP_PERSISTENT_LOSS: u8 = 1 << 3;
    /// ANACAP: the change state may be reported.
    pub const ANACAP_CHANGE: u8 = 1 << 4;
    /// ANACAP: ANAGRPID does not change while a namespace is attached.
    pub const ANACAP_FIXED_GROUP: u8 = 1 << 6;
    /// ANACAP: a non-zero ANAGRPID is supported in Namespace Management.
    pub const ANACAP_GROUP_ID: u8 = 1 << 7;
    /// ONCS: Compare.
    pub const ONCS_COMPARE: u16 = 1 << 0;
    /// ONCS: Write Uncorrectable.
    pub const ONCS_WRITE_UNCORRECTABLE: u16 = 1 << 1;
    /// ONCS: Dataset Management.
    pub const ONCS_DATASET_MANAGEMENT: u16 = 1 << 2;
    /// ONCS: Write Zeroes.
    pub const ONCS_WRITE_ZEROES: u16 = 1 << 3;
    /// ONCS: Save field of Set Features and Select field of Get Features.
    pub const ONCS_SAVE_SELECT: u16 = 1 << 4;
    /// ONCS: reservations.
    pub const ONCS_RESERVATIONS: u16 = 1 << 5;
    /// ONCS: Timestamp feature.
    pub const ONCS_TIMESTAMP: u16 = 1 << 6;
    /// ONCS: Verify.
    pub const ONCS_VERIFY: u16 = 1 << 7;
    /// ONCS: Copy.
    pub const ONCS_COPY: u16 = 1 << 8;
    /// FUSES: Compare and Write.
    pub const FUSES_COMPARE_WRITE: u16 = 1 << 0;
    /// VWC: a volatile write cache is present.
    pub const VWC_PRESENT: u8 = 1 << 0;
    /// VWC bits 2:1: Flush with NSID FFFFFFFFh is not supported.
    pub const VWC_FLUSH_ALL_UNSUPPORTED: u8 = 0b10 << 1;
    /// VWC bits 2:1: Flush with NSID FFFFFFFFh is supported.
    pub const VWC_FLUSH_ALL_SUPPORTED: u8 = 0b11 << 1;
    /// SGLS bits 1:0: SGLs are supported, without alignment or granularity requirement.
    pub const SGLS_SUPPORTED: u32 = 0b01;
    /// SGLS: keyed data block descriptors.
    pub const SGLS_KEYED: u32 = 1 << 2;
    /// SGLS: the address of a data block may be an offset (in-capsule data).
    pub const SGLS_OFFSET: u32 = 1 << 20;
    /// SGLS: transport data block descriptors.
    pub const SGLS_TRANSPORT: u32 = 1 << 21;
    /// FCATT bit 0: the static controller model (else dynamic).
    pub const FCATT_STATIC: u8 = 1 << 0;
    /// OFCS: Disconnect.
    pub const OFCS_DISCONNECT: u16 = 1 << 0;
    /// SQES: required and maximum entry sizes of 64 bytes.
    pub const SQES_64: u8 = 0x66;
    /// CQES: required and maximum entry sizes of 16 bytes.
    pub const CQES_16: u8 = 0x44;
    /// Unit of IOCCSZ, IORCSZ and ICDOFF in bytes.
    pub const CAPSULE_UNIT: u32 = 16;
}

/// Identify Controller data, 4,096 bytes (Base 2.1, 5.1.13.2.1). Make one with
/// [`FromZeros::new_box_zeroed`](zerocopy::FromZeros::new_box_zeroed).
#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct IdentifyController {
    /// PCI Vendor ID.
    pub vid: U16,
    /// PCI Subsystem Vendor ID.
    pub ssvid: U16,
    /// Serial Number, ASCII padded with spaces.
    pub sn: [u8; 20],
    /// Model Number, ASCII padded with spaces.
    pub mn: [u8; 40],
    /// Firmware Revision, ASCII padded with spaces.
    pub fr: [u8; 8],
    /// Recommended Arbitration Burst, a power of two.
    pub rab: u8,
    /// IEEE OUI Identifier, least significant byte first.
    pub ieee: [u8; 3],
    /// Controller Multi-Path I/O and Namespace Sharing Capabilities.
    pub cmic: u8,
    /// Maximum Data Transfer Size: 2^MDTS units of the minimum memory page size (CAP.MPSMIN); 0 is
    /// no limit.
    pub mdts: u8,
    /// Controller ID.
    pub cntlid: U16,
    /// Version, as [`Vs`](crate::spec::registers::Vs).
    pub ver: U32,
    /// RTD3 Resume Latency in microseconds.
    pub rtd3r: U32,
    /// RTD3 Entry Latency in microseconds.
    pub rtd3e: U32,
    /// Optional Asynchronous Events Supported, bits of [`event`](crate::spec::log::event).
    pub oaes: U32,
    /// Controller Attributes.
    pub ctratt: U32,
    /// Read Recovery Levels Supported.
    pub rrls: U16,
    /// Boot Partition Capabilities.
    pub bpcap: u8,
    /// Reserved.
    pub rsvd103: u8,
    /// NVM Subsystem Shutdown Latency in microseconds.
    pub nssl: U32,
    /// Reserved.
    pub rsvd108: [u8; 2],
    /// Power Loss Signaling Information.
    pub plsi: u8,
    /// Controller Type.
    pub cntrltype: u8,
    /// FRU Globally Unique Identifier.
    pub fguid: [u8; 16],
    /// Command Retry Delay Time 1 in units of 100 ms.
    pub crdt1: U16,
    /// Command Retry Delay Time 2 in units of 100 ms.
    pub crdt2: U16,
    /// Command Retry Delay Time 3 in units of 100 ms.
    pub crdt3: U16,
    /// Controller Reachability Capabilities.
    pub crcap: u8,
    /// Controller Instance Uniquifier: which of the controllers that had this CNTLID one after the other (Base 2.3, 5.2.13.2.1); 0 where
    /// Cross-Controller Reset is not supported.
    pub ciu: u8,
    /// Controller Instance Random Number, which only the host that was associated with it can know; 0 where
    /// Cross-Controller Reset is not supported.
    pub cirn: U64,
    /// Not used here.
    pub rsvd144: [u8; 109],
    /// NVM Subsystem Report.
    pub nvmsr: u8,
    /// VPD Write Cycle Information.
    pub vwci: u8,
    /// Management Endpoint Capabilities.
    pub mec: u8,
    /// Optional Admin Command Support.
    pub oacs: U16,
    /// Abort Command Limit, minus one.
    pub acl_z: u8,
    /// Asynchronous Event Request Limit, minus one.
    pub aerl_z: u8,
    /// Firmware Updates.
    pub frmw: u8,
    /// Log Page Attributes.
    pub lpa: u8,
    /// Error Log Page Entries, minus one.
    pub elpe_z: u8,
    /// Number of Power States Support, minus one.
    pub npss_z: u8,
    /// Admin Vendor Specific Command Configuration.
    pub avscc: u8,
    /// Autonomous Power State Transition Attributes.
    pub apsta: u8,
    /// Warning Composite Temperature Threshold in kelvins.
    pub wctemp: U16,
    /// Critical Composite Temperature Threshold in kelvins.
    pub cctemp: U16,
    /// Maximum Time for Firmware Activation in units of 100 ms.
    pub mtfa: U16,
    /// Host Memory Buffer Preferred Size in units of 4 KiB.
    pub hmpre: U32,
    /// Host Memory Buffer Minimum Size in units of 4 KiB.
    pub hmmin: U32,
    /// Total NVM Capacity in bytes.
    pub tnvmcap: U128,
    /// Unallocated NVM Capacity in bytes.
    pub unvmcap: U128,
    /// Replay Protected Memory Block Support.
    pub rpmbs: U32,
    /// Extended Device Self-test Time in minutes.
    pub edstt: U16,
    /// Device Self-test Options.
    pub dsto: u8,
    /// Firmware Update Granularity in units of 4 KiB.
    pub fwug: u8,
    /// Keep Alive Support: granularity of the timer in units of 100 ms; 0 is no Keep Alive.
    pub kas: U16,
    /// Host Controlled Thermal Management Attributes.
    pub hctma: U16,
    /// Minimum Thermal Management Temperature in kelvins.
    pub mntmt: U16,
    /// Maximum Thermal Management Temperature in kelvins.
    pub mxtmt: U16,
    /// Sanitize Capabilities.
    pub sanicap: U32,
    /// Host Memory Buffer Minimum Descriptor Entry Size in units of 4 KiB.
    pub hmminds: U32,
    /// Host Memory Maximum Descriptors Entries.
    pub hmmaxd: U16,
    /// NVM Set Identifier Maximum.
    pub nsetidmax: U16,
    /// Endurance Group Identifier Maximum.
    pub endgidmax: U16,
    /// ANA Transition Time in seconds: the longest time in transition.
    pub anatt: u8,
    /// Asymmetric Namespace Access Capabilities.
    pub anacap: u8,
    /// ANA Group Identifier Maximum.
    pub anagrpmax: U32,
    /// Number of ANA Group Identifiers.
    pub nanagrpid: U32,
    /// Persistent Event Log Size in units of 64 KiB.
    pub pels: U32,
    /// Domain Identifier.
    pub did: U16,
    /// Key Per I/O Capabilities.
    pub kpioc: u8,
    /// Reserved.
    pub rsvd359: u8,
    /// Maximum Processing Time for Firmware Activation Without Reset in units of 100 ms.
    pub mptfawr: U16,
    /// Reserved.
    pub rsvd362: [u8; 6],
    /// Max Endurance Group Capacity in bytes.
    pub megcap: U128,
    /// Temperature Threshold Hysteresis Attributes.
    pub tmpthha: u8,
    /// Reserved.
    pub rsvd385: u8,
    /// Command Quiesce Time in milliseconds: how long commands of a lost connection may still take
    /// effect.
    pub cqt: U16,
    /// Not used here.
    pub rsvd388: [u8; 124],
    /// Submission Queue Entry Size: required in bits 3:0, maximum in bits 7:4, as powers of two.
    pub sqes: u8,
    /// Completion Queue Entry Size: required in bits 3:0, maximum in bits 7:4, as powers of two.
    pub cqes: u8,
    /// Maximum Outstanding Commands per queue.
    pub maxcmd: U16,
    /// Number of Namespaces: the largest NSID.
    pub nn: U32,
    /// Optional NVM Command Support.
    pub oncs: U16,
    /// Fused Operation Support.
    pub fuses: U16,
    /// Format NVM Attributes.
    pub fna: u8,
    /// Volatile Write Cache.
    pub vwc: u8,
    /// Atomic Write Unit Normal in logical blocks, minus one.
    pub awun_z: U16,
    /// Atomic Write Unit Power Fail in logical blocks, minus one.
    pub awupf_z: U16,
    /// I/O Command Set Vendor Specific Command Configuration.
    pub icsvscc: u8,
    /// Namespace Write Protection Capabilities.
    pub nwpc: u8,
    /// Atomic Compare and Write Unit in logical blocks, minus one.
    pub acwu_z: U16,
    /// Copy Descriptor Formats Supported.
    pub cdfs: U16,
    /// SGL Support.
    pub sgls: U32,
    /// Maximum Number of Allowed Namespaces; 0 means [`nn`](Self::nn).
    pub mnan: U32,
    /// Maximum Domain Namespace Attachments.
    pub maxdna: U128,
    /// Maximum I/O Controller Namespace Attachments.
    pub maxcna: U32,
    /// Not used here.
    pub rsvd564: [u8; 204],
    /// NVM Subsystem NVMe Qualified Name, padded with zeroes.
    pub subnqn: [u8; 256],
    /// Reserved.
    pub rsvd1024: [u8; 768],
    /// I/O Queue Command Capsule Supported Size in units of 16 bytes: the SQE and the in-capsule
    /// data.
    pub ioccsz: U32,
    /// I/O Queue Response Capsule Supported Size in units of 16 bytes.
    pub iorcsz: U32,
    /// In Capsule Data Offset in units of 16 bytes, from the end of the SQE.
    pub icdoff: U16,
    /// Fabrics Controller Attributes.
    pub fcatt: u8,
    /// Maximum SGL Data Block Descriptors per command; 0 is no limit.
    pub msdbd: u8,
    /// Optional Fabrics Commands Support.
    pub ofcs: U16,
    /// Discovery Controller Type.
    pub dctype: u8,
    /// Cross-Controller Reset Limit: how many resets may be in progress at a time at the request of this controller; 0
    /// where Cross-Controller Reset is not supported.
    pub ccrl: u8,
    /// Reserved.
    pub rsvd1808: [u8; 240],
    /// Power State Descriptors 0 to 31, 32 bytes each.
    pub psd: [[u8; 32]; 32],
    /// Vendor Specific.
    pub vs: [u8; 1024],
}
assert_layout!(
    IdentifyController, 4096,
    sn @ 4, mn @ 24, fr @ 64, rab @ 72, ieee @ 73, cmic @ 76, mdts @ 77, cntlid @ 78, ver @ 80,
    rtd3r @ 84,
    rtd3e @ 88, oaes @ 92, ctratt @ 96, rrls @ 100, nssl @ 104, cntrltype @ 111, fguid @ 112, crdt1
    @ 128,
    crdt2 @ 130, crdt3 @ 132, crcap @ 134, ciu @ 135, cirn @ 136, nvmsr @ 253, oacs @ 256, acl_z @ 258, aerl_z @ 259, frmw @ 260, lpa @
    261, elpe_z @ 262,
    npss_z @ 263, wctemp @ 266, cctemp @ 268, mtfa @ 270, tnvmcap @ 280, unvmcap @ 296, rpmbs @ 312,
    kas @ 320,
    hctma @ 322, sanicap @ 328, nsetidmax @ 338, endgidmax @ 340, anatt @ 342, anacap @ 343,
    anagrpmax @ 344,
    nanagrpid @ 348, pels @ 352, did @ 356, mptfawr @ 360, megcap @ 368, tmpthha @ 384, cqt @ 386,
    sqes @ 512,
    cqes @ 513, maxcmd @ 514, nn @ 516, oncs @ 520, fuses @ 522, fna @ 524, vwc @ 525, awun_z @ 526,
    awupf_z @ 528,
    icsvscc @ 530, nwpc @ 531, acwu_z @ 532, cdfs @ 534, sgls @ 536, mnan @ 540, maxdna @ 544,
    maxcna @ 560,
    subnqn @ 768, ioccsz @ 1792, iorcsz @ 1796, icdoff @ 1800, fcatt @ 1802, msdbd @ 1803, ofcs @
    1804, dctype @ 1806, ccrl @ 1807,
    psd @ 2048, vs @ 3072,
);

impl IdentifyController {
    /// SN without the padding; lossless only if it is ASCII.
    pub fn serial(&self) -> String {
        text(&self.sn)
    }

    /// MN without the padding.
    pub fn model(&self) -> String {
        text(&self.mn)
    }

    /// FR without the padding.
    pub fn firmware(&self) -> String {
        text(&self.fr)
    }

    /// SUBNQN as a checked name.
    ///
    /// # Errors
    /// The field does not hold an NQN.
    pub fn subnqn(&self) -> Result<Nqn, NqnError> {
        Nqn::from_field(&self.subnqn)
    }

    /// The largest in-capsule data of an I/O command in bytes; zero if there can be none.
    pub const fn in_capsule_data_len(&self) -> u32 {
        // The capsule includes the SQE of 64 bytes and what ICDOFF leaves between it and the data.
        self.ioccsz
            .get()
            .saturating_mul(ctrl::CAPSULE_UNIT)
            .saturating_sub(64 + self.icdoff.get() as u32 * ctrl::CAPSULE_UNIT)
    }

    /// The largest data transfer of one command in bytes, where memory pages are at least 2^(12 +
    /// `mpsmin`) bytes (CAP.MPSMIN). None: no limit.
    pub fn max_transfer_len(&self, mpsmin: u8) -> Option<u64> {
        if self.mdts == 0 {
            return None;
        }
        let shift = 12 + u32::from(mpsmin) + u32::from(self.mdts);
        Some(1u64.checked_shl(shift).unwrap_or(u64::MAX))
    }
}

/// I/O Command Set specific Identify Controller data of the NVM command set, 4,096 bytes, CNS 06h
/// (NVM Command Set 1.1, 4.1.5.4).
#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct IdentifyNvmController {
    /// Verify Size Limit: as MDTS.
    pub vsl: u8,
    /// Write Zeroes Size Limit: as MDTS.
    pub wzsl: u8,
    /// Write Uncorrectable Size Limit: as MDTS.
    pub wusl: u8,
    /// Dataset Management Ranges Limit; 0 is no limit.
    pub dmrl: u8,
    /// Dataset Management Range Size Limit in logical blocks; 0 is no limit.
    pub dmrsl: U32,
    /// Dataset Management Size Limit in logical blocks; 0 is no limit.
    pub dmsl: U64,
    /// Not used here.
    pub rsvd16: [u8; 4080],
}
assert_layout!(IdentifyNvmController, 4096, wzsl @ 1, wusl @ 2, dmrl @ 3, dmrsl @ 4, dmsl @ 8);
