//! The other side of a target, for tests: an initiator that sends what it is told, right or wrong, and shows what came
//! back. It is there with the feature `testing`, which changes nothing else.
//!
//! * [`Initiator`] speaks NVMe/TCP over anything that carries [`Bytes`] both ways and waits for them: a [`TcpStream`],
//!   or a connection in a simulation ([`Lines`]).
//! * It is one connection: one command at a time by [`command`](Initiator::command), several by
//!   [`submit`](Initiator::submit) and [`finish`](Initiator::finish), and any bytes by
//!   [`send_raw`](Initiator::send_raw).
//! * [`ManagementClient`] makes calls of JSON-RPC that must succeed, or must fail.
//! * All of it panics where the target does what it must not do, and when nothing comes for long.
//!
//! ```
//! use std::net::SocketAddr;
//! use pollux_nvme_tcp::spec::Nqn;
//! use pollux_nvme_tcp::testing::{Initiator, Options};
//!
//! /// Writes a block of namespace 1 and reads it back, over an I/O queue of its own controller.
//! fn a_block_comes_back(addr: SocketAddr, subnqn: &Nqn) {
//!     let admin = Initiator::admin(addr, subnqn, Options::default());
//!     let mut io = Initiator::io(addr, subnqn, admin.cntlid, 1, Options::default());
//!     assert!(io.write(1, 0, &[7; 512]).is_success());
//!     assert_eq!(io.read(1, 0, 1).unwrap(), [7; 512]);
//! }
//! ```
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod initiator;
mod lines;
pub mod lying;
mod management;
pub mod peer;
mod tap;
mod target;
mod watch;
pub mod wire;

pub use initiator::{Initiator, Options, Pdu, host_nqn};
pub use lines::{Line, Lines};
pub use management::{ManagementClient, manage, socket};
pub use tap::{Seen, Tap, TapService, Verdict};
pub use target::{ManagedTarget, NQN, TestTarget, nqn, set_up};
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
