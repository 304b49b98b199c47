//! One connection of home: what it is, and how its authentication stands.

use pollux_reactor::Time;

use crate::auth::{Agreed, Computation, ControllerTransaction};
use crate::target::conn::connection::Connection;
use crate::target::control::handshake::Connected;
use crate::target::io::ControllerKey;

/// What a connection is to home.
#[derive(Debug, Clone, Copy)]
pub(super) enum Role {
    /// ICReq or Connect is still to come.
    Unconnected,
    /// The admin queue of this controller.
    Admin(ControllerKey),
    /// An I/O queue that is not handed over before its host has authenticated.
    Authenticating(Connected),
}

impl Role {
    /// Whose queue it is.
    pub(super) fn key(&self) -> Option<ControllerKey> {
        match self {
            Self::Unconnected => None,
            Self::Admin(key) | Self::Authenticating(Connected { key, .. }) => Some(*key),
        }
    }
}

/// The authentication of an I/O queue that serves already, whose host authenticates again.
#[derive(Debug)]
pub(super) struct Again {
    pub(super) connection: u64,
    pub(super) auth: Option<Box<Authentication>>,
}

/// Where an authentication is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// With this connection of home.
    Connection(u64),
    /// With this I/O queue of a controller.
    Queue(ControllerKey, u16),
}

/// A connection of home.
#[derive(Debug)]
pub(super) struct HomeConnection {
    pub(super) conn: Connection,
    pub(super) role: Role,
    /// When its Connect, or its authentication, must be over.
    pub(super) deadline: Time,
    /// The commands of an I/O queue that have come.
    pub(super) commands: u16,
    pub(super) auth: Option<Box<Authentication>>,
}

impl HomeConnection {
    /// Whether nothing is served on it yet.
    pub(super) fn is_awaited(&self) -> bool {
        match self.role {
            Role::Unconnected | Role::Authenticating(_) => true,
            Role::Admin(_) => self.auth.as_ref().is_some_and(|auth| auth.bars()),
        }
    }

    /// The I/O queue that can be handed over now.
    pub(super) fn let_in(&self) -> Option<Connected> {
        match self.role {
            Role::Authenticating(queue) if self.auth.as_ref().is_some_and(|auth| !auth.bars()) => {
                Some(queue)
            }
            _ => None,
        }
    }
}

/// How the authentication of one queue stands.
#[derive(Debug, Default)]
pub(super) struct Authentication {
    pub(super) transaction: Option<Box<ControllerTransaction>>,
    pub(super) computation: Option<Computation>,
    /// An Authentication Receive that waits for it: its command identifier and AL.
    pub(super) waiting: Option<(u16, usize)>,
    /// What was agreed on, once the host has authenticated.
    pub(super) agreed: Option<Agreed>,
    /// Nothing else is carried out before it has.
    required: bool,
    /// A key for TLS may come out of it.
    concatenates: bool,
    pub(super) failed: Option<&'static str>,
}

impl Authentication {
    /// That of a queue which must authenticate; a key for TLS may come out of it if it `concatenates`.
    pub(super) fn required(concatenates: bool) -> Box<Self> {
        Box::new(Self {
            required: true,
            concatenates,
            ..Self::default()
        })
    }

    /// Whether a key for TLS may come out of it.
    pub(super) fn concatenates(&self) -> bool {
        self.concatenates
    }

    /// Whether other commands are not carried out yet.
    pub(super) fn bars(&self) -> bool {
        self.required && self.agreed.is_none()
    }

    /// Why the connection is to end.
    pub(super) fn failed(&self) -> Option<&'static str> {
        self.failed
    }
}
