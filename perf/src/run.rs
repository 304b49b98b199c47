//! The benchmark from start to report: reactors up, paths attached, jobs started, counters collected, all ended in order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::json;

use crate::Usage;
use crate::cli::RunArgs;
use crate::clock::now;
use crate::cores::Placement;
use crate::embedded::{Embedded, Failover};
use crate::ending::Ending;
use crate::job::{Collected, JobMessage, News, Start};
use crate::load::{Plan, Verified};
use crate::machine::{self, Machine};
use crate::report::{LiveLine, Moment, PathReport, Report};
use crate::session::{Session, Volume};
use crate::size::{IoSizes, human_bytes};
use crate::stats::{JobStats, LatencySummary, RunStats};
use crate::workload::{Shape, Workload, regions};

/// Counters are collected and shown this often.
const SECOND: Duration = Duration::from_secs(1);
/// The longest that a signal waits to be noticed. Each look takes a core from a reactor for a moment.
const NOTICE: Duration = Duration::from_millis(100);
/// Blocks that one verifying job works on at most; they cost four bytes each, and all are read at the end.
const VERIFY_BLOCKS_MAX: u64 = 2 << 20;

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
    watch.run(args.time, failover, session.embedded.as_ref(), stop)?;
    watch.drain("waiting for what is in flight", stop)?;
    if args.workload == Workload::Verify && !stop.load(Ordering::Relaxed) && watch.all_drained() {
        watch.sweep(stop)?;
    }
    watch.close()?;
    watch.live.clear();
    let interrupted = stop.load(Ordering::Relaxed);
    Ok(watch.report(args, placement, available, seed, interrupted))
}

/// A seed that is new each time.
pub fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // Short enough to be typed again.
    RandomState::new().hash_one(()) >> 32
}

/// What all jobs of a run do.
pub struct Work<'a> {
    /// What to do.
    pub workload: Workload,
    /// Share of reads in percent, where the workload is mixed.
    pub read_share: Option<u8>,
    /// I/O sizes.
    pub io_size: &'a IoSizes,
    /// I/Os start at multiples of this many blocks.
    pub stride: Option<u64>,
    /// I/Os in flight of each job.
    pub depth: u32,
    /// I/Os after which a job ends.
    pub ios: Option<u64>,
}

/// Checks the options against a volume and makes a plan for each of its jobs.
pub fn plans(
    args: &Work<'_>,
    volume_blocks: u64,
    block_size: u32,
    jobs: usize,
    seed: u64,
) -> Result<Vec<Plan>, Usage> {
    let mut sizes = Vec::new();
    for &bytes in args.io_size.bytes() {
        if !bytes.is_multiple_of(block_size) {
            return Err(Usage(format!(
                "-o {} does not fit the volume: allowed are multiples of its block size, {}",
                human_bytes(bytes.into()),
                human_bytes(block_size.into())
            )));
        }
        sizes.push(bytes / block_size);
    }
    let largest = sizes.iter().copied().max().unwrap_or(0);
    let verify = args.workload == Workload::Verify;
    let blocks = if verify {
        volume_blocks.min(VERIFY_BLOCKS_MAX * jobs as u64)
    } else {
        volume_blocks
    };
    let regions = regions(blocks, jobs, verify);
    if regions
        .iter()
        .any(|region| region.end - region.start < largest.into())
    {
        return Err(Usage(format!(
            "-o {} is too large for {jobs} job(s) on this volume of {}",
            args.io_size,
            human_bytes(volume_blocks * u64::from(block_size))
        )));
    }
    let plan = |(job, region)| Plan {
        job,
        shape: Shape {
            workload: args.workload,
            read_share: args.read_share,
            sizes: sizes.clone(),
            stride: args.stride,
            region,
        },
        depth: args.depth as usize,
        block_bytes: block_size as usize,
        ios: args.ios,
        seed: seed.wrapping_add(job as u64),
        pattern_seed: seed,
    };
    Ok(regions.into_iter().enumerate().map(plan).collect())
}

/// The main thread's view of the run.
struct Watch<'a> {
    session: &'a Session,
    news: mpsc::Receiver<News>,
    jobs: Vec<JobView>,
    stats: RunStats,
    /// What the latest second added.
    second: JobStats,
    live: LiveLine,
    verify: bool,
    /// How long was waited for what was in flight at the end.
    waited: Duration,
}

/// The latest from one job.
struct JobView {
    /// The counters that the job does not have at the moment.
    spare: Option<Box<JobStats>>,
    drained: bool,
    account: (u64, u64),
    span_ns: (u64, u64),
    verified: Option<Verified>,
    socket_calls: u64,
    states: Vec<&'static str>,
    waiting: u64,
}

impl<'a> Watch<'a> {
    fn new(session: &'a Session, news: mpsc::Receiver<News>, workload: Workload) -> Self {
        let view = || JobView {
            spare: Some(Box::new(JobStats::new())),
            drained: false,
            account: (0, 0),
            span_ns: (0, 0),
            verified: None,
            socket_calls: 0,
            states: Vec::new(),
            waiting: 0,
        };
        Self {
            jobs: (0..session.jobs()).map(|_| view()).collect(),
            session,
            news,
            stats: RunStats::new(),
            second: JobStats::new(),
            live: LiveLine::new(),
            verify: workload == Workload::Verify,
            waited: Duration::ZERO,
        }
    }

    /// Until the time is up, all jobs have done their I/Os, an I/O was wrong under `verify`, or `stop`.
    fn run(
        &mut self,
        time: Duration,
        mut failover: Failover,
        embedded: Option<&Embedded>,
        stop: &AtomicBool,
    ) -> anyhow::Result<()> {
        let start = now();
        let mut tick = SECOND;
        let mut shown = Duration::ZERO;
        loop {
            let elapsed = start.elapsed();
            if elapsed >= time || stop.load(Ordering::Relaxed) || self.all_drained() {
                break;
            }
            if let (Some(state), Some(embedded)) = (failover.take_due(elapsed), embedded) {
                embedded.set(0, state)?;
                continue;
            }
            if elapsed >= tick {
                self.collect(start + tick + SECOND)?;
                self.show(tick, start.elapsed().saturating_sub(shown));
                shown = start.elapsed();
                tick += SECOND;
                if self.verify && self.stats.total.miscompares > 0 {
                    break;
                }
                continue;
            }
            let next = tick.min(time).min(failover.next_at().unwrap_or(time));
            self.wait(next.saturating_sub(elapsed).min(NOTICE))?;
        }
        self.send_all(|| JobMessage::Stop)
    }

    /// Waits until nothing is in flight, or for as long as that may take.
    fn drain(&mut self, what: &str, stop: &AtomicBool) -> anyhow::Result<()> {
        let begun = now();
        let mut ending = Ending::new(stop);
        let mut completed = self.completed();
        let mut looked = now();
        while !self.all_drained() {
            let left = ending.left();
            if left.is_zero() {
                break;
            }
            self.wait(left.min(NOTICE))?;
            if looked.elapsed() < SECOND {
                continue;
            }
            looked = now();
            self.collect(looked + SECOND)?;
            if self.completed() != completed {
                completed = self.completed();
                ending.moved();
            }
            let in_flight = self.submitted() - completed;
            self.live.say(&format!(
                "the time is up: {what}, {in_flight} I/Os; {} s more at most",
                ending.left().as_secs()
            ));
        }
        self.waited += begun.elapsed();
        Ok(())
    }

    fn sweep(&mut self, stop: &AtomicBool) -> anyhow::Result<()> {
        self.send_all(|| JobMessage::Sweep)?;
        self.jobs.iter_mut().for_each(|job| job.drained = false);
        self.drain("reading once more what was written", stop)
    }

    /// What has not ended by now is counted as such.
    fn close(&mut self) -> anyhow::Result<()> {
        self.send_all(|| JobMessage::Close)?;
        self.collect(now() + SECOND)
    }

    fn send_all(&self, message: impl Fn() -> JobMessage) -> anyhow::Result<()> {
        (0..self.jobs.len()).try_for_each(|job| self.session.send(job, message()))
    }

    fn all_drained(&self) -> bool {
        self.jobs.iter().all(|job| job.drained)
    }

    fn completed(&self) -> u64 {
        self.jobs.iter().map(|job| job.account.1).sum()
    }

    fn submitted(&self) -> u64 {
        self.jobs.iter().map(|job| job.account.0).sum()
    }

    /// Takes one piece of news, if one comes in time.
    fn wait(&mut self, time: Duration) -> anyhow::Result<()> {
        match self.news.recv_timeout(time) {
            Ok(News::Drained { job }) => {
                if let Some(view) = self.jobs.get_mut(job) {
                    view.drained = true;
                }
            }
            Ok(News::Collected(collected)) => self.take(*collected),
            // The counters say so as well.
            Ok(News::Failed) => {}
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => bail!("an I/O reactor has ended before its job"),
        }
        Ok(())
    }

    fn take(&mut self, collected: Collected) {
        let Collected {
            job,
            stats,
            account,
            span_ns,
            verified,
            socket_calls,
            states,
            waiting,
            ..
        } = collected;
        self.stats.merge(&stats);
        self.second.add_counts(&stats);
        if let Some(view) = self.jobs.get_mut(job) {
            *view = JobView {
                spare: Some(stats),
                drained: view.drained,
                account,
                span_ns,
                verified,
                socket_calls,
                states,
                waiting,
            };
        }
    }

    /// Exchanges the counters of all jobs; one that does not answer by `deadline` is asked again next time.
    fn collect(&mut self, deadline: Instant) -> anyhow::Result<()> {
        self.second.clear();
        for job in 0..self.jobs.len() {
            if let Some(spare) = self.jobs.get_mut(job).and_then(|view| view.spare.take()) {
                self.session
                    .send(job, JobMessage::Collect { job, empty: spare })?;
            }
        }
        while self.jobs.iter().any(|job| job.spare.is_none()) {
            let left = deadline.saturating_duration_since(now());
            if left.is_zero() {
                break;
            }
            self.wait(left)?;
        }
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "for display")]
    fn show(&mut self, at: Duration, span: Duration) {
        let seconds = span.as_secs_f64().max(1e-3);
        self.live.show(&Moment {
            seconds: at.as_secs(),
            iops: self.second.ios() as f64 / seconds,
            bytes_per_sec: self.second.bytes as f64 / seconds,
            p99_ns: LatencySummary::of(&self.second.latency).p99,
            failed: self.stats.total.errors + self.stats.total.miscompares,
            states: self.states(),
            waiting: self.jobs.iter().map(|job| job.waiting).sum(),
        });
    }

    /// Of each path, what the first job sees; all are told the same within microseconds.
    fn states(&self) -> Vec<&'static str> {
        self.jobs
            .first()
            .map(|job| job.states.clone())
            .unwrap_or_default()
    }

    fn report(
        self,
        args: &RunArgs,
        placement: &Placement,
        available: Vec<usize>,
        seed: u64,
        interrupted: bool,
    ) -> Report {
        let machine = Machine::read(available);
        let mut doubts = machine.doubts();
        if self.session.embedded.is_some() && placement.shared {
            doubts.push("host and target share a core".to_owned());
        } else {
            doubts.extend(machine::interrupted(machine::preemptions(), args.time));
        }
        let volume = &self.session.volume;
        let states = self.states();
        let ios = &self.stats.total.paths;
        let paths = volume.addresses.iter().enumerate();
        let paths = paths
            .map(|(index, address)| PathReport {
                traddr: address.ip().to_string(),
                trsvcid: address.port().to_string(),
                ios: ios.get(index).copied().unwrap_or_default(),
                ana_state: states.get(index).copied().unwrap_or("unknown").to_owned(),
            })
            .collect();
        let reactors = self.jobs.len();
        let sum = |part: fn(&JobView) -> u64| self.jobs.iter().map(part).sum();
        let verified = self.jobs.iter().filter_map(|job| job.verified);
        let verified = verified.reduce(|mut sum, part| {
            sum.add(part);
            sum
        });
        Report {
            title: format!(
                "{} {}, depth {}{}, {} path{}, {}, seed {seed}{}",
                args.workload.name(),
                args.io_size,
                args.depth,
                if reactors > 1 {
                    format!(" on each of {reactors} reactors")
                } else {
                    String::new()
                },
                volume.paths.len(),
                if volume.paths.len() == 1 { "" } else { "s" },
                self.session.policy,
                namespace_in_words(volume),
            ),
            kind: "run",
            options: json!({
                "workload": args.workload.name(),
                "read_share": args.read_share,
                "depth": args.depth,
                "io_size": args.io_size.bytes(),
                "stride": args.stride,
                "policy": self.session.policy.to_string(),
                "hdgst": args.hdgst,
                "ddgst": args.ddgst,
                "require_digests": args.require_digests,
                "sq_flow_control": args.sq_flow_control,
                "seed": seed,
                "nsid": volume.nsid,
                "io_timeout_seconds": args.io_timeout.map(|limit| limit.as_secs_f64()),
                "embedded_target": self.session.embedded.is_some(),
                "volume_blocks": volume.blocks,
                "block_size": volume.block_size,
            }),
            start_ns: self.jobs.iter().map(|job| job.span_ns.0).min().unwrap_or(0),
            end_ns: self.jobs.iter().map(|job| job.span_ns.1).max().unwrap_or(0),
            submitted: sum(|job| job.account.0),
            completed: sum(|job| job.account.1),
            verified,
            interrupted,
            waited: self.waited,
            socket_calls: Some(sum(|job| job.socket_calls)),
            stats: self.stats,
            paths,
            host_cores: placement.host.clone(),
            target_core: self.session.embedded.is_some().then_some(placement.target),
            machine,
            doubts,
        }
    }
}

/// Which one it is, where there are several.
fn namespace_in_words(volume: &Volume) -> String {
    match volume.others.len() {
        0 => String::new(),
        others => format!(
            ", namespace {} of {} (--nsid takes another)",
            volume.nsid,
            others + 1
        ),
    }
}
