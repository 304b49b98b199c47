//! The discovery subsystem: what the Discovery log lists (NVMe Base 2.1, 5.1.12.3.1).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use zerocopy::IntoBytes;

use crate::spec::fabrics::CNTLID_DYNAMIC;
use crate::spec::identify::ascii_field;
use crate::spec::log::{DiscoveryLogEntry, DiscoveryLogHeader, discovery};
use crate::spec::nqn::{HostNqn, Nqn};
use crate::target::config::Referral;
use crate::target::subsystem::Subsystem;
use crate::target::zeroed;

/// Admin Max SQ Size of the entries.
const ASQSZ: u16 = 128;

/// Configuration of the discovery subsystem.
#[derive(Debug, Default)]
pub(in crate::target) struct Discovery {
    /// Addresses that serve discovery and are listed as such. Every other listener serves it as well.
    pub(in crate::target) listeners: Vec<SocketAddr>,
    pub(in crate::target) referrals: Vec<Referral>,
    /// Grows with every change of what the log may list.
    pub(in crate::target) generation: u64,
}

impl Discovery {
    /// The log for a host that is connected to address `local` of this machine.
    pub(in crate::target) fn log(
        &self,
        subsystems: &BTreeMap<Nqn, Subsystem>,
        host: &HostNqn,
        local: SocketAddr,
    ) -> Vec<u8> {
        let mut entries: Vec<Box<DiscoveryLogEntry>> = Vec::new();
        for &addr in &self.listeners {
            let addr = reachable(addr, local);
            entries.push(entry(discovery::SUBTYPE_CURRENT, addr, &Nqn::discovery()));
        }
        for subsystem in subsystems.values().filter(|s| s.allows(host)) {
            for listener in &subsystem.listeners {
                let addr = reachable(listener.addr, local);
                let mut entry = entry(discovery::SUBTYPE_NVM, addr, &subsystem.config.nqn);
                if listener.secure {
                    entry.treq |= discovery::TREQ_SECURE_REQUIRED;
                    entry.tsas[0] = discovery::SECTYPE_TLS13;
                }
                entries.push(entry);
            }
        }
        for referral in &self.referrals {
            let subtype = if referral.subnqn.is_discovery() {
                discovery::SUBTYPE_REFERRAL
            } else {
                discovery::SUBTYPE_NVM
            };
            entries.push(entry(subtype, referral.addr, &referral.subnqn));
        }
        let mut header: Box<DiscoveryLogHeader> = zeroed();
        header.genctr = self.generation.into();
        header.numrec = (entries.len() as u64).into();
        let mut log = header.as_bytes().to_vec();
        for entry in &entries {
            log.extend_from_slice(entry.as_bytes());
        }
        log
    }
}

/// The address under which a host that came to `local` reaches a listener: a wildcard stands for all.
fn reachable(listener: SocketAddr, local: SocketAddr) -> SocketAddr {
    if listener.ip().is_unspecified() {
        SocketAddr::new(local.ip(), listener.port())
    } else {
        listener
    }
}

fn entry(subtype: u8, addr: SocketAddr, subnqn: &Nqn) -> Box<DiscoveryLogEntry> {
    let mut entry: Box<DiscoveryLogEntry> = zeroed();
    entry.trtype = discovery::TRTYPE_TCP;
    entry.adrfam = match addr.ip() {
        IpAddr::V4(_) => discovery::ADRFAM_IPV4,
        IpAddr::V6(_) => discovery::ADRFAM_IPV6,
    };
    entry.subtype = subtype;
    // Nothing is said of secure channels where there is none: nvme-cli takes "not required" for an invitation to use TLS,
    // which is not there.
    entry.treq = discovery::TREQ_SQ_FLOW_CONTROL_OPTIONAL;
    // All our listeners reach the same subsystems: the port number serves as port identifier.
    entry.portid = addr.port().into();
    entry.cntlid = CNTLID_DYNAMIC.into();
    entry.asqsz = ASQSZ.into();
    entry.trsvcid = ascii_field(&addr.port().to_string());
    entry.traddr = ascii_field(&addr.ip().to_string());
    entry.subnqn = subnqn.to_field();
    if subtype == discovery::SUBTYPE_CURRENT {
        entry.eflags = discovery::EFLAGS_EPCSD.into();
    }
    entry
}
