//! What control has an I/O reactor do.

use std::collections::VecDeque;

use pollux_nvme_tcp::auth::HostAuth;
use pollux_nvme_tcp::host::FaultChange;
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_reactor::Context;

use super::retry::Delayed;
use super::{PollGroup, known_link, link_mut, told_volume, volume_mut};
use crate::counters::CounterReset;
use crate::error::IoError;
use crate::ids::{ControllerId, VolumeId};
use crate::io::link::{Link, News};
use crate::io::to_io::ToIo;
use crate::io::volume::Volume;
use crate::messages::FromIo;
use crate::policy::Policy;
use pollux_nvme_tcp::histogram::{HistogramLayout, LatencyHistogram};

impl PollGroup {
    /// Applies a message from control. What it frees or fails among the waiting I/Os happens in this same
    /// turn (rules B7.2, B7.3).
    pub(crate) fn on_control(&mut self, message: ToIo, cx: &mut Context<'_>) {
        match message {
            ToIo::Connect {
                controller,
                incarnation,
                options,
                retry_delays,
                timeout,
                traffic,
                silence,
                fence,
            } => {
                let place = place(&mut self.links, controller.slot);
                let link = place.get_or_insert_with(|| Box::new(Link::new(controller)));
                assert_eq!(link.id, controller, "two controllers in one place");
                link.retry_delays = retry_delays;
                let inbox = &mut self.inbox;
                let connected =
                    link.connect(incarnation, *options, timeout, traffic, silence, inbox, cx);
                self.drain_inbox(controller);
                known_link(&mut self.links, controller).fence = fence;
                if let Err(error) = connected {
                    self.report(controller, incarnation, News::Lost(error));
                }
            }
            ToIo::EndFence {
                controller,
                incarnation,
            } => self.end_fence(controller, incarnation),
            ToIo::Enable { controller } => known_link(&mut self.links, controller).enable(),
            ToIo::Disconnect {
                controller,
                recovering,
            } => self.disconnect(controller, recovering),
            ToIo::Exclude { controller } => {
                known_link(&mut self.links, controller).excluded = true;
            }
            ToIo::RemoveController { controller } => {
                // One whose attach has failed may never have got here.
                if link_mut(&mut self.links, controller).is_some() {
                    self.disconnect(controller, false);
                    *place(&mut self.links, controller.slot) = None;
                }
            }
            ToIo::AddVolume { info, policy } => {
                let place = place(&mut self.volumes, info.id.slot);
                assert!(place.is_none(), "two volumes in one place");
                let mut volume = Volume::new(info, policy);
                volume.set_failback(self.failback);
                *place = Some(Box::new(volume));
            }
            ToIo::ResizeVolume { volume, blocks } => {
                told_volume(&mut self.volumes, volume).info.blocks = blocks;
            }
            ToIo::RemoveVolume { volume } => self.remove_volume(volume),
            ToIo::AddPath {
                volume: id,
                controller,
                state,
            } => {
                told_volume(&mut self.volumes, id).add_path(controller, state);
                self.take_up_doubts(id, controller);
                self.applied(id, controller, state.epoch);
            }
            ToIo::SetPath {
                volume: id,
                controller,
                state,
            } => {
                if told_volume(&mut self.volumes, id).set_path(controller, state) {
                    self.applied(id, controller, state.epoch);
                }
            }
            ToIo::AwaitLog {
                volume,
                controller,
                read,
            } => {
                // What the I/O with the ANA status was of may have been removed before control answered.
                if let Some(volume) = volume_mut(&mut self.volumes, volume) {
                    volume.await_log(controller, read);
                }
            }
            ToIo::AnattExpired {
                volume,
                controller,
                epoch,
            } => {
                told_volume(&mut self.volumes, volume).anatt_expired(controller, epoch);
            }
            ToIo::RemovePath { volume, controller } => {
                told_volume(&mut self.volumes, volume).remove_path(controller);
            }
            // The application has its turn after the messages, and takes them there.
            ToIo::PathEvents => {}
            ToIo::Call(call) => call.run(self),
        }
        self.poll_links();
        self.resume_waiting();
    }

    /// Retries of an I/O that are counted; `None`: no limit.
    pub(crate) fn set_retry_limit(&mut self, limit: Option<u32>) {
        self.retry_limit = limit;
    }

    /// Whether to go back to a better path of the same class, on all volumes (rule B5.2).
    pub(crate) fn set_failback(&mut self, failback: bool) {
        self.failback = failback;
        for volume in self.volumes.iter_mut().flatten() {
            volume.set_failback(failback);
        }
    }

    pub(crate) fn set_policy(&mut self, id: VolumeId, policy: Policy) {
        told_volume(&mut self.volumes, id).set_policy(policy);
    }

    /// Tells control of the volume's ANA state from now on, which is taken to be inaccessible before; or no more.
    pub(crate) fn follow_ana(&mut self, id: VolumeId, on: bool) {
        told_volume(&mut self.volumes, id).ana_told = on.then_some(AnaState::INACCESSIBLE);
    }

    /// Prefers the path by one controller.
    pub(crate) fn set_preferred(&mut self, id: VolumeId, controller: ControllerId) {
        told_volume(&mut self.volumes, id).set_preferred(controller);
    }

    /// Counts latencies in this way from now on; `None`: no more.
    pub(crate) fn set_histogram(&mut self, id: VolumeId, layout: Option<HistogramLayout>) {
        told_volume(&mut self.volumes, id).set_histogram(layout);
    }

    /// What was counted since, if anything is.
    pub(crate) fn histogram(&mut self, id: VolumeId) -> Option<Box<LatencyHistogram>> {
        told_volume(&mut self.volumes, id).histogram.clone()
    }

    /// Begins counters of these volumes anew.
    pub(crate) fn reset_counters(&mut self, ids: &[VolumeId], what: CounterReset) {
        for &id in ids {
            told_volume(&mut self.volumes, id).reset_counters(what);
        }
    }

    /// Injects faults on the controller's present connection, or stops that; without a connection there is nothing to do.
    pub(crate) fn inject(&mut self, controller: ControllerId, change: FaultChange) {
        if let Some(link) = link_mut(&mut self.links, controller) {
            link.inject(change);
        }
    }

    /// Authenticates the controller's queue pair again; one that is being connected does so in any case.
    pub(crate) fn authenticate_again(&mut self, controller: ControllerId, auth: Option<HostAuth>) {
        let now = self.now;
        if let Some(link) = link_mut(&mut self.links, controller) {
            link.authenticate_again(auth, now);
        }
    }

    fn applied(&mut self, volume: VolumeId, controller: ControllerId, epoch: u64) {
        let at = self.now;
        self.post(FromIo::Applied {
            volume,
            controller,
            epoch,
            at,
        });
    }

    fn disconnect(&mut self, controller: ControllerId, recovering: bool) {
        let link = known_link(&mut self.links, controller);
        link.recovering = recovering;
        for volume in self.volumes.iter_mut().flatten() {
            volume.disconnected(controller);
        }
        link.disconnect(&mut self.inbox);
        self.drain_inbox(controller);
        self.fence_from_now(controller);
    }

    /// What waits for the volume fails now; what is on the way fails when it comes back.
    fn remove_volume(&mut self, id: VolumeId) {
        let place = place(&mut self.volumes, id.slot);
        let Some(mut volume) = place.take_if(|volume| volume.info.id == id) else {
            unreachable!("a volume that is not here was removed");
        };
        let (delayed, others): (VecDeque<Delayed>, _) = std::mem::take(&mut self.delayed)
            .into_iter()
            .partition(|d| d.request.user.volume == id);
        self.delayed = others;
        let delayed = delayed.into_iter().map(|d| d.request);
        let fenced = volume.fence.take(|_| true);
        if let Some(subnqn) = volume.subsystem(&self.links) {
            let fence = std::mem::take(&mut volume.fence);
            self.leave_doubts(subnqn, volume.info.nsid, fence);
        }
        let limited = volume.throttle.iter_mut();
        let limited: Vec<_> = limited.flat_map(|t| t.extract(|_| true)).collect();
        let waiting = volume.waiting.into_iter().chain(limited);
        for request in waiting.chain(fenced).chain(delayed) {
            self.end(request, IoError::Removed);
        }
    }

    /// Closes everything; what was outstanding is completed.
    pub(crate) fn close(&mut self) {
        let volumes: Vec<_> = self.volumes().map(|info| info.id).collect();
        for volume in volumes {
            self.remove_volume(volume);
        }
        let links: Vec<_> = self.links.iter().flatten().map(|l| l.id).collect();
        for link in links {
            self.disconnect(link, false);
        }
    }
}

/// A place in a table that grows as control uses more of it.
fn place<T>(table: &mut Vec<Option<T>>, slot: u16) -> &mut Option<T> {
    let slot = usize::from(slot);
    if table.len() <= slot {
        table.resize_with(slot + 1, || None);
    }
    &mut table[slot]
}
