//! What all disks have in common, and a bench to try one on without a target.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;

/// One channel of a disk, and a clock.
pub(super) struct Bench {
    channel: Box<dyn DiskChannel>,
    rng: Rng,
    now: Time,
    serial: u64,
}

impl Bench {
    /// Opens a disk as in a simulation.
    pub(super) fn new(disk: &DiskRef) -> Self {
        Self::opened(disk, Opening::new(0, None))
    }

    fn opened(disk: &DiskRef, opening: Opening) -> Self {
        Self {
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
        let io = Io::new(self.last(), op, Buffer::new(data.into(), data.len()));
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
            assert!(self.channel.deadline().is_some_and(|at| at <= self.now));
            done = self.poll().pop();
        }
        let done = done.unwrap();
        done.result.map(|()| done.io.data.to_vec())
    }

    fn read(&mut self, offset: u64, len: usize) -> Vec<u8> {
        self.run(Op::Read { offset }, &vec![9; len]).unwrap()
    }
}

fn zero(offset: u64, len: u64) -> Op {
    Op::Zero {
        range: Range { offset, len },
        deallocate: false,
        fua: true,
    }
}

fn exercise(disk: &DiskRef) {
    let mut bench = Bench::new(disk);
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

#[test]
fn a_file_keeps_what_was_written() {
    let path = std::env::temp_dir().join(format!("pollux-backend-{}", std::process::id()));
    let backend = Backend::File {
        path: path.clone(),
        bytes: Some(65536),
        shared: false,
    };
    exercise(&DiskRef::open(&backend).unwrap());
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 4 << 20);
    std::fs::remove_file(&path).unwrap();
    let missing = DiskRef::open(&Backend::File {
        path,
        bytes: None,
        shared: false,
    });
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
}

/// A process that was stopped may have its threads run before its reactors know whose time is over.
#[test]
fn threads_change_nothing_for_a_reactor_that_stands_still() {
    let name = format!("pollux-stands-still-{}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let disk = DiskRef::open(&Backend::File {
        path: path.clone(),
        bytes: Some(65536),
        shared: false,
    });
    let rung = Arc::new(AtomicBool::new(false));
    let ring = Arc::clone(&rung);
    let doorbell = Doorbell::new(move |_| {
        ring.store(true, Ordering::Release);
        true
    });
    let opening = Opening::new(0, Some(doorbell));
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
    let first = || std::fs::read(&path).unwrap()[0];
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
    std::fs::remove_file(&path).unwrap();
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
