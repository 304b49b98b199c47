//! What all disks have in common, and a bench to try one on without a target.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;

/// One channel of a disk, and a clock.
pub(super) struct Bench {
    channel: Box<dyn DiskChannel>,
    rng: Rng,
    now: Time,
    serial: u64,
    is_simulated: bool,
}

impl Bench {
    /// Opens a disk as in a simulation.
    pub(super) fn new(disk: &DiskRef) -> Self {
        Self::opened(disk, Opening::new(0, 0, None))
    }

    /// Opens a disk as a reactor does that never sleeps.
    fn awake(disk: &DiskRef) -> Self {
        Self::opened(disk, Opening::new(0, 0, Some(Doorbell::new(|_| true))))
    }

    fn opened(disk: &DiskRef, opening: Opening) -> Self {
        Self {
            is_simulated: opening.is_simulated(),
            channel: disk.open(opening),
            rng: Rng::seeded(1),
            now: Time::ZERO,
            serial: 0,
        }
    }

    fn last(&self) -> IoId {
        IoId(IoName {
            serial: self.serial,
            reactor: 0,
            place: 0,
        })
    }

    pub(super) fn submit(&mut self, op: Op, data: &[u8]) -> Option<Done> {
        self.serial += 1;
        let io = Io::new(self.last(), op, buffer(data));
        let (now, rng) = (self.now, &mut self.rng);
        self.channel.submit(io, &mut DiskContext { now, rng })
    }

    pub(super) fn poll(&mut self) -> Vec<Done> {
        let mut done = Vec::new();
        let (now, rng) = (self.now, &mut self.rng);
        self.channel.poll(&mut done, &mut DiskContext { now, rng });
        done
    }

    pub(super) fn cancel_last(&mut self) -> Option<Done> {
        self.channel.cancel(self.last())
    }

    pub(super) fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    /// Carries an I/O out, however long that takes. Returns its data.
    fn run(&mut self, op: Op, data: &[u8]) -> Result<Vec<u8>, Status> {
        let mut done = self.submit(op, data);
        while done.is_none() {
            if self.is_simulated {
                assert!(self.channel.deadline().is_some_and(|at| at <= self.now));
            } else {
                self.now = Time::read_clock();
            }
            done = self.poll().pop();
        }
        let done = done.unwrap();
        done.result.map(|()| done.io.data.to_vec())
    }

    fn read(&mut self, offset: u64, len: usize) -> Vec<u8> {
        self.run(Op::Read { offset }, &vec![9; len]).unwrap()
    }
}

fn buffer(data: &[u8]) -> Buffer {
    let pages = Page::zeroed(data.len().div_ceil(PAGE_LEN));
    let mut buffer = Buffer::new(pages, data.len());
    buffer.copy_from_slice(data);
    buffer
}

fn zero(offset: u64, len: u64) -> Op {
    Op::Zero {
        range: Range { offset, len },
        deallocate: false,
        fua: true,
    }
}

fn exercise(disk: &DiskRef) {
    exercise_on(&mut Bench::new(disk), disk);
}

fn exercise_on(bench: &mut Bench, disk: &DiskRef) {
    assert_eq!(disk.bytes(), 64 * 1024);
    let data: Vec<u8> = (0..4096u32).map(|i| (i % 251) as u8).collect();
    let write = |offset, fua| Op::Write { offset, fua };
    let compare = |offset| Op::Compare { offset };
    bench.run(write(8192, false), &data).unwrap();
    assert_eq!(bench.read(8192, 4096), data);
    bench.run(compare(8192), &data).unwrap();
    let other = bench.run(compare(8192 + 512), &data[..512]);
    assert_eq!(other, Err(Status::COMPARE_FAILURE.with_dnr()));
    bench.run(zero(8192 + 512, 512), &[]).unwrap();
    let out = bench.read(8192, 1536);
    assert_eq!(out[..512], data[..512]);
    assert_eq!(out[512..1024], [0; 512]);
    assert_eq!(out[1024..], data[1024..1536]);
    disk.resize(4 << 20).unwrap();
    assert_eq!(disk.bytes(), 4 << 20);
    bench.run(compare(8192), &data[..512]).unwrap();
    bench.run(write(127 * 1024, true), &data[..1024]).unwrap();
    bench.run(compare(127 * 1024), &data[..1024]).unwrap();
    // More than a step.
    let range = Range {
        offset: 8192 + 512,
        len: (4 << 20) - 8192 - 512,
    };
    let ranges = vec![Range { offset: 0, len: 0 }, range];
    bench.run(Op::Deallocate { ranges }, &[]).unwrap();
    bench.run(zero(range.offset, range.len), &[]).unwrap();
    bench.run(compare(8192), &data[..512]).unwrap();
    bench.run(compare(127 * 1024), &[0; 1024]).unwrap();
    bench.run(Op::Flush, &[]).unwrap();
    disk.resize(64 * 1024).unwrap();
}

#[test]
fn a_disk_outlives_its_namespaces() {
    let disk = DiskRef::open(&Backend::Memory { bytes: 65536 }).unwrap();
    let backend = Backend::Disk(disk.clone());
    exercise(&disk);
    let again = DiskRef::open(&backend).unwrap();
    let mut bench = Bench::new(&again);
    assert_ne!(bench.read(8192, 512), [0; 512]);
    assert_eq!(backend, Backend::Disk(disk));
    let other = DiskRef::open(&Backend::Memory { bytes: 65536 }).unwrap();
    assert_ne!(backend, Backend::Disk(other));
}

/// A file that is removed at the end.
struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str) -> Self {
        let name = format!("pollux-{name}-{}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn backend(&self, bytes: Option<u64>, engine: FileEngine) -> Backend {
        Backend::File {
            path: self.0.clone(),
            bytes,
            shared: false,
            engine,
        }
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // Whoever has removed it already is right.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Both ways to serve a file; the first is `io_uring` where this process can have it.
const ENGINES: [FileEngine; 2] = [FileEngine::Auto, FileEngine::Threads];

#[test]
fn a_file_keeps_what_was_written() {
    for engine in ENGINES {
        for simulated in [true, false] {
            let file = TempFile::new("backend");
            let disk = DiskRef::open(&file.backend(Some(65536), engine)).unwrap();
            let mut bench = match simulated {
                true => Bench::new(&disk),
                false => Bench::awake(&disk),
            };
            exercise_on(&mut bench, &disk);
            assert_eq!(std::fs::metadata(&file.0).unwrap().len(), 4 << 20);
            std::fs::remove_file(&file.0).unwrap();
            let missing = DiskRef::open(&file.backend(None, engine));
            assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
        }
    }
}

/// A process that was stopped may have its threads run before its reactors know whose time is over.
#[test]
fn threads_change_nothing_for_a_reactor_that_stands_still() {
    let file = TempFile::new("stands-still");
    let path = &file.0;
    let disk = DiskRef::open(&file.backend(Some(65536), FileEngine::Threads));
    let rung = Arc::new(AtomicBool::new(false));
    let ring = Arc::clone(&rung);
    let doorbell = Doorbell::new(move |_| {
        ring.store(true, Ordering::Release);
        true
    });
    let opening = Opening::new(0, 0, Some(doorbell));
    let waker = opening.waker();
    let mut bench = Bench::opened(&disk.unwrap(), opening);
    // The reactor's clock stands still.
    while Time::read_clock() < Time::ZERO + Duration::from_millis(100) {
        std::thread::yield_now();
    }
    let write = Op::Write {
        offset: 0,
        fua: false,
    };
    let first = || std::fs::read(path).unwrap()[0];
    let submitted = |bench: &mut Bench| {
        waker.rearm();
        rung.store(false, Ordering::Release);
        assert!(bench.submit(write.clone(), &[7; 512]).is_none());
        while !rung.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        assert_eq!(first(), 0, "written for a reactor that stands still");
    };
    submitted(&mut bench);
    assert!(bench.cancel_last().is_none());
    let done = bench.poll().pop().unwrap();
    assert_eq!((done.result, first()), (Err(Status::ABORTED_BY_REQUEST), 0));

    submitted(&mut bench);
    let mut done = None;
    while done.is_none() {
        bench.now = Time::read_clock();
        done = bench.poll().pop();
    }
    assert_eq!((done.unwrap().result, first()), (Ok(()), 7));
}

/// What was submitted waits for the next turn, which may come late: it is not begun before.
#[test]
fn a_ring_changes_nothing_between_turns() {
    let file = TempFile::new("between-turns");
    let disk = DiskRef::open(&file.backend(Some(65536), FileEngine::Auto)).unwrap();
    let mut bench = Bench::awake(&disk);
    let write = Op::Write {
        offset: 4096,
        fua: false,
    };
    assert!(bench.submit(write, &[7; 4096]).is_none());
    if bench.channel.descriptor().is_none() {
        eprintln!("no io_uring for this process: not tested");
        return;
    }
    assert!(bench.channel.deadline().is_some(), "no sleep before");
    let done = bench.cancel_last().unwrap();
    assert_eq!(done.result, Err(Status::ABORTED_BY_REQUEST));
    assert!(bench.channel.deadline().is_none());
    assert!(bench.poll().is_empty());
    assert_eq!(bench.read(4096, 4096), [0; 4096]);
}

/// More I/Os than a ring takes, of all sizes, each with its own data.
#[test]
fn a_ring_reads_what_it_has_written() {
    const LEN: usize = 256 << 10;
    let file = TempFile::new("many");
    let disk = DiskRef::open(&file.backend(Some(64 << 20), FileEngine::Auto)).unwrap();
    // Rings start nothing in space that is not there yet.
    std::fs::write(&file.0, vec![1; 64 << 20]).unwrap();
    let mut bench = Bench::awake(&disk);
    let fill = |i: u64, len: usize| vec![u8::try_from(i % 251).unwrap(); len];
    let ios = || (0..256u64).map(|i| (i, i * LEN as u64, 512 << (i % 10)));
    for fua in [false, true] {
        let mut open = 0;
        for (i, offset, len) in ios() {
            let done = bench.submit(Op::Write { offset, fua }, &fill(i, len));
            open += usize::from(done.is_none());
        }
        while open > 0 {
            bench.now = Time::read_clock();
            for done in bench.poll() {
                assert_eq!(done.result, Ok(()));
                open -= 1;
            }
        }
    }
    let mut open = 256;
    let check = |done: Done| {
        let Op::Read { offset } = done.io.op else {
            panic!("{done:?}");
        };
        assert!(*done.io.data == fill(offset / LEN as u64, done.io.data.len())[..]);
    };
    for (_, offset, len) in ios() {
        if let Some(done) = bench.submit(Op::Read { offset }, &vec![0; len]) {
            check(done);
            open -= 1;
        }
    }
    while open > 0 {
        bench.now = Time::read_clock();
        for done in bench.poll() {
            check(done);
            open -= 1;
        }
    }
    let end = 64 << 20;
    let behind = bench.run(Op::Read { offset: end }, &[0; 512]);
    assert_eq!(behind, Err(Status::UNRECOVERED_READ_ERROR));
}

/// A loop device on a file system that can stand still: what is written to the device then ends late. Removed at the end.
struct LateDevice {
    dir: TempFile,
    _image: TempFile,
    device: String,
}

fn run(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

impl LateDevice {
    /// `None`: this process may not make one.
    fn new() -> Option<Self> {
        let (dir, image) = (TempFile::new("late"), TempFile::new("late-image"));
        std::fs::create_dir(&dir.0).unwrap();
        std::fs::File::create(&image.0)
            .unwrap()
            .set_len(32 << 20)
            .unwrap();
        let (at, of) = (dir.0.to_str()?, image.0.to_str()?);
        let disk = dir.0.join("disk");
        run("mkfs.ext4", &["-q", "-F", of])?;
        run("mount", &["-o", "loop", of, at])?;
        let mut late = Self {
            device: String::new(),
            dir,
            _image: image,
        };
        std::fs::write(&disk, vec![1; 8 << 20]).unwrap();
        late.device = run("losetup", &["-f", "--show", disk.to_str()?])?;
        Some(late)
    }

    fn freeze(&self, how: &str) {
        let dir = self.dir.0.to_str().unwrap();
        run("fsfreeze", &[how, dir]).expect("it can be frozen");
    }
}

impl Drop for LateDevice {
    fn drop(&mut self) {
        let dir = self.dir.0.to_str().unwrap();
        // It is not frozen unless a test has failed.
        run("fsfreeze", &["-u", dir]);
        run("losetup", &["-d", &self.device]);
        run("umount", &["-l", dir]);
        let _ = std::fs::remove_dir(dir);
    }
}

/// The device stays in use until the kernel has done what it was handed, whoever wants to know that.
#[test]
fn what_the_kernel_has_outlives_its_channel() {
    let Some(late) = LateDevice::new() else {
        eprintln!("no file system of its own for this user: not tested");
        return;
    };
    let open = || {
        DiskRef::open(&Backend::File {
            path: late.device.clone().into(),
            bytes: None,
            shared: false,
            engine: FileEngine::Uring,
        })
    };
    let disk = match open() {
        Ok(disk) => disk,
        Err(error) => {
            eprintln!("not tested: {error}");
            return;
        }
    };
    let mut bench = Bench::awake(&disk);
    assert_eq!(bench.read(4096, 4096), [1; 4096]);
    late.freeze("-f");
    let write = |offset| Op::Write { offset, fua: false };
    for place in 0..8 {
        assert!(bench.submit(write(place * 4096), &[7; 4096]).is_none());
    }
    bench.now = Time::read_clock();
    assert!(
        bench.poll().is_empty(),
        "done by a device that stands still"
    );
    assert!(bench.cancel_last().is_none(), "the kernel has it");
    drop(bench);
    drop(disk);
    let busy = open().unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::ResourceBusy, "{busy}");
    late.freeze("-u");
    let disk = loop {
        match open() {
            Ok(disk) => break disk,
            Err(error) => assert_eq!(error.kind(), ErrorKind::ResourceBusy, "{error}"),
        }
        std::thread::yield_now();
    };
    let mut bench = Bench::awake(&disk);
    assert_eq!(bench.read(0, 8 * 4096), [7; 8 * 4096]);
}

#[test]
fn disks_over_a_disk_are_that_disk() {
    let base = DiskRef::open(&Backend::Memory { bytes: 65536 }).unwrap();
    let errors = DiskRef::new(Stacked::new(
        "errors".into(),
        base,
        Arc::<Faults>::default(),
    ));
    let latencies = Arc::new(Latencies::new(0, 0, 0, 0));
    exercise(&DiskRef::new(Stacked::new(
        "delay".into(),
        errors,
        latencies,
    )));
}
