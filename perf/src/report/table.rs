//! The table of a run for people.

use std::fmt::Write as _;

use super::{PathReport, Report};
use crate::load::Verified;
use crate::results::Results as _;
use crate::stats::{GAP_MIN_NS, LatencySummary};
use crate::text::{duration, grouped, mib, millis, paragraph, rounded, short_duration};

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
        writeln!(
            out,
            "  {:>12}  {:>10}  {:>12}  {:>12}  {:>10}  {:>8}",
            "IOPS", "MiB/s", "reads", "writes", "failed", "seconds"
        )?;
        writeln!(
            out,
            "  {:>12}  {:>10.1}  {:>12}  {:>12}  {:>10}  {:>8.2}",
            grouped(rounded(self.iops())),
            mib(self.bytes_per_sec()),
            grouped(total.reads),
            grouped(total.writes),
            grouped(total.errors),
            self.seconds()
        )?;
        self.write_latency(out)?;
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

    fn write_latency(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out)?;
        write!(out, "  {:<7}", "latency")?;
        for name in ["mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"] {
            write!(out, "{name:>10}")?;
        }
        writeln!(out)?;
        write_latency_row(out, "", &self.latency())?;
        let failed = LatencySummary::of(&self.stats.total.failed_latency);
        if failed.count > 0 {
            write_latency_row(out, "failed", &failed)?;
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
        if let Some(calls) = self.socket_calls_per_io() {
            let text = format!(
                "{calls:.3} socket calls per I/O on the host side, those that found nothing included"
            );
            paragraph(out, "  ", &text);
        }
        if let Some(error) = &total.first_error {
            paragraph(out, "  ", &format!("first error: {error}"));
        }
        for doubt in &self.doubts {
            paragraph(out, "  ", &format!("doubtful: {doubt}"));
        }
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
    let columns = [
        rounded(latency.mean),
        latency.p50,
        latency.p90,
        latency.p99,
        latency.p999,
        latency.p9999,
        latency.max,
    ];
    for (index, value) in columns.into_iter().enumerate() {
        // The mean moves with every I/O that has not ended.
        let open = match index {
            0 => latency.at_least_from.is_some(),
            _ => latency.is_lower_bound(value),
        };
        let text = match (latency.count, open) {
            (0, _) => "-".to_owned(),
            (_, true) => format!(">={}", short_duration(value)),
            (_, false) => duration(value),
        };
        write!(out, "{text:>10}")?;
    }
    writeln!(out)
}

fn at_least(open: bool) -> &'static str {
    if open { ">=" } else { "" }
}

fn address(path: &PathReport) -> String {
    if path.traddr.contains(':') {
        format!("[{}]:{}", path.traddr, path.trsvcid)
    } else {
        format!("{}:{}", path.traddr, path.trsvcid)
    }
}
