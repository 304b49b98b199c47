//! The volumes of all groups: which namespaces form them, and what happened to their paths.

use std::collections::VecDeque;
use std::sync::Arc;

use pollux_nvme_tcp::host::{Namespace, NamespaceIds};
use pollux_nvme_tcp::rate_limit::{Budget, RateLimits};
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_reactor::Time;

use super::journal;
use super::slots::Slots;
use super::subscribers::Subscribers;
use super::watches::Watches;
use crate::error::HostError;
use crate::ids::{ControllerId, VolumeId, VolumeInfo};
use crate::policy::Policy;
use crate::status::{Notification, NotificationKind, PathEvent, PathEventKind};
use crate::transport_id::TransportId;

/// Path events kept of each volume (rule B13.3).
const EVENTS_MAX: usize = 256;

/// A controller that a volume is reached by.
struct VolumePath {
    controller: ControllerId,
    /// The size that it reports; unknown while it is not connected.
    blocks: Option<u64>,
}

pub(super) struct Volume {
    pub info: VolumeInfo,
    /// Its name, as its events have it.
    name: Arc<str>,
    pub group: String,
    pub ids: NamespaceIds,
    pub policy: Policy,
    pub limits: RateLimits,
    /// While there are limits, with the number of these: the I/O reactors may still ask for slices of others.
    pub budget: Option<(u64, Budget)>,
    /// Its paths, in the order in which they were added.
    paths: Vec<VolumePath>,
    /// I/O reactors on which I/O waits and no path is available.
    pub stalled: Vec<usize>,
    pub events: VecDeque<PathEvent>,
    /// The ANA state that each I/O reactor has told last, while that is followed.
    pub ana: Vec<AnaState>,
}

impl Volume {
    /// Whether a namespace of a further controller is this volume (rule B1.3).
    pub fn accepts(&self, namespace: &Namespace) -> Result<(), String> {
        if namespace.block_shift != self.info.block_shift {
            return Err(format!(
                "block size {} instead of {}",
                1u32 << namespace.block_shift,
                self.info.block_size()
            ));
        }
        if !self.ids.agrees_with(&namespace.ids) {
            return Err(
                "identifiers (UUID, NGUID, EUI64) differ from those of the volume's other paths"
                    .into(),
            );
        }
        Ok(())
    }
}

/// Notifications kept.
const NOTIFICATIONS_MAX: usize = 4096;

#[derive(Default)]
pub(super) struct Volumes {
    list: Vec<Volume>,
    /// Whoever is told what happens to paths.
    pub subscribers: Subscribers,
    /// Whoever has volumes as disks.
    pub watches: Watches,
    notifications: VecDeque<Notification>,
    notified: u64,
    slots: Slots,
}

impl Volumes {
    fn notify(&mut self, kind: NotificationKind, volume: String) {
        self.watches.look();
        if self.notifications.len() == NOTIFICATIONS_MAX {
            self.notifications.pop_front();
        }
        self.notifications.push_back(Notification {
            id: self.notified,
            kind,
            volume,
        });
        self.notified += 1;
    }

    /// Something has happened to a volume's path, by this controller. A volume that has gone has no history any more.
    pub fn record(
        &mut self,
        id: VolumeId,
        at: Time,
        (controller, transport): (ControllerId, &Arc<TransportId>),
        kind: PathEventKind,
    ) {
        let Some(volume) = self.list.iter_mut().find(|v| v.info.id == id) else {
            return;
        };
        let event = PathEvent {
            at,
            volume: id,
            name: Arc::clone(&volume.name),
            controller,
            transport: Arc::clone(transport),
            kind,
        };
        self.subscribers.publish(&event);
        if volume.events.len() == EVENTS_MAX {
            volume.events.pop_front();
        }
        volume.events.push_back(event);
    }

    /// Notifications from the number `first` on.
    pub fn notifications(&self, first: u64) -> impl Iterator<Item = &Notification> {
        self.notifications.iter().filter(move |n| n.id >= first)
    }

    /// Makes the volume as large as the smallest size that a path reports; its new size if that changes it.
    pub fn resize(&mut self, id: VolumeId) -> Option<u64> {
        let volume = self.of_path(id);
        let blocks = volume.paths.iter().filter_map(|p| p.blocks).min()?;
        if volume.info.blocks == blocks {
            return None;
        }
        journal::resized(&volume.info, blocks);
        volume.info.blocks = blocks;
        let name = volume.info.name.clone();
        self.notify(NotificationKind::Resized, name);
        Some(blocks)
    }

    pub fn add_path(&mut self, id: VolumeId, controller: ControllerId) {
        self.of_path(id).paths.push(VolumePath {
            controller,
            blocks: None,
        });
    }

    /// The size that a path reports, or that it is no longer known.
    pub fn reported(&mut self, id: VolumeId, controller: ControllerId, blocks: Option<u64>) {
        let mut paths = self.of_path(id).paths.iter_mut();
        #[expect(
            clippy::expect_used,
            reason = "a controller and its volume have the same paths"
        )]
        let path = paths
            .find(|p| p.controller == controller)
            .expect("a volume does not know a path of its own");
        path.blocks = blocks;
    }

    /// Takes a path away, and with the last one the volume. True if the volume stays.
    pub fn remove_path(&mut self, id: VolumeId, controller: ControllerId) -> bool {
        let volume = self.of_path(id);
        volume.paths.retain(|p| p.controller != controller);
        if !volume.paths.is_empty() {
            return true;
        }
        journal::volume_removed(&volume.info.name);
        let name = volume.info.name.clone();
        self.list.retain(|v| v.info.id != id);
        self.slots.give_back(id.slot);
        self.notify(NotificationKind::Removed, name);
        false
    }

    /// What a reactor says of a volume's ANA state; the volume may have gone.
    pub fn ana_told(&mut self, id: VolumeId, reactor: usize, state: AnaState) {
        let volume = self.get_mut(id);
        if let Some(told) = volume.and_then(|volume| volume.ana.get_mut(reactor)) {
            *told = state;
            self.watches.look();
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Volume> {
        self.list.iter()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Volume> {
        self.list.iter_mut()
    }

    /// The volume of a path, which is there as long as that is.
    #[expect(clippy::expect_used, reason = "a volume goes with its last path")]
    pub fn of_path(&mut self, id: VolumeId) -> &mut Volume {
        self.get_mut(id).expect("a path of a volume that is gone")
    }

    pub fn get_mut(&mut self, id: VolumeId) -> Option<&mut Volume> {
        self.list.iter_mut().find(|v| v.info.id == id)
    }

    pub fn get(&self, id: VolumeId) -> Option<&Volume> {
        self.list.iter().find(|v| v.info.id == id)
    }

    /// The volume of this name.
    pub fn id_of(&self, name: &str) -> Result<VolumeId, HostError> {
        let volume = self.list.iter().find(|v| v.info.name == name);
        volume
            .map(|v| v.info.id)
            .ok_or_else(|| HostError::NotFound(format!("volume: '{name}'")))
    }

    pub fn by_nsid(&self, group: &str, nsid: u32) -> Option<&Volume> {
        self.list
            .iter()
            .find(|v| v.group == group && v.info.nsid == nsid)
    }

    /// Makes the volume of a group's namespace.
    pub fn add(&mut self, group: &str, namespace: &Namespace, policy: Policy) -> Option<&Volume> {
        let (slot, generation) = self.slots.take()?;
        // Sixteen bits of it are enough: the slot would have to be reused 65,536 times within the life
        // of one I/O.
        #[expect(clippy::cast_possible_truncation, reason = "wraps around, see above")]
        let generation = generation as u16;
        let name = format!("{group}n{}", namespace.nsid);
        self.notify(NotificationKind::Added, name.clone());
        self.list.push(Volume {
            info: VolumeInfo {
                id: VolumeId { slot, generation },
                name: name.clone(),
                nsid: namespace.nsid,
                blocks: namespace.blocks,
                block_shift: namespace.block_shift,
            },
            name: name.into(),
            group: group.into(),
            ids: namespace.ids,
            policy,
            limits: RateLimits::default(),
            budget: None,
            paths: Vec::new(),
            stalled: Vec::new(),
            events: VecDeque::new(),
            ana: Vec::new(),
        });
        self.list.last()
    }
}
