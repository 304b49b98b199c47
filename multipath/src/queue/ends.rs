//! What has ended in a turn, and who is woken for it once that is known.

use std::sync::Arc;
use std::task::Waker;

use pollux_reactor::{Progress, Time};

use super::Shared;
use super::reactor::Sent;
use crate::command::{Completion, Io};
use crate::error::IoError;
use crate::wait::call;

/// Puts ends where they are waited for, and wakes those who wait, after the last end of a turn.
#[derive(Default)]
pub(super) struct Ends {
    /// Of I/Os that are waited for by themselves.
    wakers: Vec<Waker>,
    /// Queues with ends that are taken in turn.
    filled: Vec<Arc<Shared>>,
}

impl Ends {
    pub fn put(&mut self, sent: Sent, io: Io, result: Result<(), IoError>, submitted: Time) {
        let (volume, path) = (sent.volume, None);
        let done = Completion {
            io,
            result,
            volume,
            path,
            submitted,
        };
        self.put_done(sent, done);
    }

    pub fn put_done(&mut self, sent: Sent, mut done: Completion) {
        done.io.user = sent.user;
        let (queue, place) = (sent.queue, sent.ticket.place);
        if sent.is_awaited {
            self.wakers.extend(queue.rings.end(place, done));
            return;
        }
        queue.rings.put(place, done);
        if self.filled.last().is_none_or(|q| !Arc::ptr_eq(q, &queue)) {
            self.filled.push(queue);
        }
    }

    /// Wakes whoever waits for what was put since. Busy if anything was.
    pub fn wake(&mut self) -> Progress {
        let mut progress = Progress::Idle;
        for queue in self.filled.drain(..) {
            progress = Progress::Busy;
            self.wakers.extend(queue.rings.tell_taker());
        }
        let mut wakers = self.wakers.drain(..).peekable();
        while let Some(waker) = wakers.next() {
            progress = Progress::Busy;
            // A task that waits for several I/Os is woken once for those in a row.
            match wakers.peek().is_some_and(|next| next.will_wake(&waker)) {
                true => call(|| drop(waker)),
                false => call(|| waker.wake()),
            }
        }
        progress
    }
}
