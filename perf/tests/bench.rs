//! The suite as an appliance's CI runs it.

#![expect(clippy::expect_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_pollux-perf");

/// So many I/Os rather than so much time: none of it depends on how fast the machine is.
const PROFILE: &str = r#"
[global]
runtime = 300
ios = 100
no_failover = true
loops = 4
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

/// The baseline with every rate multiplied: what was measured against it is then that much slower, or faster. No machine is
/// a billion times as fast in one run as in the next.
fn scale(file: &Path, factor: f64) -> Value {
    let mut base = object(file);
    for runs in base["jobs"].as_object_mut().expect("jobs").values_mut() {
        for run in runs.as_array_mut().expect("runs") {
            run["iops"] = json!(run["iops"].as_f64().expect("a number") * factor);
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
        Some(4)
    );

    // A regression, and the baseline stays as it was.
    fs::write(folder.join("fast.json"), scale(&base, 1e9).to_string()).expect("written");
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

    // Passed, and the baseline is replaced.
    fs::write(folder.join("slow.json"), scale(&base, 1e-9).to_string()).expect("written");
    let before = fs::read(folder.join("slow.json")).expect("a file");
    let output = bench(&folder, &["--baseline", "slow.json", "--save", "slow.json"]);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert_ne!(fs::read(folder.join("slow.json")).expect("a file"), before);

    // A job that the baseline does not have cannot be told about.
    let mut less = scale(&base, 1e-9);
    less["jobs"].as_object_mut().expect("jobs").remove("reads");
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
fn a_file_that_cannot_be_written_takes_nothing_else_with_it() {
    let folder = folder("bench-full");
    fs::write(folder.join("bench.toml"), PROFILE).expect("written");
    let output = bench(&folder, &["--json", "/dev/full", "--save", "base.json"]);
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("writes"), "{table}");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("/dev/full"), "{error}");
    let saved = object(&folder.join("base.json"));
    assert_eq!(saved["jobs"]["reads"].as_array().map(Vec::len), Some(4));
}

#[test]
fn ctrl_c_shows_what_was_measured() {
    let folder = folder("bench-ctrl-c");
    // The first job ends by itself, the second one only by the signal.
    let profile = "[global]\nruntime = 300\nno_failover = true\nloops = 1\n[job.short]\nios = 100\n[job.endless]\nrw = \"randwrite\"\n";
    fs::write(folder.join("bench.toml"), profile).expect("written");
    let mut child = Command::new(BINARY)
        .args(["bench", "--profile", "bench.toml", "--save", "base.json"])
        .args(["--json", "verdict.json"])
        .current_dir(&folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut progress = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut line = String::new();
    while !line.contains("IOPS") {
        line.clear();
        let read = progress.read_line(&mut line).expect("text");
        assert!(read > 0, "it ended before its first second");
    }
    let interrupted = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .expect("kill is there");
    assert!(interrupted.success());
    let mut table = String::new();
    let mut output = child.stdout.take().expect("a pipe");
    output.read_to_string(&mut table).expect("text");
    assert_eq!(child.wait().expect("an end").code(), Some(130), "{table}");
    for part in ["short", "INTERRUPTED in a run of endless", "IOPS, p99"] {
        assert!(table.contains(part), "{part}: {table}");
    }
    let verdict = object(&folder.join("verdict.json"));
    assert_eq!(verdict["interrupted"], true);
    assert_eq!(verdict["jobs"]["short"]["runs"], 1);
    assert_eq!(verdict["jobs"].get("endless"), None);
    assert!(
        !folder.join("base.json").exists(),
        "half a suite is no baseline"
    );
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
