//! Many runs, on several threads, and what they came to together.

use std::collections::BTreeMap;
use std::io::{IsTerminal, stderr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::draw;
use super::run::{RunResult, run};
use super::scenario::What;

/// How many runs, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The first seed; each run has the next.
    pub seed: u64,
    pub runs: Option<u64>,
    pub time: Option<Duration>,
    pub jobs: usize,
}

/// What all runs came to.
#[derive(Debug, Default)]
pub struct Total {
    pub runs: u64,
    pub ios: u64,
    pub commands: u64,
    pub statuses: u64,
    /// Virtual time.
    pub time: Duration,
    /// Real time.
    pub took: Duration,
    pub errors: BTreeMap<&'static str, u64>,
    pub done: BTreeMap<What, u64>,
    /// A hash of all runs, in any order.
    pub hash: u64,
    /// The lowest seed that failed, of those that were run.
    pub failed: Option<u64>,
}

impl Total {
    fn add(&mut self, seed: u64, outcome: &RunResult) {
        self.runs += 1;
        self.ios += outcome.ios;
        self.commands += outcome.commands;
        self.statuses += outcome.statuses;
        self.time += Duration::from_nanos(outcome.time);
        self.hash ^= outcome
            .hash
            .rotate_left(u32::try_from(seed % 64).unwrap_or(0));
        for (&name, count) in &outcome.errors {
            *self.errors.entry(name).or_default() += count;
        }
        for (&what, count) in &outcome.done {
            *self.done.entry(what).or_default() += count;
        }
        if outcome.violation.is_some() {
            self.failed = Some(self.failed.map_or(seed, |failed| failed.min(seed)));
        }
    }

    /// For people.
    pub fn report(&self) -> String {
        let list = |entries: Vec<String>| match entries.is_empty() {
            true => "none".to_owned(),
            false => entries.join(", "),
        };
        let done = self.done.iter().map(|(w, n)| format!("{} {n}", w.name()));
        let errors = self.errors.iter().map(|(name, n)| format!("{name} {n}"));
        let minutes = self.took.as_secs_f64() / 60.0;
        format!(
            "{} runs in {:.1} s ({:.0} a minute), {:.1} hours of virtual time\n\
             {} I/Os, {} commands, {} status answers, trace {:016x}\n\
             faults: {}\n\
             I/Os that ended with an error: {}\n",
            self.runs,
            self.took.as_secs_f64(),
            self.runs as f64 / minutes.max(1e-9),
            self.time.as_secs_f64() / 3600.0,
            self.ios,
            self.commands,
            self.statuses,
            self.hash,
            list(done.collect()),
            list(errors.collect()),
        )
    }
}

/// Runs until the limits are reached, or a run fails.
#[expect(
    clippy::disallowed_methods,
    reason = "real time is for progress and limits; runs know nothing of it"
)]
pub fn batch(limits: Limits) -> Total {
    let next = Arc::new(AtomicU64::new(limits.seed));
    let stop = Arc::new(AtomicBool::new(false));
    let (sender, outcomes) = mpsc::channel();
    let end = limits.runs.map(|runs| limits.seed.saturating_add(runs));
    for _ in 0..limits.jobs {
        let (next, stop, sender) = (next.clone(), stop.clone(), sender.clone());
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if end.is_some_and(|end| seed >= end) {
                    return;
                }
                let outcome = run(&draw::scenario(seed), false);
                if sender.send((seed, outcome)).is_err() {
                    return;
                }
            }
        });
    }
    drop(sender);
    let mut total = Total::default();
    let begun = Instant::now();
    let mut told = begun;
    let shows = stderr().is_terminal();
    while let Ok((seed, outcome)) = outcomes.recv() {
        total.add(seed, &outcome);
        let now = Instant::now();
        if total.failed.is_some() || limits.time.is_some_and(|time| now - begun >= time) {
            stop.store(true, Ordering::Relaxed);
        }
        if shows && now - told >= Duration::from_secs(1) {
            told = now;
            let of = limits
                .runs
                .map_or(String::new(), |runs| format!(" of {runs}"));
            let Total { runs, ios, .. } = total;
            eprint!("\r{runs}{of} runs, {ios} I/Os, no rule broken");
        }
    }
    if shows {
        eprint!("\r\x1b[K");
    }
    total.took = begun.elapsed();
    total
}
