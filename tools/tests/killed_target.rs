//! A target process killed with SIGKILL under load, and started again on the same file: I/O goes on, every
//! I/O ends once, and what was acknowledged is there (rules B6, B7, B8).
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod process;

use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use pollux_multipath::{
    Application, AttachRequest, Host, Io, Op, PollGroup, Recovery, TransportId,
};
use pollux_nvme_tcp::spec::nqn::Nqn;
use pollux_reactor::{Context, Group, Idle, Progress};

use self::process::{Disk, Target};

const NQN: &str = "nqn.2014-08.org.example:disk1";
const DEPTH: u64 = 32;
const BLOCK: usize = 4096;
const KILLS: usize = 3;

fn start(ports: &[SocketAddr], namespace: &str) -> Target {
    let options = [
        "--nqn",
        NQN,
        "--block-size",
        "4096",
        "--namespace",
        namespace,
    ];
    let target = Target::start(&options, ports);
    assert_eq!(target.addrs, ports);
    target
}

#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    submitted: u64,
    completed: u64,
    miscompares: u64,
    errors: u64,
}

enum Ask {
    /// Starts, or answers with what was seen.
    Report,
    /// Submits no more, and reports when everything has ended.
    Finish,
}

/// Writes each block of a small region with a rising generation and reads it back.
struct Verify {
    seen: Seen,
    started: bool,
    finishing: bool,
    report: Sender<Seen>,
}

fn pattern(lba: u64, generation: u64) -> Vec<u8> {
    let word = (lba << 40 | generation).to_le_bytes();
    word.iter().copied().cycle().take(BLOCK).collect()
}

impl Verify {
    fn submit(&mut self, group: &mut PollGroup, io: Io) {
        let volume = group.volumes().next().unwrap().id;
        group.submit(volume, io).unwrap();
        self.seen.submitted += 1;
    }
}

impl Application for Verify {
    type Message = Ask;

    fn on_message(&mut self, ask: Ask, group: &mut PollGroup, _: &mut Context<'_>) {
        if !std::mem::replace(&mut self.started, true) {
            for lba in 0..DEPTH {
                let io = Io::new(Op::Write, lba, 1, pattern(lba, 0));
                self.submit(group, io);
            }
        }
        match ask {
            Ask::Report => self.report.send(self.seen).unwrap(),
            Ask::Finish => self.finishing = true,
        }
    }

    fn poll(&mut self, group: &mut PollGroup, _: &mut Context<'_>) -> Progress {
        let mut progress = Progress::Idle;
        while let Some(done) = group.next_completion() {
            progress = Progress::Busy;
            self.seen.completed += 1;
            let Io {
                op,
                lba,
                user,
                buffer,
                ..
            } = done.io;
            self.seen.errors += u64::from(done.result.is_err());
            if op == Op::Read {
                self.seen.miscompares += u64::from(buffer != pattern(lba, user));
            }
            if !self.finishing {
                let io = match op {
                    Op::Write => Io::new(Op::Read, lba, 1, buffer),
                    _ => Io::new(Op::Write, lba, 1, pattern(lba, user + 1)),
                };
                let user = user + u64::from(op == Op::Read);
                self.submit(group, io.with_user(user));
            }
        }
        if self.finishing && self.seen.completed == self.seen.submitted {
            self.finishing = false;
            self.report.send(self.seen).unwrap();
        }
        progress
    }
}

fn wait(reports: &Receiver<Seen>) -> Seen {
    reports.recv_timeout(Duration::from_secs(60)).unwrap()
}

#[test]
fn io_survives_a_killed_target() {
    let name = format!("pollux-killed-target-{}", std::process::id());
    let disk = Disk(std::env::temp_dir().join(name));
    let seen = kill_under_load(&format!("file:{}:16M", disk.0.display()));
    assert_eq!((seen.errors, seen.miscompares), (0, 0), "{seen:?}");
}

/// A namespace in memory loses its data, but not its identifiers: for the host it is the same one.
#[test]
fn io_goes_on_when_memory_is_served_again() {
    let seen = kill_under_load("memory:16M");
    assert_eq!(seen.errors, 0, "{seen:?}");
}

/// Kills the target of this namespace again and again while a host writes and reads.
fn kill_under_load(namespace: &str) -> Seen {
    // Ports that were free a moment ago; the target must come back on the same ones.
    let listeners: Vec<_> = (0..2)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let ports: Vec<_> = listeners.iter().map(|l| l.local_addr().unwrap()).collect();
    drop(listeners);
    let mut target = Some(start(&ports, namespace));

    let mut group = Group::new();
    let reactor = group.add_reactor(None, Idle::Yield);
    let (report, reports) = channel();
    let host = Host::builder()
        .control(reactor)
        .io(&[reactor])
        .install(&mut group, move |_| Verify {
            seen: Seen::default(),
            started: false,
            finishing: false,
            report: report.clone(),
        });
    let running = group.start().unwrap();
    for &addr in &ports {
        let subnqn = Nqn::new(NQN).unwrap();
        let mut request = AttachRequest::new(
            "disk",
            TransportId {
                addr,
                subnqn,
                hostnqn: None,
            },
        );
        request.options.recovery = Recovery::default();
        request.options.recovery.reconnect_delay = Duration::from_millis(20);
        // A killed target tells nobody that it has ended: its writes wait for twice as long, and CQT.
        request.options.keep_alive_ms = 1000;
        host.attach(request).unwrap();
    }
    let progress = |more: u64| {
        assert!(host.tell(0, Ask::Report).is_ok());
        let goal = wait(&reports).completed + more;
        // Far more questions than a minute has room for.
        for _ in 0..100_000_000 {
            assert!(host.tell(0, Ask::Report).is_ok());
            let seen = wait(&reports);
            if seen.completed >= goal {
                return;
            }
            std::thread::yield_now();
        }
        panic!("I/O does not go on");
    };
    progress(2000);
    for _ in 0..KILLS {
        drop(target.take());
        target = Some(start(&ports, namespace));
        progress(2000);
    }
    assert!(host.tell(0, Ask::Finish).is_ok());
    let seen = wait(&reports);
    assert_eq!(seen.submitted, seen.completed, "{seen:?}");
    host.shut_down().unwrap();
    running.stop();
    seen
}
