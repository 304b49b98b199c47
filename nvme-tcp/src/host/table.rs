//! The fixed table of a queue pair's outstanding commands.

use super::request::{Outcome, Request, Transfer};
use crate::stream::Payloads;

/// Low bits of a command identifier: the slot. The rest is the slot's generation, so that a completion
/// that comes late or twice finds a stranger and is refused instead of completing it.
const SLOT_BITS: u32 = 10;
const SLOT_MASK: u16 = (1 << SLOT_BITS) - 1;
const GENERATION_MASK: u16 = u16::MAX >> SLOT_BITS;

/// Most commands outstanding on one queue pair. One less than the slot field holds, so that FFFFh, which
/// is no valid command identifier (NVMe Base 2.1, 4.1.1), is never made.
pub(super) const COMMANDS_MAX: u16 = SLOT_MASK;

#[derive(Debug, Default)]
pub(super) struct Slot {
    request: Option<Request>,
    generation: u16,
    /// The part of the request that the current command covers, in bytes of its range.
    pub offset: usize,
    pub length: usize,
    /// Bytes of the current command that came by C2HData.
    pub received: usize,
    /// The C2HData PDU that ends the data has come.
    pub last: bool,
    /// Bytes of the current command that the controller asked for by R2T.
    pub granted: usize,
    /// R2Ts of the current command that are not yet queued whole.
    pub r2ts: u8,
    /// Payload bytes queued but not yet handed to the stream.
    pub unsent: usize,
    /// The command was queued for sending at least once.
    pub issued: bool,
    pub digest_failed: bool,
    /// The table's tick in which the command was issued, or was last found overdue.
    tick: u32,
    /// It was found overdue before.
    overdue: bool,
    /// The command failed while its data was on the way; see `QueuePair::finish_deferred`.
    pub outcome: Option<Outcome>,
}

impl Slot {
    /// The data bytes that the current command moves (0 for a range without data).
    pub fn data_length(&self) -> usize {
        match &self.request {
            Some(r) if r.transfer != Transfer::None => self.length,
            _ => 0,
        }
    }

    /// Less data has moved than a block command needs to succeed. Log pages and identify data may well be
    /// shorter than asked for.
    pub fn falls_short(&self) -> bool {
        self.request.as_ref().is_some_and(|r| {
            let moved = match r.transfer {
                Transfer::None => return false,
                Transfer::FromController => self.received,
                Transfer::ToController => self.granted,
            };
            r.block_shift > 0 && moved < self.length
        })
    }

    /// Data of the current command is queued, or asked for and not yet queued.
    pub fn is_sending(&self) -> bool {
        self.unsent > 0 || self.r2ts > 0
    }

    pub fn request(&self) -> Option<&Request> {
        self.request.as_ref()
    }

    pub fn opcode(&self) -> Option<u8> {
        self.request.as_ref().map(|r| r.command.opcode)
    }

    /// Where received data of the current command goes, from `at` on.
    #[inline]
    pub fn destination(&mut self, at: usize, len: usize) -> Option<&mut [u8]> {
        let from = self.offset.checked_add(at)?;
        let to = from.checked_add(len)?;
        self.request.as_mut()?.buffer.get_mut(from..to)
    }

    /// The bytes to send of the current command, from `at` on.
    #[inline]
    pub fn source(&self, at: usize, len: usize) -> Option<&[u8]> {
        let from = self.offset.checked_add(at)?;
        let to = from.checked_add(len)?;
        self.request.as_ref()?.buffer.get(from..to)
    }
}

/// A command that was not answered in time.
#[derive(Debug)]
pub struct Overdue<'a> {
    /// What was asked for.
    pub request: &'a Request,
    /// Its command identifier; `None` while it waits in the host's own send queue.
    pub command_id: Option<u16>,
    /// It was shown before, as long ago as commands may take.
    pub again: bool,
}

#[derive(Debug)]
pub(super) struct CommandTable {
    slots: Box<[Slot]>,
    free: Vec<u16>,
    /// Counts the calls of `age`: the unit in which the age of commands is told.
    tick: u32,
}

impl CommandTable {
    pub fn new(commands: u16) -> Self {
        let commands = commands.clamp(1, COMMANDS_MAX);
        Self {
            slots: (0..commands).map(|_| Slot::default()).collect(),
            free: (0..commands).rev().collect(),
            tick: 0,
        }
    }

    #[inline]
    pub fn outstanding(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Takes a slot for `request`; the request comes back if none is free.
    #[inline]
    pub fn insert(&mut self, request: Request) -> Result<u16, Request> {
        let Some(&index) = self.free.last() else {
            return Err(request);
        };
        let Some(slot) = self.slots.get_mut(usize::from(index)) else {
            return Err(request);
        };
        self.free.pop();
        slot.length = 0;
        slot.offset = 0;
        slot.issued = false;
        slot.digest_failed = false;
        slot.tick = self.tick;
        slot.overdue = false;
        slot.request = Some(request);
        Ok(index)
    }

    #[inline]
    pub fn get_mut(&mut self, slot: u16) -> Option<&mut Slot> {
        self.slots.get_mut(usize::from(slot))
    }

    #[inline]
    pub fn get(&self, slot: u16) -> Option<&Slot> {
        self.slots.get(usize::from(slot))
    }

    /// Starts a command of the slot's request: a new generation, all progress at zero. Returns its
    /// command identifier.
    #[inline]
    pub fn begin(&mut self, index: u16) -> u16 {
        let Some(slot) = self.slots.get_mut(usize::from(index)) else {
            return index;
        };
        slot.generation = (slot.generation + 1) & GENERATION_MASK;
        slot.received = 0;
        slot.last = false;
        slot.granted = 0;
        slot.r2ts = 0;
        slot.unsent = 0;
        slot.issued = true;
        slot.tick = self.tick;
        slot.overdue = false;
        slot.generation << SLOT_BITS | index
    }

    /// The identifier of the slot's current command.
    pub fn current_cid(&self, index: u16) -> u16 {
        self.get(index)
            .map_or(index, |slot| slot.generation << SLOT_BITS | index)
    }

    /// The slot that an outstanding command identifier belongs to.
    #[inline]
    pub fn find(&mut self, cid: u16) -> Option<(u16, &mut Slot)> {
        let index = cid & SLOT_MASK;
        let slot = self.slots.get_mut(usize::from(index))?;
        let outstanding = slot.request.is_some() && slot.issued && slot.outcome.is_none();
        (outstanding && slot.generation == cid >> SLOT_BITS).then_some((index, slot))
    }

    /// Frees the slot and hands its request back.
    #[inline]
    pub fn take(&mut self, index: u16) -> Option<Request> {
        let slot = self.slots.get_mut(usize::from(index))?;
        let request = slot.request.take()?;
        slot.outcome = None;
        self.free.push(index);
        Some(request)
    }

    /// The slot of the outstanding request that `wanted` picks.
    pub fn find_request(&self, wanted: impl Fn(&Request) -> bool) -> Option<(u16, bool)> {
        (0u16..).zip(&self.slots).find_map(|(index, slot)| {
            let found = slot.request.as_ref().is_some_and(&wanted);
            found.then_some((index, slot.issued))
        })
    }

    /// Shows `look` every request, with its command identifier if it was issued.
    pub fn look_through(&mut self, look: &mut impl FnMut(&mut Request, Option<u16>)) {
        for (index, slot) in (0u16..).zip(&mut self.slots) {
            let cid = slot.issued.then_some(slot.generation << SLOT_BITS | index);
            if let Some(request) = &mut slot.request {
                look(request, cid);
            }
        }
    }

    /// Begins a new tick and shows `found` every command that is `limit` ticks old or more; its age then
    /// counts from now.
    pub fn age(&mut self, limit: u32, found: &mut impl FnMut(Overdue<'_>)) {
        self.tick = self.tick.wrapping_add(1);
        for (index, slot) in (0u16..).zip(&mut self.slots) {
            let Some(request) = &slot.request else {
                continue;
            };
            if self.tick.wrapping_sub(slot.tick) < limit {
                continue;
            }
            found(Overdue {
                request,
                command_id: slot.issued.then_some(slot.generation << SLOT_BITS | index),
                again: slot.overdue,
            });
            slot.tick = self.tick;
            slot.overdue = true;
        }
    }

    /// A command that failed while its data was on the way, with all of it gone now.
    pub fn sent_and_failed(&self) -> Option<(u16, Outcome)> {
        self.slots
            .iter()
            .zip(0u16..)
            .find_map(|(slot, index)| match slot.outcome {
                Some(outcome) if !slot.is_sending() => Some((index, outcome)),
                _ => None,
            })
    }

    /// The first slot in use.
    pub fn first_occupied(&self) -> Option<u16> {
        (0u16..)
            .zip(&self.slots)
            .find(|(_, slot)| slot.request.is_some())
            .map(|(index, _)| index)
    }
}

impl Payloads for CommandTable {
    #[inline]
    fn bytes(&self, slot: u16, offset: usize, len: usize) -> &[u8] {
        self.get(slot)
            .and_then(|s| s.request.as_ref())
            .and_then(|r| r.buffer.get(offset..)?.get(..len))
            .unwrap_or_default()
    }

    #[inline]
    fn sent(&mut self, slot: u16, len: usize) {
        if let Some(slot) = self.get_mut(slot) {
            slot.unsent = slot.unsent.saturating_sub(len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::request::Command;

    fn request() -> Request {
        Request::plain(Command::default(), Transfer::None, 0, Vec::new())
    }

    #[test]
    fn a_late_or_repeated_completion_finds_nothing() {
        let mut table = CommandTable::new(2);
        let slot = table.insert(request()).unwrap();
        assert!(table.find(slot).is_none(), "not issued yet");
        let first = table.begin(slot);
        assert_eq!(table.find(first).map(|(s, _)| s), Some(slot));
        assert!(table.take(slot).is_some());
        assert!(table.find(first).is_none(), "taken");
        let again = table.insert(request()).unwrap();
        assert_eq!(again, slot);
        let second = table.begin(again);
        assert_ne!(first, second);
        assert!(table.find(first).is_none(), "older generation");
        assert!(table.find(second).is_some());
    }

    #[test]
    fn a_full_table_hands_the_request_back() {
        let mut table = CommandTable::new(1);
        let slot = table.insert(request()).unwrap();
        assert!(table.insert(request()).is_err());
        assert_eq!(table.outstanding(), 1);
        assert!(table.take(slot).is_some());
        assert!(table.take(slot).is_none());
        assert_eq!(table.outstanding(), 0);
        assert!(table.insert(request()).is_ok());
    }

    #[test]
    fn commands_grow_old_by_ticks_and_are_told_once_per_limit() {
        let mut table = CommandTable::new(4);
        let old = table.insert(request()).unwrap();
        let cid = table.begin(old);
        let tell = |table: &mut CommandTable| {
            let mut seen = Vec::new();
            table.age(3, &mut |o| seen.push((o.command_id, o.again)));
            seen
        };
        assert_eq!(tell(&mut table), []);
        let waiting = table.insert(request()).unwrap();
        assert_eq!(tell(&mut table), []);
        assert_eq!(tell(&mut table), [(Some(cid), false)]);
        assert_eq!(tell(&mut table), [(None, false)], "not sent yet");
        table.take(waiting);
        assert_eq!(tell(&mut table), []);
        assert_eq!(tell(&mut table), [(Some(cid), true)]);
        let next = table.begin(old);
        assert_ne!(next, cid);
        assert_eq!(tell(&mut table), [], "a new command is young again");
    }

    #[test]
    fn command_identifiers_never_reach_ffffh() {
        let mut table = CommandTable::new(u16::MAX);
        while let Ok(slot) = table.insert(request()) {
            for _ in 0..=GENERATION_MASK {
                assert_ne!(table.begin(slot), 0xffff);
            }
        }
        assert_eq!(table.outstanding(), usize::from(COMMANDS_MAX));
    }
}
