//! Hosts, network, target and disks of a run, as the scenario has them. All that is the product's own is set up and asked here.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use pollux_multipath::{
    AttachOptions, AttachRequest, ControllerChange, ControllerStatus, FencingMode, Host, HostError,
    HostRequest, Policy, Selector, TransportId, VolumeStatus,
};
use pollux_nvme_tcp::host::{CommandTimeout, Digests, HostIdentity, TimeoutAction};
use pollux_nvme_tcp::spec::Nqn;
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_nvme_tcp::target::{
    self, Backend, DiskRef, NamespaceConfig, SubsystemConfig, TargetHandle, TargetRequest,
    TargetStatus,
};
use pollux_reactor::{Context, Progress, Rng, Sender, Service, Simulation, mailbox};
use uuid::Uuid;

use super::BLOCK;
use super::book::{Book, Books};
use super::check::Said;
use super::disk::{Shared, SimDisk};
use super::doubts::Doubts;
use super::load::Load;
use super::scenario::Shape;
use super::wire::Wires;

/// Name of the controllers of each host.
const NAME: &str = "Nvme0";

/// An answer that has come.
pub enum Answer {
    Volumes(Vec<VolumeStatus>),
    Controllers(Vec<ControllerStatus>),
    Done(String),
    Failed(String, HostError),
}

/// Tells a reactor's time to whoever looks on from outside.
struct Clock(Books);

impl Service for Clock {
    type Message = ();

    fn on_message(&mut self, (): (), _: &mut Context<'_>) {}

    fn poll(&mut self, cx: &mut Context<'_>) -> Progress {
        self.0.borrow_mut().now = cx.now();
        Progress::Idle
    }
}

/// Ends its reactor when told to.
struct Plug;

impl Service for Plug {
    type Message = ();

    fn on_message(&mut self, (): (), cx: &mut Context<'_>) {
        cx.request_stop();
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Progress {
        Progress::Idle
    }
}

struct Target {
    handle: TargetHandle,
    plugs: Vec<Sender<()>>,
    reactors: Vec<usize>,
}

struct HostSide {
    handle: Host,
    reactors: Vec<usize>,
}

/// What hosts have answered.
pub struct Inbox {
    book: Books,
    wires: Wires,
    answers: mpsc::Receiver<(usize, Answer)>,
    sender: mpsc::Sender<(usize, Answer)>,
    said: Vec<Said>,
    /// Requests that were not answered yet.
    pub open: u64,
    pub volumes: Vec<Vec<VolumeStatus>>,
    pub controllers: Vec<Vec<ControllerStatus>>,
    /// Answers about volumes, controllers.
    pub statuses: u64,
}

impl Inbox {
    /// Takes what has come, and judges it. False once a rule was broken.
    pub fn take(&mut self) -> bool {
        while let Ok((host, answer)) = self.answers.try_recv() {
            self.open -= 1;
            let mut book = self.book.borrow_mut();
            match answer {
                Answer::Volumes(volumes) => {
                    self.said[host].judge(&volumes, &mut book);
                    self.volumes[host] = volumes;
                    self.statuses += 1;
                }
                Answer::Controllers(controllers) => {
                    self.controllers[host] = controllers;
                    self.statuses += 1;
                }
                Answer::Done(what) => book.tell(|| format!("host {host}: {what}: done")),
                Answer::Failed(what, error) => {
                    book.tell(|| format!("host {host}: {what}: {error}"));
                }
            }
        }
        if let Some(broken) = self.wires.broken() {
            let mut book = self.book.borrow_mut();
            book.violate(broken.0, broken.1);
        }
        self.book.borrow().violation.is_none()
    }
}

/// See the [module](self).
pub struct World {
    pub sim: Simulation,
    pub book: Books,
    pub wires: Wires,
    pub inbox: Inbox,
    pub shape: Shape,
    target: Option<Target>,
    hosts: Vec<HostSide>,
    memory: Vec<DiskRef>,
    disks: Vec<Arc<SimDisk>>,
    /// Which paths the target listens on, and what it reports there.
    listening: Vec<bool>,
    ana: Vec<BTreeMap<u32, AnaState>>,
    groups: Vec<u32>,
    rng: Rng,
}

/// Where a path is.
pub fn addr(path: u64) -> SocketAddr {
    let port = u16::try_from(path).map_or(u16::MAX, |path| 4420 + path);
    SocketAddr::from(([10, 0, 0, 1], port))
}

#[expect(clippy::expect_used, reason = "the name is one")]
fn nqn() -> Nqn {
    Nqn::new("nqn.2014-08.org.example:disk1").expect("a valid NQN")
}

fn transport(path: u64) -> TransportId {
    TransportId::new(addr(path), nqn())
}

fn ms(ms: u32) -> Duration {
    Duration::from_millis(ms.into())
}

/// The policy of this number.
pub fn policy(number: u64, min_io: u32) -> Policy {
    match number {
        1 => Policy::ActiveActive(Selector::RoundRobin { min_io }),
        2 => Policy::ActiveActive(Selector::QueueDepth),
        _ => Policy::ActivePassive,
    }
}

impl World {
    /// Everything is there, and nothing is attached.
    pub fn new(seed: u64, shape: Shape, tracing: bool) -> World {
        let mut rng = Rng::seeded(seed);
        let mut sim = Simulation::new(rng.next_u64());
        let mut book = Book::new(tracing);
        book.oracle.hazardous = shape.is_hazardous();
        book.oracle.volatile = shape.disk != 0;
        let book = Books::new(book);
        let wires = Wires::new(
            (shape.digests, shape.h2c_kib),
            Doubts::new(shape.fence()),
            book.clone(),
        );
        let around = wires.clone();
        sim.wrap_streams(move |stream, opened| around.around(stream, opened));
        let disk = |nsid| Arc::new(SimDisk::new(&shape, nsid, book.clone()));
        let disks = (1..=shape.namespaces).map(disk).collect();
        let bytes = u64::from(shape.blocks) * BLOCK as u64;
        let memory = (0..shape.namespaces).filter_map(|_| {
            let memory = Backend::Memory { bytes };
            DiskRef::open(&memory).ok()
        });
        let (sender, answers) = mpsc::channel();
        let hosts = shape.hosts as usize;
        let mut world = World {
            inbox: Inbox {
                book: book.clone(),
                wires: wires.clone(),
                answers,
                sender,
                said: (0..hosts).map(|_| Said::default()).collect(),
                open: 0,
                volumes: vec![Vec::new(); hosts],
                controllers: vec![Vec::new(); hosts],
                statuses: 0,
            },
            book,
            wires,
            shape,
            target: None,
            hosts: Vec::new(),
            memory: memory.collect(),
            disks,
            listening: vec![true; shape.paths as usize],
            ana: vec![BTreeMap::new(); shape.paths as usize],
            groups: (1..=shape.namespaces).collect(),
            sim,
            rng,
        };
        world.calm_network();
        world.start_target();
        for host in 0..shape.hosts {
            world.add_host(host);
        }
        world
    }

    /// The network as the shape has it.
    pub fn calm_network(&mut self) {
        let shape = self.shape;
        let network = self.sim.network();
        network.set_latency(Duration::from_micros(shape.latency_us.into()));
        network.set_jitter(Duration::from_micros(shape.jitter_us.into()));
        network.set_send_buffer(shape.send_kib as usize * 1024);
        network.set_max_chunk(match shape.chunk {
            0 => usize::MAX,
            chunk => chunk as usize,
        });
    }

    fn add_host(&mut self, host: u32) {
        let control = self.sim.add_reactor();
        let mut reactors: Vec<usize> = Vec::new();
        let (_, receiver) = mailbox(1);
        let clock = self.book.clone();
        self.sim
            .add_service(control, receiver, move || Clock(clock));
        for _ in 0..self.shape.io_reactors {
            reactors.push(self.sim.add_reactor());
        }
        let id = Uuid::from_u128(0x706f_6c6c_7578 << 32 | u128::from(host));
        let identity = HostIdentity {
            nqn: Nqn::from_uuid(id),
            id,
        };
        let seed = self.rng.next_u64();
        let host_id = u128::from_le_bytes(id.into_bytes());
        let (book, wires, shape) = (self.book.clone(), self.wires.clone(), self.shape);
        let writers = shape.hosts * shape.io_reactors;
        let application = move |index| {
            let index = u32::try_from(index).unwrap_or(0);
            let writer = host * shape.io_reactors + index;
            let seed = seed ^ u64::from(index + 1);
            let qid = u16::try_from(index + 1).unwrap_or(u16::MAX);
            let queue = (host_id, qid);
            let books = (book.clone(), wires.clone());
            Load::new(books, shape, seed, (queue, writer, writers))
        };
        let handle = Host::builder()
            .identity(identity)
            .control(control)
            .io(&reactors)
            .install(&mut self.sim, application);
        reactors.push(control);
        self.hosts.push(HostSide { handle, reactors });
    }

    /// All reactors that live.
    pub fn reactors(&self) -> Vec<usize> {
        let hosts = self.hosts.iter().flat_map(|host| &host.reactors);
        let target = self.target.iter().flat_map(|target| &target.reactors);
        hosts.chain(target).copied().collect()
    }

    // ---- the target

    pub fn is_target_alive(&self) -> bool {
        self.target.is_some()
    }

    /// Starts a target on the disks, as it was configured.
    pub fn start_target(&mut self) {
        let mut reactors = Vec::new();
        for _ in 0..self.shape.target_reactors {
            reactors.push(self.sim.add_reactor());
        }
        let handle = target::install(&mut self.sim, &reactors);
        let mut plugs = Vec::new();
        for &reactor in &reactors {
            let (plug, receiver) = mailbox(1);
            self.sim.add_service(reactor, receiver, || Plug);
            plugs.push(plug);
        }
        self.target = Some(Target {
            handle,
            plugs,
            reactors,
        });
        self.ask_target(TargetRequest::create_subsystem(SubsystemConfig::new(nqn())));
        for nsid in 1..=u64::from(self.shape.namespaces) {
            self.add_namespace(nsid);
        }
        self.ask_target(TargetRequest::set_retry_delays([1, 2, 3]));
        let cqt = u16::try_from(self.shape.target_cqt_ms).unwrap_or(u16::MAX);
        self.ask_target(TargetRequest::set_quiesce_time(cqt));
        for path in 0..u64::from(self.shape.paths) {
            if self.listening[index(path)] {
                self.open_listener(path);
            }
        }
    }

    /// A namespace that is there already stays as it is.
    pub fn add_namespace(&self, nsid: u64) {
        let index = index(nsid - 1);
        let disk = match self.shape.disk {
            0 => self.memory[index].clone(),
            _ => DiskRef::new(Shared(self.disks[index].clone())),
        };
        let block = u32::try_from(BLOCK).unwrap_or(512);
        let mut namespace = NamespaceConfig::new(Backend::Disk(disk), block);
        namespace.ana_group = Some(self.groups[index]);
        namespace.uuid = Some(Uuid::from_u128(u128::from(nsid)));
        let nsid = u32::try_from(nsid).ok();
        self.ask_target(TargetRequest::add_namespace(nqn(), nsid, namespace));
    }

    pub fn remove_namespace(&self, nsid: u64) {
        let nsid = u32::try_from(nsid).unwrap_or(0);
        self.ask_target(TargetRequest::remove_namespace(nqn(), nsid));
    }

    /// The target dies: what was under way is lost, and what its disks had not flushed.
    pub fn crash(&mut self) {
        let Some(target) = self.target.take() else {
            return;
        };
        for path in 0..u64::from(self.shape.paths) {
            self.sim.network().sever(addr(path));
        }
        for (plug, &reactor) in target.plugs.iter().zip(&target.reactors) {
            self.sim.stand_still(reactor, Duration::ZERO);
            self.sim.hold_messages(reactor, Duration::ZERO);
            // A plug that was pulled already is as good.
            let _ = plug.send(());
        }
        for disk in &self.disks {
            disk.crash(&mut self.rng);
        }
        self.book.borrow_mut().oracle.crash();
    }

    fn ask_target<A: Send + 'static>(&self, request: TargetRequest<A>) {
        if let Some(target) = &self.target {
            target.handle.request(request, |_| {});
        }
    }

    /// What the target says of itself, once it has.
    pub fn ask_target_status(&self) -> mpsc::Receiver<TargetStatus> {
        let (sender, receiver) = mpsc::channel();
        if let Some(target) = &self.target {
            target
                .handle
                .request(TargetRequest::status(), move |answer| {
                    if let Ok(status) = answer {
                        // Whoever asked may have lost patience.
                        let _ = sender.send(status);
                    }
                });
        }
        receiver
    }

    fn open_listener(&self, path: u64) {
        self.ask_target(TargetRequest::add_listener(nqn(), addr(path)));
        for (&group, &state) in &self.ana[index(path)] {
            self.report_ana(path, group, state);
        }
    }

    fn report_ana(&self, path: u64, group: u32, state: AnaState) {
        let group = (group != 0).then_some(group);
        self.ask_target(TargetRequest::set_ana_state(
            nqn(),
            addr(path),
            group,
            state,
        ));
    }

    pub fn listen(&mut self, path: u64, on: bool) {
        if std::mem::replace(&mut self.listening[index(path)], on) == on {
            return;
        }
        match on {
            true => self.open_listener(path),
            false => self.ask_target(TargetRequest::remove_listener(nqn(), addr(path))),
        }
    }

    /// Group 0: all.
    pub fn set_ana(&mut self, path: u64, group: u32, state: AnaState) {
        let states = &mut self.ana[index(path)];
        if group == 0 {
            states.clear();
        }
        states.insert(group, state);
        self.report_ana(path, group, state);
    }

    /// Reactors may be late for so long.
    pub fn disturb(&self, time: Duration) {
        let until = self.sim.now() + time;
        self.wires.doubts(|doubts| doubts.disturb(until));
    }

    pub fn regroup(&mut self, nsid: u32, group: u32) {
        self.groups[(nsid - 1) as usize] = group;
        self.ask_target(TargetRequest::set_namespace_ana_group(nqn(), nsid, group));
    }

    /// The disk of a namespace, if it is a simulated one.
    pub fn disk(&self, nsid: u64) -> Option<&Arc<SimDisk>> {
        self.disks.get(index(nsid.checked_sub(1)?))
    }

    pub fn disks(&self) -> &[Arc<SimDisk>] {
        &self.disks
    }

    // ---- the hosts

    fn options(&self) -> AttachOptions {
        let shape = &self.shape;
        let some = |value: u32| (value != 0).then(|| ms(value));
        let mut options = AttachOptions::default();
        options.digests = Digests {
            header: shape.digests & 1 != 0,
            data: shape.digests & 2 != 0,
        };
        options.require_digests = true;
        options.sq_flow_control = shape.flow_control != 0;
        options.keep_alive_ms = shape.kato_ms;
        options.queue_size = u16::try_from(shape.queue_size).unwrap_or(128);
        options.connect_timeout = Duration::from_secs(2);
        options.io_timeout = some(shape.timeout_ms).map(|after| CommandTimeout {
            after,
            action: match shape.timeout_action {
                0 => TimeoutAction::None,
                1 => TimeoutAction::Abort,
                _ => TimeoutAction::Reset,
            },
        });
        options.silence_timeout = some(shape.silence_ms);
        options.fencing.mode = match shape.fencing {
            0 => FencingMode::Auto,
            1 => FencingMode::Always,
            _ => FencingMode::Off,
        };
        options.fencing.cqt = some(shape.cqt_ms);
        options.recovery.reconnect_delay = ms(shape.reconnect_ms);
        options.recovery.controller_loss_timeout = some(shape.loss_ms);
        options.recovery.fast_io_fail_timeout = some(shape.fast_fail_ms);
        options.policy = policy(shape.policy.into(), shape.min_io);
        options.adopt_policy = true;
        options
    }

    /// Asks a host; what comes back is in the inbox.
    fn ask<T: Send + 'static>(
        &mut self,
        host: usize,
        make: impl FnOnce(pollux_multipath::Reply<T>) -> HostRequest,
        answer: impl FnOnce(T) -> Answer + Send + 'static,
        what: String,
    ) {
        let sender = self.inbox.sender.clone();
        let request = make(Box::new(move |result: Result<T, HostError>| {
            let answer = match result {
                Ok(value) => answer(value),
                Err(error) => Answer::Failed(what, error),
            };
            // A run that is over has no ear left.
            let _ = sender.send((host, answer));
        }));
        if self.hosts[host].handle.request(request).is_ok() {
            self.inbox.open += 1;
        }
    }

    /// Asks for what does not tell anything but that it is done.
    fn order(
        &mut self,
        host: usize,
        what: String,
        make: impl FnOnce(pollux_multipath::Reply<()>) -> HostRequest,
    ) {
        let told = what.clone();
        self.ask(host, make, |()| Answer::Done(told), what);
    }

    pub fn attach(&mut self, host: u64, path: u64) {
        let mut request = Box::new(AttachRequest::new(NAME, transport(path)));
        request.options = self.options();
        let what = format!("attach path {path}");
        let told = what.clone();
        self.ask(
            index(host),
            |reply| HostRequest::Attach(request, reply),
            |_| Answer::Done(told),
            what,
        );
    }

    /// All paths if none is named.
    pub fn detach(&mut self, host: u64, path: Option<u64>) {
        let what = format!("detach {path:?}");
        self.order(index(host), what, |reply| HostRequest::Detach {
            name: NAME.into(),
            transport: path.map(transport),
            reply,
        });
    }

    /// CNTLID of a path of a host, by what the host has said last.
    fn cntlid(&self, host: u64, path: u64) -> Option<u16> {
        let controllers = &self.inbox.controllers[index(host)];
        let found = controllers.iter().find(|c| c.transport.addr == addr(path));
        found.map(|controller| controller.cntlid)
    }

    /// Changes the controller of a path, or of all if none is named.
    pub fn change(&mut self, host: u64, path: Option<u64>, change: ControllerChange) {
        let cntlid = path.and_then(|path| self.cntlid(host, path));
        let what = format!("{change:?} path {path:?}, CNTLID {cntlid:?}");
        self.order(index(host), what, |reply| HostRequest::Change {
            name: NAME.into(),
            cntlid,
            change,
            reply,
        });
    }

    pub fn set_policy(&mut self, host: u64, nsid: u64, policy: Policy) {
        let what = format!("policy {policy}");
        self.order(index(host), what, |reply| HostRequest::SetPolicy {
            volume: format!("{NAME}n{nsid}"),
            policy,
            reply,
        });
    }

    pub fn prefer(&mut self, host: u64, nsid: u64, path: u64) {
        let Some(cntlid) = self.cntlid(host, path) else {
            return;
        };
        let what = format!("prefer path {path}");
        self.order(index(host), what, |reply| HostRequest::SetPreferredPath {
            volume: format!("{NAME}n{nsid}"),
            cntlid,
            reply,
        });
    }

    pub fn set_failback(&mut self, host: u64, on: bool) {
        // A host whose mailbox is full is not told.
        let _ = self.hosts[index(host)]
            .handle
            .request(HostRequest::SetFailback(on));
    }

    pub fn ask_status(&mut self) {
        // A reactor may stand still for a second.
        let longest = 2 * ms(self.shape.kato_ms) + Duration::from_secs(3);
        self.wires.judge_owed(longest);
        for host in 0..self.hosts.len() {
            self.ask(host, HostRequest::Volumes, Answer::Volumes, "status".into());
            self.ask(
                host,
                HostRequest::Controllers,
                Answer::Controllers,
                "controllers".into(),
            );
        }
    }

    /// Runs until `wanted` holds, a rule is broken, or the time is over; true if `wanted` holds.
    pub fn run_until(
        &mut self,
        limit: Duration,
        mut wanted: impl FnMut(&Inbox, &Book) -> bool,
    ) -> bool {
        let (inbox, book) = (&mut self.inbox, &self.book);
        let mut holds = false;
        self.sim.run_until(limit, || {
            if !inbox.take() {
                return true;
            }
            holds = wanted(inbox, &book.borrow());
            holds
        });
        self.book.borrow_mut().now = self.sim.now();
        holds
    }

    /// All paths of all volumes of all hosts carry I/O.
    pub fn is_whole(&self) -> bool {
        let paths = self.shape.paths as usize;
        let enabled = |c: &ControllerStatus| c.state == "enabled";
        let whole = |volume: &VolumeStatus| {
            let mut reactors = volume.reactors.iter();
            reactors.all(|reactor| {
                let mut all = reactor.paths.iter();
                reactor.paths.len() == paths && all.all(|p| p.connected && p.accessible)
            })
        };
        let inbox = &self.inbox;
        inbox.volumes.iter().zip(&inbox.controllers).all(|(v, c)| {
            v.len() == self.shape.namespaces as usize
                && v.iter().all(whole)
                && c.len() == paths
                && c.iter().all(enabled)
        })
    }
}

/// A number of a scenario as a place.
pub fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
