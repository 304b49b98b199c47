//! The poll group: all volumes and controllers of one I/O reactor, and the way of an I/O through them.

mod fencing;
mod from_control;
mod overdue;
mod rate_limits;
mod resting;
mod retry;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Duration;

use pollux_nvme_tcp::host::{Buffer, Lost, Outcome, Rejected, RejectedReason};
use pollux_reactor::{Outbox, Progress, Sender, Time};

use self::fencing::LeftBehind;
pub use self::overdue::Aborting;
use self::retry::Delayed;
use super::in_flight::{InFlight, IoRequest, has_room, request_of};
use super::link::{Inbox, Link, News};
use super::volume::{STALL_TOLD_AFTER, Stalled, Volume};
use crate::command::{Completion, Io, Op};
use crate::error::{HostError, IoError, SubmitError};
use crate::ids::{ControllerId, VolumeId, VolumeInfo};
use crate::messages::{ControlMessage, FromIo};
use crate::path_events::{self, PathEvents};
use crate::status::{PathView, ReactorCounters, ReactorVolumeStatus};

/// Retries that are counted (rule B6), unless set otherwise.
const RETRY_LIMIT_DEFAULT: u32 = 3;

/// What an I/O reactor owns: its volumes, and a queue pair per controller.
///
/// The application on the reactor submits here and takes completions here; nothing on that way locks,
/// allocates or makes a system call other than on sockets.
pub struct PollGroup {
    reactor: usize,
    now: Time,
    /// By the slot of their identity.
    volumes: Vec<Option<Box<Volume>>>,
    links: Vec<Option<Box<Link>>>,
    /// Slots of the links that are looked at in every turn, in order. The others rest: until an edge of its stream, an I/O or
    /// control brings a link here, it has nothing to do, and a turn takes no longer for a thousand of them.
    polled: Vec<usize>,
    /// What comes to `polled` before it is gone through again.
    woken: Vec<usize>,
    /// No link has anything to do of itself before this time.
    links_due: Time,
    completions: VecDeque<Completion>,
    /// What the link that is being looked at has completed.
    inbox: Inbox,
    /// I/Os that are retried later, the next one first.
    delayed: VecDeque<Delayed>,
    retry_limit: Option<u32>,
    failback: bool,
    /// I/O may wait for a path or for room.
    waiting: bool,
    /// Slots of volumes with I/O that waits, the next one first, while they are gone through; and the one after the last whose
    /// turn it was.
    turns: VecDeque<usize>,
    next_turn: usize,
    /// No I/O's deadline passes before this time.
    expire_at: Time,
    /// What is in doubt of namespaces whose volumes are gone (rule B14).
    left_behind: Vec<LeftBehind>,
    /// No fence is over before this time.
    fence_at: Time,
    /// I/Os submitted, which gives each its place in the order.
    sequence: u64,
    counters: ReactorCounters,
    control: Outbox<ControlMessage>,
}

impl PollGroup {
    pub(crate) fn new(reactor: usize, control: Sender<ControlMessage>) -> Self {
        Self {
            reactor,
            now: Time::ZERO,
            volumes: Vec::new(),
            links: Vec::new(),
            polled: Vec::new(),
            woken: Vec::new(),
            links_due: Time::MAX,
            completions: VecDeque::with_capacity(4096),
            inbox: Vec::with_capacity(4096),
            delayed: VecDeque::with_capacity(1024),
            retry_limit: Some(RETRY_LIMIT_DEFAULT),
            failback: true,
            waiting: false,
            turns: VecDeque::new(),
            next_turn: 0,
            expire_at: Time::MAX,
            left_behind: Vec::new(),
            fence_at: Time::MAX,
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
        self.volumes.iter().flatten().map(|volume| &volume.info)
    }

    /// One volume.
    #[inline]
    pub fn volume(&self, id: VolumeId) -> Option<&VolumeInfo> {
        self.find(id).map(|volume| &volume.info)
    }

    /// I/Os submitted to the volume on this reactor and not completed.
    pub fn outstanding(&self, id: VolumeId) -> usize {
        self.find(id).map_or(0, |volume| volume.outstanding)
    }

    /// How many I/Os of the volume wait on this reactor because no path is available, and for how long they have
    /// had none; `None` while there is a path or nothing waits. Cheap: for a line that is shown every second.
    pub fn waiting_for_path(&self, id: VolumeId) -> Option<(usize, Duration)> {
        let volume = self.find(id)?;
        let stalled = volume.stalled?;
        Some((volume.waiting.len(), self.now - stalled.since))
    }

    /// Subscribes to what happens to the paths of all volumes, for an application on this reactor, which is given a turn when
    /// there is something; `capacity` and the rest are as of [`Host::path_events`](crate::Host::path_events). What happened
    /// until the host's control has the message, a turn later, is not told.
    ///
    /// # Errors
    /// [`HostError::Invalid`](crate::HostError::Invalid), if the capacity is not one that is allowed.
    pub fn path_events(&mut self, capacity: usize) -> Result<PathEvents, HostError> {
        let (publisher, events) = path_events::subscription(capacity)?;
        self.post(FromIo::Subscribe(publisher));
        Ok(events)
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
    pub fn status(&self) -> Vec<ReactorVolumeStatus<PathView>> {
        self.volumes
            .iter()
            .flatten()
            .map(|volume| volume.status(self.reactor, self.now, &self.links))
            .collect()
    }

    /// Writes what is under way, a line for each volume, each controller, and some of their I/Os.
    pub(crate) fn write_in_flight(&self, out: &mut String) {
        /// I/Os of one controller that are told one by one.
        const TOLD_MAX: usize = 16;
        #[expect(clippy::expect_used, reason = "a string takes what is written")]
        let told = |written: std::fmt::Result| written.expect("a string is full");
        for volume in self.volumes.iter().flatten() {
            let (waiting, outstanding) = (volume.waiting.len(), volume.outstanding);
            let name = &volume.info.name;
            told(writeln!(
                out,
                "{name}: {outstanding} I/Os, {waiting} of them wait"
            ));
        }
        for link in self.links.iter().flatten() {
            let (id, queue, count) = (link.id, link.queue_id(), link.outstanding());
            told(writeln!(
                out,
                "controller {id:?}, queue {queue}: {count} I/Os"
            ));
            for (io, cid) in link.in_flight().take(TOLD_MAX) {
                told(writeln!(out, "  command {cid:?}: {io:?}"));
            }
        }
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
        let Some(volume) = volume_mut(&mut self.volumes, volume) else {
            return Err((io, SubmitError::NoVolume));
        };
        if let Err(error) = check(&io, &volume.info) {
            return Err((io, error));
        }
        self.sequence += 1;
        let request = request_of(io, &volume.info, self.sequence, self.now, deadline);
        volume.outstanding += 1;
        if volume.throttle.is_some() {
            self.submit_limited(request);
        } else if volume.waiting.is_empty() {
            self.dispatch(request);
        } else {
            // Behind those that wait for the same thing.
            volume.wait(request);
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

    #[inline]
    fn find(&self, id: VolumeId) -> Option<&Volume> {
        let volume = self.volumes.get(usize::from(id.slot))?.as_deref()?;
        (volume.info.id == id).then_some(volume)
    }

    /// Gives an I/O to a path of its volume, to the waiting ones, or up (rules B5.1, B7.1).
    #[inline(always)]
    #[expect(clippy::expect_used, reason = "what is picked is there, and connected")]
    fn dispatch(&mut self, request: IoRequest) {
        // An I/O that is retried may have outlived its volume.
        let Some(volume) = volume_mut(&mut self.volumes, request.user.volume) else {
            return self.finish(request, None, Err(IoError::Removed));
        };
        if !volume.fence.is_empty() && volume.fence.holds(&request.user) {
            return self.stay_behind(request);
        }
        let Some(slot) = volume.pick(&self.links, request.user.avoid) else {
            if let Some(why) = volume.gives_up(&self.links) {
                return self.finish(request, None, Err(IoError::NoPath(why)));
            }
            volume.wait(request);
            volume.stalled.get_or_insert(Stalled {
                since: self.now,
                told: false,
            });
            self.waiting = true;
            self.counters.queued += 1;
            return;
        };
        let link = self.links[slot].as_mut();
        let link = link.expect("a path of a controller that is gone was picked");
        if !std::mem::replace(&mut link.is_polled, true) {
            self.woken.push(slot);
        }
        self.counters.submitted += 1;
        if let Err(rejected) = link.submit(request) {
            self.turned_away(rejected);
        }
    }

    /// An I/O that the queue pair that was picked does not take: it is full, or the owner of the buffer has failed.
    #[cold]
    #[inline(never)]
    #[expect(clippy::expect_used, reason = "it has just been found")]
    fn turned_away(&mut self, rejected: Rejected<InFlight>) {
        self.counters.submitted -= 1;
        if rejected.reason == RejectedReason::BufferTooShort {
            return self.end(rejected.request, IoError::Buffer);
        }
        assert!(
            rejected.reason == RejectedReason::QueueFull,
            "{:?} on a path that was picked: {:?}",
            rejected.reason,
            rejected.request
        );
        let request = rejected.request;
        let volume = volume_mut(&mut self.volumes, request.user.volume);
        volume
            .expect("an I/O of no volume was submitted")
            .wait(request);
        self.waiting = true;
        self.counters.queued += 1;
    }

    /// Hands an I/O back to its submitter, without a success.
    fn finish(
        &mut self,
        request: IoRequest,
        path: Option<ControllerId>,
        result: Result<(), IoError>,
    ) {
        self.complete(&request.user, request.buffer, path, result);
    }

    /// Hands an I/O back to its submitter.
    #[inline(always)]
    fn complete(
        &mut self,
        in_flight: &InFlight,
        buffer: Buffer,
        path: Option<ControllerId>,
        result: Result<(), IoError>,
    ) {
        let (volume, submitted) = (in_flight.volume, in_flight.submitted);
        // The volume may have been removed.
        if let Some(volume) = volume_mut(&mut self.volumes, volume) {
            debug_assert!(volume.outstanding > 0, "an I/O ended twice");
            volume.outstanding -= 1;
            volume.record_latency(in_flight.op, self.now - submitted);
        }
        self.completions.push_back(Completion {
            io: in_flight.io(buffer),
            result,
            volume,
            path,
            submitted,
        });
    }

    /// Submits what waits, as far as there are paths and room, of each volume one after the other: they may share a queue
    /// pair, and one that wants more than it holds would leave nothing of it to the others. Fails it once no hope is left
    /// (rule B7).
    fn resume_waiting(&mut self) {
        self.waiting = false;
        let mut turns = std::mem::take(&mut self.turns);
        let waits = |slot: &usize| {
            let volume = self.volumes.get(*slot).and_then(Option::as_ref);
            volume.is_some_and(|volume| !volume.waiting.is_empty())
        };
        turns.extend((self.next_turn..self.volumes.len()).filter(waits));
        turns.extend((0..self.next_turn).filter(waits));
        while let Some(slot) = turns.pop_front() {
            if self.resume_one(slot) {
                self.next_turn = slot + 1;
                turns.push_back(slot);
            }
        }
        self.turns = turns;
        for slot in 0..self.volumes.len() {
            self.give_up_fenced(slot);
            self.tell_whether_stalled(slot);
            self.tell_ana_state(slot);
        }
        self.waiting = self
            .volumes
            .iter()
            .flatten()
            .any(|volume| !volume.waiting.is_empty());
    }

    /// Submits the first I/O that waits of a volume. False: there is none, or it found no path and stands where it stood.
    fn resume_one(&mut self, slot: usize) -> bool {
        let Some(Some(volume)) = self.volumes.get_mut(slot) else {
            return false;
        };
        let before = volume.waiting.len();
        let Some(request) = volume.waiting.pop_front() else {
            return false;
        };
        self.dispatch(request);
        let volume = self.volumes.get(slot).and_then(Option::as_ref);
        volume.is_some_and(|volume| volume.waiting.len() < before)
    }

    /// Tells control once when I/O has waited for a path for long, and when that has ended.
    fn tell_whether_stalled(&mut self, slot: usize) {
        let Some(Some(volume)) = self.volumes.get_mut(slot) else {
            return;
        };
        let Some(stalled) = volume.stalled else {
            return;
        };
        let (id, since) = (volume.info.id, stalled.since);
        let waiting = volume.waiting.len();
        let message = if waiting == 0 || volume.has_path(&self.links) {
            volume.stalled = None;
            stalled
                .told
                .then_some(FromIo::Resumed { volume: id, since })
        } else if !stalled.told && self.now >= since + STALL_TOLD_AFTER {
            volume.stalled = Some(Stalled { since, told: true });
            Some(FromIo::Stalled {
                volume: id,
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

    /// Tells control that a volume that is followed has another ANA state. Whatever changes a path has what waits looked at,
    /// and comes here with that.
    fn tell_ana_state(&mut self, slot: usize) {
        let Some(Some(volume)) = self.volumes.get_mut(slot) else {
            return;
        };
        let Some(told) = volume.ana_told else {
            return;
        };
        let state = volume.ana_state(&self.links);
        if state != told {
            volume.ana_told = Some(state);
            let volume = volume.info.id;
            self.post(FromIo::VolumeAna { volume, state });
        }
    }

    /// Says what the time is in this turn. What is submitted counts from there, also where it is submitted before
    /// [`receive`](Self::receive): the turn before may be long ago.
    #[inline]
    pub(crate) fn turn(&mut self, now: Time) {
        self.now = now;
    }

    /// The receiving half of a turn.
    #[inline]
    pub(crate) fn receive(&mut self) -> Progress {
        let now = self.now;
        let mut progress = Progress::Idle;
        self.take_woken();
        let among_others = self.polled.len() > 1;
        for n in 0..self.polled.len() {
            let Some(Some(link)) = self.links.get_mut(self.polled[n]) else {
                continue;
            };
            let id = link.id;
            let incarnation = link.incarnation;
            let (did, news) = link.receive(now, among_others, &mut self.inbox);
            self.counters.receives += u64::from(did == Progress::Busy);
            progress = progress.or(did);
            if !self.inbox.is_empty() {
                self.drain_inbox(id);
            }
            if let Some(news) = news {
                self.report(id, incarnation, news);
            }
        }
        if now >= self.links_due {
            self.do_what_is_due();
        }
        self.counters.polls += 1;
        self.counters.idle_polls += u64::from(progress == Progress::Idle);
        while self.delayed.front().is_some_and(|d| d.at <= now) {
            if let Some(delayed) = self.delayed.pop_front() {
                self.retry(delayed.request);
            }
        }
        if now >= self.fence_at {
            self.end_fences();
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
        self.take_woken();
        for n in 0..self.polled.len() {
            let Some(Some(link)) = self.links.get_mut(self.polled[n]) else {
                continue;
            };
            let id = link.id;
            let incarnation = link.incarnation;
            let news = link.transmit(self.now, &mut self.inbox);
            if news.is_some() || !self.inbox.is_empty() {
                self.drain_inbox(id);
            }
            if let Some(news) = news {
                self.report(id, incarnation, news);
            }
        }
        self.let_rest();
        self.control.flush();
    }

    /// When [`receive`](Self::receive) has something to do although nothing arrives.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let connecting = self.links.iter().flatten().filter_map(|l| l.deadline());
        let delayed = self.delayed.front().map(|d| d.at);
        let expire = (self.expire_at < Time::MAX).then_some(self.expire_at);
        let stalls = self.volumes.iter().flatten().filter_map(|volume| {
            let stalled = volume.stalled.filter(|stalled| !stalled.told)?;
            Some(stalled.since + STALL_TOLD_AFTER)
        });
        let stalls = self.waiting.then_some(stalls).into_iter().flatten();
        let fence = (self.fence_at < Time::MAX).then_some(self.fence_at);
        let delayed = delayed.into_iter().chain(fence);
        connecting.chain(delayed).chain(expire).chain(stalls).min()
    }

    #[inline]
    fn drain_inbox(&mut self, controller: ControllerId) {
        if self.inbox.is_empty() {
            return;
        }
        let mut inbox = std::mem::take(&mut self.inbox);
        // What a lost connection hands back comes in the order of its slots.
        let last = inbox.last().map(|c| c.outcome);
        let lost = matches!(last, Some(Outcome::Lost(Lost::Connection { .. })));
        if lost {
            inbox.sort_unstable_by_key(|completed| completed.request.user.sequence);
        }
        for completed in &mut inbox {
            self.on_completed(controller, completed);
        }
        inbox.clear();
        self.inbox = inbox;
        if lost {
            self.tell_fenced(controller);
        }
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

/// The volume of this name, unless it was removed: its place may be another's by now.
#[inline]
fn volume_mut(volumes: &mut [Option<Box<Volume>>], id: VolumeId) -> Option<&mut Volume> {
    let volume = volumes.get_mut(usize::from(id.slot))?.as_deref_mut()?;
    (volume.info.id == id).then_some(volume)
}

/// The volume that control speaks of: nothing is said of one after its end.
#[expect(clippy::expect_used, reason = "messages of control keep their order")]
fn told_volume(volumes: &mut [Option<Box<Volume>>], id: VolumeId) -> &mut Volume {
    volume_mut(volumes, id).expect("control speaks of a volume that is not here")
}

/// The link to the controller of this name, unless that was removed.
#[inline]
fn link_mut(links: &mut [Option<Box<Link>>], id: ControllerId) -> Option<&mut Link> {
    let link = links.get_mut(usize::from(id.slot))?.as_deref_mut()?;
    (link.id == id).then_some(link)
}

/// As [`link_mut`], of a controller that is not removed meanwhile.
#[expect(
    clippy::expect_used,
    reason = "a link goes when control says so, and then last"
)]
fn known_link(links: &mut [Option<Box<Link>>], id: ControllerId) -> &mut Link {
    link_mut(links, id).expect("a link that is not here")
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
    if !has_room(io, info.block_shift) {
        return Err(SubmitError::BufferTooShort);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use pollux_nvme_tcp::spec::log::AnaState;
    use pollux_reactor::mailbox;

    use super::*;
    use crate::path_state::PathState;
    use crate::policy::Policy;

    #[test]
    fn what_is_in_flight_is_told_by_volume_and_controller() {
        let (control, _receiver) = mailbox(1);
        let mut group = PollGroup::new(0, control);
        let id = VolumeId {
            slot: 0,
            generation: 1,
        };
        let controller = ControllerId {
            slot: 0,
            generation: 1,
        };
        let info = VolumeInfo {
            id,
            name: "Nvme0n1".into(),
            nsid: 1,
            blocks: 8,
            block_shift: 9,
        };
        let state = PathState {
            log_read: 1,
            epoch: 1,
            ana: AnaState::INACCESSIBLE,
            group: 1,
            active: true,
        };
        let mut volume = Volume::new(info, Policy::ActivePassive);
        volume.add_path(controller, state);
        group.volumes.push(Some(Box::new(volume)));
        group.links.push(Some(Box::new(Link::new(controller))));
        for lba in 0..2 {
            let io = Io::new(Op::Read, lba, 1, vec![0; 512]);
            assert!(group.submit(id, io).is_ok());
        }
        let mut told = String::new();
        group.write_in_flight(&mut told);
        let lines: Vec<_> = told.lines().collect();
        assert_eq!(lines[0], "Nvme0n1: 2 I/Os, 2 of them wait");
        assert!(
            lines[1].starts_with("controller") && lines[1].ends_with("0 I/Os"),
            "{told}"
        );
        assert_eq!(lines.len(), 2);
    }
}
