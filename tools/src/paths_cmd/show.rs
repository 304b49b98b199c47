//! Snapshots as text and as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use super::rate::Before;
use super::snapshot::{Path, Snapshot, View, Volume};

/// Text for people: a header and a table for each volume. With an earlier snapshot the table has rates in place of
/// totals.
pub fn text(snapshot: &Snapshot, before: Option<&Before>) -> String {
    if snapshot.volumes.is_empty() {
        return "no volume\n".to_owned();
    }
    let mut text = String::new();
    for (index, volume) in snapshot.volumes.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        fold("", &header(volume), &mut text);
        let notes: Vec<_> = volume.paths.iter().map(notes).collect();
        table(&rows(volume, before), &notes, &mut text);
    }
    text
}

fn header(volume: &Volume) -> String {
    let bytes = volume.blocks.saturating_mul(volume.block_size);
    let waiting = match volume.waiting {
        Some(waiting) => format!(", {waiting} I/Os waiting"),
        None => String::new(),
    };
    let fenced = match volume.fenced {
        Some((writes, ms)) => format!(", {writes} writes fenced for {}", seconds(ms)),
        None => String::new(),
    };
    format!(
        "{}: {} ({} blocks of {} bytes), {}{waiting}{fenced}",
        volume.name,
        size(bytes),
        volume.blocks,
        volume.block_size,
        volume.policy,
    )
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"];
    #[expect(clippy::cast_precision_loss, reason = "for display")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    // A decimal that says nothing is left out.
    let shown = format!("{value:.1}");
    let shown = shown.strip_suffix(".0").unwrap_or(&shown);
    format!("{shown} {}", UNITS.get(unit).unwrap_or(&""))
}

/// What every terminal has. A table that is wider has the addresses on lines of their own.
const WIDTH: usize = 80;
const COLUMNS: usize = 10;
/// Reactors are named in a cell of up to so many characters.
const CELL_MAX: usize = 8;
/// Columns that hold numbers stand to the right.
const RIGHT: [usize; 5] = [1, 6, 7, 8, 9];

fn rows(volume: &Volume, before: Option<&Before>) -> Vec<[String; COLUMNS]> {
    let counted = match before {
        Some(_) => ["IOPS", "MIB/S", "ERR"],
        None => ["READS", "WRITES", "ERR"],
    };
    let [first, second, third] = counted;
    let mut rows = vec![
        [
            "PATH",
            "ID",
            "ANA STATE",
            "CONN",
            "ACC",
            "CUR",
            "OUT",
            first,
            second,
            third,
        ]
        .map(str::to_owned),
    ];
    for path in &volume.paths {
        let [first, second, third] = counts(&volume.name, path, before);
        let outstanding: u64 = path.views.iter().map(|(_, view)| view.outstanding).sum();
        rows.push([
            path.addr.clone(),
            path.cntlid.to_string(),
            path.ana.as_ref().map_or("-", |ana| &ana.state).to_owned(),
            where_it_holds(&path.views, |view| view.connected),
            where_it_holds(&path.views, |view| view.accessible),
            where_it_holds(&path.views, |view| view.current),
            outstanding.to_string(),
            first,
            second,
            third,
        ]);
    }
    rows
}

fn counts(volume: &str, path: &Path, before: Option<&Before>) -> [String; 3] {
    let unknown = || ["-", "-", "-"].map(str::to_owned);
    match before {
        Some(before) => before.rate(volume, path).map_or_else(unknown, |rate| {
            [
                format!("{:.0}", rate.iops),
                format!("{:.1}", rate.mib_per_sec),
                rate.errors.to_string(),
            ]
        }),
        None => path.counters.map_or_else(unknown, |counters| {
            [counters.reads, counters.writes, counters.errors].map(|n| n.to_string())
        }),
    }
}

/// What else is to be known of a path: its ANATT, and the state of its controller while that is not enabled.
fn notes(path: &Path) -> Vec<String> {
    let mut notes = Vec::new();
    match &path.ana {
        Some(ana) if ana.anatt_expired => notes.push("ANATT has run out".to_owned()),
        Some(ana) => notes.extend(
            ana.anatt_ms
                .map(|ms| format!("ANATT runs out in {}", seconds(ms))),
        ),
        None => {}
    }
    match &path.controller {
        // Why it was lost before is of interest until it is back.
        Some((state, Some(why))) if state != "enabled" => {
            notes.push(format!("controller {state}: {why}"));
        }
        Some((state, None)) if state != "enabled" => notes.push(format!("controller {state}")),
        Some(_) => {}
        None => notes.push("no controller".to_owned()),
    }
    notes
}

/// `yes` or `no` where all reactors agree, else those that do, or their number where they do not fit in a column.
fn where_it_holds(views: &[(usize, View)], holds: impl Fn(&View) -> bool) -> String {
    let on: Vec<usize> = views
        .iter()
        .filter(|(_, view)| holds(view))
        .map(|(reactor, _)| *reactor)
        .collect();
    match on.len() {
        0 => "no".to_owned(),
        n if n == views.len() => "yes".to_owned(),
        n => {
            let on = format!("on {}", ranges(&on));
            match on.len() <= CELL_MAX {
                true => on,
                false => format!("{n} of {}", views.len()),
            }
        }
    }
}

/// Ascending numbers as `0,2-4`.
fn ranges(numbers: &[usize]) -> String {
    let mut text = String::new();
    for run in numbers.chunk_by(|a, b| a + 1 == *b) {
        let comma = if text.is_empty() { "" } else { "," };
        // Writing to a string does not fail.
        let _ = match run {
            [one] => write!(text, "{comma}{one}"),
            [first, .., last] => write!(text, "{comma}{first}-{last}"),
            [] => Ok(()),
        };
    }
    text
}

fn table(rows: &[[String; COLUMNS]], notes: &[Vec<String>], text: &mut String) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let mut widths: Vec<usize> = (0..COLUMNS).map(width).collect();
    let is_wide = widths.iter().map(|width| width + 2).sum::<usize>() > WIDTH;
    if let (true, Some(first)) = (is_wide, widths.first_mut()) {
        *first = 4;
    }
    let gap = match widths.iter().map(|width| width + 2).sum::<usize>() > WIDTH {
        true => " ",
        false => "  ",
    };
    // The header, then the paths with what is noted of each.
    let notes = std::iter::once(&[][..]).chain(notes.iter().map(Vec::as_slice));
    for (row, notes) in rows.iter().zip(notes) {
        let mut line = String::new();
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            if column == 0 && is_wide {
                line = format!("  {cell}\n  {:width$}", "");
                continue;
            }
            // Writing to a string does not fail.
            let _ = match RIGHT.contains(&column) {
                true => write!(line, "{gap}{cell:>width$}"),
                false => write!(line, "{gap}{cell:width$}"),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
        for note in notes {
            fold("      ", note, text);
        }
    }
}

/// A sentence on as many lines as it takes, each with this indent.
fn fold(indent: &str, sentence: &str, text: &mut String) {
    let mut line = indent.to_owned();
    for word in sentence.split(' ') {
        let is_first = line.len() == indent.len();
        if !is_first && line.chars().count() + 1 + word.chars().count() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            line.truncate(indent.len());
        }
        if line.len() > indent.len() {
            line.push(' ');
        }
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
}

/// The same for programs.
pub fn document(snapshot: &Snapshot, before: Option<&Before>) -> Value {
    let volume = |volume: &Volume| {
        let paths: Value = volume
            .paths
            .iter()
            .map(|path| path_document(&volume.name, path, before))
            .collect();
        json!({
            "name": volume.name,
            "num_blocks": volume.blocks,
            "block_size": volume.block_size,
            "policy": volume.policy,
            "waiting_io": volume.waiting,
            "fenced_io": volume.fenced.map(|(writes, _)| writes),
            "fence_remaining_ms": volume.fenced.map(|(_, ms)| ms),
            "paths": paths,
        })
    };
    snapshot.volumes.iter().map(volume).collect()
}

fn path_document(volume: &str, path: &Path, before: Option<&Before>) -> Value {
    let view = |(reactor, view): &(usize, View)| {
        json!({
            "reactor": reactor,
            "connected": view.connected,
            "accessible": view.accessible,
            "current": view.current,
            "outstanding": view.outstanding,
        })
    };
    let (state, error) = match &path.controller {
        Some((state, error)) => (Some(state), error.as_ref()),
        None => (None, None),
    };
    let mut document = json!({
        "address": path.addr,
        "cntlid": path.cntlid,
        "controller": {"state": state, "last_error": error},
        "ana_state": path.ana.as_ref().map(|ana| &ana.state),
        "anatt_remaining_ms": path.ana.as_ref().and_then(|ana| ana.anatt_ms),
        "anatt_expired": path.ana.as_ref().map(|ana| ana.anatt_expired),
        "reactors": path.views.iter().map(view).collect::<Value>(),
        "totals": path.counters.map(|c| json!({
            "reads": c.reads,
            "writes": c.writes,
            "bytes_read": c.read_bytes,
            "bytes_written": c.write_bytes,
            "errors": c.errors,
        })),
    });
    if let Some(before) = before {
        document["rate"] = before.rate(volume, path).map_or(Value::Null, |rate| {
            json!({"iops": rate.iops, "mib_per_sec": rate.mib_per_sec, "errors": rate.errors})
        });
    }
    document
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::{Ana, Counters};
    use super::*;
    use std::time::Duration;

    fn view(connected: bool, accessible: bool, current: bool) -> View {
        View {
            connected,
            accessible,
            current,
            outstanding: 2,
        }
    }

    fn snapshot(reads: u64) -> Snapshot {
        let counters = Counters {
            reads,
            writes: 1,
            ..Counters::default()
        };
        let path = |addr: &str, state: &str, anatt_ms, views: &[View]| Path {
            addr: addr.to_owned(),
            cntlid: 1,
            controller: Some(("enabled".to_owned(), Some("closed".to_owned()))),
            ana: Some(Ana {
                state: state.to_owned(),
                anatt_ms,
                anatt_expired: false,
            }),
            views: views.iter().copied().enumerate().collect(),
            counters: Some(counters),
        };
        let both = [view(true, true, true), view(true, true, false)];
        let neither = [view(true, false, false), view(true, false, false)];
        let mut lost = path("[::1]:4420", "optimized", None, &[view(false, true, false)]);
        lost.controller = Some(("resetting".to_owned(), Some("closed".to_owned())));
        lost.counters = None;
        Snapshot {
            volumes: vec![Volume {
                name: "disk1n1".to_owned(),
                blocks: 3 << 20,
                block_size: 512,
                policy: "active_passive".to_owned(),
                waiting: Some(3),
                fenced: Some((2, 9_760)),
                paths: vec![
                    path("127.0.0.1:4420", "optimized", None, &both),
                    path("127.0.0.1:4421", "inaccessible", Some(9_760), &neither),
                    lost,
                ],
            }],
        }
    }

    #[test]
    fn reactors_that_agree_are_one() {
        let shown = text(&snapshot(100), None);
        let lines: Vec<&str> = shown.lines().collect();
        let expected = [
            "disk1n1: 1.5 GiB (3145728 blocks of 512 bytes), active_passive, 3 I/Os waiting,",
            "2 writes fenced for 9.7 s",
            "  PATH            ID  ANA STATE     CONN  ACC  CUR   OUT  READS  WRITES  ERR",
            "  127.0.0.1:4420   1  optimized     yes   yes  on 0    4    100       1    0",
            "  127.0.0.1:4421   1  inaccessible  yes   no   no      4    100       1    0",
            "      ANATT runs out in 9.7 s",
            "  [::1]:4420       1  optimized     no    yes  no      2      -       -    -",
            "      controller resetting: closed",
        ];
        assert_eq!(lines, expected);
        assert_eq!(text(&Snapshot::default(), None), "no volume\n");
    }

    #[test]
    fn no_line_is_wider_than_80_columns() {
        let mut wide = snapshot(123_456_789);
        for volume in &mut wide.volumes {
            volume.name = format!("{}n1", "a".repeat(70));
        }
        for path in wide.volumes.iter_mut().flat_map(|v| &mut v.paths) {
            path.addr = "255.255.255.255:65535".to_owned();
            path.cntlid = 65_519;
            // Every other of 64 reactors.
            let some = (0..64).map(|reactor| {
                (
                    reactor,
                    view(reactor % 2 == 0, reactor % 2 == 0, reactor == 63),
                )
            });
            path.views = some.collect();
            if let Some(ana) = &mut path.ana {
                ana.state = "persistent_loss".to_owned();
            }
            let why = "connection reset by peer while an answer was waited for, ".repeat(4);
            path.controller = Some(("resetting".to_owned(), Some(why)));
        }
        let before = Before {
            snapshot: snapshot(0),
            ago: Duration::from_millis(10),
        };
        for before in [None, Some(&before)] {
            let shown = text(&wide, before);
            assert!(shown.contains("persistent_loss"), "{shown}");
            for line in shown.lines() {
                assert!(line.chars().count() <= 80, "{line}");
            }
        }
    }

    #[test]
    fn with_a_snapshot_from_before_there_are_rates() {
        let before = Before {
            snapshot: snapshot(100),
            ago: Duration::from_millis(500),
        };
        let shown = text(&snapshot(250), Some(&before));
        let line = shown.lines().nth(3).unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().skip(7).collect();
        assert_eq!(words, ["4", "300", "0.0", "0"]);
        let document = document(&snapshot(250), Some(&before));
        let paths = &document[0]["paths"];
        assert_eq!(paths[0]["rate"]["iops"], 300.0);
        assert_eq!(paths[0]["totals"]["reads"], 250);
        assert_eq!(paths[0]["reactors"][1]["current"], false);
        assert_eq!(paths[2]["rate"], Value::Null);
    }

    #[test]
    fn runs_of_reactors_are_short() {
        for (numbers, text) in [
            (&[1][..], "1"),
            (&[0, 1, 2], "0-2"),
            (&[0, 2, 3, 7], "0,2-3,7"),
        ] {
            assert_eq!(ranges(numbers), text);
        }
    }

    #[test]
    fn sizes_have_the_unit_that_fits() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1024, "1 KiB"),
            (1 << 30, "1 GiB"),
            (u64::MAX, "16384 PiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
