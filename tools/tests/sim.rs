//! `pollux sim`, run as its users run it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::process::{Command, Output};

fn sim(args: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_pollux");
    Command::new(program)
        .arg("sim")
        .args(args)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The trace hash that a run has told.
fn trace(output: &Output) -> String {
    let said = text(&output.stdout);
    let at = said.rfind("trace ").unwrap();
    said[at..].split_whitespace().nth(1).unwrap().to_owned()
}

#[test]
fn seeds_run_and_break_no_rule() {
    let output = sim(&["--seed", "1000", "--runs", "25", "--jobs", "1"]);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    assert!(
        said.contains("25 runs in") && said.contains("faults: "),
        "{said}"
    );
}

/// A scenario that every machine runs alike: time, order and randomness come from it alone.
#[test]
fn the_same_scenario_has_the_same_trace_everywhere() {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/scenarios/two_paths.scenario"
    );
    let runs = [(); 2].map(|()| sim(&["--scenario", file]));
    for output in &runs {
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(trace(output), trace(&runs[0]));
    }
    let by_jobs = ["1", "3"].map(|jobs| sim(&["--seed", "7", "--runs", "12", "--jobs", jobs]));
    assert_eq!(trace(&by_jobs[0]), trace(&by_jobs[1]));
}

/// Every scenario that is kept: faults that were found, and what is worth running each time.
#[test]
fn pinned_scenarios_break_no_rule() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|f| f.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let output = sim(&["--scenario", file.to_str().unwrap()]);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success(), "{}: {said}", file.display());
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (args, part) in [
        (&["--jobs", "0"][..], "--jobs"),
        (&["--trace", "--runs", "2"], "--trace"),
        (&["--scenario", "x", "--seed", "1"], "--seed"),
        (&["--seed", "x"], "--seed"),
    ] {
        let output = sim(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(text(&output.stderr).contains(part), "{args:?}");
    }
    let missing = sim(&["--scenario", "/no/such/file"]);
    assert_eq!(missing.status.code(), Some(1));
}
