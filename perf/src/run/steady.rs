//! `--steadystate`: a run ends when its rate no longer changes, as fio tells that.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::stats::Interval;

/// With fewer points nothing is said about a window.
pub const POINTS_MIN: u32 = 4;

/// When a run is steady.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Criterion {
    rate: Rate,
    measure: Measure,
    limit: Limit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rate {
    Iops,
    /// Bytes per second.
    Bandwidth,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    /// The largest distance of a point from the mean.
    Deviation,
    /// What a straight line through the points rises or falls in a second.
    Slope,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Limit {
    /// Percent of the mean.
    Percent(f64),
    /// In the unit of the rate.
    Absolute(f64),
}

/// What was seen in a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Mean of the rate: I/Os, or bytes, per second.
    pub mean: f64,
    /// The measure, in the unit of the limit.
    pub value: f64,
    /// Whether that is within the limit.
    pub is_steady: bool,
}

/// How a run with a criterion ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Steady {
    /// What was asked for.
    pub criterion: Criterion,
    /// How long it had to hold.
    pub duration: Duration,
    /// The last window that was whole.
    pub window: Option<Window>,
    /// Time since the start at which it held, if it did.
    pub attained: Option<Duration>,
}

impl Criterion {
    /// Looks at the end of a series; `None` as long as that is shorter than the window.
    pub fn judge(&self, series: &[Interval], window: Duration) -> Option<Window> {
        let end_ns = series.last()?.end_ns;
        let window_ns = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        // Points are not at the nanosecond at which they are due.
        let slack_ns = window_ns / u64::from(POINTS_MIN) / 2;
        let from_ns = end_ns.checked_sub(window_ns)?.saturating_sub(slack_ns);
        let first = series.partition_point(|point| point.start_ns < from_ns);
        let points = &series[first..];
        if points.len() < POINTS_MIN as usize
            || end_ns.saturating_sub(points[0].start_ns) + slack_ns < window_ns
        {
            return None;
        }
        let rates: Vec<f64> = points.iter().map(|point| self.rate.of(point)).collect();
        let mean = rates.iter().sum::<f64>() / rates.len() as f64;
        let absolute = match self.measure {
            Measure::Deviation => rates
                .iter()
                .map(|rate| (rate - mean).abs())
                .fold(0.0, f64::max),
            Measure::Slope => {
                let at = points.iter().map(|point| point.end_ns as f64 / 1e9);
                slope(&at.collect::<Vec<_>>(), &rates).abs()
            }
        };
        let (value, limit) = match self.limit {
            Limit::Percent(limit) => (absolute / mean.max(1e-9) * 100.0, limit),
            Limit::Absolute(limit) => (absolute, limit),
        };
        Some(Window {
            mean,
            value,
            is_steady: mean > 0.0 && value <= limit,
        })
    }
}

impl Rate {
    fn of(self, point: &Interval) -> f64 {
        match self {
            Self::Iops => point.iops(),
            Self::Bandwidth => point.bytes_per_sec(),
        }
    }
}

/// The slope of the straight line with the least squares.
fn slope(xs: &[f64], ys: &[f64]) -> f64 {
    let count = xs.len().max(1) as f64;
    let (mean_x, mean_y) = (
        xs.iter().sum::<f64>() / count,
        ys.iter().sum::<f64>() / count,
    );
    let pairs = xs.iter().zip(ys);
    let (over, under) = pairs.fold((0.0, 0.0), |(over, under), (x, y)| {
        let distance = x - mean_x;
        (over + distance * (y - mean_y), under + distance * distance)
    });
    over / under.max(1e-9)
}

impl FromStr for Criterion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "'{text}' is not possible: allowed are iops, bw, iops_slope and bw_slope with a limit, such as iops:5% or bw_slope:1%"
            )
        };
        let (name, limit) = text.split_once(':').ok_or_else(bad)?;
        let (rate, measure) = match name {
            "iops" => (Rate::Iops, Measure::Deviation),
            "bw" => (Rate::Bandwidth, Measure::Deviation),
            "iops_slope" => (Rate::Iops, Measure::Slope),
            "bw_slope" => (Rate::Bandwidth, Measure::Slope),
            _ => return Err(bad()),
        };
        let number = |text: &str| match text.parse::<f64>() {
            Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
            _ => Err(bad()),
        };
        let limit = match limit.strip_suffix('%') {
            Some(percent) => Limit::Percent(number(percent)?),
            None => Limit::Absolute(number(limit)?),
        };
        Ok(Self {
            rate,
            measure,
            limit,
        })
    }
}

impl fmt::Display for Criterion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.rate {
            Rate::Iops => "iops",
            Rate::Bandwidth => "bw",
        })?;
        if self.measure == Measure::Slope {
            f.write_str("_slope")?;
        }
        match self.limit {
            Limit::Percent(limit) => write!(f, ":{limit}%"),
            Limit::Absolute(limit) => write!(f, ":{limit}"),
        }
    }
}

impl Steady {
    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "criterion": self.criterion.to_string(),
            "window_seconds": self.duration.as_secs_f64(),
            "attained": self.attained.is_some(),
            "attained_at_seconds": self.attained.map(|at| at.as_secs_f64()),
            "value": self.window.map(|window| window.value),
            "mean": self.window.map(|window| window.mean),
        })
    }

    /// For people.
    pub fn in_words(&self) -> String {
        let Self {
            criterion,
            duration,
            ..
        } = self;
        let seconds = duration.as_secs_f64();
        let unit = match criterion.limit {
            Limit::Percent(_) => " %",
            Limit::Absolute(_) => "",
        };
        match (self.attained, self.window) {
            (Some(at), Some(window)) => format!(
                "steady ({criterion}) after {:.2} s: {:.2}{unit} in the last {seconds} s",
                at.as_secs_f64(),
                window.value
            ),
            (_, Some(window)) => format!(
                "never steady ({criterion}): {:.2}{unit} in the last {seconds} s",
                window.value
            ),
            (_, None) => {
                format!("never steady ({criterion}): the run was shorter than {seconds} s")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn series(ios: &[u64]) -> Vec<Interval> {
        let point = |(second, &ios): (usize, &u64)| Interval {
            start_ns: 7 * SECOND + second as u64 * SECOND,
            end_ns: 8 * SECOND + second as u64 * SECOND,
            ios,
            bytes: ios * 4096,
            ..Interval::default()
        };
        ios.iter().enumerate().map(point).collect()
    }

    fn judge(criterion: &str, ios: &[u64], seconds: u64) -> Option<(f64, bool)> {
        let criterion: Criterion = criterion.parse().unwrap();
        let window = criterion.judge(&series(ios), Duration::from_secs(seconds))?;
        Some((window.value, window.is_steady))
    }

    #[test]
    fn every_point_of_the_window_is_near_its_mean() {
        let ios = [10, 500, 97, 100, 103, 100];
        assert_eq!(judge("iops:5%", &ios, 4), Some((3.0, true)));
        assert_eq!(judge("iops:2%", &ios, 4), Some((3.0, false)));
        assert_eq!(judge("iops:3", &ios, 4), Some((3.0, true)));
        assert_eq!(judge("bw:12288", &ios, 4), Some((12_288.0, true)));
        assert!(!judge("iops:5%", &ios, 6).unwrap().1, "the start is in it");
        assert_eq!(judge("iops:5%", &ios, 7), None, "too short");
        assert_eq!(judge("iops:5%", &ios[..3], 3), None, "too few points");
        assert!(
            !judge("iops:5%", &[0; 9], 4).unwrap().1,
            "nothing is not steady"
        );
    }

    #[test]
    fn a_slope_is_that_of_the_line_through_the_points() {
        let (value, is_steady) = judge("iops_slope:2%", &[100, 110, 120, 130], 4).unwrap();
        assert!(
            (value - 1000.0 / 115.0).abs() < 1e-6 && !is_steady,
            "{value}"
        );
        let (value, is_steady) = judge("bw_slope:2%", &[90, 110, 110, 90], 4).unwrap();
        assert!(value < 1e-6 && is_steady, "noise does not rise: {value}");
    }

    #[test]
    fn criteria_are_read_and_shown() {
        for text in ["iops:5%", "bw_slope:0.1%", "iops_slope:200", "bw:1000000"] {
            assert_eq!(text.parse::<Criterion>().unwrap().to_string(), text);
        }
        for text in [
            "iops", "p99:5%", "iops:", "iops:-1%", "iops:0", "iops:x%", "iops:inf",
        ] {
            assert!(
                text.parse::<Criterion>().unwrap_err().contains("iops:5%"),
                "{text}"
            );
        }
    }
}
