//! Commands that take too long, and I/O that is not wanted any more (rules B9.1, B9.3).

use pollux_nvme_tcp::host::{Request, Withdrawn};
use pollux_nvme_tcp::spec::status::Status;

use super::{Channels, channel_of, link_mut};
use crate::io::IoError;
use crate::messages::{ControllerId, FromIo, VolumeId};

/// What [`Channels::abort`] could do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aborting {
    /// No controller had the I/O; it has ended with Command Abort Requested.
    Ended,
    /// Its controller is asked to abort it. It ends with what the controller says: aborted, or done.
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
            .then(|| link.give_up(&mut |completed| inbox.push(completed)));
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
    /// [`next_completion`](Self::next_completion).
    pub fn abort(&mut self, volume: VolumeId, user: u64) -> Aborting {
        let owner = volume.pack();
        let wanted = |request: &Request| request.owner == owner && request.user == user;
        let waiting = channel_of(&mut self.channels, volume).and_then(|channel| {
            let index = channel.waiting.iter().position(wanted)?;
            channel.waiting.remove(index)
        });
        let delayed = || {
            let index = self.delayed.iter().position(|d| wanted(&d.request))?;
            Some(self.delayed.remove(index)?.request)
        };
        let mut found = waiting.or_else(delayed);
        for link in self.links.iter_mut().flatten() {
            if found.is_some() {
                break;
            }
            let (controller, incarnation) = (link.id, link.incarnation);
            let queue_id = link.queue_id();
            match link.queue().and_then(|queue| queue.withdraw(wanted)) {
                None => {}
                Some(Withdrawn::Unsent(request)) => found = Some(request),
                Some(Withdrawn::Sent(cid)) => {
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
}
