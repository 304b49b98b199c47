//! Edges that the event poll has seen: a flag at each stream, and for watched streams a list of their tokens, so that
//! whoever owns many streams looks only at those that something has happened to.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Something happened: bytes, room, the end.
const EDGE: u8 = 1;
/// There is room to send, or the stream is broken.
const ROOM: u8 = 2;

/// What was seen of one stream: written by the event poll of a reactor, taken by the stream. Both run on the same thread
/// except while a stream travels, and then `adopt` makes a new one, so relaxed loads and stores are enough.
#[derive(Debug, Clone)]
pub(super) struct Ready(Arc<AtomicU8>);

impl Ready {
    pub(super) fn new(ready: bool) -> Ready {
        Ready(Arc::new(AtomicU8::new(if ready { EDGE | ROOM } else { 0 })))
    }

    fn bits(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }

    fn clear(&self, bits: u8) {
        self.0.store(self.bits() & !bits, Ordering::Relaxed);
    }

    /// Notes an edge. True if none was noted since the last one was taken.
    pub(super) fn note(&self, room: bool) -> bool {
        let before = self.bits();
        let room = if room { ROOM } else { 0 };
        self.0.store(before | EDGE | room, Ordering::Relaxed);
        before & EDGE == 0
    }

    pub(super) fn get(&self) -> bool {
        self.bits() & EDGE != 0
    }

    /// Forgets that there was an edge.
    pub(super) fn reset(&self) {
        self.clear(EDGE);
    }

    pub(super) fn take(&self) -> bool {
        let ready = self.get();
        if ready {
            self.clear(EDGE);
        }
        ready
    }

    pub(super) fn take_room(&self) -> bool {
        let room = self.bits() & ROOM != 0;
        if room {
            self.clear(ROOM);
        }
        room
    }

    /// The other side of the flag is gone.
    pub(super) fn is_orphan(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

/// Who is told of a stream's edges, and by which token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Watch {
    /// Which of the [`ReadyLists`].
    pub(super) list: usize,
    pub(super) token: u64,
}

/// Tokens of watched streams that have had an edge, one list for each service of a reactor.
#[derive(Debug, Default)]
pub(super) struct ReadyLists(Vec<VecDeque<u64>>);

impl ReadyLists {
    pub(super) fn push(&mut self, watch: Watch) {
        if self.0.len() <= watch.list {
            self.0.resize_with(watch.list + 1, VecDeque::new);
        }
        self.0[watch.list].push_back(watch.token);
    }

    #[inline]
    pub(super) fn pop(&mut self, list: usize) -> Option<u64> {
        self.0.get_mut(list)?.pop_front()
    }
}
