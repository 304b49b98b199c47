//! A controller as its host sees it: brought up step by step over the admin queue pair, kept alive,
//! listened to for events.

mod aborts;
mod answers;
mod due;
mod event;
mod keep_alive;
mod known;
mod notices;
mod options;
mod retry;
mod steps;

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use pollux_reactor::{Context, Net, Progress, Time};

use self::aborts::{ABORTS_MAX, Abort, Aborts};
pub use self::event::{ControllerError, ControllerEvent, Stage};
use self::keep_alive::KeepAlive;
use self::known::Known;
use self::notices::{AERS_MAX, Aers, Notices};
pub use self::options::{CommandTimeout, ControllerOptions, TimeoutAction};
use self::steps::Step;
use super::ana_log::AnaLog;
use super::fault_injection::{FaultChange, FaultInjection};
use super::namespaces::Namespace;
use super::queue_pair::{ConnectOptions, Digests, QueueError, QueuePair, Rejected, RejectedReason};
use super::request::{Completed, Request};
use crate::auth::HostAuth;
use crate::host::LOG_FLAG;
use crate::spec::cross_controller_reset::Impacted;
use crate::spec::identify::IdentifyController;
use crate::spec::registers::{Cap, Vs};

/// Admin commands kept free for the controller's own use: AERs, Aborts, keep-alive, one step.
const RESERVED_COMMANDS: usize = AERS_MAX + ABORTS_MAX + 2;

/// Time in which an orderly shutdown has to be done.
const SHUTDOWN_TIME: Duration = Duration::from_secs(2);

/// What a command on the admin queue is for.
#[derive(Debug)]
enum Asked<U> {
    KeepAlive,
    AsyncEvent,
    Abort(Abort),
    /// A step, by its number.
    Step(u64),
    /// The owner knows.
    Owner(U),
}

/// A controller over its admin queue pair. `U` is its owner's: whatever the owner wants to find again in the answer
/// to an admin command of its own.
#[derive(Debug)]
pub struct Controller<U = ()> {
    admin: QueuePair<Asked<U>>,
    /// While faults are injected into its commands.
    faults: Option<Box<FaultInjection<Asked<U>>>>,
    known: Known,
    stage: Stage,
    /// The step that waits for its answer or for a later time.
    step: Option<(Step, StepState)>,
    /// The number of the step, by which the answer to an earlier one is told apart.
    step_number: u64,
    /// When the step, or shutting down as a whole, must have succeeded.
    step_deadline: Time,
    /// How often the step was sent again because it was too early, and after a transient status.
    polls: u32,
    retries: u32,
    /// When what could not be read because of a transient status is read again.
    reread_at: Option<Time>,
    /// The log says that a status is transient, and nothing was read since.
    is_troubled: bool,
    inbox: VecDeque<Completed<Asked<U>>>,
    events: VecDeque<ControllerEvent<U>>,
    wants_ana: bool,
    /// Reads of the ANA log that were begun, and the number of the last that has ended.
    ana_reads_begun: u64,
    ana_reads_done: u64,
    wants_namespaces: bool,
    /// The status register is to be read: is the controller still well?
    wants_status: bool,
    aers: Aers,
    notices: Notices,
    aborts: Aborts,
    keep_alive: KeepAlive,
    /// When to go on with an authentication that the owner has asked for.
    authenticate_at: Option<Time>,
    /// The connection is of no further use: another one takes its place.
    is_to_connect_again: bool,
    /// PSK identities were offered in both orders.
    has_turned: bool,
    /// When the admin commands are next looked through for some that are overdue.
    age_at: Option<Time>,
    /// Nothing is due before this time.
    due: Time,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StepState {
    /// To be sent from this time on.
    Due(Time),
    Sent,
}

impl<U> Controller<U> {
    /// Starts to connect; [`poll`](Self::poll) drives it on.
    ///
    /// # Errors
    /// The operating system's refusal to start a connection.
    pub fn connect(net: &mut Net, now: Time, options: ControllerOptions) -> io::Result<Self> {
        let admin = QueuePair::connect(net, now, options.connect.clone())?;
        Ok(Self {
            admin,
            faults: None,
            stage: Stage::Starting,
            step: None,
            step_number: 0,
            step_deadline: now + options.connect.timeout,
            polls: 0,
            retries: 0,
            reread_at: None,
            is_troubled: false,
            keep_alive: KeepAlive::new(options.connect.keep_alive_ms),
            known: Known::new(options),
            inbox: VecDeque::new(),
            events: VecDeque::new(),
            wants_ana: false,
            ana_reads_begun: 0,
            ana_reads_done: 0,
            wants_namespaces: false,
            wants_status: false,
            aers: Aers::default(),
            notices: Notices::default(),
            aborts: Aborts::default(),
            authenticate_at: None,
            is_to_connect_again: false,
            has_turned: false,
            age_at: None,
            due: Time::ZERO,
        })
    }

    /// Where it stands.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// What the controller was connected with.
    pub fn options(&self) -> &ControllerOptions {
        &self.known.options
    }

    /// Controller identifier (CNTLID).
    pub fn id(&self) -> u16 {
        self.known.cntlid
    }

    /// Identify Controller data, once it was read.
    pub fn identify(&self) -> Option<&IdentifyController> {
        self.known.identify()
    }

    /// Controller capabilities (CAP).
    pub fn capabilities(&self) -> Cap {
        self.known.cap
    }

    /// The digests that it has granted.
    pub fn digests(&self) -> Digests {
        self.admin.digests()
    }

    /// Whether its admin queue comes by TLS, and then whether the kernel encrypts it.
    pub fn ktls(&self) -> Option<bool> {
        self.admin.ktls()
    }

    /// Version (VS).
    pub fn version(&self) -> Vs {
        self.known.version
    }

    /// I/O queue pairs that it grants.
    pub fn io_queues(&self) -> u16 {
        self.known.io_queues
    }

    /// Active namespaces that can be used.
    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.known.namespaces.values()
    }

    /// Active namespaces that cannot be used, and why.
    pub fn left_out(&self) -> impl Iterator<Item = (u32, &'static str)> {
        self.known.left_out.iter().map(|(&nsid, &why)| (nsid, why))
    }

    /// The last good ANA log; `None` without ANA reporting.
    pub fn ana(&self) -> Option<&AnaLog> {
        self.known.ana.as_ref()
    }

    /// ANA logs that were refused because they contradict themselves.
    pub fn bad_ana_logs(&self) -> u64 {
        self.known.bad_ana_logs
    }

    /// ANATT: how long a namespace may stay inaccessible or in change (rule B4.1: 10 s where 0 is reported).
    pub fn anatt(&self) -> Duration {
        self.known.anatt()
    }

    /// Largest transfer of one command in bytes (MDTS, at most 4 MiB where it sets no limit).
    pub fn transfer_max(&self) -> usize {
        self.known.transfer_max()
    }

    /// What an I/O queue pair to this controller connects with.
    pub fn io_options(&self, queue_id: u16) -> ConnectOptions {
        self.known.io_options(queue_id)
    }

    /// True if the controller reports ANA (CMIC bit 3).
    pub fn reports_ana(&self) -> bool {
        self.known.reports_ana()
    }

    /// True if any command counts as a sign of life of the host (CTRATT.TBKAS).
    pub fn counts_traffic(&self) -> bool {
        self.known.counts_traffic()
    }

    /// What this controller is called by a Cross-Controller Reset; `None` where it does not say.
    pub fn instance(&self) -> Option<Impacted> {
        self.known.instance()
    }

    /// True if it resets other controllers of its NVM subsystem on request.
    pub fn resets_others(&self) -> bool {
        self.identify().is_some_and(|id| id.ccrl > 0)
    }

    /// True for a discovery controller (CNTRLTYPE 2, or connected to the discovery NQN).
    pub fn is_discovery(&self) -> bool {
        self.known.is_discovery()
    }

    /// Asks for the ANA log to be read; one that is under way is followed by exactly one more (rule B3.1).
    /// Returns the number of the read that will tell what holds now; see [`ana_reads`](Self::ana_reads).
    pub fn read_ana(&mut self) -> u64 {
        if !self.reports_ana() {
            return 0;
        }
        self.due = Time::ZERO;
        self.wants_ana = true;
        self.ana_reads_begun + 1
    }

    /// The number of the read that [`ana`](Self::ana) is the result of, counted from 1. A read that was
    /// begun before something happened may tell what was before.
    pub fn ana_reads(&self) -> u64 {
        self.ana_reads_done
    }

    /// True while an ANA log is asked for or being read.
    pub fn is_reading_ana(&self) -> bool {
        self.wants_ana || matches!(self.step, Some((Step::Ana(_), _)))
    }

    /// A command of any queue was answered. Where that counts as a sign of life of both sides, Keep Alive can
    /// wait (rule B9.2).
    pub fn note_traffic(&mut self, now: Time) {
        if self.counts_traffic() {
            self.keep_alive.put_off(now);
        }
    }

    /// Submits an admin request of the owner's; it ends as [`ControllerEvent::Admin`].
    ///
    /// # Errors
    /// [`Rejected`], with the request.
    pub fn submit(&mut self, request: Request<U>) -> Result<(), Rejected<U>> {
        let held = self.faults.as_ref().map_or(0, |faults| faults.held());
        if self.admin.outstanding() + held + RESERVED_COMMANDS >= self.admin.commands_max() {
            let reason = RejectedReason::QueueFull;
            return Err(Rejected { request, reason });
        }
        self.due = Time::ZERO;
        let (request, owner) = request.replace(());
        self.send(request, Asked::Owner(owner)).map_err(|rejected| {
            let (request, asked) = rejected.request.replace(());
            let Asked::Owner(owner) = asked else {
                unreachable!("another request is rejected than was submitted")
            };
            Rejected {
                request: request.with(owner),
                reason: rejected.reason,
            }
        })
    }

    /// Submits a command on the admin queue, or holds it back where a fault is to be injected.
    fn send(&mut self, request: Request, asked: Asked<U>) -> Result<(), Rejected<Asked<U>>> {
        let mut request = request.with(asked);
        if let Some(faults) = self.faults.as_mut().filter(|_| self.admin.is_ready()) {
            match faults.submit(request) {
                Some(to_send) => request = to_send,
                None => return Ok(()),
            }
        }
        self.admin.submit(request)
    }

    /// Asks the controller to abort a command of one of its queues, given by queue and command identifier
    /// (NVMe Base 2.1, 5.1.1). Whether it was aborted shows on its own queue; a refusal of the Abort
    /// itself comes as [`ControllerEvent::AbortFailed`] if `insist`. At most ACL of them are on the way at
    /// a time.
    pub fn abort(&mut self, queue_id: u16, cid: u16, insist: bool) {
        self.due = Time::ZERO;
        self.aborts.add(queue_id, cid, insist);
    }

    /// Injects faults into admin commands from now on, the owner's and the controller's own, or stops that. They
    /// are over with the connection.
    pub fn inject(&mut self, change: FaultChange) {
        self.due = Time::ZERO;
        self.faults.get_or_insert_default().change(change);
    }

    /// Authenticates with other keys from now on: what connects later, and at once the admin queue, if it serves and there
    /// are keys. That ends with [`ControllerEvent::Authenticated`], or the controller does.
    pub fn authenticate_again(&mut self, auth: Option<HostAuth>) {
        self.due = Time::ZERO;
        self.known.options.connect.auth.clone_from(&auth);
        if self.admin.is_ready() && auth.is_some() {
            self.authenticate_at = Some(Time::ZERO);
        }
        self.admin.authenticate_again(auth);
    }

    /// Starts an orderly shutdown (CC.SHN); it ends with [`ControllerEvent::Ended`].
    pub fn shut_down(&mut self, now: Time) {
        self.due = Time::ZERO;
        match self.stage {
            Stage::Ready => {
                self.stage = Stage::Stopping;
                // A step may be under way, and this takes its place.
                self.step_number += 1;
                self.step = Some((Step::ShutDown, StepState::Due(now)));
                self.step_deadline = now + SHUTDOWN_TIME;
            }
            Stage::Starting => self.end(QueueError::HostClosed.into()),
            Stage::Stopping | Stage::Ended => {}
        }
    }

    /// Ends it now, without a word to the controller.
    pub fn close(&mut self) {
        self.end(QueueError::HostClosed.into());
    }

    /// Whether something happened that [`next_event`](Self::next_event) tells.
    #[inline]
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// What happened, in order.
    pub fn next_event(&mut self) -> Option<ControllerEvent<U>> {
        self.events.pop_front()
    }

    /// Whether the controller is to be connected to anew: by TLS with the key that its authentication has brought
    /// ([`HostAuth::concatenate`]), or with the other PSK identity first ([`HostTls::first`](crate::tls::HostTls)). Whoever
    /// polls it then calls [`connect_again`](Self::connect_again).
    #[inline]
    pub fn is_to_connect_again(&self) -> bool {
        self.is_to_connect_again
    }

    /// Takes a new connection in place of the one that is of no further use.
    ///
    /// That the operating system refuses to start one ends the controller.
    pub fn connect_again(&mut self, net: &mut Net, now: Time) {
        let options = self.known.options.connect.clone();
        self.is_to_connect_again = false;
        self.due = Time::ZERO;
        match QueuePair::connect(net, now, options) {
            Ok(admin) => self.admin = admin,
            Err(error) => self.end(QueueError::TcpConnect(error.kind()).into()),
        }
    }

    /// Has the service of `cx` told of the edges of the admin queue's stream, by `token`: see [`due`](Self::due).
    pub fn watch(&mut self, cx: &mut Context<'_>, token: u64) {
        self.admin.watch(cx, token);
    }

    /// Before this time [`poll`](Self::poll) has nothing to do, unless the admin queue's stream has had an edge, which is
    /// told to who [watches](Self::watch) it, or anything else was asked of the controller since.
    pub fn due(&mut self) -> Time {
        match self.stage {
            Stage::Ended => Time::MAX,
            _ if self.admin.may_receive() => Time::ZERO,
            _ => self.due,
        }
    }

    /// Takes what has arrived and does what is due. Bounded: one receive, one step, one send.
    pub fn poll(&mut self, now: Time) -> Progress {
        if self.stage == Stage::Ended {
            return Progress::Idle;
        }
        // Polled every turn, and almost always there is nothing: two comparisons and a load.
        if !self.admin.may_receive() && now < self.due {
            return Progress::Idle;
        }
        let was_ready = self.admin.is_ready();
        let inbox = &mut self.inbox;
        let received = self
            .admin
            .receive_if_ready(now, &mut |completed| inbox.push_back(completed));
        if self.faults.is_some() {
            self.apply_faults(now);
        }
        let progress = match received {
            Ok(progress) => progress,
            Err(error) => {
                if !self.turns_identities(error) {
                    self.end(error.into());
                }
                return Progress::Busy;
            }
        };
        if !was_ready && self.admin.is_ready() {
            if let Some(tls) = self.admin.take_generated() {
                let connect = &mut self.known.options.connect;
                // Both have proved what they had to.
                (connect.tls, connect.auth) = (Some(tls), None);
                self.want_to_connect_again();
                return Progress::Busy;
            }
            self.known.cntlid = self.admin.controller_id();
            self.start_step(Step::FIRST, now);
            self.keep_alive.start(now);
        }
        while let Some(completed) = self.inbox.pop_front() {
            if let Err(error) = self.on_completion(completed, now) {
                self.end(error);
                return Progress::Busy;
            }
        }
        if let Err(error) = self.do_what_is_due(now) {
            self.end(error);
            return Progress::Busy;
        }
        let inbox = &mut self.inbox;
        if let Err(error) = self
            .admin
            .transmit(&mut |completed| inbox.push_back(completed))
        {
            self.end(error.into());
        }
        // What the stream did not take is offered again next turn.
        self.due = match self.admin.has_unsent() {
            true => Time::ZERO,
            false => self.deadline().unwrap_or(Time::ZERO),
        };
        progress
    }

    /// After a handshake that the peer has ended as one may that does not know the first PSK identity: has the controller be
    /// connected to once more with the other one first, which its I/O queues then keep to. Whether that is so.
    fn turns_identities(&mut self, error: QueueError) -> bool {
        let connect = &mut self.known.options.connect;
        let (Some(tls), QueueError::Tls(refusal)) = (&connect.tls, error) else {
            return false;
        };
        if self.has_turned || self.admin.ktls().is_some() || !refusal.may_be_of_order() {
            return false;
        }
        let Some(turned) = tls.turned(&connect.host.nqn, &connect.subnqn) else {
            return false;
        };
        let remote = connect.remote;
        log::info!(
            target: LOG_FLAG,
            "{remote}: {error}; once more, with the other PSK identity first"
        );
        connect.tls = Some(turned);
        self.has_turned = true;
        self.want_to_connect_again();
        true
    }

    /// Until it is connected to again there is nothing to do, and its owner is at it.
    fn want_to_connect_again(&mut self) {
        self.is_to_connect_again = true;
        self.due = Time::MAX;
    }

    /// Injects faults into what has completed, and ends what was held back for long enough.
    #[cold]
    fn apply_faults(&mut self, now: Time) {
        let Some(faults) = &mut self.faults else {
            return;
        };
        for completed in &mut self.inbox {
            faults.complete(completed);
        }
        while let Some(completed) = faults.release(now) {
            self.inbox.push_back(completed);
        }
        self.faults.take_if(|faults| faults.is_spent());
    }

    fn end(&mut self, error: ControllerError) {
        if self.stage == Stage::Ended {
            return;
        }
        self.stage = Stage::Ended;
        let inbox = &mut self.inbox;
        self.admin
            .close(&mut |completed| inbox.push_back(completed));
        if let Some(faults) = self.faults.take() {
            faults.disconnect(|completed| inbox.push_back(completed));
        }
        while let Some(completed) = self.inbox.pop_front() {
            let (request, asked) = completed.request.replace(());
            if let Asked::Owner(owner) = asked {
                self.events.push_back(ControllerEvent::Admin(Completed {
                    request: request.with(owner),
                    outcome: completed.outcome,
                }));
            }
        }
        self.events.push_back(ControllerEvent::Ended(error));
    }
}
