//! Data of the Identify command (NVMe Base 2.1, 5.1.13; NVM Command Set 1.1, 4.1.5).

mod controller;
mod namespace;

pub use self::controller::{IdentifyController, IdentifyNvmController, ctrl};
pub use self::namespace::{
    IdentifyNamespace, IdentifyNamespaceIndependent, IdentifyNvmNamespace, LbaFormat,
    NamespaceIdHeader, NamespaceList, descriptor_type, namespace_id_descriptors, ns,
    put_namespace_id_descriptor,
};

use bitfield_struct::bitfield;

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
