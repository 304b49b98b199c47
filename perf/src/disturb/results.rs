//! What `disturb` reports: a section for each scenario, for people and for programs.

use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::Layout;
use super::drive::Totals;
use crate::machine::Machine;
use crate::results::Results;
use crate::stats::LatencySummary;
use crate::text::{duration, grouped, hanging, paragraph};

/// Width of the labels.
const LABEL: usize = 26;

/// Results of all scenarios that were run.
pub struct Disturbed {
    /// The options that make the numbers.
    pub options: Value,
    /// One for each scenario.
    pub sections: Vec<Section>,
    /// Where it was measured.
    pub machine: Machine,
    /// A signal came before all had been run.
    pub stopped: bool,
    /// What makes the numbers doubtful.
    pub doubts: Vec<String>,
}

/// Results of one scenario.
pub struct Section {
    name: &'static str,
    /// What is done, in one line.
    about: &'static str,
    /// Which core does what.
    layout: Option<Layout>,
    lines: Vec<String>,
    members: Map<String, Value>,
    /// What was wrong.
    pub failures: Vec<String>,
    /// How long it took.
    pub time: Duration,
    /// How often a reactor or client lost its core to another thread.
    pub preemptions: u64,
    stopped: bool,
}

impl Section {
    /// Nothing yet.
    pub fn new(name: &'static str, about: &'static str, layout: Option<&Layout>) -> Self {
        Self {
            name,
            about,
            layout: layout.cloned(),
            lines: Vec::new(),
            members: Map::new(),
            failures: Vec::new(),
            time: Duration::ZERO,
            preemptions: 0,
            stopped: false,
        }
    }

    /// A scenario that could not be carried through.
    pub fn failed(name: &'static str, error: &anyhow::Error) -> Self {
        let mut section = Self::new(name, "did not come to its end", None);
        section.fail(format!("{error:#}"));
        section
    }

    /// The name on the command line.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// A line of the table.
    pub fn line(&mut self, label: &str, text: impl Into<String>) {
        let line = format!("    {label:<LABEL$}{}", text.into());
        self.lines.push(line.trim_end().to_owned());
    }

    /// Lines of the table that have their own shape.
    pub fn rows(&mut self, rows: impl IntoIterator<Item = String>) {
        self.lines
            .extend(rows.into_iter().map(|row| format!("    {row}")));
    }

    /// A member of the JSON object.
    pub fn put(&mut self, name: &str, value: Value) {
        self.members.insert(name.to_owned(), value);
    }

    /// Something was wrong.
    pub fn fail(&mut self, text: impl Into<String>) {
        self.failures.push(text.into());
    }

    /// What the I/O came to: counters for the table, and its failures.
    pub fn io(&mut self, label: &str, totals: &Totals) -> Value {
        let mut text = format!(
            "{} I/Os, {} errors, {} miscompares, {} lost",
            grouped(totals.completed),
            grouped(totals.errors),
            grouped(totals.miscompares),
            grouped(totals.lost())
        );
        if let Some(verified) = totals.verified {
            let _ = write!(text, "; {} blocks read once more", grouped(verified.right));
        }
        self.line(label, text);
        self.failures.extend(totals.failures());
        totals.json()
    }

    /// The scenario is over.
    pub fn finish(&mut self, time: Duration, stopped: bool) {
        self.time = time;
        self.stopped = stopped;
        self.line(
            "cores taken away",
            format!(
                "{} times from reactors and clients, by each other or by other programs",
                grouped(self.preemptions)
            ),
        );
    }

    fn json(&self) -> Value {
        let mut object = Map::new();
        object.insert("about".to_owned(), self.about.into());
        object.insert(
            "cores".to_owned(),
            self.layout.as_ref().map(Layout::json).into(),
        );
        object.insert("seconds".to_owned(), self.time.as_secs_f64().into());
        object.insert("stopped".to_owned(), self.stopped.into());
        object.insert("preemptions".to_owned(), self.preemptions.into());
        object.extend(self.members.clone());
        object.insert("failures".to_owned(), json!(self.failures));
        object.into()
    }
}

impl Results for Disturbed {
    fn table(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.write_table(&mut out);
        out
    }

    fn json(&self) -> Value {
        let scenarios: Map<String, Value> = self
            .sections
            .iter()
            .map(|section| (section.name.to_owned(), section.json()))
            .collect();
        json!({
            "kind": "disturb",
            "version": env!("CARGO_PKG_VERSION"),
            "options": self.options,
            "scenarios": scenarios,
            "failures": self.failures(),
            "interrupted": self.interrupted(),
            "machine": self.machine.json(),
            "doubts": self.doubts,
        })
    }

    fn interrupted(&self) -> bool {
        self.sections.iter().any(|section| section.stopped) || self.stopped
    }

    fn failures(&self) -> u64 {
        let sum: usize = self.sections.iter().map(|s| s.failures.len()).sum();
        sum as u64
    }
}

impl Disturbed {
    fn write_table(&self, out: &mut String) -> std::fmt::Result {
        let machine = format!("{}, Linux {}", self.machine.cpu, self.machine.kernel);
        paragraph(out, "", &machine);
        for section in &self.sections {
            let heading = format!("{}: {}", section.name, section.about);
            writeln!(out)?;
            paragraph(out, "  ", &heading);
            if let Some(layout) = &section.layout {
                hanging(out, "    ", 6, &layout.to_string());
            }
            for line in &section.lines {
                hanging(out, "", 4 + LABEL, line);
            }
            for failure in &section.failures {
                hanging(out, "    ", 6, &format!("FAILED: {failure}"));
            }
            if section.stopped {
                writeln!(out, "    stopped before its end")?;
            }
        }
        writeln!(out)?;
        if self.interrupted() {
            writeln!(out, "  INTERRUPTED before the end")?;
        }
        match self.failures() {
            0 => writeln!(out, "  nothing went wrong")?,
            count => writeln!(out, "  FAILED: {count}")?,
        }
        for doubt in &self.doubts {
            paragraph(out, "  ", &format!("doubtful: {doubt}"));
        }
        Ok(())
    }
}

/// `p50 1.2 us  p99 3.4 us  max 5.6 us  (of 1,000)`
pub fn spread(histogram: &Histogram<u64>) -> String {
    if histogram.is_empty() {
        return "none".to_owned();
    }
    let summary = LatencySummary::of(histogram);
    format!(
        "p50 {}  p99 {}  max {}  (of {})",
        duration(summary.p50),
        duration(summary.p99),
        duration(summary.max),
        grouped(histogram.len())
    )
}

/// The same for programs, in nanoseconds.
pub fn spread_json(histogram: &Histogram<u64>) -> Value {
    let summary = LatencySummary::of(histogram);
    json!({
        "count": histogram.len(),
        "mean": summary.mean,
        "p50": summary.p50,
        "p99": summary.p99,
        "p999": summary.p999,
        "max": summary.max,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disturbed(sections: Vec<Section>) -> Disturbed {
        Disturbed {
            options: json!({}),
            sections,
            machine: Machine::default(),
            stopped: false,
            doubts: vec!["a slow clock".to_owned()],
        }
    }

    #[test]
    fn what_was_wrong_is_counted_and_shown() {
        let layout = Layout::spread(&[0, 1]);
        let mut section = Section::new("ana", "changes", Some(&layout));
        let mut totals = Totals {
            submitted: 10,
            completed: 10,
            ..Totals::default()
        };
        let io = section.io("I/O", &totals);
        section.put("io", io);
        assert_eq!(disturbed(vec![section]).failures(), 0);

        (totals.completed, totals.miscompares) = (9, 1);
        let mut bad = Section::new("listener", "removals", Some(&layout));
        bad.io("I/O", &totals);
        bad.fail("no answer");
        let lost = Section::failed("status", &anyhow::anyhow!("no reactor"));
        let results = disturbed(vec![bad, lost]);
        assert_eq!(
            results.failures(),
            4,
            "a miscompare, a loss, no answer, no reactor"
        );
        let (json, table) = (results.json(), results.table());
        assert_eq!(json["failures"], 4);
        assert_eq!(json["scenarios"]["listener"]["cores"]["io"], json!([1, 0]));
        assert_eq!(
            json["scenarios"]["status"]["failures"],
            json!(["no reactor"])
        );
        for text in [
            "FAILED: 1 miscompares",
            "FAILED: no answer",
            "FAILED: 4",
            "a slow clock",
        ] {
            assert!(table.contains(text), "{text} is not in {table}");
        }
    }
}
