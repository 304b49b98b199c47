//! Results as they were saved, read back.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use serde_json::Value;

use crate::report::SCHEMA_VERSION;
use crate::stats::{Interval, decode};

/// Options that make a workload another one. A seed does not, nor does where it runs.
const WORKLOAD: [&str; 16] = [
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
    "jobs",
    "numjobs",
    "qpairs",
    "volumes",
];

/// Options of which there is one where nothing is said.
const ONE_UNLESS_SAID: [&str; 3] = ["numjobs", "qpairs", "volumes"];

/// A result that was saved.
#[derive(Clone, Debug)]
pub struct Saved {
    /// The file's name, for people.
    pub name: String,
    /// The whole object.
    pub object: Value,
    /// Latencies of all I/Os that succeeded; there are some.
    pub latency: Histogram<u64>,
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
        let name = path.display().to_string();
        let text = fs::read(path).with_context(|| format!("'{name}'"))?;
        let text = String::from_utf8(text).ok();
        let text = text.with_context(|| format!("'{name}': not JSON: it is no text"))?;
        Self::parse(&name, &text).with_context(|| format!("'{name}'"))
    }

    /// Reads a text that `--json` has written.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(name: &str, text: &str) -> anyhow::Result<Self> {
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
        let latency = histogram(&object)?;
        if latency.is_empty() {
            bail!("no I/O succeeded in it: its histogram is empty");
        }
        let count = |name: &str| object[name].as_u64().unwrap_or(0);
        let unfinished = object["unfinished"]["count"].as_u64().unwrap_or(0);
        Ok(Self {
            name: name.to_owned(),
            failures: count("errors") + count("miscompares") + unfinished,
            latency,
            object,
        })
    }

    /// A number of the object.
    ///
    /// # Errors
    ///
    /// There is none of that name.
    pub fn number(&self, name: &str) -> anyhow::Result<f64> {
        number(&self.object, name).with_context(|| format!("'{}'", self.name))
    }

    /// Its series; times since its start.
    ///
    /// # Errors
    ///
    /// A point that cannot be read.
    pub fn series(&self) -> anyhow::Result<Vec<Interval>> {
        let points = self.object["series"].as_array();
        let points = points.map_or(&[][..], Vec::as_slice);
        let read = points.iter().map(Interval::from_json);
        read.collect::<Result<_, _>>()
            .map_err(|error| anyhow::anyhow!("'{}': its series: {error}", self.name))
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
        let option = |object: &Value, name: &str| match &object["options"][name] {
            Value::Null if ONE_UNLESS_SAID.contains(&name) => 1.into(),
            value => value.clone(),
        };
        for name in WORKLOAD {
            look(name, &option(one, name), &option(other, name));
        }
        found
    }

    /// What was measured with what, and where, as `part.name` and value; the workload included if it is asked for.
    pub fn surroundings(&self, workload: bool) -> Vec<(String, Value)> {
        let object = &self.object;
        let whole = ["version", "commit", "cores"];
        let mut found: Vec<(String, Value)> = whole
            .iter()
            .map(|name| ((*name).to_owned(), object[*name].clone()))
            .collect();
        for part in ["machine", "options", "target"] {
            for (name, value) in object[part].as_object().into_iter().flatten() {
                let left_out = ["seed", "addresses"].contains(&name.as_str());
                if !left_out && (workload || !WORKLOAD.contains(&name.as_str())) {
                    found.push((format!("{part}.{name}"), value.clone()));
                }
            }
        }
        found
    }
}

/// An IP address and a port, as one is written.
pub fn address(traddr: &str, trsvcid: &str) -> String {
    if traddr.contains(':') {
        format!("[{traddr}]:{trsvcid}")
    } else {
        format!("{traddr}:{trsvcid}")
    }
}

/// Refuses results of different workloads; with `force` what differs is a doubt.
///
/// # Errors
///
/// [`crate::errors::Usage`] that lists what differs.
pub fn same_workload(
    one: &Saved,
    other: &Saved,
    force: bool,
    what: &str,
) -> anyhow::Result<Vec<String>> {
    let differences = one.differences(other);
    if !differences.is_empty() && !force {
        let list = differences.join("; ");
        return Err(crate::errors::Usage(format!(
            "results of different workloads are not {what} without --force: {list}"
        ))
        .into());
    }
    let doubts = differences.into_iter();
    Ok(doubts
        .map(|what| format!("another workload: {what}"))
        .collect())
}

/// A member that is a number.
///
/// # Errors
///
/// It is none.
pub fn number(object: &Value, name: &str) -> anyhow::Result<f64> {
    let value = object[name].as_f64();
    value.with_context(|| format!("'{name}' is {}, not a number", object[name]))
}

fn histogram(object: &Value) -> anyhow::Result<Histogram<u64>> {
    let text = object["histogram"]
        .as_str()
        .context("it has no histogram")?;
    decode(text).map_err(|error| anyhow::anyhow!("its histogram: {error}"))
}

#[cfg(test)]
pub mod tests;
