//! A running target for tests, and the initiator that talks to it.

use std::net::SocketAddr;

use pollux_nvme_tcp::spec::Nqn;
use pollux_nvme_tcp::target::{self, Backend, NamespaceConfig, SubsystemConfig, TargetHandle};
pub use pollux_nvme_tcp::testing::{Initiator, Options, Pdu, host_nqn, pattern, wait_for};
use pollux_reactor::{Group, Idle, Running};

/// A running target with one subsystem.
pub struct TestTarget {
    pub handle: TargetHandle,
    pub nqn: Nqn,
    pub addr: SocketAddr,
    /// Dropping it stops the reactors.
    pub running: Running,
}

impl TestTarget {
    /// A target on this many reactors with these namespaces of 512-byte blocks, on one loopback port.
    pub fn start(reactors: usize, backends: &[Backend]) -> Self {
        let mut group = Group::new();
        let reactors: Vec<_> = (0..reactors)
            .map(|_| group.add_reactor(None, Idle::Yield))
            .collect();
        let handle = target::install(&mut group, &reactors);
        Self::serve(handle, group.start().unwrap(), backends)
    }

    /// Configures a target whose reactors run.
    pub fn serve(handle: TargetHandle, running: Running, backends: &[Backend]) -> Self {
        let nqn: Nqn = "nqn.2014-08.org.example:test".parse().unwrap();
        handle
            .create_subsystem(SubsystemConfig::new(nqn.clone()))
            .unwrap();
        for backend in backends {
            let namespace = NamespaceConfig::new(backend.clone(), 512);
            handle.add_namespace(&nqn, namespace).unwrap();
        }
        let mut target = Self {
            handle,
            nqn,
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            running,
        };
        target.addr = target.listen();
        target
    }

    /// Adds a listener on a free port.
    pub fn listen(&self) -> SocketAddr {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        self.handle.add_listener(&self.nqn, any_port).unwrap()
    }

    pub fn status(&self) -> pollux_nvme_tcp::target::TargetStatus {
        self.handle.status().unwrap()
    }
}
