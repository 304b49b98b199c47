//! The fixed table of a queue pair's outstanding commands.

use std::collections::VecDeque;
use std::ops::Range;

use super::QueueError;
use super::expected::Offer;
use crate::host::buffer::Buffer;
use crate::host::request::{Command, Outcome, Request, Transfer};
use crate::spec::pdu::C2hData;
use crate::stream::Payloads;

/// Low bits of a command identifier: the slot. The rest is the slot's generation, so that a completion
/// that comes late or twice finds a stranger and is refused instead of completing it.
const SLOT_BITS: u32 = 10;
const SLOT_MASK: u16 = (1 << SLOT_BITS) - 1;
const GENERATION_MASK: u16 = u16::MAX >> SLOT_BITS;

/// Bytes of a command's data that are little: worth being received into their buffer together with those of others.
const LITTLE: Range<usize> = 4096..32 * 1024;

/// Most commands outstanding on one queue pair. One less than the slot field holds, so that FFFFh, which
/// is no valid command identifier (NVMe Base 2.1, 4.1.1), is never made.
pub(super) const COMMANDS_MAX: u16 = SLOT_MASK;

/// Who a slot's request belongs to.
#[derive(Debug)]
enum Occupant<T> {
    /// Nobody: the slot is free.
    Nobody,
    /// The queue pair itself: Connect, or a probe.
    Queue,
    /// The submitter, whose this is.
    User(T),
}

/// One request, taken apart, and how far its current command has come.
#[derive(Debug)]
pub(super) struct Slot<T> {
    occupant: Occupant<T>,
    generation: u16,
    pub command: Command,
    pub transfer: Transfer,
    pub block_shift: u8,
    /// Bytes of the whole request, of which the current command covers a part.
    pub total: usize,
    buffer: Buffer,
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
    /// Where the current command begins in the send queue's inline bytes, once it is issued.
    pub begins_at: u64,
    pub digest_failed: bool,
    /// The table's tick in which the command was issued, or was last found overdue.
    tick: u32,
    /// The command was found overdue before.
    overdue: bool,
    /// The command failed while its data was on the way; see `QueuePair::finish_deferred`.
    pub outcome: Option<Outcome>,
}

impl<T> Slot<T> {
    fn free() -> Self {
        Self {
            occupant: Occupant::Nobody,
            generation: 0,
            command: Command::default(),
            transfer: Transfer::None,
            block_shift: 0,
            total: 0,
            buffer: Buffer::default(),
            offset: 0,
            length: 0,
            received: 0,
            last: false,
            granted: 0,
            r2ts: 0,
            unsent: 0,
            issued: false,
            begins_at: 0,
            digest_failed: false,
            tick: 0,
            overdue: false,
            outcome: None,
        }
    }

    fn is_free(&self) -> bool {
        matches!(self.occupant, Occupant::Nobody)
    }

    /// The data bytes that the current command moves (0 for a range without data).
    #[inline]
    pub fn data_length(&self) -> usize {
        match self.transfer {
            Transfer::None => 0,
            _ => self.length,
        }
    }

    /// Less data has moved than a block command needs to succeed. Log pages and identify data may well be
    /// shorter than asked for.
    #[inline]
    pub fn falls_short(&self) -> bool {
        let moved = match self.transfer {
            Transfer::None => return false,
            Transfer::FromController => self.received,
            Transfer::ToController => self.granted,
        };
        self.block_shift > 0 && moved < self.length
    }

    /// Data of the current command is queued, or asked for and not yet queued.
    #[inline]
    pub fn is_sending(&self) -> bool {
        self.unsent > 0 || self.r2ts > 0
    }

    /// A byte of the request was handed to the stream, which has taken `handed` of the send queue's inline
    /// bytes.
    pub fn was_sent(&self, handed: u64) -> bool {
        self.issued && (self.offset > 0 || self.begins_at < handed)
    }

    /// Its buffer is no owner's, who would have to be asked for the bytes and might fail.
    #[inline]
    pub fn is_vec(&self) -> bool {
        self.buffer.is_vec()
    }

    /// Where received data of the current command goes, from `at` on. The caller has checked the range against
    /// the command's length.
    ///
    /// # Errors
    /// The buffer does not have it any more.
    #[inline]
    pub fn destination(&mut self, at: usize, len: usize) -> Result<&mut [u8], QueueError> {
        let range = self.buffer.range_mut(self.offset + at, len);
        range.ok_or(QueueError::Buffer)
    }

    /// The bytes to send of the current command, from `at` on; the range as for
    /// [`destination`](Self::destination). None of them if the buffer does not have them any more.
    #[inline]
    pub fn source(&self, at: usize, len: usize) -> &[u8] {
        self.buffer.range(self.offset + at, len)
    }
}

/// A command that was not answered in time.
#[derive(Debug)]
#[non_exhaustive]
pub struct Overdue<'a, T> {
    /// The submitter's, of the request.
    pub user: &'a T,
    /// Its command identifier; `None` while it waits in the host's own send queue.
    pub command_id: Option<u16>,
    /// The command was shown before, as long ago as commands may take.
    pub again: bool,
}

/// The slots of one queue pair. The numbers of slots are the table's own: one that it has not given out is a
/// fault of ours.
#[derive(Debug)]
pub(super) struct CommandTable<T> {
    slots: Box<[Slot<T>]>,
    free: Vec<u16>,
    /// Identifiers of commands that read a little, in the order in which they were issued: those that are outstanding, and
    /// some that are not any more.
    awaited: VecDeque<u16>,
    /// Counts the calls of `age`: the unit in which the age of commands is told.
    tick: u32,
}

impl<T> CommandTable<T> {
    pub fn new(commands: u16) -> Self {
        let commands = commands.clamp(1, COMMANDS_MAX);
        Self {
            slots: (0..commands).map(|_| Slot::free()).collect(),
            free: (0..commands).rev().collect(),
            awaited: VecDeque::with_capacity(usize::from(commands)),
            tick: 0,
        }
    }

    #[inline]
    pub fn outstanding(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// No slot is free.
    pub fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    /// Takes a slot for `request`; the request comes back if none is free.
    #[inline(always)]
    pub fn insert(&mut self, request: Request<T>) -> Result<u16, Request<T>> {
        let Some(index) = self.free.pop() else {
            return Err(request);
        };
        self.fill(index, request, Occupant::User);
        Ok(index)
    }

    /// Takes a slot for a request of the queue pair's own, if one is free.
    pub fn insert_own(&mut self, request: Request) -> Option<u16> {
        let index = self.free.pop()?;
        self.fill(index, request, |()| Occupant::Queue);
        Some(index)
    }

    #[inline(always)]
    fn fill<U>(
        &mut self,
        index: u16,
        request: Request<U>,
        occupant: impl FnOnce(U) -> Occupant<T>,
    ) {
        let tick = self.tick;
        let slot = self.slot(index);
        slot.command = request.command;
        slot.transfer = request.transfer;
        slot.block_shift = request.block_shift;
        slot.total = request.length;
        slot.buffer = request.buffer;
        slot.offset = 0;
        slot.length = 0;
        slot.issued = false;
        slot.digest_failed = false;
        slot.tick = tick;
        slot.overdue = false;
        slot.occupant = occupant(request.user);
    }

    /// A slot by its number.
    #[inline]
    pub fn slot(&mut self, index: u16) -> &mut Slot<T> {
        &mut self.slots[usize::from(index)]
    }

    /// Starts a command of the slot's request: a new generation, all progress at zero. Returns its
    /// command identifier.
    #[inline]
    pub fn begin(&mut self, index: u16) -> u16 {
        let tick = self.tick;
        let slot = self.slot(index);
        slot.generation = (slot.generation + 1) & GENERATION_MASK;
        slot.received = 0;
        slot.last = false;
        slot.granted = 0;
        slot.r2ts = 0;
        slot.unsent = 0;
        slot.issued = true;
        slot.tick = tick;
        slot.overdue = false;
        slot.generation << SLOT_BITS | index
    }

    /// The identifier of the slot's current command.
    pub fn current_cid(&mut self, index: u16) -> u16 {
        self.slot(index).generation << SLOT_BITS | index
    }

    /// The command of this slot is issued: if it reads a little, its data is awaited behind that of those before it.
    #[inline]
    pub fn await_data(&mut self, index: u16, cid: u16) {
        let slot = self.slot(index);
        if slot.transfer != Transfer::FromController || !LITTLE.contains(&slot.length) {
            return;
        }
        if self.awaited.len() == self.awaited.capacity() {
            self.awaited.pop_front();
        }
        self.awaited.push_back(cid);
    }

    /// Fills `offers` with up to `count` reads, in the order in which their data is awaited, which have together no more
    /// than `room` bytes with their headers. `except`: not of this slot.
    pub fn offer(
        &mut self,
        offers: &mut Vec<Offer>,
        count: usize,
        mut room: usize,
        except: Option<u16>,
    ) {
        offers.clear();
        let mut at = 0;
        while offers.len() < count
            && let Some(&cid) = self.awaited.get(at)
        {
            let Some((index, slot)) = self.find(cid) else {
                // It may be any of them that has ended; those at the front are forgotten.
                if at == 0 {
                    self.awaited.pop_front();
                } else {
                    at += 1;
                }
                continue;
            };
            at += 1;
            let (from, len) = (slot.offset, slot.length);
            let begun = slot.received > 0 || slot.last || except == Some(index);
            // After 64 generations an identifier comes again, and may be here twice: the second time without a buffer.
            if begun || !slot.is_vec() || slot.buffer.len() < from + len {
                continue;
            }
            let bytes = size_of::<C2hData>() + len;
            if bytes > room {
                return;
            }
            room -= bytes;
            let buffer = std::mem::take(&mut slot.buffer);
            offers.push(Offer {
                index,
                cid,
                buffer,
                from,
                len,
            });
        }
    }

    /// Takes back the buffer of an [`offer`](Self::offer).
    #[inline]
    pub fn give_back(&mut self, index: u16, buffer: Buffer) {
        self.slot(index).buffer = buffer;
    }

    /// The slot that an outstanding command identifier belongs to. The peer has named it, and may be wrong.
    #[inline]
    pub fn find(&mut self, cid: u16) -> Option<(u16, &mut Slot<T>)> {
        let index = cid & SLOT_MASK;
        let slot = self.slots.get_mut(usize::from(index))?;
        let outstanding = !slot.is_free() && slot.issued && slot.outcome.is_none();
        (outstanding && slot.generation == cid >> SLOT_BITS).then_some((index, slot))
    }

    /// Frees the slot and hands its request back; `None` if that was the queue pair's own. See
    /// [`own_buffer`](Self::own_buffer).
    #[inline(always)]
    pub fn take(&mut self, index: u16) -> Option<Request<T>> {
        let slot = self.slot(index);
        slot.outcome = None;
        let request = Request {
            command: slot.command,
            transfer: slot.transfer,
            length: slot.total,
            block_shift: slot.block_shift,
            buffer: std::mem::take(&mut slot.buffer),
            user: (),
        };
        let occupant = std::mem::replace(&mut slot.occupant, Occupant::Nobody);
        self.free.push(index);
        match occupant {
            Occupant::User(user) => Some(request.with(user)),
            Occupant::Queue => {
                self.slot(index).buffer = request.buffer;
                None
            }
            Occupant::Nobody => panic!("slot {index} was freed twice"),
        }
    }

    /// The buffer of a request of the queue pair's own that has just been taken.
    pub fn own_buffer(&mut self, index: u16) -> Vec<u8> {
        std::mem::take(&mut self.slot(index).buffer).into_vec()
    }

    /// The slot of the outstanding request that `wanted` picks, and whether it was issued.
    pub fn find_request(&self, wanted: impl Fn(&T) -> bool) -> Option<(u16, bool)> {
        (0u16..)
            .zip(&self.slots)
            .find_map(|(index, slot)| match &slot.occupant {
                Occupant::User(user) if wanted(user) => Some((index, slot.issued)),
                _ => None,
            })
    }

    /// Shows `look` the submitter's part of every request, with the command identifier if it was issued.
    pub fn look_through(&mut self, look: &mut impl FnMut(&mut T, Option<u16>)) {
        for (index, slot) in (0u16..).zip(&mut self.slots) {
            let cid = slot.issued.then_some(slot.generation << SLOT_BITS | index);
            if let Occupant::User(user) = &mut slot.occupant {
                look(user, cid);
            }
        }
    }

    /// The submitter's part of every request, with the command identifier if it was issued.
    pub fn users(&self) -> impl Iterator<Item = (&T, Option<u16>)> {
        (0u16..).zip(&self.slots).filter_map(|(index, slot)| {
            let cid = slot.issued.then_some(slot.generation << SLOT_BITS | index);
            match &slot.occupant {
                Occupant::User(user) => Some((user, cid)),
                _ => None,
            }
        })
    }

    /// Begins a new tick and shows `found` every command that is `limit` ticks old or more; its age then
    /// counts from now. What the queue pair has asked for itself has limits of its own.
    pub fn age(&mut self, limit: u32, found: &mut impl FnMut(Overdue<'_, T>)) {
        self.tick = self.tick.wrapping_add(1);
        for (index, slot) in (0u16..).zip(&mut self.slots) {
            let Occupant::User(user) = &slot.occupant else {
                continue;
            };
            if self.tick.wrapping_sub(slot.tick) < limit {
                continue;
            }
            found(Overdue {
                user,
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

    /// Frees every slot and shows `lost` what was in it, and whether a byte of it was sent: see
    /// [`Slot::was_sent`].
    pub fn take_all(&mut self, handed: u64, mut lost: impl FnMut(Request<T>, bool)) {
        for index in (0u16..).take(self.slots.len()) {
            if self.slot(index).is_free() {
                continue;
            }
            let sent = self.slot(index).was_sent(handed);
            if let Some(request) = self.take(index) {
                lost(request, sent);
            }
        }
    }
}

impl<T> Payloads for CommandTable<T> {
    #[inline]
    fn bytes(&self, slot: u16, offset: usize, len: usize) -> &[u8] {
        self.slots[usize::from(slot)].buffer.range(offset, len)
    }

    #[inline]
    fn sent(&mut self, slot: u16, len: usize) {
        let slot = self.slot(slot);
        debug_assert!(slot.unsent >= len, "more sent than was queued");
        slot.unsent -= len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(table.outstanding(), 0);
        assert!(table.insert(request()).is_ok());
    }

    #[test]
    fn commands_grow_old_by_ticks_and_are_told_once_per_limit() {
        let mut table = CommandTable::new(4);
        let old = table.insert(request()).unwrap();
        let cid = table.begin(old);
        let tell = |table: &mut CommandTable<()>| {
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
    fn what_is_the_queue_pairs_own_is_never_handed_to_its_user() {
        let mut table = CommandTable::<u8>::new(2);
        let own = table.insert_own(request()).unwrap();
        table.begin(own);
        let users = table.insert(request().with(7)).unwrap();
        let mut seen = Vec::new();
        table.age(1, &mut |overdue| seen.push(*overdue.user));
        table.look_through(&mut |user, _| seen.push(*user));
        assert_eq!(seen, [7, 7]);
        assert_eq!(table.find_request(|_| true), Some((users, false)));
        assert!(table.take(own).is_none());
        assert_eq!(table.take(users).map(|request| request.user), Some(7));
        assert_eq!(table.outstanding(), 0);
    }

    #[test]
    fn only_what_no_byte_was_handed_over_of_counts_as_not_sent() {
        let mut table = CommandTable::<u8>::new(4);
        for (user, begins_at) in [(0, 10), (1, 20), (2, 30)] {
            let slot = table.insert(request().with(user)).unwrap();
            table.begin(slot);
            table.slot(slot).begins_at = begins_at;
            // The second part of a request that was split.
            table.slot(slot).offset = if user == 2 { 512 } else { 0 };
        }
        table.insert(request().with(3)).unwrap();
        let mut lost = Vec::new();
        table.take_all(11, |request, sent| lost.push((request.user, sent)));
        lost.sort_unstable();
        assert_eq!(lost, [(0, true), (1, false), (2, true), (3, false)]);
        assert_eq!(table.outstanding(), 0);
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
