//! What a queue is made of: places for its I/Os, and the ways by which those that have ended come back. `tests/queue_model`
//! has all orders of its steps tried.
//!
//! A place is taken by whoever submits, and belongs to one I/O until its end was taken: so nothing here can be too full for
//! what a reactor puts into it. An end lies at its I/O's place; the reactor writes the ends of a turn there first, which has
//! the processor fetch those places at the same time, and tells of all of them afterwards: a step that has to wait until
//! another core gives memory away is taken once for many I/Os.
#![expect(unsafe_code, reason = "an end is written and taken without a lock")]

use std::task::Waker;

use super::sync::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicUsize, AtomicWaker, Cell};
use super::sync::{Ordering, Ring, fence};

/// Beside the number of a place whose end is told: its I/O is waited for by itself.
const AWAITED: u16 = 1 << 15;

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

/// Places for as many I/Os as the queue is deep, and what lies there: an I/O or its end, a `C`.
pub(crate) struct Rings<C> {
    free: Ring<u16>,
    places: Box<[Place<C>]>,
    /// Places whose ends are taken in turn, each one higher, in the order in which those come. 0: not there yet.
    ended: Box<[AtomicU16]>,
    /// How many stand there, or stood; of those who end I/Os.
    put: Apart<AtomicUsize>,
    taker: Apart<Taker>,
    /// Whoever takes ends in turn is told of the others too, and hands them over.
    delivers: AtomicBool,
}

/// Whoever takes ends in turn.
struct Taker {
    /// How many were taken.
    taken: AtomicUsize,
    waker: AtomicWaker,
    gone: AtomicBool,
    /// Somebody is at dropping what it has left.
    is_drained: AtomicBool,
}

/// On cache lines of its own: what one thread writes does not take from another what stands beside it. They come in pairs.
#[repr(align(128))]
struct Apart<T>(T);

#[repr(C, align(128))]
struct Place<C> {
    /// Belongs to whoever has the place: who has taken it, then whoever is told of it, from `put` or `end` on whoever takes
    /// the end.
    value: Cell<Option<C>>,
    turn: AtomicU32,
    state: AtomicU8,
    waker: AtomicWaker,
}

// SAFETY: a value is touched by whoever has its place alone, and goes from one thread to another with that. Held by
// `tests/queue_model`, whose cells know who touches them.
unsafe impl<C: Send> Sync for Place<C> {}

impl<C> Rings<C> {
    pub fn new(depth: u16) -> Self {
        let free = Ring::new(usize::from(depth));
        for place in 0..depth {
            let is_put = free.push(place).is_ok();
            assert!(is_put, "there is room for every place");
        }
        let place = |_| Place {
            value: Cell::new(None),
            turn: AtomicU32::new(0),
            state: AtomicU8::new(WANTED),
            waker: AtomicWaker::new(),
        };
        let ended = usize::from(depth).next_power_of_two();
        Self {
            free,
            places: (0..depth).map(place).collect(),
            ended: (0..ended).map(|_| AtomicU16::new(0)).collect(),
            put: Apart(AtomicUsize::new(0)),
            taker: Apart(Taker {
                taken: AtomicUsize::new(0),
                waker: AtomicWaker::new(),
                gone: AtomicBool::new(false),
                is_drained: AtomicBool::new(false),
            }),
            delivers: AtomicBool::new(false),
        }
    }

    /// Takes a place; `None` if all are taken.
    pub fn take_place(&self) -> Option<Ticket> {
        let place = self.free.pop()?;
        // Written by whoever had the place before, and handed over with it.
        let turn = self.turn(place);
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

    /// Writes an I/O to its place, for whoever is told of the place; or its end, of which [`put`](Self::put) or
    /// [`end`](Self::end) tells.
    ///
    /// # Safety
    /// The place was taken for the I/O, and what was written for it before was taken with [`take_at`](Self::take_at).
    pub unsafe fn write(&self, place: u16, value: C) {
        self.place(place).value.with_mut(|at| {
            // SAFETY: the place belongs to the I/O, and nobody looks there before it is told. What was there was taken, and
            // to look would mean to wait for it.
            unsafe { at.write(Some(value)) }
        });
    }

    /// Takes what was written to a place.
    ///
    /// # Safety
    /// It was told of, by which whoever was told has the place.
    #[expect(clippy::expect_used, reason = "it is written before it is told")]
    pub unsafe fn take_at(&self, place: u16) -> C {
        let value = self.place(place).value.with_mut(|at| {
            // SAFETY: as this function's.
            unsafe { (*at).take() }
        });
        value.expect("a place was told of that is empty")
    }

    /// How many I/Os had the place before the one that has it.
    pub fn turn(&self, place: u16) -> u32 {
        self.place(place).turn.load(Ordering::Relaxed)
    }

    /// Tells of ends that were written, of I/Os that are taken in turn: whom to wake for them. Once nobody takes them any more
    /// they are dropped here.
    pub fn put(&self, places: &[u16], wake: &mut impl FnMut(Waker)) {
        self.tell(places, 0, wake);
    }

    /// Tells the taker of ends that were written, of I/Os that are waited for each by itself, if it hands those over. False: it
    /// does not, and [`end`](Self::end) tells of them.
    pub fn put_awaited(&self, places: &[u16], wake: &mut impl FnMut(Waker)) -> bool {
        let delivers = self.delivers.load(Ordering::Relaxed);
        if delivers {
            self.tell(places, AWAITED, wake);
        }
        delivers
    }

    fn tell(&self, places: &[u16], mark: u16, wake: &mut impl FnMut(Waker)) {
        // Each has seen what was taken before the one before it put something.
        let at = self.put.0.fetch_add(places.len(), Ordering::AcqRel);
        for (n, place) in places.iter().enumerate() {
            let at = self.ended_at(at.wrapping_add(n));
            let there = at.load(Ordering::Relaxed);
            assert!(there == 0, "more has ended than there are places");
            at.store((place + 1) | mark, Ordering::Release);
        }
        // Pairs with the fences in `taker_goes` and `drop_ends`: either this sees that the taker has gone, or the taker sees
        // the end.
        fence(Ordering::SeqCst);
        if self.taker.0.gone.load(Ordering::Acquire) {
            self.drop_ends(wake);
        } else if let Some(waker) = self.taker.0.waker.take() {
            wake(waker);
        }
    }

    /// The next end of those that are taken in turn; one thread at a time takes them. Whoever awaits others that it comes by is
    /// woken by `wake`.
    pub fn take(&self, wake: &mut impl FnMut(Waker)) -> Option<C> {
        loop {
            let told = self.next_told()?;
            if told & AWAITED == 0 {
                let end = self.end_at(told);
                self.give_back(told);
                return Some(end);
            }
            if let Some(waker) = self.end(told & !AWAITED) {
                wake(waker);
            }
        }
    }

    /// The next place that was told of, and whether it is marked.
    fn next_told(&self) -> Option<u16> {
        let taken = &self.taker.0.taken;
        let n = taken.load(Ordering::Relaxed);
        let at = self.ended_at(n);
        // Asked for again and again, and mostly there is none: a load says so.
        if at.load(Ordering::Relaxed) == 0 {
            return None;
        }
        // Swapped, so that no two could ever have the same place.
        let told = at.swap(0, Ordering::Acquire).checked_sub(1)?;
        taken.store(n.wrapping_add(1), Ordering::Relaxed);
        Some(told)
    }

    /// As [`take`](Self::take); if there is none, `waker` is woken when there may be.
    pub fn take_or_wait(&self, waker: &Waker, wake: &mut impl FnMut(Waker)) -> Option<C> {
        self.take(wake).or_else(|| {
            self.taker.0.waker.register(waker);
            self.take(wake)
        })
    }

    /// The taker hands over what ends of I/Os that are waited for each by itself, from about now on.
    pub fn deliver(&self) {
        self.delivers.store(true, Ordering::Relaxed);
    }

    /// Nobody takes ends any more.
    pub fn taker_goes(&self, wake: &mut impl FnMut(Waker)) {
        self.delivers.store(false, Ordering::Relaxed);
        self.taker.0.gone.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        self.drop_ends(wake);
    }

    /// Drops what has ended, and hands over what is waited for, for a taker that has gone; one at a time, and whoever is at it sees what others put meanwhile.
    fn drop_ends(&self, wake: &mut impl FnMut(Waker)) {
        let taker = &self.taker.0;
        while !taker.is_drained.swap(true, Ordering::Acquire) {
            while let Some(end) = self.take(wake) {
                drop(end);
            }
            taker.is_drained.swap(false, Ordering::AcqRel);
            fence(Ordering::SeqCst);
            let taken = taker.taken.load(Ordering::Relaxed);
            if self.ended_at(taken).load(Ordering::Relaxed) == 0 {
                break;
            }
        }
    }

    /// Tells of an end that was written, of an I/O that is waited for by itself: whom to wake for it. If it is wanted no more
    /// it is dropped here.
    pub fn end(&self, place: u16) -> Option<Waker> {
        let at = self.place(place);
        match at.state.swap(ENDED, Ordering::AcqRel) {
            WANTED => at.waker.take(),
            DROPPED => {
                self.forget(place);
                None
            }
            _ => panic!("an I/O has ended twice"),
        }
    }

    /// Takes the end of that I/O, and gives its place back; if there is none yet, `waker` is woken when there is.
    pub fn take_end(&self, place: u16, waker: &Waker) -> Option<C> {
        if !self.has_ended(place) {
            self.place(place).waker.register(waker);
            if !self.has_ended(place) {
                return None;
            }
        }
        let end = self.end_at(place);
        self.renew(place);
        Some(end)
    }

    /// Whether the end of that I/O is there.
    pub fn has_ended(&self, place: u16) -> bool {
        self.place(place).state.load(Ordering::Acquire) == ENDED
    }

    /// The end of that I/O, which was not taken, is wanted no more.
    pub fn drop_end(&self, place: u16) {
        if self.place(place).state.swap(DROPPED, Ordering::AcqRel) == ENDED {
            self.forget(place);
        }
    }

    fn forget(&self, place: u16) {
        drop(self.end_at(place));
        self.renew(place);
    }

    fn renew(&self, place: u16) {
        self.place(place).state.store(WANTED, Ordering::Relaxed);
        self.give_back(place);
    }

    fn end_at(&self, place: u16) -> C {
        // SAFETY: an end is told once, and who was told of it has its place until that is given back.
        unsafe { self.take_at(place) }
    }

    fn ended_at(&self, n: usize) -> &AtomicU16 {
        // Their number is a power of two.
        &self.ended[n & (self.ended.len() - 1)]
    }

    fn place(&self, place: u16) -> &Place<C> {
        &self.places[usize::from(place)]
    }
}
