//! The wrapper: copies what a stream carries.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Content, Event, SEGMENT, Segment, Shared, What};
use crate::net::Stream;
use crate::net::wrap::{Opened, StreamWrapper};
use crate::time::Time;

/// One connection that is captured.
#[derive(Debug)]
pub(super) struct Tap {
    stream: Stream,
    opened: Opened,
    shared: Shared,
    flow: u64,
    /// The writer has been told of the connection.
    is_announced: bool,
    /// The writer has the other end already.
    skip: Arc<AtomicBool>,
    sent: u64,
    received: u64,
    /// The peer's end, or a broken connection, was told.
    is_over: bool,
}

impl Tap {
    pub(super) fn new(stream: Stream, opened: Opened, shared: Shared) -> Tap {
        let flow = shared.next_flow.fetch_add(1, Ordering::Relaxed);
        Tap {
            stream,
            opened,
            shared,
            flow,
            is_announced: false,
            skip: Arc::default(),
            sent: 0,
            received: 0,
            is_over: false,
        }
    }

    /// Tells the writer of the connection, once. The connecting side does so before it sends anything, and so before the
    /// accepting side can, which then is not written a second time.
    fn announce(&mut self) {
        if self.is_announced {
            return;
        }
        let (Ok(local), Ok(peer)) = (self.stream.local_addr(), self.stream.peer_addr()) else {
            return;
        };
        let skip = Arc::clone(&self.skip);
        let opened = self.opened;
        self.is_announced = self.tell(What::Open {
            opened,
            local,
            peer,
            skip,
        });
    }

    fn tell(&self, what: What) -> bool {
        let event = Event {
            flow: self.flow,
            at: Time::read_clock(),
            what,
        };
        self.shared.events.try_send(event).is_ok()
    }

    fn put(&mut self, is_sent: bool, content: Content) {
        if self.skip.load(Ordering::Relaxed) {
            return;
        }
        self.announce();
        let (offset, acknowledged) = match is_sent {
            true => (self.sent, self.received),
            false => (self.received, self.sent),
        };
        let segment = Segment {
            is_sent,
            offset,
            acknowledged,
            content,
        };
        if !self.is_announced || !self.tell(What::Segment(segment)) {
            self.shared.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes the first `len` bytes of `bufs`.
    fn take<'a>(&mut self, is_sent: bool, bufs: impl Iterator<Item = &'a [u8]>, len: usize) {
        let mut left = len;
        let mut bytes = Vec::new();
        for buf in bufs {
            let (mut buf, _) = buf.split_at(buf.len().min(left));
            left -= buf.len();
            while !buf.is_empty() {
                let (now, later) = buf.split_at(buf.len().min(SEGMENT - bytes.len()));
                bytes.extend_from_slice(now);
                buf = later;
                if bytes.len() == SEGMENT {
                    self.flush(is_sent, std::mem::take(&mut bytes));
                }
            }
        }
        debug_assert_eq!(left, 0, "no more is moved than the buffers hold");
        if !bytes.is_empty() {
            self.flush(is_sent, bytes);
        }
    }

    fn flush(&mut self, is_sent: bool, bytes: Vec<u8>) {
        let len = bytes.len() as u64;
        self.put(is_sent, Content::Bytes(bytes));
        match is_sent {
            true => self.sent += len,
            false => self.received += len,
        }
    }

    fn broken(&mut self, error: &io::Error) {
        if error.kind() != ErrorKind::WouldBlock && !self.is_over {
            self.is_over = true;
            self.put(false, Content::Reset);
        }
    }
}

impl StreamWrapper for Tap {
    fn inner(&self) -> &Stream {
        &self.stream
    }

    fn inner_mut(&mut self) -> &mut Stream {
        &mut self.stream
    }

    fn connected(&mut self) -> io::Result<bool> {
        let up = self.stream.connected()?;
        if up {
            self.announce();
        }
        Ok(up)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let result = self.stream.read_vectored(bufs);
        match &result {
            Ok(0) if !self.is_over && bufs.iter().any(|buf| !buf.is_empty()) => {
                self.is_over = true;
                self.put(false, Content::Fin);
            }
            Ok(len) => self.take(false, bufs.iter().map(|buf| &**buf), *len),
            Err(error) => self.broken(error),
        }
        result
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let result = self.stream.write_vectored(bufs);
        match &result {
            Ok(len) => self.take(true, bufs.iter().map(|buf| &**buf), *len),
            Err(error) => self.broken(error),
        }
        result
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        if !self.is_announced {
            return;
        }
        if !self.skip.load(Ordering::Relaxed) {
            self.put(true, Content::Fin);
        }
        // Where this finds no room, the writer keeps the entry of a connection that is over.
        self.tell(What::Gone);
    }
}
