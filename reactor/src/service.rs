//! What runs on a reactor.

use crate::context::Context;
use crate::time::Time;

/// Whether a turn, or a part of one, found something to do. It decides how a reactor rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// Nothing was done, and nothing will be until a message, a timer or a byte arrives.
    Idle,
    /// Something was done, or more is left to do right away.
    Busy,
}

impl Progress {
    /// Busy if either is.
    pub fn or(self, other: Progress) -> Progress {
        match self {
            Progress::Busy => Progress::Busy,
            Progress::Idle => other,
        }
    }
}

/// A state machine that lives on one reactor and runs only on its thread.
///
/// Time, randomness, timers and byte streams come from the [`Context`] of the turn, so that a service cannot tell a real
/// reactor from a simulated one. No method may block.
pub trait Service: 'static {
    /// What other threads may send to this service.
    type Message: Send + 'static;

    /// Called once, on the reactor's thread, before the first turn.
    fn on_start(&mut self, cx: &mut Context<'_>) {
        let _ = cx;
    }

    /// A message has come. Messages of one sender come in order.
    fn on_message(&mut self, message: Self::Message, cx: &mut Context<'_>);

    /// The timer that was set with `token` is due. Timers are for a service with many things that are due apart from each
    /// other; one that only looks at the time in [`poll`](Self::poll) has a [`deadline`](Self::deadline).
    ///
    /// # Panics
    ///
    /// Unless it is implemented: a service that sets timers says what they are for.
    fn on_timer(&mut self, token: u64, cx: &mut Context<'_>) {
        let _ = cx;
        unreachable!("timer {token} was set by a service that awaits none");
    }

    /// Does one bounded portion of work: receive, complete, submit, send. Called in every turn.
    ///
    /// After [`Progress::Idle`] the reactor may sleep until a message, a timer or a socket event comes, so a service that
    /// left bytes unread, or work unfinished, must say [`Progress::Busy`].
    fn poll(&mut self, cx: &mut Context<'_>) -> Progress;

    /// Writes what is under way, a line each: called when the reactor ends because one of its services has panicked. The
    /// service is as the panic has left it.
    fn in_flight(&self, out: &mut String) {
        let _ = out;
    }

    /// When [`poll`](Self::poll) has something to do although no message, timer or byte comes; `None` if never. The executor
    /// sees to it that there is a turn then. It asks only before it rests, after polls that were idle, so what is said here
    /// may take a look at everything, and need not be told when it changes.
    ///
    /// A deadline that has passed and is still there after an idle poll keeps the reactor from resting.
    fn deadline(&self) -> Option<Time> {
        None
    }

    /// The reactor is about to sleep until an edge, a message or a deadline comes: streams that were
    /// [muted](crate::Stream::mute) are to be unmuted.
    fn before_sleep(&mut self) {}

    /// The reactor stops: the last call. Messages and timers that are left are dropped.
    fn on_stop(&mut self, cx: &mut Context<'_>) {
        let _ = cx;
    }
}
