//! What control has an I/O reactor do.

use std::collections::VecDeque;

use pollux_reactor::Context;

use super::{Channels, Delayed, channel_of, link_mut};
use crate::channel::Channel;
use crate::io::IoError;
use crate::link::{Link, News};
use crate::messages::{ControllerId, FromIo, Question, ToIo, Told, VolumeId};
use crate::request::FaultChange;

impl Channels {
    /// Applies a message from control. What it frees or fails among the waiting I/Os happens in this same
    /// turn (rules B7.2, B7.3).
    pub(crate) fn on_control(&mut self, message: ToIo, cx: &mut Context<'_>) {
        self.now = cx.now();
        match message {
            ToIo::Connect {
                controller,
                incarnation,
                options,
                retry_delays,
                timeout,
                traffic,
                silence,
            } => {
                let slot = usize::from(controller.slot);
                if self.links.len() <= slot {
                    self.links.resize_with(slot + 1, || None);
                }
                if let Some(place) = self.links.get_mut(slot) {
                    let link = place.get_or_insert_with(|| Box::new(Link::new(controller)));
                    link.retry_delays = retry_delays;
                    let connected =
                        link.connect(incarnation, *options, timeout, traffic, silence, cx);
                    if let Err(error) = connected {
                        self.report(controller, incarnation, News::Lost(error));
                    }
                }
            }
            ToIo::Enable { controller } => {
                if let Some(link) = link_mut(&mut self.links, controller) {
                    link.enable();
                }
            }
            ToIo::Disconnect {
                controller,
                recovering,
            } => self.disconnect(controller, recovering),
            ToIo::Exclude { controller } => {
                if let Some(link) = link_mut(&mut self.links, controller) {
                    link.excluded = true;
                }
            }
            ToIo::RemoveController { controller } => {
                self.disconnect(controller, false);
                if let Some(place) = self.links.get_mut(usize::from(controller.slot))
                    && place.as_ref().is_some_and(|l| l.id == controller)
                {
                    *place = None;
                }
            }
            ToIo::AddVolume { info, policy } => {
                let slot = usize::from(info.id.slot);
                if self.channels.len() <= slot {
                    self.channels.resize_with(slot + 1, || None);
                }
                if let Some(place) = self.channels.get_mut(slot) {
                    let mut channel = Channel::new(info, policy);
                    channel.set_failback(self.failback);
                    *place = Some(Box::new(channel));
                }
            }
            ToIo::ResizeVolume { volume, blocks } => {
                if let Some(channel) = channel_of(&mut self.channels, volume) {
                    channel.info.blocks = blocks;
                }
            }
            ToIo::RemoveVolume { volume } => self.remove_volume(volume),
            ToIo::AddPath {
                volume,
                controller,
                state,
            } => {
                if let Some(channel) = channel_of(&mut self.channels, volume) {
                    channel.add_path(controller, state);
                    self.applied(volume, controller, state.epoch);
                }
            }
            ToIo::SetPath {
                volume,
                controller,
                state,
            } => {
                if let Some(channel) = channel_of(&mut self.channels, volume)
                    && channel.set_path(controller, state)
                {
                    self.applied(volume, controller, state.epoch);
                }
            }
            ToIo::AwaitLog {
                volume,
                controller,
                read,
            } => {
                if let Some(channel) = channel_of(&mut self.channels, volume) {
                    channel.await_log(controller, read);
                }
            }
            ToIo::AnattExpired {
                volume,
                controller,
                epoch,
            } => {
                if let Some(channel) = channel_of(&mut self.channels, volume) {
                    channel.anatt_expired(controller, epoch);
                }
            }
            ToIo::RemovePath { volume, controller } => {
                if let Some(channel) = channel_of(&mut self.channels, volume) {
                    channel.remove_path(controller);
                }
            }
            ToIo::SetPolicy { volume, policy } => {
                if let Some(channel) = channel_of(&mut self.channels, volume) {
                    channel.set_policy(policy);
                }
            }
            ToIo::SetPreferred { volume, controller } => {
                if let Some(channel) = channel_of(&mut self.channels, volume) {
                    channel.set_preferred(controller);
                }
            }
            ToIo::SetRetryLimit { limit } => self.retry_limit = limit,
            ToIo::SetFailback { failback } => {
                self.failback = failback;
                for channel in self.channels.iter_mut().flatten() {
                    channel.set_failback(failback);
                }
            }
            ToIo::Fault { controller, change } => {
                let queue = link_mut(&mut self.links, controller).and_then(Link::queue);
                if let Some(queue) = queue {
                    match change {
                        FaultChange::Add(fault) => queue.add_fault(fault),
                        FaultChange::Remove(opcode) => queue.remove_fault(opcode),
                    }
                }
            }
            ToIo::SetHistogram { volume, layout } => {
                if let Some(channel) = channel_of(&mut self.channels, volume) {
                    channel.set_histogram(layout);
                }
            }
            ToIo::Ask { request, question } => {
                let answer = match question {
                    Question::Volumes(reset) => {
                        let status = self.status();
                        if let Some((volumes, what)) = reset {
                            for volume in volumes {
                                if let Some(channel) = channel_of(&mut self.channels, volume) {
                                    channel.reset_counters(what);
                                }
                            }
                        }
                        Told::Volumes(status)
                    }
                    Question::Counters => Told::Counters(self.counters),
                    Question::Histogram(volume) => Told::Histogram(
                        channel_of(&mut self.channels, volume).and_then(|c| c.histogram.clone()),
                    ),
                };
                self.post(FromIo::Told { request, answer });
            }
        }
        self.resume_waiting();
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
        let Some(link) = link_mut(&mut self.links, controller) else {
            return;
        };
        link.recovering = recovering;
        for channel in self.channels.iter_mut().flatten() {
            channel.disconnected(controller);
        }
        let inbox = &mut self.inbox;
        link.disconnect(&mut |completed| inbox.push(completed));
        self.drain_inbox(controller);
    }

    /// What waits for the volume fails now; what is on the way fails when it comes back.
    fn remove_volume(&mut self, volume: VolumeId) {
        let place = self.channels.get_mut(usize::from(volume.slot));
        let Some(channel) = place
            .filter(|place| place.as_ref().is_some_and(|c| c.info.id == volume))
            .and_then(Option::take)
        else {
            return;
        };
        let owner = volume.pack();
        let (delayed, others) = std::mem::take(&mut self.delayed)
            .into_iter()
            .partition(|d| d.request.owner == owner);
        self.delayed = others;
        let delayed: VecDeque<Delayed> = delayed;
        for request in channel
            .waiting
            .into_iter()
            .chain(delayed.into_iter().map(|d| d.request))
        {
            self.finish(request, None, Err(IoError::Removed));
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
