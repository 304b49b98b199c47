//! What becomes of an I/O that a queue pair has handed back (rule B6).

use std::time::Duration;

use pollux_nvme_tcp::host::{Completed, Lost, Outcome};
use pollux_nvme_tcp::spec::status::Status;
use pollux_reactor::Time;

use super::{PollGroup, volume_mut};
use crate::counters;
use crate::error::IoError;
use crate::ids::ControllerId;
use crate::io::in_flight::{InFlight, IoRequest, Unwanted};
use crate::io::path::Pending;
use crate::io::select::PathSet;
use crate::messages::FromIo;

/// A path that keeps completing with path errors other than ANA statuses is tried again this much later,
/// so that one broken controller without a sibling does not turn its reactor into a retry loop.
const PATH_ERROR_DELAY: Duration = Duration::from_millis(10);

/// An I/O that is retried at a later time.
#[derive(Debug)]
pub(super) struct Delayed {
    pub at: Time,
    pub request: IoRequest,
}

/// What becomes of a completion (rule B6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disposition {
    Done,
    Failed,
    /// Another path now; not counted.
    OtherPath,
    /// The same path after the delay of this CRD value; counted.
    Retry(u8),
}

fn disposition(status: Status) -> Disposition {
    if status.is_success() {
        Disposition::Done
    } else if status.dnr() || status.code() == Status::ABORTED_BY_REQUEST {
        Disposition::Failed
    } else if status.is_path_related() || status.code() == Status::ABORTED_SQ_DELETION {
        Disposition::OtherPath
    } else {
        Disposition::Retry(status.crd())
    }
}

impl PollGroup {
    /// Applies rule B6 to an I/O that the queue pair of a controller has handed back. What has succeeded is looked at
    /// where it lies: to move all of it once more for each I/O costs as much as all else that is done here.
    #[inline]
    pub(super) fn on_completed(
        &mut self,
        controller: ControllerId,
        completed: &mut Completed<InFlight>,
    ) {
        let Completed { request, outcome } = completed;
        let buffer = std::mem::take(&mut request.buffer);
        self.counters.completions += 1;
        if !outcome.is_success() {
            let request = IoRequest { buffer, ..*request };
            return self.on_failed(controller, request, *outcome);
        }
        let in_flight = &request.user;
        // Volume and path may have been removed meanwhile.
        let Some(volume) = volume_mut(&mut self.volumes, in_flight.volume) else {
            return self.complete(in_flight, buffer, None, Err(IoError::Removed));
        };
        if let Some(path) = volume.path_mut(controller) {
            let latency = self.now - in_flight.submitted;
            counters::count(&mut path.counters, in_flight.op, request.length, latency);
        }
        self.complete(in_flight, buffer, Some(controller), Ok(()));
    }

    fn on_failed(&mut self, controller: ControllerId, mut request: IoRequest, outcome: Outcome) {
        let id = request.user.volume;
        let doubt = self.doubt(controller, &request, outcome);
        let Some(volume) = volume_mut(&mut self.volumes, id) else {
            return match doubt {
                Some(time) => self.fence(controller, request, time),
                None => self.end(request, IoError::Removed),
            };
        };
        let counted = match outcome {
            Outcome::Completed { status, .. } => Some(status),
            Outcome::Lost(Lost::Connection { .. }) => None,
            // What a target would say of data that it received so.
            Outcome::Lost(_) => Some(Status::TRANSIENT_TRANSPORT_ERROR),
        };
        if let Some(status) = counted {
            volume.count_error(status);
        }
        let mut ana = false;
        if let Some(path) = volume.path_mut(controller) {
            path.counters.errors += 1;
            if let Outcome::Completed { status, .. } = outcome
                && status.is_ana()
                && path.state.group != 0
            {
                // In the same turn, before control has read anything (rule B3.4).
                ana = true;
                if path.pending != Pending::Told {
                    path.pending = Pending::Told;
                    self.waiting = true;
                    self.post(FromIo::AnaStatus {
                        volume: id,
                        controller,
                        at: self.now,
                    });
                }
            }
        }
        if let Some(time) = doubt {
            return self.fence(controller, request, time);
        }
        let (what, error) = match outcome {
            Outcome::Completed { status, .. } => (disposition(status), IoError::Status(status)),
            Outcome::Lost(Lost::Connection { .. }) => (Disposition::OtherPath, IoError::Data),
            Outcome::Lost(_) => {
                // A path error as well; but where every path spoils the data, that is not tried for ever.
                if request.user.unwanted == Unwanted::No && self.avoid(&mut request, controller) {
                    return self.retry(request);
                }
                (Disposition::Retry(0), IoError::Data)
            }
        };
        if request.user.unwanted != Unwanted::No {
            // The I/O is not tried again, and an error of its own is told as it is.
            let aborted = IoError::Status(Status::ABORTED_BY_REQUEST);
            let error = match request.user.unwanted {
                _ if what == Disposition::Failed && error != aborted => error,
                Unwanted::Overdue => IoError::Deadline,
                Unwanted::Aborted | Unwanted::No => aborted,
            };
            return self.finish(request, Some(controller), Err(error));
        }
        match what {
            Disposition::Done => self.finish(request, Some(controller), Ok(())),
            Disposition::Failed => self.finish(request, Some(controller), Err(error)),
            Disposition::OtherPath if ana || matches!(outcome, Outcome::Lost(_)) => {
                self.retry(request);
            }
            Disposition::OtherPath => match self.avoid(&mut request, controller) {
                true => self.retry(request),
                false => self.retry_later(request, PATH_ERROR_DELAY),
            },
            Disposition::Retry(crd) => {
                let retries = request.user.retries;
                if self.retry_limit.is_some_and(|limit| retries >= limit) {
                    return self.finish(request, Some(controller), Err(error));
                }
                request.user.retries += 1;
                let delay = self.retry_delay(controller, crd);
                self.retry_later(request, delay);
            }
        }
    }

    /// Has an I/O avoid the path that has just failed it; false if there is no other path for it now: then all may
    /// be tried again.
    fn avoid(&mut self, request: &mut IoRequest, controller: ControllerId) -> bool {
        let avoid = volume_mut(&mut self.volumes, request.user.volume)
            .and_then(|volume| volume.avoid(&self.links, request.user.avoid, controller));
        request.user.avoid = avoid.unwrap_or(PathSet::EMPTY);
        avoid.is_some()
    }

    /// The delay that a status names (CRD), by the controller's CRDT1 to CRDT3; none where it names none, or the
    /// controller is gone.
    fn retry_delay(&self, controller: ControllerId, crd: u8) -> Duration {
        let units = crd
            .checked_sub(1)
            .and_then(|i| {
                let link = self.links.get(usize::from(controller.slot))?.as_ref()?;
                link.retry_delays.get(usize::from(i)).copied()
            })
            .unwrap_or(0);
        Duration::from_millis(u64::from(units) * 100)
    }

    /// Selects again, in its turn among those that wait already.
    pub(super) fn retry(&mut self, request: IoRequest) {
        match volume_mut(&mut self.volumes, request.user.volume) {
            Some(volume) if !volume.waiting.is_empty() => {
                volume.wait(request);
                self.waiting = true;
            }
            _ => self.dispatch(request),
        }
    }

    fn retry_later(&mut self, request: IoRequest, delay: Duration) {
        if delay.is_zero() {
            return self.retry(request);
        }
        let at = self.now + delay;
        let place = self.delayed.partition_point(|d| d.at <= at);
        self.delayed.insert(place, Delayed { at, request });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// B6, row by row.
    #[test]
    fn completions_are_disposed_of_as_the_table_says() {
        let rows = [
            (Status::SUCCESS, Disposition::Done),
            (Status::INVALID_FIELD.with_dnr(), Disposition::Failed),
            (
                Status::ASYMMETRIC_ACCESS_INACCESSIBLE.with_dnr(),
                Disposition::Failed,
            ),
            (Status::ABORTED_BY_REQUEST, Disposition::Failed),
            (Status::new(3, 0x00), Disposition::OtherPath),
            (
                Status::ASYMMETRIC_ACCESS_INACCESSIBLE,
                Disposition::OtherPath,
            ),
            (
                Status::ASYMMETRIC_ACCESS_INACCESSIBLE.with_more(),
                Disposition::OtherPath,
            ),
            (Status::new(3, 0x70), Disposition::OtherPath),
            (Status::ABORTED_SQ_DELETION, Disposition::OtherPath),
            (Status::INVALID_FIELD, Disposition::Retry(0)),
            (Status::INVALID_FIELD.with_crd(2), Disposition::Retry(2)),
            (Status::TRANSIENT_TRANSPORT_ERROR, Disposition::Retry(0)),
        ];
        for (status, expected) in rows {
            assert_eq!(disposition(status), expected, "{status}");
        }
    }
}
