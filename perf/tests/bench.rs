//! The suite as an appliance's CI runs it.

#![expect(clippy::expect_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_pollux-perf");

const PROFILE: &str = r#"
[global]
runtime = 0.5
interval = 0.02
no_failover = true
loops = 1
fail_on = "iops:-60%"

[job.reads]
rw = "randread"
iodepth = 4

[job.writes]
rw = "randwrite"
bs = "8k"
iodepth = 2
"#;

fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    // What an earlier run has left is not to be taken for this one's.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

fn bench(folder: &Path, args: &[&str]) -> Output {
    Command::new(BINARY)
        .args(["bench", "--profile", "bench.toml"])
        .args(args)
        .current_dir(folder)
        .output()
        .expect("the program starts")
}

fn object(file: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(file).expect("a file")).expect("JSON")
}

fn shown(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// The baseline with every rate multiplied: what was measured against it is then that much slower, or faster.
fn scale(file: &Path, factor: u64) -> Value {
    let mut base = object(file);
    for runs in base["jobs"].as_object_mut().expect("jobs").values_mut() {
        for run in runs.as_array_mut().expect("runs") {
            for point in run["series"].as_array_mut().expect("a series") {
                point["ios"] = json!(point["ios"].as_u64().expect("a number") * factor);
            }
        }
    }
    base
}

#[test]
fn a_suite_is_saved_and_compared_with_later() {
    let folder = folder("bench-suite");
    fs::write(folder.join("bench.toml"), PROFILE).expect("written");
    let output = bench(&folder, &["--save", "base.json"]);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert!(shown(&output).contains("writes"), "{}", shown(&output));
    let base = folder.join("base.json");
    assert_eq!(
        object(&base)["jobs"]["reads"].as_array().map(Vec::len),
        Some(1)
    );

    // A thousandth of the baseline's rate is a regression on any machine, and the baseline stays as it was.
    fs::write(folder.join("fast.json"), scale(&base, 1_000).to_string()).expect("written");
    let before = fs::read(folder.join("fast.json")).expect("a file");
    let args = [
        "--baseline",
        "fast.json",
        "--save",
        "fast.json",
        "--json",
        "verdict.json",
    ];
    let output = bench(&folder, &args);
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    let verdict = object(&folder.join("verdict.json"));
    assert_eq!(verdict["verdict"], "regression");
    assert!(verdict["jobs"]["writes"]["comparison"]["verdict"].is_string());
    assert_eq!(fs::read(folder.join("fast.json")).expect("a file"), before);
    assert!(shown(&output).contains("not saved"), "{}", shown(&output));

    // A job that the baseline does not have cannot be told about.
    let mut less = object(&base);
    less["jobs"].as_object_mut().expect("jobs").remove("reads");
    for point in less["jobs"]["writes"][0]["series"]
        .as_array_mut()
        .expect("a series")
    {
        point["ios"] = json!(1);
    }
    fs::write(folder.join("less.json"), less.to_string()).expect("written");
    let output = bench(&folder, &["--baseline", "less.json"]);
    assert_eq!(output.status.code(), Some(3), "{}", shown(&output));
    assert!(
        shown(&output).contains("does not have it"),
        "{}",
        shown(&output)
    );
}

#[test]
fn what_is_wrong_with_a_profile_or_baseline_is_said_before_anything_runs() {
    let folder = folder("bench-wrong");
    for (profile, args, code, wanted) in [
        (
            "[job.a]\niodept = 4\n",
            &[][..],
            2,
            &["line 2", "'iodept'", "'iodepth'"][..],
        ),
        (PROFILE, &["--baseline", "none.json"], 1, &["none.json"]),
        (
            PROFILE,
            &["--baseline", "bench.toml"],
            1,
            &["bench.toml", "not JSON"],
        ),
        (
            PROFILE,
            &["--save", "/nowhere/a.json"],
            2,
            &["--save", "/nowhere"],
        ),
    ] {
        fs::write(folder.join("bench.toml"), profile).expect("written");
        let output = bench(&folder, args);
        assert_eq!(output.status.code(), Some(code), "{}", shown(&output));
        for part in wanted {
            assert!(shown(&output).contains(part), "{part}: {}", shown(&output));
        }
    }
}

#[test]
fn the_suite_in_the_repository_is_well_formed() {
    // Its path is refused only after the profile was read.
    let output = Command::new(BINARY)
        .args(["bench", "--baseline", "/nowhere/base.json", "--profile"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/bench.toml"))
        .output()
        .expect("the program starts");
    assert!(shown(&output).contains("--baseline"), "{}", shown(&output));
}
