//! Hosts that authenticate by keys of the keyring.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use pollux_nvme_tcp::auth::{DhGroup, Hash, KeyNames, KeyText, Keys, Policy, Secret};
use pollux_nvme_tcp::spec::fabrics::{ConnectCommand, ConnectData};
use pollux_nvme_tcp::spec::{HostNqn, Nqn, Status};
use pollux_nvme_tcp::target::{HostKeys, SubsystemStatus, TargetRequest};
use pollux_nvme_tcp::testing::{Initiator, Options, wait_for};
use serde_json::{Value, json};
use zerocopy::IntoBytes;

use crate::world::{World, nqn};

const HOST: &str = "nqn.2014-08.org.example:host";

fn secret(byte: u8) -> Secret {
    Secret::new(&[byte; 48], Some(Hash::Sha384)).unwrap()
}

/// What must not be seen anywhere.
fn base64_of(byte: u8) -> String {
    secret(byte).to_text().split(':').nth(2).unwrap()[..20].to_owned()
}

struct Files(PathBuf);

impl Files {
    fn named(name: &str) -> Self {
        let name = format!("pollux-host-keys-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn key(&self, byte: u8) -> String {
        let path = self.0.join(format!("key{byte}"));
        let text = KeyText::new(secret(byte).to_text().to_string());
        text.write_new(&path).unwrap();
        path.display().to_string()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a target is told of a host's keys.
fn keys_of(host: u8, controller: Option<u8>) -> HostKeys {
    let names = KeyNames {
        dhchap_key: "host".into(),
        dhchap_ctrlr_key: controller.map(|_| "controller".into()),
    };
    let keys = Keys {
        host: secret(host),
        controller: controller.map(secret),
    };
    HostKeys { keys, names }
}

fn require(w: &World, host: u8, controller: Option<u8>) {
    let (host, keys) = (HostNqn::new(HOST).unwrap(), Some(keys_of(host, controller)));
    w.target
        .handle
        .call(TargetRequest::add_host_with_keys(nqn(), host, keys))
        .unwrap();
}

#[test]
fn attach_with_keys() {
    let files = Files::named("attach");
    let mut w = World::new();
    require(&w, 1, Some(2));
    for byte in [1, 2, 3] {
        let key = json!({"name": format!("key{byte}"), "path": files.key(byte)});
        assert_eq!(w.call("keyring_file_add_key", key.clone()), json!(true));
        assert_eq!(w.fail("keyring_file_add_key", key).0, -17);
    }
    let attempt = |w: &mut World, more: Value| {
        let mut all = json!({"hostnqn": HOST});
        for (name, value) in more.as_object().unwrap() {
            all[name] = value.clone();
        }
        let params = w.params(0, all);
        w.fail("bdev_nvme_attach_controller", params)
    };
    for (more, code, words) in [
        (json!({}), -5, "no key was given"),
        (json!({"dhchap_key": "key3"}), -5, "authentication failed"),
        (
            json!({"dhchap_key": "key1", "dhchap_ctrlr_key": "key3"}),
            -5,
            "does not prove",
        ),
        (json!({"dhchap_key": "key4"}), -126, "key4"),
        (json!({"dhchap_ctrlr_key": "key2"}), -32602, "dhchap_key"),
    ] {
        let (found, text) = attempt(&mut w, more.clone());
        assert_eq!(found, code, "{more} {text}");
        assert!(text.contains(words), "{more} {text}");
    }
    assert_eq!(w.call("bdev_nvme_get_controllers", json!({})), json!([]));

    let keys = json!({"hostnqn": HOST, "dhchap_key": "key1", "dhchap_ctrlr_key": "key2"});
    assert_eq!(w.attach(0, keys), json!(["Nvme0n1"]));
    // A second path, of which the controller need not prove itself.
    let keys = json!({"hostnqn": HOST, "dhchap_key": "key1"});
    assert_eq!(w.attach(1, keys), json!(["Nvme0n1"]));
    w.await_paths(&[[true, true, true], [false, true, true]]);
    let status = w.target.status();
    let controllers = &status.subsystems[0].controllers;
    let qpairs: Vec<_> = controllers.iter().flat_map(|c| &c.qpairs).collect();
    assert_eq!(qpairs.len(), 6);
    assert!(qpairs.iter().all(|q| q.auth.is_some()), "{qpairs:?}");

    // The names of keys are saved, and nothing of what they are.
    let saved = w.call("framework_get_config", json!({"name": "bdev"}));
    let saved_keys = w.call("framework_get_config", json!({"name": "keyring"}));
    assert_eq!(saved_keys[0]["method"], "keyring_file_add_key");
    assert_eq!(saved_keys.as_array().unwrap().len(), 3);
    let attached = saved.as_array().unwrap().iter();
    let mut attached = attached.filter(|c| c["method"] == "bdev_nvme_attach_controller");
    let first = attached.next().unwrap();
    assert_eq!(first["params"]["dhchap_key"], "key1");
    assert_eq!(first["params"]["dhchap_ctrlr_key"], "key2");
    let controllers = w.call("bdev_nvme_get_controllers", json!({}));
    let listed = w.call("keyring_get_keys", json!({}));
    let shown = format!("{saved} {saved_keys} {controllers} {listed} {status:?}");
    for byte in [1, 2, 3] {
        assert!(!shown.contains(&base64_of(byte)), "{shown}");
        let numbers = format!("{byte}, {byte}, {byte}");
        assert!(!shown.contains(&numbers), "{shown}");
    }

    assert_eq!(
        w.fail("keyring_file_remove_key", json!({"name": "key9"})).0,
        -2
    );
    w.call("keyring_file_remove_key", json!({"name": "key1"}));
    // Who was given it keeps it: a reset authenticates again.
    w.call("bdev_nvme_reset_controller", json!({"name": "Nvme0"}));
    w.await_paths(&[[true, true, true], [false, true, true]]);
}

/// A host has a key for each of two subsystems of a target, and is attached to both at once: the queues of each have authenticated,
/// and do so again while the others serve.
#[test]
fn one_host_with_two_keys() {
    let files = Files::named("two");
    let mut w = World::new();
    require(&w, 1, None);
    let other = w.other_subsystem("nqn.2014-08.org.example:disk2");
    let call = |w: &World, request| w.target.handle.call(request).unwrap();
    let host = HostNqn::new(HOST).unwrap();
    let keys = Some(keys_of(2, Some(3)));
    call(
        &w,
        TargetRequest::add_host_with_keys(other.clone(), host, keys),
    );
    let at = w.listeners[0];
    let listener = TargetRequest::add_listener(other.clone(), at);
    w.target.handle.call(listener).unwrap();
    for byte in [1, 2, 3] {
        let key = json!({"name": format!("key{byte}"), "path": files.key(byte)});
        w.call("keyring_file_add_key", key);
    }
    let second = |key: &str, of_controller: &str| {
        json!({
            "name": "Nvme1", "hostnqn": HOST, "subnqn": other.as_str(),
            "dhchap_key": key, "dhchap_ctrlr_key": of_controller,
        })
    };
    let first = json!({"hostnqn": HOST, "dhchap_key": "key1"});
    assert_eq!(w.attach(0, first), json!(["Nvme0n1"]));
    for (key, of_controller) in [("key1", "key3"), ("key2", "key1")] {
        let params = w.params(0, second(key, of_controller));
        let (code, text) = w.fail("bdev_nvme_attach_controller", params);
        assert_eq!(code, -5, "{key}, {of_controller}: {text}");
    }
    assert_eq!(w.attach(0, second("key2", "key3")), json!(["Nvme1n1"]));
    let proven = |w: &World| {
        let of = |subsystem: &SubsystemStatus| {
            let qpairs = subsystem.controllers.iter().flat_map(|c| &c.qpairs);
            let both_ways: Vec<_> = qpairs.map(|q| q.auth.map(|a| a.both_ways)).collect();
            both_ways
        };
        w.target
            .status()
            .subsystems
            .iter()
            .map(of)
            .collect::<Vec<_>>()
    };
    let wanted = [vec![Some(false); 3], vec![Some(true); 3]];
    assert_eq!(proven(&w), wanted);
    for (name, key) in [("Nvme0", "key1"), ("Nvme1", "key2")] {
        w.call(
            "bdev_nvme_set_keys",
            json!({"name": name, "dhchap_key": key}),
        );
        w.call("bdev_nvme_reset_controller", json!({"name": name}));
    }
    assert_eq!(proven(&w), [vec![Some(false); 3], vec![Some(false); 3]]);
    w.await_paths(&[[true; 3]]);
}

/// Both sides make a key for TLS of their authentication, and every queue of the controller comes with it, to the listener that
/// others use without; after each reset with a new one.
#[test]
fn secure_concatenation() {
    let files = Files::named("concatenation");
    let mut w = World::new();
    require(&w, 1, Some(2));
    for byte in [1, 2, 3] {
        let key = json!({"name": format!("key{byte}"), "path": files.key(byte)});
        w.call("keyring_file_add_key", key);
    }
    let asks = |more: Value| {
        let mut all = json!({"hostnqn": HOST, "secure_concatenation": true});
        for (name, value) in more.as_object().unwrap() {
            all[name] = value.clone();
        }
        all
    };
    for (more, code, words) in [
        (json!({}), -32602, "dhchap_key"),
        (json!({"dhchap_key": "key3"}), -5, "authentication failed"),
        (
            json!({"dhchap_key": "key1", "dhchap_ctrlr_key": "key3"}),
            -5,
            "does not prove",
        ),
    ] {
        let params = w.params(0, asks(more));
        let (found, text) = w.fail("bdev_nvme_attach_controller", params);
        assert!(found == code && text.contains(words), "{found} {text}");
    }
    let both = json!({"dhchap_key": "key1", "dhchap_ctrlr_key": "key2"});
    assert_eq!(w.attach(0, asks(both)), json!(["Nvme0n1"]));
    // Another host of the same listener, without TLS: it is told apart by its first bytes.
    let plain = json!({"hostnqn": HOST, "dhchap_key": "key1", "name": "Plain"});
    let params = w.params(0, plain);
    w.call("bdev_nvme_attach_controller", params);
    let one_way = asks(json!({"dhchap_key": "key1"}));
    w.attach(1, one_way);
    w.await_paths(&[[true, true, true], [false, true, true]]);
    let secure = |w: &World| -> Vec<Vec<bool>> {
        let status = w.target.status();
        let controllers = status.subsystems[0].controllers.iter();
        let mut all: Vec<Vec<bool>> = controllers
            .map(|c| c.qpairs.iter().map(|q| q.secure).collect())
            .collect();
        all.sort();
        all
    };
    let wanted = vec![vec![false; 3], vec![true; 3], vec![true; 3]];
    assert_eq!(secure(&w), wanted);
    w.call("bdev_nvme_reset_controller", json!({"name": "Nvme0"}));
    w.await_paths(&[[true, true, true], [false, true, true]]);
    assert_eq!(secure(&w), wanted);
    let saved = w.call("framework_get_config", json!({"name": "bdev"}));
    assert!(saved.to_string().contains("secure_concatenation"));

    // One more queue of such a controller, as its host would connect it, but without TLS.
    let status = w.target.status();
    for controller in &status.subsystems[0].controllers {
        let mut io = Initiator::initialized(controller.listener, Options::default());
        let command = ConnectCommand::new(7, 32, 0, 0);
        let hostnqn: Nqn = controller.hostnqn.as_str().parse().unwrap();
        let data = ConnectData::new(controller.hostid, controller.cntlid, &nqn(), &hostnqn);
        let status = io.command(command.into(), data.as_bytes()).0.status();
        match controller.qpairs[0].secure {
            true => assert_eq!(status, Status::CONNECT_INVALID_HOST.with_dnr()),
            false => assert!(status.is_success(), "{status}"),
        }
    }
}

/// The host's key at the target becomes another one; connections that there are stay.
fn change(w: &World, host: u8, controller: Option<u8>) {
    let (host, keys) = (HostNqn::new(HOST).unwrap(), Some(keys_of(host, controller)));
    w.target
        .handle
        .call(TargetRequest::set_keys(nqn(), host, keys))
        .unwrap();
}

/// What all queues of the host have agreed on.
fn agreed(w: &World) -> Vec<(&'static str, &'static str, bool)> {
    let status = w.target.status();
    let controllers = &status.subsystems[0].controllers;
    let qpairs = controllers.iter().flat_map(|c| &c.qpairs);
    let all = qpairs.filter_map(|q| q.auth.map(|a| (a.names().0, a.names().1, a.both_ways)));
    all.collect()
}

#[test]
fn other_keys_while_connected() {
    let files = Files::named("set");
    let mut w = World::new();
    require(&w, 1, None);
    for byte in [1, 2, 3] {
        let key = json!({"name": format!("key{byte}"), "path": files.key(byte)});
        w.call("keyring_file_add_key", key);
    }
    let (code, text) = w.fail(
        "bdev_nvme_set_keys",
        json!({"name": "Nvme0", "dhchap_key": "key1"}),
    );
    assert!(code == -19 && text.contains("Nvme0"), "{code} {text}");
    for (member, name) in [("dhchap_digests", "md5"), ("dhchap_dhgroups", "ffdhe1024")] {
        let method = "bdev_nvme_set_options";
        let (code, text) = w.fail(method, json!({member: [name]}));
        assert!(code == -32602 && text.contains(name), "{code} {text}");
        assert_eq!(w.fail(method, json!({member: []})).0, -32602);
    }
    let policy =
        json!({"dhchap_digests": ["sha256", "sha384"], "dhchap_dhgroups": ["null", "ffdhe2048"]});
    w.call("bdev_nvme_set_options", policy.clone());
    let keys = json!({"hostnqn": HOST, "dhchap_key": "key1"});
    w.attach(0, keys.clone());
    w.attach(1, keys);
    assert_eq!(agreed(&w), [("sha384", "ffdhe2048", false); 6]);
    let saved = w.call("framework_get_config", json!({"name": "bdev"}));
    let options = saved.as_array().unwrap().iter();
    let mut options = options.filter(|c| c["method"] == "bdev_nvme_set_options");
    assert_eq!(options.next().unwrap()["params"], policy);

    // Both sides have another one, and the connections stay.
    let cntlids = w.cntlids();
    change(&w, 2, Some(3));
    let keys = json!({"name": "Nvme0", "dhchap_key": "key2", "dhchap_ctrlr_key": "key3"});
    assert_eq!(w.call("bdev_nvme_set_keys", keys), json!(true));
    assert_eq!(agreed(&w), [("sha384", "ffdhe2048", true); 6]);
    assert_eq!(w.cntlids(), cntlids);
    let saved = w
        .call("framework_get_config", json!({"name": "bdev"}))
        .to_string();
    assert!(saved.contains("key3") && !saved.contains("key1"), "{saved}");

    // With a wrong one the connections go, and come back when it is right again.
    let keys = json!({"name": "Nvme0", "dhchap_key": "key1"});
    let (code, text) = w.fail("bdev_nvme_set_keys", keys);
    assert!(
        code == -5 && text.contains("authentication failed"),
        "{code} {text}"
    );
    // Each has tried once more by itself.
    while w.states() != ["failed", "failed"] {
        std::thread::yield_now();
    }
    change(&w, 1, None);
    w.call("bdev_nvme_reset_controller", json!({"name": "Nvme0"}));
    w.await_paths(&[[true, true, true], [false, true, true]]);
    assert_eq!(agreed(&w), [("sha384", "ffdhe2048", false); 6]);
}

/// Passes bytes on between hosts and a target, until `holds` is true: then it holds back what hosts send, and cuts all
/// connections once so many of them have something held back.
fn cutter(target: SocketAddr, connections: usize, holds: Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (ends, all) = mpsc::channel();
    let (holding, held) = mpsc::channel();
    std::thread::spawn(move || {
        for host in listener.incoming() {
            let (mut host, mut target) = (host.unwrap(), TcpStream::connect(target).unwrap());
            let [mut to_host, mut from_target] =
                [&host, &target].map(|end| end.try_clone().unwrap());
            ends.send(host.try_clone().unwrap()).unwrap();
            ends.send(target.try_clone().unwrap()).unwrap();
            std::thread::spawn(move || std::io::copy(&mut from_target, &mut to_host));
            let (holds, holding) = (holds.clone(), holding.clone());
            std::thread::spawn(move || {
                let mut buffer = [0; 65536];
                while let Ok(len @ 1..) = host.read(&mut buffer) {
                    if holds.load(Ordering::SeqCst) {
                        let _ = holding.send(());
                        return;
                    }
                    target.write_all(&buffer[..len]).unwrap();
                }
            });
        }
    });
    std::thread::spawn(move || {
        assert_eq!(held.iter().take(connections).count(), connections);
        for end in all.try_iter() {
            // What is closed already need not be cut.
            let _ = end.shutdown(Shutdown::Both);
        }
    });
    addr
}

/// Who goes away while keys are being changed is not told as one that does not accept them.
#[test]
fn a_connection_that_is_cut_while_keys_change() {
    let files = Files::named("cut");
    let mut w = World::new();
    require(&w, 1, None);
    let key = json!({"name": "key1", "path": files.key(1)});
    w.call("keyring_file_add_key", key);
    let holds = Arc::new(AtomicBool::new(false));
    let addr = cutter(w.listeners[0], 3, holds.clone());
    let port = addr.port().to_string();
    let keys = json!({"trsvcid": port, "hostnqn": HOST, "dhchap_key": "key1"});
    w.attach(0, keys);
    holds.store(true, Ordering::SeqCst);
    let keys = json!({"name": "Nvme0", "dhchap_key": "key1"});
    let (code, text) = w.fail("bdev_nvme_set_keys", keys);
    assert_eq!(code, -5, "{text}");
    assert!(
        text.contains("closed") && !text.contains("authentication"),
        "{text}"
    );
}

/// The target allows something else from now on; by and by all queues have it.
#[test]
fn authentication_by_interval() {
    let files = Files::named("interval");
    let mut w = World::new();
    require(&w, 1, None);
    w.call(
        "keyring_file_add_key",
        json!({"name": "key1", "path": files.key(1)}),
    );
    let keys = json!({"hostnqn": HOST, "dhchap_key": "key1", "dhchap_interval_sec": 1});
    w.attach(0, keys);
    assert_eq!(agreed(&w), [("sha512", "ffdhe8192", false); 3]);
    let policy = Policy {
        hashes: vec![Hash::Sha256],
        groups: vec![DhGroup::Null],
    };
    w.target
        .handle
        .call(TargetRequest::set_auth_policy(policy))
        .unwrap();
    wait_for("all queues to authenticate again", || {
        agreed(&w) == [("sha256", "null", false); 3]
    });
    assert_eq!(w.cntlids().len(), 1);
}

#[test]
fn discovery_with_keys() {
    let files = Files::named("discovery");
    let mut w = World::new();
    require(&w, 1, Some(2));
    for byte in [1, 2] {
        let key = json!({"name": format!("key{byte}"), "path": files.key(byte)});
        w.call("keyring_file_add_key", key);
    }
    let addr = w.listeners[0];
    let params = json!({
        "name": "Found",
        "trtype": "TCP",
        "adrfam": "ipv4",
        "traddr": addr.ip().to_string(),
        "trsvcid": addr.port().to_string(),
        "hostnqn": HOST,
        "wait_for_attach": true,
        "dhchap_key": "key1",
        "dhchap_ctrlr_key": "key2",
    });
    for concatenate in [false, true] {
        let mut params = params.clone();
        params["secure_concatenation"] = concatenate.into();
        w.call("bdev_nvme_start_discovery", params);
        let agreed = agreed(&w);
        assert!(
            agreed.len() >= 3 && agreed.iter().all(|a| a.2),
            "{agreed:?}"
        );
        let status = w.target.status();
        let controllers = status.subsystems[0].controllers.iter();
        let mut qpairs = controllers.flat_map(|c| &c.qpairs);
        assert!(qpairs.all(|qpair| qpair.secure == concatenate));
        let saved = w.call("framework_get_config", json!({"name": "bdev"}));
        let calls = saved.as_array().unwrap().iter();
        let mut calls = calls.filter(|c| c["method"] == "bdev_nvme_start_discovery");
        let saved = &calls.next().unwrap()["params"];
        assert_eq!(saved["dhchap_ctrlr_key"], "key2");
        assert_eq!(saved.get("secure_concatenation").is_some(), concatenate);
        w.call("bdev_nvme_stop_discovery", json!({"name": "Found"}));
    }
    let mut both = params;
    both["secure_concatenation"] = true.into();
    both["psk"] = "key1".into();
    assert_eq!(w.fail("bdev_nvme_start_discovery", both).0, -32602);
}

#[test]
fn files_that_cannot_be_keys() {
    let files = Files(std::env::temp_dir().join(format!("pollux-bad-keys-{}", std::process::id())));
    std::fs::create_dir_all(&files.0).unwrap();
    let mut w = World::new();
    let path = files.key(1);
    open(Path::new(&path), 0o644);
    for (path, words) in [
        (path.as_str(), "mode 0644"),
        ("", "is empty"),
        ("/nonexistent/key", "No such file"),
        (files.0.to_str().unwrap(), "not a regular file"),
    ] {
        let (code, text) = w.fail("keyring_file_add_key", json!({"name": "k", "path": path}));
        assert!(code == -1 && text.contains(words), "{code} {text}");
    }
    open(Path::new(&path), 0o600);
    std::fs::write(&path, "NVMeTLSkey-1:01:c2VjcmV0:").unwrap();
    w.call("keyring_file_add_key", json!({"name": "k", "path": path}));
    let params = w.params(0, json!({"dhchap_key": "k"}));
    let (code, text) = w.fail("bdev_nvme_attach_controller", params);
    assert!(code == -32602 && !text.contains("c2Vj"), "{code} {text}");
}

fn open(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}
