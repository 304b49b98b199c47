//! Byte streams over the simulated network.
#![expect(
    clippy::disallowed_types,
    reason = "streams must be Send although a simulation has one thread; the lock is never contended and never on a real path"
)]

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::ready::Watch;
use super::world::World;
use crate::rng::Rng;
use crate::time::Time;

/// The network of a [`Simulation`](crate::Simulation): every knob acts at once, on all connections.
///
/// Addresses are those that a service listens on or connects to; nothing has to exist on the machine. A connect to an
/// address that nobody listens on is refused.
#[derive(Clone, Debug)]
pub struct SimNetwork {
    world: Arc<Mutex<World>>,
}

impl SimNetwork {
    pub(crate) fn new(rng: Rng) -> SimNetwork {
        SimNetwork {
            world: Arc::new(Mutex::new(World::new(rng))),
        }
    }

    /// How long bytes travel in one direction. At first zero.
    pub fn set_latency(&mut self, latency: Duration) {
        self.world().latency = latency;
    }

    /// Adds to each latency a random part below `jitter`. At first zero. Bytes of one stream keep their order.
    pub fn set_jitter(&mut self, jitter: Duration) {
        self.world().jitter = jitter;
    }

    /// Lets each read and each write move only 1 to `bytes` bytes, drawn anew each time. `usize::MAX`, the default, sets
    /// no limit; the least is 1.
    pub fn set_max_chunk(&mut self, bytes: usize) {
        self.world().max_chunk = bytes.max(1);
    }

    /// Bytes that a side can have sent and the other not yet read before a write would block. At first 256 KiB.
    pub fn set_send_buffer(&mut self, bytes: usize) {
        self.world().send_buffer = bytes.max(1);
    }

    /// Resets every connection from or to `addr`: both sides get [`io::ErrorKind::ConnectionReset`], and what was under
    /// way is lost.
    pub fn sever(&mut self, addr: SocketAddr) {
        self.world().sever(addr);
    }

    /// While on, nothing from or to `addr` arrives, neither bytes nor connects, and nobody is told. When switched off,
    /// what was held back arrives.
    pub fn black_hole(&mut self, addr: SocketAddr, on: bool) {
        self.world().set_black_hole(addr, on);
    }

    /// While on, connects to `addr` are refused. Connections that exist are left alone.
    pub fn refuse(&mut self, addr: SocketAddr, on: bool) {
        self.world().set_refusing(addr, on);
    }

    pub(crate) fn set_now(&self, now: Time) {
        self.world().set_now(now);
    }

    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.world().next_deadline()
    }

    pub(crate) fn activity(&self) -> u64 {
        self.world().activity()
    }

    pub(crate) fn trace(&self) -> u64 {
        self.world().trace()
    }

    pub(super) fn connect(&self, remote: SocketAddr, local: Option<IpAddr>) -> SimLink {
        let id = self.world().connect(remote, local);
        self.link(id)
    }

    pub(super) fn listen(&self, addr: SocketAddr) -> io::Result<SimListener> {
        let addr = self.world().listen(addr)?;
        Ok(SimListener {
            network: self.clone(),
            addr,
        })
    }

    pub(super) fn next_ready(&self, reactor: usize, list: usize) -> Option<u64> {
        self.world().next_ready(reactor, list)
    }

    /// A wrapper tells of an edge.
    pub(super) fn raise(&self, reactor: usize, watch: Option<Watch>) {
        self.world().raise(reactor, watch);
    }

    fn link(&self, id: u64) -> SimLink {
        SimLink {
            network: self.clone(),
            id,
        }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One side of a simulated connection.
#[derive(Debug)]
pub(super) struct SimLink {
    network: SimNetwork,
    id: u64,
}

impl SimLink {
    pub(super) fn adopt(&self) {
        self.network.world().adopt(self.id);
    }

    pub(super) fn connected(&self) -> io::Result<bool> {
        self.network.world().connected(self.id)
    }

    pub(super) fn read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.network.world().read(self.id, bufs)
    }

    pub(super) fn write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.network.world().write(self.id, bufs)
    }

    pub(super) fn take_ready(&self) -> bool {
        self.network.world().take_ready(self.id)
    }

    pub(super) fn take_room(&self) -> bool {
        self.network.world().take_room(self.id)
    }

    pub(super) fn watch(&self, reactor: usize, watch: Watch) {
        self.network.world().watch(self.id, reactor, watch);
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.network.world().local_addr(self.id))
    }

    pub(super) fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.network.world().peer_addr(self.id)
    }
}

impl Drop for SimLink {
    fn drop(&mut self) {
        self.network.world().close(self.id);
    }
}

/// A simulated listening socket.
#[derive(Debug)]
pub(super) struct SimListener {
    network: SimNetwork,
    addr: SocketAddr,
}

impl SimListener {
    pub(super) fn accept(&self) -> Option<(SimLink, SocketAddr)> {
        let (id, peer) = self.network.world().accept(self.addr)?;
        Some((self.network.link(id), peer))
    }

    pub(super) fn local_addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.network.world().stop_listening(self.addr);
    }
}
