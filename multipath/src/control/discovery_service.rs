//! The connection to one discovery service, and its log as it was read last.

use std::net::SocketAddr;
use std::time::Duration;

use pollux_nvme_tcp::host::{
    Completed, ConnectOptions, Controller, ControllerEvent, ControllerOptions, HostIdentity,
    Outcome, Stage,
};
use pollux_nvme_tcp::spec::nqn::Nqn;
use pollux_reactor::{Context, Progress, Time};

use super::discovery_log::{Log, LogReader, Record};
use super::journal;
use super::retry::Retries;
use crate::request::DiscoveryRequest;

/// Reads of the log that may end with a transient status one after the other before the connection is
/// given up.
const REREADS_MAX: u32 = 5;
/// Time until the log is read again after the first of them; doubled with each that follows.
const REREAD_DELAY: Duration = Duration::from_millis(100);

/// A connection to one discovery service.
pub(super) struct DiscoveryService {
    pub addr: SocketAddr,
    controller: Option<Controller>,
    /// Until then it must be up; while there is no connection, when the next is tried.
    at: Time,
    reader: Option<LogReader>,
    /// Until then what the reader has asked for must be answered.
    answer_by: Time,
    /// The log has changed while it was read.
    stale: bool,
    /// When the log is read again after a transient status, and how many of them there were.
    reread_at: Option<Time>,
    rereads: u32,
    /// As it was read last. It stays while the service cannot be reached.
    pub log: Option<Vec<Record>>,
    /// What of it names no address that can be connected to, as it was told last.
    unusable: Vec<String>,
    /// Connections that came to no log, one after the other.
    pub retries: Retries,
}

impl DiscoveryService {
    pub fn new(addr: SocketAddr, now: Time) -> DiscoveryService {
        DiscoveryService {
            addr,
            controller: None,
            at: now,
            reader: None,
            answer_by: now,
            stale: false,
            reread_at: None,
            rereads: 0,
            log: None,
            unusable: Vec::new(),
            retries: Retries::default(),
        }
    }

    /// It could not be reached or read when that was tried last.
    pub fn has_failed(&self) -> bool {
        self.retries.tries() > 0
    }

    /// Why, beside its address.
    pub fn failure(&self) -> Option<String> {
        let reason = self.retries.reason()?;
        Some(format!("discovery service {}: {reason}", self.addr))
    }

    pub fn deadline(&self) -> Option<Time> {
        match &self.controller {
            None => Some(self.at),
            Some(c) if c.stage() == Stage::Starting => {
                Some(c.deadline().map_or(self.at, |d| d.min(self.at)))
            }
            Some(c) => {
                let answer = self.reader.as_ref().map(|_| self.answer_by);
                let dues = [c.deadline(), self.reread_at, answer];
                dues.into_iter().flatten().min()
            }
        }
    }

    /// True if a new log was read, or there is none for now where it was not known before.
    pub fn poll(
        &mut self,
        request: &DiscoveryRequest,
        identity: &HostIdentity,
        cx: &mut Context<'_>,
    ) -> (Progress, bool) {
        let now = cx.now();
        let Some(controller) = &mut self.controller else {
            if now >= self.at {
                return (Progress::Busy, self.connect(request, identity, cx));
            }
            return (Progress::Idle, false);
        };
        let mut progress = controller.poll(now);
        if controller.stage() == Stage::Starting && now >= self.at {
            controller.close();
        }
        let mut has_changed = false;
        while let Some(event) = self.controller.as_mut().and_then(Controller::next_event) {
            progress = Progress::Busy;
            has_changed |= self.on_event(event, request, now);
        }
        if self.controller.is_some() && self.reread_at.take_if(|at| now >= *at).is_some() {
            progress = Progress::Busy;
            has_changed |= self.read(request, now);
        }
        // Keep Alive may be answered all the while.
        if self.reader.is_some() && now >= self.answer_by {
            let limit = request.options.connect_timeout;
            let why = format!("discovery log: no answer within {limit:.0?}");
            progress = Progress::Busy;
            has_changed |= self.lost(why, request, now);
        }
        (progress, has_changed)
    }

    fn connect(
        &mut self,
        request: &DiscoveryRequest,
        identity: &HostIdentity,
        cx: &mut Context<'_>,
    ) -> bool {
        let now = cx.now();
        let mut host = identity.clone();
        if let Some(nqn) = &request.transport.hostnqn {
            host.nqn = nqn.clone();
        }
        let options = &request.options;
        let mut auth = options.auth.clone();
        if let Some(auth) = &mut auth {
            auth.concatenate = false;
        }
        let mut connect = ConnectOptions::admin(self.addr, Nqn::discovery(), host);
        connect.keep_alive_ms = options.keep_alive_ms;
        connect.timeout = options.connect_timeout;
        connect.digests = options.digests;
        connect.local = options.local;
        connect.auth = auth;
        match Controller::connect(cx.net(), now, ControllerOptions::new(connect)) {
            Ok(controller) => {
                self.at = now + request.options.connect_timeout;
                self.controller = Some(controller);
                false
            }
            Err(error) => self.lost(error.to_string(), request, now),
        }
    }

    /// The connection has come to nothing. True if that is so for the first time since the log was read.
    fn lost(&mut self, reason: String, request: &DiscoveryRequest, now: Time) -> bool {
        self.controller = None;
        self.reader = None;
        self.reread_at = None;
        self.rereads = 0;
        let is_first = !self.has_failed();
        let is_news = self.retries.failed(reason);
        let delay = self.retries.delay(request.options.recovery);
        if is_news {
            #[expect(clippy::expect_used, reason = "what has failed has its reason")]
            let why = self.retries.reason().expect("a try has just failed");
            journal::discovery_lost(&request.name, self.addr, why, delay);
        }
        self.at = now + delay;
        is_first
    }

    /// True if what is known of the log has changed.
    fn on_event(&mut self, event: ControllerEvent, request: &DiscoveryRequest, now: Time) -> bool {
        match event {
            ControllerEvent::Ready => self.read(request, now),
            ControllerEvent::DiscoveryLog if self.reader.is_some() => {
                self.stale = true;
                false
            }
            ControllerEvent::DiscoveryLog => self.read(request, now),
            ControllerEvent::Admin(completed) => self.on_answer(&completed, request, now),
            ControllerEvent::Ended(error) => self.lost(error.to_string(), request, now),
            _ => false,
        }
    }

    fn on_answer(&mut self, completed: &Completed, request: &DiscoveryRequest, now: Time) -> bool {
        let Some(reader) = &mut self.reader else {
            unreachable!("an answer that no reader has asked for");
        };
        match completed.outcome {
            Outcome::Completed { status, .. } if status.is_success() => {}
            // The end of the connection is told apart from this.
            Outcome::Lost(_) => return false,
            Outcome::Completed { status, .. } if !status.dnr() && self.rereads < REREADS_MAX => {
                self.reader = None;
                self.reread_at = Some(now + REREAD_DELAY * (1 << self.rereads));
                self.rereads += 1;
                return false;
            }
            Outcome::Completed { status, .. } => {
                return self.lost(format!("discovery log: {status}"), request, now);
            }
        }
        match reader.answered(completed.request.buffer.as_slice().unwrap_or_default()) {
            Ok(None) => self.ask(request, now),
            Ok(Some(log)) => {
                self.reader = None;
                self.rereads = 0;
                if self.retries.succeeded() {
                    journal::discovery_found(&request.name, self.addr);
                }
                self.take(log, request);
                if std::mem::take(&mut self.stale) {
                    self.read(request, now);
                }
                true
            }
            Err(error) => self.lost(format!("discovery log: {error}"), request, now),
        }
    }

    fn take(&mut self, log: Log, request: &DiscoveryRequest) {
        if log.unusable != self.unusable && !log.unusable.is_empty() {
            journal::discovery_unusable(&request.name, self.addr, &log.unusable);
        }
        self.unusable = log.unusable;
        self.log = Some(log.records);
    }

    fn read(&mut self, request: &DiscoveryRequest, now: Time) -> bool {
        let Some(controller) = &self.controller else {
            unreachable!("a log is read by a connection");
        };
        // What was to be read again later is read now.
        self.reread_at = None;
        self.reader = Some(LogReader::new(controller.transfer_max()));
        self.ask(request, now)
    }

    fn ask(&mut self, request: &DiscoveryRequest, now: Time) -> bool {
        let (Some(controller), Some(reader)) = (&mut self.controller, &self.reader) else {
            unreachable!("a reader asks, by a connection");
        };
        self.answer_by = now + request.options.connect_timeout;
        // One request at a time: there is always room unless the connection has ended.
        match controller.submit(reader.request()) {
            Ok(()) => false,
            Err(_) => self.lost("the connection has ended".to_owned(), request, now),
        }
    }
}
