//! Hosts that have keys prove who they are before a queue of theirs does anything else (NVMe Base 2.1, 8.3.5.5).
//!
//! Such a Connect is answered with ATR. The queue stays with home, and no other command of it is carried out, until its
//! transaction has succeeded; an I/O queue is handed over then. What takes milliseconds is done by other threads. A host that
//! fails learns why as far as it may, and its connection ends.

use std::time::Duration;

use pollux_reactor::{Progress, Time};

use crate::auth::{Agreed, Answered, Computation, ControllerTransaction, LOOK_AGAIN, Names, Nonce};
use crate::spec::authentication::{Explanation, RECEIVE_LEN};
use crate::spec::nqn::{HostNqn, Nqn};
use crate::spec::opcode::{FABRICS, fctype};
use crate::spec::status::Status;
use crate::spec::{Cqe, Sqe};
use crate::target::LOG_FLAG;
use crate::target::admin::command::{check_answer_len, host_data};
use crate::target::config::HostKeys;
use crate::target::control::connection::{Again, Authentication, HomeConnection, Place, Role};
use crate::target::control::{Home, HomeTurn};
use crate::target::io::ControllerKey;
use crate::target::io::message::{Authenticated, IoMessage};
use crate::target::io::queue::execute::Authenticate;
use crate::tls::HostPsk;

/// Time from a Connect to the end of its authentication.
pub(super) const AUTHENTICATION_TIMEOUT: Duration = Duration::from_secs(30);

/// Whether this is Authentication Send or Receive.
pub(super) fn is_authentication(sqe: &Sqe) -> bool {
    let of = [fctype::AUTHENTICATION_SEND, fctype::AUTHENTICATION_RECEIVE];
    sqe.opcode == FABRICS && of.contains(&sqe.fctype())
}

impl Home {
    /// The keys of a host at a subsystem, if it has to authenticate there.
    pub(super) fn keys_of(&self, subnqn: &Nqn, hostnqn: &HostNqn) -> Option<&HostKeys> {
        let subsystem = self.config.subsystems.get(subnqn)?;
        subsystem.hosts.get(hostnqn)?.keys.as_ref()
    }

    /// Carries out Authentication Send or Receive of a connection.
    #[cold]
    pub(super) fn authenticate(
        &mut self,
        connection: &mut HomeConnection,
        sqe: &Sqe,
        data: &[u8],
        now: Time,
    ) {
        let of = (Place::Connection(connection.conn.id), connection.role.key());
        if let Some(result) = self.carry_out(of, &mut connection.auth, sqe, data, now) {
            self.answer_authentication(connection, sqe.cid.get(), result);
        }
        self.settle_authentication(connection, now);
    }

    /// The same of an I/O queue that serves.
    #[cold]
    pub(super) fn authenticate_again(&mut self, asked: &Authenticate, turn: &mut HomeTurn<'_, '_>) {
        let (key, qid, connection) = (asked.key, asked.qid, asked.connection);
        let entry = self
            .controllers
            .get(&key)
            .and_then(|c| c.io_queues.get(&qid));
        if entry.is_none_or(|entry| entry.connection != connection) {
            // The queue has gone meanwhile.
            return;
        }
        let known = self.again.remove(&(key, qid));
        let known = known.filter(|again| again.connection == connection);
        let mut auth = known.and_then(|again| again.auth);
        let of = (Place::Queue(key, qid), Some(key));
        let answer = self.carry_out(of, &mut auth, &asked.sqe, &asked.data, turn.cx.now());
        self.again.insert((key, qid), Again { connection, auth });
        if let Some(result) = answer {
            self.tell_queue((key, qid), Some((asked.sqe.cid.get(), result)), None, turn);
        }
        self.settle_queue((key, qid), turn);
    }

    /// Carries out a command; `None`: it is answered when its transaction is settled.
    fn carry_out(
        &mut self,
        (place, key): (Place, Option<ControllerKey>),
        auth: &mut Option<Box<Authentication>>,
        sqe: &Sqe,
        data: &[u8],
        now: Time,
    ) -> Option<Result<Vec<u8>, Status>> {
        match sqe.fctype() {
            fctype::AUTHENTICATION_SEND => {
                let done = self.authentication_send((place, key), auth, sqe, data, now);
                Some(done.map(|()| Vec::new()))
            }
            _ => self.authentication_receive(key, auth, sqe).err().map(Err),
        }
    }

    fn authentication_send(
        &mut self,
        (place, key): (Place, Option<ControllerKey>),
        auth: &mut Option<Box<Authentication>>,
        sqe: &Sqe,
        data: &[u8],
        now: Time,
    ) -> Result<(), Status> {
        let command = sqe.as_authentication();
        let data = host_data(sqe, data)?;
        if !command.is_nvme() || data.is_empty() || command.length.get() as usize != data.len() {
            return Err(Status::INVALID_FIELD.with_dnr());
        }
        let auth = self.begin_transaction(key, auth)?;
        if let Some(transaction) = &mut auth.transaction
            && let Some(job) = transaction.send(data)
        {
            auth.computation = Some(Computation::start(job, self.threads));
            self.computing.insert(place);
            self.look_again_at = Some(now + LOOK_AGAIN);
        }
        Ok(())
    }

    fn authentication_receive(
        &mut self,
        key: Option<ControllerKey>,
        auth: &mut Option<Box<Authentication>>,
        sqe: &Sqe,
    ) -> Result<(), Status> {
        let command = sqe.as_authentication();
        let room = command.length.get() as usize;
        if !command.is_nvme() || room == 0 {
            return Err(Status::INVALID_FIELD.with_dnr());
        }
        check_answer_len(sqe, room)?;
        let auth = self.begin_transaction(key, auth)?;
        if auth.waiting.is_some() {
            return Err(Status::COMMAND_SEQUENCE_ERROR.with_dnr());
        }
        auth.waiting = Some((sqe.cid.get(), room));
        Ok(())
    }

    /// Begins a transaction, unless one is under way.
    fn begin_transaction<'a>(
        &self,
        key: Option<ControllerKey>,
        auth: &'a mut Option<Box<Authentication>>,
    ) -> Result<&'a mut Authentication, Status> {
        let under_way = auth.as_ref().and_then(|auth| auth.transaction.as_ref());
        let begins = under_way.is_none_or(|t| matches!(t.outcome(), Some(Ok(_))));
        let concatenates = auth.as_ref().is_some_and(|auth| auth.concatenates());
        let transaction = begins
            .then(|| self.new_transaction(key, concatenates))
            .transpose()?;
        let auth = auth.get_or_insert_default();
        if let Some(transaction) = transaction {
            auth.transaction = Some(Box::new(transaction));
        }
        Ok(auth)
    }

    fn new_transaction(
        &self,
        key: Option<ControllerKey>,
        concatenates: bool,
    ) -> Result<ControllerTransaction, Status> {
        let controller = key.and_then(|key| self.controllers.get(&key));
        let controller = controller.ok_or(Status::INTERNAL_ERROR)?;
        let keys = self.keys_of(&controller.subnqn, &controller.hostnqn);
        // Where no host has keys there is no such command.
        let keys = keys.ok_or(Status::INVALID_OPCODE.with_dnr())?;
        let names = Names {
            host: controller.hostnqn.as_str().to_owned(),
            subsystem: controller.subnqn.as_str().to_owned(),
        };
        let nonce = Nonce::draw().map_err(|_| Status::INTERNAL_ERROR)?;
        let policy = self.config.auth_policy.clone();
        let keys = keys.keys.clone();
        Ok(ControllerTransaction::new(names, keys, policy, nonce).with_concatenation(concatenates))
    }

    /// Answers an Authentication Receive that waits, if it can be, and takes note of how the transaction has ended. The
    /// connection has its buffers.
    pub(super) fn settle_authentication(&mut self, connection: &mut HomeConnection, now: Time) {
        let Some(settled) = connection.auth.as_deref_mut().map(settle) else {
            return;
        };
        if let (Some(agreed), Some(key)) = (settled.agreed, connection.role.key()) {
            let qid = match connection.role {
                Role::Authenticating(queue) => queue.qid,
                _ => 0,
            };
            self.note_authenticated(key, qid, agreed);
            if let Some(psk) = settled.generated {
                self.note_generated(key, (psk, agreed), now);
            }
        }
        if let Some((cid, answer)) = settled.answer {
            self.answer_authentication(connection, cid, answer);
        }
    }

    /// The same of an I/O queue that serves.
    fn settle_queue(&mut self, (key, qid): (ControllerKey, u16), turn: &mut HomeTurn<'_, '_>) {
        let again = self.again.get_mut(&(key, qid));
        let Some(auth) = again.and_then(|again| again.auth.as_deref_mut()) else {
            return;
        };
        let settled = settle(auth);
        let failed = auth.failed;
        if let Some(agreed) = settled.agreed {
            self.note_authenticated(key, qid, agreed);
        }
        if settled.answer.is_some() || failed.is_some() {
            self.tell_queue((key, qid), settled.answer, failed, turn);
        }
    }

    fn tell_queue(
        &self,
        (key, qid): (ControllerKey, u16),
        answer: Option<(u16, Result<Vec<u8>, Status>)>,
        end: Option<&'static str>,
        turn: &mut HomeTurn<'_, '_>,
    ) {
        let entry = self
            .controllers
            .get(&key)
            .and_then(|c| c.io_queues.get(&qid));
        if let Some(entry) = entry {
            let said = Authenticated {
                key,
                qid,
                connection: entry.connection,
                answer,
                end,
            };
            let message = IoMessage::Authenticated(Box::new(said));
            turn.links.send_io(entry.reactor, message);
        }
    }

    fn note_authenticated(&mut self, key: ControllerKey, qid: u16, agreed: Agreed) {
        let Some(controller) = self.controllers.get_mut(&key) else {
            return;
        };
        let (hash, group) = agreed.names();
        log::debug!(
            target: LOG_FLAG,
            "{}: host {} has authenticated queue {qid} with {hash} and {group}",
            controller.admin.peer,
            controller.hostnqn
        );
        match controller.io_queues.get_mut(&qid) {
            Some(entry) => entry.auth = Some(agreed),
            None if qid == 0 => controller.admin.auth = Some(agreed),
            None => {}
        }
    }

    /// Refuses a command of a queue that has not authenticated.
    #[cold]
    pub(super) fn bar(&mut self, connection: &mut HomeConnection, sqe: &Sqe, intact: bool) {
        let status = match intact {
            true => Status::AUTHENTICATION_REQUIRED.with_dnr(),
            false => Status::TRANSIENT_TRANSPORT_ERROR,
        };
        self.answer_authentication(connection, sqe.cid.get(), Err(status));
    }

    fn answer_authentication(
        &mut self,
        connection: &mut HomeConnection,
        cid: u16,
        result: Result<Vec<u8>, Status>,
    ) {
        let (status, data) = match result {
            Ok(data) => (Status::SUCCESS, data),
            Err(status) => (status, Vec::new()),
        };
        match connection.role {
            Role::Unconnected => {
                unreachable!("a connection without a Connect authenticates nothing")
            }
            Role::Admin(key) => {
                if let Some(controller) = self.controllers.get_mut(&key) {
                    controller.answer(cid, status, 0, data);
                }
            }
            Role::Authenticating(queue) => {
                let out = &mut connection.conn.out;
                if !out.has_room_for(data.len()) {
                    if let Some(auth) = &mut connection.auth {
                        auth.failed = Some("takes no answers during authentication");
                    }
                    return;
                }
                if !data.is_empty() {
                    out.put_data(cid, 0, &data, true);
                }
                let sqhd = match queue.flow_control {
                    true => connection.commands % queue.entries,
                    false => 0,
                };
                out.complete(Cqe {
                    sqhd: sqhd.into(),
                    ..Cqe::new(cid, status)
                });
            }
        }
    }

    /// Takes what other threads have computed.
    #[cold]
    pub(super) fn take_computed(&mut self, turn: &mut HomeTurn<'_, '_>) -> Progress {
        let mut done = Vec::new();
        let (connections, again) = (&mut self.connections, &mut self.again);
        self.computing.retain(|&place| {
            let auth = match place {
                Place::Connection(id) => connections.get_mut(&id).map(|c| &mut c.auth),
                Place::Queue(key, qid) => again.get_mut(&(key, qid)).map(|a| &mut a.auth),
            };
            let Some(auth) = auth.and_then(|auth| auth.as_deref_mut()) else {
                return false;
            };
            let Some(computation) = &mut auth.computation else {
                return false;
            };
            let Some(powers) = computation.take() else {
                return true;
            };
            auth.computation = None;
            if let Some(transaction) = &mut auth.transaction {
                transaction.computed(powers);
            }
            done.push(place);
            false
        });
        let again = turn.cx.now() + LOOK_AGAIN;
        self.look_again_at = (!self.computing.is_empty()).then_some(again);
        for &place in &done {
            match place {
                Place::Connection(id) => self.due.push(id),
                Place::Queue(key, qid) => self.settle_queue((key, qid), turn),
            }
        }
        match done.is_empty() {
            true => Progress::Idle,
            false => Progress::Busy,
        }
    }
}

/// What there is to be said of a transaction.
struct Settled {
    /// The answer to the Authentication Receive that waited.
    answer: Option<(u16, Result<Vec<u8>, Status>)>,
    /// What was agreed on, when that is news.
    agreed: Option<Agreed>,
    /// The key for TLS that has come out of it then.
    generated: Option<HostPsk>,
}

fn settle(auth: &mut Authentication) -> Settled {
    let (mut answer, mut news, mut generated) = (None, None, None);
    let Some(transaction) = &mut auth.transaction else {
        return Settled {
            answer,
            agreed: news,
            generated,
        };
    };
    if let Some((cid, room)) = auth.waiting {
        match transaction.receive(room) {
            Answered::Later => {}
            Answered::NoRoom => answer = Some((cid, Err(Status::INVALID_FIELD.with_dnr()))),
            Answered::Message(mut message) => {
                // Hosts expect as much as they have asked for.
                let padded = room.min(RECEIVE_LEN as usize).max(message.len());
                message.resize(padded, 0);
                answer = Some((cid, Ok(message)));
            }
        }
    }
    if answer.is_some() {
        auth.waiting = None;
    }
    match transaction.outcome() {
        Some(Ok(agreed)) if auth.agreed != Some(agreed) => {
            auth.agreed = Some(agreed);
            news = Some(agreed);
            generated = transaction.host_psk();
        }
        Some(Err(explanation)) => auth.failed = Some(reason(explanation)),
        _ => {}
    }
    Settled {
        answer,
        agreed: news,
        generated,
    }
}

/// Why a connection ends, for the log and the list of faults.
fn reason(explanation: Explanation) -> &'static str {
    match explanation {
        Explanation::AUTHENTICATION_FAILED => {
            "the host or the subsystem could not authenticate (wrong or missing key)"
        }
        Explanation::HASH_NOT_USABLE => "authentication: no hash function in common",
        Explanation::DH_GROUP_NOT_USABLE => "authentication: no DH group in common",
        Explanation::CONCATENATION_MISMATCH => {
            "authentication: the host asks for a secure channel that is not to be had here"
        }
        Explanation::PROTOCOL_NOT_USABLE => "authentication: the host does not offer DH-HMAC-CHAP",
        Explanation::INCORRECT_PAYLOAD => "authentication: a message with a wrong value or length",
        Explanation::INCORRECT_MESSAGE => "authentication: a message that was not due",
        _ => "authentication: failed for a reason that is not known",
    }
}
