//! What Identify says of a namespace, checked.

use zerocopy::FromBytes;

use crate::spec::identify::{IdentifyNamespace, descriptor_type, namespace_id_descriptors};

/// What identifies a namespace across controllers (NVMe Base 2.1, 4.7.1); `None` where it reports none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct NamespaceIds {
    /// IEEE extended unique identifier.
    pub eui64: Option<[u8; 8]>,
    /// Namespace globally unique identifier.
    pub nguid: Option<[u8; 16]>,
    /// UUID.
    pub uuid: Option<[u8; 16]>,
    /// Command set identifier; 0 is the NVM command set.
    pub csi: u8,
}

impl NamespaceIds {
    /// True unless both report an identifier of a kind and the two differ (rule B1.3).
    pub fn agrees_with(&self, other: &Self) -> bool {
        fn same<T: PartialEq>(a: Option<T>, b: Option<T>) -> bool {
            match (a, b) {
                (Some(a), Some(b)) => a == b,
                _ => true,
            }
        }
        same(self.eui64, other.eui64)
            && same(self.nguid, other.nguid)
            && same(self.uuid, other.uuid)
            && self.csi == other.csi
    }

    /// True if they agree, and there is an identifier that both report: they are of one and the same namespace.
    pub fn identifies(&self, other: &Self) -> bool {
        self.agrees_with(other)
            && (self.eui64.is_some() && other.eui64.is_some()
                || self.nguid.is_some() && other.nguid.is_some()
                || self.uuid.is_some() && other.uuid.is_some())
    }
}

/// One namespace as one controller describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Namespace {
    /// Namespace identifier.
    pub nsid: u32,
    /// Size in blocks.
    pub blocks: u64,
    /// Log2 of the block size in bytes, 9 to 16.
    pub block_shift: u8,
    /// Identifiers of the namespace.
    pub ids: NamespaceIds,
    /// ANA group (ANAGRPID), 0 without ANA reporting.
    pub ana_group: u32,
}

impl Namespace {
    /// Reads Identify Namespace data (CNS 00h).
    ///
    /// # Errors
    /// Why the namespace cannot be used: inactive, a block size that is no power of two from 512 to
    /// 65,536, or metadata.
    pub fn parse(nsid: u32, bytes: &[u8]) -> Result<Self, &'static str> {
        let (data, _) = IdentifyNamespace::ref_from_prefix(bytes)
            .map_err(|_| "Identify Namespace data is cut off")?;
        if data.nsze.get() == 0 {
            return Err("namespace is not active");
        }
        // FLBAS bits 3:0 and, for more than 16 formats, 6:5.
        let index = usize::from(data.flbas & 0xf | (data.flbas & 0x60) >> 1);
        let format = data
            .lbaf
            .get(index)
            .ok_or("FLBAS names a format that does not exist")?;
        if format.ms.get() != 0 {
            return Err("namespaces with metadata are not supported");
        }
        if !(9..=16).contains(&format.lbads) {
            return Err("block size is not a power of two from 512 to 65536 bytes");
        }
        let nonzero16 = |id: [u8; 16]| (id != [0; 16]).then_some(id);
        Ok(Self {
            nsid,
            blocks: data.nsze.get(),
            block_shift: format.lbads,
            ids: NamespaceIds {
                eui64: (data.eui64 != [0; 8]).then_some(data.eui64),
                nguid: nonzero16(data.nguid),
                uuid: None,
                csi: 0,
            },
            ana_group: data.anagrpid.get(),
        })
    }

    /// Adds what the Namespace Identification Descriptor list (CNS 03h) says.
    pub fn add_descriptors(&mut self, bytes: &[u8]) {
        for (kind, value) in namespace_id_descriptors(bytes) {
            match kind {
                descriptor_type::EUI64 => self.ids.eui64 = value.try_into().ok(),
                descriptor_type::NGUID => self.ids.nguid = value.try_into().ok(),
                descriptor_type::UUID => self.ids.uuid = value.try_into().ok(),
                descriptor_type::CSI => self.ids.csi = value.first().copied().unwrap_or(0),
                _ => {}
            }
        }
    }
}
