//! The system around the jobs: reactors, the embedded target if there is one, the host, and its paths.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, bail};
use pollux_multipath::{
    AttachOptions, AttachRequest, Attached, ControllerId, Host, HostHandle, HostRequest, Policy,
    TransportId, VolumeId,
};
use pollux_nvme_tcp::host::{Digests, HostIdentity};
use pollux_reactor::{Group, Idle, Running};

use crate::cli::{PolicyName, RunArgs};
use crate::clock::now;
use crate::cores::Placement;
use crate::embedded::Embedded;
use crate::job::{JobMessage, Jobs};
use crate::{Interrupted, Usage};

/// Name of the group of controllers; the volume is this with `n` and the NSID.
const NAME: &str = "perf";
/// Entries of an I/O queue: room for the depth, within what targets commonly grant.
const QUEUE_SIZE_MIN: u16 = 32;
const QUEUE_SIZE_MAX: u16 = 1024;

/// The longest that a peer may take to be told good-bye.
const SHUTDOWN_MAX: Duration = Duration::from_secs(3);
/// The same after a signal.
const SHUTDOWN_AFTER_SIGNAL: Duration = Duration::from_millis(500);
/// The longest that a signal waits to be noticed.
const NOTICE: Duration = Duration::from_millis(50);

/// The volume under test.
pub struct Volume {
    /// Its identity in messages.
    pub id: VolumeId,
    /// Its namespace identifier.
    pub nsid: u32,
    /// The other namespaces that could have been taken.
    pub others: Vec<u32>,
    /// Size in blocks.
    pub blocks: u64,
    /// Bytes of a block.
    pub block_size: u32,
    /// Its paths in attach order, with their addresses in words.
    pub paths: Vec<(ControllerId, String)>,
    /// The addresses, in the same order.
    pub addresses: Vec<SocketAddr>,
}

/// Everything that runs, with one volume attached over all paths.
pub struct Session {
    /// The volume.
    pub volume: Volume,
    /// The target in this process, if there is one.
    pub embedded: Option<Embedded>,
    /// How the volume selects paths.
    pub policy: Policy,
    host: HostHandle<JobMessage>,
    running: Running,
    jobs: usize,
}

impl Session {
    /// Starts the reactors and attaches all paths within the connect timeout.
    pub fn start(args: &RunArgs, placement: &Placement, stop: &AtomicBool) -> anyhow::Result<Self> {
        let mut group = Group::new();
        let target = args.transports.is_empty().then(|| {
            let reactor = group.add_reactor(Some(placement.target), Idle::Spin);
            Embedded::seat(&mut group, reactor)
        });
        let reactors: Vec<usize> = placement
            .host
            .iter()
            .map(|&core| group.add_reactor(Some(core), Idle::Spin))
            .collect();
        let control = *reactors.first().context("no core for the host")?;
        let mut identity = HostIdentity::random();
        if let Some(nqn) = &args.hostnqn {
            identity.nqn = nqn.clone();
        }
        let host = Host::install(&mut group, identity, control, &reactors, |_| Jobs::new());
        let running = group.start().context("starting the reactors")?;

        let prepared = target
            .map(|handle| Embedded::configure(handle, args.namespace))
            .transpose()
            .and_then(|embedded| {
                let transports = match &embedded {
                    Some(embedded) => embedded.transports(),
                    None => args.transports.clone(),
                };
                Ok((embedded, attach(args, &host, &transports, stop)?))
            });
        match prepared {
            Ok((embedded, volume)) => Ok(Self {
                volume,
                embedded,
                policy: policy(args),
                host,
                running,
                jobs: reactors.len(),
            }),
            Err(error) => {
                running.stop();
                running.join();
                Err(error)
            }
        }
    }

    /// Jobs, one for each I/O reactor.
    pub fn jobs(&self) -> usize {
        self.jobs
    }

    /// Tells a job something.
    pub fn send(&self, job: usize, message: JobMessage) -> anyhow::Result<()> {
        if !self.host.tell(job, message) {
            bail!("I/O reactor {job} takes no messages any more");
        }
        Ok(())
    }

    /// Ends all connections and threads in order.
    pub fn end(self, stop: &AtomicBool) {
        end(&self.host, self.running, stop);
    }
}

/// Ends all connections and threads of a host in order; after a signal with less patience.
pub fn end(host: &HostHandle<JobMessage>, running: Running, stop: &AtomicBool) {
    host.shut_down_within(match stop.load(Ordering::Relaxed) {
        true => SHUTDOWN_AFTER_SIGNAL,
        false => SHUTDOWN_MAX,
    });
    running.stop();
    running.join();
}

fn policy(args: &RunArgs) -> Policy {
    if args.policy == PolicyName::ActivePassive {
        return Policy::ActivePassive;
    }
    let selector = args.selector.unwrap_or_default();
    // The arguments were checked: --min-io has a meaning here.
    let counted = args.min_io.and_then(|min_io| selector.with_min_io(min_io));
    Policy::ActiveActive(counted.unwrap_or(selector))
}

fn attach(
    args: &RunArgs,
    host: &HostHandle<JobMessage>,
    transports: &[TransportId],
    stop: &AtomicBool,
) -> anyhow::Result<Volume> {
    let deadline = now() + args.connect_timeout;
    let depth = u16::try_from(args.depth).unwrap_or(u16::MAX);
    for transport in transports {
        let options = AttachOptions {
            digests: Digests {
                header: args.hdgst,
                data: args.ddgst,
            },
            require_digests: args.require_digests,
            sq_flow_control: args.sq_flow_control,
            keep_alive_ms: args.kato,
            queue_size: depth
                .saturating_add(1)
                .clamp(QUEUE_SIZE_MIN, QUEUE_SIZE_MAX),
            connect_timeout: deadline.saturating_duration_since(now()),
            policy: policy(args),
            ..AttachOptions::default()
        };
        let mut transport = transport.clone();
        if transport.hostnqn.is_none() {
            transport.hostnqn.clone_from(&args.hostnqn);
        }
        let request = AttachRequest {
            name: NAME.to_owned(),
            transport: transport.clone(),
            options,
        };
        let attached = attach_or_stop(host, request, stop)?;
        if attached.volumes.is_empty() {
            bail!("{transport} has no active namespace");
        }
    }
    volume(host, transports.len(), args.nsid)
}

/// Attaches a controller; a signal ends the waiting, and the attach with its host.
pub fn attach_or_stop(
    host: &HostHandle<JobMessage>,
    request: AttachRequest,
    stop: &AtomicBool,
) -> anyhow::Result<Attached> {
    let (sender, answer) = mpsc::sync_channel(1);
    let reply = Box::new(move |result| {
        // Whoever was interrupted no longer listens.
        let _ = sender.send(result);
    });
    if host
        .request(HostRequest::Attach(Box::new(request), reply))
        .is_err()
    {
        bail!("the host has stopped");
    }
    loop {
        match answer.recv_timeout(NOTICE) {
            Ok(result) => return Ok(result?),
            Err(RecvTimeoutError::Timeout) if stop.load(Ordering::Relaxed) => {
                return Err(Interrupted("before all paths were connected").into());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => bail!("the host has stopped"),
        }
    }
}

/// The volume of namespace `nsid`, or the first one of a host; it must have `paths_wanted` paths.
pub fn volume(
    host: &HostHandle<JobMessage>,
    paths_wanted: usize,
    nsid: Option<u32>,
) -> anyhow::Result<Volume> {
    let mut volumes = host.volumes()?;
    volumes.sort_by_key(|volume| volume.nsid);
    let controllers = host.controllers()?;
    let nsids: Vec<u32> = volumes.iter().map(|volume| volume.nsid).collect();
    let volume = match nsid {
        None => volumes.first().context("no namespace was found")?,
        Some(nsid) => volumes
            .iter()
            .find(|volume| volume.nsid == nsid)
            .ok_or_else(|| {
                let there: Vec<String> = nsids.iter().map(u32::to_string).collect();
                Usage(format!(
                    "--nsid {nsid} is not there: allowed are {}",
                    there.join(", ")
                ))
            })?,
    };
    let ids = volume
        .reactors
        .first()
        .map(|reactor| reactor.paths.as_slice());
    let mut paths = Vec::new();
    let mut addresses = Vec::new();
    for path in ids.unwrap_or_default() {
        let controller = controllers
            .iter()
            .find(|controller| controller.controller == path.controller)
            .context("a path without a controller")?;
        paths.push((path.controller, controller.transport.addr.to_string()));
        addresses.push(controller.transport.addr);
    }
    if paths.len() != paths_wanted {
        bail!(
            "the volume {} has {} of {} paths: namespaces that differ between the addresses do not make one volume",
            volume.name,
            paths.len(),
            paths_wanted
        );
    }
    Ok(Volume {
        id: volume.volume,
        nsid: volume.nsid,
        others: nsids
            .into_iter()
            .filter(|&nsid| nsid != volume.nsid)
            .collect(),
        blocks: volume.blocks,
        block_size: volume.block_size,
        paths,
        addresses,
    })
}
