//! The receive side of a connection.

use std::io::{self, ErrorKind, IoSliceMut};

use pollux_reactor::Stream;

/// A fixed buffer between a byte stream and the parser of PDUs.
///
/// Payload is consumed as it arrives, so what stays behind between two receives is at most one
/// incomplete header or capsule; moving it to the front costs little and keeps every PDU contiguous.
#[derive(Debug)]
pub struct RxBuffer {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl RxBuffer {
    /// A buffer of `capacity` bytes; it must hold the largest PDU that is parsed as a whole.
    pub fn new(capacity: usize) -> Self {
        Self {
            buffer: vec![0; capacity].into_boxed_slice(),
            start: 0,
            end: 0,
        }
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

    /// One receive for all that has arrived.
    ///
    /// # Errors
    /// `WouldBlock` when nothing has arrived, `UnexpectedEof` when the peer closed, `OutOfMemory` when
    /// the buffer is full of unparsed bytes (the caller's size limit is wrong), else the socket's error.
    #[inline]
    pub fn fill(&mut self, stream: &mut Stream) -> io::Result<usize> {
        self.compact();
        let free = self.buffer.get_mut(self.end..).unwrap_or_default();
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

    /// One receive straight into `direct`, and behind it into this buffer, which must be empty: a payload
    /// larger than what has arrived is not copied twice. Returns the bytes that went to each.
    ///
    /// # Errors
    /// As [`fill`](Self::fill).
    #[inline]
    pub fn fill_direct(
        &mut self,
        stream: &mut Stream,
        direct: &mut [u8],
    ) -> io::Result<(usize, usize)> {
        debug_assert_eq!(self.start, self.end);
        let wanted = direct.len();
        let n = stream
            .read_vectored(&mut [IoSliceMut::new(direct), IoSliceMut::new(&mut self.buffer)])?;
        if n == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let direct = n.min(wanted);
        self.start = 0;
        self.end = n - direct;
        Ok((direct, n - direct))
    }

    /// Bytes that the next [`fill`](Self::fill) can take at most.
    pub fn capacity(&self) -> usize {
        self.buffer.len()
    }

    fn compact(&mut self) {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
    }
}
