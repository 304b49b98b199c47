//! Hosts that have keys prove who they are before a queue of theirs does anything else (NVMe Base 2.1, 8.3.5.5).
//!
//! Such a Connect is answered with ATR. The queue stays with home, and no other command of it is carried out, until its
//! transaction has succeeded; an I/O queue is handed over then. What takes milliseconds is done by other threads. A host that
//! fails learns why as far as it may, and its connection ends.

use std::time::Duration;

use pollux_reactor::{Progress, Time};

use crate::auth::{Agreed, Answer, Computation, ControllerTransaction, LOOK_AGAIN, Names, Nonce};
use crate::spec::authentication::{Explanation, RECEIVE_LEN};
use crate::spec::nqn::{HostNqn, Nqn};
use crate::spec::opcode::{FABRICS, fctype};
use crate::spec::status::Status;
use crate::spec::{Cqe, Sqe};
use crate::target::LOG_FLAG;
use crate::target::admin::command::{check_answer_len, host_data};
use crate::target::config::HostKeys;
use crate::target::control::connection::{HomeConnection, Role};
use crate::target::control::{Home, HomeTurn};
use crate::target::io::ControllerKey;

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
        subsystem.hosts.get(hostnqn)?.as_ref()
    }

    /// Carries out Authentication Send or Receive.
    #[cold]
    pub(super) fn authenticate(
        &mut self,
        connection: &mut HomeConnection,
        sqe: &Sqe,
        data: &[u8],
        now: Time,
    ) {
        let cid = sqe.cid.get();
        match sqe.fctype() {
            fctype::AUTHENTICATION_SEND => {
                let result = self.authentication_send(connection, sqe, data, now);
                self.answer_authentication(connection, cid, result.map(|()| Vec::new()));
            }
            _ => {
                if let Err(status) = self.authentication_receive(connection, sqe) {
                    self.answer_authentication(connection, cid, Err(status));
                }
            }
        }
        self.settle_authentication(connection);
    }

    fn authentication_send(
        &mut self,
        connection: &mut HomeConnection,
        sqe: &Sqe,
        data: &[u8],
        now: Time,
    ) -> Result<(), Status> {
        let command = sqe.as_authentication();
        let data = host_data(sqe, data)?;
        if !command.is_nvme() || data.is_empty() || command.length.get() as usize != data.len() {
            return Err(Status::INVALID_FIELD.with_dnr());
        }
        self.begin_transaction(connection)?;
        let id = connection.conn.id;
        let auth = connection.auth.as_deref_mut();
        if let Some(auth) = auth
            && let Some(transaction) = &mut auth.transaction
            && let Some(job) = transaction.send(data)
        {
            auth.computation = Some(Computation::start(job, self.threads));
            self.computing.insert(id);
            self.look_again_at = Some(now + LOOK_AGAIN);
        }
        Ok(())
    }

    fn authentication_receive(
        &mut self,
        connection: &mut HomeConnection,
        sqe: &Sqe,
    ) -> Result<(), Status> {
        let command = sqe.as_authentication();
        let room = command.length.get() as usize;
        if !command.is_nvme() || room == 0 {
            return Err(Status::INVALID_FIELD.with_dnr());
        }
        check_answer_len(sqe, room)?;
        self.begin_transaction(connection)?;
        if let Some(auth) = &mut connection.auth {
            if auth.waiting.is_some() {
                return Err(Status::COMMAND_SEQUENCE_ERROR.with_dnr());
            }
            auth.waiting = Some((sqe.cid.get(), room));
        }
        Ok(())
    }

    /// Begins a transaction, unless one is under way.
    fn begin_transaction(&self, connection: &mut HomeConnection) -> Result<(), Status> {
        let under_way = connection
            .auth
            .as_ref()
            .and_then(|auth| auth.transaction.as_ref());
        if under_way.is_none_or(|t| matches!(t.outcome(), Some(Ok(_)))) {
            let transaction = self.new_transaction(connection.role.key())?;
            let auth = connection.auth.get_or_insert_default();
            auth.transaction = Some(Box::new(transaction));
        }
        Ok(())
    }

    fn new_transaction(&self, key: Option<ControllerKey>) -> Result<ControllerTransaction, Status> {
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
        Ok(ControllerTransaction::new(
            names,
            keys.keys.clone(),
            policy,
            nonce,
        ))
    }

    /// Answers an Authentication Receive that waits, if it can be, and takes note of how the transaction has ended. The
    /// connection has its buffers.
    pub(super) fn settle_authentication(&mut self, connection: &mut HomeConnection) {
        let Some(auth) = connection.auth.as_deref_mut() else {
            return;
        };
        let Some(transaction) = &mut auth.transaction else {
            return;
        };
        let mut answer = None;
        if let Some((cid, room)) = auth.waiting {
            match transaction.receive(room) {
                Answer::Later => {}
                Answer::NoRoom => answer = Some((cid, Err(Status::INVALID_FIELD.with_dnr()))),
                Answer::Message(mut message) => {
                    // Hosts expect as much as they have asked for.
                    let padded = room.min(RECEIVE_LEN as usize).max(message.len());
                    message.resize(padded, 0);
                    answer = Some((cid, Ok(message)));
                }
            }
        }
        let outcome = transaction.outcome();
        if answer.is_some() {
            auth.waiting = None;
        }
        match outcome {
            Some(Ok(agreed)) if auth.agreed != Some(agreed) => {
                auth.agreed = Some(agreed);
                self.note_authenticated(connection, agreed);
            }
            Some(Err(explanation)) => auth.failed = Some(reason(explanation)),
            _ => {}
        }
        if let Some((cid, answer)) = answer {
            self.answer_authentication(connection, cid, answer);
        }
    }

    fn note_authenticated(&mut self, connection: &HomeConnection, agreed: Agreed) {
        let Some(controller) = connection
            .role
            .key()
            .and_then(|key| self.controllers.get_mut(&key))
        else {
            return;
        };
        let (hash, group) = agreed.names();
        let peer = connection.conn.peer;
        log::debug!(
            target: LOG_FLAG,
            "{peer}: host {} has authenticated with {hash} and {group}",
            controller.hostnqn
        );
        match connection.role {
            Role::Authenticating(queue) => {
                if let Some(entry) = controller.io_queues.get_mut(&queue.qid) {
                    entry.auth = Some(agreed);
                }
            }
            _ => controller.admin.auth = Some(agreed),
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
    pub(super) fn take_computed(&mut self, turn: &HomeTurn<'_, '_>) -> Progress {
        let (mut progress, due) = (Progress::Idle, &mut self.due);
        let connections = &mut self.connections;
        self.computing.retain(|id| {
            let Some(auth) = connections.get_mut(id).and_then(|c| c.auth.as_deref_mut()) else {
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
            due.push(*id);
            progress = Progress::Busy;
            false
        });
        let again = turn.cx.now() + LOOK_AGAIN;
        self.look_again_at = (!self.computing.is_empty()).then_some(again);
        progress
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
        Explanation::CONCATENATION_MISMATCH => "authentication: the host asks for a secure channel",
        Explanation::PROTOCOL_NOT_USABLE => "authentication: the host does not offer DH-HMAC-CHAP",
        Explanation::INCORRECT_PAYLOAD => "authentication: a message with a wrong value or length",
        Explanation::INCORRECT_MESSAGE => "authentication: a message that was not due",
        _ => "authentication: failed for a reason that is not known",
    }
}
