//! What the host's I/O path may not do in steady state: allocate, or make more system calls than its batches
//! need. Over real TCP, with a target on a second reactor.
#![expect(unsafe_code, reason = "a counting allocator cannot be had without")]
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use pollux_multipath::Buffer;
use pollux_multipath::{
    Application, AttachRequest, Host, Io, Op, Policy, PollGroup, QueueMessage, Queues, Selector,
    TransportId,
};
use pollux_nvme_tcp::host::Digests;
use pollux_nvme_tcp::target::{self, Backend};
use pollux_nvme_tcp::testing::{TestTarget, nqn};
use pollux_reactor::{Context, Group, Idle, Progress};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system allocator unchanged; the counter is a plain thread-local cell that
// neither allocates nor unwinds. Held by every test in this binary.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's contract is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's contract is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const DEPTH: u64 = 32;
const WARM_UP: u64 = 20_000;
const MEASURED: u64 = 100_000;

/// What was counted on the I/O reactor's thread over [`MEASURED`] I/Os.
#[derive(Debug)]
struct Counted {
    allocations: u64,
    socket_calls: u64,
}

/// Keeps 4 KiB reads going, or reads and writes of two sizes.
struct Load {
    mixed: bool,
    done: u64,
    base: (u64, u64),
    report: Sender<Counted>,
}

impl Load {
    fn next(&self, user: u64, buffer: impl Into<Buffer>) -> Io {
        if !self.mixed {
            return Io::new(Op::Read, user * 64, 8, buffer).with_user(user);
        }
        let blocks = if user.is_multiple_of(8) { 64 } else { 8 };
        let op = if user.is_multiple_of(3) {
            Op::Write
        } else {
            Op::Read
        };
        Io::new(op, user * 64, blocks, buffer).with_user(user)
    }
}

impl Application for Load {
    type Message = ();

    fn on_message(&mut self, (): (), group: &mut PollGroup, _: &mut Context<'_>) {
        let volume = group.volumes().next().unwrap().id;
        for user in 0..DEPTH {
            let io = self.next(user, vec![0; 64 * 512]);
            group.submit(volume, io).unwrap();
        }
    }

    fn poll(&mut self, group: &mut PollGroup, _: &mut Context<'_>) -> Progress {
        let mut progress = Progress::Idle;
        while let Some(done) = group.next_completion() {
            progress = Progress::Busy;
            if done.result.is_err() && self.done >= WARM_UP + MEASURED {
                // The test is over and the reactors stop, the target's perhaps first.
                continue;
            }
            done.result.unwrap();
            self.done += 1;
            let now = (ALLOCATIONS.get(), group.socket_calls());
            if self.done == WARM_UP {
                self.base = now;
            } else if self.done == WARM_UP + MEASURED {
                let counted = Counted {
                    allocations: now.0 - self.base.0,
                    socket_calls: now.1 - self.base.1,
                };
                self.report.send(counted).unwrap();
            }
            let io = self.next(done.io.user, done.io.buffer);
            group.submit(done.volume, io).unwrap();
        }
        progress
    }
}

fn run(paths: usize, mixed: bool, digests: Digests) -> Counted {
    let mut group = Group::new();
    let other = group.add_reactor(None, Idle::Yield);
    let handle = target::install(&mut group, &[other]);
    let reactor = group.add_reactor(None, Idle::Yield);
    let (report, counted) = channel();
    // Control may allocate, for each Keep Alive for instance: it is not on the thread that is counted.
    let host = Host::builder()
        .control(other)
        .io(&[reactor])
        .install(&mut group, move |_| Load {
            done: 0,
            mixed,
            base: (0, 0),
            report: report.clone(),
        });
    let memory = Backend::Memory { bytes: 4 << 20 };
    let target = TestTarget::serve(handle, group.start().unwrap(), &[memory]);
    for path in 0..paths {
        let addr = match path {
            0 => target.addr,
            _ => target.listen(),
        };
        let mut request = AttachRequest::new(
            "disk",
            TransportId {
                addr,
                subnqn: nqn(),
                hostnqn: None,
            },
        );
        request.options.digests = digests;
        request.options.policy = Policy::ActiveActive(Selector::RoundRobin { min_io: 1 });
        host.attach(request).unwrap();
    }
    assert!(host.tell(0, ()).is_ok());
    counted.recv().unwrap()
}

/// Serves queues, and tells what its thread has allocated.
struct Watched(Queues, Arc<AtomicU64>);

impl Application for Watched {
    type Message = QueueMessage;

    fn on_message(&mut self, message: QueueMessage, group: &mut PollGroup, cx: &mut Context<'_>) {
        self.0.on_message(message, group, cx);
    }

    fn poll(&mut self, group: &mut PollGroup, cx: &mut Context<'_>) -> Progress {
        let progress = self.0.poll(group, cx);
        self.1.store(ALLOCATIONS.get(), Ordering::Relaxed);
        progress
    }
}

/// Of I/O that another thread submits, half of it with futures: what the reactor allocates for it, once it goes.
fn by_queue() -> u64 {
    let mut group = Group::new();
    let other = group.add_reactor(None, Idle::Yield);
    let handle = target::install(&mut group, &[other]);
    let reactor = group.add_reactor(None, Idle::Yield);
    let allocations = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&allocations);
    let host = Host::builder()
        .control(other)
        .io(&[reactor])
        .install(&mut group, move |n| Watched(Queues::new(n), told.clone()));
    let memory = Backend::Memory { bytes: 4 << 20 };
    let target = TestTarget::serve(handle, group.start().unwrap(), &[memory]);
    let path = TransportId::new(target.addr, nqn());
    host.attach(AttachRequest::new("disk", path)).unwrap();
    let volume = host.volume("diskn1").info().unwrap().id;
    let (queue, mut completions) = host.queue(0, 32).unwrap();
    let read = |buffer| Io::new(Op::Read, 64, 8, buffer);
    let mut buffers: Vec<_> = (0..32).map(|_| vec![0; 8 * 512]).collect();
    let mut rounds = |rounds: u64| {
        for _ in 0..rounds {
            let (mut pending, mut submitted) = (Vec::new(), 0);
            while let Some(buffer) = buffers.pop() {
                if buffers.len() % 2 == 0 {
                    pending.push(queue.start(volume, read(buffer)).unwrap());
                } else {
                    queue.submit(volume, read(buffer)).unwrap();
                    submitted += 1;
                }
            }
            for pending in pending {
                buffers.push(pending.wait().io.buffer.into_vec());
            }
            for _ in 0..submitted {
                let done = completions.wait(Duration::from_secs(60)).unwrap();
                buffers.push(done.io.buffer.into_vec());
            }
        }
    };
    rounds(200);
    let before = allocations.load(Ordering::Relaxed);
    rounds(1000);
    allocations.load(Ordering::Relaxed) - before
}

/// One test after the other: each needs the cores for itself.
#[test]
fn an_io_allocates_nothing_and_shares_its_system_calls() {
    for on in [false, true] {
        let digests = Digests {
            header: on,
            data: on,
        };
        assert_eq!(run(2, true, digests).allocations, 0, "{digests:?}");
    }
    // Where the machine holds a thread up, more may wait at once than ever before, and a list grows for it. What is
    // allocated for each I/O is so in every run.
    let least = (0..5).map(|_| by_queue()).find(|&count| count == 0);
    assert_eq!(least, Some(0), "by a queue");
    // Other work on the machine can only add receives that find nothing, while the target stands still: the
    // best of some runs tells what the host itself needs.
    let best = (0..20)
        .map(|_| run(1, false, Digests::default()).socket_calls)
        .find(|&calls| calls < MEASURED / 2);
    assert!(
        best.is_some(),
        "never below {} socket calls for {MEASURED} reads at depth {DEPTH}",
        MEASURED / 2
    );
}
