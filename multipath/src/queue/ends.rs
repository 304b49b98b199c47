//! What has ended in a turn, and who is woken for it once that is known.

use std::sync::Arc;
use std::task::Waker;

use pollux_reactor::{Progress, Time};

use super::reactor::Sent;
use super::{Carried, End, Shared};
use crate::command::{Completion, Io};
use crate::error::IoError;
use crate::wait::call;

/// Puts ends where they are waited for; tells of them, and wakes those who wait, after the last end of a turn.
#[derive(Default)]
pub(super) struct Ends {
    /// Where ends were written, in order.
    places: Vec<u16>,
    /// Whose they are.
    runs: Vec<Run>,
    wakers: Vec<Waker>,
}

/// Ends of one queue in a row.
struct Run {
    queue: Arc<Shared>,
    /// They are waited for each by itself, and not taken in turn.
    is_awaited: bool,
    count: usize,
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

    #[expect(unsafe_code, reason = "an I/O ends once")]
    pub fn put_done(&mut self, sent: Sent, mut done: Completion) {
        done.io.user = sent.user;
        let (place, is_awaited) = (sent.ticket.place, sent.is_awaited);
        self.places.push(place);
        let (mut queue, mut first) = (Some(sent.queue), None);
        match self.runs.last_mut() {
            Some(run)
                if run.is_awaited == is_awaited
                    && queue.as_ref().is_some_and(|q| Arc::ptr_eq(q, &run.queue)) =>
            {
                run.count += 1;
            }
            _ => first = queue.take(),
        }
        if let Some(queue) = first {
            self.runs.push(Run {
                queue,
                is_awaited,
                count: 1,
            });
        }
        let Some(run) = self.runs.last() else {
            unreachable!("a run was just there");
        };
        let end = Carried::Back(End {
            done,
            _queue: queue,
        });
        // SAFETY: an I/O is sent with one `Sent`, which is gone now. Held by `tests/queue_model`.
        unsafe { run.queue.rings.write(place, end) };
    }

    /// Tells of what was put since, and wakes whoever waits for it. Busy if anything was.
    pub fn wake(&mut self) -> Progress {
        if self.runs.is_empty() {
            return Progress::Idle;
        }
        let mut places = &self.places[..];
        for run in self.runs.drain(..) {
            let (of_it, others) = places.split_at(run.count);
            places = others;
            let rings = &run.queue.rings;
            match run.is_awaited {
                true => {
                    if !rings.put_awaited(of_it, &mut |w| self.wakers.push(w)) {
                        self.wakers
                            .extend(of_it.iter().filter_map(|&p| rings.end(p)));
                    }
                }
                false => rings.put(of_it, &mut |w| self.wakers.push(w)),
            }
        }
        self.places.clear();
        let mut wakers = self.wakers.drain(..).peekable();
        while let Some(waker) = wakers.next() {
            // A task that waits for several I/Os is woken once for those in a row.
            match wakers.peek().is_some_and(|next| next.will_wake(&waker)) {
                true => call(|| drop(waker)),
                false => call(|| waker.wake()),
            }
        }
        Progress::Busy
    }
}
