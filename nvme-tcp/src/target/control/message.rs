//! What the services of a target send each other. Messages between two services arrive in order.

use std::fmt;

use crate::target::control::{Home, HomeTurn};
use crate::target::error::TargetError;
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

/// Does what a handle was asked for; or answers why not, if it does not come that far.
pub(in crate::target) type Order =
    Box<dyn FnOnce(Result<(&mut Home, &mut HomeTurn<'_, '_>), TargetError>) + Send>;

/// To the home service.
pub(in crate::target) enum HomeMessage {
    /// From a handle.
    Order(Order),
    /// From the I/O part of a reactor.
    Io(IoEvent),
}

impl fmt::Debug for HomeMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Order(_) => f.write_str("Order"),
            Self::Io(event) => event.fmt(f),
        }
    }
}
