//! The table of a run for people.

use std::fmt::Write as _;

use pollux_multipath::Op;

use super::{PathReport, Report};
use crate::load::Verified;
use crate::results::Results as _;
use crate::saved;
use crate::stats::{GAP_MIN_NS, LatencySummary};
use crate::text::{duration, grouped, mib, millis, paragraph, rounded, short_duration};

/// What a run gave in all.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// I/Os that succeeded, per second.
    pub iops: f64,
    /// Payload bytes of those I/Os, per second.
    pub bytes_per_sec: f64,
    /// Reads that succeeded.
    pub reads: u64,
    /// Writes that succeeded.
    pub writes: u64,
    /// I/Os that failed.
    pub errors: u64,
    /// How long it was measured.
    pub seconds: f64,
}

/// The line of rates with its heading.
pub fn write_rates(out: &mut String, rates: &Rates) -> std::fmt::Result {
    writeln!(
        out,
        "  {:>12}  {:>10}  {:>12}  {:>12}  {:>10}  {:>8}",
        "IOPS", "MiB/s", "reads", "writes", "failed", "seconds"
    )?;
    writeln!(
        out,
        "  {:>12}  {:>10.1}  {:>12}  {:>12}  {:>10}  {:>8.2}",
        grouped(rounded(rates.iops)),
        mib(rates.bytes_per_sec),
        grouped(rates.reads),
        grouped(rates.writes),
        grouped(rates.errors),
        rates.seconds
    )
}

/// The latencies with their heading; those of failed I/O if there was any.
pub fn write_latency(
    out: &mut String,
    latency: &LatencySummary,
    failed: &LatencySummary,
) -> std::fmt::Result {
    writeln!(out)?;
    write!(out, "  {:<7}", "latency")?;
    for name in ["mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"] {
        write!(out, "{name:>10}")?;
    }
    writeln!(out)?;
    write_latency_row(out, "", latency)?;
    if failed.count > 0 {
        write_latency_row(out, "failed", failed)?;
    }
    Ok(())
}

impl Report {
    pub(super) fn write_table(&self, out: &mut String) -> std::fmt::Result {
        let total = &self.stats.total;
        paragraph(out, "", &self.title);
        let target = match self.target_core {
            Some(core) if self.host_cores.contains(&core) => format!(", target shares core {core}"),
            Some(core) => format!(", target on core {core}"),
            None => String::new(),
        };
        let cores = crate::cores::join(&self.host_cores);
        paragraph(
            out,
            "",
            &format!(
                "{}, Linux {}, host on core {cores}{target}",
                self.machine.cpu, self.machine.kernel,
            ),
        );
        writeln!(out)?;
        write_rates(
            out,
            &Rates {
                iops: self.iops(),
                bytes_per_sec: self.bytes_per_sec(),
                reads: total.reads,
                writes: total.writes,
                errors: total.errors,
                seconds: self.seconds(),
            },
        )?;
        let failed = LatencySummary::of(&total.failed_latency);
        write_latency(out, &self.latency(), &failed)?;
        if !self.jobs.is_empty() {
            self.write_jobs(out)?;
        }
        self.write_paths(out)?;
        writeln!(out)?;
        paragraph(
            out,
            "  ",
            &format!(
                "longest gap between completions: {}{} at {} s; {}",
                at_least(total.longest.open),
                millis(total.longest.length_ns()),
                self.at(total.longest.start_ns),
                self.stats.around_longest()
            ),
        );
        for event in self.stats.event_costs() {
            let pause = match event.pause_ns {
                Some(pause_ns) => {
                    format!("I/O paused {}{}", at_least(event.open), millis(pause_ns))
                }
                None => format!("no pause of {} or more", millis(GAP_MIN_NS)),
            };
            paragraph(
                out,
                "  ",
                &format!(
                    "at {} s {} went from {} to {}: {pause}",
                    self.at(event.at_ns),
                    event.path,
                    event.from,
                    event.to
                ),
            );
        }
        self.write_verdict(out);
        Ok(())
    }

    /// A row for each of several jobs, and what each did.
    #[expect(clippy::cast_precision_loss, reason = "for display")]
    fn write_jobs(&self, out: &mut String) -> std::fmt::Result {
        const WIDTH: usize = 16;
        writeln!(
            out,
            "\n  {:<WIDTH$}{:>12}{:>10}{:>10}{:>10}{:>10}{:>8}",
            "job", "IOPS", "MiB/s", "p50", "p99", "p99.9", "failed"
        )?;
        let shown = |ns: Option<u64>| ns.map_or_else(|| "n/a".to_owned(), duration);
        for job in &self.jobs {
            let latency = job.latency();
            let seconds = self.seconds();
            let mut name = job.name.clone();
            if name.chars().count() >= WIDTH {
                paragraph(out, "  ", &name);
                name.clear();
            }
            let [p50, _, p99, p999, ..] = latency.percentiles().map(|(_, ns)| shown(ns));
            writeln!(
                out,
                "  {name:<WIDTH$}{:>12}{:>10.1}{p50:>10}{p99:>10}{p999:>10}{:>8}",
                grouped(rounded(job.stats.ios() as f64 / seconds)),
                mib(job.stats.bytes as f64 / seconds),
                grouped(job.stats.errors + job.stats.miscompares),
            )?;
        }
        for job in &self.jobs {
            let mut text = format!("{}: {}", job.name, job.what);
            if let Some(open) = job.open_loop {
                let _ = write!(
                    text,
                    ", {} I/Os a second due ({}), {} at most not started",
                    grouped(open.rate.iops),
                    open.rate.process.name(),
                    grouped(open.backlog.most)
                );
            }
            paragraph(out, "  ", &text);
        }
        Ok(())
    }

    fn write_paths(&self, out: &mut String) -> std::fmt::Result {
        /// An IPv4 address and a port, with some room.
        const WIDTH_MAX: usize = 24;
        let addresses = self.paths.iter().map(|path| address(path).len());
        let width = addresses.max().unwrap_or(0).clamp(12, WIDTH_MAX);
        let all: u64 = self.paths.iter().map(|path| path.ios.ios).sum();
        writeln!(out)?;
        writeln!(
            out,
            "  {:<width$}  {:>14}  {:>7}  {:>8}  state",
            "path", "I/Os", "share", "failed"
        )?;
        for path in &self.paths {
            let mut name = address(path);
            if name.len() > width {
                writeln!(out, "  {name}")?;
                name.clear();
            }
            writeln!(
                out,
                "  {name:<width$}  {:>14}  {:>5}.{}%  {:>8}  {}",
                grouped(path.ios.ios),
                path.ios.ios * 100 / all.max(1),
                path.ios.ios * 1000 / all.max(1) % 10,
                grouped(path.ios.errors),
                path.ana_state
            )?;
        }
        Ok(())
    }

    fn write_verdict(&self, out: &mut String) {
        let total = &self.stats.total;
        if self.interrupted {
            let text = format!("INTERRUPTED after {:.2} s, before its time", self.seconds());
            paragraph(out, "  ", &text);
        }
        if let Some(verified) = self.verified {
            paragraph(out, "  ", &verified_in_words(verified));
        }
        if self.lost() > 0 {
            let text = format!(
                "UNFINISHED: {} of {} I/Os had not ended {:.1} s after the end, the oldest after {}; figures with >= are at least so long",
                grouped(self.lost()),
                grouped(self.submitted),
                self.waited.as_secs_f64(),
                duration(total.unfinished.max()),
            );
            paragraph(out, "  ", &text);
        }
        if self.failures() > 0 {
            let text = format!(
                "FAILED: {} errors, {} miscompares, {} of {} I/Os lost",
                grouped(total.errors),
                grouped(total.miscompares),
                grouped(self.lost()),
                grouped(self.submitted)
            );
            paragraph(out, "  ", &text);
        } else {
            let text = format!(
                "{} I/Os submitted, {} completed, no error",
                grouped(self.submitted),
                grouped(self.completed)
            );
            paragraph(out, "  ", &text);
        }
        if let Some(ramp) = self.ramp {
            let mut text = format!("{} s of warm-up are left out", ramp.time.as_secs_f64());
            if ramp.failures > 0 {
                text = format!("{text}; {} I/Os failed in it", grouped(ramp.failures));
            }
            paragraph(out, "  ", &text);
        }
        if let Some(steady) = self.steady.filter(|steady| steady.attained.is_some()) {
            paragraph(out, "  ", &steady.in_words());
        }
        if let Some(open) = self.open_loop {
            let text = format!(
                "open loop: {} I/Os a second were due ({} arrivals); {} at most were due and not started, {} at the end; latency counts from when an I/O was due",
                grouped(open.rate.iops),
                open.rate.process.name(),
                grouped(open.backlog.most),
                grouped(open.backlog.now)
            );
            paragraph(out, "  ", &text);
        }
        self.write_operations(out);
        if let Some(calls) = self.socket_calls_per_io() {
            let text = format!(
                "{calls:.3} socket calls per I/O on the host side, those that found nothing included"
            );
            paragraph(out, "  ", &text);
        }
        if !self.host_busy.is_empty() {
            let shares = self
                .host_busy
                .iter()
                .map(|share| format!("{:.0} %", share * 100.0));
            let shares = shares.collect::<Vec<_>>().join(", ");
            paragraph(
                out,
                "  ",
                &format!("the host was busy for {shares} of the time"),
            );
        }
        if let Some(error) = &total.first_error {
            paragraph(out, "  ", &format!("first error: {error}"));
        }
        for doubt in &self.doubts {
            paragraph(out, "  ", &format!("doubtful: {doubt}"));
        }
    }

    /// Where there was more than reads and writes.
    fn write_operations(&self, out: &mut String) {
        let total = &self.stats.total;
        let counts = Op::ALL.map(|op| (op, total.count_of(op)));
        let others = counts.iter().filter(|(_, count)| *count > 0);
        if total.others.iter().all(|count| *count == 0) {
            return;
        }
        let words: Vec<String> = others
            .map(|(op, count)| format!("{} {}", grouped(*count), op.name()))
            .collect();
        let mut text = format!("operations: {}", words.join(", "));
        if total.differing > 0 {
            let _ = write!(text, "; {} compares differed", grouped(total.differing));
        }
        paragraph(out, "  ", &text);
    }

    fn at(&self, at_ns: u64) -> String {
        let since_ns = at_ns.saturating_sub(self.start_ns);
        format!(
            "{}.{:03}",
            since_ns / 1_000_000_000,
            since_ns / 1_000_000 % 1_000
        )
    }
}

/// The share of the blocks that `verify` can vouch for, and what it cannot.
pub(super) fn verified_in_words(verified: Verified) -> String {
    let mut text = match verified.unread() + verified.wrong {
        0 => format!(
            "all {} blocks that had been written were read once more at the end",
            grouped(verified.written)
        ),
        _ => format!(
            "of {} blocks that had been written {} were read once more at the end and were right",
            grouped(verified.written),
            grouped(verified.right)
        ),
    };
    for (blocks, what) in [
        (verified.wrong, "in reads with wrong data"),
        (verified.unread(), "not read"),
        (
            verified.open,
            "of unknown contents, as their last write failed or did not end",
        ),
    ] {
        if blocks > 0 {
            let _ = write!(text, "; {} {what}", grouped(blocks));
        }
    }
    text
}

fn write_latency_row(out: &mut String, label: &str, latency: &LatencySummary) -> std::fmt::Result {
    write!(out, "  {label:<7}")?;
    let percentiles = latency.percentiles().into_iter().map(|(_, value)| value);
    let columns = std::iter::once(Some(rounded(latency.mean)))
        .chain(percentiles)
        .chain([Some(latency.max)]);
    for (index, value) in columns.enumerate() {
        let Some(value) = value.filter(|_| latency.count > 0) else {
            let text = if latency.count > 0 { "n/a" } else { "-" };
            write!(out, "{text:>10}")?;
            continue;
        };
        // The mean moves with every I/O that has not ended.
        let open = match index {
            0 => latency.at_least_from.is_some(),
            _ => latency.is_lower_bound(value),
        };
        let text = match open {
            true => format!(">={}", short_duration(value)),
            false => duration(value),
        };
        write!(out, "{text:>10}")?;
    }
    writeln!(out)
}

fn at_least(open: bool) -> &'static str {
    if open { ">=" } else { "" }
}

fn address(path: &PathReport) -> String {
    saved::address(&path.traddr, &path.trsvcid)
}
