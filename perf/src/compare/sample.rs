//! What is compared: runs, or parts of one, and how they were measured.

use anyhow::Context;
use serde_json::Value;

use crate::saved::{Saved, number};
use crate::stats::{Interval, LatencySummary, decode};

/// Samples that a series is cut into at most: neighbours are alike, and a point that stands for more I/Os is steadier.
const PARTS_MAX: usize = 20;
/// A part without any I/O is a stall: it counts as half an I/O of the smallest size, so that ratios can be taken.
const LEAST_IOS: f64 = 0.5;

/// What base and new gave, in the order in which it was measured.
#[derive(Clone, Debug, PartialEq)]
pub enum Measured<T> {
    /// Runs of base and new in turns; which of a pair was first was drawn.
    Pairs(Vec<[T; 2]>),
    /// Runs of base, and of new.
    Runs([Vec<T>; 2]),
    /// Parts of too few runs of base, and of new.
    Parts([Vec<T>; 2]),
}

impl<T> Measured<T> {
    /// Base and new.
    pub fn sides(&self) -> [Vec<&T>; 2] {
        match self {
            Self::Pairs(pairs) => [0, 1].map(|side| pairs.iter().map(|pair| &pair[side]).collect()),
            Self::Runs(sides) | Self::Parts(sides) => {
                sides.each_ref().map(|side| side.iter().collect())
            }
        }
    }

    /// The same of each; `None` if one has none.
    pub fn try_map<U>(&self, of: impl Fn(&T) -> Option<U>) -> Option<Measured<U>> {
        let each = |[base, new]: &[Vec<T>; 2]| -> Option<[Vec<U>; 2]> {
            let side = |side: &[T]| side.iter().map(&of).collect::<Option<Vec<U>>>();
            Some([side(base)?, side(new)?])
        };
        match self {
            Self::Pairs(pairs) => pairs
                .iter()
                .map(|[base, new]| Some([of(base)?, of(new)?]))
                .collect::<Option<_>>()
                .map(Measured::Pairs),
            Self::Runs(sides) => each(sides).map(Measured::Runs),
            Self::Parts(sides) => each(sides).map(Measured::Parts),
        }
    }
}

/// A run, or a part of one.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// All of it.
    pub whole: Figures,
    /// Each of several jobs by its name; none of parts.
    pub jobs: Vec<(String, Figures)>,
}

/// Figures of a sample, or of one of its jobs.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// I/Os that succeeded, per second.
    pub iops: f64,
    /// Payload bytes of those I/Os, per second.
    pub bytes_per_sec: f64,
    /// Latency of all those I/Os.
    pub latency: LatencySummary,
}

impl Sample {
    /// The sample that a whole run is.
    ///
    /// # Errors
    ///
    /// What its object lacks.
    pub fn whole(saved: &Saved) -> anyhow::Result<Self> {
        let jobs = saved.object["jobs"].as_array().into_iter().flatten();
        let jobs: anyhow::Result<_> = jobs.map(job).collect();
        Ok(Self {
            whole: Figures {
                iops: saved.number("iops")?,
                bytes_per_sec: saved.number("bytes_per_sec")?,
                latency: LatencySummary::of(&saved.latency),
            },
            jobs: jobs.with_context(|| format!("'{}'", saved.name))?,
        })
    }

    /// The samples of a series: parts of about equal length.
    ///
    /// # Errors
    ///
    /// A point that cannot be read.
    pub fn parts(saved: &Saved) -> anyhow::Result<Vec<Self>> {
        let points = saved.series()?;
        let length = points.len().div_ceil(PARTS_MAX).max(1);
        let whole = points.chunks(length).filter(|part| part.len() == length);
        whole.map(part).collect()
    }
}

fn job(job: &Value) -> anyhow::Result<(String, Figures)> {
    let name = job["name"].as_str().context("a job has no name")?;
    let histogram = job["histogram"].as_str().unwrap_or_default();
    let latency = decode(histogram).map_err(|error| anyhow::anyhow!("job {name}: {error}"))?;
    let figures = Figures {
        iops: number(job, "iops")?,
        bytes_per_sec: number(job, "bytes_per_sec")?,
        latency: LatencySummary::of(&latency),
    };
    Ok((name.to_owned(), figures))
}

fn part(points: &[Interval]) -> anyhow::Result<Sample> {
    let sum = Interval::sum(points).map_err(anyhow::Error::msg)?;
    let seconds: f64 = points.iter().map(Interval::seconds).sum();
    Ok(Sample {
        whole: Figures {
            iops: (sum.ios as f64).max(LEAST_IOS) / seconds,
            bytes_per_sec: (sum.bytes as f64).max(LEAST_IOS * 512.0) / seconds,
            latency: sum.latency,
        },
        jobs: Vec::new(),
    })
}

/// What differs around two results, as `name: one / other`.
pub fn other_surroundings(one: &Saved, other: &Saved) -> Vec<String> {
    let others = other.surroundings(false);
    let other = |name: &String| {
        let found = others.iter().find(|(known, _)| known == name);
        found.map_or(&Value::Null, |(_, value)| value)
    };
    let pairs = one.surroundings(false).into_iter();
    pairs
        .filter(|(name, value)| value != other(name))
        .map(|(name, value)| format!("{name}: {value} / {}", other(&name)))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::saved::tests::{object, saved};

    #[test]
    fn a_series_becomes_samples() {
        let parts = Sample::parts(&saved(&object(45)).unwrap()).unwrap();
        assert_eq!(parts.len(), 15, "three points each");
        let whole = &parts[0].whole;
        assert_eq!((whole.iops, whole.latency.count), (500.0, 1_500));
        assert_eq!(Sample::parts(&saved(&object(0)).unwrap()).unwrap(), []);
    }

    #[test]
    fn a_run_has_the_figures_of_its_jobs() {
        let mut run = object(1);
        let histogram = run["histogram"].clone();
        run["jobs"] =
            json!([{"name": "a", "iops": 3.0, "bytes_per_sec": 1.0, "histogram": histogram}]);
        let sample = Sample::whole(&saved(&run).unwrap()).unwrap();
        assert_eq!(sample.jobs[0].0, "a");
        assert_eq!(
            (sample.jobs[0].1.iops, sample.jobs[0].1.latency.count),
            (3.0, 500)
        );
        run["jobs"][0]["histogram"] = "x".into();
        assert!(Sample::whole(&saved(&run).unwrap()).is_err());
    }

    #[test]
    fn what_has_none_of_a_figure_is_left_out_as_a_whole() {
        let runs = Measured::Runs([vec![1, 2], vec![3]]);
        let odd = |value: &i32| (value % 2 == 1).then_some(*value);
        assert_eq!(runs.try_map(odd), None);
        let pairs = Measured::Pairs(vec![[1, 3], [5, 7]]);
        assert_eq!(pairs.try_map(odd), Some(pairs.clone()));
        assert_eq!(pairs.sides(), [vec![&1, &5], vec![&3, &7]]);
    }

    #[test]
    fn surroundings_that_differ_are_listed() {
        let mut other = object(1);
        other["options"] = json!({"depth": 8, "seed": 2, "hdgst": true});
        let (one, other) = (saved(&object(1)).unwrap(), saved(&other).unwrap());
        assert_eq!(
            other_surroundings(&other, &one),
            ["options.hdgst: true / null"]
        );
    }
}
