//! A target and a host on simulated reactors, and an application that keeps I/O going.
pub mod ask;
pub mod hand;
pub mod lines;
pub mod shared;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use pollux_multipath::{
    Application, AttachOptions, AttachRequest, Attached, Completion, ControllerChange,
    ControllerStatus, Host, HostError, HostRequest, Io, Op, PollGroup, TransportId, VolumeId,
    VolumeStatus,
};
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_nvme_tcp::target::{self, Backend, TargetHandle, TargetRequest};
pub use pollux_nvme_tcp::testing::nqn;
use pollux_nvme_tcp::testing::{Tap, TapService, set_up};
use pollux_reactor::{Context, Progress, Sender, Simulation, Time, mailbox};

use self::hand::{BY_HAND, Ended, Hand};
use self::shared::Shared;

pub const BLOCK: usize = 512;
pub const BLOCK_SIZE: u32 = 512;
pub const BLOCKS: u64 = 2048;

/// What the application has seen; shared with the test, which runs in the same thread.
#[derive(Debug, Default)]
pub struct Seen {
    pub submitted: u64,
    pub done: u64,
    pub errors: Vec<String>,
    pub miscompares: u64,
    /// Path (by its place in attach order of status) of the last completions.
    pub last_path: Option<pollux_multipath::ControllerId>,
}

/// Keeps `depth` I/Os outstanding while `on`: writes a block, reads it back, compares.
pub struct Pump {
    pub seen: Shared<Seen>,
    pub on: Shared<bool>,
    pub hand: Shared<Hand>,
    reactor: usize,
    idle: Vec<Slot>,
    busy: usize,
}

struct Slot {
    /// The volume that it was written on.
    volume: Option<VolumeId>,
    lba: u64,
    generation: u64,
    buffer: Vec<u8>,
    reading: bool,
}

fn fill(lba: u64, generation: u64) -> Vec<u8> {
    let word = (lba << 32 ^ generation).to_le_bytes();
    word.iter().copied().cycle().take(BLOCK).collect()
}

impl Pump {
    pub fn new(
        reactor: usize,
        depth: usize,
        seen: Shared<Seen>,
        on: Shared<bool>,
        hand: Shared<Hand>,
    ) -> Self {
        let first = (reactor * depth) as u64;
        Self {
            seen,
            on,
            hand,
            reactor,
            idle: (0..depth as u64)
                .map(|i| Slot {
                    volume: None,
                    lba: first + i,
                    generation: 0,
                    buffer: vec![0; BLOCK],
                    reading: false,
                })
                .collect(),
            busy: 0,
        }
    }

    fn take(&mut self, completion: Completion, at: Time) {
        if completion.io.user & BY_HAND != 0 {
            return self.hand.borrow_mut().ended.push(Ended {
                id: completion.io.user & !BY_HAND,
                result: completion.result,
                path: completion.path,
                at,
                buffer: completion.io.buffer.into_vec(),
            });
        }
        let mut seen = self.seen.borrow_mut();
        self.busy -= 1;
        seen.done += 1;
        seen.last_path = completion.path.or(seen.last_path);
        let mut reading = completion.io.op == Op::Read;
        let lba = completion.io.lba;
        let generation = completion.io.user;
        if let Err(error) = completion.result {
            seen.errors.push(error.to_string());
            // What a failed write left behind is unknown: write again.
            reading = true;
        } else if reading && completion.io.buffer != fill(lba, generation) {
            seen.miscompares += 1;
        }
        self.idle.push(Slot {
            volume: Some(completion.volume),
            lba,
            generation,
            buffer: completion.io.buffer.into_vec(),
            reading: !reading,
        });
    }
}

impl Application for Pump {
    type Message = ();

    fn on_message(&mut self, (): (), _: &mut PollGroup, _: &mut Context<'_>) {}

    fn poll(&mut self, group: &mut PollGroup, cx: &mut Context<'_>) -> Progress {
        let mut progress = Progress::Idle;
        while let Some(completion) = group.next_completion() {
            self.take(completion, cx.now());
            progress = Progress::Busy;
        }
        let volumes: Vec<_> = group.volumes().map(|v| v.id).collect();
        let Some(&first) = volumes.first() else {
            return progress;
        };
        let by_hand = self.hand.borrow_mut().todo.remove(&self.reactor);
        for (volume, io) in by_hand.unwrap_or_default() {
            let volume = volume.unwrap_or(first);
            let limit = self.hand.borrow().limit;
            let submitted = match limit {
                Some(limit) => group.submit_within(volume, io, limit),
                None => group.submit(volume, io),
            };
            submitted.map_err(|(_, e)| e).unwrap();
            progress = Progress::Busy;
        }
        let to_abort = self.hand.borrow_mut().to_abort.remove(&self.reactor);
        for id in to_abort.unwrap_or_default() {
            let said = group.abort(first, hand::BY_HAND | id);
            self.hand.borrow_mut().aborting.insert(id, said);
        }
        while *self.on.borrow()
            && let Some(mut slot) = self.idle.pop()
        {
            // Each block keeps to its volume for as long as that is there.
            let volume = match slot.volume.filter(|v| volumes.contains(v)) {
                Some(volume) => volume,
                None => {
                    slot.reading = false;
                    volumes[usize::try_from(slot.lba).unwrap() % volumes.len()]
                }
            };
            if !slot.reading {
                slot.generation += 1;
                slot.buffer = fill(slot.lba, slot.generation);
            }
            let op = if slot.reading { Op::Read } else { Op::Write };
            let io = Io::new(op, slot.lba, 1, slot.buffer).with_user(slot.generation);
            self.busy += 1;
            self.seen.borrow_mut().submitted += 1;
            group.submit(volume, io).map_err(|(_, e)| e).unwrap();
            progress = Progress::Busy;
        }
        progress
    }
}

/// Reconnects fast, so that little virtual time passes.
pub fn options() -> AttachOptions {
    let mut options = AttachOptions::default();
    options.recovery.reconnect_delay = Duration::from_millis(20);
    options
}

pub fn transport(path: u16) -> TransportId {
    TransportId {
        addr: addr(path),
        subnqn: nqn(),
        hostnqn: None,
    }
}

/// Where hosts connect to for a path.
pub fn addr(path: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 4420 + path))
}

/// Where the target listens for a path when there is a tap.
fn behind(path: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 2], 4420 + path))
}

/// A target with `paths` listeners over one namespace, a host with `io` I/O reactors.
pub struct World {
    pub sim: Simulation,
    pub target: TargetHandle,
    pub host: Host<()>,
    pub seen: Shared<Seen>,
    pub on: Shared<bool>,
    pub hand: Shared<Hand>,
    pub tap: Rc<RefCell<Tap>>,
    /// Wakes the tap; without one, the target listens itself.
    wire: Option<Sender<()>>,
}

impl World {
    pub fn new(seed: u64, paths: u16, io: usize, depth: usize) -> Self {
        Self::build(seed, paths, io, depth, false)
    }

    /// With a tap between host and target.
    pub fn tapped(seed: u64, paths: u16, io: usize, depth: usize) -> Self {
        Self::build(seed, paths, io, depth, true)
    }

    fn build(seed: u64, paths: u16, io: usize, depth: usize, tapped: bool) -> Self {
        let mut sim = Simulation::new(seed);
        // Slow enough that the clock jumps most of the time.
        sim.network().set_latency(Duration::from_micros(200));
        let home = [0; 2].map(|_| sim.add_reactor());
        let target = target::install(&mut sim, &home);
        let seen = Shared::new(Seen::default());
        let on = Shared::new(true);
        let control = sim.add_reactor();
        let reactors: Vec<_> = (0..io).map(|_| sim.add_reactor()).collect();
        let hand = Shared::new(Hand::default());
        let (all_seen, switch, hands) = (seen.clone(), on.clone(), hand.clone());
        let pump = move |i| Pump::new(i, depth, all_seen.clone(), switch.clone(), hands.clone());
        let host = Host::builder()
            .control(control)
            .io(&reactors)
            .install(&mut sim, pump);
        let tap = Rc::new(RefCell::new(Tap::default()));
        let wire = tapped.then(|| {
            let (sender, receiver) = mailbox(16);
            let reactor = sim.add_reactor();
            let places = (0..paths).map(|path| (addr(path), behind(path))).collect();
            sim.add_service(reactor, receiver, || TapService::new(places, tap.clone()));
            sender
        });
        let mut world = Self {
            sim,
            target,
            host,
            seen,
            on,
            hand,
            tap,
            wire,
        };
        // Writes in doubt are fenced where a test wants that; in all others they move at once.
        world.target(TargetRequest::set_quiesce_time(0));
        let memory = Backend::Memory {
            bytes: BLOCKS * BLOCK as u64,
        };
        let listeners: Vec<_> = (0..paths).map(|path| world.listener(path)).collect();
        set_up(&world.target, &[memory], &listeners);
        world.target(TargetRequest::sync());
        world
    }

    /// Where the target listens for a path.
    fn listener(&self, path: u16) -> SocketAddr {
        match self.wire {
            Some(_) => behind(path),
            None => addr(path),
        }
    }

    pub fn listen(&mut self, path: u16) {
        let addr = self.listener(path);
        self.target(TargetRequest::add_listener(nqn(), addr));
    }

    pub fn unlisten(&mut self, path: u16) {
        let addr = self.listener(path);
        self.target(TargetRequest::remove_listener(nqn(), addr));
    }

    pub fn ana(&mut self, path: u16, state: AnaState) {
        self.ana_of(path, None, state);
    }

    /// Sets the state of one ANA group.
    pub fn ana_of(&mut self, path: u16, group: Option<u32>, state: AnaState) {
        let addr = self.listener(path);
        self.target(TargetRequest::set_ana_state(nqn(), addr, group, state));
    }

    pub fn target<A: Send + 'static>(&mut self, request: TargetRequest<A>) -> A {
        let (sender, receiver) = mpsc::channel();
        self.target
            .request(request, move |answer| sender.send(answer).unwrap());
        self.wait(receiver).expect("the target agrees")
    }

    /// Steps until the reply is there, for at most a minute of virtual time.
    pub fn wait<T>(&mut self, receiver: mpsc::Receiver<T>) -> T {
        let mut got = None;
        let answered = self.sim.run_until(Duration::from_secs(60), || {
            got = got.take().or_else(|| receiver.try_recv().ok());
            got.is_some()
        });
        assert!(answered, "no answer within a minute of virtual time");
        got.unwrap()
    }

    pub fn attach_with(
        &mut self,
        path: u16,
        options: AttachOptions,
    ) -> Result<Attached, HostError> {
        let mut request = AttachRequest::new("Nvme0", transport(path));
        request.options = options;
        self.attach_request(request)
    }

    pub fn attach_request(&mut self, request: AttachRequest) -> Result<Attached, HostError> {
        let answer = self.start_attach(request);
        self.wait(answer)
    }

    pub fn attach(&mut self, path: u16) -> Attached {
        self.attach_with(path, options()).unwrap()
    }

    pub fn detach(&mut self, path: Option<u16>) -> Result<(), HostError> {
        let answer = self.start_detach("Nvme0", path);
        self.wait(answer)
    }

    pub fn request(&mut self, request: HostRequest) {
        assert!(self.host.request(request).is_ok());
    }

    pub fn status(&mut self) -> Vec<VolumeStatus> {
        let (sender, receiver) = mpsc::channel();
        self.request(HostRequest::Volumes(Box::new(move |answer| {
            sender.send(answer).unwrap();
        })));
        self.wait(receiver).unwrap()
    }

    pub fn change(
        &mut self,
        cntlid: Option<u16>,
        change: ControllerChange,
    ) -> Result<(), HostError> {
        let answer = self.start_change(cntlid, change);
        self.wait(answer)
    }

    pub fn controllers(&mut self) -> Vec<ControllerStatus> {
        let (sender, receiver) = mpsc::channel();
        self.request(HostRequest::Controllers(Box::new(move |answer| {
            sender.send(answer).unwrap();
        })));
        self.wait(receiver).unwrap()
    }

    /// (current, connected, accessible) of each path by its port, as each reactor sees them.
    pub fn paths(&mut self) -> Vec<Vec<(u16, bool, bool, bool)>> {
        let status = self.status();
        let volume = status.first().expect("a volume");
        volume
            .reactors
            .iter()
            .map(|r| {
                r.paths
                    .iter()
                    .map(|p| {
                        assert!(!p.current || p.connected && p.accessible, "B13.2: {p:?}");
                        let port = p.transport.addr.port() - 4420;
                        (port, p.current, p.connected, p.accessible)
                    })
                    .collect()
            })
            .collect()
    }

    /// Runs until the paths look as wanted on every reactor.
    pub fn expect_paths(&mut self, wanted: &[(u16, bool, bool, bool)]) {
        for _ in 0..10_000 {
            if self.paths().iter().all(|view| view == wanted) {
                return;
            }
            self.sim.run_for(Duration::from_micros(200));
        }
        panic!(
            "wanted {wanted:?}, seen {:?}, {:?}",
            self.paths(),
            self.controllers()
        );
    }

    /// Runs until `n` more I/Os are done.
    pub fn expect_progress(&mut self, n: u64) {
        let goal = self.seen.borrow().done + n;
        let seen = self.seen.clone();
        assert!(
            self.sim
                .run_until(Duration::from_secs(30), || seen.borrow().done >= goal),
            "I/O goes on: {:?}",
            self.seen.borrow()
        );
    }

    /// Stops the application and checks that every I/O came back, whole and without error.
    pub fn finish(&mut self) {
        *self.on.borrow_mut() = false;
        let seen = self.seen.clone();
        assert!(
            self.sim.run_until(Duration::from_secs(60), || {
                let seen = seen.borrow();
                seen.done == seen.submitted
            }),
            "every I/O ends: {:?}",
            self.seen.borrow()
        );
        let seen = self.seen.borrow();
        assert_eq!(seen.errors, Vec::<String>::new());
        assert_eq!(seen.miscompares, 0);
    }
}
