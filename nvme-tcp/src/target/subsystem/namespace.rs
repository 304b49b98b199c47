//! A namespace as it is configured, with its disk.

use uuid::Uuid;

use crate::spec::log::AnaState;
use crate::spec::nqn::Nqn;
use crate::target::config::NamespaceConfig;
use crate::target::disk::{Backend, DiskRef};
use crate::target::error::TargetError;
use crate::target::subsystem::ana::ANA_GROUP_MAX;
use crate::target::subsystem::visibility::Visibility;

/// A namespace.
#[derive(Debug)]
pub(in crate::target) struct Namespace {
    pub(in crate::target) backend: Backend,
    pub(in crate::target) disk: DiskRef,
    pub(in crate::target) block_shift: u8,
    pub(in crate::target) blocks: u64,
    pub(in crate::target) uuid: Uuid,
    pub(in crate::target) nguid: [u8; 16],
    pub(in crate::target) eui64: Option<[u8; 8]>,
    pub(in crate::target) ana_group: u32,
    /// What its disk has told last of its ANA state, which the group follows; `None`: the disk has none.
    pub(in crate::target) ana_behind: Option<AnaState>,
    pub(in crate::target) visibility: Visibility,
    /// Hosts were told that its disk has failed.
    pub(in crate::target) failure_told: bool,
}

impl Namespace {
    /// Opens what `config` says.
    pub(in crate::target) fn open(
        nqn: &Nqn,
        nsid: u32,
        config: &NamespaceConfig,
    ) -> Result<Self, TargetError> {
        let block_size = config.block_size;
        if !block_size.is_power_of_two() || !(512..=65536).contains(&block_size) {
            return Err(TargetError::InvalidValue(format!(
                "block size {block_size}: a power of two from 512 to 65536 is allowed"
            )));
        }
        let ana_group = config.ana_group.unwrap_or((nsid - 1) % ANA_GROUP_MAX + 1);
        check_group(ana_group)?;
        if let Backend::Memory { bytes } | Backend::Null { bytes } = config.backend {
            check_size(bytes, block_size)?;
        }
        if let Backend::File { bytes: Some(b), .. } = config.backend {
            check_size(b, block_size)?;
        }
        let disk = DiskRef::open(&config.backend).map_err(|e| TargetError::Io {
            what: match &config.backend {
                Backend::Memory { bytes } => format!("{bytes} bytes of memory"),
                Backend::Null { .. } => "null namespace".into(),
                Backend::Disk(_) => "disk".into(),
                Backend::File { path, .. } => path.display().to_string(),
            },
            error: e.to_string(),
        })?;
        let bytes = disk.bytes();
        check_size(bytes, block_size)?;
        let ana_behind = disk.ana_state();
        let uuid = config.uuid.or_else(|| disk.uuid());
        let uuid = uuid.unwrap_or_else(|| default_uuid(nqn, nsid, &config.backend));
        Ok(Self {
            backend: config.backend.clone(),
            disk,
            // At most 16, so nothing is cut off.
            block_shift: block_size.ilog2().to_le_bytes()[0],
            blocks: bytes / u64::from(block_size),
            uuid,
            nguid: config.nguid.unwrap_or_else(|| uuid.into_bytes()),
            eui64: config.eui64,
            ana_group,
            ana_behind,
            visibility: Visibility::new(config.auto_visible),
            failure_told: false,
        })
    }

    pub(in crate::target) fn bytes(&self) -> u64 {
        self.blocks << self.block_shift
    }

    /// Changes the size of its disk, and with it its own as soon as that is looked at.
    pub(in crate::target) fn resize(&mut self, bytes: u64) -> Result<(), TargetError> {
        check_size(bytes, 1 << self.block_shift)?;
        self.disk.resize(bytes).map_err(|e| TargetError::Io {
            what: format!("{bytes} bytes"),
            error: e.to_string(),
        })
    }

    /// Takes on the ANA state that its disk has, if it has one. Returns whether that is another one.
    pub(in crate::target) fn follow_ana(&mut self) -> bool {
        let now = self.disk.ana_state();
        now.is_some() && std::mem::replace(&mut self.ana_behind, now) != now
    }

    /// Takes on the size that its disk has, in whole blocks. Returns whether that is another one. A disk without any keeps
    /// the size that it had.
    pub(in crate::target) fn follow_disk(&mut self) -> bool {
        let blocks = self.disk.bytes() >> self.block_shift;
        if blocks == 0 || blocks == self.blocks {
            return false;
        }
        self.blocks = blocks;
        let bytes = self.bytes();
        match &mut self.backend {
            Backend::Memory { bytes: b } | Backend::Null { bytes: b } => *b = bytes,
            Backend::File { bytes: b, .. } => *b = Some(bytes),
            Backend::Disk(_) => {}
        }
        true
    }
}

/// A host takes a namespace that comes back for the same only if its UUID is the same, so the UUID follows from
/// subsystem and NSID. Memory is told apart from what keeps its data: it comes back as the same namespace, but empty.
fn default_uuid(nqn: &Nqn, nsid: u32, backend: &Backend) -> Uuid {
    // FNV-1a of 128 bits.
    const OFFSET_BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = (1 << 88) + 0x13b;
    let kind: &[u8] = match backend {
        Backend::Memory { .. } => b"memory",
        _ => b"",
    };
    let bytes = nqn.as_str().bytes().chain(nsid.to_le_bytes());
    let bytes = bytes.chain(kind.iter().copied());
    let hash = bytes.fold(OFFSET_BASIS, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(PRIME)
    });
    uuid::Builder::from_custom_bytes(hash.to_be_bytes()).into_uuid()
}

pub(in crate::target) fn check_group(group: u32) -> Result<(), TargetError> {
    if (1..=ANA_GROUP_MAX).contains(&group) {
        return Ok(());
    }
    Err(TargetError::InvalidValue(format!(
        "ANA group {group}: 1 to {ANA_GROUP_MAX} is allowed"
    )))
}

fn check_size(bytes: u64, block_size: u32) -> Result<(), TargetError> {
    if bytes == 0 || !bytes.is_multiple_of(block_size.into()) {
        return Err(TargetError::InvalidValue(format!(
            "namespace size {bytes}: a multiple of the block size ({block_size} bytes) above zero is allowed"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_made_again_has_the_same_uuid() {
        let nqn: Nqn = "nqn.2014-08.org.example:a".parse().unwrap();
        let other: Nqn = "nqn.2014-08.org.example:b".parse().unwrap();
        let null = Backend::Null { bytes: 512 };
        let memory = Backend::Memory { bytes: 512 };
        let uuid = default_uuid(&nqn, 1, &null);
        assert_eq!(default_uuid(&nqn, 1, &null), uuid);
        assert_ne!(default_uuid(&nqn, 2, &null), uuid);
        assert_ne!(default_uuid(&other, 1, &null), uuid);
        // The data is gone with a restart, but this is the same namespace to a host that waits for it.
        assert_eq!(
            default_uuid(&nqn, 1, &memory),
            default_uuid(&nqn, 1, &memory)
        );
        assert_ne!(default_uuid(&nqn, 1, &memory), uuid);
    }
}
