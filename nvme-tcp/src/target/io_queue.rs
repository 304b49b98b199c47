//! One I/O queue pair: the state machine from received bytes to queued answers.
//!
//! Commands are parsed where they were received and carried out at once. Some take longer: large reads are
//! worked off piece by piece ([`Work`]) while later commands wait; writes with an R2T wait in a table until their
//! data has come; flushes, zeroing and deallocation are in flight while their disk does them ([`InFlight`]);
//! commands of namespaces with layers may be held ([`Held`]).

use std::collections::VecDeque;
use std::time::Duration;

use pollux_reactor::{Context, Progress, Time};
use zerocopy::FromBytes;

use super::connection::{Connection, End, IN_CAPSULE_MAX, none_if_would_block};
use super::disk::Range;
use super::held::{Held, Ruling};
use super::io_command::{Namespaces, Plan, execute, plan};
use super::io_data::{Incoming, Oldest};
use super::io_job::{Helpers, InFlight};
use super::io_layers::layers_of;
use super::io_work::Work;
use super::read::{Intact, ReadCursor};
use super::staging::{StagingPool, Transfer};
use super::status::{QpairCounters, QpairStatus};
use crate::pdu::{DataDigest, Frame, ProtocolError};
use crate::spec::opcode::{self, fctype, nvm};
use crate::spec::pdu::{CapsuleCmd, DIGEST_LEN, Fes, PduType};
use crate::spec::status::Status;
use crate::spec::{Cqe, SglDescriptor, Sqe};

/// Receives per poll at most, so that one busy queue does not starve the others of its reactor.
const ROUNDS_MAX: u32 = 8;

/// No further receive in a poll that has received so many bytes: others wait no longer for a queue of large writes than for
/// one of small ones.
const POLL_BYTES: usize = 256 * 1024;

/// From this length on, payload is received straight into its staging buffer.
const DIRECT_MIN: usize = 4096;

/// For so long after it found something to do a queue is read without waiting for an edge, which keeps its
/// latency low. After that it costs nothing until there is one.
const HOT: Duration = Duration::from_millis(2);

/// An I/O queue pair.
#[derive(Debug)]
pub(super) struct IoQueue {
    pub(super) conn: Connection,
    pub(super) qid: u16,
    /// Entries of the submission queue.
    entries: u16,
    /// The host did not disable SQ flow control: SQHD is reported, and every read has a response.
    pub(super) flow_control: bool,
    sqhd: u16,
    /// By transfer tag.
    pub(super) transfers: Vec<Option<Transfer>>,
    /// Places of the table that are empty.
    pub(super) free_tags: Vec<usize>,
    pub(super) oldest: Option<Oldest>,
    /// Bytes of data that were asked for and came.
    pub(super) data_in: u64,
    /// Its number in the books of the staging memory.
    pub(super) client: usize,
    /// Commands that wait for a staging buffer.
    pub(super) waiting: VecDeque<Sqe>,
    /// `transfers` in use plus `waiting` plus what is held plus `in_flight`.
    pub(super) outstanding: usize,
    pub(super) incoming: Option<Incoming>,
    pub(super) work: Option<Work>,
    pub(super) ranges: Vec<Range>,
    pub(super) held: Held,
    /// Commands that their disks are busy with.
    pub(super) in_flight: Vec<InFlight>,
    /// How many of them are to be answered.
    pub(super) ready_jobs: usize,
    pub(super) helpers: Helpers,
    /// When a poll last found something to do.
    busy_at: Time,
    /// Of its timers and of its stream's edges on the reactor that serves it.
    pub(super) token: u64,
    staging_waits: u64,
    pub(super) counters: QpairCounters,
}

impl IoQueue {
    /// A queue on a connection whose Connect was accepted. `entries` is its size, at least 2.
    pub(super) fn new(conn: Connection, qid: u16, entries: u16, flow_control: bool) -> Self {
        Self {
            conn,
            qid,
            entries,
            flow_control,
            // Connect was the first command.
            sqhd: 1 % entries.max(1),
            transfers: Vec::new(),
            free_tags: Vec::new(),
            oldest: None,
            data_in: 0,
            client: usize::MAX,
            waiting: VecDeque::new(),
            outstanding: 0,
            incoming: None,
            work: None,
            ranges: Vec::new(),
            held: Held::default(),
            in_flight: Vec::new(),
            ready_jobs: 0,
            helpers: Helpers::InPlace,
            busy_at: Time::ZERO,
            token: 0,
            staging_waits: 0,
            counters: QpairCounters::default(),
        }
    }

    pub(super) fn status(&self, reactor: usize) -> QpairStatus {
        QpairStatus {
            qid: self.qid,
            reactor,
            entries: self.entries,
            peer: self.conn.peer,
            local: self.conn.local,
            digests: (self.conn.rx_framing.hdgst, self.conn.rx_framing.ddgst),
            counters: self.counters,
        }
    }

    /// Times that a command had to wait for a staging buffer.
    pub(super) fn staging_waits(&self) -> u64 {
        self.staging_waits
    }

    /// Gives the staging buffers back and forgets what is held.
    pub(super) fn release(&mut self, pool: &mut StagingPool, cx: &mut Context<'_>) {
        self.held.clear(cx);
        pool.shares.close(self.client, cx.now());
        for transfer in self.transfers.iter_mut().filter_map(Option::take) {
            pool.give(transfer.buffer, cx.now());
        }
    }

    /// Aborts a command that waits for its R2T or is held by a layer. Returns whether there was one. One that its disk is
    /// busy with is told to end, and answered by itself.
    pub(super) fn abort(&mut self, cid: u16, pool: &mut StagingPool, now: Time) -> bool {
        // Without room for the answer the abort is refused rather than queued.
        if !self.conn.out.has_room() {
            return false;
        }
        if let Some(at) = self.waiting.iter().position(|s| s.cid.get() == cid) {
            self.waiting.remove(at);
            if self.waiting.is_empty() {
                pool.shares.withdraw(self.client, now);
            }
            self.held.take_ruling(cid);
        } else if !self.held.take(cid) {
            self.cancel_jobs(|sqe| sqe.cid.get() == cid);
            return false;
        }
        self.outstanding -= 1;
        self.complete(cid, Err(Status::ABORTED_BY_REQUEST), 0);
        true
    }

    /// Receives, carries out and answers what has arrived.
    #[inline]
    pub(super) fn poll(
        &mut self,
        namespaces: &Namespaces,
        pool: &mut StagingPool,
        cx: &mut Context<'_>,
    ) -> Result<Progress, End> {
        let mut progress = Progress::Idle;
        let mut bytes = 0;
        for _ in 0..ROUNDS_MAX {
            let (received, more) = self.receive()?;
            bytes += received;
            match self.process(namespaces, pool, cx) {
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
            if !more || bytes >= POLL_BYTES {
                break;
            }
        }
        if !self.held.is_idle() {
            self.held.set_timer(self.token, cx);
        }
        let progress = progress.or(self.conn.flush()?);
        if progress == Progress::Busy {
            self.busy_at = cx.now();
        }
        Ok(progress)
    }

    /// After a poll that found nothing: whether the queue need not be polled before an edge or a timer of its
    /// own comes. `crowded`: there are too many hot queues to read them all without an edge.
    #[inline]
    pub(super) fn may_rest(&mut self, crowded: bool, now: Time) -> bool {
        let waits_for_room = self.conn.is_blocked();
        if !waits_for_room {
            let is_hot = !crowded && now - self.busy_at < HOT;
            // A command that waits for memory is told when there is some.
            if is_hot || self.work.is_some() {
                return false;
            }
        }
        !self.held.may_be_resumed() && !self.conn.stream.take_ready()
    }

    /// One receive. Returns how many bytes came, and whether more may be there.
    #[inline]
    fn receive(&mut self) -> Result<(usize, bool), End> {
        if let Some(incoming) = &mut self.incoming
            && incoming.left >= DIRECT_MIN
            && self.conn.rx.data().is_empty()
            && let Some(Some(transfer)) = self.transfers.get_mut(incoming.slot)
        {
            let start = transfer.received as usize;
            let direct = transfer
                .buffer
                .get_mut(start..start + incoming.left)
                .unwrap_or_default();
            let taken = self.conn.rx.fill_direct(&mut self.conn.stream, direct);
            let (n, behind) = match taken {
                Ok(n) => n,
                Err(e) => return none_if_would_block(Err(e)).map(|_| (0, false)),
            };
            transfer.take(n, incoming);
            self.data_in += n as u64;
            return Ok((n + behind, behind == self.conn.rx.capacity()));
        }
        let room = self.conn.rx.capacity() - self.conn.rx.data().len();
        let n = self.conn.fill()?;
        Ok((n, n > 0 && n == room))
    }

    /// Works on what was received until more is needed or answers find no room. Returns whether anything
    /// was done.
    fn process(
        &mut self,
        namespaces: &Namespaces,
        pool: &mut StagingPool,
        cx: &mut Context<'_>,
    ) -> Result<bool, End> {
        let mut busy = !self.held.is_idle() && self.release_held(namespaces, cx);
        loop {
            if !self.conn.out.has_room() {
                return Ok(busy);
            }
            if self.ready_jobs > 0 {
                self.finish_job(cx);
                busy = true;
                continue;
            }
            if let Some(work) = self.work {
                match work {
                    Work::Read(mut cursor) => {
                        if !self.advance_read(&mut cursor, &Intact, namespaces, &mut busy) {
                            self.work = Some(Work::Read(cursor));
                            return Ok(busy);
                        }
                    }
                    Work::ReadSpoiled(mut cursor, corruption) => {
                        if !self.advance_read(&mut cursor, &corruption, namespaces, &mut busy) {
                            self.work = Some(Work::ReadSpoiled(cursor, corruption));
                            return Ok(busy);
                        }
                    }
                }
                continue;
            }
            if !self.waiting.is_empty() && self.start_waiting(pool, cx.now()) {
                busy = true;
                continue;
            }
            if self.incoming.is_some() {
                if !self.take_data(namespaces, pool, &mut busy, cx) {
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
                    self.capsule(&frame, namespaces, pool, cx)?;
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
        if let Ok((capsule, _)) = CapsuleCmd::read_from_prefix(self.conn.rx.data()) {
            let status = Status::SGL_OFFSET_INVALID.with_dnr();
            self.complete(capsule.sqe.cid.get(), Err(status), 0);
        }
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
        namespaces: &Namespaces,
        pool: &mut StagingPool,
        cx: &mut Context<'_>,
    ) -> Result<(), End> {
        let bytes = self.conn.rx.data();
        let Ok((capsule, _)) = CapsuleCmd::read_from_prefix(bytes) else {
            return Ok(());
        };
        let sqe = capsule.sqe;
        let data_end = frame.data_offset + frame.data_len;
        let data = bytes.get(frame.data_offset..data_end).unwrap_or_default();
        let intact = !frame.ddgst || {
            let mut digest = DataDigest::new();
            digest.update(data);
            bytes.get(data_end..data_end + DIGEST_LEN) == Some(&digest.finish())
        };
        if self.outstanding >= usize::from(self.entries) {
            return Err(self.conn.fault(ProtocolError::sequence(
                "more commands than the submission queue has entries",
            )));
        }
        self.counters.commands += 1;
        self.sqhd = (self.sqhd + 1) % self.entries;

        let cid = sqe.cid.get();
        let in_capsule = sqe.sgl.kind == SglDescriptor::IN_CAPSULE;
        let result = if self.outstanding > 0 && self.is_in_use(cid) {
            Err(Status::COMMAND_ID_CONFLICT.with_dnr())
        } else if sqe.opcode == opcode::FABRICS {
            return self.fabrics(&sqe, frame.total_len);
        } else if !intact {
            Err(Status::TRANSIENT_TRANSPORT_ERROR)
        } else {
            plan(&sqe, namespaces)
        };
        if namespaces.are_layered()
            && let Ok(plan) = result
            && let Some(layers) = layers_of(namespaces, &sqe)
        {
            let data = if in_capsule {
                data.into()
            } else {
                Box::default()
            };
            self.descend((sqe, plan, data), layers, namespaces, cx);
            self.conn.rx.consume(frame.total_len);
            return Ok(());
        }
        match result {
            Ok(Plan::Read { offset, len }) => {
                let mut cursor = ReadCursor::new(cid, sqe.nsid.get(), offset, len);
                // Most reads fit; the others stay behind as work.
                if !self.try_read(&mut cursor, &Intact, namespaces) {
                    self.work = Some(Work::Read(cursor));
                }
            }
            Ok(Plan::Receive { len }) if in_capsule => {
                let result = if data.len() == len as usize {
                    execute(&sqe, data, namespaces, &mut self.ranges)
                } else {
                    Err(Status::DATA_SGL_LENGTH_INVALID.with_dnr())
                };
                self.conclude(&sqe, result, namespaces);
            }
            Ok(Plan::Receive { .. }) => {
                self.outstanding += 1;
                self.waiting.push_back(sqe);
                if !self.start_waiting(pool, cx.now()) {
                    self.staging_waits += 1;
                }
            }
            Ok(Plan::Zero { offset, len }) => {
                self.ranges.clear();
                self.ranges.push(Range { offset, len });
                self.conclude(&sqe, Ok(()), namespaces);
            }
            Ok(Plan::Flush) => self.conclude(&sqe, Ok(()), namespaces),
            Err(status) => self.complete(cid, Err(status), 0),
        }
        self.conn.rx.consume(frame.total_len);
        Ok(())
    }

    /// Completes a command that is done but for a task for its disk, if it has one, or leaves it in flight.
    pub(super) fn conclude(
        &mut self,
        sqe: &Sqe,
        result: Result<(), Status>,
        namespaces: &Namespaces,
    ) {
        let result = match result {
            Ok(()) => match self.carry_on(sqe, namespaces) {
                Some(result) => result,
                None => return,
            },
            failed => failed,
        };
        self.count_write(sqe, result);
        self.complete(sqe.cid.get(), result, 0);
    }

    #[inline]
    pub(super) fn count_write(&mut self, sqe: &Sqe, result: Result<(), Status>) {
        if result.is_ok() && sqe.opcode == nvm::WRITE {
            self.counters.writes += 1;
            self.counters.bytes_written += u64::from(sqe.sgl.length.get());
        }
    }

    /// What layers have said about a command that is carried out, if they have.
    #[inline]
    pub(super) fn ruling(&mut self, cid: u16) -> Option<Ruling> {
        if !self.held.has_rulings() {
            return None;
        }
        self.held.take_ruling(cid)
    }

    #[inline]
    pub(super) fn complete(&mut self, cid: u16, result: Result<(), Status>, dw0: u32) {
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
    pub(super) fn cqe(&self, cid: u16, status: Status) -> Cqe {
        Cqe {
            sqhd: if self.flow_control { self.sqhd } else { 0 }.into(),
            ..Cqe::new(cid, status)
        }
    }

    /// Whether a command of this identifier is still being carried out.
    #[cold]
    fn is_in_use(&self, cid: u16) -> bool {
        let transfers = self.transfers.iter().flatten().map(|t| &t.sqe);
        transfers.chain(&self.waiting).any(|s| s.cid.get() == cid)
            || self.held.contains(cid)
            || self.is_in_flight(cid)
    }

    /// Fabrics commands on an I/O queue.
    #[cold]
    fn fabrics(&mut self, sqe: &Sqe, total_len: usize) -> Result<(), End> {
        let cid = sqe.cid.get();
        let result = match sqe.fctype() {
            fctype::DISCONNECT if sqe.as_disconnect().recfmt.get() == 0 => {
                self.complete(cid, Ok(()), 0);
                self.conn.rx.consume(total_len);
                return Err(End::Disconnected);
            }
            fctype::DISCONNECT => Err(Status::CONNECT_INCOMPATIBLE_FORMAT.with_dnr()),
            fctype::CONNECT => Err(Status::COMMAND_SEQUENCE_ERROR.with_dnr()),
            // Properties belong to the admin queue.
            _ => Err(Status::INVALID_OPCODE.with_dnr()),
        };
        self.complete(cid, result, 0);
        self.conn.rx.consume(total_len);
        Ok(())
    }
}
