//! Descriptors that are open after attaches and detaches on real sockets (rule B11). A process of its own counts them.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use pollux_multipath::{Application, AttachRequest, Host, PollGroup, TransportId};
use pollux_nvme_tcp::target::{self, Backend};
use pollux_nvme_tcp::testing::{TestTarget, nqn};
use pollux_reactor::{Context, Group, Idle, Progress};

/// Does no I/O.
struct Onlooker;

impl Application for Onlooker {
    type Message = ();
    fn on_message(&mut self, (): (), _: &mut PollGroup, _: &mut Context<'_>) {}
    fn poll(&mut self, _: &mut PollGroup, _: &mut Context<'_>) -> Progress {
        Progress::Idle
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// B11, B1.4: on real sockets: after attaches, failed ones and detaches as many descriptors are open as before.
#[test]
fn descriptors_are_closed() {
    let mut group = Group::new();
    let reactors = [0; 2].map(|_| group.add_reactor(None, Idle::Yield));
    let handle = target::install(&mut group, &reactors[..1]);
    let host = Host::builder()
        .control(reactors[1])
        .io(&reactors)
        .install(&mut group, |_| Onlooker);
    let memory = Backend::Memory { bytes: 1 << 20 };
    let target = TestTarget::serve(handle, group.start().unwrap(), &[memory]);
    let listeners = [target.addr, target.listen()];
    // Takes connections, by way of its backlog, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().map(|addr| (silent, addr)).unwrap();
    let attach = |addr: SocketAddr, timeout| {
        let mut request = AttachRequest::new("Nvme0", TransportId::new(addr, nqn()));
        request.options.connect_timeout = Duration::from_millis(timeout);
        host.attach(request)
    };
    let before = descriptors();
    for _ in 0..5 {
        for addr in listeners {
            attach(addr, 10_000).unwrap();
        }
        assert!(descriptors() > before);
        attach(silent.1, 20).unwrap_err();
        // Nobody listens on port 1.
        attach(([127, 0, 0, 1], 1).into(), 10_000).unwrap_err();
        host.detach("Nvme0", None).unwrap();
    }
    // The last streams are closed a turn or two after the detach is answered; there are some seconds for it.
    let closed = (0..1_000_000).any(|_| {
        std::thread::yield_now();
        descriptors() <= before
    });
    assert!(closed, "{} descriptors, {before} before", descriptors());
}
