//! How long the end of a run may take: what is in flight is waited for, but not for ever, and after a signal not for long.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::clock::now;

/// I/O that has not moved for so long after the end will not come back.
pub const DRAIN_MAX: Duration = Duration::from_secs(15);
/// After a signal nothing is waited for any longer than this.
pub const AFTER_SIGNAL: Duration = Duration::from_millis(1_000);

/// The time that is left for I/O to come home after the end of a run.
#[derive(Debug)]
pub struct Ending<'a> {
    stop: &'a AtomicBool,
    moved: Instant,
    signalled: Option<Instant>,
}

impl<'a> Ending<'a> {
    /// The run is over.
    pub fn new(stop: &'a AtomicBool) -> Self {
        let mut ending = Self {
            stop,
            moved: now(),
            signalled: None,
        };
        ending.look();
        ending
    }

    /// An I/O has come home.
    pub fn moved(&mut self) {
        self.moved = now();
    }

    /// What is left; zero: it is enough.
    pub fn left(&mut self) -> Duration {
        self.look();
        let still = DRAIN_MAX.saturating_sub(self.moved.elapsed());
        match self.signalled {
            None => still,
            Some(at) => still.min(AFTER_SIGNAL.saturating_sub(at.elapsed())),
        }
    }

    fn look(&mut self) {
        if self.signalled.is_none() && self.stop.load(Ordering::Relaxed) {
            self.signalled = Some(now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_leaves_little_of_it() {
        let stop = AtomicBool::new(false);
        let mut ending = Ending::new(&stop);
        assert!(ending.left() > AFTER_SIGNAL);
        stop.store(true, Ordering::Relaxed);
        assert!(ending.left() <= AFTER_SIGNAL);
        ending.moved();
        assert!(
            ending.left() <= AFTER_SIGNAL,
            "what moves does not lengthen it"
        );
        assert!(Ending::new(&stop).left() <= AFTER_SIGNAL);
    }
}
