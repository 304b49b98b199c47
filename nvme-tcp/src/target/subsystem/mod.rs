//! What hosts can be given: subsystems with their namespaces and listeners, the ANA states of each listener, and what the
//! discovery log lists. Plain data: the home reactor owns the authoritative copy, control changes it, admin commands read it,
//! and I/O reactors have copies of what they need ([`Subsystem::view`]).

pub(in crate::target) mod ana;
pub(in crate::target) mod discovery;
mod namespace;
pub(in crate::target) mod visibility;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::auth::Policy;
use crate::spec::log::AnaState;
use crate::spec::nqn::{HostNqn, Nqn};
use crate::target::admin::controller::{Controller, Promised};
use crate::target::admin::identify::MDTS_UNIT;
use crate::target::config::{HostAccess, SubsystemConfig};
use crate::target::error::TargetError;
use crate::target::io::TRANSFER_MAX;
use crate::target::io::command::Limits;
use crate::target::io::message::NamespaceView;
use crate::target::status::{ListenerStatus, NamespaceStatus, SubsystemStatus};
use crate::target::subsystem::ana::AnaGroups;
use crate::target::subsystem::discovery::Discovery;
use crate::tls::HostPsk;

pub(in crate::target) use self::namespace::{Namespace, check_group};

/// Highest namespace identifier that a subsystem can be given.
pub const NAMESPACES_MAX: u32 = 1024;

/// CQT of a new target in ms. Half of it is what the kernel may take for a write to a file that it has begun, on a busy
/// machine; all other disks give up what they have at once.
pub(in crate::target) const CQT_MS: u16 = 1000;

/// What a target is configured to be.
#[derive(Debug)]
pub(in crate::target) struct Configuration {
    pub(in crate::target) subsystems: BTreeMap<Nqn, Subsystem>,
    pub(in crate::target) discovery: Discovery,
    /// Command retry delay times, which Identify Controller reports, in units of 100 ms.
    pub(in crate::target) retry_delays: [u16; 3],
    /// What controllers promise that come to be from now on.
    pub(in crate::target) promised: Promised,
    /// So many subsystems there may be.
    pub(in crate::target) subsystems_max: usize,
    /// A host may have several controllers of a subsystem by one listener.
    pub(in crate::target) duplicate_hosts: bool,
    /// The kernel is to encrypt secure connections that are accepted from now on.
    pub(in crate::target) ktls: bool,
    /// What hosts that authenticate may choose from.
    pub(in crate::target) auth_policy: Policy,
}

impl Configuration {
    /// The keys that hosts may use at this listener.
    pub(in crate::target) fn psks(&self, listener: SocketAddr) -> impl Iterator<Item = &HostPsk> {
        self.subsystems
            .values()
            .filter(move |s| s.listener(listener).is_some())
            .flat_map(|s| s.hosts.values())
            .filter_map(|access| access.psk.as_ref())
    }
}

impl Default for Configuration {
    fn default() -> Self {
        Self {
            subsystems: BTreeMap::new(),
            discovery: Discovery::default(),
            retry_delays: [0; 3],
            auth_policy: Policy::default(),
            promised: Promised {
                transfer_max: TRANSFER_MAX,
                masked_oncs: 0,
                cqt_ms: CQT_MS,
            },
            subsystems_max: usize::MAX,
            duplicate_hosts: true,
            ktls: false,
        }
    }
}

/// One address of one subsystem.
#[derive(Debug)]
pub(in crate::target) struct SubsystemListener {
    pub(in crate::target) addr: SocketAddr,
    /// For TLS and nothing else.
    pub(in crate::target) secure: bool,
    pub(in crate::target) ana: AnaGroups,
}

/// A subsystem.
#[derive(Debug)]
pub(in crate::target) struct Subsystem {
    pub(in crate::target) config: SubsystemConfig,
    /// Hosts on the list, with the keys that they must have.
    pub(in crate::target) hosts: BTreeMap<HostNqn, HostAccess>,
    pub(in crate::target) namespaces: BTreeMap<u32, Namespace>,
    pub(in crate::target) listeners: Vec<SubsystemListener>,
    /// Where the search for a free controller identifier starts. Identifiers go round rather than being
    /// used again at once, so that a late message of a former host finds nobody.
    pub(in crate::target) next_cntlid: u16,
}

/// Bytes that one Write Zeroes may zero, of a WZSL.
fn zeroed_max(wzsl: u8) -> u64 {
    let units = 1u64.checked_shl(u32::from(wzsl)).filter(|_| wzsl > 0);
    let bytes = units.and_then(|units| units.checked_mul(u64::from(MDTS_UNIT)));
    bytes.unwrap_or(u64::MAX)
}

impl Subsystem {
    pub(in crate::target) fn new(config: SubsystemConfig) -> Result<Self, TargetError> {
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
            hosts: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            listeners: Vec::new(),
        })
    }

    pub(in crate::target) fn allows(&self, host: &HostNqn) -> bool {
        self.config.allow_any_host || self.hosts.contains_key(host)
    }

    pub(in crate::target) fn listener(&self, addr: SocketAddr) -> Option<&SubsystemListener> {
        self.listeners.iter().find(|l| l.addr == addr)
    }

    pub(in crate::target) fn listener_mut(
        &mut self,
        addr: SocketAddr,
    ) -> Result<&mut SubsystemListener, TargetError> {
        self.listeners
            .iter_mut()
            .find(|l| l.addr == addr)
            .ok_or(TargetError::NoSuchListener(addr))
    }

    /// The NSID for a new namespace: the one asked for, or the lowest that is free.
    pub(in crate::target) fn new_nsid(&self, wanted: Option<u32>) -> Result<u32, TargetError> {
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
    pub(in crate::target) fn new_cntlid(&mut self, used: &BTreeSet<u16>) -> Option<u16> {
        let (min, max) = (self.config.min_cntlid, self.config.max_cntlid);
        let start = self.next_cntlid;
        let cntlid = (start..=max)
            .chain(min..start)
            .find(|c| !used.contains(c))?;
        self.next_cntlid = if cntlid == max { min } else { cntlid + 1 };
        Some(cntlid)
    }

    /// ANA state of a namespace through a listener; optimized without ANA reporting.
    pub(in crate::target) fn ana_state(&self, addr: SocketAddr, group: u32) -> AnaState {
        match self.listener(addr) {
            Some(listener) if self.config.ana_reporting => listener.ana.state(group),
            _ => AnaState::OPTIMIZED,
        }
    }

    /// The namespaces that a host may see, in order of their identifiers.
    pub(in crate::target) fn seen_by(
        &self,
        host: &HostNqn,
    ) -> impl Iterator<Item = (u32, &Namespace)> {
        let seen = self.namespaces.iter().map(|(&nsid, n)| (nsid, n));
        seen.filter(|(_, n)| n.visibility.includes(host))
    }

    /// A namespace, if the host may see it.
    pub(in crate::target) fn seen(&self, host: &HostNqn, nsid: u32) -> Option<&Namespace> {
        let namespace = self.namespaces.get(&nsid);
        namespace.filter(|n| n.visibility.includes(host))
    }

    /// What an I/O reactor needs to serve `nsid` to a controller; `None`: it is not there for the controller's host.
    pub(in crate::target) fn view(
        &self,
        controller: &Controller,
        nsid: u32,
    ) -> Option<NamespaceView> {
        let namespace = self.seen(&controller.hostnqn, nsid)?;
        Some(NamespaceView {
            limits: Limits {
                transfer_max: controller.promised.transfer_max,
                masked_oncs: controller.promised.masked_oncs,
                range_blocks_max: self.config.dmrsl,
                zeroed_max: zeroed_max(self.config.wzsl),
            },
            disk: namespace.disk.clone(),
            block_shift: namespace.block_shift,
            blocks: namespace.blocks,
            ana: self.ana_state(controller.listener, namespace.ana_group),
        })
    }

    /// (group, NSID) of every namespace that a host may see.
    pub(in crate::target) fn members(&self, host: &HostNqn) -> impl Iterator<Item = (u32, u32)> {
        self.seen_by(host).map(|(nsid, n)| (n.ana_group, nsid))
    }

    /// Whether a host may hear of a change of an ANA group: not where all that is in the group is hidden from it.
    pub(in crate::target) fn hears_of_group(&self, host: &HostNqn, group: u32) -> bool {
        let members = || self.namespaces.values().filter(|n| n.ana_group == group);
        members().next().is_none() || members().any(|n| n.visibility.includes(host))
    }

    /// A namespace joined or left `group`: that is a change of every listener's ANA log. One that follows its disk is alone
    /// in its group, which goes on as it was set when the namespace has left.
    pub(in crate::target) fn note_membership(&mut self, group: u32) {
        let behind = self.ana_behind(group);
        for listener in &mut self.listeners {
            listener.ana.note_membership(group);
            listener.ana.set_behind(group, behind);
        }
    }

    /// The state that a group follows; optimized where it follows none.
    fn ana_behind(&self, group: u32) -> AnaState {
        let members = self.namespaces.values().filter(|n| n.ana_group == group);
        let behind = members.filter_map(|n| n.ana_behind).next();
        behind.unwrap_or(AnaState::OPTIMIZED)
    }

    /// The disk of the namespace in this group has another state. Returns the listeners where that changes what is reported.
    pub(in crate::target) fn follow_behind(&mut self, group: u32) -> Vec<SocketAddr> {
        let behind = self.ana_behind(group);
        let listeners = self.listeners.iter_mut();
        let changed = listeners.filter_map(|l| l.ana.set_behind(group, behind).then_some(l.addr));
        changed.collect()
    }

    /// What the groups begin with through a new listener.
    pub(in crate::target) fn new_ana_groups(&self) -> AnaGroups {
        let mut groups = AnaGroups::default();
        for namespace in self.namespaces.values() {
            if let Some(behind) = namespace.ana_behind {
                groups.set_behind(namespace.ana_group, behind);
            }
        }
        groups
    }

    /// Whether a namespace may be in this group. A group has one state, so a namespace that follows its disk has one for
    /// itself.
    pub(in crate::target) fn check_membership(
        &self,
        nsid: u32,
        group: u32,
        ana_behind: Option<AnaState>,
    ) -> Result<(), TargetError> {
        check_group(group)?;
        if ana_behind.is_some() && !self.config.ana_reporting {
            return Err(TargetError::InvalidValue(format!(
                "subsystem '{}' does not report ANA (ana_reporting), so nothing can follow the ANA state of a disk",
                self.config.nqn
            )));
        }
        let mut others = self.namespaces.iter();
        let conflict = others.find(|(other, n)| {
            **other != nsid
                && n.ana_group == group
                && (ana_behind.is_some() || n.ana_behind.is_some())
        });
        match conflict {
            None => Ok(()),
            Some((other, _)) => Err(TargetError::InvalidValue(format!(
                "ANA group {group}: namespace {other} is in it, and a namespace that follows the ANA state of its disk needs a group for itself"
            ))),
        }
    }

    pub(in crate::target) fn status(&self) -> SubsystemStatus {
        SubsystemStatus {
            nqn: self.config.nqn.clone(),
            serial: self.config.serial.clone(),
            model: self.config.model.clone(),
            max_namespaces: self.config.max_namespaces,
            ana_reporting: self.config.ana_reporting,
            allow_any_host: self.config.allow_any_host,
            cntlid_range: (self.config.min_cntlid, self.config.max_cntlid),
            dmrsl: self.config.dmrsl,
            wzsl: self.config.wzsl,
            hosts: self.hosts.keys().cloned().collect(),
            host_keys: self
                .hosts
                .iter()
                .filter_map(|(host, access)| {
                    Some((host.clone(), access.keys.as_ref()?.names.clone()))
                })
                .collect(),
            host_psks: self
                .hosts
                .iter()
                .filter_map(|(host, access)| {
                    Some((host.clone(), access.psk.as_ref()?.name().to_owned()))
                })
                .collect(),
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
                    ana_behind: n.ana_behind,
                    failure: n.disk.failure().map(|error| error.to_string()),
                    in_flight: 0,
                    hosts: n.visibility.listed(),
                })
                .collect(),
            listeners: self
                .listeners
                .iter()
                .map(|l| ListenerStatus {
                    addr: l.addr,
                    secure: l.secure,
                    ana_states: l.ana.list(self.namespaces.values().map(|n| n.ana_group)),
                    ana_set: l.ana.list_set(),
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
