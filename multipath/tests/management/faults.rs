//! Faults that are injected, limits on commands, and what is counted of I/O.

use serde_json::json;

use crate::world::World;

/// Faults are injected into the commands that were named, as often as was asked for; admin commands and I/O apart.
#[test]
fn injected_faults_end_admin_commands() {
    let mut w = World::new();
    w.attach(0, json!({}));
    let health = json!({"name": "Nvme0"});
    let log_page = json!({"name": "Nvme0", "cmd_type": "admin", "opc": 2});
    let with = |more: serde_json::Value| {
        let mut params = log_page.clone();
        for (name, value) in more.as_object().unwrap() {
            params[name] = value.clone();
        }
        params
    };
    let method = "bdev_nvme_add_error_injection";
    w.call(method, with(json!({"err_count": 2, "sct": 0, "sc": 6})));
    for _ in 0..2 {
        let (code, text) = w.fail("bdev_nvme_get_controller_health_info", health.clone());
        assert_eq!(code, -5);
        assert!(text.contains("Internal Error"), "{text}");
    }
    w.call("bdev_nvme_get_controller_health_info", health.clone());

    // Instead of being sent, and taken back again.
    w.call(
        method,
        with(json!({"err_count": 1, "do_not_submit": true, "timeout_in_us": 1000})),
    );
    let (code, text) = w.fail("bdev_nvme_get_controller_health_info", health.clone());
    assert_eq!(code, -5);
    assert!(text.contains("Opcode"), "the default: {text}");
    w.call(method, with(json!({"err_count": 100})));
    w.call("bdev_nvme_remove_error_injection", log_page.clone());
    w.call("bdev_nvme_get_controller_health_info", health);

    for (params, code) in [
        (json!({"name": "Nvme1", "cmd_type": "io", "opc": 2}), -19),
        (
            json!({"name": "Nvme0", "cmd_type": "both", "opc": 2}),
            -32602,
        ),
        (json!({"name": "Nvme0", "opc": 2}), -32602),
        (
            json!({"name": "Nvme0", "cmd_type": "io", "opc": 256}),
            -32602,
        ),
        (with(json!({"sct": 8})), -32602),
        (with(json!({"timeout_in_us": 8})), -32602),
        (with(json!({"colour": 8})), -32602),
    ] {
        let text = params.to_string();
        assert_eq!(w.fail(method, params).0, code, "{text}");
    }
}

/// Limits on commands are options of what is attached later, and belong to the configuration; an admin command that is
/// held for longer resets its controller.
#[test]
fn an_admin_command_that_takes_too_long_is_a_reset() {
    let mut w = World::new();
    let options = json!({
        "timeout_us": 60_000_000,
        "timeout_admin_us": 50_000,
        "action_on_timeout": "abort",
        "tcp_connect_timeout_ms": 2000,
        "reconnect_delay_sec": 1,
        "ctrlr_loss_timeout_sec": -1,
    });
    w.call("bdev_nvme_set_options", options.clone());
    w.attach(0, json!({}));
    let config = w.call("framework_get_config", json!({"name": "bdev"}));
    for (name, value) in options.as_object().unwrap() {
        assert_eq!(config[0]["params"][name], *value, "{name}");
    }
    w.call(
        "bdev_nvme_add_error_injection",
        json!({"name": "Nvme0", "cmd_type": "admin", "opc": 2, "do_not_submit": true,
               "timeout_in_us": 3_600_000_000u64}),
    );
    let (_, text) = w.fail(
        "bdev_nvme_get_controller_health_info",
        json!({"name": "Nvme0"}),
    );
    assert!(text.contains("lost"), "{text}");
    w.await_paths(&[[true, true, true]]);
    let list = w.call("bdev_nvme_get_controllers", json!({}));
    let error = list[0]["ctrlrs"][0]["pollux"]["last_error"].to_string();
    assert!(error.contains("command timeout"), "{error}");
    w.call(
        "bdev_nvme_get_controller_health_info",
        json!({"name": "Nvme0"}),
    );
}

/// There are no drives that come and go but over TCP, and what asks for others is told so.
#[test]
fn what_is_of_other_transports_can_be_off() {
    let mut w = World::new();
    let hotplug = |enable: bool| json!({"enable": enable, "period_us": 100_000});
    w.call("bdev_nvme_set_hotplug", hotplug(false));
    let (code, text) = w.fail("bdev_nvme_set_hotplug", hotplug(true));
    assert!(code == -95 && text.contains("PCIe"), "{code} {text}");
    assert_eq!(w.fail("bdev_nvme_set_hotplug", json!({})).0, -32602);
    let pools = json!({"small_pool_count": 8192, "large_pool_count": 1024});
    w.call("iobuf_set_options", pools);
}

/// Histograms, counters and their resets have the shape that clients read, also before any I/O.
#[test]
fn what_is_counted_can_be_asked_and_begun_anew() {
    let mut w = World::new();
    w.attach(0, json!({}));
    let volume = json!({"name": "Nvme0n1"});
    assert_eq!(w.fail("bdev_get_histogram", volume.clone()).0, -14);
    let enable = |more: serde_json::Value| {
        let mut params = json!({"name": "Nvme0n1", "enable": true});
        for (name, value) in more.as_object().unwrap() {
            params[name] = value.clone();
        }
        params
    };
    w.call("bdev_enable_histogram", enable(json!({})));
    let histogram = w.call("bdev_get_histogram", volume.clone());
    assert_eq!(histogram["granularity"], 7);
    assert_eq!(
        (&histogram["min_range"], &histogram["max_range"]),
        (&json!(0), &json!(58))
    );
    assert_eq!(histogram["tsc_rate"], 1_000_000_000);
    // 58 ranges of 128 counts of 8 bytes, all of them zero.
    let text = histogram["histogram"].as_str().unwrap();
    assert_eq!(text.len(), (58 * 128 * 8usize).div_ceil(3) * 4);
    assert!(text.trim_end_matches('=').bytes().all(|b| b == b'A'));
    w.call(
        "bdev_enable_histogram",
        enable(json!({"opc": "read", "granularity": 4, "min_nsec": 1000, "max_nsec": 1_000_000})),
    );
    let histogram = w.call("bdev_get_histogram", volume.clone());
    assert_eq!(histogram["granularity"], 4);
    let borders = json!({"name": "Nvme0n1", "borders": [1, 10, 100]});
    let within = w.call("bdev_get_histogram_borders", borders.clone());
    assert_eq!(within, json!({"borders_count": [0, 0, 0, 0]}));
    w.call("bdev_enable_histogram", enable(json!({"enable": false})));
    assert_eq!(w.fail("bdev_get_histogram", volume.clone()).0, -14);
    assert_eq!(w.fail("bdev_get_histogram_borders", borders).0, -14);
    for (params, code) in [
        (enable(json!({"granularity": 30})), -22),
        (enable(json!({"min_nsec": 9, "max_nsec": 5})), -22),
        (enable(json!({"opc": "format"})), -32602),
        (json!({"name": "Nvme0n1"}), -32602),
        (json!({"name": "no", "enable": true}), -19),
    ] {
        assert_eq!(w.fail("bdev_enable_histogram", params).0, code);
    }
    assert_eq!(w.fail("bdev_get_histogram", json!({"name": "no"})).0, -19);

    let groups = w.call("bdev_nvme_get_transport_statistics", json!({}));
    let groups = groups["poll_groups"].as_array().unwrap().clone();
    assert_eq!(groups.len(), 2);
    for group in &groups {
        let stat = &group["transports"][0];
        assert_eq!(stat["trname"], "TCP");
        let polls = stat["polls"].as_u64().unwrap();
        assert!(polls > 0 && polls >= stat["idle_polls"].as_u64().unwrap());
        assert_eq!(stat["submitted_requests"], 0);
    }

    for mode in ["none", "all", "maxmin", "error"] {
        let stat = w.call("bdev_get_iostat", json!({"reset_mode": mode}));
        let volume = &stat["bdevs"][0];
        assert_eq!(volume["name"], "Nvme0n1");
        for name in ["read", "write", "unmap", "copy"] {
            assert_eq!(volume[format!("num_{name}_ops")], 0);
            assert_eq!(volume[format!("min_{name}_latency_ticks")], 0);
        }
        assert!(stat["ticks"].as_u64().unwrap() > 0);
    }
    let stat = w.call(
        "bdev_get_iostat",
        json!({"name": "Nvme0n1", "per_channel": true}),
    );
    assert_eq!(stat["name"], "Nvme0n1");
    let channels = stat["channels"].as_array().unwrap();
    let threads: Vec<_> = channels.iter().map(|c| c["thread_id"].clone()).collect();
    assert_eq!(threads, [json!(0), json!(1)]);
    assert_eq!(
        w.fail("bdev_get_iostat", json!({"per_channel": true})).0,
        -22
    );
    assert_eq!(
        w.fail("bdev_get_iostat", json!({"reset_mode": "some"})).0,
        -32602
    );
    w.call("bdev_reset_iostat", json!({"mode": "maxmin"}));
    assert_eq!(w.fail("bdev_reset_iostat", json!({"name": "no"})).0, -19);
}

/// A volume can be waited for, until it is there or for as long as was said.
#[test]
fn a_volume_can_be_waited_for() {
    let mut w = World::new();
    let wait = |ms: u64| json!({"name": "Nvme0n1", "timeout": ms});
    assert_eq!(w.fail("bdev_get_bdevs", wait(1)).0, -19);
    let attach = w.params(0, json!({}));
    let answers = w.both(
        ("bdev_get_bdevs", wait(60_000)),
        ("bdev_nvme_attach_controller", attach),
    );
    assert_eq!(answers[0][0]["name"], "Nvme0n1");
    assert_eq!(
        answers[0][0]["driver_specific"]["pollux"]["policy"],
        "active_passive"
    );
    assert_eq!(answers[1], json!(["Nvme0n1"]));
    assert_eq!(w.call("bdev_get_bdevs", wait(1))[0]["name"], "Nvme0n1");
}
