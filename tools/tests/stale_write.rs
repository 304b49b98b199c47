//! The hazard that fencing is for (rule B14), with processes and a network that holds back what it has taken and delivers it
//! late: a write goes out on one path, which is lost; it is sent again on the other one, a newer write follows, and then the
//! first copy arrives.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod process;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use pollux_multipath::{
    Application, AttachRequest, Fencing, FencingMode, Host, Io, Op, PollGroup, Recovery,
    TransportId,
};
use pollux_nvme_tcp::spec::nqn::Nqn;
use pollux_reactor::{Context, Group, Idle, Progress, Running, Time};

use self::process::{Disk, Target};

const NQN: &str = "nqn.2014-08.org.example:disk1";
const BLOCK: usize = 512;
const LBA: u64 = 7;
const PATIENCE: Duration = Duration::from_secs(30);
const CQT_MS: u32 = 200;

fn start(number: usize, listeners: usize, disk: &Disk) -> Target {
    let cqt = CQT_MS.to_string();
    let min_cntlid = (1 + number * 1000).to_string();
    let namespace = format!("file:{}:1M", disk.0.display());
    let mut options = vec!["--nqn", NQN, "--shared", "--cqt", &cqt];
    options.extend(["--min-cntlid", &min_cntlid, "--namespace", &namespace]);
    Target::start(&options, &vec!["127.0.0.1:0".parse().unwrap(); listeners])
}

/// Has the process stand still, or go on.
fn signal(target: &Target, signal: &str) {
    let pid = target.child.id().to_string();
    let done = Command::new("kill").args([signal, &pid]).status();
    assert!(done.unwrap().success());
}

fn new_disk() -> Disk {
    static DISKS: AtomicU64 = AtomicU64::new(0);
    let number = DISKS.fetch_add(1, Ordering::Relaxed);
    let name = format!("pollux-stale-write-{}-{number}", std::process::id());
    Disk(std::env::temp_dir().join(name))
}

/// What became of bytes that were delivered late.
#[derive(Debug, PartialEq, Eq)]
enum Late {
    Answered,
    Closed,
}

/// One connection through the network.
struct Line {
    host: TcpStream,
    release: Sender<()>,
    held: Receiver<()>,
    late: Receiver<Late>,
}

/// The network between host and target: it can hold back what hosts send on I/O queues, and cut hosts off without a word to
/// the target.
struct Network {
    addr: SocketAddr,
    holds: Arc<AtomicBool>,
    is_cut: Arc<AtomicBool>,
    lines: Receiver<Line>,
}

impl Network {
    fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (holds, is_cut) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (sender, lines) = channel();
        let (hold, cut) = (holds.clone(), is_cut.clone());
        // Ends with the process, as all threads here do.
        thread::spawn(move || {
            for (number, host) in listener.incoming().enumerate() {
                let host = host.unwrap();
                if cut.load(Ordering::Acquire) {
                    continue;
                }
                // The admin queue comes first.
                let hold = if number > 0 {
                    hold.clone()
                } else {
                    Arc::default()
                };
                if sender.send(Line::new(host, target, hold)).is_err() {
                    return;
                }
            }
        });
        Self {
            addr,
            holds,
            is_cut,
            lines,
        }
    }
}

impl Line {
    fn new(host: TcpStream, target: SocketAddr, hold: Arc<AtomicBool>) -> Self {
        let target = TcpStream::connect(target).unwrap();
        for stream in [&host, &target] {
            stream.set_nodelay(true).unwrap();
        }
        let (release, released) = channel();
        let (hold_sender, held) = channel();
        let (late_sender, late) = channel();
        let is_late = Arc::<AtomicBool>::default();
        let (mut from, mut to) = (host.try_clone().unwrap(), target.try_clone().unwrap());
        let is_released = is_late.clone();
        thread::spawn(move || {
            let (mut buffer, mut kept) = (vec![0; 65536], Vec::new());
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                if hold.load(Ordering::Acquire) {
                    kept.extend_from_slice(&buffer[..n]);
                    let _ = hold_sender.send(());
                } else if to.write_all(&buffer[..n]).is_err() {
                    break;
                }
            }
            // The target does not hear that the host has gone.
            if released.recv().is_ok() {
                is_released.store(true, Ordering::Release);
                // It may have closed by itself, which the other direction tells.
                let _ = to.write_all(&kept);
                let _ = released.recv();
            }
        });
        let (mut from, mut to) = (target, host.try_clone().unwrap());
        thread::spawn(move || {
            let mut buffer = vec![0; 65536];
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                match is_late.load(Ordering::Acquire) {
                    true => drop(late_sender.send(Late::Answered)),
                    // The host may have gone.
                    false => drop(to.write_all(&buffer[..n])),
                }
            }
            let _ = late_sender.send(Late::Closed);
        });
        Self {
            host,
            release,
            held,
            late,
        }
    }
}

/// An I/O, and where it goes when it has ended.
type Order = (Io, Sender<(bool, Vec<u8>, Time)>);

/// Carries out one I/O after the other.
#[derive(Default)]
struct Hand(Option<Sender<(bool, Vec<u8>, Time)>>);

impl Application for Hand {
    type Message = Order;

    fn on_message(&mut self, (io, done): Order, group: &mut PollGroup, _: &mut Context<'_>) {
        let volume = group.volumes().next().unwrap().id;
        group.submit(volume, io).unwrap();
        self.0 = Some(done);
    }

    fn poll(&mut self, group: &mut PollGroup, cx: &mut Context<'_>) -> Progress {
        let Some(done) = group.next_completion() else {
            return Progress::Idle;
        };
        let told = self.0.take().unwrap();
        told.send((done.result.is_ok(), done.io.buffer.into_vec(), cx.now()))
            .unwrap();
        Progress::Busy
    }
}

/// The host, with a path to each of several addresses.
struct Paths(Host<Order>, Running);

impl Paths {
    fn to(addrs: &[SocketAddr], mode: FencingMode, kato_ms: u32) -> Self {
        let mut group = Group::new();
        let reactor = group.add_reactor(None, Idle::Yield);
        let host = Host::builder()
            .control(reactor)
            .io(&[reactor])
            .install(&mut group, |_| Hand::default());
        let running = group.start().unwrap();
        for &addr in addrs {
            let subnqn = Nqn::new(NQN).unwrap();
            let transport = TransportId {
                addr,
                subnqn,
                hostnqn: None,
            };
            let mut request = AttachRequest::new("disk", transport);
            request.options.keep_alive_ms = kato_ms;
            request.options.fencing = Fencing::default();
            request.options.fencing.mode = mode;
            request.options.recovery = Recovery::default();
            request.options.recovery.reconnect_delay = Duration::from_millis(50);
            host.attach(request).unwrap();
        }
        Self(host, running)
    }

    fn begin(&self, op: Op, letter: u8) -> Receiver<(bool, Vec<u8>, Time)> {
        let (sender, done) = channel();
        let io = Io::new(op, LBA, 1, vec![letter; BLOCK]);
        assert!(self.0.tell(0, (io, sender)).is_ok());
        done
    }

    fn end(done: Receiver<(bool, Vec<u8>, Time)>) -> (u8, Time) {
        let (ok, block, at) = done.recv_timeout(PATIENCE).unwrap();
        assert!(ok);
        (block[0], at)
    }

    fn close(self) {
        self.0.shut_down().unwrap();
        self.1.stop();
        self.1.join();
    }
}

/// What is in the block, and what became of the first copy of the older write.
struct Aftermath {
    block: u8,
    late: Late,
    took: Duration,
}

/// Writes A on the first path, which is lost, then B; delivers the first copy of A then. Two processes serve the same file,
/// or one of them both paths.
fn run(mode: FencingMode, processes: usize, kato_ms: u32) -> Aftermath {
    let disk = new_disk();
    let targets: Vec<_> = (0..processes)
        .map(|number| start(number, 2 / processes, &disk))
        .collect();
    let addrs: Vec<_> = targets.iter().flat_map(|t| t.addrs.clone()).collect();
    let network = Network::to(addrs[0]);

    let paths = Paths::to(&[network.addr, addrs[1]], mode, kato_ms);
    let (begin, end) = (|op, letter| paths.begin(op, letter), Paths::end);

    let (_, start) = end(begin(Op::Write, b'0'));
    let admin = network.lines.recv_timeout(PATIENCE).unwrap();
    let io = network.lines.recv_timeout(PATIENCE).unwrap();
    network.holds.store(true, Ordering::Release);
    let first = begin(Op::Write, b'A');
    io.held.recv_timeout(PATIENCE).unwrap();
    network.is_cut.store(true, Ordering::Release);
    for line in [&admin, &io] {
        line.host.shutdown(Shutdown::Both).unwrap();
    }
    let (_, retried) = end(first);
    end(begin(Op::Write, b'B'));
    io.release.send(()).unwrap();
    let late = io.late.recv_timeout(PATIENCE).unwrap();
    let (block, _) = end(begin(Op::Read, 0));

    paths.close();
    Aftermath {
        block,
        late,
        took: retried - start,
    }
}

/// B14.1: without fencing, the first copy of an older write comes back over what was acknowledged after it.
#[test]
fn without_fencing_a_newer_write_is_lost() {
    for processes in [1, 2] {
        let Aftermath { block, late, .. } = run(FencingMode::Off, processes, 1000);
        assert_eq!((block, late), (b'A', Late::Answered), "the hazard is real");
    }
}

/// B14.3: two processes, which know nothing of each other: the write waits for the time of the specification, and what comes
/// then is not executed.
#[test]
fn by_default_the_older_write_waits_for_its_time() {
    let Aftermath { block, late, took } = run(FencingMode::Auto, 2, 1000);
    assert_eq!((block, late), (b'B', Late::Closed));
    let fence = Duration::from_millis(u64::from(2 * 1000 + CQT_MS));
    assert!(took >= fence, "{took:?}");
}

/// B14.6: one process: the lost controller is reset by way of the other one, and the write waits for no keep-alive timeout,
/// which is longer than the test waits.
#[test]
fn by_default_a_lost_controller_is_reset_by_way_of_another_one() {
    let Aftermath { block, late, .. } = run(FencingMode::Auto, 1, 60_000);
    assert_eq!((block, late), (b'B', Late::Closed));
}

/// B14.3: a process that stood still for longer than KATO, with a write in its socket, does not execute it when it goes on.
#[test]
fn a_process_that_stood_still_brings_no_write_back() {
    let disk = new_disk();
    let targets = [0, 1].map(|number| start(number, 1, &disk));
    let [stopped, other] = [0, 1].map(|at| targets[at].addrs[0]);
    let paths = Paths::to(&[stopped, other], FencingMode::Auto, 1000);
    Paths::end(paths.begin(Op::Write, b'0'));
    signal(&targets[0], "-STOP");
    Paths::end(paths.begin(Op::Write, b'A'));
    Paths::end(paths.begin(Op::Write, b'B'));
    signal(&targets[0], "-CONT");
    // What it has to say of the old connections comes before it takes part in a new one.
    for _ in 0..3 {
        let mut stream = TcpStream::connect(stopped).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut icreq = [0; 128];
        (icreq[2], icreq[4]) = (128, 128);
        stream.write_all(&icreq).unwrap();
        stream.read_exact(&mut icreq).unwrap();
        assert_eq!(icreq[0], 1, "an ICResp");
    }
    let (block, _) = Paths::end(paths.begin(Op::Read, 0));
    assert_eq!(block, b'B');
    paths.close();
}
