//! Buffers for data on its way between hosts and disks, unless it goes straight to or from the disk.

use std::time::Duration;

use pollux_reactor::Time;

use crate::target::conn::connection::wire_len;
use crate::target::disk::{Buffer, PAGE_LEN, Page};
use crate::target::io::TRANSFER_MAX;
use crate::target::io::shares::{HostName, Shares};

/// Staging memory of a reactor in bytes, which its hosts share; there is as much again for hosts that hold none of it.
/// Commands for whose data there is none wait for their R2T.
pub(in crate::target) const STAGING_BYTES: usize = 32 << 20;

/// Log2 of the least and of the largest buffer. Buffers are powers of two, so that small transfers take little.
const LEAST: u32 = 12;
const LARGEST: u32 = TRANSFER_MAX.ilog2();
const SIZES: usize = (LARGEST - LEAST + 1) as usize;

/// The staging memory of one reactor: the books of who has how much of it, and the buffers that nobody has at present,
/// which are kept.
#[derive(Debug)]
pub(in crate::target) struct StagingPool {
    pub(in crate::target) shares: Shares,
    /// Commands whose data was asked for and has not come.
    pub(in crate::target) awaited: usize,
    /// By size.
    free: [Vec<Box<[Page]>>; SIZES],
    /// Bytes of all of them.
    free_bytes: usize,
}

impl Default for StagingPool {
    fn default() -> Self {
        Self {
            shares: Shares::new(STAGING_BYTES),
            awaited: 0,
            free: Default::default(),
            free_bytes: 0,
        }
    }
}

impl StagingPool {
    /// A controller of this host came to be on the reactor. Returns the host's number, for
    /// [`leave`](Shares::leave).
    pub(in crate::target) fn enter(&mut self, host: HostName) -> usize {
        self.shares.enter(host)
    }

    /// Takes a buffer of at least `len` bytes for a connection of [`Shares::open`], if it may have one now; else it is
    /// woken when it may.
    #[inline]
    pub(in crate::target) fn take(&mut self, client: usize, len: u32, now: Time) -> Option<Buffer> {
        let size = size_of(len);
        let bytes = 1 << (size + LEAST as usize);
        if !self.shares.request(client, bytes, now) {
            return None;
        }
        Some(self.buffer(size, len))
    }

    /// The same for data that has come with its command and cannot wait: the queue's entries bound how much that is, and
    /// it counts against what the connection is given later.
    pub(in crate::target) fn take_at_once(&mut self, client: usize, len: u32) -> Buffer {
        let size = size_of(len);
        self.shares.overdraw(client, 1 << (size + LEAST as usize));
        self.buffer(size, len)
    }

    #[inline]
    fn buffer(&mut self, size: usize, len: u32) -> Buffer {
        let bytes = 1 << (size + LEAST as usize);
        let memory = match self.free.get_mut(size).and_then(Vec::pop) {
            Some(memory) => {
                self.free_bytes -= bytes;
                memory
            }
            None => self.allocate(bytes),
        };
        Buffer::new(memory, len as usize)
    }

    /// A new buffer; others that nobody has make room for it.
    #[cold]
    fn allocate(&mut self, bytes: usize) -> Box<[Page]> {
        // The new one is in the books already.
        while self.shares.held() + self.free_bytes > STAGING_BYTES {
            let Some(dropped) = self.free.iter_mut().rev().find_map(Vec::pop) else {
                break;
            };
            self.free_bytes -= size_of_val(&*dropped);
        }
        Page::zeroed(bytes / PAGE_LEN)
    }

    /// A buffer of this connection comes back. One without memory is none.
    #[inline]
    pub(in crate::target) fn give(&mut self, client: usize, buffer: Buffer, now: Time) {
        let pages = buffer.into_pages();
        let len = size_of_val(&*pages);
        if len == 0 {
            return;
        }
        self.shares.release(client, len, now);
        if self.shares.held() + self.free_bytes + len > STAGING_BYTES {
            return;
        }
        self.free[size_of(wire_len(len))].push(pages);
        self.free_bytes += len;
    }

    /// A buffer of this connection, with so many bytes of memory, does not come back.
    pub(in crate::target) fn lose(&mut self, client: usize, capacity: usize, now: Time) {
        if capacity > 0 {
            self.shares.release(client, capacity, now);
        }
    }

    /// Bytes that connections have.
    pub(in crate::target) fn held(&self) -> usize {
        self.shares.held()
    }

    pub(in crate::target) fn longest_wait(&self, now: Time) -> Duration {
        self.shares.longest_wait(now)
    }
}

/// Which of the sizes holds `len` bytes.
#[inline]
fn size_of(len: u32) -> usize {
    let bits = len.next_power_of_two().ilog2().clamp(LEAST, LARGEST);
    (bits - LEAST) as usize
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
            let taken: Vec<Buffer> = std::iter::from_fn(|| pool.take(client, len, now)).collect();
            assert!(taken.len() >= 16);
            let bytes: usize = taken.iter().map(Buffer::capacity).sum();
            assert!(taken.iter().all(|buffer| buffer.len() == len as usize));
            assert_eq!(bytes, pool.held());
            assert!(pool.held() + pool.free_bytes <= STAGING_BYTES);
            for buffer in taken {
                pool.give(client, buffer, now);
            }
            assert!(pool.free_bytes <= STAGING_BYTES);
            pool.shares.withdraw(client, now);
            assert_eq!(pool.held(), 0);
        }
    }
}
