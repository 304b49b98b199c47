//! Files and devices that blocks are kept in: space that is given back, errors, and locks.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use pollux_nvme_tcp::spec::identify::{IdentifyNamespace, cns, ns};
use pollux_nvme_tcp::spec::log::{GetLogPage, SmartLog, lid};
use pollux_nvme_tcp::spec::nvm::{DatasetRange, NvmCdw12, dsm};
use pollux_nvme_tcp::spec::opcode::{admin, nvm};
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::spec::{SglDescriptor, Sqe};
use pollux_nvme_tcp::target::{Backend, DiskRef, FileEngine};
use pollux_nvme_tcp::testing::{Initiator, Options, TestTarget, pattern};
use zerocopy::{FromBytes, IntoBytes};

const MIB: u64 = 1 << 20;

/// A file of zeroes without any space, removed at the end.
struct Sparse(PathBuf);

impl Sparse {
    fn new(name: &str, bytes: u64) -> Self {
        let path = std::env::temp_dir().join(format!("pollux-{name}-{}", std::process::id()));
        File::create(&path).unwrap().set_len(bytes).unwrap();
        Self(path)
    }

    /// Bytes of space that the file takes.
    fn space(&self) -> u64 {
        std::fs::metadata(&self.0).unwrap().blocks() * 512
    }

    fn backend(&self, engine: FileEngine) -> Backend {
        backend(&self.0, false, engine)
    }
}

impl Drop for Sparse {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

/// What every file is tried with; the first is `io_uring` where this process can have it.
pub const ENGINES: [FileEngine; 2] = [FileEngine::Auto, FileEngine::Threads];

fn backend(path: &Path, shared: bool, engine: FileEngine) -> Backend {
    Backend::File {
        path: path.to_owned(),
        bytes: None,
        shared,
        engine,
    }
}

fn deallocate(io: &mut Initiator, lba: u64, blocks: u32) -> Status {
    let range = DatasetRange {
        nlb: blocks.into(),
        slba: lba.into(),
        ..DatasetRange::default()
    };
    let mut sqe = Sqe::new(nvm::DATASET_MANAGEMENT, 1);
    sqe.cdw11 = dsm::DEALLOCATE.into();
    sqe.sgl = SglDescriptor::in_capsule(0, 16);
    io.command(sqe, range.as_bytes()).0.status()
}

fn write_zeroes(io: &mut Initiator, lba: u64, blocks: u32, deac: bool, fua: bool) -> Status {
    let mut sqe = Sqe::for_blocks(nvm::WRITE_ZEROES, 1, lba, blocks);
    let cdw12 = NvmCdw12::from_bits(sqe.cdw12.get());
    sqe.cdw12 = cdw12.with_deac(deac).with_fua(fua).into_bits().into();
    io.command(sqe, &[]).0.status()
}

fn flush(io: &mut Initiator) -> Status {
    io.command(Sqe::new(nvm::FLUSH, 1), &[]).0.status()
}

fn identify(admin: &mut Initiator) -> IdentifyNamespace {
    let data = admin.identify(cns::NAMESPACE, 1).unwrap();
    FromBytes::read_from_bytes(&data).unwrap()
}

#[test]
fn deallocated_blocks_of_a_file_give_their_space_back_and_read_as_zeroes() {
    ENGINES.into_iter().for_each(deallocation);
}

fn deallocation(engine: FileEngine) {
    let file = Sparse::new("deallocate", 16 * MIB);
    let target = TestTarget::start(1, &[file.backend(engine)]);
    let (mut admin, mut io) = target.connect(Options::default());
    // The file takes no space before, and none after, whichever way it is deallocated.
    assert_eq!(deallocate(&mut io, 0, 32768), Status::SUCCESS);
    assert_eq!(write_zeroes(&mut io, 0, 32768, true, true), Status::SUCCESS);
    assert_eq!(flush(&mut io), Status::SUCCESS);
    assert_eq!(file.space(), 0);
    let data = pattern(1 << 20, 1);
    for deac in [false, true] {
        for mib in 0..8 {
            assert_eq!(io.write(1, mib * 2048, &data), Status::SUCCESS);
        }
        assert_eq!(flush(&mut io), Status::SUCCESS);
        assert!(file.space() >= 8 * MIB);
        // All but the first block and the last MiB, both of which stay.
        let status = match deac {
            false => deallocate(&mut io, 1, 7 * 2048 - 1),
            true => write_zeroes(&mut io, 1, 7 * 2048 - 1, true, false),
        };
        assert_eq!(status, Status::SUCCESS);
        assert!(file.space() <= 2 * MIB, "{}", file.space());
        assert!(io.read(1, 0, 1).unwrap() == data[..512]);
        assert!(io.read(1, 1, 2047).unwrap().iter().all(|&b| b == 0));
        assert!(io.read(1, 7 * 2048, 2048).unwrap() == data);
    }
    // Without DEAC the blocks are zeroed and keep their space, or take some.
    assert_eq!(
        write_zeroes(&mut io, 7 * 2048, 2048, false, true),
        Status::SUCCESS
    );
    assert!(io.read(1, 7 * 2048, 2048).unwrap().iter().all(|&b| b == 0));
    let id = identify(&mut admin);
    assert_eq!(
        id.dlfeat,
        ns::DLFEAT_READS_ZEROES | ns::DLFEAT_WRITE_ZEROES_DEALLOCATES
    );
    assert_eq!(id.nsfeat, ns::NSFEAT_OPTIMAL_PERFORMANCE);
    assert_eq!(id.npdg_z.get(), 7);
}

#[test]
fn a_file_is_locked_and_its_holder_named() {
    for [first, second] in [ENGINES, [ENGINES[1], ENGINES[0]]] {
        file_is_locked(first, second);
    }
}

fn file_is_locked(engine: FileEngine, other: FileEngine) {
    let file = Sparse::new("lock", MIB);
    let first = DiskRef::open(&file.backend(engine)).unwrap();
    let refused = |shared| {
        let error = DiskRef::open(&backend(&file.0, shared, other))
            .unwrap_err()
            .to_string();
        assert!(error.contains(file.0.to_str().unwrap()), "{error}");
        assert!(error.contains("another disk of this process"), "{error}");
        assert!(error.contains(&std::process::id().to_string()), "{error}");
    };
    refused(false);
    refused(true);
    drop(first);
    let shared =
        [engine, other].map(|engine| DiskRef::open(&backend(&file.0, true, engine)).unwrap());
    refused(false);
    drop(shared);
    DiskRef::open(&file.backend(other)).unwrap();
}

#[test]
fn a_disk_that_is_gone_frees_its_file_at_once() {
    let file = Sparse::new("reopen", 64 * MIB);
    for engine in ENGINES.repeat(10) {
        let mut target = TestTarget::start(1, &[file.backend(engine)]);
        let (_admin, mut io) = target.connect(Options::default());
        assert_eq!(io.write(1, 0, &pattern(4096, 1)), Status::SUCCESS);
        assert_eq!(flush(&mut io), Status::SUCCESS);
        target.stop();
    }
}

#[test]
fn what_is_no_file_and_no_device_is_refused() {
    for path in ["/dev/full", "/tmp", "/dev/null"] {
        let error = DiskRef::open(&backend(Path::new(path), false, FileEngine::Auto)).unwrap_err();
        assert!(
            error.to_string().contains("block device"),
            "{path}: {error}"
        );
    }
}

/// Runs one of the ignored tests below in a process of its own, by a line of shell that ends with it.
fn in_child(test: &str, limit: &str) {
    let exe = std::env::current_exe().unwrap();
    let line = format!("{limit} exec \"$0\" --exact {test} --ignored --nocapture");
    let child = Command::new("sh")
        .args(["-c", &line])
        .arg(exe)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success() && text.contains("1 passed"),
        "{}: {text} {}",
        child.status,
        String::from_utf8_lossy(&child.stderr)
    );
}

#[test]
fn a_file_that_reaches_the_limit_of_the_process_fails_the_command_only() {
    // 4 MiB in units of 512 bytes; some shells count KiB, which is 8 MiB.
    in_child("disks::under_a_limit_of_file_size", "ulimit -S -f 8192;");
}

#[test]
#[ignore = "needs the limit that a_file_that_reaches_the_limit_of_the_process_fails_the_command_only sets"]
fn under_a_limit_of_file_size() {
    let path = std::env::temp_dir().join(format!("pollux-limit-{}", std::process::id()));
    // As large as it may be; what the namespace has beyond that does not fit.
    let target = TestTarget::start(1, &[]);
    let error = DiskRef::open(&Backend::File {
        path: path.clone(),
        bytes: Some(64 * MIB),
        shared: false,
        engine: FileEngine::Auto,
    });
    assert!(error.is_err());
    drop(target);
    std::fs::remove_file(&path).unwrap();
    // Made by who may: the limit is this process's own.
    let make = format!("ulimit -S -f unlimited; truncate -s 64M {}", path.display());
    assert!(run("sh", &["-c", &make]).is_some());
    for engine in ENGINES {
        let target = TestTarget::start(1, &[backend(&path, false, engine)]);
        let (_admin, mut io) = target.connect(Options::default());
        let data = pattern(65536, 1);
        assert_eq!(io.write(1, 0, &data), Status::SUCCESS);
        assert_eq!(io.write(1, 65536, &data).code(), Status::CAPACITY_EXCEEDED);
        assert_eq!(flush(&mut io), Status::SUCCESS);
        assert!(io.read(1, 0, 128).unwrap() == data);
    }
    std::fs::remove_file(&path).unwrap();
}

/// A loop device of 16 MiB on a file system of 1 MiB: what is written to it is lost when it is written back.
struct Lossy(PathBuf, String);

impl Lossy {
    /// `None`: this process may not make one.
    fn new(block_size: &str) -> Option<Self> {
        let dir = std::env::temp_dir().join(format!("pollux-lossy-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let path = dir.to_str().unwrap().to_owned();
        let mounted = run("mount", &["-t", "tmpfs", "-o", "size=1m", "none", &path]);
        if mounted.is_none() {
            std::fs::remove_dir(&dir).unwrap();
            return None;
        }
        let file = dir.join("disk");
        File::create(&file).unwrap().set_len(16 * MIB).unwrap();
        let device = run(
            "losetup",
            &["-b", block_size, "-f", "--show", file.to_str().unwrap()],
        );
        let lossy = Self(dir, device.clone().unwrap_or_default());
        device.map(|_| lossy)
    }
}

impl Drop for Lossy {
    fn drop(&mut self) {
        run("losetup", &["-d", &self.1]);
        run("umount", &["-l", self.0.to_str().unwrap()]);
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// What a program prints; `None` if it fails.
pub fn run(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

#[test]
fn a_flush_that_failed_is_not_forgotten() {
    // Past the page cache nothing is lost behind a write that was answered. Blocks that are smaller than the device's go
    // through it.
    flush_that_failed("512", FileEngine::Threads);
    flush_that_failed("4096", FileEngine::Auto);
}

fn flush_that_failed(block_size: &str, engine: FileEngine) {
    let Some(device) = Lossy::new(block_size) else {
        eprintln!("no loop devices for this user: not tested");
        return;
    };
    let backend = || backend(Path::new(&device.1), false, engine);
    let disk = DiskRef::open(&backend()).unwrap();
    // A device has its own size, and is as exclusive as a file.
    assert_eq!(disk.bytes(), 16 * MIB);
    assert!(DiskRef::open(&backend()).is_err());
    let target = TestTarget::start(2, &[Backend::Disk(disk.clone()), Backend::Disk(disk)]);
    let (mut admin, mut io) = target.connect(Options::default());
    let data = pattern(1 << 20, 1);
    assert_eq!(io.write(1, 0, &data[..65536]), Status::SUCCESS);
    assert_eq!(io.write(1, 1, &data[512..1024]), Status::SUCCESS);
    assert_eq!(flush(&mut io), Status::SUCCESS);
    assert_eq!(smart(&mut admin).critical_warning, 0);
    let event = admin.submit(Sqe::new(admin::ASYNC_EVENT_REQUEST, 0), &[]);
    for mib in 1..8 {
        assert_eq!(io.write(1, mib * 2048, &data), Status::SUCCESS);
    }
    // Once the kernel has dropped what it could not write it has nothing to complain about any more.
    for _ in 0..3 {
        assert_eq!(flush(&mut io).code(), Status::WRITE_FAULT);
    }
    let (cqe, _) = admin.finish(event, &[]);
    // SMART / health, reliability degraded, to be read there.
    assert_eq!(cqe.result.get(), 0x02_00_01);
    for nsid in [1, 2] {
        assert_eq!(io.write(nsid, 0, &data).code(), Status::WRITE_FAULT);
    }
    let fua = Sqe::for_blocks(nvm::WRITE, 1, 0, 8);
    let cdw12 = NvmCdw12::from_bits(fua.cdw12.get()).with_fua(true);
    let fua = Sqe {
        cdw12: cdw12.into_bits().into(),
        sgl: SglDescriptor::in_capsule(0, 4096),
        ..fua
    };
    let (cqe, _) = io.command(fua, &data[..4096]);
    assert_eq!(cqe.status().code(), Status::WRITE_FAULT);
    assert_eq!(
        write_zeroes(&mut io, 0, 8, false, false).code(),
        Status::WRITE_FAULT
    );
    assert_eq!(deallocate(&mut io, 0, 8).code(), Status::WRITE_FAULT);
    assert!(io.read(1, 0, 128).unwrap() == data[..65536]);
    let log = smart(&mut admin);
    assert_eq!(log.critical_warning, 0b1100);
    assert!(log.media_errors.get() > 0);
    let status = target.status();
    for namespace in &status.subsystems[0].namespaces {
        assert!(namespace.failure.is_some(), "{namespace:?}");
        assert_eq!(namespace.in_flight, 0);
    }
}

fn smart(admin: &mut Initiator) -> SmartLog {
    let get = GetLogPage::new(lid::SMART, 0, 512);
    FromBytes::read_from_bytes(&admin.log_page(get).unwrap()).unwrap()
}
