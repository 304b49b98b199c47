//! Options, and the configuration that can be saved and loaded.

use serde_json::json;

use crate::world::World;

/// B14.4: options hold for what is attached later, and what `framework_get_config` gives makes the same again.
#[test]
fn the_configuration_can_be_loaded_again() {
    let mut w = World::new();
    let opts = json!({"policy": "active_active", "selector": "round_robin", "min_io": 16});
    w.call(
        "bdev_nvme_set_options",
        json!({"multipath_opts": opts, "bdev_retry_count": -1, "delay_cmd_submit": true}),
    );
    // What is not given keeps its value.
    w.call(
        "bdev_nvme_set_options",
        json!({"reconnect_delay_sec": 3, "ctrlr_loss_timeout_sec": 5}),
    );
    w.call(
        "bdev_nvme_set_options",
        json!({
            "reconnect_delay_sec": 2,
            "ctrlr_loss_timeout_sec": 9,
            "fencing": "always",
            "cqt_ms": 70,
        }),
    );
    for (params, code) in [
        (json!({"bdev_retry_count": -2}), -32602),
        (json!({"timeout_admin_us": 5}), -22),
        (json!({"fast_io_fail_timeout_sec": 9}), -22),
        (
            json!({"reconnect_delay_sec": 2, "ctrlr_loss_timeout_sec": 1}),
            -22,
        ),
        (
            json!({"multipath_opts": {"policy": "active_passive", "selector": "queue_depth"}}),
            -32603,
        ),
        (json!({"cqt_ms": 50, "keep_alive_timeout_ms": 0}), -22),
        (json!({"fencing": "sometimes"}), -32602),
        (json!({"speed": 1}), -32602),
    ] {
        let text = params.to_string();
        assert_eq!(w.fail("bdev_nvme_set_options", params).0, code, "{text}");
    }
    w.attach(0, json!({"num_io_queues": 2}));
    w.attach(1, json!({"reconnect_delay_sec": 3, "fencing": "off"}));
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
    assert_eq!(calls[1]["params"]["ctrlr_loss_timeout_sec"], 9);
    assert_eq!(calls[2]["params"]["reconnect_delay_sec"], 3);
    let queues = [1, 2].map(|call: usize| calls[call]["params"]["num_io_queues"].clone());
    assert_eq!(queues, [json!(2), json!(null)]);
    let fencing = |call: &serde_json::Value| {
        let params = &call["params"];
        (params["fencing"].clone(), params["cqt_ms"].clone())
    };
    assert_eq!(fencing(&calls[0]), (json!("always"), json!(70)));
    assert_eq!(fencing(&calls[1]), (json!(null), json!(null)));
    assert_eq!(fencing(&calls[2]), (json!("off"), json!(70)));
    w.call("bdev_nvme_detach_controller", json!({"name": "Nvme0"}));
    for call in &calls {
        w.call(call["method"].as_str().unwrap(), call["params"].clone());
    }
    assert_eq!(
        w.call("framework_get_config", json!({"name": "bdev"})),
        config
    );
}
