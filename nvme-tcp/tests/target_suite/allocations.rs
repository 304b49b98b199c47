//! The I/O path does not allocate: counted on the reactor's thread, by an allocator that counts per thread.
#![expect(
    unsafe_code,
    reason = "a global allocator can only be written with unsafe; this one passes everything on to the system's"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pollux_nvme_tcp::spec::opcode::nvm;
use pollux_nvme_tcp::spec::pdu::{PduType, R2t};
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::spec::{Nqn, SglDescriptor, Sqe};
use pollux_nvme_tcp::target::{
    Backend, NamespaceConfig, SubsystemConfig, TargetMessage, TargetReply, TargetRequest,
    TargetService, target,
};
use pollux_reactor::{Context, Group, Idle, Progress, Service};
use zerocopy::FromBytes;

use crate::initiator::{Initiator, Options, pattern};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count() {
    // Fails only while the thread ends.
    let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
}

// SAFETY: every call goes to `System` unchanged, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(ptr, layout, new_size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(ptr, layout) }
    }
}

/// A target service that tells how often its thread has allocated.
struct Watched {
    service: TargetService,
    allocations: Arc<AtomicU64>,
}

impl Service for Watched {
    type Message = TargetMessage;

    fn on_message(&mut self, message: TargetMessage, cx: &mut Context<'_>) {
        self.service.on_message(message, cx);
    }

    fn on_timer(&mut self, token: u64, cx: &mut Context<'_>) {
        self.service.on_timer(token, cx);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Progress {
        let progress = self.service.poll(cx);
        let count = ALLOCATIONS.with(Cell::get);
        self.allocations.store(count, Ordering::Release);
        progress
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

#[test]
fn the_io_path_does_not_allocate() {
    let (handle, parts) = target(1);
    let allocations = Arc::new(AtomicU64::new(0));
    let mut group = Group::new();
    for part in parts {
        let reactor = group.add_reactor(None, Idle::Yield);
        let allocations = Arc::clone(&allocations);
        group.add_service(reactor, part.receiver, move || Watched {
            service: part.service,
            allocations,
        });
    }
    let running = group.start().unwrap();
    let nqn: Nqn = "nqn.2014-08.org.example:test".parse().unwrap();
    let call = |request| handle.call(request).unwrap();
    call(TargetRequest::CreateSubsystem(SubsystemConfig::new(
        nqn.clone(),
    )));
    for backend in [
        Backend::Memory { bytes: 16 << 20 },
        Backend::Null { bytes: 16 << 20 },
    ] {
        call(TargetRequest::AddNamespace {
            nqn: nqn.clone(),
            nsid: None,
            namespace: NamespaceConfig::new(backend, 512),
        });
    }
    let reply = call(TargetRequest::AddListener {
        nqn: nqn.clone(),
        addr: "127.0.0.1:0".parse().unwrap(),
    });
    let TargetReply::Listener { addr } = reply else {
        panic!("{reply:?}")
    };
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
        let before = allocations.load(Ordering::Acquire);
        assert!(before > 0);
        for _ in 0..50 {
            round(&mut io);
        }
        let during = allocations.load(Ordering::Acquire) - before;
        assert_eq!(during, 0, "allocations in 50 rounds");
    }
    running.stop();
}
