//! Discovery services that are followed: what they list is attached, what they no longer list is detached.

use std::net::SocketAddr;
use std::time::Duration;

use pollux_nvme_tcp::host::{
    ConnectOptions, Controller, ControllerEvent, ControllerOptions, HostIdentity, Stage,
};
use pollux_nvme_tcp::spec::nqn::Nqn;
use pollux_reactor::{Context, Progress, Time};

use super::discovery_log::{LogReader, Record};
use super::{Control, journal};
use crate::request::{AttachRequest, DiscoveryRequest, HostError, Reply};
use crate::status::DiscoveryStatus;
use crate::transport_id::TransportId;

/// Discovery services that one discovery follows at most, referrals included.
const SERVICES_MAX: usize = 16;
/// The least time between two tries to reach a service or a subsystem that it lists.
const RETRY_MIN: Duration = Duration::from_secs(1);

/// One discovery: an address that was asked to be followed, and all that it led to.
pub(super) struct Discovery {
    request: DiscoveryRequest,
    /// The first is the one that was asked for, the others are referrals.
    services: Vec<DiscoveryService>,
    found: Vec<Found>,
    /// Answered when what is listed at first is attached, and until when.
    waiting: Option<(Option<Time>, Reply<()>)>,
}

/// A connection to one discovery service.
struct DiscoveryService {
    addr: SocketAddr,
    controller: Option<Controller>,
    /// Until then it must be up; while there is no connection, when the next is tried.
    at: Time,
    reader: Option<LogReader>,
    /// The log has changed while it was read.
    stale: bool,
    /// As it was read last.
    log: Option<Vec<Record>>,
    /// It could not be reached.
    failed: bool,
}

/// A subsystem at an address that was found.
struct Found {
    transport: TransportId,
    group: String,
    state: FoundState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum FoundState {
    Attaching,
    Attached,
    /// Tried again at this time.
    Failed(Time),
}

/// How an attach of a discovery has ended.
pub(super) struct AttachResult {
    discovery: String,
    transport: TransportId,
    error: Option<HostError>,
}

impl DiscoveryService {
    fn new(addr: SocketAddr, now: Time) -> DiscoveryService {
        DiscoveryService {
            addr,
            controller: None,
            at: now,
            reader: None,
            stale: false,
            log: None,
            failed: false,
        }
    }

    fn deadline(&self) -> Option<Time> {
        match &self.controller {
            None => Some(self.at),
            Some(c) if c.stage() == Stage::Starting => {
                Some(c.deadline().map_or(self.at, |d| d.min(self.at)))
            }
            Some(c) => c.deadline(),
        }
    }

    /// True if a new log was read.
    fn poll(
        &mut self,
        request: &DiscoveryRequest,
        identity: &HostIdentity,
        cx: &mut Context<'_>,
    ) -> (Progress, bool) {
        let now = cx.now();
        let Some(controller) = &mut self.controller else {
            if now >= self.at {
                self.connect(request, identity, cx);
                return (Progress::Busy, false);
            }
            return (Progress::Idle, false);
        };
        let mut progress = controller.poll(now);
        if controller.stage() == Stage::Starting && now >= self.at {
            controller.close();
        }
        let mut is_new = false;
        while let Some(event) = self.controller.as_mut().and_then(Controller::next_event) {
            progress = Progress::Busy;
            is_new |= self.on_event(event, request, now);
        }
        (progress, is_new)
    }

    fn connect(
        &mut self,
        request: &DiscoveryRequest,
        identity: &HostIdentity,
        cx: &mut Context<'_>,
    ) {
        let now = cx.now();
        let mut host = identity.clone();
        if let Some(nqn) = &request.transport.hostnqn {
            host.nqn = nqn.clone();
        }
        let options = &request.options;
        let connect = ConnectOptions {
            keep_alive_ms: options.keep_alive_ms,
            timeout: options.connect_timeout,
            digests: options.digests,
            local: options.local,
            ..ConnectOptions::admin(self.addr, Nqn::discovery(), host)
        };
        let options = ControllerOptions {
            io_queue_size: connect.queue_size,
            command_timeout: None,
            connect,
            io_queues: 0,
        };
        match Controller::connect(cx.net(), now, options) {
            Ok(controller) => {
                self.at = now + request.options.connect_timeout;
                self.controller = Some(controller);
            }
            Err(_) => self.lost(request, now),
        }
    }

    fn lost(&mut self, request: &DiscoveryRequest, now: Time) {
        self.controller = None;
        self.reader = None;
        if !self.failed {
            journal::discovery_lost(&request.name, self.addr);
        }
        self.failed = true;
        self.at = now + request.retry_delay();
    }

    fn on_event(&mut self, event: ControllerEvent, request: &DiscoveryRequest, now: Time) -> bool {
        match event {
            ControllerEvent::Ready => self.read(request, now),
            ControllerEvent::DiscoveryLog if self.reader.is_some() => self.stale = true,
            ControllerEvent::DiscoveryLog => self.read(request, now),
            ControllerEvent::Admin(completed) => {
                let Some(reader) = &mut self.reader else {
                    return false;
                };
                let answer = match completed.outcome.is_success() {
                    true => reader.answered(&completed.request.buffer),
                    false => Err("refused"),
                };
                match answer {
                    Ok(None) => self.ask(request, now),
                    Ok(Some(records)) => {
                        self.reader = None;
                        self.failed = false;
                        self.log = Some(records);
                        if std::mem::take(&mut self.stale) {
                            self.read(request, now);
                        }
                        return true;
                    }
                    Err(_) => self.lost(request, now),
                }
            }
            ControllerEvent::Ended(_) => self.lost(request, now),
            ControllerEvent::AnaNotice
            | ControllerEvent::Ana
            | ControllerEvent::Namespaces
            | ControllerEvent::Overdue(_)
            | ControllerEvent::AbortFailed(_) => {}
        }
        false
    }

    fn read(&mut self, request: &DiscoveryRequest, now: Time) {
        let transfer_max = self.controller.as_ref().map_or(0, Controller::transfer_max);
        self.reader = Some(LogReader::new(transfer_max));
        self.ask(request, now);
    }

    fn ask(&mut self, request: &DiscoveryRequest, now: Time) {
        let (Some(controller), Some(reader)) = (&mut self.controller, &self.reader) else {
            return;
        };
        // One request at a time: there is always room unless the connection has ended.
        if controller.submit(reader.request()).is_err() {
            self.lost(request, now);
        }
    }
}

impl DiscoveryRequest {
    fn retry_delay(&self) -> Duration {
        self.options.recovery.reconnect_delay.max(RETRY_MIN)
    }
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

    /// What all services list.
    fn wanted(&self) -> Vec<TransportId> {
        let mut wanted: Vec<TransportId> = Vec::new();
        let records = self.services.iter().filter_map(|s| s.log.as_ref());
        for record in records.flatten() {
            if let Record::Subsystem(addr, subnqn) = record {
                let transport = TransportId {
                    addr: *addr,
                    subnqn: subnqn.clone(),
                    hostnqn: self.request.transport.hostnqn.clone(),
                };
                if !wanted.contains(&transport) {
                    wanted.push(transport);
                }
            }
        }
        wanted
    }

    /// All logs were read, so that what is not listed is known to be gone.
    fn is_complete(&self) -> bool {
        self.services.iter().all(|s| s.log.is_some())
    }

    fn is_settled(&self) -> bool {
        let first = self.services.first();
        first.is_some_and(|s| s.log.is_some())
            && self.services.iter().all(|s| s.log.is_some() || s.failed)
            && !self.found.iter().any(|f| f.state == FoundState::Attaching)
    }

    fn status(&self) -> DiscoveryStatus {
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
        }
    }
}

impl<M: Send + 'static> Control<M> {
    pub(super) fn start_discovery(
        &mut self,
        request: DiscoveryRequest,
        reply: Reply<()>,
        now: Time,
    ) {
        if let Err(error) = request.options.recovery.check() {
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

    pub(super) fn stop_discovery(&mut self, name: &str, reply: Reply<()>, now: Time) {
        let Some(index) = self.discoveries.iter().position(|d| d.request.name == name) else {
            return reply(Err(HostError::NotFound(format!("discovery: '{name}'"))));
        };
        self.end_discovery(
            index,
            HostError::Cancelled("the discovery was stopped"),
            reply,
            now,
        );
    }

    /// Ends a discovery and detaches what it found; `gone` is answered when that is gone, and with `error` who
    /// still waits for its start.
    fn end_discovery(&mut self, index: usize, error: HostError, gone: Reply<()>, now: Time) {
        let Discovery { found, waiting, .. } = self.discoveries.remove(index);
        if let Some((_, reply)) = waiting {
            reply(Err(error));
        }
        let is_found = |group: &str, addr: SocketAddr| {
            let mut found = found.iter();
            found.any(|f| f.group == group && f.transport.addr == addr)
        };
        let ids: Vec<_> = self
            .members
            .iter()
            .filter(|m| is_found(&m.group, m.transport.addr))
            .map(|m| m.id)
            .collect();
        self.stop_members(ids, gone, now);
    }

    pub(super) fn discovery_status(&self) -> Vec<DiscoveryStatus> {
        self.discoveries.iter().map(Discovery::status).collect()
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
                let (did, is_new) = service.poll(&discovery.request, &self.identity, cx);
                progress = progress.or(did);
                is_due |= is_new;
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
            if !self.check_waiting(index, now) {
                index += 1;
            }
        }
        while let Ok(result) = self.attach_results.1.try_recv() {
            progress = Progress::Busy;
            self.on_attach_result(result, cx);
        }
        progress
    }

    fn on_attach_result(&mut self, result: AttachResult, cx: &mut Context<'_>) {
        let now = cx.now();
        let is_it = |d: &Discovery| d.request.name == result.discovery;
        let Some(index) = self.discoveries.iter().position(is_it) else {
            return;
        };
        if let Some(discovery) = self.discoveries.get_mut(index)
            && let Some(found) = discovery
                .found
                .iter_mut()
                .find(|f| f.transport == result.transport && f.state == FoundState::Attaching)
        {
            found.state = match result.error {
                None => FoundState::Attached,
                Some(_) => FoundState::Failed(now + discovery.request.retry_delay()),
            };
        }
        self.reconcile(index, cx);
        self.check_waiting(index, now);
    }

    /// Makes what is attached match what is listed.
    fn reconcile(&mut self, index: usize, cx: &mut Context<'_>) {
        let now = cx.now();
        let Some(discovery) = self.discoveries.get_mut(index) else {
            return;
        };
        discovery.follow_referrals(now);
        let wanted = discovery.wanted();
        let is_complete = discovery.is_complete();
        let members = &self.members;
        let mut gone = Vec::new();
        discovery.found.retain(|found| match found.state {
            FoundState::Attaching => true,
            FoundState::Failed(at) => wanted.contains(&found.transport) && now < at,
            FoundState::Attached => {
                let addr = found.transport.addr;
                let there = members
                    .iter()
                    .any(|m| m.group == found.group && m.transport.addr == addr);
                if there && is_complete && !wanted.contains(&found.transport) {
                    gone.push((found.group.clone(), addr));
                    return false;
                }
                there
            }
        });
        for (group, addr) in gone {
            // Nobody waits for this one.
            self.detach(&group, Some(addr), Box::new(|_| ()), now);
        }
        for transport in wanted {
            self.attach_found(index, transport, cx);
        }
    }

    fn attach_found(&mut self, index: usize, transport: TransportId, cx: &mut Context<'_>) {
        let Some(discovery) = self.discoveries.get(index) else {
            return;
        };
        if discovery.found.iter().any(|f| f.transport == transport) {
            return;
        }
        let sibling = discovery
            .found
            .iter()
            .find(|f| f.transport.subnqn == transport.subnqn);
        let taken = |group: &str| {
            discovery.found.iter().any(|f| f.group == group)
                || self.members.iter().any(|m| m.group == group)
        };
        let group = match sibling {
            Some(found) => found.group.clone(),
            None => (0..=self.members.len() + discovery.found.len())
                .map(|n| format!("{}{n}", discovery.request.name))
                .find(|group| !taken(group))
                .unwrap_or_default(),
        };
        let request = AttachRequest {
            name: group.clone(),
            transport: transport.clone(),
            options: discovery.request.options.clone(),
        };
        let name = discovery.request.name.clone();
        let results = self.attach_results.0.clone();
        let attached = transport.clone();
        if let Some(discovery) = self.discoveries.get_mut(index) {
            discovery.found.push(Found {
                transport,
                group,
                state: FoundState::Attaching,
            });
        }
        let reply = move |answer: Result<_, HostError>| {
            // Refused only by a host that has ended.
            let _ = results.send(AttachResult {
                discovery: name,
                transport: attached,
                error: answer.err(),
            });
        };
        self.attach(request, Box::new(reply), cx);
    }

    /// Answers who waits for the first attaches. True if the discovery was ended because they took too long.
    fn check_waiting(&mut self, index: usize, now: Time) -> bool {
        let Some(discovery) = self.discoveries.get_mut(index) else {
            return false;
        };
        let Some((deadline, _)) = &discovery.waiting else {
            return false;
        };
        if deadline.is_some_and(|at| now >= at) {
            let text = discovery.request.transport.to_string();
            // Nobody waits for that.
            self.end_discovery(index, HostError::Timeout(text), Box::new(|_| ()), now);
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
