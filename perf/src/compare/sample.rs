//! Results as they were saved, and the samples in them.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use serde_json::Value;

use crate::report::SCHEMA_VERSION;
use crate::stats::{LatencySummary, add, decode, latency_histogram};

/// Samples that a series is cut into at most: neighbours are alike, and a point that stands for more I/Os is steadier.
const PARTS_MAX: usize = 20;
/// A part without any I/O is a stall: it counts as half an I/O of the smallest size, so that ratios can be taken.
const LEAST_IOS: f64 = 0.5;
/// Options that make a workload another one. A seed does not, nor does where it runs.
const WORKLOAD: [&str; 12] = [
    "workload",
    "read_share",
    "mix",
    "random_distribution",
    "depth",
    "io_size",
    "io_size_weights",
    "stride",
    "rate_iops",
    "arrivals",
    "request_bytes",
    "response_bytes",
];

/// What is compared: of a run, or of a part of one.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// I/Os that succeeded, per second.
    pub iops: f64,
    /// Their payload.
    pub bytes_per_sec: f64,
    /// Of all of them.
    pub latency: LatencySummary,
}

/// A result that was saved.
#[derive(Clone, Debug)]
pub struct Saved {
    /// The whole object.
    pub object: Value,
    /// Of the run.
    pub whole: Sample,
    /// I/Os that failed or did not end, data that was wrong.
    pub failures: u64,
}

impl Saved {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// What is wrong with it, with its name.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path);
        let text = text.with_context(|| format!("'{}'", path.display()))?;
        Self::parse(&text).with_context(|| format!("'{}'", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let object: Value = match serde_json::from_str(text) {
            Ok(object) => object,
            Err(error) if error.is_eof() => bail!("cut off: {error}"),
            Err(error) => bail!("not JSON: {error}"),
        };
        match object.get("schema_version").map(Value::as_u64) {
            Some(Some(SCHEMA_VERSION)) => {}
            Some(_) => bail!(
                "schema version {}: this program reads version {SCHEMA_VERSION}",
                object["schema_version"]
            ),
            None => bail!("not a result of pollux-perf: it has no schema_version"),
        }
        let histogram = histogram(&object)?;
        if histogram.is_empty() {
            bail!("no I/O succeeded in it, so that there is nothing to compare");
        }
        let count = |name: &str| object[name].as_u64().unwrap_or(0);
        let unfinished = object["unfinished"]["count"].as_u64().unwrap_or(0);
        Ok(Self {
            whole: Sample {
                iops: number(&object, "iops")?,
                bytes_per_sec: number(&object, "bytes_per_sec")?,
                latency: LatencySummary::of(&histogram),
            },
            failures: count("errors") + count("miscompares") + unfinished,
            object,
        })
    }

    /// Its series as samples of about equal length.
    ///
    /// # Errors
    ///
    /// A point that cannot be read.
    pub fn parts(&self) -> anyhow::Result<Vec<Sample>> {
        let points = self.object["series"]
            .as_array()
            .map_or(&[][..], Vec::as_slice);
        let length = points.len().div_ceil(PARTS_MAX).max(1);
        let whole = points.chunks(length).filter(|part| part.len() == length);
        whole.map(part).collect()
    }

    /// What differs in workload between two results, as `name: one / other`.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut look = |name: &str, one: &Value, other: &Value| {
            if one != other {
                found.push(format!("{name}: {one} / {other}"));
            }
        };
        let (one, other) = (&self.object, &other.object);
        look("kind", &one["kind"], &other["kind"]);
        for name in WORKLOAD {
            look(name, &one["options"][name], &other["options"][name]);
        }
        found
    }

    /// What differs around it.
    pub fn surroundings(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut look = |name: String, one: &Value, other: &Value| {
            if one != other {
                found.push(format!("{name}: {one} / {other}"));
            }
        };
        let (one, other) = (&self.object, &other.object);
        for name in ["version", "commit", "cores"] {
            look(name.to_owned(), &one[name], &other[name]);
        }
        for part in ["machine", "options", "target"] {
            let members = one[part].as_object().into_iter().flatten();
            for (name, value) in members {
                if name != "seed" && name != "addresses" && !WORKLOAD.contains(&name.as_str()) {
                    look(format!("{part}.{name}"), value, &other[part][name]);
                }
            }
        }
        found
    }
}

fn number(object: &Value, name: &str) -> anyhow::Result<f64> {
    let value = object[name].as_f64();
    value.with_context(|| format!("'{name}' is {}, not a number", object[name]))
}

fn histogram(object: &Value) -> anyhow::Result<Histogram<u64>> {
    let text = object["histogram"]
        .as_str()
        .context("it has no histogram")?;
    decode(text).map_err(|error| anyhow::anyhow!("its histogram: {error}"))
}

fn part(points: &[Value]) -> anyhow::Result<Sample> {
    let mut latency = latency_histogram();
    let (mut seconds, mut ios, mut bytes) = (0.0, 0.0, 0.0);
    for point in points {
        let length = (number(point, "end_ns")? - number(point, "start_ns")?) / 1e9;
        if length <= 0.0 {
            bail!("a point of its series has no length");
        }
        seconds += length;
        ios += number(point, "ios")?;
        bytes += number(point, "bytes_per_sec")? * length;
        let mut own = latency_histogram();
        // It may come from another program, with other bounds.
        let other = histogram(point)?;
        own.add(&other)
            .map_err(|_| anyhow::anyhow!("a histogram of its series goes beyond an hour"))?;
        add(&mut latency, &own);
    }
    Ok(Sample {
        iops: ios.max(LEAST_IOS) / seconds,
        bytes_per_sec: bytes.max(LEAST_IOS * 512.0) / seconds,
        latency: LatencySummary::of(&latency),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::stats::encode;

    fn object(points: u64) -> Value {
        let mut latency = latency_histogram();
        latency.saturating_record_n(1_000, 500);
        let point = |n: u64| {
            json!({
                "start_ns": n * 1_000_000_000, "end_ns": (n + 1) * 1_000_000_000, "ios": 500,
                "bytes_per_sec": 1000.0, "histogram": encode(&latency),
            })
        };
        json!({
            "schema_version": SCHEMA_VERSION, "kind": "run", "options": {"depth": 8, "seed": 1},
            "iops": 500.0, "bytes_per_sec": 1000.0, "errors": 0, "histogram": encode(&latency),
            "series": (0..points).map(point).collect::<Vec<_>>(),
        })
    }

    fn saved(object: &Value) -> anyhow::Result<Saved> {
        Saved::parse(&object.to_string())
    }

    #[test]
    fn a_series_becomes_samples() {
        let parts = saved(&object(45)).unwrap().parts().unwrap();
        assert_eq!(parts.len(), 15, "three points each");
        assert_eq!((parts[0].iops, parts[0].latency.count), (500.0, 1_500));
        assert_eq!(saved(&object(0)).unwrap().parts().unwrap(), []);
    }

    #[test]
    fn what_is_no_result_is_named() {
        let text = object(1).to_string();
        let error = |text: &str| format!("{:#}", Saved::parse(text).unwrap_err());
        assert!(error(&text[..text.len() / 2]).contains("cut off"));
        assert!(error("hello").contains("not JSON"));
        assert!(error("{}").contains("no schema_version"));
        let mut other = object(1);
        other["schema_version"] = json!(99);
        assert!(error(&other.to_string()).contains("schema version 99"));
        let mut empty = object(1);
        empty["histogram"] = encode(&latency_histogram()).into();
        assert!(error(&empty.to_string()).contains("no I/O succeeded"));
        let mut broken = object(1);
        broken["histogram"] = "x".into();
        assert!(error(&broken.to_string()).contains("histogram"));
        let mut backwards = object(5);
        backwards["series"][0]["end_ns"] = json!(0);
        assert!(saved(&backwards).unwrap().parts().is_err());
    }

    #[test]
    fn other_workloads_are_told_from_other_surroundings() {
        let (one, mut other) = (object(1), object(1));
        other["options"] = json!({"depth": 8, "seed": 2, "hdgst": true});
        let (one, same) = (saved(&one).unwrap(), saved(&other).unwrap());
        assert_eq!(one.differences(&same), Vec::<String>::new());
        assert_eq!(same.surroundings(&one), ["options.hdgst: true / null"]);
        other["options"]["depth"] = json!(9);
        assert_eq!(one.differences(&saved(&other).unwrap()), ["depth: 8 / 9"]);
    }
}
