//! Slices of time without and with a disturbance, in turns, and the ratios of neighbours.
//!
//! What drifts on the machine over minutes, its neighbours and its temperature, is the same in both slices of a pair.

use std::time::Duration;

use serde_json::{Value, json};

use super::drive::{Drive, Slice};
use super::{Setup, progress};
use crate::stats::{LatencySummary, add, latency_histogram};
use crate::text::{duration, grouped, rounded};

/// Two neighbours.
pub struct Pair {
    /// Without the disturbance.
    pub undisturbed: Slice,
    /// With it.
    pub disturbed: Slice,
}

/// All pairs of a measurement.
pub struct Comparison {
    pairs: Vec<Pair>,
}

/// A number with its spread over the pairs.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ratio {
    median: f64,
    least: f64,
    most: f64,
}

/// What a job does first is not measured.
const WARM_UP: Duration = Duration::from_millis(200);

/// Measures `pairs` times: a slice of `time` without the disturbance, and what `disturbed` measures with it.
///
/// # Errors
///
/// A reactor has ended or does not answer; what `disturbed` says.
pub fn alternate(
    setup: &Setup,
    name: &str,
    drive: &mut Drive<'_>,
    pairs: usize,
    time: Duration,
    mut disturbed: impl FnMut(&mut Drive<'_>) -> anyhow::Result<Slice>,
) -> anyhow::Result<Comparison> {
    let mut comparison = Comparison { pairs: Vec::new() };
    drive.slice(WARM_UP, &setup.stop)?;
    for number in 1..=pairs {
        let undisturbed = drive.slice(time, &setup.stop)?;
        if setup.stopped() {
            break;
        }
        let disturbed = disturbed(drive)?;
        if setup.stopped() {
            break;
        }
        let iops = |slice: &Slice| grouped(rounded(slice.iops));
        progress(&format!(
            "{name}: pair {number} of {pairs}: {} IOPS undisturbed, {} disturbed",
            iops(&undisturbed),
            iops(&disturbed)
        ));
        comparison.pairs.push(Pair {
            undisturbed,
            disturbed,
        });
    }
    Ok(comparison)
}

/// How a number is read off a slice.
type Measure = fn(&Slice) -> f64;
/// One slice of a pair.
type Side = fn(&Pair) -> &Slice;

/// What is compared.
const MEASURES: [(&str, Measure); 5] = [
    ("iops", |slice| slice.iops),
    ("p50", |slice| quantile(slice, 0.5)),
    ("p99", |slice| quantile(slice, 0.99)),
    ("p999", |slice| quantile(slice, 0.999)),
    ("longest_gap", |slice| slice.longest_gap_ns as f64),
];

fn quantile(slice: &Slice, quantile: f64) -> f64 {
    slice.latency.value_at_quantile(quantile) as f64
}

impl Comparison {
    /// Rows of the table.
    pub fn rows(&self) -> Vec<String> {
        let mut rows = vec![format!(
            "{:<14}{:>12}{:>12}{:>12}{:>12}{:>14}",
            "", "IOPS", "p50", "p99", "p99.9", "longest gap"
        )];
        for (label, side) in SIDES {
            let (iops, latency, gap_ns) = self.side(side);
            rows.push(format!(
                "{label:<14}{:>12}{:>12}{:>12}{:>12}{:>14}",
                grouped(rounded(iops)),
                duration(latency.p50),
                duration(latency.p99),
                duration(latency.p999),
                duration(gap_ns)
            ));
        }
        for (label, part) in [
            ("ratio", (|r| r.median) as fn(Ratio) -> f64),
            ("  least", |r| r.least),
            ("  most", |r| r.most),
        ] {
            let mut row = format!("{label:<14}");
            for (index, (_, measure)) in MEASURES.into_iter().enumerate() {
                let width = if index == 4 { 14 } else { 12 };
                let text = match self.ratio(measure) {
                    Some(ratio) => format!("{:.3}", part(ratio)),
                    None => "-".to_owned(),
                };
                row.push_str(&format!("{text:>width$}"));
            }
            rows.push(row);
        }
        rows
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let mut ratios = serde_json::Map::new();
        for (name, measure) in MEASURES {
            let ratio = self.ratio(measure).map(
                |ratio| json!({"median": ratio.median, "least": ratio.least, "most": ratio.most}),
            );
            ratios.insert(name.to_owned(), ratio.into());
        }
        let mut object = serde_json::Map::new();
        for (label, side) in SIDES {
            let (iops, latency, gap_ns) = self.side(side);
            let each: Vec<f64> = self.pairs.iter().map(|pair| side(pair).iops).collect();
            object.insert(
                label.to_owned(),
                json!({
                    "iops": iops,
                    "p50_ns": latency.p50,
                    "p99_ns": latency.p99,
                    "p999_ns": latency.p999,
                    "max_ns": latency.max,
                    "longest_gap_ns": gap_ns,
                    "iops_of_slices": each,
                }),
            );
        }
        object.insert("pairs".to_owned(), self.pairs.len().into());
        object.insert("ratios".to_owned(), ratios.into());
        object.into()
    }

    /// Mean IOPS, latency of all I/Os, longest gap.
    fn side(&self, side: Side) -> (f64, LatencySummary, u64) {
        let mut latency = latency_histogram();
        let (mut ios, mut gap_ns) = (0.0, 0);
        let mut seconds = 0.0;
        for slice in self.pairs.iter().map(side) {
            add(&mut latency, &slice.latency);
            ios += slice.iops * slice.seconds;
            seconds += slice.seconds;
            gap_ns = gap_ns.max(slice.longest_gap_ns);
        }
        let iops = if seconds > 0.0 { ios / seconds } else { 0.0 };
        (iops, LatencySummary::of(&latency), gap_ns)
    }

    /// Disturbed by undisturbed, pair by pair. `None` without a pair in which there is something to divide by.
    fn ratio(&self, measure: Measure) -> Option<Ratio> {
        let ratios = self.pairs.iter().filter_map(|pair| {
            let base = measure(&pair.undisturbed);
            (base > 0.0).then(|| measure(&pair.disturbed) / base)
        });
        spread_of(ratios.collect())
    }
}

const SIDES: [(&str, Side); 2] = [
    ("undisturbed", |pair| &pair.undisturbed),
    ("disturbed", |pair| &pair.disturbed),
];

fn spread_of(mut values: Vec<f64>) -> Option<Ratio> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    let median = if values.len().is_multiple_of(2) {
        (upper + values.get(middle - 1)?) / 2.0
    } else {
        upper
    };
    Some(Ratio {
        median,
        least: *values.first()?,
        most: *values.last()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(iops: f64, latency_ns: u64) -> Slice {
        let mut latency = latency_histogram();
        latency.saturating_record(latency_ns);
        Slice {
            ios: 1,
            iops,
            seconds: 1.0,
            latency,
            longest_gap_ns: 0,
            gaps: Vec::new(),
        }
    }

    #[test]
    fn the_ratio_is_the_median_of_the_pairs() {
        let pair = |before, after| Pair {
            undisturbed: slice(before, 1_000),
            disturbed: slice(after, 2_000),
        };
        let pairs = vec![pair(100.0, 90.0), pair(1_000.0, 10.0), pair(50.0, 50.0)];
        let comparison = Comparison { pairs };
        let ratio = comparison.ratio(|s| s.iops).unwrap();
        assert_eq!((ratio.median, ratio.least, ratio.most), (0.9, 0.01, 1.0));
        let json = comparison.json();
        assert_eq!(json["ratios"]["iops"]["median"], 0.9);
        assert_eq!(json["ratios"]["p50"]["median"], 2.0);
        assert_eq!(
            json["ratios"]["longest_gap"],
            Value::Null,
            "none to divide by"
        );
        assert_eq!(json["disturbed"]["iops"], 50.0);
        assert!(
            comparison.rows()[3].starts_with("ratio") && comparison.rows()[3].contains("0.900")
        );
    }

    #[test]
    fn medians() {
        let median = |values: &[f64]| spread_of(values.to_vec()).map(|r| r.median);
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
