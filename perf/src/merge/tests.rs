use super::*;
use crate::saved::tests::{object, saved};

/// A result of 500 I/Os a second, `seconds` long, that began at a moment.
fn result(began: f64, seconds: u64, name: &str) -> Value {
    let mut result = object(seconds);
    let mut latency = latency_histogram();
    latency.saturating_record_n(1_000, 500 * seconds);
    result["histogram"] = encode(&latency).into();
    result["began_unix_seconds"] = began.into();
    result["seconds"] = (seconds as f64).into();
    result["reads"] = (500 * seconds).into();
    result["title"] = format!("randread 4 KiB, depth 8, seed {name}").into();
    result["paths"] = json!([
        {"traddr": "10.0.0.1", "trsvcid": "4420", "ios": 400 * seconds, "errors": 0, "ana_state": "optimized"},
        {"traddr": name, "trsvcid": "4420", "ios": 100 * seconds, "errors": 0, "ana_state": "optimized"},
    ]);
    result["longest_gap_ns"] = 5.into();
    result["longest_gap"] = json!({"at_ns": 7, "job": 0, "open": false, "around": "nothing"});
    result["machine"] = json!({"hostname": name, "cpu": "Example"});
    result["doubts"] = json!([format!("doubt of {name}")]);
    result["path_events"] = json!([
        {"at_ns": 1_000_000_000_u64, "path": "10.0.0.1:4420", "from": "optimized", "to": "inaccessible",
         "pause_ns": 1, "pause_open": false},
    ]);
    result
}

fn merged(results: &[Value]) -> anyhow::Result<Merged> {
    let results: Vec<Saved> = results.iter().map(|r| saved(r).unwrap()).collect();
    merge(&results, false)
}

#[test]
fn those_of_one_moment_add_up() {
    let mut second = result(1000.02, 10, "b");
    second["path_events"][0]["pause_ns"] = 9.into();
    let merged = merged(&[result(1000.0, 10, "a"), second]).unwrap();
    let json = merged.json();
    let iops = json["iops"].as_f64().unwrap();
    assert!((990.0..1_000.1).contains(&iops), "{iops}");
    assert_eq!(
        (&json["reads"], merged.latency.count),
        (&json!(10_000), 10_000)
    );
    assert_eq!(json["series"].as_array().unwrap().len(), 10);
    assert_eq!(json["series"][3]["ios"], 1_000);
    assert_eq!(json["series"][3]["path_ios"], json!([800, 100, 100]));
    assert_eq!(json["paths"][0]["ios"], 8_000, "a path of both");
    assert_eq!(json["paths"].as_array().unwrap().len(), 3);
    assert_eq!(json["machine"], json!({"hostname": null, "cpu": "Example"}));
    let events = json["path_events"].as_array().unwrap();
    assert_eq!(
        (events.len(), &events[0]["pause_ns"]),
        (1, &json!(9)),
        "seen by both"
    );
    assert_eq!(json["title"], "2 results of: randread 4 KiB, depth 8");
    assert_eq!(json["merged_from"][1]["machine"]["hostname"], "b");
    assert_eq!(
        json["doubts"],
        json!(["a.json: doubt of a", "a.json: doubt of b"])
    );
    let table = merged.table();
    assert!(
        table.lines().all(|line| line.chars().count() <= COLUMNS),
        "{table}"
    );
}

#[test]
fn those_in_turns_lengthen_it() {
    let merged = merged(&[result(2000.0, 10, "a"), result(1000.0, 20, "b")]).unwrap();
    let json = merged.json();
    assert_eq!(
        (&json["seconds"], &json["iops"]),
        (&json!(30.0), &json!(500.0))
    );
    assert_eq!(json["series"].as_array().unwrap().len(), 30);
    assert_eq!(json["path_events"][1]["at_ns"], 1_001_000_000_000_u64);
    assert_eq!(json["began_unix_seconds"], 1000.0);
    assert_eq!(
        json["doubts"].as_array().unwrap().len(),
        2,
        "being apart is none"
    );
    let log = merged.hdr_log();
    assert_eq!(log.matches(",HISTFAAA").count(), 30);
}

#[test]
fn partly_at_the_same_time_is_a_doubt() {
    let merged = merged(&[result(1000.0, 10, "a"), result(1005.0, 10, "b")]).unwrap();
    let doubts = merged.json()["doubts"].to_string();
    assert!(doubts.contains("5.0 s of 15.0 s"), "{doubts}");
}

#[test]
fn a_merged_one_is_merged_again_as_if_it_were_its_parts() {
    let all = [
        result(1000.0, 10, "a"),
        result(1000.0, 10, "b"),
        result(1000.0, 10, "c"),
    ];
    let two = merged(&all[..2]).unwrap().json();
    let again = merged(&[two, all[2].clone()]).unwrap().json();
    let once = merged(&all).unwrap().json();
    for name in [
        "iops",
        "reads",
        "histogram",
        "seconds",
        "paths",
        "series",
        "latency_ns",
        "merged_from",
    ] {
        assert_eq!(again[name], once[name], "{name}");
    }
}

#[test]
fn histograms_of_what_failed_are_not_lost_in_silence() {
    let mut failed = latency_histogram();
    failed.saturating_record_n(9_000, 3);
    let mut one = result(1000.0, 10, "a");
    one["errors"] = 3.into();
    let error = merged(&[one.clone()]).unwrap_err().to_string();
    assert!(
        error.contains("failed_histogram") && error.contains("earlier version"),
        "{error}"
    );
    one["failed_histogram"] = encode(&failed).into();
    one["unfinished"] = json!({"count": 3, "oldest_ns": 9_000, "waited_seconds": 1.0});
    one["unfinished_histogram"] = encode(&failed).into();
    let merged = merged(&[one, result(1000.0, 10, "b")]).unwrap();
    let json = merged.json();
    assert_eq!(json["failed_latency_ns"]["max"], 9_007, "to three digits");
    assert_eq!(
        json["latency_lower_bounds"],
        json!(["mean", "p9999", "max"])
    );
    assert_eq!(
        (merged.failures(), &json["unfinished"]["count"]),
        (6, &json!(3))
    );
    assert!(merged.table().contains("FAILED: 6 I/Os"));
}

#[test]
fn the_same_twice_and_other_workloads_are_refused() {
    let one = result(1000.0, 10, "a");
    let error = merged(&[one.clone(), one.clone()]).unwrap_err();
    assert!(
        error.is::<Usage>() && error.to_string().contains("twice"),
        "{error}"
    );
    let mut other = result(1000.0, 10, "b");
    other["options"]["depth"] = 9.into();
    let error = merged(&[one.clone(), other.clone()]).unwrap_err();
    assert!(
        error.is::<Usage>() && error.to_string().contains("depth: 8 / 9"),
        "{error}"
    );
    let results = [saved(&one).unwrap(), saved(&other).unwrap()];
    let forced = merge(&results, true).unwrap().json();
    assert_eq!(forced["options"]["depth"], Value::Null);
    assert!(
        forced["doubts"][0]
            .as_str()
            .unwrap()
            .contains("another workload")
    );
}
