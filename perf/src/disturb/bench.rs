//! The system under disturbance: embedded target, host, JSON-RPC server, one volume; and which core does what.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use pollux_multipath::{AttachRequest, Host, Policy, ReactorVolumeStatus, VolumeStatus};
use pollux_nvme_tcp::host::HostIdentity;
use pollux_reactor::rpc::{Client, Methods, Server};
use pollux_reactor::{Group, Idle, Running, Sender, mailbox};
use serde_json::{Value, json};

use super::pacer::{Pace, Pacer};
use crate::clock::{now, sleep_until};
use crate::cores::join;
use crate::embedded::Embedded;
use crate::embedded::EmbeddedNamespace;
use crate::load::{JobMessage, Jobs};
use crate::volume::{self, Volume};

/// Without an answer for so long, the server has failed. Longer than any deadline that can be asked for.
const ANSWER_MAX: Duration = Duration::from_secs(630);

/// Name of the group of controllers under test.
const NAME: &str = "disk";
/// Name of its volume.
pub const VOLUME: &str = "diskn1";
/// Small enough to be read once more in a moment, large enough for many I/Os in flight under `verify`.
const NAMESPACE: EmbeddedNamespace = EmbeddedNamespace::Memory(16 << 20);
/// Requests that wait for the pacer: it gets one.
const PACER_MAILBOX: usize = 4;
/// How often a state that is waited for is looked at.
const LOOK: Duration = Duration::from_micros(200);

/// Which core does what. Services on one core share a reactor, and so a thread: no two reactors ever share a core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The embedded target.
    pub target: usize,
    /// The host's control service, and the JSON-RPC server.
    pub control: usize,
    /// I/O reactors.
    pub io: Vec<usize>,
}

impl Layout {
    /// Two I/O reactors, as far from target and control as the cores allow: with two cores, one of the I/O reactors is
    /// where target and control are.
    pub fn spread(cores: &[usize]) -> Self {
        let (first, last) = ends(cores);
        let second = match cores {
            [.., second, _] => *second,
            _ => first,
        };
        Self {
            target: first,
            control: first,
            io: vec![last, second],
        }
    }

    /// One I/O reactor that is also control's: whatever control does too long, I/O feels. The target is elsewhere.
    pub fn beside(cores: &[usize]) -> Self {
        let (first, last) = ends(cores);
        Self {
            target: first,
            control: last,
            io: vec![last],
        }
    }
}

impl Layout {
    /// For programs.
    pub fn json(&self) -> Value {
        json!({"target": self.target, "control": self.control, "io": self.io})
    }
}

fn ends(cores: &[usize]) -> (usize, usize) {
    let first = cores.first().copied().unwrap_or(0);
    (first, cores.last().copied().unwrap_or(first))
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "target on core {}, control and JSON-RPC on core {}, I/O on {} {}; clients wherever the system puts them",
            self.target,
            self.control,
            if self.io.len() == 1 { "core" } else { "cores" },
            join(&self.io)
        )
    }
}

/// All of it, running.
pub struct Bench {
    /// The target.
    pub embedded: Embedded,
    /// The host.
    pub host: Host<JobMessage>,
    /// Sends the target requests at planned times, from the target's own reactor.
    pub pacer: Sender<Pace>,
    socket: PathBuf,
    running: Running,
    reactors: usize,
    policy: Policy,
}

/// How a path is attached, where it matters.
#[derive(Clone, Copy, Debug)]
pub struct PathOptions {
    /// Keep-alive timeout in ms.
    pub keep_alive_ms: u32,
    /// Time between tries to reconnect.
    pub reconnect_delay: Duration,
    /// Time that one try may take.
    pub connect_timeout: Duration,
}

impl Default for PathOptions {
    fn default() -> Self {
        Self {
            keep_alive_ms: 10_000,
            reconnect_delay: Duration::from_millis(20),
            connect_timeout: Duration::from_secs(10),
        }
    }
}

impl Bench {
    /// Starts it; no path is attached yet.
    pub fn start(layout: &Layout, policy: Policy) -> anyhow::Result<Self> {
        let mut group = Group::new();
        let mut by_core = BTreeMap::new();
        // With a core for everything, clients would wait for the end of whole scheduler slices.
        let idle = match layout.io.iter().all(|&core| core == layout.target) {
            true => Idle::Yield,
            false => Idle::Spin,
        };
        let mut reactor = |group: &mut Group, core: usize| -> usize {
            *by_core
                .entry(core)
                .or_insert_with(|| group.add_reactor(Some(core), idle))
        };
        let target = reactor(&mut group, layout.target);
        let control = reactor(&mut group, layout.control);
        let io: Vec<usize> = layout
            .io
            .iter()
            .map(|&core| reactor(&mut group, core))
            .collect();
        let handle = Embedded::seat(&mut group, target);
        let (pacer, receiver) = mailbox(PACER_MAILBOX);
        let paced = handle.clone();
        group.add_service(target, receiver, move || Pacer::new(paced));
        let identity = HostIdentity::random();
        let host = Host::builder()
            .identity(identity)
            .control(control)
            .io(&io)
            .install(&mut group, |_| Jobs::new());
        let socket = socket_path();
        let mut methods = Methods::new();
        pollux_multipath::rpc::register(&mut methods, host.clone());
        let mut server = Server::new(methods);
        server.listen_unix(&socket)?;
        server.install(&mut group, control);
        let running = group.start().context("starting the reactors")?;
        // From here on, dropping what runs ends it.
        let embedded = Embedded::configure(handle, &[NAMESPACE], None, false)?;
        Ok(Self {
            embedded,
            host,
            pacer,
            socket,
            running,
            reactors: io.len(),
            policy,
        })
    }

    /// Attaches a path to the volume, at a listener of the target or at what stands before it.
    pub fn attach(&self, addr: SocketAddr, options: PathOptions) -> anyhow::Result<()> {
        let mut transports = self.embedded.transports().into_iter();
        let mut transport = transports.next().context("the target has no listener")?;
        transport.addr = addr;
        let mut request = AttachRequest::new(NAME, transport);
        request.options.keep_alive_ms = options.keep_alive_ms;
        request.options.queue_size = 1024;
        request.options.connect_timeout = options.connect_timeout;
        request.options.recovery.reconnect_delay = options.reconnect_delay;
        request.options.policy = self.policy;
        self.host.attach(request)?;
        Ok(())
    }

    /// Attaches both listeners: the first is optimized, the second non-optimized.
    pub fn attach_both(&self) -> anyhow::Result<Volume> {
        for transport in self.embedded.transports() {
            self.attach(transport.addr, PathOptions::default())?;
        }
        self.volume(2)
    }

    /// The volume, which must have `paths` paths.
    pub fn volume(&self, paths: usize) -> anyhow::Result<Volume> {
        let volumes = volume::volumes(&self.host, NAME)?;
        let volume = volumes.into_iter().next();
        let volume = volume.context("no namespace was found")?;
        volume.check_paths(paths)?;
        Ok(volume)
    }

    /// A client of the management interface.
    pub fn client(&self) -> anyhow::Result<Client> {
        let client = Client::connect(&self.socket, Some(ANSWER_MAX));
        client.with_context(|| self.socket.display().to_string())
    }

    /// I/O reactors.
    pub fn reactors(&self) -> usize {
        self.reactors
    }

    /// How the volume selects paths.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Tells the jobs of an I/O reactor something.
    pub fn tell(&self, reactor: usize, message: JobMessage) -> anyhow::Result<()> {
        if self.host.tell(reactor, message).is_err() {
            bail!("I/O reactor {reactor} takes no messages any more");
        }
        Ok(())
    }

    /// The volume's status, from every reactor.
    pub fn status(&self) -> anyhow::Result<VolumeStatus> {
        let volumes = self.host.volumes()?;
        volumes
            .into_iter()
            .find(|volume| volume.name == VOLUME)
            .context("the volume is gone")
    }

    /// Looks until every reactor is as wanted; the status that was, or `None` when `patience` is at its end.
    pub fn wait_for(
        &self,
        patience: Duration,
        wanted: impl Fn(&ReactorVolumeStatus) -> bool,
    ) -> anyhow::Result<Option<VolumeStatus>> {
        let deadline = now() + patience;
        loop {
            let status = self.status()?;
            let all = status.reactors.len() == self.reactors;
            if all && status.reactors.iter().all(&wanted) {
                return Ok(Some(status));
            }
            if now() >= deadline {
                return Ok(None);
            }
            sleep_until(now() + LOOK);
        }
    }

    /// Ends all connections and threads in order.
    pub fn end(self, stop: &AtomicBool) {
        volume::end(&self.host, self.running, stop);
    }
}

/// A name of its own for each, so that tests do not meet.
fn socket_path() -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("pollux-disturb-{}-{count}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_follows_the_cores() {
        let spread = |cores: &[usize]| {
            let layout = Layout::spread(cores);
            (layout.target, layout.control, layout.io)
        };
        assert_eq!(spread(&[4]), (4, 4, vec![4, 4]));
        assert_eq!(spread(&[0, 1]), (0, 0, vec![1, 0]));
        assert_eq!(spread(&[0, 1, 2, 3]), (0, 0, vec![3, 2]));
        let beside = Layout::beside(&[0, 2, 5]);
        assert_eq!((beside.target, beside.control), (0, 5));
        assert_eq!(beside.io, [5]);
        assert_eq!(Layout::beside(&[3]).io, [3]);
    }
}
