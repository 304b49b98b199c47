//! Many channels: several reactors, names, volumes and paths at once, with all that can happen to them.

use std::time::Duration;

use crate::common::{World, addr, options, transport};
use pollux_multipath::{AttachRequest, Policy, Selector};
use pollux_nvme_tcp::spec::log::AnaState;

const NAMES: u16 = 3;
const PATHS: u16 = 4;
const REACTORS: usize = 4;

fn policy(name: u16) -> Policy {
    match name {
        0 => Policy::ActivePassive,
        1 => Policy::ActiveActive(Selector::RoundRobin { min_io: 2 }),
        _ => Policy::ActiveActive(Selector::QueueDepth),
    }
}

fn attach(w: &mut World, path: u16) {
    let name = path % NAMES;
    let mut request = AttachRequest::new(&format!("disk{name}"), transport(path));
    request.options = options();
    request.options.policy = policy(name);
    w.attach_request(request).unwrap();
}

/// Three names with four paths each to two namespaces, on four reactors: six volumes, 96 paths of channels.
fn world(seed: u64) -> World {
    let mut w = World::new(seed, NAMES * PATHS, REACTORS, 12);
    w.add_namespace(2, 2048);
    *w.on.borrow_mut() = false;
    for path in 0..NAMES * PATHS {
        attach(&mut w, path);
    }
    *w.on.borrow_mut() = true;
    w
}

/// What must hold of every status, at any moment.
fn check(w: &mut World) {
    for volume in w.status() {
        for view in &volume.reactors {
            let current = view.paths.iter().filter(|p| p.current);
            assert!(
                current.clone().all(|p| p.connected && p.accessible),
                "{view:?}"
            );
            let available = view.paths.iter().filter(|p| p.connected && p.accessible);
            assert_eq!(
                current.clone().count() > 0,
                available.clone().count() > 0,
                "{view:?}"
            );
            if volume.policy == Policy::ActivePassive {
                assert!(current.clone().count() <= 1, "{view:?}");
            }
            let best = |state| state == AnaState::OPTIMIZED;
            if available.clone().any(|p| best(p.ana_state)) {
                assert!(current.clone().all(|p| best(p.ana_state)), "{view:?}");
            }
        }
    }
}

/// B1.1, B2.3, B5.1, B13.2: states of single groups on single paths, connections that are cut, paths that are detached
/// and attached, on all of it: every status is true in itself, every I/O ends well, with its own data.
#[test]
fn many_channels_stay_true_to_their_rules() {
    for seed in 1200..1202 {
        let mut w = world(seed);
        w.expect_progress(500);
        let states = [
            AnaState::OPTIMIZED,
            AnaState::NON_OPTIMIZED,
            AnaState::INACCESSIBLE,
            AnaState::CHANGE,
        ];
        for round in 0..60u16 {
            // One path of each name is left alone, so that there is always one.
            let path = (round * 7 + u16::try_from(seed).unwrap()) % (NAMES * (PATHS - 1));
            match round % 6 {
                0..4 => {
                    let group = 1 + u32::from(round % 2);
                    w.ana_of(path, Some(group), states[usize::from(round / 3 % 4)]);
                }
                4 => w.sim.network().sever(addr(path)),
                _ => {
                    let name = format!("disk{}", path % NAMES);
                    let answer = w.start_detach(&name, Some(path));
                    w.wait(answer).unwrap();
                    check(&mut w);
                    attach(&mut w, path);
                }
            }
            check(&mut w);
            w.sim.run_for(Duration::from_micros(u64::from(round) * 40));
            check(&mut w);
        }
        for path in 0..NAMES * PATHS {
            w.ana(path, AnaState::OPTIMIZED);
        }
        w.sim.run_for(Duration::from_millis(200));
        check(&mut w);
        for volume in w.status() {
            assert_eq!(volume.reactors.len(), REACTORS);
            for view in &volume.reactors {
                assert_eq!(view.paths.len(), usize::from(PATHS));
                assert!(view.paths.iter().all(|p| p.connected && p.accessible));
            }
        }
        w.expect_progress(500);
        w.finish();
    }
}

/// B5.5, B2.1: a change of one volume's policy, or of one path's state, is seen on all reactors and on no other volume.
#[test]
fn a_change_of_one_volume_touches_no_other() {
    let mut w = world(1210);
    w.expect_progress(200);
    let view = |w: &mut World, wanted: &str| {
        let status = w.status();
        let others: Vec<_> = status
            .iter()
            .filter(|v| v.name != wanted)
            .flat_map(|v| v.reactors.iter().flat_map(|r| &r.paths))
            .map(|p| (p.ana_state, p.accessible, p.connected, p.current))
            .collect();
        others
    };
    let before = view(&mut w, "disk0n2");
    // Path 0 is the first of disk0; namespace 2 is in group 2.
    w.ana_of(0, Some(2), AnaState::INACCESSIBLE);
    w.sim.run_for(Duration::from_millis(20));
    assert_eq!(view(&mut w, "disk0n2"), before);
    let status = w.status();
    let changed = status.iter().find(|v| v.name == "disk0n2").unwrap();
    for reactor in &changed.reactors {
        assert!(!reactor.paths[0].accessible && reactor.paths[1].current);
    }
    w.finish();
}
