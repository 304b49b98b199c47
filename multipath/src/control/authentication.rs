//! Controllers that stay connected authenticate again: with other keys on request, and by interval.

use std::time::Duration;

use pollux_nvme_tcp::auth::{HostAuth, KeyNames};
use pollux_nvme_tcp::host::{ControllerError, QueueError};
use pollux_reactor::Time;

use super::Control;
use super::lifecycle::Lifecycle;
use super::member::Member;
use super::shared::Shared;
use super::waiters::Until;
use crate::error::HostError;
use crate::io::{Call, ToIo};
use crate::request::Reply;

/// How long a loss waits for what other queues, which authenticate, have to say of it: a segment may have to be sent again.
const WORD_MAX: Duration = Duration::from_secs(1);

/// A connection has ended, nobody knows why yet, and other queues of the controller authenticate.
#[derive(Debug)]
pub(super) struct Unexplained {
    error: ControllerError,
    /// When it is not waited for any longer.
    pub until: Time,
}

impl Control {
    /// Gives every controller of a name other keys, or none. Those that are connected authenticate with them on all queues;
    /// answered when they have.
    pub(super) fn set_keys(
        &mut self,
        name: &str,
        auth: Option<&HostAuth>,
        key_names: Option<&KeyNames>,
        reply: Reply<()>,
    ) {
        let ids = self.members.ids(|m| m.group == name);
        if ids.is_empty() {
            let error = HostError::NotFound(format!("controller: '{name}'"));
            return reply(Err(error));
        }
        let mut begun = Vec::new();
        for id in ids {
            self.with(id, |member, shared| {
                member.set_keys(auth, key_names);
                if let Some(Unexplained { error, .. }) = member.unexplained.take() {
                    // It is connected again with these.
                    member.lose(error, shared);
                }
                if auth.is_some() && member.lifecycle() == Lifecycle::Live {
                    member.authenticate_again(shared);
                    begun.push(id);
                } else if let Some(controller) = &mut member.controller {
                    // Its queues that are connected from now on have them.
                    controller.authenticate_again(auth.cloned());
                }
            });
        }
        self.shared.waiters.wait(begun, Until::Authenticated, reply);
    }
}

impl Member {
    fn set_keys(&mut self, auth: Option<&HostAuth>, key_names: Option<&KeyNames>) {
        let concatenates = self.options.auth.as_ref().is_some_and(|a| a.concatenate);
        self.options.auth = auth.cloned();
        if let Some(auth) = &mut self.options.auth {
            auth.concatenate = concatenates;
        }
        self.options.key_names = key_names.cloned();
        self.controller_options
            .connect
            .auth
            .clone_from(&self.options.auth);
    }

    /// Authenticates on all queues, which go on serving. A queue that fails is lost.
    pub fn authenticate_again(&mut self, shared: &mut Shared) {
        self.plan_authentication(shared.now);
        let auth = self.options.auth.clone();
        let Some(controller) = self.controller.as_mut().filter(|_| auth.is_some()) else {
            return;
        };
        self.authenticating = (0..=shared.reactors.len()).collect();
        controller.authenticate_again(auth.clone());
        let id = self.id;
        shared.reactors.broadcast(|| {
            let auth = auth.clone();
            ToIo::Call(Call::new(move |group| group.authenticate_again(id, auth)))
        });
    }

    /// One more queue has done so.
    pub fn queue_authenticated(&mut self, queue: usize, shared: &mut Shared) {
        self.authenticating.retain(|&other| other != queue);
        if !self.authenticating.is_empty() {
            return;
        }
        if let Some(Unexplained { error, .. }) = self.unexplained.take() {
            // None of those that are left has failed.
            return self.lose(error, shared);
        }
        shared
            .waiters
            .arrived(self.id, Until::Authenticated, &Ok(()));
    }

    /// The connection of a queue has ended, and with it the controller. A queue that does not authenticate takes the others
    /// with it, and one of those may be the first that is seen to end: the loss waits until the queue has said why.
    pub fn queue_lost(&mut self, queue: usize, error: ControllerError, shared: &mut Shared) {
        self.authenticating.retain(|&other| other != queue);
        let is_explained = !matches!(
            error,
            ControllerError::Queue(QueueError::Closed | QueueError::Socket(_))
        );
        let first = self.unexplained.take();
        if is_explained {
            return self.lose(error, shared);
        }
        let first = first.unwrap_or(Unexplained {
            error,
            until: shared.now + WORD_MAX,
        });
        match self.authenticating.is_empty() {
            true => self.lose(first.error, shared),
            false => self.unexplained = Some(first),
        }
    }

    /// Loses the controller if no queue has said for too long why.
    pub fn await_no_longer(&mut self, shared: &mut Shared) {
        let now = shared.now;
        if let Some(Unexplained { error, .. }) = self.unexplained.take_if(|loss| now >= loss.until)
        {
            self.lose(error, shared);
        }
    }

    /// Sets the time of the next one.
    pub fn plan_authentication(&mut self, now: Time) {
        let interval = self.options.authentication_interval;
        let interval = interval.filter(|_| self.options.auth.is_some());
        self.authenticate_at = interval.map(|interval| now + interval);
    }
}
