//! Management by JSON-RPC, behind the feature `rpc`: what the methods of the target and those of a host have in common.
//!
//! The target's own methods are in [`target::rpc`](crate::target::rpc), those of a host with its volumes in the crate
//! `pollux-multipath`. Each registers the methods of this module with a state of its own.

pub mod dhchap;
pub mod histogram;
pub mod iobuf;
pub mod iostat;
#[cfg(feature = "auth")]
pub mod keyring;
pub mod rate_limits;
pub mod sockets;
