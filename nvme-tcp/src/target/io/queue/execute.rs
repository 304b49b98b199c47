//! Commands of a queue on their way to disks and back.

use pollux_reactor::{Context, Time};

use crate::spec::Sqe;
use crate::spec::opcode::{FABRICS, nvm};
use crate::spec::sqe::NSID_ALL;
use crate::spec::status::Status;
use crate::target::conn::connection::wire_len;
use crate::target::disk::{Buffer, Op};
use crate::target::io::ControllerKey;
use crate::target::io::channels::{Channels, CommandRef, HandedBack};
use crate::target::io::command::{Namespaces, namespace, op};
use crate::target::io::queue::IoQueue;
use crate::target::io::queue::table::{InFlight, Stage};
use crate::target::io::read::{ReadCursor, Source};
use crate::target::io::staging::StagingPool;

/// What a reactor has for the queues of a controller.
#[derive(Debug)]
pub(in crate::target) struct Serving<'a> {
    pub(in crate::target) namespaces: &'a Namespaces,
    pub(in crate::target) channels: &'a mut Channels,
    pub(in crate::target) pool: &'a mut StagingPool,
    /// What home is to carry out.
    pub(in crate::target) for_home: &'a mut Vec<Authenticate>,
}

/// Authentication Send or Receive on an I/O queue, with the data that came.
#[derive(Debug)]
pub(in crate::target) struct Authenticate {
    pub(in crate::target) key: ControllerKey,
    pub(in crate::target) qid: u16,
    pub(in crate::target) connection: u64,
    pub(in crate::target) sqe: Sqe,
    pub(in crate::target) data: Vec<u8>,
}

impl IoQueue {
    /// Reads in place as much as there is room for. Returns whether the command is finished.
    #[inline]
    pub(in crate::target) fn try_read(
        &mut self,
        cursor: &mut ReadCursor,
        serving: &mut Serving<'_>,
    ) -> bool {
        let cqe = self.cqe(cursor.cid, Status::SUCCESS);
        let found = namespace(serving.namespaces, cursor.nsid);
        let channel = found.map(|view| view.channel);
        let result = match found {
            Ok(view) => {
                let channels = &mut *serving.channels;
                let read = |offset, len, out: &mut Vec<u8>| {
                    channels
                        .channel(view.channel)
                        .read_in_place(offset, len, out)
                };
                let mut source = match view.capabilities.reads_zeroes {
                    true => Source::Zeroes,
                    false => Source::Stored(read),
                };
                cursor.advance(&mut self.conn.out, &mut source, cqe, self.flow_control)
            }
            Err(status) => Err(status),
        };
        match result {
            Ok(true) => {
                if let Ok(channel) = channel {
                    let channels = &mut *serving.channels;
                    channels.count(channel, nvm::READ, Ok(cursor.len()));
                }
                self.counters.reads += 1;
                self.counters.bytes_read += cursor.len();
                true
            }
            Ok(false) => false,
            Err(status) => {
                if let Ok(channel) = channel {
                    serving.channels.count(channel, nvm::READ, Err(status));
                }
                self.complete(cursor.cid, Err(status), 0);
                true
            }
        }
    }

    /// Sends more of a large read. Returns whether it is finished.
    pub(in crate::target) fn go_on_reading(
        &mut self,
        mut cursor: ReadCursor,
        serving: &mut Serving<'_>,
        busy: &mut bool,
    ) -> bool {
        let left = cursor.left();
        let finished = self.try_read(&mut cursor, serving);
        self.reading = (!finished).then_some(cursor);
        *busy |= finished || cursor.left() < left;
        finished
    }

    /// Has a disk carry out a command whose data, if it has any, came in its capsule: at this place of what was received.
    pub(in crate::target) fn carry_out(
        &mut self,
        sqe: &Sqe,
        (start, len): (usize, usize),
        serving: &mut Serving<'_>,
        cx: &mut Context<'_>,
    ) {
        let mut buffer = Buffer::default();
        if len > 0 {
            buffer = serving.pool.take_at_once(self.client, wire_len(len));
            buffer.copy_from_slice(&self.conn.rx.data()[start..start + len]);
        }
        let slot = self.table.insert(*sqe, buffer, Stage::Waiting);
        self.hand_to_disk(slot, serving, cx);
    }

    /// Hands a command whose data is there to its disk.
    pub(in crate::target) fn hand_to_disk(
        &mut self,
        slot: usize,
        serving: &mut Serving<'_>,
        cx: &mut Context<'_>,
    ) {
        let command = self.table.command(slot);
        let (opcode, nsid) = (command.sqe.opcode, command.sqe.nsid.get());
        if opcode == nvm::FLUSH && nsid == NSID_ALL {
            self.flush_all(slot, serving, cx);
            return;
        }
        let found = namespace(serving.namespaces, nsid);
        let found = found.and_then(|view| Ok((view, op(&command.sqe, &command.data, view)?)));
        let result = match found {
            Err(status) => Err(status),
            Ok((_, None)) => Ok(()),
            Ok((view, Some(Op::Write { offset, fua }))) if view.capabilities.in_place => {
                let data = &command.data;
                let (at, channels) = (view.channel, &mut *serving.channels);
                let result = channels.channel(at).write_in_place(offset, data, fua);
                channels.count(at, nvm::WRITE, result.map(|()| data.len() as u64));
                result
            }
            Ok((view, Some(op))) => {
                command.stage = Stage::OnDisk {
                    missing: 1,
                    result: Ok(()),
                };
                let data = std::mem::take(&mut command.data);
                self.submit(slot, (nsid, view.channel), (op, data), serving, cx);
                return;
            }
        };
        self.ended(slot, result);
    }

    fn submit(
        &mut self,
        slot: usize,
        (nsid, channel): (u32, usize),
        io: (Op, Buffer),
        serving: &mut Serving<'_>,
        cx: &mut Context<'_>,
    ) {
        let command = CommandRef {
            key: self.key,
            queue: self.place,
            connection: self.conn.id,
            client: self.client,
            slot,
            nsid,
        };
        let Serving { channels, pool, .. } = serving;
        if let Some(answer) = channels.submit(channel, command, io, pool, cx) {
            self.on_answer(answer);
        }
    }

    /// A flush of all namespaces is one of each.
    #[cold]
    fn flush_all(&mut self, slot: usize, serving: &mut Serving<'_>, cx: &mut Context<'_>) {
        let namespaces = serving.namespaces;
        self.table.command(slot).stage = Stage::OnDisk {
            // One more, so that it does not end before all have been asked.
            missing: namespaces.iter().count() + 1,
            result: Ok(()),
        };
        for (nsid, view) in namespaces.iter() {
            let io = (Op::Flush, Buffer::default());
            self.submit(slot, (nsid, view.channel), io, serving, cx);
        }
        self.on_part(slot, Ok(()));
    }

    /// A disk has answered for one of this queue's commands.
    pub(in crate::target) fn on_answer(&mut self, answer: HandedBack) {
        let HandedBack {
            command: CommandRef { slot, .. },
            result,
            data,
            removed,
        } = answer;
        let command = self.table.command(slot);
        let result = match command.sqe.opcode {
            _ if !removed => result,
            // The flush goes on without the namespace that has gone.
            nvm::FLUSH if command.sqe.nsid == NSID_ALL => Ok(()),
            nvm::READ => Err(Status::INVALID_NAMESPACE.with_dnr()),
            _ if result == Err(Status::ABORTED_BY_REQUEST) => {
                Err(Status::INVALID_NAMESPACE.with_dnr())
            }
            _ => result,
        };
        command.data = data;
        self.on_part(slot, result);
    }

    fn on_part(&mut self, slot: usize, part: Result<(), Status>) {
        let Stage::OnDisk { missing, result } = &mut self.table.command(slot).stage else {
            unreachable!("an answer for a command that is with no disk");
        };
        *result = result.and(part);
        *missing -= 1;
        if *missing == 0 {
            let result = *result;
            self.ended(slot, result);
        }
    }

    /// Home has carried out an authentication command.
    pub(in crate::target) fn authenticated(
        &mut self,
        cid: u16,
        result: Result<Vec<u8>, Status>,
        pool: &mut StagingPool,
    ) {
        let is_it = |(_, c): &(usize, &InFlight)| {
            matches!(c.stage, Stage::AtHome) && c.sqe.cid.get() == cid
        };
        let Some((slot, _)) = self.table.iter().find(is_it) else {
            return;
        };
        let result = result.map(|data| {
            if !data.is_empty() {
                let mut buffer = pool.take_at_once(self.client, wire_len(data.len()));
                buffer.copy_from_slice(&data);
                self.table.command(slot).data = buffer;
            }
        });
        self.ended(slot, result);
    }

    /// A command is to be answered when there is room for that.
    pub(in crate::target) fn ended(&mut self, slot: usize, result: Result<(), Status>) {
        self.table.command(slot).stage = Stage::Ended { result, sent: 0 };
        self.ended.push_back(slot);
    }

    /// Answers the first command that has ended. Returns whether there was room for all of it.
    pub(in crate::target) fn answer_next(
        &mut self,
        pool: &mut StagingPool,
        busy: &mut bool,
        now: Time,
    ) -> bool {
        let Some(&slot) = self.ended.front() else {
            return true;
        };
        let (flow_control, done) = (self.flow_control, self.cqe(0, Status::SUCCESS));
        let InFlight {
            sqe,
            data,
            stage: Stage::Ended { result, sent },
        } = self.table.command(slot)
        else {
            unreachable!("a command that is to be answered has ended");
        };
        let (sqe, result) = (*sqe, *result);
        let reads = sqe.opcode == nvm::READ || sqe.opcode == FABRICS && !data.is_empty();
        if reads && result.is_ok() {
            let cqe = crate::spec::Cqe {
                cid: sqe.cid,
                ..done
            };
            let cursor = ReadCursor::new(sqe.cid.get(), sqe.nsid.get(), 0, data.len() as u64);
            let mut cursor = cursor.resumed(*sent);
            let read = |offset, len: usize, out: &mut Vec<u8>| {
                #[expect(clippy::expect_used, reason = "the cursor stays within the data")]
                let start = usize::try_from(offset).expect("an offset within the data");
                out.extend_from_slice(&data[start..start + len]);
                Ok(())
            };
            let mut source = Source::Stored(read);
            let sent_all = cursor.advance(&mut self.conn.out, &mut source, cqe, flow_control);
            #[expect(
                clippy::expect_used,
                reason = "the data is as long as the cursor's range"
            )]
            let sent_all = sent_all.expect("data that is in a buffer can be read");
            let progress = cursor.done() > *sent;
            *busy |= progress;
            *sent = cursor.done();
            if !sent_all {
                if progress || self.untaken.is_none() {
                    self.untaken = Some(now);
                }
                return false;
            }
            self.untaken = None;
            if sqe.opcode == nvm::READ {
                self.counters.reads += 1;
                self.counters.bytes_read += cursor.len();
            }
        } else {
            self.count_write(&sqe, result);
            self.complete(sqe.cid.get(), result, 0);
        }
        *busy = true;
        self.ended.pop_front();
        let command = self.table.remove(slot);
        pool.give(self.client, command.data, now);
        true
    }

    /// Answers what has ended, as far as there is room.
    pub(in crate::target) fn answer_all(&mut self, pool: &mut StagingPool, now: Time) {
        let mut busy = false;
        while !self.ended.is_empty() && self.conn.out.has_room() {
            if !self.answer_next(pool, &mut busy, now) {
                break;
            }
        }
    }

    /// Aborts a command that waits for a buffer, or is with a disk that can let go of it. Returns whether it is over.
    /// Another one that is with its disk is told to end, and answered by itself.
    pub(in crate::target) fn abort(
        &mut self,
        cid: u16,
        serving: &mut Serving<'_>,
        now: Time,
    ) -> bool {
        // Without room for the answer the abort is refused rather than queued.
        if !self.conn.out.has_room() {
            return false;
        }
        let Some(slot) = self.table.find(cid) else {
            return false;
        };
        let Serving { channels, pool, .. } = serving;
        let stage = &self.table.command(slot).stage;
        if matches!(stage, Stage::Waiting) {
            self.waiting.retain(|&waiting| waiting != slot);
            if self.waiting.is_empty() {
                pool.shares.withdraw(self.client, now);
            }
        } else if matches!(stage, Stage::OnDisk { .. }) {
            let connection = self.conn.id;
            let of = |c: &CommandRef| c.connection == connection && c.slot == slot;
            let mut answers = Vec::new();
            channels.cancel(of, false, &mut answers, (pool, now));
            for answer in answers {
                self.on_answer(answer);
            }
            if self.ended.back() != Some(&slot) {
                return false;
            }
            self.ended.pop_back();
        } else {
            return false;
        }
        let command = self.table.remove(slot);
        pool.give(self.client, command.data, now);
        self.complete(cid, Err(Status::ABORTED_BY_REQUEST), 0);
        true
    }

    /// A namespace is going away: what waits for its data is not for whatever has the same identifier next. The data is
    /// still taken, since it was asked for, and the commands end as any for a namespace that is not there.
    pub(in crate::target) fn disown(&mut self, nsid: u32) {
        /// No namespace has this identifier.
        const NOBODY: u32 = 0;
        for command in self.table.iter_mut() {
            let has_started = matches!(command.stage, Stage::OnDisk { .. } | Stage::Ended { .. });
            if command.sqe.nsid == nsid && !has_started {
                command.sqe.nsid = NOBODY.into();
            }
        }
    }
}
