//! One world for tests, of this workspace and of those who embed it. It is there with the feature `testing`, which changes
//! nothing else. All of it panics where what is tested does what it must not do, and when nothing comes for long.
//!
//! | to test | take |
//! |---|---|
//! | a target over real sockets | [`TestTarget`], and the [`Initiator`]s that it connects |
//! | its management (with the feature `rpc`) | `ManagedTarget`, and `ManagementClient`s; `manage` serves methods of other kinds |
//! | how late something is, to the microsecond | a [`Simulation`](pollux_reactor::Simulation), [`set_up`], and [`Lines`] for the initiators |
//! | what a host makes of a controller that lies | [`peer::Peer`] byte by byte, [`lying::serve`] command by command |
//! | what passes between host and target | a [`Tap`], which answers, holds, loses or changes it |
//! | what a turn costs | [`Watching`], around the group that it is installed on |
//!
//! A target on real sockets:
//!
//! ```
//! use pollux_nvme_tcp::target::Backend;
//! use pollux_nvme_tcp::testing::{Options, TestTarget};
//!
//! let target = TestTarget::start(1, &[Backend::Memory { bytes: 1 << 20 }]);
//! let (_admin, mut io) = target.connect(Options::default());
//! assert!(io.write(1, 0, &[7; 512]).is_success());
//! assert_eq!(io.read(1, 0, 1).unwrap(), [7; 512]);
//! assert_eq!(target.status().reactors[0].io.reads, 1);
//! ```
//!
//! The same in virtual time:
//!
//! ```
//! use std::{cell::RefCell, net::SocketAddr, rc::Rc, time::Duration};
//! use pollux_nvme_tcp::target::{self, Backend};
//! use pollux_nvme_tcp::testing::{Initiator, Lines, Options, nqn, set_up};
//! use pollux_reactor::Simulation;
//!
//! let mut sim = Simulation::new(7);
//! let reactor = sim.add_reactor();
//! let handle = target::install(&mut sim, &[reactor]);
//! let addr = SocketAddr::from(([10, 0, 0, 1], 4420));
//! set_up(&handle, &[Backend::Memory { bytes: 1 << 20 }], &[addr]);
//! sim.run_for(Duration::from_millis(1));
//!
//! let sim = Rc::new(RefCell::new(sim));
//! let lines = Lines::new(&sim);
//! let mut admin = Initiator::over(lines.connect(addr));
//! admin.initialize(Options::default());
//! admin.enable(&nqn(), Options::default());
//! let before = sim.borrow().now();
//! assert_eq!(admin.identify_controller().nn.get(), 32);
//! assert!(sim.borrow().now() - before < Duration::from_millis(1));
//! ```
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod initiator;
mod lines;
pub mod lying;
#[cfg(feature = "rpc")]
mod management;
pub mod peer;
mod tap;
mod target;
mod watch;
pub mod wire;

pub use initiator::{Initiator, Options, Pdu, host_nqn};
pub use lines::{Line, Lines};
#[cfg(feature = "rpc")]
pub use management::{ManagedTarget, ManagementClient, manage, socket};
pub use tap::{Seen, Tap, TapService, Verdict};
pub use target::{NQN, TestTarget, nqn, set_up};
pub use watch::Watching;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long a test waits for anything: long enough for any machine, so that one that waits this long has failed.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// What carries bytes both ways, and waits for them.
pub trait Bytes {
    /// Sends all of it. A peer that has closed the connection is no error: what it had to say comes by
    /// [`receive`](Self::receive).
    ///
    /// # Panics
    /// If it cannot be sent for any other reason.
    fn send(&mut self, bytes: &[u8]);

    /// Waits for bytes and appends what has come. False if the peer has closed the connection.
    ///
    /// # Panics
    /// If nothing comes for long.
    fn receive(&mut self, into: &mut Vec<u8>) -> bool;
}

/// Whether an error says that the peer has closed the connection.
fn is_end(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted
    )
}

impl Bytes for TcpStream {
    fn send(&mut self, bytes: &[u8]) {
        match self.write_all(bytes) {
            Err(e) if !is_end(e.kind()) => panic!("sending: {e}"),
            _ => {}
        }
    }

    fn receive(&mut self, into: &mut Vec<u8>) -> bool {
        let mut buffer = [0; 65536];
        loop {
            match self.read(&mut buffer) {
                Ok(0) => return false,
                Ok(n) => {
                    into.extend(buffer.iter().take(n));
                    return true;
                }
                Err(e) if is_end(e.kind()) => return false,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => panic!("waiting for a PDU or the end: {e}"),
            }
        }
    }
}

/// `len` bytes that differ from place to place and from seed to seed, and are the same each time.
pub fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}

/// Waits for a condition that other threads bring about.
///
/// # Panics
/// If it never holds.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..10_000_000 {
        if condition() {
            return;
        }
        std::thread::yield_now();
    }
    panic!("{what} did not come");
}
