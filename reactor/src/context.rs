//! What a service is handed in each call.

use std::io;
use std::os::fd::BorrowedFd;

use crate::counters::Counters;
use crate::net::{Net, Stream, WatchedDescriptor};
use crate::rng::Rng;
use crate::status::{Place, ReactorStatus, ServiceCounters, ThreadStatus};
use crate::sys;
use crate::time::Time;
use crate::timers::{TimerId, Timers};

/// What all services of one reactor share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) index: usize,
    pub(crate) net: Net,
    pub(crate) rng: Rng,
    pub(crate) stop: bool,
    pub(crate) counters: Counters,
    /// Counters of the service of each seat.
    pub(crate) services: Vec<ServiceCounters>,
    pub(crate) started: Time,
    /// `None` in a simulation.
    pub(crate) place: Option<Place>,
}

impl Core {
    pub(crate) fn counters(&self) -> Counters {
        Counters {
            socket_calls: self.net.socket_calls(),
            ..self.counters
        }
    }
}

/// Everything a service may know and use of the world, for the duration of one call.
#[derive(Debug)]
pub struct Context<'a> {
    now: Time,
    core: &'a mut Core,
    timers: &'a mut Timers,
    /// Which of the reactor's services this is.
    seat: usize,
}

impl<'a> Context<'a> {
    pub(crate) fn new(
        now: Time,
        core: &'a mut Core,
        timers: &'a mut Timers,
        seat: usize,
    ) -> Context<'a> {
        Context {
            now,
            core,
            timers,
            seat,
        }
    }
}

impl Context<'_> {
    /// The time at the start of this turn. It does not move during a turn.
    pub fn now(&self) -> Time {
        self.now
    }

    /// The reactor's random numbers.
    pub fn rng(&mut self) -> &mut Rng {
        &mut self.core.rng
    }

    /// The reactor's byte streams.
    pub fn net(&mut self) -> &mut Net {
        &mut self.core.net
    }

    /// Has this service told of the edges of a stream of this reactor ([`Context::next_ready`]), by `token`; a stream that
    /// is watched already gets a new token. A stream that moves to another reactor is watched there anew, after
    /// [`Net::adopt`].
    ///
    /// # Panics
    ///
    /// If the stream was opened on another reactor and not adopted by this one.
    pub fn watch(&mut self, stream: &mut Stream, token: u64) {
        self.core.net.watch(stream, self.seat, token);
    }

    /// Has this service told ([`Context::next_ready`]) by `token` when a descriptor of its own becomes readable, which also
    /// ends the sleep of a reactor that parks. Nobody reads it but its owner. It is watched until it is closed or what is
    /// returned is dropped; a token may still come then.
    ///
    /// # Errors
    ///
    /// What the system says of a descriptor that cannot be watched, such as one of a regular file;
    /// [`io::ErrorKind::InvalidInput`] in a simulation.
    pub fn watch_descriptor(
        &mut self,
        descriptor: BorrowedFd<'_>,
        token: u64,
    ) -> io::Result<WatchedDescriptor> {
        self.core.net.watch_descriptor(descriptor, self.seat, token)
    }

    /// The token of a watched stream that has had an edge, each edge's stream once: further edges are not told until
    /// [`Stream::take_ready`] was asked. A token may come for a stream that was dropped meanwhile.
    #[inline]
    pub fn next_ready(&mut self) -> Option<u64> {
        self.core.net.next_ready(self.seat)
    }

    /// Calls this service's `on_timer` with `token` in the first turn at or after `at`. Timers of equal time fire in the
    /// order in which they were set.
    pub fn set_timer(&mut self, at: Time, token: u64) -> TimerId {
        self.timers.set(at, token)
    }

    /// Cancels a timer of this service. False if it has fired or was cancelled before.
    pub fn cancel_timer(&mut self, id: TimerId) -> bool {
        self.timers.cancel(id)
    }

    /// Stops this reactor in good order after the present turn: `on_stop` of each of its services, then the thread ends.
    pub fn request_stop(&mut self) {
        self.core.stop = true;
    }

    /// Which reactor this is, as counted by `add_reactor`.
    pub fn reactor_index(&self) -> usize {
        self.core.index
    }

    /// How this reactor is. Not for every turn: it allocates.
    pub fn reactor_status(&self) -> ReactorStatus {
        let core = &*self.core;
        let thread = core.place.as_ref().map(|place| ThreadStatus {
            id: place.id,
            cores: place.cores.clone(),
            core: sys::current_core(),
            parks: place.parks,
        });
        ReactorStatus {
            reactor: core.index,
            thread,
            up: self.now - core.started,
            counters: core.counters(),
            services: core.services.iter().map(ServiceCounters::status).collect(),
        }
    }
}
