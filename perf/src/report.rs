//! Results for people (a live line, a table) and for programs (one JSON object).

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};

use serde_json::{Value, json};

use crate::Results;
use crate::machine::Machine;
use crate::stats::{GAP_MIN_NS, LatencySummary, RunStats};

/// A path and what it carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathReport {
    /// IP address.
    pub traddr: String,
    /// Port.
    pub trsvcid: String,
    /// I/Os that completed on it.
    pub ios: u64,
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
    /// Last completion.
    pub end_ns: u64,
    /// I/Os handed out and I/Os that came back.
    pub submitted: u64,
    /// See `submitted`.
    pub completed: u64,
    /// Blocks that `verify` read once more at the end.
    pub swept_blocks: u64,
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
    /// Seconds from the first submission to the last completion.
    #[expect(
        clippy::cast_precision_loss,
        reason = "53 bits of nanoseconds are 104 days"
    )]
    fn seconds(&self) -> f64 {
        self.end_ns.saturating_sub(self.start_ns).max(1) as f64 / 1e9
    }

    /// I/Os per second.
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
        (self.completed > 0).then(|| calls / self.completed as f64)
    }

    /// I/Os that never came back.
    pub fn lost(&self) -> u64 {
        self.submitted.saturating_sub(self.completed)
    }

    fn write_table(&self, out: &mut String) -> std::fmt::Result {
        let total = &self.stats.total;
        writeln!(out, "{}", self.title)?;
        let target = match self.target_core {
            Some(core) if self.host_cores.contains(&core) => format!(", target shares core {core}"),
            Some(core) => format!(", target on core {core}"),
            None => String::new(),
        };
        writeln!(
            out,
            "{}, Linux {}, host on core {}{target}",
            self.machine.cpu,
            self.machine.kernel,
            crate::cores::join(&self.host_cores),
        )?;
        writeln!(out)?;
        writeln!(
            out,
            "  {:>12}  {:>10}  {:>12}  {:>12}  {:>8}  {:>8}",
            "IOPS", "MiB/s", "reads", "writes", "errors", "seconds"
        )?;
        writeln!(
            out,
            "  {:>12}  {:>10.1}  {:>12}  {:>12}  {:>8}  {:>8.2}",
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
        writeln!(
            out,
            "  longest gap between completions: {} at {} s; {}",
            millis(total.longest.length_ns()),
            self.at(total.longest.start_ns),
            self.stats.around_longest()
        )?;
        for event in self.stats.event_costs() {
            let pause = match event.pause_ns {
                Some(pause_ns) => format!("I/O paused {}", millis(pause_ns)),
                None => format!("no pause of {} or more", millis(GAP_MIN_NS)),
            };
            writeln!(
                out,
                "  at {} s {} went from {} to {}: {pause}",
                self.at(event.at_ns),
                event.path,
                event.from,
                event.to
            )?;
        }
        self.write_verdict(out)
    }

    fn write_latency(&self, out: &mut String) -> std::fmt::Result {
        let latency = LatencySummary::of(&self.stats.total.latency);
        writeln!(out)?;
        write!(out, "  {:<12}", "latency")?;
        for name in ["mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"] {
            write!(out, "  {name:>10}")?;
        }
        writeln!(out)?;
        write!(out, "  {:<12}", "")?;
        let columns = [
            rounded(latency.mean),
            latency.p50,
            latency.p90,
            latency.p99,
            latency.p999,
            latency.p9999,
            latency.max,
        ];
        for value in columns {
            write!(out, "  {:>10}", duration(value))?;
        }
        writeln!(out)
    }

    fn write_paths(&self, out: &mut String) -> std::fmt::Result {
        let width = self
            .paths
            .iter()
            .map(|path| address(path).len())
            .max()
            .unwrap_or(0)
            .max(12);
        let all: u64 = self.paths.iter().map(|path| path.ios).sum();
        writeln!(out)?;
        writeln!(
            out,
            "  {:<width$}  {:>14}  {:>7}  state",
            "path", "I/Os", "share"
        )?;
        for path in &self.paths {
            writeln!(
                out,
                "  {:<width$}  {:>14}  {:>5}.{} %  {}",
                address(path),
                grouped(path.ios),
                path.ios * 100 / all.max(1),
                path.ios * 1000 / all.max(1) % 10,
                path.ana_state
            )?;
        }
        Ok(())
    }

    fn write_verdict(&self, out: &mut String) -> std::fmt::Result {
        let total = &self.stats.total;
        if self.swept_blocks > 0 {
            writeln!(
                out,
                "  all {} blocks that had been written were read once more at the end",
                grouped(self.swept_blocks)
            )?;
        }
        if self.failures() > 0 {
            writeln!(
                out,
                "  FAILED: {} errors, {} miscompares, {} of {} I/Os lost",
                grouped(total.errors),
                grouped(total.miscompares),
                grouped(self.lost()),
                grouped(self.submitted)
            )?;
        } else {
            writeln!(
                out,
                "  {} I/Os submitted, {} completed, no error",
                grouped(self.submitted),
                grouped(self.completed)
            )?;
        }
        if let Some(calls) = self.socket_calls_per_io() {
            writeln!(
                out,
                "  {calls:.3} socket calls per I/O on the host side, those that found nothing included"
            )?;
        }
        if let Some(error) = &total.first_error {
            writeln!(out, "  first error: {error}")?;
        }
        for doubt in &self.doubts {
            writeln!(out, "  doubtful: {doubt}")?;
        }
        Ok(())
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

impl Results for Report {
    /// Errors, wrong data and lost I/Os: what makes the exit code 1.
    fn failures(&self) -> u64 {
        self.stats.total.errors + self.stats.total.miscompares + self.lost()
    }

    /// One object; the schema only grows.
    fn json(&self) -> Value {
        let total = &self.stats.total;
        let latency = LatencySummary::of(&total.latency);
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
                    "ios": path.ios,
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
            "swept_blocks": self.swept_blocks,
            "socket_calls_per_io": self.socket_calls_per_io(),
            "first_error": total.first_error,
            "latency_ns": {
                "mean": latency.mean,
                "p50": latency.p50,
                "p90": latency.p90,
                "p99": latency.p99,
                "p999": latency.p999,
                "p9999": latency.p9999,
                "max": latency.max,
            },
            "longest_gap_ns": total.longest.length_ns(),
            "longest_gap": {
                "at_ns": since_start(total.longest.start_ns),
                "job": total.longest.job,
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
    /// Errors so far.
    pub errors: u64,
    /// Address and state of each path.
    pub paths: Vec<(String, String)>,
}

impl Moment {
    fn line(&self) -> String {
        let mut line = format!(
            "{:>4} s  {:>10} IOPS  {:>8.1} MiB/s  p99 {:>9}",
            self.seconds,
            grouped(rounded(self.iops)),
            mib(self.bytes_per_sec),
            duration(self.p99_ns)
        );
        if self.errors > 0 {
            let _ = write!(line, "  {} errors", grouped(self.errors));
        }
        for (address, state) in &self.paths {
            let _ = write!(line, "  {address} {state}");
        }
        line
    }
}

/// Shows [`Moment`]s: one line that is written over on a terminal, a line each otherwise.
#[derive(Debug)]
pub struct LiveLine {
    terminal: bool,
    dirty: bool,
}

impl LiveLine {
    /// For standard output.
    pub fn new() -> Self {
        Self {
            terminal: io::stdout().is_terminal(),
            dirty: false,
        }
    }

    /// Shows the latest numbers. A reader that went away is no reason to stop.
    pub fn show(&mut self, moment: &Moment) {
        let mut out = io::stdout().lock();
        let _ = if self.terminal {
            // Without wrapping, so that a narrow terminal cuts the line instead of scrolling.
            write!(out, "\r\x1b[2K\x1b[?7l{}\x1b[?7h", moment.line())
        } else {
            writeln!(out, "{}", moment.line())
        };
        let _ = out.flush();
        self.dirty = self.terminal;
    }

    /// Clears the line, so that what follows starts on a clean one.
    pub fn clear(&mut self) {
        if self.dirty {
            let mut out = io::stdout().lock();
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
            ios,
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
            swept_blocks: 0,
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
            json!({"traddr": "127.0.0.1", "trsvcid": "4421", "ios": 250_000, "ana_state": "non_optimized"})
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
            "127.0.0.1:4420         750,000     75.0 %  inaccessible",
            "longest gap between completions: 0.412 ms at 0.500 s; 127.0.0.1:4420 went from optimized to inaccessible",
            "at 0.500 s 127.0.0.1:4420 went from optimized to inaccessible: I/O paused 0.412 ms",
            "1,000,000 I/Os submitted, 1,000,000 completed, no error",
            "0.250 socket calls per I/O on the host side",
        ] {
            assert!(table.contains(part), "'{part}' is not in\n{table}");
        }
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
    fn the_live_line_has_rates_and_states() {
        let moment = Moment {
            seconds: 3,
            iops: 312_345.4,
            bytes_per_sec: 1_279_365_939.0,
            p99_ns: 184_200,
            errors: 0,
            paths: vec![
                ("127.0.0.1:4420".to_owned(), "optimized".to_owned()),
                ("127.0.0.1:4421".to_owned(), "non_optimized".to_owned()),
            ],
        };
        assert_eq!(
            moment.line(),
            "   3 s     312,345 IOPS    1220.1 MiB/s  p99  184.2 us  127.0.0.1:4420 optimized  127.0.0.1:4421 non_optimized"
        );
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
