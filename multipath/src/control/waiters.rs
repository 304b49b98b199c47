//! Requests that wait for controllers to come to where they should be.

use crate::error::HostError;
use crate::ids::ControllerId;
use crate::request::Reply;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// It carries I/O.
    Live,
    /// It was removed.
    Gone,
    /// All its queues have authenticated again.
    Authenticated,
}

struct Waiter {
    /// Controllers that are not there yet.
    missing: Vec<ControllerId>,
    until: Until,
    /// What the first that did not get there says.
    failure: Option<HostError>,
    reply: Reply<()>,
}

#[derive(Default)]
pub(super) struct Waiters {
    list: Vec<Waiter>,
}

impl Waiters {
    /// Answers once all of `missing` have come there, or failed to.
    pub fn wait(&mut self, missing: Vec<ControllerId>, until: Until, reply: Reply<()>) {
        if missing.is_empty() {
            return reply(Ok(()));
        }
        self.list.push(Waiter {
            missing,
            until,
            failure: None,
            reply,
        });
    }

    /// A controller has come there, or has failed to.
    pub fn arrived(&mut self, id: ControllerId, until: Until, result: &Result<(), HostError>) {
        for waiter in self.list.iter_mut().filter(|w| w.until == until) {
            let before = waiter.missing.len();
            waiter.missing.retain(|m| *m != id);
            if waiter.missing.len() < before {
                waiter.failure = waiter.failure.take().or(result.clone().err());
            }
        }
        for waiter in self.list.extract_if(.., |w| w.missing.is_empty()) {
            (waiter.reply)(waiter.failure.map_or(Ok(()), Err));
        }
    }
}
