//! `pollux host`: a host as a process of its own, managed by JSON-RPC.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use pollux_multipath::{self as multipath, Application, Host, PollGroup};
use pollux_nvme_tcp::host::{self, HostIdentity};
use pollux_nvme_tcp::spec::Nqn;
use pollux_reactor::rpc::{self, Methods};
use pollux_reactor::{Context, Group, Progress};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::UsageError;
use crate::manage::{self, ManageArgs};
use crate::target_args::{Cores, IdlePolicy};

/// The longest that controllers may take to be told good-bye.
pub const SHUTDOWN_MAX: Duration = Duration::from_secs(3);

const EXAMPLES: &str = "\
Example:
  pollux host -r /run/pollux-host.sock
  pollux rpc bdev_nvme_attach_controller '{\"name\": \"disk\", \"trtype\": \"tcp\", \"traddr\": \"127.0.0.1\",
      \"trsvcid\": \"4420\", \"subnqn\": \"nqn.2026-01.io.pollux:target\"}' -r /run/pollux-host.sock
  pollux rpc bdev_nvme_get_io_paths -r /run/pollux-host.sock

Stop it with Ctrl-C or SIGTERM. Exit code: 0, 1 (could not start), 2 (wrong usage).";

/// Attach controllers and follow their paths, without I/O of its own.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct HostArgs {
    /// Name of this host. Default: a random one.
    #[arg(long)]
    pub hostnqn: Option<Nqn>,

    /// Cores to run on, one reactor each: a list (0,2-3) or a mask (0x3). Without it one reactor runs
    /// wherever the system puts it.
    #[arg(long, value_name = "LIST|MASK")]
    pub cores: Option<Cores>,

    /// What a reactor does when it finds nothing to do.
    #[arg(long, default_value = "auto")]
    pub idle: IdlePolicy,

    #[command(flatten)]
    pub manage: ManageArgs,
}

/// Does no I/O.
struct Onlooker;

impl Application for Onlooker {
    type Message = ();

    fn on_message(&mut self, (): (), _: &mut PollGroup, _: &mut Context<'_>) {}

    fn poll(&mut self, _: &mut PollGroup, _: &mut Context<'_>) -> Progress {
        Progress::Idle
    }
}

/// Runs a host until SIGINT or SIGTERM.
pub fn run(args: &HostArgs) -> anyhow::Result<()> {
    if !args.manage.is_used() {
        return Err(UsageError("--rpc-socket, --rpc-listen or --config is needed".into()).into());
    }
    let flags = [multipath::LOG_FLAG, host::LOG_FLAG, rpc::LOG_FLAG];
    let log = args.manage.start_log(&flags)?;
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("signal handlers")?;
    let mut group = Group::new();
    let reactors = args.idle.add_reactors(&mut group, args.cores.as_ref());
    let mut identity = HostIdentity::random();
    if let Some(nqn) = &args.hostnqn {
        identity.nqn = nqn.clone();
    }
    let host = Host::builder()
        .identity(identity)
        .control(0)
        .io(&reactors)
        .install(&mut group, |_| Onlooker);
    let mut methods = Methods::new();
    multipath::rpc::register(&mut methods, host.clone());
    let stop = signals.handle();
    let failure = args.manage.add_server(methods, &log, &mut group, 0, stop)?;
    let running = group.start().map_err(manage::start_error)?;

    signals.forever().next();
    host.shut_down_within(SHUTDOWN_MAX);
    running.stop();
    running.join();
    manage::outcome(Some(failure))
}
