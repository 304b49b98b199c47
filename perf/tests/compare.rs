//! The gate as a user runs it: on saved results, and live.

#![expect(clippy::expect_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_pollux-perf");

fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

fn compare(folder: &Path, args: &[&str]) -> Output {
    Command::new(BINARY)
        .arg("compare")
        .args(args)
        .current_dir(folder)
        .output()
        .expect("the program starts")
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A result with a short series.
fn measure(folder: &Path, name: &str, more: &[&str]) -> Value {
    let file = folder.join(name);
    let output = Command::new(BINARY)
        .args(["-t", "1", "--interval", "0.05", "--no-failover", "--json"])
        .arg(&file)
        .args(more)
        .output()
        .expect("the program starts");
    assert!(output.status.success(), "{}", error(&output));
    serde_json::from_str(&fs::read_to_string(&file).expect("a file")).expect("JSON")
}

#[test]
fn saved_results_are_passed_failed_or_refused() {
    let folder = folder("compare-saved");
    let mut base = measure(&folder, "base.json", &["-q", "4"]);
    // Whatever else this machine does meanwhile.
    for (ios, point) in (10_000..).zip(base["series"].as_array_mut().expect("a list")) {
        point["ios"] = json!(ios);
        point["end_ns"] = json!((ios - 9_999) * 50_000_000);
        point["start_ns"] = json!((ios - 10_000) * 50_000_000);
        point["bytes_per_sec"] = json!(1e6);
    }
    fs::write(folder.join("base.json"), base.to_string()).expect("written");
    let equal = [
        "base.json",
        "base.json",
        "--fail-on",
        "iops:-60%",
        "--seed",
        "1",
    ];
    let output = compare(&folder, &equal);
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{table}{}", error(&output));
    assert!(
        table.contains("verdict: passed") && table.contains("parts of few runs"),
        "{table}"
    );

    let mut slow = base.clone();
    for point in slow["series"].as_array_mut().expect("a list") {
        point["ios"] = json!(point["ios"].as_u64().expect("a number") / 10);
    }
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).expect("written");
    write("slow.json", &slow.to_string());
    let args = [
        "base.json",
        "slow.json",
        "--fail-on",
        "iops:-3%",
        "--json",
        "verdict.json",
        "--markdown",
        "-",
    ];
    let output = compare(&folder, &args);
    assert_eq!(output.status.code(), Some(1), "{}", error(&output));
    assert!(
        String::from_utf8_lossy(&output.stdout).starts_with("**pollux-perf compare: REGRESSION**")
    );
    let verdict = fs::read_to_string(folder.join("verdict.json")).expect("a file");
    let verdict: Value = serde_json::from_str(&verdict).expect("JSON");
    assert_eq!(verdict["verdict"], "regression");

    let mut short = base.clone();
    short["series"] = json!([]);
    write("short.json", &short.to_string());
    let output = compare(&folder, &["base.json", "short.json"]);
    assert_eq!(output.status.code(), Some(3), "{}", error(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("cannot tell"));

    let mut other = base.clone();
    other["options"]["depth"] = json!(64);
    write("other.json", &other.to_string());
    let output = compare(&folder, &["base.json", "other.json"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(error(&output).contains("depth: 4 / 64") && error(&output).contains("--force"));
    let forced = [
        "base.json",
        "other.json",
        "--force",
        "--fail-on",
        "iops:-60%",
    ];
    assert_eq!(compare(&folder, &forced).status.code(), Some(0));

    let text = base.to_string();
    write("cut.json", &text[..text.len() / 2]);
    write(
        "version.json",
        &text.replace("\"schema_version\":1", "\"schema_version\":7"),
    );
    write("empty.json", "");
    for (file, why) in [
        ("cut.json", "cut off"),
        ("version.json", "schema version 7"),
        ("empty.json", "cut off"),
        ("nowhere.json", "nowhere.json"),
    ] {
        let output = compare(&folder, &["base.json", file]);
        assert_eq!(output.status.code(), Some(1));
        let error = error(&output);
        assert!(error.contains(why) && error.lines().count() == 1, "{error}");
    }
}

#[test]
fn live_runs_take_turns_until_it_is_decided() {
    let folder = folder("compare-live");
    let run = |more: &str| format!("'{BINARY}' -t 0.2 --no-failover -q 1 {more}");
    let (base, new) = (run(""), run("-o 1m"));
    let args = [
        "--live",
        &base,
        &new,
        "--force",
        "--fail-on",
        "iops:-20%",
        "--max-time",
        "120",
        "--seed",
        "3",
        "--json",
        "live.json",
    ];
    let output = compare(&folder, &args);
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{table}{}", error(&output));
    assert!(
        table.contains("another workload: io_size: [4096] / [1048576]"),
        "{table}"
    );
    let json = fs::read_to_string(folder.join("live.json")).expect("a file");
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["samples"]["base"], json["samples"]["new"]);

    let output = compare(&folder, &["--live", &base, "false"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        error(&output).contains("'false' ended with"),
        "{}",
        error(&output)
    );
}
