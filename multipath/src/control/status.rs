//! What control tells of the host: of itself, and with what it asks every I/O reactor.

use std::sync::Arc;

use super::Control;
use super::discovery::Discovery;
use crate::counters::CounterReset;
use crate::error::HostError;
use crate::ids::VolumeId;
use crate::io::{Call, PollGroup, ToIo};
use crate::request::Reply;
use crate::status::{
    ControllerIdentity, ControllerStatus, DiscoveryStatus, PathStatus, PathView,
    ReactorVolumeStatus, VolumeStatus,
};
use crate::transport_id::TransportId;
use pollux_nvme_tcp::histogram::LatencyHistogram;

impl Control {
    /// Asks every I/O reactor, after all that was sent to it before; `then` is done with the answers.
    pub(super) fn ask<A: Send + 'static>(
        &mut self,
        question: impl FnOnce(&mut PollGroup) -> A + Clone + Send + 'static,
        then: impl FnOnce(&mut Control, Vec<A>) + Send + 'static,
    ) {
        let parts = self.gather.ask(self.shared.reactors.len(), then);
        for (reactor, part) in parts.into_iter().enumerate() {
            let question = question.clone();
            let call = Call::new(move |group| part.answer(question(group)));
            self.shared.reactors.post(reactor, ToIo::Call(call));
        }
    }

    /// Has every I/O reactor take a setting over.
    pub(super) fn set(&mut self, setting: impl FnOnce(&mut PollGroup) + Clone + Send + 'static) {
        self.shared
            .reactors
            .broadcast(|| ToIo::Call(Call::new(setting.clone())));
    }

    /// Status of all volumes; after it the counters of some begin anew.
    pub(super) fn volumes(
        &mut self,
        reset: Option<(Vec<VolumeId>, CounterReset)>,
        reply: Reply<Vec<VolumeStatus>>,
    ) {
        let question = move |group: &mut PollGroup| {
            let status = group.status();
            if let Some((volumes, what)) = reset {
                group.reset_counters(&volumes, what);
            }
            status
        };
        self.ask(question, |control, parts| {
            reply(Ok(control.volume_status(parts)));
        });
    }

    pub(super) fn histogram(&mut self, volume: VolumeId, reply: Reply<Option<LatencyHistogram>>) {
        self.ask(
            move |group| group.histogram(volume),
            |_, parts| {
                let sum = parts.into_iter().flatten().reduce(|mut sum, part| {
                    sum.add(&part);
                    sum
                });
                reply(Ok(sum.map(|sum| *sum)));
            },
        );
    }

    /// The reactors' snapshots, with what only control knows.
    fn volume_status(&self, parts: Vec<Vec<ReactorVolumeStatus<PathView>>>) -> Vec<VolumeStatus> {
        let now = self.shared.now;
        let parts = parts.into_iter().flatten();
        let mut parts: Vec<_> = parts.map(|part| self.complete(part)).collect();
        self.shared
            .volumes
            .iter()
            .map(|volume| VolumeStatus {
                name: volume.info.name.clone(),
                volume: volume.info.id,
                nsid: volume.info.nsid,
                ids: volume.ids,
                blocks: volume.info.blocks,
                block_size: volume.info.block_size(),
                policy: volume.policy,
                limits: volume.limits,
                at: now,
                reactors: parts
                    .extract_if(.., |part| part.volume == volume.info.id)
                    .collect(),
                events: volume.events.iter().cloned().collect(),
            })
            .collect()
    }

    /// A reactor's snapshot of a volume, with what only control knows. A path whose controller went away while the
    /// reactors were asked counts as removed.
    fn complete(&self, part: ReactorVolumeStatus<PathView>) -> ReactorVolumeStatus {
        let mut removed = part.removed;
        let mut paths = Vec::new();
        for view in part.paths {
            let Some(member) = self.members.get(view.controller) else {
                removed.add(&view.counters);
                continue;
            };
            let path = member.paths.iter().find(|p| p.volume == part.volume);
            paths.push(PathStatus {
                cntlid: member.cntlid,
                transport: Arc::clone(&member.transport),
                anatt_remaining: path.and_then(|p| p.anatt_remaining(self.shared.now)),
                view,
            });
        }
        ReactorVolumeStatus {
            volume: part.volume,
            reactor: part.reactor,
            waiting: part.waiting,
            no_path_since: part.no_path_since,
            fenced: part.fenced,
            removed,
            errors: part.errors,
            paths,
        }
    }

    pub(super) fn controllers(&self) -> Vec<ControllerStatus> {
        let members = self.members.iter();
        members
            .map(|m| ControllerStatus {
                name: m.group.clone(),
                controller: m.id,
                cntlid: m.cntlid,
                transport: TransportId::clone(&m.transport),
                options: m.options.clone(),
                alternates: m.alternates.iter().cloned().collect(),
                state: m.state_name(),
                last_error: m.last_error.clone(),
                digests: m.controller.as_ref().map(|c| c.digests()),
                ktls: m.controller.as_ref().and_then(|c| c.ktls()),
                identity: m.controller.as_ref().and_then(|c| {
                    let known = c.identify()?;
                    Some(ControllerIdentity {
                        model: known.model(),
                        serial: known.serial(),
                        firmware: known.firmware(),
                    })
                }),
                in_flight_max: m.controller.as_ref().map(|c| {
                    let options = c.io_options(1);
                    // One entry stays empty, and one may be kept for a probe.
                    let kept = 1 + u16::from(options.keep_probe_slot);
                    options.queue_size.saturating_sub(kept)
                }),
                bad_ana_logs: m.controller.as_ref().map_or(0, |c| c.bad_ana_logs()),
                left_out: m.left_out.clone(),
            })
            .collect()
    }

    pub(super) fn discovery_status(&self) -> Vec<DiscoveryStatus> {
        self.discoveries.iter().map(Discovery::status).collect()
    }

    /// Answers those who waited for a volume that is there now, or for too long.
    pub(super) fn answer_awaited(&mut self) {
        let (volumes, now) = (&self.shared.volumes, self.shared.now);
        let is_over = |name: &str, until| volumes.id_of(name).is_ok() || now >= until;
        let over = self
            .awaited
            .extract_if(.., |(name, until, _)| is_over(name, *until));
        for (name, _, reply) in over {
            reply(volumes.id_of(&name).map(|_| ()));
        }
    }

    /// The host ends: everything that still waits is told so.
    pub(super) fn cancel_shutdown(&mut self) {
        for reply in self.shutdown.drain(..) {
            reply(Err(HostError::Cancelled("the host is stopping")));
        }
    }
}
