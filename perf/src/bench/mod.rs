//! `pollux-perf bench`: the jobs of a profile in turns, each compared with the baseline's of its name.

mod args;

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::slice;
use std::sync::atomic::Ordering;

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};

pub use self::args::BenchArgs;
use crate::compare::{Comparison, Verdict, compare};
use crate::errors::{Interrupted, Usage};
use crate::output::Output;
use crate::profile::{Profile, ProfileJob};
use crate::report::Report;
use crate::results::{EXIT_FAILURE, Results};
use crate::run::{self, LiveLine};
use crate::saved::Saved;
use crate::signals::Signals;
use crate::stats::LatencySummary;
use crate::text::{duration, grouped, rounded};

/// Version of the file that `--save` writes.
const BASELINE_VERSION: u64 = 1;

/// The runs of a job.
struct Measured<'a> {
    job: &'a ProfileJob,
    runs: Vec<Saved>,
}

impl Measured<'_> {
    fn name(&self) -> &str {
        &self.job.job.name
    }
}

/// Runs the suite, and shows what it came to.
///
/// # Errors
///
/// A profile or baseline that is wrong, a job that could not run, a file that cannot be written.
pub fn run(args: &BenchArgs, signals: &Signals) -> anyhow::Result<ExitCode> {
    let text = fs::read_to_string(&args.profile)
        .map_err(|error| Usage(format!("--profile '{}': {error}", args.profile.display())))?;
    let profile = Profile::parse(&text)
        .map_err(|error| Usage(format!("'{}': {error}", args.profile.display())))?;
    let json = match &args.json {
        Some(path) => Some(Output::new("--json", path)?),
        None => None,
    };
    let save = match &args.save {
        Some(path) => Some(Output::new("--save", path)?),
        None => None,
    };
    let baseline = match &args.baseline {
        Some(path) => Some(read_baseline(path)?),
        None => None,
    };
    let Suite { measured, cut } = measure(&profile, signals)?;
    let failures: u64 = measured
        .iter()
        .flat_map(|job| &job.runs)
        .map(|run| run.failures)
        .sum();
    let mut comparisons = Vec::new();
    for job in &measured {
        let base = baseline.as_ref().and_then(|jobs| find(jobs, job.name()));
        comparisons.push(match base {
            Some(base) => Some(
                compare([base, &job.runs], &job.job.fail_on, args.force)
                    .with_context(|| format!("job {}", job.name()))?,
            ),
            None => None,
        });
    }
    let mut text = table(&measured);
    if let Some(cut) = &cut {
        let _ = writeln!(text, "\n  {cut}");
    }
    for (job, comparison) in measured.iter().zip(&comparisons) {
        if let Some(comparison) = comparison {
            let _ = write!(text, "\n{}: {}", job.name(), comparison.table());
        } else if baseline.is_some() {
            let _ = writeln!(text, "\n{}: the baseline does not have it", job.name());
        }
    }
    // A job without a counterpart is no proof that nothing is worse.
    let verdict = baseline.as_ref().map(|_| {
        let verdicts = comparisons.iter().map(|comparison| {
            comparison
                .as_ref()
                .map_or(Verdict::Undecided, Comparison::verdict)
        });
        verdicts.max().unwrap_or(Verdict::Undecided)
    });
    if let Some(verdict) = verdict {
        let _ = writeln!(text, "\nsuite: {}", verdict.name());
    }
    if failures > 0 {
        let _ = writeln!(text, "\n{failures} I/Os failed or did not end");
    }
    let stopped = signals.stop.load(Ordering::Relaxed);
    let is_good = failures == 0 && !stopped;
    let over_baseline = args.save.is_some() && same_file(&args.save, &args.baseline);
    let keeps = over_baseline && verdict != Some(Verdict::Passed);
    if save.is_some() && (keeps || !is_good) {
        let _ = writeln!(text, "not saved: the suite is not passed");
    }
    // A reader that went away does not change the verdict.
    let _ = match json.as_ref().is_some_and(Output::is_stdout) {
        true => write!(std::io::stderr(), "{text}"),
        false => write!(std::io::stdout(), "{text}"),
    };
    // A file that cannot be written does not keep the other from being.
    let told = json.map_or(Ok(()), |json| {
        let object = verdicts(&measured, &comparisons, verdict, stopped, failures);
        json.write(&object)
    });
    if let Some(save) = save
        && !keeps
        && is_good
    {
        save.write(&baseline_object(&measured))?;
    }
    told?;
    if failures > 0 {
        return Ok(ExitCode::from(EXIT_FAILURE));
    }
    if stopped {
        return Ok(ExitCode::from(signals.exit_code()));
    }
    Ok(verdict.map_or(ExitCode::SUCCESS, Verdict::exit_code))
}

/// What was measured before the suite was through, or a signal came.
struct Suite<'a> {
    measured: Vec<Measured<'a>>,
    /// The run that the signal has cut off, in words.
    cut: Option<String>,
}

/// Runs all jobs once, and again, until each has had its loops: what drifts on the machine falls on all of them alike.
fn measure<'a>(profile: &'a Profile, signals: &Signals) -> anyhow::Result<Suite<'a>> {
    let jobs = profile.jobs.iter();
    let mut measured: Vec<Measured<'a>> = jobs
        .map(|job| Measured {
            job,
            runs: Vec::new(),
        })
        .collect();
    let turns = profile.jobs.iter().map(|job| job.loops).max().unwrap_or(0);
    let (mut interrupted, mut cut) = (false, None);
    'all: for turn in 0..turns {
        for measured in measured.iter_mut().filter(|m| turn < m.job.loops) {
            if signals.stop.load(Ordering::Relaxed) {
                interrupted = true;
                break 'all;
            }
            let job = &measured.job.job;
            let name = &job.name;
            let mut live = LiveLine::about(name);
            live.say(&format!("run {} of {}", turn + 1, measured.job.loops));
            let report = match run::run(slice::from_ref(job), live, &signals.stop) {
                Err(error) if error.is::<Interrupted>() => {
                    interrupted = true;
                    break 'all;
                }
                report => report.with_context(|| format!("job {name}"))?,
            };
            if report.interrupted() {
                // Half a run is shown, but is not one that others are compared with.
                interrupted = true;
                let shown = in_short(&report);
                cut = Some(format!(
                    "INTERRUPTED in a run of {name}, which is left out: {shown}"
                ));
                break 'all;
            }
            if report.stats.total.ios() == 0 {
                bail!("job {name}: no I/O succeeded");
            }
            let text = report.json().to_string();
            measured.runs.push(Saved::parse(name, &text)?);
        }
    }
    measured.retain(|job| !job.runs.is_empty());
    if interrupted && measured.is_empty() && cut.is_none() {
        return Err(Interrupted("before the first run began").into());
    }
    Ok(Suite { measured, cut })
}

/// One line of what a run gave.
fn in_short(report: &Report) -> String {
    let latency = LatencySummary::of(&report.stats.total.latency);
    let p99 = latency.percentiles()[2]
        .1
        .map_or("n/a".to_owned(), duration);
    format!("{} IOPS, p99 {p99}", grouped(rounded(report.iops())))
}

/// What each job gave, in the middle of its runs.
fn table(measured: &[Measured<'_>]) -> String {
    let mut out = format!(
        "  {:<24}{:>5}{:>13}{:>10}{:>11}{:>11}\n",
        "job", "runs", "IOPS", "MiB/s", "p50", "p99"
    );
    for job in measured {
        let middle = |value: fn(&Saved) -> Option<f64>| {
            let mut values: Vec<f64> = job.runs.iter().filter_map(value).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied()
        };
        let percentile = |ns: Option<f64>| ns.map_or("n/a".to_owned(), |ns| duration(rounded(ns)));
        let iops = middle(|run| run.number("iops").ok()).unwrap_or(0.0);
        let bytes = middle(|run| run.number("bytes_per_sec").ok()).unwrap_or(0.0);
        let p50 = middle(|run| percentile_of(run, 0));
        let p99 = middle(|run| percentile_of(run, 2));
        let _ = writeln!(
            out,
            "  {:<24}{:>5}{:>13}{:>10.0}{:>11}{:>11}",
            job.name(),
            job.runs.len(),
            grouped(rounded(iops)),
            bytes / f64::from(1 << 20),
            percentile(p50),
            percentile(p99),
        );
    }
    out
}

#[expect(clippy::cast_precision_loss, reason = "for display")]
fn percentile_of(run: &Saved, place: usize) -> Option<f64> {
    let summary = LatencySummary::of(&run.latency);
    summary.percentiles()[place].1.map(|ns| ns as f64)
}

fn baseline_object(measured: &[Measured<'_>]) -> Value {
    let runs = |job: &Measured<'_>| -> Vec<Value> {
        let runs = job.runs.iter();
        runs.map(|run| run.object.clone()).collect()
    };
    let jobs = measured.iter();
    let jobs: Map<String, Value> = jobs
        .map(|job| (job.name().to_owned(), runs(job).into()))
        .collect();
    json!({ "kind": "bench", "baseline_version": BASELINE_VERSION, "jobs": jobs })
}

fn verdicts(
    measured: &[Measured<'_>],
    comparisons: &[Option<Comparison>],
    verdict: Option<Verdict>,
    stopped: bool,
    failures: u64,
) -> Value {
    let pairs = measured.iter().zip(comparisons);
    let jobs: Map<String, Value> = pairs
        .map(|(job, comparison)| {
            let comparison = comparison.as_ref().map(Comparison::json);
            let value = json!({ "runs": job.runs.len(), "comparison": comparison });
            (job.name().to_owned(), value)
        })
        .collect();
    json!({
        "schema_version": 1,
        "kind": "bench",
        "version": env!("CARGO_PKG_VERSION"),
        "verdict": verdict.map(|verdict| verdict.name().to_lowercase()),
        "interrupted": stopped,
        "failures": failures,
        "jobs": jobs,
    })
}

/// The results of each job of a baseline.
fn read_baseline(path: &Path) -> anyhow::Result<Vec<(String, Vec<Saved>)>> {
    let shown = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("--baseline '{shown}'"))?;
    baseline(&text).with_context(|| format!("--baseline '{shown}'"))
}

fn baseline(text: &str) -> anyhow::Result<Vec<(String, Vec<Saved>)>> {
    let object: Value = match serde_json::from_str(text) {
        Ok(object) => object,
        Err(error) if error.is_eof() => bail!("cut off: {error}"),
        Err(error) => bail!("not JSON: {error}"),
    };
    match object.get("baseline_version").map(Value::as_u64) {
        Some(Some(BASELINE_VERSION)) => {}
        Some(_) => bail!(
            "baseline version {}: this program reads version {BASELINE_VERSION}",
            object["baseline_version"]
        ),
        None => bail!("not a baseline: bench --save writes one"),
    }
    let jobs = object["jobs"].as_object().context("it has no jobs")?;
    let mut all = Vec::new();
    for (name, runs) in jobs {
        let runs = runs
            .as_array()
            .filter(|runs| !runs.is_empty())
            .with_context(|| format!("job {name} has no runs"))?;
        let runs: anyhow::Result<Vec<Saved>> = runs
            .iter()
            .map(|run| Saved::parse(name, &run.to_string()))
            .collect();
        all.push((name.clone(), runs.with_context(|| format!("job {name}"))?));
    }
    Ok(all)
}

fn find<'a>(jobs: &'a [(String, Vec<Saved>)], name: &str) -> Option<&'a [Saved]> {
    let found = jobs.iter().find(|(known, _)| known == name);
    found.map(|(_, runs)| runs.as_slice())
}

fn same_file(one: &Option<std::path::PathBuf>, other: &Option<std::path::PathBuf>) -> bool {
    let real = |path: &Option<std::path::PathBuf>| {
        let path = path.as_ref()?;
        Some(fs::canonicalize(path).unwrap_or_else(|_| path.clone()))
    };
    real(one) == real(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saved::tests::object;

    #[test]
    fn a_baseline_is_read_or_what_is_wrong_with_it_is_said() {
        let good = json!({"baseline_version": 1, "jobs": {"a": [object(1), object(2)]}});
        let jobs = baseline(&good.to_string()).unwrap();
        assert_eq!(find(&jobs, "a").unwrap().len(), 2);
        assert!(find(&jobs, "b").is_none());
        let text = good.to_string();
        for (text, wanted) in [
            (&text[..text.len() / 2], "cut off"),
            ("hello", "not JSON"),
            ("{}", "bench --save"),
            (r#"{"baseline_version": 9, "jobs": {}}"#, "version 9"),
            (r#"{"baseline_version": 1}"#, "no jobs"),
            (
                r#"{"baseline_version": 1, "jobs": {"a": []}}"#,
                "job a has no runs",
            ),
            (r#"{"baseline_version": 1, "jobs": {"a": [{}]}}"#, "job a: "),
        ] {
            let error = format!("{:#}", baseline(text).unwrap_err());
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}
