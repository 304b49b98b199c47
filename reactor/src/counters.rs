//! What a reactor counts about itself.

use std::sync::atomic::{AtomicU64, Ordering};

/// Totals of one reactor since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Turns of the loop.
    pub turns: u64,
    /// Turns that found something to do.
    pub busy_turns: u64,
    /// Messages delivered.
    pub messages: u64,
    /// Timers fired.
    pub timers: u64,
    /// Time spent in busy turns, in nanoseconds.
    pub busy_ns: u64,
    /// Socket system calls: read, write, accept, connect, event poll.
    pub socket_calls: u64,
}

/// The counters as another thread may read them. The reactor stores now and then; it never waits and never does a
/// read-modify-write. Each figure is a true one of the recent past, the six need not be of the same moment.
#[derive(Debug, Default)]
pub(crate) struct Published {
    figures: [AtomicU64; 6],
}

impl Published {
    pub(crate) fn store(&self, counters: &Counters) {
        let values = [
            counters.turns,
            counters.busy_turns,
            counters.messages,
            counters.timers,
            counters.busy_ns,
            counters.socket_calls,
        ];
        for (figure, value) in self.figures.iter().zip(values) {
            figure.store(value, Ordering::Relaxed);
        }
    }

    pub(crate) fn load(&self) -> Counters {
        let [turns, busy_turns, messages, timers, busy_ns, socket_calls] =
            [0, 1, 2, 3, 4, 5].map(|i: usize| self.figures[i].load(Ordering::Relaxed));
        Counters {
            turns,
            busy_turns,
            messages,
            timers,
            busy_ns,
            socket_calls,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_what_is_loaded() {
        let counters = Counters {
            turns: 1,
            busy_turns: 2,
            messages: 3,
            timers: 4,
            busy_ns: 5,
            socket_calls: 6,
        };
        let published = Published::default();
        published.store(&counters);
        assert_eq!(published.load(), counters);
    }
}
