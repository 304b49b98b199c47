//! Writes that a lost controller may still execute wait until it no longer can (rule B14).

use std::time::Duration;

use pollux_nvme_tcp::host::{Lost, Outcome};
use pollux_nvme_tcp::spec::Nqn;
use pollux_reactor::Time;

use super::{PollGroup, known_link, volume_mut};
use crate::error::IoError;
use crate::ids::{ControllerId, VolumeId};
use crate::io::fence::Fence;
use crate::io::in_flight::{IoRequest, Unwanted};
use crate::io::volume::Volume;
use crate::messages::FromIo;

/// What is in doubt of a namespace whose volume is gone. A controller that was lost knows of no volumes: the blocks of that
/// namespace stay fenced, and a volume that it comes back as takes this up.
pub(super) struct LeftBehind {
    subnqn: Nqn,
    nsid: u32,
    fence: Fence,
}

impl PollGroup {
    /// For how long an I/O that a controller has not ended is in doubt; `None`: it may be sent again at once.
    pub(super) fn doubt(
        &mut self,
        controller: ControllerId,
        request: &IoRequest,
        outcome: Outcome,
    ) -> Option<Duration> {
        let sent = matches!(outcome, Outcome::Lost(Lost::Connection { sent: true }));
        if !sent || !request.user.op.changes_data() {
            return None;
        }
        known_link(&mut self.links, controller).fence
    }

    /// Keeps a write in doubt; one that is not wanted any more ends, and leaves its blocks fenced.
    #[cold]
    pub(super) fn fence(
        &mut self,
        controller: ControllerId,
        mut request: IoRequest,
        time: Duration,
    ) {
        let until = self.now + time;
        let incarnation = known_link(&mut self.links, controller).incarnation;
        let lost = (controller, incarnation);
        request.user.in_doubt = true;
        let Some(volume) = volume_mut(&mut self.volumes, request.user.volume) else {
            let mut fence = Fence::default();
            fence.add_ended(lost, until, &request.user);
            if let Some(subnqn) = known_link(&mut self.links, controller).subnqn.clone() {
                self.leave_doubts(subnqn, request.command.nsid, fence);
            }
            return self.end(request, IoError::Removed);
        };
        self.fence_at = self.fence_at.min(until);
        let error = match request.user.unwanted {
            Unwanted::No => return volume.fence.add(lost, until, request),
            Unwanted::Overdue => IoError::Deadline,
            Unwanted::Aborted => ABORTED,
        };
        volume.fence.add_ended(lost, until, &request.user);
        self.end(request, error);
    }

    /// Keeps what is in doubt of a namespace whose volume is gone, until it is over.
    pub(super) fn leave_doubts(&mut self, subnqn: Nqn, nsid: u32, fence: Fence) {
        if fence.is_empty() {
            return;
        }
        self.fence_at = self.fence_at.min(fence.next());
        // The namespace may have come back already.
        let links = &self.links;
        let is_its = |volume: &&mut Box<Volume>| {
            volume.info.nsid == nsid && volume.subsystem(links).as_ref() == Some(&subnqn)
        };
        if let Some(volume) = self.volumes.iter_mut().flatten().find(is_its) {
            return volume.fence.join(fence);
        }
        let left = LeftBehind {
            subnqn,
            nsid,
            fence,
        };
        self.left_behind.push(left);
    }

    /// A volume has a path by this controller: what is in doubt of its namespace is the volume's.
    pub(super) fn take_up_doubts(&mut self, id: VolumeId, controller: ControllerId) {
        let link = known_link(&mut self.links, controller);
        let Some(volume) = volume_mut(&mut self.volumes, id) else {
            return;
        };
        let nsid = volume.info.nsid;
        let is_its =
            |left: &mut LeftBehind| left.nsid == nsid && link.subnqn.as_ref() == Some(&left.subnqn);
        for left in self.left_behind.extract_if(.., is_its) {
            volume.fence.join(left.fence);
        }
    }

    /// Ends an I/O that no controller has ended.
    pub(super) fn end(&mut self, request: IoRequest, error: IoError) {
        let error = request.user.ended(error);
        self.finish(request, None, Err(error));
    }

    /// Keeps a write behind those in doubt that it overlaps, while there is hope for a path.
    #[cold]
    pub(super) fn stay_behind(&mut self, request: IoRequest) {
        let Some(volume) = volume_mut(&mut self.volumes, request.user.volume) else {
            unreachable!("an I/O stays behind others of its volume");
        };
        match volume.hopeless(&self.links) {
            Some(why) => self.end(request, IoError::NoPath(why)),
            None => volume.fence.hold(request),
        }
    }

    /// Ends what a volume has fenced once no path is left to hope for (rule B7.1).
    pub(super) fn give_up_fenced(&mut self, slot: usize) {
        let Some(Some(volume)) = self.volumes.get_mut(slot) else {
            return;
        };
        if volume.fence.is_empty() {
            return;
        }
        if let Some(why) = volume.hopeless(&self.links) {
            for request in volume.fence.take(|_| true) {
                self.end(request, IoError::NoPath(why));
            }
        }
    }

    /// The controller's host side is closed as a whole: what it may still execute counts from now.
    pub(super) fn fence_from_now(&mut self, controller: ControllerId) {
        let Some(time) = known_link(&mut self.links, controller).fence else {
            return;
        };
        let until = self.now + time;
        for fence in self.fences() {
            fence.given_up(controller, until);
        }
    }

    /// All fences, also of volumes that are gone.
    fn fences(&mut self) -> impl Iterator<Item = &mut Fence> {
        let volumes = self.volumes.iter_mut().flatten();
        let left = self.left_behind.iter_mut().map(|left| &mut left.fence);
        volumes.map(|volume| &mut volume.fence).chain(left)
    }

    /// A controller was reset: what it was sent by that connection goes on.
    pub(super) fn end_fence(&mut self, controller: ControllerId, incarnation: u32) {
        let now = self.now;
        for fence in self.fences() {
            fence.reset((controller, incarnation), now);
        }
        self.end_fences();
    }

    /// Lets go on what no controller can execute any more.
    #[cold]
    pub(super) fn end_fences(&mut self) {
        let now = self.now;
        for slot in 0..self.volumes.len() {
            let Some(Some(volume)) = self.volumes.get_mut(slot) else {
                continue;
            };
            let id = volume.info.id;
            let (free, controllers) = volume.fence.release(now);
            for request in free {
                self.retry(request);
            }
            for controller in controllers {
                self.post(FromIo::FenceOver {
                    volume: id,
                    controller,
                });
            }
        }
        self.left_behind.retain_mut(|left| {
            left.fence.release(now);
            !left.fence.is_empty()
        });
        let next = self.fences().map(|fence| fence.next()).min();
        self.fence_at = next.unwrap_or(Time::MAX);
    }

    /// Tells control how much of a controller that was lost is fenced, for the history.
    pub(super) fn tell_fenced(&mut self, controller: ControllerId) {
        let incarnation = known_link(&mut self.links, controller).incarnation;
        for slot in 0..self.volumes.len() {
            let Some(Some(volume)) = self.volumes.get_mut(slot) else {
                continue;
            };
            let id = volume.info.id;
            if let Some((writes, time)) = volume.fence.untold((controller, incarnation), self.now) {
                self.post(FromIo::Fenced {
                    volume: id,
                    controller,
                    incarnation,
                    writes,
                    time,
                });
            }
        }
    }
}

const ABORTED: IoError = IoError::Status(pollux_nvme_tcp::spec::status::Status::ABORTED_BY_REQUEST);
