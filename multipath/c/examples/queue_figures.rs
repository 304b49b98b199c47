//! What it costs to submit I/O from another thread: 4 KiB random reads by every way, at depth 1 and 64. Reactor and target
//! share one core, the program has the other; so what is compared is the reactor's and the program's part, and not the
//! network. `cargo run --release -p pollux-c --example queue_figures [ROUNDS [PART]]`, where only the lines are measured in
//! which the part occurs, and those that they are compared with.
#![expect(clippy::disallowed_methods, reason = "it measures")]
#![expect(unsafe_code, reason = "C is one of the ways")]
use std::error::Error;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use pollux_multipath::Buffer;
use pollux_multipath::target::{self, Backend, NamespaceConfig, SubsystemConfig, TargetHandle};
use pollux_multipath::{
    Application, AttachRequest, Context, Group, Host, Idle, Io, Nqn, Op, PollGroup, Progress,
    Queue, QueueMessage, Queues, TransportId, VolumeId, VolumeInfo, reactor,
};

use pollux::{POLLUX_READ, pollux_completion, pollux_disk, pollux_io};

type Failed = Box<dyn Error + Send + Sync>;
/// Measures I/Os per second.
type Way<'a> = &'a dyn Fn() -> Result<f64, Failed>;

const BYTES: u64 = 64 << 20;
const BLOCKS: u32 = 8;
const RUN: Duration = Duration::from_millis(700);
const DEPTHS: [usize; 2] = [1, 64];

/// Random offsets of 4 KiB.
struct Offsets(u64);

impl Offsets {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1);
        (self.0 >> 33) % (BYTES / 4096) * 8
    }

    fn read(&mut self, buffer: impl Into<Buffer>) -> Io {
        Io::new(Op::Read, self.next(), BLOCKS, buffer)
    }
}

/// Keeps reads going for a while, on the reactor.
struct OnReactor {
    left: usize,
    done: u64,
    began: Instant,
    offsets: Offsets,
    report: mpsc::Sender<f64>,
}

impl Application for OnReactor {
    /// The depth.
    type Message = usize;

    fn on_message(&mut self, depth: usize, group: &mut PollGroup, _: &mut Context<'_>) {
        (self.left, self.done, self.began) = (depth, 0, Instant::now());
        let Some(volume) = group.volumes().next().map(|v| v.id) else {
            return;
        };
        for _ in 0..depth {
            let io = self.offsets.read(vec![0; 4096]);
            let _ = group.submit(volume, io);
        }
    }

    fn poll(&mut self, group: &mut PollGroup, _: &mut Context<'_>) -> Progress {
        let mut progress = Progress::Idle;
        while let Some(done) = group.next_completion() {
            progress = Progress::Busy;
            self.done += 1;
            let elapsed = self.began.elapsed();
            if elapsed < RUN {
                let io = self.offsets.read(done.io.buffer);
                let _ = group.submit(done.volume, io);
                continue;
            }
            self.left -= 1;
            if self.left == 0 {
                let _ = self.report.send(self.done as f64 / elapsed.as_secs_f64());
            }
        }
        progress
    }
}

/// A target with a namespace in memory, and an attached host beside it on one reactor.
fn world<A: Application>(
    idle: Idle,
    application: impl Fn(usize) -> A + Clone + Send + 'static,
) -> Result<(Host<A::Message>, VolumeInfo, pollux_multipath::Running), Failed> {
    reactor::leave_core();
    let mut group = Group::new();
    let index = group.add_reactor(Some(0), idle);
    let target: TargetHandle = target::install(&mut group, &[index]);
    let host = Host::builder().install(&mut group, application);
    let running = group.start()?;
    // The program's thread is this one; left to itself it would be put to the reactor's core, and wait for that.
    core_affinity::set_for_current(core_affinity::CoreId { id: 1 });
    let nqn: Nqn = "nqn.2014-08.org.example:disk1".parse()?;
    target.create_subsystem(SubsystemConfig::new(nqn.clone()))?;
    let namespace = NamespaceConfig::new(Backend::Memory { bytes: BYTES }, 512);
    target.add_namespace(&nqn, namespace)?;
    let addr = target.add_listener(&nqn, "127.0.0.1:0".parse()?)?;
    host.attach(AttachRequest::new("disk0", TransportId::new(addr, nqn)))?;
    let volume = host.volume("disk0n1").info()?;
    Ok((host, volume, running))
}

/// I/Os per second of one way at one depth; on request beside a thread that spins on the other core, as a program does that
/// polls, since cores may share more than one would think.
fn on_reactor(idle: Idle, depth: usize, beside_another: bool) -> Result<f64, Failed> {
    let (report, reported) = mpsc::channel();
    let (host, _, _running) = world(idle, move |_| OnReactor {
        left: 0,
        done: 0,
        began: Instant::now(),
        offsets: Offsets(1),
        report: report.clone(),
    })?;
    host.tell(0, depth).map_err(|_| "the mailbox is full")?;
    if !beside_another {
        return Ok(reported.recv()?);
    }
    loop {
        match reported.try_recv() {
            Ok(iops) => return Ok(iops),
            Err(mpsc::TryRecvError::Empty) => std::hint::spin_loop(),
            Err(gone) => return Err(gone.into()),
        }
    }
}

fn with_queue(
    idle: Idle,
    depth: usize,
    run: impl FnOnce(&Host<QueueMessage>, VolumeId, usize) -> Result<f64, Failed>,
) -> Result<f64, Failed> {
    let (host, volume, _running) = world(idle, Queues::new)?;
    run(&host, volume.id, depth)
}

/// As a C program: the functions of the header, completions polled.
fn from_c(idle: Idle, depth: usize) -> Result<f64, Failed> {
    let (host, _, running) = world(idle, Queues::new)?;
    let host = pollux::host_for_c(host, running).ok_or("no room for a host")?;
    let mut disk = pollux_disk(0);
    let count = u32::try_from(depth)?;
    // SAFETY: the text ends with a zero, and the disk is a place.
    let opened =
        unsafe { pollux::pollux_disk_open(host, c"disk0n1".as_ptr(), count, 1000, &raw mut disk) };
    assert_eq!(opened, 0, "open");
    let mut offsets = Offsets(1);
    let mut buffers = vec![vec![0u8; 4096]; depth];
    let mut submit = |n: u64, buffer: *mut u8| {
        let io = pollux_io {
            op: POLLUX_READ,
            blocks: BLOCKS,
            lba: offsets.next(),
            buffer: buffer.cast(),
            length: 4096,
            user: n,
            timeout_us: 0,
        };
        // SAFETY: buffers live longer than the disk.
        let submitted = unsafe { pollux::pollux_disk_submit(disk, &raw const io) };
        assert_eq!(submitted, 0);
    };
    for (n, buffer) in (0..).zip(&mut buffers) {
        submit(n, buffer.as_mut_ptr());
    }
    let none = pollux_completion {
        user: 0,
        buffer: std::ptr::null_mut(),
        result: 0,
        status: 0,
    };
    let mut taken = vec![none; depth];
    let (began, mut done) = (Instant::now(), 0u64);
    while began.elapsed() < RUN {
        // SAFETY: there are as many places, and buffers live longer than the disk.
        let count = unsafe { pollux::pollux_disk_poll(disk, taken.as_mut_ptr(), count) };
        for end in &taken[..usize::try_from(count)?] {
            assert_eq!(end.result, 0);
            done += 1;
            submit(end.user, end.buffer.cast());
        }
    }
    let iops = done as f64 / began.elapsed().as_secs_f64();
    assert_eq!(pollux::pollux_disk_close(disk), 0);
    assert_eq!(pollux::pollux_host_stop(host, 5000), 0);
    Ok(iops)
}

/// Completions that are polled, or, if there is none, waited for.
fn in_turn(
    host: &Host<QueueMessage>,
    volume: VolumeId,
    depth: usize,
    sleeps: bool,
) -> Result<f64, Failed> {
    let (queue, mut completions) = host.queue(0, depth)?;
    let mut offsets = Offsets(1);
    for _ in 0..depth {
        let io = offsets.read(vec![0; 4096]);
        queue.submit(volume, io).map_err(|(_, error)| error)?;
    }
    let (began, mut done) = (Instant::now(), 0u64);
    while began.elapsed() < RUN {
        let next = match sleeps {
            true => completions.wait(RUN),
            false => completions.next_completion(),
        };
        let Some(next) = next else {
            std::hint::spin_loop();
            continue;
        };
        next.result?;
        done += 1;
        let io = offsets.read(next.io.buffer);
        queue.submit(volume, io).map_err(|(_, error)| error)?;
    }
    Ok(done as f64 / began.elapsed().as_secs_f64())
}

/// A task for each I/O of the depth, on a runtime of one thread.
fn tokio(host: &Host<QueueMessage>, volume: VolumeId, depth: usize) -> Result<f64, Failed> {
    async fn task(queue: Queue, volume: VolumeId, n: u64, began: Instant) -> Result<u64, Failed> {
        let (mut offsets, mut buffer, mut done) = (Offsets(n), Buffer::from(vec![0; 4096]), 0);
        while began.elapsed() < RUN {
            let io = offsets.read(buffer);
            let end = queue.start(volume, io).map_err(|(_, error)| error)?.await;
            end.result?;
            (buffer, done) = (end.io.buffer, done + 1);
        }
        Ok(done)
    }
    let (queue, completions) = host.queue(0, depth)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let began = Instant::now();
    let done: Result<u64, Failed> = runtime.block_on(async {
        let delivery = tokio::spawn(completions.deliver());
        let tasks: Vec<_> = (0..depth as u64)
            .map(|n| tokio::spawn(task(queue.clone(), volume, n, began)))
            .collect();
        let mut done = 0;
        for task in tasks {
            done += task.await??;
        }
        delivery.abort();
        Ok(done)
    });
    Ok(done? as f64 / began.elapsed().as_secs_f64())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Result<(), Failed> {
    let rounds: usize = std::env::args().nth(1).map_or(Ok(5), |n| n.parse())?;
    let part = std::env::args().nth(2).unwrap_or_default();
    let after = Duration::from_micros(20);
    for (idle, name) in [(Idle::Spin, "spinning"), (Idle::Park { after }, "parking")] {
        for depth in DEPTHS {
            let base = || on_reactor(idle, depth, false);
            let beside = || on_reactor(idle, depth, true);
            let polled = || with_queue(idle, depth, |h, v, d| in_turn(h, v, d, false));
            let waited = || with_queue(idle, depth, |h, v, d| in_turn(h, v, d, true));
            let tokio = || with_queue(idle, depth, tokio);
            let c = || from_c(idle, depth);
            let ways: [(&str, Way<'_>); 6] = [
                ("on the reactor", &base),
                ("beside a spinner", &beside),
                ("polled", &polled),
                ("waited for", &waited),
                ("tokio", &tokio),
                ("C, polled", &c),
            ];
            let line = |way| format!("{name} depth {depth:2} {way:16}");
            let is_asked = |way| line(way).contains(&part);
            if !ways.iter().any(|(way, _)| is_asked(way)) {
                continue;
            }
            let mut seen = ways.map(|_| Vec::new());
            // One after the other in each round, so that what changes on the machine changes for all.
            for _ in 0..rounds {
                for (n, (way, measure)) in ways.iter().enumerate() {
                    if n == 0 || is_asked(way) {
                        seen[n].push(measure()?);
                    }
                }
            }
            let base = median(&mut seen[0]);
            for ((way, _), seen) in ways.iter().zip(&mut seen) {
                if seen.is_empty() {
                    continue;
                }
                let iops = median(seen);
                let mean = 1e6 * depth as f64 / iops;
                let added = mean - 1e6 * depth as f64 / base;
                let share = iops / base;
                let line = line(way);
                println!("{line} {iops:9.0} IOPS  x {share:.2}  {mean:7.2} us an I/O, {added:+.2}");
            }
        }
    }
    Ok(())
}
