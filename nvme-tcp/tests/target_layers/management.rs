//! The methods themselves: what they refuse, what they show, and the configuration.

use std::time::Duration;

use pollux_reactor::rpc::Config;
use serde_json::{Value, json};

use crate::world::{NQN, SLACK, World, read};

/// A delay `Delay0` over `EE_Malloc0` over `Malloc0`, which is namespace 1, and a free disk `Null0`.
fn stacked() -> World {
    World::new(|w| {
        let null = json!({"name": "Null0", "num_blocks": 2048, "block_size": 512});
        w.call("bdev_null_create", null);
        let base = w.malloc("Malloc0");
        let errors = w.error_disk(&base);
        vec![w.delay("Delay0", &errors, 100, 200)]
    })
}

fn delay(base: &str, name: &str, latencies: [u64; 4]) -> Value {
    let [average_read, p99_read, average_write, p99_write] = latencies;
    json!({
        "base_bdev_name": base,
        "name": name,
        "avg_read_latency": average_read,
        "p99_read_latency": p99_read,
        "avg_write_latency": average_write,
        "p99_write_latency": p99_write,
    })
}

#[test]
fn what_is_refused_changes_nothing() {
    let mut w = stacked();
    let before = (w.config(), w.call("bdev_get_bdevs", json!({})));
    let inject = |io_type: &str, error_type: &str, more: Value| {
        let mut params =
            json!({"name": "EE_Malloc0", "io_type": io_type, "error_type": error_type});
        if let (Some(params), Value::Object(more)) = (params.as_object_mut(), more) {
            params.extend(more);
        }
        params
    };
    let update = |name: &str, latency: &str| json!({"delay_bdev_name": name, "latency_type": latency, "latency_us": 1});
    let name = |name: &str| json!({"name": name});
    for (method, params, code, words) in [
        (
            "bdev_delay_create",
            delay("none", "D", [0; 4]),
            -19,
            "No such device",
        ),
        (
            "bdev_delay_create",
            delay("Null0", "", [0; 4]),
            -22,
            "empty",
        ),
        (
            "bdev_delay_create",
            delay("Null0", "Null0", [0; 4]),
            -17,
            "Null0",
        ),
        (
            "bdev_delay_create",
            delay("Null0", "Malloc0", [0; 4]),
            -17,
            "Malloc0",
        ),
        (
            "bdev_delay_create",
            delay("Malloc0", "D", [0; 4]),
            -1,
            "EE_Malloc0",
        ),
        (
            "bdev_delay_create",
            delay("EE_Malloc0", "D", [0; 4]),
            -1,
            "Delay0",
        ),
        ("bdev_delay_create", delay("Delay0", "D", [0; 4]), -1, NQN),
        (
            "bdev_delay_create",
            delay("Null0", "D", [2, 1, 0, 0]),
            -22,
            "p99",
        ),
        (
            "bdev_delay_create",
            delay("Null0", "D", [0, 0, 2, 1]),
            -22,
            "p99",
        ),
        (
            "bdev_delay_create",
            json!({"name": "D"}),
            -32602,
            "'base_bdev_name'",
        ),
        (
            "bdev_delay_create",
            json!({"name": "D", "base_bdev_name": "Null0", "avg_read_latency": -1}),
            -32602,
            "'avg_read_latency'",
        ),
        (
            "bdev_delay_update_latency",
            update("none", "avg_read"),
            -19,
            "No such device",
        ),
        (
            "bdev_delay_update_latency",
            update("Null0", "avg_read"),
            -19,
            "Null disk",
        ),
        (
            "bdev_delay_update_latency",
            update("Delay0", "p50_read"),
            -32602,
            "p99_write",
        ),
        ("bdev_delay_delete", name("none"), -19, "No such device"),
        (
            "bdev_delay_delete",
            name("EE_Malloc0"),
            -19,
            "Error Injection Disk",
        ),
        (
            "bdev_error_create",
            json!({"base_name": "none"}),
            -19,
            "No such device",
        ),
        (
            "bdev_error_create",
            json!({"base_name": "Malloc0"}),
            -1,
            "EE_Malloc0",
        ),
        ("bdev_error_create", json!({"base_name": "Delay0"}), -1, NQN),
        (
            "bdev_error_create",
            json!({"base_name": "Null0", "uuid": "x"}),
            -32602,
            "'uuid'",
        ),
        ("bdev_error_delete", name("Delay0"), -19, "delay"),
        ("bdev_error_delete", name("EE_Malloc0"), -16, "Delay0"),
        ("bdev_malloc_delete", name("Malloc0"), -16, "EE_Malloc0"),
        (
            "bdev_error_resume_pending",
            name("none"),
            -19,
            "No such device",
        ),
        ("bdev_error_resume_pending", name("Delay0"), -19, "delay"),
        (
            "bdev_error_inject_error",
            inject("erase", "failure", json!({})),
            -32602,
            "unmap",
        ),
        (
            "bdev_error_inject_error",
            inject("read", "smoke", json!({})),
            -32602,
            "nvme_failure",
        ),
        (
            "bdev_error_inject_error",
            inject("read", "failure", json!({"num": -1})),
            -32602,
            "'num'",
        ),
        (
            "bdev_error_inject_error",
            inject("read", "failure", json!({"nvme_sc": 1})),
            -22,
            "nvme_sct",
        ),
        (
            "bdev_error_inject_error",
            inject("read", "nvme_failure", json!({})),
            -22,
            "nvme_sct",
        ),
        (
            "bdev_error_inject_error",
            inject("read", "nvme_failure", json!({"nvme_sct": 8})),
            -22,
            "at most 7",
        ),
        (
            "bdev_error_inject_error",
            inject("read", "nvme_failure", json!({"nvme_sc": 256})),
            -22,
            "at most 255",
        ),
        (
            "bdev_error_inject_error",
            inject("read", "corrupt_data", json!({})),
            -22,
            "corrupt_value",
        ),
        (
            "bdev_error_inject_error",
            inject("read", "corrupt_data", json!({"corrupt_value": 256})),
            -32602,
            "'corrupt_value'",
        ),
        (
            "bdev_error_inject_error",
            json!({"name": "Null0", "io_type": "read", "error_type": "failure"}),
            -19,
            "Null disk",
        ),
        (
            "bdev_error_inject_error",
            name("EE_Malloc0"),
            -32602,
            "'io_type'",
        ),
        (
            "nvmf_subsystem_add_ns",
            json!({"nqn": NQN, "namespace": {"bdev_name": "Malloc0"}}),
            -1,
            "EE_Malloc0",
        ),
    ] {
        let shown = params.to_string();
        let (found, message) = w.error(method, params);
        assert_eq!(found, code, "{method} {shown}: {message}");
        assert!(message.contains(words), "{method} {shown}: {message}");
    }
    let after = (w.config(), w.call("bdev_get_bdevs", json!({})));
    assert_eq!(after, before);
    let (_admin, mut io) = w.connect(false);
    assert!(io.command(read(1, 0, 1), &[]).0.status().is_success());
}

#[test]
fn layers_are_shown_and_noticed() {
    let mut w = stacked();
    let methods = w.call("rpc_get_methods", json!({}));
    for method in [
        "bdev_delay_create",
        "bdev_delay_delete",
        "bdev_delay_update_latency",
        "bdev_error_create",
        "bdev_error_delete",
        "bdev_error_inject_error",
        "bdev_error_resume_pending",
    ] {
        assert!(
            methods.as_array().unwrap().contains(&method.into()),
            "{method}"
        );
    }
    let update = json!({"delay_bdev_name": "Delay0", "latency_type": "p99_write", "latency_us": 9});
    assert_eq!(w.call("bdev_delay_update_latency", update), true);
    let shown = w.bdev("Delay0");
    assert_eq!(shown["product_name"], "delay");
    let mut specific = delay("EE_Malloc0", "Delay0", [100, 100, 200, 9]);
    assert_eq!(shown["driver_specific"]["delay"], specific.take());
    let errors = w.bdev("EE_Malloc0");
    assert_eq!(errors["product_name"], "Error Injection Disk");
    assert_eq!(
        errors["driver_specific"],
        json!({"error_disk": {"base_bdev": "Malloc0"}})
    );
    let uuids = ["Malloc0", "EE_Malloc0", "Delay0"].map(|name| {
        let disk = w.bdev(name);
        assert_eq!(disk["claimed"], true);
        assert_eq!(
            (&disk["num_blocks"], &disk["block_size"]),
            (&json!(16384), &json!(512))
        );
        disk["uuid"].clone()
    });
    assert!(uuids[0] != uuids[1] && uuids[1] != uuids[2] && uuids[0] != uuids[2]);
    let subsystem = w.call("nvmf_get_subsystems", json!({"nqn": NQN}));
    let namespace = &subsystem[0]["namespaces"][0];
    assert_eq!(
        (&namespace["name"], &namespace["uuid"]),
        (&json!("Delay0"), &uuids[2])
    );

    // From the top down, as each frees the next one.
    w.call("bdev_delay_delete", json!({"name": "Delay0"}));
    assert_eq!(w.bdev("EE_Malloc0")["claimed"], false);
    w.call("bdev_error_delete", json!({"name": "EE_Malloc0"}));
    assert_eq!(w.bdev("Malloc0")["claimed"], false);
    w.call("bdev_malloc_delete", json!({"name": "Malloc0"}));
    let seen = w.call("notify_get_notifications", json!({"id": 2}));
    let seen: Vec<_> = seen
        .as_array()
        .unwrap()
        .iter()
        .map(|n| (&n["type"], &n["ctx"]))
        .collect();
    let (register, unregister) = (&json!("bdev_register"), &json!("bdev_unregister"));
    assert_eq!(
        seen,
        [
            (register, &json!("EE_Malloc0")),
            (register, &json!("Delay0")),
            (unregister, &json!("Delay0")),
            (unregister, &json!("EE_Malloc0")),
            (unregister, &json!("Malloc0")),
        ]
    );
}

#[test]
fn a_base_that_grows_takes_its_layers_along() {
    let mut w = World::new(|w| {
        let null = json!({"name": "Null0", "num_blocks": 2048, "block_size": 512});
        w.call("bdev_null_create", null);
        let errors = w.error_disk("Null0");
        vec![w.delay("Delay0", &errors, 5_000, 5_000)]
    });
    let (_admin, mut io) = w.connect(false);
    assert!(!io.command(read(1, 4000, 1), &[]).0.status().is_success());
    w.call("bdev_null_resize", json!({"name": "Null0", "new_size": 2}));
    for name in ["Null0", "EE_Null0", "Delay0"] {
        assert_eq!(w.bdev(name)["num_blocks"], 4096, "{name}");
    }
    // The layers are still there.
    let (status, took) = w.timed(&mut io, read(1, 4000, 1), &[]);
    assert!(status.is_success() && took >= Duration::from_millis(5));
    w.inject("EE_Null0", "read", "failure", json!({}));
    assert!(!io.command(read(1, 4000, 1), &[]).0.status().is_success());

    // The same without a namespace.
    w.call("nvmf_subsystem_remove_ns", json!({"nqn": NQN, "nsid": 1}));
    w.call("bdev_null_resize", json!({"name": "Null0", "new_size": 3}));
    assert_eq!(w.bdev("Delay0")["num_blocks"], 6144);
    w.add_ns("Delay0");
    let (status, took) = w.timed(&mut io, read(1, 6000, 1), &[]);
    assert!(status.is_success() && took >= Duration::from_millis(5));

    let path = std::env::temp_dir().join(format!("pollux-layers-{}", std::process::id()));
    std::fs::write(&path, [7; 4096]).unwrap();
    w.call(
        "bdev_aio_create",
        json!({"name": "Aio0", "filename": path, "block_size": 512}),
    );
    let errors = w.error_disk("Aio0");
    assert_eq!(w.add_ns(&errors), 2);
    std::fs::write(&path, [7; 8192]).unwrap();
    w.call("bdev_aio_rescan", json!({"name": "Aio0"}));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(w.bdev("EE_Aio0")["num_blocks"], 16);
    assert_eq!(io.read(2, 15, 1).unwrap(), [7; 512]);
}

#[test]
fn a_namespace_can_leave_and_come_back_to_its_layers() {
    let mut w = stacked();
    let (_admin, mut io) = w.connect(false);
    w.call("nvmf_subsystem_remove_ns", json!({"nqn": NQN, "nsid": 1}));
    // On the free disk in between: without layers, nothing is late.
    w.add_ns("Null0");
    assert!(w.timed(&mut io, read(1, 0, 1), &[]).1 < Duration::from_micros(100));
    w.call("nvmf_subsystem_remove_ns", json!({"nqn": NQN, "nsid": 1}));
    w.add_ns("Delay0");
    let took = w.timed(&mut io, read(1, 0, 1), &[]).1;
    assert!(
        (Duration::from_micros(100)..SLACK).contains(&took),
        "{took:?}"
    );
}

#[test]
fn the_configuration_makes_the_same_layers_again() {
    let mut w = stacked();
    w.call("bdev_error_create", json!({"base_name": "Null0"}));
    w.call("bdev_delay_create", delay("EE_Null0", "Slow", [1, 2, 3, 4]));
    // An average above the P99 latency can be made by an update only.
    for latency in ["avg_read", "avg_write"] {
        let update = json!({"delay_bdev_name": "Slow", "latency_type": latency, "latency_us": 50});
        w.call("bdev_delay_update_latency", update);
    }
    let disks = |w: &mut World| {
        let disks = w.call("bdev_get_bdevs", json!({}));
        assert_eq!(disks.as_array().unwrap().len(), 6);
        disks
    };
    let before = (w.config(), disks(&mut w), w.bdev("Slow"));
    drop(w);
    let config = Config::parse(&before.0.to_string()).unwrap();
    let mut again = World::configured(config);
    let after = (again.config(), disks(&mut again), again.bdev("Slow"));
    assert_eq!(after, before);
    let slow = &after.2["driver_specific"]["delay"];
    assert_eq!(slow["avg_read_latency"], 50);
    assert_eq!(
        (&slow["p99_read_latency"], &slow["p99_write_latency"]),
        (&json!(2), &json!(4))
    );
    assert_eq!(
        again
            .error("bdev_malloc_delete", json!({"name": "Malloc0"}))
            .0,
        -16
    );
}
