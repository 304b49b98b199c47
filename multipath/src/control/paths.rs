//! What a controller's namespaces and its ANA log make of its paths (rules B1.3, B3, B10).

use pollux_nvme_tcp::host::Namespace;
use pollux_nvme_tcp::spec::log::AnaState;

use super::journal::{self, Who};
use super::member::{Member, MemberPath};
use super::shared::Shared;
use crate::ids::{VolumeId, VolumeInfo};
use crate::io::ToIo;
use crate::path_state::PathState;
use crate::status::PathEventKind;

impl Member {
    /// Takes the controller's last ANA log over into its paths and tells every I/O reactor.
    ///
    /// A state is sent even where it has not changed: it is the answer that a reactor waits for which has
    /// stopped using the path because of an ANA status (rule B3.4).
    pub fn apply_ana(&mut self, shared: &mut Shared) {
        let Some(controller) = &self.controller else {
            // Lost meanwhile: the log of the next connection decides.
            return;
        };
        let anatt_at = shared.now + controller.anatt();
        let log = controller.ana();
        let log_read = controller.ana_reads();
        let mut changed = Vec::new();
        for path in &mut self.paths {
            let (group, ana) = match log {
                // Without ANA reporting every active namespace is optimized (rule B2.2).
                None => (0, AnaState::OPTIMIZED),
                // A namespace that the log leaves out is reached by no group: not accessible.
                Some(log) => log
                    .of_namespace(path.nsid)
                    .unwrap_or((path.state.group, AnaState::INACCESSIBLE)),
            };
            let state = PathState {
                epoch: shared.next_epoch(),
                ana,
                group,
                active: true,
                log_read,
            };
            let before = path.apply(state, anatt_at);
            let (volume, controller) = (path.volume, self.id);
            shared.reactors.broadcast(|| ToIo::SetPath {
                volume,
                controller,
                state,
            });
            if before != ana {
                changed.push((volume, before, state));
            }
        }
        for (volume, from, state) in changed {
            let (to, epoch) = (state.ana, state.epoch);
            self.record(volume, PathEventKind::Ana { from, to, epoch }, shared);
        }
    }

    /// Makes the controller's paths match its active namespaces (rules B1.3, B10).
    pub fn update_paths(&mut self, shared: &mut Shared) {
        let Some(controller) = &self.controller else {
            // Lost meanwhile: the next connection tells its namespaces.
            return;
        };
        let namespaces: Vec<Namespace> = controller.namespaces().copied().collect();
        let left_out = controller.left_out();
        let mut left_out: Vec<_> = left_out.map(|(nsid, why)| (nsid, why.to_owned())).collect();
        let is_listed = |path: &MemberPath| namespaces.iter().any(|n| n.nsid == path.nsid);
        let gone = self.paths.iter().filter(|p| !is_listed(p));
        for volume in gone.map(|p| p.volume).collect::<Vec<_>>() {
            let name = &shared.volumes.of_path(volume).info.name;
            journal::not_listed(Who(name, self.transport.addr));
            self.remove_path(volume, shared);
        }
        for namespace in &namespaces {
            self.end_replaced(namespace, shared);
            if let Err(why) = self.join(namespace, shared) {
                left_out.push((namespace.nsid, why));
            }
        }
        // What took no part before is not told again.
        for (nsid, why) in left_out.iter().filter(|one| !self.left_out.contains(one)) {
            journal::left_out(self.who(), *nsid, why);
        }
        self.left_out = left_out;
    }

    /// Other identifiers behind an NSID end the old path loudly, and with the last path the old volume, so that the
    /// namespace can be a new one (rule B10).
    fn end_replaced(&mut self, namespace: &Namespace, shared: &mut Shared) {
        let Some(volume) = shared.volumes.by_nsid(&self.group, namespace.nsid) else {
            return;
        };
        let id = volume.info.id;
        if let Err(why) = volume.accepts(namespace)
            && self.has_path(id)
        {
            journal::replaced(Who(&volume.info.name, self.transport.addr), &why);
            self.remove_path(id, shared);
        }
    }

    /// Makes a namespace a path of its volume, which is made if there is none.
    ///
    /// # Errors
    /// Why it takes no part.
    fn join(&mut self, namespace: &Namespace, shared: &mut Shared) -> Result<(), String> {
        let volume = match shared.volumes.by_nsid(&self.group, namespace.nsid) {
            Some(volume) => {
                volume.accepts(namespace)?;
                volume.info.id
            }
            None => {
                let policy = self.options.policy;
                let volume = shared.volumes.add(&self.group, namespace, policy);
                let info: VolumeInfo = volume.ok_or("too many volumes")?.info.clone();
                let id = info.id;
                shared.reactors.broadcast(|| ToIo::AddVolume {
                    info: info.clone(),
                    policy,
                });
                id
            }
        };
        if !self.has_path(volume) {
            self.add_path(volume, namespace, shared);
        }
        let blocks = Some(namespace.blocks);
        shared.volumes.reported(volume, self.id, blocks);
        resize(volume, shared);
        Ok(())
    }

    fn has_path(&self, volume: VolumeId) -> bool {
        self.paths.iter().any(|p| p.volume == volume)
    }

    fn add_path(&mut self, volume: VolumeId, namespace: &Namespace, shared: &mut Shared) {
        // Not accessible until the ANA state is applied, which follows at once.
        let state = PathState {
            epoch: shared.next_epoch(),
            ana: AnaState::INACCESSIBLE,
            group: namespace.ana_group,
            active: true,
            log_read: 0,
        };
        self.paths.push(MemberPath {
            volume,
            nsid: namespace.nsid,
            state,
            anatt_at: None,
            anatt_expired: false,
        });
        shared.volumes.add_path(volume, self.id);
        let controller = self.id;
        shared.reactors.broadcast(|| ToIo::AddPath {
            volume,
            controller,
            state,
        });
        self.record(volume, PathEventKind::Added(state.ana), shared);
    }

    /// Takes one path away; the volume goes with its last.
    fn remove_path(&mut self, volume: VolumeId, shared: &mut Shared) {
        self.record(volume, PathEventKind::Removed, shared);
        self.paths.retain(|p| p.volume != volume);
        let controller = self.id;
        if shared.volumes.remove_path(volume, controller) {
            shared
                .reactors
                .broadcast(|| ToIo::RemovePath { volume, controller });
            resize(volume, shared);
        } else {
            shared.look_at_left_out = true;
            shared.reactors.broadcast(|| ToIo::RemoveVolume { volume });
        }
    }

    /// Takes all its paths away.
    pub fn remove_paths(&mut self, shared: &mut Shared) {
        for volume in self.paths.iter().map(|p| p.volume).collect::<Vec<_>>() {
            self.remove_path(volume, shared);
        }
    }
}

/// The smallest capacity that any path reports holds (rule B1.3).
fn resize(volume: VolumeId, shared: &mut Shared) {
    if let Some(blocks) = shared.volumes.resize(volume) {
        shared
            .reactors
            .broadcast(|| ToIo::ResizeVolume { volume, blocks });
    }
}
