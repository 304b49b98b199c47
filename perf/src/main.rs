//! pollux-perf: NVMe/TCP load over one volume with several paths, the bare TCP floor to
//! compare with, and what disturbances cost.

mod cli;
mod clock;
mod cores;
mod disturb;
mod embedded;
mod ending;
mod floor;
mod job;
mod load;
mod machine;
mod output;
mod pattern;
mod report;
mod run;
mod serve;
mod session;
mod size;
mod stats;
mod verify;
mod workload;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cli::{Exit, Invocation};
use output::JsonOutput;
use serde_json::Value;

const EXIT_FAILURE: u8 = 1;
const EXIT_USAGE: u8 = 2;

/// An option that is wrong on this machine or with this volume: exit code 2, not 1.
#[derive(Debug)]
struct Usage(String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// A signal came before there was anything to report.
#[derive(Debug)]
struct Interrupted(&'static str);

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "interrupted {}", self.0)
    }
}

impl std::error::Error for Interrupted {}

fn main() -> ExitCode {
    let invocation = match cli::parse(std::env::args_os()) {
        Ok(invocation) => invocation,
        Err(Exit::Shown(text)) => {
            let _ = write!(std::io::stdout(), "{text}");
            return ExitCode::SUCCESS;
        }
        Err(Exit::Usage(message)) => return fail(EXIT_USAGE, &message),
    };
    let signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return fail(EXIT_FAILURE, &format!("setting up Ctrl-C: {error}")),
    };
    match perform(&invocation, &signals) {
        Ok(code) => code,
        Err(error) if error.is::<Usage>() => fail(EXIT_USAGE, &error.to_string()),
        Err(error) if error.is::<Interrupted>() => fail(signals.exit_code(), &error.to_string()),
        Err(error) => fail(EXIT_FAILURE, &format!("{error:#}")),
    }
}

fn fail(code: u8, message: &str) -> ExitCode {
    let _ = writeln!(
        std::io::stderr(),
        "pollux-perf: {}",
        message.replace('\n', " ")
    );
    ExitCode::from(code)
}

fn perform(invocation: &Invocation, signals: &Signals) -> anyhow::Result<ExitCode> {
    let stop = &*signals.stop;
    match invocation {
        Invocation::Run(args) => measure(args.json.as_deref(), signals, || run::run(args, stop)),
        Invocation::Floor(args) => {
            measure(args.json.as_deref(), signals, || floor::run(args, stop))
        }
        Invocation::Disturb(args) => measure(args.json.as_deref(), signals, || {
            disturb::run(args, &signals.stop)
        }),
        Invocation::Serve(args) => serve::run(args, stop),
    }
}

/// What a measurement has to show.
trait Results {
    /// For people.
    fn table(&self) -> String;
    /// For programs: one object.
    fn json(&self) -> Value;
    /// What makes the exit code 1.
    fn failures(&self) -> u64;
    /// A signal ended it before its time.
    fn interrupted(&self) -> bool;
}

fn measure<R: Results>(
    json: Option<&Path>,
    signals: &Signals,
    run: impl FnOnce() -> anyhow::Result<R>,
) -> anyhow::Result<ExitCode> {
    let json = json.map(JsonOutput::new).transpose()?;
    let report = run()?;
    // A reader that went away does not make the run a failure.
    let _ = match &json {
        Some(json) if json.is_stdout() => write!(std::io::stderr(), "{}", report.table()),
        _ => write!(std::io::stdout(), "{}", report.table()),
    };
    if let Some(json) = json {
        json.write(&report.json())?;
    }
    Ok(if report.failures() > 0 {
        ExitCode::from(EXIT_FAILURE)
    } else if report.interrupted() {
        ExitCode::from(signals.exit_code())
    } else {
        ExitCode::SUCCESS
    })
}

/// The first Ctrl-C or SIGTERM ends the run with its report; a second one ends the process.
struct Signals {
    stop: Arc<AtomicBool>,
    latest: Arc<AtomicUsize>,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        let (stop, latest) = (Arc::new(AtomicBool::new(false)), Arc::default());
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            let (status, number) = (128 + signal, signal.unsigned_abs() as usize);
            signal_hook::flag::register_conditional_shutdown(signal, status, Arc::clone(&stop))?;
            signal_hook::flag::register_usize(signal, Arc::clone(&latest), number)?;
            signal_hook::flag::register(signal, Arc::clone(&stop))?;
        }
        Ok(Self { stop, latest })
    }

    /// Of a process that the latest signal has ended: 130 for Ctrl-C, 143 for SIGTERM.
    fn exit_code(&self) -> u8 {
        u8::try_from(128 + self.latest.load(Ordering::Relaxed)).unwrap_or(u8::MAX)
    }
}
