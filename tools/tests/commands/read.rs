//! `pollux identify`, `discover` and `ana` against a `pollux target` of its own.

use std::net::SocketAddr;

use crate::programs::{NQN, Target, pollux, read_json, trid};
use serde_json::json;

const DISCOVERY: &str = "nqn.2014-08.org.nvmexpress.discovery";

#[test]
fn identify_reads_controller_and_namespaces() {
    let target = Target::start();
    let found = read_json("identify", target.listeners[0], NQN, &[]);
    let controller = &found["controller"];
    assert_eq!(controller["subnqn"], NQN);
    assert_eq!(controller["cntrltype"], 1);
    assert_eq!(controller["cmic"], 0xb);
    assert_eq!(controller["anacap"].as_u64().unwrap() & 0x1f, 0x1f);
    assert_eq!(controller["sqes"], 0x66);
    assert_eq!(controller["version"], "1.4.0");
    for text in ["sn", "mn", "fr"] {
        let value = controller[text].as_str().unwrap();
        assert!(
            !value.is_empty() && value.trim() == value,
            "{text} '{value}'"
        );
    }
    for number in [
        "cntlid",
        "mdts",
        "kas",
        "anatt",
        "nn",
        "nanagrpid",
        "ioccsz",
    ] {
        assert!(controller[number].as_u64().unwrap() > 0, "{number}");
    }

    let namespaces = found["namespaces"].as_array().unwrap();
    assert_eq!(namespaces.len(), 2);
    for (namespace, (nsid, blocks)) in namespaces.iter().zip([(1, 256), (2, 512)]) {
        assert_eq!(namespace["nsid"], nsid);
        assert_eq!(namespace["nsze"], blocks);
        assert_eq!(namespace["ncap"], blocks);
        assert_eq!(namespace["block_size"], 4096);
        assert_eq!(namespace["anagrpid"], nsid);
        assert_eq!(namespace["csi"], 0);
        assert_eq!(namespace["uuid"].as_str().unwrap().len(), 36);
    }
    assert_ne!(namespaces[0]["uuid"], namespaces[1]["uuid"]);

    let other = read_json("identify", target.listeners[1], NQN, &[]);
    assert_eq!(other["namespaces"], found["namespaces"]);
    assert_ne!(other["controller"]["cntlid"], 0);
}

#[test]
fn identify_reads_one_namespace() {
    let target = Target::start();
    let all = read_json("identify", target.listeners[0], NQN, &[]);
    let one = read_json("identify", target.listeners[0], NQN, &["-N", "2"]);
    assert_eq!(one["namespaces"], json!([all["namespaces"][1]]));
    let trid = trid(target.listeners[0], NQN);
    let error = pollux(&["identify", "-r", &trid, "--nsid", "3"]).failed(1);
    assert!(
        error.contains("namespace 3") && error.contains("1, 2"),
        "{error}"
    );
}

#[test]
fn digests_change_nothing_that_is_read() {
    let target = Target::start();
    for command in ["identify", "ana"] {
        let mut plain = read_json(command, target.listeners[0], NQN, &[]);
        for digests in [&["--hdgst"][..], &["--ddgst"], &["--hdgst", "--ddgst"]] {
            let mut with = read_json(command, target.listeners[0], NQN, digests);
            if let Some(controller) = with.get_mut("controller") {
                // A new controller for every connection.
                controller["cntlid"] = plain["controller"]["cntlid"].take();
                plain["controller"]["cntlid"] = controller["cntlid"].clone();
            }
            assert_eq!(with, plain, "{command} {digests:?}");
        }
    }
}

#[test]
fn identify_prints_text_for_people() {
    let target = Target::start();
    let port = target.listeners[1].port().to_string();
    let args = ["-t", "tcp", "-a", "127.0.0.2", "-s", &port, "-n", NQN];
    let text = pollux(&[&["identify"], &args[..]].concat()).succeeded();
    for part in [
        NQN,
        "several ports, several controllers, ANA reporting",
        "compare, dataset management, write zeroes",
        "Namespace 1",
        "1048576 bytes (1.00 MiB), 256 blocks",
        "Namespace 2",
        "2, non_optimized",
        "4096 bytes",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let text = pollux(&[&["ana"], &args[..]].concat()).succeeded();
    assert_eq!(
        text.matches("non_optimized").count(),
        text.lines().count() - 3,
        "{text}"
    );
    let text = pollux(&["discover", "-a", "127.0.0.2", "-s", &port]).succeeded();
    assert!(
        text.contains(&format!("tcp ipv4 127.0.0.2 port {port}")),
        "{text}"
    );
}

#[test]
fn discover_lists_every_listener() {
    let target = Target::start();
    // Whichever is asked.
    for asked in target.listeners {
        let log = read_json("discover", asked, DISCOVERY, &[]);
        assert!(log["genctr"].is_u64());
        let records = log["records"].as_array().unwrap();
        let mut found: Vec<SocketAddr> = records
            .iter()
            .filter(|record| record["subnqn"] == NQN)
            .map(|record| {
                let addr = format!(
                    "{}:{}",
                    record["traddr"].as_str().unwrap(),
                    record["trsvcid"].as_str().unwrap()
                );
                assert_eq!(record["trtype"], "tcp");
                assert_eq!(record["adrfam"], "ipv4");
                assert_eq!(record["subtype"], "nvme subsystem");
                assert_eq!(record["cntlid"], 0xffff);
                assert_eq!(record["sectype"], "none");
                assert!(record["asqsz"].as_u64().unwrap() >= 32);
                assert!(record["treq"].is_string() && record["portid"].is_u64());
                addr.parse().unwrap()
            })
            .collect();
        found.sort();
        let mut listeners = target.listeners;
        listeners.sort();
        assert_eq!(found, listeners);
    }
}

#[test]
fn discover_asks_only_discovery_controllers() {
    let target = Target::start();
    let error = pollux(&["discover", "-r", &trid(target.listeners[0], NQN)]).failed(1);
    assert!(
        error.contains(NQN) && error.contains("no discovery log"),
        "{error}"
    );
    // The discovery controller can be identified as well.
    let found = read_json("identify", target.listeners[0], DISCOVERY, &[]);
    assert_eq!(found["controller"]["cntrltype"], 2);
    assert_eq!(found["namespaces"], json!([]));
}

#[test]
fn ana_reads_the_states_of_the_listener() {
    let target = Target::start();
    for (addr, state) in target.listeners.iter().zip(["optimized", "non_optimized"]) {
        let log = read_json("ana", *addr, NQN, &[]);
        assert!(log["change_count"].is_u64());
        let groups = log["groups"].as_array().unwrap();
        for nsid in [1, 2] {
            let group = groups
                .iter()
                .find(|group| group["nsids"] == json!([nsid]))
                .unwrap_or_else(|| panic!("namespace {nsid}: {log}"));
            assert_eq!(group["group"], nsid);
            assert_eq!(group["state"], state);
            assert!(group["change_count"].is_u64());
        }
    }
}

#[test]
fn a_controller_without_ana_says_so() {
    let target = Target::start();
    let addr = target.listeners[0];
    let error = pollux(&["ana", "-r", &trid(addr, DISCOVERY), "--json"]).failed(1);
    assert!(error.contains("does not report ANA"), "{error}");
    assert!(
        error.contains(DISCOVERY) && error.contains(&addr.to_string()),
        "{error}"
    );
}

#[test]
fn an_unknown_subsystem_is_refused_by_name() {
    let target = Target::start();
    let addr = target.listeners[0];
    for command in ["identify", "ana", "discover"] {
        let unknown = format!("{NQN}-not");
        let error = pollux(&[command, "-r", &trid(addr, &unknown)]).failed(1);
        assert!(
            error.contains(&format!("'{unknown}' is not known")),
            "{error}"
        );
        assert!(error.contains(&addr.to_string()), "{error}");
    }
}
