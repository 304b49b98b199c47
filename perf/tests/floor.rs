//! `pollux-perf floor` as a user runs it.

#![expect(clippy::expect_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

fn floor(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pollux-perf"))
        .arg("floor")
        .args(args)
        .output()
        .expect("the program starts")
}

fn json_file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn measured(name: &str, args: &[&str]) -> (Value, String) {
    let path = json_file(name);
    let mut all = vec!["--json", path.to_str().expect("UTF-8")];
    all.extend_from_slice(args);
    let output = floor(&all);
    let table = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.success(), "{table}{:?}", output.stderr);
    let text = fs::read_to_string(&path).expect("the file was written");
    (serde_json::from_str(&text).expect("JSON"), table)
}

#[test]
fn reads_are_measured_and_reported() {
    let (json, table) = measured(
        "floor-read.json",
        &["-q", "8", "-o", "4k", "-w", "read", "-t", "1"],
    );
    assert!(json["iops"].as_f64() > Some(0.0), "{json}");
    let (iops, bytes) = (
        json["iops"].as_f64().unwrap(),
        json["bytes_per_sec"].as_f64().unwrap(),
    );
    assert!((bytes / iops - 4096.0).abs() < 0.001, "{json}");
    assert_eq!(json["errors"], 0);
    assert_eq!(json["options"]["request_bytes"], 72);
    assert_eq!(json["options"]["response_bytes"], 24 + 4096);
    let latency = &json["latency_ns"];
    let percentiles =
        ["p50", "p90", "p99", "p999", "p9999", "max"].map(|name| latency[name].as_u64().unwrap());
    assert!(percentiles.is_sorted() && percentiles[0] > 0, "{latency}");
    assert!(latency["mean"].as_f64() > Some(0.0));
    assert!(json["longest_gap_ns"].as_u64() > Some(0));
    assert_eq!(json["paths"][0]["traddr"], "127.0.0.1");
    assert_eq!(json["paths"][0]["ios"], json["reads"]);
    assert!(json["paths"][0]["trsvcid"].is_string() && json["paths"][0]["ana_state"].is_string());
    assert!(json["machine"]["cpu"].is_string() && json["machine"]["kernel"].is_string());
    assert!(
        table.contains("IOPS") && table.contains("p99.99"),
        "{table}"
    );
}

#[test]
fn writes_and_a_shared_core_work() {
    let core = pollux_reactor::available_cores()[0].to_string();
    let (json, _) = measured(
        "floor-write.json",
        &[
            "-q", "128", "-o", "8k", "-w", "write", "-t", "0.2", "-m", &core,
        ],
    );
    assert_eq!(json["options"]["request_bytes"], 72 + 8192);
    assert_eq!(
        (&json["reads"], &json["errors"]),
        (&Value::from(0), &Value::from(0))
    );
    assert!(json["writes"].as_u64() > Some(0));
    assert_eq!(json["cores"]["host"][0], json["cores"]["target"]);
}

#[test]
fn messages_larger_than_the_buffers_pass() {
    let (json, _) = measured(
        "floor-large.json",
        &["-q", "4", "-o", "4m", "-w", "read", "-t", "0.3"],
    );
    assert!(json["reads"].as_u64() > Some(0), "{json}");
}

#[test]
fn connections_share_the_requests() {
    let (json, table) = measured(
        "floor-connections.json",
        &["-P", "3", "-q", "8", "-t", "0.3"],
    );
    assert!(json["reads"].as_u64() > Some(0), "{json}");
    assert_eq!(json["options"]["qpairs"], 3);
    assert!(table.contains("3 connections"), "{table}");
}
