//! What Identify tells of a namespace (NVMe Base 2.1, 5.1.13.2; NVM Command Set 1.1, 4.1.5.1).

use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

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
/// zeroes to [`IDENTIFY_LEN`](super::IDENTIFY_LEN).
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
