//! Metrics, and how much worse each may be.

use std::str::FromStr;

use super::sample::Figures;

/// A figure of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// I/Os per second.
    Iops,
    /// Bytes per second.
    Bandwidth,
    /// The mean latency, in nanoseconds.
    Mean,
    /// A percentile, by its place in the summary's list.
    Percentile(usize),
    /// The largest latency.
    Max,
}

impl Metric {
    /// All of them, in the order of the table.
    pub const ALL: [(&'static str, Metric); 9] = [
        ("iops", Metric::Iops),
        ("bandwidth", Metric::Bandwidth),
        ("mean", Metric::Mean),
        ("p50", Metric::Percentile(0)),
        ("p90", Metric::Percentile(1)),
        ("p99", Metric::Percentile(2)),
        ("p999", Metric::Percentile(3)),
        ("p9999", Metric::Percentile(4)),
        ("max", Metric::Max),
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        let known = Self::ALL.iter().find(|(_, metric)| *metric == self);
        known.map_or("unknown", |(name, _)| name)
    }

    /// More of it is better.
    pub fn is_rate(self) -> bool {
        matches!(self, Self::Iops | Self::Bandwidth)
    }

    /// Its value; `None` where there were too few I/Os.
    pub fn of(self, figures: &Figures) -> Option<f64> {
        let latency = &figures.latency;
        let value = match self {
            Self::Iops => figures.iops,
            Self::Bandwidth => figures.bytes_per_sec,
            Self::Mean => latency.mean,
            Self::Percentile(place) => latency.percentiles()[place].1? as f64,
            Self::Max => latency.max as f64,
        };
        (value > 0.0).then_some(value)
    }
}

/// How much a metric may be off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// In percent of the base.
    Percent(f64),
    /// In the metric's unit: I/Os or bytes per second, nanoseconds.
    Absolute(f64),
}

/// A metric that fails the comparison when it is worse by more than its limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    /// What.
    pub metric: Metric,
    /// By how much; positive, in the direction that is worse.
    pub limit: Limit,
    /// As it was written.
    pub text: String,
}

impl Gate {
    /// The ratio of new to base beyond which it is failed.
    pub fn ratio(&self, base: f64) -> f64 {
        let part = match self.limit {
            Limit::Percent(percent) => percent / 100.0,
            Limit::Absolute(value) => value / base,
        };
        if self.metric.is_rate() {
            (1.0 - part).max(1e-9)
        } else {
            1.0 + part
        }
    }
}

/// `--fail-on`
#[derive(Clone, Debug, PartialEq)]
pub struct Gates(pub Vec<Gate>);

impl FromStr for Gates {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut gates: Vec<Gate> = Vec::new();
        for part in text.split(',') {
            let gate = gate(part.trim())?;
            if gates.iter().any(|known| known.metric == gate.metric) {
                return Err(format!("{} is there twice in '{text}'", gate.metric.name()));
            }
            gates.push(gate);
        }
        Ok(Self(gates))
    }
}

fn gate(text: &str) -> Result<Gate, String> {
    let (name, limit) = text.split_once(':').ok_or_else(|| {
        format!("gate '{text}' has no limit: allowed is METRIC:LIMIT such as p99:+5%")
    })?;
    let known = Metric::ALL.iter().find(|(known, _)| *known == name);
    let metric = known.map(|(_, metric)| *metric).ok_or_else(|| {
        let names = Metric::ALL.map(|(name, _)| name).join(", ");
        format!("metric '{name}' is not known: allowed are {names}")
    })?;
    let (sign, worse) = if metric.is_rate() {
        ('-', "less")
    } else {
        ('+', "more")
    };
    let size = limit.strip_prefix(sign).ok_or_else(|| {
        format!("limit '{limit}' of {name} has the wrong sign: {worse} is worse, so it begins with {sign}")
    })?;
    let units = match metric.is_rate() {
        true => &[("%", 0.0), ("", 1.0)][..],
        false => &[
            ("%", 0.0),
            ("ns", 1.0),
            ("us", 1e3),
            ("ms", 1e6),
            ("s", 1e9),
        ][..],
    };
    for &(unit, factor) in units {
        let Some(number) = size.strip_suffix(unit) else {
            continue;
        };
        if let Ok(value) = number.parse::<f64>()
            && value.is_finite()
            && value >= 0.0
        {
            let limit = match unit {
                "%" => Limit::Percent(value),
                _ => Limit::Absolute(value * factor),
            };
            let text = text.to_owned();
            return Ok(Gate {
                metric,
                limit,
                text,
            });
        }
    }
    let allowed = if metric.is_rate() {
        "% or none"
    } else {
        "%, ns, us, ms or s"
    };
    Err(format!(
        "limit '{limit}' of {name} is no number with its unit: allowed are {allowed}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_are_read() {
        let Gates(gates) = "p99:+5%,iops:-3%,p50:+20us,bandwidth:-1000000"
            .parse()
            .unwrap();
        let ratios: Vec<f64> = gates.iter().map(|gate| gate.ratio(100_000.0)).collect();
        assert_eq!(ratios[..3], [1.05, 0.97, 1.2]);
        assert!(ratios[3] < 1e-6, "all of it may go");
        assert_eq!(gates[0].text, "p99:+5%");
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (text, why) in [
            ("p99", "METRIC:LIMIT"),
            ("p98:+5%", "'p98'"),
            ("p99:-5%", "wrong sign"),
            ("iops:+5%", "wrong sign"),
            ("p99:+5", "'+5'"),
            ("p99:+x%", "'+x%'"),
            ("iops:-5us", "'-5us'"),
            ("p99:+nan%", "'+nan%'"),
            ("p99:+1%,p99:+2%", "twice"),
            ("", "METRIC:LIMIT"),
        ] {
            let error = text.parse::<Gates>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
