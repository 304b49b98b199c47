//! Gateways whose ANA state in front follows the paths behind, and what becomes of a volume that is a namespace again: a host
//! in front, two gateways, and a target behind with two listeners for each of them.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use pollux_multipath::target::{
    self, Backend, DiskRef, NamespaceConfig, SubsystemConfig, TargetHandle, TargetRequest,
};
use pollux_multipath::{
    AttachRequest, FencingMode, Group, Host, Idle, Io, Op, QueueMessage, Queues, Running,
    TransportId, VolumeDisk,
};
use pollux_nvme_tcp::spec::Sqe;
use pollux_nvme_tcp::spec::identify::cns;
use pollux_nvme_tcp::spec::log::{AnaState, GetLogPage, lid};
use pollux_nvme_tcp::spec::opcode::admin;
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::testing::{Initiator, Options, TestTarget, nqn, pattern, wait_for};
use uuid::Uuid;

const BYTES: u64 = 1 << 20;

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn idle() -> Idle {
    Idle::Park {
        after: Duration::from_micros(20),
    }
}

fn attach(host: &Host<QueueMessage>, name: &str, addr: SocketAddr) {
    let mut request = AttachRequest::new(name, TransportId::new(addr, nqn()));
    request.options.recovery.reconnect_delay = Duration::from_millis(10);
    // A listener that is removed leaves nothing behind that could still execute.
    request.options.fencing.mode = FencingMode::Off;
    host.attach(request).unwrap();
}

/// Host and target on one reactor, as in one process.
struct Gateway {
    host: Host<QueueMessage>,
    front: TargetHandle,
    addr: SocketAddr,
    /// Its paths to what is behind.
    paths: [SocketAddr; 2],
    running: Running,
}

impl Gateway {
    /// The `number`th one of the same subsystem: their controllers are told apart by CNTLID.
    fn new(
        behind: &TestTarget,
        number: u16,
        disk: fn(&Host<QueueMessage>, pollux_multipath::VolumeInfo) -> VolumeDisk,
    ) -> Self {
        let paths = [behind.listen(), behind.listen()];
        let mut group = Group::new();
        let reactor = group.add_reactor(None, idle());
        let front = target::install(&mut group, &[reactor]);
        let host = Host::builder().install(&mut group, Queues::new);
        let running = group.start().unwrap();
        for path in paths {
            attach(&host, "disk0", path);
        }
        let mut subsystem = SubsystemConfig::new(nqn());
        subsystem.min_cntlid = 100 * number + 1;
        front.create_subsystem(subsystem).unwrap();
        let disk = disk(&host, host.volume("disk0n1").info().unwrap());
        let namespace = NamespaceConfig::new(Backend::Disk(DiskRef::new(disk)), 512);
        assert_eq!(front.add_namespace(&nqn(), namespace), Ok(1));
        let addr = front.add_listener(&nqn(), any_port()).unwrap();
        Self {
            host,
            front,
            addr,
            paths,
            running,
        }
    }

    /// What it reports in front of the namespace's group.
    fn reported(&self) -> AnaState {
        let status = self.front.status().unwrap();
        status.subsystems[0].listeners[0].ana_states[0].1
    }

    fn wait_reported(&self, state: AnaState) {
        wait_for(&format!("{state} in front"), || self.reported() == state);
    }

    fn set_behind(&self, behind: &TestTarget, states: [AnaState; 2]) {
        for (path, state) in self.paths.into_iter().zip(states) {
            behind.set_ana(path, state);
        }
    }

    fn connect(&self) -> (Initiator, Initiator) {
        let options = Options::default();
        let admin = Initiator::admin(self.addr, &nqn(), options);
        let io = Initiator::io(self.addr, &nqn(), admin.cntlid, 1, options);
        (admin, io)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.running.stop();
        std::mem::take(&mut self.running).join();
    }
}

fn behind() -> TestTarget {
    TestTarget::start(1, &[Backend::Memory { bytes: BYTES }])
}

/// A host in front of two gateways, that writes and reads back all the time.
struct Front {
    host: Host<QueueMessage>,
    running: Running,
    /// I/Os that have ended.
    done: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    verify: Option<JoinHandle<()>>,
}

impl Front {
    fn new(gateways: &[Gateway]) -> Self {
        let mut group = Group::new();
        group.add_reactor(None, idle());
        let host = Host::builder().install(&mut group, Queues::new);
        let running = group.start().unwrap();
        for gateway in gateways {
            attach(&host, "front", gateway.addr);
        }
        let (done, is_over) = <(Arc<AtomicU64>, Arc<AtomicBool>)>::default();
        let (counted, over, user) = (Arc::clone(&done), Arc::clone(&is_over), host.clone());
        let verify = std::thread::spawn(move || verify(&user, &counted, &over));
        Self {
            host,
            running,
            done,
            is_over,
            verify: Some(verify),
        }
    }

    /// Waits until so many more I/Os have ended. One that has failed has ended the thread.
    fn wait_done(&self, more: u64) {
        let wanted = self.done.load(Ordering::Relaxed) + more;
        wait_for("I/O that goes on", || {
            assert!(!self.verify.as_ref().unwrap().is_finished(), "I/O failed");
            self.done.load(Ordering::Relaxed) >= wanted
        });
    }

    /// What it knows of the path by a gateway.
    fn wait_path(&self, gateway: &Gateway, state: AnaState) {
        wait_for(&format!("{state} at the host"), || {
            let status = self.host.volume("frontn1").status().unwrap();
            let mut paths = status.reactors[0].paths.iter();
            let path = paths.find(|p| p.transport.addr == gateway.addr).unwrap();
            path.ana_state == state && path.accessible == state.is_accessible()
        });
    }

    fn finish(mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.verify.take().unwrap().join().unwrap();
        self.running.stop();
        std::mem::take(&mut self.running).join();
    }
}

/// Writes and reads back, 16 places at a time, until it is over: each I/O succeeds, and each read brings what was written
/// last.
fn verify(host: &Host<QueueMessage>, done: &AtomicU64, is_over: &AtomicBool) {
    const PLACES: u8 = 16;
    let volume = host.volume("frontn1").info().unwrap().id;
    let (queue, mut completions) = host.queue(0, 64).unwrap();
    let mut round = [0_u64; PLACES as usize];
    let io = |place: u64, op, data| Io::new(op, place * 8, 8, data).with_user(place);
    let write = |place, round| io(place, Op::Write, pattern(4096, place << 32 | round));
    for place in 0..PLACES {
        queue.submit(volume, write(place.into(), 0)).unwrap();
    }
    let mut open = PLACES;
    while open > 0 {
        let ended = completions.wait(Duration::from_secs(60)).unwrap();
        assert_eq!(ended.result, Ok(()));
        done.fetch_add(1, Ordering::Relaxed);
        let place = ended.io.user;
        let round = &mut round[usize::try_from(place).unwrap()];
        let next = if ended.io.op == Op::Read {
            assert!(ended.io.buffer == pattern(4096, place << 32 | *round));
            *round += 1;
            write(place, *round)
        } else {
            io(place, Op::Read, vec![0; 4096])
        };
        match is_over.load(Ordering::Relaxed) {
            true => open -= 1,
            false => queue.submit(volume, next).unwrap(),
        }
    }
}

#[test]
fn a_host_goes_to_the_gateway_whose_paths_behind_are_better() {
    use AnaState as S;
    let behind = behind();
    let gateways = [1, 2].map(|number| Gateway::new(&behind, number, VolumeDisk::with_ana));
    for gateway in &gateways {
        gateway.wait_reported(S::OPTIMIZED);
    }
    let front = Front::new(&gateways);
    front.wait_done(100);
    for round in 0..4 {
        let gateway = &gateways[round % 2];
        // The best path counts, and without any what may be hoped for.
        let cases = [
            ([S::INACCESSIBLE, S::OPTIMIZED], S::OPTIMIZED),
            ([S::INACCESSIBLE, S::NON_OPTIMIZED], S::NON_OPTIMIZED),
            ([S::INACCESSIBLE, S::INACCESSIBLE], S::INACCESSIBLE),
            ([S::INACCESSIBLE, S::CHANGE], S::CHANGE),
            ([S::INACCESSIBLE, S::PERSISTENT_LOSS], S::INACCESSIBLE),
            ([S::PERSISTENT_LOSS, S::PERSISTENT_LOSS], S::PERSISTENT_LOSS),
            ([S::OPTIMIZED, S::OPTIMIZED], S::OPTIMIZED),
        ];
        for (states, expected) in cases {
            gateway.set_behind(&behind, states);
            gateway.wait_reported(expected);
            front.wait_path(gateway, expected);
            front.wait_done(50);
        }
    }
    front.finish();
}

#[test]
fn a_gateway_that_loses_its_connections_behind_is_inaccessible_until_they_are_back() {
    let behind = behind();
    let gateways = [1, 2].map(|number| Gateway::new(&behind, number, VolumeDisk::with_ana));
    for gateway in &gateways {
        gateway.wait_reported(AnaState::OPTIMIZED);
    }
    let front = Front::new(&gateways);
    for round in 0..4 {
        let gateway = &gateways[round % 2];
        behind.unlisten(gateway.paths[0]);
        front.wait_done(20);
        assert_eq!(gateway.reported(), AnaState::OPTIMIZED);
        behind.unlisten(gateway.paths[1]);
        gateway.wait_reported(AnaState::INACCESSIBLE);
        front.wait_path(gateway, AnaState::INACCESSIBLE);
        front.wait_done(50);
        for path in gateway.paths {
            behind.listen_at(path);
        }
        front.wait_path(gateway, AnaState::OPTIMIZED);
        front.wait_done(50);
    }
    front.finish();
}

#[test]
fn what_is_behind_never_betters_what_the_administrator_has_set() {
    let behind = behind();
    let gateway = Gateway::new(&behind, 1, VolumeDisk::with_ana);
    gateway.wait_reported(AnaState::OPTIMIZED);
    let set = |state| {
        gateway
            .front
            .set_ana_state(&nqn(), gateway.addr, state)
            .unwrap()
    };
    set(AnaState::NON_OPTIMIZED);
    assert_eq!(gateway.reported(), AnaState::NON_OPTIMIZED);
    gateway.set_behind(&behind, [AnaState::INACCESSIBLE; 2]);
    gateway.wait_reported(AnaState::INACCESSIBLE);
    set(AnaState::OPTIMIZED);
    assert_eq!(gateway.reported(), AnaState::INACCESSIBLE);
    let status = gateway.front.status().unwrap();
    assert!(status.subsystems[0].listeners[0].ana_set.is_empty());
    // So does a listener that comes now.
    gateway.front.add_listener(&nqn(), any_port()).unwrap();
    let status = gateway.front.status().unwrap();
    let listeners = &status.subsystems[0].listeners;
    assert_eq!(listeners[1].ana_states[0], (1, AnaState::INACCESSIBLE));
    set(AnaState::PERSISTENT_LOSS);
    gateway.set_behind(&behind, [AnaState::OPTIMIZED; 2]);
    let second = || gateway.front.status().unwrap().subsystems[0].listeners[1].ana_states[0].1;
    wait_for("the listener that was left as it was", || {
        second() == AnaState::OPTIMIZED
    });
    assert_eq!(gateway.reported(), AnaState::PERSISTENT_LOSS);
}

#[test]
fn no_command_waits_where_the_host_is_told_of_the_state() {
    let behind = behind();
    let gateway = Gateway::new(&behind, 1, VolumeDisk::with_ana);
    gateway.wait_reported(AnaState::OPTIMIZED);
    let (mut controller, mut io) = gateway.connect();
    for _ in 0..3 {
        let event = controller.submit(Sqe::new(admin::ASYNC_EVENT_REQUEST, 0), &[]);
        gateway.set_behind(&behind, [AnaState::INACCESSIBLE; 2]);
        // Whether the volume has it or the target refuses it.
        loop {
            match io.write(1, 0, &[7; 512]) {
                Status::SUCCESS => {}
                refused => {
                    assert_eq!(refused.code(), Status::ASYMMETRIC_ACCESS_INACCESSIBLE);
                    break;
                }
            }
        }
        let (cqe, _) = controller.finish(event, &[]);
        assert_eq!(cqe.dw0(), 0x000c_0302);
        gateway.wait_reported(AnaState::INACCESSIBLE);
        gateway.set_behind(&behind, [AnaState::OPTIMIZED; 2]);
        gateway.wait_reported(AnaState::OPTIMIZED);
        assert_eq!(io.write(1, 0, &[8; 512]), Status::SUCCESS);
        let get = GetLogPage::new(lid::ANA, 0, 64);
        // Read, so that the next event is told of.
        controller.log_page(get).unwrap();
    }
}

#[test]
fn a_namespace_that_follows_has_its_ana_group_for_itself() {
    let behind = behind();
    let gateway = Gateway::new(&behind, 1, VolumeDisk::with_ana);
    let front = &gateway.front;
    let memory = |group| {
        let mut namespace = NamespaceConfig::new(Backend::Memory { bytes: BYTES }, 512);
        namespace.ana_group = Some(group);
        namespace
    };
    let refused = front.add_namespace(&nqn(), memory(1)).unwrap_err();
    assert!(
        refused.to_string().contains("namespace 1 is in it"),
        "{refused}"
    );
    assert_eq!(front.add_namespace(&nqn(), memory(5)), Ok(2));
    let to = |nsid, group| front.call(TargetRequest::set_namespace_ana_group(nqn(), nsid, group));
    assert!(to(2, 1).is_err());
    assert!(to(1, 5).is_err());
    // Its state goes with it, and is not left behind.
    gateway.set_behind(&behind, [AnaState::INACCESSIBLE; 2]);
    gateway.wait_reported(AnaState::INACCESSIBLE);
    assert_eq!(to(1, 9), Ok(()));
    assert_eq!(to(2, 1), Ok(()));
    let status = front.status().unwrap();
    let states = &status.subsystems[0].listeners[0].ana_states;
    let of = |group| states.iter().find(|(g, _)| *g == group).unwrap().1;
    assert_eq!(
        (of(9), of(1)),
        (AnaState::INACCESSIBLE, AnaState::OPTIMIZED)
    );
    // Where no ANA is reported there is nothing that could follow.
    let silent: pollux_multipath::Nqn = "nqn.2014-08.org.example:silent".parse().unwrap();
    let mut subsystem = SubsystemConfig::new(silent.clone());
    subsystem.ana_reporting = false;
    front.create_subsystem(subsystem).unwrap();
    let volume = gateway.host.volume("disk0n1").info().unwrap();
    let disk = DiskRef::new(VolumeDisk::with_ana(&gateway.host, volume));
    let namespace = NamespaceConfig::new(Backend::Disk(disk), 512);
    let refused = front.add_namespace(&silent, namespace).unwrap_err();
    assert!(
        refused.to_string().contains("does not report ANA"),
        "{refused}"
    );
}

#[test]
fn io_waits_again_when_nobody_follows_any_more() {
    let behind = behind();
    let gateway = Gateway::new(&behind, 1, VolumeDisk::with_ana);
    gateway.wait_reported(AnaState::OPTIMIZED);
    let volume = gateway.host.volume("disk0n1").info().unwrap().id;
    let (queue, mut completions) = gateway.host.queue(0, 4).unwrap();
    gateway.set_behind(&behind, [AnaState::INACCESSIBLE; 2]);
    gateway.wait_reported(AnaState::INACCESSIBLE);
    let read = || Io::new(Op::Read, 0, 1, vec![0; 512]);
    queue.submit(volume, read()).unwrap();
    let ended = completions.wait(Duration::from_secs(60)).unwrap();
    assert_eq!(
        ended.result.unwrap_err().to_string(),
        "no path: none is available now"
    );
    gateway
        .front
        .call(TargetRequest::remove_namespace(nqn(), 1))
        .unwrap();
    wait_for("I/O that waits", || {
        queue.submit(volume, read()).unwrap();
        match completions.wait(Duration::from_millis(100)) {
            Some(ended) => {
                assert!(ended.result.is_err());
                false
            }
            None => true,
        }
    });
    gateway.set_behind(&behind, [AnaState::OPTIMIZED; 2]);
    let ended = completions.wait(Duration::from_secs(60)).unwrap();
    assert_eq!(ended.result, Ok(()));
}

fn blocks_in_front(controller: &mut Initiator) -> u64 {
    let data = controller.identify(cns::NAMESPACE, 1).unwrap();
    u64::from_le_bytes(data[..8].try_into().unwrap())
}

#[test]
fn a_namespace_in_front_is_resized_with_the_volume() {
    let behind = behind();
    let gateway = Gateway::new(&behind, 1, VolumeDisk::new);
    // Also while nobody is connected in front.
    let resize = |bytes| {
        let request = TargetRequest::resize_namespace(nqn(), 1, bytes);
        behind.handle.call(request).unwrap();
    };
    resize(2 * BYTES);
    let blocks = || gateway.front.status().unwrap().subsystems[0].namespaces[0].blocks;
    wait_for("the new size", || blocks() == 2 * BYTES / 512);
    let (mut controller, mut io) = gateway.connect();
    assert_eq!(blocks_in_front(&mut controller), 2 * BYTES / 512);
    let last = 3 * BYTES / 512 - 1;
    assert_eq!(
        io.read(1, last, 1).unwrap_err().code(),
        Status::LBA_OUT_OF_RANGE
    );
    let event = controller.submit(Sqe::new(admin::ASYNC_EVENT_REQUEST, 0), &[]);
    resize(3 * BYTES);
    let (cqe, _) = controller.finish(event, &[]);
    assert_eq!(cqe.dw0(), 0x0004_0002);
    assert_eq!(blocks_in_front(&mut controller), 3 * BYTES / 512);
    assert_eq!(io.write(1, last, &[7; 512]), Status::SUCCESS);
    assert_eq!(io.read(1, last, 1).unwrap(), [7; 512]);
}

/// The namespace of the target behind is gone, and one with this UUID is there.
fn replace(behind: &TestTarget, uuid: Uuid) {
    behind
        .handle
        .call(TargetRequest::remove_namespace(nqn(), 1))
        .unwrap();
    let mut namespace = NamespaceConfig::new(Backend::Memory { bytes: BYTES }, 512);
    namespace.uuid = Some(uuid);
    let request = TargetRequest::add_namespace(nqn(), Some(1), namespace);
    assert_eq!(behind.handle.call(request), Ok(1));
}

/// Counts the lines of the log that say that a volume is not served.
struct Refusals(AtomicU64);

static REFUSALS: Refusals = Refusals(AtomicU64::new(0));

impl Refusals {
    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl log::Log for Refusals {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = record.args().to_string();
        let is_one = line.starts_with("disk0n1: is another namespace than the one that is served");
        self.0.fetch_add(is_one.into(), Ordering::Relaxed);
    }

    fn flush(&self) {}
}

#[test]
fn a_volume_that_comes_back_as_the_same_carries_on() {
    log::set_logger(&REFUSALS).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    for (disk, gone) in [
        (
            VolumeDisk::new as fn(&Host<QueueMessage>, pollux_multipath::VolumeInfo) -> VolumeDisk,
            Status::INTERNAL_PATH_ERROR,
        ),
        (VolumeDisk::with_ana, Status::ASYMMETRIC_ACCESS_INACCESSIBLE),
    ] {
        let behind = behind();
        let [same, other] = [1, 2].map(Uuid::from_u128);
        replace(&behind, same);
        let gateway = Gateway::new(&behind, 1, disk);
        let (_controller, mut io) = gateway.connect();
        wait_for("a path", || io.write(1, 0, &[7; 512]).is_success());
        for uuid in [same, other, same, other] {
            let told = REFUSALS.count();
            gateway.host.detach("disk0", None).unwrap();
            wait_for("an end of I/O", || match io.read(1, 0, 1) {
                Ok(_) => false,
                Err(status) => {
                    assert_eq!(status.code(), gone);
                    true
                }
            });
            if behind.status().subsystems[0].namespaces[0].uuid != uuid {
                replace(&behind, uuid);
            }
            for path in gateway.paths {
                attach(&gateway.host, "disk0", path);
            }
            if uuid == same {
                wait_for("I/O that goes on", || {
                    io.write(1, 0, &[8; 512]).is_success()
                });
                continue;
            }
            // It is there, nothing of it is served, and that is said once, whatever happens to it.
            wait_for("a line in the log", || REFUSALS.count() > told);
            for bytes in [2 * BYTES, BYTES] {
                let request = TargetRequest::resize_namespace(nqn(), 1, bytes);
                behind.handle.call(request).unwrap();
                let blocks = || gateway.host.volume("disk0n1").info().unwrap().blocks;
                wait_for("the new size", || blocks() == bytes / 512);
            }
            for _ in 0..100 {
                assert_eq!(io.write(1, 0, &[9; 512]).code(), gone);
            }
            assert_eq!(REFUSALS.count(), told + 1);
            let (_admin, mut direct) = behind.connect(Options::default());
            assert_eq!(direct.read(1, 0, 1).unwrap(), [0; 512]);
        }
    }
}
