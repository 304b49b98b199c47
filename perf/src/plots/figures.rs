//! The plots of one or several results.

use hdrhistogram::Histogram;

use super::args::Plot;
use super::chart::{Axis, Chart, Mark, Scale, Step};
use super::run::Run;
use crate::stats::Interval;
use crate::text::{grouped, rounded};

const HEIGHT: f64 = 300.0;
const HEIGHT_OF_PATHS: f64 = 190.0;
/// Marks with names; more would cover each other.
const NAMES_MAX: usize = 40;

/// A plot of all runs, or of one of them.
#[derive(Debug)]
pub struct Figure {
    /// Which plot.
    pub plot: Plot,
    /// What stands above it.
    pub title: String,
    /// What a reader has to know.
    pub note: &'static str,
    /// Names of its colours.
    pub legend: Vec<String>,
    /// The plot.
    pub chart: Chart,
}

/// All plots that have something to show.
pub fn figures(runs: &[Run]) -> Vec<Figure> {
    let mut figures = vec![percentiles(runs)];
    figures.extend(runs.iter().filter_map(|run| jobs(runs, run)));
    figures.extend(over_time(runs, Plot::Iops));
    figures.extend(over_time(runs, Plot::P99));
    figures.extend(
        runs.iter()
            .enumerate()
            .filter_map(|(index, run)| paths(runs, index, run)),
    );
    figures
}

/// A single curve is the one that the page is about.
fn labels(runs: &[Run]) -> Vec<String> {
    let several = runs.iter().filter(|_| runs.len() > 1);
    several.map(|run| run.label.clone()).collect()
}

fn percentiles(runs: &[Run]) -> Figure {
    let curves: Vec<&Histogram<u64>> = runs.iter().map(|run| &run.saved.latency).collect();
    Figure {
        plot: Plot::Percentiles,
        title: "Latency by percentile".to_owned(),
        note: "I/Os that succeeded; the curve ends at the largest latency.",
        legend: labels(runs),
        chart: by_percentile(&curves),
    }
}

/// The same of the jobs of a run.
fn jobs(runs: &[Run], run: &Run) -> Option<Figure> {
    let some = run.jobs.iter().filter(|job| !job.latency.is_empty());
    let (legend, curves): (Vec<String>, Vec<_>) =
        some.map(|job| (job.name.clone(), &job.latency)).unzip();
    (!curves.is_empty()).then(|| Figure {
        plot: Plot::Jobs,
        title: match runs.len() {
            1 => "Latency of each job by percentile".to_owned(),
            _ => format!("Latency of each job by percentile: {}", run.label),
        },
        note: "",
        legend,
        chart: by_percentile(&curves),
    })
}

/// The axis runs to the highest percentile that one sample is above.
fn by_percentile(latencies: &[&Histogram<u64>]) -> Chart {
    let counts = latencies.iter().map(|latency| latency.len());
    let most = counts.max().unwrap_or(1).max(10) as f64;
    let (mut least, mut largest) = (f64::INFINITY, 1.0_f64);
    let curves: Vec<Vec<Option<(f64, f64)>>> = latencies
        .iter()
        .map(|latency| {
            let count = latency.len() as f64;
            let last = rounded((count.log10() * 40.0).floor());
            let places = (0..=last)
                .map(|n| 10_f64.powf(n as f64 / 40.0))
                .chain([count]);
            let points = places.map(|x| {
                let value = latency.value_at_quantile(1.0 - 1.0 / x).min(latency.max());
                (x, value.max(1) as f64)
            });
            points.map(Some).collect()
        })
        .collect();
    for (_, y) in curves.iter().flatten().flatten() {
        (least, largest) = (least.min(*y), largest.max(*y));
    }
    let x = Axis {
        scale: Scale::Log(1.0, most),
        title: "percentile (each step to the right is ten times rarer)",
        label: percentile,
    };
    let y = Axis {
        scale: Scale::Log(least / 1.1, largest * 1.1),
        title: "latency",
        label: latency_label,
    };
    let mut chart = Chart::new(x, y, HEIGHT, 1);
    for (index, curve) in curves.iter().enumerate() {
        chart.curve(index, curve);
    }
    chart
}

fn over_time(runs: &[Run], plot: Plot) -> Option<Figure> {
    let value = |point: &Interval| match plot {
        Plot::P99 => point.latency.percentiles()[2]
            .1
            .map(|p99| p99.max(1) as f64),
        _ => Some(point.iops()),
    };
    // The rest of an interval at the end of a run says nothing of rates.
    let lengths = runs
        .iter()
        .flat_map(|run| &run.series)
        .map(Interval::seconds);
    let least_seconds = lengths.fold(0.0, f64::max) / 5.0;
    let long = |point: &&Interval| point.seconds() >= least_seconds;
    let points = runs.iter().flat_map(|run| run.series.iter().filter(long));
    let values: Vec<f64> = points.filter_map(value).collect();
    if values.is_empty() {
        return None;
    }
    let largest = values.iter().copied().fold(0.0, f64::max);
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let y = match plot {
        Plot::P99 => Axis {
            scale: Scale::Log(least / 1.1, largest * 1.1),
            title: "p99 latency of each interval",
            label: latency_label,
        },
        _ => Axis {
            scale: Scale::Linear(0.0, (largest * 1.05).max(1.0)),
            title: "I/Os per second",
            label: rate_label,
        },
    };
    let mut chart = Chart::new(time_axis(runs), y, HEIGHT, runs.len());
    for (index, run) in runs.iter().enumerate() {
        let mut curve = Vec::new();
        let mut before_ns = 0;
        for point in run.series.iter().filter(long) {
            if point.start_ns > before_ns {
                curve.push(None);
            }
            before_ns = point.end_ns;
            let Some(value) = value(point) else {
                curve.push(None);
                continue;
            };
            let seconds = |ns: u64| ns as f64 / 1e9;
            curve.push(Some((seconds(point.start_ns), value)));
            curve.push(Some((seconds(point.end_ns), value)));
        }
        chart.curve(index, &curve);
    }
    mark_events(&mut chart, runs, None);
    Some(Figure {
        plot,
        title: match plot {
            Plot::P99 => "p99 over time".to_owned(),
            _ => "IOPS over time".to_owned(),
        },
        note: match plot {
            Plot::P99 => {
                "Intervals with fewer than 100 I/Os have no 99th percentile and leave a gap."
            }
            _ => "Path events are marked with the names they have in the table of events.",
        },
        legend: labels(runs),
        chart,
    })
}

fn paths(runs: &[Run], index: usize, run: &Run) -> Option<Figure> {
    if run.paths.is_empty() || run.series.iter().all(|point| point.ios == 0) {
        return None;
    }
    let y = Axis {
        scale: Scale::Linear(0.0, 100.0),
        title: "share of the I/Os in each interval",
        label: |share| format!("{share:.0} %"),
    };
    let mut chart = Chart::new(time_axis(runs), y, HEIGHT_OF_PATHS, 1);
    for (path, name) in run.paths.iter().enumerate() {
        let steps: Vec<Step> = run
            .series
            .iter()
            .map(|point| {
                let all: f64 = point.paths.iter().map(|ios| *ios as f64).sum();
                let share = |paths: usize| {
                    let ios: f64 = point.paths.iter().take(paths).map(|ios| *ios as f64).sum();
                    if all > 0.0 { 100.0 * ios / all } else { 0.0 }
                };
                Step {
                    left: point.start_ns as f64 / 1e9,
                    right: point.end_ns as f64 / 1e9,
                    from: share(path),
                    to: share(path + 1),
                }
            })
            .collect();
        chart.band(path, &steps, name);
    }
    mark_events(&mut chart, runs, Some(index));
    Some(Figure {
        plot: Plot::Paths,
        title: match runs.len() {
            1 => "Paths over time".to_owned(),
            _ => format!("Paths over time: {}", run.label),
        },
        note: "",
        legend: run.paths.clone(),
        chart,
    })
}

/// Marks what happened in all runs, or in one.
fn mark_events(chart: &mut Chart, runs: &[Run], only: Option<usize>) {
    let end = time_end(runs);
    let chosen = runs.iter().enumerate();
    let chosen = chosen.filter(|(index, _)| only.is_none_or(|only| only == *index));
    for (index, run) in chosen {
        let mut before: Option<f64> = None;
        for (number, event) in run.events.iter().enumerate() {
            let mut name = event_name(runs.len(), index, number);
            let crowded = before.is_some_and(|before| event.at - before < end / 40.0);
            if run.events.len() > NAMES_MAX || crowded {
                name.clear();
            } else {
                before = Some(event.at);
            }
            let title = format!(
                "{} at {:.3} s: {}: {}",
                run.label, event.at, event.path, event.what
            );
            let mark = Mark {
                class: event.class,
                name: &name,
                title: &title,
                row: if only.is_some() { 0 } else { index },
            };
            // One run's marks need no colour of their own.
            let colour = (runs.len() > 1 && only.is_none()).then_some(index);
            chart.mark(colour, event.at, &mark);
        }
    }
}

/// `1`, `2`; with several runs `A1`, `B2`.
pub fn event_name(runs: usize, run: usize, event: usize) -> String {
    match runs {
        1 => format!("{}", event + 1),
        _ => format!("{}{}", letter(run), event + 1),
    }
}

fn letter(run: usize) -> char {
    // Beyond Z the letters come again.
    char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"[run % 26])
}

fn time_end(runs: &[Run]) -> f64 {
    let ends = runs.iter().filter_map(|run| run.series.last());
    ends.map(|point| point.end_ns as f64 / 1e9)
        .fold(1e-3, f64::max)
}

fn time_axis(runs: &[Run]) -> Axis {
    Axis {
        scale: Scale::Linear(0.0, time_end(runs)),
        title: "seconds since the start",
        label: plain,
    }
}

/// At most two digits after the point.
fn plain(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `99.9 %` for one in a thousand.
fn percentile(rarer: f64) -> String {
    let nines = rounded(rarer.log10());
    match nines {
        0 => "0 %".to_owned(),
        1 => "90 %".to_owned(),
        2 => "99 %".to_owned(),
        _ => format!(
            "99.{} %",
            "9".repeat(usize::try_from(nines).unwrap_or(3) - 2)
        ),
    }
}

fn latency_label(nanos: f64) -> String {
    for (unit, name) in [(1e9, "s"), (1e6, "ms"), (1e3, "us")] {
        if nanos >= unit {
            return format!("{} {name}", plain(nanos / unit));
        }
    }
    format!("{} ns", plain(nanos))
}

fn rate_label(rate: f64) -> String {
    match rate {
        1e6.. => format!("{} M", plain(rate / 1e6)),
        1e4.. => format!("{} k", plain(rate / 1e3)),
        _ => grouped(rounded(rate)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_as_people_write_them() {
        let labels = [1.0, 10.0, 100.0, 1e3, 1e5].map(percentile);
        assert_eq!(labels, ["0 %", "90 %", "99 %", "99.9 %", "99.999 %"]);
        assert_eq!(latency_label(20_000.0), "20 us");
        assert_eq!(latency_label(2.5e6), "2.5 ms");
        assert_eq!(rate_label(250_000.0), "250 k");
        assert_eq!(
            (event_name(1, 0, 2), event_name(2, 1, 0)),
            ("3".to_owned(), "B1".to_owned())
        );
    }
}
