//! Two commands in turns: each block runs both twice, in an order that is drawn, such as A B B A.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use pollux_reactor::Rng;

use super::effect::shuffle;
use super::gate::Gates;
use super::sample::{Sample, other_surroundings};
use super::verdict::{Comparison, Samples, judge};
use crate::clock::now;
use crate::errors::Interrupted;
use crate::run::LiveLine;
use crate::saved::{Saved, same_workload};

/// Before so many blocks nothing is decided.
const BLOCKS_MIN: usize = 4;
/// Of the looks before the last: looking often must not find often what is not there.
const CONFIDENCE_BETWEEN: f64 = 0.99;
/// Of the last look.
pub const CONFIDENCE: f64 = 0.95;

/// What is run.
pub struct Live<'a> {
    /// Of the base.
    pub base: &'a str,
    /// Of what is compared with it.
    pub new: &'a str,
    /// What decides.
    pub gates: &'a Gates,
    /// How long it may take.
    pub max_time: Duration,
    /// Of the order and the test.
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
        let mut blocks: Vec<Samples> = Vec::new();
        let mut live = LiveLine::new();
        let mut first: [Option<Saved>; 2] = [None, None];
        let (mut surroundings, mut doubts) = (Vec::new(), Vec::new());
        let mut longest = Duration::ZERO;
        loop {
            let block_begun = now();
            let mut order = [false, false, true, true];
            shuffle(&mut order, &mut rng);
            let mut block = Samples::default();
            for is_new in order {
                let command = if is_new { self.new } else { self.base };
                let saved = one(command, folder);
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let saved = saved?;
                if saved.failures > 0 {
                    bail!("'{command}': {} I/Os failed", saved.failures);
                }
                let side = if is_new {
                    &mut block.new
                } else {
                    &mut block.base
                };
                side.push(Sample::whole(&saved)?);
                first[usize::from(is_new)].get_or_insert(saved);
                live.say(&format!(
                    "block {}: {} of 4 runs, {:.0} of {:.0} s",
                    blocks.len() + 1,
                    block.base.len() + block.new.len(),
                    begun.elapsed().as_secs_f64(),
                    self.max_time.as_secs_f64()
                ));
                if let [Some(base), Some(new)] = &first
                    && blocks.is_empty()
                {
                    doubts = same_workload(base, new, self.force, "compared")?;
                    surroundings = other_surroundings(base, new);
                }
            }
            let stopped = stop.load(Ordering::Relaxed);
            if !stopped {
                blocks.push(block);
            }
            longest = longest.max(block_begun.elapsed());
            let last = stopped || begun.elapsed() + longest > self.max_time;
            let confidence = if last { CONFIDENCE } else { CONFIDENCE_BETWEEN };
            if blocks.is_empty() {
                return Err(Interrupted("before the first block was complete").into());
            }
            if !last && blocks.len() < BLOCKS_MIN {
                continue;
            }
            let mut comparison = judge(&blocks, self.gates, confidence, self.seed);
            if last || comparison.is_decided() {
                live.clear();
                comparison.seconds = Some(begun.elapsed().as_secs_f64());
                (comparison.doubts, comparison.surroundings) = (doubts, surroundings);
                return Ok(comparison);
            }
        }
    }
}

/// Runs a command, and reads what it writes.
fn one(command: &str, folder: &Path) -> anyhow::Result<Saved> {
    let file: PathBuf = folder.join("result.json");
    // What an earlier run has left is not to be taken for this one's.
    let _ = std::fs::remove_file(&file);
    let output = Command::new("sh")
        .arg("-c")
        .arg(format!("exec {command} --json \"$0\""))
        .arg(&file)
        .stdin(Stdio::null())
        .output()
        .context("starting sh")?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let last = errors.lines().last().unwrap_or("nothing on standard error");
        bail!("'{command}' ended with {}: {last}", output.status);
    }
    Saved::read(&file).with_context(|| format!("'{command}'"))
}
