//! What a run has seen so far: shared by its applications, which run in the same thread, and whoever drives them.

#![expect(
    clippy::disallowed_types,
    reason = "applications are made by what must be Send although a run has one thread; the lock is never contended"
)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use pollux_reactor::Time;

use super::oracle::Oracle;

/// Lines of a timeline that are kept, the last ones.
const LINES_MAX: usize = 4000;

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which one, in a few words; the same for the same fault.
    pub rule: &'static str,
    pub at: Time,
    pub what: String,
}

/// What applications do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// I/O as drawn, while things go wrong.
    Run,
    /// No new I/O.
    Drain,
    /// Every block is read once; nothing may fail.
    Verify,
}

/// Errors that I/O may end with, by their names.
pub type Allowed = Vec<&'static str>;

/// The book of a run, for whoever writes in it.
#[derive(Clone, Debug)]
pub struct Books(Arc<Mutex<Book>>);

impl Books {
    pub fn new(book: Book) -> Books {
        Books(Arc::new(Mutex::new(book)))
    }

    /// # Panics
    /// If somebody has it already: a run is one thread, and nobody keeps it.
    pub fn borrow(&self) -> MutexGuard<'_, Book> {
        match self.0.try_lock() {
            Ok(book) => book,
            Err(TryLockError::Poisoned(book)) => book.into_inner(),
            Err(TryLockError::WouldBlock) => panic!("the book is in use"),
        }
    }

    /// The time that it was last.
    pub fn now(&self) -> Time {
        self.borrow().now
    }

    /// As [`borrow`](Self::borrow), of which nothing is read only.
    pub fn borrow_mut(&self) -> MutexGuard<'_, Book> {
        self.borrow()
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct Book {
    pub now: Time,
    pub activity: Activity,
    pub oracle: Oracle,
    pub allowed: Allowed,
    pub violation: Option<Violation>,
    pub submitted: u64,
    pub ended: u64,
    /// I/Os that ended with an error, by its name.
    pub errors: BTreeMap<&'static str, u64>,
    /// Reactors that have read everything.
    pub verified: usize,
    /// `None`: nobody wants it.
    pub timeline: Option<Vec<String>>,
    pub hash: u64,
    next_tag: u64,
}

impl Book {
    pub fn new(tracing: bool) -> Book {
        Book {
            now: Time::ZERO,
            activity: Activity::Drain,
            oracle: Oracle::default(),
            allowed: Vec::new(),
            violation: None,
            submitted: 0,
            ended: 0,
            errors: BTreeMap::new(),
            verified: 0,
            timeline: tracing.then(Vec::new),
            hash: 0xCBF2_9CE4_8422_2325,
            next_tag: 0,
        }
    }

    /// A tag that no write had yet.
    pub fn tag(&mut self) -> u64 {
        self.next_tag += 1;
        self.next_tag
    }

    /// Writes a line into the timeline, if there is one.
    pub fn tell(&mut self, line: impl FnOnce() -> String) {
        let seconds = self.now.as_nanos() / 1_000_000_000;
        let micros = self.now.as_nanos() / 1000 % 1_000_000;
        if let Some(timeline) = &mut self.timeline {
            if timeline.len() >= 2 * LINES_MAX {
                timeline.drain(..LINES_MAX);
            }
            timeline.push(format!("{seconds:4}.{micros:06} {}", line()));
        }
    }

    /// A rule was broken; the first one counts.
    pub fn violate(&mut self, rule: &'static str, what: String) {
        if self.violation.is_none() {
            self.tell(|| format!("BROKEN: {rule}: {what}"));
            self.violation = Some(Violation {
                rule,
                at: self.now,
                what,
            });
        }
    }

    /// Something happened that must happen in each run of the same seed.
    pub fn hash(&mut self, value: u64) {
        self.hash = (self.hash ^ value)
            .wrapping_mul(0x0100_0000_01B3)
            .rotate_left(17);
    }
}
