//! Attaching (rules B1.1, B1.2, B1.4): what makes volumes and paths, what is refused, and when.

use std::time::Duration;

use pollux_multipath::{
    AttachOptions, AttachRequest, HostError, Mode, Policy, Selector, TransportId,
};
use pollux_nvme_tcp::spec::identify::cns;
use pollux_nvme_tcp::spec::nqn::Nqn;
use pollux_nvme_tcp::target::{SubsystemConfig, TargetRequest};
use pollux_nvme_tcp::testing::{Seen, Verdict};

use crate::common::{BLOCK_SIZE, BLOCKS, World, addr, nqn, options, transport};

const T: bool = true;
const F: bool = false;

fn under(name: &str, path: u16) -> AttachRequest {
    let mut request = AttachRequest::new(name, transport(path));
    request.options = options();
    request
}

/// B1.1: each name has volumes of its own, one per active namespace, named after it; a further attach under a
/// name adds a path to the same volumes and to no others.
#[test]
fn each_name_has_its_volumes_and_each_further_attach_adds_a_path() {
    let mut w = World::new(100, 6, 2, 4);
    w.add_namespace(5, 64);
    let names = ["Nvme0", "disk", "b"];
    let mut volumes = Vec::new();
    for (index, name) in (0..).zip(names) {
        let attached = w.attach_request(under(name, index)).unwrap();
        let found: Vec<_> = attached
            .volumes
            .iter()
            .map(|v| (v.name.clone(), v.blocks, v.block_size()))
            .collect();
        assert_eq!(
            found,
            [
                (format!("{name}n1"), BLOCKS, BLOCK_SIZE),
                (format!("{name}n5"), 64, BLOCK_SIZE)
            ]
        );
        volumes.push(attached.volumes);
    }
    for (index, name) in (3..).zip(names) {
        let attached = w.attach_request(under(name, index)).unwrap();
        assert_eq!(attached.volumes, volumes[usize::from(index) - 3], "{name}");
    }
    let status = w.status();
    assert_eq!(status.len(), 6);
    for volume in &status {
        let index = names
            .iter()
            .position(|n| volume.name.starts_with(&format!("{n}n")));
        let index = u16::try_from(index.unwrap()).unwrap();
        for reactor in &volume.reactors {
            let ports: Vec<_> = reactor.paths.iter().map(|p| p.transport.addr).collect();
            assert_eq!(ports, [addr(index), addr(index + 3)], "{}", volume.name);
        }
    }
    w.finish();
}

/// B1.2: every way in which a further attach may not fit, each with its own message; the paths there are carry on.
#[test]
fn what_does_not_fit_the_name_is_refused_and_changes_nothing() {
    let mut w = World::new(101, 3, 2, 4);
    let other = Nqn::new("nqn.2014-08.org.example:other").unwrap();
    w.target(TargetRequest::create_subsystem(SubsystemConfig::new(
        other.clone(),
    )));
    w.target(TargetRequest::add_listener(other.clone(), addr(2)));
    w.attach(0);
    w.attach(1);
    w.expect_progress(20);
    let to = |subnqn: &Nqn, hostnqn: Option<Nqn>| TransportId {
        addr: addr(2),
        subnqn: subnqn.clone(),
        hostnqn,
    };
    let with = |transport: TransportId, change: &dyn Fn(&mut AttachOptions)| {
        let mut request = AttachRequest::new("Nvme0", transport);
        request.options = options();
        change(&mut request.options);
        request
    };
    let same = |_: &mut AttachOptions| {};
    let here = to(&nqn(), None);
    let host = Nqn::new("nqn.2014-08.org.example:host").unwrap();
    let rows: Vec<(AttachRequest, &str)> = vec![
        (with(to(&other, None), &same), "subsystem NQN"),
        (with(to(&nqn(), Some(host)), &same), "host NQN"),
        (with(transport(0), &same), "10.0.0.1 trsvcid:4420"),
        (with(transport(1), &same), "10.0.0.1 trsvcid:4421"),
        (
            with(here.clone(), &|o| o.mode = Mode::Disable),
            "Nvme0: already attached",
        ),
        (with(here.clone(), &|o| o.mode = Mode::Failover), "2 paths"),
        (
            with(here.clone(), &|o| {
                o.policy = Policy::ActiveActive(Selector::QueueDepth);
            }),
            "multipath policy",
        ),
    ];
    let mut messages = Vec::new();
    for (request, words) in rows {
        let error = w.attach_request(request).unwrap_err();
        assert!(
            matches!(error, HostError::Exists(_) | HostError::Mismatch(_)),
            "{error}"
        );
        let text = error.to_string();
        assert!(text.contains(words), "'{text}' says nothing of {words}");
        assert!(!messages.contains(&text), "{text}");
        messages.push(text);
        w.expect_paths(&[(0, T, T, T), (1, F, T, T)]);
    }
    // It was for none of these reasons that it would not do.
    w.attach(2);
    w.expect_paths(&[(0, T, T, T), (1, F, T, T), (2, F, T, T)]);
    w.finish();
}

/// B1.2: options of a selector count as well: another selector, another `min_io`.
#[test]
fn the_options_of_a_policy_must_be_the_same() {
    let mut w = World::new(102, 2, 1, 2);
    let with = |policy| {
        let mut options = options();
        options.policy = policy;
        options
    };
    let robin = |min_io| Policy::ActiveActive(Selector::RoundRobin { min_io });
    w.attach_with(0, with(robin(4))).unwrap();
    for policy in [
        robin(5),
        Policy::ActiveActive(Selector::QueueDepth),
        Policy::ActivePassive,
    ] {
        let error = w.attach_with(1, with(policy)).unwrap_err();
        assert!(error.to_string().contains("min_io 4"), "{error}");
    }
    w.attach_with(1, with(robin(4))).unwrap();
    w.expect_paths(&[(0, T, T, T), (1, T, T, T)]);
    w.finish();
}

/// B1.2: with a single path and no alternate, either mode may follow; then only the same one may.
#[test]
fn the_second_attach_decides_between_failover_and_multipath() {
    let with = |mode| {
        let mut options = options();
        options.mode = mode;
        options
    };
    for (second, third) in [
        (Mode::Failover, Mode::Multipath),
        (Mode::Multipath, Mode::Failover),
    ] {
        for first in [Mode::Failover, Mode::Multipath, Mode::Disable] {
            let mut w = World::new(103, 4, 1, 1);
            w.attach_with(0, with(first)).unwrap();
            w.attach_with(1, with(second)).unwrap();
            let error = w.attach_with(2, with(third)).unwrap_err();
            assert!(matches!(error, HostError::Mismatch(_)), "{error}");
            w.attach_with(2, with(second)).unwrap();
            // An alternate's address is attached as much as a path's.
            let again = w.attach_with(1, with(second)).unwrap_err();
            assert!(matches!(again, HostError::Exists(_)), "{again}");
            w.finish();
        }
    }
}

/// Clears a bit of CMIC in what the controllers of some paths say.
fn without_cmic(w: &World, bit: u8, paths: &'static [u16]) {
    w.on_data(move |seen, data| {
        if seen.is_identify(cns::CONTROLLER) && paths.contains(&seen.path) {
            data[76] &= !bit;
        }
    });
}

/// B1.2: a controller whose CMIC denies others is refused as a second one, and alone it will do.
#[test]
fn a_subsystem_that_allows_one_controller_gets_no_second_path() {
    let mut w = World::tapped(104, 2, 1, 2);
    without_cmic(&w, 1 << 1, &[1]);
    w.attach(0);
    let error = w.attach_with(1, options()).unwrap_err();
    assert!(error.to_string().contains("CMIC"), "{error}");
    w.expect_paths(&[(0, T, T, T)]);
    assert_eq!(w.controllers().len(), 1);
    w.expect_progress(20);
    w.finish();
    w.detach(None).unwrap();
    w.attach(1);
    w.expect_paths(&[(1, T, T, T)]);
}

/// B1.4: wherever bringing a controller up stops being answered, the attach fails within its timeout, the other
/// path carries I/O meanwhile, and nothing of the attach is left.
#[test]
fn an_attach_fails_in_time_whichever_answer_is_missing() {
    type Step = fn(&Seen) -> bool;
    let steps: [(&str, Step); 6] = [
        ("Connect", Seen::is_connect),
        ("the first property", |s| s.qid == 0 && !s.is_connect()),
        ("Identify Controller", |s| s.is_identify(cns::CONTROLLER)),
        ("Identify Namespace", |s| s.is_identify(cns::NAMESPACE)),
        ("ANA log", Seen::is_ana_log),
        ("the namespaces", |s| {
            s.is_identify(cns::ACTIVE_NAMESPACE_LIST)
        }),
    ];
    let mut w = World::tapped(113, 2, 2, 4);
    w.attach(0);
    let limit = Duration::from_secs(3);
    for (what, lost) in steps {
        w.on_command(move |seen| match seen.path == 1 && lost(seen) {
            true => Verdict::Lose,
            false => Verdict::Pass,
        });
        let before = w.seen.borrow().done;
        let start = w.sim.now();
        let mut hurried = options();
        hurried.connect_timeout = limit;
        let error = w.attach_with(1, hurried).unwrap_err();
        let took = w.sim.now().saturating_since(start);
        assert!(
            took <= limit + Duration::from_millis(10),
            "{what}: {took:?}"
        );
        assert!(
            matches!(error, HostError::Timeout(_) | HostError::Connect { .. }),
            "{what}: {error}"
        );
        assert!(w.seen.borrow().done > before + 100, "{what}: I/O goes on");
        assert_eq!(w.controllers().len(), 1, "{what}");
        w.expect_paths(&[(0, T, T, T)]);
        w.tap.borrow_mut().seen.clear();
    }
    w.tap.borrow_mut().on_command = None;
    w.attach(1);
    w.expect_paths(&[(0, T, T, T), (1, F, T, T)]);
    w.finish();
}

/// B1.4, B6: an I/O queue whose Connect is not answered ends the attach in time, and completes nothing that was never
/// submitted.
#[test]
fn an_attach_fails_in_time_without_an_io_queue() {
    let mut w = World::tapped(117, 2, 2, 4);
    w.attach(0);
    w.expect_progress(20);
    w.on_command(
        |seen| match seen.path == 1 && seen.is_connect() && seen.qid == 2 {
            true => Verdict::Lose,
            false => Verdict::Pass,
        },
    );
    let start = w.sim.now();
    let error = w.attach_with(1, options()).unwrap_err();
    assert!(matches!(error, HostError::Timeout(_)), "{error}");
    let took = w.sim.now().saturating_since(start);
    assert!(took <= Duration::from_millis(10_010), "{took:?}");
    w.expect_paths(&[(0, T, T, T)]);
    w.finish();
}

/// B1.4: a peer of which one byte comes in a second does not get more time than another.
#[test]
fn an_attach_to_a_peer_that_trickles_fails_in_time() {
    let mut w = World::new(114, 1, 1, 1);
    // About one byte a second each way.
    w.sim.network().set_max_chunk(1);
    w.sim.network().set_send_buffer(1);
    w.sim.network().set_latency(Duration::from_secs(1));
    let start = w.sim.now();
    let error = w.attach_with(0, AttachOptions::default()).unwrap_err();
    assert!(
        error.to_string().contains("within the connect timeout"),
        "{error}"
    );
    let took = w.sim.now().saturating_since(start);
    assert!(took <= Duration::from_millis(10_100), "{took:?}");
    assert!(w.controllers().is_empty());
}

/// B1.4: two attaches under a new name at the same time, one of them in vain, do not disturb each other.
#[test]
fn attaches_at_the_same_time_are_told_apart() {
    let mut w = World::new(115, 2, 2, 4);
    w.sim.network().black_hole(addr(0), true);
    let first = w.start_attach(under("Nvme0", 0));
    let second = w.start_attach(under("Nvme0", 1));
    let attached = w.wait(second).unwrap();
    assert_eq!(attached.volumes[0].name, "Nvme0n1");
    *w.on.borrow_mut() = false;
    assert!(w.wait(first).is_err());
    *w.on.borrow_mut() = true;
    w.expect_paths(&[(1, T, T, T)]);
    w.expect_progress(20);
    w.finish();
}

/// B1.2, B8.3: what can be refused before anything is sent is refused so.
#[test]
fn options_that_make_no_sense_are_refused_without_a_connection() {
    let mut w = World::tapped(116, 1, 1, 1);
    let named = |name: &str, change: fn(&mut AttachOptions)| {
        let mut request = AttachRequest::new(name, transport(0));
        request.options = options();
        change(&mut request.options);
        request
    };
    for request in [
        named("", |_| {}),
        named("Nvme0", |o| o.recovery.reconnect_delay = Duration::ZERO),
        named("Nvme0", |o| o.queue_size = 1),
        named("Nvme0", |o| o.queue_size = 1025),
    ] {
        let error = w.attach_request(request).unwrap_err();
        assert!(matches!(error, HostError::Invalid(_)), "{error}");
    }
    assert!(w.tap.borrow().seen.is_empty());
}
