//! One I/O queue pair: the state machine from received bytes to queued answers.
//!
//! Commands are parsed where they were received. Those that their disk carries out in place are answered at once; of
//! these, large reads are worked off piece by piece while later commands wait. All others are in a table ([`Table`]) until
//! their data has come, their disk has answered, and there is room for the answer.

mod data;
pub(in crate::target) mod execute;
mod table;

use std::collections::VecDeque;
use std::time::Duration;

use pollux_reactor::{Context, Heat, Progress, Time};
use zerocopy::FromBytes;

use crate::pdu::{DataDigest, Frame, ProtocolError};
use crate::spec::opcode::{self, fctype, nvm};
use crate::spec::pdu::{CapsuleCmd, DIGEST_LEN, Fes, PduType};
use crate::spec::status::Status;
use crate::spec::{Cqe, SglDescriptor, Sqe};
use crate::target::conn::connection::{Connection, End, IN_CAPSULE_MAX, none_if_would_block};
use crate::target::disk::Buffer;
use crate::target::io::ControllerKey;
use crate::target::io::command::{InPlace, Plan, plan};
use crate::target::io::queue::data::{Incoming, Oldest};
use crate::target::io::queue::execute::{Authenticate, Serving};
use crate::target::io::queue::table::{InFlight, Stage, Table};
use crate::target::io::read::ReadCursor;
use crate::target::io::staging::StagingPool;
use crate::target::status::{QpairCounters, QpairStatus};

/// Receives per poll at most, so that one busy queue does not starve the others of its reactor.
const ROUNDS_MAX: u32 = 8;

/// No further receive in a poll that has received so many bytes: others wait no longer for a queue of large writes than for
/// one of small ones.
const POLL_BYTES: usize = 256 * 1024;

/// How much is done for a queue in one poll.
#[derive(Debug, Clone, Copy)]
pub(in crate::target) struct Visit {
    /// Commands that are taken, pieces of data and answers.
    steps: u32,
    /// Nothing more is received after so many bytes, and nothing more is made ready to be sent.
    bytes: usize,
}

impl Visit {
    /// For the queues of the only host that has some polled: as much as the buffers of its connection hold.
    pub(in crate::target) const ALONE: Self = Self {
        steps: u32::MAX,
        bytes: usize::MAX,
    };

    /// For a host among several: about as long as an I/O takes, so that who has one command at a time hardly feels another that has
    /// a thousand; and enough that the system's calls remain a small part of it.
    pub(in crate::target) const AMONG_OTHERS: Self = Self {
        steps: 32,
        bytes: 64 * 1024,
    };
}

/// From this length on, payload is received straight into its staging buffer.
const DIRECT_MIN: usize = 4096;

/// For so long after it found something to do a queue is read without waiting for an edge, which keeps its
/// latency low. After that it costs nothing until there is one.
const HOT: Duration = Duration::from_millis(2);

/// An I/O queue pair.
#[derive(Debug)]
pub(in crate::target) struct IoQueue {
    pub(in crate::target) conn: Connection,
    pub(in crate::target) key: ControllerKey,
    pub(in crate::target) qid: u16,
    /// Entries of the submission queue.
    entries: u16,
    /// The host did not disable SQ flow control: SQHD is reported, and every read has a response.
    pub(in crate::target) flow_control: bool,
    sqhd: u16,
    /// Commands that are taken and not answered.
    pub(in crate::target) table: Table,
    /// Places in the table of commands that wait for a buffer, and of commands that are to be answered.
    pub(in crate::target) waiting: VecDeque<usize>,
    pub(in crate::target) ended: VecDeque<usize>,
    pub(in crate::target) oldest: Option<Oldest>,
    /// Since when the host takes nothing of the data that it has asked for and that keeps a buffer.
    pub(in crate::target) untaken: Option<Time>,
    /// Bytes of data that were asked for and came.
    pub(in crate::target) data_in: u64,
    /// The queue's number in the books of the staging memory.
    pub(in crate::target) client: usize,
    pub(in crate::target) incoming: Option<Incoming>,
    /// A large read in place.
    pub(in crate::target) reading: Option<ReadCursor>,
    /// The last poll left work that was there already.
    is_cut: bool,
    /// When a poll last found something to do.
    busy_at: Time,
    heat: Heat,
    /// Token of its stream's edges on the reactor that serves it.
    pub(in crate::target) token: u64,
    /// The place of the queue on that reactor.
    pub(in crate::target) place: usize,
    pub(in crate::target) staging_waits: u64,
    pub(in crate::target) counters: QpairCounters,
}

impl IoQueue {
    /// A queue on a connection whose Connect was accepted. `entries` is its size, at least 2; `commands` have come on it
    /// already, Connect the first.
    pub(in crate::target) fn new(
        conn: Connection,
        (key, qid): (ControllerKey, u16),
        entries: u16,
        flow_control: bool,
        commands: u16,
    ) -> Self {
        Self {
            conn,
            key,
            qid,
            entries,
            flow_control,
            sqhd: commands % entries.max(1),
            table: Table::default(),
            waiting: VecDeque::new(),
            ended: VecDeque::new(),
            oldest: None,
            untaken: None,
            data_in: 0,
            client: usize::MAX,
            incoming: None,
            reading: None,
            is_cut: false,
            busy_at: Time::ZERO,
            heat: Heat::default(),
            token: 0,
            place: usize::MAX,
            staging_waits: 0,
            counters: QpairCounters::default(),
        }
    }

    pub(in crate::target) fn status(&self, reactor: usize) -> QpairStatus {
        QpairStatus {
            qid: self.qid,
            reactor,
            entries: self.entries,
            peer: self.conn.peer,
            local: self.conn.local,
            digests: (self.conn.rx_framing.hdgst, self.conn.rx_framing.ddgst),
            secure: self.conn.is_secure(),
            ktls: self.conn.is_ktls(),
            // Home knows.
            auth: None,
            counters: self.counters,
        }
    }

    /// Times that a command had to wait for a staging buffer.
    pub(in crate::target) fn staging_waits(&self) -> u64 {
        self.staging_waits
    }

    /// Gives the buffers back that no disk has.
    pub(in crate::target) fn release(&mut self, pool: &mut StagingPool, now: Time) {
        self.want_edges();
        pool.shares.close(self.client, now);
        for command in self.table.drain() {
            pool.awaited -= usize::from(matches!(command.stage, Stage::Receiving(_)));
            pool.give(self.client, command.data, now);
        }
    }

    /// Receives, carries out and answers what has arrived, as much as one visit takes.
    #[inline]
    pub(in crate::target) fn poll(
        &mut self,
        visit: Visit,
        serving: &mut Serving<'_>,
        cx: &mut Context<'_>,
    ) -> Result<Progress, End> {
        let mut progress = Progress::Idle;
        let mut bytes = 0;
        let mut steps = visit.steps;
        self.conn.out.pending_max = visit.bytes;
        for _ in 0..ROUNDS_MAX {
            // What is there already comes first.
            let (received, more) = match std::mem::take(&mut self.is_cut) {
                true => (0, true),
                false => self.receive(visit.bytes)?,
            };
            bytes += received;
            match self.process(&mut steps, serving, cx) {
                Ok(true) => progress = Progress::Busy,
                Ok(false) => {}
                Err(end) => {
                    // Answers to what came before the fault go out with the TermReq; a failure to send
                    // them changes nothing.
                    let _ = self.conn.flush();
                    return Err(end);
                }
            }
            if received > 0 {
                progress = Progress::Busy;
            }
            self.is_cut = steps == 0 || self.conn.out.is_enough();
            if self.is_cut || !more || bytes >= visit.bytes.min(POLL_BYTES) {
                break;
            }
        }
        self.conn.out.pending_max = usize::MAX;
        let progress = progress.or(self.conn.flush()?);
        if progress == Progress::Busy {
            self.busy_at = cx.now();
            self.heat.found(&mut self.conn.stream);
        }
        Ok(progress)
    }

    /// After a poll that found nothing: whether the queue need not be polled before an edge or a timer of its
    /// own comes. `crowded`: there are too many hot queues to read them all without an edge.
    #[inline]
    pub(in crate::target) fn may_rest(&mut self, crowded: bool, now: Time) -> bool {
        let waits_for_room = self.conn.is_blocked();
        if !waits_for_room {
            let is_hot = !crowded && now - self.busy_at < HOT;
            // A command that waits for memory is told when there is some.
            if is_hot || self.reading.is_some() || !self.ended.is_empty() {
                return false;
            }
        }
        self.want_edges();
        !self.conn.stream.take_ready()
    }

    /// Has its stream tell of edges again.
    pub(in crate::target) fn want_edges(&mut self) {
        self.heat.cool(&mut self.conn.stream);
    }

    /// One receive, of up to `max` bytes if data of a command goes straight into its buffer, else of what there is room for.
    /// Returns how many bytes came, and whether more may be there.
    #[inline]
    fn receive(&mut self, max: usize) -> Result<(usize, bool), End> {
        if let Some(incoming) = &mut self.incoming
            && incoming.left >= DIRECT_MIN
            && self.conn.rx.data().is_empty()
            && let Some((_, buffer, receiving)) = self.table.receiving(incoming.slot)
        {
            let start = receiving.received;
            let wanted = incoming.left.min(max);
            let direct = &mut buffer[start..start + wanted];
            let room = self.conn.rx.room().min(max - wanted);
            let stream = &mut self.conn.stream;
            let taken = self.conn.rx.fill_direct(stream, direct, room);
            let (n, behind) = match taken {
                Ok(n) => n,
                Err(e) => return none_if_would_block(Err(e)).map(|_| (0, false)),
            };
            receiving.take(n, buffer, incoming);
            self.data_in += n as u64;
            return Ok((n + behind, n + behind == wanted + room));
        }
        let room = self.conn.rx.room();
        let n = self.conn.fill()?;
        Ok((n, n > 0 && n == room))
    }

    /// Works on what was received until more is needed, answers find no room, or `steps` are done. Returns whether anything
    /// was done.
    fn process(
        &mut self,
        steps: &mut u32,
        serving: &mut Serving<'_>,
        cx: &mut Context<'_>,
    ) -> Result<bool, End> {
        let mut busy = false;
        loop {
            if *steps == 0 || !self.conn.out.has_room() {
                return Ok(busy);
            }
            *steps -= 1;
            if !self.ended.is_empty() {
                if !self.answer_next(serving.pool, &mut busy, cx.now()) {
                    return Ok(busy);
                }
                continue;
            }
            if let Some(cursor) = self.reading {
                if !self.go_on_reading(cursor, serving, &mut busy) {
                    return Ok(busy);
                }
                continue;
            }
            if !self.waiting.is_empty() && self.start_waiting(serving, cx) {
                busy = true;
                continue;
            }
            if self.incoming.is_some() {
                if !self.take_data(serving, &mut busy, cx) {
                    return Ok(busy);
                }
                continue;
            }
            let Some(frame) = self.conn.next_frame()? else {
                return Ok(busy);
            };
            match frame.pdu_type {
                PduType::CAPSULE_CMD => {
                    if frame.data_len > IN_CAPSULE_MAX {
                        return Err(self.oversized_capsule());
                    }
                    if self.conn.rx.data().len() < frame.total_len {
                        return Ok(busy);
                    }
                    self.capsule(&frame, serving, cx)?;
                }
                PduType::H2C_DATA => {
                    if self.conn.rx.data().len() < frame.data_offset {
                        return Ok(busy);
                    }
                    self.begin_data(&frame)?;
                }
                _ => return Err(End::Terminated),
            }
            busy = true;
        }
    }

    /// More in-capsule data than IOCCSZ allows: the command gets its status, the connection ends.
    #[cold]
    fn oversized_capsule(&mut self) -> End {
        #[expect(clippy::expect_used, reason = "framing waits for the header")]
        let (capsule, _) = CapsuleCmd::read_from_prefix(self.conn.rx.data()).expect("a header");
        let status = Status::SGL_OFFSET_INVALID.with_dnr();
        self.complete(capsule.sqe.cid.get(), Err(status), 0);
        self.conn.fault(ProtocolError::new(
            Fes::LIMIT_EXCEEDED,
            "more in-capsule data than IOCCSZ allows",
        ))
    }

    /// Carries out, or takes on, the command at the start of the receive buffer.
    #[inline]
    fn capsule(
        &mut self,
        frame: &Frame,
        serving: &mut Serving<'_>,
        cx: &mut Context<'_>,
    ) -> Result<(), End> {
        if frame.data_len > 0 {
            self.conn.rx.expect_payloads(frame.data_len);
        }
        let bytes = self.conn.rx.data();
        #[expect(
            clippy::expect_used,
            reason = "framing says that it is there, and its length was waited for"
        )]
        let (capsule, _) = CapsuleCmd::read_from_prefix(bytes).expect("a whole capsule");
        let sqe = capsule.sqe;
        let data_end = frame.data_offset + frame.data_len;
        let data = &bytes[frame.data_offset..data_end];
        let intact = !frame.ddgst || {
            let mut digest = DataDigest::new();
            digest.update(data);
            bytes[data_end..data_end + DIGEST_LEN] == digest.finish()
        };
        if self.table.len() >= usize::from(self.entries) {
            return Err(self.conn.fault(ProtocolError::sequence(
                "more commands than the submission queue has entries",
            )));
        }
        self.counters.commands += 1;
        self.sqhd += 1;
        if self.sqhd == self.entries {
            self.sqhd = 0;
        }

        let cid = sqe.cid.get();
        let in_capsule = sqe.sgl.kind == SglDescriptor::IN_CAPSULE;
        let result = if self.table.len() > 0 && self.table.find(cid).is_some() {
            Err(Status::COMMAND_ID_CONFLICT.with_dnr())
        } else if sqe.opcode == opcode::FABRICS {
            return self.fabrics(&sqe, frame, intact, serving);
        } else if !intact {
            Err(Status::TRANSIENT_TRANSPORT_ERROR)
        } else {
            plan(&sqe, serving.namespaces)
        };
        match result {
            Ok(Plan::Read {
                offset,
                len,
                in_place: true,
            }) => {
                let mut cursor = ReadCursor::new(cid, sqe.nsid.get(), offset, len);
                // Most reads fit; the others go on when there is room.
                if !self.try_read(&mut cursor, serving) {
                    self.reading = Some(cursor);
                }
            }
            Ok(Plan::Receive { len, .. }) if in_capsule && data.len() != len as usize => {
                let status = Status::DATA_SGL_LENGTH_INVALID.with_dnr();
                self.complete(cid, Err(status), 0);
            }
            Ok(Plan::Receive {
                in_place: Some(InPlace { channel, offset }),
                ..
            }) if in_capsule => {
                let channels = &mut *serving.channels;
                let fua = sqe.nvm_cdw12().fua();
                let result = channels.channel(channel).write_in_place(offset, data, fua);
                channels.count(channel, nvm::WRITE, result.map(|()| data.len() as u64));
                self.count_write(&sqe, result);
                self.complete(cid, result, 0);
            }
            Ok(Plan::Receive { .. }) if in_capsule => {
                let data = (frame.data_offset, frame.data_len);
                self.carry_out(&sqe, data, serving, cx);
            }
            Ok(Plan::Nothing) => self.carry_out(&sqe, (0, 0), serving, cx),
            Ok(Plan::Receive { .. } | Plan::Read { .. }) => {
                let slot = self.table.insert(sqe, Buffer::default(), Stage::Waiting);
                self.waiting.push_back(slot);
                if !self.start_waiting(serving, cx) {
                    self.staging_waits += 1;
                }
            }
            Err(status) => self.complete(cid, Err(status), 0),
        }
        self.conn.rx.consume(frame.total_len);
        Ok(())
    }

    #[inline]
    pub(in crate::target) fn count_write(&mut self, sqe: &Sqe, result: Result<(), Status>) {
        if result.is_ok() && sqe.opcode == nvm::WRITE {
            self.counters.writes += 1;
            self.counters.bytes_written += u64::from(sqe.sgl.length.get());
        }
    }

    #[inline]
    pub(in crate::target) fn complete(&mut self, cid: u16, result: Result<(), Status>, dw0: u32) {
        let status = result.err().unwrap_or(Status::SUCCESS);
        if result.is_err() {
            self.counters.failed += 1;
        }
        let cqe = Cqe {
            result: u64::from(dw0).into(),
            ..self.cqe(cid, status)
        };
        self.conn.out.complete(cqe);
    }

    #[inline]
    pub(in crate::target) fn cqe(&self, cid: u16, status: Status) -> Cqe {
        Cqe {
            sqhd: if self.flow_control { self.sqhd } else { 0 }.into(),
            ..Cqe::new(cid, status)
        }
    }

    /// Fabrics commands on an I/O queue.
    #[cold]
    fn fabrics(
        &mut self,
        sqe: &Sqe,
        frame: &Frame,
        intact: bool,
        serving: &mut Serving<'_>,
    ) -> Result<(), End> {
        let (cid, total_len) = (sqe.cid.get(), frame.total_len);
        let result = match sqe.fctype() {
            fctype::DISCONNECT if sqe.as_disconnect().recfmt.get() == 0 => {
                self.complete(cid, Ok(()), 0);
                self.conn.rx.consume(total_len);
                return Err(End::Disconnected);
            }
            fctype::DISCONNECT => Err(Status::CONNECT_INCOMPATIBLE_FORMAT.with_dnr()),
            fctype::CONNECT => Err(Status::COMMAND_SEQUENCE_ERROR.with_dnr()),
            fctype::AUTHENTICATION_SEND | fctype::AUTHENTICATION_RECEIVE => {
                self.authentication(sqe, frame, intact, serving)
            }
            // Properties belong to the admin queue.
            _ => Err(Status::INVALID_OPCODE.with_dnr()),
        };
        if let Some(result) = result.transpose() {
            self.complete(cid, result, 0);
        }
        self.conn.rx.consume(total_len);
        Ok(())
    }

    /// Has home carry out an authentication command, one at a time; `None`: it is answered later.
    fn authentication(
        &mut self,
        sqe: &Sqe,
        frame: &Frame,
        intact: bool,
        serving: &mut Serving<'_>,
    ) -> Result<Option<()>, Status> {
        if !intact {
            return Err(Status::TRANSIENT_TRANSPORT_ERROR);
        }
        let is_at_home = |(_, command): (usize, &InFlight)| matches!(command.stage, Stage::AtHome);
        if self.table.iter().any(is_at_home) {
            return Err(Status::COMMAND_SEQUENCE_ERROR.with_dnr());
        }
        let data = &self.conn.rx.data()[frame.data_offset..];
        serving.for_home.push(Authenticate {
            key: self.key,
            qid: self.qid,
            connection: self.conn.id,
            sqe: *sqe,
            data: data[..frame.data_len].to_vec(),
        });
        self.table.insert(*sqe, Buffer::default(), Stage::AtHome);
        Ok(None)
    }
}
