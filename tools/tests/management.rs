//! `pollux target` and `pollux host` under management, as processes: socket, configuration, `pollux rpc`, the end.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

/// A directory that goes with the test.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let dir = format!("pollux-managed-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(dir);
        std::fs::create_dir(&path).unwrap();
        Dir(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // What is left over is in the temporary directory anyway.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn pollux(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pollux"));
    command.args(args).stdin(Stdio::null());
    command
}

/// A program that is managed at a socket.
struct Managed {
    child: Child,
    socket: String,
}

impl Managed {
    /// Starts it and waits until it answers.
    fn start(args: &[&str], socket: &str) -> Managed {
        Managed::start_with(args, socket, Stdio::inherit())
    }

    fn start_with(args: &[&str], socket: &str, stderr: Stdio) -> Managed {
        let mut command = pollux(args);
        let child = command.args(["-r", socket]).stderr(stderr).spawn().unwrap();
        let mut managed = Managed {
            child,
            socket: socket.to_owned(),
        };
        while managed.try_call("rpc_get_methods", "{}").0 != Some(0) {
            let ended = managed.child.try_wait().unwrap();
            assert!(ended.is_none(), "ended at its start: {ended:?}");
        }
        managed
    }

    /// Exit code, and what was printed.
    fn try_call(&self, method: &str, params: &str) -> (Option<i32>, String, String) {
        finish(&["rpc", method, params, "-r", &self.socket])
    }

    fn call(&self, method: &str, params: &Value) -> Value {
        let (code, out, err) = self.try_call(method, &params.to_string());
        assert_eq!(code, Some(0), "{method}: {err}");
        serde_json::from_str(&out).unwrap()
    }

    fn error(&self, method: &str, params: &Value) -> String {
        let (code, out, err) = self.try_call(method, &params.to_string());
        assert_eq!(code, Some(1), "{method}: {out}");
        err
    }

    fn end(mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        let kill = Command::new("kill").args(["-TERM", &id]).status();
        assert!(kill.unwrap().success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Managed {
    fn drop(&mut self) {
        // It has ended already if the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn finish(args: &[&str]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = pollux(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn a_target_is_set_up_used_and_ended() {
    let dir = Dir::new("target");
    let socket = dir.file("target.sock");
    let target = Managed::start(&["target"], &socket);
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // It starts empty: nothing but discovery.
    let subsystems = target.call("nvmf_get_subsystems", &json!({}));
    assert_eq!(subsystems.as_array().unwrap().len(), 1);
    let nqn = "nqn.2014-08.org.example:disk";
    target.call("nvmf_create_transport", &json!({"trtype": "tcp"}));
    let disk = json!({"name": "Malloc0", "num_blocks": 2048, "block_size": 512});
    target.call("bdev_malloc_create", &disk);
    target.call(
        "nvmf_create_subsystem",
        &json!({"nqn": nqn, "allow_any_host": true}),
    );
    let namespace = json!({"nqn": nqn, "namespace": {"bdev_name": "Malloc0"}});
    assert_eq!(target.call("nvmf_subsystem_add_ns", &namespace), 1);
    let free = json!({"trtype": "tcp", "traddr": "127.0.0.1", "trsvcid": "0"});
    let listener = json!({"nqn": nqn, "listen_address": free});
    target.call("nvmf_subsystem_add_listener", &listener);
    let listeners = target.call("nvmf_subsystem_get_listeners", &json!({"nqn": nqn}));

    let host_socket = dir.file("host.sock");
    let host = Managed::start(&["host"], &host_socket);
    let mut attach = listeners[0]["address"].clone();
    attach["name"] = "disk".into();
    attach["subnqn"] = nqn.into();
    let names = host.call("bdev_nvme_attach_controller", &attach);
    assert_eq!(names, json!(["diskn1"]));
    let controllers = target.call("nvmf_subsystem_get_controllers", &json!({"nqn": nqn}));
    assert_eq!(controllers.as_array().unwrap().len(), 1);
    assert_eq!(host.end(), Some(0));

    // A second one at the same socket is refused, and does the first no harm.
    let (code, _, text) = finish(&["target", "-r", &socket]);
    assert_eq!(code, Some(1));
    assert!(text.contains("somebody listens"), "{text}");
    let (code, _, text) = target.try_call("nvmf_delete_subsystem", "{\"nqn\": 1}");
    assert_eq!(code, Some(1));
    assert!(text.contains("-32602") && text.contains("'nqn'"), "{text}");
    let (code, _, text) = target.try_call("nvmf_delete_subsystem", "[1]");
    assert_eq!(code, Some(2), "{text}");
    assert_eq!(target.end(), Some(0));
    assert!(!Path::new(&socket).exists() && !Path::new(&host_socket).exists());
    let (code, _, text) = finish(&["rpc", "rpc_get_methods", "-r", &socket]);
    assert_eq!(code, Some(1));
    assert!(text.contains(&socket), "{text}");
}

#[test]
fn a_configuration_is_loaded_or_says_what_is_wrong() {
    let dir = Dir::new("config");
    let (socket, file) = (dir.file("target.sock"), dir.file("config.json"));
    let config = |method: &str, blocks: u64| {
        let params = json!({"name": "a", "num_blocks": blocks, "block_size": 512});
        let call = json!({"method": method, "params": params});
        json!({"subsystems": [{"subsystem": "bdev", "config": [call]}]}).to_string()
    };
    for (text, words) in [
        ("{\n  \"subsystems\": [}".to_owned(), "line 2"),
        (config("bdev_mallloc_create", 8), "bdev_mallloc_create"),
        (
            config("bdev_malloc_create", 0),
            "entry 1 (bdev_malloc_create)",
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        let (code, _, text) = finish(&["target", "-r", &socket, "-c", &file]);
        assert_eq!(code, Some(1));
        assert!(text.contains(words), "{text}");
        assert!(!Path::new(&socket).exists());
    }
    let ignored = Managed::start(&["target", "-c", &file, "--ignore-config-errors"], &socket);
    assert_eq!(ignored.call("bdev_get_bdevs", &json!({})), json!([]));
    assert_eq!(ignored.end(), Some(0));

    std::fs::write(&file, config("bdev_malloc_create", 8)).unwrap();
    let target = Managed::start(&["target", "--json", &file, "--wait-for-rpc"], &socket);
    let (code, _, text) = target.try_call("bdev_get_bdevs", "{}");
    assert_eq!(code, Some(1), "{text}");
    target.call("framework_start_init", &json!({}));
    assert_eq!(target.call("bdev_get_bdevs", &json!({}))[0]["name"], "a");
    assert_eq!(
        target.call("spdk_kill_instance", &json!({"sig_name": "SIGTERM"})),
        true
    );
    let mut target = target;
    assert_eq!(target.child.wait().unwrap().code(), Some(0));
}

/// A target with one disk and one listener; what an attach to it takes.
fn target_with_a_disk(socket: &str, nqn: &str) -> (Managed, Value) {
    let target = Managed::start(&["target"], socket);
    target.call("nvmf_create_transport", &json!({"trtype": "tcp"}));
    let disk = json!({"name": "Malloc0", "num_blocks": 2048, "block_size": 512});
    target.call("bdev_malloc_create", &disk);
    let subsystem = json!({"nqn": nqn, "allow_any_host": true, "ana_reporting": true});
    target.call("nvmf_create_subsystem", &subsystem);
    let namespace = json!({"nqn": nqn, "namespace": {"bdev_name": "Malloc0"}});
    target.call("nvmf_subsystem_add_ns", &namespace);
    let free = json!({"trtype": "tcp", "traddr": "127.0.0.1", "trsvcid": "0"});
    let listener = json!({"nqn": nqn, "listen_address": free});
    target.call("nvmf_subsystem_add_listener", &listener);
    let listeners = target.call("nvmf_subsystem_get_listeners", &json!({"nqn": nqn}));
    let mut attach = listeners[0]["address"].clone();
    attach["name"] = "disk".into();
    attach["subnqn"] = nqn.into();
    (target, attach)
}

#[test]
fn a_program_says_what_has_happened_and_is_told_how_much() {
    let dir = Dir::new("log");
    let nqn = "nqn.2014-08.org.example:log";
    let (target, attach) = target_with_a_disk(&dir.file("target.sock"), nqn);
    let file = dir.file("stderr");
    let log = || std::fs::read_to_string(&file).unwrap();
    let stderr = std::fs::File::create(&file).unwrap().into();
    let host = Managed::start_with(&["host"], &dir.file("host.sock"), stderr);
    // Lines are written soon, not at once. The calls in between are what there is to wait for.
    let await_line = |words: &str| {
        while !log().contains(words) {
            host.call("spdk_get_version", &json!({}));
        }
    };
    host.call("bdev_nvme_attach_controller", &attach);
    let addr = format!("127.0.0.1:{}", attach["trsvcid"].as_str().unwrap());
    await_line(&format!(
        "NOTICE bdev_nvme: disk {addr}: attached, controller"
    ));

    let level = |name: &str| json!({"level": name});
    assert_eq!(host.call("log_get_print_level", &json!({})), "NOTICE");
    assert!(
        host.error("log_set_print_level", &level("LOUD"))
            .contains("-32602")
    );
    assert!(host.error("log_set_level", &json!({})).contains("-32602"));
    assert!(
        host.error("log_set_flag", &json!({"flag": "nvmf"}))
            .contains("one of bdev_nvme")
    );
    host.call("log_set_flag", &json!({"flag": "all"}));
    host.call("log_clear_flag", &json!({"flag": "nvme"}));
    let flags = json!({"bdev_nvme": true, "nvme": false, "rpc": true});
    assert_eq!(host.call("log_get_flags", &json!({})), flags);
    assert!(
        !log().contains("INFO") && !log().contains("DEBUG"),
        "{}",
        log()
    );
    host.call("log_set_print_level", &level("DEBUG"));
    assert_eq!(host.call("log_get_print_level", &json!({})), "DEBUG");
    await_line(": log_get_print_level");
    host.error("log_set_level", &level("debug"));
    await_line("INFO rpc: request");
    host.call("log_set_level", &level("WARNING"));
    assert_eq!(host.call("log_get_level", &json!({})), "WARNING");

    assert_eq!(target.end(), Some(0));
    await_line(&format!("WARNING bdev_nvme: disk {addr}: lost: "));
    host.call("log_set_level", &level("NOTICE"));
    assert_eq!(host.end(), Some(0));
    let last = log().lines().last().unwrap_or_default().to_owned();
    assert!(last.ends_with(&format!("disk {addr}: detached")), "{last}");
}

#[test]
fn every_program_tells_how_its_reactors_are() {
    let dir = Dir::new("reactors");
    for program in ["target", "host"] {
        let managed = Managed::start(&[program, "--cores", "0"], &dir.file(program));
        let reactors = managed.call("framework_get_reactors", &json!({}));
        assert_eq!(reactors["pid"], managed.child.id());
        assert_eq!(reactors["reactors"][0]["lcore"], 0);
        let threads = managed.call("thread_get_stats", &json!({}));
        assert_eq!(threads["threads"][0]["name"], "reactor-0");
        let text = managed.error("thread_get_io_channels", &json!({}));
        assert!(text.contains("-32601"), "{text}");
        assert_eq!(managed.end(), Some(0));
    }
}

#[test]
fn paths_are_shown_to_people_and_to_programs() {
    let dir = Dir::new("paths");
    let nqn = "nqn.2014-08.org.example:paths";
    let (target, attach) = target_with_a_disk(&dir.file("target.sock"), nqn);
    let socket = dir.file("host.sock");
    let (code, _, err) = finish(&["paths", "-r", &socket]);
    assert_eq!(code, Some(1));
    assert!(err.contains(&socket), "{err}");
    let host = Managed::start_with(&["host"], &socket, Stdio::null());
    assert_eq!(finish(&["paths", "-r", &socket]).1, "no volume\n");
    host.call("bdev_nvme_attach_controller", &attach);

    let (code, out, err) = finish(&["paths", "-r", &socket]);
    assert_eq!(code, Some(0), "{err}");
    let lines: Vec<&str> = out.lines().collect();
    let header = "diskn1: 1 MiB (2048 blocks of 512 bytes), active_passive, 0 I/Os waiting";
    assert_eq!(lines[0], header);
    let addr = format!("127.0.0.1:{}", attach["trsvcid"].as_str().unwrap());
    let words: Vec<&str> = lines[2].split_whitespace().collect();
    let rest = ["1", "optimized", "yes", "yes", "yes", "0", "0", "0", "0"];
    assert_eq!(words, [&[addr.as_str()], &rest[..]].concat());
    assert_eq!(lines.len(), 3);
    let (_, out, _) = finish(&["paths", "--json", "-r", &socket, "diskn1"]);
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(document[0]["paths"][0]["address"], addr);
    assert_eq!(document[0]["paths"][0].get("rate"), None);

    let (code, _, err) = finish(&["paths", "-r", &socket, "diskn2"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("diskn2"), "{err}");
    let (code, _, err) = finish(&["paths", "-r", &socket, "-w", "0"]);
    assert_eq!(code, Some(2), "{err}");
    assert_eq!((host.end(), target.end()), (Some(0), Some(0)));
}

#[test]
fn watching_goes_on_while_the_host_is_gone() {
    let dir = Dir::new("watch");
    let nqn = "nqn.2014-08.org.example:watch";
    let (target, attach) = target_with_a_disk(&dir.file("target.sock"), nqn);
    let socket = dir.file("host.sock");
    let host = || {
        let host = Managed::start_with(&["host"], &socket, Stdio::null());
        host.call("bdev_nvme_attach_controller", &attach);
        host
    };
    let first = host();
    let mut child = pollux(&["paths", "-r", &socket, "--watch", "0.05", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut looks = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut news = BufReader::new(child.stderr.take().unwrap()).lines();
    // It ends with the test if that fails.
    let watch = Managed {
        child,
        socket: socket.clone(),
    };
    let mut look = || serde_json::from_str::<Value>(&looks.next().unwrap().unwrap()).unwrap();
    for _ in 0..2 {
        let seen = look();
        assert_eq!(seen[0]["name"], "diskn1");
        assert_eq!(seen[0]["paths"][0]["rate"]["iops"], 0.0);
    }
    assert_eq!(first.end(), Some(0));
    let gone = news.next().unwrap().unwrap();
    assert!(gone.contains("the host is gone"), "{gone}");
    let second = host();
    let back = news.next().unwrap().unwrap();
    assert!(back.contains("again"), "{back}");
    while look()[0]["paths"][0]["rate"].is_null() {}
    assert_eq!(watch.end(), Some(0));
    assert_eq!((second.end(), target.end()), (Some(0), Some(0)));
}

/// Silent connections take every descriptor that there is for hosts: hosts that connect, and management, have theirs.
#[test]
fn with_few_descriptors_silent_connections_lock_nobody_out() {
    let dir = Dir::new("descriptors");
    let socket = dir.file("a.sock");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = port.local_addr().unwrap();
    drop(port);
    let program = env!("CARGO_BIN_EXE_pollux");
    let script = format!(
        "ulimit -n 96 && exec {program} target --listen {addr} --namespace null:1M --nqn nqn.2014-08.org.example:few -r {socket}"
    );
    let child = Command::new("sh")
        .args(["-c", &script])
        .stdin(Stdio::null())
        .spawn();
    let mut target = Managed {
        child: child.unwrap(),
        socket,
    };
    while target.try_call("rpc_get_methods", "{}").0 != Some(0) {
        let ended = target.child.try_wait().unwrap();
        assert!(ended.is_none(), "ended at its start: {ended:?}");
    }
    // More than the process may have open. The system takes them all, whatever the target does.
    let silent: Vec<_> = (0..200)
        .map(|_| std::net::TcpStream::connect(addr).unwrap())
        .collect();
    for _ in 0..3 {
        let trid = format!(
            "traddr:{} trsvcid:{} subnqn:nqn.2014-08.org.example:few",
            addr.ip(),
            addr.port()
        );
        let (code, _, err) = finish(&["identify", "-r", &trid]);
        assert_eq!(code, Some(0), "{err}");
    }
    let stats = target.call("nvmf_get_stats", &json!({}));
    let counter = |name: &str| stats["pollux"][name].as_u64().unwrap();
    assert!(counter("ended_unconnected") > 0, "{stats}");
    assert_eq!(
        (counter("refused_connects"), counter("failed_accepts")),
        (0, 0),
        "{stats}"
    );
    drop(silent);
    assert_eq!(target.end(), Some(0));
}

/// Calls of a configuration file come after what flags set up, and find it.
#[test]
fn a_configuration_file_adds_to_what_flags_set_up() {
    let dir = Dir::new("flags-first");
    let nqn = "nqn.2014-08.org.example:flags-first";
    let config = dir.file("config.json");
    let call = json!({"method": "nvmf_subsystem_add_host", "params": {"nqn": nqn, "host": "nqn.2014-08.org.example:h"}});
    let file = json!({"subsystems": [{"subsystem": "nvmf", "config": [call]}]});
    std::fs::write(&config, file.to_string()).unwrap();
    let args = [
        "target",
        "--listen",
        "localhost:0",
        "--namespace",
        "null:1M",
        "--nqn",
        nqn,
        "-c",
        &config,
    ];
    let target = Managed::start(&args, &dir.file("a.sock"));
    let subsystems = target.call("nvmf_get_subsystems", &json!({}));
    let found = subsystems
        .as_array()
        .unwrap()
        .iter()
        .find(|s| s["nqn"] == nqn)
        .unwrap();
    assert_eq!(
        found["hosts"][0]["nqn"], "nqn.2014-08.org.example:h",
        "{found}"
    );
    assert_eq!(target.end(), Some(0));
}

/// Flags are a configuration: what they make is listed, changed and saved as what methods make.
#[test]
fn what_flags_set_up_is_managed_saved_and_loaded_again() {
    let dir = Dir::new("flags");
    let nqn = "nqn.2014-08.org.example:flags";
    let socket = dir.file("a.sock");
    let file = format!("file:{}:1M", dir.file("disk"));
    let args = [
        "target",
        "--listen",
        "127.0.0.1:0",
        "--ana",
        "127.0.0.1:0=non_optimized",
        "--namespace",
        "memory:1M",
        "--namespace",
        "null:1G",
        "--namespace",
        &file,
        "--nqn",
        nqn,
    ];
    let configs = |target: &Managed| {
        ["bdev", "nvmf"].map(|name| target.call("framework_get_config", &json!({"name": name})))
    };
    let first = Managed::start(&args, &socket);
    let listeners = || first.call("nvmf_subsystem_get_listeners", &json!({"nqn": nqn}));
    // The ANA state of its listener is the last that is set up.
    while first
        .try_call(
            "nvmf_subsystem_get_listeners",
            &json!({"nqn": nqn}).to_string(),
        )
        .0
        != Some(0)
        || listeners()[0]["ana_states"][0]["ana_state"] != "non_optimized"
    {}
    let transports = first.call("nvmf_get_transports", &json!({}));
    assert_eq!(transports[0]["trtype"], "TCP");
    let disks = first.call("bdev_get_bdevs", &json!({}));
    assert_eq!(disks.as_array().unwrap().len(), 3, "{disks}");
    let listener = json!({"nqn": nqn, "listen_address": listeners()[0]["address"]});
    first.call("nvmf_subsystem_remove_listener", &listener);
    first.call("nvmf_subsystem_add_listener", &listener);
    let mut state = listener.clone();
    state["ana_state"] = "non_optimized".into();
    first.call("nvmf_subsystem_listener_set_ana_state", &state);
    let [bdev, nvmf] = configs(&first);
    let shown = first.call("nvmf_get_subsystems", &json!({}));
    assert_eq!(first.end(), Some(0));

    let config = dir.file("config.json");
    let saved = json!({"subsystems": [
        {"subsystem": "bdev", "config": bdev}, {"subsystem": "nvmf", "config": nvmf},
    ]});
    std::fs::write(&config, saved.to_string()).unwrap();
    let second = Managed::start(&["target", "-c", &config], &dir.file("b.sock"));
    while second.call("nvmf_get_subsystems", &json!({})) != shown {}
    assert_eq!(configs(&second), [bdev, nvmf]);
    assert_eq!(second.end(), Some(0));
}

#[test]
fn files_are_opened_in_one_folder_only() {
    let dir = Dir::new("files");
    let (folder, outside) = (dir.file("folder"), dir.file("outside"));
    std::fs::create_dir(&folder).unwrap();
    let inside = format!("{folder}/disk");
    for path in [&inside, &outside] {
        std::fs::write(path, [0; 65536]).unwrap();
    }
    std::os::unix::fs::symlink(&outside, format!("{folder}/link")).unwrap();
    let target = Managed::start(&["target", "--files-under", &folder], &dir.file("socket"));
    let disk = |path: &str| json!({"name": "disk", "filename": path, "block_size": 512});
    let key = |path: &str| json!({"name": "key", "path": path});
    for path in [
        outside.as_str(),
        "../outside",
        "link",
        "/etc/passwd",
        "missing",
    ] {
        for (method, params) in [
            ("bdev_aio_create", disk(path)),
            ("keyring_file_add_key", key(path)),
        ] {
            let error = target.error(method, &params);
            assert!(
                error.contains(path) && error.contains("--files-under"),
                "{method}: {error}"
            );
        }
    }
    assert_eq!(target.call("bdev_aio_create", &disk(&inside)), "disk");
    assert_eq!(target.end(), Some(0));

    let socket = dir.file("other");
    let (code, _, error) = finish(&["target", "-r", &socket, "--files-under", &inside]);
    assert_eq!(code, Some(1), "{error}");
    assert!(
        error.contains("--files-under") && error.contains("directory"),
        "{error}"
    );
}
