//! The samples in results that were saved.

use serde_json::Value;

use crate::saved::Saved;
use crate::stats::{Interval, LatencySummary};

/// Samples that a series is cut into at most: neighbours are alike, and a point that stands for more I/Os is steadier.
const PARTS_MAX: usize = 20;
/// A part without any I/O is a stall: it counts as half an I/O of the smallest size, so that ratios can be taken.
const LEAST_IOS: f64 = 0.5;

/// What is compared: of a run, or of a part of one.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
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
        Ok(Self {
            iops: saved.number("iops")?,
            bytes_per_sec: saved.number("bytes_per_sec")?,
            latency: LatencySummary::of(&saved.latency),
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

fn part(points: &[Interval]) -> anyhow::Result<Sample> {
    let sum = Interval::sum(points).map_err(anyhow::Error::msg)?;
    let seconds: f64 = points.iter().map(Interval::seconds).sum();
    Ok(Sample {
        iops: (sum.ios as f64).max(LEAST_IOS) / seconds,
        bytes_per_sec: (sum.bytes as f64).max(LEAST_IOS * 512.0) / seconds,
        latency: sum.latency,
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
        assert_eq!((parts[0].iops, parts[0].latency.count), (500.0, 1_500));
        assert_eq!(Sample::parts(&saved(&object(0)).unwrap()).unwrap(), []);
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
