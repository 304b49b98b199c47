//! The target's management methods, from the socket to the target and back.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

use pollux_nvme_tcp::auth::{KeyText, Secret};
use pollux_nvme_tcp::spec::identify::{IdentifyNvmController, cns, ctrl};
use pollux_nvme_tcp::spec::nvm::{DatasetRange, dsm};
use pollux_nvme_tcp::spec::opcode::nvm;
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::spec::{SglDescriptor, Sqe};
use pollux_nvme_tcp::testing::{Initiator, ManagedTarget, NQN, Options, nqn, pattern};
use pollux_nvme_tcp::tls::ConfiguredPsk;
use pollux_reactor::Idle;
use pollux_reactor::rpc::Config;
use serde_json::{Value, json};
use zerocopy::{FromBytes, IntoBytes};

const HOST: &str = "nqn.2014-08.org.example:host";

fn start() -> ManagedTarget {
    configured(Config::default())
}

fn configured(config: Config) -> ManagedTarget {
    ManagedTarget::start(Idle::Yield, config)
}

/// A transport, a subsystem and a disk of 1 MiB.
fn prepare(t: &mut ManagedTarget) {
    t.call("nvmf_create_transport", json!({"trtype": "tcp"}));
    t.call(
        "nvmf_create_subsystem",
        json!({"nqn": NQN, "allow_any_host": true, "ana_reporting": true, "max_namespaces": 4}),
    );
    let disk = json!({"name": "Malloc0", "num_blocks": 2048, "block_size": 512});
    assert_eq!(t.call("bdev_malloc_create", disk), "Malloc0");
}

/// Adds a listener at a free port; its address as the management writes it.
fn listen(t: &mut ManagedTarget) -> Value {
    t.listen();
    let listeners = t.call("nvmf_subsystem_get_listeners", json!({"nqn": NQN}));
    listeners.as_array().unwrap().last().unwrap()["address"].clone()
}

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

#[test]
fn disks_grow_and_go_under_their_namespaces() {
    let mut t = start();
    prepare(&mut t);
    t.call(
        "bdev_null_create",
        json!({"name": "Null0", "num_blocks": 256, "block_size": 4096}),
    );
    assert_eq!(t.add_ns("Null0"), 1);
    t.call("bdev_null_resize", json!({"name": "Null0", "new_size": 2}));
    assert_eq!(
        t.call("bdev_get_bdevs", json!({"name": "Null0"}))[0]["num_blocks"],
        512
    );

    let path = std::env::temp_dir().join(format!("pollux-target-rpc-{}", std::process::id()));
    std::fs::write(&path, vec![7; 10_000]).unwrap();
    t.call(
        "bdev_aio_create",
        json!({"name": "Aio0", "filename": path, "block_size": 4096}),
    );
    // Whole blocks only, and the file stays as it is.
    assert_eq!(
        t.call("bdev_get_bdevs", json!({"name": "Aio0"}))[0]["num_blocks"],
        2
    );
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 10_000);
    assert_eq!(t.add_ns("Aio0"), 2);
    std::fs::write(&path, vec![7; 40_960]).unwrap();
    t.call("bdev_aio_rescan", json!({"name": "Aio0"}));
    assert_eq!(
        t.call("bdev_get_bdevs", json!({"name": "Aio0"}))[0]["num_blocks"],
        10
    );
    std::fs::remove_file(&path).unwrap();

    t.call("bdev_null_delete", json!({"name": "Null0"}));
    let list = t.call("nvmf_get_subsystems", json!({"nqn": NQN}));
    let names: Vec<_> = list[0]["namespaces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n["name"].clone())
        .collect();
    assert_eq!(names, ["Aio0"]);
    let kinds = t.call("notify_get_notifications", json!({}));
    let kinds: Vec<_> = kinds
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            "bdev_register",
            "bdev_register",
            "bdev_resize",
            "bdev_register",
            "bdev_resize",
            "bdev_unregister"
        ]
    );
}

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

#[test]
fn what_a_disk_does_is_counted_by_kinds_and_can_be_begun_anew() {
    let mut t = start();
    prepare(&mut t);
    let path = std::env::temp_dir().join(format!("pollux-iostat-{}", std::process::id()));
    std::fs::write(&path, vec![7; 1 << 20]).unwrap();
    let create = json!({"name": "Aio0", "filename": path, "block_size": 512});
    t.call("bdev_aio_create", create);
    assert_eq!([t.add_ns("Malloc0"), t.add_ns("Aio0")], [1, 2]);
    let (addr, nqn) = (t.listen(), nqn());
    let admin = Initiator::admin(addr, &nqn, Options::default());
    let mut io = Initiator::io(addr, &nqn, admin.cntlid, 1, Options::default());
    for nsid in [1, 2] {
        let data = pattern(4096, 1);
        assert!(io.write(nsid, 0, &data).is_success());
        assert!(io.write(nsid, 8, &pattern(65536, 2)).is_success());
        assert_eq!(io.read(nsid, 0, 8).unwrap(), data);
    }
    let stat = |t: &mut ManagedTarget, params| t.call("bdev_get_iostat", params)["bdevs"].clone();
    let all = stat(&mut t, json!({}));
    for (at, name) in [(0, "Malloc0"), (1, "Aio0")] {
        let stat = &all[at];
        assert_eq!(stat["name"], name);
        let reads = (&stat["num_read_ops"], &stat["bytes_read"]);
        assert_eq!(reads, (&json!(1), &json!(4096)), "{stat}");
        let writes = (&stat["num_write_ops"], &stat["bytes_written"]);
        assert_eq!(writes, (&json!(2), &json!(4096 + 65536)), "{stat}");
        assert_eq!(stat["pollux"]["errors"], 0);
    }
    assert!(
        all[1]["max_write_latency_ticks"].as_u64() >= all[1]["min_write_latency_ticks"].as_u64()
    );
    let by_reactor = json!({"names": ["Aio0"], "per_channel": true});
    let channels = t.call("bdev_get_iostat", by_reactor);
    assert_eq!(channels["channels"][0]["num_read_ops"], 1, "{channels}");
    // It is kept while nobody uses the disk, and forgotten on demand.
    drop((admin, io));
    let reset = json!({"names": ["Aio0"], "reset_mode": "all"});
    assert_eq!(stat(&mut t, reset)[0]["num_write_ops"], 2);
    assert_eq!(stat(&mut t, json!({"name": "Aio0"}))[0]["num_write_ops"], 0);
    assert_eq!(
        stat(&mut t, json!({"name": "Malloc0"}))[0]["num_write_ops"],
        2
    );
    assert_eq!(t.call("bdev_reset_iostat", json!({})), true);
    assert_eq!(
        stat(&mut t, json!({"name": "Malloc0"}))[0]["num_write_ops"],
        0
    );
    for (params, code) in [
        (json!({"names": ["none"]}), -19),
        (json!({"per_channel": true}), -22),
        (
            json!({"names": ["Aio0"], "per_channel": true, "reset_mode": "all"}),
            -22,
        ),
        (json!({"reset_mode": "some"}), -32602),
    ] {
        assert_eq!(
            t.error("bdev_get_iostat", params.clone()).0,
            code,
            "{params}"
        );
    }
    assert_eq!(t.error("bdev_reset_iostat", json!({"name": "none"})).0, -19);
    std::fs::remove_file(&path).unwrap();
}

/// A disk that is late by 5 ms is counted as late by that, on whichever reactor; one that answers in place takes no time.
#[test]
fn latencies_of_a_disk_are_counted_while_that_is_asked_for() {
    let mut t = start();
    prepare(&mut t);
    let base = json!({"name": "Malloc1", "num_blocks": 2048, "block_size": 512});
    t.call("bdev_malloc_create", base);
    let late = json!({"base_bdev_name": "Malloc1", "name": "Late0", "avg_read_latency": 5000,
        "p99_read_latency": 5000, "avg_write_latency": 0, "p99_write_latency": 0});
    t.call("bdev_delay_create", late);
    let get = "bdev_get_histogram";
    assert_eq!(t.error(get, json!({"name": "Late0"})).0, -14);
    // Also before a namespace is made of a disk, and only reads of this one.
    let enable = |name, opc: Option<&str>| json!({"name": name, "enable": true, "opc": opc});
    t.call("bdev_enable_histogram", enable("Late0", Some("read")));
    t.call("bdev_enable_histogram", enable("Malloc0", None));
    assert_eq!([t.add_ns("Malloc0"), t.add_ns("Late0")], [1, 2]);
    let (addr, nqn) = (t.listen(), nqn());
    let admin = Initiator::admin(addr, &nqn, Options::default());
    for qid in [1, 2] {
        let mut io = Initiator::io(addr, &nqn, admin.cntlid, qid, Options::default());
        for nsid in [1, 2] {
            assert!(io.write(nsid, 0, &pattern(4096, 1)).is_success());
            assert_eq!(io.read(nsid, 0, 8).unwrap(), pattern(4096, 1));
        }
    }
    let within = |t: &mut ManagedTarget, name, borders: Value| {
        let params = json!({"name": name, "borders": borders});
        t.call("bdev_get_histogram_borders", params)["borders_count"].clone()
    };
    assert_eq!(
        within(&mut t, "Late0", json!([4900, 60_000_000])),
        json!([0, 2, 2])
    );
    assert_eq!(within(&mut t, "Malloc0", json!([0])), json!([4, 4]));
    let shown = t.call(get, json!({"name": "Late0"}));
    assert_eq!(
        (&shown["granularity"], &shown["min_range"]),
        (&json!(7), &json!(0))
    );

    // What was counted stays while nobody uses the disk, and is forgotten with the next beginning.
    drop(admin);
    t.call("nvmf_subsystem_remove_ns", json!({"nqn": NQN, "nsid": 2}));
    assert_eq!(within(&mut t, "Late0", json!([1])), json!([0, 2]));
    t.call("bdev_enable_histogram", enable("Late0", None));
    assert_eq!(within(&mut t, "Late0", json!([1])), json!([0, 0]));
    t.call(
        "bdev_enable_histogram",
        json!({"name": "Late0", "enable": false}),
    );
    assert_eq!(t.error(get, json!({"name": "Late0"})).0, -14);
    for (params, code) in [
        (json!({"name": "Malloc0", "borders": []}), -22),
        (json!({"name": "Malloc0", "borders": [2, 1]}), -22),
        (json!({"name": "Malloc0", "borders": vec![1; 257]}), -22),
        (json!({"name": "Malloc0", "borders": ["1"]}), -32602),
        (json!({"name": "Malloc0"}), -32602),
        (json!({"name": "Late0", "borders": [1]}), -14),
        (json!({"name": "none", "borders": [1]}), -19),
    ] {
        let (found, text) = t.error("bdev_get_histogram_borders", params.clone());
        assert_eq!(found, code, "{params}: {text}");
    }
    let none = enable("none", None);
    assert_eq!(t.error("bdev_enable_histogram", none).0, -19);
}

/// Where this process has no `io_uring` the disk is refused with the reason, and nothing of it is left.
#[test]
fn a_disk_of_io_uring_is_one_or_is_refused_with_the_reason() {
    let mut t = start();
    prepare(&mut t);
    let path = std::env::temp_dir().join(format!("pollux-uring-{}", std::process::id()));
    std::fs::write(&path, vec![7; 10_000]).unwrap();
    let create = json!({"name": "Uring0", "filename": path, "block_size": 4096});
    t.client.send("bdev_uring_create", create);
    let answer = t.client.answer();
    if let Some(error) = answer.get("error") {
        assert_eq!(error["code"], -95, "{error}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("io_uring cannot be had"), "{error}");
        std::fs::remove_file(&path).unwrap();
        return;
    }
    let shown = t.call("bdev_get_bdevs", json!({"name": "Uring0"}))[0].clone();
    assert_eq!(shown["product_name"], "URING bdev");
    assert_eq!(shown["num_blocks"], 2);
    let uring = &shown["driver_specific"]["uring"];
    assert_eq!(uring["filename"], path.to_str().unwrap());
    assert_eq!(t.add_ns("Uring0"), 1);
    std::fs::write(&path, vec![7; 40_960]).unwrap();
    assert_eq!(t.call("bdev_uring_rescan", json!({"name": "Uring0"})), true);
    let shown = t.call("bdev_get_bdevs", json!({"name": "Uring0"}));
    assert_eq!(shown[0]["num_blocks"], 10);
    for method in ["bdev_aio_delete", "bdev_aio_rescan"] {
        let (code, message) = t.error(method, json!({"name": "Uring0"}));
        assert_eq!(
            (code, message.contains("URING bdev")),
            (-19, true),
            "{message}"
        );
    }
    let saved = t.client.config();
    drop(t);
    let mut again = configured(Config::parse(&saved.to_string()).unwrap());
    assert_eq!(again.client.config(), saved);
    assert_eq!(
        again.call("bdev_uring_delete", json!({"name": "Uring0"})),
        true
    );
    let left = again.call("bdev_get_bdevs", json!({}));
    assert_eq!(left.as_array().unwrap().len(), 1, "{left}");
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_file_belongs_to_one_disk_unless_it_is_shared() {
    let mut t = start();
    let path = std::env::temp_dir().join(format!("pollux-belongs-{}", std::process::id()));
    std::fs::write(&path, vec![7; 8192]).unwrap();
    let create =
        |name: &str, shared: bool| json!({"name": name, "filename": path, "shared": shared});
    t.call("bdev_aio_create", create("A", false));
    for shared in [false, true] {
        let (code, message) = t.error("bdev_aio_create", create("B", shared));
        assert_eq!(code, -16, "{message}");
        let holder = format!("another disk of this process (pid {})", std::process::id());
        assert!(message.contains(&holder), "{message}");
    }
    let saved = t.client.config();
    assert!(!saved.to_string().contains("shared"), "{saved}");
    t.call("bdev_aio_delete", json!({"name": "A"}));
    t.call("bdev_aio_create", create("A", true));
    t.call("bdev_aio_create", create("B", true));
    let shown = t.call("bdev_get_bdevs", json!({"name": "B"}));
    let aio = &shown[0]["driver_specific"]["aio"];
    let expected = json!({"shared": true, "errors": 0, "failure": null});
    assert_eq!(aio["pollux"], expected);
    let saved = t.client.config();
    assert_eq!(
        saved.to_string().matches("\"shared\":true").count(),
        2,
        "{saved}"
    );
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn memory_that_the_machine_does_not_have_is_refused_with_both_figures() {
    let mut t = start();
    let params = json!({"num_blocks": 1u64 << 35, "block_size": 4096});
    let (code, message) = t.error("bdev_malloc_create", params);
    assert_eq!(code, -12, "{message}");
    assert!(message.contains("140737488355328 bytes"), "{message}");
    assert!(message.contains("can be had"), "{message}");
}

/// Optional commands and their sizes can be limited; hosts are told so, and what they send all the same is refused.
#[test]
fn commands_are_kept_to_the_limits_that_were_set() {
    let mut t = start();
    let masked = |names: Value| json!({"trtype": "tcp", "masked_oncs": names});
    let wrong = masked(json!(["nvmcmps", "nvmverify"]));
    let (code, text) = t.error("nvmf_create_transport", wrong);
    assert!(code == -32602 && text.contains("nvmwzsv"), "{code} {text}");
    t.call(
        "nvmf_create_transport",
        masked(json!(["nvmcmps", "reservs"])),
    );
    let subsystem = json!({"nqn": NQN, "allow_any_host": true, "dmrsl": 8, "wzsl": 1});
    t.call("nvmf_create_subsystem", subsystem);
    let disk = json!({"name": "Malloc0", "num_blocks": 2048, "block_size": 512});
    t.call("bdev_malloc_create", disk);
    t.add_ns("Malloc0");
    let (addr, nqn) = (t.listen(), nqn());
    let mut admin = Initiator::admin(addr, &nqn, Options::default());
    let oncs = ctrl::ONCS_WRITE_ZEROES | ctrl::ONCS_DATASET_MANAGEMENT;
    assert_eq!(admin.identify_controller().oncs.get(), oncs);
    let limits = admin.identify(cns::CONTROLLER_CSI, 0).unwrap();
    let limits = IdentifyNvmController::read_from_bytes(&limits).unwrap();
    assert_eq!((limits.wzsl, limits.dmrsl.get()), (1, 8));
    assert_eq!(limits.dmsl.get(), u64::from(limits.dmrl) * 8);

    let mut io = Initiator::io(addr, &nqn, admin.cntlid, 1, Options::default());
    let compared = io.send_blocks(nvm::COMPARE, 1, 0, &[0; 512], true);
    assert_eq!(compared, Status::INVALID_OPCODE.with_dnr());
    assert_eq!(io.write(1, 0, &[0; 512]), Status::SUCCESS);
    for (blocks, status) in [
        (16, Status::SUCCESS),
        (17, Status::INVALID_FIELD.with_dnr()),
    ] {
        let zero = Sqe::for_blocks(nvm::WRITE_ZEROES, 1, 0, blocks);
        assert_eq!(io.command(zero, &[]).0.status(), status);
        let range = DatasetRange {
            cattr: 0.into(),
            nlb: (blocks - 8).into(),
            slba: 0.into(),
        };
        let mut sqe = Sqe::new(nvm::DATASET_MANAGEMENT, 1);
        sqe.cdw11 = dsm::DEALLOCATE.into();
        sqe.sgl = SglDescriptor::in_capsule(0, 16);
        let status = match status.is_success() {
            true => status,
            false => Status::COMMAND_SIZE_LIMIT_EXCEEDED.with_dnr(),
        };
        assert_eq!(io.command(sqe, range.as_bytes()).0.status(), status);
    }
    // Both come again with the configuration.
    let saved = t.client.config().to_string();
    assert!(
        saved.contains(r#""masked_oncs":["nvmcmps","reservs"]"#),
        "{saved}"
    );
    assert!(
        saved.contains(r#""dmrsl":8"#) && saved.contains(r#""wzsl":1"#),
        "{saved}"
    );
}

/// What products that use SPDK call before all else does what it says here, or is said to have no meaning.
#[test]
fn what_products_set_is_kept_or_without_effect() {
    let mut t = start();
    let max = |max: u32| json!({"max_subsystems": max});
    t.call("nvmf_set_max_subsystems", max(1));
    prepare(&mut t);
    let second = json!({"nqn": format!("{NQN}2")});
    let (code, text) = t.error("nvmf_create_subsystem", second.clone());
    assert!(code == -28 && text.contains("may be 1"), "{code} {text}");
    assert_eq!(t.error("nvmf_set_max_subsystems", max(0)).0, -32602);
    let saved = t.client.config().to_string();
    assert!(
        saved.contains(r#""params":{"max_subsystems":1}"#),
        "{saved}"
    );
    t.call("nvmf_set_max_subsystems", max(2));
    t.call("nvmf_create_subsystem", second);
    assert_eq!(t.error("nvmf_set_max_subsystems", max(1)).0, -32602);

    let pools = json!({"small_pool_count": 8192, "large_bufsize": 135_168, "enable_numa": false});
    assert_eq!(t.call("iobuf_set_options", pools), true);
    let unknown = json!({"medium_pool_count": 1});
    assert_eq!(t.error("iobuf_set_options", unknown).0, -32602);

    // The status of an error that is made up, by either of its names.
    t.call("bdev_error_create", json!({"base_name": "Malloc0"}));
    assert_eq!(t.add_ns("EE_Malloc0"), 1);
    let (addr, nqn) = (t.listen(), nqn());
    let admin = Initiator::admin(addr, &nqn, Options::default());
    let mut io = Initiator::io(addr, &nqn, admin.cntlid, 1, Options::default());
    for names in [["nvme_sct", "nvme_sc"], ["error_sct", "error_sc"]] {
        let mut inject = json!({"name": "EE_Malloc0", "io_type": "write",
            "error_type": "nvme_failure"});
        inject[names[0]] = 2.into();
        inject[names[1]] = 0x81.into();
        t.call("bdev_error_inject_error", inject);
        assert_eq!(io.write(1, 0, &[1; 512]), Status::new(2, 0x81));
        assert_eq!(io.write(1, 0, &[1; 512]), Status::SUCCESS);
    }
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

/// There is little to choose about sockets; what is not there is refused, not taken.
#[test]
fn what_can_be_said_of_sockets() {
    let mut t = start();
    let default = t.call("sock_get_default_impl", json!({}));
    assert_eq!(default["impl_name"], "posix");
    for (name, version) in [("posix", 0), ("ssl", 13)] {
        let options = t.call("sock_impl_get_options", json!({"impl_name": name}));
        assert_eq!(options["tls_version"], version);
        let mut same = options.clone();
        same["impl_name"] = name.into();
        assert_eq!(t.call("sock_impl_set_options", same), true);
    }
    t.call("sock_set_default_impl", json!({"impl_name": "posix"}));
    for (method, params, code, words) in [
        (
            "sock_set_default_impl",
            json!({"impl_name": "ssl"}),
            -22,
            "secure_channel",
        ),
        (
            "sock_impl_get_options",
            json!({"impl_name": "uring"}),
            -22,
            "uring",
        ),
        (
            "sock_impl_set_options",
            json!({"impl_name": "ssl", "tls_version": 12}),
            -32602,
            "13",
        ),
        (
            "sock_impl_set_options",
            json!({"impl_name": "ssl", "speed": 1}),
            -32602,
            "speed",
        ),
    ] {
        let (found, text) = t.error(method, params);
        assert!(
            found == code && text.contains(words),
            "{method}: {found} {text}"
        );
    }
}

#[test]
fn limits_of_a_disk_are_shown_saved_and_taken_back() {
    let mut t = start();
    prepare(&mut t);
    let disk = json!({"name": "Null0", "num_blocks": 2048, "block_size": 512});
    t.call("bdev_null_create", disk);
    let assigned = |t: &mut ManagedTarget, name: &str| {
        let disk = t.call("bdev_get_bdevs", json!({"name": name}));
        disk[0]["assigned_rate_limits"].clone()
    };
    let none = json!({"rw_ios_per_sec": 0, "rw_mbytes_per_sec": 0, "r_mbytes_per_sec": 0, "w_mbytes_per_sec": 0});
    assert_eq!(assigned(&mut t, "Null0"), none);
    for (params, code, words) in [
        (
            json!({"name": "x", "rw_ios_per_sec": 1}),
            -19,
            "No such device",
        ),
        (json!({"rw_ios_per_sec": 1}), -32602, "'name'"),
        (json!({"name": "Null0"}), -22, "No rate limits specified"),
        (
            json!({"name": "Null0", "rw_ios_per_sec": -5}),
            -32602,
            "'rw_ios_per_sec'",
        ),
        (
            json!({"name": "Null0", "rw_mbytes_per_sec": 1u64 << 50}),
            -32602,
            "at most",
        ),
        (json!({"name": "Null0", "rw_ios": 5}), -32602, "'rw_ios'"),
    ] {
        let (got, text) = t.error("bdev_set_qos_limit", params.clone());
        assert!(
            got == code && text.contains(words),
            "{params}: {got} {text}"
        );
    }
    assert_eq!(
        assigned(&mut t, "Null0"),
        none,
        "a failed call leaves nothing"
    );

    t.call(
        "bdev_set_qos_limit",
        json!({"name": "Null0", "rw_ios_per_sec": 150, "r_mbytes_per_sec": 3}),
    );
    // What is not given stays as it is.
    t.call(
        "bdev_set_qos_limit",
        json!({"name": "Null0", "r_mbytes_per_sec": 0, "w_mbytes_per_sec": 9}),
    );
    let limits = json!({"rw_ios_per_sec": 150, "rw_mbytes_per_sec": 0, "r_mbytes_per_sec": 0, "w_mbytes_per_sec": 9});
    assert_eq!(assigned(&mut t, "Null0"), limits);
    let saved = t.client.config();
    let mut again = configured(Config::parse(&saved.to_string()).unwrap());
    assert_eq!(assigned(&mut again, "Null0"), limits);
    assert_eq!(assigned(&mut again, "Malloc0"), none);
    assert_eq!(again.client.config(), saved);

    // A file, while a host uses it: what it writes is there, limited or not.
    let path = std::env::temp_dir().join(format!("pollux-qos-{}", std::process::id()));
    std::fs::write(&path, vec![7; 1 << 20]).unwrap();
    let create = json!({"name": "Aio0", "filename": path, "block_size": 512});
    t.call("bdev_aio_create", create);
    assert_eq!(t.add_ns("Aio0"), 1);
    let (addr, nqn) = (t.listen(), nqn());
    let admin = Initiator::admin(addr, &nqn, Options::default());
    let mut io = Initiator::io(addr, &nqn, admin.cntlid, 1, Options::default());
    for (round, ios) in [0, 200, 1_000_000, 0].into_iter().enumerate() {
        t.call(
            "bdev_set_qos_limit",
            json!({"name": "Aio0", "rw_ios_per_sec": ios}),
        );
        for n in 0..20 {
            let data = pattern(65536, n + 100 * round as u64);
            assert!(io.write(1, 0, &data).is_success());
            assert_eq!(io.read(1, 0, 128).unwrap(), data);
        }
    }
    std::fs::remove_file(&path).unwrap();
}
