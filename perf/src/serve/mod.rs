//! `pollux-perf serve`: a host that is managed by JSON-RPC and runs a workload on all its volumes when asked to.

mod args;
mod methods;
mod orders;
mod results;
mod workload_run;

use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::Context;
use pollux_multipath::{self as multipath, Host};
use pollux_nvme_tcp::host::{self, HostIdentity};
use pollux_reactor::logging::{self, Logging};
use pollux_reactor::rpc::{
    self, Config, ConfigError, FilesUnder, Methods, Responder, RpcError, Server, observe,
};
use pollux_reactor::{Group, Idle, Running, StartError};

pub use self::args::ServeArgs;
use self::orders::Orders;
use self::workload_run::Failure;
use crate::errors::Usage;
use crate::load::{JobMessage, Jobs};
use crate::results::EXIT_FAILURE;
use crate::volume;

/// Idle time after which a reactor without a core of its own sleeps.
const PARK_AFTER: Duration = Duration::from_micros(100);
/// The longest that a signal waits to be noticed.
const NOTICE: Duration = Duration::from_millis(50);

/// What the main thread is told.
enum Command {
    /// The configuration stands, or why it does not.
    Configured(Result<(), ConfigError>),
    /// Run a workload and answer.
    Run(Orders, Responder),
}

/// The reactors with the host on them.
struct Bench {
    host: Host<JobMessage>,
    /// A bit mask for each reactor.
    core_masks: Vec<u64>,
    keep_going: bool,
    /// See `--io-timeout`.
    io_timeout: Option<Duration>,
    /// Jobs that were started so far: each has a number of its own.
    jobs: usize,
}

/// Runs until SIGTERM, until a run has failed, or until the workload is done without `-z`.
///
/// # Errors
///
/// Reactors, sockets or the configuration could not be set up.
pub fn run(args: &ServeArgs, stop: &AtomicBool) -> anyhow::Result<ExitCode> {
    let (commands, inbox) = mpsc::channel();
    let flags = [multipath::LOG_FLAG, host::LOG_FLAG, rpc::LOG_FLAG];
    let log = logging::start(&flags).context("log")?;
    log.set_print_level(args.log_level);
    let (mut bench, running) = start(args, &commands, log)?;
    let result = serve(args, &mut bench, &inbox, stop);
    // What has come meanwhile is answered as cancelled.
    drop(inbox);
    volume::end(&bench.host, running, stop);
    log.flush();
    result
}

fn start(
    args: &ServeArgs,
    commands: &mpsc::Sender<Command>,
    log: Logging,
) -> anyhow::Result<(Bench, Running)> {
    let mut group = Group::new();
    let cores: Vec<Option<usize>> = match &args.cores {
        Some(list) => list.cores().iter().copied().map(Some).collect(),
        None => vec![None],
    };
    let reactors: Vec<usize> = cores
        .iter()
        .map(|&core| {
            let idle = match core {
                Some(_) => Idle::Spin,
                None => Idle::Park { after: PARK_AFTER },
            };
            group.add_reactor(core, idle)
        })
        .collect();
    let control = *reactors.first().context("no reactor")?;
    let identity = HostIdentity::random();
    let host = Host::builder()
        .identity(identity)
        .control(control)
        .io(&reactors)
        .install(&mut group, |_| Jobs::new());
    let mut methods = Methods::new();
    multipath::rpc::register(&mut methods, host.clone());
    methods::register(&mut methods, args.orders(), commands.clone());
    observe(&mut methods, &mut group);
    log.register(&mut methods);
    server(args, methods, commands)?.install(&mut group, control);
    let running = group.start().map_err(|error| match error {
        StartError::NoSuchCore { .. } => anyhow::Error::new(Usage(format!("-m: {error}"))),
        error => error.into(),
    })?;
    let core_masks = cores
        .iter()
        .enumerate()
        .map(|(index, core)| 1u64.checked_shl(shift(core.unwrap_or(index))).unwrap_or(0))
        .collect();
    let bench = Bench {
        host,
        core_masks,
        keep_going: args.keep_going,
        io_timeout: args.io_timeout,
        jobs: 0,
    };
    Ok((bench, running))
}

fn shift(core: usize) -> u32 {
    u32::try_from(core).unwrap_or(u32::MAX)
}

fn server(
    args: &ServeArgs,
    methods: Methods,
    commands: &mpsc::Sender<Command>,
) -> anyhow::Result<Server> {
    let mut server = Server::new(methods);
    if let Some(folder) = &args.files_under {
        let files = FilesUnder::new(folder);
        let files = files.with_context(|| format!("--files-under {}", folder.display()))?;
        server.confine_files(files);
    }
    if let Some(path) = &args.config {
        let name = path.display();
        let text = std::fs::read_to_string(path).with_context(|| name.to_string())?;
        Config::parse(&text)
            .and_then(|config| server.configure(config, false))
            .with_context(|| name.to_string())?;
    }
    if let Some(path) = &args.socket {
        server.listen_unix(path)?;
    }
    if args.wait_for_rpc {
        server.wait_for_start();
    }
    let commands = commands.clone();
    server.when_configured(move |result| {
        // A main thread that has ended needs it no more.
        let _ = commands.send(Command::Configured(result));
    });
    Ok(server)
}

fn serve(
    args: &ServeArgs,
    bench: &mut Bench,
    inbox: &mpsc::Receiver<Command>,
    stop: &AtomicBool,
) -> anyhow::Result<ExitCode> {
    while !stop.load(Ordering::Relaxed) {
        match inbox.recv_timeout(NOTICE) {
            Ok(Command::Configured(Err(error))) => {
                return Err(anyhow::Error::new(error).context("configuration"));
            }
            Ok(Command::Configured(Ok(()))) if !args.wait => {
                let result = bench.run(&args.orders(), stop);
                match result {
                    Ok(results) => {
                        // A reader that went away does not make the run a failure.
                        let _ = writeln!(std::io::stdout(), "{results:#}");
                        return Ok(ExitCode::SUCCESS);
                    }
                    Err(Failure::Usage(text)) => return Err(Usage(text).into()),
                    Err(Failure::Run(text)) => anyhow::bail!("{text}"),
                }
            }
            Ok(Command::Configured(Ok(()))) => {}
            Ok(Command::Run(orders, responder)) => {
                let result = bench.run(&orders, stop);
                let failed = matches!(result, Err(Failure::Run(_)));
                responder.answer(result.map_err(|failure| match failure {
                    Failure::Usage(text) => RpcError::invalid_params(text),
                    Failure::Run(text) => RpcError::internal(text),
                }));
                if failed {
                    // The end comes after the answer: both are messages to the control reactor.
                    return Ok(ExitCode::from(EXIT_FAILURE));
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => anyhow::bail!("the reactors have ended"),
        }
    }
    Ok(ExitCode::SUCCESS)
}
