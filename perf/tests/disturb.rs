//! Every scenario of `disturb`, short: nothing may go wrong, and the results have their shape. How long anything took is
//! not looked at: the machine may be busy.

#![expect(clippy::expect_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

/// Runs one scenario to success; its JSON object and the table.
fn disturbed(scenario: &str, args: &[&str]) -> (Value, String) {
    let name = format!("disturb-{scenario}{}.json", args.concat());
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let output = Command::new(env!("CARGO_BIN_EXE_pollux-perf"))
        .args(["disturb", scenario, "--json"])
        .arg(&path)
        .args(args)
        .output()
        .expect("the program starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let progress = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{progress}");
    assert!(progress.contains(&format!("disturb: {scenario}: begins")));
    for line in text.lines().chain(progress.lines()) {
        assert!(line.chars().count() <= 80, "wider than a terminal: {line}");
    }
    let json = fs::read_to_string(&path).expect("the file was written");
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        (&json["kind"], &json["failures"]),
        (&"disturb".into(), &0.into())
    );
    let section = json["scenarios"][scenario].clone();
    assert_eq!(section["failures"], Value::Array(Vec::new()), "{section:#}");
    assert_eq!(section["stopped"], false);
    (section, text)
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

fn assert_clean_io(io: &Value) {
    for count in ["errors", "miscompares", "lost"] {
        assert_eq!(io[count], 0, "{io:#}");
    }
    assert_eq!(io["submitted"], io["completed"]);
    assert!(number(&io["completed"]) > 0, "{io:#}");
}

fn assert_clean_status(status: &Value) {
    assert_eq!(status["contradictions"], 0, "{status:#}");
    assert_eq!(status["first_contradiction"], Value::Null);
    assert!(number(&status["answers"]) > 0 && number(&status["states"]) > 0);
    assert_eq!(status["answer_ns"]["count"], status["answers"]);
}

fn assert_compared(comparison: &Value, pairs: u64) {
    assert_eq!(comparison["pairs"], pairs, "{comparison:#}");
    for side in ["undisturbed", "disturbed"] {
        assert!(
            comparison[side]["iops"].as_f64() > Some(0.0),
            "{comparison:#}"
        );
        assert!(number(&comparison[side]["p999_ns"]) >= number(&comparison[side]["p50_ns"]));
        assert!(number(&comparison[side]["longest_gap_ns"]) > 0);
    }
    for ratio in ["iops", "p50", "p99", "p999", "longest_gap"] {
        let ratio = &comparison["ratios"][ratio];
        assert!(ratio["median"].as_f64() > Some(0.0), "{comparison:#}");
        assert!(ratio["least"].as_f64() <= ratio["most"].as_f64());
    }
}

#[test]
fn status_under_fire_never_contradicts_itself() {
    let (section, text) = disturbed("ana", &["--changes", "60"]);
    let parts = section["parts"].as_array().expect("a list");
    assert_eq!(parts.len(), 2, "both policies");
    for part in parts {
        assert_eq!(
            (&part["changes"], &part["refused"]),
            (&60.into(), &0.into())
        );
        assert_eq!(part["apart_ns"]["count"], 59);
        assert_clean_io(&part["io"]);
        assert!(number(&part["io"]["swept_blocks"]) > 0, "read once more");
        assert_clean_status(&part["status"]);
    }
    assert!(text.contains("active_passive") && text.contains("active_active"));
    assert!(text.contains("nothing went wrong"), "{text}");
}

#[test]
fn one_core_is_enough() {
    let core = pollux_reactor::available_cores()[0];
    let args = ["--changes", "12", "--cores", &core.to_string()];
    let (section, _) = disturbed("ana", &args);
    let cores = &section["cores"];
    assert_eq!(
        (&cores["target"], &cores["control"]),
        (&core.into(), &core.into())
    );
    assert_eq!(cores["io"], Value::from(vec![core, core]));
}

#[test]
fn a_listener_that_goes_and_comes_is_seen_on_both_policies() {
    let (section, _) = disturbed("listener", &["--removals", "2"]);
    let parts = section["parts"].as_array().expect("a list");
    assert_eq!(parts.len(), 2, "both policies");
    for part in parts {
        assert_eq!(part["removals"], 2);
        assert_eq!(part["seen_on_the_other_path_ns"]["count"], 2);
        assert_eq!(part["seen_back_ns"]["count"], 2);
        assert!(
            part["io"]["path_ios"]
                .as_array()
                .is_some_and(|ios| { ios.len() == 2 && ios.iter().all(|ios| number(ios) > 0) })
        );
        assert_clean_io(&part["io"]);
        assert_clean_status(&part["status"]);
        assert!(number(&part["status"]["states"]) > 1, "{part:#}");
    }
}

#[test]
fn reactions_are_measured_on_every_reactor() {
    let (section, _) = disturbed("reaction", &["--reactions", "12"]);
    assert_eq!(section["changes"], 12);
    let signs = number(&section["notice_to_last_table_ns"]["count"])
        + number(&section["ana_status_to_last_table_ns"]["count"]);
    assert_eq!(section["sign_to_last_table_ns"]["count"], signs);
    assert_eq!(signs + number(&section["changes_without_sign"]), 12);
    let resumed = section["table_to_first_io_ns"].as_array().expect("a list");
    assert_eq!(resumed.len(), 2, "both I/O reactors");
    for reactor in resumed {
        assert_eq!(reactor["count"], 3, "one in each round");
    }
    assert_clean_io(&section["io"]);
}

#[test]
fn a_silent_path_is_reset_and_the_other_one_goes_on() {
    let (section, _) = disturbed("black-hole", &["--seconds", "2", "--slice", "1"]);
    assert_compared(&section["comparison"], 2);
    assert!(number(&section["resets"]) >= 2, "{section:#}");
    assert!(number(&section["silent_connects"]) > 0, "{section:#}");
    assert_clean_io(&section["io"]);
}

#[test]
fn attaches_in_vain_end_and_leave_nothing() {
    let (section, _) = disturbed("attach", &["--rounds", "1", "--attach-timeout", "0.5"]);
    assert_eq!(section["deadline_ms"], 500);
    let parts = section["parts"].as_array().expect("a list");
    assert_eq!(parts.len(), 3, "each kind of peer");
    for part in parts {
        assert_eq!(part["taken_ns"]["count"], 1);
        let error = part["error"].as_str().expect("why it failed");
        assert!(error.contains("-5"), "EIO: {error}");
        assert_compared(&part["comparison"], 1);
    }
    assert_clean_io(&section["io"]);
}

#[test]
fn status_is_compared_with_its_absence() {
    let (section, _) = disturbed("status", &["--seconds", "0.5", "--slice", "0.5"]);
    assert_compared(&section["comparison"], 1);
    assert_clean_status(&section["status"]);
    assert_clean_io(&section["io"]);
}

#[test]
fn ctrl_c_ends_it_in_the_middle_of_a_step_with_its_report() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("disturb-interrupted.json");
    let mut child = Command::new(env!("CARGO_BIN_EXE_pollux-perf"))
        .args(["disturb", "attach", "--seconds", "0.1", "--json"])
        .arg(&path)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut progress = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut line = String::new();
    while !line.contains("begins") {
        line.clear();
        assert!(progress.read_line(&mut line).expect("a line") > 0);
    }
    let pid = child.id().to_string();
    let killed = Command::new("kill").args(["-INT", &pid]).status();
    assert!(killed.expect("kill is there").success());
    let output = child.wait_with_output().expect("an end");
    assert_eq!(output.status.code(), Some(130));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("INTERRUPTED") && text.contains("stopped before its end"),
        "{text}"
    );
    let json = fs::read_to_string(&path).expect("the file was written");
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        (&json["interrupted"], &json["failures"]),
        (&true.into(), &0.into())
    );
}
