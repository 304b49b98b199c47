//! What stands beside the members: whatever a member changes or tells when something happens to it.
//!
//! A member's method borrows the member and this, never the list of members, so that no step of it has to look the
//! member up again.

use std::collections::{BTreeMap, VecDeque};

use pollux_nvme_tcp::host::{Completed, HostIdentity};
use pollux_reactor::Time;

use super::asker::{AttachAsker, AttachResult};
use super::reactors::Reactors;
use super::resets::Resets;
use super::volumes::Volumes;
use super::waiters::{Until, Waiters};
use super::watches;
use crate::error::HostError;
use crate::ids::ControllerId;
use crate::request::{Attached, Reply};

/// State of control that is of no single controller.
pub(super) struct Shared {
    pub identity: HostIdentity,
    /// The time of this turn.
    pub now: Time,
    pub reactors: Reactors,
    pub volumes: Volumes,
    /// Grows with every path state that is sent out.
    epoch: u64,
    /// What is done about writes in doubt.
    pub resets: Resets,
    /// A volume has gone, and a namespace that was left out because of it may be one now.
    pub look_at_left_out: bool,
    /// Requests that are answered when controllers have come to where they should be.
    pub waiters: Waiters,
    /// Admin commands of requests, by their number.
    admin: BTreeMap<u64, (ControllerId, Reply<Completed>)>,
    admin_last: u64,
    /// How attaches of discoveries have ended.
    pub attach_results: VecDeque<AttachResult>,
}

impl Shared {
    pub fn new(identity: HostIdentity, reactors: Reactors) -> Shared {
        Shared {
            identity,
            now: Time::ZERO,
            reactors,
            volumes: Volumes::default(),
            epoch: 0,
            resets: Resets::default(),
            look_at_left_out: false,
            waiters: Waiters::default(),
            admin: BTreeMap::new(),
            admin_last: 0,
            attach_results: VecDeque::new(),
        }
    }

    pub fn next_epoch(&mut self) -> u64 {
        self.epoch += 1;
        self.epoch
    }

    /// Subscribers learn that there are events for them, once for all of a turn.
    pub fn tell_subscribers(&mut self) {
        self.volumes.subscribers.tell(&mut self.reactors);
    }

    /// Whoever has a volume as a disk learns what has become of it.
    pub fn tell_watches(&mut self) {
        watches::tell(&mut self.volumes, &mut self.reactors);
    }

    /// Tells whoever asked for an attach how it has ended.
    pub fn answer_attach(&mut self, asker: AttachAsker, result: Result<Attached, HostError>) {
        match asker {
            AttachAsker::Request(reply) => reply(result),
            AttachAsker::Discovery {
                discovery,
                transport,
            } => self.attach_results.push_back(AttachResult {
                discovery,
                transport,
                error: result.err(),
            }),
        }
    }

    /// A controller carries I/O, or a try to connect it has failed.
    pub fn settle(&mut self, id: ControllerId, result: Result<(), HostError>) {
        self.waiters.arrived(id, Until::Live, &result);
    }

    /// A controller was removed.
    pub fn gone(&mut self, id: ControllerId) {
        self.cancel_admin(id);
        self.waiters.arrived(id, Until::Gone, &Ok(()));
        let error = HostError::Cancelled("the controller was detached");
        self.waiters.arrived(id, Until::Live, &Err(error));
    }

    /// The number of the next admin command.
    pub fn admin_number(&mut self) -> u64 {
        self.admin_last += 1;
        self.admin_last
    }

    /// An admin command of a request is on its way.
    pub fn await_admin(&mut self, number: u64, id: ControllerId, reply: Reply<Completed>) {
        self.admin.insert(number, (id, reply));
    }

    pub fn on_admin(&mut self, completed: Completed<u64>) {
        let outcome = completed.outcome;
        let (request, number) = completed.request.replace(());
        let completed = Completed { request, outcome };
        // Not there: its controller was lost, which has answered it.
        if let Some(completed) = self.resets.take_answer(number, completed)
            && let Some((_, reply)) = self.admin.remove(&number)
        {
            reply(Ok(completed));
        }
    }

    /// The admin queue is gone with all that was sent to it.
    pub fn cancel_admin(&mut self, id: ControllerId) {
        let lost = self.admin.extract_if(.., |_, (of, _)| *of == id);
        let error = HostError::Cancelled("the controller was lost");
        for (_, (_, reply)) in lost {
            reply(Err(error.clone()));
        }
        self.waiters.arrived(id, Until::Authenticated, &Err(error));
    }
}
