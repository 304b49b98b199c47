//! How subsystems, namespaces and referrals are asked for.

use std::net::SocketAddr;

use uuid::Uuid;

use crate::auth::{KeyNames, Keys};
use crate::spec::nqn::Nqn;
use crate::target::disk::Backend;
use crate::tls::HostPsk;

/// Settings of a new subsystem.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubsystemConfig {
    /// Name of the subsystem; must not be in use.
    pub nqn: Nqn,
    /// Serial number: up to 20 printable ASCII characters.
    pub serial: String,
    /// Model number: up to 40 printable ASCII characters.
    pub model: String,
    /// Highest namespace identifier, 1 to 1024.
    pub max_namespaces: u32,
    /// Report ANA (CMIC bit 3, ANA log page, ANA statuses).
    pub ana_reporting: bool,
    /// Hosts need not be listed to connect.
    pub allow_any_host: bool,
    /// Lowest controller identifier given to a host, at least 1.
    pub min_cntlid: u16,
    /// Highest controller identifier given to a host, at most 65519 (FFEFh).
    pub max_cntlid: u16,
    /// Most blocks of one range of Dataset Management, which Identify reports as DMRSL; 0: no limit.
    pub dmrsl: u32,
    /// Most that one Write Zeroes may zero, which Identify reports as WZSL: 2 to this power units of 4 KiB; 0: no limit.
    pub wzsl: u8,
}

impl SubsystemConfig {
    /// A subsystem that any host may use, with ANA reporting, 32 namespaces and all controller identifiers.
    pub fn new(nqn: Nqn) -> Self {
        Self {
            nqn,
            serial: "POLLUX00000000000001".into(),
            model: "Pollux NVMe/TCP target".into(),
            max_namespaces: 32,
            ana_reporting: true,
            allow_any_host: true,
            min_cntlid: 1,
            max_cntlid: 0xffef,
            dmrsl: 0,
            wzsl: 0,
        }
    }
}

/// The keys of a host at a subsystem: it has to authenticate there by DH-HMAC-CHAP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKeys {
    /// The keys.
    pub keys: Keys,
    /// What they are called; status and saved configurations have nothing else of them.
    pub names: KeyNames,
}

/// How a host may connect to a subsystem.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct HostAccess {
    /// It has to authenticate with these.
    pub keys: Option<HostKeys>,
    /// It has to come by TLS with this, through a secure listener.
    pub psk: Option<HostPsk>,
}

/// Settings of a new namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamespaceConfig {
    /// What its blocks are kept in; the size must be a multiple of the block size, and not zero.
    pub backend: Backend,
    /// Bytes per logical block: a power of two from 512 to 65536.
    pub block_size: u32,
    /// Reported with Identify CNS 03h. `None`: one that follows from subsystem and NSID, so that hosts know the
    /// namespace again after a restart.
    pub uuid: Option<Uuid>,
    /// Reported with Identify CNS 00h and 03h. `None`: the bytes of the UUID, since some hosts know a namespace by
    /// nothing else.
    pub nguid: Option<[u8; 16]>,
    /// Reported with Identify CNS 00h and 03h if given.
    pub eui64: Option<[u8; 8]>,
    /// ANA group, 1 to [`ANA_GROUP_MAX`](crate::target::ANA_GROUP_MAX); `None`: the NSID (modulo the maximum).
    pub ana_group: Option<u32>,
    /// Whether every host of the subsystem sees it; otherwise those alone that
    /// [`TargetRequest::show_namespace`](crate::target::TargetRequest::show_namespace) lists.
    pub auto_visible: bool,
}

impl NamespaceConfig {
    /// A namespace with default UUID and ANA group, which every host sees.
    pub fn new(backend: Backend, block_size: u32) -> Self {
        Self {
            backend,
            block_size,
            uuid: None,
            nguid: None,
            eui64: None,
            ana_group: None,
            auto_visible: true,
        }
    }
}

/// An entry of the discovery log that points at a subsystem or discovery service elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Referral {
    /// Where it listens.
    pub addr: SocketAddr,
    /// NQN of what listens there: the discovery NQN, or that of an NVM subsystem. Address and NQN identify the entry.
    pub subnqn: Nqn,
}
