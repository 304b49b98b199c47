//! `serve` as its clients see it, against a target in this process.

#![expect(clippy::expect_used, reason = "a test that cannot go on panics")]

use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pollux_nvme_tcp::target::Backend;
use pollux_nvme_tcp::testing::{ManagedTarget, ManagementClient, NQN, TestTarget, socket};
use pollux_reactor::Idle;
use pollux_reactor::rpc::Config;
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_pollux-perf");

/// A target with two namespaces behind one listener.
fn start() -> TestTarget {
    let memory = Backend::Memory { bytes: 4 << 20 };
    TestTarget::start(1, &[memory.clone(), memory])
}

/// Parameters of an attach.
fn attach(addr: SocketAddr) -> Value {
    json!({
        "name": "Nvme0",
        "trtype": "tcp",
        "traddr": addr.ip().to_string(),
        "trsvcid": addr.port().to_string(),
        "subnqn": NQN,
    })
}

/// The program, and a connection to it.
struct Serve {
    child: Child,
    socket: PathBuf,
}

impl Serve {
    fn new(args: &[&str]) -> Serve {
        let socket = socket();
        let child = Command::new(BINARY)
            .args(["serve", "-z", "-r"])
            .arg(&socket)
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        Serve { child, socket }
    }

    fn client(&self) -> ManagementClient {
        ManagementClient::connect(&self.socket)
    }

    fn terminate(&self) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(status.expect("kill starts").success());
    }

    fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().expect("the program ends").code()
    }
}

/// Waits until I/O is being done.
fn await_io(client: &mut ManagementClient) {
    let mut reads = || {
        let stat = client.call("bdev_get_iostat", json!({"names": ["Nvme0n1"]}));
        stat["bdevs"][0]["num_read_ops"].as_u64().expect("a number")
    };
    let before = reads();
    while reads() < before + 100 {}
}

#[test]
fn a_run_on_all_volumes_is_answered_with_its_results() {
    let target = start();
    let mut serve = Serve::new(&["-q", "8", "-o", "4096", "-w", "verify", "-t", "1"]);
    let mut client = serve.client();
    assert_eq!(
        client.error("perform_tests", json!({})).0,
        -32602,
        "no volume"
    );
    let volumes = client.call("bdev_nvme_attach_controller", attach(target.addr));
    assert_eq!(volumes, json!(["Nvme0n1", "Nvme0n2"]));
    let result = client.call("perform_tests", json!({}));
    assert_eq!(result["core_count"], 1);
    let jobs = result["results"].as_array().expect("a list");
    assert_eq!(jobs.len(), 2);
    for (job, name) in jobs.iter().zip(["Nvme0n1", "Nvme0n2"]) {
        for (member, value) in [
            ("job", json!(name)),
            ("core_mask", json!("0x1")),
            ("workload", json!("verify")),
            ("status", json!("finished")),
            ("verify_range", json!({"start": 0, "length": 8192})),
            ("queue_depth", json!(8)),
            ("io_size", json!(4096)),
            ("io_failed", json!(0)),
            ("io_timeout", json!(0)),
        ] {
            assert_eq!(job[member], value, "{member}: {job}");
        }
        for member in [
            "runtime",
            "iops",
            "mibps",
            "avg_latency_us",
            "min_latency_us",
            "max_latency_us",
        ] {
            assert!(job[member].as_f64() > Some(0.0), "{member}: {job}");
        }
    }
    for (params, depth, size) in [
        (
            json!({"queue_depth": 2, "time_in_sec": 1, "workload_type": "randrw", "io_size": "8192", "rw_percentage": 70}),
            2,
            8192,
        ),
        (
            json!({"time_in_sec": 1, "workload_type": "randread", "io_size": 512}),
            8,
            512,
        ),
    ] {
        let result = client.call("perform_tests", &params);
        let job = &result["results"][1];
        assert_eq!(
            (&job["queue_depth"], &job["io_size"]),
            (&json!(depth), &json!(size))
        );
        assert_eq!(job["workload"], params["workload_type"]);
    }
    for bad in [
        json!({"queue_depth": 0}),
        json!({"io_size": "100"}),
        json!({"io_size": true}),
        json!({"workload_type": "scribble"}),
        json!({"rw_percentage": 50}),
        json!({"time_in_sec": 0}),
        json!({"depth": 1}),
    ] {
        assert_eq!(client.error("perform_tests", &bad).0, -32602, "{bad}");
    }
    serve.terminate();
    assert_eq!(serve.exit_code(), Some(0));
}

#[test]
fn sigterm_ends_a_run_with_its_results() {
    let target = start();
    let mut serve = Serve::new(&["-q", "4", "-w", "randread", "-t", "600"]);
    let mut client = serve.client();
    client.call("bdev_nvme_attach_controller", attach(target.addr));
    client.send("perform_tests", json!({}));
    // Another client is not held up by the run.
    await_io(&mut serve.client());
    serve.terminate();
    let answer = client.answer();
    let job = &answer["result"]["results"][0];
    assert_eq!(job["status"], "terminated", "{answer}");
    assert!(job["iops"].as_f64() > Some(0.0), "{answer}");
    assert_eq!(serve.exit_code(), Some(0));
}

#[test]
fn the_first_failed_io_ends_a_run() {
    let target = start();
    let mut serve = Serve::new(&["-q", "4", "-w", "verify", "-t", "600"]);
    let mut client = serve.client();
    client.call("bdev_nvme_attach_controller", attach(target.addr));
    client.send("perform_tests", json!({}));
    await_io(&mut serve.client());
    target.unlisten(target.addr);
    let answer = client.answer();
    assert_eq!(answer["error"]["code"], -32603, "{answer}");
    let text = answer["error"]["message"].as_str().expect("a text");
    assert!(text.contains("controller lost"), "{text}");
    // By itself, once the answer is out.
    assert_eq!(serve.exit_code(), Some(1));
}

#[test]
fn with_f_a_run_goes_on_after_failed_io() {
    let target = start();
    let mut serve = Serve::new(&["-f", "-q", "4", "-w", "verify", "-t", "3"]);
    let mut client = serve.client();
    client.call("bdev_nvme_attach_controller", attach(target.addr));
    client.send("perform_tests", json!({}));
    await_io(&mut serve.client());
    target.unlisten(target.addr);
    let answer = client.answer();
    let job = &answer["result"]["results"][0];
    assert_eq!(job["status"], "finished", "{answer}");
    assert!(job["io_failed"].as_u64() > Some(0), "{answer}");
    // Failures are no I/O that was done.
    let (iops, mibps) = (job["iops"].as_f64(), job["mibps"].as_f64());
    let ios = mibps.expect("a number") * 256.0;
    assert!((ios - iops.expect("a number")).abs() < 1.0, "{answer}");
    assert!(
        job["avg_failed_latency_us"].as_f64() > Some(0.0),
        "{answer}"
    );
    // From the first I/O, a little after the clock of the run.
    assert!(job["runtime"].as_f64() > Some(2.9), "{answer}");
    serve.terminate();
    assert_eq!(serve.exit_code(), Some(0));
}

/// What hangs is not waited for after a signal, and counts with its age.
#[test]
fn sigterm_ends_a_run_whose_io_hangs() {
    let target = start();
    let mut serve = Serve::new(&["-q", "4", "-w", "randread", "-t", "600"]);
    let mut client = serve.client();
    client.call(
        "bdev_nvme_set_options",
        json!({"reconnect_delay_sec": 1, "ctrlr_loss_timeout_sec": -1}),
    );
    client.call("bdev_nvme_attach_controller", attach(target.addr));
    client.send("perform_tests", json!({}));
    let mut other = serve.client();
    await_io(&mut other);
    target.unlisten(target.addr);
    let wait = |c: &mut ManagementClient| {
        let paths = c.call("bdev_nvme_get_io_paths", json!({}));
        paths.to_string().contains("\"connected\":true")
    };
    while wait(&mut other) {}
    serve.terminate();
    let answer = client.answer();
    for job in answer["result"]["results"].as_array().expect("a list") {
        assert_eq!(job["status"], "terminated", "{answer}");
        assert_eq!(
            (&job["io_timeout"], &job["io_failed"]),
            (&json!(4), &json!(0))
        );
        let (gap, max) = (
            job["longest_gap_us"].as_f64(),
            job["max_latency_us"].as_f64(),
        );
        // As long as the end of the run waited, at least.
        assert!(gap > Some(900_000.0) && max > Some(900_000.0), "{answer}");
    }
    assert_eq!(serve.exit_code(), Some(0));
}

/// B9.1: an I/O that no answer comes to resets its controller, and goes on when that is back; none fails.
#[test]
fn io_without_an_answer_is_a_reset() {
    let target = start();
    let mut serve = Serve::new(&["-q", "4", "-w", "verify", "-t", "2"]);
    let mut client = serve.client();
    client.call(
        "bdev_nvme_set_options",
        json!({"timeout_us": 100_000, "action_on_timeout": "reset",
                "reconnect_delay_sec": 1, "ctrlr_loss_timeout_sec": -1}),
    );
    client.call("bdev_nvme_attach_controller", attach(target.addr));
    client.send("perform_tests", json!({}));
    let mut other = serve.client();
    await_io(&mut other);
    other.call(
        "bdev_nvme_add_error_injection",
        json!({"name": "Nvme0", "cmd_type": "io", "opc": 2, "err_count": 3,
                "do_not_submit": true, "timeout_in_us": 3_600_000_000u64}),
    );
    let answer = client.answer();
    let job = &answer["result"]["results"][0];
    assert_eq!(
        (&job["status"], &job["io_failed"]),
        (&json!("finished"), &json!(0)),
        "{answer}"
    );
    let events = other.call("pollux_get_path_events", json!({"name": "Nvme0n1"}));
    let text = events.to_string();
    for words in ["overdue on I/O reactor 0", "command timeout", "reconnected"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    serve.terminate();
    assert_eq!(serve.exit_code(), Some(0));
}

/// B9.1: I/O that the medium below a namespace delays for too long is aborted at the target, and no controller is reset.
#[test]
fn io_that_is_late_is_aborted() {
    let idle = Idle::Park {
        after: Duration::from_micros(50),
    };
    let mut target = ManagedTarget::start(idle, Config::default());
    target.call("nvmf_create_transport", json!({"trtype": "tcp"}));
    let subsystem = json!({"nqn": NQN, "allow_any_host": true});
    target.call("nvmf_create_subsystem", subsystem);
    target.call(
        "bdev_malloc_create",
        json!({"name": "Malloc0", "num_blocks": 8192, "block_size": 512}),
    );
    target.call(
        "bdev_delay_create",
        json!({"name": "Late0", "base_bdev_name": "Malloc0",
                "avg_read_latency": 3_600_000_000u64, "p99_read_latency": 3_600_000_000u64,
                "avg_write_latency": 0, "p99_write_latency": 0}),
    );
    target.call(
        "nvmf_subsystem_add_ns",
        json!({"nqn": NQN, "namespace": {"bdev_name": "Late0", "nsid": 3}}),
    );
    let mut serve = Serve::new(&["-f", "-q", "2", "-w", "randread", "-t", "1"]);
    let mut client = serve.client();
    client.call(
        "bdev_nvme_set_options",
        json!({"timeout_us": 100_000, "action_on_timeout": "abort"}),
    );
    let volumes = client.call("bdev_nvme_attach_controller", attach(target.listen()));
    assert_eq!(volumes, json!(["Nvme0n3"]));
    let cntlid = |client: &mut ManagementClient| {
        let list = client.call("bdev_nvme_get_controllers", json!({}));
        list[0]["ctrlrs"][0]["cntlid"].clone()
    };
    let before = cntlid(&mut client);
    let result = client.call("perform_tests", json!({}));
    assert!(
        result["results"][0]["io_failed"].as_u64() > Some(0),
        "{result}"
    );
    let stat = client.call("bdev_get_iostat", json!({}));
    let errors = &stat["bdevs"][0]["driver_specific"]["nvme_error"]["status_code"];
    let aborted = errors["command_abort_requested"].as_u64();
    assert!(aborted > Some(0), "{stat}");
    let events = client.call("pollux_get_path_events", json!({}));
    assert!(!events.to_string().contains("lost"), "{events}");
    assert_eq!(cntlid(&mut client), before);
    serve.terminate();
    assert_eq!(serve.exit_code(), Some(0));
}

/// Without `-z` the volumes of the configuration are run on at once.
#[test]
fn a_configuration_is_run_at_once() {
    let target = start();
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("serve-config.json");
    let options = json!({"method": "bdev_nvme_set_options", "params": {"bdev_retry_count": -1}});
    let attach = json!({"method": "bdev_nvme_attach_controller", "params": attach(target.addr)});
    let config = json!({"subsystems": [{"subsystem": "bdev", "config": [options, attach]}]});
    std::fs::write(&file, config.to_string()).expect("written");
    let run = |file: &PathBuf| {
        Command::new(BINARY)
            .args(["serve", "-t", "1", "-q", "4", "-w", "verify", "--json"])
            .arg(file)
            .output()
            .expect("the program starts")
    };
    let output = run(&file);
    assert!(output.status.success(), "{output:?}");
    let result: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(result["results"][0]["status"], "finished");

    target.unlisten(target.addr);
    let output = run(&file);
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.contains("entry 2 (bdev_nvme_attach_controller)"),
        "{errors}"
    );
}

#[test]
fn methods_wait_for_the_start_where_that_is_asked_for() {
    let target = start();
    let mut serve = Serve::new(&["--wait-for-rpc", "--log-level", "warning"]);
    let mut client = serve.client();
    client.call("bdev_nvme_set_options", json!({"bdev_retry_count": 5}));
    assert_eq!(
        client
            .error("bdev_nvme_attach_controller", attach(target.addr))
            .0,
        -1
    );
    assert_eq!(client.call("log_get_print_level", json!({})), "WARNING");
    client.call("framework_start_init", json!({}));
    client.call("bdev_nvme_attach_controller", attach(target.addr));
    serve.terminate();
    assert_eq!(serve.exit_code(), Some(0));
    let mut rest = String::new();
    let errors = serve.child.stderr.as_mut().expect("a pipe");
    errors.read_to_string(&mut rest).expect("text");
    assert_eq!(rest, "");
}

#[test]
fn files_of_keys_can_be_confined_to_a_folder() {
    let folder = socket().with_extension("keys");
    std::fs::create_dir(&folder).expect("a new folder");
    let path = folder.to_str().expect("UTF-8");
    let mut serve = Serve::new(&["--files-under", path]);
    let mut client = serve.client();
    let key = json!({"name": "key0", "path": "/etc/hostname"});
    let (_, error) = client.error("keyring_file_add_key", key);
    assert!(error.contains("--files-under"), "{error}");
    serve.terminate();
    assert_eq!(serve.exit_code(), Some(0));
    std::fs::remove_dir(folder).expect("an empty folder");
}
