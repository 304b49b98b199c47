//! Buffers for data that a host sends on an R2T.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use pollux_reactor::Time;

use super::shares::{HostName, Shares};
use crate::spec::Sqe;
use crate::spec::status::Status;

/// Largest data of one command in bytes; Identify Controller reports it as MDTS.
pub(super) const TRANSFER_MAX: u32 = 1 << 20;

/// Staging memory of a reactor in bytes, which its hosts share; there is as much again for hosts that hold none of it.
/// Commands for whose data there is none wait for their R2T.
pub(super) const STAGING_BYTES: usize = 32 << 20;

/// Log2 of the least and of the largest buffer. Buffers are powers of two, so that small transfers take little.
const LEAST: u32 = 12;
const LARGEST: u32 = TRANSFER_MAX.ilog2();
const SIZES: usize = (LARGEST - LEAST + 1) as usize;

/// A buffer, and whose it is.
#[derive(Debug)]
pub(super) struct Staged {
    bytes: Box<[u8]>,
    client: usize,
}

impl Deref for Staged {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Staged {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

/// The staging memory of one reactor: the books of who has how much of it, and the buffers that nobody has at present,
/// which are kept.
#[derive(Debug)]
pub(super) struct StagingPool {
    pub(super) shares: Shares,
    /// By size.
    free: [Vec<Box<[u8]>>; SIZES],
    /// Bytes of all of them.
    free_bytes: usize,
}

impl Default for StagingPool {
    fn default() -> Self {
        Self {
            shares: Shares::new(STAGING_BYTES),
            free: Default::default(),
            free_bytes: 0,
        }
    }
}

impl StagingPool {
    /// A controller of this host came to be on the reactor. Returns the host's number, for
    /// [`leave`](Shares::leave).
    pub(super) fn enter(&mut self, host: HostName) -> usize {
        self.shares.enter(host)
    }

    /// Takes a buffer of at least `len` bytes for a connection of [`Shares::open`], if it may have one now; else it is
    /// woken when it may.
    #[inline]
    pub(super) fn take(&mut self, client: usize, len: u32, now: Time) -> Option<Staged> {
        let size = size_of(len);
        let bytes = 1 << (size + LEAST as usize);
        if !self.shares.request(client, bytes, now) {
            return None;
        }
        let kept = self.free.get_mut(size).and_then(Vec::pop);
        let buffer = match kept {
            Some(buffer) => {
                self.free_bytes -= bytes;
                buffer
            }
            None => self.allocate(bytes),
        };
        Some(Staged {
            bytes: buffer,
            client,
        })
    }

    /// A new buffer; others that nobody has make room for it.
    #[cold]
    fn allocate(&mut self, bytes: usize) -> Box<[u8]> {
        // The new one is in the books already.
        while self.shares.held() + self.free_bytes > STAGING_BYTES {
            let Some(dropped) = self.free.iter_mut().rev().find_map(Vec::pop) else {
                break;
            };
            self.free_bytes -= dropped.len();
        }
        vec![0; bytes].into_boxed_slice()
    }

    #[inline]
    pub(super) fn give(&mut self, buffer: Staged, now: Time) {
        let Staged { bytes, client } = buffer;
        let len = bytes.len();
        self.shares.release(client, len, now);
        if self.shares.held() + self.free_bytes + len > STAGING_BYTES {
            return;
        }
        let size = size_of(u32::try_from(len).unwrap_or(TRANSFER_MAX));
        if let Some(kept) = self.free.get_mut(size) {
            kept.push(bytes);
            self.free_bytes += len;
        }
    }

    /// Bytes that connections have.
    pub(super) fn held(&self) -> usize {
        self.shares.held()
    }

    pub(super) fn longest_wait(&self, now: Time) -> Duration {
        self.shares.longest_wait(now)
    }
}

/// Which of the sizes holds `len` bytes.
#[inline]
fn size_of(len: u32) -> usize {
    let bits = len.next_power_of_two().ilog2().clamp(LEAST, LARGEST);
    (bits - LEAST) as usize
}

/// A command whose data has been asked for. Its transfer tag is its place in the queue's table.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) sqe: Sqe,
    pub(super) buffer: Staged,
    /// Length of the data in bytes.
    pub(super) len: u32,
    /// Bytes that came, in order from the start.
    pub(super) received: u32,
    /// Set when a data digest was wrong: the data is not used.
    pub(super) failed: Option<Status>,
    /// When the data was asked for.
    pub(super) asked_at: Time,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::nqn::HostNqn;

    #[test]
    fn buffers_are_as_small_as_can_be_and_kept_within_the_bound() {
        assert_eq!(size_of(1), 0);
        assert_eq!(size_of(4096), 0);
        assert_eq!(size_of(4097), 1);
        assert_eq!(size_of(TRANSFER_MAX), SIZES - 1);
        let mut pool = StagingPool::default();
        let host = pool.enter((HostNqn::new("host").unwrap(), [0; 16]));
        let client = pool.shares.open(host, 0);
        let now = Time::ZERO;
        for len in [4096, 9000, 131_072, TRANSFER_MAX, 8192, 600_000] {
            let taken: Vec<Staged> = std::iter::from_fn(|| pool.take(client, len, now)).collect();
            assert!(taken.len() >= 16);
            let bytes: usize = taken.iter().map(|staged| staged.len()).sum();
            assert!(taken.iter().all(|staged| staged.len() >= len as usize));
            assert_eq!(bytes, pool.held());
            assert!(pool.held() + pool.free_bytes <= STAGING_BYTES);
            for staged in taken {
                pool.give(staged, now);
            }
            assert!(pool.free_bytes <= STAGING_BYTES);
            pool.shares.withdraw(client, now);
            assert_eq!(pool.held(), 0);
        }
    }
}
