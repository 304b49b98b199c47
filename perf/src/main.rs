//! pollux-perf: NVMe/TCP load over one volume with several paths, the bare TCP floor to
//! compare with, and what disturbances cost.

mod cli;
mod clock;
mod cores;
mod disturb;
mod embedded;
mod floor;
mod job;
mod load;
mod machine;
mod pattern;
mod report;
mod run;
mod serve;
mod session;
mod size;
mod stats;
mod verify;
mod workload;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;

use cli::{Exit, Invocation};
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

fn main() -> ExitCode {
    let invocation = match cli::parse(std::env::args_os()) {
        Ok(invocation) => invocation,
        Err(Exit::Shown(text)) => {
            let _ = write!(std::io::stdout(), "{text}");
            return ExitCode::SUCCESS;
        }
        Err(Exit::Usage(message)) => return fail(EXIT_USAGE, &message),
    };
    match perform(&invocation) {
        Ok(code) => code,
        Err(error) if error.is::<Usage>() => fail(EXIT_USAGE, &error.to_string()),
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

fn perform(invocation: &Invocation) -> anyhow::Result<ExitCode> {
    let stop = stop_flag().context("setting up Ctrl-C")?;
    match invocation {
        Invocation::Run(args) => measure(args.json.as_deref(), || run::run(args, &stop)),
        Invocation::Floor(args) => measure(args.json.as_deref(), || floor::run(args, &stop)),
        Invocation::Disturb(args) => measure(args.json.as_deref(), || disturb::run(args, &stop)),
        Invocation::Serve(args) => serve::run(args, &stop),
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
}

fn measure<R: Results>(
    json: Option<&Path>,
    run: impl FnOnce() -> anyhow::Result<R>,
) -> anyhow::Result<ExitCode> {
    // Opened before the run, so that a result is not lost to a typo.
    let json = json.map(JsonFile::create).transpose()?;
    let report = run()?;
    // A reader that went away does not make the run a failure.
    let _ = write!(std::io::stdout(), "{}", report.table());
    if let Some(json) = json {
        json.write(&report.json())?;
    }
    Ok(match report.failures() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(EXIT_FAILURE),
    })
}

/// Set by the first Ctrl-C or SIGTERM, which ends the run with its report; a second one ends the process.
fn stop_flag() -> std::io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// Where `--json` goes.
struct JsonFile<'a> {
    path: &'a Path,
    file: File,
}

impl<'a> JsonFile<'a> {
    fn create(path: &'a Path) -> anyhow::Result<Self> {
        match File::create(path) {
            Ok(file) => Ok(Self { path, file }),
            Err(error) => Err(Usage(format!(
                "--json '{}' cannot be written: {error}",
                path.display()
            ))
            .into()),
        }
    }

    fn write(mut self, object: &Value) -> anyhow::Result<()> {
        writeln!(self.file, "{object:#}")
            .with_context(|| format!("writing '{}'", self.path.display()))
    }
}
