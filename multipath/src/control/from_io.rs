//! What the I/O reactors report.

use std::time::Duration;

use super::member::Member;
use super::{Control, journal};
use crate::ids::VolumeId;
use crate::io::ToIo;
use crate::messages::FromIo;
use crate::options::Recovery;
use crate::status::PathEventKind;

impl Control {
    /// Takes a report of a reactor. What it says of a controller that has gone, or of an earlier connection, is void.
    pub(super) fn on_io(&mut self, reactor: usize, message: FromIo) {
        match message {
            FromIo::QueueReady {
                controller,
                incarnation,
            } => {
                self.with_incarnation(controller, incarnation, |member, shared| {
                    member.queue_ready(shared);
                });
            }
            FromIo::QueueLost {
                controller,
                incarnation,
                error,
            } => {
                self.with_incarnation(controller, incarnation, |member, shared| {
                    member.queue_lost(1 + reactor, error.into(), shared);
                });
            }
            FromIo::AnaStatus {
                volume,
                controller,
                at,
            } => {
                self.with(controller, |member, shared| {
                    if let Some(nvme) = &mut member.controller {
                        let message = ToIo::AwaitLog {
                            volume,
                            controller,
                            read: nvme.read_ana(),
                        };
                        shared.reactors.post(reactor, message);
                    }
                    member.record(volume, PathEventKind::AnaStatus { reactor, at }, shared);
                });
            }
            FromIo::Applied {
                volume,
                controller,
                epoch,
                at,
            } => {
                self.with(controller, |member, shared| {
                    let kind = PathEventKind::Applied { epoch, reactor, at };
                    member.record(volume, kind, shared);
                });
            }
            FromIo::Stalled {
                volume,
                waiting,
                since,
            } => self.on_stalled(volume, reactor, waiting, self.shared.now - since),
            FromIo::Resumed { volume, since } => {
                self.on_resumed(volume, reactor, self.shared.now - since);
            }
            FromIo::Fenced {
                volume,
                controller,
                incarnation,
                writes,
                time,
            } => {
                let until = self.shared.now + time;
                let lost = (controller, incarnation);
                self.shared.resets.fenced(lost, volume, until);
                self.with(controller, |member, shared| {
                    let kind = PathEventKind::Fenced {
                        reactor,
                        writes,
                        time,
                    };
                    member.record(volume, kind, shared);
                });
            }
            FromIo::FenceOver { volume, controller } => {
                self.with(controller, |member, shared| {
                    member.record(volume, PathEventKind::FenceOver { reactor }, shared);
                });
            }
            FromIo::VolumeAna { volume, state } => {
                self.shared.volumes.ana_told(volume, reactor, state);
            }
            FromIo::Subscribe(publisher) => {
                self.shared
                    .volumes
                    .subscribers
                    .add(publisher, Some(reactor));
            }
            FromIo::AskSlice {
                volume,
                number,
                ask,
            } => self.ask_slice(reactor, volume, (number, ask)),
            FromIo::Traffic {
                controller,
                incarnation,
            } => {
                self.with_incarnation(controller, incarnation, |member, shared| {
                    if let Some(controller) = &mut member.controller {
                        controller.note_traffic(shared.now);
                    }
                });
            }
            FromIo::Authenticated {
                controller,
                incarnation,
            } => {
                self.with_incarnation(controller, incarnation, |member, shared| {
                    member.queue_authenticated(1 + reactor, shared);
                });
            }
            FromIo::CommandTimeout {
                controller,
                incarnation,
                commands,
            } => {
                self.with_incarnation(controller, incarnation, |member, shared| {
                    let reactor = Some(reactor);
                    let kind = PathEventKind::CommandTimeout { reactor, commands };
                    member.record_all(&kind, shared);
                });
            }
            FromIo::Abort {
                controller,
                incarnation,
                queue_id,
                commands,
                overdue,
            } => {
                self.with_incarnation(controller, incarnation, |member, _| {
                    for cid in commands {
                        if let Some(controller) = &mut member.controller {
                            controller.abort(queue_id, cid, overdue);
                        }
                    }
                });
            }
        }
    }

    /// I/O of a volume waits on a reactor, and has no path there. The volume may have gone meanwhile.
    fn on_stalled(&mut self, id: VolumeId, reactor: usize, waiting: usize, length: Duration) {
        let Some(volume) = self.shared.volumes.get_mut(id) else {
            return;
        };
        let is_first = volume.stalled.is_empty();
        volume.stalled.push(reactor);
        if is_first {
            let of_it = |m: &Member| Some((m.describe_path(id)?, m.options.recovery));
            let (paths, recoveries): (Vec<_>, Vec<_>) =
                self.members.iter().filter_map(of_it).unzip();
            let is_limited = recoveries.iter().any(Recovery::is_limited);
            journal::stalled(&volume.info.name, paths, is_limited, waiting, length);
        }
    }

    fn on_resumed(&mut self, id: VolumeId, reactor: usize, length: Duration) {
        let Some(volume) = self.shared.volumes.get_mut(id) else {
            return;
        };
        volume.stalled.retain(|&stalled| stalled != reactor);
        if volume.stalled.is_empty() {
            journal::resumed(&volume.info.name, length);
        }
    }
}
