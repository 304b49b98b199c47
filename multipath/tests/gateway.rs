//! A volume as a disk of a target: a host in front of it, and two paths behind it.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use pollux_multipath::target::disk::Disk;
use pollux_multipath::target::{Backend, DiskRef};
use pollux_multipath::{
    AttachRequest, Group, Host, Idle, QueueMessage, Queues, Running, TransportId, VolumeDisk,
};
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_nvme_tcp::spec::opcode::{admin, nvm};
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::spec::{SglDescriptor, Sqe};
use pollux_nvme_tcp::testing::{Initiator, Options, TestTarget, nqn, pattern, wait_for};

const BLOCKS: usize = 4096;
/// Force Unit Access in command dword 12.
const FUA: u32 = 1 << 30;

/// A target behind with two paths to it, the host between, and the target in front.
struct World {
    behind: TestTarget,
    paths: [SocketAddr; 2],
    host: Host<QueueMessage>,
    running: Option<Running>,
    front: TestTarget,
}

impl World {
    fn new(idle: Idle) -> Self {
        let bytes = (BLOCKS * 512) as u64;
        let behind = TestTarget::start(1, &[Backend::Memory { bytes }]);
        let paths = [behind.addr, behind.listen()];
        let mut group = Group::new();
        group.add_reactor(None, idle);
        let host = Host::builder().install(&mut group, Queues::new);
        let running = group.start().unwrap();
        for path in paths {
            let request = AttachRequest::new("disk0", TransportId::new(path, nqn()));
            host.attach(request).unwrap();
        }
        let disk = VolumeDisk::new(&host, host.volume("disk0n1").info().unwrap());
        assert_eq!((disk.block_size(), disk.bytes()), (512, bytes));
        // Two reactors in front of one I/O reactor.
        let front = TestTarget::start(2, &[Backend::Disk(DiskRef::new(disk))]);
        Self {
            behind,
            paths,
            host,
            running: Some(running),
            front,
        }
    }

    fn parking() -> Self {
        Self::new(Idle::Park {
            after: Duration::from_micros(20),
        })
    }

    fn connect(&self) -> (Initiator, Initiator) {
        self.front.connect(Options::default())
    }

    /// Has no path any more, or has them all again, and waits until the host knows it.
    fn set_ana(&self, state: AnaState) {
        for path in self.paths {
            self.behind.set_ana(path, state);
        }
        let volume = self.host.volume("disk0n1");
        let wanted = state == AnaState::OPTIMIZED;
        wait_for("what the paths are", || {
            let status = volume.status().unwrap();
            let mut paths = status.reactors[0].paths.iter();
            paths.all(|path| path.accessible == wanted)
        });
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.front.stop();
        if let Some(running) = self.running.take() {
            running.stop();
            running.join();
        }
    }
}

fn ranges(list: &[(u32, u64)]) -> Vec<u8> {
    let range = |&(blocks, lba): &(u32, u64)| {
        let mut bytes = vec![0; 4];
        bytes.extend(blocks.to_le_bytes());
        bytes.extend(lba.to_le_bytes());
        bytes
    };
    list.iter().flat_map(range).collect()
}

#[test]
fn every_command_reaches_the_volume() {
    for idle in [
        Idle::Yield,
        Idle::Park {
            after: Duration::ZERO,
        },
    ] {
        let world = World::new(idle);
        let (_admin, mut io) = world.connect();
        for (lba, blocks) in [(0, 1), (7, 8), (100, 2048), (4095, 1)] {
            let data = pattern(blocks * 512, lba);
            assert_eq!(io.write(1, lba, &data), Status::SUCCESS);
            let blocks = u32::try_from(blocks).unwrap();
            assert!(io.read(1, lba, blocks).unwrap() == data);
            // It is there for who looks behind the gateway.
            let (_admin, mut direct) = world.behind.connect(Options::default());
            assert!(direct.read(1, lba, blocks).unwrap() == data);
        }

        let data = pattern(4096, 7);
        let mut forced = Sqe::for_blocks(nvm::WRITE, 1, 200, 8);
        forced.cdw12 = (forced.cdw12.get() | FUA).into();
        forced.sgl = SglDescriptor::in_capsule(0, 4096);
        assert_eq!(io.command(forced, &data).0.status(), Status::SUCCESS);
        let mut compare = Sqe::for_blocks(nvm::COMPARE, 1, 200, 8);
        compare.sgl = SglDescriptor::in_capsule(0, 4096);
        assert_eq!(io.command(compare, &data).0.status(), Status::SUCCESS);
        let (cqe, _) = io.command(compare, &pattern(4096, 8));
        assert_eq!(cqe.status().code(), Status::COMPARE_FAILURE);
        let flush = Sqe::new(nvm::FLUSH, 1);
        assert_eq!(io.command(flush, &[]).0.status(), Status::SUCCESS);

        let mut zeroes = Sqe::for_blocks(nvm::WRITE_ZEROES, 1, 200, 4);
        zeroes.cdw12 = (zeroes.cdw12.get() | FUA).into();
        assert_eq!(io.command(zeroes, &[]).0.status(), Status::SUCCESS);
        let read = io.read(1, 200, 8).unwrap();
        assert!(read[..2048].iter().all(|&b| b == 0) && read[2048..] == data[2048..]);

        // Memory gives whole pages back, so that they read as zeroes.
        let mut deallocate = Sqe::new(nvm::DATASET_MANAGEMENT, 1);
        deallocate.sgl = SglDescriptor::in_capsule(0, 32);
        deallocate.cdw10 = 1.into();
        deallocate.cdw11 = (1 << 2).into();
        let list = ranges(&[(256, 256), (256, 1024)]);
        assert_eq!(io.command(deallocate, &list).0.status(), Status::SUCCESS);
        for lba in [256, 1024] {
            assert!(io.read(1, lba, 256).unwrap().iter().all(|&b| b == 0));
        }
        assert!(io.read(1, 4000, 1).is_ok());
    }
}

#[test]
fn paths_behind_change_and_nothing_is_lost() {
    let world = World::parking();
    let (_admin, mut io) = world.connect();
    let [one, two] = world.paths;
    for round in 0..8 {
        let (gone, back) = if round % 2 == 0 {
            (one, two)
        } else {
            (two, one)
        };
        world.behind.set_ana(back, AnaState::OPTIMIZED);
        let data = pattern(64 * 512, round);
        // While the one path goes.
        world.behind.set_ana(gone, AnaState::INACCESSIBLE);
        for n in 0..8 {
            assert_eq!(io.write(1, n * 64, &data), Status::SUCCESS);
            assert!(io.read(1, n * 64, 64).unwrap() == data);
        }
    }
}

#[test]
fn without_a_path_io_waits_and_can_be_given_up() {
    let world = World::parking();
    let (mut controller, mut io) = world.connect();
    let data = pattern(512, 1);
    assert_eq!(io.write(1, 0, &data), Status::SUCCESS);
    world.set_ana(AnaState::INACCESSIBLE);

    // What a host has sent it can abort.
    let mut flushes: BTreeSet<u16> = (0..100)
        .map(|_| io.submit(Sqe::new(nvm::FLUSH, 1), &[]))
        .collect();
    wait_for("that the disk has them", || {
        world.front.status().subsystems[0].namespaces[0].in_flight == 100
    });
    let aborted = *flushes.iter().nth(50).unwrap();
    let mut abort = Sqe::new(admin::ABORT, 0);
    abort.cdw10 = (u32::from(aborted) << 16 | 1).into();
    assert_eq!(controller.command(abort, &[]).0.status(), Status::SUCCESS);
    let cqe = io.receive().cqe();
    assert_eq!(cqe.cid.get(), aborted);
    assert_eq!(cqe.status().code(), Status::ABORTED_BY_REQUEST);
    flushes.remove(&aborted);

    world.set_ana(AnaState::OPTIMIZED);
    while !flushes.is_empty() {
        let cqe = io.receive().cqe();
        assert_eq!(cqe.status(), Status::SUCCESS);
        assert!(flushes.remove(&cqe.cid.get()));
    }
    assert!(io.read(1, 0, 1).unwrap() == data);
}

#[test]
fn a_host_that_has_stopped_is_an_error_of_the_path() {
    let mut world = World::parking();
    let (_admin, mut io) = world.connect();
    assert!(io.read(1, 0, 1).is_ok());
    let running = world.running.take().unwrap();
    running.stop();
    running.join();
    let (cqe, _) = io.command(Sqe::new(nvm::FLUSH, 1), &[]);
    assert_eq!(cqe.status().code(), Status::INTERNAL_PATH_ERROR);
    let error = io.read(1, 0, 1).unwrap_err();
    assert_eq!(error.code(), Status::INTERNAL_PATH_ERROR);
}
