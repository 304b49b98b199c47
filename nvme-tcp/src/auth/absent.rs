//! What stands in for authentication where the feature `auth` is off: nobody can have keys, so nothing of this can ever be.

use crate::spec::authentication::Explanation;
use std::time::Duration;

use super::AuthError;
use crate::tls::{HostPsk, HostTls};

macro_rules! impossible {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub enum $name {}
        )*
    };
}

impossible! {
    /// The secrets of a host at a subsystem.
    Keys,
    /// What was agreed on by a transaction that succeeded.
    #[derive(Copy)]
    Agreed,
    /// What one side draws for one transaction.
    Nonce,
    /// Arithmetic of one side of one transaction.
    Job,
    /// What comes out of a [`Job`].
    Powers,
    /// A job that is on its way.
    Computation,
    /// The controller's side of one transaction.
    ControllerTransaction,
    /// The host's side of one transaction.
    HostTransaction,
}

/// How long after it began, and after each time it was not done, a computation is to be looked at.
pub const LOOK_AGAIN: Duration = Duration::from_micros(500);

/// What may be agreed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {}

/// Keys by name: there are none.
#[derive(Debug, Default)]
pub struct Keyring {}

/// Who authenticates to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// HOSTNQN.
    pub host: String,
    /// SUBNQN.
    pub subsystem: String,
}

/// What an Authentication Receive command gets.
#[derive(Debug, PartialEq, Eq)]
pub enum Answered {
    /// This message.
    Message(Vec<u8>),
    /// A message later.
    Later,
    /// Nothing.
    NoRoom,
}

/// What a host is to do next.
#[derive(Debug)]
pub enum HostStep {
    /// Send this message.
    Send(Vec<u8>),
    /// Fetch a message.
    Receive,
    /// Have this done.
    Compute(Job),
    /// Wait for what is being computed.
    Wait,
    /// It has succeeded.
    Done(Agreed),
    /// It has failed.
    Failed(AuthError),
}

impl Keys {
    /// The controller has to prove itself, too.
    pub fn are_both_ways(&self) -> bool {
        match *self {}
    }
}

impl Agreed {
    /// Names of the hash function and of the group.
    pub fn names(&self) -> (&'static str, &'static str) {
        match *self {}
    }
}

impl Nonce {
    /// Never.
    ///
    /// # Errors
    /// Always.
    pub fn draw() -> std::io::Result<Self> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

impl Computation {
    /// Never.
    pub fn start(job: Job, _: bool) -> Self {
        match job {}
    }

    /// Never.
    pub fn take(&mut self) -> Option<Powers> {
        match *self {}
    }
}

impl ControllerTransaction {
    /// Never.
    pub fn new(_: Names, keys: Keys, _: Policy, _: Nonce) -> Self {
        match keys {}
    }

    /// Never.
    #[must_use]
    pub fn with_concatenation(self, _: bool) -> Self {
        self
    }

    /// Never.
    pub(crate) fn host_psk(&self) -> Option<HostPsk> {
        match *self {}
    }

    /// Never.
    pub fn outcome(&self) -> Option<Result<Agreed, Explanation>> {
        match *self {}
    }

    /// Never.
    pub fn send(&mut self, _: &[u8]) -> Option<Job> {
        match *self {}
    }

    /// Never.
    pub fn computed(&mut self, _: Powers) {
        match *self {}
    }

    /// Never.
    pub fn receive(&mut self, _: usize) -> Answered {
        match *self {}
    }
}

impl HostTransaction {
    /// Never.
    pub fn new(_: Names, keys: Keys, _: Policy, _: Nonce, _: u16) -> Self {
        match keys {}
    }

    /// Never.
    #[must_use]
    pub fn with_concatenation(self) -> Self {
        self
    }

    /// Never.
    pub(crate) fn host_tls(&self, _: bool) -> Option<HostTls> {
        match *self {}
    }

    /// Never.
    pub fn step(&mut self) -> HostStep {
        match *self {}
    }

    /// Never.
    pub fn received(&mut self, _: &[u8]) {
        match *self {}
    }

    /// Never.
    pub fn computed(&mut self, _: Powers) {
        match *self {}
    }
}
