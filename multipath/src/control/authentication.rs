//! Controllers that stay connected authenticate again: with other keys on request, and by interval.

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
        self.options.auth = auth.cloned();
        self.options.key_names = key_names.cloned();
        self.controller_options.connect.auth = auth.cloned();
    }

    /// Authenticates on all queues, which go on serving. A queue that fails is lost.
    pub fn authenticate_again(&mut self, shared: &mut Shared) {
        self.plan_authentication(shared.now);
        let auth = self.options.auth.clone();
        let Some(controller) = self.controller.as_mut().filter(|_| auth.is_some()) else {
            return;
        };
        self.authenticating = 1 + shared.reactors.len();
        controller.authenticate_again(auth.clone());
        let id = self.id;
        shared.reactors.broadcast(|| {
            let auth = auth.clone();
            ToIo::Call(Call::new(move |group| group.authenticate_again(id, auth)))
        });
    }

    /// One more queue has done so.
    pub fn queue_authenticated(&mut self, shared: &mut Shared) {
        self.authenticating = self.authenticating.saturating_sub(1);
        if self.authenticating == 0 {
            shared
                .waiters
                .arrived(self.id, Until::Authenticated, &Ok(()));
        }
    }

    /// The controller was lost, maybe because it did not authenticate.
    pub fn not_authenticated(&mut self, error: &HostError, shared: &mut Shared) {
        self.authenticating = 0;
        // A queue that fails takes the others with it, and one of those may be the first that is seen to end.
        let result = Err(match error.clone() {
            HostError::Connect {
                transport,
                error: error @ ControllerError::Queue(QueueError::Closed | QueueError::Socket(_)),
            } => HostError::NotAuthenticated { transport, error },
            error => error,
        });
        shared
            .waiters
            .arrived(self.id, Until::Authenticated, &result);
    }

    /// Sets the time of the next one.
    pub fn plan_authentication(&mut self, now: Time) {
        let interval = self.options.authentication_interval;
        let interval = interval.filter(|_| self.options.auth.is_some());
        self.authenticate_at = interval.map(|interval| now + interval);
    }
}
