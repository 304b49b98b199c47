//! A client that asks for the status of all paths again and again, on a thread of its own, and judges every answer.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, anyhow};
use hdrhistogram::Histogram;
use pollux_multipath::Policy;
use pollux_reactor::rpc::Client;
use serde_json::{Value, json};

use super::answer::Answer;
use super::bench::Bench;
use super::results::{Section, spread, spread_json};
use crate::clock::{now, sleep_until};
use crate::stats::{self, latency_histogram};
use crate::text::grouped;

/// What has been seen so far, for those who wait for it. Nothing of it is touched by a reactor.
#[derive(Default)]
struct Seen {
    answers: AtomicU64,
    by_optimized: AtomicU64,
    by_other: AtomicU64,
}

/// The running client.
pub struct Poller {
    stop: Arc<AtomicBool>,
    seen: Arc<Seen>,
    thread: JoinHandle<anyhow::Result<Polled>>,
}

/// What it has seen.
pub struct Polled {
    /// Answers.
    pub answers: u64,
    /// Different states among them, numbers aside.
    pub states: usize,
    /// Answers that contradict themselves.
    pub contradictions: u64,
    /// The first of them, in words.
    pub first: Option<String>,
    /// From request to answer.
    pub latency: Histogram<u64>,
    /// Time from start to end.
    pub time: Duration,
    /// Processor time of the client's thread, if the system tells.
    pub cpu: Option<Duration>,
}

impl Poller {
    /// Starts asking: as fast as the answers come, or every so often.
    pub fn start(bench: &Bench, every: Option<Duration>) -> anyhow::Result<Self> {
        let client = bench.client()?;
        let policy = bench.policy();
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Seen::default());
        let thread = {
            let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
            std::thread::Builder::new()
                .name("status-client".to_owned())
                .spawn(move || poll(client, policy, every, &stop, &seen))?
        };
        Ok(Self { stop, seen, thread })
    }

    /// Answers so far.
    pub fn answers(&self) -> u64 {
        self.seen.answers.load(Ordering::Relaxed)
    }

    /// Answers so far in which on every reactor a current path of this class carried I/O.
    pub fn carried_by(&self, optimized: bool) -> u64 {
        let count = match optimized {
            true => &self.seen.by_optimized,
            false => &self.seen.by_other,
        };
        count.load(Ordering::Relaxed)
    }

    /// Whether the client has given up.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends the client after the present answer.
    pub fn end(self) -> anyhow::Result<Polled> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow!("the status client panicked"))?
            .context("asking for status")
    }
}

fn poll(
    mut client: Client,
    policy: Policy,
    every: Option<Duration>,
    stop: &AtomicBool,
    seen: &Seen,
) -> anyhow::Result<Polled> {
    let begun = now();
    let cpu_before = thread_cpu();
    let mut states = BTreeSet::new();
    let mut polled = Polled {
        answers: 0,
        states: 0,
        contradictions: 0,
        first: None,
        latency: latency_histogram(),
        time: Duration::ZERO,
        cpu: None,
    };
    let mut next = begun;
    while !stop.load(Ordering::Relaxed) {
        let asked = now();
        let result = client.call("bdev_nvme_get_io_paths", None)?;
        let took = u64::try_from(asked.elapsed().as_nanos()).unwrap_or(u64::MAX);
        polled.latency.saturating_record(took);
        polled.answers += 1;
        let answer = Answer::read(&result)?;
        if let Err(contradiction) = answer.check(policy) {
            polled.contradictions += 1;
            polled.first.get_or_insert(contradiction);
        }
        for (optimized, count) in [(true, &seen.by_optimized), (false, &seen.by_other)] {
            if answer.carried_by(optimized) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
        states.insert(answer.shown());
        seen.answers.store(polled.answers, Ordering::Relaxed);
        if let Some(every) = every {
            // One that was late is not made up for.
            next = (next + every).max(now());
            sleep_until(next);
        }
    }
    polled.states = states.len();
    polled.time = begun.elapsed();
    let spent = |after: Duration| Some(after.saturating_sub(cpu_before?));
    polled.cpu = thread_cpu().and_then(spent);
    Ok(polled)
}

/// Processor time that the calling thread has had (first number of its `schedstat`, in nanoseconds).
fn thread_cpu() -> Option<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanos = text.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanos))
}

impl Polled {
    /// Adds another client's answers.
    pub fn add(&mut self, other: Polled) {
        self.answers += other.answers;
        self.states = self.states.max(other.states);
        self.contradictions += other.contradictions;
        self.first = self.first.take().or(other.first);
        stats::add(&mut self.latency, &other.latency);
        self.time += other.time;
        self.cpu = self.cpu.zip(other.cpu).map(|(one, two)| one + two);
    }

    /// Lines, failures and JSON object of the section.
    pub fn report(&self, section: &mut Section, label: &str) -> Value {
        section.line(
            label,
            format!(
                "{} answers, {} different states, {} contradict themselves",
                grouped(self.answers),
                grouped(self.states as u64),
                grouped(self.contradictions)
            ),
        );
        section.line("  time to answer", spread(&self.latency));
        if let Some(cpu) = self.cpu {
            let share = cpu.as_secs_f64() / self.time.as_secs_f64().max(1e-9);
            section.line(
                "  client's processor time",
                format!(
                    "{:.3} s, {:.1} % of one core",
                    cpu.as_secs_f64(),
                    share * 100.0
                ),
            );
        }
        if self.answers == 0 {
            section.fail("status was never answered");
        }
        if let Some(first) = &self.first {
            section.fail(format!(
                "{} answers contradict themselves; the first: {first}",
                self.contradictions
            ));
        }
        json!({
            "answers": self.answers,
            "states": self.states,
            "contradictions": self.contradictions,
            "first_contradiction": self.first,
            "answer_ns": spread_json(&self.latency),
            "seconds": self.time.as_secs_f64(),
            "cpu_seconds": self.cpu.map(|cpu| cpu.as_secs_f64()),
        })
    }
}
