//! `pollux-perf disturb`: what a disturbance costs I/O, and whether anything goes wrong under it.
//!
//! Everything runs in this process: target and host on pinned reactors, the peers that do not answer on a parked one, and
//! the clients of the management interface as ordinary threads, which compete with the reactors for the cores as a
//! monitoring program would.

mod ana;
mod answer;
mod args;
mod attach;
mod bench;
mod black_hole;
mod drive;
mod listener;
mod pacer;
mod peer;
mod poller;
mod reaction;
mod results;
mod slices;
mod status;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use pollux_multipath::{Policy, Selector};
use serde_json::{Value, json};

pub use self::args::DisturbArgs;
use self::args::Scenario;
use self::bench::{Bench, Layout};
use self::results::{Disturbed, Section};
use crate::clock::now;
use crate::cores::check_available;
use crate::errors::Usage;
use crate::machine::{self, Machine};
use crate::text::paragraph;

/// What all scenarios are given.
struct Setup {
    args: DisturbArgs,
    /// Cores to use, at least one.
    cores: Vec<usize>,
    /// Set when the user wants the end.
    stop: Arc<AtomicBool>,
}

impl Setup {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Runs the scenarios one after the other.
///
/// # Errors
///
/// What could not be set up; what goes wrong under a disturbance is part of the results.
pub fn run(args: &DisturbArgs, stop: &Arc<AtomicBool>) -> anyhow::Result<Disturbed> {
    let available = pollux_reactor::available_cores();
    let cores = match &args.cores {
        Some(list) => {
            check_available(list, &available).map_err(Usage)?;
            list.cores().to_vec()
        }
        None => available.clone(),
    };
    if cores.is_empty() {
        return Err(Usage("this process may run on no core that can be named".to_owned()).into());
    }
    let setup = Arc::new(Setup {
        args: args.clone(),
        cores,
        stop: Arc::clone(stop),
    });
    let machine = Machine::read(available);
    let mut doubts = machine.doubts();
    if setup.cores.len() == 1 {
        doubts.push("target, control and I/O share one core".to_owned());
    }
    let mut sections = Vec::new();
    for scenario in args.wanted() {
        if setup.stopped() {
            break;
        }
        progress(&format!("{}: begins", scenario.name()));
        let begun = now();
        let mut section = carry_out(scenario, &setup);
        section.finish(begun.elapsed(), setup.stopped());
        if matches!(scenario, Scenario::BlackHole | Scenario::Attach) {
            // Here no client of ours competes with the reactors.
            doubts.extend(
                machine::interrupted(section.preemptions, section.time)
                    .map(|text| format!("{}: {text}", section.name())),
            );
        }
        for failure in &section.failures {
            progress(&format!("{}: FAILED: {failure}", scenario.name()));
        }
        sections.push(section);
    }
    Ok(Disturbed {
        options: json!({
            "depth": args.depth,
            "changes": args.changes,
            "removals": args.removals,
            "reactions": args.reactions,
            "seconds": args.seconds.as_secs_f64(),
            "slice_seconds": args.slices().1.as_secs_f64(),
            "rounds": args.rounds,
            "attach_timeout_seconds": args.attach_timeout.as_secs_f64(),
            "cores": setup.cores,
        }),
        sections,
        machine,
        stopped: setup.stopped(),
        doubts,
    })
}

/// The longest that a scenario may take to come to its end after a signal.
const AFTER_SIGNAL: Duration = Duration::from_millis(1_800);
/// The longest that a signal waits to be noticed.
const NOTICE: Duration = Duration::from_millis(50);

/// Runs one scenario. Some of its steps cannot be cut short, such as a client's call: it has a thread of its own, which is
/// left behind if it does not come to its end soon after a signal.
fn carry_out(scenario: Scenario, setup: &Arc<Setup>) -> Section {
    let (sender, done) = mpsc::channel();
    let own = Arc::clone(setup);
    let thread = thread::spawn(move || {
        let section = match scenario {
            Scenario::Ana => ana::run(&own),
            Scenario::Listener => listener::run(&own),
            Scenario::Reaction => reaction::run(&own),
            Scenario::BlackHole => black_hole::run(&own),
            Scenario::Attach => attach::run(&own),
            Scenario::Status => status::run(&own),
        };
        // Nobody listens any more if it took too long after a signal.
        let _ = sender.send(section);
    });
    let mut signalled = None;
    loop {
        match done.recv_timeout(NOTICE) {
            // What the others have measured is not lost.
            Ok(section) => {
                return section.unwrap_or_else(|error| Section::failed(scenario.name(), &error));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => match thread.join() {
                Err(panic) => std::panic::resume_unwind(panic),
                Ok(()) => unreachable!("a scenario ends with its section"),
            },
        }
        if setup.stopped() && signalled.get_or_insert_with(now).elapsed() >= AFTER_SIGNAL {
            return Section::new(scenario.name(), "was in the middle of a step", None);
        }
    }
}

/// Starts the system, does something on it, and ends it.
fn on_bench(
    setup: &Setup,
    section: &mut Section,
    layout: &Layout,
    policy: Policy,
    body: impl FnOnce(&Bench, &mut Section) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let bench = Bench::start(layout, policy)?;
    let result = body(&bench, section);
    // The counts end with the threads.
    section.preemptions += machine::preemptions();
    bench.end(&setup.stop);
    result
}

/// Both policies that spread I/O in ways that differ.
const POLICIES: [Policy; 2] = [
    Policy::ActivePassive,
    Policy::ActiveActive(Selector::RoundRobin { min_io: 1 }),
];

/// Runs `part` under each policy, on a bench of its own, and keeps what each gives.
fn under_each_policy(
    setup: &Setup,
    section: &mut Section,
    layout: &Layout,
    mut part: impl FnMut(&Bench, &mut Section) -> anyhow::Result<Value>,
) -> anyhow::Result<()> {
    let mut parts = Vec::new();
    for policy in POLICIES {
        if setup.stopped() {
            break;
        }
        on_bench(setup, section, layout, policy, |bench, section| {
            section.line(policy.name(), "");
            parts.push(part(bench, section)?);
            Ok(())
        })?;
    }
    section.put("parts", parts.into());
    Ok(())
}

/// Tells people how far it is.
fn progress(text: &str) {
    // A reader that went away is no reason to stop.
    let mut lines = String::new();
    paragraph(&mut lines, "", &format!("disturb: {text}"));
    let _ = write!(std::io::stderr(), "{lines}");
}

/// The longest that something may take which should be over in milliseconds. Beyond it, it has failed.
const PATIENCE: Duration = Duration::from_secs(15);
