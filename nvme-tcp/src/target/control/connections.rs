//! Connections until their queue is known, and those of admin queues.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use pollux_reactor::{Progress, Stream};
use zerocopy::FromBytes;

use crate::pdu::{DataDigest, Frame, ProtocolError};
use crate::spec::pdu::{CapsuleCmd, DIGEST_LEN, Fes, PduType};
use crate::spec::status::Status;
use crate::target::conn::connection::{Connection, End, IN_CAPSULE_MAX};
use crate::target::control::admission::Verdict;
use crate::target::control::authentication::{AUTHENTICATION_TIMEOUT, is_authentication};
use crate::target::control::connection::{Authentication, HomeConnection, Role};
use crate::target::control::handshake::{self, Connected, Refusal};
use crate::target::control::{Home, HomeTurn};
use crate::target::io::message::IoMessage;
use crate::target::io::queue::IoQueue;
use crate::target::status::Fault;
use crate::target::token;
use crate::tls::{Manner, Session};

/// Time from accept to an accepted Connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections accepted per listener and turn.
const ACCEPTS_MAX: usize = 16;

/// Receives per admin connection and turn.
const ROUNDS_MAX: usize = 4;

impl Home {
    /// Takes the measure of the process for the listeners that there are.
    pub(in crate::target) fn measure_admission(&mut self) {
        let queues: usize = self.controllers.values().map(|c| c.io_queues.len()).sum();
        self.admission.measure(self.connections.len() + queues);
    }

    pub(super) fn accept(&mut self, turn: &mut HomeTurn<'_, '_>) -> Progress {
        let mut progress = Progress::Idle;
        if !self.admission.may_accept(turn.cx.now()) {
            return progress;
        }
        let mut accepted = Vec::new();
        for (&addr, (listener, _)) in &mut self.ports {
            for _ in 0..ACCEPTS_MAX {
                match listener.accept(turn.cx.net()) {
                    Ok(Some((stream, peer))) => accepted.push((stream, peer, addr)),
                    Ok(None) => break,
                    // The connection is gone already: the next one may be in order.
                    Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                    // No descriptors or memory.
                    Err(error) => {
                        self.admission.accept_failed(turn.cx.now());
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
        turn: &mut HomeTurn<'_, '_>,
    ) {
        let id = self.new_id();
        let mut session = None;
        let is_secure = self.is_secure(listener);
        let manner = Manner {
            threads: self.threads,
            optional: !is_secure,
            ktls: self.config.ktls,
        };
        if is_secure {
            let keys = self.config.psks(listener);
            (stream, session) = Session::accept(turn.cx.net(), stream, keys, manner);
        } else {
            let keys = self.generated_at(listener, turn.cx.now());
            if !keys.is_empty() {
                (stream, session) = Session::accept(turn.cx.net(), stream, keys.iter(), manner);
            }
        }
        let deadline = turn.cx.now() + CONNECT_TIMEOUT;
        turn.cx.set_timer(deadline, token::of(token::CONNECT, id));
        turn.cx.watch(&mut stream, token::of(token::CONNECTION, id));
        self.admission.note(id, peer.ip());
        self.connections.insert(
            id,
            Box::new(HomeConnection {
                conn: Connection::new(id, (stream, session), peer, listener),
                role: Role::Unconnected,
                deadline,
                commands: 0,
                auth: None,
            }),
        );
    }

    /// Sees to it that one more connection may come, which may cost another one. Returns whether there is room.
    fn make_room(&mut self, peer: SocketAddr, turn: &mut HomeTurn<'_, '_>) -> bool {
        let queues: usize = self.controllers.values().map(|c| c.io_queues.len()).sum();
        let connections = &self.connections;
        let is_unconnected = |id| {
            let known = connections.get(&id);
            known.is_some_and(|c| c.is_awaited())
        };
        let now = turn.cx.now();
        match self
            .admission
            .admit(connections.len() + queues, is_unconnected, now)
        {
            Verdict::Admit => true,
            Verdict::Replace(id, reason) => {
                self.said.say(peer, reason, now);
                if let Some(connection) = self.connections.remove(&id) {
                    self.leave(&connection, turn);
                }
                true
            }
            Verdict::Refuse(reason) => {
                self.said.say(peer, reason, now);
                false
            }
        }
    }

    /// Serves one connection, which is out of the table meanwhile.
    pub(super) fn serve(
        &mut self,
        id: u64,
        mut connection: Box<HomeConnection>,
        turn: &mut HomeTurn<'_, '_>,
    ) -> Progress {
        let mut progress = Progress::Idle;
        connection.conn.stream.take_ready();
        connection.conn.wake(turn.buffers);
        self.settle_authentication(&mut connection, turn.cx.now());
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
                    self.hand_over(*connection, queue, turn);
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
        let mut unanswered = false;
        if let Role::Admin(key) = connection.role
            && let Some(controller) = self.controllers.get_mut(&key)
        {
            unanswered = !controller.put_answers(&mut connection.conn.out);
        }
        if !unanswered && let Some(reason) = connection.auth.as_ref().and_then(|auth| auth.failed())
        {
            self.ended(connection, End::Fault(reason), turn);
            return Progress::Busy;
        }
        unread |= unanswered;
        // What found no room is taken up again when room has been made.
        unread |= !connection.conn.out.has_room();
        match connection.conn.flush() {
            Ok(p) => progress = progress.or(p),
            Err(end) => {
                self.ended(connection, end, turn);
                return Progress::Busy;
            }
        }
        // An edge tells when the peer has made room.
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
        turn: &mut HomeTurn<'_, '_>,
    ) -> Result<Option<Connected>, End> {
        if let Some(queue) = connection.let_in() {
            return Ok(Some(queue));
        }
        while connection.conn.out.has_room() {
            let Some(frame) = connection.conn.next_frame()? else {
                break;
            };
            match frame.pdu_type {
                PduType::ICREQ => handshake::initialize(&mut connection.conn, &frame)?,
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
                    if let Some(queue) = queue.or_else(|| connection.let_in()) {
                        return Ok(Some(queue));
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
        turn: &mut HomeTurn<'_, '_>,
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
        match connection.role {
            Role::Admin(key) => {
                let full = self.controllers.get_mut(&key).is_none_or(|controller| {
                    controller.events.forget(sqe.cid.get());
                    controller.is_admin_queue_full()
                });
                if full {
                    return Err(connection.conn.fault(ProtocolError::sequence(
                        "more commands than the submission queue has entries",
                    )));
                }
                let now = turn.cx.now();
                if is_authentication(&sqe) && intact {
                    let data = data.to_vec();
                    self.note_admin_command(key, now);
                    self.authenticate(connection, &sqe, &data, now);
                } else if connection.is_awaited() {
                    self.note_admin_command(key, now);
                    self.bar(connection, &sqe, intact);
                } else {
                    self.admin_command(key, &sqe, data, intact, turn);
                }
                Ok(None)
            }
            Role::Authenticating(_) => {
                connection.commands = connection.commands.wrapping_add(1);
                if is_authentication(&sqe) && intact {
                    let data = data.to_vec();
                    self.authenticate(connection, &sqe, &data, turn.cx.now());
                } else {
                    self.bar(connection, &sqe, intact);
                }
                Ok(None)
            }
            Role::Unconnected => {
                let result = if intact {
                    self.connect(&connection.conn, &sqe, data, turn)
                } else {
                    let reason = "the capsule's data digest is wrong";
                    Err(Refusal::new(Status::TRANSIENT_TRANSPORT_ERROR, reason))
                };
                let cqe = handshake::connect_response(&sqe, &result);
                connection.conn.out.complete(cqe);
                if let Ok(connected) = result
                    && connected.authenticate
                {
                    let id = connection.conn.id;
                    let concatenates =
                        cfg!(feature = "tls") && connected.qid == 0 && !connection.conn.is_secure();
                    connection.auth = Some(Authentication::required(concatenates));
                    connection.deadline = turn.cx.now() + AUTHENTICATION_TIMEOUT;
                    let token = token::of(token::CONNECT, id);
                    turn.cx.set_timer(connection.deadline, token);
                }
                connection.commands = 1;
                match result {
                    Ok(connected) if connected.qid == 0 => {
                        connection.role = Role::Admin(connected.key);
                        Ok(None)
                    }
                    Ok(connected) if connected.authenticate => {
                        connection.role = Role::Authenticating(connected);
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
    fn hand_over(
        &mut self,
        connection: HomeConnection,
        connected: Connected,
        turn: &mut HomeTurn<'_, '_>,
    ) {
        let Connected {
            key,
            qid,
            entries,
            flow_control,
            reactor,
            ..
        } = connected;
        let HomeConnection { conn, commands, .. } = connection;
        let of = (key, qid);
        let queue = Box::new(IoQueue::new(conn, of, entries, flow_control, commands));
        turn.links.send_io(reactor, IoMessage::Adopt { key, queue });
    }

    /// A connection is over; with it, if it carried an admin queue, its controller.
    pub(super) fn ended(
        &mut self,
        connection: Box<HomeConnection>,
        end: End,
        turn: &mut HomeTurn<'_, '_>,
    ) {
        if let Some(reason) = end.reason() {
            self.note_fault(Fault {
                at: turn.cx.now(),
                peer: connection.conn.peer,
                qid: match connection.role {
                    Role::Unconnected => None,
                    Role::Admin(_) => Some(0),
                    Role::Authenticating(queue) => Some(queue.qid),
                },
                reason,
            });
        }
        self.leave(&connection, turn);
        turn.lingering
            .add(connection.conn, end, turn.buffers, turn.cx);
    }

    /// What goes with a connection: a controller, or the place of its queue.
    fn leave(&mut self, connection: &HomeConnection, turn: &mut HomeTurn<'_, '_>) {
        match connection.role {
            Role::Unconnected => {}
            Role::Admin(key) => self.forget_controller(key, turn),
            Role::Authenticating(queue) => {
                if let Some(controller) = self.controllers.get_mut(&queue.key) {
                    let id = connection.conn.id;
                    controller
                        .io_queues
                        .retain(|_, entry| entry.connection != id);
                }
            }
        }
    }

    /// The time of a connection to send its Connect, or to authenticate, is over.
    pub(super) fn connect_overdue(&mut self, id: u64, turn: &mut HomeTurn<'_, '_>) {
        if let Some(c) = self.connections.get(&id)
            && c.is_awaited()
            && turn.cx.now() >= c.deadline
        {
            let end = End::Overdue(match c.role {
                Role::Unconnected => "no ICReq and Connect within 10 s",
                _ => "not authenticated within 30 s",
            });
            if let Some(c) = self.connections.remove(&id) {
                self.ended(c, end, turn);
            }
        }
    }
}
