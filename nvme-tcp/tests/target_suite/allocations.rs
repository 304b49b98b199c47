//! The I/O path does not allocate, and an idle controller takes little memory: counted on the reactor's thread, by an
//! allocator that counts per thread.
#![expect(
    unsafe_code,
    reason = "a global allocator can only be written with unsafe; this one passes everything on to the system's"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use pollux_nvme_tcp::spec::opcode::nvm;
use pollux_nvme_tcp::spec::pdu::{PduType, R2t};
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::spec::{SglDescriptor, Sqe};
use pollux_nvme_tcp::target::{self, Backend};
use pollux_nvme_tcp::testing::{Initiator, Options, TestTarget, Watching, pattern, wait_for};
use pollux_reactor::{Group, Idle};
use zerocopy::FromBytes;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    /// Bytes that the thread has allocated less those that it has freed.
    static LIVE: Cell<i64> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: usize) {
    // Fails only while the thread ends.
    let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
    count_live(bytes, 0);
}

fn count_live(more: usize, less: usize) {
    let (more, less) = (more.cast_signed() as i64, less.cast_signed() as i64);
    let _ = LIVE.try_with(|n| n.set(n.get() + more - less));
}

// SAFETY: every call goes to `System` unchanged, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size);
        count_live(0, layout.size());
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(ptr, layout, new_size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count_live(0, layout.size());
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(ptr, layout) }
    }
}

/// One round: reads of three sizes and writes both ways, several at a time, on both namespaces.
fn round(io: &mut Initiator) {
    for nsid in [1, 2] {
        let mut cids = Vec::new();
        for blocks in [8u32, 8, 8, 8, 256, 2048] {
            let mut sqe = Sqe::for_blocks(nvm::READ, nsid, 0, blocks);
            sqe.sgl = SglDescriptor::transport(blocks * 512);
            cids.push(io.submit(sqe, &[]));
        }
        for cid in cids {
            assert_eq!(io.finish(cid, &[]).0.status(), Status::SUCCESS);
        }
        assert_eq!(io.write(nsid, 3, &pattern(4096, 1)), Status::SUCCESS);
        let mut writes = 0;
        for lba in 0..4u64 {
            let mut sqe = Sqe::for_blocks(nvm::WRITE, nsid, lba * 256, 256);
            sqe.sgl = SglDescriptor::transport(131_072);
            io.submit(sqe, &[]);
            writes += 1;
        }
        while writes > 0 {
            let pdu = io.receive();
            if pdu.frame.pdu_type == PduType::R2T {
                let (r2t, _) = R2t::read_from_prefix(&pdu.bytes).unwrap();
                io.send_data(r2t.cccid.get(), r2t.ttag.get(), 0, &[5; 131_072], true);
            } else {
                assert_eq!(pdu.cqe().status(), Status::SUCCESS);
                writes -= 1;
            }
        }
        let (cqe, _) = io.command(Sqe::for_blocks(nvm::WRITE_ZEROES, nsid, 0, 64), &[]);
        assert_eq!(cqe.status(), Status::SUCCESS);
        assert!(io.read(nsid, 1 << 30, 1).is_err());
    }
}

/// What a target's thread has allocated.
#[derive(Clone, Default)]
struct Counted {
    allocations: Arc<AtomicU64>,
    live: Arc<AtomicI64>,
    /// Turns in which `live` has not changed.
    settled: Arc<AtomicU64>,
}

impl Counted {
    /// After a turn on the thread that is counted.
    fn update(&self) {
        let count = ALLOCATIONS.with(Cell::get);
        self.allocations.store(count, Ordering::Release);
        let live = LIVE.with(Cell::get);
        if self.live.swap(live, Ordering::AcqRel) == live {
            self.settled.fetch_add(1, Ordering::AcqRel);
        } else {
            self.settled.store(0, Ordering::Release);
        }
    }

    /// Live bytes once they change no more.
    fn settled(&self) -> i64 {
        self.settled.store(0, Ordering::Release);
        wait_for("a time without allocations", || {
            self.settled.load(Ordering::Acquire) >= 20_000
        });
        self.live.load(Ordering::Acquire)
    }
}

/// A target with a memory and a null namespace.
fn counted_target() -> (TestTarget, Counted) {
    let counted = Counted::default();
    let mut group = Group::new();
    let reactor = group.add_reactor(None, Idle::Yield);
    let told = counted.clone();
    let mut watching = Watching {
        group: &mut group,
        after: move |_| told.update(),
    };
    let handle = target::install(&mut watching, &[reactor]);
    let backends = [
        Backend::Memory { bytes: 16 << 20 },
        Backend::Null { bytes: 16 << 20 },
    ];
    let target = TestTarget::serve(handle, group.start().unwrap(), &backends);
    (target, counted)
}

/// Sends most of a capsule, or the rest of it.
fn part_of_a_write(io: &mut Initiator, rest: bool) {
    let mut sqe = Sqe::for_blocks(nvm::WRITE, 1, 0, 16);
    sqe.sgl = SglDescriptor::in_capsule(0, 8192);
    let mut out = Vec::new();
    io.put_capsule(&mut out, sqe, &pattern(8192, 1));
    let (first, second) = out.split_at(8000);
    io.send_raw(if rest { second } else { first });
}

#[test]
fn an_idle_controller_takes_less_than_64_kib_once_it_was_used() {
    const CONTROLLERS: usize = 50;
    let (target, counted) = counted_target();
    let options = Options::default();
    let connect = || {
        let controllers: Vec<_> = (0..CONTROLLERS)
            .map(|_| {
                let admin = Initiator::admin(target.addr, &target.nqn, options);
                let mut io = Initiator::io(target.addr, &target.nqn, admin.cntlid, 1, options);
                round(&mut io);
                (admin, io)
            })
            .collect();
        controllers
    };
    // All are busy at once, so as many buffers are kept as there ever are; and one that stops in the middle of a capsule
    // keeps what has come of it, not a buffer.
    let mut stopped = connect();
    for (_, io) in &mut stopped {
        part_of_a_write(io, false);
    }
    let before = counted.settled();
    let _idle = connect();
    let each = (counted.settled() - before) / 50;
    assert!(each < 64 * 1024, "{each} bytes for each idle controller");
    for (_, io) in &mut stopped {
        part_of_a_write(io, true);
        assert_eq!(io.receive().cqe().status(), Status::SUCCESS);
        assert!(io.read(1, 0, 16).unwrap() == pattern(8192, 1));
    }
    let each = (counted.settled() - before) / 50;
    assert!(each < 64 * 1024, "{each} bytes for each that was stopped");
    for (_, io) in &mut stopped {
        part_of_a_write(io, false);
    }
    let each = (counted.settled() - before) / 50;
    assert!(
        each < 96 * 1024,
        "{each} bytes for each that has stopped again"
    );
}

#[test]
fn the_io_path_does_not_allocate() {
    let (target, counted) = counted_target();
    let allocations = &counted.allocations;
    let (addr, nqn) = (target.addr, target.nqn.clone());
    for (hdgst, ddgst) in [(false, false), (true, true)] {
        let options = Options {
            hdgst,
            ddgst,
            ..Options::default()
        };
        let admin = Initiator::admin(addr, &nqn, options);
        let mut io = Initiator::io(addr, &nqn, admin.cntlid, 1, options);
        for _ in 0..5 {
            round(&mut io);
        }
        assert!(allocations.load(Ordering::Acquire) > 0);
        // How much arrives at once is the machine's to say: what is deeper than all before may let something grow, once.
        let during = (0..5).map(|_| {
            let before = allocations.load(Ordering::Acquire);
            for _ in 0..50 {
                round(&mut io);
            }
            allocations.load(Ordering::Acquire) - before
        });
        let least = during.min();
        assert_eq!(least, Some(0), "allocations in 50 rounds, at least");
    }
}
