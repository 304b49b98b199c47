//! A target in a box: on reactors of its own, ready for hosts.

use std::net::SocketAddr;
use std::time::Duration;

use pollux_reactor::{Group, Idle, Running};

use super::{Initiator, Options};
use crate::spec::Nqn;
use crate::spec::log::AnaState;
use crate::target::{
    self, Backend, NamespaceConfig, SubsystemConfig, TargetHandle, TargetRequest, TargetStatus,
};

/// NQN of the subsystem of a target for tests.
pub const NQN: &str = "nqn.2014-08.org.example:disk1";

/// [`NQN`] as what it is.
pub fn nqn() -> Nqn {
    NQN.parse().unwrap()
}

/// Where nobody listens yet on this machine.
fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A running target with one subsystem that any host may use and that reports ANA, on real threads and sockets.
#[derive(Debug)]
pub struct TestTarget {
    /// The way to it.
    pub handle: TargetHandle,
    /// Its subsystem, [`NQN`].
    pub nqn: Nqn,
    /// Where it listens first.
    pub addr: SocketAddr,
    running: Running,
}

impl TestTarget {
    /// A target on so many reactors with these namespaces of 512-byte blocks, on a free port.
    pub fn start(reactors: usize, backends: &[Backend]) -> Self {
        let mut group = Group::new();
        let after = Duration::from_micros(50);
        let reactors: Vec<_> = (0..reactors)
            .map(|_| group.add_reactor(None, Idle::Park { after }))
            .collect();
        let handle = target::install(&mut group, &reactors);
        Self::serve(handle, group.start().unwrap(), backends)
    }

    /// Configures a target whose reactors run, perhaps with others on them.
    pub fn serve(handle: TargetHandle, running: Running, backends: &[Backend]) -> Self {
        set_up(&handle, backends, &[]);
        let mut target = Self {
            handle,
            nqn: nqn(),
            addr: any_port(),
            running,
        };
        target.addr = target.listen();
        target
    }

    /// Adds a listener on a free port.
    pub fn listen(&self) -> SocketAddr {
        self.listen_at(any_port())
    }

    /// Adds a listener, or the same one again.
    pub fn listen_at(&self, addr: SocketAddr) -> SocketAddr {
        self.handle.add_listener(&self.nqn, addr).unwrap()
    }

    /// Removes a listener, and with it the controllers that came through it.
    pub fn unlisten(&self, addr: SocketAddr) {
        let removal = TargetRequest::remove_listener(self.nqn.clone(), addr);
        self.handle.call(removal).unwrap();
    }

    /// Changes what a listener reports for all ANA groups.
    pub fn set_ana(&self, addr: SocketAddr, state: AnaState) {
        self.handle.set_ana_state(&self.nqn, addr, state).unwrap();
    }

    /// What it tells about itself.
    pub fn status(&self) -> TargetStatus {
        self.handle.status().unwrap()
    }

    /// Admin queue and I/O queue 1 of a new controller.
    pub fn connect(&self, options: Options) -> (Initiator, Initiator) {
        let admin = Initiator::admin(self.addr, &self.nqn, options);
        let io = Initiator::io(self.addr, &self.nqn, admin.cntlid, 1, options);
        (admin, io)
    }

    /// Stops it. A panic on one of its reactors goes on here, as it does when the target is dropped.
    pub fn stop(&mut self) {
        stop(&mut self.running);
    }
}

impl Drop for TestTarget {
    fn drop(&mut self) {
        stop(&mut self.running);
    }
}

pub(super) fn stop(running: &mut Running) {
    let running = std::mem::take(running);
    running.stop();
    if !std::thread::panicking() {
        running.join();
    }
}

/// Asks for the subsystem of a [`TestTarget`], with these namespaces and listeners, and does not wait: in a simulation it is
/// there when some time has passed. A refusal is a panic of the target.
pub fn set_up(target: &TargetHandle, backends: &[Backend], listeners: &[SocketAddr]) {
    let subsystem = TargetRequest::create_subsystem(SubsystemConfig::new(nqn()));
    target.request(subsystem, |answer| answer.unwrap());
    for backend in backends {
        let namespace = NamespaceConfig::new(backend.clone(), 512);
        let request = TargetRequest::add_namespace(nqn(), None, namespace);
        target.request(request, |answer| assert!(answer.is_ok(), "{answer:?}"));
    }
    for addr in listeners {
        let request = TargetRequest::add_listener(nqn(), *addr);
        target.request(request, |answer| assert!(answer.is_ok(), "{answer:?}"));
    }
}
