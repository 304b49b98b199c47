//! The system around the jobs: reactors, the embedded target if there is one, the host, and its paths.

use std::sync::atomic::AtomicBool;

use anyhow::{Context, bail};
use pollux_multipath::{AttachOptions, AttachRequest, Host, Policy, TransportId};
use pollux_nvme_tcp::host::{Digests, HostIdentity};
use pollux_reactor::{Group, Idle, Running};

use super::capture::PacketFile;
use super::{PolicyName, RunArgs};
use crate::clock::now;
use crate::cores::Placement;
use crate::embedded::Embedded;
use crate::load::{JobMessage, Jobs};
use crate::volume::{self, Volume, attach_or_stop, volume};

/// Name of the group of controllers; the volume is this with `n` and the NSID.
const NAME: &str = "perf";

/// Entries of an I/O queue: room for the depth, within what targets commonly grant.
const QUEUE_SIZE_MIN: u16 = 32;
const QUEUE_SIZE_MAX: u16 = 1024;

/// Everything that runs, with one volume attached over all paths.
pub struct Session {
    /// The volume.
    pub volume: Volume,
    /// The target in this process, if there is one.
    pub embedded: Option<Embedded>,
    /// How the volume selects paths.
    pub policy: Policy,
    /// The subsystem.
    pub subnqn: String,
    host: Host<JobMessage>,
    running: Running,
    jobs: usize,
    packets: Option<PacketFile>,
}

impl Session {
    /// Starts the reactors and attaches all paths within the connect timeout.
    pub fn start(args: &RunArgs, placement: &Placement, stop: &AtomicBool) -> anyhow::Result<Self> {
        let mut group = Group::new();
        let packets = args.pcap.as_deref().map(PacketFile::create).transpose()?;
        if let Some(packets) = &packets {
            packets.capture(&mut group);
        }
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
        let host = Host::builder()
            .identity(identity)
            .control(control)
            .io(&reactors)
            .install(&mut group, |_| Jobs::new());
        let running = group.start().context("starting the reactors")?;

        let prepared = target
            .map(|handle| Embedded::configure(handle, args.namespace))
            .transpose()
            .and_then(|embedded| {
                let transports = match &embedded {
                    Some(embedded) => embedded.transports(),
                    None => args.transports.clone(),
                };
                let volume = attach(args, &host, &transports, stop)?;
                Ok((embedded, transports[0].subnqn.to_string(), volume))
            });
        match prepared {
            Ok((embedded, subnqn, volume)) => Ok(Self {
                subnqn,
                volume,
                embedded,
                policy: policy(args),
                host,
                running,
                jobs: reactors.len(),
                packets,
            }),
            Err(error) => {
                running.stop();
                running.join();
                if let Some(packets) = packets {
                    packets.finish();
                }
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
        if self.host.tell(job, message).is_err() {
            bail!("I/O reactor {job} takes no messages any more");
        }
        Ok(())
    }

    /// Ends all connections and threads in order.
    pub fn end(self, stop: &AtomicBool) {
        volume::end(&self.host, self.running, stop);
        if let Some(packets) = self.packets {
            packets.finish();
        }
    }
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
    host: &Host<JobMessage>,
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
            fencing: args.fencing(),
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
