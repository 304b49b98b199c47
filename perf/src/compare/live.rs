//! Two commands in turns: each block runs both twice, in an order that is drawn, such as A B B A.

use std::fs::File;
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
use crate::clock::{now, sleep_until};
use crate::errors::Interrupted;
use crate::run::LiveLine;
use crate::saved::{Saved, same_workload};

/// Before so many blocks nothing is decided.
const BLOCKS_MIN: usize = 4;
/// Confidence of the looks before the last: looking often must not find often what is not there.
const CONFIDENCE_BETWEEN: f64 = 0.99;
/// Confidence of the last look.
pub const CONFIDENCE: f64 = 0.95;

/// The longest that a signal, or the end of a command, waits to be noticed.
const NOTICE: Duration = Duration::from_millis(20);

/// What is run.
pub struct Live<'a> {
    /// Command of the base.
    pub base: &'a str,
    /// Command of what is compared with it.
    pub new: &'a str,
    /// What decides.
    pub gates: &'a Gates,
    /// How long it may take.
    pub max_time: Duration,
    /// Seed of the order and the test.
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
                let saved = one(command, folder, stop);
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
            // What there is of both in a block that was cut off counts if it is all there is.
            let is_whole = block.base.len() + block.new.len() == order.len();
            let is_all = blocks.is_empty() && !block.base.is_empty() && !block.new.is_empty();
            if is_whole || is_all {
                blocks.push(block);
            }
            if stopped {
                doubts.push("interrupted before its time".to_owned());
            }
            longest = longest.max(block_begun.elapsed());
            let last = stopped || begun.elapsed() + longest > self.max_time;
            let confidence = if last { CONFIDENCE } else { CONFIDENCE_BETWEEN };
            if blocks.is_empty() {
                return Err(Interrupted("before both commands had run").into());
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
