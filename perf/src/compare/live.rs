//! Two commands in turns, in pairs; which of a pair is first is drawn, so that an order such as A B B A comes out.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use pollux_reactor::Rng;

use super::gate::Gates;
use super::sample::{Measured, Sample, other_surroundings};
use super::verdict::{self, Comparison, judge};
use super::{Doubtful, SIDES};
use crate::clock::{now, sleep_until};
use crate::errors::Interrupted;
use crate::run::LiveLine;
use crate::saved::{Saved, same_workload};

/// The longest that a signal, or the end of a command, waits to be noticed.
const NOTICE: Duration = Duration::from_millis(20);

/// What is run.
pub struct Live<'a> {
    /// Commands of the base, and of what is compared with it.
    pub commands: [&'a str; 2],
    /// What decides.
    pub gates: &'a Gates,
    /// How long it may take.
    pub max_time: Duration,
    /// Seed of the order.
    pub seed: u64,
    /// Different workloads may be compared.
    pub force: bool,
}

impl Live<'_> {
    /// Runs both until each gate is decided or the time is up.
    ///
    /// # Errors
    ///
    /// A command that fails, results of different workloads, a signal before there was anything to compare.
    pub fn run(&self, folder: &Path, stop: &AtomicBool) -> anyhow::Result<Comparison> {
        let begun = now();
        let mut rng = Rng::seeded(self.seed);
        let mut pairs: Vec<[Sample; 2]> = Vec::new();
        let mut live = LiveLine::new();
        let mut first: Option<[Saved; 2]> = None;
        let mut doubtful = Doubtful::default();
        let mut doubts = Vec::new();
        let mut longest = Duration::ZERO;
        let mut looks = verdict::looks(None, self.gates);
        loop {
            let pair_begun = now();
            let pair = self.pair(rng.below(2) == 1, folder, stop)?;
            let stopped = stop.load(Ordering::Relaxed);
            if let Some(pair) = pair {
                pair.iter().for_each(|saved| doubtful.note(saved));
                let [base, new] = &pair;
                let samples = [Sample::whole(base)?, Sample::whole(new)?];
                if first.is_none() {
                    doubts = same_workload(base, new, self.force, "compared")?;
                    looks = verdict::looks(Some(&samples[0]), self.gates);
                    first = Some(pair);
                }
                pairs.push(samples);
            }
            let Some([base, new]) = &first else {
                return Err(Interrupted("before both commands had run").into());
            };
            live.say(&format!(
                "{} pairs of runs, {:.0} of {:.0} s",
                pairs.len(),
                begun.elapsed().as_secs_f64(),
                self.max_time.as_secs_f64()
            ));
            longest = longest.max(pair_begun.elapsed());
            let last = stopped || begun.elapsed() + longest > self.max_time;
            let alpha = match last {
                true => looks.last(),
                false => match looks.due(pairs.len()) {
                    Some(alpha) => alpha,
                    None => continue,
                },
            };
            let mut comparison = judge(&Measured::Pairs(pairs.clone()), self.gates, alpha);
            if !last && !comparison.is_decided() {
                continue;
            }
            live.clear();
            if pairs.len() < looks.pairs_min() {
                doubts.push(format!(
                    "{} pairs of runs are the fewest that can tell: shorter runs, or more --max-time",
                    looks.pairs_min()
                ));
            }
            if stopped {
                doubts.push("interrupted before its time".to_owned());
            }
            doubts.extend(doubtful.in_words());
            comparison.doubts = doubts;
            comparison.surroundings = other_surroundings(base, new);
            comparison.seconds = Some(begun.elapsed().as_secs_f64());
            comparison.seed = Some(self.seed);
            return Ok(comparison);
        }
    }

    /// Both commands, one after the other; `None` if a signal came meanwhile.
    fn pair(
        &self,
        new_first: bool,
        folder: &Path,
        stop: &AtomicBool,
    ) -> anyhow::Result<Option<[Saved; 2]>> {
        let mut results = [None, None];
        for side in if new_first { [1, 0] } else { [0, 1] } {
            let command = self.commands[side];
            let saved = one(command, folder, stop);
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let mut saved = saved?;
            if saved.failures > 0 {
                bail!("'{command}': {} I/Os failed", saved.failures);
            }
            SIDES[side].clone_into(&mut saved.name);
            results[side] = Some(saved);
        }
        let [base, new] = results;
        Ok(base.zip(new).map(|(base, new)| [base, new]))
    }
}

/// Runs a command, and reads what it writes.
fn one(command: &str, folder: &Path, stop: &AtomicBool) -> anyhow::Result<Saved> {
    let file: PathBuf = folder.join("result.json");
    // What an earlier run has left is not to be taken for this one's.
    let _ = std::fs::remove_file(&file);
    // A file rather than a pipe: nobody has to read it meanwhile.
    let errors = folder.join("errors.txt");
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(format!("exec {command} --json \"$0\""))
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&errors).with_context(|| format!("'{}'", errors.display()))?)
        .spawn()
        .context("starting sh")?;
    let status = loop {
        if let Some(status) = child.try_wait().context("waiting for sh")? {
            break status;
        }
        if stop.load(Ordering::Relaxed) {
            // Nobody wants its result any more; on a terminal it has had the signal as well.
            let _ = child.kill();
        }
        sleep_until(now() + NOTICE);
    };
    if !status.success() {
        let errors = std::fs::read(&errors).unwrap_or_default();
        let errors = String::from_utf8_lossy(&errors);
        let last = errors.lines().last().unwrap_or("nothing on standard error");
        bail!("'{command}' ended with {status}: {last}");
    }
    Saved::read(&file).with_context(|| format!("'{command}'"))
}
