//! Changes of the configuration of a running target, and its status.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use pollux_reactor::Time;

use crate::counters::CounterReset;
use crate::spec::log::AnaState;
use crate::spec::nqn::{HostNqn, Nqn};
use crate::target::admin::controller::Controller;
use crate::target::admin::events::Kind;
use crate::target::admin::identify::MDTS_UNIT;
use crate::target::config::{HostAccess, HostKeys, NamespaceConfig, Referral, SubsystemConfig};
use crate::target::control::Home;
use crate::target::control::HomeTurn;
use crate::target::disk::DiskRef;
use crate::target::error::TargetError;
use crate::target::io::ControllerKey;
use crate::target::io::TRANSFER_MAX;
use crate::target::io::channels::Scope;
use crate::target::io::message::{IoMessage, ReactorReport};
use crate::target::status::{
    ControllerStatus, DiskStatus, QpairCounters, QpairStatus, ReactorStatus, SubsystemStatus,
    TargetStatus,
};
use crate::target::subsystem::ana::ANA_GROUP_MAX;
use crate::target::subsystem::visibility::Visibility;
use crate::target::subsystem::{Namespace, Subsystem, SubsystemListener, check_group};

impl Home {
    pub(super) fn create_subsystem(&mut self, config: SubsystemConfig) -> Result<(), TargetError> {
        if config.nqn.is_discovery() || self.config.subsystems.contains_key(&config.nqn) {
            return Err(TargetError::SubsystemExists(config.nqn));
        }
        if self.config.subsystems.len() >= self.config.subsystems_max {
            let max = self.config.subsystems_max;
            return Err(TargetError::TooManySubsystems(max));
        }
        let subsystem = Subsystem::new(config)?;
        let nqn = subsystem.config.nqn.clone();
        self.config.subsystems.insert(nqn, subsystem);
        Ok(())
    }

    /// Removes what `scope` says, and sees hosts off that used it.
    pub(super) fn remove(
        &mut self,
        scope: &Scope,
        turn: &mut HomeTurn<'_, '_>,
    ) -> Result<(), TargetError> {
        match scope {
            Scope::Subsystem(nqn) => {
                self.subsystem(nqn)?;
                self.config.subsystems.remove(nqn);
                self.close_controllers(|c| c.subnqn == *nqn, turn);
                self.close_unused_ports();
                self.note_discovery_change();
            }
            &Scope::Namespace(ref nqn, nsid) => {
                let subsystem = self.subsystem(nqn)?;
                let removed = subsystem.namespaces.remove(&nsid);
                let removed = removed.ok_or(TargetError::NoSuchNamespace(nsid))?;
                subsystem.note_membership(removed.ana_group);
                self.namespace_changed(nqn, nsid, &removed.visibility, turn);
            }
            Scope::Visibility(nqn, nsid, host) => self.hide_namespace(nqn, *nsid, host, turn)?,
            Scope::Listener(nqn, addr) => self.remove_listener(nqn, *addr, turn)?,
            Scope::Host(nqn, host) => {
                if self.subsystem(nqn)?.hosts.remove(host).is_none() {
                    return Err(TargetError::NoSuchHost(host.clone()));
                }
                self.close_controllers(|c| c.subnqn == *nqn && c.hostnqn == *host, turn);
                self.note_discovery_change();
            }
        }
        Ok(())
    }

    pub(super) fn resize_namespace(
        &mut self,
        nqn: &Nqn,
        nsid: u32,
        bytes: u64,
        turn: &mut HomeTurn<'_, '_>,
    ) -> Result<(), TargetError> {
        self.namespace(nqn, nsid)?.resize(bytes)?;
        // And whatever else is on its disk.
        self.disks_changed(turn);
        Ok(())
    }

    pub(super) fn set_namespace_ana_group(
        &mut self,
        nqn: &Nqn,
        nsid: u32,
        group: u32,
        turn: &mut HomeTurn<'_, '_>,
    ) -> Result<(), TargetError> {
        let behind = self.namespace(nqn, nsid)?.ana_behind;
        self.subsystem(nqn)?.check_membership(nsid, group, behind)?;
        let namespace = self.namespace(nqn, nsid)?;
        let old = std::mem::replace(&mut namespace.ana_group, group);
        let seen = namespace.visibility.clone();
        if old != group {
            let subsystem = self.subsystem(nqn)?;
            subsystem.note_membership(old);
            subsystem.note_membership(group);
            self.namespace_changed(nqn, nsid, &seen, turn);
            self.raise_ana(nqn, |c| seen.includes(&c.hostnqn));
        }
        Ok(())
    }

    pub(super) fn add_host(
        &mut self,
        nqn: &Nqn,
        host: &HostNqn,
        access: HostAccess,
    ) -> Result<(), TargetError> {
        match self.subsystem(nqn)?.hosts.entry(host.clone()) {
            Entry::Occupied(_) => return Err(TargetError::HostExists(host.clone())),
            Entry::Vacant(entry) => entry.insert(access),
        };
        self.note_discovery_change();
        Ok(())
    }

    /// Connections that there are stay.
    pub(super) fn set_keys(
        &mut self,
        nqn: &Nqn,
        host: &HostNqn,
        keys: Option<HostKeys>,
    ) -> Result<(), TargetError> {
        let entry = self.subsystem(nqn)?.hosts.get_mut(host);
        let entry = entry.ok_or_else(|| TargetError::NoSuchHost(host.clone()))?;
        entry.keys = keys;
        Ok(())
    }

    pub(super) fn allow_any_host(&mut self, nqn: &Nqn, allow: bool) -> Result<(), TargetError> {
        let subsystem = self.subsystem(nqn)?;
        if allow && subsystem.listeners.iter().any(|l| l.secure) {
            return Err(TargetError::InvalidValue(
                "allow_any_host: a subsystem with a secure listener has keys for the hosts on its list only"
                    .into(),
            ));
        }
        subsystem.config.allow_any_host = allow;
        self.note_discovery_change();
        Ok(())
    }

    pub(super) fn add_referral(&mut self, referral: Referral) -> Result<(), TargetError> {
        if self.config.discovery.referrals.contains(&referral) {
            return Err(TargetError::ReferralExists);
        }
        self.config.discovery.referrals.push(referral);
        self.note_discovery_change();
        Ok(())
    }

    pub(super) fn remove_referral(&mut self, referral: &Referral) -> Result<(), TargetError> {
        let referrals = &mut self.config.discovery.referrals;
        let at = referrals.iter().position(|r| r == referral);
        referrals.remove(at.ok_or(TargetError::NoSuchReferral)?);
        self.note_discovery_change();
        Ok(())
    }

    /// An MDTS of 0 is no limit, so 4096 cannot be told.
    pub(super) fn set_max_io_size(&mut self, bytes: u32) -> Result<(), TargetError> {
        if !bytes.is_power_of_two() || !(2 * MDTS_UNIT..=TRANSFER_MAX).contains(&bytes) {
            return Err(TargetError::InvalidValue(format!(
                "'max_io_size' {bytes}: a power of two from 8192 to {TRANSFER_MAX} is allowed"
            )));
        }
        self.config.promised.transfer_max = bytes;
        Ok(())
    }

    /// Those that there are stay.
    pub(super) fn set_max_subsystems(&mut self, max: usize) -> Result<(), TargetError> {
        let present = self.config.subsystems.len();
        if max < present.max(1) {
            return Err(TargetError::InvalidValue(format!(
                "'max_subsystems' {max}: {present} are there, and at least 1 is allowed"
            )));
        }
        self.config.subsystems_max = max;
        Ok(())
    }

    pub(super) fn subsystems(&self) -> Vec<SubsystemStatus> {
        let subsystems = self.config.subsystems.values();
        subsystems.map(Subsystem::status).collect()
    }

    pub(super) fn subsystem(&mut self, nqn: &Nqn) -> Result<&mut Subsystem, TargetError> {
        if nqn.is_discovery() {
            return Err(TargetError::Discovery);
        }
        self.config
            .subsystems
            .get_mut(nqn)
            .ok_or_else(|| TargetError::NoSuchSubsystem(nqn.clone()))
    }

    pub(super) fn namespace(
        &mut self,
        nqn: &Nqn,
        nsid: u32,
    ) -> Result<&mut Namespace, TargetError> {
        self.subsystem(nqn)?
            .namespaces
            .get_mut(&nsid)
            .ok_or(TargetError::NoSuchNamespace(nsid))
    }

    pub(super) fn add_namespace(
        &mut self,
        nqn: &Nqn,
        nsid: Option<u32>,
        config: &NamespaceConfig,
        turn: &mut HomeTurn<'_, '_>,
    ) -> Result<u32, TargetError> {
        let change = self.disk_change.clone();
        let subsystem = self.subsystem(nqn)?;
        let nsid = subsystem.new_nsid(nsid)?;
        let mut namespace = Namespace::open(nqn, nsid, config)?;
        let (group, seen) = (namespace.ana_group, namespace.visibility.clone());
        subsystem.check_membership(nsid, group, namespace.ana_behind)?;
        namespace.disk.watch(change);
        // What it was before may have changed meanwhile.
        namespace.follow_disk();
        namespace.follow_ana();
        subsystem.namespaces.insert(nsid, namespace);
        subsystem.note_membership(group);
        self.namespace_changed(nqn, nsid, &seen, turn);
        Ok(nsid)
    }

    /// Brings the new state of a namespace to all reactors, and tells the hosts that see it, or did until now.
    pub(super) fn namespace_changed(
        &mut self,
        nqn: &Nqn,
        nsid: u32,
        seen: &Visibility,
        turn: &mut HomeTurn<'_, '_>,
    ) {
        let of = |c: &Controller| c.subnqn == *nqn && seen.includes(&c.hostnqn);
        self.send_views(of, |id, _| id == nsid, Some(nsid), turn);
        for controller in self.controllers.values_mut().filter(|c| of(c)) {
            controller.changed_namespaces.insert(nsid);
        }
        self.raise(Kind::Namespace, of);
    }

    /// A disk has another size or ANA state, or has failed: the hosts that see a namespace on it hear so, of a failure once.
    pub(in crate::target) fn disks_changed(&mut self, turn: &mut HomeTurn<'_, '_>) {
        let mut degraded = Vec::new();
        let mut resized = Vec::new();
        let mut moved = Vec::new();
        for (nqn, subsystem) in &mut self.config.subsystems {
            for (&nsid, namespace) in &mut subsystem.namespaces {
                if !namespace.failure_told && namespace.disk.failure().is_some() {
                    namespace.failure_told = true;
                    degraded.push((nqn.clone(), namespace.visibility.clone()));
                }
                if namespace.follow_disk() {
                    resized.push((nqn.clone(), nsid, namespace.visibility.clone()));
                }
                if namespace.follow_ana() {
                    moved.push((nqn.clone(), namespace.ana_group));
                }
            }
        }
        for (nqn, group) in moved {
            let listeners = self.subsystem(&nqn).map(|s| s.follow_behind(group));
            for addr in listeners.unwrap_or_default() {
                self.ana_changed(&nqn, addr, &[group], turn);
            }
        }
        for (nqn, nsid, seen) in resized {
            self.namespace_changed(&nqn, nsid, &seen, turn);
        }
        self.raise(Kind::Health, |c| {
            let sees =
                |(nqn, seen): &(Nqn, Visibility)| *nqn == c.subnqn && seen.includes(&c.hostnqn);
            degraded.iter().any(sees)
        });
    }

    /// Sends views of namespaces (NSID, ANA group) to all reactors, for the controllers for which `of`
    /// holds and as far as their hosts see them; for `gone`, if that is not there for them any more, that it is gone.
    fn send_views(
        &self,
        of: impl Fn(&Controller) -> bool,
        which: impl Fn(u32, u32) -> bool,
        gone: Option<u32>,
        turn: &mut HomeTurn<'_, '_>,
    ) {
        for controller in self.controllers.values().filter(|c| of(c)) {
            let Some(subsystem) = self.config.subsystems.get(&controller.subnqn) else {
                continue;
            };
            let host = &controller.hostnqn;
            let present = subsystem
                .seen_by(host)
                .filter(|(nsid, n)| which(*nsid, n.ana_group))
                .map(|(nsid, _)| nsid);
            let gone = gone.filter(|&nsid| subsystem.seen(host, nsid).is_none());
            for nsid in present.chain(gone) {
                let view = subsystem.view(controller, nsid);
                for reactor in 0..turn.links.reactors() {
                    let message = IoMessage::Namespace {
                        key: controller.key,
                        nsid,
                        view: view.clone(),
                    };
                    turn.links.send_io(reactor, message);
                }
            }
        }
    }

    pub(super) fn set_ana_state(
        &mut self,
        nqn: &Nqn,
        addr: SocketAddr,
        group: Option<u32>,
        state: AnaState,
        turn: &mut HomeTurn<'_, '_>,
    ) -> Result<(), TargetError> {
        if state.name().is_none() {
            return Err(TargetError::InvalidValue(format!(
                "ANA state {state}: optimized, non_optimized, inaccessible, persistent_loss or change is allowed"
            )));
        }
        if let Some(group) = group {
            check_group(group)?;
        }
        let subsystem = self.subsystem(nqn)?;
        if !subsystem.config.ana_reporting {
            return Err(TargetError::InvalidValue(format!(
                "subsystem '{nqn}' does not report ANA"
            )));
        }
        let ana = &mut subsystem.listener_mut(addr)?.ana;
        let groups = group.map_or(1..=ANA_GROUP_MAX, |g| g..=g);
        let changed: Vec<u32> = groups.filter(|&group| ana.set(group, state)).collect();
        if !changed.is_empty() {
            self.ana_changed(nqn, addr, &changed, turn);
        }
        Ok(())
    }

    /// A listener reports other states of these groups.
    fn ana_changed(
        &mut self,
        nqn: &Nqn,
        addr: SocketAddr,
        groups: &[u32],
        turn: &mut HomeTurn<'_, '_>,
    ) {
        let told = self.who_hears(nqn, addr, groups);
        // First the I/O reactors, then the hosts: who has heard of the change finds it in effect.
        self.send_views(
            |c| c.subnqn == *nqn && c.listener == addr,
            |_, group| groups.contains(&group),
            None,
            turn,
        );
        self.raise_ana(nqn, |c| told.contains(&c.key));
    }

    /// The controllers of a listener whose hosts may hear of a change of one of these groups.
    fn who_hears(&self, nqn: &Nqn, addr: SocketAddr, groups: &[u32]) -> BTreeSet<ControllerKey> {
        let Some(subsystem) = self.config.subsystems.get(nqn) else {
            return BTreeSet::new();
        };
        let controllers = self.controllers.values();
        let of_listener = controllers.filter(|c| c.subnqn == *nqn && c.listener == addr);
        let hears = |c: &&Controller| {
            let mut groups = groups.iter();
            groups.any(|&group| subsystem.hears_of_group(&c.hostnqn, group))
        };
        of_listener.filter(hears).map(|c| c.key).collect()
    }

    /// The ANA log changed for the subsystem's controllers for which `of` holds.
    fn raise_ana(&mut self, nqn: &Nqn, of: impl Fn(&Controller) -> bool) {
        if self
            .config
            .subsystems
            .get(nqn)
            .is_some_and(|s| s.config.ana_reporting)
        {
            self.raise(Kind::Ana, |c| c.subnqn == *nqn && of(c));
        }
    }

    pub(super) fn add_listener(
        &mut self,
        nqn: &Nqn,
        addr: SocketAddr,
        secure: bool,
        turn: &mut HomeTurn<'_, '_>,
    ) -> Result<SocketAddr, TargetError> {
        if secure {
            let invalid = |what: &str| TargetError::InvalidValue(format!("secure_channel: {what}"));
            if !cfg!(feature = "tls") {
                return Err(invalid("this program was built without TLS"));
            }
            if nqn.is_discovery() {
                return Err(invalid("discovery has no keys of hosts"));
            }
            if self.subsystem(nqn)?.config.allow_any_host {
                return Err(invalid(
                    "not where any host is allowed (allow_any_host): hosts need keys",
                ));
            }
        }
        let exists = if nqn.is_discovery() {
            self.config.discovery.listeners.contains(&addr)
        } else {
            self.subsystem(nqn)?.listener(addr).is_some()
        };
        if exists {
            return Err(TargetError::ListenerExists(addr));
        }
        let addr = if let Some(&(_, as_is)) = self.ports.get(&addr) {
            if as_is != secure {
                let is = if as_is { "is" } else { "is not" };
                return Err(TargetError::InvalidValue(format!(
                    "secure_channel: {addr} {is} secure already, for another subsystem"
                )));
            }
            addr
        } else {
            let io_error = |error: std::io::Error| TargetError::Io {
                what: format!("listen on {addr}"),
                error: error.to_string(),
            };
            let listener = turn.cx.net().listen(addr).map_err(io_error)?;
            let addr = listener.local_addr().map_err(io_error)?;
            self.ports.insert(addr, (listener, secure));
            self.measure_admission();
            addr
        };
        if nqn.is_discovery() {
            self.config.discovery.listeners.push(addr);
        } else {
            let subsystem = self.subsystem(nqn)?;
            let ana = subsystem.new_ana_groups();
            let listener = SubsystemListener { addr, secure, ana };
            subsystem.listeners.push(listener);
        }
        self.note_discovery_change();
        Ok(addr)
    }

    fn remove_listener(
        &mut self,
        nqn: &Nqn,
        addr: SocketAddr,
        turn: &mut HomeTurn<'_, '_>,
    ) -> Result<(), TargetError> {
        if nqn.is_discovery() {
            let listeners = &mut self.config.discovery.listeners;
            let at = listeners.iter().position(|l| *l == addr);
            listeners.remove(at.ok_or(TargetError::NoSuchListener(addr))?);
        } else {
            let listeners = &mut self.subsystem(nqn)?.listeners;
            let at = listeners.iter().position(|l| l.addr == addr);
            listeners.remove(at.ok_or(TargetError::NoSuchListener(addr))?);
        }
        self.close_controllers(|c| c.subnqn == *nqn && c.listener == addr, turn);
        self.close_unused_ports();
        self.note_discovery_change();
        Ok(())
    }

    /// Whether TLS is spoken at this address, and nothing else.
    pub(super) fn is_secure(&self, listener: SocketAddr) -> bool {
        matches!(self.ports.get(&listener), Some((_, true)))
    }

    /// Closes the ports that no subsystem listens on any more.
    fn close_unused_ports(&mut self) {
        let (discovery, subsystems) = (&self.config.discovery, &self.config.subsystems);
        self.ports.retain(|addr, _| {
            discovery.listeners.contains(addr)
                || subsystems.values().any(|s| s.listener(*addr).is_some())
        });
    }

    /// Everything, given what the reactors have reported.
    pub(in crate::target) fn status(&self, reports: Vec<ReactorReport>) -> TargetStatus {
        let mut qpairs: BTreeMap<ControllerKey, Vec<QpairStatus>> = BTreeMap::new();
        let mut reactors: Vec<ReactorStatus> = Vec::new();
        let at = reports.first().map(|report| report.at);
        let mut disks: Vec<DiskStatus> = Vec::new();
        for (reactor, report) in reports.into_iter().enumerate() {
            disks.extend(report.disks.into_iter().map(|report| DiskStatus {
                disk: report.disk,
                reactor,
                in_flight: report.in_flight,
                counters: report.counters,
            }));
            for (key, qpair) in report.qpairs {
                qpairs.entry(key).or_default().push(qpair);
            }
            reactors.push(report.status);
        }
        if let Some(home) = reactors.first_mut() {
            home.admin_qpairs = self.admin_qpairs;
            home.current_admin_qpairs = self.controllers.len();
        }
        let mut status = TargetStatus {
            subsystems: self.subsystems(),
            discovery_controllers: Vec::new(),
            referrals: self.config.discovery.referrals.clone(),
            discovery_generation: self.config.discovery.generation,
            at: at.unwrap_or(Time::ZERO),
            reactors,
            disks: Vec::new(),
            faults: self.faults.iter().copied().collect(),
            faults_total: self.faults_total,
            refused_connects: self.refused_connects,
            admission: self.admission.counters(),
            cqt_ms: self.config.promised.cqt_ms,
            duplicate_hosts: self.config.duplicate_hosts,
            ktls: self.config.ktls,
        };
        let subsystems = self.config.subsystems.values().zip(&mut status.subsystems);
        for (subsystem, shown) in subsystems {
            let namespaces = subsystem.namespaces.values().zip(&mut shown.namespaces);
            for (namespace, shown) in namespaces {
                let parts = disks.iter().filter(|part| part.disk == namespace.disk);
                shown.in_flight = parts.map(|part| part.in_flight).sum();
            }
        }
        for controller in self.controllers.values() {
            let io = qpairs.remove(&controller.key).unwrap_or_default();
            let entry = controller_status(controller, io);
            if controller.is_discovery() {
                status.discovery_controllers.push(entry);
            } else if let Some(subsystem) = status
                .subsystems
                .iter_mut()
                .find(|s| s.nqn == controller.subnqn)
            {
                subsystem.controllers.push(entry);
            }
        }
        status.disks = disks;
        status
    }

    /// Has all reactors begin counters of these disks, or of all, anew.
    pub(in crate::target) fn reset_counters(
        &mut self,
        (disks, what): (Option<Vec<DiskRef>>, CounterReset),
        turn: &mut HomeTurn<'_, '_>,
        then: impl FnOnce() + Send + 'static,
    ) {
        let message = |part| IoMessage::ResetCounters(disks.clone(), what, part);
        self.ask(message, |_, _| then(), turn);
    }
}

fn controller_status(controller: &Controller, mut io: Vec<QpairStatus>) -> ControllerStatus {
    io.sort_by_key(|q| q.qid);
    for qpair in &mut io {
        let entry = controller.io_queues.get(&qpair.qid);
        qpair.auth = entry.and_then(|entry| entry.auth);
    }
    let admin = &controller.admin;
    let mut qpairs = vec![QpairStatus {
        qid: 0,
        reactor: 0,
        entries: admin.entries,
        peer: admin.peer,
        local: controller.local,
        digests: admin.digests,
        secure: admin.secure,
        ktls: admin.ktls,
        auth: admin.auth,
        counters: QpairCounters {
            commands: admin.commands,
            failed: admin.failed,
            ..QpairCounters::default()
        },
    }];
    qpairs.append(&mut io);
    ControllerStatus {
        cntlid: controller.cntlid,
        hostnqn: controller.hostnqn.clone(),
        hostid: controller.hostid,
        listener: controller.listener,
        kato_ms: controller.kato_ms,
        ready: controller.is_ready(),
        qpairs,
    }
}
