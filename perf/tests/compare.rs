//! The gate as a user runs it: on saved results, and live.

#![expect(clippy::expect_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

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
fn a_file_that_cannot_be_written_takes_nothing_else_with_it() {
    let folder = folder("compare-full");
    two_hundred(&folder, "base.json");
    let files = ["--json", "/dev/full", "--markdown", "table.md"];
    let output = compare(&folder, &[&["base.json", "base.json"][..], &files].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(error(&output).contains("/dev/full"), "{}", error(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("verdict"));
    let markdown = fs::read_to_string(folder.join("table.md")).expect("a file");
    assert!(markdown.contains("| iops |"), "{markdown}");

    let args = ["merge", "base.json", "--json", "/dev/full"];
    let output = Command::new(BINARY)
        .args(args)
        .args(["--hdr-log", "merged.hlog", "--output-format", "fio"])
        .current_dir(&folder)
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(error(&output).contains("/dev/full"), "{}", error(&output));
    assert!(error(&output).contains("200"), "the table is shown");
    let fio: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(fio["jobs"][0]["read"]["total_ios"], 200);
    assert!(folder.join("merged.hlog").exists());
}

/// A result of 200 I/Os, however long they take.
fn two_hundred(folder: &Path, name: &str) {
    let output = Command::new(BINARY)
        .args(["--ios", "200", "-t", "300", "--no-failover", "--json", name])
        .current_dir(folder)
        .output()
        .expect("the program starts");
    assert!(output.status.success(), "{}", error(&output));
}

/// Starts a comparison that would take minutes, and ends it when its commands have run so often.
fn interrupted(folder: &Path, base: &str, new: &str, runs: usize) -> Output {
    // What an earlier run has left is not to be taken for this one's.
    let _ = fs::remove_file(folder.join("ran"));
    let child = Command::new(BINARY)
        .args(["compare", "--live", base, new])
        .args(["--max-time", "3000", "--seed", "1"])
        .args(["--fail-on", "p9999:+5%"])
        .current_dir(folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let ran = || fs::read_to_string(folder.join("ran")).map_or(0, |text| text.lines().count());
    while ran() < runs {
        std::thread::park_timeout(Duration::from_millis(5));
    }
    let signalled = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .expect("kill is there");
    assert!(signalled.success());
    child.wait_with_output().expect("an end")
}

#[test]
fn ctrl_c_ends_a_comparison_with_what_there_is() {
    let folder = folder("compare-ctrl-c");
    two_hundred(&folder, "saved.json");
    // It stands for a run, and is told by its last word where its result goes.
    let script = "echo x >> ran\nfor file; do :; done\ncp saved.json \"$file\"\n";
    fs::write(folder.join("run.sh"), script).expect("written");
    let hangs = "sh -c 'echo x >> ran; exec sleep 1000'";
    let output = interrupted(&folder, hangs, hangs, 1);
    assert_eq!(output.status.code(), Some(130), "{}", error(&output));
    assert!(error(&output).contains("before both commands had run"));

    // There is a block that is whole by then, and its samples never decide.
    let output = interrupted(&folder, "sh run.sh", "sh run.sh", 9);
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(130), "{table}{}", error(&output));
    assert!(
        table.contains("verdict") && table.contains("interrupted"),
        "{table}"
    );
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
