//! Subsystems, namespaces and listeners as they are configured: the authoritative copy, kept on the home
//! reactor.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use uuid::Uuid;

use super::ana::{ANA_GROUP_MAX, AnaGroups};
use super::disk::{Backend, DiskRef};
use super::message::NamespaceView;
use super::request::{NamespaceConfig, SubsystemConfig, TargetError};
use super::status::{ListenerStatus, NamespaceStatus, SubsystemStatus};
use crate::spec::log::AnaState;
use crate::spec::nqn::{HostNqn, Nqn};

/// Highest namespace identifier that a subsystem can be given.
pub const NAMESPACES_MAX: u32 = 1024;

/// A namespace.
#[derive(Debug)]
pub(super) struct Namespace {
    pub(super) backend: Backend,
    pub(super) disk: DiskRef,
    pub(super) block_shift: u8,
    pub(super) blocks: u64,
    pub(super) uuid: Uuid,
    pub(super) nguid: [u8; 16],
    pub(super) eui64: Option<[u8; 8]>,
    pub(super) ana_group: u32,
    /// Hosts were told that its disk has failed.
    pub(super) failure_told: bool,
}

impl Namespace {
    /// Opens what `config` says.
    pub(super) fn open(
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
        let uuid = config.uuid.or_else(|| disk.uuid());
        let uuid = uuid.unwrap_or_else(|| default_uuid(nqn, nsid, &config.backend));
        Ok(Self {
            backend: config.backend.clone(),
            disk,
            block_shift: u8::try_from(block_size.trailing_zeros()).unwrap_or(9),
            blocks: bytes / u64::from(block_size),
            uuid,
            nguid: config.nguid.unwrap_or_else(|| uuid.into_bytes()),
            eui64: config.eui64,
            ana_group,
            failure_told: false,
        })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.blocks << self.block_shift
    }

    /// Changes the size of its disk, and with it its own as soon as that is looked at.
    pub(super) fn resize(&mut self, bytes: u64) -> Result<(), TargetError> {
        check_size(bytes, 1 << self.block_shift)?;
        self.disk.resize(bytes).map_err(|e| TargetError::Io {
            what: format!("{bytes} bytes"),
            error: e.to_string(),
        })
    }

    /// Takes on the size that its disk has, in whole blocks. Returns whether that is another one. A disk without any keeps
    /// the size that it had.
    pub(super) fn follow_disk(&mut self) -> bool {
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

pub(super) fn check_group(group: u32) -> Result<(), TargetError> {
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

/// One address of one subsystem.
#[derive(Debug)]
pub(super) struct SubsystemListener {
    pub(super) addr: SocketAddr,
    pub(super) ana: AnaGroups,
}

/// A subsystem.
#[derive(Debug)]
pub(super) struct Subsystem {
    pub(super) config: SubsystemConfig,
    pub(super) hosts: BTreeSet<HostNqn>,
    pub(super) namespaces: BTreeMap<u32, Namespace>,
    pub(super) listeners: Vec<SubsystemListener>,
    /// Where the search for a free controller identifier starts. Identifiers go round rather than being
    /// used again at once, so that a late message of a former host finds nobody.
    pub(super) next_cntlid: u16,
}

impl Subsystem {
    pub(super) fn new(config: SubsystemConfig) -> Result<Self, TargetError> {
        let printable = |text: &str, max: usize| {
            text.len() <= max && text.bytes().all(|b| (0x20..=0x7e).contains(&b))
        };
        if !printable(&config.serial, 20) {
            return Err(TargetError::InvalidParameters(format!(
                "serial number '{}': up to 20 printable ASCII characters are allowed",
                config.serial.escape_default()
            )));
        }
        if !printable(&config.model, 40) {
            return Err(TargetError::InvalidParameters(format!(
                "model number '{}': up to 40 printable ASCII characters are allowed",
                config.model.escape_default()
            )));
        }
        let (min, max) = (config.min_cntlid, config.max_cntlid);
        if min == 0 || max > 0xffef || min > max {
            return Err(TargetError::InvalidCntlidRange { min, max });
        }
        if !(1..=NAMESPACES_MAX).contains(&config.max_namespaces) {
            return Err(TargetError::InvalidValue(format!(
                "max_namespaces {}: 1 to {NAMESPACES_MAX} is allowed",
                config.max_namespaces
            )));
        }
        Ok(Self {
            next_cntlid: min,
            config,
            hosts: BTreeSet::new(),
            namespaces: BTreeMap::new(),
            listeners: Vec::new(),
        })
    }

    pub(super) fn allows(&self, host: &HostNqn) -> bool {
        self.config.allow_any_host || self.hosts.contains(host)
    }

    pub(super) fn listener(&self, addr: SocketAddr) -> Option<&SubsystemListener> {
        self.listeners.iter().find(|l| l.addr == addr)
    }

    pub(super) fn listener_mut(
        &mut self,
        addr: SocketAddr,
    ) -> Result<&mut SubsystemListener, TargetError> {
        self.listeners
            .iter_mut()
            .find(|l| l.addr == addr)
            .ok_or(TargetError::NoSuchListener(addr))
    }

    /// The NSID for a new namespace: the one asked for, or the lowest that is free.
    pub(super) fn new_nsid(&self, wanted: Option<u32>) -> Result<u32, TargetError> {
        let max = self.config.max_namespaces;
        match wanted {
            Some(nsid) if !(1..=max).contains(&nsid) => Err(TargetError::InvalidValue(format!(
                "nsid {nsid}: 1 to {max} is allowed"
            ))),
            Some(nsid) if self.namespaces.contains_key(&nsid) => {
                Err(TargetError::NamespaceExists(nsid))
            }
            Some(nsid) => Ok(nsid),
            None => (1..=max)
                .find(|nsid| !self.namespaces.contains_key(nsid))
                .ok_or(TargetError::NoFreeNamespace),
        }
    }

    /// A controller identifier that `used` does not contain.
    pub(super) fn new_cntlid(&mut self, used: &BTreeSet<u16>) -> Option<u16> {
        let (min, max) = (self.config.min_cntlid, self.config.max_cntlid);
        let start = self.next_cntlid;
        let cntlid = (start..=max)
            .chain(min..start)
            .find(|c| !used.contains(c))?;
        self.next_cntlid = if cntlid == max { min } else { cntlid + 1 };
        Some(cntlid)
    }

    /// ANA state of a namespace through a listener; optimized without ANA reporting.
    pub(super) fn ana_state(&self, addr: SocketAddr, group: u32) -> AnaState {
        match self.listener(addr) {
            Some(listener) if self.config.ana_reporting => listener.ana.state(group),
            _ => AnaState::OPTIMIZED,
        }
    }

    /// What an I/O reactor needs to serve `nsid` to controllers of listener `addr`.
    pub(super) fn view(
        &self,
        addr: SocketAddr,
        nsid: u32,
        transfer_max: u32,
    ) -> Option<NamespaceView> {
        let namespace = self.namespaces.get(&nsid)?;
        Some(NamespaceView {
            transfer_max,
            disk: namespace.disk.clone(),
            block_shift: namespace.block_shift,
            blocks: namespace.blocks,
            ana: self.ana_state(addr, namespace.ana_group),
        })
    }

    /// (group, NSID) of every namespace.
    pub(super) fn members(&self) -> impl Iterator<Item = (u32, u32)> {
        self.namespaces.iter().map(|(&nsid, n)| (n.ana_group, nsid))
    }

    /// A namespace joined or left `group`: that is a change of every listener's ANA log.
    pub(super) fn note_membership(&mut self, group: u32) {
        for listener in &mut self.listeners {
            listener.ana.note_membership(group);
        }
    }

    pub(super) fn status(&self) -> SubsystemStatus {
        SubsystemStatus {
            nqn: self.config.nqn.clone(),
            serial: self.config.serial.clone(),
            model: self.config.model.clone(),
            max_namespaces: self.config.max_namespaces,
            ana_reporting: self.config.ana_reporting,
            allow_any_host: self.config.allow_any_host,
            cntlid_range: (self.config.min_cntlid, self.config.max_cntlid),
            hosts: self.hosts.iter().cloned().collect(),
            namespaces: self
                .namespaces
                .iter()
                .map(|(&nsid, n)| NamespaceStatus {
                    nsid,
                    backend: n.backend.clone(),
                    block_size: 1 << n.block_shift,
                    blocks: n.blocks,
                    uuid: n.uuid,
                    nguid: n.nguid,
                    eui64: n.eui64,
                    ana_group: n.ana_group,
                    failure: n.disk.failure().map(|error| error.to_string()),
                    in_flight: 0,
                })
                .collect(),
            listeners: self
                .listeners
                .iter()
                .map(|l| ListenerStatus {
                    addr: l.addr,
                    ana_states: l.ana.list(self.namespaces.values().map(|n| n.ana_group)),
                })
                .collect(),
            controllers: Vec::new(),
        }
    }
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
        // Its data is gone with a restart, but it is the same namespace to a host that waits for it.
        assert_eq!(
            default_uuid(&nqn, 1, &memory),
            default_uuid(&nqn, 1, &memory)
        );
        assert_ne!(default_uuid(&nqn, 1, &memory), uuid);
    }

    #[test]
    fn controller_identifiers_go_round_in_their_range() {
        let nqn: Nqn = "nqn.2014-08.org.example:a".parse().unwrap();
        let mut config = SubsystemConfig::new(nqn);
        (config.min_cntlid, config.max_cntlid) = (3, 5);
        let mut subsystem = Subsystem::new(config).unwrap();
        let used = BTreeSet::from([4]);
        let given: Vec<_> = (0..4).map(|_| subsystem.new_cntlid(&used)).collect();
        assert_eq!(given, [Some(3), Some(5), Some(3), Some(5)]);
        let used = BTreeSet::from([3, 4, 5]);
        assert_eq!(subsystem.new_cntlid(&used), None);
    }
}
