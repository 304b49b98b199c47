//! A controller as its host sees it: brought up step by step over the admin queue pair, kept alive,
//! listened to for events.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::Duration;

use pollux_reactor::{Net, Progress, Time};
use zerocopy::FromBytes;

use super::aborts::{ABORTS_MAX, Aborts};
use super::admin::AdminCommand;
use super::ana_log::AnaLog;
use super::faults::Fault;
use super::handshake::{ConnectOptions, Digests};
use super::keep_alive::{self, KeepAlive};
use super::namespaces::Namespace;
use super::notices::{AERS_MAX, Aers, Notices};
use super::queue_pair::{QueueError, QueuePair, Rejected, RejectedReason};
use super::request::{Completed, Outcome, Request};
use super::steps::{Answer, Next, Step};
use crate::spec::identify::{IdentifyController, ctrl};
use crate::spec::registers::{Cap, Vs};
use crate::spec::status::Status;

/// How to bring a controller up.
#[derive(Debug, Clone)]
pub struct ControllerOptions {
    /// The admin connection.
    pub connect: ConnectOptions,
    /// I/O queue pairs to ask for; 0 for a controller that is only asked questions.
    pub io_queues: u16,
    /// Entries of each I/O queue that are wanted; the controller's limit (CAP.MQES) holds.
    pub io_queue_size: u16,
    /// Time within which an admin command, but for those that wait for events, must be answered, and whether
    /// the controller is ended when one is not; `None`: no limit.
    pub command_timeout: Option<CommandTimeout>,
}

/// A limit on the time that commands may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandTimeout {
    /// From when a command is submitted. It is noticed at most an eighth later.
    pub after: Duration,
    /// What to do then.
    pub action: TimeoutAction,
}

/// What to do about a command that is not answered in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimeoutAction {
    /// Nothing but to tell.
    #[default]
    None,
    /// Abort the command; end the connection if that is of no avail for as long again.
    Abort,
    /// End the connection.
    Reset,
}

impl CommandTimeout {
    /// Calls of [`QueuePair::age`] that a command may see.
    pub const TICKS: u32 = 9;

    /// Time between two calls of [`QueuePair::age`]: a command is found not before `after`.
    pub fn tick(&self) -> Duration {
        (self.after / (Self::TICKS - 1)).max(Duration::from_nanos(1))
    }
}

/// Where bringing a controller up or ending it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The admin queue pair is connecting, or the first round of steps is under way.
    Starting,
    /// Usable: identified, namespaces and ANA log known.
    Ready,
    /// Shutting down.
    Stopping,
    /// The admin queue pair has ended.
    Ended,
}

/// Why a controller was lost or could not be brought up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ControllerError {
    /// The admin queue pair ended.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// A step was refused.
    #[error("{step}: {status}")]
    Refused {
        /// What was asked.
        step: &'static str,
        /// What was answered.
        status: Status,
    },
    /// A step was not answered in time.
    #[error("{0}: no answer in time")]
    Timeout(&'static str),
    /// The owner wanted it so.
    #[error("{0} on request")]
    OnRequest(&'static str),
    /// An answer makes no sense.
    #[error("{0}")]
    BadData(&'static str),
    /// Identify Controller is that of another controller.
    #[error(
        "Identify Controller is that of controller {identified}, connected is controller {connected}"
    )]
    OtherController {
        /// CNTLID that Connect has answered.
        connected: u16,
        /// CNTLID of the Identify Controller data.
        identified: u16,
    },
    /// An admin command was not answered within the command timeout.
    #[error("an admin command was not answered within the command timeout")]
    CommandTimeout,
    /// Keep Alive was not answered within KATO.
    #[error("keep-alive not answered within the keep-alive timeout")]
    KeepAlive,
}

/// What a controller tells its owner.
#[derive(Debug)]
pub enum ControllerEvent {
    /// It is usable.
    Ready,
    /// The controller announced that its ANA log has changed; it is read next.
    AnaNotice,
    /// A new ANA log was read: [`Controller::ana`].
    Ana,
    /// The namespaces were read again: [`Controller::namespaces`].
    Namespaces,
    /// The discovery log has changed.
    DiscoveryLog,
    /// A request of the owner's ended.
    Admin(Completed),
    /// So many admin commands, not counting those that wait for events, have not been answered within the
    /// command timeout.
    Overdue(usize),
    /// An Abort command that the owner asked for was refused.
    AbortFailed(Status),
    /// It is gone; nothing follows.
    Ended(ControllerError),
}

/// Requests of the controller's own carry these; an owner's `user` must be below.
const USER_MAX: u64 = 1 << 60;
const USER_STEP: u64 = USER_MAX;
const USER_KEEP_ALIVE: u64 = USER_MAX + 1;
const USER_AER: u64 = USER_MAX + 2;
const USER_ABORT: u64 = USER_MAX + 3;

/// Admin commands kept free for the controller's own use: AERs, Aborts, keep-alive, one step.
const RESERVED_COMMANDS: usize = AERS_MAX + ABORTS_MAX + 2;

/// Time between two reads of CSTS while waiting for ready or shutdown: the first, doubled with each that
/// follows, and the longest.
const CSTS_PERIOD: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));

/// Most entries of an I/O queue.
const QUEUE_ENTRIES_MAX: u32 = 1024;

/// How often a command of the controller's own is sent again that ends with a transient status (rule B9.5).
pub(super) const RETRIES_MAX: u32 = 6;
/// Time until it is sent again for the first time, doubled with each that follows, unless the status names
/// a delay (CRD). The longest that a controller may ask for.
const RETRY_DELAY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// Time until what could not be read is read again, once that many tries were of no avail.
const REREAD_DELAY: Duration = Duration::from_secs(5);

/// A controller over its admin queue pair.
#[derive(Debug)]
pub struct Controller {
    admin: QueuePair,
    options: ControllerOptions,
    stage: Stage,
    /// The step that waits for its answer or for a later time.
    step: Option<(Step, StepState)>,
    /// When the step, or shutting down as a whole, must have succeeded.
    step_deadline: Time,
    /// How often the step was sent again because it was too early, and after a transient status.
    polls: u32,
    retries: u32,
    /// When what could not be read because of a transient status is read again.
    reread_at: Option<Time>,
    /// That statuses are transient was said, and nothing was read since.
    is_troubled: bool,
    inbox: VecDeque<Completed>,
    events: VecDeque<ControllerEvent>,
    pub(super) cap: Cap,
    pub(super) version: Vs,
    pub(super) identify: Option<Box<IdentifyController>>,
    pub(super) io_queues: u16,
    pub(super) namespaces: BTreeMap<u32, Namespace>,
    /// Namespaces that were left out, and why.
    pub(super) left_out: BTreeMap<u32, &'static str>,
    pub(super) ana: Option<AnaLog>,
    /// Bad ANA logs seen (rule B3.3).
    pub(super) bad_ana_logs: u64,
    pub(super) wants_ana: bool,
    /// Reads of the ANA log that were begun, and the number of the last that has ended.
    ana_reads_begun: u64,
    ana_reads_done: u64,
    pub(super) wants_namespaces: bool,
    /// The status register is to be read: is the controller still well?
    wants_status: bool,
    aers: Aers,
    notices: Notices,
    aborts: Aborts,
    keep_alive: KeepAlive,
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

impl Controller {
    /// Starts to connect; [`poll`](Self::poll) drives it on.
    ///
    /// # Errors
    /// The operating system's refusal to start a connection.
    pub fn connect(net: &mut Net, now: Time, options: ControllerOptions) -> io::Result<Self> {
        let admin = QueuePair::connect(net, now, options.connect.clone())?;
        Ok(Self {
            admin,
            stage: Stage::Starting,
            step: None,
            step_deadline: now + options.connect.timeout,
            polls: 0,
            retries: 0,
            reread_at: None,
            is_troubled: false,
            keep_alive: KeepAlive::new(options.connect.keep_alive_ms),
            options,
            inbox: VecDeque::new(),
            events: VecDeque::new(),
            cap: Cap::from(0),
            version: Vs::new(),
            identify: None,
            io_queues: 0,
            namespaces: BTreeMap::new(),
            left_out: BTreeMap::new(),
            ana: None,
            bad_ana_logs: 0,
            wants_ana: false,
            ana_reads_begun: 0,
            ana_reads_done: 0,
            wants_namespaces: false,
            wants_status: false,
            aers: Aers::default(),
            notices: Notices::default(),
            aborts: Aborts::default(),
            age_at: None,
            due: Time::ZERO,
        })
    }

    /// Where it stands.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// What it was connected with.
    pub fn options(&self) -> &ControllerOptions {
        &self.options
    }

    /// Controller identifier (CNTLID).
    pub fn id(&self) -> u16 {
        self.admin.controller_id()
    }

    /// Identify Controller data, once it was read.
    pub fn identify(&self) -> Option<&IdentifyController> {
        self.identify.as_deref()
    }

    /// Controller capabilities (CAP).
    pub fn capabilities(&self) -> Cap {
        self.cap
    }

    /// The digests that it has granted.
    pub fn digests(&self) -> Digests {
        self.admin.digests()
    }

    /// Version (VS).
    pub fn version(&self) -> Vs {
        self.version
    }

    /// I/O queue pairs that it grants.
    pub fn io_queues(&self) -> u16 {
        self.io_queues
    }

    /// Its active namespaces that can be used.
    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.namespaces.values()
    }

    /// Active namespaces that cannot be used, and why.
    pub fn left_out(&self) -> impl Iterator<Item = (u32, &'static str)> {
        self.left_out.iter().map(|(&nsid, &why)| (nsid, why))
    }

    /// The last good ANA log; `None` without ANA reporting.
    pub fn ana(&self) -> Option<&AnaLog> {
        self.ana.as_ref()
    }

    /// ANA logs that were refused because they contradict themselves.
    pub fn bad_ana_logs(&self) -> u64 {
        self.bad_ana_logs
    }

    /// ANATT: how long a namespace may stay inaccessible or in change (rule B4.1: 10 s where 0 is reported).
    pub fn anatt(&self) -> Duration {
        let seconds = self.identify().map_or(0, |id| id.anatt);
        Duration::from_secs(if seconds == 0 { 10 } else { seconds.into() })
    }

    /// Largest transfer of one command in bytes (MDTS, at most 4 MiB where it sets no limit).
    pub fn transfer_max(&self) -> usize {
        const UNLIMITED: usize = 4 << 20;
        let page = 1usize << (12 + u32::from(self.cap.mpsmin()));
        match self.identify().map_or(0, |id| id.mdts) {
            0 => UNLIMITED,
            mdts => 1usize
                .checked_shl(u32::from(mdts))
                .and_then(|pages| pages.checked_mul(page))
                .map_or(UNLIMITED, |bytes| bytes.min(UNLIMITED)),
        }
    }

    /// What an I/O queue pair to this controller connects with.
    pub fn io_options(&self, queue_id: u16) -> ConnectOptions {
        // One more than is wanted: the last is kept for a probe.
        let size = (u32::from(self.options.io_queue_size) + 1)
            .min(self.cap.max_queue_entries())
            .clamp(2, QUEUE_ENTRIES_MAX);
        let in_capsule = self.identify().map_or(0, |id| {
            (usize::try_from(id.ioccsz.get()).unwrap_or(4) * 16).saturating_sub(64)
        });
        let offset_supported = self.identify().is_some_and(|id| id.icdoff.get() == 0);
        ConnectOptions {
            queue_id,
            queue_size: u16::try_from(size).unwrap_or(u16::MAX),
            controller_id: self.id(),
            keep_alive_ms: 0,
            in_capsule_max: if offset_supported { in_capsule } else { 0 },
            transfer_max: self.transfer_max(),
            receive_buffer: 256 * 1024,
            keep_probe_slot: size > 2,
            ..self.options.connect.clone()
        }
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

    /// True if the controller reports ANA (CMIC bit 3).
    pub fn reports_ana(&self) -> bool {
        self.identify().is_some_and(|id| id.cmic & 8 != 0)
    }

    /// A command of any queue was answered. Where that counts as a sign of life of both sides, Keep Alive can
    /// wait (rule B9.2).
    pub fn note_traffic(&mut self, now: Time) {
        if self.counts_traffic() {
            self.keep_alive.put_off(now);
        }
    }

    /// True if any command counts as a sign of life of the host (CTRATT.TBKAS).
    pub fn counts_traffic(&self) -> bool {
        self.identify()
            .is_some_and(|id| id.ctratt.get() & ctrl::CTRATT_TBKAS != 0)
    }

    /// True for a discovery controller (CNTRLTYPE 2, or connected to the discovery NQN).
    pub fn is_discovery(&self) -> bool {
        self.options.connect.subnqn.is_discovery()
            || self.identify().is_some_and(|id| id.cntrltype == 2)
    }

    /// True while an ANA log is asked for or being read.
    pub fn is_reading_ana(&self) -> bool {
        self.wants_ana || matches!(self.step, Some((Step::Ana(_), _)))
    }

    /// Submits an admin request of the owner's; it ends as [`ControllerEvent::Admin`]. Its `user` must be
    /// below 2^60.
    ///
    /// # Errors
    /// [`Rejected`], with the request.
    pub fn submit(&mut self, request: Request) -> Result<(), Rejected> {
        if self.admin.outstanding() + RESERVED_COMMANDS >= self.admin.commands_max()
            || request.user >= USER_MAX
        {
            return Err(Rejected {
                request,
                reason: RejectedReason::QueueFull,
            });
        }
        self.due = Time::ZERO;
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

    /// Makes up errors of the owner's admin commands and of the controller's own; see
    /// [`QueuePair::add_fault`].
    pub fn add_fault(&mut self, fault: Fault) {
        self.admin.add_fault(fault);
    }

    /// As [`QueuePair::remove_fault`].
    pub fn remove_fault(&mut self, opcode: u8) {
        self.admin.remove_fault(opcode);
    }

    /// Starts an orderly shutdown (CC.SHN); it ends with [`ControllerEvent::Ended`].
    pub fn shut_down(&mut self, now: Time) {
        self.due = Time::ZERO;
        match self.stage {
            Stage::Ready => {
                self.stage = Stage::Stopping;
                self.step = Some((Step::ShutDown, StepState::Due(now)));
                self.step_deadline = now + Duration::from_secs(2);
            }
            Stage::Starting => self.end(QueueError::HostClosed.into()),
            Stage::Stopping | Stage::Ended => {}
        }
    }

    /// Ends it now, without a word to the controller.
    pub fn close(&mut self) {
        self.end(QueueError::HostClosed.into());
    }

    /// What happened, in order.
    pub fn next_event(&mut self) -> Option<ControllerEvent> {
        self.events.pop_front()
    }

    /// When it must be polled again at the latest although nothing arrives.
    pub fn deadline(&self) -> Option<Time> {
        if self.stage == Stage::Ended {
            return None;
        }
        let step = match self.step {
            Some((_, StepState::Due(at))) => Some(at.min(self.step_deadline)),
            Some((_, StepState::Sent)) => Some(self.step_deadline),
            None => None,
        };
        let (aers, notices) = match self.stage {
            Stage::Ready => (
                self.aers.deadline(self.aerl()),
                self.notices
                    .deadline()
                    .into_iter()
                    .chain(self.reread_at)
                    .min(),
            ),
            _ => (None, None),
        };
        let keep_alive = self.keep_alive.deadline();
        let admin = self.admin.deadline();
        let aborts = match self.stage {
            Stage::Ready => self.aborts.deadline(self.acl()),
            _ => None,
        };
        let dues = [step, keep_alive, admin, self.age_at, aers, notices, aborts];
        dues.into_iter().flatten().min()
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
        let progress = match received {
            Ok(progress) => progress,
            Err(error) => {
                self.end(error.into());
                return Progress::Busy;
            }
        };
        if !was_ready && self.admin.is_ready() {
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

    fn do_what_is_due(&mut self, now: Time) -> Result<(), ControllerError> {
        if self.stage == Stage::Ready {
            self.follow_notices(now);
        }
        if self.step.is_none() && self.stage == Stage::Ready {
            if std::mem::take(&mut self.wants_status) {
                self.start_step(Step::Status, now);
            } else if std::mem::take(&mut self.wants_namespaces) {
                // Before the ANA log, which names namespaces that only then are known.
                self.start_step(Step::RESCAN, now);
            } else if std::mem::take(&mut self.wants_ana) {
                self.start_step(Step::ana(self), now);
            }
        }
        if let Some((step, StepState::Due(at))) = &self.step
            && *at <= now
        {
            let mut request = step.request(self);
            request.user = USER_STEP;
            match self.admin.submit(request) {
                Ok(()) => {
                    if let Some((_, state)) = &mut self.step {
                        *state = StepState::Sent;
                    }
                }
                Err(rejected) if rejected.reason == RejectedReason::QueueFull => {}
                Err(_) => return Err(ControllerError::BadData("step cannot be sent")),
            }
        }
        if let Some((step, _)) = &self.step
            && now >= self.step_deadline
        {
            return Err(ControllerError::Timeout(step.name()));
        }
        match self.keep_alive.due(now) {
            keep_alive::Due::Nothing => {}
            keep_alive::Due::ReadStatus => self.wants_status = true,
            keep_alive::Due::Missed => return Err(ControllerError::KeepAlive),
            keep_alive::Due::Send => {
                let mut request = AdminCommand::keep_alive();
                request.user = USER_KEEP_ALIVE;
                if self.admin.submit(request).is_ok() {
                    self.keep_alive.sent(now);
                }
            }
        }
        if self.stage == Stage::Ready {
            self.arm_events(now);
            self.send_aborts(now);
            return self.age_commands(now);
        }
        Ok(())
    }

    /// Abort commands that the controller takes at a time (ACL).
    fn acl(&self) -> usize {
        self.identify().map_or(1, |id| usize::from(id.acl_z) + 1)
    }

    fn send_aborts(&mut self, now: Time) {
        let acl = self.acl();
        while let Some(abort) = self.aborts.next(acl, now) {
            let mut request = AdminCommand::abort(abort.queue_id, abort.cid);
            request.user = USER_ABORT;
            if self.admin.submit(request).is_err() {
                break;
            }
            self.aborts.sent(abort);
        }
    }

    /// Looks for admin commands that are overdue. AERs may take for ever.
    fn age_commands(&mut self, now: Time) -> Result<(), ControllerError> {
        let Some(timeout) = self.options.command_timeout else {
            return Ok(());
        };
        if self.age_at.is_some_and(|at| now < at) {
            return Ok(());
        }
        self.age_at = Some(now + timeout.tick());
        let mut overdue = 0;
        self.admin.age(CommandTimeout::TICKS, &mut |command| {
            overdue += usize::from(command.request.user != USER_AER && !command.again);
        });
        if overdue == 0 {
            return Ok(());
        }
        // There is no other queue to abort an admin command by.
        match timeout.action {
            TimeoutAction::None => {
                self.events.push_back(ControllerEvent::Overdue(overdue));
                Ok(())
            }
            TimeoutAction::Abort | TimeoutAction::Reset => Err(ControllerError::CommandTimeout),
        }
    }

    /// AERs that the controller takes (AERL), as far as they are of use.
    fn aerl(&self) -> usize {
        let aerl = self.identify().map_or(1, |id| usize::from(id.aerl_z) + 1);
        aerl.min(AERS_MAX)
    }

    /// Keeps AERs outstanding (rule B3.2). Those of a controller that announces faster than what it announces
    /// is read wait with that, so that a storm does not cost a core.
    fn arm_events(&mut self, now: Time) {
        let aerl = self.aerl();
        while !self.notices.is_waiting() && self.aers.wants_more(aerl, now) {
            let mut request = AdminCommand::async_event_request();
            request.user = USER_AER;
            if self.admin.submit(request).is_err() {
                break;
            }
            let was_deaf = self.aers.deadline(aerl).is_some();
            self.aers.sent();
            if was_deaf {
                // What happened while none was outstanding may never be announced.
                self.notices.note(now, |wanted| {
                    wanted.ana = true;
                    wanted.namespaces = true;
                    wanted.discovery = true;
                });
            }
        }
    }

    /// Begins what notices have asked for, and reads again what could not be read.
    fn follow_notices(&mut self, now: Time) {
        if let Some((wanted, is_storm)) = self.notices.due(now) {
            self.wants_status |= wanted.status;
            self.wants_namespaces |= wanted.namespaces && !self.is_discovery();
            self.wants_ana |= (wanted.ana || wanted.namespaces) && self.reports_ana();
            if wanted.ana {
                self.events.push_back(ControllerEvent::AnaNotice);
            }
            if wanted.discovery && self.is_discovery() {
                self.events.push_back(ControllerEvent::DiscoveryLog);
            }
            if is_storm {
                let remote = self.options.connect.remote;
                log::warn!(
                    target: super::LOG_FLAG,
                    "{remote}: the controller announces changes all the time; they are followed 100 times a second at most"
                );
            }
        }
        if self.reread_at.take_if(|at| now >= *at).is_some() {
            self.wants_namespaces = !self.is_discovery();
            self.wants_ana |= self.reports_ana();
        }
    }

    fn on_completion(&mut self, completed: Completed, now: Time) -> Result<(), ControllerError> {
        if completed.request.user != USER_AER {
            self.note_traffic(now);
        }
        match completed.request.user {
            USER_KEEP_ALIVE => {
                self.wants_status = true;
                match completed.outcome {
                    Outcome::Completed { status, .. } => self.on_keep_alive(status, now),
                    Outcome::Lost(_) => Ok(()),
                }
            }
            USER_AER => {
                match completed.outcome {
                    Outcome::Completed { status, result } if status.is_success() => {
                        self.aers.fired();
                        self.on_event(result, now);
                    }
                    Outcome::Completed { status, .. } if status.is_transient() => {
                        self.say_transient("Asynchronous Event Request", status);
                        self.aers.failed(now);
                    }
                    // A controller that takes no (more) AERs is not asked again.
                    _ => self.aers.refused(),
                }
                Ok(())
            }
            USER_ABORT => {
                if let Outcome::Completed { status, .. } = completed.outcome {
                    self.on_abort_answer(completed.request.command.cdw[0], status, now);
                }
                Ok(())
            }
            USER_STEP => self.on_step_answer(&completed, now),
            _ => {
                self.events.push_back(ControllerEvent::Admin(completed));
                Ok(())
            }
        }
    }

    /// What was to be aborted stands in CDW10: the queue in bits 15:0, the command identifier above.
    fn on_abort_answer(&mut self, cdw10: u32, status: Status, now: Time) {
        let [a, b, c, d] = cdw10.to_le_bytes();
        let (queue_id, cid) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
        if self.aborts.answered(queue_id, cid, status, now) {
            self.events.push_back(ControllerEvent::AbortFailed(status));
        }
    }

    fn on_keep_alive(&mut self, status: Status, now: Time) -> Result<(), ControllerError> {
        if status.is_success() {
            self.keep_alive.answered(now);
        } else if status.is_transient() {
            self.say_transient("Keep Alive", status);
            self.keep_alive.answered_in_vain(now);
        } else if status.code() == Status::INVALID_OPCODE {
            self.go_without_keep_alive(now);
        } else {
            return Err(ControllerError::Refused {
                step: "Keep Alive",
                status,
            });
        }
        Ok(())
    }

    /// The controller knows no Keep Alive: its status register is read instead, so that its end is noticed.
    fn go_without_keep_alive(&mut self, now: Time) {
        if self.keep_alive.is_unsupported(now) {
            let remote = self.options.connect.remote;
            log::info!(
                target: super::LOG_FLAG,
                "{remote}: the controller does not support Keep Alive; its status is read instead"
            );
        }
    }

    /// Says that a status is not taken for the last word, once until something was read again.
    fn say_transient(&mut self, what: &str, status: Status) {
        if !std::mem::replace(&mut self.is_troubled, true) {
            let remote = self.options.connect.remote;
            log::warn!(target: super::LOG_FLAG, "{remote}: {what}: {status}; asked again");
        }
    }

    /// An asynchronous event (NVMe Base 2.1, 5.1.2.1): type in bits 2:0, information in 15:8.
    fn on_event(&mut self, result: u64, now: Time) {
        const ERROR: u64 = 0;
        const NOTICE: u64 = 2;
        self.notices
            .note(now, |wanted| match (result & 7, result >> 8 & 0xff) {
                // Some of these are said to be persistent or fatal: CSTS tells whether it is so.
                (ERROR, _) => wanted.status = true,
                (NOTICE, 0x00) => wanted.namespaces = true,
                (NOTICE, 0x03) => wanted.ana = true,
                (NOTICE, 0xf0) => wanted.discovery = true,
                _ => wanted.nothing = true,
            });
    }

    fn on_step_answer(&mut self, completed: &Completed, now: Time) -> Result<(), ControllerError> {
        let Some((step, _)) = self.step.take() else {
            return Ok(());
        };
        let Outcome::Completed { status, result } = completed.outcome else {
            return Err(ControllerError::BadData("admin queue lost"));
        };
        let answer = Answer {
            status,
            result,
            data: &completed.request.buffer,
        };
        let is_transient = status.is_transient();
        if is_transient && self.retries < RETRIES_MAX {
            self.say_transient(step.name(), status);
            let delay = self.retry_delay(status);
            self.retries += 1;
            self.step = Some((step, StepState::Due(now + delay)));
            // Shutting down has its time as a whole.
            if self.stage != Stage::Stopping {
                self.step_deadline = now + delay + self.options.connect.timeout;
            }
            return Ok(());
        }
        let next = if is_transient && self.stage == Stage::Ready {
            self.reread_at = Some(now + REREAD_DELAY);
            step.given_up(self)
        } else {
            step.answered(self, &answer)?
        };
        match next {
            Next::Step(next) => self.start_step(next, now),
            Next::Again(step) => {
                let (first, longest) = CSTS_PERIOD;
                let delay = (first * (1 << self.polls.min(8))).min(longest);
                self.polls += 1;
                self.step = Some((step, StepState::Due(now + delay)));
            }
            Next::Namespaces => {
                self.is_troubled &= self.reread_at.is_some();
                self.events.push_back(ControllerEvent::Namespaces);
            }
            Next::Ana => {
                self.is_troubled &= self.reread_at.is_some();
                self.ana_reads_done = self.ana_reads_begun;
                self.events.push_back(ControllerEvent::Ana);
            }
            Next::Well => {}
            Next::Ready => {
                self.stage = Stage::Ready;
                self.is_troubled = false;
                if self.identify().is_some_and(|id| id.kas.get() == 0) {
                    self.go_without_keep_alive(now);
                }
                self.ana_reads_done = self.ana_reads_begun;
                self.events.push_back(ControllerEvent::Ready);
            }
            Next::ShutDown => self.end(QueueError::HostClosed.into()),
        }
        Ok(())
    }

    /// Time after which a command is sent again that ended with a transient status: what the status asks for
    /// (CRD), else longer with each try.
    fn retry_delay(&self, status: Status) -> Duration {
        let (_, longest) = RETRY_DELAY;
        let asked = self.identify().and_then(|id| match status.crd() {
            1 => Some(id.crdt1.get()),
            2 => Some(id.crdt2.get()),
            3 => Some(id.crdt3.get()),
            _ => None,
        });
        let delay = match asked {
            Some(tenths) => Duration::from_millis(100) * tenths.into(),
            None => retry_delay(self.retries),
        };
        delay.min(longest)
    }

    fn start_step(&mut self, step: Step, now: Time) {
        (self.polls, self.retries) = (0, 0);
        self.ana_reads_begun += u64::from(step.begins_ana_read());
        self.step = Some((step, StepState::Due(now)));
        if self.stage != Stage::Stopping {
            self.step_deadline = now + self.options.connect.timeout;
        }
    }

    fn end(&mut self, error: ControllerError) {
        if self.stage == Stage::Ended {
            return;
        }
        self.stage = Stage::Ended;
        let inbox = &mut self.inbox;
        self.admin
            .close(&mut |completed| inbox.push_back(completed));
        while let Some(completed) = self.inbox.pop_front() {
            if completed.request.user < USER_MAX {
                self.events.push_back(ControllerEvent::Admin(completed));
            }
        }
        self.events.push_back(ControllerEvent::Ended(error));
    }

    /// The admin queue's limit on one transfer changes when MDTS is known.
    pub(super) fn apply_transfer_max(&mut self) {
        let bytes = self.transfer_max();
        self.admin.set_transfer_max(bytes);
    }
}

/// Time until a command is sent again that has ended with a transient status after so many retries.
pub(super) fn retry_delay(retries: u32) -> Duration {
    let (first, longest) = RETRY_DELAY;
    (first * (1 << retries)).min(longest)
}

/// Reads Identify Controller data into a box of its own: 4 KiB do not belong on the stack.
pub(super) fn boxed_identify(bytes: &[u8]) -> Option<Box<IdentifyController>> {
    let (data, _) = IdentifyController::ref_from_prefix(bytes).ok()?;
    let mut boxed = <IdentifyController as zerocopy::FromZeros>::new_box_zeroed().ok()?;
    zerocopy::IntoBytes::as_mut_bytes(&mut *boxed)
        .copy_from_slice(zerocopy::IntoBytes::as_bytes(data));
    Some(boxed)
}
