//! The benchmark as a user runs it, on the embedded target and against peers that do not answer.

#![expect(clippy::expect_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_pollux-perf");

fn run(args: &[&str]) -> Output {
    Command::new(BINARY)
        .args(args)
        .output()
        .expect("the program starts")
}

/// Runs to success; the JSON object and the text.
fn measured(name: &str, args: &[&str]) -> (Value, String) {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut all = vec!["--json", path.to_str().expect("UTF-8")];
    all.extend_from_slice(args);
    let output = run(&all);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    let json = fs::read_to_string(&path).expect("the file was written");
    (serde_json::from_str(&json).expect("JSON"), text)
}

fn ios(json: &Value, path: usize) -> u64 {
    json["paths"][path]["ios"].as_u64().expect("a number")
}

fn assert_clean(json: &Value) {
    assert_eq!(json["errors"], 0, "{json}");
    assert_eq!(json["miscompares"], 0, "{json}");
    assert_eq!(json["submitted"], json["completed"], "{json}");
    assert!(json["completed"].as_u64() > Some(0), "{json}");
}

#[test]
fn the_main_job_survives_a_failover() {
    let (json, text) = measured("run-failover.json", &["-t", "4"]);
    assert_clean(&json);
    assert!(ios(&json, 0) > 0 && ios(&json, 1) > 0, "{json}");
    assert_eq!(
        ios(&json, 0) + ios(&json, 1),
        json["reads"].as_u64().expect("a number")
    );
    assert_eq!(json["paths"][0]["ana_state"], "optimized");
    assert_eq!(json["paths"][1]["ana_state"], "non_optimized");
    let changes: Vec<_> = json["path_events"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|event| (event["from"].as_str(), event["to"].as_str()))
        .collect();
    assert_eq!(
        changes,
        [
            (Some("optimized"), Some("inaccessible")),
            (Some("inaccessible"), Some("optimized"))
        ]
    );
    let live = text
        .lines()
        .filter(|line| line.contains(" IOPS ") && line.contains("p99"))
        .count();
    assert!(live >= 2, "a line a second without a terminal:\n{text}");
    assert!(
        !text.contains('\u{1b}'),
        "no terminal codes without a terminal"
    );
    for part in [
        "latency",
        "longest gap between completions",
        "went from optimized to inaccessible",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn without_failover_one_path_carries_all_that_was_asked_for() {
    let (json, _) = measured(
        "run-one-path.json",
        &["-t", "300", "--no-failover", "--ios", "2000", "-q", "8"],
    );
    assert_clean(&json);
    assert_eq!(json["completed"], 2_000);
    assert_eq!((ios(&json, 0), ios(&json, 1)), (2_000, 0));
    assert_eq!(json["path_events"], Value::Array(Vec::new()));
}

#[test]
fn two_reactors_verify_regions_of_their_own() {
    let cores = pollux_reactor::available_cores();
    let [first, second, ..] = cores.as_slice() else {
        eprintln!("skipped: needs two cores");
        return;
    };
    let cores = format!("{first},{second}");
    let (json, _) = measured(
        "run-two-jobs.json",
        &[
            "-m",
            &cores,
            "-w",
            "verify",
            "-o",
            "4k",
            "--stride",
            "3",
            "-t",
            "300",
            "--ios",
            "1000",
            "--namespace",
            "memory:4m",
            "--no-failover",
            "--policy",
            "active_active",
            "--selector",
            "queue_depth",
        ],
    );
    assert_clean(&json);
    assert_eq!(json["cores"]["host"].as_array().map(Vec::len), Some(2));
    assert!(json["reads"].as_u64() > json["writes"].as_u64(), "{json}");
}

#[test]
fn verify_holds_with_mixed_sizes_misaligned_across_a_failover() {
    let (json, text) = measured(
        "run-verify.json",
        &[
            "-w",
            "verify",
            "-o",
            "512-64k",
            "--stride",
            "7",
            "-t",
            "2",
            "--namespace",
            "memory:8m",
            "--hdgst",
            "--ddgst",
            "--seed",
            "11",
        ],
    );
    assert_clean(&json);
    assert!(
        json["writes"].as_u64() > Some(0) && json["swept_blocks"].as_u64() > Some(0),
        "{json}"
    );
    assert!(text.contains("were read once more at the end"), "{text}");
    assert_eq!(json["options"]["seed"], 11);
}

#[test]
fn one_core_is_enough() {
    let core = pollux_reactor::available_cores()[0].to_string();
    let mut taskset = Command::new("taskset");
    taskset.args([
        "-c",
        &core,
        BINARY,
        "-t",
        "0.5",
        "-w",
        "randrw",
        "--policy",
        "active_active",
    ]);
    let output = taskset.output().expect("taskset is there");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        text.contains("share a core") && text.contains("no error"),
        "{text}"
    );
}

#[test]
fn ctrl_c_ends_the_run_with_its_report() {
    let mut child = Command::new(BINARY)
        .args(["-t", "600", "--no-failover"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    output
        .read_line(&mut line)
        .expect("the first second's line");
    assert!(line.contains("IOPS"), "{line}");
    let killed = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .expect("kill is there");
    assert!(killed.success());
    let mut rest = String::new();
    output.read_to_string(&mut rest).expect("the report");
    assert!(child.wait().expect("an end").success());
    assert!(
        rest.contains("longest gap") && rest.contains("no error"),
        "{rest}"
    );
}

#[test]
fn peers_that_refuse_or_stay_silent_are_one_line_and_exit_code_1() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent_port = silent.local_addr().expect("an address").port();
    let refused_port = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address").port()
    };
    for port in [silent_port, refused_port] {
        let trid = format!(
            "trtype:TCP adrfam:IPv4 traddr:127.0.0.1 trsvcid:{port} subnqn:nqn.2026-01.io.pollux:a"
        );
        let output = run(&["-r", &trid, "--connect-timeout", "0.5", "-t", "1"]);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(message.contains(&port.to_string()), "{message}");
    }
}
