//! The page: tables and plots in one file, of which nothing is loaded from elsewhere.

use std::fmt::Write as _;

use hdrhistogram::Histogram;
use serde_json::Value;

use super::args::Plot;
use super::chart::{COLOURS, escape};
use super::figures::{Figure, event_name};
use super::run::Run;
use crate::stats::LatencySummary;
use crate::text::{duration, grouped, mib, rounded};

const PAGE_STYLE: &str = include_str!("page.css");

/// All of it. `style` is that of the plots.
pub fn page(runs: &[Run], figures: Vec<Figure>, style: &str) -> String {
    let names: Vec<String> = runs.iter().map(|run| run.label.clone()).collect();
    let title = format!("pollux-perf: {}", names.join(", "));
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>{}</title>\n<style>\n{style}{PAGE_STYLE}</style>\n</head>\n<body>\n",
        escape(&title)
    );
    // Writing to a string does not fail.
    let _ = write_body(&mut out, runs, figures);
    out.push_str("</body>\n</html>\n");
    out
}

fn write_body(out: &mut String, runs: &[Run], figures: Vec<Figure>) -> std::fmt::Result {
    let titles: Vec<&str> = runs
        .iter()
        .map(|run| text(&run.saved.object["title"]))
        .collect();
    let same = titles.windows(2).all(|pair| pair[0] == pair[1]);
    let heading = match (runs, same) {
        ([one], _) => one.label.clone(),
        _ => format!("{} results", runs.len()),
    };
    writeln!(out, "<h1>{}</h1>", escape(&heading))?;
    for (run, title) in runs
        .iter()
        .zip(&titles)
        .take(if same { 1 } else { runs.len() })
    {
        let name = if same {
            String::new()
        } else {
            format!("{}: ", run.label)
        };
        writeln!(
            out,
            "<p class=\"soft\">{}{}</p>",
            escape(&name),
            escape(title)
        )?;
    }
    write_summary(out, runs)?;
    let mut numbers = std::collections::BTreeMap::new();
    let mut events_left = true;
    for figure in figures {
        // Below the plots over time, whose marks it explains.
        if figure.plot == Plot::Paths && std::mem::take(&mut events_left) {
            write_events(out, runs)?;
        }
        let number = numbers.entry(figure.plot.name()).or_insert(0);
        *number += 1;
        let id = match *number {
            1 => figure.plot.name().to_owned(),
            number => format!("{}-{number}", figure.plot.name()),
        };
        writeln!(out, "<h2>{}</h2>\n<figure>", escape(&figure.title))?;
        write_legend(out, &figure)?;
        out.push_str(&figure.chart.svg(&id, &figure.title, None));
        writeln!(out, "</figure>")?;
        if !figure.note.is_empty() {
            writeln!(out, "<p class=\"soft\">{}</p>", escape(figure.note))?;
        }
    }
    if events_left {
        write_events(out, runs)?;
    }
    write_differences(out, runs)?;
    write_details(out, runs)
}

fn write_legend(out: &mut String, figure: &Figure) -> std::fmt::Result {
    write!(out, "<figcaption>")?;
    for (index, name) in figure.legend.iter().enumerate() {
        let dashed = figure.plot != Plot::Paths && index % 2 == 1;
        write!(
            out,
            "<span class=\"key\"><svg viewBox=\"0 0 28 10\" aria-hidden=\"true\"><line class=\"c{}{}\" x1=\"0\" x2=\"28\" y1=\"5\" y2=\"5\"/></svg>{}</span>",
            index % COLOURS,
            if dashed { " d1" } else { "" },
            escape(name)
        )?;
    }
    writeln!(out, "</figcaption>")
}

fn write_summary(out: &mut String, runs: &[Run]) -> std::fmt::Result {
    write!(
        out,
        "<div class=\"scroll\"><table id=\"summary\"><tr><th>result</th>"
    )?;
    for name in [
        "IOPS", "MiB/s", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max", "failed",
    ] {
        write!(out, "<th class=\"n\">{name}</th>")?;
    }
    writeln!(out, "</tr>")?;
    for run in runs {
        let object = &run.saved.object;
        write_row(
            out,
            &run.label,
            object,
            &run.saved.latency,
            run.saved.failures,
        )?;
        for job in &run.jobs {
            let name = format!("{}: {}", run.label, job.name);
            let count = |name: &str| job.object[name].as_u64().unwrap_or(0);
            let failures = count("errors") + count("miscompares");
            write_row(out, &name, &job.object, &job.latency, failures)?;
        }
    }
    writeln!(out, "</table></div>")
}

/// A run, or one of its jobs.
fn write_row(
    out: &mut String,
    name: &str,
    object: &Value,
    latency: &Histogram<u64>,
    failures: u64,
) -> std::fmt::Result {
    let number = |name: &str| object[name].as_f64().unwrap_or(0.0);
    let latency = LatencySummary::of(latency);
    write!(
        out,
        "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{:.1}</td><td class=\"n\">{}</td>",
        escape(name),
        grouped(rounded(number("iops"))),
        mib(number("bytes_per_sec")),
        duration(rounded(latency.mean))
    )?;
    for (_, value) in latency.percentiles() {
        let text = value.map_or_else(|| "n/a".to_owned(), duration);
        write!(out, "<td class=\"n\">{text}</td>")?;
    }
    let class = if failures > 0 { " bad" } else { "" };
    writeln!(
        out,
        "<td class=\"n\">{}</td><td class=\"n{class}\">{}</td></tr>",
        duration(latency.max),
        grouped(failures)
    )
}

fn write_events(out: &mut String, runs: &[Run]) -> std::fmt::Result {
    if runs.iter().all(|run| run.events.is_empty()) {
        return Ok(());
    }
    writeln!(
        out,
        "<h2>Path events</h2>\n<div class=\"scroll\"><table id=\"events\"><tr><th>mark</th><th>result</th><th class=\"n\">at</th><th>path</th><th>event</th><th>failover</th><th class=\"n\">I/O paused</th></tr>"
    )?;
    for (index, run) in runs.iter().enumerate() {
        for (number, event) in run.events.iter().enumerate() {
            let failover = match &event.failover {
                Some(path) => format!("to {path}"),
                None => String::new(),
            };
            writeln!(
                out,
                "<tr><td>{}</td><td>{}</td><td class=\"n\">{:.3} s</td><td>{}</td><td class=\"{}\">{}</td><td>{}</td><td class=\"n\">{}</td></tr>",
                event_name(runs.len(), index, number),
                escape(&run.label),
                event.at,
                escape(&event.path),
                event.class,
                escape(&event.what),
                escape(&failover),
                event.cost
            )?;
        }
    }
    writeln!(out, "</table></div>")
}

/// What differs between the results; of a single one, all of it.
fn write_differences(out: &mut String, runs: &[Run]) -> std::fmt::Result {
    let each: Vec<Vec<(String, Value)>> = runs
        .iter()
        .map(|run| run.saved.surroundings(true))
        .collect();
    let mut names: Vec<&String> = Vec::new();
    for (name, _) in each.iter().flatten() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let value = |run: &[(String, Value)], name: &str| {
        let found = run.iter().find(|(known, _)| known == name);
        found.map_or(Value::Null, |(_, value)| value.clone())
    };
    let rows = names.into_iter().map(|name| {
        let values: Vec<Value> = each.iter().map(|run| value(run, name)).collect();
        (name, values)
    });
    let is_other = |values: &[Value]| values.windows(2).any(|pair| pair[0] != pair[1]);
    let (other, same): (Vec<_>, Vec<_>) = rows.partition(|(_, values)| is_other(values));
    if runs.len() > 1 {
        writeln!(out, "<h2>What differs</h2>")?;
        if other.is_empty() {
            writeln!(
                out,
                "<p id=\"differences\">Nothing but seeds and addresses.</p>"
            )?;
        } else {
            write!(
                out,
                "<div class=\"scroll\"><table id=\"differences\"><tr><th></th>"
            )?;
            for run in runs {
                write!(out, "<th>{}</th>", escape(&run.label))?;
            }
            writeln!(out, "</tr>")?;
            for (name, values) in &other {
                write!(out, "<tr><th>{}</th>", escape(name))?;
                for value in values {
                    write!(out, "<td class=\"v\">{}</td>", escape(&shown(value)))?;
                }
                writeln!(out, "</tr>")?;
            }
            writeln!(out, "</table></div>")?;
        }
    }
    let what = if runs.len() > 1 {
        "What is the same"
    } else {
        "What was measured, and where"
    };
    writeln!(out, "<details><summary>{what}</summary><table>")?;
    for (name, values) in &same {
        if let Some(value) = values.first().filter(|value| !value.is_null()) {
            writeln!(
                out,
                "<tr><th>{}</th><td class=\"v\">{}</td></tr>",
                escape(name),
                escape(&shown(value))
            )?;
        }
    }
    writeln!(out, "</table></details>")
}

/// How to repeat each, and what makes it doubtful.
fn write_details(out: &mut String, runs: &[Run]) -> std::fmt::Result {
    writeln!(out, "<h2>Commands and doubts</h2>")?;
    for run in runs {
        let object = &run.saved.object;
        let words = object["command"].as_array().into_iter().flatten();
        let words: Vec<&str> = words.filter_map(Value::as_str).collect();
        let words: Vec<String> = words.into_iter().map(quoted).collect();
        writeln!(
            out,
            "<p><b>{}</b> <code>{}</code></p>",
            escape(&run.label),
            escape(&words.join(" "))
        )?;
        for doubt in object["doubts"].as_array().into_iter().flatten() {
            writeln!(
                out,
                "<p class=\"soft\">doubtful: {}</p>",
                escape(text(doubt))
            )?;
        }
        if let Some(error) = object["first_error"].as_str() {
            writeln!(out, "<p class=\"bad\">first error: {}</p>", escape(error))?;
        }
    }
    Ok(())
}

/// As a shell takes it.
fn quoted(word: &str) -> String {
    match word.contains([' ', '\'', '"', '*', '$']) {
        true => format!("'{}'", word.replace('\'', "'\\''")),
        false => word.to_owned(),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
