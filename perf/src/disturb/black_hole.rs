//! `black-hole`: I/O on the preferred path while the peer of the other one falls silent with its connections open. Its
//! keep-alive fails, it is reset, and every try to reconnect is accepted and never answered.

use std::time::Duration;

use pollux_multipath::{PathEventKind, Policy};
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_reactor::Time;
use serde_json::json;

use super::bench::{Bench, Layout, PathOptions, VOLUME};
use super::drive::{Drive, Slice};
use super::peer::{Behaviour, Peer};
use super::results::Section;
use super::slices::alternate;
use super::{PATIENCE, Setup, on_bench};
use crate::clock::{now, sleep_until};
use crate::load::Workload;
use crate::text::grouped;

/// The silent path: noticed within three quarters of a second, and tried again all the time.
const SILENT_PATH: PathOptions = PathOptions {
    keep_alive_ms: 500,
    reconnect_delay: Duration::from_millis(100),
    connect_timeout: Duration::from_secs(1),
};
/// How often the first attach is tried.
const ATTACH_TRIES: u32 = 5;
/// How often the loss of the path is looked for, once it is due.
const LOOK: Duration = Duration::from_millis(5);

pub(super) fn run(setup: &Setup) -> anyhow::Result<Section> {
    let layout = Layout::beside(&setup.cores);
    let about = "I/O on the preferred path while the other one's peer is silent: keep-alive, reset, retries";
    let mut section = Section::new("black-hole", about, Some(&layout));
    on_bench(
        setup,
        &mut section,
        &layout,
        Policy::ActivePassive,
        |bench, section| {
            let peer = Peer::start(Behaviour::Relay(bench.embedded.listener(1)?))?;
            let result = measure(setup, bench, section, &peer);
            peer.end();
            result
        },
    )?;
    Ok(section)
}

fn measure(setup: &Setup, bench: &Bench, section: &mut Section, peer: &Peer) -> anyhow::Result<()> {
    // Both are optimized: only the preference keeps I/O off the second path.
    bench.embedded.set(1, AnaState::OPTIMIZED)?;
    bench.attach(bench.embedded.listener(0)?, PathOptions::default())?;
    // The short deadline is for the retries; on a busy machine it may be too short for a first attach.
    let mut tries = 1..ATTACH_TRIES;
    while let Err(error) = bench.attach(peer.addr, SILENT_PATH) {
        tries.next().ok_or(error)?;
    }
    let volume = bench.volume(2)?;
    prefer_first(bench)?;

    let mut drive = Drive::start(bench, &volume, Workload::RandRead, setup.args.depth)?;
    let (pairs, time) = setup.args.slices();
    let mut resets = 0;
    let mut failures = Vec::new();
    let comparison = alternate(setup, "black-hole", &mut drive, pairs, time, |drive| {
        frozen_slice(setup, bench, drive, peer, time, &mut resets, &mut failures)
    })?;
    let totals = drive.finish(&setup.stop)?;

    section.failures.extend(failures);
    section.rows(comparison.rows());
    section.line(
        "silent path",
        format!(
            "{} resets, {} connects that were not answered",
            grouped(resets),
            grouped(peer.silent_connections())
        ),
    );
    let io = section.io("I/O", &totals);
    if totals.paths.get(1).is_some_and(|path| path.ios > 0) {
        section.fail("I/O went to the path that is not preferred");
    }
    section.put("comparison", comparison.json());
    section.put("resets", resets.into());
    section.put("silent_connects", peer.silent_connections().into());
    section.put("keep_alive_ms", json!(SILENT_PATH.keep_alive_ms));
    section.put("io", io);
    Ok(())
}

fn prefer_first(bench: &Bench) -> anyhow::Result<()> {
    let status = bench.status()?;
    let first = status.reactors.first().and_then(|r| r.paths.first());
    let cntlid = first.map_or(0, |path| path.cntlid);
    let params = json!({"name": VOLUME, "cntlid": cntlid});
    bench
        .client()?
        .call("bdev_nvme_set_preferred_path", Some(params))?;
    Ok(())
}

/// A slice with the peer frozen. Afterwards, off the clock, the path is made whole again.
fn frozen_slice(
    setup: &Setup,
    bench: &Bench,
    drive: &mut Drive<'_>,
    peer: &Peer,
    time: Duration,
    resets: &mut u64,
    failures: &mut Vec<String>,
) -> anyhow::Result<Slice> {
    let before = bench.status()?;
    let since = before.events.last().map_or(Time::ZERO, |event| event.at);
    peer.freeze()?;
    let slice = drive.slice(time, &setup.stop)?;
    let deadline = now() + PATIENCE;
    let mut lost = losses(bench, since)?;
    // A short slice may end before keep-alive has failed.
    while lost == 0 && now() < deadline && !setup.stopped() {
        sleep_until(now() + LOOK);
        lost = losses(bench, since)?;
    }
    *resets += lost;
    if lost == 0 && !setup.stopped() {
        failures.push("keep-alive was not answered and the controller not reset".to_owned());
    }
    peer.thaw()?;
    let whole = bench.wait_for(PATIENCE, |r| r.paths.iter().all(|path| path.connected))?;
    if whole.is_none() {
        failures
            .push("the silent path did not come back although its peer answers again".to_owned());
    }
    Ok(slice)
}

/// How often a controller of the volume was lost since.
fn losses(bench: &Bench, since: Time) -> anyhow::Result<u64> {
    let status = bench.status()?;
    let lost = status
        .events
        .iter()
        .filter(|event| event.at > since && matches!(event.kind, PathEventKind::Lost(_)));
    Ok(lost.count() as u64)
}
