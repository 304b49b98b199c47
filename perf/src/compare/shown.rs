//! A comparison for people, for reviewers, and for programs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::gate::Metric;
use super::verdict::{Comparison, Lack, Part, Row, Verdict};
use crate::text::{duration, grouped, paragraph, rounded};

impl Comparison {
    /// For people.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let time = self
            .seconds
            .map_or(String::new(), |s| format!(" in {s:.1} s"));
        let mut text = format!(
            "{}{time}; intervals of {}",
            self.what,
            self.confidence_in_words()
        );
        if let Some(seed) = self.seed {
            let _ = write!(text, ", seed {seed}");
        }
        paragraph(&mut out, "", &text);
        for part in &self.parts {
            let name = part.job.as_deref().unwrap_or_default();
            if !name.is_empty() {
                let _ = writeln!(out, "\n  job {name}");
            }
            let _ = writeln!(
                out,
                "{}  {:<10}{:>13}{:>13}{:>8}  {:<15}{:>7}  gate",
                if name.is_empty() { "\n" } else { "" },
                "",
                "base",
                "new",
                "ratio",
                "interval",
                "p"
            );
            for row in &part.rows {
                row.write(&mut out);
            }
        }
        let _ = writeln!(out);
        for part in &self.parts {
            for row in &part.rows {
                if let Some(text) = row.gate_in_words() {
                    paragraph(&mut out, "  ", &(part.prefix() + &text));
                }
            }
        }
        for doubt in &self.doubts {
            paragraph(&mut out, "  ", &format!("doubtful: {doubt}"));
        }
        for difference in &self.surroundings {
            paragraph(&mut out, "  ", &format!("differs: {difference}"));
        }
        let verdict = format!("verdict: {}", self.verdict().name());
        paragraph(&mut out, "  ", &verdict);
        out
    }

    /// For a pull request.
    pub fn markdown(&self) -> String {
        let mut out = format!(
            "**pollux-perf compare: {}**\n\n| metric | base | new | ratio | {} interval | p | gate | verdict |\n|---|--:|--:|--:|---|--:|---|---|\n",
            self.verdict().name(),
            self.confidence_in_words()
        );
        for part in &self.parts {
            for row in &part.rows {
                let (gate, verdict) = match &row.gate {
                    Some((gate, verdict)) => (gate.text.as_str(), verdict.name()),
                    None => ("", ""),
                };
                let figures = match &row.effect {
                    Err(_) => "n/a | n/a | n/a | | ".to_owned(),
                    Ok(effect) => format!(
                        "{} | {} | {:.3} | {:.3} to {:.3} | {:.4}",
                        row.shown(effect.base),
                        row.shown(effect.new),
                        effect.ratio,
                        effect.low,
                        effect.high,
                        effect.p
                    ),
                };
                let name = row.metric.name();
                // A name in a profile may have what ends a cell.
                let prefix = part.prefix().replace('|', "\\|");
                let _ = writeln!(out, "| {prefix}{name} | {figures} | {gate} | {verdict} |");
            }
        }
        for (what, lines) in [("doubtful", &self.doubts), ("differs", &self.surroundings)] {
            for line in lines {
                let _ = write!(out, "\n* {what}: {line}");
            }
        }
        out.push('\n');
        out
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let rows = |part: &Part| part.rows.iter().map(Row::json).collect::<Vec<_>>();
        let (whole, jobs) = self
            .parts
            .split_first()
            .map_or((None, &[][..]), |(w, j)| (Some(w), j));
        let jobs = jobs
            .iter()
            .map(|part| json!({ "name": part.job, "metrics": rows(part) }));
        json!({
            "schema_version": 1,
            "kind": "compare",
            "version": env!("CARGO_PKG_VERSION"),
            "verdict": self.verdict().name().to_lowercase(),
            "confidence": self.confidence,
            "samples": { "base": self.samples[0], "new": self.samples[1] },
            "seconds": self.seconds,
            "seed": self.seed,
            "metrics": whole.map(rows).unwrap_or_default(),
            "jobs": jobs.collect::<Vec<_>>(),
            "doubts": self.doubts,
            "surroundings": self.surroundings,
        })
    }

    fn confidence_in_words(&self) -> String {
        let percent = format!("{:.2}", self.confidence * 100.0);
        format!("{} %", percent.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl Part {
    /// Before what is said of it.
    fn prefix(&self) -> String {
        let job = self.job.as_ref();
        job.map_or_else(String::new, |job| format!("{job}: "))
    }
}

impl Row {
    fn write(&self, out: &mut String) {
        let name = self.metric.name();
        let gate = self.gate.as_ref().map_or("", |(gate, _)| &gate.text);
        let line = match &self.effect {
            Err(_) => format!("  {name:<10}{:>12}{:>46}{gate}", "n/a", ""),
            Ok(effect) => format!(
                "  {name:<10}{:>13}{:>13}{:>8.3}  {:<15}{:>7.4}  {gate}",
                self.shown(effect.base),
                self.shown(effect.new),
                effect.ratio,
                format!("{:.3} to {:.3}", effect.low, effect.high),
                effect.p,
            ),
        };
        let _ = writeln!(out, "{}", line.trim_end());
    }

    fn shown(&self, value: f64) -> String {
        match self.metric {
            Metric::Iops => grouped(rounded(value)),
            Metric::Bandwidth => format!("{:.1} MiB/s", crate::text::mib(value)),
            _ => duration(rounded(value)),
        }
    }

    fn gate_in_words(&self) -> Option<String> {
        let (gate, verdict) = self.gate.as_ref()?;
        let text = format!("{}: {}", gate.text, verdict.name());
        Some(match (verdict, &self.effect) {
            (Verdict::Undecided, Err(Lack::Ios)) => {
                format!("{text}: a sample has too few I/Os for it, longer runs have more")
            }
            (Verdict::Undecided, Err(Lack::Samples)) => {
                format!("{text}: there are too few samples")
            }
            (Verdict::Undecided, Ok(effect)) => format!(
                "{text}: a difference of {:.1} % could have been seen",
                ((effect.high / effect.low).sqrt() - 1.0) * 100.0
            ),
            _ => text,
        })
    }

    fn json(&self) -> Value {
        let effect = self.effect.ok().map(|effect| {
            json!({
                "base": effect.base,
                "new": effect.new,
                "ratio": effect.ratio,
                "low": effect.low,
                "high": effect.high,
                "p": effect.p,
            })
        });
        let gate = self.gate.as_ref().map(|(gate, verdict)| {
            json!({ "limit": gate.text, "verdict": verdict.name().to_lowercase() })
        });
        json!({ "metric": self.metric.name(), "effect": effect, "gate": gate })
    }
}

#[cfg(test)]
mod tests {
    use super::super::verdict::{judge, tests::samples};

    #[test]
    fn it_is_shown_to_people_programs_and_reviewers() {
        let gates = "iops:-3%,p999:+5%".parse().unwrap();
        let mut comparison = judge(&samples(0.9, 0.9), &gates, 0.025);
        comparison.doubts.push("a slow clock".to_owned());
        comparison.seed = Some(7);
        let table = comparison.table();
        for text in [
            "REGRESSION",
            "n/a",
            "0.900",
            "p999:+5%: cannot tell",
            "a slow clock",
            "seed 7",
            "intervals of 95 %",
            "job reads",
            "writes: iops:-3%: REGRESSION",
        ] {
            assert!(table.contains(text), "{text}: {table}");
        }
        assert!(
            table.lines().all(|line| line.chars().count() <= 80),
            "{table}"
        );
        let json = comparison.json();
        assert_eq!(json["verdict"], "regression");
        assert_eq!(json["metrics"][0]["gate"]["verdict"], "regression");
        assert_eq!(json["jobs"][0]["metrics"][0]["gate"]["verdict"], "passed");
        assert_eq!(json["jobs"][1]["name"], "writes");
        let markdown = comparison.markdown();
        for row in ["| iops | 1,005 | 904 | 0.900 |", "| writes: iops | 1,005 |"] {
            assert!(markdown.contains(row), "{markdown}");
        }
    }
}
