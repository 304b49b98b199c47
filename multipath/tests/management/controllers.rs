//! Controllers that are reset, disabled, enabled, detached, and stand in for each other.

use pollux_nvme_tcp::target::TargetRequest;
use serde_json::json;

use crate::world::{World, nqn};

const UP: [bool; 3] = [true, true, true];
const SPARE: [bool; 3] = [false, true, true];
const DISABLED: [bool; 3] = [false, false, true];

/// B8.2, B11: each change is answered when it is done, and what is gone is not found.
#[test]
fn controllers_are_reset_disabled_enabled_and_detached() {
    let mut w = World::new();
    let wait = json!({"reconnect_delay_sec": 1, "ctrlr_loss_timeout_sec": -1});
    w.attach(0, wait.clone());
    w.attach(1, wait);
    let list = w.call("bdev_nvme_get_controllers", json!({"name": "Nvme0"}));
    assert_eq!(list[0]["name"], "Nvme0");
    let first = w.cntlids()[0];
    let one = json!({"name": "Nvme0", "cntlid": first});
    w.call("bdev_nvme_disable_controller", one.clone());
    assert_eq!(w.states(), ["disabled", "enabled"]);
    w.await_paths(&[DISABLED, UP]);
    assert_eq!(w.fail("bdev_nvme_disable_controller", one.clone()).0, -114);
    assert_eq!(w.fail("bdev_nvme_reset_controller", one.clone()).0, -22);
    w.call("bdev_nvme_enable_controller", one.clone());
    assert_eq!(w.states(), ["enabled", "enabled"]);
    w.await_paths(&[UP, SPARE]);
    w.call("bdev_nvme_reset_controller", json!({"name": "Nvme0"}));
    assert_eq!(w.states(), ["enabled", "enabled"]);
    assert_eq!(
        w.paths(),
        [[(0, true), (1, false)], [(0, true), (1, false)]]
    );
    assert_eq!(
        w.fail("bdev_nvme_reset_controller", json!({"name": "x"})).0,
        -19
    );
    assert_eq!(
        w.fail("bdev_nvme_detach_controller", json!({"name": "x"}))
            .0,
        -19
    );

    let address = w.params(0, json!({}));
    w.call("bdev_nvme_detach_controller", address.clone());
    assert_eq!(w.paths(), [[(1, true)], [(1, true)]]);
    assert_eq!(w.fail("bdev_nvme_detach_controller", address).0, -19);
    w.call("bdev_nvme_detach_controller", json!({"name": "Nvme0"}));
    assert_eq!(w.call("bdev_get_bdevs", json!({})), json!([]));
    assert_eq!(w.call("bdev_nvme_get_controllers", json!({})), json!([]));
    let told = w.call("notify_get_notifications", json!({"id": 0}));
    let types: Vec<_> = told
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n["type"].clone())
        .collect();
    assert_eq!(types, ["bdev_register", "bdev_unregister"]);
    assert_eq!(told[1]["ctx"], "Nvme0n1");
    let later = w.call("notify_get_notifications", json!({"id": told[1]["id"]}));
    assert_eq!(later.as_array().unwrap().len(), 1);
    for (method, params, code) in [
        ("bdev_nvme_detach_controller", json!({"name": "Nvme0"}), -19),
        ("bdev_nvme_reset_controller", json!({"name": "Nvme0"}), -19),
        ("bdev_nvme_get_controllers", json!({"name": "Nvme0"}), -19),
        ("bdev_nvme_get_io_paths", json!({"name": "Nvme0n1"}), -19),
        ("bdev_nvme_get_path_iostat", json!({"name": "Nvme0n1"}), -19),
        ("bdev_get_iostat", json!({"names": ["Nvme0n1"]}), -19),
        ("bdev_get_bdevs", json!({"name": "Nvme0n1"}), -19),
        (
            "bdev_nvme_set_multipath_policy",
            json!({"name": "Nvme0n1", "policy": "active_passive"}),
            -19,
        ),
        (
            "bdev_nvme_set_multipath_policy",
            json!({"name": "Nvme0n1", "policy": "active_passive", "selector": "queue_depth"}),
            -32603,
        ),
    ] {
        assert_eq!(w.fail(method, params).0, code, "{method}");
    }
}

/// B12: alternates are listed, and belong to the configuration.
#[test]
fn failover_addresses_are_listed() {
    let mut w = World::new();
    w.attach(0, json!({"multipath": "failover"}));
    w.attach(1, json!({"multipath": "failover"}));
    let list = w.call("bdev_nvme_get_controllers", json!({}));
    let controllers = list[0]["ctrlrs"].as_array().unwrap();
    assert_eq!(controllers.len(), 1);
    assert_eq!(
        controllers[0]["trid"]["trsvcid"],
        w.listeners[0].port().to_string()
    );
    assert_eq!(
        controllers[0]["alternate_trids"][0]["trsvcid"],
        w.listeners[1].port().to_string()
    );
    let config = w.call("framework_get_config", json!({"name": "bdev"}));
    let modes: Vec<_> = config
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["params"]["multipath"].clone())
        .collect();
    assert_eq!(modes, ["failover", "failover"]);
    // Connected and spare change places when the first listener goes.
    let addr = w.listeners[0];
    w.target
        .handle
        .call(TargetRequest::remove_listener(nqn(), addr))
        .unwrap();
    let other = w.listeners[1].port().to_string();
    loop {
        let list = w.call("bdev_nvme_get_controllers", json!({}));
        let controller = &list[0]["ctrlrs"][0];
        if controller["trid"]["trsvcid"] == other && controller["state"] == "enabled" {
            break;
        }
        std::thread::yield_now();
    }
}
