//! The benchmark from start to report: reactors up, paths attached, jobs started, counters collected, all ended in order.

mod args;
mod capture;
mod live;
mod reported;
mod session;
mod watch;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

pub use self::args::{PolicyName, RunArgs};
pub use self::live::LiveLine;
use self::session::Session;
use self::watch::Watch;
use crate::cores::Placement;
use crate::embedded::Failover;
use crate::errors::Usage;
use crate::load::{JobMessage, Start, Work, Workload, plans, random_seed};
use crate::report::Report;

/// Runs the benchmark and reports it. `stop` ends it early.
pub fn run(args: &RunArgs, stop: &AtomicBool) -> anyhow::Result<Report> {
    let available = pollux_reactor::available_cores();
    let placement = Placement::new(args.cores.as_ref(), &available).map_err(Usage)?;
    let session = Session::start(args, &placement, stop)?;
    let result = measure(args, &session, &placement, available, stop);
    session.end(stop);
    result
}

fn measure(
    args: &RunArgs,
    session: &Session,
    placement: &Placement,
    available: Vec<usize>,
    stop: &AtomicBool,
) -> anyhow::Result<Report> {
    let seed = args.seed.unwrap_or_else(random_seed);
    let work = Work {
        workload: args.workload,
        read_share: args.read_share,
        io_size: &args.io_size,
        stride: args.stride,
        depth: args.depth,
        ios: args.ios,
        mix: args.mix.clone(),
        distribution: args.random_distribution.unwrap_or_default(),
        rate: args.rate(),
    };
    let volume = &session.volume;
    let plans = plans(
        &work,
        volume.blocks,
        volume.block_size,
        session.jobs(),
        seed,
    )?;
    let (news_sender, news) = mpsc::channel();
    let mut watch = Watch::new(session, news, args.workload);
    for plan in plans {
        let job = plan.job;
        let start = Start {
            plan,
            volume: session.volume.id,
            paths: session.volume.paths.clone(),
            io_timeout: args.io_timeout,
            stop_on_error: false,
            news: news_sender.clone(),
        };
        session.send(job, JobMessage::Start(Box::new(start)))?;
    }
    drop(news_sender);
    let failover = match &session.embedded {
        Some(_) if !args.no_failover => Failover::during(args.time),
        _ => Failover::none(),
    };
    if let Some(time) = args.ramp_time {
        watch.warm_up(time, stop)?;
    }
    watch.run(
        args.time,
        args.interval,
        failover,
        session.embedded.as_ref(),
        stop,
    )?;
    watch.drain("waiting for what is in flight", stop)?;
    if args.workload == Workload::Verify && !stop.load(Ordering::Relaxed) && watch.all_drained() {
        watch.sweep(stop)?;
    }
    watch.close()?;
    watch.live.clear();
    let interrupted = stop.load(Ordering::Relaxed);
    Ok(watch.report(args, placement, available, seed, interrupted))
}
