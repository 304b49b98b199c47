//! Commands that take too long, and I/O that is not wanted any more: aborted, or past its deadline (rules
//! B9.1, B9.3).

use std::time::Duration;

use pollux_nvme_tcp::host::{QueueError, Request, Unwanted, Withdrawn};
use pollux_nvme_tcp::spec::status::Status;
use pollux_reactor::Time;

use super::{Channels, Delayed, channel_of, link_mut};
use crate::io::IoError;
use crate::messages::{ControllerId, FromIo, VolumeId};

/// How long a controller has to give back a command whose abort was asked for.
const GIVE_BACK: Duration = Duration::from_secs(1);
/// The least time between two looks for deadlines that have passed.
const EXPIRE_PERIOD: Duration = Duration::from_millis(1);

/// What [`Channels::abort`] could do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aborting {
    /// No controller had the I/O; it has ended with Command Abort Requested.
    Ended,
    /// Its controller is asked to abort it. It ends with what the controller says: aborted, or done; it is not
    /// tried again.
    Asked,
    /// There is no such I/O.
    NotFound,
}

impl Channels {
    /// Deals with the commands of one controller that were not answered in time (rule B9.1): an abort is
    /// asked of control, whose queue it goes by; a reset begins here and now, as with any lost connection.
    #[cold]
    pub(super) fn age_commands(&mut self, controller: ControllerId) {
        let Some(link) = link_mut(&mut self.links, controller) else {
            return;
        };
        let overdue = link.age(self.now);
        let incarnation = link.incarnation;
        let queue_id = link.queue_id();
        let inbox = &mut self.inbox;
        let news = overdue
            .give_up
            .map(|why| link.give_up(why, &mut |completed| inbox.push(completed)));
        if overdue.traffic {
            self.post(FromIo::Traffic {
                controller,
                incarnation,
            });
        }
        self.counters.timeouts += overdue.count as u64;
        if overdue.count > 0 {
            self.post(FromIo::CommandTimeout {
                controller,
                incarnation,
                commands: overdue.count,
            });
        }
        if let Some(news) = news {
            self.report(controller, incarnation, news);
            self.drain_inbox(controller);
        } else if !overdue.to_abort.is_empty() {
            self.post(FromIo::Abort {
                controller,
                incarnation,
                queue_id,
                commands: overdue.to_abort,
                overdue: true,
            });
        }
    }

    /// Aborts the first I/O of a volume on this reactor that was submitted with this `user` and has not
    /// ended, wherever it is (rule B9.3). It ends in any case, in
    /// [`next_completion`](Self::next_completion): what no controller has, in this turn; what was sent, when
    /// its controller gives it back. A controller that has not done so after a second is reset, since only
    /// then nobody writes to the I/O's buffer any more; what else was on the way there goes by other paths.
    pub fn abort(&mut self, volume: VolumeId, user: u64) -> Aborting {
        let owner = volume.pack();
        let wanted = |request: &Request| {
            request.owner == owner && request.user == user && request.unwanted == Unwanted::No
        };
        let waiting = channel_of(&mut self.channels, volume).and_then(|channel| {
            let index = channel.waiting.iter().position(wanted)?;
            channel.waiting.remove(index)
        });
        let delayed = || {
            let index = self.delayed.iter().position(|d| wanted(&d.request))?;
            Some(self.delayed.remove(index)?.request)
        };
        let mut found = waiting.or_else(delayed);
        let give_back_by = self.now + GIVE_BACK;
        for link in self.links.iter_mut().flatten() {
            if found.is_some() {
                break;
            }
            let (controller, incarnation) = (link.id, link.incarnation);
            let queue_id = link.queue_id();
            let Some(queue) = link.queue() else {
                continue;
            };
            match queue.withdraw(wanted) {
                None => {}
                Some(Withdrawn::Unsent(request)) => found = Some(request),
                Some(Withdrawn::Sent(cid)) => {
                    queue.look_through(&mut |request, id| {
                        if id == Some(cid) {
                            request.unwanted = Unwanted::Aborted;
                            request.deadline = give_back_by;
                        }
                    });
                    self.expire_at = self.expire_at.min(give_back_by);
                    self.post(FromIo::Abort {
                        controller,
                        incarnation,
                        queue_id,
                        commands: vec![cid],
                        overdue: false,
                    });
                    return Aborting::Asked;
                }
            }
        }
        let Some(request) = found else {
            return Aborting::NotFound;
        };
        let error = IoError::Status(Status::ABORTED_BY_REQUEST);
        self.finish(request, None, Err(error));
        Aborting::Ended
    }

    /// Ends I/Os whose deadline has passed. Those that no controller has end now; for the others an abort is
    /// asked for, and those that were not given back since then end with the connection.
    #[cold]
    pub(super) fn expire(&mut self) {
        let now = self.now;
        let mut next = Time::MAX;
        let mut passed = Vec::new();
        let mut sort_out = |request: Request| {
            if request.deadline <= now {
                passed.push(request);
                return None;
            }
            next = next.min(request.deadline);
            Some(request)
        };
        for channel in self.channels.iter_mut().flatten() {
            let waiting = std::mem::take(&mut channel.waiting);
            channel.waiting = waiting.into_iter().filter_map(&mut sort_out).collect();
        }
        let delayed = std::mem::take(&mut self.delayed).into_iter();
        self.delayed = delayed
            .filter_map(|Delayed { at, request }| {
                sort_out(request).map(|request| Delayed { at, request })
            })
            .collect();
        let ids: Vec<_> = self.links.iter().flatten().map(|link| link.id).collect();
        for id in ids {
            next = next.min(self.expire_on(id, &mut passed));
        }
        for request in passed {
            self.finish(request, None, Err(IoError::Deadline));
        }
        // With many different deadlines they are looked through a thousand times a second at most.
        self.expire_at = next.max(now + EXPIRE_PERIOD);
    }

    /// As [`expire`](Self::expire), of one queue pair. Returns the next deadline of those that it has.
    fn expire_on(&mut self, controller: ControllerId, unsent: &mut Vec<Request>) -> Time {
        let now = self.now;
        let mut next = Time::MAX;
        let Some(link) = link_mut(&mut self.links, controller) else {
            return next;
        };
        let (incarnation, queue_id) = (link.incarnation, link.queue_id());
        let Some(queue) = link.queue() else {
            return next;
        };
        let mut commands = Vec::new();
        let mut not_given_back = false;
        queue.look_through(&mut |request, cid| {
            if request.deadline <= now
                && let Some(cid) = cid
            {
                not_given_back |= request.unwanted != Unwanted::No;
                if request.unwanted == Unwanted::No {
                    request.unwanted = Unwanted::Overdue;
                    request.deadline = now + GIVE_BACK;
                    commands.push(cid);
                }
            }
            if request.deadline > now {
                next = next.min(request.deadline);
            }
        });
        while let Some(Withdrawn::Unsent(request)) =
            queue.withdraw(|request| request.deadline <= now && request.unwanted == Unwanted::No)
        {
            unsent.push(request);
        }
        if not_given_back {
            let inbox = &mut self.inbox;
            let news = link.give_up(QueueError::NotGivenBack, &mut |c| inbox.push(c));
            self.report(controller, incarnation, news);
            self.drain_inbox(controller);
        } else if !commands.is_empty() {
            self.post(FromIo::Abort {
                controller,
                incarnation,
                queue_id,
                commands,
                overdue: false,
            });
        }
        next
    }
}
