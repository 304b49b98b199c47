//! `pollux sim`: the product on a virtual clock, where everything goes wrong that can.
//!
//! Hosts, multipath and target are the product's own code; simulated are threads, clock, network and disks. A run follows
//! from its seed alone: [`scenario`] says what there is and what happens, [`draw`] draws it, [`mod@run`] carries it out on a
//! [`world`]. [`load`] does I/O and [`oracle`] judges what it reads; [`check`] judges what hosts say of their paths,
//! [`monitor`] what passes on each connection, [`doubts`] what must wait. [`wire`], [`peer`] and [`disk`] are where things go wrong.

mod actions;
mod batch;
mod book;
mod check;
mod disk;
mod doubts;
mod draw;
mod frames;
mod load;
mod monitor;
mod oracle;
mod panics;
mod peer;
mod run;
mod scenario;
mod shrink;
mod wire;
mod world;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use uuid::Uuid;

use self::batch::{Limits, batch};
use self::run::run;
use self::scenario::Scenario;
use self::shrink::shrink;
use crate::UsageError;

/// ANATT of the target.
const ANATT: Duration = Duration::from_secs(10);

/// Bytes per block.
const BLOCK: usize = 512;

/// Runs that are spent on making a failure smaller.
const SHRINK_RUNS: u32 = 400;

/// Lines of a timeline that are shown of a failure.
const LINES: usize = 60;

const EXAMPLES: &str = "\
Examples:
  pollux sim                          a thousand runs with fresh seeds
  pollux sim --seed 42 --runs 100000  these seeds
  pollux sim --seconds 600 --jobs 2   for ten minutes, on two cores
  pollux sim --seed 42 --trace        one run, with all that happened in it
  pollux sim --scenario FILE          what a file says; a failure prints one

A run that breaks a rule ends it all: its seed, the rule, the last events before, and the smallest scenario that breaks
the same rule are printed. Exit code: 0, 1 (a rule is broken), 2 (wrong usage).";

/// Run hosts and targets on a virtual clock, with faults of every kind, and judge all they do.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SimArgs {
    /// Seed of the first run; each further run has the next. Default: a fresh one.
    #[arg(long)]
    pub seed: Option<u64>,

    /// Runs. Default: 1000, or as many as --seconds allow; 1 with --trace.
    #[arg(long)]
    pub runs: Option<u64>,

    /// No new run begins after this time.
    #[arg(long)]
    pub seconds: Option<u64>,

    /// Threads. Default: as many as there are cores.
    #[arg(long)]
    pub jobs: Option<usize>,

    /// Show the scenario of one run and all that happens in it.
    #[arg(long)]
    pub trace: bool,

    /// Run what this file says instead of what a seed draws.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "runs", "seconds", "jobs"])]
    pub scenario: Option<PathBuf>,
}

/// Does what was asked for.
pub fn run_command(args: &SimArgs) -> anyhow::Result<()> {
    panics::keep();
    if let Some(file) = &args.scenario {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        return one(&Scenario::read(&text)?, args.trace);
    }
    let fresh = || Uuid::new_v4().as_u64_pair().0 >> 32;
    let seed = args.seed.unwrap_or_else(fresh);
    if args.trace {
        if args.runs.is_some_and(|runs| runs != 1) {
            return Err(UsageError("--trace is for one run".into()).into());
        }
        return one(&draw::scenario(seed), true);
    }
    if args.jobs == Some(0) {
        return Err(UsageError("--jobs must be at least 1".into()).into());
    }
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let runs = match (args.runs, args.seconds) {
        (None, None) => Some(1000),
        (runs, _) => runs,
    };
    let total = batch(Limits {
        seed,
        runs,
        time: args.seconds.map(Duration::from_secs),
        jobs: args.jobs.unwrap_or_else(cores),
    });
    println!("seeds from {seed} on");
    print!("{}", total.report());
    match total.failed {
        Some(seed) => failed(&draw::scenario(seed)),
        None => Ok(()),
    }
}

/// One run.
fn one(scenario: &Scenario, trace: bool) -> anyhow::Result<()> {
    let outcome = run(scenario, trace);
    if trace {
        println!("{scenario}");
        for line in &outcome.timeline {
            println!("{line}");
        }
    }
    println!(
        "seed {}: {} I/Os in {:.3} s of virtual time, trace {:016x}",
        scenario.seed,
        outcome.ios,
        Duration::from_nanos(outcome.time).as_secs_f64(),
        outcome.hash
    );
    match outcome.violation {
        Some(_) => failed(scenario),
        None => Ok(()),
    }
}

/// Tells of a run that breaks a rule.
fn failed(scenario: &Scenario) -> anyhow::Result<()> {
    let outcome = run(scenario, true);
    let Some(violation) = outcome.violation else {
        bail!(
            "seed {} failed before and does not now: something is not drawn from it",
            scenario.seed
        );
    };
    let small = shrink(scenario, violation.rule, SHRINK_RUNS);
    let told = run(&small, true);
    let timeline = &told.timeline;
    println!("\nthe last of what happened in the smallest run:");
    for line in &timeline[timeline.len().saturating_sub(LINES)..] {
        println!("{line}");
    }
    println!("\nthe smallest run (pollux sim --trace --scenario FILE):");
    print!("{small}");
    println!("\nthe run as it was drawn:\n{scenario}");
    if let Some(violation) = told.violation {
        println!("in the smallest run: {}", violation.what);
    }
    bail!(
        "seed {} breaks a rule after {:.6} s: {}: {}",
        scenario.seed,
        violation.at.as_nanos() as f64 / 1e9,
        violation.rule,
        violation.what
    )
}
