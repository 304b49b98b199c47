//! What a target tells about itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use pollux_reactor::Time;
use uuid::Uuid;

use crate::auth::{Agreed, KeyNames};
use crate::counters::IoCounters;
use crate::spec::log::AnaState;
use crate::spec::nqn::{HostNqn, Nqn};
use crate::target::config::Referral;
use crate::target::disk::{Backend, DiskRef};

/// Everything about a target at one moment. Counters of the reactors are read one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TargetStatus {
    /// All subsystems in order of their NQNs.
    pub subsystems: Vec<SubsystemStatus>,
    /// Controllers of discovery.
    pub discovery_controllers: Vec<ControllerStatus>,
    /// Referrals of the discovery log.
    pub referrals: Vec<Referral>,
    /// Generation counter of the discovery log.
    pub discovery_generation: u64,
    /// When the home reactor was asked.
    pub at: Time,
    /// One entry per reactor, the home reactor first.
    pub reactors: Vec<ReactorStatus>,
    /// What each reactor has of each disk that it has open, or had and that is still there.
    pub disks: Vec<DiskStatus>,
    /// The latest faults of peers, the oldest first.
    pub faults: Vec<Fault>,
    /// Faults of peers since the start, also those that are not listed any more.
    pub faults_total: u64,
    /// Connects that were refused since the start.
    pub refused_connects: u64,
    /// What a shortage of room for connections has cost since the start.
    pub admission: AdmissionCounters,
    /// Command Quiesce Time that controllers report, in ms; 0: none.
    pub cqt_ms: u16,
    /// Whether a host may have several controllers of a subsystem by one listener.
    pub duplicate_hosts: bool,
    /// Whether the kernel is to encrypt secure connections that are accepted from now on, where it can.
    pub ktls: bool,
}

/// A disk as one reactor has used it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskStatus {
    /// The disk.
    pub disk: DiskRef,
    /// The reactor, by its place among those of the target.
    pub reactor: usize,
    /// I/Os that the disk has of it at present.
    pub in_flight: usize,
    /// What the disk has done. Latencies are from the time at which it was handed an I/O, and zero of what it does in
    /// place.
    pub counters: IoCounters,
}

/// One subsystem.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubsystemStatus {
    /// NQN.
    pub nqn: Nqn,
    /// Serial number.
    pub serial: String,
    /// Model number.
    pub model: String,
    /// Highest namespace identifier.
    pub max_namespaces: u32,
    /// Whether ANA is reported.
    pub ana_reporting: bool,
    /// Whether hosts need not be listed.
    pub allow_any_host: bool,
    /// Lowest and highest controller identifier.
    pub cntlid_range: (u16, u16),
    /// Most blocks of a range of Dataset Management; 0: no limit.
    pub dmrsl: u32,
    /// Most that a Write Zeroes may zero: 2 to this power units of 4 KiB; 0: no limit.
    pub wzsl: u8,
    /// Hosts on the list.
    pub hosts: Vec<HostNqn>,
    /// What the keys of those are called that have to authenticate.
    pub host_keys: BTreeMap<HostNqn, KeyNames>,
    /// What the keys of those are called that have to come by TLS.
    pub host_psks: BTreeMap<HostNqn, String>,
    /// Namespaces in order of their identifiers.
    pub namespaces: Vec<NamespaceStatus>,
    /// Listeners in the order in which they were added.
    pub listeners: Vec<ListenerStatus>,
    /// Controllers; empty in the answer to `Subsystems`.
    pub controllers: Vec<ControllerStatus>,
}

/// One namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamespaceStatus {
    /// Namespace identifier.
    pub nsid: u32,
    /// What its blocks are kept in, as it was configured.
    pub backend: Backend,
    /// Bytes per block.
    pub block_size: u32,
    /// Number of blocks.
    pub blocks: u64,
    /// UUID.
    pub uuid: Uuid,
    /// NGUID.
    pub nguid: [u8; 16],
    /// EUI64, if it was given one.
    pub eui64: Option<[u8; 8]>,
    /// ANA group.
    pub ana_group: u32,
    /// The ANA state of its disk, which its group follows; `None`: the disk has none.
    pub ana_behind: Option<AnaState>,
    /// Why its writes and flushes fail for good, if they do: a flush of its file failed, so that what was written
    /// before may be lost. That ends when the disk is made anew.
    pub failure: Option<String>,
    /// I/Os that its disk is busy with at present, for whoever uses it; none in the answer to `Subsystems`.
    pub in_flight: usize,
    /// The hosts that see it, where not everybody does.
    pub hosts: Option<Vec<HostNqn>>,
}

/// One listener of a subsystem.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenerStatus {
    /// Where it listens.
    pub addr: SocketAddr,
    /// TLS and nothing else.
    pub secure: bool,
    /// State of each ANA group that has a namespace, and of those that were set; every other group is
    /// optimized.
    pub ana_states: Vec<(u32, AnaState)>,
    /// Groups that were set to something else than optimized, with what they were set to: what is reported of a group that
    /// follows a disk may be worse.
    pub ana_set: Vec<(u32, AnaState)>,
}

/// One controller, which is one host's association with a subsystem.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ControllerStatus {
    /// Controller identifier.
    pub cntlid: u16,
    /// The host, as it calls itself; empty if it has told no name.
    pub hostnqn: HostNqn,
    /// The host's identifier.
    pub hostid: [u8; 16],
    /// The listener it came through.
    pub listener: SocketAddr,
    /// Keep-alive timeout in milliseconds; 0: none.
    pub kato_ms: u32,
    /// CSTS.RDY.
    pub ready: bool,
    /// Queue pairs, the admin queue first.
    pub qpairs: Vec<QpairStatus>,
}

/// One queue pair, which is one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QpairStatus {
    /// Queue identifier; 0 is the admin queue.
    pub qid: u16,
    /// The reactor that serves it.
    pub reactor: usize,
    /// Entries of the submission queue.
    pub entries: u16,
    /// The host's address.
    pub peer: SocketAddr,
    /// Our address.
    pub local: SocketAddr,
    /// Header and data digests are in use.
    pub digests: (bool, bool),
    /// Nobody listens: it comes by TLS.
    pub secure: bool,
    /// The kernel encrypts it (kTLS).
    pub ktls: bool,
    /// What its host has authenticated with, if it had to.
    pub auth: Option<Agreed>,
    /// Commands and bytes.
    pub counters: QpairCounters,
}

/// What a queue pair has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct QpairCounters {
    /// Commands taken from the host.
    pub commands: u64,
    /// Read commands that succeeded.
    pub reads: u64,
    /// Write commands that succeeded.
    pub writes: u64,
    /// Bytes of those reads.
    pub bytes_read: u64,
    /// Bytes of those writes.
    pub bytes_written: u64,
    /// Commands that were answered with a status other than success.
    pub failed: u64,
}

impl QpairCounters {
    /// Adds those of another queue pair.
    pub(in crate::target) fn add(&mut self, other: &Self) {
        self.commands += other.commands;
        self.reads += other.reads;
        self.writes += other.writes;
        self.bytes_read += other.bytes_read;
        self.bytes_written += other.bytes_written;
        self.failed += other.failed;
    }
}

/// What one reactor has served.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ReactorStatus {
    /// Admin queues since the start (home only).
    pub admin_qpairs: u64,
    /// I/O queues since the start.
    pub io_qpairs: u64,
    /// Admin queues at present (home only).
    pub current_admin_qpairs: usize,
    /// I/O queues at present.
    pub current_io_qpairs: usize,
    /// Sums over all I/O queues since the start.
    pub io: QpairCounters,
    /// Times a command had to wait for staging memory, which takes the data that hosts send on an R2T.
    pub staging_waits: u64,
    /// Bytes of staging memory that connections hold at present: 32 MiB are shared, and there are as many for hosts that
    /// hold none.
    pub staging_held: usize,
    /// The longest that a connection has waited for staging memory, or waits at present.
    pub staging_longest_wait: Duration,
    /// Connections that were ended because data that was asked for did not come.
    pub data_timeouts: u64,
}

/// A fault of a peer that ended its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fault {
    /// When.
    pub at: Time,
    /// Address of the peer.
    pub peer: SocketAddr,
    /// Queue identifier, once Connect has told it.
    pub qid: Option<u16>,
    /// What was wrong.
    pub reason: &'static str,
}

/// What shortages have cost since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct AdmissionCounters {
    /// Connections without a Connect that were ended to make room for another one.
    pub ended_unconnected: u64,
    /// Connections that were closed at once, because there was no room.
    pub refused_connections: u64,
    /// Times that the system could not accept a connection (no descriptors, no memory).
    pub failed_accepts: u64,
}
