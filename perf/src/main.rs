//! pollux-perf: NVMe/TCP load over one volume with several paths, the bare TCP floor to
//! compare with, and what disturbances cost.

// The objects of results have many members.
#![recursion_limit = "256"]

mod bench;
mod cli;
mod clock;
mod compare;
mod cores;
mod disturb;
mod embedded;
mod ending;
mod errors;
mod fio;
mod floor;
mod help;
mod load;
mod machine;
mod merge;
mod output;
mod plots;
mod profile;
mod report;
mod results;
mod run;
mod saved;
mod serve;
mod signals;
mod size;
mod stats;
mod text;
mod values;
mod volume;

use std::io::Write;
use std::process::ExitCode;

use cli::{Exit, Invocation};
use errors::{Interrupted, Usage};
use results::{EXIT_FAILURE, Files, measure};
use run::LiveLine;
use signals::Signals;

const EXIT_USAGE: u8 = 2;

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
        Invocation::Run(jobs) => {
            let args = &jobs[0].args;
            let files = Files {
                json: args.json.as_deref(),
                hdr_log: args.hdr_log.as_deref(),
                hdr_text: args.hdr_text.as_deref(),
                format: args.output_format,
            };
            measure(files, signals, || run::run(jobs, LiveLine::new(), stop))
        }
        Invocation::Floor(args) => {
            let files = Files {
                format: args.output_format,
                ..Files::json(&args.json)
            };
            measure(files, signals, || floor::run(args, stop))
        }
        Invocation::Disturb(args) => measure(Files::json(&args.json), signals, || {
            disturb::run(args, &signals.stop)
        }),
        Invocation::Merge(args) => {
            let files = Files {
                json: args.json.as_deref(),
                hdr_log: args.hdr_log.as_deref(),
                hdr_text: args.hdr_text.as_deref(),
                format: args.output_format,
            };
            measure(files, signals, || merge::run(args))
        }
        Invocation::Report(args) => plots::run(args),
        Invocation::Bench(args) => bench::run(args, signals),
        Invocation::Compare(args) => compare::run(args, signals),
        Invocation::Serve(args) => serve::run(args, stop),
    }
}
