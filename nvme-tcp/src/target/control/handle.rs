//! The way to a running target from outside.

use std::sync::mpsc;

use pollux_reactor::Sender;

use crate::target::control::message::{Envelope, HomeMessage, TargetMessage};
use crate::target::control::request::{Reply, TargetReply, TargetRequest};
use crate::target::error::TargetError;

/// Sends requests to a target. Clones reach the same target.
#[derive(Debug, Clone)]
pub struct TargetHandle {
    pub(in crate::target) home: Sender<TargetMessage>,
}

impl TargetHandle {
    /// Sends a request. `reply` runs with the answer on the home reactor, so it must not block; it is
    /// dropped without being run if the target stops before.
    pub fn request(&self, request: TargetRequest, reply: Reply) {
        let message = TargetMessage(Envelope::Home(HomeMessage::Request { request, reply }));
        if let Err(TargetMessage(Envelope::Home(HomeMessage::Request { reply, .. }))) =
            self.home.send(message)
        {
            reply(Err(TargetError::Busy));
        }
    }

    /// Sends a request and waits for the answer. For ordinary threads: on a reactor it would block, and on
    /// the target's own forever.
    ///
    /// # Errors
    /// What the target has to say against the request, [`TargetError::Busy`], or
    /// [`TargetError::Stopped`].
    pub fn call(&self, request: TargetRequest) -> Result<TargetReply, TargetError> {
        let (sender, receiver) = mpsc::channel();
        self.request(
            request,
            Box::new(move |answer| {
                // The caller waits below, so there is somebody to take the answer.
                let _ = sender.send(answer);
            }),
        );
        receiver.recv().unwrap_or(Err(TargetError::Stopped))
    }
}
