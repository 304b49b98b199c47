//! `status`: what a monitoring client costs that asks for all paths 100 times a second.

use std::time::Duration;

use pollux_multipath::Policy;

use super::bench::Layout;
use super::drive::Drive;
use super::poller::{Polled, Poller};
use super::results::Section;
use super::slices::alternate;
use super::{Setup, on_bench};
use crate::load::Workload;

/// From one request to the next.
const EVERY: Duration = Duration::from_millis(10);

pub(super) fn run(setup: &Setup) -> anyhow::Result<Section> {
    let layout = Layout::beside(&setup.cores);
    let about = "I/O while a client asks for the status of all paths 100 times a second";
    let mut section = Section::new("status", about, Some(&layout));
    on_bench(
        setup,
        &mut section,
        &layout,
        Policy::ActivePassive,
        |bench, section| {
            let volume = bench.attach_both()?;
            let mut drive = Drive::start(bench, &volume, Workload::RandRead, setup.args.depth)?;
            let (pairs, time) = setup.args.slices();
            let mut all: Option<Polled> = None;
            let comparison = alternate(setup, "status", &mut drive, pairs, time, |drive| {
                let poller = Poller::start(bench, Some(EVERY))?;
                let slice = drive.slice(time, &setup.stop)?;
                let polled = poller.end()?;
                match &mut all {
                    Some(all) => all.add(polled),
                    None => all = Some(polled),
                }
                Ok(slice)
            })?;
            let totals = drive.finish(&setup.stop)?;
            section.rows(comparison.rows());
            let io = section.io("I/O", &totals);
            if let Some(polled) = all {
                let status = polled.report(section, "status");
                section.put("status", status);
            }
            section.put("comparison", comparison.json());
            section.put("io", io);
            Ok(())
        },
    )?;
    Ok(section)
}
