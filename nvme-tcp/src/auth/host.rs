//! The host's side of one authentication transaction, as a value: messages in, messages out, no I/O.

use zeroize::Zeroizing;

use super::dh::{Job, Powers};
use super::response::{Agreed, Keys, Names, Nonce, Policy, Proof, generate};
use super::{AuthError, DhGroup, Hash};
use crate::spec::authentication::{Body, Explanation, Message, Offer, SC_C_NEW_TLS_PSK, SC_C_NONE};
use crate::tls::{HostTls, TlsPsk};

/// What a host is to do next.
#[derive(Debug)]
pub enum HostStep {
    /// Send this message by Authentication Send, and ask again when that has succeeded.
    Send(Vec<u8>),
    /// Fetch a message by Authentication Receive, and hand it to [`HostTransaction::received`].
    Receive,
    /// Have this done, and hand the result to [`HostTransaction::computed`].
    Compute(Job),
    /// Wait for what is being computed.
    Wait,
    /// It has succeeded.
    Done(Agreed),
    /// It has failed; the controller knows.
    Failed(AuthError),
}

/// Where a transaction stands.
#[derive(Debug)]
enum State {
    /// AUTH_Negotiate is to be sent.
    Negotiate,
    /// The challenge is to be fetched.
    Challenge,
    /// What the challenge asks for is to be computed.
    ToCompute(Box<Challenge>),
    Computing(Box<Challenge>),
    /// The reply is to be sent.
    Reply(Vec<u8>),
    /// Success1 is to be fetched.
    Success1,
    /// Success2 is to be sent.
    Success2,
    Done,
    /// AUTH_Failure2 is to be sent.
    Failing(Explanation, AuthError),
    Failed(AuthError),
}

/// A challenge that has arrived.
#[derive(Debug)]
struct Challenge {
    seqnum: u32,
    challenge: Vec<u8>,
    dh: Vec<u8>,
}

/// The host's side of one transaction.
#[derive(Debug)]
pub struct HostTransaction {
    names: Names,
    keys: Keys,
    policy: Policy,
    nonce: Nonce,
    t_id: u16,
    state: State,
    hash: Hash,
    group: DhGroup,
    shared: Option<Zeroizing<Vec<u8>>>,
    sc_c: u8,
    generated: Option<TlsPsk>,
}

impl HostTransaction {
    /// A transaction that begins with AUTH_Negotiate. With a controller's key, the controller has to prove that it has it.
    pub fn new(names: Names, keys: Keys, policy: Policy, nonce: Nonce, t_id: u16) -> Self {
        Self {
            names,
            keys,
            policy,
            nonce,
            t_id,
            state: State::Negotiate,
            hash: Hash::Sha256,
            group: DhGroup::Null,
            shared: None,
            sc_c: SC_C_NONE,
            generated: None,
        }
    }

    /// Asks for a key for TLS to come out of it (secure concatenation).
    #[must_use]
    pub fn with_concatenation(mut self) -> Self {
        self.policy = self.policy.for_tls();
        self.sc_c = SC_C_NEW_TLS_PSK;
        self
    }

    /// The key for TLS that has come out of it, once it has succeeded.
    pub fn generated(&self) -> Option<&TlsPsk> {
        let done = matches!(self.state, State::Done);
        self.generated.as_ref().filter(|_| done)
    }

    /// The same, as connections are made with it.
    #[cfg(feature = "tls")]
    pub(crate) fn host_tls(&self, threads: bool) -> Option<HostTls> {
        let key = self.generated()?.clone();
        Some(HostTls {
            threads,
            ..HostTls::new(key)
        })
    }

    /// Nothing: there is no TLS.
    #[cfg(not(feature = "tls"))]
    pub(crate) fn host_tls(&self, _: bool) -> Option<HostTls> {
        None
    }

    /// What is to be done next. Asked again for what was handed out, it says what follows that.
    pub fn step(&mut self) -> HostStep {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Negotiate => {
                let hashes: Vec<u8> = self.policy.hashes.iter().map(|h| h.id().0).collect();
                let groups: Vec<u8> = self.policy.groups.iter().map(|g| g.id().0).collect();
                let offer = Some(Offer {
                    hashes: &hashes,
                    groups: &groups,
                });
                let sc_c = self.sc_c;
                self.go(State::Challenge, &Body::Negotiate { sc_c, offer })
            }
            State::ToCompute(challenge) => {
                let job = Job::publish_and_agree(self.group, &self.nonce.exponent, &challenge.dh);
                self.state = State::Computing(challenge);
                HostStep::Compute(job)
            }
            State::Computing(challenge) => {
                self.state = State::Computing(challenge);
                HostStep::Wait
            }
            State::Reply(reply) => {
                self.state = State::Success1;
                HostStep::Send(reply)
            }
            State::Success2 => self.go(State::Done, &Body::Success2),
            State::Failing(explanation, error) => {
                self.go(State::Failed(error), &Body::Failure2(explanation))
            }
            State::Failed(error) => {
                self.state = State::Failed(error);
                HostStep::Failed(error)
            }
            State::Done => HostStep::Done(Agreed {
                hash: self.hash,
                group: self.group,
                both_ways: self.keys.controller.is_some(),
            }),
            state @ (State::Challenge | State::Success1) => {
                self.state = state;
                HostStep::Receive
            }
        }
    }

    fn go(&mut self, next: State, body: &Body<'_>) -> HostStep {
        self.state = next;
        let t_id = self.t_id;
        HostStep::Send(Message { t_id, body: *body }.emit())
    }

    /// Takes what an Authentication Receive has brought.
    pub fn received(&mut self, bytes: &[u8]) {
        let body = match Message::parse(bytes) {
            Ok(message) if message.t_id == self.t_id => message.body,
            Ok(Message { body, .. }) => {
                let what = "a message of another transaction";
                // A controller that has not even understood the first message may know no T_ID.
                match body {
                    Body::Failure1(explanation) => {
                        self.state = State::Failed(AuthError::Refused(explanation));
                    }
                    _ => self.fail(Explanation::INCORRECT_PAYLOAD, AuthError::Protocol(what)),
                }
                return;
            }
            Err((_, explanation)) => {
                let what = "a message that cannot be read";
                return self.fail(explanation, AuthError::Protocol(what));
            }
        };
        match (&self.state, body) {
            (_, Body::Failure1(explanation)) => {
                self.state = State::Failed(AuthError::Refused(explanation));
            }
            (
                State::Challenge,
                Body::Challenge {
                    hash,
                    group,
                    seqnum,
                    challenge,
                    dh,
                },
            ) => {
                let policy = &self.policy;
                let hash = Hash::from_id(hash).filter(|hash| policy.hashes.contains(hash));
                let group = DhGroup::from_id(group).filter(|g| policy.groups.contains(g));
                let (Some(hash), Some(group)) = (hash, group) else {
                    let what = "a hash function or DH group that was not offered";
                    let explanation = match hash {
                        None => Explanation::HASH_NOT_USABLE,
                        Some(_) => Explanation::DH_GROUP_NOT_USABLE,
                    };
                    return self.fail(explanation, AuthError::Protocol(what));
                };
                let has_dh = group != DhGroup::Null;
                let fits = challenge.len() == hash.size()
                    && dh.is_empty() != has_dh
                    && dh.len() <= group.value_len()
                    && seqnum != 0;
                if !fits {
                    let what = "a challenge with a value of the wrong length";
                    let error = AuthError::Protocol(what);
                    return self.fail(Explanation::INCORRECT_PAYLOAD, error);
                }
                (self.hash, self.group) = (hash, group);
                let challenge = Box::new(Challenge {
                    seqnum,
                    challenge: challenge.to_vec(),
                    dh: dh.to_vec(),
                });
                match has_dh {
                    true => self.state = State::ToCompute(challenge),
                    false => self.reply(&challenge, &[]),
                }
            }
            (State::Success1, Body::Success1 { hash_len, response }) => {
                self.on_success1(hash_len, response);
            }
            _ => {
                let what = "a message that is not due";
                self.fail(Explanation::INCORRECT_MESSAGE, AuthError::Protocol(what));
            }
        }
    }

    /// Takes the result of a job.
    pub fn computed(&mut self, powers: Powers) {
        let State::Computing(challenge) = std::mem::replace(&mut self.state, State::Done) else {
            unreachable!("a job was handed out, and nothing else follows it")
        };
        match powers.shared {
            Some(shared) => {
                self.shared = Some(shared);
                self.reply(&challenge, &powers.public);
            }
            None => {
                let what = "a DH value that is not one of its group";
                self.fail(Explanation::INCORRECT_PAYLOAD, AuthError::Protocol(what));
            }
        }
    }

    fn reply(&mut self, challenge: &Challenge, dh: &[u8]) {
        let response = self
            .proof(challenge.seqnum, &challenge.challenge)
            .of_host(&self.keys.host);
        let asks = self.keys.controller.is_some();
        let own = &self.nonce.challenge[..self.hash.size()];
        let concatenates = self.sc_c != SC_C_NONE;
        if let Some(shared) = self.shared.as_ref().filter(|_| concatenates) {
            let challenges = [challenge.challenge.as_slice(), own];
            self.generated = generate(self.hash, shared, challenges, &self.names);
        }
        let body = Body::Reply {
            response: &response,
            challenge: (asks || concatenates).then_some(own),
            seqnum: if asks { self.nonce.seqnum } else { 0 },
            dh,
        };
        let t_id = self.t_id;
        self.state = State::Reply(Message { t_id, body }.emit());
    }

    fn on_success1(&mut self, hash_len: u8, response: Option<&[u8]>) {
        let fits = usize::from(hash_len) == self.hash.size();
        let Some(secret) = &self.keys.controller else {
            match fits && response.is_none() {
                true => self.state = State::Done,
                false => {
                    let what = "a response that was not asked for";
                    self.fail(Explanation::INCORRECT_PAYLOAD, AuthError::Protocol(what));
                }
            }
            return;
        };
        let challenge = &self.nonce.challenge[..self.hash.size()];
        let is_right = fits
            && response.is_some_and(|response| {
                self.proof(self.nonce.seqnum, challenge)
                    .is_of_controller(secret, response)
            });
        match is_right {
            true => self.state = State::Success2,
            false => self.fail(
                Explanation::AUTHENTICATION_FAILED,
                AuthError::ControllerNotAuthentic,
            ),
        }
    }

    fn proof<'a>(&'a self, seqnum: u32, challenge: &'a [u8]) -> Proof<'a> {
        Proof {
            hash: self.hash,
            t_id: self.t_id,
            sc_c: self.sc_c,
            seqnum,
            challenge,
            shared: self.shared.as_ref().map(|shared| shared.as_slice()),
            names: &self.names,
        }
    }

    fn fail(&mut self, explanation: Explanation, error: AuthError) {
        self.state = State::Failing(explanation, error);
    }
}
