//! `serve` as its clients see it, against a target in this process.

#![expect(clippy::expect_used, reason = "a test that cannot go on panics")]

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pollux_nvme_tcp::spec::nqn::Nqn;
use pollux_nvme_tcp::target::{
    self, Backend, NamespaceConfig, SubsystemConfig, TargetHandle, TargetRequest, rpc,
};
use pollux_reactor::rpc::{Methods, Server};
use pollux_reactor::{Group, Idle, Running};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_pollux-perf");
const NQN: &str = "nqn.2014-08.org.example:disk1";
const PATIENCE: Duration = Duration::from_secs(60);

fn nqn() -> Nqn {
    Nqn::new(NQN).expect("an NQN")
}

/// A target with two namespaces behind one listener.
struct Target {
    handle: TargetHandle,
    addr: SocketAddr,
    /// Of its management.
    socket: PathBuf,
    running: Option<Running>,
}

impl Target {
    fn new() -> Target {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mut group = Group::new();
        let after = Duration::from_micros(50);
        let reactor = group.add_reactor(None, Idle::Park { after });
        let handle = target::install(&mut group, &[reactor]);
        let mut methods = Methods::new();
        rpc::register(&mut methods, handle.clone());
        let mut server = Server::new(methods);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("pollux-serve-target-{}-{number}", std::process::id());
        let socket = std::env::temp_dir().join(name);
        server.listen_unix(&socket).expect("a socket");
        server.install(&mut group, reactor);
        let running = group.start().expect("the target starts");
        handle
            .call(TargetRequest::create_subsystem(SubsystemConfig::new(nqn())))
            .expect("the target agrees");
        for _ in 0..2 {
            handle
                .call(TargetRequest::add_namespace(
                    nqn(),
                    None,
                    NamespaceConfig::new(Backend::Memory { bytes: 4 << 20 }, 512),
                ))
                .expect("the target agrees");
        }
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let addr = handle
            .call(TargetRequest::add_listener(nqn(), addr))
            .expect("the target agrees");
        Target {
            handle,
            addr,
            socket,
            running: Some(running),
        }
    }

    fn attach(&self) -> Value {
        json!({
            "name": "Nvme0",
            "trtype": "tcp",
            "traddr": self.addr.ip().to_string(),
            "trsvcid": self.addr.port().to_string(),
            "subnqn": NQN,
        })
    }

    fn unlisten(&self) {
        let request = TargetRequest::remove_listener(nqn(), self.addr);
        self.handle.call(request).expect("the listener goes");
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
            running.join();
        }
    }
}

/// The program, and a connection to it.
struct Serve {
    child: Child,
    socket: PathBuf,
}

impl Serve {
    fn new(name: &str, args: &[&str]) -> Serve {
        let socket =
            std::env::temp_dir().join(format!("pollux-serve-{}-{name}", std::process::id()));
        let child = Command::new(BINARY)
            .args(["serve", "-z", "-r"])
            .arg(&socket)
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        while !socket.exists() {
            std::thread::yield_now();
        }
        Serve { child, socket }
    }

    fn client(&self) -> Client {
        Client::connect(&self.socket)
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

struct Client(pollux_reactor::rpc::Client);

impl Client {
    fn connect(socket: &Path) -> Client {
        // The file is there a moment before the socket listens.
        loop {
            if let Ok(client) = pollux_reactor::rpc::Client::connect(socket, Some(PATIENCE)) {
                return Client(client);
            }
        }
    }

    fn send(&mut self, method: &str, params: &Value) {
        self.0.send(method, Some(params.clone())).expect("sent");
    }

    fn answer(&mut self) -> Value {
        self.0.answer().expect("an answer")
    }

    fn call(&mut self, method: &str, params: &Value) -> Value {
        self.0.call(method, Some(params.clone())).expect(method)
    }

    fn code(&mut self, method: &str, params: &Value) -> i64 {
        self.send(method, params);
        let answer = self.answer();
        answer["error"]["code"].as_i64().expect("an error")
    }

    /// Until I/O is being done.
    fn await_io(&mut self) {
        let reads = |c: &mut Client| {
            let stat = c.call("bdev_get_iostat", &json!({"names": ["Nvme0n1"]}));
            stat["bdevs"][0]["num_read_ops"].as_u64().expect("a number")
        };
        let before = reads(self);
        while reads(self) < before + 100 {}
    }
}

#[test]
fn a_run_on_all_volumes_is_answered_with_its_results() {
    let target = Target::new();
    let mut serve = Serve::new("run", &["-q", "8", "-o", "4096", "-w", "verify", "-t", "1"]);
    let mut client = serve.client();
    assert_eq!(
        client.code("perform_tests", &json!({})),
        -32602,
        "no volume"
    );
    let volumes = client.call("bdev_nvme_attach_controller", &target.attach());
    assert_eq!(volumes, json!(["Nvme0n1", "Nvme0n2"]));
    let result = client.call("perform_tests", &json!({}));
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
        assert_eq!(client.code("perform_tests", &bad), -32602, "{bad}");
    }
    serve.terminate();
    assert_eq!(serve.exit_code(), Some(0));
}

#[test]
fn sigterm_ends_a_run_with_its_results() {
    let target = Target::new();
    let mut serve = Serve::new("term", &["-q", "4", "-w", "randread", "-t", "600"]);
    let mut client = serve.client();
    client.call("bdev_nvme_attach_controller", &target.attach());
    client.send("perform_tests", &json!({}));
    // Another client is not held up by the run.
    serve.client().await_io();
    serve.terminate();
    let answer = client.answer();
    let job = &answer["result"]["results"][0];
    assert_eq!(job["status"], "terminated", "{answer}");
    assert!(job["iops"].as_f64() > Some(0.0), "{answer}");
    assert_eq!(serve.exit_code(), Some(0));
}

#[test]
fn the_first_failed_io_ends_a_run() {
    let target = Target::new();
    let mut serve = Serve::new("fail", &["-q", "4", "-w", "verify", "-t", "600"]);
    let mut client = serve.client();
    client.call("bdev_nvme_attach_controller", &target.attach());
    client.send("perform_tests", &json!({}));
    serve.client().await_io();
    target.unlisten();
    let answer = client.answer();
    assert_eq!(answer["error"]["code"], -32603, "{answer}");
    let text = answer["error"]["message"].as_str().expect("a text");
    assert!(text.contains("controller lost"), "{text}");
    // By itself, once the answer is out.
    assert_eq!(serve.exit_code(), Some(1));
}

#[test]
fn with_f_a_run_goes_on_after_failed_io() {
    let target = Target::new();
    let mut serve = Serve::new("go-on", &["-f", "-q", "4", "-w", "verify", "-t", "3"]);
    let mut client = serve.client();
    client.call("bdev_nvme_attach_controller", &target.attach());
    client.send("perform_tests", &json!({}));
    serve.client().await_io();
    target.unlisten();
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
    let target = Target::new();
    let mut serve = Serve::new("hang", &["-q", "4", "-w", "randread", "-t", "600"]);
    let mut client = serve.client();
    client.call(
        "bdev_nvme_set_options",
        &json!({"reconnect_delay_sec": 1, "ctrlr_loss_timeout_sec": -1}),
    );
    client.call("bdev_nvme_attach_controller", &target.attach());
    client.send("perform_tests", &json!({}));
    let mut other = serve.client();
    other.await_io();
    target.unlisten();
    let wait = |c: &mut Client| {
        let paths = c.call("bdev_nvme_get_io_paths", &json!({}));
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
    let target = Target::new();
    let mut serve = Serve::new("overdue", &["-q", "4", "-w", "verify", "-t", "2"]);
    let mut client = serve.client();
    client.call(
        "bdev_nvme_set_options",
        &json!({"timeout_us": 100_000, "action_on_timeout": "reset",
                "reconnect_delay_sec": 1, "ctrlr_loss_timeout_sec": -1}),
    );
    client.call("bdev_nvme_attach_controller", &target.attach());
    client.send("perform_tests", &json!({}));
    let mut other = serve.client();
    other.await_io();
    other.call(
        "bdev_nvme_add_error_injection",
        &json!({"name": "Nvme0", "cmd_type": "io", "opc": 2, "err_count": 3,
                "do_not_submit": true, "timeout_in_us": 3_600_000_000u64}),
    );
    let answer = client.answer();
    let job = &answer["result"]["results"][0];
    assert_eq!(
        (&job["status"], &job["io_failed"]),
        (&json!("finished"), &json!(0)),
        "{answer}"
    );
    let events = other.call("pollux_get_path_events", &json!({"name": "Nvme0n1"}));
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
    let target = Target::new();
    let mut manage = Client::connect(&target.socket);
    manage.call(
        "bdev_malloc_create",
        &json!({"name": "Malloc0", "num_blocks": 8192, "block_size": 512}),
    );
    manage.call(
        "bdev_delay_create",
        &json!({"name": "Late0", "base_bdev_name": "Malloc0",
                "avg_read_latency": 3_600_000_000u64, "p99_read_latency": 3_600_000_000u64,
                "avg_write_latency": 0, "p99_write_latency": 0}),
    );
    manage.call(
        "nvmf_subsystem_add_ns",
        &json!({"nqn": NQN, "namespace": {"bdev_name": "Late0", "nsid": 3}}),
    );
    for nsid in [1, 2] {
        let request = TargetRequest::remove_namespace(nqn(), nsid);
        target.handle.call(request).expect("it goes");
    }
    let mut serve = Serve::new("late", &["-f", "-q", "2", "-w", "randread", "-t", "1"]);
    let mut client = serve.client();
    client.call(
        "bdev_nvme_set_options",
        &json!({"timeout_us": 100_000, "action_on_timeout": "abort"}),
    );
    let volumes = client.call("bdev_nvme_attach_controller", &target.attach());
    assert_eq!(volumes, json!(["Nvme0n3"]));
    let cntlid = |client: &mut Client| {
        let list = client.call("bdev_nvme_get_controllers", &json!({}));
        list[0]["ctrlrs"][0]["cntlid"].clone()
    };
    let before = cntlid(&mut client);
    let result = client.call("perform_tests", &json!({}));
    assert!(
        result["results"][0]["io_failed"].as_u64() > Some(0),
        "{result}"
    );
    let stat = client.call("bdev_get_iostat", &json!({}));
    let errors = &stat["bdevs"][0]["driver_specific"]["nvme_error"]["status_code"];
    let aborted = errors["command_abort_requested"].as_u64();
    assert!(aborted > Some(0), "{stat}");
    let events = client.call("pollux_get_path_events", &json!({}));
    assert!(!events.to_string().contains("lost"), "{events}");
    assert_eq!(cntlid(&mut client), before);
    serve.terminate();
    assert_eq!(serve.exit_code(), Some(0));
}

/// Without `-z` the volumes of the configuration are run on at once.
#[test]
fn a_configuration_is_run_at_once() {
    let target = Target::new();
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("serve-config.json");
    let options = json!({"method": "bdev_nvme_set_options", "params": {"bdev_retry_count": -1}});
    let attach = json!({"method": "bdev_nvme_attach_controller", "params": target.attach()});
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

    target.unlisten();
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
    let target = Target::new();
    let mut serve = Serve::new("wait", &["--wait-for-rpc", "--log-level", "warning"]);
    let mut client = serve.client();
    client.call("bdev_nvme_set_options", &json!({"bdev_retry_count": 5}));
    assert_eq!(
        client.code("bdev_nvme_attach_controller", &target.attach()),
        -1
    );
    assert_eq!(client.call("log_get_print_level", &json!({})), "WARNING");
    client.call("framework_start_init", &json!({}));
    client.call("bdev_nvme_attach_controller", &target.attach());
    serve.terminate();
    assert_eq!(serve.exit_code(), Some(0));
    let mut rest = String::new();
    let errors = serve.child.stderr.as_mut().expect("a pipe");
    errors.read_to_string(&mut rest).expect("text");
    assert_eq!(rest, "");
}
