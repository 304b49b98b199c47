//! Hosts that come by TLS, with keys of the keyring.

use std::net::SocketAddr;
use std::path::PathBuf;

use pollux_nvme_tcp::auth::KeyText;
use pollux_nvme_tcp::spec::{HostNqn, Nqn};
use pollux_nvme_tcp::target::{HostAccess, SubsystemConfig, TargetRequest};
use pollux_nvme_tcp::tls::{ConfiguredPsk, HostPsk};
use serde_json::{Value, json};

use crate::world::{NQN, World, nqn};

const HOST: &str = "nqn.2014-08.org.example:host";
const OTHER_SUBSYSTEM: &str = "nqn.2014-08.org.example:disk2";
const OTHER: &str = "nqn.2014-08.org.example:other";

fn psk(byte: u8, len: usize) -> ConfiguredPsk {
    ConfiguredPsk::new(&vec![byte; len], None).unwrap()
}

struct Files(PathBuf);

impl Files {
    fn named(name: &str) -> Self {
        let name = format!("pollux-tls-keys-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    /// Adds the key of this name to the keyring of the host.
    fn add(&self, w: &mut World, name: &str, psk: &ConfiguredPsk) {
        let path = self.0.join(name);
        let text = KeyText::new(psk.to_text().to_string());
        text.write_new(&path).unwrap();
        let path = path.display().to_string();
        w.call("keyring_file_add_key", json!({"name": name, "path": path}));
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The target has a secure listener, the last of them, and this key for this host.
fn secure(w: &mut World, host: &str, psk: &ConfiguredPsk) {
    secure_at(w, NQN, host, psk);
}

/// The same at this subsystem.
fn secure_at(w: &mut World, subsystem: &str, host: &str, psk: &ConfiguredPsk) {
    let (handle, subsystem) = (&w.target.handle, Nqn::new(subsystem).unwrap());
    handle
        .call(TargetRequest::allow_any_host(subsystem.clone(), false))
        .unwrap();
    let host = HostNqn::new(host).unwrap();
    let mut access = HostAccess::default();
    access.psk = Some(HostPsk::new("key", psk, &host, &subsystem).unwrap());
    handle
        .call(TargetRequest::add_host_with(
            subsystem.clone(),
            host,
            access,
        ))
        .unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let known = w.listeners.get(2).copied();
    if known.is_none() || subsystem != nqn() {
        let request = TargetRequest::add_secure_listener(subsystem, known.unwrap_or(any));
        let addr = handle.call(request).unwrap();
        if known.is_none() {
            w.listeners.push(addr);
        }
    }
}

#[test]
fn only_the_right_key_of_the_right_host_comes_in() {
    for len in [32, 48] {
        let files = Files::named(&format!("only{len}"));
        let mut w = World::new();
        secure(&mut w, HOST, &psk(1, len));
        secure(&mut w, OTHER, &psk(2, len));
        files.add(&mut w, "right", &psk(1, len));
        files.add(&mut w, "wrong", &psk(3, len));
        files.add(&mut w, "another", &psk(2, len));
        // At the same listener the host has another key for another subsystem.
        let mut config = SubsystemConfig::new(Nqn::new(OTHER_SUBSYSTEM).unwrap());
        config.allow_any_host = false;
        w.target.handle.create_subsystem(config).unwrap();
        secure_at(&mut w, OTHER_SUBSYSTEM, HOST, &psk(2, len));
        let open = HostNqn::new("nqn.2014-08.org.example:open").unwrap();
        let request = TargetRequest::add_host(nqn(), open.clone());
        w.target.handle.call(request).unwrap();
        for (path, host, key, code, words) in [
            (2, HOST, Some("wrong"), -5, "TLS: the peer refuses"),
            (2, OTHER, Some("right"), -5, "TLS: the peer refuses"),
            (2, HOST, Some("another"), -5, "TLS: the peer refuses"),
            (2, open.as_str(), Some("right"), -5, "TLS: the peer refuses"),
            (2, HOST, Some("missing"), -126, "missing"),
            // Without TLS where there is nothing else, and with TLS where there is none.
            (2, HOST, None, -5, ""),
            (0, HOST, Some("right"), -5, "TLS: "),
            // A key is there to be used.
            (0, HOST, None, -5, "Connect refused"),
        ] {
            let mut more = json!({"hostnqn": host});
            if let Some(key) = key {
                more["psk"] = key.into();
            }
            let params = w.params(path, more);
            let (found, text) = w.fail("bdev_nvme_attach_controller", params);
            assert!(
                found == code && text.contains(words),
                "{key:?} {found} {text}"
            );
        }
        for (subsystem, key) in [(OTHER_SUBSYSTEM, "right"), (NQN, "another")] {
            let more = json!({"hostnqn": HOST, "subnqn": subsystem, "psk": key});
            let params = w.params(2, more);
            let (code, text) = w.fail("bdev_nvme_attach_controller", params);
            assert!(
                code == -5 && text.contains("TLS: the peer refuses"),
                "{text}"
            );
        }
        assert_eq!(w.call("bdev_nvme_get_controllers", json!({})), json!([]));
        let right = json!({"hostnqn": HOST, "psk": "right"});
        assert_eq!(w.attach(2, right), json!(["Nvme0n1"]));
        w.await_paths(&[[true; 3]]);
        let status = w.target.status();
        assert_eq!(status.subsystems[0].controllers[0].qpairs.len(), 3);
        assert_eq!(status.subsystems[0].host_psks.len(), 2);
        // A host without a key comes in where there is no TLS.
        let params = w.params(0, json!({"name": "Open", "hostnqn": open.as_str()}));
        w.call("bdev_nvme_attach_controller", params);

        // Names of keys are saved, and nothing of what they are.
        let saved = w.call("framework_get_config", json!({"name": "bdev"}));
        let calls = saved.as_array().unwrap().iter();
        let attached = |c: &&Value| c["method"] == "bdev_nvme_attach_controller";
        let first = calls.clone().find(attached).unwrap();
        assert_eq!(first["params"]["psk"], "right");
        let controllers = w.call("bdev_nvme_get_controllers", json!({}));
        let shown = format!("{saved} {controllers} {status:?}");
        let text = psk(1, len).to_text();
        let base64 = text.split(':').nth(2).unwrap().get(..20).unwrap();
        assert!(
            !shown.contains(base64) && !shown.contains("1, 1, 1, 1, 1, 1, 1, 1"),
            "{shown}"
        );

        // What is saved attaches the same again, from the same files.
        let keys = w.call("framework_get_config", json!({"name": "keyring"}));
        for name in ["Nvme0", "Open"] {
            w.call("bdev_nvme_detach_controller", json!({"name": name}));
        }
        for key in ["right", "wrong", "another"] {
            w.call("keyring_file_remove_key", json!({"name": key}));
        }
        for call in [&keys, &saved]
            .into_iter()
            .flat_map(|c| c.as_array().unwrap())
        {
            w.call(call["method"].as_str().unwrap(), call["params"].clone());
        }
        assert_eq!(
            w.call("framework_get_config", json!({"name": "bdev"})),
            saved
        );
        assert_eq!(
            w.call("framework_get_config", json!({"name": "keyring"})),
            keys
        );

        // Who was given a key keeps it: a reset connects with it.
        w.call("keyring_file_remove_key", json!({"name": "right"}));
        w.call("bdev_nvme_reset_controller", json!({"name": "Nvme0"}));
        w.await_paths(&[[true; 3]]);
    }
}

/// What sets `enable_ktls`.
fn enable_ktls(wanted: bool) -> Value {
    json!({"impl_name": "ssl", "enable_ktls": wanted})
}

/// A host has a key for each of two subsystems of a target, at one listener, and is attached to both at once: each is there with
/// its own key, also after a reset. For the first the kernel is asked to encrypt, and whether it does is told of each controller.
#[test]
fn one_host_with_two_keys() {
    let files = Files::named("two");
    let mut w = World::new();
    secure(&mut w, HOST, &psk(1, 32));
    w.other_subsystem(OTHER_SUBSYSTEM);
    secure_at(&mut w, OTHER_SUBSYSTEM, HOST, &psk(2, 48));
    files.add(&mut w, "first", &psk(1, 32));
    files.add(&mut w, "second", &psk(2, 48));
    w.call("sock_impl_set_options", enable_ktls(true));
    let first = json!({"hostnqn": HOST, "psk": "first"});
    assert_eq!(w.attach(2, first), json!(["Nvme0n1"]));
    w.call("sock_impl_set_options", enable_ktls(false));
    let second = json!({
        "name": "Nvme1", "hostnqn": HOST, "subnqn": OTHER_SUBSYSTEM, "psk": "second",
    });
    assert_eq!(w.attach(2, second), json!(["Nvme1n1"]));
    let ulps = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_ulp").unwrap();
    let has_tls = ulps.split_whitespace().any(|ulp| ulp == "tls");
    for name in ["Nvme0", "Nvme1"] {
        for subsystem in w.target.status().subsystems {
            let controllers = subsystem.controllers;
            assert_eq!(controllers.len(), 1, "{controllers:?}");
            let qpairs = &controllers[0].qpairs;
            assert!(qpairs.iter().all(|qpair| qpair.secure), "{qpairs:?}");
        }
        let controllers = w.call("bdev_nvme_get_controllers", json!({"name": name}));
        let shown = &controllers[0]["ctrlrs"][0]["pollux"];
        let wanted = json!([true, has_tls && name == "Nvme0"]);
        assert_eq!(json!([shown["tls"], shown["ktls"]]), wanted, "{shown}");
        w.call("bdev_nvme_reset_controller", json!({"name": name}));
    }

    // A configuration asks the kernel for the same as before.
    let saved = w.call("framework_get_config", json!({"name": "bdev"}));
    let calls = saved.as_array().unwrap().iter();
    let calls = calls.map(|call| (&call["method"], &call["params"]));
    let told: Vec<&Value> = calls
        .filter_map(|(method, params)| match method.as_str()? {
            "sock_impl_set_options" => Some(&params["enable_ktls"]),
            "bdev_nvme_attach_controller" => Some(&params["psk"]),
            _ => None,
        })
        .collect();
    assert_eq!(json!(told), json!([true, "first", false, "second"]));

    // One does not open the other's subsystem.
    w.call("bdev_nvme_detach_controller", json!({"name": "Nvme1"}));
    let more = json!({
        "name": "Nvme1", "hostnqn": HOST, "subnqn": OTHER_SUBSYSTEM, "psk": "first",
    });
    let params = w.params(2, more);
    let (code, text) = w.fail("bdev_nvme_attach_controller", params);
    assert!(
        code == -5 && text.contains("TLS: the peer refuses"),
        "{text}"
    );
    w.await_paths(&[[true; 3]]);
}

#[test]
fn listeners_are_secure_or_not() {
    let mut w = World::new();
    let plain = w.listeners[0];
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let refused = |w: &World, addr| {
        let request = TargetRequest::add_secure_listener(nqn(), addr);
        w.target.handle.call(request).unwrap_err().to_string()
    };
    assert!(refused(&w, any).contains("allow_any_host"));
    secure(&mut w, HOST, &psk(1, 32));
    assert!(refused(&w, plain).contains("exists already"));
    let allow = TargetRequest::allow_any_host(nqn(), true);
    let error = w.target.handle.call(allow).unwrap_err().to_string();
    assert!(error.contains("secure listener"), "{error}");
    assert!(w.target.status().subsystems[0].listeners[2].secure);
}

/// What a discovery service lists as secure is attached with the key, and what it does not list so without one.
#[test]
fn discovery_with_a_key() {
    let files = Files::named("discovery");
    let mut w = World::new();
    secure(&mut w, HOST, &psk(1, 32));
    files.add(&mut w, "right", &psk(1, 32));
    let addr = w.listeners[0];
    let mut params = json!({
        "name": "Found",
        "trtype": "TCP",
        "adrfam": "ipv4",
        "traddr": addr.ip().to_string(),
        "trsvcid": addr.port().to_string(),
        "hostnqn": HOST,
        "attach_timeout_ms": 20_000,
        "psk": "missing",
    });
    assert_eq!(w.fail("bdev_nvme_start_discovery", params.clone()).0, -126);
    params["psk"] = "right".into();
    // The other listeners of the subsystem let nobody in without TLS.
    for plain in [0, 1] {
        w.target.unlisten(w.listeners[plain]);
    }
    let service = TargetRequest::add_listener(Nqn::discovery(), addr);
    w.target.handle.call(service).unwrap();
    w.call("bdev_nvme_start_discovery", params);
    let status = w.target.status();
    let controllers = &status.subsystems[0].controllers;
    assert_eq!(controllers.len(), 1, "{controllers:?}");
    assert_eq!(controllers[0].qpairs.len(), 3);
    let saved = w.call("framework_get_config", json!({"name": "bdev"}));
    let mut calls = saved.as_array().unwrap().iter();
    let start = |c: &&Value| c["method"] == "bdev_nvme_start_discovery";
    assert_eq!(calls.find(start).unwrap()["params"]["psk"], "right");
}
