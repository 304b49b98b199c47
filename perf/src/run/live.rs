//! The live line: what the latest second gave.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::time::Duration;

use crate::text::{COLUMNS, duration, grouped, mib, rounded};

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
    /// Time until the last write that a lost controller may still execute goes on.
    pub fenced: Option<Duration>,
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
        if let Some(left) = self.fenced.filter(|_| self.waiting == 0) {
            parts.push(format!("writes fenced, {:.0} s left", left.as_secs_f64()));
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

/// Shows [`Moment`]s on standard error: one line that is written over on a terminal, a line each otherwise.
#[derive(Debug)]
pub struct LiveLine {
    terminal: bool,
    dirty: bool,
    /// Before each line.
    prefix: String,
}

impl LiveLine {
    /// Nothing shown yet.
    pub fn new() -> Self {
        Self {
            terminal: io::stderr().is_terminal(),
            dirty: false,
            prefix: String::new(),
        }
    }

    /// What the lines are about, where that is one of several.
    pub fn about(name: &str) -> Self {
        Self {
            prefix: format!("{name}: "),
            ..Self::new()
        }
    }

    /// Shows the latest numbers.
    pub fn show(&mut self, moment: &Moment) {
        self.say(&moment.line());
    }

    /// Shows a text instead. A reader that went away is no reason to stop.
    pub fn say(&mut self, text: &str) {
        let mut out = io::stderr().lock();
        let text = format!("{}{text}", self.prefix);
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

#[cfg(test)]
mod tests {
    use super::*;

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
            fenced: None,
        };
        assert_eq!(
            moment.line(),
            "   3 s 1,312,345 IOPS   1,220 MiB/s p99  184.2 us  2 optimized  1 non_optimized"
        );
        moment.fenced = Some(Duration::from_millis(16_900));
        assert_eq!(
            moment.line(),
            "   3 s 1,312,345 IOPS   1,220 MiB/s p99  184.2 us  writes fenced, 17 s left"
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
}
