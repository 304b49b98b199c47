//! NVMe over TCP for poll-mode reactors: the specification's structures ([`spec`]), framing of PDUs
//! ([`pdu`]), the initiator ([`host`]) and the [`target`].
//!
//! Host and target are state machines over non-blocking byte streams. Each runs as a service of a
//! [reactor](pollux_reactor): it is polled, it never blocks, and time, messages and streams come from the context that it
//! is handed, so that the same code runs on pinned threads and in the simulator.
//!
//! Section numbers are those of the NVM Express Base Specification 2.1, the NVM Command Set Specification 1.1 and the
//! NVMe/TCP Transport Specification 1.1.
//!
//! A target that serves a megabyte of memory:
//!
//! ```
//! use pollux_nvme_tcp::spec::Nqn;
//! use pollux_nvme_tcp::target::{self, Backend, NamespaceConfig, SubsystemConfig};
//! use pollux_reactor::{Group, Idle};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut group = Group::new();
//! let reactor = group.add_reactor(None, Idle::Yield);
//! let target = target::install(&mut group, &[reactor]);
//! let running = group.start()?;
//!
//! let nqn: Nqn = "nqn.2014-08.org.example:disk1".parse()?;
//! target.create_subsystem(SubsystemConfig::new(nqn.clone()))?;
//! target.add_namespace(&nqn, NamespaceConfig::new(Backend::Memory { bytes: 1 << 20 }, 512))?;
//! let addr = target.add_listener(&nqn, "127.0.0.1:0".parse()?)?;
//! assert_ne!(addr.port(), 0);
//! running.stop();
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! All are off unless asked for.
//!
//! * `auth`: in-band authentication (DH-HMAC-CHAP) of host and target, [`auth`]. Without it no host can be given keys.
//! * `rpc`: management of a target by JSON-RPC, with the names and shapes of SPDK's methods.
//! * `tls`: TLS 1.3 with pre-shared keys, [`tls`]; implies `auth`, and wants a C compiler.
//! * `testing`: the other side of a target, for tests of one's own. Changes nothing else.
//!
//! # What is there
//!
//! * Transport: ICReq to TermReq, in-capsule data, R2T, header and data digests, PDU alignment, the SUCCESS flag, SQ flow
//!   control on and off.
//! * Host: Fabrics Connect, properties, Identify, ANA log, asynchronous events, Keep Alive (also traffic-based), Abort,
//!   Reads, Writes, Write Zeroes, Deallocate, Compare, Flush, Cross-Controller Reset.
//! * Both: in-band authentication by DH-HMAC-CHAP (feature `auth`), TLS 1.3 with pre-shared keys (feature `tls`).
//! * Target: NVM subsystems with namespaces in ANA groups, the commands above, discovery with referrals, SMART, error and
//!   effects logs, a Command Quiesce Time.
//!
//! # What is not
//!
//! * Metadata, protection information, end-to-end data protection.
//! * Reservations, Copy, Verify, fused commands, ZNS, key-value and the other command sets.
//! * Namespace management, firmware, sanitize, device self-test, Directives, Telemetry.
//! * Endurance groups, NVM sets, more than one domain.
//! * RDMA, Fibre Channel, and PCIe: TCP is the only transport.
//! * Dispersed namespaces.
#![deny(missing_docs)]

pub mod auth;
pub mod counters;
pub mod histogram;
pub mod host;
pub mod pdu;
pub mod rate_limit;
#[cfg(feature = "rpc")]
pub mod rpc;
pub mod spec;
mod stream;
pub mod target;
#[cfg(feature = "testing")]
pub mod testing;
pub mod tls;

/// The page that a registry shows has an example, which is tried with the others.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
