//! The host's management methods against a real target, from socket to socket.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use pollux_multipath::{Application, Channels, Host, rpc};
use pollux_nvme_tcp::host::HostIdentity;
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_nvme_tcp::spec::nqn::Nqn;
use pollux_nvme_tcp::target::{
    Backend, NamespaceConfig, SubsystemConfig, TargetHandle, TargetReply, TargetRequest, target,
};
use pollux_reactor::rpc::{Methods, Server};
use pollux_reactor::{Context, Group, Idle, Progress, Running};
use serde_json::{Value, json};

const NQN: &str = "nqn.2014-08.org.example:disk";
const PATIENCE: Duration = Duration::from_secs(20);

struct NoIo;

impl Application for NoIo {
    type Message = ();

    fn on_message(&mut self, (): (), _: &mut Channels, _: &mut Context<'_>) {}

    fn poll(&mut self, _: &mut Channels, _: &mut Context<'_>) -> Progress {
        Progress::Idle
    }
}

/// A target with some listeners, a host on two reactors, and a client of the host's management.
struct Managed {
    running: Option<Running>,
    client: BufReader<UnixStream>,
    target: TargetHandle,
    listeners: Vec<SocketAddr>,
}

fn nqn() -> Nqn {
    NQN.parse().unwrap()
}

impl Managed {
    fn start(name: &str, listeners: usize) -> Managed {
        let file = format!("pollux-management-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(file);
        let mut group = Group::new();
        let reactors = [0; 2].map(|_| group.add_reactor(None, Idle::Yield));
        let (handle, parts) = target(1);
        for part in parts {
            group.add_service(0, part.receiver, move || part.service);
        }
        let host = Host::install(&mut group, HostIdentity::random(), 0, &reactors, |_| NoIo);
        let mut methods = Methods::new();
        rpc::register(&mut methods, host);
        let mut server = Server::new(methods);
        server.listen_unix(&path).unwrap();
        let (receiver, service) = server.into_service();
        group.add_service(1, receiver, move || service);
        let running = group.start().unwrap();

        let config = SubsystemConfig::new(nqn());
        handle.call(TargetRequest::CreateSubsystem(config)).unwrap();
        let namespace = NamespaceConfig::new(Backend::Memory { bytes: 1 << 20 }, 512);
        let request = TargetRequest::AddNamespace {
            nqn: nqn(),
            nsid: None,
            namespace,
        };
        handle.call(request).unwrap();
        let stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut managed = Managed {
            running: Some(running),
            client: BufReader::new(stream),
            target: handle,
            listeners: Vec::new(),
        };
        for _ in 0..listeners {
            let request = TargetRequest::AddListener {
                nqn: nqn(),
                addr: (Ipv4Addr::LOCALHOST, 0).into(),
            };
            let TargetReply::Listener { addr } = managed.target.call(request).unwrap() else {
                panic!("no address");
            };
            managed.listeners.push(addr);
        }
        managed
    }

    fn answer(&mut self, method: &str, params: Value) -> Value {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let text = request.to_string();
        self.client.get_mut().write_all(text.as_bytes()).unwrap();
        let mut line = String::new();
        self.client.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        let answer = self.answer(method, params);
        assert!(answer["error"].is_null(), "{method}: {answer}");
        answer["result"].clone()
    }

    fn error(&mut self, method: &str, params: Value) -> (i64, String) {
        let answer = self.answer(method, params);
        let error = &answer["error"];
        let message = error["message"].as_str();
        let message = message.unwrap_or_else(|| panic!("{method} must fail: {answer}"));
        (error["code"].as_i64().unwrap(), message.to_owned())
    }

    fn address(&self, listener: usize) -> Value {
        let port = self.listeners[listener].port().to_string();
        json!({"trtype": "tcp", "traddr": "127.0.0.1", "trsvcid": port, "adrfam": "ipv4", "subnqn": NQN})
    }

    fn params(&self, name: &str, listener: usize, more: &Value) -> Value {
        let mut params = self.address(listener);
        params["name"] = name.into();
        for (key, value) in more.as_object().unwrap() {
            params[key] = value.clone();
        }
        params
    }

    fn attach(&mut self, name: &str, listener: usize, more: &Value) -> Value {
        let params = self.params(name, listener, more);
        self.call("bdev_nvme_attach_controller", params)
    }

    fn attach_error(&mut self, name: &str, listener: usize, more: &Value) -> (i64, String) {
        let params = self.params(name, listener, more);
        self.error("bdev_nvme_attach_controller", params)
    }

    fn set_ana(&self, listener: usize, state: AnaState) {
        let request = TargetRequest::SetAnaState {
            nqn: nqn(),
            addr: self.listeners[listener],
            group: None,
            state,
        };
        self.target.call(request).unwrap();
    }

    /// Of each reactor and path in attach order: current, connected, accessible.
    fn paths(&mut self) -> Vec<Vec<(bool, bool, bool)>> {
        let answer = self.call("bdev_nvme_get_io_paths", json!({}));
        let flag = |path: &Value, name: &str| path[name].as_bool().unwrap();
        let path = |p: &Value| {
            (
                flag(p, "current"),
                flag(p, "connected"),
                flag(p, "accessible"),
            )
        };
        let groups = answer["poll_groups"].as_array().unwrap();
        groups
            .iter()
            .map(|g| g["io_paths"].as_array().unwrap().iter().map(path).collect())
            .collect()
    }

    /// Waits until both reactors report these paths.
    fn await_paths(&mut self, wanted: &[(bool, bool, bool)]) {
        let mut seen = Vec::new();
        // Some 20 s; what is awaited comes with the first few of them.
        for _ in 0..200_000 {
            seen = self.paths();
            if seen.iter().all(|paths| paths == wanted) {
                return;
            }
        }
        panic!("{seen:?} instead of {wanted:?}");
    }
}

impl Drop for Managed {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
            running.join();
        }
    }
}

const UP: (bool, bool, bool) = (true, true, true);
const SPARE: (bool, bool, bool) = (false, true, true);
const INACCESSIBLE: (bool, bool, bool) = (false, true, false);
const DISABLED: (bool, bool, bool) = (false, false, true);

/// B1.1, B5.5, B13.2
#[test]
fn paths_are_attached_followed_and_chosen() {
    let mut h = Managed::start("paths", 2);
    let none = json!({});
    assert_eq!(h.attach("disk", 0, &none), json!(["diskn1"]));
    assert_eq!(h.attach("disk", 1, &none), json!(["diskn1"]));
    h.await_paths(&[UP, SPARE]);
    h.set_ana(0, AnaState::INACCESSIBLE);
    h.await_paths(&[INACCESSIBLE, UP]);
    let answer = h.call("bdev_nvme_get_io_paths", json!({"name": "diskn1"}));
    let extra = &answer["poll_groups"][1]["io_paths"][0]["pollux"];
    assert_eq!(extra["ana_state"], "inaccessible");
    assert!(extra["anatt_remaining_ms"].is_u64(), "{extra}");
    h.set_ana(0, AnaState::OPTIMIZED);
    h.await_paths(&[UP, SPARE]);

    let policy = json!({"name": "diskn1", "policy": "active_active", "selector": "queue_depth"});
    h.call("bdev_nvme_set_multipath_policy", policy);
    h.await_paths(&[UP, UP]);
    let disks = h.call("bdev_get_bdevs", json!({"name": "diskn1"}));
    assert_eq!(
        (&disks[0]["num_blocks"], &disks[0]["block_size"]),
        (&json!(2048), &json!(512))
    );
    assert_eq!(disks[0]["driver_specific"]["mp_policy"], "active_active");

    h.call(
        "bdev_nvme_set_multipath_policy",
        json!({"name": "diskn1", "policy": "active_passive"}),
    );
    let cntlid = answer["poll_groups"][0]["io_paths"][1]["cntlid"].clone();
    let preferred = json!({"name": "diskn1", "cntlid": cntlid});
    h.call("bdev_nvme_set_preferred_path", preferred);
    h.await_paths(&[SPARE, UP]);
    let events = h.call("pollux_get_path_events", json!({"name": "diskn1"}));
    let events = events[0]["events"].to_string();
    assert!(events.contains("optimized -> inaccessible"), "{events}");
}

/// B1.2, B8.3
#[test]
fn an_attach_that_is_refused_leaves_nothing() {
    let mut h = Managed::start("refused", 2);
    let missing = json!({"subnqn": format!("{NQN}2")});
    for (more, code) in [
        (missing, -5),
        (json!({"trsvcid": "1"}), -5),
        (json!({"trsvcid": "0"}), -32602),
        (json!({"trtype": "pcie"}), -32602),
        (json!({"adrfam": "ipv6"}), -32602),
        (json!({"hostnqn": "me"}), -32602),
        (json!({"multipath": "both"}), -32602),
        (json!({"hdgst": 1}), -32602),
        (json!({"colour": "red"}), -32602),
        (json!({"prchk_guard": true}), -32602),
        (json!({"psk": "key0"}), -126),
        (json!({"ctrlr_loss_timeout_sec": -1}), -22),
        (
            json!({"ctrlr_loss_timeout_sec": -2, "reconnect_delay_sec": 1}),
            -32602,
        ),
        (
            json!({"multipath_opts": {"policy": "active_passive", "selector": "round_robin"}}),
            -32603,
        ),
        (
            json!({"multipath_opts": {"policy": "active_active", "min_io": 0}}),
            -32602,
        ),
        (
            json!({"multipath_opts": {"polity": "active_active"}}),
            -32602,
        ),
    ] {
        let (found, message) = h.attach_error("disk", 0, &more);
        assert_eq!(found, code, "{more}: {message}");
    }
    assert_eq!(h.call("bdev_nvme_get_controllers", json!({})), json!([]));

    let round_robin = json!({"policy": "active_active", "selector": "round_robin", "min_io": 4});
    h.attach("disk", 0, &json!({"multipath_opts": round_robin}));
    for (listener, more, code) in [
        (0, json!({}), -114),
        (1, json!({"multipath": "disable"}), -114),
        (1, json!({"hostnqn": "nqn.2014-08.org.example:other"}), -22),
        (1, json!({"subnqn": format!("{NQN}2")}), -22),
        (
            1,
            json!({"multipath_opts": {"policy": "active_passive"}}),
            -22,
        ),
    ] {
        let (found, message) = h.attach_error("disk", listener, &more);
        assert_eq!(found, code, "{more}: {message}");
    }
    h.await_paths(&[UP]);
    // What is not given is taken from the controllers that are there.
    h.attach("disk", 1, &json!({}));
    let config = h.call("framework_get_config", json!({"name": "bdev"}));
    let attached: Vec<_> = config
        .as_array()
        .unwrap()
        .iter()
        .filter(|c| c["method"] == "bdev_nvme_attach_controller")
        .map(|c| c["params"]["multipath_opts"].clone())
        .collect();
    assert_eq!(attached, [round_robin.clone(), round_robin]);
}

#[test]
fn options_hold_for_what_is_attached_later() {
    let mut h = Managed::start("options", 1);
    let queue_depth = json!({"policy": "active_active", "selector": "queue_depth"});
    h.call(
        "bdev_nvme_set_options",
        json!({"multipath_opts": queue_depth, "ctrlr_loss_timeout_sec": 5, "reconnect_delay_sec": 3}),
    );
    h.call(
        "bdev_nvme_set_options",
        json!({"ctrlr_loss_timeout_sec": 9, "reconnect_delay_sec": 3, "bdev_retry_count": -1, "delay_cmd_submit": true}),
    );
    for (params, code) in [
        (json!({"bdev_retry_count": -2}), -32602),
        (json!({"fast_io_fail_timeout_sec": 9}), -22),
        (json!({"timeout_admin_us": 1}), -22),
        (json!({"colour": 1}), -32602),
    ] {
        assert_eq!(h.error("bdev_nvme_set_options", params).0, code);
    }
    h.attach("disk", 0, &json!({}));
    let config = h.call("framework_get_config", json!({"name": "bdev"}));
    let params = &config[1]["params"];
    assert_eq!(params["multipath_opts"], queue_depth);
    assert_eq!(
        (
            &params["reconnect_delay_sec"],
            &params["ctrlr_loss_timeout_sec"]
        ),
        (&json!(3), &json!(9))
    );
    let (code, message) = h.error("bdev_nvme_set_options", json!({"bdev_retry_count": 1}));
    assert_eq!(code, -1);
    assert!(message.contains("already attached"), "{message}");
}

/// B8.2, B11
#[test]
fn controllers_are_disabled_enabled_reset_and_detached() {
    let mut h = Managed::start("controllers", 2);
    h.attach("disk", 0, &json!({}));
    h.attach("disk", 1, &json!({}));
    let list = h.call("bdev_nvme_get_controllers", json!({"name": "disk"}));
    let controllers = list[0]["ctrlrs"].as_array().unwrap();
    assert_eq!(
        (list[0]["name"].clone(), controllers.len()),
        (json!("disk"), 2)
    );
    assert_eq!(controllers[0]["state"], "enabled");
    let first = json!({"name": "disk", "cntlid": controllers[0]["cntlid"]});
    h.call("bdev_nvme_disable_controller", first.clone());
    h.await_paths(&[DISABLED, UP]);
    assert_eq!(
        h.error("bdev_nvme_disable_controller", first.clone()).0,
        -114
    );
    let list = h.call("bdev_nvme_get_controllers", json!({}));
    assert_eq!(list[0]["ctrlrs"][0]["state"], "disabled");
    h.call("bdev_nvme_enable_controller", first);
    h.await_paths(&[UP, SPARE]);
    h.call("bdev_nvme_reset_controller", json!({"name": "disk"}));
    h.await_paths(&[UP, SPARE]);

    let address = h.params("disk", 0, &json!({}));
    h.call("bdev_nvme_detach_controller", address);
    h.await_paths(&[UP]);
    h.call("bdev_nvme_detach_controller", json!({"name": "disk"}));
    assert_eq!(h.call("bdev_nvme_get_controllers", json!({})), json!([]));
    assert_eq!(h.call("bdev_get_bdevs", json!({})), json!([]));
    let kinds = h.call("notify_get_notifications", json!({}));
    let kinds: Vec<_> = kinds
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["bdev_register", "bdev_unregister"]);
    for (method, params, code) in [
        ("bdev_nvme_detach_controller", json!({"name": "disk"}), -19),
        ("bdev_nvme_reset_controller", json!({"name": "disk"}), -19),
        ("bdev_nvme_get_controllers", json!({"name": "disk"}), -19),
        ("bdev_nvme_get_io_paths", json!({"name": "diskn1"}), -19),
        ("bdev_nvme_get_path_iostat", json!({"name": "diskn1"}), -19),
        ("bdev_get_iostat", json!({"names": ["diskn1"]}), -19),
        ("bdev_get_bdevs", json!({"name": "diskn1"}), -19),
        (
            "bdev_nvme_set_multipath_policy",
            json!({"name": "diskn1", "policy": "active_passive"}),
            -19,
        ),
        (
            "bdev_nvme_set_multipath_policy",
            json!({"name": "diskn1", "policy": "active_passive", "selector": "queue_depth"}),
            -32603,
        ),
    ] {
        assert_eq!(h.error(method, params).0, code, "{method}");
    }
}
