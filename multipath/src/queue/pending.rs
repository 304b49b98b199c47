//! An I/O that is waited for by itself.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::Queue;
use super::reactor::Which;
use super::rings::Ticket;
use crate::command::Completion;
use crate::error::SubmitError;
use crate::ids::VolumeId;
use crate::wait;

/// An I/O that was submitted by [`Queue::start`]: a future of its end, for any executor.
///
/// Dropped before that, the I/O goes on; its buffer stays with the reactor until the I/O has ended and is dropped then, and
/// so long it has its place in the queue. [`abort`](Self::abort) has it end sooner.
#[must_use = "its end is taken by awaiting it, or by `wait`"]
pub struct Pending {
    queue: Queue,
    volume: VolumeId,
    /// `None` once its end was taken.
    ticket: Option<Ticket>,
}

impl Pending {
    pub(super) fn new(queue: Queue, volume: VolumeId, ticket: Ticket) -> Self {
        Self {
            queue,
            volume,
            ticket: Some(ticket),
        }
    }

    /// Blocks until it has ended. Not to be called on a reactor. It ends in any case, when its reactor ends at the latest.
    ///
    /// The thread looks for its end for a while before it sleeps, as of [`Completions::wait`](crate::Completions::wait).
    pub fn wait(self) -> Completion {
        let rings = &self.queue.0.rings;
        let has_ended = |ticket: Ticket| rings.has_ended(ticket.place).then_some(());
        let _ = wait::watch(Duration::MAX, || self.ticket.and_then(has_ended));
        wait::block_on(self)
    }

    /// Takes it back, as [`PollGroup::abort`](crate::PollGroup::abort): it ends in any case, and is awaited for that.
    ///
    /// # Errors
    /// [`SubmitError::Full`], if it can be tried again, and [`SubmitError::Stopped`].
    pub fn abort(&self) -> Result<(), SubmitError> {
        match self.ticket {
            None => Ok(()),
            Some(ticket) => self.queue.tell_abort(self.volume, Which::Ticket(ticket)),
        }
    }
}

impl Future for Pending {
    type Output = Completion;

    /// # Panics
    /// If it is polled after its end was taken.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Completion> {
        let Some(Ticket { place, .. }) = self.ticket else {
            panic!("a future was polled after its end");
        };
        match self.queue.0.rings.take_end(place, cx.waker()) {
            None => Poll::Pending,
            Some(end) => {
                self.ticket = None;
                Poll::Ready(end.done())
            }
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(Ticket { place, .. }) = self.ticket {
            self.queue.0.rings.drop_end(place);
        }
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending")
            .field("is_taken", &self.ticket.is_none())
            .finish_non_exhaustive()
    }
}
