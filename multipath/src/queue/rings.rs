//! What a queue is made of: places for its I/Os, and the ways by which those that have ended come back. `tests/queue_model`
//! has all orders of its steps tried.
//!
//! A place is taken by whoever submits, and belongs to one I/O until its end was taken: so nothing here can be too full for
//! what a reactor puts into it.

use std::task::Waker;

use super::sync::{AtomicBool, AtomicU8, AtomicU32, AtomicWaker, Ordering, Ring, fence};

/// Somebody waits for the end of the place's I/O, or will.
const WANTED: u8 = 0;
/// The end is there.
const ENDED: u8 = 1;
/// Nobody waits for it any more.
const DROPPED: u8 = 2;

/// A place that an I/O has, and how many had it before: of two that had the same place, one says which it is by that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub place: u16,
    pub turn: u32,
}

/// Places for as many I/Os as the queue is deep, and the ends of those, each a `C`.
pub(crate) struct Rings<C> {
    free: Ring<u16>,
    places: Box<[Place<C>]>,
    /// Ends that are taken in the order in which they come, with their places.
    ends: Ring<(u16, C)>,
    /// Whoever takes those.
    taker: AtomicWaker,
    taker_gone: AtomicBool,
}

struct Place<C> {
    state: AtomicU8,
    turn: AtomicU32,
    /// The end of an I/O that is waited for by itself.
    end: Ring<C>,
    waker: AtomicWaker,
}

impl<C> Rings<C> {
    pub fn new(depth: u16) -> Self {
        let free = Ring::new(usize::from(depth));
        for place in 0..depth {
            let is_put = free.push(place).is_ok();
            assert!(is_put, "there is room for every place");
        }
        let place = |_| Place {
            state: AtomicU8::new(WANTED),
            turn: AtomicU32::new(0),
            end: Ring::new(1),
            waker: AtomicWaker::new(),
        };
        Self {
            free,
            places: (0..depth).map(place).collect(),
            ends: Ring::new(usize::from(depth)),
            taker: AtomicWaker::new(),
            taker_gone: AtomicBool::new(false),
        }
    }

    /// Takes a place; `None` if all are taken.
    pub fn take_place(&self) -> Option<Ticket> {
        let place = self.free.pop()?;
        // Written by whoever had the place before, and handed over with it.
        let turn = self.place(place).turn.load(Ordering::Relaxed);
        Some(Ticket { place, turn })
    }

    /// Gives a place back whose I/O has not been submitted, or was taken.
    pub fn give_back(&self, place: u16) {
        let turn = &self.place(place).turn;
        turn.store(
            turn.load(Ordering::Relaxed).wrapping_add(1),
            Ordering::Relaxed,
        );
        let is_put = self.free.push(place).is_ok();
        assert!(is_put, "a place was given back twice");
    }

    /// The end of an I/O that is taken in turn. [`tell_taker`](Self::tell_taker) follows the last of several.
    pub fn put(&self, place: u16, end: C) {
        let is_put = self.ends.push((place, end)).is_ok();
        assert!(is_put, "more has ended than there are places");
    }

    /// After ends were put: whom to wake for them. Once nobody takes them any more they are dropped here.
    pub fn tell_taker(&self) -> Option<Waker> {
        // Pairs with the fence in `taker_goes`: either this sees that the taker has gone, or the taker sees the end.
        fence(Ordering::SeqCst);
        if self.taker_gone.load(Ordering::Relaxed) {
            self.drop_ends();
            return None;
        }
        self.taker.take()
    }

    /// The next end of those that are taken in turn.
    pub fn take(&self) -> Option<C> {
        // Asked for again and again, and mostly there is none: two loads say so.
        if self.ends.is_empty() {
            return None;
        }
        let (place, end) = self.ends.pop()?;
        self.give_back(place);
        Some(end)
    }

    /// As [`take`](Self::take); if there is none, `waker` is woken when there may be.
    pub fn take_or_wait(&self, waker: &Waker) -> Option<C> {
        self.take().or_else(|| {
            self.taker.register(waker);
            self.take()
        })
    }

    /// Nobody takes ends any more.
    pub fn taker_goes(&self) {
        self.taker_gone.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.drop_ends();
    }

    fn drop_ends(&self) {
        while let Some(end) = self.take() {
            drop(end);
        }
    }

    /// The end of an I/O that is waited for by itself: whom to wake for it. If it is wanted no more it is dropped here.
    pub fn end(&self, place: u16, end: C) -> Option<Waker> {
        let at = self.place(place);
        let is_put = at.end.push(end).is_ok();
        assert!(is_put, "an I/O has ended twice");
        if at.state.swap(ENDED, Ordering::AcqRel) == DROPPED {
            self.forget(place);
            return None;
        }
        at.waker.take()
    }

    /// Takes the end of that I/O, and gives its place back; if there is none yet, `waker` is woken when there is.
    pub fn take_end(&self, place: u16, waker: &Waker) -> Option<C> {
        let at = self.place(place);
        if at.state.load(Ordering::Acquire) != ENDED {
            at.waker.register(waker);
            if at.state.load(Ordering::Acquire) != ENDED {
                return None;
            }
        }
        let end = at.end.pop();
        assert!(end.is_some(), "an end is put before it is told");
        self.renew(place);
        end
    }

    /// The end of that I/O, which was not taken, is wanted no more.
    pub fn drop_end(&self, place: u16) {
        if self.place(place).state.swap(DROPPED, Ordering::AcqRel) == ENDED {
            self.forget(place);
        }
    }

    fn forget(&self, place: u16) {
        drop(self.place(place).end.pop());
        self.renew(place);
    }

    fn renew(&self, place: u16) {
        self.place(place).state.store(WANTED, Ordering::Relaxed);
        self.give_back(place);
    }

    fn place(&self, place: u16) -> &Place<C> {
        &self.places[usize::from(place)]
    }
}
