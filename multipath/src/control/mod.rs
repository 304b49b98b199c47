//! Control: the service that owns the controllers of all groups and the truth about their paths.
//!
//! It reacts to four things: requests, what the controllers report, what the I/O reactors report, and
//! time. Whatever changes a path's state ends in a message with a new epoch to every I/O reactor; control
//! itself never touches an I/O.
//!
//! A controller is a [`Member`](member::Member), named by its [`ControllerId`]. What happens to one is a method of the
//! member, which also borrows the [`Shared`] state beside the members, and which may go from one state to another only as
//! the table in [`lifecycle`] allows:
//!
//! ```text
//!    requests     controllers'     reports of      time
//!       |           events        I/O reactors      |
//!       v              v               v            v
//!   +------------------------------------------------------+
//!   | Control: finds the member (`with`), forgets the gone |
//!   +------------------------------------------------------+
//!       |                                   |
//!       v                                   v
//!     Member: one transition    <-->    Shared: volumes, epochs, who waits for an answer,
//!                                               ways to the I/O reactors
//! ```

mod asker;
mod attach;
mod authentication;
mod changes;
mod discovery;
mod discovery_log;
mod discovery_service;
mod follow_resets;
mod from_io;
mod journal;
mod lifecycle;
mod member;
mod members;
mod paths;
mod rate_limits;
mod reactors;
mod recovery;
mod requests;
mod resets;
mod retry;
mod shared;
mod slots;
mod status;
mod subscribers;
mod volumes;
mod waiters;
mod watches;

use pollux_nvme_tcp::host::{Controller, ControllerError, ControllerEvent, HostIdentity, Stage};
use pollux_reactor::{Context, Gather, Progress, Sender, Service, Time};

use self::discovery::Discovery;
use self::lifecycle::Lifecycle;
use self::member::Member;
use self::members::Members;
use self::reactors::Reactors;
use self::shared::Shared;
use self::slots::Slots;
pub(crate) use self::watches::Told;
use crate::ids::ControllerId;
use crate::io::IoMessage;
use crate::messages::ControlMessage;
use crate::request::Reply;
use crate::status::PathEventKind;

/// The control service.
pub(crate) struct Control {
    members: Members,
    shared: Shared,
    slots: Slots,
    /// Questions to the I/O reactors.
    gather: Gather<Control>,
    shutdown: Vec<Reply<()>>,
    /// Requests that are answered when a volume appears, and when they have failed.
    awaited: Vec<(String, Time, Reply<()>)>,
    discoveries: Vec<Discovery>,
    /// Nothing is due before this time.
    due: Time,
    /// No controller has anything to do of itself before this time.
    controllers_due: Time,
    /// The last turn found nothing to do: unless something arrives or is due, the next one will not either.
    is_settled: bool,
}

impl Control {
    /// `own` is the way to this service's mailbox, `reactors` are those to the I/O reactors.
    pub fn new<M: Send + 'static>(
        identity: HostIdentity,
        own: Sender<ControlMessage>,
        reactors: Vec<Sender<IoMessage<M>>>,
    ) -> Self {
        Self {
            members: Members::default(),
            shared: Shared::new(identity, Reactors::new(reactors)),
            slots: Slots::default(),
            // A mailbox that is full of other messages gives a turn as well.
            gather: Gather::new(move || drop(own.send(ControlMessage::Woken))),
            shutdown: Vec::new(),
            awaited: Vec::new(),
            discoveries: Vec::new(),
            due: Time::ZERO,
            is_settled: false,
            controllers_due: Time::ZERO,
        }
    }

    /// Has something happen to a member, and forgets it if that was its end; `None` if there is no such member.
    fn with<R>(
        &mut self,
        id: ControllerId,
        act: impl FnOnce(&mut Member, &mut Shared) -> R,
    ) -> Option<R> {
        let member = self.members.get_mut(id)?;
        let result = act(member, &mut self.shared);
        if member.lifecycle() == Lifecycle::Gone {
            self.members.remove(id);
            self.slots.give_back(id.slot);
            self.shared.gone(id);
        }
        Some(result)
    }

    /// As [`with`](Self::with), if this is the member's present connection.
    fn with_incarnation(
        &mut self,
        id: ControllerId,
        incarnation: u32,
        act: impl FnOnce(&mut Member, &mut Shared),
    ) {
        self.with(id, |member, shared| {
            if member.incarnation == incarnation {
                act(member, shared);
            }
        });
    }

    fn on_event(&mut self, id: ControllerId, event: ControllerEvent<u64>) {
        if let ControllerEvent::Ready = event {
            return self.on_controller_ready(id);
        }
        self.with(id, |member, shared| match event {
            ControllerEvent::Ended(_) if member.lifecycle() == Lifecycle::Stopping => {
                member.enter(Lifecycle::Gone);
            }
            ControllerEvent::Ended(error) => member.queue_lost(0, error, shared),
            ControllerEvent::Admin(completed) => shared.on_admin(completed),
            // Its paths are gone, and no event brings them back.
            _ if member.lifecycle() == Lifecycle::Stopping => {}
            ControllerEvent::AnaNotice => member.record_all(&PathEventKind::AnaNotice, shared),
            ControllerEvent::Ana => member.apply_ana(shared),
            ControllerEvent::Namespaces => {
                member.update_paths(shared);
                member.apply_ana(shared);
            }
            ControllerEvent::Overdue(commands) => {
                let reactor = None;
                let kind = PathEventKind::CommandTimeout { reactor, commands };
                member.record_all(&kind, shared);
            }
            ControllerEvent::CrossControllerResetLog => {
                let now = shared.now;
                shared.resets.announced(member.id, now);
            }
            // What could not be aborted is ended with its connection (rule B9.1).
            ControllerEvent::AbortFailed(status) => {
                let step = "Abort";
                member.lose(ControllerError::Refused { step, status }, shared);
            }
            ControllerEvent::Authenticated => member.queue_authenticated(0, shared),
            // Ready is dealt with, and discovery has controllers of its own.
            _ => {}
        });
    }

    /// Polls the controllers and takes their events, if one has something to do.
    fn poll_controllers(&mut self, cx: &mut Context<'_>) -> Progress {
        let now = self.shared.now;
        let mut has_edge = false;
        while cx.next_ready().is_some() {
            has_edge = true;
        }
        if !self.members.take_touched() && !has_edge && now < self.controllers_due {
            return Progress::Idle;
        }
        let (mut progress, mut has_events) = (Progress::Idle, false);
        let mut due = Time::MAX;
        for member in self.members.iter_mut() {
            if let Some(controller) = &mut member.controller {
                let polled = controller.poll(now);
                if polled == Progress::Busy && controller.is_to_connect_again() {
                    controller.connect_again(cx.net(), now);
                    controller.watch(cx, 0);
                }
                progress = progress.or(polled);
                has_events |= controller.has_events();
                due = due.min(controller.due());
            }
        }
        self.controllers_due = due;
        // They were touched here, and that was all that there was to do.
        self.members.take_touched();
        if !has_events {
            return progress;
        }
        let mut n = 0;
        while let Some(id) = self.members.nth(n) {
            let next = |m: &mut Member| m.controller.as_mut().and_then(Controller::next_event);
            while let Some(event) = self.members.get_mut(id).and_then(next) {
                self.on_event(id, event);
            }
            // If it was forgotten, the next one is in its place.
            n += usize::from(self.members.nth(n) == Some(id));
        }
        Progress::Busy
    }

    /// Namespaces that did not fit a volume may be volumes of their own when one has gone.
    fn look_at_left_out(&mut self) -> Progress {
        if !std::mem::take(&mut self.shared.look_at_left_out) {
            return Progress::Idle;
        }
        let live = |m: &Member| m.lifecycle() == Lifecycle::Live && !m.left_out.is_empty();
        for id in self.members.ids(live) {
            self.with(id, |member, shared| {
                member.update_paths(shared);
                member.apply_ana(shared);
            });
        }
        Progress::Busy
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Progress {
        self.shared.now = cx.now();
        let is_due = self.shared.now >= self.due;
        let mut progress = self.poll_controllers(cx);
        if self.is_settled && progress == Progress::Idle && !is_due && self.discoveries.is_empty() {
            return Progress::Idle;
        }
        progress = progress.or(self.look_at_left_out());
        progress = progress.or(self.follow_resets());
        progress = progress.or(self.poll_discoveries(cx));
        while let Some(answered) = self.gather.next_answered() {
            answered(self);
            progress = Progress::Busy;
        }
        if is_due {
            self.grant_slices();
            for id in self.members.ids(|_| true).into_iter().rev() {
                self.with(id, |member, shared| member.do_what_is_due(shared, cx));
            }
        }
        if is_due || progress == Progress::Busy {
            self.due = self.next_due();
        }
        if !self.awaited.is_empty() {
            self.answer_awaited();
        }
        self.finish_shutdown();
        // How the attaches of discoveries have ended is taken up in the next turn, which must come.
        if !self.shared.attach_results.is_empty() {
            progress = Progress::Busy;
        }
        self.is_settled = !is_due && progress == Progress::Idle;
        progress
    }

    /// When something is due next.
    fn next_due(&self) -> Time {
        let members = self.members.iter().filter_map(Member::deadline);
        let awaited = self.awaited.iter().map(|(_, until, _)| *until);
        let deadline = members
            .chain(self.discovery_deadline())
            .chain(awaited)
            .chain(self.shared.resets.deadline())
            .chain(self.slices_deadline())
            .min();
        deadline.unwrap_or(Time::MAX)
    }
}

impl Service for Control {
    type Message = ControlMessage;

    fn on_message(&mut self, message: ControlMessage, cx: &mut Context<'_>) {
        self.shared.now = cx.now();
        match message {
            ControlMessage::Io { reactor, message } => self.on_io(reactor, message),
            ControlMessage::Request(request) => self.on_request(request, cx),
            ControlMessage::Watch { volume, change } => {
                self.shared.volumes.watches.add(volume, change);
            }
            ControlMessage::Woken => self.shared.volumes.watches.look(),
        }
        self.due = Time::ZERO;
    }

    fn deadline(&self) -> Option<Time> {
        (self.due < Time::MAX).then_some(self.due)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Progress {
        let progress = self.turn(cx);
        self.shared.tell_subscribers();
        self.shared.tell_watches();
        self.shared.reactors.flush();
        progress
    }

    fn on_stop(&mut self, _cx: &mut Context<'_>) {
        for member in self.members.iter_mut() {
            if let Some(controller) = &mut member.controller
                && controller.stage() != Stage::Ended
            {
                controller.close();
            }
        }
        self.end_discoveries();
        self.cancel_shutdown();
    }
}
