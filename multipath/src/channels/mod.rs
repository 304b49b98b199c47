//! All volumes and controllers of one I/O reactor, and the way of an I/O through them.

mod orders;
mod overdue;

use std::collections::VecDeque;
use std::time::Duration;

use pollux_nvme_tcp::host::{Completed, Lost, Outcome, RejectedReason, Request, Unwanted};
use pollux_nvme_tcp::spec::status::Status;
use pollux_reactor::{Outbox, Progress, Sender, Time};

pub use self::overdue::Aborting;
use crate::channel::{Channel, Pending, STALL_TOLD_AFTER, Stalled};
use crate::io::{Completion, Io, IoError, Op, SubmitError};
use crate::link::{Link, News};
use crate::messages::{ControlMessage, ControllerId, FromIo, VolumeId};
use crate::silence::is_probe;
use crate::status::{ReactorCounters, ReactorVolumeStatus};

/// A volume as its users see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeInfo {
    /// Its identity in messages.
    pub id: VolumeId,
    /// Its name, `<controller name>n<nsid>`.
    pub name: String,
    /// Namespace identifier behind every path.
    pub nsid: u32,
    /// Size in blocks.
    pub blocks: u64,
    /// Log2 of the block size in bytes.
    pub block_shift: u8,
}

impl VolumeInfo {
    /// Block size in bytes.
    pub fn block_size(&self) -> u32 {
        1 << self.block_shift
    }
}

/// Retries that are counted (rule B6), unless set otherwise.
const RETRY_LIMIT_DEFAULT: u32 = 3;

/// A path that keeps completing with path errors other than ANA statuses is tried again this much later,
/// so that one broken controller without a sibling does not turn its reactor into a retry loop.
const PATH_ERROR_DELAY: Duration = Duration::from_millis(10);

/// An I/O that is retried at a later time.
#[derive(Debug)]
struct Delayed {
    at: Time,
    request: Request,
}

/// What an I/O reactor owns: a channel per volume, a queue pair per controller.
///
/// The application on the reactor submits here and takes completions here; nothing on that way locks,
/// allocates or makes a system call other than on sockets.
pub struct Channels {
    reactor: usize,
    now: Time,
    channels: Vec<Option<Box<Channel>>>,
    links: Vec<Option<Box<Link>>>,
    completions: VecDeque<Completion>,
    inbox: Vec<Completed>,
    delayed: VecDeque<Delayed>,
    retry_limit: Option<u32>,
    failback: bool,
    waiting: bool,
    /// No I/O's deadline passes before this time.
    expire_at: Time,
    /// I/Os submitted, which gives each its place in the order.
    sequence: u64,
    counters: ReactorCounters,
    control: Outbox<ControlMessage>,
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

impl Channels {
    pub(crate) fn new(reactor: usize, control: Sender<ControlMessage>) -> Self {
        Self {
            reactor,
            now: Time::ZERO,
            channels: Vec::new(),
            links: Vec::new(),
            completions: VecDeque::with_capacity(4096),
            inbox: Vec::with_capacity(4096),
            delayed: VecDeque::with_capacity(1024),
            retry_limit: Some(RETRY_LIMIT_DEFAULT),
            failback: true,
            waiting: false,
            expire_at: Time::MAX,
            sequence: 0,
            counters: ReactorCounters::default(),
            control: Outbox::new(control),
        }
    }

    /// I/O reactor, counted from 0.
    pub fn reactor(&self) -> usize {
        self.reactor
    }

    /// The volumes there are.
    pub fn volumes(&self) -> impl Iterator<Item = &VolumeInfo> {
        self.channels.iter().flatten().map(|channel| &channel.info)
    }

    /// One volume.
    #[inline]
    pub fn volume(&self, id: VolumeId) -> Option<&VolumeInfo> {
        let channel = self.channels.get(usize::from(id.slot))?.as_ref()?;
        (channel.info.id == id).then_some(&channel.info)
    }

    /// I/Os submitted to the volume on this reactor and not completed.
    pub fn outstanding(&self, id: VolumeId) -> usize {
        self.channels
            .get(usize::from(id.slot))
            .and_then(|c| c.as_ref())
            .map_or(0, |c| c.outstanding)
    }

    /// How many I/Os of the volume wait on this reactor because no path is available, and for how long they have
    /// had none; `None` while there is a path or nothing waits. Cheap: for a line that is shown every second.
    pub fn waiting_for_path(&self, id: VolumeId) -> Option<(usize, Duration)> {
        let channel = self.channels.get(usize::from(id.slot))?.as_ref()?;
        let stalled = channel.stalled.filter(|_| channel.info.id == id)?;
        Some((channel.waiting.len(), self.now - stalled.since))
    }

    /// What was done with the queue pairs since the start.
    pub fn counters(&self) -> ReactorCounters {
        self.counters
    }

    /// Socket calls of the queue pairs that are connected now.
    pub fn socket_calls(&self) -> u64 {
        self.links.iter().flatten().map(|l| l.socket_calls()).sum()
    }

    /// Status of every volume at this moment (rule B13).
    pub fn status(&self) -> Vec<ReactorVolumeStatus> {
        self.channels
            .iter()
            .flatten()
            .map(|channel| channel.status(self.reactor, &self.links))
            .collect()
    }

    /// Submits an I/O. It ends exactly once, in [`next_completion`](Self::next_completion). While no path is
    /// available but some may become so, it waits, without a limit of its own (rule B7.1): see
    /// [`submit_within`](Self::submit_within) for one, and [`abort`](Self::abort) to take it back.
    ///
    /// # Errors
    /// The I/O with the reason, if it does not fit the volume.
    #[inline]
    pub fn submit(&mut self, volume: VolumeId, io: Io) -> Result<(), (Io, SubmitError)> {
        self.submit_by(volume, io, Time::MAX)
    }

    /// As [`submit`](Self::submit), with a deadline, `limit` from now: an I/O that has not ended by then ends
    /// with [`IoError::Deadline`], at most a millisecond later if it waits for a path, for a retry or for room
    /// in a queue. If it was sent, its abort is asked for, and it ends when its controller gives it back; a
    /// controller that has not done so after a second is reset, since only then nobody writes to the I/O's
    /// buffer any more. An I/O that succeeds in spite of that ends with success.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    #[inline]
    pub fn submit_within(
        &mut self,
        volume: VolumeId,
        io: Io,
        limit: Duration,
    ) -> Result<(), (Io, SubmitError)> {
        let deadline = self.now + limit;
        self.expire_at = self.expire_at.min(deadline);
        self.submit_by(volume, io, deadline)
    }

    #[inline]
    fn submit_by(
        &mut self,
        volume: VolumeId,
        io: Io,
        deadline: Time,
    ) -> Result<(), (Io, SubmitError)> {
        let Some(channel) = channel_of(&mut self.channels, volume) else {
            return Err((io, SubmitError::NoVolume));
        };
        if let Err(error) = check(&io, &channel.info) {
            return Err((io, error));
        }
        let mut request = io.into_request(channel.info.nsid, channel.info.block_shift);
        request.owner = volume.pack();
        request.submitted = self.now;
        request.deadline = deadline;
        self.sequence += 1;
        request.sequence = self.sequence;
        channel.outstanding += 1;
        if channel.waiting.is_empty() {
            self.dispatch(request);
        } else {
            // Behind those that wait for the same thing.
            channel.wait(request);
        }
        Ok(())
    }

    /// The next I/O that has ended.
    #[inline]
    pub fn next_completion(&mut self) -> Option<Completion> {
        self.completions.pop_front()
    }

    pub(crate) fn has_completions(&self) -> bool {
        !self.completions.is_empty()
    }

    /// Gives an I/O to a path of its volume, to the waiting ones, or up (rules B5.1, B7.1).
    #[inline]
    fn dispatch(&mut self, request: Request) {
        let Some(channel) = channel_of(&mut self.channels, VolumeId::unpack(request.owner)) else {
            return self.finish(request, None, Err(IoError::Removed));
        };
        let Some(id) = channel.pick(&self.links, request.avoid) else {
            if let Some(why) = channel.hopeless(&self.links) {
                return self.finish(request, None, Err(IoError::NoPath(why)));
            }
            channel.wait(request);
            channel.stalled.get_or_insert(Stalled {
                since: self.now,
                told: false,
            });
            self.waiting = true;
            self.counters.queued += 1;
            return;
        };
        let queue = link_mut(&mut self.links, id).and_then(Link::queue);
        let Some(queue) = queue else {
            channel.wait(request);
            self.waiting = true;
            self.counters.queued += 1;
            return;
        };
        self.counters.submitted += 1;
        if let Err(rejected) = queue.submit(request) {
            self.counters.submitted -= 1;
            match rejected.reason {
                RejectedReason::QueueFull | RejectedReason::NotConnected => {
                    channel.wait(rejected.request);
                    self.waiting = true;
                    self.counters.queued += 1;
                }
                RejectedReason::BufferTooShort | RejectedReason::TooLarge => {
                    let error = IoError::Status(Status::INVALID_FIELD);
                    self.finish(rejected.request, None, Err(error));
                }
            }
        }
    }

    fn finish(
        &mut self,
        request: Request,
        path: Option<ControllerId>,
        result: Result<(), IoError>,
    ) {
        let volume = VolumeId::unpack(request.owner);
        let submitted = request.submitted;
        let io = Io::from_request(request);
        if let Some(channel) = channel_of(&mut self.channels, volume) {
            channel.outstanding = channel.outstanding.saturating_sub(1);
            channel.record_latency(io.op, self.now - submitted);
        }
        self.completions.push_back(Completion {
            io,
            result,
            volume,
            path,
            submitted,
        });
    }

    /// Applies rule B6 to a request that a queue pair handed back.
    #[inline]
    fn on_completed(&mut self, controller: ControllerId, completed: Completed) {
        let Completed {
            mut request,
            outcome,
        } = completed;
        self.counters.completions += 1;
        let volume = VolumeId::unpack(request.owner);
        let Some(channel) = channel_of(&mut self.channels, volume) else {
            if is_probe(&request) {
                return;
            }
            return self.finish(request, None, Err(IoError::Removed));
        };
        if outcome.is_success() {
            if let Some(path) = channel.path_mut(controller) {
                path.counters.count(&request, self.now);
            }
            return self.finish(request, Some(controller), Ok(()));
        }
        let mut ana = false;
        let counted = match outcome {
            Outcome::Completed { status, .. } => Some(status),
            Outcome::Lost(Lost::Connection { .. }) => None,
            // What a target would say of data that it received so.
            Outcome::Lost(Lost::DataDigest | Lost::ShortData) => {
                Some(Status::TRANSIENT_TRANSPORT_ERROR)
            }
        };
        if let Some(status) = counted {
            channel.count_error(status);
        }
        let path = channel.path_mut(controller);
        if let Some(path) = path {
            path.counters.errors += 1;
            if let Outcome::Completed { status, .. } = outcome
                && status.is_ana()
                && path.state.group != 0
            {
                // In the same turn, before control has read anything (rule B3.4).
                ana = true;
                if path.pending != Pending::Told {
                    path.pending = Pending::Told;
                    self.control.post(ControlMessage::Io {
                        reactor: self.reactor,
                        message: FromIo::AnaStatus {
                            volume,
                            controller,
                            at: self.now,
                        },
                    });
                }
            }
        }
        let (what, error) = match outcome {
            Outcome::Completed { status, .. } => (disposition(status), IoError::Status(status)),
            Outcome::Lost(Lost::Connection { .. }) => (Disposition::OtherPath, IoError::Data),
            Outcome::Lost(Lost::DataDigest | Lost::ShortData) => {
                // A path error as well; but where every path spoils the data, that is not tried for ever.
                if request.unwanted == Unwanted::No
                    && let Some(avoid) = channel.avoid(&self.links, request.avoid, controller)
                {
                    request.avoid = avoid;
                    return self.retry(request);
                }
                request.avoid = 0;
                (Disposition::Retry(0), IoError::Data)
            }
        };
        if request.unwanted != Unwanted::No {
            // It is not tried again, and an end of its own is told as it is.
            let aborted = IoError::Status(Status::ABORTED_BY_REQUEST);
            let error = match request.unwanted {
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
            Disposition::OtherPath => match channel.avoid(&self.links, request.avoid, controller) {
                Some(avoid) => {
                    request.avoid = avoid;
                    self.retry(request);
                }
                None => {
                    request.avoid = 0;
                    self.retry_later(request, PATH_ERROR_DELAY);
                }
            },
            Disposition::Retry(crd) => {
                if self
                    .retry_limit
                    .is_some_and(|limit| request.attempts >= limit)
                {
                    return self.finish(request, Some(controller), Err(error));
                }
                request.attempts += 1;
                let delay = self.retry_delay(controller, crd);
                self.retry_later(request, delay);
            }
        }
    }

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
    fn retry(&mut self, request: Request) {
        match channel_of(&mut self.channels, VolumeId::unpack(request.owner)) {
            Some(channel) if !channel.waiting.is_empty() => {
                channel.wait(request);
                self.waiting = true;
            }
            _ => self.dispatch(request),
        }
    }

    fn retry_later(&mut self, request: Request, delay: Duration) {
        if delay.is_zero() {
            return self.retry(request);
        }
        let at = self.now + delay;
        let place = self.delayed.partition_point(|d| d.at <= at);
        self.delayed.insert(place, Delayed { at, request });
    }

    /// Submits what waits, as far as there are paths and room; fails it once no hope is left (rule B7).
    fn resume_waiting(&mut self) {
        self.waiting = false;
        for slot in 0..self.channels.len() {
            while let Some(Some(channel)) = self.channels.get_mut(slot) {
                let before = channel.waiting.len();
                let Some(request) = channel.waiting.pop_front() else {
                    break;
                };
                self.dispatch(request);
                let Some(Some(channel)) = self.channels.get_mut(slot) else {
                    break;
                };
                if channel.waiting.len() == before {
                    // It found no path, and stands where it stood.
                    break;
                }
            }
            self.tell_whether_stalled(slot);
        }
        self.waiting = self
            .channels
            .iter()
            .flatten()
            .any(|channel| !channel.waiting.is_empty());
    }

    /// Tells control once when I/O has waited for a path for long, and when that has ended.
    fn tell_whether_stalled(&mut self, slot: usize) {
        let Some(Some(channel)) = self.channels.get_mut(slot) else {
            return;
        };
        let Some(stalled) = channel.stalled else {
            return;
        };
        let (volume, since) = (channel.info.id, stalled.since);
        let waiting = channel.waiting.len();
        let has_path = channel.has_path(&self.links);
        let message = if waiting == 0 || has_path {
            channel.stalled = None;
            stalled.told.then_some(FromIo::Resumed { volume, since })
        } else if !stalled.told && self.now >= since + STALL_TOLD_AFTER {
            channel.stalled = Some(Stalled { since, told: true });
            Some(FromIo::Stalled {
                volume,
                waiting,
                since,
            })
        } else {
            None
        };
        if let Some(message) = message {
            self.post(message);
        }
    }

    /// The receiving half of a turn.
    #[inline]
    pub(crate) fn receive(&mut self, now: Time) -> Progress {
        self.now = now;
        let mut progress = Progress::Idle;
        for slot in 0..self.links.len() {
            let Some(Some(link)) = self.links.get_mut(slot) else {
                continue;
            };
            let id = link.id;
            let incarnation = link.incarnation;
            let inbox = &mut self.inbox;
            let (did, news) = link.receive(now, &mut |completed| inbox.push(completed));
            self.counters.receives += u64::from(did == Progress::Busy);
            progress = progress.or(did);
            let is_due = now >= link.due_at;
            self.drain_inbox(id);
            if let Some(news) = news {
                self.report(id, incarnation, news);
            }
            if is_due {
                self.age_commands(id);
            }
        }
        self.counters.polls += 1;
        self.counters.idle_polls += u64::from(progress == Progress::Idle);
        while self.delayed.front().is_some_and(|d| d.at <= now) {
            if let Some(delayed) = self.delayed.pop_front() {
                self.retry(delayed.request);
            }
        }
        if self.waiting {
            self.resume_waiting();
        }
        if now >= self.expire_at {
            self.expire();
        }
        progress
    }

    /// The sending half of a turn.
    #[inline]
    pub(crate) fn transmit(&mut self) {
        for slot in 0..self.links.len() {
            let Some(Some(link)) = self.links.get_mut(slot) else {
                continue;
            };
            let id = link.id;
            let incarnation = link.incarnation;
            let inbox = &mut self.inbox;
            let news = link.transmit(&mut |completed| inbox.push(completed));
            if news.is_some() || !self.inbox.is_empty() {
                self.drain_inbox(id);
            }
            if let Some(news) = news {
                self.report(id, incarnation, news);
            }
        }
        self.control.flush();
    }

    /// When [`receive`](Self::receive) has something to do although nothing arrives.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let connecting = self.links.iter().flatten().filter_map(|l| l.deadline());
        let delayed = self.delayed.front().map(|d| d.at);
        let expire = (self.expire_at < Time::MAX).then_some(self.expire_at);
        let stalls = self.channels.iter().flatten().filter_map(|channel| {
            let stalled = channel.stalled.filter(|stalled| !stalled.told)?;
            Some(stalled.since + STALL_TOLD_AFTER)
        });
        let stalls = self.waiting.then_some(stalls).into_iter().flatten();
        connecting.chain(delayed).chain(expire).chain(stalls).min()
    }

    #[inline]
    fn drain_inbox(&mut self, controller: ControllerId) {
        if self.inbox.is_empty() {
            return;
        }
        let mut inbox = std::mem::take(&mut self.inbox);
        // What a lost connection hands back comes in the order of its slots.
        if let Some(Outcome::Lost(Lost::Connection { .. })) = inbox.last().map(|c| c.outcome) {
            inbox.sort_unstable_by_key(|completed| completed.request.sequence);
        }
        for completed in inbox.drain(..) {
            self.on_completed(controller, completed);
        }
        self.inbox = inbox;
    }

    fn report(&mut self, controller: ControllerId, incarnation: u32, news: News) {
        let message = match news {
            News::Ready => FromIo::QueueReady {
                controller,
                incarnation,
            },
            News::Lost(error) => {
                self.waiting = true;
                FromIo::QueueLost {
                    controller,
                    incarnation,
                    error,
                }
            }
        };
        self.post(message);
    }

    fn post(&mut self, message: FromIo) {
        self.control.post(ControlMessage::Io {
            reactor: self.reactor,
            message,
        });
    }
}

#[inline]
fn channel_of(channels: &mut [Option<Box<Channel>>], id: VolumeId) -> Option<&mut Channel> {
    let channel = channels.get_mut(usize::from(id.slot))?.as_deref_mut()?;
    (channel.info.id == id).then_some(channel)
}

#[inline]
fn link_mut(links: &mut [Option<Box<Link>>], id: ControllerId) -> Option<&mut Link> {
    let link = links.get_mut(usize::from(id.slot))?.as_deref_mut()?;
    (link.id == id).then_some(link)
}

#[inline]
fn check(io: &Io, info: &VolumeInfo) -> Result<(), SubmitError> {
    if io.op == Op::Flush {
        return Ok(());
    }
    let end = io.lba.checked_add(u64::from(io.blocks));
    if io.blocks == 0 || end.is_none_or(|end| end > info.blocks) {
        return Err(SubmitError::OutOfRange);
    }
    let moves_data = matches!(io.op, Op::Read | Op::Write | Op::Compare);
    if moves_data && io.buffer.len() < (io.blocks as usize) << info.block_shift {
        return Err(SubmitError::BufferTooShort);
    }
    Ok(())
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
