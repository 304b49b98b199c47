//! What the comparison came to, gate by gate.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::effect::{Block, Effect};
use super::gate::{Gate, Gates, Metric};
use super::sample::Sample;
use crate::text::{duration, grouped, paragraph, rounded};

/// More than this chance is no proof of a difference.
const P_MAX: f64 = 0.05;

/// What one gate comes to, or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// None of the confidence interval is beyond the limit.
    Passed,
    /// Part of it is.
    Undecided,
    /// All of it is.
    Failed,
}

impl Verdict {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Undecided => "cannot tell",
            Self::Failed => "REGRESSION",
        }
    }
}

/// One metric.
#[derive(Clone, Debug)]
pub struct Row {
    metric: Metric,
    /// `None`: too few samples, or too few I/Os in them.
    effect: Option<Effect>,
    gate: Option<(Gate, Verdict)>,
}

/// Samples measured close to each other.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// Samples of the base.
    pub base: Vec<Sample>,
    /// Samples of what is compared with it.
    pub new: Vec<Sample>,
}

/// Everything.
#[derive(Clone, Debug)]
pub struct Comparison {
    rows: Vec<Row>,
    /// Confidence of the intervals.
    pub confidence: f64,
    /// How many samples there were of base and new.
    pub samples: (usize, usize),
    /// What the reader must know.
    pub doubts: Vec<String>,
    /// What differs around the two.
    pub surroundings: Vec<String>,
    /// Seed of the test and of the order of runs.
    pub seed: u64,
    /// How long live runs took.
    pub seconds: Option<f64>,
}

/// Judges what was measured.
pub fn judge(blocks: &[Samples], gates: &Gates, confidence: f64, seed: u64) -> Comparison {
    let row = |(_, metric): (&str, Metric)| {
        let gate = gates.0.iter().find(|gate| gate.metric == metric);
        let effect = values(blocks, metric).and_then(|v| Effect::of(&v, confidence, seed));
        let gate = gate.map(|gate| (gate.clone(), verdict(gate, effect)));
        Row {
            metric,
            effect,
            gate,
        }
    };
    let count = |side: fn(&Samples) -> usize| blocks.iter().map(side).sum();
    Comparison {
        rows: Metric::ALL.into_iter().map(row).collect(),
        confidence,
        samples: (count(|b| b.base.len()), count(|b| b.new.len())),
        doubts: Vec::new(),
        surroundings: Vec::new(),
        seed,
        seconds: None,
    }
}

/// The values of one metric; `None` if a sample has too few I/Os for it.
fn values(blocks: &[Samples], metric: Metric) -> Option<Vec<Block>> {
    let side = |samples: &[Sample]| samples.iter().map(|sample| metric.of(sample)).collect();
    blocks
        .iter()
        .map(|block| {
            let (base, new): (Option<Vec<f64>>, Option<Vec<f64>>) =
                (side(&block.base), side(&block.new));
            Some(Block {
                base: base?,
                new: new?,
            })
        })
        .collect()
}

fn verdict(gate: &Gate, effect: Option<Effect>) -> Verdict {
    let Some(effect) = effect else {
        return Verdict::Undecided;
    };
    let limit = gate.ratio(effect.base);
    let (beyond, within) = match gate.metric.is_rate() {
        true => (effect.high < limit, effect.low >= limit),
        false => (effect.low > limit, effect.high <= limit),
    };
    match (beyond && effect.p < P_MAX, within) {
        (true, _) => Verdict::Failed,
        (_, true) => Verdict::Passed,
        _ => Verdict::Undecided,
    }
}

impl Comparison {
    /// The worst of all gates.
    pub fn verdict(&self) -> Verdict {
        let gates = self.rows.iter().filter_map(|row| row.gate.as_ref());
        gates
            .map(|(_, verdict)| *verdict)
            .max()
            .unwrap_or(Verdict::Passed)
    }

    /// Every gate is passed or failed.
    pub fn is_decided(&self) -> bool {
        let mut gates = self.rows.iter().filter_map(|row| row.gate.as_ref());
        gates.all(|(_, verdict)| *verdict != Verdict::Undecided)
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let (base, new) = self.samples;
        let time = self
            .seconds
            .map_or(String::new(), |s| format!(" in {s:.1} s"));
        let text = format!(
            "{base} samples of base, {new} of new{time}; {:.0} % confidence, seed {}",
            self.confidence * 100.0,
            self.seed
        );
        paragraph(&mut out, "", &text);
        let _ = writeln!(
            out,
            "\n  {:<10}{:>13}{:>13}{:>8}  {:<15}{:>7}  gate",
            "", "base", "new", "ratio", "interval", "p"
        );
        for row in &self.rows {
            let name = row.metric.name();
            let Some(effect) = &row.effect else {
                let gate = row.gate.as_ref().map_or("", |(gate, _)| &gate.text);
                let _ = writeln!(out, "  {name:<10}{:>12}{:>46}{gate}", "n/a", "");
                continue;
            };
            let line = format!(
                "  {name:<10}{:>12}{:>12}{:>8.3}  {:<15}{:>7.4}  {}",
                row.shown(effect.base),
                row.shown(effect.new),
                effect.ratio,
                format!("{:.3} to {:.3}", effect.low, effect.high),
                effect.p,
                row.gate.as_ref().map_or("", |(gate, _)| &gate.text),
            );
            let _ = writeln!(out, "{}", line.trim_end());
        }
        let _ = writeln!(out);
        for row in &self.rows {
            if row.gate.is_some() {
                paragraph(&mut out, "  ", &row.gate_in_words());
            }
        }
        for doubt in &self.doubts {
            paragraph(&mut out, "  ", &format!("doubtful: {doubt}"));
        }
        for difference in &self.surroundings {
            paragraph(&mut out, "  ", &format!("differs: {difference}"));
        }
        paragraph(
            &mut out,
            "  ",
            &format!("verdict: {}", self.verdict().name()),
        );
        out
    }

    /// For a pull request.
    pub fn markdown(&self) -> String {
        let mut out = format!(
            "**pollux-perf compare: {}**\n\n| metric | base | new | ratio | {:.0} % interval | p | gate | verdict |\n|---|--:|--:|--:|---|--:|---|---|\n",
            self.verdict().name(),
            self.confidence * 100.0
        );
        for row in &self.rows {
            let (gate, verdict) = match &row.gate {
                Some((gate, verdict)) => (gate.text.as_str(), verdict.name()),
                None => ("", ""),
            };
            let figures = match &row.effect {
                None => "n/a | n/a | n/a | | ".to_owned(),
                Some(effect) => format!(
                    "{} | {} | {:.3} | {:.3} to {:.3} | {:.4}",
                    row.shown(effect.base),
                    row.shown(effect.new),
                    effect.ratio,
                    effect.low,
                    effect.high,
                    effect.p
                ),
            };
            let _ = writeln!(
                out,
                "| {} | {figures} | {gate} | {verdict} |",
                row.metric.name()
            );
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
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        json!({
            "schema_version": 1,
            "kind": "compare",
            "version": env!("CARGO_PKG_VERSION"),
            "verdict": self.verdict().name().to_lowercase(),
            "confidence": self.confidence,
            "samples": { "base": self.samples.0, "new": self.samples.1 },
            "seconds": self.seconds,
            "seed": self.seed,
            "metrics": rows,
            "doubts": self.doubts,
            "surroundings": self.surroundings,
        })
    }
}

impl Row {
    fn shown(&self, value: f64) -> String {
        match self.metric {
            Metric::Iops => grouped(rounded(value)),
            Metric::Bandwidth => format!("{:.1} MiB/s", crate::text::mib(value)),
            _ => duration(rounded(value)),
        }
    }

    fn gate_in_words(&self) -> String {
        let Some((gate, verdict)) = &self.gate else {
            return String::new();
        };
        let text = format!("{}: {}", gate.text, verdict.name());
        match (verdict, &self.effect) {
            (Verdict::Undecided, None) => {
                format!("{text}: too few samples, or too few I/Os in them")
            }
            (Verdict::Undecided, Some(effect)) => format!(
                "{text}: a difference of {:.1} % could have been seen",
                ((effect.high / effect.low).sqrt() - 1.0) * 100.0
            ),
            _ => text,
        }
    }

    fn json(&self) -> Value {
        let effect = self.effect.map(|effect| {
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
    use super::*;
    use crate::stats::LatencySummary;

    fn sample(iops: f64, p99: u64) -> Sample {
        Sample {
            iops,
            bytes_per_sec: iops * 4096.0,
            latency: LatencySummary {
                count: 500,
                mean: p99 as f64 / 2.0,
                p50: p99 / 2,
                p90: p99,
                p99,
                max: p99,
                ..LatencySummary::default()
            },
        }
    }

    fn samples(factor: f64) -> [Samples; 1] {
        let side = |factor: f64| -> Vec<Sample> {
            (0..10)
                .map(|i| sample((1_000.0 + f64::from(i)) * factor, 50_000))
                .collect()
        };
        [Samples {
            base: side(1.0),
            new: side(factor),
        }]
    }

    #[test]
    fn gates_are_failed_passed_or_open() {
        let judge = |gates: &str, factor| {
            judge(&samples(factor), &gates.parse().unwrap(), 0.95, 1).verdict()
        };
        assert_eq!(judge("iops:-3%,p99:+5%", 1.0), Verdict::Passed);
        assert_eq!(judge("iops:-3%", 0.9), Verdict::Failed);
        assert_eq!(judge("iops:-3%", 1.2), Verdict::Passed);
        assert_eq!(judge("iops:-3%", 0.97), Verdict::Undecided);
        assert_eq!(judge("p999:+5%", 1.0), Verdict::Undecided, "n/a");
        assert_eq!(
            judge("p999:+5%,iops:-3%", 0.9),
            Verdict::Failed,
            "the worst counts"
        );
    }

    #[test]
    fn it_is_shown_to_people_programs_and_reviewers() {
        let gates = "iops:-3%,p999:+5%".parse().unwrap();
        let mut comparison = judge(&samples(0.9), &gates, 0.95, 7);
        comparison.doubts.push("a slow clock".to_owned());
        let table = comparison.table();
        for text in [
            "REGRESSION",
            "n/a",
            "0.900",
            "p999:+5%: cannot tell",
            "a slow clock",
            "seed 7",
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
        let markdown = comparison.markdown();
        assert!(
            markdown.contains("| iops | 1,004 | 904 | 0.900 |"),
            "{markdown}"
        );
    }
}
