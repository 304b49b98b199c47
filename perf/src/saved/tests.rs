use serde_json::json;

use super::*;
use crate::stats::{encode, latency_histogram};

/// A result with a series of seconds, 500 I/Os of a microsecond in each.
pub fn object(points: u64) -> Value {
    let mut latency = latency_histogram();
    latency.saturating_record_n(1_000, 500);
    let point = |n: u64| {
        json!({
            "start_ns": n * 1_000_000_000, "end_ns": (n + 1) * 1_000_000_000, "ios": 500,
            "bytes_per_sec": 1000.0, "errors": 0, "path_ios": [400, 100], "histogram": encode(&latency),
        })
    };
    json!({
        "schema_version": SCHEMA_VERSION, "kind": "run", "options": {"depth": 8, "seed": 1},
        "iops": 500.0, "bytes_per_sec": 1000.0, "errors": 0, "histogram": encode(&latency),
        "series": (0..points).map(point).collect::<Vec<_>>(),
    })
}

pub fn saved(object: &Value) -> anyhow::Result<Saved> {
    Saved::parse("a.json", &object.to_string())
}

#[test]
fn what_is_no_result_is_named() {
    let text = object(1).to_string();
    let error = |text: &str| format!("{:#}", Saved::parse("a.json", text).unwrap_err());
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
    assert!(saved(&backwards).unwrap().series().is_err());
}

#[test]
fn other_workloads_are_told_from_other_surroundings() {
    let (one, mut other) = (object(1), object(1));
    other["options"] = json!({"depth": 8, "seed": 2, "hdgst": true, "numjobs": 1, "qpairs": 1});
    let (one, same) = (saved(&one).unwrap(), saved(&other).unwrap());
    assert_eq!(one.differences(&same), Vec::<String>::new());
    let surroundings = same.surroundings(false);
    assert!(surroundings.contains(&("options.hdgst".to_owned(), json!(true))));
    assert!(!surroundings.iter().any(|(name, _)| name == "options.depth"));
    other["options"]["depth"] = json!(9);
    other["options"]["numjobs"] = json!(2);
    assert_eq!(
        one.differences(&saved(&other).unwrap()),
        ["depth: 8 / 9", "numjobs: 1 / 2"]
    );
}
