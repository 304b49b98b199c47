//! How a queue pair authenticates after Connect, before it may be used (NVMe Base 2.1, 8.3.5.5).

use pollux_reactor::{Progress, Time};

use super::{QueueError, QueuePair, State};
use crate::auth::{
    AuthError, Computation, HostAuth, HostStep, HostTransaction, LOOK_AGAIN, Names, Nonce,
};
use crate::host::request::{Command, Lost, Outcome, Request, Transfer};
use crate::spec::authentication::{RECEIVE_LEN, SECP_NVME, SPSP};
use crate::spec::fabrics::ConnectSuccess;
use crate::spec::opcode::{FABRICS, fctype};

/// An authentication that is under way.
#[derive(Debug)]
pub(super) struct Authenticating {
    transaction: HostTransaction,
    /// It is to bring a key for TLS.
    concatenates: bool,
    threads: bool,
    computation: Option<Computation>,
    /// When to ask for the result.
    look_at: Time,
    /// The command that is outstanding, and whether it is Authentication Receive.
    slot: Option<u16>,
    receives: bool,
    /// When the queue, which serves, must have authenticated again.
    deadline: Time,
}

impl Authenticating {
    /// When it has something to do although nothing arrives.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.computation.as_ref().map(|_| self.look_at)
    }

    /// Whether the command in this slot belongs to it.
    pub(super) fn has(&self, slot: u16) -> bool {
        self.slot == Some(slot)
    }
}

impl<T> QueuePair<T> {
    /// Connect has succeeded, with this result.
    pub(super) fn connected(&mut self, result: u32) -> Result<(), QueueError> {
        let success = ConnectSuccess::from_bits(result);
        self.controller_id = success.cntlid();
        self.transmitter.finish_connect();
        let asked = self.options.auth.as_ref().is_some_and(|a| a.concatenate);
        let concatenates = asked && self.options.tls.is_none();
        if success.ascr() && !concatenates {
            return Err(AuthError::SecureChannel.into());
        }
        let Some(auth) = &self.options.auth else {
            if success.atr() {
                return Err(AuthError::NoKey.into());
            }
            self.state = State::Ready;
            return Ok(());
        };
        // A controller that is to prove itself has to, whether it wants anything of the host or not. Whom a discovery
        // service names has to, and so it need not.
        let proves = auth.keys.are_both_ways() && !self.options.subnqn.is_discovery();
        if !success.atr() && !proves && !concatenates {
            self.state = State::Ready;
            return Ok(());
        }
        self.state = State::Authenticating;
        self.begin_authentication(self.deadline)
    }

    /// Why the connection has ended, given what its stream says: one that ends before the queue has authenticated has
    /// most likely been refused.
    pub(super) fn explained(&self, error: QueueError) -> QueueError {
        match (&self.authenticating, error) {
            (Some(auth), QueueError::Closed | QueueError::Socket(_) | QueueError::Tls(_))
                if self.state == State::Authenticating =>
            {
                let concatenates = auth.concatenates;
                AuthError::Ended { concatenates }.into()
            }
            _ => error,
        }
    }

    fn begin_authentication(&mut self, deadline: Time) -> Result<(), QueueError> {
        self.wants_authentication = false;
        let options = &self.options;
        let Some(auth) = &options.auth else {
            return Ok(());
        };
        let nonce = Nonce::draw().map_err(|_| AuthError::Local("no random numbers"))?;
        let names = Names {
            host: options.host.nqn.as_str().to_owned(),
            subsystem: options.subnqn.as_str().to_owned(),
        };
        // Any number tells transactions of one queue apart, of which there is one at a time.
        let t_id = options.queue_id;
        let (keys, policy) = (auth.keys.clone(), auth.policy.clone());
        let concatenates = auth.concatenate && options.queue_id == 0 && options.tls.is_none();
        let mut transaction = HostTransaction::new(names, keys, policy, nonce, t_id);
        if concatenates {
            transaction = transaction.with_concatenation();
        }
        self.authenticating = Some(Box::new(Authenticating {
            transaction,
            concatenates,
            threads: auth.threads,
            computation: None,
            look_at: Time::ZERO,
            slot: None,
            receives: false,
            deadline,
        }));
        self.authenticate()
    }

    /// Has the queue, if it serves, authenticate again with these keys while it goes on serving; with none, only what is
    /// connected later has none. Whoever calls this also calls [`go_on_authenticating`](Self::go_on_authenticating).
    pub fn authenticate_again(&mut self, auth: Option<HostAuth>) {
        self.wants_authentication = auth.is_some();
        self.options.auth = auth;
    }

    /// Goes on with an authentication of a queue that serves: to be called every [`LOOK_AGAIN`] as long as it returns true.
    ///
    /// # Errors
    /// Why it has failed; the connection is to be ended with that.
    pub fn go_on_authenticating(&mut self, now: Time) -> Result<bool, QueueError> {
        if self.state != State::Ready {
            return Ok(false);
        }
        if let Some(auth) = &mut self.authenticating {
            if now >= auth.deadline {
                return Err(QueueError::Timeout("end of authentication"));
            }
            if auth.computation.is_some() {
                // The caller comes again in any case.
                let _ = self.take_computed(now)?;
            } else if auth.slot.is_none() {
                // There was no room for its command.
                self.authenticate()?;
            }
        } else if self.wants_authentication {
            let deadline = now + self.options.timeout;
            self.begin_authentication(deadline)?;
        }
        Ok(self.wants_authentication || self.authenticating.is_some())
    }

    /// Takes the answer to Authentication Send or Receive, with its buffer.
    pub(super) fn on_authentication_answer(
        &mut self,
        outcome: Outcome,
        buffer: &[u8],
    ) -> Result<(), QueueError> {
        match outcome {
            Outcome::Completed { status, .. } if !status.is_success() => {
                return Err(AuthError::Command(status).into());
            }
            // Controllers may send less than was asked for: a message has its own length.
            Outcome::Completed { .. } | Outcome::Lost(Lost::ShortData) => {}
            Outcome::Lost(Lost::DataDigest) => {
                return Err(AuthError::Protocol("a message with a wrong digest").into());
            }
            Outcome::Lost(Lost::Connection { .. }) => return Err(QueueError::Closed),
        }
        if let Some(auth) = &mut self.authenticating {
            auth.slot = None;
            if auth.receives {
                auth.transaction.received(buffer);
            }
        }
        self.authenticate()
    }

    /// Takes the result of another thread, if it is there.
    pub(super) fn take_computed(&mut self, now: Time) -> Result<Progress, QueueError> {
        let Some(auth) = &mut self.authenticating else {
            return Ok(Progress::Idle);
        };
        let Some(computation) = &mut auth.computation else {
            return Ok(Progress::Idle);
        };
        match computation.take() {
            None => {
                auth.look_at = now + LOOK_AGAIN;
                Ok(Progress::Idle)
            }
            Some(powers) => {
                auth.computation = None;
                auth.transaction.computed(powers);
                self.authenticate().map(|()| Progress::Busy)
            }
        }
    }

    /// Does what is next.
    fn authenticate(&mut self) -> Result<(), QueueError> {
        let Some(auth) = &mut self.authenticating else {
            return Ok(());
        };
        if self.table.is_full() {
            return Ok(());
        }
        let request = match auth.transaction.step() {
            HostStep::Send(message) => {
                auth.receives = false;
                let length = message.len();
                let command = command(fctype::AUTHENTICATION_SEND, length);
                Request::plain(command, Transfer::ToController, length, message)
            }
            HostStep::Receive => {
                auth.receives = true;
                let length = RECEIVE_LEN as usize;
                let command = command(fctype::AUTHENTICATION_RECEIVE, length);
                Request::plain(command, Transfer::FromController, length, vec![0; length])
            }
            HostStep::Compute(job) => {
                auth.computation = Some(Computation::start(job, auth.threads));
                auth.look_at = Time::ZERO;
                return Ok(());
            }
            HostStep::Wait => return Ok(()),
            HostStep::Done(_) => {
                if auth.concatenates {
                    self.generated = auth.transaction.host_tls(auth.threads);
                    if self.generated.is_none() {
                        return Err(AuthError::Local("this program has no TLS").into());
                    }
                }
                self.authenticating = None;
                self.state = State::Ready;
                return Ok(());
            }
            HostStep::Failed(error) => return Err(error.into()),
        };
        auth.slot = self.table.insert_own(request);
        debug_assert!(auth.slot.is_some(), "there is a slot");
        if let Some(slot) = auth.slot {
            self.transmitter.issue(slot);
        }
        self.transmitter.transmit(&mut self.stream, &mut self.table)
    }
}

fn command(fctype: u8, length: usize) -> Command {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "no message is longer than 4,096 bytes"
    )]
    let length = length as u32;
    Command {
        opcode: FABRICS,
        nsid: fctype.into(),
        // Bytes 40 to 43: reserved, SPSP0, SPSP1, SECP; 44 to 47: TL or AL.
        cdw: [
            u32::from_le_bytes([0, SPSP, SPSP, SECP_NVME]),
            length,
            0,
            0,
            0,
            0,
        ],
    }
}
