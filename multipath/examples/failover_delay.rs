//! How long I/O is delayed when a path is lost with writes in doubt (rule B14): without fencing, with it where another
//! controller resets the lost one, and by time alone. Everything is in this process, over real sockets; a relay before the
//! first path swallows what is sent on I/O queues, and then closes the connections.
//! `cargo run --release --example failover_delay [ROUNDS]`
#![expect(
    clippy::disallowed_methods,
    reason = "the relay is no service, and time is taken outside of reactors"
)]

use std::error::Error;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use pollux_multipath::target::{self, Backend, NamespaceConfig, SubsystemConfig, TargetRequest};
use pollux_multipath::{
    Application, AttachRequest, Context, Fencing, FencingMode, Group, Host, Idle, Io, Nqn, Op,
    PollGroup, Progress, TransportId,
};

const WRITES: u64 = 8;
const READS: u64 = 8;
const CQT_MS: u16 = 200;

type Failure = Box<dyn Error + Send + Sync>;

/// Submits what it is given, and says when each has ended.
struct Timer(Sender<(Op, Instant)>);

impl Application for Timer {
    type Message = Io;

    fn on_message(&mut self, io: Io, group: &mut PollGroup, _: &mut Context<'_>) {
        let volume = group.volumes().next().map(|volume| volume.id);
        if let Some(volume) = volume {
            // What is refused does not end, which is noticed.
            let _ = group.submit(volume, io);
        }
    }

    fn poll(&mut self, group: &mut PollGroup, _: &mut Context<'_>) -> Progress {
        let Some(done) = group.next_completion() else {
            return Progress::Idle;
        };
        if done.result.is_ok() {
            let _ = self.0.send((done.io.op, Instant::now()));
        }
        Progress::Busy
    }
}

/// Carries connections to `target`, and hands out the hosts' ends. While `swallows`, what comes on others than the first
/// goes nowhere, and is counted.
fn relay(
    target: SocketAddr,
    swallows: Arc<AtomicBool>,
    swallowed: Arc<AtomicU64>,
) -> Result<(SocketAddr, Receiver<TcpStream>), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    let (sender, hosts) = channel();
    thread::spawn(move || {
        for (number, host) in listener.incoming().flatten().enumerate() {
            let copy = |stream: &TcpStream| stream.try_clone().ok();
            let Ok(target) = TcpStream::connect(target) else {
                return;
            };
            let _ = (host.set_nodelay(true), target.set_nodelay(true));
            let (Some(mut from), Some(mut to)) = (copy(&host), copy(&target)) else {
                return;
            };
            let (swallows, swallowed) = (swallows.clone(), swallowed.clone());
            thread::spawn(move || {
                let mut buffer = vec![0; 1 << 16];
                while let Ok(n @ 1..) = from.read(&mut buffer) {
                    if number > 0 && swallows.load(Ordering::Acquire) {
                        swallowed.fetch_add(n as u64, Ordering::AcqRel);
                    } else if to.write_all(&buffer[..n]).is_err() {
                        return;
                    }
                }
            });
            let (mut from, Some(mut to)) = (target, copy(&host)) else {
                return;
            };
            thread::spawn(move || {
                let mut buffer = vec![0; 1 << 16];
                while let Ok(n @ 1..) = from.read(&mut buffer) {
                    // The host may have gone; the target hears nothing of it.
                    let _ = to.write_all(&buffer[..n]);
                }
            });
            if sender.send(host).is_err() {
                return;
            }
        }
    });
    Ok((addr, hosts))
}

/// From the end of the connections to the end of each I/O.
struct Delays {
    writes: Vec<Duration>,
    reads: Vec<Duration>,
}

/// `resets`: the target has a CQT, and its controllers reset each other.
fn round(fencing: Fencing, kato_ms: u32, resets: bool) -> Result<Delays, Failure> {
    let mut group = Group::new();
    let reactors = [0; 2].map(|_| group.add_reactor(None, Idle::Yield));
    let target = target::install(&mut group, &reactors[1..]);
    let (sender, ended) = channel();
    let host = Host::builder()
        .control(reactors[0])
        .io(&reactors[..1])
        .install(&mut group, move |_| Timer(sender.clone()));
    let running = group.start()?;
    let nqn: Nqn = "nqn.2014-08.org.example:disk".parse()?;
    let cqt = if resets { CQT_MS } else { 0 };
    target.call(TargetRequest::set_quiesce_time(cqt))?;
    target.create_subsystem(SubsystemConfig::new(nqn.clone()))?;
    let memory = Backend::Memory { bytes: 1 << 20 };
    target.add_namespace(&nqn, NamespaceConfig::new(memory, 512))?;
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let swallows = Arc::<AtomicBool>::default();
    let swallowed = Arc::<AtomicU64>::default();
    let first = target.add_listener(&nqn, any)?;
    let (first, hosts) = relay(first, swallows.clone(), swallowed.clone())?;
    let second = target.add_listener(&nqn, any)?;
    for addr in [first, second] {
        let transport = TransportId {
            addr,
            subnqn: nqn.clone(),
            hostnqn: None,
        };
        let mut request = AttachRequest::new("disk", transport);
        request.options.keep_alive_ms = kato_ms;
        request.options.fencing = fencing;
        host.attach(request)?;
    }
    let hosts = [hosts.recv()?, hosts.recv()?];
    swallows.store(true, Ordering::Release);
    for lba in 0..WRITES + READS {
        let op = if lba < WRITES { Op::Write } else { Op::Read };
        host.tell(0, Io::new(op, lba, 1, vec![1; 512]))
            .map_err(|_| "the host takes no I/O")?;
    }
    // A capsule is 72 bytes, and the data of a write is with it.
    let all = WRITES * (72 + 512) + READS * 72;
    while swallowed.load(Ordering::Acquire) < all {
        thread::yield_now();
    }
    let cut = Instant::now();
    for host in &hosts {
        host.shutdown(Shutdown::Both)?;
    }
    let (mut writes, mut reads) = (Vec::new(), Vec::new());
    for _ in 0..WRITES + READS {
        let (op, at) = ended.recv_timeout(Duration::from_secs(60))?;
        let delay = at.saturating_duration_since(cut);
        match op {
            Op::Read => reads.push(delay),
            _ => writes.push(delay),
        }
    }
    host.shut_down()?;
    running.stop();
    running.join();
    Ok(Delays { writes, reads })
}

fn show(what: &str, mut delays: Vec<Duration>) {
    delays.sort();
    let at = |part: usize| {
        let place = (delays.len() * part).div_ceil(100).max(1) - 1;
        delays.get(place).copied().unwrap_or_default()
    };
    println!(
        "{what:44} {:>6}  p50 {:9.3} ms  p99 {:9.3} ms  max {:9.3} ms",
        delays.len(),
        at(50).as_secs_f64() * 1e3,
        at(99).as_secs_f64() * 1e3,
        at(100).as_secs_f64() * 1e3,
    );
}

fn main() -> Result<(), Failure> {
    let rounds = std::env::args().nth(1).map_or(Ok(100), |n| n.parse())?;
    let auto = Fencing::default();
    let mut off = auto;
    off.mode = FencingMode::Off;
    let mut by_time = auto;
    by_time.mode = FencingMode::Always;
    by_time.cqt = Some(Duration::from_millis(CQT_MS.into()));
    let rows: [(&str, Fencing, u32, bool, usize); 3] = [
        ("off", off, 10_000, true, rounds),
        (
            "auto, reset by another controller",
            auto,
            10_000,
            true,
            rounds,
        ),
        (
            "by time, 2 x 1 s + 200 ms",
            by_time,
            1000,
            false,
            1 + rounds / 20,
        ),
    ];
    for (name, fencing, kato_ms, resets, rounds) in rows {
        let (mut writes, mut reads) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let delays = round(fencing, kato_ms, resets)?;
            writes.extend(delays.writes);
            reads.extend(delays.reads);
        }
        show(&format!("{name}: writes"), writes);
        show(&format!("{name}: reads"), reads);
    }
    Ok(())
}
