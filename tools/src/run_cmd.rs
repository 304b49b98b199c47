//! `pollux run`: a target and a host in one process, managed by JSON-RPC.

use anyhow::Context as _;
use clap::Args;
use pollux_multipath::{self as multipath, Queues};
use pollux_nvme_tcp::host;
use pollux_nvme_tcp::target::{self, rpc::register_beside};
use pollux_reactor::Group;
use pollux_reactor::rpc::{self, Methods};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::host_cmd::HostOptions;

const EXAMPLES: &str = "\
Example, a gateway: a volume over two paths is a namespace again
  pollux run -r /run/pollux.sock
  alias call='pollux rpc -r /run/pollux.sock'
  for port in 4420 4421; do
    call bdev_nvme_attach_controller '{\"name\": \"disk\", \"trtype\": \"tcp\", \"traddr\": \"10.0.0.7\",
        \"trsvcid\": \"'$port'\", \"subnqn\": \"nqn.2026-01.io.pollux:target\"}'
  done
  call nvmf_create_transport '{\"trtype\": \"tcp\"}'
  call nvmf_create_subsystem '{\"nqn\": \"nqn.2026-01.io.pollux:gateway\", \"allow_any_host\": true}'
  call nvmf_subsystem_add_ns '{\"nqn\": \"nqn.2026-01.io.pollux:gateway\", \"namespace\": {\"bdev_name\": \"diskn1\"}}'
  call nvmf_subsystem_add_listener '{\"nqn\": \"nqn.2026-01.io.pollux:gateway\", \"listen_address\":
      {\"trtype\": \"tcp\", \"adrfam\": \"ipv4\", \"traddr\": \"0.0.0.0\", \"trsvcid\": \"4420\"}}'

Stop it with Ctrl-C or SIGTERM. Exit code: 0, 1 (could not start), 2 (wrong usage).";

/// Serve namespaces and attach controllers in one process: a volume of the one can be a namespace of the other.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RunArgs {
    #[command(flatten)]
    pub options: HostOptions,
}

/// Runs both until SIGINT or SIGTERM.
pub fn run(RunArgs { options }: &RunArgs) -> anyhow::Result<()> {
    let log = options.start_log(&[
        target::LOG_FLAG,
        multipath::LOG_FLAG,
        host::LOG_FLAG,
        rpc::LOG_FLAG,
    ])?;
    let signals = Signals::new([SIGINT, SIGTERM]).context("signal handlers")?;
    let mut group = Group::new();
    let reactors = options.reactors.add_to(&mut group);
    let target = target::install(&mut group, &reactors);
    let host = options.install(&mut group, &reactors, Queues::new);

    // What stands in both is asked of both, and so are the calls that are saved: disks and volumes come before namespaces.
    let mut methods = Methods::joined();
    register_beside(
        &mut methods,
        target,
        multipath::rpc::find_disk(host.clone()),
    );
    multipath::rpc::register(&mut methods, host.clone());
    // Each numbers what it tells by itself: volumes come and go unasked, the target's disks do not.
    methods.leave_to_last("notify_get_notifications");
    options.serve(methods, &log, (group, signals), &host)
}
