//! `pollux-perf compare`: the gate that tells whether one result is worse than another, or that it cannot tell.

mod args;
mod effect;
mod gate;
mod live;
mod looks;
mod ranks;
mod sample;
mod shown;
mod student;
mod verdict;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use anyhow::Context;

pub use self::args::CompareArgs;
pub use self::gate::Gates;
use self::live::Live;
use self::sample::{Measured, Sample, other_surroundings};
pub use self::verdict::{Comparison, Verdict};
use self::verdict::{judge, looks};
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
    let comparison = match args.live {
        true => live(args, signals)?,
        false => saved(args)?,
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

fn live(args: &CompareArgs, signals: &Signals) -> anyhow::Result<Comparison> {
    let folder = std::env::temp_dir().join(format!("pollux-compare-{}", std::process::id()));
    std::fs::create_dir(&folder).with_context(|| format!("'{}'", folder.display()))?;
    let live = Live {
        commands: [&args.base, &args.new],
        gates: &args.fail_on,
        max_time: args.max_time,
        seed: args.seed.unwrap_or_else(random_seed),
        force: args.force,
    };
    let comparison = live.run(&folder, &signals.stop);
    // What is left in the folder for temporary files is nobody's.
    let _ = std::fs::remove_dir_all(&folder);
    comparison
}

fn saved(args: &CompareArgs) -> anyhow::Result<Comparison> {
    let read = |list: &str| -> anyhow::Result<Vec<Saved>> {
        list.split(',')
            .map(|name| Saved::read(Path::new(name)))
            .collect()
    };
    let (base, new) = (read(&args.base)?, read(&args.new)?);
    compare([&base, &new], &args.fail_on, args.force)
}

/// Compares results of base and new, of which there is one at least on each side.
///
/// # Errors
///
/// [`crate::errors::Usage`] for results of different workloads, unless `force` is set; a result that lacks something.
pub fn compare(sides: [&[Saved]; 2], gates: &Gates, force: bool) -> anyhow::Result<Comparison> {
    let [base, new] = sides;
    let (mut doubts, mut doubtful) = (Vec::new(), Doubtful::default());
    for other in sides.into_iter().flatten() {
        doubtful.note(other);
        if other.object["interrupted"] == true {
            doubts.push(format!("{} was interrupted before its time", other.name));
        }
        for doubt in same_workload(&base[0], other, force, "compared")? {
            if !doubts.contains(&doubt) {
                doubts.push(doubt);
            }
        }
    }
    for (side, results) in SIDES.into_iter().zip(sides) {
        let failures: u64 = results.iter().map(|result| result.failures).sum();
        if failures > 0 {
            doubts.push(format!("{failures} I/Os of {side} failed or did not end"));
        }
    }
    let samples = match sides.iter().all(|side| side.len() >= RESULTS_MIN) {
        true => Measured::Runs([whole(base)?, whole(new)?]),
        false => {
            doubts.push("the samples are parts of few runs: what differs from run to run is not seen; --live, or four results and more of each side".to_owned());
            if base[0].object["jobs"]
                .as_array()
                .is_some_and(|jobs| !jobs.is_empty())
            {
                doubts.push("jobs are not compared one by one, as the parts of a run are of all jobs together".to_owned());
            }
            Measured::Parts([parts(base)?, parts(new)?])
        }
    };
    let first = samples.sides().into_iter().flatten().next().cloned();
    let alpha = looks(first.as_ref(), gates).last();
    let mut comparison = judge(&samples, gates, alpha);
    doubts.extend(doubtful.in_words());
    comparison.doubts = doubts;
    comparison.surroundings = other_surroundings(&base[0], &new[0]);
    Ok(comparison)
}

fn whole(results: &[Saved]) -> anyhow::Result<Vec<Sample>> {
    results.iter().map(Sample::whole).collect()
}

fn parts(results: &[Saved]) -> anyhow::Result<Vec<Sample>> {
    let parts: anyhow::Result<Vec<_>> = results.iter().map(Sample::parts).collect();
    Ok(parts?.into_iter().flatten().collect())
}

/// What the sides are called.
const SIDES: [&str; 2] = ["base", "new"];

/// Results that were doubtful by themselves.
#[derive(Debug, Default)]
struct Doubtful {
    results: usize,
    doubtful: usize,
    last: String,
}

impl Doubtful {
    fn note(&mut self, saved: &Saved) {
        self.results += 1;
        let mut doubts = saved.object["doubts"].as_array().into_iter().flatten();
        if let Some(doubt) = doubts.next().and_then(serde_json::Value::as_str) {
            self.doubtful += 1;
            self.last = format!("{}: {doubt}", saved.name);
        }
    }

    fn in_words(&self) -> Option<String> {
        let Self {
            results,
            doubtful,
            last,
        } = self;
        (*doubtful > 0).then(|| {
            format!("{doubtful} of {results} results are doubtful themselves, such as {last}")
        })
    }
}

#[cfg(test)]
mod tests;
