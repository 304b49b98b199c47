//! `ana`: status under fire. ANA changes on both listeners at a fixed pace, whatever becomes of those before, while
//! verified I/O runs on two reactors and a client asks for the status as fast as it is answered.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::bail;
use hdrhistogram::Histogram;
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_nvme_tcp::target::TargetRequest;
use serde_json::{Value, json};

use super::bench::{Bench, Layout};
use super::drive::Drive;
use super::pacer::{Pace, Told};
use super::poller::Poller;
use super::results::{Section, spread, spread_json};
use super::{PATIENCE, Setup, progress, under_each_policy};
use crate::clock::now;
use crate::load::Workload;
use crate::stats::latency_histogram;
use crate::text::grouped;

/// From one change to the next.
const EVERY: Duration = Duration::from_millis(1);
/// So long the I/O and the client run before the first change and after the last.
const MARGIN: Duration = Duration::from_millis(200);
/// The longest that a signal waits to be noticed.
const NOTICE: Duration = Duration::from_millis(100);

/// Each step changes one listener, the first and the second in turn. I/O has to move at most steps; at two points no path
/// is accessible and it has to wait; and at times both paths are of one class.
const STEPS: [AnaState; 12] = {
    use AnaState as S;
    [
        S::INACCESSIBLE,
        S::OPTIMIZED,
        S::OPTIMIZED,
        S::INACCESSIBLE,
        S::NON_OPTIMIZED,
        S::OPTIMIZED,
        S::CHANGE,
        S::INACCESSIBLE,
        S::OPTIMIZED,
        S::NON_OPTIMIZED,
        S::NON_OPTIMIZED,
        S::INACCESSIBLE,
    ]
};

pub(super) fn run(setup: &Setup) -> anyhow::Result<Section> {
    let layout = Layout::spread(&setup.cores);
    let about = "ANA changes 1 ms apart under verified I/O, status asked for all the time";
    let mut section = Section::new("ana", about, Some(&layout));
    under_each_policy(setup, &mut section, &layout, |bench, section| {
        let (changes, policy) = (setup.args.changes, bench.policy().name());
        progress(&format!("ana: {changes} changes under {policy}"));
        part(setup, bench, section)
    })?;
    Ok(section)
}

fn part(setup: &Setup, bench: &Bench, section: &mut Section) -> anyhow::Result<Value> {
    let volume = bench.attach_both()?;
    let mut drive = Drive::start(bench, &volume, Workload::Verify, setup.args.depth)?;
    let poller = Poller::start(bench, None)?;
    drive.slice(MARGIN, &setup.stop)?;
    let answers_before = poller.answers();

    drive.exchange()?;
    let fired = fire(setup, bench)?;
    let under_fire = drive.exchange()?;
    let answers = poller.answers() - answers_before;
    drive.slice(MARGIN, &setup.stop)?;
    let polled = poller.end()?;
    let totals = drive.finish(&setup.stop)?;

    section.line(
        "  changes",
        format!(
            "{} sent, {} answered, {} refused",
            grouped(fired.sent),
            grouped(fired.answered),
            grouped(fired.refused)
        ),
    );
    section.line("  apart", spread(&fired.apart));
    section.line("  IOPS meanwhile", under_fire.shown());
    let io = section.io("  I/O", &totals);
    let status = polled.report(section, "  status");
    if let Some(refusal) = &fired.refusal {
        section.fail(format!("the target refused a change: {refusal}"));
    }
    if fired.answered < fired.sent {
        section.fail("the target has not answered every change");
    }
    Ok(json!({
        "policy": bench.policy().to_string(),
        "changes": fired.sent,
        "refused": fired.refused,
        "apart_ns": spread_json(&fired.apart),
        "seconds_under_fire": under_fire.seconds,
        "iops_under_fire": under_fire.iops,
        "longest_gap_ns": under_fire.longest_gap_ns,
        "answers_under_fire": answers,
        "io": io,
        "status": status,
    }))
}

/// How the changes went.
struct Fired {
    sent: u64,
    answered: u64,
    refused: u64,
    refusal: Option<String>,
    /// From one sending to the next.
    apart: Histogram<u64>,
}

impl Fired {
    fn note(&mut self, told: Told) {
        match told {
            Told::Answered(answer) => {
                self.answered += 1;
                if let Err(error) = answer {
                    self.refused += 1;
                    self.refusal.get_or_insert(error);
                }
            }
            Told::Sent(at_ns) => {
                self.sent += at_ns.len() as u64;
                for pair in at_ns.windows(2) {
                    if let [one, next] = pair {
                        self.apart.saturating_record(next.saturating_sub(*one));
                    }
                }
            }
        }
    }
}

fn pace(
    bench: &Bench,
    requests: Vec<TargetRequest>,
    told: mpsc::Sender<Told>,
) -> anyhow::Result<()> {
    let pace = Pace {
        requests,
        every: EVERY,
        told,
    };
    if bench.pacer.send(pace).is_err() {
        bail!("the target's reactor takes no messages any more");
    }
    Ok(())
}

/// Sends all changes, then restores the states of the start.
fn fire(setup: &Setup, bench: &Bench) -> anyhow::Result<Fired> {
    let steps = STEPS.iter().enumerate().cycle();
    let requests = steps
        .take(setup.args.changes as usize)
        .map(|(index, &state)| bench.embedded.change(index % 2, state))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let (told, news) = mpsc::channel();
    pace(bench, requests, told.clone())?;
    let mut fired = Fired {
        sent: 0,
        answered: 0,
        refused: 0,
        refusal: None,
        apart: latency_histogram(),
    };
    // For an early end. The pacer and the answers that are still to come have the other senders.
    let mut own = Some(told);
    let deadline = now() + EVERY * setup.args.changes + PATIENCE;
    while now() < deadline {
        if setup.stopped()
            && let Some(told) = own.take()
        {
            pace(bench, Vec::new(), told)?;
        }
        match news.recv_timeout(NOTICE) {
            Ok(told) => {
                fired.note(told);
                if fired.sent > 0 {
                    own = None;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    bench.embedded.set(0, AnaState::OPTIMIZED)?;
    bench.embedded.set(1, AnaState::NON_OPTIMIZED)?;
    Ok(fired)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The states of both listeners after each step, from the third round on.
    fn rounds() -> Vec<[AnaState; 2]> {
        let mut states = [AnaState::OPTIMIZED, AnaState::NON_OPTIMIZED];
        let mut seen = Vec::new();
        for (index, &state) in STEPS.iter().enumerate().cycle().take(36) {
            assert_ne!(states[index % 2], state, "step {index} changes nothing");
            states[index % 2] = state;
            seen.push(states);
        }
        seen.split_off(24)
    }

    #[test]
    fn the_steps_make_io_move_and_wait() {
        let rounds = rounds();
        let accessible = |states: &[AnaState; 2]| {
            let [one, two] = states.map(AnaState::is_accessible);
            (one, two)
        };
        for wanted in [(true, true), (true, false), (false, true), (false, false)] {
            assert!(rounds.iter().any(|s| accessible(s) == wanted), "{wanted:?}");
        }
        let none = rounds.iter().filter(|s| accessible(s) == (false, false));
        assert!(none.count() <= 2, "a path is accessible most of the time");
        assert!(rounds.contains(&[AnaState::OPTIMIZED; 2]));
    }
}
