//! `pollux-perf compare`: the gate that tells whether one result is worse than another, or that it cannot tell.

mod args;
mod effect;
mod gate;
mod live;
mod sample;
mod verdict;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use anyhow::Context;

pub use self::args::CompareArgs;
pub use self::gate::Gates;
use self::live::{CONFIDENCE, Live};
use self::sample::{Sample, other_surroundings};
pub use self::verdict::{Comparison, Verdict};
use self::verdict::{Samples, judge};
use crate::load::random_seed;
use crate::output::Output;
use crate::results::EXIT_FAILURE;
use crate::saved::{Saved, same_workload};
use crate::signals::Signals;

/// The samples cannot tell.
const EXIT_UNDECIDED: u8 = 3;
/// With so many results of a side, each is a sample; with fewer, the points of their series are.
const RESULTS_MIN: usize = 4;

/// Compares, and shows the verdict.
///
/// # Errors
///
/// Results that cannot be read or that are of different workloads, commands that fail.
pub fn run(args: &CompareArgs, signals: &Signals) -> anyhow::Result<ExitCode> {
    let output = |option, path: &Option<std::path::PathBuf>| {
        let path = path.as_deref();
        path.map(|path| Output::new(option, path)).transpose()
    };
    let json = output("--json", &args.json)?;
    let markdown = output("--markdown", &args.markdown)?;
    let seed = args.seed.unwrap_or_else(random_seed);
    let comparison = match args.live {
        true => live(args, seed, signals)?,
        false => saved(args, seed)?,
    };
    let to_programs = [&json, &markdown].into_iter().flatten();
    // A reader that went away does not change the verdict.
    let _ = match to_programs.into_iter().any(Output::is_stdout) {
        true => write!(std::io::stderr(), "{}", comparison.table()),
        false => write!(std::io::stdout(), "{}", comparison.table()),
    };
    // A file that cannot be written does not keep the other from being.
    let told = json.map_or(Ok(()), |json| json.write(&comparison.json()));
    markdown.map_or(Ok(()), |file| file.write_text(&comparison.markdown()))?;
    told?;
    if signals.stop.load(Ordering::Relaxed) {
        return Ok(ExitCode::from(signals.exit_code()));
    }
    Ok(comparison.verdict().exit_code())
}

impl Verdict {
    /// For scripts.
    pub fn exit_code(self) -> ExitCode {
        match self {
            Self::Passed => ExitCode::SUCCESS,
            Self::Failed => ExitCode::from(EXIT_FAILURE),
            Self::Undecided => ExitCode::from(EXIT_UNDECIDED),
        }
    }
}

fn live(args: &CompareArgs, seed: u64, signals: &Signals) -> anyhow::Result<Comparison> {
    let folder = std::env::temp_dir().join(format!("pollux-compare-{}", std::process::id()));
    std::fs::create_dir(&folder).with_context(|| format!("'{}'", folder.display()))?;
    let live = Live {
        base: &args.base,
        new: &args.new,
        gates: &args.fail_on,
        max_time: args.max_time,
        seed,
        force: args.force,
    };
    let comparison = live.run(&folder, &signals.stop);
    // What is left in the folder for temporary files is nobody's.
    let _ = std::fs::remove_dir_all(&folder);
    comparison
}

fn saved(args: &CompareArgs, seed: u64) -> anyhow::Result<Comparison> {
    let read = |list: &str| -> anyhow::Result<Vec<Saved>> {
        list.split(',')
            .map(|name| Saved::read(Path::new(name)))
            .collect()
    };
    let (base, new) = (read(&args.base)?, read(&args.new)?);
    compare(&base, &new, &args.fail_on, seed, args.force)
}

/// Compares results of which there is one at least on each side.
///
/// # Errors
///
/// [`crate::errors::Usage`] for results of different workloads, unless `force` is set; a result that lacks something.
pub fn compare(
    base: &[Saved],
    new: &[Saved],
    gates: &Gates,
    seed: u64,
    force: bool,
) -> anyhow::Result<Comparison> {
    let mut doubts = Vec::new();
    for other in base.iter().chain(new).skip(1) {
        for doubt in same_workload(&base[0], other, force, "compared")? {
            if !doubts.contains(&doubt) {
                doubts.push(doubt);
            }
        }
    }
    for (side, results) in [("base", base), ("new", new)] {
        let failures: u64 = results.iter().map(|result| result.failures).sum();
        if failures > 0 {
            doubts.push(format!("{failures} I/Os of {side} failed or did not end"));
        }
    }
    let each = base.len() >= RESULTS_MIN && new.len() >= RESULTS_MIN;
    if !each {
        doubts.push("the samples are parts of few runs: what differs from run to run is not seen; --live, or four results and more of each side".to_owned());
    }
    let block = Samples {
        base: samples(base, each)?,
        new: samples(new, each)?,
    };
    let mut comparison = judge(&[block], gates, CONFIDENCE, seed);
    comparison.doubts = doubts;
    comparison.surroundings = other_surroundings(&base[0], &new[0]);
    Ok(comparison)
}

fn samples(results: &[Saved], each: bool) -> anyhow::Result<Vec<Sample>> {
    if each {
        return results.iter().map(Sample::whole).collect();
    }
    let parts: Vec<Vec<Sample>> = results
        .iter()
        .map(Sample::parts)
        .collect::<Result<_, _>>()?;
    Ok(parts.into_iter().flatten().collect())
}
