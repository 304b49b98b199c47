//! What the comparison came to, gate by gate.

use super::effect::Effect;
use super::gate::{Gate, Gates, Metric};
use super::looks::Looks;
use super::sample::{Figures, Measured, Sample};

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

/// Why nothing can be told of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// A sample has too few I/Os for it.
    Ios,
    /// There are too few samples.
    Samples,
}

/// One metric.
#[derive(Clone, Debug)]
pub struct Row {
    /// Which.
    pub metric: Metric,
    /// What it came to.
    pub effect: Result<Effect, Lack>,
    /// How much worse it may be, and whether it is.
    pub gate: Option<(Gate, Verdict)>,
}

/// The metrics of a job, or of the whole.
#[derive(Clone, Debug)]
pub struct Part {
    /// Which of several jobs; `None`: all of them together.
    pub job: Option<String>,
    /// In the order of [`Metric::ALL`].
    pub rows: Vec<Row>,
}

/// Everything.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The whole, then each of several jobs.
    pub parts: Vec<Part>,
    /// Confidence of the intervals.
    pub confidence: f64,
    /// What there was of base and new, in words.
    pub what: String,
    /// How many samples there were of base and new.
    pub samples: [usize; 2],
    /// What the reader must know.
    pub doubts: Vec<String>,
    /// What differs around the two.
    pub surroundings: Vec<String>,
    /// Seed of the order of live runs.
    pub seed: Option<u64>,
    /// How long live runs took.
    pub seconds: Option<f64>,
}

/// The looks that such samples get: each gate is judged for the whole, and for each job.
pub fn looks(sample: Option<&Sample>, gates: &Gates) -> Looks {
    Looks::new(gates.0.len() * (1 + sample.map_or(0, |sample| sample.jobs.len())))
}

/// Judges what was measured. A true ratio is beyond an end of its interval with a chance of `alpha`.
pub fn judge(samples: &Measured<Sample>, gates: &Gates, alpha: f64) -> Comparison {
    let whole = |sample: &Sample| Some(sample.whole.clone());
    let mut parts = vec![part(None, &samples.try_map(whole), gates, alpha)];
    let sides = samples.sides();
    let jobs = sides.iter().flatten().next();
    for (name, _) in jobs.into_iter().flat_map(|sample| &sample.jobs) {
        let job = |sample: &Sample| {
            let found = sample.jobs.iter().find(|(known, _)| known == name);
            found.map(|(_, figures)| figures.clone())
        };
        parts.push(part(
            Some(name.clone()),
            &samples.try_map(job),
            gates,
            alpha,
        ));
    }
    let counts = sides.map(|side| side.len());
    let [base, new] = counts;
    Comparison {
        parts,
        confidence: 1.0 - 2.0 * alpha,
        what: match samples {
            Measured::Pairs(_) => format!("{base} pairs of runs"),
            Measured::Runs(_) => format!("{base} runs of base, {new} of new"),
            Measured::Parts(_) => format!("{base} parts of base, {new} of new"),
        },
        samples: counts,
        doubts: Vec::new(),
        surroundings: Vec::new(),
        seed: None,
        seconds: None,
    }
}

/// `None` instead of figures: a run has not got the job.
fn part(
    job: Option<String>,
    figures: &Option<Measured<Figures>>,
    gates: &Gates,
    alpha: f64,
) -> Part {
    let row = |(_, metric): (&str, Metric)| {
        let values = figures
            .as_ref()
            .and_then(|figures| figures.try_map(|figures| metric.of(figures)));
        let effect = values
            .ok_or(Lack::Ios)
            .and_then(|values| Effect::of(&values, alpha).ok_or(Lack::Samples));
        let gate = gates.0.iter().find(|gate| gate.metric == metric);
        let gate = gate.map(|gate| (gate.clone(), verdict(gate, effect)));
        Row {
            metric,
            effect,
            gate,
        }
    };
    let rows = Metric::ALL.into_iter().map(row).collect();
    Part { job, rows }
}

fn verdict(gate: &Gate, effect: Result<Effect, Lack>) -> Verdict {
    let Ok(effect) = effect else {
        return Verdict::Undecided;
    };
    let limit = gate.ratio(effect.base);
    let (beyond, within) = match gate.metric.is_rate() {
        true => (effect.high < limit, effect.low >= limit),
        false => (effect.low > limit, effect.high <= limit),
    };
    match (beyond, within) {
        (true, _) => Verdict::Failed,
        (_, true) => Verdict::Passed,
        _ => Verdict::Undecided,
    }
}

impl Comparison {
    /// The worst of all gates.
    pub fn verdict(&self) -> Verdict {
        self.verdicts().max().unwrap_or(Verdict::Passed)
    }

    /// Every gate is passed or failed.
    pub fn is_decided(&self) -> bool {
        self.verdicts().all(|verdict| verdict != Verdict::Undecided)
    }

    fn verdicts(&self) -> impl Iterator<Item = Verdict> {
        let rows = self.parts.iter().flat_map(|part| &part.rows);
        rows.filter_map(|row| Some(row.gate.as_ref()?.1))
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::stats::LatencySummary;

    pub fn figures(iops: f64, p99: u64) -> Figures {
        Figures {
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

    /// Ten runs of each side; those of the new one are `factor` times as fast, and those of its second job `second`.
    pub fn samples(factor: f64, second: f64) -> Measured<Sample> {
        let side = |factor: f64, second: f64| -> Vec<Sample> {
            let sample = |i: i32| {
                let iops = |factor: f64| (1_000.0 + f64::from(i)) * factor;
                Sample {
                    whole: figures(iops(factor), 50_000),
                    jobs: vec![
                        ("reads".to_owned(), figures(iops(1.0), 50_000)),
                        ("writes".to_owned(), figures(iops(second), 50_000)),
                    ],
                }
            };
            (0..10).map(sample).collect()
        };
        Measured::Runs([side(1.0, 1.0), side(factor, second)])
    }

    #[test]
    fn gates_are_failed_passed_or_open() {
        let judge = |gates: &str, factor| {
            judge(&samples(factor, 1.0), &gates.parse().unwrap(), 0.025).verdict()
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
    fn a_job_that_is_worse_is_not_hidden_by_the_others() {
        let gates = "iops:-3%".parse().unwrap();
        let comparison = judge(&samples(1.0, 0.9), &gates, 0.01);
        assert_eq!(comparison.verdict(), Verdict::Failed);
        let of = |part: &Part| part.rows[0].gate.as_ref().map(|(_, verdict)| *verdict);
        let each: Vec<_> = comparison.parts.iter().filter_map(of).collect();
        assert_eq!(
            each,
            [Verdict::Passed, Verdict::Passed, Verdict::Failed],
            "the whole, reads, writes"
        );
    }
}
