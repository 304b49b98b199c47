//! What the services of a target send each other. Messages between two services arrive in order.

use crate::target::control::request::{Reply, TargetRequest};
use crate::target::io::message::{IoEvent, IoMessage};

/// A message to a [`TargetService`](crate::target::TargetService); made by a
/// [`TargetHandle`](crate::target::TargetHandle) and by the services themselves.
#[derive(Debug)]
pub struct TargetMessage(pub(in crate::target) Envelope);

#[derive(Debug)]
pub(in crate::target) enum Envelope {
    Home(HomeMessage),
    Io(IoMessage),
    /// A question to all reactors may be answered: home has a turn.
    Woken,
}

/// To the home service.
pub(in crate::target) enum HomeMessage {
    /// From a handle.
    Request {
        request: TargetRequest,
        reply: Reply,
    },
    /// From the I/O part of a reactor.
    Io(IoEvent),
}

impl std::fmt::Debug for HomeMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Request { .. } => f.write_str("Request"),
            Self::Io(event) => event.fmt(f),
        }
    }
}
