//! `pollux-perf merge`: results of several processes, machines or turns as one, without loss.
//!
//! Counts and histograms are added, so that every percentile is that of all I/Os. Rates are taken over the time in which
//! at least one of the results ran: those that ran at the same time add up, those that ran in turns lengthen it.

mod args;
mod time;

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context;
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

pub use self::args::MergeArgs;
use self::time::{Part, Span, covered_ns, merge_series, shared_ns};
use crate::errors::Usage;
use crate::report::{Rates, lower_bounds, write_latency, write_rates};
use crate::results::Results;
use crate::saved::{Saved, same_workload};
use crate::stats::{
    Interval, LatencySummary, decode, encode, hdr_log, latency_histogram, latency_json,
    percentile_text, with_events,
};
use crate::text::{COLUMNS, duration, grouped, paragraph, rounded};

/// Results ran at the same time if they did so for this share of the shortest.
const TOGETHER: f64 = 0.95;
/// Results ran in turns if they shared less than this.
const APART: f64 = 0.05;
/// The same change of a path seen by several results within this time is one event.
const SAME_EVENT_NS: u64 = 200_000_000;

/// Results as one.
#[derive(Debug)]
pub struct Merged {
    object: Value,
    series: Vec<Interval>,
    histogram: Histogram<u64>,
    latency: LatencySummary,
    failed: LatencySummary,
    failures: u64,
}

/// Reads the files and merges what is in them.
///
/// # Errors
///
/// A file that cannot be read, different workloads, the same result twice.
pub fn run(args: &MergeArgs) -> anyhow::Result<Merged> {
    let results: Vec<Saved> = args
        .files
        .iter()
        .map(|file| Saved::read(file))
        .collect::<Result<_, _>>()?;
    merge(&results, args.force)
}

/// At least one result.
fn merge(results: &[Saved], force: bool) -> anyhow::Result<Merged> {
    let mut doubts: Vec<String> = Vec::new();
    for (index, one) in results.iter().enumerate() {
        if let Some(same) = results[..index].iter().find(|r| r.object == one.object) {
            return Err(Usage(format!(
                "'{}' and '{}' are the same result: it would count twice",
                same.name, one.name
            ))
            .into());
        }
        for doubt in same_workload(&results[0], one, force, "merged")? {
            if !doubts.contains(&doubt) {
                doubts.push(doubt);
            }
        }
    }
    let began: Vec<f64> = results
        .iter()
        .map(|result| result.number("began_unix_seconds"))
        .collect::<Result<_, _>>()?;
    let first = began.iter().copied().fold(f64::INFINITY, f64::min);
    let mut spans = Vec::new();
    for (result, began) in results.iter().zip(&began) {
        let start_ns = rounded((began - first) * 1e9);
        let length_ns = rounded(result.number("seconds")? * 1e9).max(1);
        let end_ns = start_ns.saturating_add(length_ns);
        spans.push(Span { start_ns, end_ns });
    }
    doubts.extend(not_together(&spans));
    for result in results {
        let own = result.object["doubts"].as_array().into_iter().flatten();
        let name = if results.len() > 1 {
            format!("{}: ", result.name)
        } else {
            String::new()
        };
        doubts.extend(
            own.filter_map(Value::as_str)
                .map(|doubt| format!("{name}{doubt}")),
        );
    }
    let sums = Sums::of(results)?;
    let (paths, places) = merged_paths(results);
    let each: Vec<Vec<Interval>> = results
        .iter()
        .map(Saved::series)
        .collect::<Result<_, _>>()?;
    let parts: Vec<Part<'_>> = spans
        .iter()
        .zip(&each)
        .zip(&places)
        .map(|((&span, series), paths)| Part {
            span,
            series,
            paths,
        })
        .collect();
    let series = merge_series(&parts).map_err(anyhow::Error::msg)?;
    let events = merged_events(results, &spans);
    let points = series.iter().map(|point| point.json(0)).collect();
    let latency = LatencySummary::with_unfinished(&sums.latency, &sums.unfinished);
    let failed = LatencySummary::of(&sums.failed);
    let seconds = covered_ns(&spans) as f64 / 1e9;
    let whole = &results[0].object;
    let all = |name: &str| {
        results
            .iter()
            .map(|result| result.object[name].clone())
            .collect::<Vec<_>>()
    };
    let sum = |name: &str| count(results, name);
    let verified = all("verified");
    let object = json!({
        "schema_version": whole["schema_version"],
        "kind": whole["kind"],
        "title": title(results),
        "version": env!("CARGO_PKG_VERSION"),
        "commit": option_env!("POLLUX_COMMIT"),
        "command": std::env::args().collect::<Vec<_>>(),
        "began_unix_seconds": first,
        "options": common(&all("options")),
        "jobs": merged_jobs(results, seconds)?,
        "seconds": seconds,
        "iops": sums.ios as f64 / seconds,
        "bytes_per_sec": sums.bytes / seconds,
        "reads": sum("reads"),
        "writes": sum("writes"),
        "operations": added(&all("operations")),
        "compares_differing": sum("compares_differing"),
        "errors": sum("errors"),
        "miscompares": sum("miscompares"),
        "submitted": sum("submitted"),
        "completed": sum("completed"),
        "interrupted": all("interrupted").contains(&Value::Bool(true)),
        "unfinished": {
            "count": sums.unfinished.len(),
            "oldest_ns": sums.unfinished.max(),
            "waited_seconds": largest(&all("unfinished"), "waited_seconds"),
        },
        "swept_blocks": sum("swept_blocks"),
        "verified": if verified.contains(&Value::Null) { Value::Null } else { added(&verified) },
        "socket_calls_per_io": socket_calls(results),
        "first_error": all("first_error").into_iter().find(|error| !error.is_null()),
        "latency_ns": latency_json(&latency),
        "latency_lower_bounds": lower_bounds(&latency),
        "failed_latency_ns": (failed.count > 0).then(|| latency_json(&failed)),
        "longest_gap_ns": 0,
        "longest_gap": Value::Null,
        "paths": paths,
        "path_events": events,
        "cores": common(&all("cores")),
        "host_busy": all("host_busy").iter().filter_map(Value::as_array).flatten().collect::<Vec<_>>(),
        "machine": common(&all("machine")),
        "target": common(&all("target")),
        "open_loop": open_loop(&all("open_loop")),
        "ramp": ramp(&all("ramp")),
        // No one state tells of several that ended at different times; merged_from tells what each is.
        "steadystate": Value::Null,
        "histogram": encode(&sums.latency),
        "failed_histogram": (failed.count > 0).then(|| encode(&sums.failed)),
        "unfinished_histogram": (!sums.unfinished.is_empty()).then(|| encode(&sums.unfinished)),
        "series": with_events(points, &events),
        "doubts": doubts,
        "merged_from": results.iter().flat_map(sources).collect::<Vec<_>>(),
    });
    let mut merged = Merged {
        object,
        series,
        histogram: sums.latency,
        latency,
        failed,
        failures: results.iter().map(|result| result.failures).sum(),
    };
    merged.note_longest_gap(results, &spans);
    Ok(merged)
}

/// What is added up over all results.
struct Sums {
    latency: Histogram<u64>,
    failed: Histogram<u64>,
    unfinished: Histogram<u64>,
    ios: u64,
    bytes: f64,
}

impl Sums {
    fn of(results: &[Saved]) -> anyhow::Result<Self> {
        let mut sums = Self {
            latency: latency_histogram(),
            failed: latency_histogram(),
            unfinished: latency_histogram(),
            ios: 0,
            bytes: 0.0,
        };
        for result in results {
            let object = &result.object;
            let seconds = result.number("seconds")?;
            let ios = rounded(result.number("iops")? * seconds);
            sums.ios = sums.ios.saturating_add(ios);
            sums.bytes += (result.number("bytes_per_sec")? * seconds).round();
            let unfinished = object["unfinished"]["count"].as_u64().unwrap_or(0);
            let errors = object["errors"].as_u64().unwrap_or(0);
            sums.latency
                .add(&result.latency)
                .ok()
                .with_context(|| format!("'{}': its histogram goes beyond an hour", result.name))?;
            for (sum, name, count) in [
                (&mut sums.failed, "failed_histogram", errors),
                (&mut sums.unfinished, "unfinished_histogram", unfinished),
            ] {
                match object[name].as_str() {
                    Some(text) => decode(text)
                        .and_then(|part| sum.add(&part).map_err(|error| error.to_string()))
                        .map_err(|error| {
                            anyhow::anyhow!("'{}': its {name}: {error}", result.name)
                        })?,
                    None if count == 0 => {}
                    None => anyhow::bail!(
                        "'{}' has no {name}, though it should: an earlier version of this program wrote it",
                        result.name
                    ),
                }
            }
        }
        Ok(sums)
    }
}

/// A count of all together.
fn count(results: &[Saved], name: &str) -> u64 {
    let counts = results.iter().filter_map(|r| r.object[name].as_u64());
    counts.fold(0, u64::saturating_add)
}

/// Jobs of the same name as one; workloads that are the same have the same jobs.
fn merged_jobs(results: &[Saved], seconds: f64) -> anyhow::Result<Vec<Value>> {
    let jobs = |result: &Saved| result.object["jobs"].as_array().cloned();
    let each: Vec<Vec<Value>> = results
        .iter()
        .map(|r| jobs(r).unwrap_or_default())
        .collect();
    let Some(first) = each.first() else {
        return Ok(Vec::new());
    };
    let mut merged = Vec::new();
    for job in first {
        let parts = each.iter().flatten().filter(|p| p["name"] == job["name"]);
        let mut latency = latency_histogram();
        for part in parts.clone() {
            let text = part["histogram"]
                .as_str()
                .context("a job without histogram")?;
            let own = decode(text).map_err(anyhow::Error::msg)?;
            latency
                .add(&own)
                .ok()
                .context("a histogram beyond an hour")?;
        }
        let sum = |name: &str| {
            let counts = parts.clone().filter_map(|part| part[name].as_u64());
            counts.fold(0, u64::saturating_add)
        };
        let rate = |name: &str| -> f64 {
            let whole = |result: &Saved, part: &Value| {
                let lasted = result.object["seconds"].as_f64().unwrap_or(0.0);
                part[name].as_f64().unwrap_or(0.0) * lasted
            };
            let pairs = results.iter().zip(&each);
            let own = pairs.flat_map(|(result, parts)| {
                let same = parts.iter().filter(|p| p["name"] == job["name"]);
                same.map(|part| whole(result, part))
            });
            own.sum::<f64>() / seconds
        };
        let all: Vec<Value> = parts.clone().map(|p| p["operations"].clone()).collect();
        let open: Vec<Value> = parts.clone().map(|p| p["open_loop"].clone()).collect();
        merged.push(json!({
            "name": job["name"],
            "options": job["options"],
            "iops": rate("iops"),
            "bytes_per_sec": rate("bytes_per_sec"),
            "reads": sum("reads"),
            "writes": sum("writes"),
            "operations": added(&all),
            "errors": sum("errors"),
            "miscompares": sum("miscompares"),
            "latency_ns": latency_json(&LatencySummary::of(&latency)),
            "open_loop": open_loop(&open),
            "histogram": encode(&latency),
        }));
    }
    Ok(merged)
}

/// The members of objects that all have alike; what differs is `null`.
fn common(objects: &[Value]) -> Value {
    let (first, rest) = objects.split_first().unwrap_or((&Value::Null, &[]));
    match first.as_object() {
        Some(first) if rest.iter().all(Value::is_object) => {
            let same = |name: &str, value: &Value| rest.iter().all(|other| other[name] == *value);
            let members = first.iter().map(|(name, value)| {
                let value = if same(name, value) {
                    value.clone()
                } else {
                    Value::Null
                };
                (name.clone(), value)
            });
            Value::Object(members.collect())
        }
        _ => Value::Null,
    }
}

/// Objects of counts, added by name.
fn added(objects: &[Value]) -> Value {
    let mut sums: Map<String, Value> = Map::new();
    for (name, value) in objects.iter().filter_map(Value::as_object).flatten() {
        let sum = sums.get(name).and_then(Value::as_u64).unwrap_or(0);
        let sum = sum.saturating_add(value.as_u64().unwrap_or(0));
        sums.insert(name.clone(), sum.into());
    }
    sums.into()
}

/// The largest of one member.
fn largest(objects: &[Value], name: &str) -> f64 {
    let values = objects.iter().filter_map(|object| object[name].as_f64());
    values.fold(0.0, f64::max)
}

/// How they were loaded together, if all were in an open loop.
fn open_loop(objects: &[Value]) -> Value {
    if objects.iter().any(|object| !object.is_object()) {
        return Value::Null;
    }
    let sums = added(objects);
    json!({
        "rate_iops": sums["rate_iops"],
        "arrivals": objects[0]["arrivals"],
        "backlog_max": sums["backlog_max"],
        "backlog_end": sums["backlog_end"],
    })
}

fn ramp(objects: &[Value]) -> Value {
    match objects.iter().any(Value::is_object) {
        true => json!({
            "seconds": largest(objects, "seconds"),
            "failures": added(objects)["failures"].as_u64().unwrap_or(0),
        }),
        false => Value::Null,
    }
}

/// Weighted by the I/Os that they are of.
fn socket_calls(results: &[Saved]) -> Option<f64> {
    let (mut calls, mut ios) = (0.0, 0.0);
    for result in results {
        let of = |name: &str| result.object[name].as_f64().unwrap_or(0.0);
        let own = of("completed") - of("errors");
        calls += result.object["socket_calls_per_io"].as_f64()? * own;
        ios += own;
    }
    (ios > 0.0).then(|| calls / ios)
}

/// The first one's without its seed, if the others say the same.
fn title(results: &[Saved]) -> String {
    let titles = results.iter().map(|result| {
        let title = result.object["title"].as_str().unwrap_or("no title");
        let parts = title.split(", ").filter(|part| !part.starts_with("seed "));
        parts.collect::<Vec<_>>().join(", ")
    });
    let mut titles: Vec<String> = titles.collect();
    titles.dedup();
    match results {
        [one] => one.object["title"]
            .as_str()
            .unwrap_or("no title")
            .to_owned(),
        _ => format!("{} results of: {}", results.len(), titles.join("; ")),
    }
}

/// What is kept of each; of one that was merged itself, what it keeps.
fn sources(result: &Saved) -> Vec<Value> {
    let object = &result.object;
    if let Some(sources) = object["merged_from"].as_array() {
        return sources.clone();
    }
    let mut source = Map::from_iter([("file".to_owned(), result.name.clone().into())]);
    for name in [
        "title",
        "version",
        "commit",
        "command",
        "began_unix_seconds",
        "seconds",
        "iops",
        "options",
        "cores",
        "machine",
        "target",
    ] {
        source.insert(name.to_owned(), object[name].clone());
    }
    vec![source.into()]
}

/// The paths of all, and of each result where its own are in that list.
fn merged_paths(results: &[Saved]) -> (Vec<Value>, Vec<Vec<usize>>) {
    let mut merged: Vec<Value> = Vec::new();
    let mut places = Vec::new();
    for result in results {
        let mut own = Vec::new();
        for path in result.object["paths"].as_array().into_iter().flatten() {
            let is_same = |known: &Value| {
                known["traddr"] == path["traddr"] && known["trsvcid"] == path["trsvcid"]
            };
            let place = merged.iter().position(is_same).unwrap_or_else(|| {
                merged.push(json!({
                    "traddr": path["traddr"], "trsvcid": path["trsvcid"],
                    "ios": 0, "errors": 0, "ana_state": path["ana_state"],
                }));
                merged.len() - 1
            });
            own.push(place);
            let known = &mut merged[place];
            for name in ["ios", "errors"] {
                let count = |value: &Value| value[name].as_u64().unwrap_or(0);
                known[name] = count(known).saturating_add(count(path)).into();
            }
            if known["ana_state"] != path["ana_state"] {
                known["ana_state"] = "not the same in all".into();
            }
        }
        places.push(own);
    }
    (merged, places)
}

/// The events of all in order of time; what several saw is one.
fn merged_events(results: &[Saved], spans: &[Span]) -> Vec<Value> {
    let mut events: Vec<(u64, Value)> = Vec::new();
    for (result, span) in results.iter().zip(spans) {
        let own = result.object["path_events"].as_array();
        events.extend(own.into_iter().flatten().map(|event| {
            let at_ns = event["at_ns"].as_u64().unwrap_or(0);
            let mut event = event.clone();
            let at_ns = at_ns.saturating_add(span.start_ns);
            event["at_ns"] = at_ns.into();
            (at_ns, event)
        }));
    }
    events.sort_by_key(|(at_ns, _)| *at_ns);
    let mut merged: Vec<(u64, Value)> = Vec::new();
    for (at_ns, event) in events {
        let same = merged.iter_mut().find(|(known_ns, known)| {
            at_ns - known_ns <= SAME_EVENT_NS
                && ["path", "from", "to"]
                    .iter()
                    .all(|name| known[*name] == event[*name])
        });
        match same {
            Some((_, known)) => {
                if event["pause_ns"].as_u64() > known["pause_ns"].as_u64() {
                    known["pause_ns"] = event["pause_ns"].clone();
                    known["pause_open"] = event["pause_open"].clone();
                }
            }
            None => merged.push((at_ns, event)),
        }
    }
    merged.into_iter().map(|(_, event)| event).collect()
}

/// Whether they ran partly at the same time: then their rates are of neither.
fn not_together(spans: &[Span]) -> Option<String> {
    let lengths = spans.iter().map(|span| span.end_ns - span.start_ns);
    let shortest = lengths.clone().min().unwrap_or(0) as f64;
    let shared = shared_ns(spans) as f64;
    let (covered, sum) = (covered_ns(spans) as f64, lengths.sum::<u64>() as f64);
    let together = shared >= TOGETHER * shortest && covered <= shortest / TOGETHER;
    let apart = sum - covered <= APART * shortest;
    (!together && !apart).then(|| {
        format!(
            "the results ran only partly at the same time, {:.1} s of {:.1} s: rates over all of it are those of no moment, or the machines' clocks differ",
            shared / 1e9,
            covered / 1e9
        )
    })
}

impl Merged {
    fn note_longest_gap(&mut self, results: &[Saved], spans: &[Span]) {
        let gaps = results.iter().zip(spans);
        let longest = gaps.max_by_key(|(result, _)| result.object["longest_gap_ns"].as_u64());
        let Some((result, span)) = longest else {
            return;
        };
        let mut gap = result.object["longest_gap"].clone();
        if let Some(at_ns) = gap["at_ns"].as_u64() {
            gap["at_ns"] = at_ns.saturating_add(span.start_ns).into();
        }
        self.object["longest_gap_ns"] = result.object["longest_gap_ns"].clone();
        self.object["longest_gap"] = gap;
    }

    fn write_table(&self, out: &mut String) -> std::fmt::Result {
        let object = &self.object;
        let count = |name: &str| object[name].as_u64().unwrap_or(0);
        let number = |value: &Value| value.as_f64().unwrap_or(0.0);
        paragraph(out, "", object["title"].as_str().unwrap_or_default());
        let sources = object["merged_from"].as_array();
        let sources = sources.map_or(&[][..], Vec::as_slice);
        let names = sources
            .iter()
            .map(|source| source["file"].as_str().unwrap_or("?"));
        let width = names.clone().map(|name| name.chars().count()).max();
        let width = width.unwrap_or(0).clamp(6, COLUMNS - 58);
        writeln!(
            out,
            "\n  {:<width$}  {:<20}  {:>8}  {:>8}  {:>12}",
            "result", "machine", "begun", "seconds", "IOPS"
        )?;
        for (source, name) in sources.iter().zip(names) {
            let mut name = name.to_owned();
            if name.chars().count() > width {
                writeln!(out, "  {name}")?;
                name.clear();
            }
            let host = source["machine"]["hostname"].as_str().unwrap_or("unknown");
            let host: String = host.chars().take(20).collect();
            let begun =
                number(&source["began_unix_seconds"]) - number(&object["began_unix_seconds"]);
            writeln!(
                out,
                "  {name:<width$}  {host:<20}  {begun:>+8.2}  {:>8.2}  {:>12}",
                number(&source["seconds"]),
                grouped(rounded(number(&source["iops"])))
            )?;
        }
        writeln!(out)?;
        write_rates(
            out,
            &Rates {
                iops: number(&object["iops"]),
                bytes_per_sec: number(&object["bytes_per_sec"]),
                reads: count("reads"),
                writes: count("writes"),
                errors: count("errors"),
                seconds: number(&object["seconds"]),
            },
        )?;
        write_latency(out, &self.latency, &self.failed)?;
        writeln!(out)?;
        for event in object["path_events"].as_array().into_iter().flatten() {
            let text = |name: &str| event[name].as_str().unwrap_or("?");
            let pause = match event["pause_ns"].as_u64() {
                Some(pause_ns) => format!("I/O paused {}", duration(pause_ns)),
                None => "no pause worth naming".to_owned(),
            };
            let at = Duration::from_nanos(event["at_ns"].as_u64().unwrap_or(0)).as_secs_f64();
            let (path, from, to) = (text("path"), text("from"), text("to"));
            paragraph(
                out,
                "  ",
                &format!("at {at:.3} s {path} went from {from} to {to}: {pause}"),
            );
        }
        match self.failures {
            0 => paragraph(
                out,
                "  ",
                &format!("{} I/Os, no error", grouped(self.latency.count)),
            ),
            failures => paragraph(
                out,
                "  ",
                &format!(
                    "FAILED: {} I/Os failed, did not end or had wrong data",
                    grouped(failures)
                ),
            ),
        }
        if let Some(error) = object["first_error"].as_str() {
            paragraph(out, "  ", &format!("first error: {error}"));
        }
        for doubt in object["doubts"].as_array().into_iter().flatten() {
            let doubt = doubt.as_str().unwrap_or_default();
            paragraph(out, "  ", &format!("doubtful: {doubt}"));
        }
        Ok(())
    }
}

impl Results for Merged {
    fn table(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.write_table(&mut text);
        text
    }

    fn hdr_log(&self) -> String {
        let began = self.object["began_unix_seconds"].as_f64().unwrap_or(0.0);
        let began = Duration::try_from_secs_f64(began).unwrap_or_default();
        hdr_log(&self.series, 0, UNIX_EPOCH + began)
    }

    fn hdr_text(&self) -> String {
        percentile_text(&self.histogram)
    }

    fn json(&self) -> Value {
        self.object.clone()
    }

    fn failures(&self) -> u64 {
        self.failures
    }

    fn interrupted(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests;
