//! `listener`: the optimized path's listener goes and comes back, again and again, while verified I/O runs on two reactors
//! and a client asks for the status as fast as it is answered. A path that is gone is another case than one that is
//! inaccessible: nothing announces it.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::bench::{Bench, Layout};
use super::drive::Drive;
use super::poller::Poller;
use super::results::{Section, spread, spread_json};
use super::{PATIENCE, Setup, progress, under_each_policy};
use crate::clock::{now, sleep_until};
use crate::load::Workload;
use crate::stats::latency_histogram;
use crate::text::grouped;

/// So long each state lasts after it was seen.
const HOLD: Duration = Duration::from_millis(20);
/// How often what the client has seen is looked at.
const LOOK: Duration = Duration::from_micros(500);
/// Removals between two lines of progress.
const TELL_EVERY: u32 = 25;

pub(super) fn run(setup: &Setup) -> anyhow::Result<Section> {
    let layout = Layout::spread(&setup.cores);
    let about = "the optimized listener removed and added under verified I/O, status asked for all the time";
    let mut section = Section::new("listener", about, Some(&layout));
    under_each_policy(setup, &mut section, &layout, |bench, section| {
        part(setup, bench, section)
    })?;
    Ok(section)
}

fn part(setup: &Setup, bench: &Bench, section: &mut Section) -> anyhow::Result<Value> {
    let volume = bench.attach_both()?;
    let mut drive = Drive::start(bench, &volume, Workload::Verify, setup.args.depth)?;
    let poller = Poller::start(bench, None)?;
    let (mut left, mut back) = (latency_histogram(), latency_histogram());
    let mut removals = 0;
    let failed_before = section.failures.len();
    if !seen(&poller, true, &mut latency_histogram()) {
        section.fail("with both listeners there, no answer shows the optimized path in use");
    }
    drive.exchange()?;
    while removals < setup.args.removals
        && !setup.stopped()
        && section.failures.len() == failed_before
    {
        if removals % TELL_EVERY == 0 {
            let (policy, all) = (bench.policy().name(), setup.args.removals);
            progress(&format!(
                "listener: {removals} of {all} removals under {policy}"
            ));
        }
        removals += 1;
        bench.embedded.remove_listener(0)?;
        if !seen(&poller, false, &mut left) {
            section.fail("with the optimized listener gone, no answer shows the other path as current and in use");
        }
        sleep_until(now() + HOLD);
        bench.embedded.add_listener(0)?;
        if !seen(&poller, true, &mut back) {
            section.fail(
                "with the optimized listener back, no answer shows its path as current and in use",
            );
        }
        sleep_until(now() + HOLD);
    }
    let slice = drive.exchange()?;
    let polled = poller.end()?;
    let totals = drive.finish(&setup.stop)?;

    section.line("  removals", grouped(removals.into()));
    section.line("  seen on the other path", spread(&left));
    section.line("  seen back", spread(&back));
    section.line("  IOPS meanwhile", slice.shown());
    let io = section.io("  I/O", &totals);
    let status = polled.report(section, "  status");
    Ok(json!({
        "policy": bench.policy().to_string(),
        "removals": removals,
        "seen_on_the_other_path_ns": spread_json(&left),
        "seen_back_ns": spread_json(&back),
        "iops": slice.iops,
        "longest_gap_ns": slice.longest_gap_ns,
        "io": io,
        "status": status,
    }))
}

/// Waits for a new answer in which on every reactor a current path of this class carries I/O, and notes how long that took.
fn seen(poller: &Poller, optimized: bool, times: &mut Histogram<u64>) -> bool {
    let before = poller.carried_by(optimized);
    let begun = now();
    while poller.carried_by(optimized) == before {
        if poller.has_ended() || begun.elapsed() > PATIENCE {
            return false;
        }
        sleep_until(now() + LOOK);
    }
    times.saturating_record(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
    true
}
