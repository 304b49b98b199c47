//! Discovery services that are followed.

use std::net::SocketAddr;

use pollux_nvme_tcp::spec::nqn::Nqn;
use pollux_nvme_tcp::target::{Referral, TargetRequest};
use serde_json::json;

use crate::world::{World, nqn};

/// What a discovery service lists is attached, and detached when it is listed no more.
#[test]
fn a_discovery_service_is_followed() {
    let mut w = World::new();
    let entry = w.listeners[0];
    let start = |name: &str, addr: SocketAddr| {
        json!({
            "name": name,
            "trtype": "tcp",
            "adrfam": "ipv4",
            "traddr": addr.ip().to_string(),
            "trsvcid": addr.port().to_string(),
            "wait_for_attach": true,
        })
    };
    w.call("bdev_nvme_start_discovery", start("Nvme", entry));
    assert_eq!(
        w.paths(),
        [[(0, true), (1, false)], [(0, true), (1, false)]]
    );
    let other = w.listeners[1];
    for params in [start("Nvme", other), start("Other", entry)] {
        assert_eq!(w.fail("bdev_nvme_start_discovery", params).0, -17);
    }
    let info = w.call("bdev_nvme_get_discovery_info", json!({}));
    assert_eq!(info[0]["name"], "Nvme");
    assert_eq!(info[0]["trid"]["trsvcid"], entry.port().to_string());
    assert_eq!(info[0]["referrals"], json!([]));
    let config = w.call("framework_get_config", json!({"name": "bdev"}));
    let methods: Vec<_> = config
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["method"].clone())
        .collect();
    assert_eq!(methods, ["bdev_nvme_start_discovery"]);

    w.target
        .handle
        .call(TargetRequest::remove_listener(nqn(), other))
        .unwrap();
    while w.states().len() != 1 {
        std::thread::yield_now();
    }
    let new = w.target.listen();
    w.listeners.push(new);
    while w.states() != ["enabled", "enabled"] {
        std::thread::yield_now();
    }
    assert_eq!(
        w.paths(),
        [[(0, true), (2, false)], [(0, true), (2, false)]]
    );

    w.call("bdev_nvme_stop_discovery", json!({"name": "Nvme"}));
    assert_eq!(w.call("bdev_nvme_get_controllers", json!({})), json!([]));
    assert_eq!(w.call("bdev_nvme_get_discovery_info", json!({})), json!([]));
    assert_eq!(
        w.fail("bdev_nvme_stop_discovery", json!({"name": "Nvme"}))
            .0,
        -19
    );

    // Accepts connections, by way of its backlog, and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut params = start("Late", silent.local_addr().unwrap());
    params["attach_timeout_ms"] = json!(50);
    assert_eq!(w.fail("bdev_nvme_start_discovery", params).0, -110);
    assert_eq!(w.call("bdev_nvme_get_discovery_info", json!({})), json!([]));
}

/// Referrals are followed as well.
#[test]
fn a_referral_is_followed() {
    let elsewhere = World::new();
    let mut w = World::new();
    let referral = elsewhere.listeners[0];
    w.target
        .handle
        .call(TargetRequest::add_referral(Referral {
            addr: referral,
            subnqn: Nqn::discovery(),
        }))
        .unwrap();
    let entry = w.listeners[0];
    w.call(
        "bdev_nvme_start_discovery",
        json!({
            "name": "Nvme",
            "trtype": "tcp",
            "traddr": entry.ip().to_string(),
            "trsvcid": entry.port().to_string(),
        }),
    );
    let all = [&w.listeners[..], &elsewhere.listeners[..]].concat();
    loop {
        let list = w.call("bdev_nvme_get_controllers", json!({}));
        let ports: Vec<_> = list[0]["ctrlrs"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|c| c["trid"]["trsvcid"].as_str().unwrap().to_owned())
            .collect();
        if all
            .iter()
            .all(|addr| ports.contains(&addr.port().to_string()))
        {
            break;
        }
        std::thread::yield_now();
    }
    let info = w.call("bdev_nvme_get_discovery_info", json!({}));
    let port = referral.port().to_string();
    assert_eq!(info[0]["referrals"][0]["trid"]["trsvcid"], port);
}

/// An address at which nobody listens.
fn nobody() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn start(name: &str, addr: SocketAddr) -> serde_json::Value {
    json!({
        "name": name,
        "trtype": "tcp",
        "traddr": addr.ip().to_string(),
        "trsvcid": addr.port().to_string(),
    })
}

/// A referral that can never be reached has listed nothing: it keeps nothing attached that the service itself
/// no longer lists.
#[test]
fn a_dead_referral_keeps_nothing_attached() {
    let mut w = World::new();
    let mut params = start("Nvme", w.listeners[0]);
    params["wait_for_attach"] = json!(true);
    w.call("bdev_nvme_start_discovery", params);
    assert_eq!(w.states().len(), 2);
    let dead = nobody();
    w.target
        .handle
        .call(TargetRequest::add_referral(Referral {
            addr: dead,
            subnqn: Nqn::discovery(),
        }))
        .unwrap();
    w.target
        .handle
        .call(TargetRequest::remove_listener(nqn(), w.listeners[1]))
        .unwrap();
    while w.states().len() != 1 {
        std::thread::yield_now();
    }
    let info = w.call("bdev_nvme_get_discovery_info", json!({}));
    let failing = &info[0]["pollux"]["not_reached"][0];
    assert_eq!(failing["trid"]["trsvcid"], dead.port().to_string());
    let reason = failing["reason"].as_str().unwrap();
    assert!(reason.contains("refused"), "{reason}");
}

/// What is listed but cannot be attached is named, with the reason and the number of tries; who waits is
/// answered all the same.
#[test]
fn what_cannot_be_attached_is_named() {
    let mut w = World::new();
    let dead = nobody();
    w.target
        .handle
        .call(TargetRequest::add_referral(Referral {
            addr: dead,
            subnqn: "nqn.2014-08.org.example:elsewhere".parse().unwrap(),
        }))
        .unwrap();
    let mut params = start("Nvme", w.listeners[0]);
    params["wait_for_attach"] = json!(true);
    w.call("bdev_nvme_start_discovery", params);
    assert_eq!(w.states().len(), 2);
    let info = w.call("bdev_nvme_get_discovery_info", json!({}));
    let failing = &info[0]["pollux"]["not_attached"];
    assert_eq!(failing.as_array().unwrap().len(), 1);
    assert_eq!(failing[0]["trid"]["trsvcid"], dead.port().to_string());
    assert!(failing[0]["tries"].as_u64().unwrap() >= 1);
    let reason = failing[0]["reason"].as_str().unwrap();
    assert!(reason.contains("refused"), "{reason}");
}

/// Whoever waits without a time limit for a service that cannot be reached is told why; it is not followed
/// any longer.
#[test]
fn waiting_for_a_service_that_is_not_there_ends() {
    let mut w = World::new();
    let mut params = start("Nvme", nobody());
    params["wait_for_attach"] = json!(true);
    let (code, text) = w.fail("bdev_nvme_start_discovery", params);
    assert_eq!(code, -5, "{text}");
    assert!(text.contains("refused"), "{text}");
    assert_eq!(w.call("bdev_nvme_get_discovery_info", json!({})), json!([]));
}
