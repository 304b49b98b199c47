//! Disks of others: one that keeps the contract, and some that do not. Those harm nobody but their own users, and are named
//! in the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crossbeam_queue::SegQueue;
use pollux_nvme_tcp::spec::opcode::{admin, nvm};
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::spec::{SglDescriptor, Sqe};
use pollux_nvme_tcp::target::disk::{
    Capabilities, Disk, DiskChannel, DiskContext, Done, Io, Opening,
};
use pollux_nvme_tcp::target::{
    Backend, DiskRef, NamespaceConfig, Removed, TargetError, TargetRequest,
};
use pollux_nvme_tcp::testing::{Initiator, Options, TestTarget, pattern, wait_for};

/// What the target has said in the log of this process.
struct Lines(SegQueue<String>);

static LINES: Lines = Lines(SegQueue::new());

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0.push(record.args().to_string());
    }

    fn flush(&self) {}
}

/// Waits for a line that has all of these words. Each test asks for its own disk's.
fn wait_for_line(words: &[&str]) {
    wait_for("a line in the log", || {
        (0..LINES.0.len()).any(|_| {
            let Some(line) = LINES.0.pop() else {
                return false;
            };
            let found = words.iter().all(|word| line.contains(word));
            LINES.0.push(line);
            found
        })
    });
}

/// How a disk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    /// It does not: it answers at once.
    None,
    /// It keeps what it is given until it is asked to end it, and then for a while.
    KeepsOn,
    /// It drops what it is given.
    Never,
    /// It changes the buffers of two I/Os.
    OtherBuffer,
    /// It leaves its I/Os to another disk,
    Leaves,
    /// which hands them back.
    Takes,
}

#[derive(Debug)]
struct Liar {
    name: &'static str,
    lie: Lie,
    in_place: bool,
    /// I/Os that are left to the other disk.
    left: Arc<SegQueue<Io>>,
    /// [`Lie::KeepsOn`]: answers may come now.
    let_go: Arc<AtomicU8>,
}

impl Liar {
    fn new(name: &'static str, lie: Lie) -> Self {
        Self {
            name,
            lie,
            in_place: false,
            left: Arc::default(),
            let_go: Arc::default(),
        }
    }
}

impl Disk for Liar {
    fn name(&self) -> String {
        self.name.into()
    }

    fn bytes(&self) -> u64 {
        1 << 20
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.in_place = self.in_place;
        capabilities
    }

    fn open(&self, _: Opening) -> Box<dyn DiskChannel> {
        Box::new(LiarChannel {
            lie: self.lie,
            left: Arc::clone(&self.left),
            let_go: Arc::clone(&self.let_go),
            kept: Vec::new(),
        })
    }
}

#[derive(Debug)]
struct LiarChannel {
    lie: Lie,
    left: Arc<SegQueue<Io>>,
    let_go: Arc<AtomicU8>,
    kept: Vec<Io>,
}

impl DiskChannel for LiarChannel {
    fn read_in_place(&mut self, _: u64, len: usize, out: &mut Vec<u8>) -> Result<(), Status> {
        // One byte more.
        out.resize(out.len() + len + 1, 7);
        Ok(())
    }

    fn submit(&mut self, io: Io, _: &mut DiskContext<'_>) -> Option<Done> {
        match self.lie {
            Lie::None => return Some(io.done(Ok(()))),
            Lie::Never => drop(io),
            Lie::Leaves => self.left.push(io),
            Lie::KeepsOn | Lie::OtherBuffer | Lie::Takes => self.kept.push(io),
        }
        None
    }

    fn poll(&mut self, done: &mut Vec<Done>, _: &mut DiskContext<'_>) {
        let kept = &mut self.kept;
        match (self.lie, kept.as_mut_slice()) {
            (Lie::Takes, [_, ..]) => {
                let taken = self.left.pop().into_iter();
                done.extend(taken.chain(kept.drain(..)).map(|io| io.done(Ok(()))));
            }
            (Lie::OtherBuffer, [one, two]) => {
                std::mem::swap(&mut one.data, &mut two.data);
                done.extend(kept.drain(..).map(|io| io.done(Ok(()))));
            }
            (Lie::KeepsOn, [_, ..]) if self.let_go.load(Ordering::Relaxed) > 0 => {
                done.extend(kept.drain(..).map(|io| io.done(Ok(()))));
            }
            _ => {}
        }
    }
}

/// A target with this disk and one in memory.
fn target_with(liar: &DiskRef) -> TestTarget {
    let _ = log::set_logger(&LINES);
    log::set_max_level(log::LevelFilter::Info);
    let memory = Backend::Memory { bytes: 1 << 20 };
    TestTarget::start(1, &[Backend::Disk(liar.clone()), memory])
}

fn read_sqe(nsid: u32, blocks: u32) -> Sqe {
    let mut sqe = Sqe::for_blocks(nvm::READ, nsid, 0, blocks);
    sqe.sgl = SglDescriptor::transport(blocks * 512);
    sqe
}

/// The other namespace is as it should be.
fn check_other(io: &mut Initiator) {
    for len in [4096, 65_536] {
        let data = pattern(len, 3);
        assert_eq!(io.write(2, 8, &data), Status::SUCCESS);
        let blocks = u32::try_from(len / 512).unwrap();
        assert!(io.read(2, 8, blocks).unwrap() == data);
    }
}

#[test]
fn a_disk_that_never_answers_harms_its_own_namespace_only() {
    let target = target_with(&DiskRef::new(Liar::new("silent disk", Lie::Never)));
    let (mut admin, mut io) = target.connect(Options::default());
    let open = [
        io.submit(read_sqe(1, 8), &[]),
        io.submit(read_sqe(1, 2048), &[]),
    ];
    check_other(&mut io);
    let status = target.status();
    assert_eq!(status.subsystems[0].namespaces[0].in_flight, 2);
    assert_eq!(status.subsystems[0].namespaces[1].in_flight, 0);
    // It does not let go of a command that is aborted.
    let mut abort = Sqe::new(admin::ABORT, 0);
    abort.cdw10 = (1 | u32::from(open[0]) << 16).into();
    assert_eq!(admin.command(abort, &[]).0.dw0(), 1);
    // Nor for a removal, which says so in its time.
    let limit = Duration::from_millis(20);
    let remove = |nsid| TargetRequest::remove_namespace(target.nqn.clone(), nsid).within(limit);
    let late = Err(TargetError::Timeout);
    assert_eq!(target.handle.call(remove(1)), late);
    check_other(&mut io);
    // A removal that is about something else does not wait for it.
    assert_eq!(target.handle.call(remove(2)), Ok(Removed));
    assert_eq!(target.handle.call(remove(1)), late);
}

#[test]
fn another_buffer_than_the_own_counts_for_nothing() {
    let target = target_with(&DiskRef::new(Liar::new("swapping disk", Lie::OtherBuffer)));
    let (_admin, mut io) = target.connect(Options::default());
    for _ in 0..3 {
        let cids = [
            io.submit(read_sqe(1, 8), &[]),
            io.submit(read_sqe(1, 256), &[]),
        ];
        for cid in cids {
            let (cqe, data) = io.finish(cid, &[]);
            assert_eq!(cqe.status(), Status::INTERNAL_ERROR);
            assert!(data.is_empty());
        }
        check_other(&mut io);
    }
    wait_for_line(&["swapping disk", "another buffer"]);
    assert_eq!(target.status().reactors[0].staging_held, 0);
}

#[test]
fn more_bytes_in_place_than_were_asked_for_are_not_sent() {
    let liar = Liar {
        in_place: true,
        ..Liar::new("verbose disk", Lie::None)
    };
    let target = target_with(&DiskRef::new(liar));
    let (_admin, mut io) = target.connect(Options::default());
    for blocks in [8, 2048] {
        assert_eq!(io.read(1, 0, blocks), Err(Status::INTERNAL_ERROR));
        check_other(&mut io);
    }
}

#[test]
fn an_io_of_another_disk_counts_for_nothing() {
    let giver = Liar::new("giving disk", Lie::Leaves);
    let taker = Liar {
        left: Arc::clone(&giver.left),
        ..Liar::new("taking disk", Lie::Takes)
    };
    let target = target_with(&DiskRef::new(giver));
    let taker = TargetRequest::add_namespace(
        target.nqn.clone(),
        Some(3),
        NamespaceConfig::new(Backend::Disk(DiskRef::new(taker)), 512),
    );
    assert!(target.handle.call(taker).is_ok());
    let (_admin, mut io) = target.connect(Options::default());
    let lost = io.submit(read_sqe(1, 8), &[]);
    for _ in 0..3 {
        check_other(&mut io);
        let (cqe, _) = io.command(Sqe::new(nvm::FLUSH, 3), &[]);
        assert_eq!(cqe.status(), Status::SUCCESS);
    }
    wait_for_line(&["taking disk", "was not given"]);
    let in_flight = |target: &TestTarget, at: usize| {
        let status = target.status();
        status.subsystems[0].namespaces[at].in_flight
    };
    assert_eq!((in_flight(&target, 0), in_flight(&target, 2)), (1, 0));
    // Its command is still open.
    let again = io.submit(read_sqe(2, 8), &[]);
    assert!(again != lost && io.finish(again, &[]).0.status().is_success());
}

#[test]
fn an_answer_after_the_end_of_its_namespace_ends_what_waited_for_it() {
    let liar = Liar::new("slow disk", Lie::KeepsOn);
    let let_go = Arc::clone(&liar.let_go);
    let disk = DiskRef::new(liar);
    let target = target_with(&disk);
    let (_admin, mut io) = target.connect(Options::default());
    let reading = io.submit(read_sqe(1, 8), &[]);
    let flush_all = io.submit(Sqe::new(nvm::FLUSH, u32::MAX), &[]);
    check_other(&mut io);
    let remove = TargetRequest::remove_namespace(target.nqn.clone(), 1);
    std::thread::scope(|scope| {
        let removing = scope.spawn(|| target.handle.call(remove));
        while target.status().subsystems[0].namespaces.len() > 1 {
            std::thread::yield_now();
        }
        check_other(&mut io);
        assert!(!removing.is_finished(), "the disk may still do something");
        let_go.store(1, Ordering::Relaxed);
        assert_eq!(removing.join().unwrap(), Ok(Removed));
    });
    let (cqe, data) = io.finish(reading, &[]);
    assert_eq!(cqe.status(), Status::INVALID_NAMESPACE.with_dnr());
    assert!(data.is_empty());
    assert_eq!(io.finish(flush_all, &[]).0.status(), Status::SUCCESS);
    check_other(&mut io);
}
