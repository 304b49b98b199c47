//! Attaches that are refused.

use std::io::{Read, Write};
use std::net::TcpListener;

use serde_json::json;

use crate::world::World;

/// B1.2, B8.3: each refusal has the code that clients look at, and leaves nothing behind.
#[test]
fn attaches_that_are_refused() {
    let mut w = World::new();
    let senseless = [
        (json!({"trsvcid": "0"}), -32602),
        (json!({"trsvcid": 4420}), -32602),
        (json!({"trtype": "RDMA"}), -32602),
        (json!({"trtype": "pcie"}), -32602),
        (json!({"traddr": "nowhere"}), -32602),
        (json!({"adrfam": "ipv6"}), -32602),
        (json!({"subnqn": null}), -32602),
        (json!({"hostnqn": "me"}), -32602),
        (json!({"multipath": "both"}), -32602),
        (json!({"hdgst": 1}), -32602),
        (json!({"color": "red"}), -32602),
        (json!({"prchk_guard": true}), -32602),
        (json!({"psk": "key0"}), -126),
        (json!({"dhchap_key": "none"}), -126),
        (json!({"ctrlr_loss_timeout_sec": -1}), -22),
        (json!({"ctrlr_loss_timeout_sec": -2}), -32602),
        (
            json!({"ctrlr_loss_timeout_sec": -2, "reconnect_delay_sec": 1}),
            -32602,
        ),
        (
            json!({"reconnect_delay_sec": 0, "ctrlr_loss_timeout_sec": 5}),
            -22,
        ),
        (
            json!({"reconnect_delay_sec": 5, "ctrlr_loss_timeout_sec": 4}),
            -22,
        ),
        (
            json!({"multipath_opts": {"policy": "active_passive", "selector": "round_robin"}}),
            -32603,
        ),
        (
            json!({"multipath_opts": {"policy": "active_active", "min_io": 0}}),
            -32602,
        ),
        (
            json!({"multipath_opts": {"polity": "active_active"}}),
            -32602,
        ),
    ];
    // What stands for no address is told so; a name that does is as good as the address.
    assert_eq!(w.attach_code(0, json!({"traddr": "127.0.0"})), -32602);
    for (more, code) in senseless.clone() {
        let text = more.to_string();
        assert_eq!(w.attach_code(0, more), code, "{text}");
    }
    let other = "nqn.2014-08.org.example:other";
    for more in [json!({"subnqn": other}), json!({"trsvcid": "1"})] {
        let text = more.to_string();
        assert_eq!(w.attach_code(0, more), -5, "{text}");
    }
    assert_eq!(w.call("bdev_nvme_get_controllers", json!({})), json!([]));

    let robin = json!({"policy": "active_active", "selector": "round_robin", "min_io": 4});
    assert_eq!(
        w.attach(0, json!({"multipath_opts": robin})),
        json!(["Nvme0n1"])
    );
    for (more, code) in senseless {
        let text = more.to_string();
        assert_eq!(w.attach_code(1, more), code, "{text}");
    }
    let with = |policy, selector| json!({"policy": policy, "selector": selector});
    for (path, more, code) in [
        (0, json!({}), -114),
        (1, json!({"multipath": "disable"}), -114),
        (1, json!({"subnqn": other}), -22),
        (1, json!({"hostnqn": "nqn.2014-08.org.example:host"}), -22),
        (
            1,
            json!({"multipath_opts": with("active_active", "queue_depth")}),
            -22,
        ),
        (
            1,
            json!({"multipath_opts": {"policy": "active_passive"}}),
            -22,
        ),
    ] {
        let text = more.to_string();
        assert_eq!(w.attach_code(path, more), code, "{text}");
    }
    assert_eq!(w.paths(), [[(0, true)], [(0, true)]]);
    assert_eq!(
        w.attach(1, json!({"multipath": "multipath"})),
        json!(["Nvme0n1"])
    );
    assert_eq!(w.states(), ["enabled", "enabled"]);
    // What is not given is taken from the controllers that are there.
    let config = w.call("framework_get_config", json!({"name": "bdev"}));
    let attached: Vec<_> = config
        .as_array()
        .unwrap()
        .iter()
        .filter(|c| c["method"] == "bdev_nvme_attach_controller")
        .map(|c| c["params"]["multipath_opts"].clone())
        .collect();
    assert_eq!(attached, [robin.clone(), robin]);
}

/// `num_io_queues` is the limit of what a controller has of I/O queue pairs. Each of the two I/O reactors needs one: less than
/// that is refused before anything is sent, and more than that does not make more.
#[test]
fn a_controller_has_no_more_io_queue_pairs_than_allowed() {
    let mut w = World::new();
    for max in [0, 1] {
        let params = w.params(0, json!({"num_io_queues": max}));
        let (code, text) = w.fail("bdev_nvme_attach_controller", params);
        let why = format!("at most {max} I/O queues are allowed (num_io_queues), 2 are needed");
        assert!(code == -22 && text.contains(&why), "{code}: {text}");
    }
    assert_eq!(w.target.status().subsystems[0].controllers.len(), 0);
    w.attach(0, json!({"num_io_queues": 2}));
    w.attach(1, json!({"num_io_queues": 1024}));
    for controller in &w.target.status().subsystems[0].controllers {
        let qids = controller.qpairs.iter().map(|q| q.qid);
        assert_eq!(qids.collect::<Vec<_>>(), [0, 1, 2]);
    }
    assert_eq!(w.states(), ["enabled", "enabled"]);
}

/// B1.2: a path of another subsystem that goes by the same name is refused: its controller has the identifier of one
/// that is attached.
#[test]
fn a_second_controller_of_the_same_identifier_is_refused() {
    let copy = World::new();
    let mut w = World::new();
    w.attach(0, json!({}));
    let mut params = w.params(1, json!({}));
    params["trsvcid"] = json!(copy.listeners[0].port().to_string());
    let (code, text) = w.fail("bdev_nvme_attach_controller", params.clone());
    assert_eq!(code, -22, "{text}");
    let id = w.cntlids()[0];
    assert!(
        text.contains(&format!("controller identifier {id}")),
        "{text}"
    );
    assert!(text.contains(&w.listeners[0].to_string()), "{text}");
    assert_eq!(w.states(), ["enabled"], "the other is as it was");
}

/// Required digests that the controller does not grant are a refusal that says so; requiring none is a mistake.
#[test]
fn required_digests_that_are_not_granted_refuse_the_attach() {
    let mut w = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let peer = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut icreq = [0; 128];
        stream.read_exact(&mut icreq).unwrap();
        // ICResp without digests (NVMe/TCP 1.1, 3.6.2.3): PLEN 128, MAXH2CDATA 4,096.
        let mut icresp = [0; 128];
        icresp[0] = 1;
        icresp[2] = 128;
        icresp[4] = 128;
        icresp[13] = 0x10;
        stream.write_all(&icresp).unwrap();
        // Until the host closes.
        let _ = stream.read(&mut icreq);
    });
    let params = w.params(
        0,
        json!({"trsvcid": port, "hdgst": true, "ddgst": true, "require_digests": true}),
    );
    let (code, text) = w.fail("bdev_nvme_attach_controller", params);
    assert_eq!(code, -5, "{text}");
    assert!(
        text.contains("header and data digests are required"),
        "{text}"
    );
    assert!(text.contains("grants no digests"), "{text}");
    peer.join().unwrap();
    assert_eq!(w.attach_code(0, json!({"require_digests": true})), -32602);
    w.attach(0, json!({"hdgst": true, "require_digests": true}));
    let list = w.call("bdev_nvme_get_controllers", json!({}));
    let pollux = &list[0]["ctrlrs"][0]["pollux"];
    assert_eq!(
        (&pollux["hdgst"], &pollux["ddgst"]),
        (&json!(true), &json!(false))
    );
}

/// B1.3: a namespace that was attached under one name and comes back under another is a volume of the new name, whatever
/// tells of it, and nothing is left of the old one.
#[test]
fn a_namespace_attached_under_another_name_is_a_volume_of_that_name() {
    let mut w = World::new();
    for (round, name) in ["keyed", "disk", "keyed"].into_iter().enumerate() {
        let volume = format!("{name}n1");
        assert_eq!(w.attach(0, json!({"name": name})), json!([volume]));
        assert_eq!(w.attach(1, json!({"name": name})), json!([volume]));
        let bdevs = w.call("bdev_get_bdevs", json!({}));
        assert_eq!(
            (&bdevs[0]["name"], &bdevs[1]),
            (&json!(volume), &json!(null))
        );
        let groups = w.call("bdev_nvme_get_io_paths", json!({}));
        for path in groups["poll_groups"].as_array().unwrap() {
            assert_eq!(path["io_paths"][0]["bdev_name"], volume);
        }
        let iostat = w.call("bdev_get_iostat", json!({}));
        assert_eq!(iostat["bdevs"][0]["name"], volume);
        let first = 2 * round;
        let told = w.call("notify_get_notifications", json!({"id": first}));
        let told = told.as_array().unwrap();
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(
            (&told[0]["type"], &told[0]["ctx"]),
            (&json!("bdev_register"), &json!(volume))
        );
        w.call("bdev_nvme_detach_controller", json!({"name": name}));
        assert_eq!(w.call("bdev_get_bdevs", json!({})), json!([]));
    }
}
