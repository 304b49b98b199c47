//! Results for people (a live line, a table) and for programs (one JSON object).

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::time::Duration;

use serde_json::{Value, json};

use crate::Results;
use crate::load::Verified;
use crate::machine::Machine;
use crate::stats::{GAP_MIN_NS, LatencySummary, PathIos, RunStats};

/// A path and what it carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathReport {
    /// IP address.
    pub traddr: String,
    /// Port.
    pub trsvcid: String,
    /// I/Os that ended on it.
    pub ios: PathIos,
    /// Its state at the end.
    pub ana_state: String,
}

/// What to report of a run.
#[derive(Debug)]
pub struct Report {
    /// What was run, in one line.
    pub title: String,
    /// Which program part: `run` or `floor`.
    pub kind: &'static str,
    /// The options that make the number, for the JSON object.
    pub options: Value,
    /// All counters.
    pub stats: RunStats,
    /// First submission, in the clock of the statistics.
    pub start_ns: u64,
    /// The time was up, or the last completion after that.
    pub end_ns: u64,
    /// I/Os handed out and I/Os that came back, with success or without.
    pub submitted: u64,
    /// See `submitted`.
    pub completed: u64,
    /// What `verify` read once more at the end.
    pub verified: Option<Verified>,
    /// A signal ended it before its time.
    pub interrupted: bool,
    /// How long was waited for what was in flight at the end.
    pub waited: Duration,
    /// Socket calls of the side under test, where they are counted.
    pub socket_calls: Option<u64>,
    /// Paths in attach order.
    pub paths: Vec<PathReport>,
    /// Cores of the side under test.
    pub host_cores: Vec<usize>,
    /// Core of the peer, where it runs in this process.
    pub target_core: Option<usize>,
    /// Where it was measured.
    pub machine: Machine,
    /// What makes the number doubtful.
    pub doubts: Vec<String>,
}

impl Report {
    /// Seconds from the first submission to the end.
    #[expect(
        clippy::cast_precision_loss,
        reason = "53 bits of nanoseconds are 104 days"
    )]
    fn seconds(&self) -> f64 {
        self.end_ns.saturating_sub(self.start_ns).max(1) as f64 / 1e9
    }

    /// I/Os per second, of those that succeeded.
    #[expect(clippy::cast_precision_loss, reason = "for display")]
    pub fn iops(&self) -> f64 {
        self.stats.total.ios() as f64 / self.seconds()
    }

    #[expect(clippy::cast_precision_loss, reason = "for display")]
    fn bytes_per_sec(&self) -> f64 {
        self.stats.total.bytes as f64 / self.seconds()
    }

    #[expect(clippy::cast_precision_loss, reason = "for display")]
    fn socket_calls_per_io(&self) -> Option<f64> {
        let calls = self.socket_calls? as f64;
        // What was read once more at the end took calls as well.
        let succeeded = self.completed.saturating_sub(self.stats.total.errors);
        (succeeded > 0).then(|| calls / succeeded as f64)
    }

    /// I/Os that never came back.
    pub fn lost(&self) -> u64 {
        self.submitted.saturating_sub(self.completed)
    }

    fn latency(&self) -> LatencySummary {
        let total = &self.stats.total;
        LatencySummary::with_unfinished(&total.latency, &total.unfinished)
    }

    fn write_table(&self, out: &mut String) -> std::fmt::Result {
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
fn verified_in_words(verified: Verified) -> String {
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

/// Names of the percentiles in the JSON object that are lower bounds.
fn lower_bounds(latency: &LatencySummary) -> Vec<&'static str> {
    let percentiles = [
        ("p50", latency.p50),
        ("p90", latency.p90),
        ("p99", latency.p99),
        ("p999", latency.p999),
        ("p9999", latency.p9999),
        ("max", latency.max),
    ];
    let mean = latency.at_least_from.map(|_| "mean");
    let bounds = percentiles
        .into_iter()
        .filter(|(_, value)| latency.is_lower_bound(*value));
    mean.into_iter()
        .chain(bounds.map(|(name, _)| name))
        .collect()
}

fn latency_json(latency: &LatencySummary) -> Value {
    json!({
        "mean": latency.mean,
        "p50": latency.p50,
        "p90": latency.p90,
        "p99": latency.p99,
        "p999": latency.p999,
        "p9999": latency.p9999,
        "max": latency.max,
    })
}

impl Results for Report {
    /// Errors, wrong data and I/Os that never ended: what makes the exit code 1. Who interrupts a run did not want to
    /// wait for what was in flight.
    fn failures(&self) -> u64 {
        let lost = if self.interrupted { 0 } else { self.lost() };
        let wrong = self.stats.total.errors + self.stats.total.miscompares;
        wrong + lost
    }

    fn interrupted(&self) -> bool {
        self.interrupted
    }

    /// One object; the schema only grows.
    fn json(&self) -> Value {
        let total = &self.stats.total;
        let latency = self.latency();
        let failed = LatencySummary::of(&total.failed_latency);
        let since_start = |at_ns: u64| at_ns.saturating_sub(self.start_ns);
        let events: Vec<Value> = self
            .stats
            .event_costs()
            .into_iter()
            .map(|event| {
                json!({
                    "at_ns": since_start(event.at_ns),
                    "path": event.path,
                    "from": event.from,
                    "to": event.to,
                    "pause_ns": event.pause_ns,
                    "pause_open": event.open,
                })
            })
            .collect();
        let paths: Vec<Value> = self
            .paths
            .iter()
            .map(|path| {
                json!({
                    "traddr": path.traddr,
                    "trsvcid": path.trsvcid,
                    "ios": path.ios.ios,
                    "errors": path.ios.errors,
                    "ana_state": path.ana_state,
                })
            })
            .collect();
        json!({
            "kind": self.kind,
            "version": env!("CARGO_PKG_VERSION"),
            "options": self.options,
            "seconds": self.seconds(),
            "iops": self.iops(),
            "bytes_per_sec": self.bytes_per_sec(),
            "reads": total.reads,
            "writes": total.writes,
            "errors": total.errors,
            "miscompares": total.miscompares,
            "submitted": self.submitted,
            "completed": self.completed,
            "interrupted": self.interrupted,
            "unfinished": {
                "count": self.lost(),
                "oldest_ns": total.unfinished.max(),
                "waited_seconds": self.waited.as_secs_f64(),
            },
            "swept_blocks": self.verified.map_or(0, |verified| verified.right),
            "verified": self.verified.map(Verified::json),
            "socket_calls_per_io": self.socket_calls_per_io(),
            "first_error": total.first_error,
            "latency_ns": latency_json(&latency),
            "latency_lower_bounds": lower_bounds(&latency),
            "failed_latency_ns": (failed.count > 0).then(|| latency_json(&failed)),
            "longest_gap_ns": total.longest.length_ns(),
            "longest_gap": {
                "at_ns": since_start(total.longest.start_ns),
                "job": total.longest.job,
                "open": total.longest.open,
                "around": self.stats.around_longest(),
            },
            "paths": paths,
            "path_events": events,
            "cores": { "host": self.host_cores, "target": self.target_core },
            "machine": self.machine.json(),
            "doubts": self.doubts,
        })
    }

    /// The table at the end.
    fn table(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.write_table(&mut text);
        text
    }
}

/// The numbers of one second, as they come.
#[derive(Clone, Debug, PartialEq)]
pub struct Moment {
    /// Seconds since the start.
    pub seconds: u64,
    /// I/Os per second.
    pub iops: f64,
    /// Payload bytes per second.
    pub bytes_per_sec: f64,
    /// 99th percentile of the latency, in nanoseconds.
    pub p99_ns: u64,
    /// I/Os that failed so far, or whose data was wrong.
    pub failed: u64,
    /// State of each path.
    pub states: Vec<&'static str>,
    /// I/Os that wait because there is no path to take.
    pub waiting: u64,
}

impl Moment {
    /// No wider than a terminal of 80 columns, however many paths there are.
    fn line(&self) -> String {
        let mut line = format!(
            "{:>4} s {:>9} IOPS",
            self.seconds,
            grouped(rounded(self.iops))
        );
        if self.waiting == 0 {
            let bandwidth = grouped(rounded(mib(self.bytes_per_sec)));
            let _ = write!(line, " {bandwidth:>7} MiB/s");
        }
        let p99 = match rounded(self.iops) {
            0 => "-".to_owned(),
            _ => duration(self.p99_ns),
        };
        let _ = write!(line, " p99 {p99:>9}");
        let mut parts = Vec::new();
        if self.waiting > 0 {
            let lost = self.states.iter().all(|state| *state == "disconnected");
            let what = if lost {
                "all paths lost"
            } else {
                "no path usable"
            };
            parts.push(format!("{what}, {} I/Os wait", grouped(self.waiting)));
        }
        if self.failed > 0 {
            parts.push(format!("{} failed", grouped(self.failed)));
        }
        parts.extend(self.counted_states());
        for part in parts {
            if line.len() + 2 + part.len() <= COLUMNS {
                let _ = write!(line, "  {part}");
            }
        }
        line
    }

    /// `2 optimized`, in the order in which the states are met.
    fn counted_states(&self) -> Vec<String> {
        let mut counts: Vec<(&str, usize)> = Vec::new();
        for state in &self.states {
            match counts.iter_mut().find(|(known, _)| known == state) {
                Some((_, count)) => *count += 1,
                None => counts.push((state, 1)),
            }
        }
        counts
            .into_iter()
            .map(|(state, count)| format!("{count} {state}"))
            .collect()
    }
}

/// What is reported is not wider than this.
const COLUMNS: usize = 80;

/// Writes text, broken between words so that it fits a terminal; lines after the first are indented by four.
pub fn paragraph(out: &mut String, indent: &str, text: &str) {
    hanging(out, indent, 4, text);
}

/// The same with another indentation of the lines after the first.
pub fn hanging(out: &mut String, indent: &str, hang: usize, text: &str) {
    let mut line = indent.to_owned();
    let mut words = 0;
    for word in text.split(' ') {
        if words > 0 && line.chars().count() + 1 + word.chars().count() > COLUMNS {
            let _ = writeln!(out, "{}", line.trim_end());
            line = " ".repeat(hang);
            words = 0;
        }
        if words > 0 {
            line.push(' ');
        }
        line.push_str(word);
        words += 1;
    }
    let _ = writeln!(out, "{}", line.trim_end());
}

/// Shows [`Moment`]s on standard error: one line that is written over on a terminal, a line each otherwise.
#[derive(Debug)]
pub struct LiveLine {
    terminal: bool,
    dirty: bool,
}

impl LiveLine {
    /// Nothing shown yet.
    pub fn new() -> Self {
        Self {
            terminal: io::stderr().is_terminal(),
            dirty: false,
        }
    }

    /// Shows the latest numbers.
    pub fn show(&mut self, moment: &Moment) {
        self.say(&moment.line());
    }

    /// Shows a text instead. A reader that went away is no reason to stop.
    pub fn say(&mut self, text: &str) {
        let mut out = io::stderr().lock();
        let _ = if self.terminal {
            // Without wrapping, so that a narrow terminal cuts the line instead of scrolling.
            write!(out, "\r\x1b[2K\x1b[?7l{text}\x1b[?7h")
        } else {
            writeln!(out, "{text}")
        };
        let _ = out.flush();
        self.dirty = self.terminal;
    }

    /// Clears the line, so that what follows starts on a clean one.
    pub fn clear(&mut self) {
        if self.dirty {
            let mut out = io::stderr().lock();
            let _ = write!(out, "\r\x1b[2K");
            let _ = out.flush();
            self.dirty = false;
        }
    }
}

impl Drop for LiveLine {
    fn drop(&mut self) {
        self.clear();
    }
}

fn address(path: &PathReport) -> String {
    if path.traddr.contains(':') {
        format!("[{}]:{}", path.traddr, path.trsvcid)
    } else {
        format!("{}:{}", path.traddr, path.trsvcid)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate or a mean: not negative, far below 2^64, and `as` saturates"
)]
pub fn rounded(value: f64) -> u64 {
    value.round() as u64
}

fn mib(bytes_per_sec: f64) -> f64 {
    bytes_per_sec / f64::from(1 << 20)
}

/// `1,234,567`
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `850 ns`, `12.3 us`, `4.56 ms`, `1.23 s`
pub fn duration(nanos: u64) -> String {
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => format!("{}.{} us", nanos / 1_000, nanos / 100 % 10),
        1_000_000..1_000_000_000 => format!("{}.{:02} ms", nanos / 1_000_000, nanos / 10_000 % 100),
        _ => format!(
            "{}.{:02} s",
            nanos / 1_000_000_000,
            nanos / 10_000_000 % 100
        ),
    }
}

/// `850 ns`, `12 us`, `4.5 ms`, `1.23 s`: no more than seven characters below a hundred seconds.
fn short_duration(nanos: u64) -> String {
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => format!("{} us", nanos / 1_000),
        1_000_000..1_000_000_000 => format!("{} ms", nanos / 1_000_000),
        _ => duration(nanos),
    }
}

/// `4.567 ms`
pub fn millis(nanos: u64) -> String {
    format!("{}.{:03} ms", nanos / 1_000_000, nanos / 1_000 % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{Gap, JobStats, PathEvent};

    const MS: u64 = 1_000_000;

    fn report() -> Report {
        let mut part = JobStats::new();
        for latency in [80_000, 100_000, 120_000] {
            part.latency.saturating_record(latency);
        }
        (part.reads, part.bytes) = (1_000_000, 4096 * 1_000_000);
        part.note_gap(Gap {
            job: 0,
            start_ns: 1_500 * MS,
            end_ns: 1_500 * MS + 412_000,
            open: false,
        });
        part.events.push(PathEvent {
            job: 0,
            at_ns: 1_500 * MS + 100_000,
            path: "127.0.0.1:4420".to_owned(),
            from: "optimized".to_owned(),
            to: "inaccessible".to_owned(),
        });
        let mut stats = RunStats::new();
        stats.merge(&part);
        let path = |port: &str, ios, state: &str| PathReport {
            traddr: "127.0.0.1".to_owned(),
            trsvcid: port.to_owned(),
            ios: PathIos { ios, errors: 0 },
            ana_state: state.to_owned(),
        };
        Report {
            title: "randread 4 KiB, depth 32".to_owned(),
            kind: "run",
            options: json!({ "depth": 32 }),
            stats,
            start_ns: 1_000 * MS,
            end_ns: 3_000 * MS,
            submitted: 1_000_000,
            completed: 1_000_000,
            verified: None,
            interrupted: false,
            waited: Duration::from_secs(15),
            socket_calls: Some(250_000),
            paths: vec![
                path("4420", 750_000, "inaccessible"),
                path("4421", 250_000, "non_optimized"),
            ],
            host_cores: vec![1],
            target_core: Some(0),
            machine: Machine {
                cpu: "Example CPU".to_owned(),
                kernel: "6.12".to_owned(),
                cores: vec![0, 1],
                clocksource: "tsc".to_owned(),
            },
            doubts: Vec::new(),
        }
    }

    #[test]
    fn json_has_every_field_that_users_rely_on() {
        let json = report().json();
        assert_eq!(json["iops"], 500_000.0);
        assert_eq!(json["bytes_per_sec"], 2_048_000_000.0);
        assert_eq!(json["errors"], 0);
        for name in ["mean", "p50", "p90", "p99", "p999", "p9999", "max"] {
            assert!(json["latency_ns"][name].is_number(), "{name}");
        }
        assert_eq!(json["longest_gap_ns"], 412_000);
        assert_eq!(json["longest_gap"]["at_ns"], 500 * MS);
        let paths = json["paths"].as_array().unwrap();
        assert_eq!(paths.len(), 2);
        assert_eq!(
            paths[1],
            json!({"traddr": "127.0.0.1", "trsvcid": "4421", "ios": 250_000, "errors": 0, "ana_state": "non_optimized"})
        );
        assert_eq!(json["path_events"][0]["pause_ns"], 412_000);
        assert_eq!(json["machine"]["cpu"], "Example CPU");
        assert_eq!(json["machine"]["kernel"], "6.12");
        assert_eq!(json["cores"]["host"], json!([1]));
        assert_eq!(
            (&json["submitted"], &json["completed"]),
            (&json!(1_000_000), &json!(1_000_000))
        );
    }

    #[test]
    fn the_table_says_what_happened() {
        let table = report().table();
        for part in [
            "randread 4 KiB, depth 32",
            "Example CPU, Linux 6.12, host on core 1, target on core 0",
            "500,000",
            "1953.1",
            "127.0.0.1:4420         750,000     75.0%         0  inaccessible",
            "longest gap between completions: 0.412 ms at 0.500 s; 127.0.0.1:4420 went from optimized to inaccessible",
            "at 0.500 s 127.0.0.1:4420 went from optimized to inaccessible: I/O paused 0.412 ms",
            "1,000,000 I/Os submitted, 1,000,000 completed, no error",
            "0.250 socket calls per I/O on the host side",
        ] {
            assert!(
                unbroken(&table).contains(part),
                "'{part}' is not in\n{table}"
            );
        }
    }

    /// The table without the breaks between words.
    fn unbroken(table: &str) -> String {
        assert!(
            table.lines().all(|line| line.chars().count() <= 80),
            "{table}"
        );
        table.replace("\n    ", " ")
    }

    #[test]
    fn what_never_ended_is_in_the_figures() {
        let mut report = report();
        report.completed -= 1;
        let total = &mut report.stats.total;
        total.unfinished.saturating_record(2_500 * MS);
        total.longest = Gap {
            job: 0,
            start_ns: 1_500 * MS,
            end_ns: 4_000 * MS,
            open: true,
        };
        let json = report.json();
        assert_eq!(json["unfinished"]["count"], 1);
        assert_eq!(
            json["latency_lower_bounds"],
            json!(["mean", "p90", "p99", "p999", "p9999", "max"])
        );
        assert!(json["latency_ns"]["max"].as_u64() >= Some(2_500 * MS));
        assert!(json["latency_ns"]["p50"].as_u64() < Some(MS));
        assert_eq!(
            (&json["longest_gap_ns"], &json["longest_gap"]["open"]),
            (&json!(2_500 * MS), &json!(true))
        );
        let table = unbroken(&report.table());
        for part in [
            "UNFINISHED: 1 of 1,000,000 I/Os had not ended 15.0 s after the end, the oldest after 2.50 s",
            ">=2.50 s",
            "longest gap between completions: >=2500.000 ms",
            "FAILED: 0 errors, 0 miscompares, 1 of 1,000,000 I/Os lost",
        ] {
            assert!(table.contains(part), "'{part}' is not in\n{table}");
        }
    }

    #[test]
    fn failed_io_is_no_iops_and_has_a_latency_of_its_own() {
        let mut report = report();
        let good = report.json();
        let total = &mut report.stats.total;
        for _ in 0..1_000 {
            total.failed_latency.saturating_record(10);
        }
        total.errors = 1_000;
        total.paths = vec![PathIos::default()];
        report.submitted += 1_000;
        report.completed += 1_000;
        let json = report.json();
        for figure in [
            "iops",
            "bytes_per_sec",
            "reads",
            "latency_ns",
            "latency_lower_bounds",
            "socket_calls_per_io",
            "longest_gap_ns",
        ] {
            assert_eq!(json[figure], good[figure], "{figure}");
        }
        assert_eq!(
            (&json["errors"], &json["failed_latency_ns"]["p50"]),
            (&json!(1_000), &json!(10))
        );
        assert_eq!(good["failed_latency_ns"], Value::Null);
        assert!(
            report.table().contains("  failed      10 ns"),
            "{}",
            report.table()
        );
    }

    #[test]
    fn verify_says_what_it_did_and_what_not() {
        let say = |verified| verified_in_words(verified);
        let all = Verified {
            written: 1_000,
            right: 1_000,
            ..Verified::default()
        };
        assert_eq!(
            say(all),
            "all 1,000 blocks that had been written were read once more at the end"
        );
        let some = Verified {
            written: 1_000,
            right: 900,
            wrong: 8,
            open: 16,
        };
        assert_eq!(
            say(some),
            "of 1,000 blocks that had been written 900 were read once more at the end and were right; 8 in reads with wrong data; 92 not read; 16 of unknown contents, as their last write failed or did not end"
        );
    }

    #[test]
    fn an_interrupted_run_is_marked() {
        let mut report = report();
        report.interrupted = true;
        report.completed -= 3;
        assert_eq!((report.failures(), report.interrupted()), (0, true));
        assert_eq!(report.json()["interrupted"], true);
        assert!(report.table().contains("INTERRUPTED after 2.00 s"));
        report.stats.total.errors = 1;
        assert_eq!(report.failures(), 1);
    }

    #[test]
    fn lost_io_and_errors_are_failures() {
        let mut report = report();
        assert_eq!(report.failures(), 0);
        report.completed -= 3;
        report.stats.total.errors = 2;
        report.stats.total.miscompares = 1;
        report.stats.total.first_error = Some("read of 8 blocks at LBA 0: lost".to_owned());
        assert_eq!((report.lost(), report.failures()), (3, 6));
        let table = report.table();
        assert!(
            table.contains("FAILED: 2 errors, 1 miscompares, 3 of 1,000,000 I/Os lost"),
            "{table}"
        );
        assert!(table.contains("first error: read of 8 blocks"), "{table}");
        assert_eq!(
            report.json()["first_error"],
            "read of 8 blocks at LBA 0: lost"
        );
    }

    #[test]
    fn a_run_without_any_io_divides_by_nothing() {
        let mut report = report();
        report.stats = RunStats::new();
        (report.start_ns, report.end_ns) = (0, 0);
        report.paths.clear();
        assert!(report.table().contains("latency"));
        assert_eq!(report.json()["iops"], 0.0);
    }

    #[test]
    fn the_live_line_has_rates_and_states_in_80_columns() {
        let mut moment = Moment {
            seconds: 3,
            iops: 1_312_345.4,
            bytes_per_sec: 1_279_365_939.0,
            p99_ns: 184_200,
            failed: 0,
            states: vec!["optimized", "non_optimized", "optimized"],
            waiting: 0,
        };
        assert_eq!(
            moment.line(),
            "   3 s 1,312,345 IOPS   1,220 MiB/s p99  184.2 us  2 optimized  1 non_optimized"
        );
        (moment.iops, moment.waiting) = (0.0, 32);
        assert_eq!(
            moment.line(),
            "   3 s         0 IOPS p99         -  no path usable, 32 I/Os wait  2 optimized"
        );
        moment.states = vec!["disconnected"; 2];
        (moment.failed, moment.waiting) = (893, 1_024);
        assert_eq!(
            moment.line(),
            "   3 s         0 IOPS p99         -  all paths lost, 1,024 I/Os wait  893 failed"
        );
        for failed in [0, 1_000_000] {
            moment.failed = failed;
            assert!(moment.line().len() <= 80, "{}", moment.line());
        }
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(duration(999), "999 ns");
        assert_eq!(duration(1_999), "1.9 us");
        assert_eq!(duration(4_567_000), "4.56 ms");
        assert_eq!(duration(61_230_000_000), "61.23 s");
    }
}
