//! One queue pair (qpair): a connection, its command table and where it stands.
//!
//! The queue pair is the seam between who asks and what sends. Its contract:
//!
//! * A [`Request<T>`] that [`submit`](QueuePair::submit) accepts is handed back exactly once: as a [`Completed<T>`]
//!   to the sink of a later call, or by [`withdraw`](QueuePair::withdraw). A request that is rejected comes back
//!   with the reason. The buffer travels with it; the queue pair neither allocates nor frees one.
//! * The `T` is the submitter's: multipath's in-flight I/O, what an admin command is for, nothing. It is carried
//!   along unseen. The queue pair knows nothing of paths, retries, deadlines or injected faults.
//! * [`receive`](QueuePair::receive) and [`transmit`](QueuePair::transmit) are called once a turn each. A sink cannot
//!   submit: what follows from a completion is submitted after the call.
//! * The end of the connection is told once, as the error of either call, when all that was outstanding has gone to
//!   its sink as [`Lost::Connection`]. That says for each request whether a byte of it was handed to the
//!   connection: what was not cannot have been executed, and never will be.

#[cfg_attr(
    not(feature = "auth"),
    expect(unreachable_code, unused_variables, reason = "nobody can have keys")
)]
mod authentication;
mod connect;
mod error;
mod expected;
mod handshake;
mod receive;
mod table;
mod transmit;

use std::io;
use std::time::Duration;

use pollux_reactor::{Context, Heat, Net, Progress, Stream, Time};

use self::authentication::Authenticating;
pub use self::error::QueueError;
use self::expected::Expected;
pub use self::handshake::{ConnectOptions, Digests, HostIdentity};
use self::receive::Receiving;
pub use self::table::Overdue;
use self::table::{COMMANDS_MAX, CommandTable};
use self::transmit::Transmitter;
use super::request::{Command, Completed, Lost, Outcome, Request, Transfer};
use crate::pdu::{Before, RxFraming};
use crate::spec::fabrics::CNTLID_DYNAMIC;
use crate::spec::opcode::nvm;
use crate::spec::pdu::PduType;
use crate::stream::RxBuffer;
use crate::tls::{HostTls, Session};

/// A request that was not accepted, with the reason.
#[derive(Debug)]
pub struct Rejected<T = ()> {
    /// The request, unchanged.
    pub request: Request<T>,
    /// Why.
    pub reason: RejectedReason,
}

/// Why a request was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RejectedReason {
    /// As many commands are outstanding as the queue holds: try again after a completion.
    QueueFull,
    /// The queue pair is not connected.
    NotConnected,
    /// The buffer is shorter than the length, or its owner does not have its bytes any more.
    BufferTooShort,
    /// More data than one command may carry, and not a block command that could be split.
    TooLarge,
}

/// What became of a request that [`QueuePair::withdraw`] looked for.
#[derive(Debug)]
pub enum Withdrawn<T> {
    /// No byte of it was sent; here it is.
    Unsent(Request<T>),
    /// The controller has it, under this command identifier.
    Sent(u16),
}

/// Commands outstanding from which on a few microseconds more on one of them matter less than the system
/// calls saved on all: of a queue that has the turns of its reactor for itself, and of one that shares them.
const DEEP: usize = 32;
const DEEP_AMONG_OTHERS: usize = 8;

/// It wants edges again when it has found nothing for so long.
const COLD: Duration = Duration::from_millis(1);

/// Receives in a row that find nothing before a deep queue leaves it to the event poll. Between two batches
/// of a peer that keeps up there are one or two.
const TRIES_MAX: u8 = 8;

/// A namespace that no controller has: larger than any NN, and not the one that means all.
const NO_NAMESPACE: u32 = u32::MAX - 1;

/// Where the connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// TCP is connecting.
    Tcp,
    /// ICReq was sent.
    Icresp,
    /// The Connect command was sent.
    Connect,
    /// It authenticates.
    Authenticating,
    /// Usable.
    Ready,
    /// Over.
    Ended,
}

/// One queue pair over one connection, owned and polled by one reactor.
///
/// After it is connected neither direction allocates. [`receive`](Self::receive) and
/// [`transmit`](Self::transmit) are called once a turn each, with the submissions of the turn between
/// them, so that one receive and one send serve them all.
#[derive(Debug)]
pub struct QueuePair<T = ()> {
    stream: Stream,
    /// Its TLS.
    session: Option<Session>,
    rx: RxBuffer,
    framing: RxFraming,
    before: Before,
    receiving: Receiving,
    expected: Expected,
    table: CommandTable<T>,
    transmitter: Transmitter,
    options: Box<ConnectOptions>,
    state: State,
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
    heat: Heat,
    /// While it authenticates.
    authenticating: Option<Box<Authenticating>>,
    /// What has come out of it, for the connection that is to take the place of this one.
    generated: Option<HostTls>,
    /// It serves, and is to authenticate again.
    wants_authentication: bool,
    /// Commands that failed while their data was on the way.
    deferred: usize,
    error: Option<QueueError>,
}

impl<T> QueuePair<T> {
    /// Starts to connect; [`receive`](Self::receive) drives it on.
    ///
    /// # Errors
    /// The operating system's refusal to start a connection (no route, no descriptor).
    pub fn connect(net: &mut Net, now: Time, options: ConnectOptions) -> io::Result<Self> {
        let mut stream = net.connect(options.remote, options.local)?;
        let mut session = None;
        if let Some(tls) = &options.tls {
            let names = [&options.host.nqn, &options.subnqn];
            (stream, session) = tls.wrap(net, stream, names, options.ktls);
        }
        let commands = (options.queue_size.max(2) - 1).min(COMMANDS_MAX);
        let keeps_probe_slot = options.keep_probe_slot && commands > 1;
        Ok(Self {
            stream,
            session,
            rx: RxBuffer::new(options.receive_buffer.max(16 * 1024)),
            framing: RxFraming {
                receiver: crate::pdu::Receiver::Host,
                hdgst: false,
                ddgst: false,
                pda: 0,
                max_plen: u32::MAX,
                initialized: false,
            },
            before: Before::default(),
            receiving: Receiving::Header,
            expected: Expected::new(),
            table: CommandTable::new(commands),
            transmitter: Transmitter::new(commands, &options),
            deadline: now + options.timeout,
            tcp_deadline: now
                + options
                    .tcp_timeout
                    .map_or(options.timeout, |t| t.min(options.timeout)),
            options: Box::new(options),
            state: State::Tcp,
            controller_id: CNTLID_DYNAMIC,
            commands_max: usize::from(commands) - usize::from(keeps_probe_slot),
            unread: true,
            received_at: now,
            receive_at: now,
            found_nothing: 0,
            heat: Heat::default(),
            authenticating: None,
            generated: None,
            wants_authentication: false,
            deferred: 0,
            error: None,
        })
    }

    /// Has the service of `cx` told of the edges of its stream, by `token`: see [`rests`](Self::rests).
    pub fn watch(&mut self, cx: &mut Context<'_>, token: u64) {
        cx.watch(&mut self.stream, token);
    }

    /// Whether the turns of [`receive`](Self::receive) and [`transmit`](Self::transmit) have nothing to do before its
    /// stream has an edge, which is told to who [watches](Self::watch) it, or something is submitted.
    #[inline]
    pub fn rests(&mut self) -> bool {
        match self.state {
            State::Ready => {
                self.table.outstanding() == 0
                    && !self.transmitter.has_unsent()
                    && !self.may_receive()
            }
            State::Ended => true,
            _ => false,
        }
    }

    /// True once Connect succeeded and until the connection ends.
    #[inline]
    pub fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// With what to connect again, by TLS: the authentication has brought a key, and this connection is of no further use.
    pub(crate) fn take_generated(&mut self) -> Option<HostTls> {
        self.generated.take()
    }

    /// Why the connection ended, if it did.
    pub fn error(&self) -> Option<QueueError> {
        self.error
    }

    /// The controller identifier that Connect answered.
    pub fn controller_id(&self) -> u16 {
        self.controller_id
    }

    /// What the queue pair connected with.
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

    /// Whether it comes by TLS, and then whether the kernel encrypts it.
    pub fn ktls(&self) -> Option<bool> {
        let session = self.session.as_ref().filter(|s| s.is_open())?;
        Some(session.is_ktls())
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

    /// When it has something to do although nothing arrives: connecting must be done.
    pub fn deadline(&self) -> Option<Time> {
        match self.state {
            State::Ready | State::Ended => None,
            State::Tcp => Some(self.tcp_deadline),
            State::Icresp | State::Connect => Some(self.deadline),
            State::Authenticating => {
                let look_at = self
                    .authenticating
                    .as_ref()
                    .and_then(|auth| auth.deadline());
                Some(look_at.map_or(self.deadline, |at| at.min(self.deadline)))
            }
        }
    }

    /// Shows `found` every command that has been outstanding for `limit` calls of this, or more; after
    /// that its age counts anew. The owner calls it in equal intervals: a command then is found after
    /// `limit - 1` to `limit` of them.
    pub fn age(&mut self, limit: u32, found: &mut impl FnMut(Overdue<'_, T>)) {
        self.table.age(limit, found);
    }

    /// Looks for an outstanding request. One of which no byte was sent is taken back; of any other the
    /// command identifier is told, for an Abort command. `None`: there is no such request.
    pub fn withdraw(&mut self, wanted: impl Fn(&T) -> bool) -> Option<Withdrawn<T>> {
        let (slot, issued) = self.table.find_request(wanted)?;
        if issued {
            return Some(Withdrawn::Sent(self.table.current_cid(slot)));
        }
        self.transmitter.cancel(slot);
        self.table.take(slot).map(Withdrawn::Unsent)
    }

    /// Shows `look` what every outstanding request carries, with the command identifier of those of which a byte
    /// may have been sent.
    pub fn look_through(&mut self, look: &mut impl FnMut(&mut T, Option<u16>)) {
        self.table.look_through(look);
    }

    /// What every outstanding request carries, with the command identifier of those of which a byte may have been sent.
    pub fn in_flight(&self) -> impl Iterator<Item = (&T, Option<u16>)> {
        self.table.users()
    }

    /// The largest transfer of one command in bytes; larger block requests are split.
    pub fn set_transfer_max(&mut self, bytes: usize) {
        self.transmitter.set_transfer_max(bytes);
    }

    /// Accepts a request; it is sent by the next [`transmit`](Self::transmit).
    ///
    /// # Errors
    /// [`Rejected`], with the request.
    #[inline(always)]
    pub fn submit(&mut self, request: Request<T>) -> Result<(), Rejected<T>> {
        let reason = if self.state != State::Ready {
            RejectedReason::NotConnected
        } else if request.transfer != Transfer::None && !request.buffer.has(request.length) {
            RejectedReason::BufferTooShort
        } else if request.block_shift == 0 && request.length > self.transmitter.transfer_max() {
            RejectedReason::TooLarge
        } else if self.table.outstanding() >= self.commands_max {
            RejectedReason::QueueFull
        } else {
            match self.table.insert(request) {
                Ok(slot) => {
                    self.transmitter.issue(slot);
                    return Ok(());
                }
                Err(request) => {
                    let reason = RejectedReason::QueueFull;
                    return Err(Rejected { request, reason });
                }
            }
        };
        Err(Rejected { request, reason })
    }

    /// Sends a command that any controller answers at once, with an error, and that does nothing: Flush of a
    /// namespace that is not there. Its answer is told to nobody, but is something received: see
    /// [`received_at`](Self::received_at). So a silent queue shows whether it is still served, however full it
    /// is where [`keep_probe_slot`](ConnectOptions::keep_probe_slot) is set.
    ///
    /// False if there is no room for it, or no connection.
    pub fn probe(&mut self) -> bool {
        if self.state != State::Ready {
            return false;
        }
        let command = Command {
            opcode: nvm::FLUSH,
            nsid: NO_NAMESPACE,
            ..Command::default()
        };
        self.issue_own(Request::plain(command, Transfer::None, 0, Vec::new()))
    }

    fn issue_own(&mut self, request: Request) -> bool {
        let slot = self.table.insert_own(request);
        if let Some(slot) = slot {
            self.transmitter.issue(slot);
        }
        slot.is_some()
    }

    /// One receive for all that has arrived, and everything that follows from it. Completed requests go
    /// to `sink`. `among_others`: its reactor's turn is shared with other busy queues, so that a receive that finds
    /// nothing costs them time.
    ///
    /// # Errors
    /// Why the connection has ended, once; the requests that were outstanding have gone to `sink` as
    /// [`Outcome::Lost`] by then.
    #[inline]
    pub fn receive(
        &mut self,
        now: Time,
        among_others: bool,
        sink: &mut impl FnMut(Completed<T>),
    ) -> Result<Progress, QueueError> {
        let result = match self.state {
            State::Ready => {
                if self.is_held_off(now) {
                    return Ok(Progress::Idle);
                }
                self.receive_once(sink).inspect(|&progress| {
                    self.unread = progress == Progress::Busy;
                    self.hold_off(progress, among_others, now);
                })
            }
            State::Ended => return Ok(Progress::Idle),
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
        sink: &mut impl FnMut(Completed<T>),
    ) -> Result<Progress, QueueError> {
        if self.state == State::Ready && !self.may_receive() {
            return Ok(Progress::Idle);
        }
        let result = self.receive(now, true, sink);
        // It goes by edges, however much comes.
        self.want_edges();
        result
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
    fn hold_off(&mut self, progress: Progress, among_others: bool, now: Time) {
        let deep = if among_others {
            DEEP_AMONG_OTHERS
        } else {
            DEEP
        };
        match progress {
            Progress::Busy => {
                self.received_at = now;
                self.receive_at = now;
                self.found_nothing = 0;
                self.heat.found(&mut self.stream);
            }
            Progress::Idle if self.table.outstanding() >= deep => {
                self.want_edges();
                self.found_nothing = self.found_nothing.saturating_add(1);
                self.receive_at = if self.found_nothing < TRIES_MAX {
                    now + (now - self.received_at) / 4
                } else {
                    Time::MAX
                };
            }
            Progress::Idle if now - self.received_at >= COLD => self.want_edges(),
            Progress::Idle => {}
        }
    }

    /// Has its stream tell of edges again: its reactor is about to sleep, or it has nothing to be asked for in every turn.
    #[inline]
    pub fn want_edges(&mut self) {
        self.heat.cool(&mut self.stream);
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
    pub fn transmit(&mut self, sink: &mut impl FnMut(Completed<T>)) -> Result<(), QueueError> {
        if matches!(self.state, State::Tcp | State::Ended) {
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
    pub fn close(&mut self, sink: &mut impl FnMut(Completed<T>)) {
        self.fail(QueueError::HostClosed, sink);
    }

    /// As [`close`](Self::close), for a reason.
    pub fn fail(&mut self, error: QueueError, sink: &mut impl FnMut(Completed<T>)) {
        if self.state != State::Ended {
            self.end(error, sink);
        }
    }

    #[inline]
    fn ended_by(
        &mut self,
        mut result: Result<Progress, QueueError>,
        sink: &mut impl FnMut(Completed<T>),
    ) -> Result<Progress, QueueError> {
        if let Err(error) = &mut result {
            *error = self.explained(*error);
            self.end(*error, sink);
        }
        result
    }

    fn end(&mut self, error: QueueError, sink: &mut impl FnMut(Completed<T>)) {
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
        self.state = State::Ended;
        self.authenticating = None;
        self.error = Some(error);
        self.receiving = Receiving::Header;
        let handed = self.transmitter.handed();
        self.transmitter.clear();
        self.deferred = 0;
        self.table.take_all(handed, |request, sent| {
            let outcome = Outcome::Lost(Lost::Connection { sent });
            sink(Completed { request, outcome });
        });
    }
}
