//! One queue pair: a connection, its command table and where it stands.

use std::io;

use pollux_reactor::{Net, Progress, Stream, Time};

use super::faults::{Fault, Faults};
use super::handshake::{self, ConnectOptions, Digests};
use super::receive::Receiving;
use super::request::{Completed, Lost, Outcome, Request, Transfer};
use super::table::{COMMANDS_MAX, CommandTable, Overdue, Slot};
use super::transmit::Transmitter;
use crate::pdu::{ProtocolError, RxFraming};
use crate::spec::fabrics::{CNTLID_DYNAMIC, ConnectInvalidParameter};
use crate::spec::pdu::{Icresp, PduType};
use crate::spec::status::Status;
use crate::stream::RxBuffer;

/// Why a connection ended or never came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// TCP could not connect: refused, unreachable, reset.
    #[error("TCP connect failed: {0}")]
    TcpConnect(io::ErrorKind),
    /// A step of connecting was not answered in time.
    #[error("no {0} within the connect timeout")]
    Timeout(&'static str),
    /// The peer closed the connection.
    #[error("connection closed by the peer")]
    Closed,
    /// The socket failed.
    #[error("socket error: {0}")]
    Socket(io::ErrorKind),
    /// The peer broke the protocol; it was told so by H2CTermReq.
    #[error("the controller broke the protocol: {0}")]
    Protocol(ProtocolError),
    /// The peer says that the host broke the protocol.
    #[error("the controller ended the connection (C2HTermReq, FES {fes:#x}, FEI {fei:#x})")]
    Terminated {
        /// Fatal error status.
        fes: u16,
        /// Fatal error information.
        fei: u32,
    },
    /// ICResp holds something this host cannot work with; the peer was told so by H2CTermReq.
    #[error("ICResp: {0}")]
    Icresp(ProtocolError),
    /// The Connect command was completed with an error.
    #[error("Connect refused: {status}{}", connect_detail(*result))]
    Refused {
        /// Its status.
        status: Status,
        /// Dword 0 of the completion; for invalid parameters the offset of the field at fault.
        result: u32,
    },
    /// A command was not answered within the command timeout.
    #[error("a command was not answered within the command timeout")]
    CommandTimeout,
    /// A command that was aborted, or whose deadline has passed, was not given back.
    #[error("an unwanted command was not given back, although its abort was asked for")]
    NotGivenBack,
    /// Commands were outstanding, no byte came for too long, and a probe was not answered either (rule B9.4).
    #[error("silent with commands outstanding, and a probe was not answered")]
    Silent,
    /// The controller does not grant the digests that are required.
    #[error("{asked} are required, the controller grants {granted}")]
    NoDigests {
        /// What was asked for.
        asked: Digests,
        /// What ICResp says.
        granted: Digests,
    },
    /// The owner closed it.
    #[error("closed by the host")]
    HostClosed,
}

fn connect_detail(result: u32) -> String {
    let detail = ConnectInvalidParameter::from(result);
    match (detail.ipo(), detail.in_data()) {
        (0, false) => String::new(),
        (offset, false) => format!(" (field at byte {offset} of the command)"),
        (offset, true) => format!(" (field at byte {offset} of the Connect data)"),
    }
}

/// A request that was not accepted, with the reason.
#[derive(Debug)]
pub struct Rejected {
    /// The request, unchanged.
    pub request: Request,
    /// Why.
    pub reason: RejectedReason,
}

/// Why a request was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectedReason {
    /// As many commands are outstanding as the queue holds: try again after a completion.
    QueueFull,
    /// The queue pair is not connected.
    NotConnected,
    /// The buffer is shorter than the length.
    BufferTooShort,
    /// More data than one command may carry, and not a block command that could be split.
    TooLarge,
}

/// What became of a request that [`QueuePair::withdraw`] looked for.
#[derive(Debug)]
pub enum Withdrawn {
    /// No byte of it was sent; here it is.
    Unsent(Request),
    /// It is with the controller, under this command identifier.
    Sent(u16),
}

/// Commands outstanding from which on a few microseconds more on one of them matter less than the system
/// calls saved on all.
const DEEP: usize = 8;

/// Receives in a row that find nothing before a deep queue leaves it to the event poll. Between two batches
/// of a peer that keeps up there are one or two.
const TRIES_MAX: u8 = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Tcp,
    Icresp,
    Connect,
    Ready,
    Ended,
}

/// One queue pair over one connection, owned and polled by one reactor.
///
/// After it is connected neither direction allocates. [`receive`](Self::receive) and
/// [`transmit`](Self::transmit) are called once a turn each, with the submissions of the turn between
/// them, so that one receive and one send serve them all.
#[derive(Debug)]
pub struct QueuePair {
    pub(super) stream: Stream,
    pub(super) rx: RxBuffer,
    pub(super) framing: RxFraming,
    pub(super) receiving: Receiving,
    pub(super) table: CommandTable,
    pub(super) transmitter: Transmitter,
    options: Box<ConnectOptions>,
    phase: Phase,
    /// When it must be ready, and when TCP must be connected.
    deadline: Time,
    tcp_deadline: Time,
    controller_id: u16,
    commands_max: usize,
    /// A cold stream may hold bytes beyond what the last receive took.
    unread: bool,
    /// When something was received last.
    received_at: Time,
    /// Not before this time is a deep queue asked again; see `is_held_off`.
    receive_at: Time,
    /// Receives in a row of a deep queue that found nothing.
    found_nothing: u8,
    /// Commands that failed while their data was on the way.
    pub(super) deferred: usize,
    /// Errors that are to be made up; `None` but in tests of what is above.
    pub(super) faults: Option<Box<Faults>>,
    error: Option<QueueError>,
}

impl QueuePair {
    /// Starts to connect; [`receive`](Self::receive) drives it on.
    ///
    /// # Errors
    /// The operating system's refusal to start a connection (no route, no descriptor).
    pub fn connect(net: &mut Net, now: Time, options: ConnectOptions) -> io::Result<Self> {
        let stream = net.connect(options.remote, options.local)?;
        let commands = (options.queue_size.max(2) - 1).min(COMMANDS_MAX);
        let keeps_probe_slot = options.keep_probe_slot && commands > 1;
        Ok(Self {
            stream,
            rx: RxBuffer::new(options.receive_buffer.max(16 * 1024)),
            framing: RxFraming {
                receiver: crate::pdu::Receiver::Host,
                hdgst: false,
                ddgst: false,
                pda: 0,
                max_plen: u32::MAX,
                initialized: false,
            },
            receiving: Receiving::Header,
            table: CommandTable::new(commands),
            transmitter: Transmitter::new(commands, &options),
            deadline: now + options.timeout,
            tcp_deadline: now
                + options
                    .tcp_timeout
                    .map_or(options.timeout, |t| t.min(options.timeout)),
            options: Box::new(options),
            phase: Phase::Tcp,
            controller_id: CNTLID_DYNAMIC,
            commands_max: usize::from(commands) - usize::from(keeps_probe_slot),
            unread: true,
            received_at: now,
            receive_at: now,
            found_nothing: 0,
            deferred: 0,
            faults: None,
            error: None,
        })
    }

    /// True once Connect succeeded and until the connection ends.
    #[inline]
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// Why the connection ended, if it did.
    pub fn error(&self) -> Option<QueueError> {
        self.error
    }

    /// The controller identifier that Connect answered.
    pub fn controller_id(&self) -> u16 {
        self.controller_id
    }

    /// What it connected with.
    pub fn options(&self) -> &ConnectOptions {
        &self.options
    }

    /// The digests in use, once ICResp has come.
    pub fn digests(&self) -> Digests {
        Digests {
            header: self.framing.hdgst,
            data: self.framing.ddgst,
        }
    }

    /// Commands that have not been answered.
    #[inline]
    pub fn outstanding(&self) -> usize {
        self.table.outstanding()
    }

    /// True if the stream has not taken all that was to be sent.
    pub fn has_unsent(&self) -> bool {
        self.transmitter.has_unsent()
    }

    /// Most commands that may be outstanding.
    pub fn commands_max(&self) -> usize {
        self.commands_max
    }

    /// When something was received last.
    pub fn received_at(&self) -> Time {
        self.received_at
    }

    /// The stream's count of socket calls.
    pub fn socket_calls(&self) -> u64 {
        self.stream.socket_calls()
    }

    /// When it has something to do although nothing arrives: connecting must be done, or a made-up error
    /// is due.
    pub fn deadline(&self) -> Option<Time> {
        match self.phase {
            Phase::Ready => self.faults.as_ref()?.deadline(),
            Phase::Ended => None,
            Phase::Tcp => Some(self.tcp_deadline),
            Phase::Icresp | Phase::Connect => Some(self.deadline),
        }
    }

    /// Shows `found` every command that has been outstanding for `limit` calls of this, or more; after
    /// that its age counts anew. The owner calls it in equal intervals: a command then is found after
    /// `limit - 1` to `limit` of them.
    pub fn age(&mut self, limit: u32, found: &mut impl FnMut(Overdue<'_>)) {
        self.table.age(limit, found);
    }

    /// Looks for an outstanding request. One of which no byte was sent is taken back; of any other the
    /// command identifier is told, for an Abort command. `None`: there is no such request.
    pub fn withdraw(&mut self, wanted: impl Fn(&Request) -> bool) -> Option<Withdrawn> {
        let (slot, issued) = self.table.find_request(wanted)?;
        if issued {
            return Some(Withdrawn::Sent(self.table.current_cid(slot)));
        }
        self.transmitter.cancel(slot);
        if let Some(faults) = &mut self.faults {
            faults.forget(slot);
        }
        self.table.take(slot).map(Withdrawn::Unsent)
    }

    /// Shows `look` every outstanding request, with the command identifier of those of which a byte may have
    /// been sent.
    pub fn look_through(&mut self, look: &mut impl FnMut(&mut Request, Option<u16>)) {
        self.table.look_through(look);
    }

    /// From now on makes up an error as `fault` says, in addition to those said before.
    pub fn add_fault(&mut self, fault: Fault) {
        self.faults.get_or_insert_default().add(fault);
    }

    /// Makes up no more errors for commands of `opcode`. What is held back already still ends with its
    /// error.
    pub fn remove_fault(&mut self, opcode: u8) {
        if let Some(faults) = &mut self.faults {
            faults.remove(opcode);
        }
    }

    /// Ends what a fault has held back for long enough.
    #[cold]
    fn release_held(&mut self, now: Time, sink: &mut impl FnMut(Completed)) {
        while let Some((slot, status)) = self.faults.as_mut().and_then(|f| f.due(now)) {
            if let Some(request) = self.table.take(slot) {
                let outcome = Outcome::Completed { status, result: 0 };
                sink(Completed { request, outcome });
            }
        }
        self.faults.take_if(|faults| faults.is_spent());
    }

    /// The largest transfer of one command in bytes; larger block requests are split.
    pub fn set_transfer_max(&mut self, bytes: usize) {
        self.transmitter.transfer_max = bytes.max(512);
    }

    /// Accepts a request; it is sent by the next [`transmit`](Self::transmit).
    ///
    /// # Errors
    /// [`Rejected`], with the request.
    #[inline]
    pub fn submit(&mut self, request: Request) -> Result<(), Rejected> {
        if self.table.outstanding() >= self.commands_max {
            let reason = match self.phase {
                Phase::Ready => RejectedReason::QueueFull,
                _ => RejectedReason::NotConnected,
            };
            return Err(Rejected { request, reason });
        }
        self.submit_probe(request)
    }

    /// As [`submit`](Self::submit), but may take the entry that is kept where
    /// [`keep_probe_slot`](ConnectOptions::keep_probe_slot) is set: for a command that finds out whether a
    /// silent queue is still served, however full it is.
    ///
    /// # Errors
    /// [`Rejected`], with the request.
    #[inline]
    pub fn submit_probe(&mut self, request: Request) -> Result<(), Rejected> {
        let reason = if self.phase != Phase::Ready {
            RejectedReason::NotConnected
        } else if request.transfer != Transfer::None && request.buffer.len() < request.length {
            RejectedReason::BufferTooShort
        } else if request.block_shift == 0 && request.length > self.transmitter.transfer_max {
            RejectedReason::TooLarge
        } else {
            match self.table.insert(request) {
                Ok(slot) => {
                    if let Some(faults) = &mut self.faults
                        && faults.hold(slot, self.table.get(slot).and_then(Slot::opcode))
                    {
                        return Ok(());
                    }
                    self.transmitter.issue(slot);
                    return Ok(());
                }
                Err(request) => {
                    return Err(Rejected {
                        request,
                        reason: RejectedReason::QueueFull,
                    });
                }
            }
        };
        Err(Rejected { request, reason })
    }

    /// One receive for all that has arrived, and everything that follows from it. Completed requests go
    /// to `sink`.
    ///
    /// # Errors
    /// Why the connection has ended, once; the requests that were outstanding have gone to `sink` as
    /// [`Outcome::Lost`] by then.
    #[inline]
    pub fn receive(
        &mut self,
        now: Time,
        sink: &mut impl FnMut(Completed),
    ) -> Result<Progress, QueueError> {
        let result = match self.phase {
            Phase::Ready => {
                if self.faults.is_some() {
                    self.release_held(now, sink);
                }
                if self.is_held_off(now) {
                    return Ok(Progress::Idle);
                }
                self.receive_once(sink).inspect(|&progress| {
                    self.unread = progress == Progress::Busy;
                    self.hold_off(progress, now);
                })
            }
            Phase::Ended => return Ok(Progress::Idle),
            _ => self.connecting(now, sink),
        };
        self.ended_by(result, sink)
    }

    /// As [`receive`](Self::receive), but asks the socket only if the reactor's event poll saw something:
    /// for connections that are mostly silent.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn receive_if_ready(
        &mut self,
        now: Time,
        sink: &mut impl FnMut(Completed),
    ) -> Result<Progress, QueueError> {
        if self.phase == Phase::Ready && !self.may_receive() && self.faults.is_none() {
            return Ok(Progress::Idle);
        }
        self.receive(now, sink)
    }

    /// Whether asking the socket now would most likely be a wasted system call.
    ///
    /// With nothing outstanding, nothing is expected; and a deep queue that just found nothing is asked
    /// again after a quarter of the time that has passed since it last found something, and after some tries
    /// not at all, so that a stall of its peer costs it a handful of receives instead of millions. An edge
    /// from the event poll overrules both, so neither can miss what has arrived for longer than that poll's
    /// period.
    #[inline]
    fn is_held_off(&mut self, now: Time) -> bool {
        if self.table.outstanding() > 0 && now >= self.receive_at {
            return false;
        }
        !self.may_receive()
    }

    #[inline]
    fn hold_off(&mut self, progress: Progress, now: Time) {
        match progress {
            Progress::Busy => {
                self.received_at = now;
                self.receive_at = now;
                self.found_nothing = 0;
            }
            Progress::Idle if self.table.outstanding() >= DEEP => {
                self.found_nothing = self.found_nothing.saturating_add(1);
                self.receive_at = if self.found_nothing < TRIES_MAX {
                    now + (now - self.received_at) / 4
                } else {
                    Time::MAX
                };
            }
            Progress::Idle => {}
        }
    }

    /// True if something may have arrived that the last receive did not take.
    pub(super) fn may_receive(&mut self) -> bool {
        self.unread |= self.stream.take_ready();
        self.unread
    }

    /// One send for all that was submitted.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    #[inline]
    pub fn transmit(&mut self, sink: &mut impl FnMut(Completed)) -> Result<(), QueueError> {
        if matches!(self.phase, Phase::Tcp | Phase::Ended) {
            return Ok(());
        }
        let mut result = self.transmitter.transmit(&mut self.stream, &mut self.table);
        if result.is_ok() && self.deferred > 0 {
            result = self.finish_deferred(sink);
        }
        self.ended_by(result.map(|()| Progress::Idle), sink)
            .map(|_| ())
    }

    /// Ends the connection; what was outstanding goes to `sink` as lost.
    pub fn close(&mut self, sink: &mut impl FnMut(Completed)) {
        self.fail(QueueError::HostClosed, sink);
    }

    /// As [`close`](Self::close), for a reason.
    pub fn fail(&mut self, error: QueueError, sink: &mut impl FnMut(Completed)) {
        if self.phase != Phase::Ended {
            self.end(error, sink);
        }
    }

    #[inline]
    fn ended_by(
        &mut self,
        result: Result<Progress, QueueError>,
        sink: &mut impl FnMut(Completed),
    ) -> Result<Progress, QueueError> {
        if let Err(error) = result {
            self.end(error, sink);
        }
        result
    }

    fn end(&mut self, error: QueueError, sink: &mut impl FnMut(Completed)) {
        // A TermReq is not answered with another one, not even one that is wrong itself (NVMe/TCP 1.1,
        // 3.6.2.5).
        let by_term_req = self.rx.data().first() == Some(&PduType::C2H_TERM_REQ.0);
        if let QueueError::Protocol(fault) | QueueError::Icresp(fault) = error
            && !by_term_req
        {
            self.transmitter.send_term_req(
                &mut self.stream,
                &mut self.table,
                fault,
                self.rx.data(),
            );
        }
        let was_ready = self.phase == Phase::Ready;
        self.phase = Phase::Ended;
        self.error = Some(error);
        self.receiving = Receiving::Header;
        self.transmitter.clear();
        self.deferred = 0;
        self.faults = None;
        while let Some(slot) = self.table.first_occupied() {
            // Of a command that still waits in our own send queue no byte has left; telling the partly
            // sent one apart from those behind it is not worth a list here: it counts as sent.
            let sent = self.table.get(slot).is_some_and(|s| s.issued);
            // Before it is ready there is the Connect command, which is nobody else's.
            if let Some(request) = self.table.take(slot).filter(|_| was_ready) {
                sink(Completed {
                    request,
                    outcome: Outcome::Lost(Lost::Connection { sent }),
                });
            }
        }
    }

    fn connecting(
        &mut self,
        now: Time,
        sink: &mut impl FnMut(Completed),
    ) -> Result<Progress, QueueError> {
        let phase = self.phase;
        // A peer that says nothing costs its reactor no system call.
        if self.may_receive() {
            self.unread = false;
            match phase {
                Phase::Tcp => {
                    if self
                        .stream
                        .connected()
                        .map_err(|e| QueueError::TcpConnect(e.kind()))?
                    {
                        self.transmitter
                            .put_plain(&handshake::icreq(self.options.digests));
                        self.phase = Phase::Icresp;
                        // The edge that told of the connection may have told of an answer as well.
                        self.unread = true;
                        self.transmitter
                            .transmit(&mut self.stream, &mut self.table)?;
                    }
                }
                _ => self.unread = self.receive_once(sink)? == Progress::Busy,
            }
        }
        if self.phase == phase && self.deadline().is_some_and(|at| now >= at) {
            return Err(QueueError::Timeout(match phase {
                Phase::Tcp => "TCP connection",
                Phase::Icresp => "ICResp",
                _ => "answer to Connect",
            }));
        }
        Ok(if self.phase == phase {
            Progress::Idle
        } else {
            Progress::Busy
        })
    }

    pub(super) fn on_icresp(&mut self, answer: &Icresp) -> Result<(), QueueError> {
        let settled =
            handshake::settle(self.options.digests, answer).map_err(QueueError::Icresp)?;
        let (asked, granted) = (self.options.digests, settled.digests);
        if granted != asked {
            if self.options.require_digests {
                return Err(QueueError::NoDigests { asked, granted });
            }
            // Once per controller: its I/O queues will be answered the same.
            if self.options.queue_id == 0 {
                let remote = self.options.remote;
                log::warn!(
                    target: super::LOG_FLAG,
                    "{remote}: {asked} were asked for, the controller grants {granted}"
                );
            }
        }
        self.framing.hdgst = settled.digests.header;
        self.framing.ddgst = settled.digests.data;
        self.framing.initialized = true;
        self.transmitter.settle(&settled);
        let connect = handshake::connect_request(&self.options);
        if let Ok(slot) = self.table.insert(connect) {
            self.transmitter.issue(slot);
        }
        self.phase = Phase::Connect;
        self.transmitter.transmit(&mut self.stream, &mut self.table)
    }

    /// Takes the answer to Connect while connecting; any other completion is handed back.
    pub(super) fn on_connect_answer(&mut self, outcome: Outcome) -> Result<(), QueueError> {
        match outcome {
            Outcome::Completed { status, result } if status.is_success() => {
                self.controller_id = u16::try_from(result & 0xffff).unwrap_or_default();
                self.phase = Phase::Ready;
                self.transmitter.finish_connect();
                Ok(())
            }
            Outcome::Completed { status, result } => Err(QueueError::Refused {
                status,
                result: u32::try_from(result & 0xffff_ffff).unwrap_or_default(),
            }),
            Outcome::Lost(_) => Err(QueueError::Closed),
        }
    }
}
