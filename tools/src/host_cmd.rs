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
use crate::manage::{self, Log, ManageArgs};
use crate::reactor_args::ReactorArgs;

/// The longest that controllers may take to be told good-bye.
const SHUTDOWN_MAX: Duration = Duration::from_secs(3);

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
    #[command(flatten)]
    pub options: HostOptions,
}

/// Options of a program with a host that is set up by management alone.
#[derive(Debug, Args)]
pub struct HostOptions {
    /// Name of this host. Default: a random one.
    #[arg(long)]
    pub hostnqn: Option<Nqn>,

    #[command(flatten)]
    pub reactors: ReactorArgs,

    #[command(flatten)]
    pub manage: ManageArgs,
}

impl HostOptions {
    /// Starts the log of a program whose parts have these flags. Nobody could reach one that is not managed.
    pub fn start_log(&self, flags: &[&'static str]) -> anyhow::Result<Log> {
        match self.manage.is_used() {
            true => self.manage.start_log(flags),
            false => {
                let needed = "--rpc-socket, --rpc-listen or --config is needed";
                Err(UsageError(needed.into()).into())
            }
        }
    }

    /// Adds the host to these reactors, control to the first of them.
    pub fn install<A: Application>(
        &self,
        group: &mut Group,
        reactors: &[usize],
        application: impl Fn(usize) -> A + Clone + Send + 'static,
    ) -> Host<A::Message> {
        let mut identity = HostIdentity::random();
        if let Some(nqn) = &self.hostnqn {
            identity.nqn = nqn.clone();
        }
        Host::builder()
            .identity(identity)
            .control(0)
            .io(reactors)
            .install(group, application)
    }

    /// Serves these methods until a signal comes, or until the configuration fails.
    pub fn serve<M: Send + 'static>(
        &self,
        methods: Methods,
        log: &Log,
        (mut group, mut signals): (Group, Signals),
        host: &Host<M>,
    ) -> anyhow::Result<()> {
        let stop = signals.handle();
        let failure = self.manage.add_server(methods, log, &mut group, 0, stop)?;
        let running = group.start().map_err(manage::start_error)?;

        signals.forever().next();
        host.shut_down_within(SHUTDOWN_MAX);
        running.stop();
        running.join();
        manage::outcome(Some(failure))
    }
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
pub fn run(HostArgs { options }: &HostArgs) -> anyhow::Result<()> {
    let log = options.start_log(&[multipath::LOG_FLAG, host::LOG_FLAG, rpc::LOG_FLAG])?;
    let signals = Signals::new([SIGINT, SIGTERM]).context("signal handlers")?;
    let mut group = Group::new();
    let reactors = options.reactors.add_to(&mut group);
    let host = options.install(&mut group, &reactors, |_| Onlooker);
    let mut methods = Methods::new();
    multipath::rpc::register(&mut methods, host.clone());
    options.serve(methods, &log, (group, signals), &host)
}
