//! Commands that take too long, and I/O that is not wanted any more: aborted, or past its deadline (rules
//! B9.1, B9.3).

use std::time::Duration;

use pollux_nvme_tcp::host::{QueueError, Withdrawn};
use pollux_nvme_tcp::spec::status::Status;
use pollux_reactor::Time;

use super::retry::Delayed;
use super::{PollGroup, known_link, volume_mut};
use crate::error::IoError;
use crate::ids::{ControllerId, VolumeId};
use crate::io::in_flight::{InFlight, IoRequest, Unwanted};
use crate::messages::FromIo;

/// How long a controller has to give back a command whose abort was asked for.
const GIVE_BACK: Duration = Duration::from_secs(1);
/// The least time between two looks for deadlines that have passed.
const EXPIRE_PERIOD: Duration = Duration::from_millis(1);

/// What [`PollGroup::abort`] could do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Aborting {
    /// No controller had the I/O; it has ended with Command Abort Requested.
    Ended,
    /// Its controller is asked to abort it. It ends with what the controller says: aborted, or done; it is not
    /// tried again.
    Asked,
    /// There is no such I/O.
    NotFound,
}

impl PollGroup {
    /// Deals with the commands of one controller that were not answered in time (rule B9.1): an abort is
    /// asked of control, whose queue it goes by; a reset begins here and now, as with any lost connection.
    #[cold]
    pub(super) fn age_commands(&mut self, controller: ControllerId) {
        let link = known_link(&mut self.links, controller);
        let overdue = link.age(self.now);
        let incarnation = link.incarnation;
        let queue_id = link.queue_id();
        let news = overdue
            .give_up
            .map(|why| link.give_up(why, &mut self.inbox));
        if overdue.traffic {
            self.post(FromIo::Traffic {
                controller,
                incarnation,
            });
        }
        if overdue.authenticated {
            self.post(FromIo::Authenticated {
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
        let wanted =
            |io: &InFlight| io.volume == volume && io.user == user && io.unwanted == Unwanted::No;
        let waiting = volume_mut(&mut self.volumes, volume).and_then(|volume| {
            let index = volume.waiting.iter().position(|r| wanted(&r.user))?;
            volume.waiting.remove(index)
        });
        let delayed = || {
            let is_it = |d: &Delayed| wanted(&d.request.user);
            let index = self.delayed.iter().position(is_it)?;
            Some(self.delayed.remove(index)?.request)
        };
        let fenced = || {
            let volume = volume_mut(&mut self.volumes, volume)?;
            let mut first = true;
            // The flag is taken only by an I/O that is wanted: one is enough.
            let one = |io: &InFlight| wanted(io) && std::mem::take(&mut first);
            volume.fence.take(one).pop()
        };
        let found = waiting.or_else(delayed).or_else(fenced);
        let limited = || {
            let throttle = volume_mut(&mut self.volumes, volume)?.throttle.as_mut()?;
            throttle.remove(|request| wanted(&request.user))
        };
        let mut found = found.or_else(limited);
        let give_back_by = self.now + GIVE_BACK;
        for link in self.links.iter_mut().flatten() {
            if found.is_some() {
                break;
            }
            let (controller, incarnation) = (link.id, link.incarnation);
            match link.withdraw(wanted) {
                None => {}
                Some(Withdrawn::Unsent(request)) => found = Some(request),
                Some(Withdrawn::Sent(cid)) => {
                    link.look_through(&mut |io, id| {
                        if id == Some(cid) {
                            io.unwanted = Unwanted::Aborted;
                            io.deadline = give_back_by;
                        }
                    });
                    let queue_id = link.queue_id();
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
        self.end(request, error);
        Aborting::Ended
    }

    /// Ends I/Os whose deadline has passed. Those that no controller has end now; for the others an abort is
    /// asked for, and those that were not given back since then end with the connection.
    #[cold]
    pub(super) fn expire(&mut self) {
        let now = self.now;
        let mut next = Time::MAX;
        let mut kept_next = Time::MAX;
        let mut passed = Vec::new();
        let mut sort_out = |request: IoRequest| {
            let deadline = request.user.deadline;
            if deadline <= now {
                passed.push(request);
                return None;
            }
            next = next.min(deadline);
            Some(request)
        };
        for volume in self.volumes.iter_mut().flatten() {
            let waiting = std::mem::take(&mut volume.waiting);
            volume.waiting = waiting.into_iter().filter_map(&mut sort_out).collect();
        }
        let mut kept = Vec::new();
        for volume in self.volumes.iter_mut().flatten() {
            kept.extend(volume.fence.take(|io| io.deadline <= now));
            let deadlines = volume.fence.requests().map(|r| r.user.deadline);
            kept_next = deadlines.fold(kept_next, Time::min);
            if let Some(throttle) = &mut volume.throttle {
                kept.extend(throttle.extract(|request| request.user.deadline <= now));
                let deadlines = throttle.iter().map(|request| request.user.deadline);
                kept_next = deadlines.fold(kept_next, Time::min);
            }
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
        passed.extend(kept);
        next = next.min(kept_next);
        for request in passed {
            self.end(request, IoError::Deadline);
        }
        // With many different deadlines they are looked through a thousand times a second at most.
        self.expire_at = next.max(now + EXPIRE_PERIOD);
    }

    /// As [`expire`](Self::expire), of one queue pair. Returns the next deadline of those that it has.
    fn expire_on(&mut self, controller: ControllerId, unsent: &mut Vec<IoRequest>) -> Time {
        let now = self.now;
        let mut next = Time::MAX;
        let link = known_link(&mut self.links, controller);
        let (incarnation, queue_id) = (link.incarnation, link.queue_id());
        let mut commands = Vec::new();
        let mut not_given_back = false;
        link.look_through(&mut |io, cid| {
            if io.deadline <= now
                && let Some(cid) = cid
            {
                not_given_back |= io.unwanted != Unwanted::No;
                if io.unwanted == Unwanted::No {
                    io.unwanted = Unwanted::Overdue;
                    io.deadline = now + GIVE_BACK;
                    commands.push(cid);
                }
            }
            if io.deadline > now {
                next = next.min(io.deadline);
            }
        });
        let is_unsent = |io: &InFlight| io.deadline <= now && io.unwanted == Unwanted::No;
        while let Some(Withdrawn::Unsent(request)) = link.withdraw(is_unsent) {
            unsent.push(request);
        }
        if not_given_back {
            let news = link.give_up(QueueError::NotGivenBack, &mut self.inbox);
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
