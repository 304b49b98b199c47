//! Several jobs in one run: on several volumes and queue pairs, from the command line and from a file.

#![expect(clippy::expect_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use pollux_nvme_tcp::spec::nqn::Nqn;
use pollux_nvme_tcp::target::{self, Backend, NamespaceConfig, SubsystemConfig};
use pollux_reactor::{Group, Idle, Running};
use serde_json::Value;

fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    // What an earlier run has left is not to be taken for this one's.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

fn perf(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pollux-perf"))
        .args(args)
        .current_dir(folder)
        .output()
        .expect("the program starts")
}

/// Runs to success; the result and the table.
fn measured(folder: &Path, args: &[&str]) -> (Value, String) {
    let output = perf(folder, &[args, &["--json", "result.json"]].concat());
    let text = String::from_utf8_lossy(&output.stdout).replace("\n    ", " ");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    let json = fs::read_to_string(folder.join("result.json")).expect("a file");
    (serde_json::from_str(&json).expect("JSON"), text)
}

#[test]
fn every_volume_and_queue_pair_has_its_jobs() {
    let (json, text) = measured(
        &folder("jobs-many"),
        &[
            "--namespace=memory:1m",
            "--namespace=memory:1m",
            "--nsid=all",
            "--numjobs=3",
            "-P2",
            "-q4",
            "--ios=50",
            "-t300",
            "--no-failover",
        ],
    );
    assert_eq!(json["completed"], 50 * 2 * 3 * 2, "{text}");
    assert_eq!(json["errors"], 0);
    assert_eq!(json["target"]["volumes"][1]["nsid"], 2);
    assert_eq!(json["options"]["volumes"], 2);
    for part in ["depth 4 in each of 3 jobs", "2 volumes", "2 queue pairs"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

const PROFILE: &str = r#"
[global]
runtime = 300
no_failover = true
namespace = ["memory:1m", "memory:1m"]

[job.reads]
rw = "randread"
iodepth = 2
nsid = 1
ios = 300

[job.checks]
rw = "verify"
nsid = 2
ios = 100
"#;

#[test]
fn jobs_of_a_file_run_at_the_same_time_and_are_told_apart() {
    let folder = folder("jobs-file");
    fs::write(folder.join("jobs.toml"), PROFILE).expect("written");
    let args = ["--profile", "jobs.toml", "--seed", "4"];
    let (json, text) = measured(&folder, &args);
    assert_eq!(
        (&json["errors"], &json["miscompares"]),
        (&0.into(), &0.into())
    );
    let jobs = json["jobs"].as_array().expect("a list");
    let [reads, checks] = &jobs[..] else {
        panic!("{jobs:?}");
    };
    assert_eq!(
        (&reads["name"], &reads["reads"]),
        (&"reads".into(), &300.into())
    );
    assert_eq!(reads["options"]["workload"], "randread");
    assert_eq!(checks["name"], "checks");
    let of = |job: &Value, name: &str| job[name].as_u64().expect("a count");
    assert!(of(checks, "writes") > 0, "{checks}");
    let all = |name| of(reads, name) + of(checks, name);
    assert_eq!(json["reads"], all("reads"));
    assert_eq!(json["writes"], all("writes"));
    for part in ["2 jobs, 2 volumes", "reads: randread 4 KiB, depth 2"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // The command line has the last word.
    let (json, _) = measured(
        &folder,
        &[&args[..], &["--ios", "7", "-w", "read"]].concat(),
    );
    assert_eq!(json["completed"], 14);
    // Saved jobs are told apart by fio's readers too, and one workload from another.
    let output = perf(&folder, &[&args[..], &["--output-format", "fio"]].concat());
    let fio: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(fio["jobs"][0]["jobname"], "reads");
    assert_eq!(fio["jobs"][0]["read"]["total_ios"], 300);
    assert_eq!(fio["jobs"][1]["job options"]["rw"], "verify");
}

#[test]
fn jobs_that_cannot_be_are_named() {
    let folder = folder("jobs-wrong");
    for (profile, args, wanted) in [
        (
            "[job.a]\n[job.b]\nruntime = 1\n",
            &[][..],
            &["line 2", "jobs a and b", "time"][..],
        ),
        ("[job.a]\nnumjob = 1\n", &[], &["line 2", "'numjobs'"]),
        (
            "[job.a]\nrw = \"verify\"\n[job.b]\nrw = \"write\"\n",
            &[],
            &["job a verifies volume perfn1", "job b writes"],
        ),
        ("[job.a]\nnsid = 2\n", &[], &["--nsid 2"]),
        ("[job.a]\n", &["--nsid", "diskn1"], &["diskn1", "perfn1"]),
        ("[job.a]\n", &["-w", "rw", "--ios", "0"], &["'0'"]),
    ] {
        fs::write(folder.join("jobs.toml"), profile).expect("written");
        let all = [&["--profile", "jobs.toml", "-t", "300"], args].concat();
        let all = if profile.contains("runtime") {
            &all[..2]
        } else {
            &all[..]
        };
        let output = perf(&folder, all);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{profile}: {error}");
        for part in wanted {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}

/// A target behind a door that counts who comes in.
struct Counted {
    running: Option<Running>,
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

const NQN: &str = "nqn.2026-01.io.pollux:counted";

impl Counted {
    fn new() -> Self {
        let mut group = Group::new();
        let reactor = group.add_reactor(None, Idle::Yield);
        let handle = target::install(&mut group, &[reactor]);
        let running = group.start().expect("a reactor");
        let nqn = Nqn::new(NQN).expect("an NQN");
        let backend = Backend::Null { bytes: 1 << 20 };
        handle
            .create_subsystem(SubsystemConfig::new(nqn.clone()))
            .expect("a subsystem");
        handle
            .add_namespace(&nqn, NamespaceConfig::new(backend, 512))
            .expect("a namespace");
        let inside = handle
            .add_listener(&nqn, "127.0.0.1:0".parse().expect("an address"))
            .expect("a listener");
        let door = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = door.local_addr().expect("an address");
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        thread::spawn(move || {
            for outer in door.incoming().flatten() {
                counter.fetch_add(1, Ordering::Relaxed);
                let inner = TcpStream::connect(inside).expect("the target");
                let clones = (
                    outer.try_clone().expect("a descriptor"),
                    inner.try_clone().expect("a descriptor"),
                );
                thread::spawn(move || pass(outer, inner));
                thread::spawn(move || pass(clones.1, clones.0));
            }
        });
        Self {
            running: Some(running),
            address,
            connections,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
            running.join();
        }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 65_536];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    // Whoever is gone already needs no end.
    let _ = to.shutdown(Shutdown::Write);
}

#[test]
fn a_reactor_has_as_many_queue_pairs_as_are_asked_for() {
    let target = Counted::new();
    let address = target.address;
    let trid = format!(
        "traddr:{} trsvcid:{} subnqn:{NQN}",
        address.ip(),
        address.port()
    );
    let (json, _) = measured(
        &folder("jobs-qpairs"),
        &[
            "-r", &trid, "-P", "3", "-q", "6", "--ios", "20", "-t", "300",
        ],
    );
    assert_eq!(json["completed"], 60);
    let connections = target.connections.load(Ordering::Relaxed);
    assert_eq!(connections, 1 + 3, "one for admin, and the queue pairs");
}
