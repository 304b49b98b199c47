//! Data of the Identify command (NVMe Base 2.1, 5.1.13; NVM Command Set 1.1, 4.1.5).

use bitfield_struct::bitfield;
use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::nqn::{Nqn, NqnError};

/// Length of the data of every Identify command in bytes.
pub const IDENTIFY_LEN: usize = 4096;

/// Command Set Identifier: the NVM command set.
pub const CSI_NVM: u8 = 0x00;

/// Controller or Namespace Structure: what Identify returns (Base 2.1, 5.1.13.1).
pub mod cns {
    /// Identify Namespace: [`IdentifyNamespace`](super::IdentifyNamespace).
    pub const NAMESPACE: u8 = 0x00;
    /// Identify Controller: [`IdentifyController`](super::IdentifyController).
    pub const CONTROLLER: u8 = 0x01;
    /// Active Namespace ID list: [`NamespaceList`](super::NamespaceList) of the active namespaces
    /// above NSID.
    pub const ACTIVE_NAMESPACE_LIST: u8 = 0x02;
    /// Namespace Identification Descriptor list of NSID, see
    /// [`namespace_id_descriptors`](super::namespace_id_descriptors).
    pub const NAMESPACE_ID_DESCRIPTORS: u8 = 0x03;
    /// NVM Set List.
    pub const NVM_SET_LIST: u8 = 0x04;
    /// I/O Command Set specific Identify Namespace; of the NVM command set:
    /// [`IdentifyNvmNamespace`](super::IdentifyNvmNamespace).
    pub const NAMESPACE_CSI: u8 = 0x05;
    /// I/O Command Set specific Identify Controller; of the NVM command set:
    /// [`IdentifyNvmController`](super::IdentifyNvmController).
    pub const CONTROLLER_CSI: u8 = 0x06;
    /// I/O Command Set specific Active Namespace ID list: as the one above, of one command set.
    pub const ACTIVE_NAMESPACE_LIST_CSI: u8 = 0x07;
    /// I/O Command Set Independent Identify Namespace:
    /// [`IdentifyNamespaceIndependent`](super::IdentifyNamespaceIndependent).
    pub const NAMESPACE_INDEPENDENT: u8 = 0x08;
    /// Allocated Namespace ID list: allocated namespaces above NSID.
    pub const ALLOCATED_NAMESPACE_LIST: u8 = 0x10;
    /// Identify Allocated Namespace.
    pub const ALLOCATED_NAMESPACE: u8 = 0x11;
    /// Namespace Attached Controller list: controllers that NSID is attached to.
    pub const ATTACHED_CONTROLLER_LIST: u8 = 0x12;
    /// Controller list: controllers of the NVM subsystem.
    pub const CONTROLLER_LIST: u8 = 0x13;
    /// I/O Command Set specific Allocated Namespace ID list.
    pub const ALLOCATED_NAMESPACE_LIST_CSI: u8 = 0x1A;
    /// I/O Command Set specific Identify Allocated Namespace.
    pub const ALLOCATED_NAMESPACE_CSI: u8 = 0x1B;
    /// Identify I/O Command Set: the combinations of I/O command sets of a controller.
    pub const COMMAND_SETS: u8 = 0x1C;
}

/// Dword 10 of the Identify command (Base 2.1, 5.1.13).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct IdentifyCdw10 {
    /// Controller or Namespace Structure, see [`cns`].
    pub cns: u8,
    #[bits(8)]
    __: u8,
    /// Controller Identifier.
    pub cntid: u16,
}

/// Dword 11 of the Identify command (Base 2.1, 5.1.13).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct IdentifyCdw11 {
    /// CNS Specific Identifier.
    pub cnssid: u16,
    #[bits(8)]
    __: u8,
    /// Command Set Identifier.
    pub csi: u8,
}

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
    /// Version, as [`Vs`](super::registers::Vs).
    pub ver: U32,
    /// RTD3 Resume Latency in microseconds.
    pub rtd3r: U32,
    /// RTD3 Entry Latency in microseconds.
    pub rtd3e: U32,
    /// Optional Asynchronous Events Supported, bits of [`event`](super::log::event).
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

/// Text as an ASCII field: cut to the field's length, padded with spaces; what is not printable
/// ASCII becomes `?`.
pub fn ascii_field<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [b' '; N];
    for (to, c) in field.iter_mut().zip(text.chars()) {
        *to = u8::try_from(c)
            .ok()
            .filter(|b| matches!(b, b' '..=b'~'))
            .unwrap_or(b'?');
    }
    field
}

/// The text of an ASCII field, without padding. Bytes that are not printable ASCII are shown as
/// `?`.
pub fn text(field: &[u8]) -> String {
    field
        .trim_ascii_end()
        .iter()
        .take_while(|&&b| b != 0)
        .map(|&b| {
            if matches!(b, b' '..=b'~') {
                char::from(b)
            } else {
                '?'
            }
        })
        .collect()
}

/// Values of the bit fields of [`IdentifyNamespace`] (NVM Command Set 1.1, 4.1.5.1).
pub mod ns {
    /// NSFEAT: thin provisioning; NUSE and NCAP can be less than NSZE.
    pub const NSFEAT_THIN: u8 = 1 << 0;
    /// NSFEAT: NAWUN, NAWUPF and NACWU are valid.
    pub const NSFEAT_ATOMICS: u8 = 1 << 1;
    /// NSFEAT: reads of deallocated blocks may fail.
    pub const NSFEAT_DEALLOCATED_ERROR: u8 = 1 << 2;
    /// NSFEAT: NGUID and EUI64 are never reused.
    pub const NSFEAT_UID_REUSE: u8 = 1 << 3;
    /// NSFEAT bits 5:4: NPWG, NPWA, NPDG, NPDA and NOWS are valid.
    pub const NSFEAT_OPTIMAL_PERFORMANCE: u8 = 0b01 << 4;
    /// NMIC: the namespace may be attached to more than one controller.
    pub const NMIC_SHARED: u8 = 1 << 0;
    /// DLFEAT bits 2:0: deallocated blocks read as zeroes.
    pub const DLFEAT_READS_ZEROES: u8 = 0b001;
    /// DLFEAT: Write Zeroes may deallocate.
    pub const DLFEAT_WRITE_ZEROES_DEALLOCATES: u8 = 1 << 3;
    /// NSATTR: currently write protected.
    pub const NSATTR_WRITE_PROTECTED: u8 = 1 << 0;
    /// NSTAT of the I/O command set independent data: ready.
    pub const NSTAT_READY: u8 = 1 << 0;
}

/// LBA Format, 4 bytes (NVM Command Set 1.1, 4.1.5.1).
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
pub struct LbaFormat {
    /// Metadata Size in bytes.
    pub ms: U16,
    /// LBA Data Size: blocks of 2^LBADS bytes; at least 9, or 0 for a format that is not there.
    pub lbads: u8,
    /// Relative Performance in bits 1:0.
    pub rp: u8,
}
assert_layout!(LbaFormat, 4, lbads @ 2);

/// Identify Namespace data of the NVM command set, 4,096 bytes (NVM Command Set 1.1, 4.1.5.1).
#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct IdentifyNamespace {
    /// Namespace Size in logical blocks.
    pub nsze: U64,
    /// Namespace Capacity in logical blocks.
    pub ncap: U64,
    /// Namespace Utilization in logical blocks.
    pub nuse: U64,
    /// Namespace Features.
    pub nsfeat: u8,
    /// Number of LBA Formats, minus one.
    pub nlbaf_z: u8,
    /// Formatted LBA Size: index of the format in bits 3:0 and (high part) 6:5; metadata at the end
    /// of the data in 4.
    pub flbas: u8,
    /// Metadata Capabilities.
    pub mc: u8,
    /// End-to-end Data Protection Capabilities.
    pub dpc: u8,
    /// End-to-end Data Protection Type Settings.
    pub dps: u8,
    /// Namespace Multi-path I/O and Namespace Sharing Capabilities.
    pub nmic: u8,
    /// Reservation Capabilities.
    pub rescap: u8,
    /// Format Progress Indicator.
    pub fpi: u8,
    /// Deallocate Logical Block Features.
    pub dlfeat: u8,
    /// Namespace Atomic Write Unit Normal in logical blocks, minus one.
    pub nawun_z: U16,
    /// Namespace Atomic Write Unit Power Fail in logical blocks, minus one.
    pub nawupf_z: U16,
    /// Namespace Atomic Compare and Write Unit in logical blocks, minus one.
    pub nacwu_z: U16,
    /// Namespace Atomic Boundary Size Normal in logical blocks, minus one; 0 is no boundary.
    pub nabsn_z: U16,
    /// Namespace Atomic Boundary Offset in logical blocks.
    pub nabo: U16,
    /// Namespace Atomic Boundary Size Power Fail in logical blocks, minus one; 0 is no boundary.
    pub nabspf_z: U16,
    /// Namespace Optimal I/O Boundary in logical blocks; 0 is none.
    pub noiob: U16,
    /// NVM Capacity in bytes.
    pub nvmcap: U128,
    /// Namespace Preferred Write Granularity in logical blocks, minus one.
    pub npwg_z: U16,
    /// Namespace Preferred Write Alignment in logical blocks, minus one.
    pub npwa_z: U16,
    /// Namespace Preferred Deallocate Granularity in logical blocks, minus one.
    pub npdg_z: U16,
    /// Namespace Preferred Deallocate Alignment in logical blocks, minus one.
    pub npda_z: U16,
    /// Namespace Optimal Write Size in logical blocks, minus one.
    pub nows_z: U16,
    /// Maximum Single Source Range Length of Copy in logical blocks.
    pub mssrl: U16,
    /// Maximum Copy Length in logical blocks.
    pub mcl: U32,
    /// Maximum Source Range Count of Copy, minus one.
    pub msrc_z: u8,
    /// Key Per I/O Status.
    pub kpios: u8,
    /// Number of Unique Capability LBA Formats.
    pub nulbaf: u8,
    /// Reserved.
    pub rsvd83: u8,
    /// Key Per I/O Data Access Alignment and Granularity in logical blocks.
    pub kpiodaag: U32,
    /// Reserved.
    pub rsvd88: [u8; 4],
    /// ANA Group Identifier; 0 where ANA is not reported.
    pub anagrpid: U32,
    /// Reserved.
    pub rsvd96: [u8; 3],
    /// Namespace Attributes.
    pub nsattr: u8,
    /// NVM Set Identifier.
    pub nvmsetid: U16,
    /// Endurance Group Identifier.
    pub endgid: U16,
    /// Namespace Globally Unique Identifier, big-endian; zero if there is none.
    pub nguid: [u8; 16],
    /// IEEE Extended Unique Identifier, big-endian; zero if there is none.
    pub eui64: [u8; 8],
    /// LBA Formats.
    pub lbaf: [LbaFormat; 64],
    /// Vendor Specific.
    pub vs: [u8; 3712],
}
assert_layout!(
    IdentifyNamespace, 4096,
    nsfeat @ 24, nlbaf_z @ 25, flbas @ 26, mc @ 27, dpc @ 28, dps @ 29, nmic @ 30, rescap @ 31, fpi
    @ 32, dlfeat @ 33,
    nawun_z @ 34, nawupf_z @ 36, nacwu_z @ 38, nabsn_z @ 40, nabo @ 42, nabspf_z @ 44, noiob @ 46,
    nvmcap @ 48,
    npwg_z @ 64, npwa_z @ 66, npdg_z @ 68, npda_z @ 70, nows_z @ 72, mssrl @ 74, mcl @ 76, msrc_z @
    80,
    kpiodaag @ 84, anagrpid @ 92, nsattr @ 99, nvmsetid @ 100, endgid @ 102, nguid @ 104, eui64 @
    120, lbaf @ 128,
    vs @ 384,
);

impl IdentifyNamespace {
    /// The format in use, as FLBAS states it.
    pub fn format(&self) -> Option<&LbaFormat> {
        let mut index = usize::from(self.flbas & 0x0F);
        // The high part of the index is only valid with more than 16 formats (NVM Command Set 1.1,
        // 4.1.5.1).
        if self.nlbaf_z >= 16 {
            index |= usize::from(self.flbas & 0x60) >> 1;
        }
        self.lbaf.get(index)
    }

    /// Size of a logical block in bytes, without metadata. None where LBADS is not one to work with
    /// (9 to 31).
    pub fn block_size(&self) -> Option<u32> {
        match self.format()?.lbads {
            lbads @ 9..=31 => Some(1 << lbads),
            _ => None,
        }
    }
}

/// I/O Command Set Independent Identify Namespace data, 4,096 bytes, CNS 08h (Base 2.1, 5.1.13.2).
#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct IdentifyNamespaceIndependent {
    /// Common Namespace Features.
    pub nsfeat: u8,
    /// Namespace Multi-path I/O and Namespace Sharing Capabilities.
    pub nmic: u8,
    /// Reservation Capabilities.
    pub rescap: u8,
    /// Format Progress Indicator.
    pub fpi: u8,
    /// ANA Group Identifier.
    pub anagrpid: U32,
    /// Namespace Attributes.
    pub nsattr: u8,
    /// Reserved.
    pub rsvd9: u8,
    /// NVM Set Identifier.
    pub nvmsetid: U16,
    /// Endurance Group Identifier.
    pub endgid: U16,
    /// Namespace Status.
    pub nstat: u8,
    /// Not used here.
    pub rsvd15: [u8; 4081],
}
assert_layout!(
    IdentifyNamespaceIndependent, 4096,
    nmic @ 1, anagrpid @ 4, nsattr @ 8, nvmsetid @ 10, endgid @ 12, nstat @ 14,
);

/// I/O Command Set specific Identify Namespace data of the NVM command set, 4,096 bytes, CNS 05h
/// (NVM Command Set 1.1, 4.1.5.3).
#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct IdentifyNvmNamespace {
    /// Logical Block Storage Tag Mask.
    pub lbstm: U64,
    /// Protection Information Capabilities.
    pub pic: u8,
    /// Not used here.
    pub rsvd9: [u8; 3],
    /// Extended LBA Formats.
    pub elbaf: [U32; 64],
    /// Not used here.
    pub rsvd268: [u8; 3828],
}
assert_layout!(IdentifyNvmNamespace, 4096, pic @ 8, elbaf @ 12, rsvd268 @ 268);

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

/// Namespace List: up to 1,024 NSIDs in ascending order, the rest zero (Base 2.1, 4.5.2). Data of
/// CNS 02h and 07h, and the Changed Namespace List log.
#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct NamespaceList {
    /// NSIDs; the list ends at the first zero.
    pub nsids: [U32; 1024],
}
assert_layout!(NamespaceList, 4096);

impl NamespaceList {
    /// The most NSIDs one list can have.
    pub const MAX: usize = 1024;

    /// The NSIDs up to the first zero.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.nsids
            .iter()
            .map(|nsid| nsid.get())
            .take_while(|&nsid| nsid != 0)
    }
}

/// Namespace Identifier Type (NIDT) of a Namespace Identification Descriptor (Base 2.1,
/// 5.1.13.2.3).
pub mod descriptor_type {
    /// IEEE Extended Unique Identifier, 8 bytes, big-endian.
    pub const EUI64: u8 = 1;
    /// Namespace Globally Unique Identifier, 16 bytes, big-endian.
    pub const NGUID: u8 = 2;
    /// UUID, 16 bytes, big-endian.
    pub const UUID: u8 = 3;
    /// Command Set Identifier, 1 byte.
    pub const CSI: u8 = 4;
}

/// Header of a Namespace Identification Descriptor, 4 bytes (Base 2.1, 5.1.13.2.3). `nidl` bytes of
/// identifier follow.
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
pub struct NamespaceIdHeader {
    /// Namespace Identifier Type, see [`descriptor_type`].
    pub nidt: u8,
    /// Namespace Identifier Length in bytes; 0 ends the list.
    pub nidl: u8,
    /// Reserved.
    pub rsvd2: [u8; 2],
}
assert_layout!(NamespaceIdHeader, 4, nidl @ 1);

/// The descriptors of a Namespace Identification Descriptor list: type (see [`descriptor_type`])
/// and identifier. The list ends at a length of zero or where it is cut off. Neither types nor
/// lengths are checked.
pub fn namespace_id_descriptors(list: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = list;
    std::iter::from_fn(move || {
        let (header, tail) = NamespaceIdHeader::ref_from_prefix(rest).ok()?;
        if header.nidl == 0 {
            return None;
        }
        let (id, tail) = tail.split_at_checked(usize::from(header.nidl))?;
        rest = tail;
        Some((header.nidt, id))
    })
}

/// Appends a Namespace Identification Descriptor to `out`; the finished list is to be padded with
/// zeroes to [`IDENTIFY_LEN`].
///
/// # Panics
/// `id` is not 1 to 16 bytes long.
pub fn put_namespace_id_descriptor(out: &mut Vec<u8>, nidt: u8, id: &[u8]) {
    assert!(
        matches!(id.len(), 1..=16),
        "namespace identifier of {} bytes",
        id.len()
    );
    #[expect(clippy::cast_possible_truncation, reason = "asserted above")]
    let nidl = id.len() as u8;
    out.extend_from_slice(&[nidt, nidl, 0, 0]);
    out.extend_from_slice(id);
}
