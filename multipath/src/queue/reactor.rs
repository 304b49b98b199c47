//! The reactor's side of queues: submits what they bring, and puts what has ended where it is waited for.

use std::fmt;
use std::sync::Arc;

use pollux_reactor::{Context, Progress, Time};

use super::ends::Ends;
use super::rings::Ticket;
use super::{Shared, There};
use crate::command::{Completion, Io, Op};
use crate::error::IoError;
use crate::ids::VolumeId;
use crate::io::{Application, PollGroup};

/// I/Os of all queues of a reactor that its table has room for at first.
const IN_FLIGHT: usize = 1024;

/// The application that serves [`Queue`](super::Queue)s: what [`HostBuilder::install`](crate::HostBuilder::install) is given
/// for a host whose I/O comes from other threads.
pub struct Queues {
    /// I/Os that the poll group has, each by the place here that it is called by there.
    sent: Vec<Option<Sent>>,
    free: Vec<usize>,
    /// What has ended in this turn.
    ends: Ends,
}

/// What a [`Queue`](super::Queue) tells the [`Queues`] of its reactor.
pub struct QueueMessage(pub(super) Told);

pub(super) enum Told {
    Submit(Submission),
    Abort {
        queue: Arc<Shared>,
        volume: VolumeId,
        which: Which,
    },
}

/// Which I/O of a queue is meant.
#[derive(Debug, Clone, Copy)]
pub(super) enum Which {
    /// The first one with this `user`.
    User(u64),
    Ticket(Ticket),
}

/// An I/O that the poll group has or is to have, and where its end goes.
pub(super) struct Sent {
    pub queue: Arc<Shared>,
    pub ticket: Ticket,
    /// Its end is waited for by itself, and not taken in turn.
    pub is_awaited: bool,
    pub volume: VolumeId,
    /// As its submitter has said, since the poll group is told a name of ours.
    pub user: u64,
}

/// An I/O on its way to the reactor, which lies at its place. Where the reactor ends meanwhile the message is dropped, and so
/// the I/O ends.
pub(super) struct Submission(Option<Arc<Shared>>, u16);

impl Submission {
    pub fn new(queue: Arc<Shared>, place: u16) -> Self {
        Self(Some(queue), place)
    }

    #[expect(clippy::expect_used, reason = "nobody has it after that")]
    pub fn take(mut self) -> (Sent, There) {
        self.take_it().expect("a submission was taken twice")
    }

    #[expect(unsafe_code, reason = "whoever has it has the place")]
    fn take_it(&mut self) -> Option<(Sent, There)> {
        let (queue, place) = (self.0.take()?, self.1);
        // SAFETY: what lies there was written for this message, and is taken with it. Held by `tests/queue_model`.
        let there = unsafe { queue.rings.take_at(place) }.there();
        let turn = queue.rings.turn(place);
        let sent = Sent {
            queue,
            ticket: Ticket { place, turn },
            is_awaited: there.is_awaited,
            volume: there.volume,
            user: there.io.user,
        };
        Some((sent, there))
    }
}

impl Drop for Submission {
    fn drop(&mut self) {
        if let Some((sent, there)) = self.take_it() {
            let mut ends = Ends::default();
            let error = IoError::Stopped;
            ends.put(sent, there.io, Err(error), Time::ZERO);
            let _ = ends.wake();
        }
    }
}

impl Queues {
    /// For the nth I/O reactor; they are all the same.
    pub fn new(_reactor: usize) -> Self {
        Self {
            sent: Vec::with_capacity(IN_FLIGHT),
            free: Vec::with_capacity(IN_FLIGHT),
            ends: Ends::default(),
        }
    }

    fn submit(&mut self, submission: Submission, group: &mut PollGroup, now: Time) {
        let (sent, there) = submission.take();
        let There {
            mut io,
            volume,
            limit,
            ..
        } = there;
        let place = self.free.pop().unwrap_or_else(|| {
            self.sent.push(None);
            self.sent.len() - 1
        });
        io.user = place as u64;
        let submitted = match limit {
            None => group.submit(volume, io),
            Some(limit) => group.submit_within(volume, io, limit),
        };
        match submitted {
            Ok(()) => self.sent[place] = Some(sent),
            Err((io, error)) => {
                self.free.push(place);
                let error = IoError::Refused(error);
                self.ends.put(sent, io, Err(error), now);
            }
        }
    }

    fn abort(&self, queue: &Arc<Shared>, volume: VolumeId, which: Which, group: &mut PollGroup) {
        let is_it = |sent: &Sent| {
            let of_it = match which {
                Which::User(user) => sent.user == user && sent.volume == volume,
                Which::Ticket(ticket) => sent.ticket == ticket,
            };
            of_it && Arc::ptr_eq(&sent.queue, queue)
        };
        let place = self.sent.iter().position(|s| s.as_ref().is_some_and(is_it));
        if let Some(place) = place {
            // What has ended meanwhile is on its way already.
            let _ = group.abort(volume, place as u64);
        }
    }

    #[expect(clippy::expect_used, reason = "the poll group ends each I/O once")]
    fn end(&mut self, done: Completion) {
        let place = usize::try_from(done.io.user).ok();
        let sent = place.and_then(|place| self.sent.get_mut(place)?.take());
        let sent = sent.expect("an I/O has ended that no queue has submitted");
        self.free.extend(place);
        self.ends.put_done(sent, done);
    }
}

impl Application for Queues {
    type Message = QueueMessage;

    fn on_message(&mut self, message: QueueMessage, group: &mut PollGroup, cx: &mut Context<'_>) {
        match message.0 {
            Told::Submit(submission) => self.submit(submission, group, cx.now()),
            Told::Abort {
                queue,
                volume,
                which,
            } => self.abort(&queue, volume, which, group),
        }
    }

    fn poll(&mut self, group: &mut PollGroup, _: &mut Context<'_>) -> Progress {
        while let Some(done) = group.next_completion() {
            self.end(done);
        }
        self.ends.wake()
    }
}

/// A reactor that has panicked ends without a completion for what is under way; the buffers are gone with it.
impl Drop for Queues {
    fn drop(&mut self) {
        for sent in self.sent.drain(..).flatten() {
            let lost = Io::new(Op::Flush, 0, 0, Vec::new());
            self.ends.put(sent, lost, Err(IoError::Stopped), Time::ZERO);
        }
        let _ = self.ends.wake();
    }
}

impl fmt::Debug for Queues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queues")
            .field("in_flight", &(self.sent.len() - self.free.len()))
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for QueueMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("QueueMessage")
    }
}
