//! The configuration: what is saved makes the same target again, and what SPDK has saved loads; hosts with keys.

use pollux_nvme_tcp::auth::{KeyText, Secret};
use pollux_nvme_tcp::testing::{ManagedTarget, NQN};
use pollux_nvme_tcp::tls::ConfiguredPsk;
use pollux_reactor::rpc::Config;
use serde_json::json;

use crate::{HOST, configured, listen, prepare, start};

#[test]
fn the_configuration_makes_the_same_target_again() {
    let mut t = start();
    prepare(&mut t);
    t.call(
        "bdev_null_create",
        json!({"name": "Null0", "num_blocks": 256, "block_size": 4096}),
    );
    t.add_ns("Malloc0");
    let namespace = json!({"bdev_name": "Null0", "nsid": 3, "nguid": "00112233445566778899aabbccddeeff", "eui64": "0123456789ABCDEF", "anagrpid": 2, "no_auto_visible": true});
    t.call(
        "nvmf_subsystem_add_ns",
        json!({"nqn": NQN, "namespace": namespace}),
    );
    let host = json!({"nqn": NQN, "nsid": 3, "host": HOST});
    assert_eq!(t.call("nvmf_ns_add_host", host), true);
    let address = listen(&mut t);
    t.call(
        "nvmf_subsystem_listener_set_ana_state",
        json!({"nqn": NQN, "listen_address": address, "ana_state": "inaccessible", "anagrpid": 2}),
    );
    let second = listen(&mut t);
    t.call(
        "nvmf_subsystem_listener_set_ana_state",
        json!({"nqn": NQN, "listen_address": second, "ana_state": "non_optimized"}),
    );
    t.call("nvmf_subsystem_add_host", json!({"nqn": NQN, "host": HOST}));
    t.call("nvmf_set_crdt", json!({"crdt1": 5, "crdt3": 7}));
    let there = json!({"trtype": "tcp", "traddr": "192.0.2.1", "trsvcid": "8009"});
    t.call("nvmf_discovery_add_referral", json!({"address": there}));
    let before = (t.client.config(), t.call("nvmf_get_subsystems", json!({})));
    let namespaces = &before.1[1]["namespaces"];
    assert_eq!(namespaces[1]["eui64"], "0123456789ABCDEF");
    assert_eq!(namespaces[1]["no_auto_visible"], true);
    assert_eq!(namespaces[1]["hosts"], json!([{"nqn": HOST}]));
    let uuid = namespaces[0]["uuid"].as_str().unwrap().replace('-', "");
    assert_eq!(namespaces[0]["nguid"], uuid.to_uppercase());
    drop(t);

    let config = Config::parse(&before.0.to_string()).unwrap();
    let mut again = configured(config);
    let after = (
        again.client.config(),
        again.call("nvmf_get_subsystems", json!({})),
    );
    assert_eq!(after, before);
    let referrals = again.call("nvmf_discovery_get_referrals", json!({}));
    assert_eq!(referrals[0]["address"]["traddr"], "192.0.2.1");
}

/// What SPDK's target saves loads: what it tunes that is not here is left out, what it serves is served.
#[test]
fn the_configuration_of_spdks_target_loads() {
    let config = Config::parse(include_str!("spdk_target.json")).unwrap();
    let mut t = configured(config);
    let subsystems = t.call("nvmf_get_subsystems", json!({}));
    let namespace = &subsystems[1]["namespaces"][0];
    assert_eq!(namespace["bdev_name"], "Malloc0");
    assert_eq!(namespace["uuid"], "4f3f0b0f-5b3a-4f0e-8f39-0c2f3f0c9a11");
    let transports = t.call("nvmf_get_transports", json!({}));
    assert_eq!(transports[0]["max_io_size"], 131_072);
}

/// Hosts with keys: by name in status and in what is saved, which can be loaded again.
#[test]
fn keys_of_hosts() {
    let mut w = start();
    prepare(&mut w);
    let name = format!("pollux-target-keys-{}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    for (byte, name) in [(1, "key1"), (2, "key2")] {
        let secret = Secret::new(&[byte; 32], None).unwrap();
        let path = folder.join(name);
        let text = KeyText::new(secret.to_text().to_string());
        text.write_new(&path).unwrap();
        let key = json!({"name": name, "path": path.to_str().unwrap()});
        w.call("keyring_file_add_key", key);
    }
    let host = json!({"nqn": NQN, "host": HOST, "dhchap_key": "key1", "dhchap_ctrlr_key": "key2"});
    w.call("nvmf_subsystem_add_host", host.clone());
    let listed = w.call("nvmf_get_subsystems", json!({"nqn": NQN}));
    let shown = json!([{"nqn": HOST, "dhchap_key": "key1", "dhchap_ctrlr_key": "key2"}]);
    assert_eq!(listed[0]["hosts"], shown);
    let saved = w.call("framework_get_config", json!({"name": "nvmf"}));
    let keys = w.call("framework_get_config", json!({"name": "keyring"}));
    let add = json!({"method": "nvmf_subsystem_add_host", "params": host});
    assert!(saved.as_array().unwrap().contains(&add), "{saved}");
    assert_eq!(keys.as_array().unwrap().len(), 2);
    // AQEB is how a key of ones begins in base64.
    assert!(!format!("{saved}{keys}{listed}").contains("AQEB"));

    let keys = json!({"nqn": NQN, "host": HOST, "dhchap_key": "key2"});
    w.call("nvmf_subsystem_set_keys", keys);
    let listed = w.call("nvmf_get_subsystems", json!({"nqn": NQN}));
    assert_eq!(
        listed[0]["hosts"],
        json!([{"nqn": HOST, "dhchap_key": "key2"}])
    );
    w.call("nvmf_subsystem_set_keys", json!({"nqn": NQN, "host": HOST}));
    let listed = w.call("nvmf_get_subsystems", json!({"nqn": NQN}));
    assert_eq!(listed[0]["hosts"], json!([{"nqn": HOST}]));
    for (more, code) in [
        (json!({"dhchap_key": "key3"}), -126),
        (json!({"dhchap_ctrlr_key": "key2"}), -32602),
        (json!({"host": "somebody"}), -2),
    ] {
        let mut params = json!({"nqn": NQN, "host": HOST});
        for (name, value) in more.as_object().unwrap() {
            params[name] = value.clone();
        }
        let (found, text) = w.error("nvmf_subsystem_set_keys", params);
        assert_eq!(found, code, "{more} {text}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

/// Hosts with keys of both kinds, secure listeners and namespaces that are not for everybody: what is saved makes the same
/// target again, from the same files.
#[test]
fn the_configuration_makes_the_same_access_again() {
    let mut t = start();
    prepare(&mut t);
    let name = format!("pollux-target-access-{}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let secret = Secret::new(&[1; 32], None).unwrap().to_text();
    let psk = ConfiguredPsk::new(&[1; 48], None).unwrap().to_text();
    for (name, text) in [("dhchap", &secret), ("controller", &secret), ("tls", &psk)] {
        let path = folder.join(name);
        KeyText::new(text.to_string()).write_new(&path).unwrap();
        let key = json!({"name": name, "path": path.to_str().unwrap()});
        t.call("keyring_file_add_key", key);
    }
    let allow = json!({"nqn": NQN, "allow_any_host": false});
    t.call("nvmf_subsystem_allow_any_host", allow);
    let host = json!({"nqn": NQN, "host": HOST, "dhchap_key": "dhchap", "dhchap_ctrlr_key": "controller", "psk": "tls"});
    t.call("nvmf_subsystem_add_host", host);
    t.call(
        "nvmf_subsystem_add_host",
        json!({"nqn": NQN, "host": format!("{HOST}2")}),
    );
    let namespace = json!({"bdev_name": "Malloc0", "nsid": 2, "no_auto_visible": true});
    t.call(
        "nvmf_subsystem_add_ns",
        json!({"nqn": NQN, "namespace": namespace}),
    );
    t.call(
        "nvmf_ns_add_host",
        json!({"nqn": NQN, "nsid": 2, "host": HOST}),
    );
    let free = json!({"trtype": "TCP", "traddr": "127.0.0.1", "trsvcid": "0"});
    let secure = json!({"nqn": NQN, "listen_address": free, "secure_channel": true});
    t.call("nvmf_subsystem_add_listener", secure);
    listen(&mut t);
    let seen = |t: &mut ManagedTarget| {
        let listeners = t.call("nvmf_subsystem_get_listeners", json!({"nqn": NQN}));
        let subsystems = t.call("nvmf_get_subsystems", json!({}));
        (
            t.client.config(),
            subsystems,
            listeners,
            t.call("keyring_get_keys", json!({})),
        )
    };
    let before = seen(&mut t);
    assert_eq!(before.2[0]["secure_channel"], true);
    assert_eq!(before.3.as_array().unwrap().len(), 3);
    // AQEB is how a key of ones begins in base64.
    assert!(!format!("{before:?}").contains("AQEB"));
    drop(t);
    let config = Config::parse(&before.0.to_string()).unwrap();
    let mut again = configured(config);
    assert_eq!(seen(&mut again), before);
    drop(again);
    std::fs::remove_dir_all(folder).unwrap();
}
