//! What can be asked of a running target. A request is a value that knows the type of its answer; a
//! [`TargetHandle`](crate::target::TargetHandle) sends it to the home reactor, where it is carried out.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::auth::Policy;
use crate::counters::CounterReset;
use crate::histogram::{HistogramLayout, LatencyHistogram};
use crate::rate_limit::RateLimits;
use crate::spec::log::AnaState;
use crate::spec::nqn::{HostNqn, Nqn};
use crate::target::config::{HostAccess, HostKeys, NamespaceConfig, Referral, SubsystemConfig};
use crate::target::control::{Home, HomeTurn};
use crate::target::disk::DiskRef;
use crate::target::error::TargetError;
use crate::target::io::channels::Scope;
use crate::target::io::message::IoMessage;
use crate::target::status::{SubsystemStatus, TargetStatus};

/// Runs once with the answer, on the home reactor.
pub(super) type Reply<A> = Box<dyn FnOnce(Result<A, TargetError>) + Send>;

type CarryOut<A> =
    dyn Fn(&mut Home, &mut HomeTurn<'_, '_>, Option<Duration>, Reply<A>) + Send + Sync;

/// A request to a running target, whose answer is an `A`. It changes nothing before it is sent, and nothing if it is
/// refused; a clone asks the same once more.
///
/// Changes are answered when every reactor has taken them in.
#[must_use = "a request does nothing before it is sent"]
pub struct TargetRequest<A = ()> {
    name: &'static str,
    limit: Option<Duration>,
    carry_out: Arc<CarryOut<A>>,
}

/// The answer to a removal: nothing of what was removed can execute any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removed;

impl TargetRequest {
    /// Makes a subsystem without namespaces and listeners.
    pub fn create_subsystem(config: SubsystemConfig) -> Self {
        Self::change("create_subsystem", move |home, _| {
            home.create_subsystem(config.clone())
        })
    }

    /// Sets the largest data of a command in bytes, which Identify Controller reports as MDTS, of controllers
    /// that come to be from then on: a power of two, 8 KiB to 1 MiB.
    pub fn set_max_io_size(bytes: u32) -> Self {
        Self::change("set_max_io_size", move |home, _| {
            home.set_max_io_size(bytes)
        })
    }

    /// Sets which optional commands controllers do without that come to be from then on: bits of ONCS
    /// ([`ctrl`](crate::spec::identify::ctrl)). A host is told so, and what it sends all the same is an invalid opcode.
    pub fn set_masked_oncs(oncs: u16) -> Self {
        Self::change("set_masked_oncs", move |home, _| {
            home.config.promised.masked_oncs = oncs;
            Ok(())
        })
    }

    /// Sets how many subsystems there may be beside the discovery subsystem, at least as many as there are.
    pub fn set_max_subsystems(max: usize) -> Self {
        Self::change("set_max_subsystems", move |home, _| {
            home.set_max_subsystems(max)
        })
    }

    /// Changes the size of a namespace to so many bytes, a multiple of the block size.
    pub fn resize_namespace(nqn: Nqn, nsid: u32, bytes: u64) -> Self {
        Self::change("resize_namespace", move |home, turn| {
            home.resize_namespace(&nqn, nsid, bytes, turn)
        })
    }

    /// Moves a namespace to another ANA group, 1 to [`ANA_GROUP_MAX`](crate::target::ANA_GROUP_MAX).
    pub fn set_namespace_ana_group(nqn: Nqn, nsid: u32, group: u32) -> Self {
        Self::change("set_namespace_ana_group", move |home, turn| {
            home.set_namespace_ana_group(&nqn, nsid, group, turn)
        })
    }

    /// Lets a host see a namespace that was added with `auto_visible: false`, whether the host is connected or not. That it
    /// may connect is another matter ([`add_host`](Self::add_host)).
    pub fn show_namespace(nqn: Nqn, nsid: u32, host: HostNqn) -> Self {
        Self::change("show_namespace", move |home, turn| {
            home.show_namespace(&nqn, nsid, &host, turn)
        })
    }

    /// Changes what one listener reports for one ANA group, or for all; answered when every reactor uses it.
    pub fn set_ana_state(nqn: Nqn, addr: SocketAddr, group: Option<u32>, state: AnaState) -> Self {
        Self::change("set_ana_state", move |home, turn| {
            home.set_ana_state(&nqn, addr, group, state, turn)
        })
    }

    /// Allows a host.
    pub fn add_host(nqn: Nqn, host: HostNqn) -> Self {
        Self::add_host_with_keys(nqn, host, None)
    }

    /// Allows a host; with keys, it has to authenticate (DH-HMAC-CHAP) on each queue before it may do anything else, also
    /// where any host is allowed.
    pub fn add_host_with_keys(nqn: Nqn, host: HostNqn, keys: Option<HostKeys>) -> Self {
        Self::add_host_with(nqn, host, HostAccess { keys, psk: None })
    }

    /// Allows a host in the way that `access` says: with keys to authenticate, a key for TLS, or both.
    pub fn add_host_with(nqn: Nqn, host: HostNqn, access: HostAccess) -> Self {
        Self::change("add_host", move |home, _| {
            home.add_host(&nqn, &host, access.clone())
        })
    }

    /// Gives a host that is on the list other keys, or none, for authentications from then on. Connections that there are
    /// stay.
    pub fn set_keys(nqn: Nqn, host: HostNqn, keys: Option<HostKeys>) -> Self {
        Self::change("set_keys", move |home, _| {
            home.set_keys(&nqn, &host, keys.clone())
        })
    }

    /// What hosts that authenticate may choose from, from then on; all hash functions and groups at first.
    pub fn set_auth_policy(policy: Policy) -> Self {
        Self::change("set_auth_policy", move |home, _| {
            home.config.auth_policy = policy.clone();
            Ok(())
        })
    }

    /// Allows every host, or only those listed. Hosts that are connected stay connected.
    pub fn allow_any_host(nqn: Nqn, allow: bool) -> Self {
        Self::change("allow_any_host", move |home, _| {
            home.allow_any_host(&nqn, allow)
        })
    }

    /// Adds an entry to the discovery log.
    pub fn add_referral(referral: Referral) -> Self {
        Self::change("add_referral", move |home, _| {
            home.add_referral(referral.clone())
        })
    }

    /// Removes an entry from the discovery log.
    pub fn remove_referral(referral: Referral) -> Self {
        Self::change("remove_referral", move |home, _| {
            home.remove_referral(&referral)
        })
    }

    /// Sets the command retry delay times that Identify Controller reports (CRDT1 to CRDT3), in units of 100 ms.
    pub fn set_retry_delays(crdt: [u16; 3]) -> Self {
        Self::change("set_retry_delays", move |home, _| {
            home.config.retry_delays = crdt;
            Ok(())
        })
    }

    /// Sets the Command Quiesce Time, which Identify Controller reports as CQT, of controllers that come to be from then on:
    /// nothing of one that is lost is executed later than 2 x KATO + CQT after its host has lost it, as long as disks end what
    /// they have of it within half of that time. Controllers of one host reset each other then (Cross-Controller Reset).
    /// 1,000 ms at first; 0: nothing of that is promised.
    pub fn set_quiesce_time(ms: u16) -> Self {
        Self::change("set_quiesce_time", move |home, _| {
            home.config.promised.cqt_ms = ms;
            Ok(())
        })
    }

    /// Whether a host may have several controllers of a subsystem by one listener, as it may at first. Those that it has
    /// stay.
    pub fn allow_duplicate_hosts(allow: bool) -> Self {
        Self::change("allow_duplicate_hosts", move |home, _| {
            home.config.duplicate_hosts = allow;
            Ok(())
        })
    }

    /// Whether the kernel encrypts the secure connections that are accepted from then on, where it can (kTLS); at first it does
    /// not. Where it cannot, they are encrypted in user space, and the reason is logged once.
    pub fn set_ktls(wanted: bool) -> Self {
        Self::change("set_ktls", move |home, _| {
            home.config.ktls = wanted;
            Ok(())
        })
    }

    /// Changes nothing; answered when every reactor has taken in all that was asked for before.
    pub fn sync() -> Self {
        Self::change("sync", |_, _| Ok(()))
    }
}

impl TargetRequest<u32> {
    /// Adds a namespace, with this identifier or the lowest that is free; answered with its identifier.
    pub fn add_namespace(nqn: Nqn, nsid: Option<u32>, namespace: NamespaceConfig) -> Self {
        Self::change("add_namespace", move |home, turn| {
            home.add_namespace(&nqn, nsid, &namespace, turn)
        })
    }
}

impl TargetRequest<SocketAddr> {
    /// Lets hosts connect to a subsystem at an address; port 0 takes a free one. Answered with the address, with the port
    /// that was taken. Several subsystems may share an address. All ANA groups start out optimized. The discovery NQN is
    /// for an address that serves discovery only.
    pub fn add_listener(nqn: Nqn, addr: SocketAddr) -> Self {
        Self::change("add_listener", move |home, turn| {
            home.add_listener(&nqn, addr, false, turn)
        })
    }

    /// As [`add_listener`](Self::add_listener), for TLS with the keys that the subsystem's hosts have
    /// ([`HostAccess`]), and nothing else.
    pub fn add_secure_listener(nqn: Nqn, addr: SocketAddr) -> Self {
        Self::change("add_listener", move |home, turn| {
            home.add_listener(&nqn, addr, true, turn)
        })
    }
}

impl TargetRequest<Removed> {
    /// Hides a namespace that was added with `auto_visible: false` from a host, for which it is gone then.
    pub fn hide_namespace(nqn: Nqn, nsid: u32, host: HostNqn) -> Self {
        Self::removal("hide_namespace", Scope::Visibility(nqn, nsid, host))
    }

    /// Removes a subsystem with all its controllers.
    pub fn delete_subsystem(nqn: Nqn) -> Self {
        Self::removal("delete_subsystem", Scope::Subsystem(nqn))
    }

    /// Removes a namespace.
    pub fn remove_namespace(nqn: Nqn, nsid: u32) -> Self {
        Self::removal("remove_namespace", Scope::Namespace(nqn, nsid))
    }

    /// Removes a listener and the controllers that came through it.
    pub fn remove_listener(nqn: Nqn, addr: SocketAddr) -> Self {
        Self::removal("remove_listener", Scope::Listener(nqn, addr))
    }

    /// Forbids a host and disconnects it.
    pub fn remove_host(nqn: Nqn, host: HostNqn) -> Self {
        Self::removal("remove_host", Scope::Host(nqn, host))
    }

    /// Answered with [`TargetError::Timeout`] if something of what is removed may still execute after this time. The
    /// removal goes on then.
    pub fn within(self, limit: Duration) -> Self {
        Self {
            limit: Some(limit),
            ..self
        }
    }

    fn removal(name: &'static str, scope: Scope) -> Self {
        Self::new(name, move |home, turn, limit, reply| {
            let answer = home.remove(&scope, turn).map(|()| Removed);
            home.sync_removal(reply, answer, (scope.clone(), limit), turn);
        })
    }
}

impl TargetRequest<Vec<Referral>> {
    /// The referrals.
    pub fn referrals() -> Self {
        Self::change("referrals", |home, _| {
            Ok(home.config.discovery.referrals.clone())
        })
    }
}

impl TargetRequest<Vec<SubsystemStatus>> {
    /// The subsystems in order of their NQNs, without controllers.
    pub fn subsystems() -> Self {
        Self::change("subsystems", |home, _| Ok(home.subsystems()))
    }
}

impl TargetRequest<TargetStatus> {
    /// Configuration, controllers, queues, counters and latest faults.
    pub fn status() -> Self {
        Self::new("status", |home, turn, _, reply| {
            home.report(turn, move |home, reports| reply(Ok(home.status(reports))));
        })
    }
}

impl TargetRequest<()> {
    /// Begins what is counted of these disks anew, or of all.
    pub fn reset_counters(disks: Option<Vec<DiskRef>>, what: CounterReset) -> Self {
        Self::new("reset_counters", move |home, turn, _, reply| {
            home.reset_counters((disks.clone(), what), turn, move || reply(Ok(())));
        })
    }

    /// Limits what all hosts together do with a disk that namespaces are made of, in place of the limits that it had. Not for
    /// a disk that another one lies on: that one is asked for what hosts do.
    pub fn set_rate_limits(disk: DiskRef, limits: RateLimits) -> Self {
        Self::change("set_rate_limits", move |home, turn| {
            home.set_rate_limits(&disk, limits, turn);
            Ok(())
        })
    }

    /// Begins to count the latencies of a disk in this way, or ends it; what was counted before is forgotten.
    pub fn set_histogram(disk: DiskRef, layout: Option<HistogramLayout>) -> Self {
        Self::change("set_histogram", move |_, turn| {
            for reactor in 0..turn.links.reactors() {
                let message = IoMessage::SetHistogram(disk.clone(), layout);
                turn.links.send_io(reactor, message);
            }
            Ok(())
        })
    }
}

impl TargetRequest<Option<LatencyHistogram>> {
    /// The latencies of a disk that were counted on all reactors; `None` if none are counted.
    pub fn histogram(disk: DiskRef) -> Self {
        Self::new("histogram", move |home, turn, _, reply| {
            let message = |part| IoMessage::Histogram(disk.clone(), part);
            let then = |_: &mut Home, parts: Vec<Option<LatencyHistogram>>| {
                let sum = parts.into_iter().flatten().reduce(|mut sum, part| {
                    sum.add(&part);
                    sum
                });
                reply(Ok(sum));
            };
            home.ask(message, then, turn);
        })
    }
}

impl<A: Send + 'static> TargetRequest<A> {
    fn new(
        name: &'static str,
        carry_out: impl Fn(&mut Home, &mut HomeTurn<'_, '_>, Option<Duration>, Reply<A>)
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self {
            name,
            limit: None,
            carry_out: Arc::new(carry_out),
        }
    }

    /// What home does at once, and is answered when every reactor has taken it in.
    fn change(
        name: &'static str,
        apply: impl Fn(&mut Home, &mut HomeTurn<'_, '_>) -> Result<A, TargetError>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self::new(name, move |home, turn, _, reply| match apply(home, turn) {
            Ok(answer) => home.sync(turn, move |_| reply(Ok(answer))),
            Err(error) => reply(Err(error)),
        })
    }

    pub(super) fn carry_out(&self, home: &mut Home, turn: &mut HomeTurn<'_, '_>, reply: Reply<A>) {
        (self.carry_out)(home, turn, self.limit, reply);
    }
}

impl<A> Clone for TargetRequest<A> {
    fn clone(&self) -> Self {
        Self {
            name: self.name,
            limit: self.limit,
            carry_out: Arc::clone(&self.carry_out),
        }
    }
}

impl<A> fmt::Debug for TargetRequest<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TargetRequest").field(&self.name).finish()
    }
}
