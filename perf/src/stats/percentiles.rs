//! The percentiles of a histogram as text, as HdrHistogram prints them and its plotting tools read them (`.hgrm`).

use std::fmt::Write as _;

use hdrhistogram::Histogram;

/// Lines for each halving of the distance to 100 %.
const STEPS_PER_HALVING: u32 = 5;
/// Values are printed in this many nanoseconds.
const UNIT_NS: f64 = 1_000.0;

/// Values in microseconds.
pub fn percentile_text(histogram: &Histogram<u64>) -> String {
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let mut count = 0;
    for step in histogram.iter_quantiles(STEPS_PER_HALVING) {
        count += step.count_since_last_iteration();
        let value = step.value_iterated_to().min(histogram.max()) as f64 / UNIT_NS;
        let quantile = step.quantile_iterated_to();
        // Writing to a string does not fail.
        let _ = match quantile < 1.0 {
            true => writeln!(
                text,
                "{value:12.3} {quantile:2.12} {count:10} {:14.2}",
                1.0 / (1.0 - quantile)
            ),
            false => writeln!(text, "{value:12.3} {quantile:2.12} {count:10}"),
        };
    }
    let (mean, deviation) = match histogram.is_empty() {
        true => (0.0, 0.0),
        false => (histogram.mean() / UNIT_NS, histogram.stdev() / UNIT_NS),
    };
    let _ = write!(
        text,
        "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]\n#[Max     = {:12.3}, Total count    = {:12}]\n#[Buckets = {:12}, SubBuckets     = {:12}]\n",
        histogram.max() as f64 / UNIT_NS,
        histogram.len(),
        histogram.buckets(),
        // The first bucket has all of them, each of the others the upper half.
        2 * histogram.distinct_values() / (usize::from(histogram.buckets()) + 1),
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::latency_histogram;

    #[test]
    fn the_text_has_the_columns_of_its_format() {
        let mut latency = latency_histogram();
        for value in 1..=1_000_u64 {
            latency.saturating_record(value * 1_000);
        }
        let text = percentile_text(&latency);
        let (heads, rows) = text.split_once("\n\n").expect("an empty line");
        assert_eq!(
            heads.split_whitespace().collect::<Vec<_>>(),
            ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
        );
        let numbers = |line: &str| -> Vec<f64> {
            let words = line.split_whitespace();
            words.map(|word| word.parse().expect("a number")).collect()
        };
        let rows: Vec<Vec<f64>> = rows
            .lines()
            .take_while(|line| !line.starts_with('#'))
            .map(numbers)
            .collect();
        let half = rows.iter().find(|row| row[1] == 0.5).expect("the median");
        assert!((half[0] - 500.0).abs() < 1.0 && (half[2] - 500.0).abs() < 2.0);
        assert_eq!(half[3], 2.0);
        let last = rows.last().expect("the largest");
        assert_eq!(last[1..], [1.0, 1_000.0]);
        assert!(text.contains("Total count    =         1000]"), "{text}");
        assert!(text.contains("SubBuckets     =         2048]"), "{text}");
        assert!(percentile_text(&latency_histogram()).contains("Total count    =            0]"));
    }
}
