//! The fence of one volume on one reactor (rule B14): writes that a lost controller may still execute, and what has
//! to stay behind them.
//!
//! A write whose bytes were handed to a connection that was lost is *in doubt*: sent again at once, it could be
//! followed by a newer write and then be executed a second time, from what the lost controller still holds. It stays
//! here until its time is over (NVMe base specification 2.1, communication loss: 2 x KATO, 3 x with traffic-based
//! keep-alive, + CQT). The blocks of a write in doubt stay fenced even if the I/O itself has ended, by an abort or a
//! deadline. A connection made again to the same controller is no end of the old association that the specification
//! promises for what is under way, so it ends no fence. A reset of the lost controller by another one of its subsystem
//! does, at once ([`Fence::reset`]).
//!
//! This orders what one reactor was given. Writes of several reactors have no order among them until one has ended,
//! and no fenced write has; only the blocks of an I/O that was ended early are open to other reactors.

#[cfg(test)]
mod model;

use std::ops::Range;
use std::time::Duration;

use pollux_reactor::Time;

use super::in_flight::{InFlight, IoRequest};
use crate::ids::ControllerId;
use crate::status::FenceStatus;

#[derive(Debug, Default)]
pub(crate) struct Fence {
    doubts: Vec<Doubt>,
    /// Writes that overlap one in doubt, or one that stands here already, in the order of submission. Empty while
    /// there are no doubts.
    behind: Vec<IoRequest>,
}

/// One connection of a controller: a reset ends what was sent by that one.
pub(crate) type Connection = (ControllerId, u32);

/// A write that may still be executed.
#[derive(Debug)]
struct Doubt {
    controller: ControllerId,
    incarnation: u32,
    blocks: Range<u64>,
    until: Time,
    /// Control has given the controller up as well: only from then on it hears nothing more of the host.
    given_up: bool,
    /// Control was told.
    told: bool,
    /// `None`: its submitter has it back.
    request: Option<IoRequest>,
}

fn blocks(io: &InFlight) -> Range<u64> {
    io.lba..io.lba + u64::from(io.blocks)
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

impl Fence {
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.doubts.is_empty()
    }

    /// Takes a write in doubt; it goes on once `until` has come.
    pub fn add(&mut self, lost: Connection, until: Time, mut request: IoRequest) {
        request.user.in_doubt = true;
        self.add_doubt(lost, until, blocks(&request.user), Some(request));
    }

    /// As [`add`](Self::add), of a write whose submitter gets it back.
    pub fn add_ended(&mut self, lost: Connection, until: Time, io: &InFlight) {
        self.add_doubt(lost, until, blocks(io), None);
    }

    fn add_doubt(
        &mut self,
        (controller, incarnation): Connection,
        until: Time,
        blocks: Range<u64>,
        request: Option<IoRequest>,
    ) {
        self.doubts.push(Doubt {
            controller,
            incarnation,
            blocks,
            until,
            given_up: false,
            told: false,
            request,
        });
    }

    /// Takes in what is in doubt on the same blocks, of a volume that is gone.
    pub fn join(&mut self, other: Fence) {
        assert!(
            other.requests().next().is_none(),
            "I/Os of a volume that is gone"
        );
        self.doubts.extend(other.doubts);
    }

    /// Whether an I/O has to stay behind what is here.
    #[cold]
    pub fn holds(&self, io: &InFlight) -> bool {
        let wanted = blocks(io);
        io.op.changes_data()
            && (self.doubts.iter().any(|d| overlap(&d.blocks, &wanted))
                || self
                    .behind
                    .iter()
                    .any(|r| overlap(&blocks(&r.user), &wanted)))
    }

    /// Takes an I/O that has to stay behind.
    pub fn hold(&mut self, request: IoRequest) {
        debug_assert!(!self.is_empty(), "an I/O behind no fence");
        let sequence = request.user.sequence;
        let place = self.behind.partition_point(|r| r.user.sequence < sequence);
        self.behind.insert(place, request);
    }

    /// The controller was given up by control too: its time counts from then, once.
    pub fn given_up(&mut self, controller: ControllerId, until: Time) {
        for doubt in &mut self.doubts {
            if doubt.controller == controller && !doubt.given_up {
                doubt.given_up = true;
                doubt.until = doubt.until.max(until);
            }
        }
    }

    /// That connection of the controller is proved to be no more: its doubts are over.
    pub fn reset(&mut self, lost: Connection, now: Time) {
        for doubt in &mut self.doubts {
            if (doubt.controller, doubt.incarnation) == lost {
                doubt.until = now;
            }
        }
    }

    /// When the next doubt is over.
    pub fn next(&self) -> Time {
        let until = self.doubts.iter().map(|doubt| doubt.until);
        until.min().unwrap_or(Time::MAX)
    }

    /// Gives out what may go on, in the order of submission, and the controllers of which nothing is in doubt any
    /// more. What still has to stay behind something comes back by [`hold`](Self::hold).
    pub fn release(&mut self, now: Time) -> (Vec<IoRequest>, Vec<ControllerId>) {
        let (over, doubts): (Vec<_>, Vec<_>) = std::mem::take(&mut self.doubts)
            .into_iter()
            .partition(|doubt| doubt.until <= now);
        self.doubts = doubts;
        if over.is_empty() {
            return (Vec::new(), Vec::new());
        }
        let mut controllers: Vec<ControllerId> = Vec::new();
        let mut free = std::mem::take(&mut self.behind);
        for doubt in over {
            let id = doubt.controller;
            if !controllers.contains(&id) && !self.doubts.iter().any(|d| d.controller == id) {
                controllers.push(id);
            }
            if let Some(mut request) = doubt.request {
                request.user.in_doubt = false;
                free.push(request);
            }
        }
        free.sort_by_key(|request| request.user.sequence);
        (free, controllers)
    }

    /// Takes all I/Os out for which `wanted` says so. What was in doubt stays fenced.
    pub fn take(&mut self, mut wanted: impl FnMut(&InFlight) -> bool) -> Vec<IoRequest> {
        let in_doubt = self.doubts.iter_mut();
        let mut taken: Vec<_> = in_doubt
            .filter_map(|doubt| doubt.request.take_if(|r| wanted(&r.user)))
            .collect();
        taken.extend(self.behind.extract_if(.., |r| wanted(&r.user)));
        taken.sort_by_key(|request| request.user.sequence);
        taken
    }

    /// The I/Os that are here.
    pub fn requests(&self) -> impl Iterator<Item = &IoRequest> {
        let in_doubt = self.doubts.iter().filter_map(|d| d.request.as_ref());
        in_doubt.chain(&self.behind)
    }

    /// How many writes of a connection have come since this was asked last, and for how long they are fenced.
    pub fn untold(&mut self, lost: Connection, now: Time) -> Option<(usize, Duration)> {
        let doubts = self.doubts.iter_mut();
        let mut writes = 0;
        let mut until = now;
        let is_of = |d: &Doubt| (d.controller, d.incarnation) == lost;
        for doubt in doubts.filter(|d| is_of(d) && !d.told) {
            doubt.told = true;
            writes += 1;
            until = until.max(doubt.until);
        }
        (writes > 0).then(|| (writes, until - now))
    }

    pub fn status(&self, now: Time) -> Option<FenceStatus> {
        let until = self.doubts.iter().map(|doubt| doubt.until).max()?;
        Some(FenceStatus {
            writes: self.doubts.len(),
            behind: self.behind.len(),
            remaining: until.saturating_since(now),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// B14.7: what another connection of the controller, or another controller, was sent is not over.
    #[test]
    fn a_reset_ends_what_was_sent_by_that_connection_alone() {
        let controller = |slot| ControllerId {
            slot,
            generation: 1,
        };
        let connections = [(0, 2), (1, 1), (1, 2), (1, 3), (2, 2)].map(|(c, n)| (controller(c), n));
        let (now, until) = (Time::ZERO, Time::ZERO + Duration::from_secs(2));
        let mut fence = Fence::default();
        for (connection, at) in connections.into_iter().zip(0..) {
            fence.add_doubt(connection, until, at..at + 1, None);
        }
        fence.reset((controller(1), 2), now);
        let (_, over) = fence.release(now);
        assert!(
            over.is_empty(),
            "others of the same controller are in doubt"
        );
        let left: Vec<_> = fence.doubts.iter().map(|d| d.blocks.start).collect();
        assert_eq!(left, [0, 1, 3, 4]);
    }
}
