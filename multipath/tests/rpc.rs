//! The host's management methods over a socket, against a target on real connections.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use pollux_multipath::{Application, Channels, Host, rpc};
use pollux_nvme_tcp::host::HostIdentity;
use pollux_nvme_tcp::spec::nqn::Nqn;
use pollux_nvme_tcp::target::{
    Backend, NamespaceConfig, Referral, SubsystemConfig, TargetHandle, TargetReply, TargetRequest,
    target,
};
use pollux_reactor::rpc::{Methods, Server};
use pollux_reactor::{Context, Group, Idle, Progress, Running};
use serde_json::{Value, json};

const NQN: &str = "nqn.2014-08.org.example:disk1";
const PATIENCE: Duration = Duration::from_secs(30);

/// Does no I/O.
struct Onlooker;

impl Application for Onlooker {
    type Message = ();
    fn on_message(&mut self, (): (), _: &mut Channels, _: &mut Context<'_>) {}
    fn poll(&mut self, _: &mut Channels, _: &mut Context<'_>) -> Progress {
        Progress::Idle
    }
}

/// A target with two listeners and a managed host, and a client of the host.
struct World {
    target: TargetHandle,
    listeners: Vec<SocketAddr>,
    socket: PathBuf,
    running: Option<Running>,
    writer: UnixStream,
    reader: BufReader<UnixStream>,
}

impl World {
    fn new(name: &str) -> World {
        let mut group = Group::new();
        let idle = Idle::Park {
            after: Duration::from_micros(50),
        };
        let first = group.add_reactor(None, idle);
        let second = group.add_reactor(None, idle);
        let (target, parts) = target(1);
        for part in parts {
            group.add_service(first, part.receiver, move || part.service);
        }
        let io = [first, second];
        let host = Host::install(&mut group, HostIdentity::random(), second, &io, |_| {
            Onlooker
        });
        let mut methods = Methods::new();
        rpc::register(&mut methods, host);
        let socket =
            std::env::temp_dir().join(format!("pollux-host-{}-{name}", std::process::id()));
        let mut server = Server::new(methods);
        server.listen_unix(&socket).unwrap();
        let (receiver, service) = server.into_service();
        group.add_service(second, receiver, move || service);
        let running = group.start().unwrap();

        let mut subsystem = SubsystemConfig::new(nqn());
        subsystem.ana_reporting = true;
        target
            .call(TargetRequest::CreateSubsystem(subsystem))
            .unwrap();
        target
            .call(TargetRequest::AddNamespace {
                nqn: nqn(),
                nsid: None,
                namespace: NamespaceConfig::new(Backend::Memory { bytes: 1 << 20 }, 512),
            })
            .unwrap();
        let listeners = (0..2).map(|_| listen(&target, 0)).collect();
        let writer = UnixStream::connect(&socket).unwrap();
        writer.set_read_timeout(Some(PATIENCE)).unwrap();
        World {
            target,
            listeners,
            socket,
            running: Some(running),
            reader: BufReader::new(writer.try_clone().unwrap()),
            writer,
        }
    }

    fn ask(&mut self, method: &str, params: &Value) -> Value {
        let request = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
        self.writer
            .write_all(request.to_string().as_bytes())
            .unwrap();
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        let answer = self.ask(method, &params);
        assert!(answer["error"].is_null(), "{method} {params}: {answer}");
        answer["result"].clone()
    }

    /// The code and the text of an error.
    fn fail(&mut self, method: &str, params: Value) -> (i64, String) {
        let answer = self.ask(method, &params);
        let error = &answer["error"];
        assert!(error.is_object(), "{method} {params}: {answer}");
        let message = error["message"].as_str().unwrap().to_owned();
        (error["code"].as_i64().unwrap(), message)
    }

    /// Parameters of an attach, with others over them.
    fn params(&self, path: usize, more: Value) -> Value {
        let addr = self.listeners[path];
        let mut params = json!({
            "name": "Nvme0",
            "trtype": "TCP",
            "adrfam": "ipv4",
            "traddr": addr.ip().to_string(),
            "trsvcid": addr.port().to_string(),
            "subnqn": NQN,
        });
        for (name, value) in more.as_object().unwrap() {
            params[name] = value.clone();
        }
        params
    }

    fn attach(&mut self, path: usize, more: Value) -> Value {
        let params = self.params(path, more);
        self.call("bdev_nvme_attach_controller", params)
    }

    fn attach_code(&mut self, path: usize, more: Value) -> i64 {
        let params = self.params(path, more);
        self.fail("bdev_nvme_attach_controller", params).0
    }

    fn cntlids(&mut self) -> Vec<u64> {
        let list = self.call("bdev_nvme_get_controllers", json!({"name": "Nvme0"}));
        let list = list[0]["ctrlrs"].as_array().unwrap().clone();
        list.iter().map(|c| c["cntlid"].as_u64().unwrap()).collect()
    }

    fn states(&mut self) -> Vec<String> {
        let list = self.call("bdev_nvme_get_controllers", json!({}));
        let list = list[0]["ctrlrs"].as_array().unwrap().clone();
        list.iter()
            .map(|c| c["state"].as_str().unwrap().to_owned())
            .collect()
    }

    /// (port of the listener, current) of each path, on each reactor.
    fn paths(&mut self) -> Vec<Vec<(usize, bool)>> {
        let answer = self.call("bdev_nvme_get_io_paths", json!({"name": "Nvme0n1"}));
        let groups = answer["poll_groups"].as_array().unwrap().clone();
        groups
            .iter()
            .map(|group| {
                let paths = group["io_paths"].as_array().unwrap();
                let view = |path: &Value| {
                    assert_eq!(path["bdev_name"], "Nvme0n1");
                    assert_eq!(
                        (&path["connected"], &path["accessible"]),
                        (&json!(true), &json!(true))
                    );
                    let port = path["transport"]["trsvcid"].as_str().unwrap();
                    let index = self
                        .listeners
                        .iter()
                        .position(|l| l.port().to_string() == port);
                    (index.unwrap(), path["current"].as_bool().unwrap())
                };
                paths.iter().map(view).collect()
            })
            .collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
            running.join();
            assert!(!self.socket.exists(), "the socket is removed at the end");
        }
    }
}

fn nqn() -> Nqn {
    Nqn::new(NQN).unwrap()
}

fn listen(target: &TargetHandle, port: u16) -> SocketAddr {
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let request = TargetRequest::AddListener { nqn: nqn(), addr };
    match target.call(request).unwrap() {
        TargetReply::Listener { addr } => addr,
        _ => panic!("the address of the listener"),
    }
}

/// 64 bytes in Base64.
fn sqe_text(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits: String = bytes.iter().map(|b| format!("{b:08b}")).collect();
    let letter = |group: &[u8]| {
        let group = format!("{:0<6}", std::str::from_utf8(group).unwrap());
        char::from(ALPHABET[usize::from_str_radix(&group, 2).unwrap()])
    };
    bits.as_bytes().chunks(6).map(letter).collect()
}

/// B1.2: each refusal has the code that clients look at, and leaves nothing behind.
#[test]
fn attaches_that_are_refused() {
    let mut w = World::new("refused");
    assert_eq!(w.attach_code(0, json!({"dhchap_key": "none"})), -126);
    assert_eq!(
        w.attach_code(0, json!({"subnqn": "nqn.2014-08.org.example:other"})),
        -5
    );
    assert_eq!(w.attach_code(0, json!({"trsvcid": "1"})), -5);
    assert_eq!(w.call("bdev_nvme_get_controllers", json!({})), json!([]));
    assert_eq!(w.attach(0, json!({})), json!(["Nvme0n1"]));
    let opts = json!({"policy": "active_active", "selector": "queue_depth"});
    for (path, more, code) in [
        (0, json!({}), -114),
        (1, json!({"multipath": "disable"}), -114),
        (1, json!({"subnqn": "nqn.2014-08.org.example:other"}), -22),
        (1, json!({"hostnqn": "nqn.2014-08.org.example:host"}), -22),
        (1, json!({"multipath_opts": opts}), -22),
        (
            1,
            json!({"reconnect_delay_sec": 0, "ctrlr_loss_timeout_sec": 5}),
            -22,
        ),
        (
            1,
            json!({"reconnect_delay_sec": 5, "ctrlr_loss_timeout_sec": 4}),
            -22,
        ),
        (1, json!({"ctrlr_loss_timeout_sec": -2}), -32602),
        (1, json!({"trtype": "RDMA"}), -32602),
        (1, json!({"traddr": "nowhere"}), -32602),
        (1, json!({"trsvcid": "0"}), -32602),
        (1, json!({"trsvcid": 4420}), -32602),
        (1, json!({"adrfam": "ipv6"}), -32602),
        (1, json!({"subnqn": null}), -32602),
        (1, json!({"multipath": "both"}), -32602),
        (1, json!({"color": "red"}), -32602),
        (1, json!({"prchk_guard": true}), -32602),
    ] {
        let text = more.to_string();
        assert_eq!(w.attach_code(path, more), code, "{text}");
    }
    assert_eq!(w.paths(), [[(0, true)], [(0, true)]]);
    assert_eq!(
        w.attach(1, json!({"multipath": "multipath"})),
        json!(["Nvme0n1"])
    );
    assert_eq!(w.states(), ["enabled", "enabled"]);
}

#[test]
fn volumes_paths_and_policies() {
    let mut w = World::new("volumes");
    assert_eq!(
        w.call("bdev_nvme_get_io_paths", json!({})),
        json!({"poll_groups": []})
    );
    w.attach(0, json!({}));
    w.attach(1, json!({}));
    let bdevs = w.call("bdev_get_bdevs", json!({"name": "Nvme0n1"}));
    assert_eq!(bdevs[0]["num_blocks"], 2048);
    assert_eq!(bdevs[0]["block_size"], 512);
    assert_eq!(bdevs[0]["uuid"].as_str().unwrap().len(), 36);
    assert_eq!(w.fail("bdev_get_bdevs", json!({"name": "x"})).0, -19);
    assert_eq!(
        w.paths(),
        [[(0, true), (1, false)], [(0, true), (1, false)]]
    );

    let policy = "bdev_nvme_set_multipath_policy";
    let name = "Nvme0n1";
    for (params, code) in [
        (json!({"name": "x", "policy": "active_passive"}), -19),
        (
            json!({"name": name, "policy": "active_passive", "selector": "round_robin"}),
            -32603,
        ),
        (
            json!({"name": name, "policy": "active_active", "selector": "queue_depth", "rr_min_io": 2}),
            -32603,
        ),
        (
            json!({"name": name, "policy": "active_active", "rr_min_io": 0}),
            -32602,
        ),
        (json!({"name": name, "policy": "other"}), -32602),
        (json!({"name": name}), -32602),
    ] {
        let text = params.to_string();
        assert_eq!(w.fail(policy, params).0, code, "{text}");
    }
    w.call(
        policy,
        json!({"name": name, "policy": "active_active", "selector": "round_robin", "rr_min_io": 4}),
    );
    assert_eq!(w.paths(), [[(0, true), (1, true)], [(0, true), (1, true)]]);
    w.call(policy, json!({"name": name, "policy": "active_passive"}));

    let ids = w.cntlids();
    let preferred = "bdev_nvme_set_preferred_path";
    assert_eq!(
        w.fail(preferred, json!({"name": name, "cntlid": 65000})).0,
        -19
    );
    w.call(preferred, json!({"name": name, "cntlid": ids[1]}));
    assert_eq!(
        w.paths(),
        [[(0, false), (1, true)], [(0, false), (1, true)]]
    );

    let stats = w.call("bdev_nvme_get_path_iostat", json!({"name": name}));
    assert_eq!(stats["name"], name);
    let ports: Vec<_> = stats["stats"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["trid"]["trsvcid"].clone())
        .collect();
    let listeners: Vec<_> = w
        .listeners
        .iter()
        .map(|l| json!(l.port().to_string()))
        .collect();
    assert_eq!(ports, listeners);
    assert!(stats["stats"][0]["stat"]["num_read_ops"].is_u64());
    let stats = w.call(
        "bdev_get_iostat",
        json!({"names": [name], "per_channel": false}),
    );
    assert_eq!(stats["bdevs"][0]["name"], name);
    assert!(stats["bdevs"][0]["num_write_ops"].is_u64());
    assert_eq!(w.fail("bdev_get_iostat", json!({"names": ["x"]})).0, -19);
    assert!(stats["bdevs"][0]["driver_specific"]["nvme_error"]["status_code"].is_object());
    let health = w.call(
        "bdev_nvme_get_controller_health_info",
        json!({"name": "Nvme0"}),
    );
    assert!(health["power_on_hours"].is_u64() && health["model_number"].is_string());
    // Identify Controller: opcode 06h, CDW10 01h.
    let mut sqe = vec![0u8; 64];
    (sqe[0], sqe[40]) = (6, 1);
    let text: String = sqe_text(&sqe);
    let command = json!({
        "name": "Nvme0",
        "cmd_type": "admin",
        "data_direction": "c2h",
        "cmdbuf": text,
        "data_len": 4096,
    });
    let answer = w.call("bdev_nvme_send_cmd", command.clone());
    assert_eq!(answer["cpl"], "A".repeat(22) + "==", "all zero: success");
    assert_eq!(answer["data"].as_str().unwrap().len(), 5464);
    for (member, value) in [
        ("cmdbuf", json!("AAAA")),
        ("cmdbuf", json!("!")),
        ("cmd_type", json!("io")),
        ("data", json!("AAAA")),
        ("data_direction", json!("up")),
    ] {
        let mut bad = command.clone();
        bad[member] = value;
        assert_eq!(w.fail("bdev_nvme_send_cmd", bad).0, -32602, "{member}");
    }
    let none = json!({"name": "x"});
    assert_eq!(w.fail("bdev_nvme_get_controller_health_info", none).0, -19);
    let events = w.call("pollux_get_path_events", json!({}));
    assert!(!events[0]["events"].as_array().unwrap().is_empty());
}

#[test]
fn controllers_are_reset_disabled_enabled_and_detached() {
    let mut w = World::new("changes");
    let wait = json!({"reconnect_delay_sec": 1, "ctrlr_loss_timeout_sec": -1});
    w.attach(0, wait.clone());
    w.attach(1, wait);
    let first = w.cntlids()[0];
    let one = json!({"name": "Nvme0", "cntlid": first});
    w.call("bdev_nvme_disable_controller", one.clone());
    assert_eq!(w.states(), ["disabled", "enabled"]);
    assert_eq!(w.fail("bdev_nvme_disable_controller", one.clone()).0, -114);
    assert_eq!(w.fail("bdev_nvme_reset_controller", one.clone()).0, -22);
    w.call("bdev_nvme_enable_controller", one.clone());
    assert_eq!(w.states(), ["enabled", "enabled"]);
    w.call("bdev_nvme_reset_controller", json!({"name": "Nvme0"}));
    assert_eq!(w.states(), ["enabled", "enabled"]);
    assert_eq!(
        w.paths(),
        [[(0, true), (1, false)], [(0, true), (1, false)]]
    );
    assert_eq!(
        w.fail("bdev_nvme_reset_controller", json!({"name": "x"})).0,
        -19
    );
    assert_eq!(
        w.fail("bdev_nvme_detach_controller", json!({"name": "x"}))
            .0,
        -19
    );

    let address = w.params(0, json!({}));
    w.call("bdev_nvme_detach_controller", address.clone());
    assert_eq!(w.paths(), [[(1, true)], [(1, true)]]);
    assert_eq!(w.fail("bdev_nvme_detach_controller", address).0, -19);
    w.call("bdev_nvme_detach_controller", json!({"name": "Nvme0"}));
    assert_eq!(w.call("bdev_get_bdevs", json!({})), json!([]));
    assert_eq!(w.call("bdev_nvme_get_controllers", json!({})), json!([]));
    let told = w.call("notify_get_notifications", json!({"id": 0}));
    let types: Vec<_> = told
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n["type"].clone())
        .collect();
    assert_eq!(types, ["bdev_register", "bdev_unregister"]);
    assert_eq!(told[1]["ctx"], "Nvme0n1");
    let later = w.call("notify_get_notifications", json!({"id": told[1]["id"]}));
    assert_eq!(later.as_array().unwrap().len(), 1);
}

/// What `framework_get_config` gives makes the same again.
#[test]
fn the_configuration_can_be_loaded_again() {
    let mut w = World::new("config");
    let opts = json!({"policy": "active_active", "selector": "round_robin", "min_io": 16});
    w.call(
        "bdev_nvme_set_options",
        json!({"multipath_opts": opts, "bdev_retry_count": -1, "delay_cmd_submit": true}),
    );
    // What is not given keeps its value.
    w.call(
        "bdev_nvme_set_options",
        json!({"reconnect_delay_sec": 2, "ctrlr_loss_timeout_sec": -1}),
    );
    for (params, code) in [
        (json!({"bdev_retry_count": -2}), -32602),
        (json!({"timeout_admin_us": 5}), -22),
        (
            json!({"reconnect_delay_sec": 2, "ctrlr_loss_timeout_sec": 1}),
            -22,
        ),
        (
            json!({"multipath_opts": {"policy": "active_passive", "selector": "queue_depth"}}),
            -32603,
        ),
        (json!({"speed": 1}), -32602),
    ] {
        let text = params.to_string();
        assert_eq!(w.fail("bdev_nvme_set_options", params).0, code, "{text}");
    }
    w.attach(0, json!({}));
    w.attach(1, json!({"reconnect_delay_sec": 3}));
    let (code, text) = w.fail("bdev_nvme_set_options", json!({"bdev_retry_count": 3}));
    assert_eq!(
        (code, text.as_str()),
        (
            -1,
            "RPC not permitted with nvme controllers already attached"
        )
    );
    w.call(
        "bdev_nvme_set_multipath_policy",
        json!({"name": "Nvme0n1", "policy": "active_active", "selector": "queue_depth"}),
    );

    let config = w.call("framework_get_config", json!({"name": "bdev"}));
    let calls = config.as_array().unwrap().clone();
    let methods: Vec<_> = calls
        .iter()
        .map(|c| c["method"].as_str().unwrap())
        .collect();
    assert_eq!(
        methods,
        [
            "bdev_nvme_set_options",
            "bdev_nvme_attach_controller",
            "bdev_nvme_attach_controller",
            "bdev_nvme_set_multipath_policy"
        ]
    );
    assert_eq!(calls[0]["params"]["bdev_retry_count"], -1);
    assert_eq!(calls[1]["params"]["multipath_opts"], opts);
    assert_eq!(calls[1]["params"]["reconnect_delay_sec"], 2);
    assert_eq!(calls[2]["params"]["reconnect_delay_sec"], 3);
    w.call("bdev_nvme_detach_controller", json!({"name": "Nvme0"}));
    for call in &calls {
        w.call(call["method"].as_str().unwrap(), call["params"].clone());
    }
    assert_eq!(
        w.call("framework_get_config", json!({"name": "bdev"})),
        config
    );
}

/// B12: alternates are listed, and belong to the configuration.
#[test]
fn failover_addresses_are_listed() {
    let mut w = World::new("failover");
    w.attach(0, json!({"multipath": "failover"}));
    w.attach(1, json!({"multipath": "failover"}));
    let list = w.call("bdev_nvme_get_controllers", json!({}));
    let controllers = list[0]["ctrlrs"].as_array().unwrap();
    assert_eq!(controllers.len(), 1);
    assert_eq!(
        controllers[0]["trid"]["trsvcid"],
        w.listeners[0].port().to_string()
    );
    assert_eq!(
        controllers[0]["alternate_trids"][0]["trsvcid"],
        w.listeners[1].port().to_string()
    );
    let config = w.call("framework_get_config", json!({"name": "bdev"}));
    let modes: Vec<_> = config
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["params"]["multipath"].clone())
        .collect();
    assert_eq!(modes, ["failover", "failover"]);
    // Connected and spare change places when the first listener goes.
    let addr = w.listeners[0];
    w.target
        .call(TargetRequest::RemoveListener { nqn: nqn(), addr })
        .unwrap();
    let other = w.listeners[1].port().to_string();
    loop {
        let list = w.call("bdev_nvme_get_controllers", json!({}));
        let controller = &list[0]["ctrlrs"][0];
        if controller["trid"]["trsvcid"] == other && controller["state"] == "enabled" {
            break;
        }
        std::thread::yield_now();
    }
}

/// What a discovery service lists is attached, and detached when it is listed no more.
#[test]
fn a_discovery_service_is_followed() {
    let mut w = World::new("discovery");
    let entry = w.listeners[0];
    let start = |name: &str, addr: SocketAddr| {
        json!({
            "name": name,
            "trtype": "tcp",
            "adrfam": "ipv4",
            "traddr": addr.ip().to_string(),
            "trsvcid": addr.port().to_string(),
            "wait_for_attach": true,
        })
    };
    w.call("bdev_nvme_start_discovery", start("Nvme", entry));
    assert_eq!(
        w.paths(),
        [[(0, true), (1, false)], [(0, true), (1, false)]]
    );
    let other = w.listeners[1];
    for params in [start("Nvme", other), start("Other", entry)] {
        assert_eq!(w.fail("bdev_nvme_start_discovery", params).0, -17);
    }
    let info = w.call("bdev_nvme_get_discovery_info", json!({}));
    assert_eq!(info[0]["name"], "Nvme");
    assert_eq!(info[0]["trid"]["trsvcid"], entry.port().to_string());
    assert_eq!(info[0]["referrals"], json!([]));
    let config = w.call("framework_get_config", json!({"name": "bdev"}));
    let methods: Vec<_> = config
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["method"].clone())
        .collect();
    assert_eq!(methods, ["bdev_nvme_start_discovery"]);

    w.target
        .call(TargetRequest::RemoveListener {
            nqn: nqn(),
            addr: other,
        })
        .unwrap();
    while w.states().len() != 1 {
        std::thread::yield_now();
    }
    let new = listen(&w.target, 0);
    w.listeners.push(new);
    while w.states() != ["enabled", "enabled"] {
        std::thread::yield_now();
    }
    assert_eq!(
        w.paths(),
        [[(0, true), (2, false)], [(0, true), (2, false)]]
    );

    w.call("bdev_nvme_stop_discovery", json!({"name": "Nvme"}));
    assert_eq!(w.call("bdev_nvme_get_controllers", json!({})), json!([]));
    assert_eq!(w.call("bdev_nvme_get_discovery_info", json!({})), json!([]));
    assert_eq!(
        w.fail("bdev_nvme_stop_discovery", json!({"name": "Nvme"}))
            .0,
        -19
    );

    // Accepts connections, by way of its backlog, and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut params = start("Late", silent.local_addr().unwrap());
    params["attach_timeout_ms"] = json!(50);
    assert_eq!(w.fail("bdev_nvme_start_discovery", params).0, -110);
    assert_eq!(w.call("bdev_nvme_get_discovery_info", json!({})), json!([]));
}

/// Referrals are followed as well.
#[test]
fn a_referral_is_followed() {
    let elsewhere = World::new("referred");
    let mut w = World::new("referring");
    let referral = elsewhere.listeners[0];
    w.target
        .call(TargetRequest::AddReferral(Referral {
            addr: referral,
            subnqn: Nqn::discovery(),
        }))
        .unwrap();
    let entry = w.listeners[0];
    w.call(
        "bdev_nvme_start_discovery",
        json!({
            "name": "Nvme",
            "trtype": "tcp",
            "traddr": entry.ip().to_string(),
            "trsvcid": entry.port().to_string(),
        }),
    );
    let all = [&w.listeners[..], &elsewhere.listeners[..]].concat();
    loop {
        let list = w.call("bdev_nvme_get_controllers", json!({}));
        let ports: Vec<_> = list[0]["ctrlrs"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|c| c["trid"]["trsvcid"].as_str().unwrap().to_owned())
            .collect();
        if all
            .iter()
            .all(|addr| ports.contains(&addr.port().to_string()))
        {
            break;
        }
        std::thread::yield_now();
    }
    let info = w.call("bdev_nvme_get_discovery_info", json!({}));
    let port = referral.port().to_string();
    assert_eq!(info[0]["referrals"][0]["trid"]["trsvcid"], port);
}
