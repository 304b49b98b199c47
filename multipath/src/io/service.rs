//! The service of an I/O reactor: its poll group and the application that uses it.

use pollux_reactor::{Context, Progress, Sender, Service, Time};

use super::poll_group::PollGroup;
use super::to_io::{IoMessage, IoMessageKind};
use crate::messages::ControlMessage;

/// What runs on each I/O reactor beside the poll group, on the same thread: a benchmark, a block device
/// export, a test.
pub trait Application: 'static {
    /// What other threads can tell it; see [`IoMessage::application`].
    type Message: Send + 'static;

    /// Takes a message.
    fn on_message(&mut self, message: Self::Message, group: &mut PollGroup, cx: &mut Context<'_>);

    /// A timer is due that this application has set by [`Context::set_timer`]; as [`Service::on_timer`].
    ///
    /// # Panics
    ///
    /// Unless it is implemented: an application that sets timers says what they are for.
    fn on_timer(&mut self, token: u64, group: &mut PollGroup, cx: &mut Context<'_>) {
        let _ = (group, cx);
        unreachable!("timer {token} was set by an application that awaits none");
    }

    /// A stream that this application watches has had an edge: [`Context::watch`] named it by this token, whose highest bit
    /// is not set (those are the poll group's, and so is [`Context::next_ready`]).
    ///
    /// # Panics
    ///
    /// Unless it is implemented: an application that watches streams says what for.
    fn on_ready(&mut self, token: u64, group: &mut PollGroup, cx: &mut Context<'_>) {
        let _ = (group, cx);
        unreachable!("stream {token} is watched by an application that awaits none");
    }

    /// Called once a turn, between receiving and sending: take completions, submit I/O. All that is
    /// submitted in one turn leaves with one send per connection.
    fn poll(&mut self, group: &mut PollGroup, cx: &mut Context<'_>) -> Progress;

    /// When [`poll`](Self::poll) has something to do although nothing arrives; as [`Service::deadline`].
    fn deadline(&self) -> Option<Time> {
        None
    }
}

pub(crate) struct IoService<A: Application> {
    poll_group: PollGroup,
    application: A,
}

impl<A: Application> IoService<A> {
    pub fn new(reactor: usize, control: Sender<ControlMessage>, application: A) -> Self {
        Self {
            poll_group: PollGroup::new(reactor, control),
            application,
        }
    }
}

impl<A: Application> Service for IoService<A> {
    type Message = IoMessage<A::Message>;

    fn on_message(&mut self, message: Self::Message, cx: &mut Context<'_>) {
        self.poll_group.turn(cx.now());
        match message.0 {
            IoMessageKind::Control(message) => self.poll_group.on_control(*message, cx),
            IoMessageKind::Application(message) => {
                self.application
                    .on_message(message, &mut self.poll_group, cx);
            }
        }
    }

    fn on_timer(&mut self, token: u64, cx: &mut Context<'_>) {
        self.poll_group.turn(cx.now());
        self.application.on_timer(token, &mut self.poll_group, cx);
    }

    fn deadline(&self) -> Option<Time> {
        let application = self.application.deadline();
        self.poll_group
            .deadline()
            .into_iter()
            .chain(application)
            .min()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Progress {
        self.poll_group.turn(cx.now());
        while let Some(token) = cx.next_ready() {
            if !self.poll_group.wake(token) {
                self.application.on_ready(token, &mut self.poll_group, cx);
            }
        }
        let received = self.poll_group.receive();
        let progress = received.or(self.application.poll(&mut self.poll_group, cx));
        self.poll_group.transmit();
        // What ended without a path is taken in the next turn, which must come.
        match self.poll_group.has_completions() {
            true => Progress::Busy,
            false => progress,
        }
    }

    fn before_sleep(&mut self) {
        self.poll_group.before_sleep();
    }

    fn in_flight(&self, out: &mut String) {
        self.poll_group.write_in_flight(out);
    }

    fn on_stop(&mut self, cx: &mut Context<'_>) {
        self.poll_group.close();
        // The application sees every I/O of its own end; nothing follows from what it says now.
        let _ = self.application.poll(&mut self.poll_group, cx);
    }
}
