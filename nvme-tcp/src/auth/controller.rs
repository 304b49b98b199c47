//! The controller's side of one authentication transaction, as a value: messages in, messages out, no I/O.

use zeroize::Zeroizing;

use super::dh::{Job, Powers};
use super::response::{Agreed, Keys, Names, Nonce, Policy, Proof, generate};
use super::{DhGroup, Hash};
use crate::spec::authentication::{
    Body, DhGroupId, Explanation, HashId, Message, Offer, SC_C_NEW_TLS_PSK, SC_C_NONE, SEND_MAX,
};
use crate::tls::{HostPsk, TlsPsk};

/// What an Authentication Receive command gets.
#[derive(Debug, PartialEq, Eq)]
pub enum Answered {
    /// This message.
    Message(Vec<u8>),
    /// A message, once the [`Job`] that was handed out is done.
    Later,
    /// Nothing: the command's AL has no room for the message that is due.
    NoRoom,
}

/// Where a transaction stands.
#[derive(Debug)]
enum State {
    /// AUTH_Negotiate is due.
    Negotiate,
    /// The own DH value is being computed.
    Publishing,
    /// The challenge is to be fetched, with this DH value.
    Challenge { dh: Vec<u8> },
    /// The reply is due.
    Reply,
    /// What was sent is checked as soon as both sides' secret is computed.
    Agreeing(Box<Reply>),
    /// Success1 is to be fetched, with this response to the host's challenge.
    Success1 {
        response: Option<Zeroizing<Vec<u8>>>,
    },
    /// Success2 is due.
    Success2,
    /// Over, and well.
    Done { both_ways: bool },
    /// Failure1 is to be fetched.
    Failing(Explanation),
    /// Over.
    Failed(Explanation),
}

/// A reply that has arrived.
#[derive(Debug)]
struct Reply {
    response: Vec<u8>,
    challenge: Option<(u32, Vec<u8>)>,
}

/// The controller's side of one transaction. A host that authenticates again begins another one.
#[derive(Debug)]
pub struct ControllerTransaction {
    names: Names,
    keys: Keys,
    policy: Policy,
    nonce: Nonce,
    state: State,
    t_id: u16,
    hash: Hash,
    group: DhGroup,
    /// The own DH value, which the other side must not send back.
    public: Vec<u8>,
    /// Whether a key for TLS may come out of it.
    may_concatenate: bool,
    sc_c: u8,
    generated: Option<TlsPsk>,
}

impl ControllerTransaction {
    /// A transaction that waits for AUTH_Negotiate.
    pub fn new(names: Names, keys: Keys, policy: Policy, nonce: Nonce) -> Self {
        Self {
            names,
            keys,
            policy,
            nonce,
            state: State::Negotiate,
            t_id: 0,
            hash: Hash::Sha256,
            group: DhGroup::Null,
            public: Vec::new(),
            may_concatenate: false,
            sc_c: SC_C_NONE,
            generated: None,
        }
    }

    /// Lets the host ask for a key for TLS to come out of it (secure concatenation).
    #[must_use]
    pub fn with_concatenation(mut self, may: bool) -> Self {
        self.may_concatenate = may;
        self
    }

    /// The key for TLS that has come out of it, if it has succeeded and the host has asked for one.
    pub fn generated(&self) -> Option<&TlsPsk> {
        let done = matches!(self.state, State::Done { .. });
        self.generated.as_ref().filter(|_| done)
    }

    /// The same, as a target keeps it.
    pub(crate) fn host_psk(&self) -> Option<HostPsk> {
        self.generated().cloned().map(HostPsk::generated)
    }

    /// How it has ended, once it has.
    ///
    /// # Errors
    /// What the host was told, or has told.
    pub fn outcome(&self) -> Option<Result<Agreed, Explanation>> {
        match self.state {
            State::Done { both_ways } => Some(Ok(Agreed {
                hash: self.hash,
                group: self.group,
                both_ways,
            })),
            State::Failed(explanation) => Some(Err(explanation)),
            _ => None,
        }
    }

    /// Takes the data of an Authentication Send command. The job, if there is one, is to be done, and its result handed to
    /// [`computed`](Self::computed).
    pub fn send(&mut self, bytes: &[u8]) -> Option<Job> {
        if matches!(self.state, State::Failing(_) | State::Failed(_)) {
            return None;
        }
        if bytes.len() > SEND_MAX {
            return self.fail(Explanation::INCORRECT_PAYLOAD);
        }
        let message = match Message::parse(bytes) {
            Ok(message) => message,
            Err((t_id, explanation)) => {
                if matches!(self.state, State::Negotiate) {
                    self.t_id = t_id;
                }
                return self.fail(explanation);
            }
        };
        match (&self.state, message.body) {
            (State::Negotiate, Body::Negotiate { sc_c, offer }) => {
                self.t_id = message.t_id;
                match self.choose(sc_c, offer) {
                    Ok(job) => job,
                    Err(explanation) => self.fail(explanation),
                }
            }
            (State::Negotiate, _) => {
                self.t_id = message.t_id;
                self.fail(Explanation::INCORRECT_MESSAGE)
            }
            _ if message.t_id != self.t_id => self.fail(Explanation::INCORRECT_PAYLOAD),
            (
                State::Reply,
                Body::Reply {
                    response,
                    challenge,
                    seqnum,
                    dh,
                },
            ) => {
                let reply = Reply {
                    response: response.to_vec(),
                    challenge: challenge.map(|challenge| (seqnum, challenge.to_vec())),
                };
                self.on_reply(reply, dh)
            }
            (State::Success2, Body::Success2) => {
                self.state = State::Done { both_ways: true };
                None
            }
            // In place of the reply, or of Success2: the host does not want to go on.
            (State::Reply | State::Success2, Body::Failure2(explanation)) => {
                self.state = State::Failed(explanation);
                None
            }
            _ => self.fail(Explanation::INCORRECT_MESSAGE),
        }
    }

    /// Takes the result of a job that [`send`](Self::send) has handed out.
    pub fn computed(&mut self, powers: Powers) {
        match std::mem::replace(&mut self.state, State::Negotiate) {
            State::Publishing => {
                self.public.clone_from(&powers.public);
                self.state = State::Challenge { dh: powers.public };
            }
            State::Agreeing(reply) => match powers.shared {
                Some(shared) => self.check(&reply, Some(&shared)),
                None => self.state = State::Failing(Explanation::INCORRECT_PAYLOAD),
            },
            // The host did not wait for it: that was its end.
            state => self.state = state,
        }
    }

    /// The message for an Authentication Receive command with an AL of `room` bytes.
    pub fn receive(&mut self, room: usize) -> Answered {
        let body = match &self.state {
            State::Publishing | State::Agreeing(_) => return Answered::Later,
            State::Challenge { dh } => Body::Challenge {
                hash: self.hash.id(),
                group: self.group.id(),
                seqnum: self.nonce.seqnum,
                challenge: &self.nonce.challenge[..self.hash.size()],
                dh,
            },
            State::Success1 { response } => Body::Success1 {
                #[expect(clippy::cast_possible_truncation, reason = "at most 64")]
                hash_len: self.hash.size() as u8,
                response: response.as_ref().map(|response| response.as_slice()),
            },
            State::Failing(explanation) | State::Failed(explanation) => {
                Body::Failure1(*explanation)
            }
            // Nothing is to be fetched now.
            State::Negotiate | State::Reply | State::Success2 | State::Done { .. } => {
                self.state = State::Failing(Explanation::INCORRECT_MESSAGE);
                Body::Failure1(Explanation::INCORRECT_MESSAGE)
            }
        };
        let t_id = self.t_id;
        let message = Message { t_id, body }.emit();
        if message.len() > room {
            return Answered::NoRoom;
        }
        match &self.state {
            State::Challenge { .. } => self.state = State::Reply,
            State::Success1 { response: Some(_) } => self.state = State::Success2,
            State::Success1 { response: None } => self.state = State::Done { both_ways: false },
            State::Failing(explanation) => self.state = State::Failed(*explanation),
            _ => {}
        }
        Answered::Message(message)
    }

    fn fail(&mut self, explanation: Explanation) -> Option<Job> {
        self.state = State::Failing(explanation);
        None
    }

    /// Chooses of what the host offers.
    fn choose(&mut self, sc_c: u8, offer: Option<Offer<'_>>) -> Result<Option<Job>, Explanation> {
        match sc_c {
            SC_C_NONE => {}
            SC_C_NEW_TLS_PSK if self.may_concatenate => self.policy = self.policy.for_tls(),
            _ => return Err(Explanation::CONCATENATION_MISMATCH),
        }
        self.sc_c = sc_c;
        let offer = offer.ok_or(Explanation::PROTOCOL_NOT_USABLE)?;
        let offers_hash = |hash: &&Hash| offer.hashes.iter().any(|&id| HashId(id) == hash.id());
        let offers_group =
            |group: &&DhGroup| offer.groups.iter().any(|&id| DhGroupId(id) == group.id());
        let hash = self.policy.hashes.iter().find(offers_hash);
        self.hash = *hash.ok_or(Explanation::HASH_NOT_USABLE)?;
        let group = self.policy.groups.iter().find(offers_group);
        self.group = *group.ok_or(Explanation::DH_GROUP_NOT_USABLE)?;
        if self.group == DhGroup::Null {
            self.state = State::Challenge { dh: Vec::new() };
            return Ok(None);
        }
        self.state = State::Publishing;
        Ok(Some(Job::publish(self.group, &self.nonce.exponent)))
    }

    fn on_reply(&mut self, reply: Reply, dh: &[u8]) -> Option<Job> {
        let has_dh = self.group != DhGroup::Null;
        // A challenge without a number asks for no proof: it is there to make a key of.
        let concatenates = self.sc_c != SC_C_NONE;
        let challenge_fits = match &reply.challenge {
            Some((seqnum, _)) => *seqnum != 0 || concatenates,
            None => !concatenates,
        };
        let fits = reply.response.len() == self.hash.size()
            && dh.is_empty() != has_dh
            && dh.len() <= self.group.value_len()
            && (dh.is_empty() || dh != self.public)
            && challenge_fits;
        if !fits {
            return self.fail(Explanation::INCORRECT_PAYLOAD);
        }
        if !has_dh {
            self.check(&reply, None);
            return None;
        }
        let job = Job::agree(self.group, &self.nonce.exponent, dh);
        self.state = State::Agreeing(Box::new(reply));
        Some(job)
    }

    /// Checks the host's response, and answers its challenge.
    fn check(&mut self, reply: &Reply, shared: Option<&[u8]>) {
        let proof = Proof {
            hash: self.hash,
            t_id: self.t_id,
            sc_c: self.sc_c,
            seqnum: self.nonce.seqnum,
            challenge: &self.nonce.challenge[..self.hash.size()],
            shared,
            names: &self.names,
        };
        if !proof.is_of_host(&self.keys.host, &reply.response) {
            self.state = State::Failing(Explanation::AUTHENTICATION_FAILED);
            return;
        }
        let Some((seqnum, challenge)) = &reply.challenge else {
            self.state = State::Success1 { response: None };
            return;
        };
        if let Some(shared) = shared
            && self.sc_c != SC_C_NONE
        {
            let challenges = [proof.challenge, challenge];
            self.generated = generate(self.hash, shared, challenges, &self.names);
            if *seqnum == 0 {
                self.state = State::Success1 { response: None };
                return;
            }
        }
        let own = Proof {
            seqnum: *seqnum,
            challenge,
            ..proof
        };
        self.state = match &self.keys.controller {
            Some(secret) => State::Success1 {
                response: Some(own.of_controller(secret)),
            },
            // The host is told no more than that.
            None => State::Failing(Explanation::AUTHENTICATION_FAILED),
        };
    }
}
