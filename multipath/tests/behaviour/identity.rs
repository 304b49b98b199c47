//! Which namespaces form a volume, and how large it is (rule B1.3).

use std::time::Duration;

use crate::common::{BLOCKS, World, addr, lines};
use pollux_multipath::{ControllerChange, IoError, Op};
use pollux_nvme_tcp::spec::identify::cns;
use pollux_nvme_tcp::testing::Seen;

const T: bool = true;
const F: bool = false;

/// What the controllers of path 1 say of namespace 1, changed.
fn change_namespace(w: &World, change: impl Fn(&Seen, &mut [u8]) + 'static) {
    w.on_data(move |seen, data| {
        if seen.path == 1 && seen.nsid() == 1 {
            change(seen, data);
        }
    });
}

/// Attaches a path whose namespace 1 is another one, and one that it fits; says why it was left out.
fn left_out(w: &mut World) -> String {
    w.add_namespace(2, 32);
    w.attach(0);
    w.expect_progress(20);
    let attached = w.attach(1);
    let names: Vec<_> = attached.volumes.iter().map(|v| &v.name).collect();
    assert_eq!(names, ["Nvme0n2"], "the other one joins");
    w.expect_paths(&[(0, T, T, T)]);
    w.expect_progress(20);
    assert_eq!(w.controller(0).left_out, []);
    let mut left_out = w.controller(1).left_out;
    assert_eq!(left_out.len(), 1);
    let (nsid, why) = left_out.remove(0);
    assert_eq!(nsid, 1);
    w.finish();
    why
}

/// B1.3: a namespace with another UUID, NGUID or EUI64 is not the same one; where only one side has an
/// identifier, there is nothing to compare.
#[test]
fn a_namespace_with_another_identifier_is_left_out_and_listed() {
    // Descriptor list: type 3 is the UUID, with its 16 bytes from 4 on.
    let uuid = |seen: &Seen, data: &mut [u8]| {
        if seen.is_identify(cns::NAMESPACE_ID_DESCRIPTORS) {
            assert_eq!(data[0], 3, "the first descriptor is the UUID");
            data[4] ^= 1;
        }
    };
    let mut w = World::tapped(105, 2, 2, 2);
    change_namespace(&w, uuid);
    assert!(left_out(&mut w).contains("identifiers"));

    // NGUID in bytes 104 to 119 and EUI64 in 120 to 127 of Identify Namespace: given by both, or by one.
    for (at, joins) in [(119, false), (127, false), (119, true), (127, true)] {
        let mut w = World::tapped(106, 2, 2, 2);
        w.on_data(move |seen, data| {
            if seen.is_identify(cns::NAMESPACE_ID_DESCRIPTORS) {
                // The target's own NGUID comes second, and the host would believe it.
                data.copy_within(40..48, 20);
                data[28..].fill(0);
            }
            if seen.is_identify(cns::NAMESPACE) && seen.nsid() == 1 {
                data[104..120].fill(0);
                match (seen.path, joins) {
                    (0, _) => data[at] = 7,
                    (_, false) => data[at] = 8,
                    (_, true) => {}
                }
            }
        });
        if joins {
            w.attach(0);
            w.attach(1);
            w.expect_paths(&[(0, T, T, T), (1, F, T, T)]);
            w.finish();
        } else {
            assert!(left_out(&mut w).contains("identifiers"));
        }
    }
}

/// B1.3: another block size, or another command set, is another namespace.
#[test]
fn a_namespace_with_another_block_size_or_command_set_is_left_out_and_listed() {
    let mut w = World::tapped(107, 2, 2, 2);
    change_namespace(&w, |seen, data| {
        if seen.is_identify(cns::NAMESPACE) {
            // LBADS of the format in use.
            let format = 128 + 4 * usize::from(data[26] & 0xf);
            data[format + 2] = 12;
        }
    });
    let why = left_out(&mut w);
    assert!(why.contains("block size 4096 instead of 512"), "{why}");

    let mut w = World::tapped(108, 2, 2, 2);
    change_namespace(&w, |seen, data| {
        if seen.is_identify(cns::NAMESPACE_ID_DESCRIPTORS) {
            // Type 4, length 1: CSI 2, Zoned Namespace.
            data[20..25].copy_from_slice(&[4, 1, 0, 0, 2]);
        }
    });
    let why = left_out(&mut w);
    assert!(why.contains("command set"), "{why}");
}

fn blocks(w: &mut World) -> u64 {
    w.status()[0].blocks
}

/// B1.3: while paths report different capacities, the smallest holds, whichever comes first.
#[test]
fn the_smallest_capacity_holds() {
    for smaller in [0, 1] {
        let mut w = World::tapped(109, 2, 2, 2);
        w.on_data(move |seen, data| {
            if seen.is_identify(cns::NAMESPACE) && seen.path == smaller {
                data[..8].copy_from_slice(&1000u64.to_le_bytes());
            }
        });
        w.attach(0);
        w.attach(1);
        assert_eq!(blocks(&mut w), 1000);
        w.expect_paths(&[(0, T, T, T), (1, F, T, T)]);
        for reactor in 0..2 {
            assert_eq!(w.io(reactor, Op::Read, 999), Ok(()));
        }
        w.finish();
    }
}

/// B1.3: a namespace that was left out has no say in the size of the volume it is no part of.
#[test]
fn a_namespace_that_is_left_out_does_not_shrink_the_volume() {
    let mut w = World::tapped(110, 2, 1, 2);
    change_namespace(&w, |seen, data| {
        if seen.is_identify(cns::NAMESPACE) {
            data[..8].copy_from_slice(&100u64.to_le_bytes());
        }
        if seen.is_identify(cns::NAMESPACE_ID_DESCRIPTORS) {
            data[4] ^= 1;
        }
    });
    left_out(&mut w);
    assert_eq!(blocks(&mut w), BLOCKS);
}

/// B1.3: the smallest capacity holds for as long as a path reports it.
#[test]
fn the_volume_grows_when_the_smaller_path_is_detached() {
    let mut w = World::tapped(111, 2, 1, 2);
    change_namespace(&w, |seen, data| {
        if seen.is_identify(cns::NAMESPACE) {
            data[..8].copy_from_slice(&1000u64.to_le_bytes());
        }
    });
    w.attach(0);
    w.attach(1);
    assert_eq!(blocks(&mut w), 1000);
    w.finish();
    w.detach(Some(1)).unwrap();
    assert_eq!(blocks(&mut w), BLOCKS);
}

/// B1.3: what stands behind an address after a reconnect is checked like the first time.
#[test]
fn a_namespace_that_is_another_one_after_a_reconnect_carries_no_io() {
    let mut w = World::tapped(112, 2, 2, 4);
    w.attach(0);
    w.attach(1);
    w.expect_progress(20);
    w.on_data(|seen, data| {
        if seen.path == 0 && seen.is_identify(cns::NAMESPACE_ID_DESCRIPTORS) {
            data[4] ^= 1;
        }
    });
    w.sim.network().sever(addr(0));
    w.expect_paths(&[(1, T, T, T)]);
    w.expect_progress(50);
    assert_eq!(w.controller(0).state, "enabled");
    assert_eq!(w.controller(0).left_out.len(), 1);
    w.finish();
}

/// From now on the controllers of a path tell another UUID of namespace 1.
fn replace_namespace(w: &World, path: u16) {
    w.on_data(move |seen, data| {
        if seen.path == path && seen.nsid() == 1 && seen.is_identify(cns::NAMESPACE_ID_DESCRIPTORS)
        {
            data[4] ^= 1;
        }
    });
}

/// B10, B1.3: the only path comes back with another namespace behind the NSID: the old volume ends with a line that says
/// why, what waited for it is told, and the namespace is a volume of its own at once.
#[test]
fn another_namespace_on_the_only_path_is_a_new_volume() {
    lines::keep();
    let mut w = World::tapped(112, 1, 1, 0);
    w.attach(0);
    let old = w.status().remove(0);
    replace_namespace(&w, 0);
    let reset = w.start_change(None, ControllerChange::Reset);
    let waiting = w.submit_to(0, Some(old.volume), Op::Write, 0, vec![0; 512]);
    w.wait(reset).unwrap();
    w.expect_ended(&[waiting], Duration::from_secs(1));
    assert_eq!(w.ended(waiting).unwrap().0, Err(IoError::Removed));
    let new = w.status().remove(0);
    assert_eq!((&new.name, w.status().len()), (&old.name, 1));
    assert_ne!(new.volume, old.volume);
    assert_ne!(new.ids, old.ids);
    assert_eq!(w.controller(0).left_out, []);
    assert_eq!(w.io(0, Op::Write, 0), Ok(()));
    let told = lines::with("another namespace");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("identifiers"), "{told:?}");
    assert_eq!(lines::with("removed with its last path").len(), 1);
}

/// B10, B1.3: while the old volume has another path, the other namespace is left out; once that path is gone, it is a
/// volume.
#[test]
fn another_namespace_waits_for_the_end_of_the_old_volume() {
    let mut w = World::tapped(113, 2, 1, 0);
    w.attach(0);
    w.attach(1);
    let old = w.status().remove(0);
    replace_namespace(&w, 1);
    let cntlid = w.controller(1).cntlid;
    w.change(Some(cntlid), ControllerChange::Reset).unwrap();
    w.expect_paths(&[(0, T, T, T)]);
    assert_eq!(w.controller(1).left_out.len(), 1);
    assert_eq!(w.status().remove(0).volume, old.volume);
    w.detach(Some(0)).unwrap();
    w.expect_paths(&[(1, T, T, T)]);
    assert_ne!(w.status().remove(0).volume, old.volume);
    assert_eq!(w.controller(1).left_out, []);
    assert_eq!(w.io(0, Op::Write, 0), Ok(()));
}
