//! The home service: what a target is configured to be, who comes in, and the controllers of those that did.
//!
//! [`Home`] owns the configuration, the listeners, all connections until their queue is known, the admin connections, and the
//! controllers. It runs on the first reactor only. Changes and questions come as messages ([`request`]); what every reactor has
//! to take in or to tell goes through [`sync`]. Connections of I/O queues are handed over to the reactors that serve them.

mod admin_queue;
mod admission;
#[cfg_attr(
    not(feature = "auth"),
    expect(unreachable_code, unused_variables, reason = "nobody can have keys")
)]
mod authentication;
#[cfg_attr(
    not(feature = "tls"),
    expect(
        unreachable_code,
        unused_variables,
        reason = "no authentication brings a key"
    )
)]
mod concatenation;
mod configure;
mod connection;
mod connections;
pub(in crate::target) mod handle;
mod handshake;
pub(in crate::target) mod keep_alive;
pub(in crate::target) mod links;
pub(in crate::target) mod message;
mod quiesce;
mod rate_limits;
pub(in crate::target) mod request;
mod sync;
mod visibility;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use pollux_reactor::{Context, Gather, Listener, Progress, Time};

use crate::spec::status::Status;
use crate::target::admin::controller::Controller;
use crate::target::admin::events::Kind;
use crate::target::conn::buffers::Buffers;
use crate::target::conn::linger::Lingering;
use crate::target::conn::said::Said;
use crate::target::control::admission::Admission;
use crate::target::control::concatenation::Unclaimed;
use crate::target::control::connection::{Again, HomeConnection, Place, Role};
use crate::target::control::links::Links;
use crate::target::control::message::HomeMessage;
use crate::target::control::quiesce::{Ends, Of};
use crate::target::control::rate_limits::Limited;
use crate::target::control::sync::Removal;
use crate::target::disk::DiskChange;
use crate::target::io::ControllerKey;
use crate::target::io::message::{IoEvent, IoMessage};
use crate::target::status::Fault;
use crate::target::subsystem::Configuration;
use crate::target::token;

/// What home may use during one call.
pub(in crate::target) struct HomeTurn<'t, 'c> {
    pub(in crate::target) links: &'t mut Links,
    pub(in crate::target) lingering: &'t mut Lingering,
    pub(in crate::target) buffers: &'t mut Buffers,
    pub(in crate::target) cx: &'t mut Context<'c>,
}

/// Faults that are kept for the status.
const FAULTS_KEPT: usize = 64;

/// The home part.
pub(in crate::target) struct Home {
    pub(in crate::target) config: Configuration,
    /// With whether it is secure: TLS and nothing else.
    pub(in crate::target) ports: BTreeMap<SocketAddr, (Listener, bool)>,
    pub(in crate::target) controllers: BTreeMap<ControllerKey, Controller>,
    pub(in crate::target) faults: VecDeque<Fault>,
    pub(in crate::target) faults_total: u64,
    pub(in crate::target) refused_connects: u64,
    pub(in crate::target) admission: Admission,
    said: Said,
    pub(in crate::target) admin_qpairs: u64,
    connections: BTreeMap<u64, Box<HomeConnection>>,
    /// Connections to be served in the next poll: those that had an edge, have answers to send, or were left
    /// with something to do. No other is looked at.
    pub(in crate::target) due: Vec<u64>,
    /// Questions to all reactors.
    pub(in crate::target) gather: Gather<Home>,
    /// Removals that are not over.
    removals: BTreeMap<u64, Removal>,
    /// The ends of controllers, as far as somebody may ask for them.
    ends: Ends,
    /// Disks with limits.
    limited: Vec<Limited>,
    /// Authentications for which something is computed by another thread, and when to look at them again.
    computing: BTreeSet<Place>,
    /// Keys for TLS that have come out of authentications, and that nobody has come with yet.
    unclaimed: Vec<Unclaimed>,
    /// I/O queues that serve and whose hosts authenticate, or have authenticated, again.
    again: BTreeMap<(ControllerKey, u16), Again>,
    look_again_at: Option<Time>,
    /// There may be other threads.
    threads: bool,
    /// What disks tell that have changed.
    disk_change: DiskChange,
    last_id: u64,
}

impl Home {
    /// `wake` gives this service a turn; `threads`: there may be other threads.
    pub(in crate::target) fn new(
        wake: impl Fn() + Clone + Send + Sync + 'static,
        threads: bool,
    ) -> Self {
        Self {
            config: Configuration::default(),
            ports: BTreeMap::new(),
            controllers: BTreeMap::new(),
            faults: VecDeque::new(),
            faults_total: 0,
            refused_connects: 0,
            admission: Admission::default(),
            said: Said::default(),
            admin_qpairs: 0,
            connections: BTreeMap::new(),
            due: Vec::new(),
            disk_change: DiskChange::new(wake.clone()),
            gather: Gather::new(wake),
            removals: BTreeMap::new(),
            ends: Ends::default(),
            limited: Vec::new(),
            computing: BTreeSet::new(),
            unclaimed: Vec::new(),
            again: BTreeMap::new(),
            look_again_at: None,
            threads,
            last_id: 0,
        }
    }

    /// A number that names a connection, controller or removal, below the kinds of timers.
    pub(in crate::target) fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(in crate::target) fn on_message(
        &mut self,
        message: HomeMessage,
        turn: &mut HomeTurn<'_, '_>,
    ) {
        match message {
            HomeMessage::Order(order) => order(Ok((self, turn))),
            HomeMessage::Io(event) => self.on_io_event(event, turn),
        }
    }

    fn on_io_event(&mut self, event: IoEvent, turn: &mut HomeTurn<'_, '_>) {
        match event {
            IoEvent::QueueClosed {
                key,
                qid,
                connection,
                fault,
            } => {
                if let Some(fault) = fault {
                    self.note_fault(fault);
                }
                if let Some(controller) = self.controllers.get_mut(&key)
                    && controller
                        .io_queues
                        .get(&qid)
                        .is_some_and(|q| q.connection == connection)
                {
                    controller.io_queues.remove(&qid);
                    self.again.remove(&(key, qid));
                }
            }
            IoEvent::Aborted {
                key,
                admin_cid,
                aborted,
            } => {
                if let Some(controller) = self.controllers.get_mut(&key)
                    && controller.admin.pending.remove(&admin_cid)
                {
                    // Bit 0: the command was not aborted.
                    let result = u64::from(!aborted);
                    controller.answer(admin_cid, Status::SUCCESS, result, Vec::new());
                    self.due.push(controller.admin.connection);
                }
            }
            IoEvent::Authenticate(asked) => self.authenticate_again(&asked, turn),
            IoEvent::DiskChanged => self.disks_changed(turn),
            IoEvent::AskSlice { reactor, id, ask } => self.ask_slice(reactor, (id, ask), turn),
        }
    }

    pub(in crate::target) fn on_timer(&mut self, token: u64, turn: &mut HomeTurn<'_, '_>) {
        match token::split(token) {
            (token::CONNECT, id) => self.connect_overdue(id, turn),
            (token::KEEP_ALIVE, key) => self.check_keep_alive(ControllerKey(key), turn),
            (kind, _) => unreachable!("a timer of kind {kind} is never set"),
        }
    }

    /// Accepts, receives, answers.
    #[inline]
    pub(in crate::target) fn poll(&mut self, turn: &mut HomeTurn<'_, '_>) -> Progress {
        let mut progress = self.accept(turn);
        self.end_overdue_removals(turn.cx.now());
        self.check_ends(turn.cx.now());
        while let Some(answered) = self.gather.next_answered() {
            answered(self);
            progress = Progress::Busy;
        }
        if !self.computing.is_empty() {
            progress = progress.or(self.take_computed(turn));
        }
        if !self.limited.is_empty() {
            self.grant_slices(turn);
        }
        if self.disk_change.take() {
            self.disks_changed(turn);
        }
        if self.due.is_empty() {
            return progress;
        }
        let mut due = std::mem::take(&mut self.due);
        for id in due.drain(..) {
            if let Some(connection) = self.connections.remove(&id) {
                progress = progress.or(self.serve(id, connection, turn));
            }
        }
        // What became due meanwhile, such as events for other controllers, has its turn next.
        if !self.due.is_empty() {
            progress = Progress::Busy;
        }
        due.append(&mut self.due);
        self.due = due;
        progress
    }

    /// When it is to be polled even if nothing wakes it.
    pub(in crate::target) fn deadline(&self) -> Option<Time> {
        let removals = self
            .removals
            .values()
            .filter_map(|removal| removal.deadline);
        let times = removals.chain(self.admission.deadline());
        times
            .chain(self.ends.deadline())
            .chain(self.slices_deadline())
            .chain(self.look_again_at)
            .min()
    }

    /// Has the next poll serve a connection.
    pub(in crate::target) fn wake(&mut self, id: u64) {
        self.due.push(id);
    }

    /// A Connect was refused, for the reason in `what`.
    #[cold]
    fn note_refusal(&mut self, peer: SocketAddr, what: &str, turn: &HomeTurn<'_, '_>) {
        self.refused_connects += 1;
        self.said.say(peer, what, turn.cx.now());
    }

    fn note_fault(&mut self, fault: Fault) {
        let what = match fault.qid {
            Some(qid) => format!("queue {qid} ended: {}", fault.reason),
            None => format!("connection ended before a Connect: {}", fault.reason),
        };
        self.said.say(fault.peer, &what, fault.at);
        self.faults_total += 1;
        if self.faults.len() >= FAULTS_KEPT {
            self.faults.pop_front();
        }
        self.faults.push_back(fault);
    }

    /// Removes a controller with its admin connection and its queues.
    pub(in crate::target) fn close_controller(
        &mut self,
        key: ControllerKey,
        turn: &mut HomeTurn<'_, '_>,
    ) {
        if let Some(controller) = self.controllers.get(&key) {
            self.connections.remove(&controller.admin.connection);
        }
        self.forget_controller(key, turn);
    }

    /// Drops the connections of a controller's I/O queues that have not authenticated yet, and what is known of those that
    /// authenticate again.
    fn drop_authenticating(&mut self, key: ControllerKey) {
        self.connections
            .retain(|_, c| !matches!(c.role, Role::Authenticating(queue) if queue.key == key));
        self.again.retain(|(of, _), _| *of != key);
    }

    fn forget_controller(&mut self, key: ControllerKey, turn: &mut HomeTurn<'_, '_>) {
        self.drop_authenticating(key);
        let removed = self.controllers.remove(&key);
        if let Some(controller) = removed.filter(|c| !c.is_discovery()) {
            for reactor in 0..turn.links.reactors() {
                turn.links.send_io(reactor, IoMessage::Close { key });
            }
            self.ends.forget(key);
            let ended = (controller.instance, controller.promised);
            self.begin_end(key, Of::controller(&controller), ended, turn);
        }
    }

    /// Removes the controllers for which `of` holds.
    pub(in crate::target) fn close_controllers(
        &mut self,
        of: impl Fn(&Controller) -> bool,
        turn: &mut HomeTurn<'_, '_>,
    ) {
        let keys: Vec<ControllerKey> = self
            .controllers
            .values()
            .filter(|c| of(c))
            .map(|c| c.key)
            .collect();
        for key in keys {
            self.close_controller(key, turn);
        }
    }

    /// Raises an event at the controllers for which `at` holds.
    pub(in crate::target) fn raise(&mut self, kind: Kind, at: impl Fn(&Controller) -> bool) {
        for controller in self.controllers.values_mut().filter(|c| at(c)) {
            controller.events.raise(kind);
            if controller.deliver_events() {
                self.due.push(controller.admin.connection);
            }
        }
    }

    /// Whether the next poll has something to do.
    pub(in crate::target) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// What the Discovery log lists has changed.
    pub(in crate::target) fn note_discovery_change(&mut self) {
        self.config.discovery.generation += 1;
        self.raise(Kind::Discovery, Controller::is_discovery);
    }
}

impl std::fmt::Debug for Home {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Home")
            .field("subsystems", &self.config.subsystems)
            .field("controllers", &self.controllers)
            .field("connections", &self.connections.len())
            .finish_non_exhaustive()
    }
}
