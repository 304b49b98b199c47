//! The receive side of a connection.

use std::io::{self, ErrorKind, IoSliceMut};

use pollux_reactor::Stream;

/// From this size on, a payload is worth a receive of its own. (Smaller ones are not: 64 KiB read with the limit below are
/// slower by a fifth, 32 KiB by two.)
const LARGE: usize = 128 * 1024;

/// Bytes that a receive takes into the buffer while payloads are large: enough for headers, and for any PDU that is
/// parsed as a whole.
const WHILE_LARGE: usize = 16 * 1024;

/// A fixed buffer between a byte stream and the parser of PDUs.
///
/// Payload is consumed as it arrives, so what stays behind between two receives is at most one
/// incomplete header or capsule; moving it to the front costs little and keeps every PDU contiguous.
#[derive(Debug)]
pub struct RxBuffer {
    /// `capacity` bytes; while detached, only what has arrived and was not consumed.
    buffer: Box<[u8]>,
    capacity: usize,
    /// A receive fills the buffer up to here.
    limit: usize,
    start: usize,
    end: usize,
}

impl RxBuffer {
    /// A buffer of `capacity` bytes; it must hold the largest PDU that is parsed as a whole.
    pub fn new(capacity: usize) -> Self {
        Self {
            buffer: vec![0; capacity].into_boxed_slice(),
            capacity,
            limit: capacity,
            start: 0,
            end: 0,
        }
    }

    /// The same without memory, which [`attach`](Self::attach) gives it.
    pub fn detached(capacity: usize) -> Self {
        Self {
            buffer: Box::default(),
            capacity,
            limit: capacity,
            start: 0,
            end: 0,
        }
    }

    /// Whether there is memory to receive into.
    #[inline]
    pub fn is_attached(&self) -> bool {
        self.buffer.len() == self.capacity
    }

    /// Gives a detached buffer memory, of its capacity.
    pub fn attach(&mut self, mut memory: Box<[u8]>) {
        assert_eq!(memory.len(), self.capacity, "memory of another size");
        let left = self.data();
        let len = left.len();
        if let Some(to) = memory.get_mut(..len) {
            to.copy_from_slice(left);
        }
        self.buffer = memory;
        self.start = 0;
        self.end = len;
    }

    /// Takes the memory away, if it is hardly used: less than an eighth holds bytes that were not consumed, and these
    /// are kept. Nothing can be received until other memory is attached.
    pub fn detach(&mut self) -> Option<Box<[u8]>> {
        if !self.is_attached() || self.data().len() > self.capacity / 8 {
            return None;
        }
        let left: Box<[u8]> = self.data().into();
        self.start = 0;
        self.end = left.len();
        Some(std::mem::replace(&mut self.buffer, left))
    }

    /// The bytes that have arrived and were not consumed yet.
    #[inline]
    pub fn data(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Drops the first `n` bytes of [`data`](Self::data) (all of them if there are fewer).
    #[inline]
    pub fn consume(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// The payload of a PDU has `len` bytes; those of the next ones will be alike. Of large ones, little comes into this
    /// buffer: what is received behind the end of one is the beginning of the next, and would be copied twice. Of small
    /// ones, as many come at a time as there is room for.
    #[inline]
    pub fn expect_payloads(&mut self, len: usize) {
        self.limit = match len {
            LARGE.. => self.capacity.min(WHILE_LARGE),
            _ => self.capacity,
        };
    }

    /// Bytes that the next receive can take at most. The limit is for speed: it does not stand in the way of a PDU that has
    /// to be there as a whole.
    #[inline]
    pub fn room(&self) -> usize {
        let waiting = self.end - self.start;
        if waiting < self.limit {
            self.limit - waiting
        } else {
            self.capacity - waiting
        }
    }

    /// One receive for all that has arrived.
    ///
    /// # Errors
    /// `WouldBlock` when nothing has arrived, `UnexpectedEof` when the peer closed, `OutOfMemory` when
    /// the buffer is full of unparsed bytes (the caller's size limit is wrong), else the socket's error.
    #[inline]
    pub fn fill(&mut self, stream: &mut Stream) -> io::Result<usize> {
        debug_assert!(self.is_attached());
        self.compact();
        let until = self.end + self.room();
        let free = self.buffer.get_mut(self.end..until).unwrap_or_default();
        if free.is_empty() {
            return Err(ErrorKind::OutOfMemory.into());
        }
        let n = stream.read(free)?;
        if n == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.end += n;
        Ok(n)
    }

    /// Puts bytes behind those that are there, as if they had been received. The caller knows that there is room.
    pub fn put(&mut self, bytes: &[u8]) {
        let until = self.end + bytes.len();
        self.buffer[self.end..until].copy_from_slice(bytes);
        self.end = until;
    }

    /// One receive straight into `direct`, and up to `behind` bytes into this buffer, which must be empty: a payload
    /// larger than what has arrived is not copied twice. Returns the bytes that went to each.
    ///
    /// # Errors
    /// As [`fill`](Self::fill).
    #[inline]
    pub fn fill_direct(
        &mut self,
        stream: &mut Stream,
        direct: &mut [u8],
        behind: usize,
    ) -> io::Result<(usize, usize)> {
        debug_assert!(self.is_attached());
        debug_assert_eq!(self.start, self.end);
        (self.start, self.end) = (0, 0);
        let wanted = direct.len();
        let behind = behind.min(self.room());
        let behind = self.buffer.get_mut(..behind).unwrap_or_default();
        let n = stream.read_vectored(&mut [IoSliceMut::new(direct), IoSliceMut::new(behind)])?;
        if n == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let direct = n.min(wanted);
        self.end = n - direct;
        Ok((direct, n - direct))
    }

    /// Bytes that it can hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    fn compact(&mut self) {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_is_received_behind_large_payloads() {
        let mut rx = RxBuffer::new(4 * WHILE_LARGE);
        assert_eq!(rx.room(), 4 * WHILE_LARGE);
        rx.expect_payloads(LARGE);
        assert_eq!(rx.room(), WHILE_LARGE);
        rx.end = 100;
        rx.consume(30);
        assert_eq!(rx.room(), WHILE_LARGE - 70);
        // What has to be there as a whole finds room beyond the limit.
        rx.end = WHILE_LARGE + 30;
        assert_eq!(rx.room(), 3 * WHILE_LARGE);
        rx.consume(WHILE_LARGE);
        rx.expect_payloads(LARGE - 1);
        assert_eq!(rx.room(), 4 * WHILE_LARGE);
        rx.expect_payloads(LARGE);
        assert_eq!(RxBuffer::new(100).room(), 100);
    }

    #[test]
    fn what_was_not_consumed_survives_a_rest() {
        let mut rx = RxBuffer::detached(800);
        assert!(!rx.is_attached());
        assert!(rx.detach().is_none());
        rx.attach(vec![0; 800].into_boxed_slice());
        for (place, byte) in rx.buffer.iter_mut().zip(0u8..250) {
            *place = byte;
        }
        (rx.start, rx.end) = (0, 250);
        rx.consume(100);
        // More than an eighth is in use.
        assert!(rx.detach().is_none());
        rx.consume(60);
        let left: Vec<u8> = (160..250).collect();
        let memory = rx.detach().unwrap();
        assert_eq!(memory.len(), 800);
        assert_eq!((rx.data(), rx.capacity()), (left.as_slice(), 800));
        rx.consume(10);
        rx.attach(vec![9; 800].into_boxed_slice());
        assert_eq!(rx.data(), left.get(10..).unwrap());
        rx.consume(800);
        rx.detach().unwrap();
        assert!(rx.data().is_empty() && rx.buffer.is_empty());
    }
}
