//! The send side of a connection.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};

use arrayvec::ArrayVec;
use pollux_reactor::Stream;

/// Pieces handed to one vectored send. A command with its data, or an answer with its data, is two: 128 of them go in
/// one system call. The list lives on the stack.
const PIECES_MAX: usize = 256;

/// Once so many bytes are listed for a send, more pieces do not make it cheaper: few sockets take more at once, and what
/// they leave has to be listed again.
const SEND_ENOUGH: usize = 1024 * 1024;

/// Length of the shared block of zeroes. Small, so that sending it again and again stays in the cache.
const ZEROES_LEN: usize = 16 * 1024;
static ZEROES: [u8; ZEROES_LEN] = [0; ZEROES_LEN];

/// Payload that a [`TxQueue`] sends without copying it: it stays with its owner, named by a slot.
pub trait Payloads {
    /// The bytes `offset .. offset + len` of the slot's payload; shorter only if the owner is wrong.
    fn bytes(&self, slot: u16, offset: usize, len: usize) -> &[u8];
    /// `len` more bytes of the slot's payload have been handed to the stream.
    fn sent(&mut self, slot: u16, len: usize);
}

/// For users of a [`TxQueue`] that never call [`TxQueue::put_payload`].
#[derive(Debug)]
pub struct NoPayloads;

impl Payloads for NoPayloads {
    fn bytes(&self, _slot: u16, _offset: usize, _len: usize) -> &[u8] {
        &[]
    }
    fn sent(&mut self, _slot: u16, _len: usize) {}
}

#[derive(Debug, Clone, Copy)]
enum Source {
    /// Position in the inline area, counted from the queue's first byte ever.
    Inline(u64),
    Zeroes,
    Payload {
        slot: u16,
        offset: usize,
    },
}

#[derive(Debug, Clone, Copy)]
struct Segment {
    source: Source,
    len: usize,
}

/// Memory of a [`TxQueue`].
#[derive(Debug)]
pub struct TxStore {
    inline: Vec<u8>,
    segments: VecDeque<Segment>,
}

impl TxStore {
    /// Memory for a queue that was made with the same two numbers.
    pub fn new(inline_capacity: usize, max_segments: usize) -> Self {
        Self {
            inline: Vec::with_capacity(inline_capacity),
            segments: VecDeque::with_capacity(max_segments),
        }
    }
}

/// An ordered list of what is to be sent: headers in an inline area, zeroes, and payload owned elsewhere.
#[derive(Debug)]
pub struct TxQueue {
    inline: Vec<u8>,
    inline_capacity: usize,
    /// Stream position (see [`Source::Inline`]) of `inline[0]`.
    inline_base: u64,
    segments: VecDeque<Segment>,
    segments_max: usize,
    pending: usize,
}

impl TxQueue {
    /// A queue whose inline area holds `inline_capacity` bytes and that lists up to `max_segments` pieces.
    pub fn new(inline_capacity: usize, max_segments: usize) -> Self {
        let mut queue = Self::detached(inline_capacity, max_segments);
        queue.attach(TxStore::new(inline_capacity, max_segments));
        queue
    }

    /// The same without memory, which [`attach`](Self::attach) gives it. It can be used, but it allocates.
    pub fn detached(inline_capacity: usize, max_segments: usize) -> Self {
        Self {
            inline: Vec::new(),
            inline_capacity,
            inline_base: 0,
            segments: VecDeque::new(),
            segments_max: max_segments,
            pending: 0,
        }
    }

    /// Whether it has all the memory that it can need.
    #[inline]
    pub fn is_attached(&self) -> bool {
        self.inline.capacity() >= self.inline_capacity
            && self.segments.capacity() >= self.segments_max
    }

    /// Gives a detached queue memory; what waits to be sent is kept.
    pub fn attach(&mut self, mut memory: TxStore) {
        memory.inline.extend_from_slice(&self.inline);
        memory.segments.extend(&self.segments);
        self.inline = memory.inline;
        self.segments = memory.segments;
    }

    /// Takes the memory away if nothing waits to be sent.
    pub fn detach(&mut self) -> Option<TxStore> {
        if self.pending > 0 || !self.is_attached() {
            return None;
        }
        let mut memory = TxStore {
            inline: std::mem::take(&mut self.inline),
            segments: std::mem::take(&mut self.segments),
        };
        memory.inline.clear();
        memory.segments.clear();
        Some(memory)
    }

    /// Bytes that [`put`](Self::put) may still append.
    #[inline]
    pub fn inline_space(&self) -> usize {
        self.inline_capacity - self.inline.len()
    }

    /// Pieces that may still be listed.
    #[inline]
    pub fn segment_space(&self) -> usize {
        self.segments_max - self.segments.len()
    }

    /// True if nothing waits to be sent.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.pending == 0
    }

    /// Bytes that wait to be sent.
    #[inline]
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// Inline bytes that were ever queued: where the next one stands among them.
    #[inline]
    pub fn inline_end(&self) -> u64 {
        self.inline_base + self.inline.len() as u64
    }

    /// Inline bytes that were ever handed to the stream.
    pub fn inline_handed(&self) -> u64 {
        let first = self.segments.iter().find_map(|s| match s.source {
            Source::Inline(position) => Some(position),
            _ => None,
        });
        first.unwrap_or(self.inline_end())
    }

    /// Lets `f` append bytes to the inline area. It may append up to [`inline_space`](Self::inline_space)
    /// bytes and must not change those before.
    #[inline]
    pub fn put<R>(&mut self, f: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let before = self.inline.len();
        let result = f(&mut self.inline);
        let len = self.inline.len() - before;
        debug_assert!(self.inline.len() <= self.inline_capacity);
        self.pending += len;
        let position = self.inline_base + before as u64;
        match self.segments.back_mut() {
            Some(Segment {
                source: Source::Inline(at),
                len: last,
            }) if *at + *last as u64 == position => *last += len,
            _ if len == 0 => {}
            _ => self.segments.push_back(Segment {
                source: Source::Inline(position),
                len,
            }),
        }
        result
    }

    /// Queues `len` zero bytes; takes one piece for every 16 KiB.
    #[inline]
    pub fn put_zeroes(&mut self, mut len: usize) {
        self.pending += len;
        while len > 0 {
            let piece = len.min(ZEROES_LEN);
            self.segments.push_back(Segment {
                source: Source::Zeroes,
                len: piece,
            });
            len -= piece;
        }
    }

    /// Pieces that [`put_zeroes`](Self::put_zeroes) takes for `len` bytes.
    #[inline]
    pub fn zero_segments(len: usize) -> usize {
        len.div_ceil(ZEROES_LEN)
    }

    /// Queues `len` bytes of the payload of `slot` from `offset` on; they are looked up when they are sent.
    #[inline]
    pub fn put_payload(&mut self, slot: u16, offset: usize, len: usize) {
        if len > 0 {
            self.pending += len;
            self.segments.push_back(Segment {
                source: Source::Payload { slot, offset },
                len,
            });
        }
    }

    /// Forgets all that waits: the connection has ended.
    pub fn clear(&mut self) {
        self.inline.clear();
        self.segments.clear();
        self.pending = 0;
    }

    /// Sends what waits, up to 256 pieces a system call. `Ok(true)`: nothing is left; `Ok(false)`: the
    /// stream takes no more for now.
    ///
    /// # Errors
    /// The stream's error, or `InvalidData` if a payload is shorter than was queued.
    #[inline]
    pub fn flush(&mut self, stream: &mut Stream, payloads: &mut impl Payloads) -> io::Result<bool> {
        while self.pending > 0 {
            let sent = {
                let mut pieces = ArrayVec::<_, PIECES_MAX>::new();
                let mut listed = 0;
                for segment in self.segments.iter().take(PIECES_MAX) {
                    let bytes = self.bytes_of(segment, payloads);
                    if bytes.len() != segment.len {
                        return Err(ErrorKind::InvalidData.into());
                    }
                    pieces.push(IoSlice::new(bytes));
                    listed += segment.len;
                    if listed >= SEND_ENOUGH {
                        break;
                    }
                }
                match stream.write_vectored(&pieces) {
                    Ok(n) => n,
                    // Only now is an edge sure to come when there is room again: a send that took a part
                    // promises none.
                    Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                    Err(e) => return Err(e),
                }
            };
            self.advance(sent, payloads);
        }
        Ok(true)
    }

    #[inline]
    fn bytes_of<'a>(&'a self, segment: &Segment, payloads: &'a impl Payloads) -> &'a [u8] {
        match segment.source {
            Source::Inline(position) => {
                let at = usize::try_from(position - self.inline_base).unwrap_or(usize::MAX);
                let rest = self.inline.get(at..).unwrap_or_default();
                rest.get(..segment.len).unwrap_or_default()
            }
            Source::Zeroes => ZEROES.get(..segment.len).unwrap_or_default(),
            Source::Payload { slot, offset } => payloads.bytes(slot, offset, segment.len),
        }
    }

    fn advance(&mut self, mut sent: usize, payloads: &mut impl Payloads) {
        self.pending -= sent;
        if self.pending == 0 {
            // Mostly all of it goes at once.
            for segment in self.segments.drain(..) {
                if let Source::Payload { slot, .. } = segment.source {
                    payloads.sent(slot, segment.len);
                }
            }
            self.inline_base = self.inline_end();
            self.inline.clear();
            return;
        }
        while sent > 0 {
            let Some(front) = self.segments.front_mut() else {
                break;
            };
            let n = sent.min(front.len);
            match &mut front.source {
                Source::Inline(position) => *position += n as u64,
                Source::Zeroes => {}
                Source::Payload { slot, offset } => {
                    payloads.sent(*slot, n);
                    *offset += n;
                }
            }
            front.len -= n;
            sent -= n;
            if front.len == 0 {
                self.segments.pop_front();
            }
        }
        self.reclaim();
    }

    /// Frees inline bytes that were sent. With everything sent that is free of charge; else the rest is
    /// moved only once half of the area can be won back, so that each byte is moved at most once or so.
    fn reclaim(&mut self) {
        let first = self.inline_handed();
        let done = usize::try_from(first - self.inline_base).unwrap_or(0);
        if done == self.inline.len() || done > self.inline_capacity / 2 {
            self.inline.drain(..done);
            self.inline_base = first;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_to_be_sent_survives_other_memory() {
        let mut tx = TxQueue::detached(1000, 10);
        assert!(!tx.is_attached() && tx.detach().is_none());
        tx.put(|out| out.extend_from_slice(b"one"));
        tx.put_zeroes(5);
        tx.put(|out| out.extend_from_slice(b"two"));
        assert!(tx.detach().is_none());
        tx.attach(TxStore::new(1000, 10));
        assert!(tx.is_attached() && tx.detach().is_none());
        tx.put(|out| out.extend_from_slice(b"three"));
        let pieces: Vec<&[u8]> = tx
            .segments
            .iter()
            .map(|segment| tx.bytes_of(segment, &NoPayloads))
            .collect();
        assert_eq!(pieces, [&b"one"[..], &[0; 5], b"twothree"]);
        let pending = tx.pending();
        tx.advance(pending, &mut NoPayloads);
        let memory = tx.detach().unwrap();
        assert!(memory.inline.is_empty() && memory.segments.is_empty());
        assert!(tx.is_empty() && !tx.is_attached());
        // It goes on where it was.
        tx.attach(memory);
        tx.put(|out| out.extend_from_slice(b"four"));
        let bytes = tx.segments.front().map(|s| tx.bytes_of(s, &NoPayloads));
        assert_eq!(bytes, Some(&b"four"[..]));
    }
}
