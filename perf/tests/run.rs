//! The benchmark as a user runs it, on the embedded target and against peers that do not answer.

#![expect(clippy::expect_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::Duration;

use pollux_nvme_tcp::target::{self, Backend};
use pollux_nvme_tcp::testing::{NQN, TestTarget};
use pollux_reactor::{Group, Idle};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_pollux-perf");

fn run(args: &[&str]) -> Output {
    Command::new(BINARY)
        .args(args)
        .output()
        .expect("the program starts")
}

/// Runs to success; the JSON object, the report, and what was shown meanwhile.
fn shown(name: &str, args: &[&str]) -> (Value, String, String) {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut all = vec!["--json", path.to_str().expect("UTF-8")];
    all.extend_from_slice(args);
    let output = run(&all);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    let json = fs::read_to_string(&path).expect("the file was written");
    let json = serde_json::from_str(&json).expect("JSON");
    for line in text.lines().chain(errors.lines()) {
        assert!(line.chars().count() <= 80, "wider than a terminal: {line}");
    }
    (json, text.replace("\n    ", " "), errors.into_owned())
}

/// Runs to success; the JSON object and the report.
fn measured(name: &str, args: &[&str]) -> (Value, String) {
    let (json, text, _) = shown(name, args);
    (json, text)
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
    let (json, text, progress) = shown("run-failover.json", &["-t", "4"]);
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
    let live = progress
        .lines()
        .filter(|line| line.contains(" IOPS ") && line.contains("p99"))
        .count();
    assert!(live >= 2, "a line a second without a terminal:\n{progress}");
    assert!(
        !text.contains('\u{1b}') && !progress.contains('\u{1b}'),
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

fn signal(child: &Child, name: &str) {
    let killed = Command::new("kill")
        .args([name, &child.id().to_string()])
        .status()
        .expect("kill is there");
    assert!(killed.success());
}

/// Starts a run and waits for a line on standard error.
fn started(args: &[&str], wanted: &str) -> (Child, BufReader<ChildStderr>) {
    let mut child = Command::new(BINARY)
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut progress = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut line = String::new();
    while !line.contains(wanted) {
        line.clear();
        let read = progress.read_line(&mut line).expect("a line");
        assert!(read > 0, "it ended without '{wanted}'");
    }
    (child, progress)
}

/// The report and the exit code.
fn ended(mut child: Child, mut progress: BufReader<ChildStderr>) -> (String, Option<i32>) {
    let mut rest = String::new();
    progress.read_to_string(&mut rest).expect("text");
    let mut report = String::new();
    let mut output = child.stdout.take().expect("a pipe");
    output.read_to_string(&mut report).expect("the report");
    let code = child.wait().expect("an end").code();
    (report.replace("\n    ", " "), code)
}

#[test]
fn ctrl_c_ends_the_run_with_its_report() {
    for (name, code) in [("-INT", 130), ("-TERM", 143)] {
        let (child, progress) = started(&["-t", "600", "--no-failover"], "IOPS");
        signal(&child, name);
        let (report, exit) = ended(child, progress);
        assert_eq!(exit, Some(code));
        for text in ["longest gap", "no error", "INTERRUPTED after"] {
            assert!(report.contains(text), "{text}: {report}");
        }
    }
}

/// A target in this process, which can go for good.
fn start_target(namespaces: usize) -> TestTarget {
    target_on(None, namespaces)
}

/// On a core, if one is named.
fn target_on(core: Option<usize>, namespaces: usize) -> TestTarget {
    let mut group = Group::new();
    let after = Duration::from_micros(50);
    let reactor = group.add_reactor(core, Idle::Park { after });
    let handle = target::install(&mut group, &[reactor]);
    let memory = Backend::Memory { bytes: 4 << 20 };
    let running = group.start().expect("the target starts");
    TestTarget::serve(handle, running, &vec![memory; namespaces])
}

fn trid(target: &TestTarget) -> String {
    let port = target.addr.port();
    format!("traddr:127.0.0.1 trsvcid:{port} subnqn:{NQN}")
}

/// Its only path goes and does not come back: the rest of the time to run is in the figures.
#[test]
fn an_outage_that_does_not_end_is_in_the_figures() {
    let target = start_target(1);
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("run-outage.json");
    let file = path.to_str().expect("UTF-8");
    let trid = trid(&target);
    let args = ["-r", &trid, "-q", "4", "-t", "5", "--json", file];
    let (child, mut progress) = started(&args, "IOPS");
    target.unlisten(target.addr);
    let mut lines = String::new();
    progress.read_to_string(&mut lines).expect("text");
    assert!(lines.contains("all paths lost, 4 I/Os wait"), "{lines}");
    assert!(lines.contains("the time is up: waiting for"), "{lines}");
    let (report, exit) = ended(child, progress);
    assert_eq!(exit, Some(1));
    let json: Value =
        serde_json::from_str(&fs::read_to_string(&path).expect("a file")).expect("JSON");
    // The first I/O starts a moment after the run.
    assert!(json["seconds"].as_f64() > Some(4.5), "{json:#}");
    assert_eq!(
        (&json["unfinished"]["count"], &json["errors"]),
        (&4.into(), &0.into())
    );
    // The path went in the second second.
    let outage_ns = 2_500_000_000;
    assert!(
        json["longest_gap_ns"].as_u64() > Some(outage_ns),
        "{json:#}"
    );
    assert_eq!(json["longest_gap"]["open"], true);
    assert!(
        json["latency_ns"]["max"].as_u64() > Some(outage_ns),
        "{json:#}"
    );
    let bounds = json["latency_lower_bounds"].as_array().expect("a list");
    assert!(
        bounds.contains(&"max".into()) && !bounds.contains(&"p50".into()),
        "{json:#}"
    );
    let event = &json["path_events"][0];
    assert_eq!(
        (&event["to"], &event["pause_open"]),
        (&"disconnected".into(), &true.into())
    );
    assert!(event["pause_ns"].as_u64() > Some(outage_ns), "{json:#}");
    assert!(json["socket_calls_per_io"].as_f64() > Some(0.0), "{json:#}");
    for text in ["UNFINISHED: 4 of", "4 of", "I/Os lost", ">="] {
        assert!(report.contains(text), "{text}: {report}");
    }
}

/// With a deadline I/O does not wait for a path for ever: it fails, and that is no IOPS.
#[test]
fn io_that_misses_its_deadline_fails() {
    let target = start_target(1);
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("run-deadline.json");
    let file = path.to_str().expect("UTF-8");
    let trid = trid(&target).replace("127.0.0.1", "localhost");
    let args = ["-r", &trid, "-q", "4", "-t", "3"];
    let args = [&args[..], &["--io-timeout", "0.3", "--json", file]].concat();
    let (child, progress) = started(&args, "IOPS");
    target.unlisten(target.addr);
    let (report, exit) = ended(child, progress);
    assert_eq!(exit, Some(1), "{report}");
    assert!(report.contains("deadline passed"), "{report}");
    let json = fs::read_to_string(&path).expect("a file");
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["unfinished"]["count"], 0, "{json:#}");
    assert!(json["errors"].as_u64() >= Some(4), "{json:#}");
    let failed = &json["failed_latency_ns"];
    assert!(failed["p50"].as_u64() >= Some(299_000_000), "{json:#}");
    let iops = json["iops"].as_f64().expect("a number");
    let bytes = json["bytes_per_sec"].as_f64().expect("a number");
    assert!((bytes / 4096.0 - iops).abs() < 1.0, "{json:#}");
    assert!(
        json["longest_gap_ns"].as_u64() > Some(1_000_000_000),
        "{json:#}"
    );
}

#[test]
fn ctrl_c_does_not_wait_for_what_will_not_end() {
    let target = start_target(1);
    let trid = trid(&target);
    let args = ["-r", &trid, "-q", "4", "-t", "600"];
    let (child, mut progress) = started(&args, "IOPS");
    target.unlisten(target.addr);
    let mut line = String::new();
    while !line.contains("I/Os wait") {
        line.clear();
        assert!(progress.read_line(&mut line).expect("a line") > 0);
    }
    signal(&child, "-INT");
    let (report, exit) = ended(child, progress);
    assert_eq!(exit, Some(130), "{report}");
    for text in ["INTERRUPTED after", "UNFINISHED: 4 of"] {
        assert!(report.contains(text), "{text}: {report}");
    }
}

#[test]
fn ctrl_c_ends_an_attach_that_hangs() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("an address").port();
    let trid = format!("traddr:127.0.0.1 trsvcid:{port} subnqn:{NQN}");
    let mut child = Command::new(BINARY)
        .args(["-r", &trid, "--connect-timeout", "3600"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let _connection = silent.accept().expect("it connects");
    signal(&child, "-INT");
    let mut progress = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut error = String::new();
    progress.read_to_string(&mut error).expect("text");
    assert_eq!(child.wait().expect("an end").code(), Some(130), "{error}");
    assert!(error.contains("interrupted before all paths"), "{error}");
}

#[test]
fn results_go_to_standard_output_where_that_is_asked_for() {
    let output = run(&["-t", "0.2", "--no-failover", "--json", "-"]);
    assert!(output.status.success(), "{output:?}");
    let json: Value = serde_json::from_slice(&output.stdout).expect("nothing but JSON");
    assert_eq!(json["interrupted"], false);
    assert!(String::from_utf8_lossy(&output.stderr).contains("no error"));
    assert!(!PathBuf::from("-").exists());
}

#[test]
fn a_run_that_fails_leaves_no_file() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("run-nothing");
    fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("out.json");
    let trid = format!("traddr:127.0.0.1 trsvcid:1 subnqn:{NQN}");
    let output = run(&["-r", &trid, "--json", file.to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(fs::read_dir(&folder).expect("the folder").count(), 0);
}

#[test]
fn one_of_several_namespaces_is_taken() {
    let target = start_target(2);
    let trid = trid(&target);
    let args = |nsid| ["-r", &trid, "--nsid", nsid, "-t", "0.2"];
    let (json, text) = measured("run-nsid.json", &args("2"));
    assert_eq!(json["options"]["nsid"], 2);
    assert!(text.contains("namespace 2 of 2"), "{text}");
    let (json, _) = measured("run-no-nsid.json", &["-r", &trid, "-t", "0.2"]);
    assert_eq!(json["options"]["nsid"], 1);
    let output = run(&args("7"));
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        error.contains("--nsid 7") && error.contains("1, 2"),
        "{error}"
    );
}

#[test]
fn a_target_on_the_same_core_is_a_doubt() {
    let cores = pollux_reactor::available_cores();
    let core = *cores.last().expect("a core");
    let target = target_on(Some(core), 1);
    let (trid, core) = (trid(&target), core.to_string());
    let args = [
        "-r", &trid, "-m", &core, "-q", "2", "--ios", "50", "-t", "300",
    ];
    let (json, text) = measured("run-same-core.json", &args);
    let doubt = format!("has a thread pinned to core {core} of this host");
    assert!(text.contains(&doubt), "{text}");
    let controller = &json["target"]["controllers"][0];
    for name in ["model", "serial", "firmware"] {
        let value = controller[name].as_str().expect("a text");
        assert!(!value.is_empty(), "{controller}");
    }
}

#[test]
fn a_depth_that_cannot_be_is_a_doubt() {
    let args = ["--no-failover", "-t", "300", "-q"];
    let (_, text) = measured(
        "run-no-depth.json",
        &[&args[..], &["64", "--ios", "10"]].concat(),
    );
    assert!(text.contains("depth 64 was never reached"), "{text}");
    let deep = ["3000", "-o", "512", "--ios", "6000"];
    let (_, text) = measured("run-deep.json", &[&args[..], &deep].concat());
    assert!(text.contains("3000 are to be in flight"), "{text}");
    assert!(!text.contains("never reached"), "{text}");
    let (_, text) = measured(
        "run-depth.json",
        &[&args[..], &["8", "--ios", "100"]].concat(),
    );
    for doubt in ["never reached", "to be in flight"] {
        assert!(!text.contains(doubt), "{text}");
    }
}

#[test]
fn a_controller_that_wants_fencing_is_refused_without_keep_alive() {
    let output = run(&["--kato", "0", "--no-failover", "-t", "1"]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(
        message.contains("--kato 0") && message.contains("--fencing off"),
        "{message}"
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

/// Stopped for a while under an open loop: what was due meanwhile has waited, and is in the figures with its wait.
#[test]
fn a_stall_is_in_the_latencies_of_all_that_was_due_in_it() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("run-stall.json");
    let file = path.to_str().expect("UTF-8");
    let args = [
        "-t",
        "4",
        "--no-failover",
        "--rate",
        "1000",
        "-q",
        "32",
        "--json",
        file,
    ];
    let (child, progress) = started(&args, "IOPS");
    signal(&child, "-STOP");
    let slept = Command::new("sleep").arg("0.8").status();
    assert!(slept.expect("sleep is there").success());
    signal(&child, "-CONT");
    let (report, exit) = ended(child, progress);
    assert_eq!(exit, Some(0), "{report}");
    assert!(
        report.contains("open loop: 1,000 I/Os a second"),
        "{report}"
    );
    let json = fs::read_to_string(&path).expect("a file");
    let json: Value = serde_json::from_str(&json).expect("JSON");
    // A fifth of the run: were only what was in flight late, p90 would not show it.
    let p90 = json["latency_ns"]["p90"].as_u64();
    assert!(p90 > Some(200_000_000), "{:#}", json["latency_ns"]);
    assert!(
        json["open_loop"]["backlog_max"].as_u64() > Some(700),
        "{json:#}"
    );
    let end = json["open_loop"]["backlog_end"].as_u64();
    assert!(end < json["open_loop"]["backlog_max"].as_u64(), "{json:#}");
}

#[test]
fn results_that_cannot_be_written_are_still_shown() {
    let output = run(&["-t", "0.2", "--no-failover", "--json", "/dev/full"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("no error"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/dev/full"));
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// The bytes of each direction of each connection, by the ports, from a capture over IPv4 in which nothing is missing.
fn captured(file: &[u8]) -> BTreeMap<[u8; 4], Vec<u8>> {
    let mut streams: BTreeMap<[u8; 4], (u32, Vec<u8>)> = BTreeMap::new();
    let mut rest = &file[24..];
    while let Some((header, behind)) = rest.split_at_checked(16) {
        let len = u32::from_ne_bytes(header[8..12].try_into().expect("four bytes"));
        let (frame, behind) = behind.split_at(len.try_into().expect("a length"));
        rest = behind;
        let tcp = &frame[34..];
        let ports = tcp[..4].try_into().expect("two ports");
        let (seq, is_syn, payload) = (be32(tcp, 4), tcp[13] & 2 != 0, &tcp[20..]);
        if is_syn {
            let earlier = streams.insert(ports, (seq.wrapping_add(1), Vec::new()));
            assert!(earlier.is_none(), "a connection is written once");
            continue;
        }
        let (next, bytes) = streams.get_mut(&ports).expect("a SYN comes first");
        assert_eq!(seq, *next, "nothing is missing, nothing comes twice");
        let len = u32::try_from(payload.len()).expect("a length");
        *next = next.wrapping_add(len);
        bytes.extend_from_slice(payload);
    }
    assert!(rest.is_empty());
    streams
        .into_iter()
        .map(|(ports, (_, bytes))| (ports, bytes))
        .collect()
}

/// Types of the PDUs, which must fill the bytes exactly.
fn pdu_types(mut bytes: &[u8]) -> Vec<u8> {
    let mut types = Vec::new();
    while !bytes.is_empty() {
        types.push(bytes[0]);
        let plen = u32::from_le_bytes(bytes[4..8].try_into().expect("four bytes"));
        bytes = &bytes[plen.try_into().expect("a length")..];
    }
    types
}

#[test]
fn a_capture_holds_every_pdu_of_a_run_once() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("run.pcap");
    let file = path.to_str().expect("UTF-8");
    let args = [
        "--pcap",
        file,
        "--no-failover",
        "-w",
        "randrw",
        "--ios",
        "200",
    ];
    let sizes = ["-o", "512-128k", "-q", "4", "--ddgst"];
    let (json, _, errors) = shown("pcap.json", &[args.as_slice(), &sizes].concat());
    assert_clean(&json);
    assert!(errors.contains("packets"), "{errors}");
    assert!(!errors.contains("not in it"), "{errors}");
    let streams = captured(&fs::read(&path).expect("the file was written"));
    let pdus: Vec<Vec<u8>> = streams.values().map(|bytes| pdu_types(bytes)).collect();
    // An admin queue and an I/O queue on each of two paths.
    let count = |first| {
        pdus.iter()
            .filter(|types| types.first() == Some(&first))
            .count()
    };
    assert_eq!((pdus.len(), count(0), count(1)), (8, 4, 4), "ICReq, ICResp");
    let commands = pdus.iter().flatten().filter(|&&pdu| pdu == 4).count();
    let submitted = json["submitted"].as_u64().expect("a number");
    assert!(commands as u64 >= submitted + 8, "{commands} capsules");
    let data_in = pdus.iter().flatten().filter(|&&pdu| pdu == 7).count();
    assert!(data_in > 0, "reads bring data");
}

#[test]
fn a_capture_that_cannot_be_written_is_an_error_before_the_run() {
    let output = run(&["--pcap", "/nowhere/run.pcap", "--ios", "1"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("--pcap /nowhere/run.pcap"), "{errors}");
    // What does not fit is counted, and the run goes on.
    let limited = "ulimit -f 64; exec \"$0\" --pcap \"$1\" --no-failover --ios 200 -t 60";
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("limited.pcap");
    let output = Command::new("sh")
        .args(["-c", limited, BINARY])
        .arg(&path)
        .output()
        .expect("the shell starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert!(errors.contains("packets are not in it"), "{errors}");
    assert!(
        errors.contains("could not be written to its end"),
        "{errors}"
    );
}
