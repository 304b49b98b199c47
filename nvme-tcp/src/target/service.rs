//! The target's service on one reactor: passes on messages, timers and polls to its parts.

use pollux_reactor::{Context, Executor, Progress, Sender, Service, Time, mailbox};

use crate::target::conn::Turn;
use crate::target::conn::buffers::Buffers;
use crate::target::conn::linger::Lingering;
use crate::target::control::handle::TargetHandle;
use crate::target::control::links::Links;
use crate::target::control::message::{Envelope, HomeMessage, TargetMessage};
use crate::target::control::{Home, HomeTurn};
use crate::target::disk::Doorbell;
use crate::target::io::message::IoMessage;
use crate::target::io::part::IoPart;
use crate::target::token;

/// Messages that a service's mailbox holds.
const MAILBOX_CAPACITY: usize = 1024;

/// Installs a target on these reactors of `executor`, home on the first, and returns the way to it. It has no subsystems
/// and no listeners at first.
///
/// Where the executor allows no threads, what threads of disks would do is done in the turn.
///
/// # Panics
///
/// If `reactors` is empty, or the executor has no such reactors.
pub fn install(executor: &mut impl Executor, reactors: &[usize]) -> TargetHandle {
    assert!(!reactors.is_empty(), "a target needs a reactor");
    let threads = executor.allows_threads();
    let (senders, receivers): (Vec<_>, Vec<_>) = reactors
        .iter()
        .map(|_| mailbox::<TargetMessage>(MAILBOX_CAPACITY))
        .unzip();
    for (index, receiver) in receivers.into_iter().enumerate() {
        let senders = senders.clone();
        executor.add_service(reactors[index], receiver, move || {
            let own = &senders[index];
            TargetService {
                home: (index == 0).then(|| {
                    let own = own.clone();
                    // A mailbox that is full of other messages gives home its turn as well.
                    let wake = move || drop(own.send(TargetMessage(Envelope::Woken)));
                    Box::new(Home::new(wake, threads))
                }),
                io: IoPart::new(index, threads.then(|| doorbell(own))),
                links: Links::new(index, &senders),
                lingering: Lingering::default(),
                buffers: Buffers::default(),
            }
        });
    }
    TargetHandle {
        home: senders[0].clone(),
    }
}

/// The way to a reactor for the threads of its disks.
fn doorbell(own: &Sender<TargetMessage>) -> Doorbell {
    let own = own.clone();
    Doorbell::new(move |channel| {
        let message = Envelope::Io(IoMessage::DiskAwake { channel });
        own.send(TargetMessage(message)).is_ok()
    })
}

/// The part of a target that runs on one reactor.
#[derive(Debug)]
pub(super) struct TargetService {
    home: Option<Box<Home>>,
    io: IoPart,
    links: Links,
    lingering: Lingering,
    buffers: Buffers,
}

impl TargetService {
    fn dispatch(&mut self, envelope: Envelope, cx: &mut Context<'_>) {
        match envelope {
            Envelope::Io(message) => {
                let (io, mut turn) = self.io(cx);
                io.on_message(message, &mut turn);
                self.tell_home();
            }
            Envelope::Woken => {}
            Envelope::Home(message) => {
                if let Some((home, mut turn)) = self.home(cx) {
                    home.on_message(message, &mut turn);
                }
            }
        }
    }

    /// The I/O part, and what it may use.
    #[inline]
    fn io<'t, 'c>(&'t mut self, cx: &'t mut Context<'c>) -> (&'t mut IoPart, Turn<'t, 'c>) {
        let turn = Turn {
            lingering: &mut self.lingering,
            buffers: &mut self.buffers,
            cx,
        };
        (&mut self.io, turn)
    }

    /// The home part, if it is here, and what it may use.
    #[inline]
    fn home<'t, 'c>(
        &'t mut self,
        cx: &'t mut Context<'c>,
    ) -> Option<(&'t mut Home, HomeTurn<'t, 'c>)> {
        let turn = HomeTurn {
            links: &mut self.links,
            lingering: &mut self.lingering,
            buffers: &mut self.buffers,
            cx,
        };
        Some((self.home.as_mut()?, turn))
    }

    /// Sends home what the I/O part has to tell.
    #[inline]
    fn tell_home(&mut self) {
        for event in self.io.told.drain(..) {
            self.links.send_home(HomeMessage::Io(event));
        }
    }

    /// Has the next poll look at the stream or disk that the token names.
    fn wake(&mut self, token: u64) {
        match (token::split(token), &mut self.home) {
            ((token::QUEUE, place), _) => self.io.wake(place),
            ((token::DISK, place), _) => self.io.wake_disk(place),
            ((token::CONNECTION, id), Some(home)) => home.wake(id),
            ((token::LINGERING, _), _) => self.lingering.wake(),
            ((kind, _), _) => unreachable!("no stream is watched with a token of kind {kind}"),
        }
    }

    /// Delivers what this service has sent itself, and what that makes it send.
    #[inline]
    fn deliver_local(&mut self, cx: &mut Context<'_>) {
        while let Some(envelope) = self.links.next_local() {
            self.dispatch(envelope, cx);
        }
    }
}

impl Service for TargetService {
    type Message = TargetMessage;

    fn on_message(&mut self, TargetMessage(envelope): TargetMessage, cx: &mut Context<'_>) {
        self.dispatch(envelope, cx);
        self.deliver_local(cx);
    }

    fn on_timer(&mut self, token: u64, cx: &mut Context<'_>) {
        #[expect(clippy::expect_used, reason = "nothing else sets timers")]
        let (home, mut turn) = self.home(cx).expect("a timer of the home part");
        home.on_timer(token, &mut turn);
        self.deliver_local(cx);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Progress {
        while let Some(token) = cx.next_ready() {
            self.wake(token);
        }
        let (io, mut turn) = self.io(cx);
        let mut progress = io.poll(&mut turn);
        self.tell_home();
        if let Some((home, mut turn)) = self.home(cx) {
            progress = progress.or(home.poll(&mut turn));
        }
        progress = progress.or(self.lingering.poll(&mut self.buffers, cx));
        self.deliver_local(cx);
        let due = self.home.as_ref().is_some_and(|h| h.has_due());
        if self.links.flush() || due {
            progress = Progress::Busy;
        }
        progress
    }

    fn before_sleep(&mut self) {
        self.io.before_sleep();
    }

    fn deadline(&self) -> Option<Time> {
        let home = self.home.as_ref().and_then(|home| home.deadline());
        let times = [self.io.deadline(), home, self.lingering.deadline()];
        times.into_iter().flatten().min()
    }
}
