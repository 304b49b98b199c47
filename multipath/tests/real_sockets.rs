//! The rules that a user would notice first, on real threads and sockets: I/O goes on whatever happens to one of two
//! paths, and status says so.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use pollux_multipath::{
    Application, AttachRequest, Completion, Host, Io, Op, PollGroup, Recovery, TransportId,
};
use pollux_nvme_tcp::host::HostIdentity;
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_nvme_tcp::target::{self, Backend};
use pollux_nvme_tcp::testing::{TestTarget, nqn};
use pollux_reactor::{Context, Group, Idle, Progress};

const BLOCK: usize = 512;
const DEPTH: u64 = 8;
/// I/Os between two reports.
const PORTION: u64 = 200;
const PATIENCE: Duration = Duration::from_secs(60);

/// Writes blocks and reads them back.
struct Writer {
    reactor: usize,
    running: bool,
    outstanding: u64,
    done: u64,
    report: Sender<Result<(), String>>,
}

fn content(lba: u64, round: u64) -> Vec<u8> {
    let word = (lba << 40 | round).to_le_bytes();
    word.iter().copied().cycle().take(BLOCK).collect()
}

impl Writer {
    fn take(&mut self, done: Completion, group: &mut PollGroup) {
        self.outstanding -= 1;
        self.done += 1;
        let Io {
            op,
            lba,
            user,
            buffer,
            ..
        } = done.io;
        if let Err(error) = done.result {
            self.report.send(Err(error.to_string())).unwrap();
        } else if op == Op::Read && buffer != content(lba, user) {
            self.report
                .send(Err(format!("other data at {lba}")))
                .unwrap();
        }
        if self.done.is_multiple_of(PORTION) {
            self.report.send(Ok(())).unwrap();
        }
        if !self.running {
            if self.outstanding == 0 {
                self.report.send(Err("all ended".into())).unwrap();
            }
            return;
        }
        let io = match op {
            Op::Write => Io::new(Op::Read, lba, 1, vec![0; BLOCK]),
            _ => Io::new(Op::Write, lba, 1, content(lba, user + 1)),
        };
        let user = if op == Op::Write { user } else { user + 1 };
        group.submit(done.volume, io.with_user(user)).unwrap();
        self.outstanding += 1;
    }
}

impl Application for Writer {
    /// True to begin, false to come to an end.
    type Message = bool;

    fn on_message(&mut self, begin: bool, group: &mut PollGroup, _: &mut Context<'_>) {
        self.running = begin;
        if !begin {
            return;
        }
        let volume = group.volumes().next().unwrap().id;
        for i in 0..DEPTH {
            let lba = i + DEPTH * self.reactor as u64;
            let io = Io::new(Op::Write, lba, 1, content(lba, 0));
            group.submit(volume, io).unwrap();
            self.outstanding += 1;
        }
    }

    fn poll(&mut self, group: &mut PollGroup, _: &mut Context<'_>) -> Progress {
        let mut progress = Progress::Idle;
        while let Some(done) = group.next_completion() {
            self.take(done, group);
            progress = Progress::Busy;
        }
        progress
    }
}

/// More I/Os end, on both reactors together, all of them well.
fn expect_progress(reports: &Receiver<Result<(), String>>) {
    for _ in 0..6 {
        assert_eq!(reports.recv_timeout(PATIENCE).unwrap(), Ok(()));
    }
}

/// Waits until both reactors see the paths so: the address; current, connected, accessible.
fn await_paths(host: &Host<bool>, wanted: &[(SocketAddr, [bool; 3])]) {
    let mut seen = Vec::new();
    // Far longer than anything of this takes.
    for _ in 0..500_000 {
        let status = host.volumes().unwrap();
        let view = |r: &pollux_multipath::ReactorVolumeStatus| {
            r.paths
                .iter()
                .map(|p| {
                    assert!(!p.current || p.connected && p.accessible, "{p:?}");
                    let addr = p.transport.addr;
                    (addr, [p.current, p.connected, p.accessible])
                })
                .collect::<Vec<_>>()
        };
        seen = status[0].reactors.iter().map(view).collect();
        if seen.len() == 2 && seen.iter().all(|paths| paths == wanted) {
            return;
        }
        std::thread::yield_now();
    }
    panic!("{seen:?} instead of {wanted:?}");
}

/// B3.1, B6, B8.1, B8.2, B11, B13.2: an ANA change, a listener that goes and comes back, a detach and an attach.
#[test]
fn io_goes_on_whatever_happens_to_one_of_two_paths() {
    let mut group = Group::new();
    let reactors = [0; 2].map(|_| group.add_reactor(None, Idle::Yield));
    let handle = target::install(&mut group, &reactors);
    let (report, reports) = channel();
    let identity = HostIdentity::random();
    let host = Host::builder()
        .identity(identity)
        .control(reactors[0])
        .io(&reactors)
        .install(&mut group, move |reactor| Writer {
            reactor,
            running: false,
            outstanding: 0,
            done: 0,
            report: report.clone(),
        });
    let memory = Backend::Memory { bytes: 1 << 20 };
    let target = TestTarget::serve(handle, group.start().unwrap(), &[memory]);
    let [one, two] = [target.addr, target.listen()];
    let attach = |addr| {
        let subnqn = nqn();
        let transport = TransportId {
            addr,
            subnqn,
            hostnqn: None,
        };
        let mut request = AttachRequest::new("Nvme0", transport);
        request.options.recovery = Recovery::default();
        request.options.recovery.reconnect_delay = Duration::from_millis(20);
        host.attach(request).unwrap();
    };
    attach(one);
    attach(two);
    for reactor in 0..2 {
        assert!(host.tell(reactor, true).is_ok());
    }
    const UP: [bool; 3] = [true, true, true];
    const SPARE: [bool; 3] = [false, true, true];
    for _ in 0..3 {
        await_paths(&host, &[(one, UP), (two, SPARE)]);
        expect_progress(&reports);
        target.set_ana(one, AnaState::INACCESSIBLE);
        await_paths(&host, &[(one, [false, true, false]), (two, UP)]);
        expect_progress(&reports);
        target.set_ana(one, AnaState::OPTIMIZED);
        await_paths(&host, &[(one, UP), (two, SPARE)]);
        target.unlisten(one);
        await_paths(&host, &[(one, [false, false, true]), (two, UP)]);
        expect_progress(&reports);
        target.listen_at(one);
        await_paths(&host, &[(one, UP), (two, SPARE)]);
        expect_progress(&reports);
        let transport = TransportId {
            addr: two,
            subnqn: nqn(),
            hostnqn: None,
        };
        host.detach("Nvme0", Some(transport)).unwrap();
        await_paths(&host, &[(one, UP)]);
        expect_progress(&reports);
        attach(two);
    }
    for reactor in 0..2 {
        assert!(host.tell(reactor, false).is_ok());
    }
    let mut ended = 0;
    while ended < 2 {
        match reports.recv_timeout(PATIENCE).unwrap() {
            Ok(()) => {}
            Err(what) => {
                assert_eq!(what, "all ended");
                ended += 1;
            }
        }
    }
    host.detach("Nvme0", None).unwrap();
    assert!(host.volumes().unwrap().is_empty());
}
