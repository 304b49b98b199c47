//! The commands of a queue that are in flight: taken, and not answered.
//!
//! A command that is carried out in place is answered at once and never in here.

use pollux_reactor::Time;

use crate::spec::Sqe;
use crate::spec::status::Status;
use crate::target::disk::Buffer;

/// How far a command has come.
#[derive(Debug)]
pub(in crate::target) enum Stage {
    /// The command waits for a buffer.
    Waiting,
    /// The data was asked for.
    Receiving(Receiving),
    /// The command is with its disk; a flush of all namespaces is with several.
    OnDisk {
        /// Answers that are missing.
        missing: usize,
        result: Result<(), Status>,
    },
    /// The command belongs to an authentication, which home carries out.
    AtHome,
    /// The command is to be answered, and so many bytes of its data have been queued.
    Ended {
        result: Result<(), Status>,
        sent: u64,
    },
}

/// Data that comes from the host.
#[derive(Debug, Clone, Copy)]
pub(in crate::target) struct Receiving {
    /// Bytes that came, in order from the start.
    pub(in crate::target) received: usize,
    /// Set when a data digest was wrong: the data is not used.
    pub(in crate::target) failed: Option<Status>,
    /// When the data was asked for.
    pub(in crate::target) asked_at: Time,
}

/// A command in flight.
#[derive(Debug)]
pub(in crate::target) struct InFlight {
    pub(in crate::target) sqe: Sqe,
    /// The data, unless a disk has it.
    pub(in crate::target) data: Buffer,
    pub(in crate::target) stage: Stage,
}

/// All commands in flight. A command's place in the table is the transfer tag of its data.
#[derive(Debug, Default)]
pub(in crate::target) struct Table {
    slots: Vec<Option<InFlight>>,
    free: Vec<usize>,
}

impl Table {
    #[inline]
    pub(in crate::target) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Takes a command in; there are at most as many as the queue has entries.
    pub(in crate::target) fn insert(&mut self, sqe: Sqe, data: Buffer, stage: Stage) -> usize {
        let command = Some(InFlight { sqe, data, stage });
        let slot = self.free.pop().unwrap_or(self.slots.len());
        match self.slots.get_mut(slot) {
            Some(empty) => *empty = command,
            None => self.slots.push(command),
        }
        slot
    }

    /// Takes a command out that is in the table.
    #[expect(
        clippy::expect_used,
        reason = "places come from the table, and a command stays until it is answered"
    )]
    pub(in crate::target) fn remove(&mut self, slot: usize) -> InFlight {
        let command = self.slots[slot].take().expect("a command in flight");
        self.free.push(slot);
        command
    }

    /// A command that is in the table.
    #[inline]
    #[expect(
        clippy::expect_used,
        reason = "places come from the table, and a command stays until it is answered"
    )]
    pub(in crate::target) fn command(&mut self, slot: usize) -> &mut InFlight {
        self.slots[slot].as_mut().expect("a command in flight")
    }

    /// The command whose data comes under this transfer tag, if any: a host may make one up.
    #[inline]
    pub(in crate::target) fn receiving(
        &mut self,
        slot: usize,
    ) -> Option<(&Sqe, &mut Buffer, &mut Receiving)> {
        match self.slots.get_mut(slot)?.as_mut()? {
            InFlight {
                sqe,
                data,
                stage: Stage::Receiving(receiving),
            } => Some((sqe, data, receiving)),
            _ => None,
        }
    }

    pub(in crate::target) fn find(&self, cid: u16) -> Option<usize> {
        let is_it = |command: &Option<InFlight>| command.as_ref().is_some_and(|c| c.sqe.cid == cid);
        self.slots.iter().position(is_it)
    }

    pub(in crate::target) fn iter(&self) -> impl Iterator<Item = (usize, &InFlight)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(slot, command)| Some((slot, command.as_ref()?)))
    }

    pub(in crate::target) fn iter_mut(&mut self) -> impl Iterator<Item = &mut InFlight> {
        self.slots.iter_mut().flatten()
    }

    /// Takes everything out.
    pub(in crate::target) fn drain(&mut self) -> impl Iterator<Item = InFlight> {
        self.free.clear();
        std::mem::take(&mut self.slots).into_iter().flatten()
    }
}
