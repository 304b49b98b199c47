//! The benchmark from start to report: reactors up, paths attached, jobs started, counters collected, all ended in order.

mod args;
mod capture;
mod choice;
mod jobs;
mod live;
mod reported;
mod session;
mod steady;
mod watch;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use anyhow::Context as _;

pub use self::args::{PolicyName, RunArgs};
pub use self::jobs::JobArgs;
use self::jobs::seated;
pub use self::live::LiveLine;
use self::session::Session;
pub use self::steady::Steady;
use self::watch::Watch;
use crate::cores::Placement;
use crate::embedded::Failover;
use crate::errors::Usage;
use crate::load::{JobMessage, Start, Workload, random_seed};
use crate::report::Report;

/// Runs jobs at the same time, shows on `live` what they do, and reports them. `stop` ends them early.
pub fn run(jobs: &[JobArgs], live: LiveLine, stop: &AtomicBool) -> anyhow::Result<Report> {
    let args = &jobs.first().context("no job")?.args;
    let available = pollux_reactor::available_cores();
    let placement = Placement::new(args.cores.as_ref(), &available).map_err(Usage)?;
    let session = Session::start(jobs, &placement, stop)?;
    let result = measure(jobs, live, &session, &placement, available, stop);
    session.end(stop);
    result
}

fn measure(
    jobs: &[JobArgs],
    live: LiveLine,
    session: &Session,
    placement: &Placement,
    available: Vec<usize>,
    stop: &AtomicBool,
) -> anyhow::Result<Report> {
    let args = &jobs.first().context("no job")?.args;
    let seed = args.seed.unwrap_or_else(random_seed);
    let seated = seated(
        jobs,
        &session.places,
        &session.volumes,
        session.poll_groups(),
        seed,
    )?;
    let verifies = jobs.iter().any(|job| job.args.workload == Workload::Verify);
    let (news_sender, news) = mpsc::channel();
    let seats = seated.iter().map(|(seat, _)| *seat).collect();
    let mut watch = Watch::new(session, live, news, seats, jobs.len(), verifies);
    let paths = session.paths.iter();
    let paths: Vec<_> = paths
        .map(|path| (path.controller, path.address.to_string()))
        .collect();
    for (seat, plan) in seated {
        let start = Start {
            plan,
            volume: session.volumes[seat.volume].id,
            paths: paths.clone(),
            io_timeout: jobs[seat.asked].args.io_timeout,
            stop_on_error: false,
            news: news_sender.clone(),
        };
        session.send(seat.poll_group, JobMessage::Start(Box::new(start)))?;
    }
    drop(news_sender);
    let failover = match &session.embedded {
        Some(_) if !args.no_failover => Failover::during(args.time),
        _ => Failover::none(),
    };
    if let Some(time) = args.ramp_time {
        watch.warm_up(time, stop)?;
    }
    watch.steady = args.steady();
    watch.run(
        args.time,
        args.interval,
        failover,
        session.embedded.as_ref(),
        stop,
    )?;
    watch.drain("waiting for what is in flight", stop)?;
    if verifies && !stop.load(Ordering::Relaxed) && watch.all_drained() {
        watch.sweep(stop)?;
    }
    watch.close()?;
    watch.live.clear();
    let interrupted = stop.load(Ordering::Relaxed);
    Ok(watch.report(jobs, placement, available, seed, interrupted))
}
