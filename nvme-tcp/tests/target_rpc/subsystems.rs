//! Subsystems and their parts: what is made, what is refused, and what their listeners report.

use pollux_nvme_tcp::testing::{ManagedTarget, NQN};
use serde_json::json;

use crate::{HOST, listen, prepare, start};

#[test]
fn a_subsystem_comes_with_its_parts_and_goes() {
    let mut t = start();
    let stats = t.call("nvmf_get_stats", json!({}));
    let groups = stats["poll_groups"].as_array().unwrap();
    assert_eq!(groups.len(), 2);
    assert!(groups.iter().all(|g| g["transports"] == json!([])));
    prepare(&mut t);
    let stats = t.call("nvmf_get_stats", json!({}));
    assert_eq!(stats["poll_groups"][0]["transports"][0]["trtype"], "TCP");
    assert_eq!(t.add_ns("Malloc0"), 1);
    let address = listen(&mut t);
    t.call("nvmf_subsystem_add_host", json!({"nqn": NQN, "host": HOST}));

    let list = t.call("nvmf_get_subsystems", json!({}));
    assert_eq!(list[0]["subtype"], "Discovery");
    let subsystem = &list[1];
    assert_eq!(
        (&subsystem["nqn"], &subsystem["subtype"]),
        (&json!(NQN), &json!("NVMe"))
    );
    assert_eq!(subsystem["listen_addresses"], json!([address]));
    assert_eq!(subsystem["hosts"], json!([{"nqn": HOST}]));
    let disk = t.call("bdev_get_bdevs", json!({"name": "Malloc0"}));
    let namespace = &subsystem["namespaces"][0];
    assert_eq!(namespace["bdev_name"], "Malloc0");
    assert_eq!(namespace["uuid"], disk[0]["uuid"]);
    assert_eq!(disk[0]["claimed"], true);

    // The disk is free again when the subsystem is gone.
    t.call("nvmf_delete_subsystem", json!({"nqn": NQN}));
    assert_eq!(
        t.call("nvmf_get_subsystems", json!({}))
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(t.call("bdev_get_bdevs", json!({}))[0]["claimed"], false);
    t.call("bdev_malloc_delete", json!({"name": "Malloc0"}));
    assert_eq!(t.call("bdev_get_bdevs", json!({})), json!([]));
    let kinds = t.call("notify_get_notifications", json!({"id": 1}));
    assert_eq!(
        kinds,
        json!([{"id": 1, "type": "bdev_unregister", "ctx": "Malloc0"}])
    );
}

#[test]
fn what_is_refused_leaves_nothing() {
    let mut t = start();
    let listener = json!({"trtype": "tcp", "traddr": "127.0.0.1", "trsvcid": "0"});
    let add = json!({"nqn": NQN, "listen_address": listener});
    assert_eq!(t.error("nvmf_subsystem_add_listener", add).0, -32602);
    prepare(&mut t);
    let before = t.client.config();
    for (method, params, code, words) in [
        (
            "nvmf_create_transport",
            json!({"trtype": "tcp"}),
            -32603,
            "already exists",
        ),
        (
            "nvmf_create_transport",
            json!({"trtype": "rdma"}),
            -32602,
            "rdma",
        ),
        ("nvmf_create_subsystem", json!({"nqn": NQN}), -17, "exists"),
        (
            "nvmf_create_subsystem",
            json!({"nqn": "x"}),
            -32602,
            "'nqn'",
        ),
        (
            "nvmf_create_subsystem",
            json!({"nqn": format!("{NQN}2"), "tgt_name": "other"}),
            -32603,
            "Unable to find target",
        ),
        (
            "nvmf_create_subsystem",
            json!({"nqn": format!("{NQN}2"), "serial_number": "123456789012345678901"}),
            -32602,
            "Invalid parameters",
        ),
        (
            "nvmf_create_subsystem",
            json!({"nqn": format!("{NQN}2"), "model_number": "m\u{7f}"}),
            -32602,
            "Invalid parameters",
        ),
        (
            "nvmf_create_subsystem",
            json!({"nqn": format!("{NQN}2"), "min_cntlid": 0}),
            -32602,
            "Invalid cntlid range",
        ),
        (
            "nvmf_create_subsystem",
            json!({"nqn": format!("{NQN}2"), "min_cntlid": 5, "max_cntlid": 4}),
            -32602,
            "Invalid cntlid range",
        ),
        (
            "nvmf_create_subsystem",
            json!({"nqn": format!("{NQN}2"), "colour": 1}),
            -32602,
            "'colour'",
        ),
        (
            "nvmf_subsystem_add_ns",
            json!({"nqn": NQN, "namespace": {"bdev_name": "none"}}),
            -19,
            "No such device",
        ),
        (
            "nvmf_subsystem_add_ns",
            json!({"nqn": NQN, "namespace": {"bdev_name": "Malloc0", "nsid": 5}}),
            -32602,
            "nsid 5",
        ),
        (
            "nvmf_subsystem_add_ns",
            json!({"nqn": NQN, "namespace": {"bdev_name": "Malloc0", "nguid": "12"}}),
            -32602,
            "'namespace.nguid'",
        ),
        (
            "nvmf_subsystem_add_ns",
            json!({"nqn": NQN, "namespace": {"bdev_name": "Malloc0", "hide_metadata": true}}),
            -32602,
            "'namespace.hide_metadata'",
        ),
        (
            "nvmf_subsystem_remove_ns",
            json!({"nqn": NQN, "nsid": 1}),
            -2,
            "namespace 1",
        ),
        (
            "nvmf_subsystem_remove_listener",
            json!({"nqn": NQN, "listen_address": {"trtype": "tcp", "traddr": "::1", "trsvcid": "1"}}),
            -2,
            "[::1]:1",
        ),
        (
            "nvmf_subsystem_add_listener",
            json!({"nqn": NQN, "listen_address": listener, "secure_channel": true}),
            -32602,
            "secure_channel: not where any host is allowed",
        ),
        (
            "nvmf_subsystem_add_listener",
            json!({"nqn": NQN, "listen_address": {"trtype": "tcp", "traddr": "::1", "trsvcid": "1", "adrfam": "ipv4"}}),
            -32602,
            "'listen_address.traddr'",
        ),
        (
            "nvmf_subsystem_add_host",
            json!({"nqn": NQN, "host": HOST, "psk": "key0"}),
            -126,
            "key0",
        ),
        (
            "nvmf_subsystem_remove_host",
            json!({"nqn": NQN, "host": HOST}),
            -2,
            HOST,
        ),
        (
            "bdev_malloc_create",
            json!({"name": "Malloc0", "num_blocks": 8, "block_size": 512}),
            -17,
            "Malloc0",
        ),
        (
            "bdev_malloc_create",
            json!({"num_blocks": 0, "block_size": 512}),
            -22,
            "num_blocks",
        ),
        (
            "bdev_malloc_create",
            json!({"num_blocks": u64::MAX, "block_size": 512}),
            -22,
            "num_blocks",
        ),
        (
            "bdev_malloc_create",
            json!({"num_blocks": 8, "block_size": 513}),
            -22,
            "513",
        ),
        (
            "bdev_malloc_create",
            json!({"num_blocks": "8", "block_size": 512}),
            -32602,
            "'num_blocks'",
        ),
        (
            "bdev_malloc_create",
            json!({"block_size": 512}),
            -32602,
            "'num_blocks'",
        ),
        (
            "bdev_aio_create",
            json!({"name": "a", "filename": "/no/such/file"}),
            -2,
            "/no/such/file",
        ),
        (
            "bdev_aio_create",
            json!({"name": "a", "filename": "/no/such/file", "readonly": true}),
            -32602,
            "'readonly'",
        ),
        (
            "bdev_uring_create",
            json!({"name": "a", "filename": "/no/such/file", "readonly": false}),
            -32602,
            "'readonly'",
        ),
        (
            "bdev_uring_delete",
            json!({"name": "Malloc0"}),
            -19,
            "Malloc disk",
        ),
        (
            "bdev_uring_rescan",
            json!({"name": "Malloc0"}),
            -19,
            "Malloc disk",
        ),
        (
            "bdev_null_delete",
            json!({"name": "Malloc0"}),
            -19,
            "Malloc disk",
        ),
        (
            "bdev_get_bdevs",
            json!({"name": "none"}),
            -19,
            "No such device",
        ),
        (
            "nvmf_subsystem_get_controllers",
            json!({"nqn": HOST}),
            -2,
            HOST,
        ),
    ] {
        let shown = params.to_string();
        let (found, message) = t.error(method, params);
        assert_eq!(found, code, "{method} {shown}: {message}");
        assert!(message.contains(words), "{method} {shown}: {message}");
    }
    assert_eq!(t.client.config(), before);
    // The disk that some of them asked for is free.
    assert_eq!(t.add_ns("Malloc0"), 1);
    let again = json!({"nqn": NQN, "namespace": {"bdev_name": "Malloc0"}});
    assert_eq!(t.error("nvmf_subsystem_add_ns", again).0, -1);
}

#[test]
fn ana_states_are_set_for_one_group_or_all() {
    let mut t = start();
    prepare(&mut t);
    t.add_ns("Malloc0");
    let address = listen(&mut t);
    let states = |t: &mut ManagedTarget| {
        let listeners = t.call("nvmf_subsystem_get_listeners", json!({"nqn": NQN}));
        let states = listeners[0]["ana_states"].as_array().unwrap().clone();
        states
            .iter()
            .map(|s| s["ana_state"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(states(&mut t), ["optimized"]);
    let mut params =
        json!({"nqn": NQN, "listen_address": address, "ana_state": "non_optimized", "anagrpid": 1});
    t.call("nvmf_subsystem_listener_set_ana_state", params.clone());
    assert_eq!(states(&mut t), ["non_optimized"]);
    params["ana_state"] = "inaccessible".into();
    params.as_object_mut().unwrap().remove("anagrpid");
    t.call("nvmf_subsystem_listener_set_ana_state", params.clone());
    assert!(states(&mut t).iter().all(|s| s == "inaccessible"));
    params["ana_state"] = "excellent".into();
    let (code, message) = t.error("nvmf_subsystem_listener_set_ana_state", params);
    assert!(code == -32602 && message.contains("optimized"), "{message}");

    // A listener that starts with a state; without ANA reporting it cannot, and is not there then.
    let free = json!({"trtype": "tcp", "traddr": "127.0.0.1", "trsvcid": "0"});
    let other = format!("{NQN}2");
    t.call("nvmf_create_subsystem", json!({"nqn": other}));
    let params = json!({"nqn": other, "listen_address": free, "ana_state": "inaccessible"});
    assert_eq!(t.error("nvmf_subsystem_add_listener", params).0, -32602);
    assert_eq!(
        t.call("nvmf_subsystem_get_listeners", json!({"nqn": other})),
        json!([])
    );
    let params = json!({"nqn": NQN, "listen_address": free, "ana_state": "non_optimized"});
    t.call("nvmf_subsystem_add_listener", params);
    let listeners = t.call("nvmf_subsystem_get_listeners", json!({"nqn": NQN}));
    assert_eq!(listeners[1]["ana_states"][0]["ana_state"], "non_optimized");

    // The name of a host stands for its address, in each call that takes one.
    let mut named = listeners[1]["address"].clone();
    named["traddr"] = "localhost".into();
    named["adrfam"] = "IPv4".into();
    let params = json!({"nqn": NQN, "listen_address": named, "ana_state": "optimized"});
    t.call("nvmf_subsystem_listener_set_ana_state", params);
    named["traddr"] = "127.0.0".into();
    let params = json!({"nqn": NQN, "listen_address": named});
    let (code, message) = t.error("nvmf_subsystem_remove_listener", params);
    assert!(
        code == -32602 && message.contains("'127.0.0': not a name"),
        "{message}"
    );
    named["traddr"] = "localhost".into();
    let params = json!({"nqn": NQN, "listen_address": named});
    t.call("nvmf_subsystem_remove_listener", params);
}
