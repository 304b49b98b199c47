//! Secure concatenation (NVMe Base 2.1, 8.3.5.5.9): keys for TLS that come out of authentications, on their way to the
//! connections that use them.
//!
//! A host that has got one drops its connection and comes again, to the same listener, by TLS with that key, for all queues of its
//! new controller; there it need not authenticate again. A key that nobody has come with is forgotten after a while, and that of a
//! controller goes with it.

use std::net::SocketAddr;
use std::time::Duration;

use pollux_reactor::Time;

use crate::auth::Agreed;
use crate::spec::nqn::{HostNqn, Nqn};
use crate::target::control::Home;
use crate::target::io::ControllerKey;
use crate::tls::{HostPsk, Session};

/// Time from the end of an authentication to a Connect with the key that has come out of it.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(30);
/// Keys of one host at one subsystem that nobody has come with yet: one for each path, and some.
const UNCLAIMED_MAX: usize = 16;

/// A key that nobody has come with yet.
#[derive(Debug)]
pub(super) struct Unclaimed {
    subnqn: Nqn,
    hostnqn: HostNqn,
    psk: HostPsk,
    agreed: Agreed,
    until: Time,
}

impl Home {
    /// An authentication of this controller's admin queue has brought a key.
    pub(super) fn note_generated(
        &mut self,
        key: ControllerKey,
        (psk, agreed): (HostPsk, Agreed),
        now: Time,
    ) {
        let Some(controller) = self.controllers.get(&key) else {
            return;
        };
        let (subnqn, hostnqn) = (controller.subnqn.clone(), controller.hostnqn.clone());
        let is_of_host = |one: &Unclaimed| one.subnqn == subnqn && one.hostnqn == hostnqn;
        // The oldest is at the front.
        if self.unclaimed.iter().filter(|one| is_of_host(one)).count() >= UNCLAIMED_MAX
            && let Some(oldest) = self.unclaimed.iter().position(is_of_host)
        {
            self.unclaimed.remove(oldest);
        }
        self.unclaimed.push(Unclaimed {
            subnqn,
            hostnqn,
            psk,
            agreed,
            until: now + CLAIM_TIMEOUT,
        });
    }

    /// The keys that a host may come with to a listener that is not secure.
    pub(super) fn generated_at(&mut self, listener: SocketAddr, now: Time) -> Vec<HostPsk> {
        self.unclaimed.retain(|one| now < one.until);
        let of_controllers = self
            .controllers
            .values()
            .filter(|c| c.listener == listener)
            .filter_map(|c| c.generated.as_ref());
        let subsystems = &self.config.subsystems;
        let unclaimed = self.unclaimed.iter().filter(|one| {
            let subsystem = subsystems.get(&one.subnqn);
            subsystem.is_some_and(|s| s.listener(listener).is_some())
        });
        of_controllers
            .chain(unclaimed.map(|one| &one.psk))
            .cloned()
            .collect()
    }

    /// Whether the connection uses a key that has come out of an authentication of these two.
    pub(super) fn is_generated(&self, session: &Session, subnqn: &Nqn, hostnqn: &HostNqn) -> bool {
        let of_controllers = self
            .controllers
            .values()
            .filter(|c| c.subnqn == *subnqn && c.hostnqn == *hostnqn)
            .filter_map(|c| c.generated.as_ref());
        let unclaimed = self
            .unclaimed
            .iter()
            .filter(|one| one.subnqn == *subnqn && one.hostnqn == *hostnqn)
            .map(|one| &one.psk);
        of_controllers.chain(unclaimed).any(|psk| session.used(psk))
    }

    /// The key of a connection that is to be an admin queue, and what the host has authenticated with to get it. It is then its
    /// controller's.
    pub(super) fn claim(&mut self, session: &Session) -> Option<(HostPsk, Agreed)> {
        let used = |one: &Unclaimed| session.used(&one.psk);
        let at = self.unclaimed.iter().position(used)?;
        let claimed = self.unclaimed.remove(at);
        Some((claimed.psk, claimed.agreed))
    }
}
