//! What a run came to: the watch's counters with all that a reader needs to judge and to repeat it.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::RunArgs;
use super::jobs::JobArgs;
use super::watch::{JobView, Watch};
use crate::cores::Placement;
use crate::load::Backlog;
use crate::machine::{self, Machine};
use crate::report::{JobReport, OpenLoop, PathReport, Report};
use crate::stats::Interval;
use crate::text::{grouped, rounded};

impl Watch<'_> {
    /// Ends the watch.
    pub fn report(
        self,
        jobs: &[JobArgs],
        placement: &Placement,
        available: Vec<usize>,
        seed: u64,
        interrupted: bool,
    ) -> Report {
        let args = &jobs[0].args;
        let machine = Machine::read(available);
        let mut doubts = machine.doubts();
        if self.session.embedded.is_some() && placement.shared {
            doubts.push("host and target share a core".to_owned());
        } else {
            doubts.extend(machine::interrupted(machine::preemptions(), args.time));
        }
        let (before, after) = (&self.before, &self.after);
        let host_busy = after.busy_since(before);
        doubts.extend(after.pressure.doubts_since(&before.pressure, args.time));
        if self.session.embedded.is_none() {
            let addresses: Vec<_> = self.session.paths.iter().map(|path| path.address).collect();
            doubts.extend(machine::shares_cores(&addresses, &placement.host));
        }
        let states = self.states();
        let ios = &self.stats.total.paths;
        let paths = self.session.paths.iter().enumerate();
        let paths = paths
            .map(|(index, path)| PathReport {
                traddr: path.address.ip().to_string(),
                trsvcid: path.address.port().to_string(),
                ios: ios.get(index).copied().unwrap_or_default(),
                ana_state: match states.get(index).copied() {
                    None | Some("") => "unknown".to_owned(),
                    Some(state) => state.to_owned(),
                },
            })
            .collect();
        let spans = self.jobs.iter().map(|job| {
            let (start_ns, end_ns) = job.span_ns;
            let start_ns = job.left_out.0.unwrap_or(start_ns);
            (start_ns, end_ns.max(start_ns))
        });
        let start_ns = spans.clone().map(|span| span.0).min().unwrap_or(0);
        let end_ns = spans.map(|span| span.1).max().unwrap_or(0);
        let series: Vec<Interval> = self.series_until(end_ns);
        let seconds = end_ns.saturating_sub(start_ns).max(1) as f64 / 1e9;
        let open_loops: Vec<Option<OpenLoop>> = jobs
            .iter()
            .enumerate()
            .map(|(asked, job)| self.open_loop(asked, &job.args))
            .collect();
        for (asked, open) in open_loops.iter().enumerate() {
            let iops = self.asked[asked].ios() as f64 / seconds;
            doubts.extend(open.and_then(|open| not_reached(open, iops, &host_busy)));
        }
        if self.session.embedded.is_none() && open_loops.iter().all(Option::is_none) {
            doubts.extend(saturated(&host_busy));
        }
        if !interrupted {
            doubts.extend(self.depth_not_reached(jobs));
        }
        let open_loop = together(&open_loops);
        let calm = self.stats.total.events.is_empty() && open_loops.iter().all(Option::is_none);
        doubts.extend(calm.then(|| still_warming_up(&series)).flatten());
        doubts.extend(too_few(&self.stats.total.latency));
        let never = self.steady.filter(|steady| steady.attained.is_none());
        doubts.extend(never.map(|steady| steady.in_words()));
        let target = self.target();
        let sum = |part: fn(&JobView) -> u64| self.jobs.iter().map(part).sum();
        let verified = self.jobs.iter().filter_map(|job| job.verified);
        let verified = verified.reduce(|mut sum, part| {
            sum.add(part);
            sum
        });
        Report {
            title: self.title(jobs, placement.host.len(), seed),
            kind: "run",
            options: self.options(jobs, seed),
            jobs: self.job_reports(jobs, &open_loops),
            start_ns,
            end_ns,
            submitted: sum(|job| job.account.0 - job.left_out.1),
            completed: sum(|job| job.account.1 - job.left_out.1),
            verified,
            interrupted,
            waited: self.waited,
            socket_calls: Some(self.socket_calls()),
            stats: self.stats,
            paths,
            host_cores: placement.host.clone(),
            target_core: self.session.embedded.is_some().then_some(placement.target),
            machine,
            host_busy,
            doubts,
            series,
            open_loop,
            ramp: self.ramp,
            steady: self.steady,
            began: self.began,
            target,
        }
    }
}

impl Watch<'_> {
    /// What a job was due to do, if it was in an open loop.
    fn open_loop(&self, asked: usize, args: &RunArgs) -> Option<OpenLoop> {
        let own = self.jobs.iter().filter(|job| job.seat.asked == asked);
        let backlogs = own.filter_map(|job| job.backlog);
        let backlog = backlogs.fold(Backlog::default(), |sum, part| Backlog {
            most: sum.most + part.most,
            now: sum.now + part.now,
        });
        args.rate().map(|rate| OpenLoop { rate, backlog })
    }

    /// Jobs without a rate whose depth was never in flight, and paths that do not take it.
    fn depth_not_reached(&self, jobs: &[JobArgs]) -> Vec<String> {
        let mut doubts = Vec::new();
        for (asked, job) in jobs.iter().enumerate() {
            let mut own = self.jobs.iter().filter(|view| view.seat.asked == asked);
            if job.args.rate.is_none() && !own.all(|view| view.reached_depth) {
                doubts.push(format!(
                    "depth {} was never reached by {}: --ios, or the blocks that verify has free, allow fewer I/Os",
                    job.args.depth, job.name
                ));
            }
        }
        let group = self.jobs.iter().filter(|view| view.seat.poll_group == 0);
        let depth: u64 = group
            .map(|view| {
                let args = &jobs[view.seat.asked].args;
                u64::from(args.depth.div_ceil(args.qpairs))
            })
            .sum();
        let taken = self
            .session
            .paths
            .iter()
            .filter_map(|path| path.in_flight_max);
        if let Some(least) = taken.min().map(u64::from)
            && least < depth
        {
            doubts.push(format!(
                "a queue pair takes {least} I/Os at a time, and {depth} are to be in flight: the others may wait in this host; -P has more queue pairs"
            ));
        }
        doubts
    }

    /// The run in one line.
    fn title(&self, jobs: &[JobArgs], reactors: usize, seed: u64) -> String {
        let session = self.session;
        let args = &jobs[0].args;
        let mut title = match jobs {
            [one] => {
                let mut title = in_words(&one.args);
                if reactors > 1 {
                    title += &format!(" on each of {reactors} reactors");
                }
                title
            }
            _ => format!("{} jobs", jobs.len()),
        };
        let mut add = |text: String| title = format!("{title}, {text}");
        if args.qpairs > 1 {
            add(format!("{} queue pairs of a reactor", args.qpairs));
        }
        let volumes = self.volumes_used();
        if volumes.len() > 1 {
            add(format!("{} volumes", volumes.len()));
        }
        let paths = session.paths.len();
        add(format!("{paths} path{}", if paths == 1 { "" } else { "s" }));
        add(session.policy.to_string());
        if let ([one], others @ 1..) = (&volumes[..], session.volumes.len() - 1) {
            let nsid = session.volumes[*one].nsid;
            add(format!(
                "namespace {nsid} of {} (--nsid takes another)",
                others + 1
            ));
        }
        add(format!("seed {seed}"));
        title
    }

    /// The volumes that a job works on.
    fn volumes_used(&self) -> Vec<usize> {
        let mut used: Vec<usize> = self.session.places.iter().flatten().copied().collect();
        used.sort_unstable();
        used.dedup();
        used
    }

    /// What was measured.
    fn target(&self) -> Value {
        let session = self.session;
        let used = self.volumes_used();
        let volumes = used.iter().map(|&place| {
            let volume = &session.volumes[place];
            json!({
                "name": volume.name,
                "nsid": volume.nsid,
                "blocks": volume.blocks,
                "block_size": volume.block_size,
            })
        });
        let first = &session.volumes[used[0]];
        let addresses = session.paths.iter().map(|path| path.address.to_string());
        let controllers = session.paths.iter().map(|path| {
            let identity = &path.identity;
            json!({
                "model": identity.model,
                "serial": identity.serial,
                "firmware": identity.firmware,
            })
        });
        json!({
            "embedded": session.embedded.is_some(),
            "subnqn": session.subnqns.join(" "),
            "addresses": addresses.collect::<Vec<_>>(),
            "nsid": first.nsid,
            "volume_blocks": first.blocks,
            "block_size": first.block_size,
            "volumes": volumes.collect::<Vec<_>>(),
            "controllers": controllers.collect::<Vec<_>>(),
        })
    }

    /// What makes the workload: of the only job, or of each of several.
    fn options(&self, jobs: &[JobArgs], seed: u64) -> Value {
        let args = &jobs[0].args;
        let session = self.session;
        let first = &session.volumes[session.places[0][0]];
        let namespaces = args.namespaces.iter().map(ToString::to_string);
        let namespaces = namespaces.collect::<Vec<_>>().join(",");
        let mut options = json!({
            "namespace": session.embedded.is_some().then_some(namespaces),
            "qpairs": args.qpairs,
            "policy": session.policy.to_string(),
            "hdgst": args.hdgst,
            "ddgst": args.ddgst,
            "require_digests": args.require_digests,
            "sq_flow_control": args.sq_flow_control,
            "seed": seed,
            "nsid": first.nsid,
            "embedded_target": session.embedded.is_some(),
            "volume_blocks": first.blocks,
            "block_size": first.block_size,
        });
        match jobs {
            [one] => {
                let own = job_options(&one.args, session.places[0].len());
                if let (Some(all), Value::Object(own)) = (options.as_object_mut(), own) {
                    all.extend(own);
                }
            }
            _ => {
                let each = jobs.iter().zip(&session.places).map(|(job, places)| {
                    let mut own = job_options(&job.args, places.len());
                    own["name"] = job.name.clone().into();
                    own
                });
                options["jobs"] = each.collect();
            }
        }
        options
    }

    /// What each job came to, where there are several.
    fn job_reports(&self, jobs: &[JobArgs], open_loops: &[Option<OpenLoop>]) -> Vec<JobReport> {
        if jobs.len() == 1 {
            return Vec::new();
        }
        let each = jobs.iter().zip(&self.session.places).zip(open_loops);
        each.zip(&self.asked)
            .map(|(((job, places), open_loop), stats)| JobReport {
                name: job.name.clone(),
                what: in_words(&job.args),
                options: job_options(&job.args, places.len()),
                stats: stats.clone(),
                open_loop: *open_loop,
            })
            .collect()
    }
}

/// A reactor that is busy for more of its time has none to spare.
const SATURATED: f64 = 0.97;

/// What a job does.
fn in_words(args: &RunArgs) -> String {
    let mut text = format!(
        "{} {}, depth {}",
        args.workload.name(),
        args.io_size,
        args.depth
    );
    if args.numjobs > 1 {
        text += &format!(" in each of {} jobs", args.numjobs);
    }
    text
}

/// What makes the workload of a job on so many volumes.
fn job_options(args: &RunArgs, volumes: usize) -> Value {
    json!({
        "workload": args.workload.name(),
        "read_share": args.read_share,
        "mix": args.mix.as_ref().map(ToString::to_string),
        "random_distribution": args.random_distribution.map(|d| d.to_string()),
        "io_size_weights": args.io_size.weights(),
        "rate_iops": args.rate,
        "arrivals": args.rate.map(|_| args.arrivals.name()),
        "ios": args.ios,
        "depth": args.depth,
        "numjobs": args.numjobs,
        "volumes": volumes,
        "io_size": args.io_size.bytes(),
        "stride": args.stride,
        "io_timeout_seconds": args.io_timeout.map(|limit| limit.as_secs_f64()),
    })
}

/// The load of all jobs, if all were in an open loop.
fn together(open_loops: &[Option<OpenLoop>]) -> Option<OpenLoop> {
    let all: Option<Vec<OpenLoop>> = open_loops.iter().copied().collect();
    let sum = |mut sum: OpenLoop, part: OpenLoop| {
        sum.rate.iops += part.rate.iops;
        sum.backlog.most += part.backlog.most;
        sum.backlog.now += part.backlog.now;
        sum
    };
    all?.into_iter().reduce(sum)
}

/// The load was not what was asked for.
fn not_reached(open: OpenLoop, iops: f64, host_busy: &[f64]) -> Option<String> {
    let wanted = open.rate.iops as f64;
    let busiest = host_busy.iter().copied().fold(0.0, f64::max);
    let who = match busiest > SATURATED {
        true => format!(
            "this generator is saturated, its core was busy for {:.0} % of the time (-m takes more cores)",
            busiest * 100.0
        ),
        false => "the target, or the way to it, is saturated".to_owned(),
    };
    (iops < 0.98 * wanted).then(|| {
        format!(
            "{} I/Os a second were asked for, {} were done: {who}, and latencies grow with the time to run",
            grouped(open.rate.iops),
            grouped(rounded(iops))
        )
    })
}

/// A closed loop that the host limits.
fn saturated(host_busy: &[f64]) -> Option<String> {
    let least = host_busy.iter().copied().reduce(f64::min)?;
    (least > SATURATED).then(|| {
        format!(
            "the cores of this host were busy for {:.0} % of the time: what was measured may be its limit and not the target's; -m takes more cores",
            least * 100.0
        )
    })
}

/// The first interval differs from those after it.
fn still_warming_up(series: &[Interval]) -> Option<String> {
    let (first, rest) = series.split_first()?;
    if rest.len() < 4 {
        return None;
    }
    let mut rates: Vec<f64> = rest.iter().map(Interval::iops).collect();
    rates.sort_by(f64::total_cmp);
    let median = rates[rates.len() / 2];
    let off = first.iops() / median.max(1e-9) - 1.0;
    (off.abs() > 0.1).then(|| {
        format!(
            "the first interval is {:+.0} % off the median of the others: a longer --ramp-time leaves it out",
            off * 100.0
        )
    })
}

/// The highest percentiles stand for nothing.
fn too_few(latency: &Histogram<u64>) -> Option<String> {
    let count = latency.len();
    (1..1_000)
        .contains(&count)
        .then(|| format!("{count} I/Os are too few for the high percentiles"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Process, Rate};

    fn series(ios: &[u64]) -> Vec<Interval> {
        let interval = |&ios: &u64| Interval {
            end_ns: 1_000_000_000,
            ios,
            ..Interval::default()
        };
        ios.iter().map(interval).collect()
    }

    #[test]
    fn doubts_are_said_where_there_is_reason() {
        let open = OpenLoop {
            rate: Rate {
                iops: 1_000,
                process: Process::Constant,
            },
            backlog: Backlog::default(),
        };
        assert_eq!(not_reached(open, 990.0, &[1.0]), None);
        let text = not_reached(open, 900.0, &[0.5, 0.99]).unwrap();
        assert!(text.contains("900 were done: this generator"), "{text}");
        let text = not_reached(open, 900.0, &[0.5]).unwrap();
        assert!(text.contains("900 were done: the target"), "{text}");
        assert_eq!(saturated(&[0.99, 0.5]), None, "one core had time to spare");
        assert_eq!(saturated(&[]), None);
        assert!(saturated(&[0.99, 0.98]).unwrap().contains("98 %"));
        assert_eq!(still_warming_up(&series(&[95, 100, 100, 100, 100])), None);
        assert_eq!(
            still_warming_up(&series(&[50, 100])),
            None,
            "too short to say"
        );
        let text = still_warming_up(&series(&[80, 100, 101, 99, 100])).unwrap();
        assert!(
            text.contains("-20 %") && text.contains("--ramp-time"),
            "{text}"
        );
    }
}
