//! I/Os that a test submits one by one, and how each of them ended.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use pollux_multipath::{Aborting, ControllerId, Io, IoError, Op, VolumeId};
use pollux_reactor::Time;

use super::{BLOCK, World};

/// Marks the `user` of I/Os submitted by hand.
pub const BY_HAND: u64 = 1 << 48;

/// How an I/O ended.
#[derive(Debug)]
pub struct Ended {
    pub id: u64,
    pub result: Result<(), IoError>,
    pub path: Option<ControllerId>,
    pub at: Time,
    pub buffer: Vec<u8>,
}

/// What waits to be submitted on each reactor, and what has ended, in order.
#[derive(Debug, Default)]
pub struct Hand {
    pub todo: BTreeMap<usize, VecDeque<(Option<VolumeId>, Io)>>,
    pub ended: Vec<Ended>,
    /// The deadline of I/Os that are submitted from now on, from then.
    pub limit: Option<Duration>,
    /// I/Os to abort on each reactor, and what was said to that.
    pub to_abort: BTreeMap<usize, Vec<u64>>,
    pub aborting: BTreeMap<u64, Aborting>,
    next: u64,
}

impl World {
    /// Submits an I/O of one block on a reactor; returns its number.
    pub fn submit(&mut self, reactor: usize, op: Op, lba: u64) -> u64 {
        self.submit_to(reactor, None, op, lba, vec![0; BLOCK])
    }

    /// As [`submit`](Self::submit), to this volume, with this buffer.
    pub fn submit_to(
        &mut self,
        reactor: usize,
        volume: Option<VolumeId>,
        op: Op,
        lba: u64,
        buffer: Vec<u8>,
    ) -> u64 {
        let mut hand = self.hand.borrow_mut();
        hand.next += 1;
        let id = hand.next;
        let io = Io::new(op, lba, 1, buffer).with_user(BY_HAND | id);
        hand.todo
            .entry(reactor)
            .or_default()
            .push_back((volume, io));
        drop(hand);
        assert!(self.host.tell(reactor, ()).is_ok());
        id
    }

    /// Has an I/O of the first volume aborted; returns what was said to that.
    pub fn abort(&mut self, reactor: usize, id: u64) -> Aborting {
        let hand = self.hand.clone();
        let mut to_abort = hand.borrow_mut();
        to_abort.to_abort.entry(reactor).or_default().push(id);
        drop(to_abort);
        assert!(self.host.tell(reactor, ()).is_ok());
        let said = || hand.borrow().aborting.contains_key(&id);
        assert!(self.sim.run_until(Duration::from_secs(1), said));
        hand.borrow().aborting[&id]
    }

    /// Runs until all these I/Os have ended.
    pub fn expect_ended(&mut self, ids: &[u64], within: Duration) {
        let hand = self.hand.clone();
        let all = || {
            let hand = hand.borrow();
            ids.iter().all(|id| hand.ended.iter().any(|e| e.id == *id))
        };
        assert!(
            self.sim.run_until(within, all),
            "not all of {ids:?} have ended: {:?}",
            self.hand.borrow().ended
        );
    }

    /// How an I/O ended, and when; `None` if it has not.
    pub fn ended(&self, id: u64) -> Option<(Result<(), IoError>, Time)> {
        let hand = self.hand.borrow();
        let ended = hand.ended.iter().find(|e| e.id == id)?;
        Some((ended.result, ended.at))
    }

    /// Submits one I/O and waits for its end.
    pub fn io(&mut self, reactor: usize, op: Op, lba: u64) -> Result<(), IoError> {
        let id = self.submit(reactor, op, lba);
        self.expect_ended(&[id], Duration::from_secs(60));
        self.ended(id).unwrap().0
    }

    /// The path, as [`addr`](super::addr) counts them, that carried an I/O last.
    pub fn carried_by(&mut self, id: u64) -> Option<u16> {
        let hand = self.hand.clone();
        let path = hand.borrow().ended.iter().find(|e| e.id == id)?.path?;
        let controllers = self.controllers();
        let controller = controllers.iter().find(|c| c.controller == path)?;
        Some(controller.transport.addr.port() - 4420)
    }
}
