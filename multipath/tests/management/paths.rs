//! Volumes, their paths and policies, statistics, and commands of the user's own.

use pollux_nvme_tcp::spec::log::AnaState;
use serde_json::json;

use crate::world::World;

const UP: [bool; 3] = [true, true, true];
const SPARE: [bool; 3] = [false, true, true];
const INACCESSIBLE: [bool; 3] = [false, true, false];

/// 64 bytes in Base64.
fn sqe_text(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits: String = bytes.iter().map(|b| format!("{b:08b}")).collect();
    let letter = |group: &[u8]| {
        let group = format!("{:0<6}", std::str::from_utf8(group).unwrap());
        char::from(ALPHABET[usize::from_str_radix(&group, 2).unwrap()])
    };
    bits.as_bytes().chunks(6).map(letter).collect()
}

/// B1.1, B5.5, B13.1, B13.2, B13.3: paths are listed as they are, follow the ANA states, and are chosen.
#[test]
fn paths_are_attached_followed_and_chosen() {
    let mut w = World::new();
    assert_eq!(w.attach(0, json!({})), json!(["Nvme0n1"]));
    assert_eq!(w.attach(1, json!({})), json!(["Nvme0n1"]));
    w.await_paths(&[UP, SPARE]);
    w.set_ana(0, AnaState::INACCESSIBLE);
    w.await_paths(&[INACCESSIBLE, UP]);
    let name = json!({"name": "Nvme0n1"});
    let answer = w.call("bdev_nvme_get_io_paths", name.clone());
    let extra = &answer["poll_groups"][1]["io_paths"][0]["pollux"];
    assert_eq!(extra["ana_state"], "inaccessible");
    assert!(extra["anatt_remaining_ms"].is_u64(), "{extra}");
    w.set_ana(0, AnaState::OPTIMIZED);
    w.await_paths(&[UP, SPARE]);

    let policy = "bdev_nvme_set_multipath_policy";
    w.call(
        policy,
        json!({"name": "Nvme0n1", "policy": "active_active", "selector": "queue_depth"}),
    );
    w.await_paths(&[UP, UP]);
    let disks = w.call("bdev_get_bdevs", name.clone());
    assert_eq!(disks[0]["driver_specific"]["mp_policy"], "active_active");
    assert_eq!(disks[0]["driver_specific"]["selector"], "queue_depth");
    assert_eq!(disks[0]["driver_specific"]["rr_min_io"], json!(null));
    // The UUID is made of the NGUID, which is the target's UUID where it was given none.
    let uuid = disks[0]["uuid"].as_str().unwrap().replace('-', "");
    assert_eq!(disks[0]["nguid"], uuid);
    w.call(
        policy,
        json!({"name": "Nvme0n1", "policy": "active_passive"}),
    );
    let cntlid = answer["poll_groups"][0]["io_paths"][1]["cntlid"].clone();
    let preferred = json!({"name": "Nvme0n1", "cntlid": cntlid});
    w.call("bdev_nvme_set_preferred_path", preferred);
    w.await_paths(&[SPARE, UP]);
    let events = w.call("pollux_get_path_events", name);
    let events = events[0]["events"].to_string();
    assert!(events.contains("optimized -> inaccessible"), "{events}");
}

/// B5.5, B13.1: what there is, what may be set and what may not, statistics, and admin commands.
#[test]
fn volumes_paths_and_policies() {
    let mut w = World::new();
    assert_eq!(
        w.call("bdev_nvme_get_io_paths", json!({})),
        json!({"poll_groups": []})
    );
    w.attach(0, json!({}));
    w.attach(1, json!({}));
    let bdevs = w.call("bdev_get_bdevs", json!({"name": "Nvme0n1"}));
    assert_eq!(bdevs[0]["num_blocks"], 2048);
    assert_eq!(bdevs[0]["block_size"], 512);
    assert_eq!(bdevs[0]["uuid"].as_str().unwrap().len(), 36);
    assert_eq!(w.fail("bdev_get_bdevs", json!({"name": "x"})).0, -19);
    assert_eq!(
        w.paths(),
        [[(0, true), (1, false)], [(0, true), (1, false)]]
    );

    let policy = "bdev_nvme_set_multipath_policy";
    let name = "Nvme0n1";
    for (params, code) in [
        (json!({"name": "x", "policy": "active_passive"}), -19),
        (
            json!({"name": name, "policy": "active_passive", "selector": "round_robin"}),
            -32603,
        ),
        (
            json!({"name": name, "policy": "active_active", "selector": "queue_depth", "rr_min_io": 2}),
            -32603,
        ),
        (
            json!({"name": name, "policy": "active_active", "rr_min_io": 0}),
            -32602,
        ),
        (json!({"name": name, "policy": "other"}), -32602),
        (json!({"name": name}), -32602),
    ] {
        let text = params.to_string();
        assert_eq!(w.fail(policy, params).0, code, "{text}");
    }
    w.call(
        policy,
        json!({"name": name, "policy": "active_active", "selector": "round_robin", "rr_min_io": 4}),
    );
    assert_eq!(w.paths(), [[(0, true), (1, true)], [(0, true), (1, true)]]);
    w.call(policy, json!({"name": name, "policy": "active_passive"}));

    let ids = w.cntlids();
    let preferred = "bdev_nvme_set_preferred_path";
    assert_eq!(
        w.fail(preferred, json!({"name": name, "cntlid": 65000})).0,
        -19
    );
    w.call(preferred, json!({"name": name, "cntlid": ids[1]}));
    assert_eq!(
        w.paths(),
        [[(0, false), (1, true)], [(0, false), (1, true)]]
    );

    let stats = w.call("bdev_nvme_get_path_iostat", json!({"name": name}));
    assert_eq!(stats["name"], name);
    let ports: Vec<_> = stats["stats"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["trid"]["trsvcid"].clone())
        .collect();
    let listeners: Vec<_> = w
        .listeners
        .iter()
        .map(|l| json!(l.port().to_string()))
        .collect();
    assert_eq!(ports, listeners);
    assert!(stats["stats"][0]["stat"]["num_read_ops"].is_u64());
    let stats = w.call(
        "bdev_get_iostat",
        json!({"names": [name], "per_channel": false}),
    );
    assert_eq!(stats["bdevs"][0]["name"], name);
    assert!(stats["bdevs"][0]["num_write_ops"].is_u64());
    assert_eq!(w.fail("bdev_get_iostat", json!({"names": ["x"]})).0, -19);
    assert!(stats["bdevs"][0]["driver_specific"]["nvme_error"]["status_code"].is_object());
    let health = w.call(
        "bdev_nvme_get_controller_health_info",
        json!({"name": "Nvme0"}),
    );
    assert!(health["power_on_hours"].is_u64() && health["model_number"].is_string());
    // Identify Controller: opcode 06h, CDW10 01h.
    let mut sqe = vec![0u8; 64];
    (sqe[0], sqe[40]) = (6, 1);
    let text: String = sqe_text(&sqe);
    let command = json!({
        "name": "Nvme0",
        "cmd_type": "admin",
        "data_direction": "c2h",
        "cmdbuf": text,
        "data_len": 4096,
    });
    let answer = w.call("bdev_nvme_send_cmd", command.clone());
    assert_eq!(answer["cpl"], "A".repeat(22) + "==", "all zero: success");
    assert_eq!(answer["data"].as_str().unwrap().len(), 5464);
    for (member, value) in [
        ("cmdbuf", json!("AAAA")),
        ("cmdbuf", json!("!")),
        ("cmd_type", json!("io")),
        ("data", json!("AAAA")),
        ("data_direction", json!("up")),
    ] {
        let mut bad = command.clone();
        bad[member] = value;
        assert_eq!(w.fail("bdev_nvme_send_cmd", bad).0, -32602, "{member}");
    }
    let none = json!({"name": "x"});
    assert_eq!(w.fail("bdev_nvme_get_controller_health_info", none).0, -19);
    let events = w.call("pollux_get_path_events", json!({}));
    assert!(!events[0]["events"].as_array().unwrap().is_empty());
}
