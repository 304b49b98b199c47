//! Streams that are made outside the workspace, around those of a real host and a real target.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use pollux_multipath::{
    Application, AttachRequest, Completion, Host, Io, Op, PollGroup, TransportId,
};
use pollux_nvme_tcp::spec::HostNqn;
use pollux_nvme_tcp::spec::nqn::Nqn;
use pollux_nvme_tcp::target::{self, Backend, HostAccess, TargetRequest};
use pollux_nvme_tcp::testing::{TestTarget, nqn};
use pollux_nvme_tcp::tls::{ConfiguredPsk, HostPsk, HostTls};
use pollux_reactor::{Context, Edges, Group, Idle, Opened, Progress, Stream, StreamWrapper};

const BLOCK: usize = 512;
const DEPTH: u64 = 4;
/// I/Os of each of them.
const ROUNDS: u64 = 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// How many wrappers there were of either kind.
#[derive(Debug, Default)]
struct Made {
    connected: AtomicUsize,
    accepted: AtomicUsize,
}

/// Reads single bytes, writes a few, and puts off every third call: what it leaves behind no socket tells of.
#[derive(Debug)]
struct Dribble {
    stream: Stream,
    edges: Option<Edges>,
    calls: usize,
}

impl Dribble {
    /// Whether this call has to be made again.
    fn put_off(&mut self) -> bool {
        self.calls += 1;
        let put_off = self.calls.is_multiple_of(3);
        if put_off {
            self.more();
        }
        put_off
    }

    fn more(&self) {
        self.edges
            .as_ref()
            .expect("edges come before the first call")
            .raise();
    }
}

impl StreamWrapper for Dribble {
    fn inner(&self) -> &Stream {
        &self.stream
    }

    fn inner_mut(&mut self) -> &mut Stream {
        &mut self.stream
    }

    fn on_edges(&mut self, edges: Edges) {
        self.edges = Some(edges);
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        if self.put_off() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let Some(buf) = bufs.iter_mut().find(|buf| !buf.is_empty()) else {
            return Ok(0);
        };
        let len = self.stream.read(&mut buf[..1])?;
        self.more();
        Ok(len)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.put_off() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let Some(buf) = bufs.iter().find(|buf| !buf.is_empty()) else {
            return Ok(0);
        };
        let some = IoSlice::new(&buf[..buf.len().min(7)]);
        let len = self.stream.write_vectored(&[some])?;
        self.more();
        Ok(len)
    }
}

/// Writes blocks and reads them back.
struct Verify {
    /// Blocks of each I/O.
    blocks: u32,
    outstanding: u64,
    done: Sender<Result<(), String>>,
}

impl Verify {
    fn content(&self, lba: u64, round: u64) -> Vec<u8> {
        let words =
            (0..self.bytes() as u64 / 8).map(|at| (lba << 40 | round << 20 | at).to_le_bytes());
        words.flatten().collect()
    }

    fn bytes(&self) -> usize {
        self.blocks as usize * BLOCK
    }

    fn submit(&mut self, io: Io, group: &mut PollGroup) {
        let volume = group.volumes().next().unwrap().id;
        group.submit(volume, io).unwrap();
        self.outstanding += 1;
    }

    fn take(&mut self, completion: Completion, group: &mut PollGroup) {
        self.outstanding -= 1;
        let Io {
            op,
            lba,
            user,
            buffer,
            ..
        } = completion.io;
        if let Err(error) = completion.result {
            self.done.send(Err(error.to_string())).unwrap();
        } else if op == Op::Write {
            let read = Io::new(Op::Read, lba, self.blocks, vec![0; self.bytes()]);
            self.submit(read.with_user(user), group);
        } else if buffer != self.content(lba, user) {
            let error = format!("other data at {lba} in round {user}");
            self.done.send(Err(error)).unwrap();
        } else if user < ROUNDS {
            let write = Io::new(Op::Write, lba, self.blocks, self.content(lba, user + 1));
            self.submit(write.with_user(user + 1), group);
        } else if self.outstanding == 0 {
            self.done.send(Ok(())).unwrap();
        }
    }
}

impl Application for Verify {
    /// Begin.
    type Message = ();

    fn on_message(&mut self, (): (), group: &mut PollGroup, _: &mut Context<'_>) {
        for at in 0..DEPTH {
            let lba = at * u64::from(self.blocks);
            self.submit(
                Io::new(Op::Write, lba, self.blocks, self.content(lba, 0)),
                group,
            );
        }
    }

    fn poll(&mut self, group: &mut PollGroup, _: &mut Context<'_>) -> Progress {
        let mut progress = Progress::Idle;
        while let Some(completion) = group.next_completion() {
            self.take(completion, group);
            progress = Progress::Busy;
        }
        progress
    }
}

const IDLE: [Idle; 2] = [
    Idle::Yield,
    Idle::Park {
        after: Duration::ZERO,
    },
];

/// Parked reactors too: nothing but the wrapper's own edges wakes them for what it has kept back.
#[test]
fn a_stream_from_outside_carries_a_host_and_a_target() {
    for idle in IDLE {
        carry(idle, true, 1, None);
    }
}

/// TLS on sockets that take and give all there is, and on some that nearly never do.
#[test]
fn tls_carries_a_host_and_a_target() {
    for (idle, len) in IDLE.into_iter().zip([32, 48]) {
        let psk = ConfiguredPsk::generate(len, None).unwrap();
        for blocks in [1, 7, 256] {
            carry(idle, false, blocks, Some((&psk, false)));
        }
    }
    let psk = ConfiguredPsk::generate(32, None).unwrap();
    carry(IDLE[1], true, 1, Some((&psk, false)));
}

/// Where the kernel has TLS it encrypts, but for streams that are not its own; where it has not, nothing is missed.
#[test]
fn tls_by_the_kernel_where_it_can() {
    for (idle, len) in IDLE.into_iter().zip([32, 48]) {
        let psk = ConfiguredPsk::generate(len, None).unwrap();
        for blocks in [1, 256] {
            let ktls = carry(idle, false, blocks, Some((&psk, true)));
            let ulps = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_ulp");
            let has_tls = ulps.unwrap().split_whitespace().any(|ulp| ulp == "tls");
            assert_eq!(ktls, [has_tls; 3], "an admin queue and two I/O queues");
        }
    }
    let psk = ConfiguredPsk::generate(32, None).unwrap();
    assert_eq!(carry(IDLE[1], true, 1, Some((&psk, true))), [false; 3]);
}

const HOST: &str = "nqn.2014-08.org.example:host";

/// Lets the host in by TLS only.
fn secure(target: &TestTarget, psk: &ConfiguredPsk) -> SocketAddr {
    let host = HostNqn::new(HOST).unwrap();
    let psk = HostPsk::new("key", psk, &host, &nqn()).unwrap();
    let mut access = HostAccess::default();
    access.psk = Some(psk);
    let call = |request| target.handle.call(request).unwrap();
    call(TargetRequest::allow_any_host(nqn(), false));
    call(TargetRequest::add_host_with(nqn(), host, access));
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let request = TargetRequest::add_secure_listener(nqn(), any);
    target.handle.call(request).unwrap()
}

/// I/O from both reactors, by TLS with a key if there is one, of which the kernel is to encrypt or not; and then whether it
/// encrypts each queue, as the target says.
fn carry(idle: Idle, dribble: bool, blocks: u32, tls: Option<(&ConfiguredPsk, bool)>) -> Vec<bool> {
    let (psk, ktls) = tls.unzip();
    let made = Arc::new(Made::default());
    let mut group = Group::new();
    let counted = Arc::clone(&made);
    let wrap = move |stream, opened| -> Box<dyn StreamWrapper> {
        match opened {
            Opened::Connected => &counted.connected,
            Opened::Accepted => &counted.accepted,
        }
        .fetch_add(1, Ordering::Relaxed);
        Box::new(Dribble {
            stream,
            edges: None,
            calls: 0,
        })
    };
    if dribble {
        group.wrap_streams(wrap);
    }
    // The target's I/O queues move from its first reactor to the second.
    let reactors = [0; 3].map(|_| group.add_reactor(None, idle));
    let handle = target::install(&mut group, &reactors[..2]);
    let (done, ended) = channel();
    let host = Host::builder()
        .control(reactors[2])
        .io(&reactors[1..])
        .install(&mut group, move |_| Verify {
            blocks,
            outstanding: 0,
            done: done.clone(),
        });
    let memory = Backend::Memory { bytes: 1 << 20 };
    let target = TestTarget::serve(handle, group.start().unwrap(), &[memory]);
    let transport = TransportId {
        addr: psk.map_or(target.addr, |psk| secure(&target, psk)),
        subnqn: nqn(),
        hostnqn: psk.map(|_| Nqn::new(HOST).unwrap()),
    };
    let mut request = AttachRequest::new("Nvme0", transport);
    request.options.tls = psk.cloned().map(HostTls::new);
    if let Some(wanted) = ktls {
        request.options.ktls = wanted;
        target.handle.call(TargetRequest::set_ktls(wanted)).unwrap();
    }
    host.attach(request).unwrap();
    // One after the other: they use the same blocks.
    for reactor in 0..2 {
        assert!(host.tell(reactor, ()).is_ok());
        let end = ended.recv_timeout(PATIENCE);
        assert_eq!(end, Ok(Ok(())), "reactor {reactor}, {idle:?}");
    }
    let controllers = target.status().subsystems.remove(0).controllers;
    let ktls = controllers.iter().flat_map(|c| &c.qpairs);
    let ktls = ktls.map(|qpair| qpair.ktls).collect();
    host.shut_down().unwrap();
    drop(target);
    let made = [&made.connected, &made.accepted].map(|made| made.load(Ordering::Relaxed));
    let all = if dribble { 3 } else { 0 };
    assert_eq!(made, [all; 2], "an admin queue and two I/O queues");
    ktls
}
