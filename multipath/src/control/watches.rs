//! Volumes that are served to others as disks: what becomes of them, control tells the targets that serve them.
//!
//! A volume is known by its name and its identity. One that goes and comes back is the same if the namespace is; another one
//! under its name is not served.

use std::sync::{Arc, Weak};

use pollux_nvme_tcp::host::NamespaceIds;
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_nvme_tcp::target::disk::DiskChange;

use super::journal;
use super::reactors::Reactors;
use super::volumes::{Volume, Volumes};
use crate::ids::VolumeId;
use crate::io::{Call, ToIo};
use crate::volume_disk::WatchedVolume;

#[derive(Default)]
pub(super) struct Watches {
    list: Vec<Watch>,
    /// Something has happened to a volume since the last look.
    is_to_look: bool,
}

struct Watch {
    volume: Weak<WatchedVolume>,
    /// The target that is to be told.
    change: DiskChange,
    /// Identifiers of the volume that is served, once it was seen.
    ids: Option<NamespaceIds>,
    /// Another one of its name, which was told of in the log.
    refused: Option<VolumeId>,
    told: Option<Told>,
}

/// What was told of a volume; `None` in its place: it has gone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    pub id: VolumeId,
    pub bytes: u64,
    pub ana: AnaState,
}

impl Told {
    /// What each I/O reactor may do with it the volume as a whole may: the worst of their states.
    fn of(volume: &Volume) -> Self {
        let states = volume.ana.iter().copied();
        Self {
            id: volume.info.id,
            bytes: volume.info.blocks << volume.info.block_shift,
            ana: states
                .reduce(AnaState::worse)
                .unwrap_or(AnaState::INACCESSIBLE),
        }
    }
}

impl Watches {
    pub fn add(&mut self, volume: Weak<WatchedVolume>, change: DiskChange) {
        self.is_to_look = true;
        let is_known = |w: &Watch| w.volume.ptr_eq(&volume) && w.change == change;
        if !self.list.iter().any(is_known) {
            self.list.push(Watch {
                volume,
                change,
                ids: None,
                refused: None,
                told: None,
            });
        }
    }

    /// Something has happened to a volume, or to somebody who watches one.
    pub fn look(&mut self) {
        self.is_to_look = true;
    }
}

impl Watch {
    /// Whether this is the volume that is served. What is not is told of once.
    fn accepts(&mut self, served: &WatchedVolume, volume: &Volume) -> bool {
        let is_same = served.id() == volume.info.id
            || served.block_shift() == volume.info.block_shift
                && self.ids.is_some_and(|ids| ids.identifies(&volume.ids));
        if is_same {
            self.ids.get_or_insert(volume.ids);
        } else if self.refused.replace(volume.info.id) != Some(volume.info.id) {
            journal::not_served(&volume.info.name);
        }
        is_same
    }
}

/// Tells whoever watches a volume what has changed, and has the ANA states told that are followed.
pub(super) fn tell(volumes: &mut Volumes, reactors: &mut Reactors) {
    if !std::mem::take(&mut volumes.watches.is_to_look) {
        return;
    }
    let mut watches = std::mem::take(&mut volumes.watches.list);
    watches.retain(|watch| watch.volume.strong_count() > 0);
    let served: Vec<Option<Arc<WatchedVolume>>> =
        watches.iter().map(|watch| watch.volume.upgrade()).collect();
    for volume in volumes.iter_mut() {
        let follows = |s: &Arc<WatchedVolume>| s.has_ana() && s.name() == volume.info.name;
        let is_followed = served.iter().flatten().any(follows);
        if is_followed == volume.ana.is_empty() {
            let states = if is_followed { reactors.len() } else { 0 };
            volume.ana = vec![AnaState::INACCESSIBLE; states];
            let id = volume.info.id;
            reactors.broadcast(|| {
                let follow = Call::new(move |group| group.follow_ana(id, is_followed));
                ToIo::Call(follow)
            });
        }
    }
    for (watch, served) in watches.iter_mut().zip(served) {
        let Some(served) = served else {
            continue;
        };
        let present = volumes.iter().find(|v| v.info.name == served.name());
        let now = present
            .filter(|volume| watch.accepts(&served, volume))
            .map(Told::of);
        if now != watch.told {
            watch.told = now;
            served.take_in(now);
            watch.change.tell();
        }
    }
    volumes.watches.list = watches;
}
