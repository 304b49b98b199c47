//! The system around the jobs: reactors, the embedded target if there is one, the host, and its paths.

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, bail};
use pollux_multipath::{
    AttachOptions, AttachRequest, ControllerId, ControllerIdentity, ControllerStatus, Host,
    HostError, Policy, TransportId,
};
use pollux_nvme_tcp::host::{Digests, HostIdentity};
use pollux_reactor::{Counters, Group, Idle, Running};

use super::args::KATO_IS_NEEDED;
use super::capture::PacketFile;
use super::choice::Choice;
use super::jobs::JobArgs;
use super::{PolicyName, RunArgs};
use crate::clock::now;
use crate::cores::Placement;
use crate::embedded::Embedded;
use crate::errors::Usage;
use crate::load::{JobMessage, Jobs};
use crate::machine::Pressure;
use crate::volume::{self, Volume, attach_or_stop, volumes};

/// Name of the group of controllers of the first subsystem; a volume is this with `n` and the NSID.
const NAME: &str = "perf";

/// Entries of an I/O queue: room for the depth, within what targets commonly grant.
const QUEUE_SIZE_MIN: u16 = 32;
const QUEUE_SIZE_MAX: u16 = 1024;

/// Everything that runs, with all volumes attached over all paths.
pub struct Session {
    /// The volumes that there are.
    pub volumes: Vec<Volume>,
    /// The volumes that each job that was asked for works on.
    pub places: Vec<Vec<usize>>,
    /// The paths of all volumes that are worked on, in attach order.
    pub paths: Vec<Path>,
    /// The target in this process, if there is one.
    pub embedded: Option<Embedded>,
    /// How volumes select paths.
    pub policy: Policy,
    /// The subsystems.
    pub subnqns: Vec<String>,
    host: Host<JobMessage>,
    running: Running,
    poll_groups: usize,
    /// The host's reactors, as the executor counts them.
    reactors: Vec<usize>,
    cores: Vec<usize>,
    packets: Option<PacketFile>,
}

/// A reactor makes its counters known once in 4,096 turns. After so many they are a share of the time to be told.
const TURNS_MIN: u64 = 32 * 1024;

/// What goes on around the jobs, as counters at one moment.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// What each of the host's reactors has counted.
    pub reactors: Vec<Counters>,
    /// When the counters were read.
    pub at: Option<Instant>,
    /// What takes time from its cores.
    pub pressure: Pressure,
}

impl Surroundings {
    /// The share of the time since an earlier moment in which each of the host's reactors was busy; empty if that is not
    /// known.
    pub fn busy_since(&self, earlier: &Self) -> Vec<f64> {
        let (Some(from), Some(to)) = (earlier.at, self.at) else {
            return Vec::new();
        };
        let span_ns = to.saturating_duration_since(from).as_nanos().max(1) as f64;
        let pairs = self.reactors.iter().zip(&earlier.reactors);
        let shares = pairs.map(|(now, before)| {
            let busy_ns = now.busy_ns.saturating_sub(before.busy_ns) as f64;
            let turns = now.turns.saturating_sub(before.turns);
            (turns >= TURNS_MIN).then(|| (busy_ns / span_ns).min(1.0))
        });
        shares.collect::<Option<_>>().unwrap_or_default()
    }
}

/// A controller, and where it is.
#[derive(Clone, Debug)]
pub struct Path {
    /// Model, serial number and firmware revision, as it says; empty if it has said nothing.
    pub identity: ControllerIdentity,
    /// I/Os that a queue pair of it takes at a time.
    pub in_flight_max: Option<u16>,
    /// Its identity in messages.
    pub controller: ControllerId,
    /// Its address.
    pub address: SocketAddr,
}

/// Paths that have one subsystem in common.
struct Subsystem {
    /// Name of its controllers.
    name: String,
    subnqn: String,
    transports: Vec<TransportId>,
}

impl Session {
    /// Starts the reactors and attaches all paths within the connect timeout.
    pub fn start(
        jobs: &[JobArgs],
        placement: &Placement,
        stop: &AtomicBool,
    ) -> anyhow::Result<Self> {
        let args = &jobs.first().context("no job")?.args;
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
        let own = match target {
            Some(_) => args.access(&identity.nqn, &Embedded::nqn()?)?,
            None => None,
        };
        let host = Host::builder()
            .identity(identity)
            .control(control)
            .io(&reactors)
            .queue_pairs(args.qpairs as usize)
            .install(&mut group, |_| Jobs::new());
        let running = group.start().context("starting the reactors")?;

        let prepared = target
            .map(|handle| Embedded::configure(handle, &args.namespaces, own, args.ktls()))
            .transpose()
            .and_then(|embedded| {
                let transports = match &embedded {
                    Some(embedded) => embedded.transports(),
                    None => args.transports.clone(),
                };
                let subsystems = subsystems(&transports);
                attach(jobs, &host, &subsystems, stop)?;
                let (volumes, places) = chosen(jobs, &host, &subsystems)?;
                let paths = all_paths(&volumes, &places, &host.controllers()?);
                Ok((embedded, subsystems, volumes, places, paths))
            });
        match prepared {
            Ok((embedded, subsystems, volumes, places, paths)) => Ok(Self {
                paths,
                subnqns: subsystems.into_iter().map(|s| s.subnqn).collect(),
                volumes,
                places,
                embedded,
                policy: policy(args),
                running,
                poll_groups: host.io_reactors(),
                host,
                reactors,
                cores: placement.host.clone(),
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

    /// Counters of reactors and cores as they are now.
    pub fn surroundings(&self) -> Surroundings {
        let counters = self.running.counters();
        let own = self.reactors.iter().filter_map(|&r| counters.get(r));
        Surroundings {
            reactors: own.copied().collect(),
            at: Some(now()),
            pressure: Pressure::read(&self.cores),
        }
    }

    /// How many there are: for each core as many as it has queue pairs on a path.
    pub fn poll_groups(&self) -> usize {
        self.poll_groups
    }

    /// Tells the jobs of a poll group something.
    pub fn send(&self, poll_group: usize, message: JobMessage) -> anyhow::Result<()> {
        if self.host.tell(poll_group, message).is_err() {
            bail!("poll group {poll_group} takes no messages any more");
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

/// The subsystems of the paths, in the order in which they are first named.
fn subsystems(transports: &[TransportId]) -> Vec<Subsystem> {
    let mut found: Vec<Subsystem> = Vec::new();
    for transport in transports {
        let subnqn = transport.subnqn.to_string();
        match found.iter_mut().find(|known| known.subnqn == subnqn) {
            Some(known) => known.transports.push(transport.clone()),
            None => found.push(Subsystem {
                name: match found.len() {
                    0 => NAME.to_owned(),
                    before => format!("{NAME}{}", before + 1),
                },
                subnqn,
                transports: vec![transport.clone()],
            }),
        }
    }
    found
}

fn attach(
    jobs: &[JobArgs],
    host: &Host<JobMessage>,
    subsystems: &[Subsystem],
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    let args = &jobs.first().context("no job")?.args;
    let deadline = now() + args.connect_timeout;
    for subsystem in subsystems {
        for transport in &subsystem.transports {
            let mut options = AttachOptions::default();
            options.digests = Digests {
                header: args.hdgst,
                data: args.ddgst,
            };
            options.require_digests = args.require_digests;
            options.auth = args.auth();
            options.tls = args.tls();
            options.ktls = args.ktls();
            options.sq_flow_control = args.sq_flow_control;
            options.keep_alive_ms = args.kato;
            options.queue_size = queue_size(jobs);
            options.connect_timeout = deadline.saturating_duration_since(now());
            options.fencing = args.fencing();
            options.policy = policy(args);
            let mut transport = transport.clone();
            if transport.hostnqn.is_none() {
                transport.hostnqn.clone_from(&args.hostnqn);
            }
            let mut request = AttachRequest::new(&subsystem.name, transport.clone());
            request.options = options;
            let attached = attach_or_stop(host, request, stop).map_err(|error| {
                match error.downcast_ref() {
                    // What else is asked for is valid.
                    Some(HostError::Invalid(_)) if args.kato == 0 => {
                        Usage(KATO_IS_NEEDED.to_owned()).into()
                    }
                    _ => error,
                }
            })?;
            if attached.volumes.is_empty() {
                bail!("{transport} has no active namespace");
            }
        }
    }
    Ok(())
}

/// Room for what all jobs of a poll group have in flight; of all namespaces nobody knows yet how many there are.
fn queue_size(jobs: &[JobArgs]) -> u16 {
    let in_flight = jobs.iter().map(|JobArgs { args, .. }| {
        let volumes = match &args.nsid {
            None | Some(Choice::First) => 1,
            Some(Choice::Listed(listed)) => listed.len() as u64,
            Some(Choice::All) => u64::from(QUEUE_SIZE_MAX),
        };
        let depth = u64::from(args.depth.div_ceil(args.qpairs));
        depth * u64::from(args.numjobs) * volumes
    });
    let entries = in_flight.sum::<u64>().saturating_add(1);
    u16::try_from(entries)
        .unwrap_or(u16::MAX)
        .clamp(QUEUE_SIZE_MIN, QUEUE_SIZE_MAX)
}

/// All volumes, and those that each job works on.
fn chosen(
    jobs: &[JobArgs],
    host: &Host<JobMessage>,
    subsystems: &[Subsystem],
) -> anyhow::Result<(Vec<Volume>, Vec<Vec<usize>>)> {
    let mut all = Vec::new();
    let mut paths_wanted = Vec::new();
    for subsystem in subsystems {
        let own = volumes(host, &subsystem.name)?;
        paths_wanted.extend(own.iter().map(|_| subsystem.transports.len()));
        all.extend(own);
    }
    if all.is_empty() {
        bail!("no namespace was found");
    }
    let named: Vec<(&str, u32)> = all.iter().map(|v| (v.name.as_str(), v.nsid)).collect();
    let mut places = Vec::new();
    for job in jobs {
        let choice = job.args.nsid.clone().unwrap_or_default();
        let own = choice.among(&named)?;
        for &place in &own {
            all[place].check_paths(paths_wanted[place])?;
        }
        places.push(own);
    }
    Ok((all, places))
}

fn all_paths(
    volumes: &[Volume],
    places: &[Vec<usize>],
    controllers: &[ControllerStatus],
) -> Vec<Path> {
    let mut paths: Vec<Path> = Vec::new();
    for volume in places.iter().flatten().map(|&place| &volumes[place]) {
        for (&(controller, _), &address) in volume.paths.iter().zip(&volume.addresses) {
            if !paths.iter().any(|known| known.controller == controller) {
                let status = controllers.iter().find(|c| c.controller == controller);
                paths.push(Path {
                    identity: status
                        .and_then(|status| status.identity.clone())
                        .unwrap_or_default(),
                    in_flight_max: status.and_then(|status| status.in_flight_max),
                    controller,
                    address,
                });
            }
        }
    }
    paths.sort_by_key(|path| path.controller);
    paths
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn how_busy_a_reactor_was_is_told_where_it_is_known() {
        let begun = now();
        let at = |seconds, turns, busy_ns| {
            let mut counters = Counters::default();
            counters.turns = turns;
            counters.busy_ns = busy_ns;
            Surroundings {
                reactors: vec![counters],
                at: Some(begun + Duration::from_secs(seconds)),
                pressure: Pressure::default(),
            }
        };
        let (before, after) = (at(1, 1_000, 7), at(3, 100_000, 500_000_007));
        assert_eq!(after.busy_since(&before), [0.25]);
        let few = at(3, 2_000, 500_000_007);
        assert_eq!(few.busy_since(&before), [0.0; 0], "it has hardly turned");
        assert_eq!(after.busy_since(&Surroundings::default()), [0.0; 0]);
    }
}
