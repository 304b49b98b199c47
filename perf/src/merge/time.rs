//! Results on one time line: when they ran, and their series as one.

use std::collections::BTreeMap;

use crate::stats::Interval;
use crate::text::rounded;

/// When one result was measured, in nanoseconds since the first of all began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its first submission.
    pub start_ns: u64,
    /// Its end.
    pub end_ns: u64,
}

/// The time in which at least one of them ran.
pub fn covered_ns(spans: &[Span]) -> u64 {
    let mut spans = spans.to_vec();
    spans.sort_by_key(|span| span.start_ns);
    let (mut covered, mut until) = (0, 0);
    for span in spans {
        covered += span.end_ns.saturating_sub(span.start_ns.max(until));
        until = until.max(span.end_ns);
    }
    covered
}

/// The time in which all of them ran.
pub fn shared_ns(spans: &[Span]) -> u64 {
    let start = spans.iter().map(|span| span.start_ns).max().unwrap_or(0);
    let end = spans.iter().map(|span| span.end_ns).min().unwrap_or(0);
    end.saturating_sub(start)
}

/// A series with the start of its result and, for each of its paths, the place in the merged list.
pub struct Part<'a> {
    /// When its result was measured.
    pub span: Span,
    /// Times since the start of the result.
    pub series: &'a [Interval],
    /// Where its paths are in the merged list.
    pub paths: &'a [usize],
}

/// One series of several. Each point goes whole into one point of the grid of intervals as long as most
/// points are; for that a result as a whole is moved by at most half an interval, so that its own points stay in step.
///
/// # Errors
///
/// A histogram that cannot be read.
pub fn merge_series(parts: &[Part<'_>]) -> Result<Vec<Interval>, String> {
    let mut lengths: Vec<u64> = parts
        .iter()
        .flat_map(|part| part.series)
        .map(|point| point.end_ns - point.start_ns)
        .collect();
    lengths.sort_unstable();
    let Some(&step_ns) = lengths.get(lengths.len() / 2) else {
        return Ok(Vec::new());
    };
    let step = step_ns as f64;
    let mut bins: BTreeMap<u64, Vec<Interval>> = BTreeMap::new();
    for part in parts {
        let first = rounded(part.span.start_ns as f64 / step);
        for point in part.series {
            let middle = (point.start_ns + (point.end_ns - point.start_ns) / 2) as f64;
            // Its points begin at its own start: their middles lie far from the bounds.
            let bin = first.saturating_add(rounded((middle / step).floor()));
            let mut moved = point.clone();
            let by_ns = first.saturating_mul(step_ns);
            moved.start_ns = moved.start_ns.saturating_add(by_ns);
            moved.end_ns = moved.end_ns.saturating_add(by_ns);
            moved.paths = vec![0; part.paths.iter().max().map_or(0, |last| last + 1)];
            for (ios, &place) in point.paths.iter().zip(part.paths) {
                moved.paths[place] = moved.paths[place].saturating_add(*ios);
            }
            bins.entry(bin).or_default().push(moved);
        }
    }
    let mut merged: Vec<(u64, Interval)> = Vec::new();
    for (bin, points) in bins {
        let mut sum = Interval::sum(&points)?;
        if let Some((before, last)) = merged.last_mut()
            && (before.saturating_add(1) == bin || last.end_ns > sum.start_ns)
        {
            sum.start_ns = sum.start_ns.max(last.start_ns.saturating_add(1));
            sum.end_ns = sum.end_ns.max(sum.start_ns.saturating_add(1));
            last.end_ns = sum.start_ns;
        }
        merged.push((bin, sum));
    }
    let paths = merged.iter().map(|(_, point)| point.paths.len()).max();
    for (_, point) in &mut merged {
        point.paths.resize(paths.unwrap_or(0), 0);
    }
    Ok(merged.into_iter().map(|(_, point)| point).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::JobStats;

    const S: u64 = 1_000_000_000;

    fn span(start: u64, end: u64) -> Span {
        Span {
            start_ns: start * S,
            end_ns: end * S,
        }
    }

    #[test]
    fn time_that_several_cover_counts_once() {
        assert_eq!(covered_ns(&[span(0, 10), span(2, 11)]), 11 * S);
        assert_eq!(covered_ns(&[span(20, 30), span(0, 10)]), 20 * S);
        assert_eq!(covered_ns(&[span(0, 10), span(3, 5)]), 10 * S);
        assert_eq!(shared_ns(&[span(0, 10), span(2, 11)]), 8 * S);
        assert_eq!(shared_ns(&[span(20, 30), span(0, 10)]), 0);
    }

    #[test]
    fn points_of_one_moment_become_one_and_none_is_lost() {
        let series = |latency: u64, jitter: u64| -> Vec<Interval> {
            (0..5)
                .map(|n| {
                    let mut stats = JobStats::new();
                    stats.latency.saturating_record_n(latency, 10);
                    (stats.reads, stats.bytes, stats.path(0).ios) = (10, 40_960, 10);
                    Interval::of(
                        &stats,
                        n * S + n % 2 * jitter,
                        (n + 1) * S + (n + 1) % 2 * jitter,
                        Some(1),
                    )
                })
                .collect()
        };
        let (one, two) = (series(1_000, 0), series(9_000, 40_000_000));
        let part = |start_ns, series, paths| Part {
            span: Span {
                start_ns,
                end_ns: start_ns + 5 * S,
            },
            series,
            paths,
        };
        // Half an interval apart, the worst there is; and much later.
        for (start_ns, points) in [(0, 5), (S / 2, 6), (S * 2, 7), (S * 20, 10)] {
            let merged = merge_series(&[part(0, &one, &[0]), part(start_ns, &two, &[1])]).unwrap();
            assert_eq!(merged.len(), points, "{start_ns}");
            let sum = Interval::sum(&merged).unwrap();
            assert_eq!(
                (sum.ios, sum.bytes, sum.paths.clone()),
                (100, 409_600, vec![50, 50])
            );
            assert_eq!((sum.latency.count, sum.latency.p50), (100, 1_000));
            for pair in merged.windows(2) {
                assert!(pair[0].end_ns <= pair[1].start_ns, "{start_ns}: {pair:?}");
            }
            let both = merged.iter().filter(|point| point.backlog == Some(2));
            assert_eq!(both.count(), 10 - points, "{start_ns}");
        }
        assert_eq!(merge_series(&[]).unwrap(), []);
    }
}
