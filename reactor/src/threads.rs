//! The real executor: a thread per reactor, pinned to its core.

use std::any::Any;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use core_affinity::CoreId;
use crossbeam_utils::CachePadded;

use crate::counters::{Counters, Published};
use crate::executor::Executor;
use crate::idle::{Idle, Rest};
use crate::mailbox::{Bell, Receiver};
use crate::net::tcp::TcpNet;
use crate::net::wrap::{Opened, StreamWrapper, Wrap};
use crate::net::{Net, Stream};
use crate::reactor::Reactor;
use crate::rng::Rng;
use crate::service::{Progress, Service};
use crate::status::Place;
use crate::sys;
use crate::time::Time;

/// Turns between two publications of the counters. A reactor makes millions of turns a second when idle and a hundred
/// thousand or more when busy, so what is published is at most some tens of milliseconds old, and costs next to nothing.
const PUBLISH_TURNS: u64 = 4096;

/// The cores on which the calling thread, and threads that it starts, may run.
///
/// Empty when the system does not tell, or has more than 1024 cores.
pub fn available_cores() -> Vec<usize> {
    core_affinity::get_core_ids()
        .unwrap_or_default()
        .into_iter()
        .map(|core| core.id)
        .collect()
}

/// Lets the calling thread run wherever [`Group::start`] was called: a thread that a pinned reactor starts is pinned to the
/// reactor's core, and would take its time. A failure leaves it there.
pub fn leave_core() {
    sys::leave_core();
}

/// Has the calling thread run on cores that no reactor is pinned to, as long as there are some, and behind other threads
/// where it shares a core: for what takes long and is not urgent. Of a core that a reactor wants all of it gets a tenth. A
/// failure leaves it as it was.
pub fn stand_back() {
    sys::stand_back();
}

/// How many descriptors this process may have open. [`Group::start`] raises it as far as the system lets it.
pub fn descriptors_max() -> usize {
    sys::descriptors_max()
}

/// How many descriptors this process has open, whatever for.
pub fn descriptors_open() -> usize {
    // The directory's own is among them.
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// Why a [`Group`] did not start. No reactor of it runs then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A reactor was given a core that does not exist or that this process may not use.
    #[error("core {core} cannot be had; cores that can: {}", list(.available))]
    NoSuchCore {
        /// The core that was asked for.
        core: usize,
        /// The cores that can be had.
        available: Vec<usize>,
    },
    /// The system did not move the thread to the core, although it lists the core as available.
    #[error("core {core} was not given to reactor {reactor}; cores that can be had: {}", list(.available))]
    NotPinned {
        /// The reactor.
        reactor: usize,
        /// The core that was asked for.
        core: usize,
        /// The cores that can be had.
        available: Vec<usize>,
    },
    /// A reactor's event queue or thread could not be made (descriptors, memory, threads).
    #[error("reactor {reactor} cannot be set up: {source}")]
    System {
        /// The reactor.
        reactor: usize,
        /// What the system said.
        source: io::Error,
    },
}

fn list(cores: &[usize]) -> String {
    let cores: Vec<String> = cores.iter().map(usize::to_string).collect();
    cores.join(", ")
}

/// Seats one service; runs on the reactor's thread.
type Build = Box<dyn FnOnce(&mut Reactor, &Arc<Bell>) + Send>;

struct Setup {
    core: Option<usize>,
    idle: Idle,
    builds: Vec<Build>,
}

/// A set of reactors to be started together.
#[derive(Default)]
pub struct Group {
    setups: Vec<Setup>,
    wraps: Vec<Wrap>,
}

impl Group {
    /// A group without reactors.
    pub fn new() -> Group {
        Group::default()
    }

    /// Adds a reactor and returns its index, counted from 0. It is pinned to `core`; with `None` the system places it.
    ///
    /// Where reactors share a core, or there are more of them than cores, [`Idle::Spin`] becomes [`Idle::Yield`]: a
    /// spinning neighbour would otherwise keep the others waiting for whole scheduler slices.
    pub fn add_reactor(&mut self, core: Option<usize>, idle: Idle) -> usize {
        self.setups.push(Setup {
            core,
            idle,
            builds: Vec::new(),
        });
        self.setups.len() - 1
    }

    /// Adds a service to a reactor. `build` makes it on the reactor's own thread, so the service need not be `Send`.
    ///
    /// # Panics
    ///
    /// If `reactor` is not an index that [`Group::add_reactor`] returned.
    pub fn add_service<S: Service>(
        &mut self,
        reactor: usize,
        receiver: Receiver<S::Message>,
        build: impl FnOnce() -> S + Send + 'static,
    ) {
        assert!(
            reactor < self.setups.len(),
            "there is no reactor {reactor} in this group"
        );
        self.setups[reactor]
            .builds
            .push(Box::new(move |reactor, bell| {
                reactor.seat(build(), receiver, Some(bell));
            }));
    }

    /// Has `wrap` put a wrapper around every stream that a service of this group connects or accepts, from the start; a
    /// second call puts another one around the first. Management connections are left alone.
    ///
    /// `wrap` runs on the reactor's thread, in the turn in which the stream is opened, and must not block.
    pub fn wrap_streams(
        &mut self,
        wrap: impl Fn(Stream, Opened) -> Box<dyn StreamWrapper> + Send + Sync + 'static,
    ) {
        self.wraps.push(Wrap::new(wrap));
    }

    /// Starts a thread for each reactor, pins it and checks that it was pinned. Services are built and started only when
    /// all reactors have their cores.
    ///
    /// # Errors
    ///
    /// [`StartError`]; then nothing runs any more.
    pub fn start(mut self) -> Result<Running, StartError> {
        sys::note_cores();
        sys::survive_limits();
        sys::raise_descriptor_limit();
        let available = available_cores();
        self.check_cores(&available)?;
        sys::note_pinned(self.setups.iter().filter_map(|setup| setup.core));
        self.share_cores(available.len());

        let mut running = Running::default();
        let (pinned_sender, pinned) = mpsc::channel();
        let mut gates = Vec::new();
        for (index, setup) in self.setups.into_iter().enumerate() {
            let system = |source| StartError::System {
                reactor: index,
                source,
            };
            let (net, waker) = TcpNet::new().map_err(system)?;
            let bell = Arc::new(Bell::new(waker));
            let published = Arc::new(CachePadded::new(Published::default()));
            running.bells.push(Arc::clone(&bell));
            running.published.push(Arc::clone(&published));
            let bells_of_all = mpsc::channel();
            gates.push(bells_of_all.0);
            let thread = Thread {
                index,
                net,
                bell,
                published,
                setup,
                wraps: self.wraps.clone(),
                pinned: pinned_sender.clone(),
                gate: bells_of_all.1,
            };
            let handle = thread::Builder::new()
                .name(format!("reactor-{index}"))
                .spawn(move || thread.run())
                .map_err(system)?;
            running.handles.push(handle);
        }
        // Dropping the gates on an early return ends the threads that wait behind them.
        for result in pinned.iter().take(gates.len()) {
            if let Err((reactor, core)) = result {
                return Err(StartError::NotPinned {
                    reactor,
                    core,
                    available,
                });
            }
        }
        for gate in gates {
            // A thread that is gone already reports at join.
            let _ = gate.send(running.bells.clone());
        }
        Ok(running)
    }

    fn check_cores(&self, available: &[usize]) -> Result<(), StartError> {
        for core in self.setups.iter().filter_map(|setup| setup.core) {
            if !available.contains(&core) {
                return Err(StartError::NoSuchCore {
                    core,
                    available: available.to_vec(),
                });
            }
        }
        Ok(())
    }

    /// Reactors that cannot have a core for themselves must not spin.
    fn share_cores(&mut self, cores: usize) {
        let crowded = self.setups.len() > cores;
        let mut reactors_on = BTreeMap::new();
        for core in self.setups.iter().filter_map(|setup| setup.core) {
            *reactors_on.entry(core).or_insert(0) += 1;
        }
        for setup in &mut self.setups {
            let shared = setup
                .core
                .is_some_and(|core| reactors_on.get(&core).is_some_and(|&n| n > 1));
            if (shared || crowded) && setup.idle == Idle::Spin {
                setup.idle = Idle::Yield;
            }
        }
    }
}

impl Executor for Group {
    fn reactors(&self) -> usize {
        self.setups.len()
    }

    fn add_service<S: Service>(
        &mut self,
        reactor: usize,
        receiver: Receiver<S::Message>,
        build: impl FnOnce() -> S + Send + 'static,
    ) {
        Group::add_service(self, reactor, receiver, build);
    }

    fn allows_threads(&self) -> bool {
        true
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group")
            .field("reactors", &self.setups.len())
            .finish_non_exhaustive()
    }
}

/// What the thread of one reactor starts with.
struct Thread {
    index: usize,
    net: TcpNet,
    bell: Arc<Bell>,
    published: Arc<CachePadded<Published>>,
    setup: Setup,
    wraps: Vec<Wrap>,
    /// Tells whether the thread got its core; if not, which reactor and which core.
    pinned: mpsc::Sender<Result<(), (usize, usize)>>,
    /// Opens with the bells of the whole group when all threads have their cores.
    gate: mpsc::Receiver<Vec<Arc<Bell>>>,
}

impl Thread {
    fn run(self) -> Counters {
        let result = match self.setup.core {
            Some(core) if !pin(core) => Err((self.index, core)),
            _ => Ok(()),
        };
        let gate = self.gate;
        if self.pinned.send(result).is_err() {
            return Counters::default();
        }
        let Ok(group) = gate.recv() else {
            return Counters::default();
        };
        let _stop_others = StopOnPanic { group };

        // Nothing has to be reproduced on a real reactor, so any seed will do.
        let rng = Rng::seeded(RandomState::new().hash_one(self.index));
        let mut reactor = Reactor::new(self.index, Net::tcp(self.net, &self.bell, self.wraps), rng);
        reactor.set_place(Place {
            id: sys::thread_id(),
            cores: sys::affinity().unwrap_or_default(),
            parks: matches!(self.setup.idle, Idle::Park { .. }),
        });
        for build in self.setup.builds {
            build(&mut reactor, &self.bell);
        }
        let (idle, bell, published) = (self.setup.idle, &self.bell, &self.published);
        let ended = catch_unwind(AssertUnwindSafe(|| {
            run(&mut reactor, idle, bell, published);
        }));
        if let Err(panic) = ended {
            say_in_flight(&reactor);
            resume_unwind(panic);
        }
        reactor.counters()
    }
}

/// Says what was under way when a service has panicked. What the panic has left may well panic again: then that is
/// all there is to say.
fn say_in_flight(reactor: &Reactor) {
    let in_flight = catch_unwind(AssertUnwindSafe(|| reactor.in_flight()));
    let index = reactor.index();
    log::error!("reactor {index} has panicked, and the process stops");
    for line in in_flight.unwrap_or_default().lines() {
        log::error!("reactor {index}, in flight: {line}");
    }
    // The process may be gone before the thread that writes has its turn.
    log::logger().flush();
}

/// The loop.
fn run(reactor: &mut Reactor, idle: Idle, bell: &Bell, published: &Published) {
    let mut rest = Rest::new(idle);
    let mut until_publish = PUBLISH_TURNS;
    reactor.start(Time::read_clock());
    while !reactor.stop_requested() && !bell.stop_requested() {
        let now = Time::read_clock();
        let progress = reactor.poll_once(now);
        until_publish -= 1;
        let sleep_follows = match progress {
            Progress::Busy => {
                rest.was_busy();
                false
            }
            Progress::Idle => rest.is_sleep_due(now),
        };
        if sleep_follows || until_publish == 0 {
            published.store(&reactor.counters());
            until_publish = PUBLISH_TURNS;
        }
        if progress == Progress::Idle {
            rest.rest(now, reactor, bell);
        }
    }
    reactor.stop(Time::read_clock());
    published.store(&reactor.counters());
}

/// Pins the calling thread to `core`, and checks with the system that it is there.
fn pin(core: usize) -> bool {
    core_affinity::set_for_current(CoreId { id: core })
        && sys::affinity().is_ok_and(|cores| cores == [core])
        && sys::current_core().is_none_or(|current| current == core)
}

/// Stops the whole group when its thread panics: the others would wait for ever for a reactor that is gone, and the one
/// who joins them would never learn of the panic.
struct StopOnPanic {
    group: Vec<Arc<Bell>>,
}

impl Drop for StopOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            for bell in &self.group {
                bell.request_stop();
            }
        }
    }
}

/// The reactors of a started [`Group`]. Dropping it stops them and waits for their ends.
#[derive(Debug, Default)]
pub struct Running {
    handles: Vec<JoinHandle<Counters>>,
    bells: Vec<Arc<Bell>>,
    published: Vec<Arc<CachePadded<Published>>>,
}

impl Running {
    /// Asks every reactor to stop in good order after its present turn: `on_stop` of each service, in the order in which
    /// they were added. Does not wait.
    pub fn stop(&self) {
        for bell in &self.bells {
            bell.request_stop();
        }
    }

    /// Waits until all reactors have ended, by [`Running::stop`] or by
    /// [`Context::request_stop`](crate::Context::request_stop), and returns their final counters.
    ///
    /// # Panics
    ///
    /// If a service panicked: the panic goes on here. The other reactors are stopped first.
    pub fn join(mut self) -> Vec<Counters> {
        let mut panic: Option<Box<dyn Any + Send>> = None;
        let mut counters = Vec::with_capacity(self.handles.len());
        for handle in self.handles.drain(..) {
            match handle.join() {
                Ok(of_one) => counters.push(of_one),
                Err(payload) => panic = panic.or(Some(payload)),
            }
        }
        match panic {
            Some(payload) => resume_unwind(payload),
            None => counters,
        }
    }

    /// The counters of each reactor, as it published them last: every few thousand turns, and before it parks. The reactors
    /// are not disturbed.
    pub fn counters(&self) -> Vec<Counters> {
        self.published
            .iter()
            .map(|published| published.load())
            .collect()
    }

    /// Whether all reactors have ended.
    pub fn is_finished(&self) -> bool {
        self.handles.iter().all(JoinHandle::is_finished)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.handles.is_empty() {
            return;
        }
        self.stop();
        for handle in self.handles.drain(..) {
            // Whoever wants to see a panic joins.
            let _ = handle.join();
        }
    }
}
