//! Disks, on what they lie, and what is counted and limited of them.

use pollux_nvme_tcp::testing::{Initiator, ManagedTarget, NQN, Options, nqn, pattern};
use pollux_reactor::rpc::Config;
use serde_json::{Value, json};

use crate::{configured, prepare, start};

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
