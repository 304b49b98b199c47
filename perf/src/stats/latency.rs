//! Histograms of latencies, and the percentiles read off them.

use hdrhistogram::Histogram;
use serde_json::{Map, Value};

/// One hour in nanoseconds; longer latencies count as this.
pub(super) const LATENCY_MAX_NS: u64 = 3_600_000_000_000;

/// Decimal digits that a value keeps.
const LATENCY_DIGITS: u8 = 3;

/// Percentiles in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LatencySummary {
    /// How many I/Os it is of.
    pub count: u64,
    /// The least time that an I/O has been in flight which has not ended, if there is one: it takes longer than that,
    /// nobody knows how much, and so does every figure from here on.
    pub at_least_from: Option<u64>,
    /// Arithmetic mean.
    pub mean: f64,
    /// Median.
    pub p50: u64,
    /// 90 %.
    pub p90: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p999: u64,
    /// 99.99 %.
    pub p9999: u64,
    /// Largest.
    pub max: u64,
}

impl LatencySummary {
    /// All zero if nothing was recorded.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let at = |quantile| histogram.value_at_quantile(quantile).min(histogram.max());
        Self {
            count: histogram.len(),
            at_least_from: None,
            mean: histogram.mean(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: histogram.max(),
        }
    }

    /// The latency of I/Os that ended and of those that did not, which took at least the time that they have been in flight.
    pub fn with_unfinished(ended: &Histogram<u64>, unfinished: &Histogram<u64>) -> Self {
        if unfinished.is_empty() {
            return Self::of(ended);
        }
        let mut all = ended.clone();
        add(&mut all, unfinished);
        Self {
            at_least_from: Some(unfinished.min()),
            ..Self::of(&all)
        }
    }

    /// The percentiles with their names in the JSON object; `None` where there are too few samples for one to be above it.
    pub fn percentiles(&self) -> [(&'static str, Option<u64>); 5] {
        let enough = |least: u64, value| (self.count >= least).then_some(value);
        [
            ("p50", enough(2, self.p50)),
            ("p90", enough(10, self.p90)),
            ("p99", enough(100, self.p99)),
            ("p999", enough(1_000, self.p999)),
            ("p9999", enough(10_000, self.p9999)),
        ]
    }

    /// Whether a percentile of this distribution is a lower bound: an I/O that has not ended may end up above it.
    pub fn is_lower_bound(&self, percentile_ns: u64) -> bool {
        self.at_least_from.is_some_and(|from| percentile_ns >= from)
    }
}

/// For programs, in nanoseconds: `null` where there are too few samples.
pub fn latency_json(latency: &LatencySummary) -> Value {
    let mut object = Map::new();
    object.insert("mean".to_owned(), latency.mean.into());
    for (name, value) in latency.percentiles() {
        object.insert(name.to_owned(), value.into());
    }
    object.insert("max".to_owned(), latency.max.into());
    object.into()
}

/// Adds `part` to `sum`. Both are of [`latency_histogram`], so that nothing can be lost.
#[expect(
    clippy::expect_used,
    reason = "all histograms of latencies have the same bounds"
)]
pub fn add(sum: &mut Histogram<u64>, part: &Histogram<u64>) {
    sum.add(part)
        .expect("histograms of latencies have the same bounds");
}

/// An empty histogram of latencies; all have the same bounds, so that they can be added.
pub fn latency_histogram() -> Histogram<u64> {
    match Histogram::new_with_bounds(1, LATENCY_MAX_NS, LATENCY_DIGITS) {
        Ok(histogram) => histogram,
        Err(error) => unreachable!("bounds are constants: {error}"),
    }
}
