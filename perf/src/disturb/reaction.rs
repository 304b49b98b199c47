//! `reaction`: how long an ANA change takes from its first sign to the last reactor's path table, and a path that becomes
//! available to the first I/O that completes on it, while all I/O waits.
//!
//! All times are of the reactors' clock, which has one epoch in the whole process: control's for the notice, each I/O
//! reactor's for its table, the job's for its completions.

use std::time::Duration;

use hdrhistogram::Histogram;
use pollux_multipath::{ControllerId, PathEvent, PathEventKind, Policy, VolumeStatus};
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_reactor::Time;
use serde_json::json;

use super::bench::{Bench, Layout};
use super::drive::Drive;
use super::results::{Section, spread, spread_json};
use super::{PATIENCE, Setup, on_bench, progress};
use crate::clock::{now, sleep_until};
use crate::load::Workload;
use crate::stats::{Gap, latency_histogram};
use crate::volume::Volume;

/// One round: the first listener becomes inaccessible, then the second, so that all I/O waits; then one after the other
/// comes back, in every second round the non-optimized one first.
const ROUNDS: [[(usize, AnaState); 4]; 2] = [
    [
        (0, AnaState::INACCESSIBLE),
        (1, AnaState::INACCESSIBLE),
        (0, AnaState::OPTIMIZED),
        (1, AnaState::NON_OPTIMIZED),
    ],
    [
        (0, AnaState::INACCESSIBLE),
        (1, AnaState::INACCESSIBLE),
        (1, AnaState::NON_OPTIMIZED),
        (0, AnaState::OPTIMIZED),
    ],
];
/// Place in a round after which all I/O waits.
const ALL_WAIT: usize = 1;
/// Place in a round at which it goes on.
const RESUMES: usize = 2;
/// The change is left alone for so long before anybody asks about it.
const SETTLE: Duration = Duration::from_millis(1);
/// Changes between two lines of progress.
const TELL_EVERY: u32 = 250;

/// What is measured.
struct Times {
    /// From the first sign of the change, whichever it was, to the last reactor's table.
    all: Histogram<u64>,
    /// Changes whose first sign was the notice at control.
    by_notice: Histogram<u64>,
    /// Changes whose first sign was an I/O that came back with an ANA status.
    by_status: Histogram<u64>,
    /// Changes that a read of the log found which something else had caused.
    without_sign: u64,
    /// From the table of a reactor to its first completion.
    resumed: Vec<Histogram<u64>>,
}

pub(super) fn run(setup: &Setup) -> anyhow::Result<Section> {
    let layout = Layout::spread(&setup.cores);
    let about =
        "ANA changes one at a time: first sign to last path table, path available to first I/O";
    let mut section = Section::new("reaction", about, Some(&layout));
    on_bench(
        setup,
        &mut section,
        &layout,
        Policy::ActivePassive,
        |bench, section| measure(setup, bench, section),
    )?;
    Ok(section)
}

fn measure(setup: &Setup, bench: &Bench, section: &mut Section) -> anyhow::Result<()> {
    let volume = bench.attach_both()?;
    let mut drive = Drive::start(bench, &volume, Workload::RandRead, setup.args.depth)?;
    let mut times = Times {
        all: latency_histogram(),
        by_notice: latency_histogram(),
        by_status: latency_histogram(),
        without_sign: 0,
        resumed: vec![latency_histogram(); bench.reactors()],
    };
    let steps = ROUNDS.iter().flatten().cycle().enumerate();
    let mut done = 0;
    for (index, &(listener, state)) in steps.take(setup.args.reactions as usize) {
        if setup.stopped() {
            break;
        }
        if done % TELL_EVERY == 0 {
            progress(&format!(
                "reaction: {done} of {} changes",
                setup.args.reactions
            ));
        }
        let place = index % 4;
        if let Err(failure) = step(
            setup,
            bench,
            &volume,
            &mut drive,
            &mut times,
            (place, listener, state),
        )? {
            section.fail(format!("change {index}: {failure}"));
            break;
        }
        done += 1;
    }
    // So that what waits can end.
    bench.embedded.set(0, AnaState::OPTIMIZED)?;
    let totals = drive.finish(&setup.stop)?;

    section.line("changes", crate::text::grouped(done.into()));
    section.line("first sign to last table", spread(&times.all));
    section.line("  from the notice", spread(&times.by_notice));
    section.line("  from an ANA status", spread(&times.by_status));
    if times.without_sign > 0 {
        let text = "times a log read for another reason brought it first";
        section.line("  without a sign", format!("{} {text}", times.without_sign));
    }
    for (reactor, resumed) in times.resumed.iter().enumerate() {
        section.line(&format!("table to I/O, reactor {reactor}"), spread(resumed));
    }
    let io = section.io("I/O", &totals);
    let resumed: Vec<_> = times.resumed.iter().map(spread_json).collect();
    section.put("changes", done.into());
    section.put("sign_to_last_table_ns", spread_json(&times.all));
    section.put("notice_to_last_table_ns", spread_json(&times.by_notice));
    section.put("ana_status_to_last_table_ns", spread_json(&times.by_status));
    section.put("changes_without_sign", times.without_sign.into());
    section.put("table_to_first_io_ns", json!(resumed));
    section.put("io", io);
    Ok(())
}

/// Changes one state and measures what follows. The inner error is what was wrong.
fn step(
    setup: &Setup,
    bench: &Bench,
    volume: &Volume,
    drive: &mut Drive<'_>,
    times: &mut Times,
    (place, listener, state): (usize, usize, AnaState),
) -> anyhow::Result<Result<(), String>> {
    let Some(&(controller, _)) = volume.paths.get(listener) else {
        return Ok(Err("the volume has lost a path".to_owned()));
    };
    let before = bench.status()?;
    let since = before.events.last().map_or(Time::ZERO, |event| event.at);
    drive.exchange()?;
    bench.embedded.set(listener, state)?;
    sleep_until(now() + SETTLE);

    let waits = place == ALL_WAIT;
    let depth = setup.args.depth as usize;
    let reached = bench.wait_for(PATIENCE, |reactor| {
        let path = reactor.paths.iter().find(|p| p.controller == controller);
        path.is_some_and(|p| p.ana_state == state && !p.log_pending)
            && (!waits || reactor.waiting == depth)
    })?;
    let Some(status) = reached else {
        let waiting = if waits { ", or not all I/O waits" } else { "" };
        return Ok(Err(format!(
            "{state} was not applied on every reactor{waiting}"
        )));
    };
    // A reactor's answer comes to control after its word that the state is applied, so the events are there.
    let reaction = reaction(&status, controller, state, since, bench.reactors());
    let Some(reaction) = reaction else {
        let events: Vec<String> = new_events(&status, controller, since)
            .map(|event| event.kind.to_string())
            .collect();
        return Ok(Err(format!(
            "events that do not fit: {}",
            events.join(", ")
        )));
    };
    times.note(&reaction);
    if place == RESUMES {
        return resumed(drive, times, &reaction);
    }
    Ok(Ok(()))
}

impl Times {
    fn note(&mut self, reaction: &Reaction) {
        let last = reaction.applied.iter().max().copied();
        let last = last.unwrap_or(Time::ZERO);
        let Some((first_sign, by_status)) = reaction.sign.filter(|&(at, _)| at <= last) else {
            self.without_sign += 1;
            return;
        };
        let took = last.saturating_since(first_sign).as_nanos();
        let took = u64::try_from(took).unwrap_or(u64::MAX);
        self.all.saturating_record(took);
        match by_status {
            true => self.by_status.saturating_record(took),
            false => self.by_notice.saturating_record(took),
        }
    }
}

/// The way of one change through the events.
struct Reaction {
    /// The first sign, and whether it was an ANA status.
    sign: Option<(Time, bool)>,
    /// Each reactor's.
    applied: Vec<Time>,
}

fn new_events(
    status: &VolumeStatus,
    controller: ControllerId,
    since: Time,
) -> impl Iterator<Item = &PathEvent> {
    let events = status.events.iter();
    events.filter(move |event| event.controller == controller && event.at > since)
}

/// Finds the change to `state` after `since`, its first sign, and its arrival on all reactors.
fn reaction(
    status: &VolumeStatus,
    controller: ControllerId,
    state: AnaState,
    since: Time,
    reactors: usize,
) -> Option<Reaction> {
    let events = || new_events(status, controller, since);
    let epoch = events().find_map(|event| match event.kind {
        PathEventKind::Ana { to, epoch, .. } if to == state => Some(epoch),
        _ => None,
    })?;
    let signs = events().filter_map(|event| match event.kind {
        PathEventKind::AnaNotice => Some((event.at, false)),
        PathEventKind::AnaStatus { at, .. } => Some((at, true)),
        _ => None,
    });
    let sign = signs.min();
    let applied: Vec<Time> = (0..reactors)
        .map_while(|wanted| {
            events().find_map(|event| match event.kind {
                PathEventKind::Applied {
                    epoch: e,
                    reactor,
                    at,
                } if e == epoch && reactor == wanted => Some(at),
                _ => None,
            })
        })
        .collect();
    (applied.len() == reactors).then_some(Reaction { sign, applied })
}

/// Waits for the I/O of every reactor: the gap between completions that spans the moment of its table ends with the first.
fn resumed(
    drive: &mut Drive<'_>,
    times: &mut Times,
    reaction: &Reaction,
) -> anyhow::Result<Result<(), String>> {
    let deadline = now() + PATIENCE;
    let mut gaps: Vec<Gap> = Vec::new();
    loop {
        gaps.extend(drive.exchange()?.gaps);
        let ends: Vec<u64> = reaction
            .applied
            .iter()
            .enumerate()
            .map_while(|(job, at)| resumed_after(&gaps, job, at.as_nanos()))
            .collect();
        if ends.len() == reaction.applied.len() {
            for (end, resumed) in ends.into_iter().zip(&mut times.resumed) {
                resumed.saturating_record(end);
            }
            return Ok(Ok(()));
        }
        if now() >= deadline {
            return Ok(Err("I/O did not go on on every reactor".to_owned()));
        }
        sleep_until(now() + SETTLE);
    }
}

/// Time from `at_ns` to the end of the gap around it.
fn resumed_after(gaps: &[Gap], job: usize, at_ns: u64) -> Option<u64> {
    gaps.iter()
        .find(|gap| gap.job == job && gap.start_ns <= at_ns && at_ns <= gap.end_ns)
        .map(|gap| gap.end_ns - at_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_around_the_moment_ends_with_the_first_io() {
        let gap = |job, start_ns, end_ns| Gap {
            job,
            start_ns,
            end_ns,
            open: false,
        };
        let gaps = [
            gap(0, 10, 20),
            gap(1, 90, 190),
            gap(0, 100, 180),
            gap(0, 200, 300),
        ];
        assert_eq!(resumed_after(&gaps, 0, 150), Some(30));
        assert_eq!(resumed_after(&gaps, 1, 150), Some(40));
        assert_eq!(resumed_after(&gaps, 0, 190), None);
        assert_eq!(resumed_after(&gaps, 2, 150), None);
    }

    #[test]
    fn every_round_stops_all_io_and_ends_as_it_began() {
        for round in ROUNDS {
            let mut states = [AnaState::OPTIMIZED, AnaState::NON_OPTIMIZED];
            for (place, (listener, state)) in round.into_iter().enumerate() {
                assert_ne!(states[listener], state);
                states[listener] = state;
                let accessible = states.iter().any(|s| s.is_accessible());
                assert_eq!(accessible, place != ALL_WAIT);
            }
            assert_eq!(states, [AnaState::OPTIMIZED, AnaState::NON_OPTIMIZED]);
        }
    }
}
