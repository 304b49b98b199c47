//! Namespaces that appear, grow and vanish while I/O goes on (rules B10 and B3.6).

use std::time::Duration;

use crate::common::{BLOCK, World};
use pollux_multipath::{HostRequest, IoError, NotificationKind, Op, VolumeId};
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_nvme_tcp::target::TargetRequest;
use pollux_nvme_tcp::testing::{Seen, Verdict};

const T: bool = true;
const F: bool = false;

fn world(seed: u64, paths: u16, io: usize, depth: usize) -> World {
    let mut w = World::tapped(seed, paths, io, depth);
    for path in 0..paths {
        w.attach(path);
    }
    w.sim.run_for(Duration::from_millis(20));
    w
}

/// Enough for a log read and a few steps on a quiet network.
fn settle(w: &mut World) {
    w.sim.run_for(Duration::from_millis(20));
}

fn volume(w: &mut World, name: &str) -> VolumeId {
    let status = w.status();
    status.iter().find(|v| v.name == name).unwrap().volume
}

fn names(w: &mut World) -> Vec<String> {
    w.status().into_iter().map(|v| v.name).collect()
}

fn connects(w: &World) -> usize {
    w.tap.borrow().count(Seen::is_connect)
}

/// B10: a namespace that is added becomes a volume with all its paths on every reactor, one that vanishes takes its
/// volume along, without a reset and without a stop of the others' I/O.
#[test]
fn namespaces_come_and_go_without_a_reset() {
    let mut w = world(900, 3, 4, 4);
    let before = connects(&w);
    w.expect_progress(50);
    w.add_namespace(7, 64);
    settle(&mut w);
    assert_eq!(names(&mut w), ["Nvme0n1", "Nvme0n7"]);
    let seven = volume(&mut w, "Nvme0n7");
    let status = w.status();
    for reactor in &status[1].reactors {
        let accessible: Vec<_> = reactor.paths.iter().map(|p| p.accessible).collect();
        assert_eq!(accessible, [true; 3]);
    }
    for reactor in 0..4 {
        let pattern = vec![u8::try_from(reactor).unwrap() + 1; BLOCK];
        let write = w.submit_to(reactor, Some(seven), Op::Write, 63, pattern.clone());
        w.expect_ended(&[write], Duration::from_secs(1));
        let read = w.submit_to(reactor, Some(seven), Op::Read, 63, vec![0; BLOCK]);
        w.expect_ended(&[read], Duration::from_secs(1));
        let hand = w.hand.borrow();
        let ended = hand.ended.iter().find(|e| e.id == read).unwrap();
        assert!(ended.buffer == pattern && ended.result.is_ok());
    }
    w.expect_progress(50);
    w.remove_namespace(7);
    settle(&mut w);
    assert_eq!(names(&mut w), ["Nvme0n1"]);
    w.expect_progress(50);
    assert_eq!(connects(&w), before, "no connection was made");
    w.finish();
}

/// B10: what is outstanding on a namespace that vanishes ends with an error that names the removal: on the way, and
/// waiting.
#[test]
fn io_on_a_namespace_that_vanishes_says_so() {
    for waiting in [false, true] {
        let mut w = world(901, 2, 2, 0);
        w.add_namespace(2, 64);
        settle(&mut w);
        let two = volume(&mut w, "Nvme0n2");
        if waiting {
            for path in 0..2 {
                w.ana_of(path, Some(2), AnaState::INACCESSIBLE);
            }
            settle(&mut w);
        } else {
            // It comes to the target when the namespace is gone.
            w.on_command(|seen| match seen.is_io() && seen.nsid() == 2 {
                true => Verdict::Hold,
                false => Verdict::Pass,
            });
            w.tap.borrow_mut().hold = true;
        }
        let ids: Vec<_> = (0..2)
            .map(|reactor| w.submit_to(reactor, Some(two), Op::Write, 0, vec![0; BLOCK]))
            .collect();
        settle(&mut w);
        assert!(ids.iter().all(|id| w.ended(*id).is_none()));
        w.remove_namespace(2);
        settle(&mut w);
        assert_eq!(names(&mut w), ["Nvme0n1"]);
        w.release();
        w.expect_ended(&ids, Duration::from_secs(1));
        for id in ids {
            assert_eq!(w.ended(id).unwrap().0, Err(IoError::Removed), "{waiting}");
        }
        for reactor in 0..2 {
            assert_eq!(w.io(reactor, Op::Read, 0), Ok(()), "the other volume");
        }
    }
}

/// B10: so it is with what waits for its retry.
#[test]
fn io_that_waits_for_its_retry_hears_of_the_removal() {
    use pollux_nvme_tcp::spec::status::Status;
    let mut w = World::tapped(902, 1, 1, 0);
    w.target(TargetRequest::set_retry_delays([300, 0, 0]));
    w.attach(0);
    w.on_command(|seen| match seen.is_io() {
        true => Verdict::Answer(Status::INTERNAL_ERROR.with_crd(1)),
        false => Verdict::Pass,
    });
    let id = w.submit(0, Op::Write, 0);
    settle(&mut w);
    w.remove_namespace(1);
    w.expect_ended(&[id], Duration::from_secs(1));
    assert_eq!(w.ended(id).unwrap().0, Err(IoError::Removed));
}

/// B10: a volume grows on every reactor within one log read, and its new blocks can be used by every path.
#[test]
fn a_volume_grows_everywhere() {
    let mut w = world(903, 2, 3, 2);
    let before = connects(&w);
    let first = volume(&mut w, "Nvme0n1");
    for blocks in [4096, 5000] {
        w.tap.borrow_mut().seen.clear();
        w.resize_namespace(1, blocks);
        settle(&mut w);
        assert_eq!(w.status()[0].blocks, blocks);
        assert_eq!(volume(&mut w, "Nvme0n1"), first, "the same volume");
        for path in 0..2 {
            w.prefer(path);
            for reactor in 0..3 {
                let id = w.submit(reactor, Op::Write, blocks - 1);
                w.expect_ended(&[id], Duration::from_secs(1));
                assert_eq!(w.ended(id).unwrap().0, Ok(()));
                assert_eq!(w.carried_by(id), Some(path));
            }
        }
    }
    assert_eq!(connects(&w), 0, "of {before} before, none since");
    let (sender, receiver) = std::sync::mpsc::channel();
    w.request(HostRequest::Notifications(
        0,
        Box::new(move |answer| sender.send(answer).unwrap()),
    ));
    let kinds: Vec<_> = w
        .wait(receiver)
        .unwrap()
        .into_iter()
        .map(|n| n.kind)
        .collect();
    assert_eq!(
        kinds,
        [
            NotificationKind::Added,
            NotificationKind::Resized,
            NotificationKind::Resized
        ]
    );
    w.finish();
}

/// B10, B3.6: a namespace that vanishes and comes back under its number is a new volume; the old one's handle is no
/// good for it.
#[test]
fn a_namespace_that_comes_back_is_a_new_volume() {
    let mut w = world(904, 2, 2, 0);
    w.add_namespace(2, 64);
    settle(&mut w);
    let old = volume(&mut w, "Nvme0n2");
    w.remove_namespace(2);
    settle(&mut w);
    w.add_namespace(2, 32);
    settle(&mut w);
    let new = volume(&mut w, "Nvme0n2");
    assert_ne!(old, new);
    let id = w.submit_to(1, Some(new), Op::Write, 31, vec![0; BLOCK]);
    w.expect_ended(&[id], Duration::from_secs(1));
    assert_eq!(w.ended(id).unwrap().0, Ok(()));
    for reactor in &w.status()[1].reactors {
        assert_eq!(reactor.paths.len(), 2);
        assert!(reactor.paths.iter().all(|p| p.accessible));
    }
}

/// B3.6, B5.2: a namespace that vanishes on one controller only takes that path along and nothing else; its I/O goes by
/// the other one. When it is back, the path has its place in attach order again.
#[test]
fn a_namespace_that_vanishes_behind_one_controller_takes_one_path() {
    let mut w = world(905, 2, 2, 4);
    w.expect_progress(20);
    w.on_data(|seen, data| {
        // Active Namespace ID list, CNS 02h.
        if seen.path == 0 && seen.is_identify(0x02) {
            data.fill(0);
        }
    });
    // Any change makes the list be read again.
    w.resize_namespace(1, 4096);
    w.expect_paths(&[(1, T, T, T)]);
    w.expect_progress(20);
    w.tap.borrow_mut().on_data = None;
    w.resize_namespace(1, 4100);
    w.expect_paths(&[(0, T, T, T), (1, F, T, T)]);
    w.expect_progress(20);
    w.finish();
}

/// B10: many changes one upon the other, under I/O on all of it, end as the last of them says.
#[test]
fn many_changes_end_as_the_last_says() {
    for seed in 910..914 {
        let mut w = world(seed, 2, 2, 6);
        for round in 0..20u32 {
            let nsid = 2 + round % 3;
            match round % 6 {
                0..3 => w.add_namespace(nsid, 64),
                _ => w.remove_namespace(nsid),
            }
            w.resize_namespace(1, 2048 + u64::from(round));
            w.sim.run_for(Duration::from_micros(u64::from(round) * 130));
        }
        settle(&mut w);
        assert_eq!(names(&mut w), ["Nvme0n1", "Nvme0n2", "Nvme0n3"]);
        assert_eq!(w.status()[0].blocks, 2067);
        w.expect_progress(50);
    }
}
