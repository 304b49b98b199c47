//! The home service's own part: listeners, connections until their queue is known, admin queues,
//! controllers, and the authoritative configuration.

use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use pollux_reactor::{Gather, Listener, Progress, Stream};

use super::admission::{Admission, Verdict};
use super::connection::{Connection, End, IN_CAPSULE_MAX};
use super::controller::Controller;
use super::discovery::Discovery;
use super::events::Kind;
use super::handshake::{Connected, Refusal};
use super::io_queue::IoQueue;
use super::message::{ControllerKey, HomeMessage, IoMessage};
use super::request::Reply;
use super::said::Said;
use super::staging::TRANSFER_MAX;
use super::status::Fault;
use super::subsystem::Subsystem;
use super::{Turn, token};
use crate::pdu::{DataDigest, Frame, ProtocolError};
use crate::spec::nqn::Nqn;
use crate::spec::pdu::{CapsuleCmd, DIGEST_LEN, Fes, PduType};
use crate::spec::status::Status;
use zerocopy::FromBytes;

/// Time from accept to an accepted Connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections accepted per listener and turn.
const ACCEPTS_MAX: usize = 16;

/// Receives per admin connection and turn.
const ROUNDS_MAX: usize = 4;

/// Time added to a keep-alive timeout that has passed.
const KEEP_ALIVE_GRACE: Duration = Duration::from_secs(1);

/// Faults that are kept for the status.
const FAULTS_KEPT: usize = 64;

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// ICReq or Connect is to come.
    Handshake,
    /// It is the admin queue of this controller.
    Admin(ControllerKey),
}

#[derive(Debug)]
struct HomeConnection {
    conn: Connection,
    phase: Phase,
}

/// The home part.
pub(super) struct Home {
    pub(super) subsystems: BTreeMap<Nqn, Subsystem>,
    pub(super) discovery: Discovery,
    pub(super) ports: BTreeMap<SocketAddr, Listener>,
    pub(super) controllers: BTreeMap<ControllerKey, Controller>,
    pub(super) retry_delays: [u16; 3],
    /// Most data of one command in bytes; Identify Controller reports it as MDTS.
    pub(super) transfer_max: u32,
    pub(super) faults: VecDeque<Fault>,
    pub(super) faults_total: u64,
    pub(super) refused_connects: u64,
    pub(super) admission: Admission,
    said: Said,
    pub(super) admin_qpairs: u64,
    connections: BTreeMap<u64, Box<HomeConnection>>,
    /// Connections to be served in the next poll: those that had an edge, have answers to send, or were left
    /// with something to do. No other is looked at.
    pub(super) due: Vec<u64>,
    /// Questions to all reactors.
    pub(super) gather: Gather<Home>,
    /// Removals that are not over.
    pub(super) removals: BTreeMap<u64, Reply>,
    last_id: u64,
}

impl Home {
    /// `wake` gives this service a turn.
    pub(super) fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            subsystems: BTreeMap::new(),
            discovery: Discovery::default(),
            ports: BTreeMap::new(),
            controllers: BTreeMap::new(),
            retry_delays: [0; 3],
            transfer_max: TRANSFER_MAX,
            faults: VecDeque::new(),
            faults_total: 0,
            refused_connects: 0,
            admission: Admission::default(),
            said: Said::default(),
            admin_qpairs: 0,
            connections: BTreeMap::new(),
            due: Vec::new(),
            gather: Gather::new(wake),
            removals: BTreeMap::new(),
            last_id: 0,
        }
    }

    /// A number that names a connection, controller or removal, below the kinds of timers.
    pub(super) fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(super) fn on_message(&mut self, message: HomeMessage, turn: &mut Turn<'_, '_>) {
        match message {
            HomeMessage::Request { request, reply } => self.configure(request, reply, turn),
            HomeMessage::QueueClosed {
                key,
                qid,
                connection,
                fault,
            } => {
                if let Some(fault) = fault {
                    self.note_fault(fault);
                }
                if let Some(controller) = self.controllers.get_mut(&key)
                    && controller
                        .io_queues
                        .get(&qid)
                        .is_some_and(|q| q.connection == connection)
                {
                    controller.io_queues.remove(&qid);
                }
            }
            HomeMessage::Aborted {
                key,
                admin_cid,
                aborted,
            } => {
                if let Some(controller) = self.controllers.get_mut(&key)
                    && controller.admin.pending.remove(&admin_cid)
                {
                    // Bit 0: the command was not aborted.
                    let result = u64::from(!aborted);
                    controller.answer(admin_cid, Status::SUCCESS, result, Vec::new());
                    self.due.push(controller.admin.connection);
                }
            }
            HomeMessage::DiskChanged => self.disks_changed(turn),
        }
    }

    pub(super) fn on_timer(&mut self, token: u64, turn: &mut Turn<'_, '_>) {
        match token::split(token) {
            (token::CONNECT, id) => {
                if let Some(c) = self.connections.get(&id)
                    && c.phase == Phase::Handshake
                {
                    let end = End::Overdue("no ICReq and Connect within 10 s");
                    if let Some(c) = self.connections.remove(&id) {
                        self.ended(c, end, turn);
                    }
                }
            }
            (token::REMOVAL, removal) => self.removal_overdue(removal),
            (token::KEEP_ALIVE, key) => self.check_keep_alive(ControllerKey(key), turn),
            _ => {}
        }
    }

    /// Accepts, receives, answers.
    #[inline]
    pub(super) fn poll(&mut self, turn: &mut Turn<'_, '_>) -> Progress {
        let mut progress = self.accept(turn);
        while let Some(answered) = self.gather.next_answered() {
            answered(self);
            progress = Progress::Busy;
        }
        if self.due.is_empty() {
            return progress;
        }
        let mut due = std::mem::take(&mut self.due);
        for id in due.drain(..) {
            if let Some(connection) = self.connections.remove(&id) {
                progress = progress.or(self.serve(id, connection, turn));
            }
        }
        // What became due meanwhile, such as events for other controllers, has its turn next.
        if !self.due.is_empty() {
            progress = Progress::Busy;
        }
        due.append(&mut self.due);
        self.due = due;
        progress
    }

    /// Takes the measure of the process for the listeners that there are.
    pub(super) fn measure_admission(&mut self) {
        let queues: usize = self.controllers.values().map(|c| c.io_queues.len()).sum();
        self.admission.measure(self.connections.len() + queues);
    }

    /// Has the next poll serve a connection.
    pub(super) fn wake(&mut self, id: u64) {
        self.due.push(id);
    }

    fn accept(&mut self, turn: &mut Turn<'_, '_>) -> Progress {
        let mut progress = Progress::Idle;
        if !self.admission.may_accept(turn.cx.now()) {
            return progress;
        }
        let mut accepted = Vec::new();
        for (&addr, listener) in &mut self.ports {
            for _ in 0..ACCEPTS_MAX {
                match listener.accept(turn.cx.net()) {
                    Ok(Some((stream, peer))) => accepted.push((stream, peer, addr)),
                    Ok(None) => break,
                    // That of a connection that is gone already: the next one may be in order.
                    Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                    // No descriptors or memory.
                    Err(error) => {
                        let again = self.admission.accept_failed(turn.cx.now());
                        turn.cx.set_timer(again, token::of(token::CONNECT, 0));
                        self.said
                            .say(addr, &format!("cannot accept: {error}"), turn.cx.now());
                        break;
                    }
                }
            }
        }
        for (stream, peer, addr) in accepted {
            progress = Progress::Busy;
            if self.make_room(peer, turn) {
                self.welcome(stream, peer, addr, turn);
            }
        }
        progress
    }

    fn welcome(
        &mut self,
        mut stream: Stream,
        peer: SocketAddr,
        listener: SocketAddr,
        turn: &mut Turn<'_, '_>,
    ) {
        let id = self.new_id();
        let deadline = turn.cx.now() + CONNECT_TIMEOUT;
        turn.cx.set_timer(deadline, token::of(token::CONNECT, id));
        turn.cx.watch(&mut stream, token::of(token::CONNECTION, id));
        self.admission.note(id, peer.ip());
        self.connections.insert(
            id,
            Box::new(HomeConnection {
                conn: Connection::new(id, stream, peer, listener),
                phase: Phase::Handshake,
            }),
        );
    }

    /// Sees to it that one more connection may come, which may cost another one. Returns whether there is room.
    fn make_room(&mut self, peer: SocketAddr, turn: &mut Turn<'_, '_>) -> bool {
        let queues: usize = self.controllers.values().map(|c| c.io_queues.len()).sum();
        let connections = &self.connections;
        let is_unconnected = |id| {
            let known = connections.get(&id);
            known.is_some_and(|c| c.phase == Phase::Handshake)
        };
        let now = turn.cx.now();
        match self
            .admission
            .admit(connections.len() + queues, is_unconnected, now)
        {
            Verdict::Admit => true,
            Verdict::Replace(id, reason) => {
                self.said.say(peer, reason, now);
                self.connections.remove(&id);
                true
            }
            Verdict::Refuse(reason) => {
                self.said.say(peer, reason, now);
                false
            }
        }
    }

    /// Serves one connection, which is out of the table meanwhile.
    fn serve(
        &mut self,
        id: u64,
        mut connection: Box<HomeConnection>,
        turn: &mut Turn<'_, '_>,
    ) -> Progress {
        let mut progress = Progress::Idle;
        connection.conn.stream.take_ready();
        connection.conn.wake(turn.buffers);
        let mut unread = true;
        for _ in 0..ROUNDS_MAX {
            let received = match connection.conn.fill() {
                Ok(n) => n,
                Err(end) => {
                    self.ended(connection, end, turn);
                    return Progress::Busy;
                }
            };
            if received > 0 {
                progress = Progress::Busy;
            }
            match self.process(&mut connection, turn) {
                Ok(None) => {}
                Ok(Some(queue)) => {
                    connection.conn.rest(turn.buffers);
                    self.hand_over(connection.conn, queue, turn);
                    return Progress::Busy;
                }
                Err(end) => {
                    self.ended(connection, end, turn);
                    return Progress::Busy;
                }
            }
            if received == 0 {
                unread = false;
                break;
            }
        }
        if let Phase::Admin(key) = connection.phase
            && let Some(controller) = self.controllers.get_mut(&key)
        {
            unread |= !controller.put_answers(&mut connection.conn.out);
        }
        // What found no room is taken up again when room has been made.
        unread |= !connection.conn.out.has_room();
        match connection.conn.flush() {
            Ok(p) => progress = progress.or(p),
            Err(end) => {
                self.ended(connection, end, turn);
                return Progress::Busy;
            }
        }
        // Of room that the peer has to make an edge tells.
        if unread && !connection.conn.is_blocked() {
            self.due.push(id);
        }
        connection.conn.rest(turn.buffers);
        self.connections.insert(id, connection);
        progress
    }

    /// Takes the PDUs that have arrived. Returns what was connected if it is an I/O queue.
    fn process(
        &mut self,
        connection: &mut HomeConnection,
        turn: &mut Turn<'_, '_>,
    ) -> Result<Option<Connected>, End> {
        while connection.conn.out.has_room() {
            let Some(frame) = connection.conn.next_frame()? else {
                break;
            };
            match frame.pdu_type {
                PduType::ICREQ => super::handshake::initialize(&mut connection.conn, &frame)?,
                PduType::CAPSULE_CMD => {
                    if frame.data_len > IN_CAPSULE_MAX {
                        return Err(connection.conn.fault(ProtocolError::new(
                            Fes::LIMIT_EXCEEDED,
                            "more in-capsule data than is allowed",
                        )));
                    }
                    if connection.conn.rx.data().len() < frame.total_len {
                        break;
                    }
                    let queue = self.capsule(connection, &frame, turn)?;
                    connection.conn.rx.consume(frame.total_len);
                    if queue.is_some() {
                        return Ok(queue);
                    }
                }
                PduType::H2C_DATA => {
                    // No R2T is ever sent on an admin queue.
                    return Err(connection
                        .conn
                        .fault(ProtocolError::field(10, "H2CData for an unknown TTAG")));
                }
                _ => return Err(End::Terminated),
            }
        }
        Ok(None)
    }

    fn capsule(
        &mut self,
        connection: &mut HomeConnection,
        frame: &Frame,
        turn: &mut Turn<'_, '_>,
    ) -> Result<Option<Connected>, End> {
        let bytes = connection.conn.rx.data();
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
        match connection.phase {
            Phase::Admin(key) => {
                let full = self.controllers.get_mut(&key).is_none_or(|controller| {
                    controller.events.forget(sqe.cid.get());
                    controller.is_admin_queue_full()
                });
                if full {
                    return Err(connection.conn.fault(ProtocolError::sequence(
                        "more commands than the submission queue has entries",
                    )));
                }
                self.admin_command(key, &sqe, data, intact, turn);
                Ok(None)
            }
            Phase::Handshake => {
                let result = if intact {
                    self.connect(&connection.conn, &sqe, data, turn)
                } else {
                    let reason = "the capsule's data digest is wrong";
                    Err(Refusal::new(Status::TRANSIENT_TRANSPORT_ERROR, reason))
                };
                let cqe = super::handshake::connect_response(&sqe, &result);
                connection.conn.out.complete(cqe);
                match result {
                    Ok(connected) if connected.qid == 0 => {
                        connection.phase = Phase::Admin(connected.key);
                        Ok(None)
                    }
                    Ok(connected) => Ok(Some(connected)),
                    Err(refusal) => {
                        let peer = connection.conn.peer;
                        self.note_refusal(peer, &refusal.describe(data), turn);
                        Ok(None)
                    }
                }
            }
        }
    }

    /// Gives the connection of an I/O queue to its reactor.
    fn hand_over(&mut self, conn: Connection, connected: Connected, turn: &mut Turn<'_, '_>) {
        let Connected {
            key,
            qid,
            entries,
            flow_control,
            reactor,
            ..
        } = connected;
        let queue = Box::new(IoQueue::new(conn, (key, qid), entries, flow_control));
        turn.links.send_io(reactor, IoMessage::Adopt { key, queue });
    }

    /// A connection is over; with it, if it carried an admin queue, its controller.
    fn ended(&mut self, connection: Box<HomeConnection>, end: End, turn: &mut Turn<'_, '_>) {
        if let Some(reason) = end.reason() {
            self.note_fault(Fault {
                at: turn.cx.now(),
                peer: connection.conn.peer,
                qid: matches!(connection.phase, Phase::Admin(_)).then_some(0),
                reason,
            });
        }
        if let Phase::Admin(key) = connection.phase {
            self.forget_controller(key, turn);
        }
        turn.lingering
            .add(connection.conn, end, turn.buffers, turn.cx);
    }

    /// A Connect was refused, for the reason in `what`.
    #[cold]
    fn note_refusal(&mut self, peer: SocketAddr, what: &str, turn: &Turn<'_, '_>) {
        self.refused_connects += 1;
        self.said.say(peer, what, turn.cx.now());
    }

    fn note_fault(&mut self, fault: Fault) {
        let what = match fault.qid {
            Some(qid) => format!("queue {qid} ended: {}", fault.reason),
            None => format!("connection ended before a Connect: {}", fault.reason),
        };
        self.said.say(fault.peer, &what, fault.at);
        self.faults_total += 1;
        if self.faults.len() >= FAULTS_KEPT {
            self.faults.pop_front();
        }
        self.faults.push_back(fault);
    }

    /// Removes a controller with its admin connection and its queues.
    pub(super) fn close_controller(&mut self, key: ControllerKey, turn: &mut Turn<'_, '_>) {
        if let Some(controller) = self.controllers.get(&key) {
            self.connections.remove(&controller.admin.connection);
        }
        self.forget_controller(key, turn);
    }

    fn forget_controller(&mut self, key: ControllerKey, turn: &mut Turn<'_, '_>) {
        if self
            .controllers
            .remove(&key)
            .is_some_and(|c| !c.is_discovery())
        {
            for reactor in 0..turn.links.reactors() {
                turn.links.send_io(reactor, IoMessage::Close { key });
            }
        }
    }

    /// Removes the controllers for which `of` holds.
    pub(super) fn close_controllers(
        &mut self,
        of: impl Fn(&Controller) -> bool,
        turn: &mut Turn<'_, '_>,
    ) {
        let keys: Vec<ControllerKey> = self
            .controllers
            .values()
            .filter(|c| of(c))
            .map(|c| c.key)
            .collect();
        for key in keys {
            self.close_controller(key, turn);
        }
    }

    /// (Re)starts the keep-alive timer of a controller.
    pub(super) fn start_keep_alive(controller: &mut Controller, turn: &mut Turn<'_, '_>) {
        if let Some(timer) = controller.keep_alive.timer.take() {
            turn.cx.cancel_timer(timer);
        }
        if let Some(timeout) = controller.keep_alive_timeout() {
            let token = token::of(token::KEEP_ALIVE, controller.key.0);
            let timer = turn.cx.set_timer(controller.last_seen + timeout, token);
            controller.keep_alive.timer = Some(timer);
        }
    }

    fn check_keep_alive(&mut self, key: ControllerKey, turn: &mut Turn<'_, '_>) {
        let Some(controller) = self.controllers.get_mut(&key) else {
            return;
        };
        controller.keep_alive.timer = None;
        let Some(timeout) = controller.keep_alive_timeout() else {
            return;
        };
        if turn.cx.now() < controller.last_seen + timeout {
            Self::start_keep_alive(controller, turn);
            return;
        }
        if !controller.keep_alive.in_grace {
            controller.keep_alive.in_grace = true;
            let token = token::of(token::KEEP_ALIVE, key.0);
            let timer = turn.cx.set_timer(turn.cx.now() + KEEP_ALIVE_GRACE, token);
            controller.keep_alive.timer = Some(timer);
            return;
        }
        let fault = Fault {
            at: turn.cx.now(),
            peer: controller.admin.peer,
            qid: Some(0),
            reason: "keep-alive timeout",
        };
        self.note_fault(fault);
        self.close_controller(key, turn);
    }

    /// Raises an event at the controllers for which `at` holds.
    pub(super) fn raise(&mut self, kind: Kind, at: impl Fn(&Controller) -> bool) {
        for controller in self.controllers.values_mut().filter(|c| at(c)) {
            controller.events.raise(kind);
            if controller.deliver_events() {
                self.due.push(controller.admin.connection);
            }
        }
    }

    /// Whether the next poll has something to do.
    pub(super) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// What the Discovery log lists has changed.
    pub(super) fn note_discovery_change(&mut self) {
        self.discovery.generation += 1;
        self.raise(Kind::Discovery, Controller::is_discovery);
    }
}

impl std::fmt::Debug for Home {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Home")
            .field("subsystems", &self.subsystems)
            .field("controllers", &self.controllers)
            .field("connections", &self.connections.len())
            .finish_non_exhaustive()
    }
}
