//! Discovery services that are followed: what they list is attached, what they no longer list is detached.

use std::net::SocketAddr;

use pollux_reactor::{Context, Progress, Time};

use super::asker::{AttachAsker, AttachResult};
use super::discovery_log::Record;
use super::discovery_service::DiscoveryService;
use super::retry::Retries;
use super::{Control, journal};
use crate::error::HostError;
use crate::request::{AttachRequest, DiscoveryRequest, Reply};
use crate::status::DiscoveryStatus;
use crate::transport_id::TransportId;

/// Discovery services that one discovery follows at most, referrals included.
const SERVICES_MAX: usize = 16;
/// Tries to reach and read the service itself, after which whoever waits without a time limit is answered.
const WAITED_TRIES: u32 = 3;

/// One discovery: an address that was asked to be followed, and all that it led to.
pub(super) struct Discovery {
    request: DiscoveryRequest,
    /// The first is the one that was asked for, and always there; the others are referrals.
    services: Vec<DiscoveryService>,
    found: Vec<Found>,
    /// Answered when what is listed at first is attached, and until when.
    waiting: Option<(Option<Time>, Reply<()>)>,
}

/// A subsystem at an address that was found.
struct Found {
    transport: TransportId,
    group: String,
    state: FoundState,
    /// Attaches that have failed one after the other.
    retries: Retries,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum FoundState {
    Attaching,
    Attached,
    /// Attached again at this time.
    Failed(Time),
}

impl Discovery {
    fn deadline(&self) -> Option<Time> {
        let retries = self.found.iter().filter_map(|f| match f.state {
            FoundState::Failed(at) => Some(at),
            FoundState::Attaching | FoundState::Attached => None,
        });
        self.services
            .iter()
            .filter_map(DiscoveryService::deadline)
            .chain(retries)
            .chain(self.waiting.as_ref().and_then(|(at, _)| *at))
            .min()
    }

    /// Follows the referrals: connects to new services, forgets those that nothing leads to.
    fn follow_referrals(&mut self, now: Time) {
        let mut addresses: Vec<SocketAddr> = vec![self.request.transport.addr];
        let mut next = 0;
        while let Some(&addr) = addresses.get(next) {
            next += 1;
            let log = self.services.iter().find(|s| s.addr == addr);
            for record in log.and_then(|s| s.log.as_ref()).into_iter().flatten() {
                if let Record::Referral(to) = record
                    && !addresses.contains(to)
                    && addresses.len() < SERVICES_MAX
                {
                    addresses.push(*to);
                }
            }
        }
        self.services.retain(|s| addresses.contains(&s.addr));
        for addr in addresses {
            if !self.services.iter().any(|s| s.addr == addr) {
                self.services.push(DiscoveryService::new(addr, now));
            }
        }
    }

    /// What all services list, and whether a secure channel is required there; that is left out where no key is known.
    fn wanted(&self) -> Vec<(TransportId, bool)> {
        let mut wanted: Vec<(TransportId, bool)> = Vec::new();
        let records = self.services.iter().filter_map(|s| s.log.as_ref());
        for record in records.flatten() {
            if let Record::Subsystem { addr, nqn, secure } = record
                && !(*secure && self.request.options.tls.is_none())
            {
                let transport = TransportId {
                    addr: *addr,
                    subnqn: nqn.clone(),
                    hostnqn: self.request.transport.hostnqn.clone(),
                };
                if !wanted.iter().any(|(known, _)| *known == transport) {
                    wanted.push((transport, *secure));
                }
            }
        }
        wanted
    }

    /// Every service was read or has failed: what none of them lists is gone.
    ///
    /// A service that cannot be reached keeps what it listed last. One that never was has listed nothing,
    /// so that a dead referral does not keep what the others no longer list.
    fn is_known(&self) -> bool {
        let mut services = self.services.iter();
        services.all(|s| s.log.is_some() || s.has_failed())
    }

    fn is_settled(&self) -> bool {
        self.services[0].log.is_some()
            && self.is_known()
            && !self.found.iter().any(|f| f.state == FoundState::Attaching)
    }

    /// Why what is listed cannot be attached, as far as that is known.
    fn cause(&self) -> String {
        let services = self.services.iter().filter_map(DiscoveryService::failure);
        let attaches = self.found.iter().filter_map(|f| f.retries.reason());
        let attaches = attaches.map(str::to_owned);
        let causes: Vec<String> = services.chain(attaches).collect();
        match causes.is_empty() {
            true => "no answer yet".to_owned(),
            false => causes.join("; "),
        }
    }

    pub fn status(&self) -> DiscoveryStatus {
        let transport = |addr: SocketAddr| TransportId {
            addr,
            ..self.request.transport.clone()
        };
        DiscoveryStatus {
            name: self.request.name.clone(),
            transport: self.request.transport.clone(),
            options: self.request.options.clone(),
            referrals: self
                .services
                .iter()
                .skip(1)
                .map(|s| transport(s.addr))
                .collect(),
            attached: self
                .found
                .iter()
                .filter(|f| f.state == FoundState::Attached)
                .map(|f| (f.group.clone(), f.transport.clone()))
                .collect(),
            not_attached: self
                .found
                .iter()
                .filter_map(|f| f.retries.status(&f.transport))
                .collect(),
            not_reached: self
                .services
                .iter()
                .filter_map(|s| s.retries.status(&transport(s.addr)))
                .collect(),
        }
    }
}

impl Control {
    pub(super) fn start_discovery(&mut self, request: DiscoveryRequest, reply: Reply<()>) {
        let now = self.shared.now;
        let options = &request.options;
        let fencing = options.fencing.check(options.keep_alive_ms);
        if let Err(error) = options.recovery.check().and(fencing) {
            return reply(Err(error));
        }
        if request.name.is_empty() {
            return reply(Err(HostError::Invalid("the discovery name is empty")));
        }
        let addr = request.transport.addr;
        let clash =
            |d: &Discovery| d.request.name == request.name || d.request.transport.addr == addr;
        if self.discoveries.iter().any(clash) {
            return reply(Err(HostError::DiscoveryExists(format!(
                "'{}' at {addr}",
                request.name
            ))));
        }
        let waiting = match request.wait_for_attach {
            true => Some((request.attach_timeout.map(|t| now + t), reply)),
            false => {
                reply(Ok(()));
                None
            }
        };
        self.discoveries.push(Discovery {
            services: vec![DiscoveryService::new(addr, now)],
            request,
            found: Vec::new(),
            waiting,
        });
    }

    pub(super) fn stop_discovery(&mut self, name: &str, reply: Reply<()>) {
        let Some(index) = self.discoveries.iter().position(|d| d.request.name == name) else {
            return reply(Err(HostError::NotFound(format!("discovery: '{name}'"))));
        };
        let error = HostError::Cancelled("the discovery was stopped");
        self.end_discovery(index, error, reply);
    }

    /// Ends a discovery and detaches what it found; `gone` is answered when that is gone, and with `error` who
    /// still waits for its start.
    fn end_discovery(&mut self, index: usize, error: HostError, gone: Reply<()>) {
        let Discovery { found, waiting, .. } = self.discoveries.remove(index);
        if let Some((_, reply)) = waiting {
            reply(Err(error));
        }
        let is_found = |group: &str, addr: SocketAddr| {
            let mut found = found.iter();
            found.any(|f| f.group == group && f.transport.addr == addr)
        };
        let ids = self.members.ids(|m| is_found(&m.group, m.transport.addr));
        self.stop_members(ids, gone);
    }

    /// A discovery has found it.
    pub(super) fn is_discovered(&self, transport: &TransportId) -> bool {
        let mut found = self.discoveries.iter().flat_map(|d| &d.found);
        found.any(|f| f.transport == *transport)
    }

    /// Ends all of them; the host ends what they found.
    pub(super) fn end_discoveries(&mut self) {
        for discovery in self.discoveries.drain(..) {
            if let Some((_, reply)) = discovery.waiting {
                reply(Err(HostError::Cancelled("the host is stopping")));
            }
        }
    }

    pub(super) fn discovery_deadline(&self) -> Option<Time> {
        self.discoveries
            .iter()
            .filter_map(Discovery::deadline)
            .min()
    }

    pub(super) fn poll_discoveries(&mut self, cx: &mut Context<'_>) -> Progress {
        let mut progress = Progress::Idle;
        let mut index = 0;
        while let Some(discovery) = self.discoveries.get_mut(index) {
            let mut is_due = false;
            for service in &mut discovery.services {
                let (did, has_changed) =
                    service.poll(&discovery.request, &self.shared.identity, cx);
                progress = progress.or(did);
                is_due |= has_changed;
            }
            let now = cx.now();
            is_due |= discovery
                .found
                .iter()
                .any(|f| matches!(f.state, FoundState::Failed(at) if now >= at));
            if is_due {
                progress = Progress::Busy;
                self.reconcile(index, cx);
            }
            if !self.check_waiting(index) {
                index += 1;
            }
        }
        while let Some(result) = self.shared.attach_results.pop_front() {
            progress = Progress::Busy;
            self.on_attach_result(result, cx);
        }
        progress
    }

    fn on_attach_result(&mut self, result: AttachResult, cx: &mut Context<'_>) {
        let now = cx.now();
        let is_it = |d: &Discovery| d.request.name == result.discovery;
        let Some(index) = self.discoveries.iter().position(is_it) else {
            // Stopped meanwhile.
            return;
        };
        let discovery = &mut self.discoveries[index];
        let mut found = discovery.found.iter_mut();
        let is_it =
            |f: &&mut Found| f.transport == result.transport && f.state == FoundState::Attaching;
        // One that was stopped and started again under its name has not asked for it.
        if let Some(found) = found.find(is_it) {
            found.state = match result.error {
                None => {
                    found.retries.succeeded();
                    FoundState::Attached
                }
                Some(error) => {
                    let request = &discovery.request;
                    let is_news = found.retries.failed(error.to_string());
                    let delay = found.retries.delay(request.options.recovery);
                    if is_news {
                        let nqn = &found.transport.subnqn;
                        journal::discovery_not_attached(&request.name, nqn, &error, delay);
                    }
                    FoundState::Failed(now + delay)
                }
            };
        }
        self.reconcile(index, cx);
        self.check_waiting(index);
    }

    /// Makes what is attached match what is listed.
    fn reconcile(&mut self, index: usize, cx: &mut Context<'_>) {
        let now = cx.now();
        let discovery = &mut self.discoveries[index];
        discovery.follow_referrals(now);
        let wanted = discovery.wanted();
        let is_wanted = |transport: &TransportId| wanted.iter().any(|(t, _)| t == transport);
        let is_known = discovery.is_known();
        let members = &self.members;
        let mut gone = Vec::new();
        discovery.found.retain(|found| match found.state {
            FoundState::Attaching => true,
            FoundState::Failed(_) => is_wanted(&found.transport),
            FoundState::Attached => {
                let addr = found.transport.addr;
                let mut group = members.group(&found.group);
                let there = group.any(|m| m.transport.addr == addr);
                if there && is_known && !is_wanted(&found.transport) {
                    gone.push((found.group.clone(), addr));
                    return false;
                }
                there
            }
        });
        for (group, addr) in gone {
            // Nobody waits for this one.
            self.detach(&group, Some(addr), Box::new(|_| ()));
        }
        for (transport, secure) in wanted {
            self.attach_found(index, transport, secure, cx);
        }
    }

    fn attach_found(
        &mut self,
        index: usize,
        transport: TransportId,
        secure: bool,
        cx: &mut Context<'_>,
    ) {
        let discovery = &self.discoveries[index];
        let known = discovery.found.iter().find(|f| f.transport == transport);
        match known.map(|f| f.state) {
            Some(FoundState::Attaching | FoundState::Attached) => return,
            Some(FoundState::Failed(at)) if cx.now() < at => return,
            Some(FoundState::Failed(_)) | None => {}
        }
        let sibling = discovery
            .found
            .iter()
            .find(|f| f.transport.subnqn == transport.subnqn);
        let taken = |group: &str| {
            discovery.found.iter().any(|f| f.group == group) || self.members.first(group).is_some()
        };
        let group = match sibling {
            Some(found) => found.group.clone(),
            None => {
                let mut names = (0usize..).map(|n| format!("{}{n}", discovery.request.name));
                #[expect(
                    clippy::expect_used,
                    reason = "there are more numbers than names in use"
                )]
                names.find(|group| !taken(group)).expect("a name")
            }
        };
        let mut options = discovery.request.options.clone();
        if !secure {
            (options.tls, options.psk_name) = (None, None);
        }
        let request = AttachRequest {
            name: group.clone(),
            transport: transport.clone(),
            options,
        };
        let name = discovery.request.name.clone();
        let attached = transport.clone();
        let found = &mut self.discoveries[index].found;
        match found.iter_mut().find(|f| f.transport == transport) {
            Some(again) => {
                again.group = group;
                again.state = FoundState::Attaching;
            }
            None => found.push(Found {
                transport,
                group,
                state: FoundState::Attaching,
                retries: Retries::default(),
            }),
        }
        let asker = AttachAsker::Discovery {
            discovery: name,
            transport: attached,
        };
        self.attach(request, asker, cx);
    }

    /// Answers who waits for the first attaches: when they are done or have failed, when the time limit has
    /// passed, and without a limit when the service itself has failed [`WAITED_TRIES`] times. True if the
    /// discovery was ended by that.
    fn check_waiting(&mut self, index: usize) -> bool {
        let discovery = &mut self.discoveries[index];
        let Some((deadline, _)) = &discovery.waiting else {
            return false;
        };
        // The first service is the one that was asked for, and is always there.
        let tries = discovery.services[0].retries.tries();
        let is_over = match deadline {
            Some(at) => self.shared.now >= *at,
            None => tries >= WAITED_TRIES,
        };
        if is_over {
            let error = HostError::Discovery {
                transport: discovery.request.transport.to_string(),
                cause: discovery.cause(),
                in_time: deadline.is_none(),
            };
            // Nobody waits for what it has found to be gone.
            self.end_discovery(index, error, Box::new(|_| ()));
            return true;
        }
        if discovery.is_settled()
            && let Some((_, reply)) = discovery.waiting.take()
        {
            reply(Ok(()));
        }
        false
    }
}
