//! A result as the plots need it.

use anyhow::Context;
use hdrhistogram::Histogram;
use serde_json::Value;

use crate::saved::{Saved, address};
use crate::stats::{Interval, decode};
use crate::text::millis;

/// One result.
#[derive(Debug)]
pub struct Run {
    /// What it is called.
    pub label: String,
    /// What was read.
    pub saved: Saved,
    /// Each of several jobs.
    pub jobs: Vec<Job>,
    /// Its series.
    pub series: Vec<Interval>,
    /// The addresses of its paths, in the order of the counters in the series.
    pub paths: Vec<String>,
    /// What happened to its paths.
    pub events: Vec<Event>,
}

/// One of several jobs.
#[derive(Debug)]
pub struct Job {
    /// What it is called.
    pub name: String,
    /// What was read.
    pub object: Value,
    /// Latencies of its I/Os that succeeded.
    pub latency: Histogram<u64>,
}

/// A path's state changed.
#[derive(Debug)]
pub struct Event {
    /// Seconds since the start.
    pub at: f64,
    /// `lost`, `back` or `ana`.
    pub class: &'static str,
    /// The path's address.
    pub path: String,
    /// In words.
    pub what: String,
    /// What it cost, in words.
    pub cost: String,
    /// The path that most of the I/O went to after it, if it went to another before.
    pub failover: Option<String>,
}

impl Run {
    /// Reads what the plots need.
    ///
    /// # Errors
    ///
    /// A series or a histogram that cannot be read.
    pub fn new(label: String, saved: Saved) -> anyhow::Result<Self> {
        let series = saved.series()?;
        let jobs = saved.object["jobs"].as_array().into_iter().flatten();
        let jobs: anyhow::Result<_> = jobs.map(job).collect();
        let jobs = jobs.with_context(|| format!("'{}'", saved.name))?;
        let paths: Vec<String> = saved.object["paths"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|path| {
                let part = |name: &str| path[name].as_str().unwrap_or("?");
                address(part("traddr"), part("trsvcid"))
            })
            .collect();
        let events = saved.object["path_events"].as_array();
        let events = events.into_iter().flatten();
        let events = events
            .map(|event| read_event(event, &series, &paths))
            .collect();
        Ok(Self {
            label,
            saved,
            jobs,
            series,
            paths,
            events,
        })
    }
}

fn job(object: &Value) -> anyhow::Result<Job> {
    let name = object["name"].as_str().unwrap_or("?").to_owned();
    let latency = decode(object["histogram"].as_str().unwrap_or_default());
    let latency = latency.map_err(|error| anyhow::anyhow!("job {name}: {error}"))?;
    Ok(Job {
        name,
        object: object.clone(),
        latency,
    })
}

fn read_event(event: &Value, series: &[Interval], paths: &[String]) -> Event {
    let text = |name: &str| event[name].as_str().unwrap_or("?").to_owned();
    let at_ns = event["at_ns"].as_u64().unwrap_or(0);
    let (path, from, to) = (text("path"), text("from"), text("to"));
    let (class, what) = match (from.as_str(), to.as_str()) {
        (_, "disconnected") => ("lost", format!("path lost (was {from})")),
        ("disconnected", _) => ("back", format!("path back, {to}")),
        _ => ("ana", format!("ANA {from} to {to}")),
    };
    let cost = match event["pause_ns"].as_u64() {
        Some(pause_ns) if event["pause_open"] == true => format!("at least {}", millis(pause_ns)),
        Some(pause_ns) => millis(pause_ns),
        None => "none".to_owned(),
    };
    let before = series.iter().rfind(|point| point.end_ns <= at_ns);
    let after = series
        .iter()
        .find(|point| point.start_ns >= at_ns && point.ios > 0);
    let failover = match (before.and_then(busiest), after.and_then(busiest)) {
        (Some(before), Some(after)) if before != after => paths.get(after).cloned(),
        _ => None,
    };
    Event {
        at: at_ns as f64 / 1e9,
        class,
        path,
        what,
        cost,
        failover,
    }
}

/// The path that carried most of the I/O.
fn busiest(point: &Interval) -> Option<usize> {
    let (index, ios) = point
        .paths
        .iter()
        .enumerate()
        .max_by_key(|(_, ios)| **ios)?;
    (*ios > 0).then_some(index)
}
