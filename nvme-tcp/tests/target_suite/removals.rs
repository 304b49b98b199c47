//! A removal is answered when nothing of what is removed can execute any more.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pollux_nvme_tcp::spec::nvm::{DatasetRange, dsm};
use pollux_nvme_tcp::spec::opcode::nvm;
use pollux_nvme_tcp::spec::pdu::{PduType, R2t};
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::spec::{SglDescriptor, Sqe};
use pollux_nvme_tcp::target::{
    Backend, FileEngine, NamespaceConfig, Removed, TargetError, TargetRequest,
};
use pollux_nvme_tcp::testing::{
    Initiator, ManagedTarget, NQN, Options, Pdu, TestTarget, nqn, pattern,
};
use pollux_reactor::rpc::Config;
use serde_json::json;
use zerocopy::{FromBytes, IntoBytes};

use crate::disks::run;
use crate::faults::begin_write;
use crate::layers::PARKED;

pub const MIB: u64 = 1 << 20;

/// A file system of its own that can be frozen: who then changes a file on it waits in the kernel.
pub struct Freezer {
    image: PathBuf,
    dir: PathBuf,
}

impl Freezer {
    /// `None`: this process may not make one.
    pub fn new(name: &str) -> Option<Self> {
        let name = format!("pollux-freezer-{}-{name}", std::process::id());
        let dir = std::env::temp_dir().join(&name);
        let image = std::env::temp_dir().join(format!("{name}.img"));
        std::fs::create_dir(&dir).unwrap();
        File::create(&image).unwrap().set_len(32 * MIB).unwrap();
        let freezer = Self { image, dir };
        let (image, dir) = (freezer.image.to_str()?, freezer.dir.to_str()?);
        run("mkfs.ext4", &["-q", "-F", image])?;
        run("mount", &["-o", "loop", image, dir])?;
        File::create(freezer.file())
            .unwrap()
            .set_len(8 * MIB)
            .unwrap();
        Some(freezer)
    }

    pub fn file(&self) -> PathBuf {
        self.dir.join("disk")
    }

    /// What the file system lies in: as much of it as has come to its device.
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// A thread of this process is in a system call on the file: one that is cancelled before that does nothing.
    pub fn has_caller(&self) -> bool {
        let file = self.file();
        let is_in_call = |task: std::fs::DirEntry| {
            let call = std::fs::read_to_string(task.path().join("syscall")).ok()?;
            let fd = call.split(' ').nth(1)?.strip_prefix("0x")?;
            let fd = u32::from_str_radix(fd, 16).ok()?;
            let open = std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
            (open == file).then_some(())
        };
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        tasks.flatten().any(|task| is_in_call(task).is_some())
    }

    pub fn freeze(&self) {
        run("fsfreeze", &["-f", self.dir.to_str().unwrap()]).expect("it can be frozen");
    }

    fn thaw(&self) {
        run("fsfreeze", &["-u", self.dir.to_str().unwrap()]).expect("it is frozen");
    }
}

/// Thaws the file system at its end.
pub struct Frozen<'a>(pub &'a Freezer);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        self.0.thaw();
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        let dir = self.dir.to_str().unwrap();
        run("fsfreeze", &["-u", dir]);
        run("umount", &[dir]).or_else(|| run("umount", &["-l", dir]));
        let _ = std::fs::remove_dir(&self.dir);
        let _ = std::fs::remove_file(&self.image);
    }
}

#[test]
fn a_removal_is_answered_when_nothing_of_it_can_execute() {
    let Some(freezer) = Freezer::new("requests") else {
        eprintln!("no file system of its own for this user: not tested");
        return;
    };
    let backend = Backend::File {
        path: freezer.file(),
        bytes: None,
        shared: false,
        engine: FileEngine::Auto,
    };
    let target = TestTarget::start(2, &[backend]);
    let (_admin, mut io) = target.connect(Options::default());
    let data = pattern(65536, 1);
    assert!(io.write(1, 0, &data).is_success());
    freezer.freeze();
    let range = DatasetRange {
        nlb: 128.into(),
        ..DatasetRange::default()
    };
    let mut sqe = Sqe::new(nvm::DATASET_MANAGEMENT, 1);
    sqe.cdw11 = dsm::DEALLOCATE.into();
    sqe.sgl = SglDescriptor::in_capsule(0, 16);
    io.submit(sqe, range.as_bytes());
    while !freezer.has_caller() {
        std::thread::yield_now();
    }
    let status = target.status();
    assert_eq!(status.subsystems[0].namespaces[0].in_flight, 1);
    let nqn = target.nqn.clone();
    let within = |request: TargetRequest<Removed>| request.within(Duration::from_millis(20));
    // The host goes with its listener; its command is still with the disk.
    let listener = TargetRequest::remove_listener(nqn.clone(), target.addr);
    let late = target.handle.call(within(listener));
    assert_eq!(late, Err(TargetError::Timeout));
    assert!(
        target.status().subsystems[0].listeners.is_empty(),
        "it is removed all the same"
    );
    std::thread::scope(|scope| {
        // Also where an assertion fails: the scope waits for the removal.
        let frozen = Frozen(&freezer);
        let handle = &target.handle;
        let removing = scope.spawn(|| {
            let request = TargetRequest::remove_namespace(nqn.clone(), 1);
            handle.call(request)
        });
        while !target.status().subsystems[0].namespaces.is_empty() {
            std::thread::yield_now();
        }
        // Nor is it gone for whoever asks for the same now, and may then use the disk for something else.
        let again = TargetRequest::remove_namespace(nqn.clone(), 1);
        assert_eq!(handle.call(within(again)), Err(TargetError::Timeout));
        // Others are served meanwhile.
        let late = handle.call(within(TargetRequest::delete_subsystem(nqn.clone())));
        assert_eq!(late, Err(TargetError::Timeout));
        assert!(!removing.is_finished(), "it may still execute");
        drop(frozen);
        assert_eq!(removing.join().unwrap(), Ok(Removed));
    });
    drop(target);
}

/// A call that is over its time is answered, and what it has begun comes to its end later.
#[test]
fn a_removal_goes_on_when_the_time_for_it_is_over() {
    let Some(freezer) = Freezer::new("calls") else {
        eprintln!("no file system of its own for this user: not tested");
        return;
    };
    let mut t = ManagedTarget::start(PARKED, Config::default());
    t.call("nvmf_create_transport", json!({"trtype": "tcp"}));
    let subsystem = json!({"nqn": NQN, "allow_any_host": true});
    t.call("nvmf_create_subsystem", subsystem);
    let file = json!({"name": "Aio0", "filename": freezer.file(), "block_size": 512});
    t.call("bdev_aio_create", file);
    let namespace = json!({"nqn": NQN, "namespace": {"bdev_name": "Aio0"}});
    t.call("nvmf_subsystem_add_ns", namespace.clone());
    let (addr, nqn) = (t.listen(), nqn());
    let options = Options::default();
    let admin = Initiator::admin(addr, &nqn, options);
    let mut io = Initiator::io(addr, &nqn, admin.cntlid, 1, options);
    freezer.freeze();
    let frozen = Frozen(&freezer);
    let mut write = Sqe::for_blocks(nvm::WRITE, 1, 0, 1);
    write.sgl = SglDescriptor::in_capsule(0, 512);
    let open = io.submit(write, &pattern(512, 1));
    while !freezer.has_caller() {
        std::thread::yield_now();
    }
    let remove = json!({"nqn": NQN, "nsid": 1, "timeout_ms": 20});
    let delete = json!({"name": "Aio0", "timeout_ms": 20});
    for (method, params) in [
        ("nvmf_subsystem_remove_ns", remove),
        ("bdev_aio_delete", delete),
    ] {
        let (code, message) = t.error(method, params);
        assert_eq!(code, -32603, "{message}");
        assert_eq!(message, "Timeout reached during removal");
    }
    let (code, message) = t.error("nvmf_subsystem_add_ns", namespace);
    assert_eq!(code, -1, "the disk is still in use: {message}");
    drop(frozen);
    while !t
        .call("bdev_get_bdevs", json!({}))
        .as_array()
        .unwrap()
        .is_empty()
    {
        std::thread::yield_now();
    }
    // What had begun was done.
    assert_eq!(io.finish(open, &[]).0.status(), Status::SUCCESS);
    let delete = json!({"nqn": NQN, "timeout_ms": 60_000});
    assert_eq!(t.call("nvmf_delete_subsystem", delete), true);
}

/// Data that a namespace's commands have asked for is not written to the one that has its identifier next, nor is that of
/// commands which still wait for memory to ask for theirs.
#[test]
fn data_for_a_namespace_that_is_gone_is_written_nowhere() {
    let memory = Backend::Memory { bytes: 4 * MIB };
    let target = TestTarget::start(1, std::slice::from_ref(&memory));
    let (_admin, mut io) = target.connect(Options::default());
    let data = pattern(1 << 20, 1);
    let len = u32::try_from(data.len()).unwrap();
    let mut asked = vec![begin_write(&mut io, len)];
    let mut sqe = Sqe::for_blocks(nvm::WRITE, 1, 0, len / 512);
    sqe.sgl = SglDescriptor::transport(len);
    let cids: Vec<_> = (0..23).map(|_| io.submit(sqe, &[])).collect();
    // One that needs no memory is answered behind all of them.
    let behind = io.submit(Sqe::new(nvm::FLUSH, 1), &[]);
    let take_r2t = |pdu: Pdu, asked: &mut Vec<(u16, u16)>| {
        let (r2t, _) = R2t::read_from_prefix(&pdu.bytes).unwrap();
        asked.push((r2t.cccid.get(), r2t.ttag.get()));
    };
    loop {
        let pdu = io.receive();
        match pdu.frame.pdu_type {
            PduType::R2T => take_r2t(pdu, &mut asked),
            _ => {
                assert_eq!(pdu.cqe().cid.get(), behind);
                break;
            }
        }
    }
    assert!(asked.len() < 24, "some wait for memory");
    let nqn = target.nqn.clone();
    let remove = TargetRequest::remove_namespace(nqn.clone(), 1);
    assert_eq!(target.handle.call(remove), Ok(Removed));
    let add = TargetRequest::add_namespace(nqn, Some(1), NamespaceConfig::new(memory, 512));
    assert_eq!(target.handle.call(add), Ok(1));
    let mut ended = 0;
    while ended < 1 + cids.len() {
        while let Some((cid, ttag)) = asked.pop() {
            io.send_data(cid, ttag, 0, &data, true);
        }
        let pdu = io.receive();
        match pdu.frame.pdu_type {
            PduType::R2T => take_r2t(pdu, &mut asked),
            _ => {
                let status = pdu.cqe().status();
                assert_eq!(status, Status::INVALID_NAMESPACE.with_dnr());
                ended += 1;
            }
        }
    }
    assert!(io.read(1, 0, 2048).unwrap().iter().all(|&byte| byte == 0));
    assert!(
        io.write(1, 0, &data).is_success(),
        "the new one takes its own"
    );
}
