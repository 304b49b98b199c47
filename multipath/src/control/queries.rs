//! What control cannot answer from what it knows itself: it asks every I/O reactor.

use std::sync::Arc;

use pollux_reactor::Time;

use super::Control;
use crate::histogram::LatencyHistogram;
use crate::messages::{Question, ToIo, Told};
use crate::request::Reply;
use crate::status::{ReactorCounters, ReactorVolumeStatus, VolumeStatus};

/// A question that waits for the answers of the I/O reactors.
pub(super) struct Query {
    id: u64,
    missing: usize,
    /// The I/O reactor of each.
    answers: Vec<(usize, Told)>,
    then: Then,
}

/// Who is answered when all reactors have.
pub(super) enum Then {
    Volumes(Reply<Vec<VolumeStatus>>),
    Counters(Reply<Vec<ReactorCounters>>),
    Histogram(Reply<Option<LatencyHistogram>>),
}

impl<M: Send + 'static> Control<M> {
    pub(super) fn ask(&mut self, question: Question, then: Then) {
        self.query_next += 1;
        let id = self.query_next;
        self.queries.push(Query {
            id,
            missing: self.reactors.len(),
            answers: Vec::new(),
            then,
        });
        self.broadcast(|| ToIo::Ask {
            request: id,
            question: question.clone(),
        });
    }

    /// One reactor's answer; with the last one the question is answered.
    pub(super) fn on_told(&mut self, id: u64, reactor: usize, answer: Told, now: Time) {
        let Some(index) = self.queries.iter().position(|q| q.id == id) else {
            return;
        };
        if let Some(query) = self.queries.get_mut(index) {
            query.answers.push((reactor, answer));
            query.missing -= 1;
            if query.missing > 0 {
                return;
            }
        }
        let mut query = self.queries.swap_remove(index);
        query.answers.sort_by_key(|(reactor, _)| *reactor);
        let answers = query.answers.into_iter().map(|(_, told)| told);
        match query.then {
            Then::Volumes(reply) => {
                let parts = answers.flat_map(|told| match told {
                    Told::Volumes(parts) => parts,
                    _ => Vec::new(),
                });
                reply(Ok(self.volume_status(parts.collect(), now)));
            }
            Then::Counters(reply) => {
                let counters = answers.filter_map(|told| match told {
                    Told::Counters(counters) => Some(counters),
                    _ => None,
                });
                reply(Ok(counters.collect()));
            }
            Then::Histogram(reply) => {
                let parts = answers.filter_map(|told| match told {
                    Told::Histogram(part) => part,
                    _ => None,
                });
                let sum = parts.reduce(|mut sum, part| {
                    sum.add(&part);
                    sum
                });
                reply(Ok(sum.map(|sum| *sum)));
            }
        }
    }

    /// The reactors' snapshots, with what only control knows.
    fn volume_status(&self, mut parts: Vec<ReactorVolumeStatus>, now: Time) -> Vec<VolumeStatus> {
        for path in parts.iter_mut().flat_map(|part| &mut part.paths) {
            if let Some(member) = self.members.iter().find(|m| m.id == path.controller) {
                path.cntlid = member.cntlid;
                path.transport = Some(Arc::clone(&member.transport));
            }
        }
        self.volumes
            .iter()
            .map(|volume| VolumeStatus {
                name: volume.info.name.clone(),
                volume: volume.info.id,
                nsid: volume.info.nsid,
                ids: volume.ids,
                blocks: volume.info.blocks,
                block_size: volume.info.block_size(),
                policy: volume.policy,
                at: now,
                reactors: parts
                    .iter()
                    .filter(|part| part.volume == volume.info.id)
                    .cloned()
                    .map(|mut part| {
                        for path in &mut part.paths {
                            path.anatt_remaining = self
                                .members
                                .iter()
                                .filter(|m| m.id == path.controller)
                                .flat_map(|m| &m.paths)
                                .find(|p| p.volume == volume.info.id)
                                .and_then(|p| p.anatt_remaining(now));
                        }
                        part
                    })
                    .collect(),
                events: volume.events.iter().cloned().collect(),
            })
            .collect()
    }
}
