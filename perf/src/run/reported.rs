//! What a run came to: the watch's counters with all that a reader needs to judge and to repeat it.

use hdrhistogram::Histogram;
use serde_json::json;

use super::RunArgs;
use super::watch::{JobView, Watch};
use crate::cores::Placement;
use crate::load::Backlog;
use crate::machine::{self, Machine};
use crate::report::{OpenLoop, PathReport, Report};
use crate::stats::Interval;
use crate::text::{grouped, rounded};
use crate::volume::Volume;

impl Watch<'_> {
    /// Ends the watch.
    pub fn report(
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
        let spans = self.jobs.iter().map(|job| {
            let (start_ns, end_ns) = job.span_ns;
            let start_ns = job.left_out.0.unwrap_or(start_ns);
            (start_ns, end_ns.max(start_ns))
        });
        let start_ns = spans.clone().map(|span| span.0).min().unwrap_or(0);
        let end_ns = spans.map(|span| span.1).max().unwrap_or(0);
        let series: Vec<Interval> = self.series_until(end_ns);
        let open_loop = args.rate().map(|rate| {
            let backlogs = self.jobs.iter().filter_map(|job| job.backlog);
            let backlog = backlogs.fold(Backlog::default(), |sum, part| Backlog {
                most: sum.most + part.most,
                now: sum.now + part.now,
            });
            OpenLoop { rate, backlog }
        });
        let ios_per_sec =
            self.stats.total.ios() as f64 * 1e9 / end_ns.saturating_sub(start_ns).max(1) as f64;
        doubts.extend(open_loop.and_then(|open| not_reached(open, ios_per_sec)));
        let calm = self.stats.total.events.is_empty() && open_loop.is_none();
        doubts.extend(calm.then(|| still_warming_up(&series)).flatten());
        doubts.extend(too_few(&self.stats.total.latency));
        let target = json!({
            "embedded": self.session.embedded.is_some(),
            "subnqn": self.session.subnqn,
            "addresses": volume.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "nsid": volume.nsid,
            "volume_blocks": volume.blocks,
            "block_size": volume.block_size,
        });
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
                "mix": args.mix.as_ref().map(ToString::to_string),
                "random_distribution": args.random_distribution.map(|d| d.to_string()),
                "io_size_weights": args.io_size.weights(),
                "rate_iops": args.rate,
                "arrivals": args.rate.map(|_| args.arrivals.name()),
                "ios": args.ios,
                "namespace": self.session.embedded.is_some().then(|| args.namespace.to_string()),
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
            start_ns,
            end_ns,
            submitted: sum(|job| job.account.0 - job.left_out.1),
            completed: sum(|job| job.account.1 - job.left_out.1),
            verified,
            interrupted,
            waited: self.waited,
            socket_calls: Some(sum(|job| job.socket_calls.saturating_sub(job.left_out.2))),
            stats: self.stats,
            paths,
            host_cores: placement.host.clone(),
            target_core: self.session.embedded.is_some().then_some(placement.target),
            machine,
            doubts,
            series,
            open_loop,
            ramp: self.ramp,
            began: self.began,
            target,
        }
    }
}

/// The load was not what was asked for.
fn not_reached(open: OpenLoop, iops: f64) -> Option<String> {
    let wanted = open.rate.iops as f64;
    (iops < 0.98 * wanted).then(|| {
        format!(
            "{} I/Os a second were asked for, {} were done: the target or this generator is saturated, and latencies grow with the time to run",
            grouped(open.rate.iops),
            grouped(rounded(iops))
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
        assert_eq!(not_reached(open, 990.0), None);
        assert!(not_reached(open, 900.0).unwrap().contains("900 were done"));
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
