//! Hosts begin and cease to see a namespace, also those that are connected.

use crate::spec::nqn::{HostNqn, Nqn};
use crate::target::control::{Home, HomeTurn};
use crate::target::error::TargetError;
use crate::target::subsystem::visibility::Visibility;

impl Home {
    /// Lets a host see a namespace. One that sees it already hears nothing.
    pub(super) fn show_namespace(
        &mut self,
        nqn: &Nqn,
        nsid: u32,
        host: &HostNqn,
        turn: &mut HomeTurn<'_, '_>,
    ) -> Result<(), TargetError> {
        self.change_visibility(nqn, nsid, host, true, turn)
    }

    /// Hides a namespace from a host: from then on it is not there for the host's controllers.
    pub(super) fn hide_namespace(
        &mut self,
        nqn: &Nqn,
        nsid: u32,
        host: &HostNqn,
        turn: &mut HomeTurn<'_, '_>,
    ) -> Result<(), TargetError> {
        self.change_visibility(nqn, nsid, host, false, turn)
    }

    fn change_visibility(
        &mut self,
        nqn: &Nqn,
        nsid: u32,
        host: &HostNqn,
        is_visible: bool,
        turn: &mut HomeTurn<'_, '_>,
    ) -> Result<(), TargetError> {
        let namespace = self.namespace(nqn, nsid)?;
        let Visibility::Only(hosts) = &mut namespace.visibility else {
            return Err(TargetError::InvalidValue(format!(
                "namespace {nsid} is visible to every host: hosts are listed of one that was added with no_auto_visible"
            )));
        };
        let has_changed = match is_visible {
            true => hosts.insert(host.clone()),
            false => hosts.remove(host),
        };
        if has_changed {
            let group = namespace.ana_group;
            self.subsystem(nqn)?.note_membership(group);
            self.namespace_changed(nqn, nsid, &Visibility::one(host), turn);
        }
        Ok(())
    }
}
