//! ANA states as one listener reports them, and the ANA log page (NVMe Base 2.1, 5.1.12.1.13).

use std::collections::{BTreeMap, BTreeSet};

use zerocopy::IntoBytes;

use crate::spec::log::{AnaGroupDescriptor, AnaLogHeader, AnaState};

/// Highest ANA group identifier, and the number of groups that Identify Controller reports (ANAGRPMAX and
/// NANAGRPID).
pub const ANA_GROUP_MAX: u32 = 128;

/// Longest time in seconds that a group is meant to stay inaccessible or in change (ANATT).
pub const ANATT_SECS: u8 = 10;

/// Namespaces that the padded ANA log page has room for at most, so that a subsystem that allows billions of
/// them does not make each log page that long.
const LISTED_MAX: u32 = 65_536;

/// Length of the ANA log page with every group and `namespaces` namespaces, in bytes. A host knows no other
/// length before it has read the log; one that reads in parts goes on to this one, whatever the log holds.
pub(in crate::target) fn log_len_max(namespaces: u32) -> usize {
    let times = |count: u32, len: usize| (count as usize).saturating_mul(len);
    size_of::<AnaLogHeader>()
        + times(ANA_GROUP_MAX, size_of::<AnaGroupDescriptor>())
        + times(namespaces.min(LISTED_MAX), size_of::<u32>())
}

/// The states of all ANA groups through one listener. A group that was never set is optimized.
#[derive(Debug, Clone, Default)]
pub(in crate::target) struct AnaGroups {
    /// Grows with every change of any group: the log's change count.
    change_count: u64,
    groups: BTreeMap<u32, Group>,
}

#[derive(Debug, Clone, Copy)]
struct Group {
    state: AnaState,
    change_count: u64,
}

impl AnaGroups {
    pub(in crate::target) fn state(&self, group: u32) -> AnaState {
        self.groups
            .get(&group)
            .map_or(AnaState::OPTIMIZED, |g| g.state)
    }

    /// Sets one group. Returns whether that was a change.
    pub(in crate::target) fn set(&mut self, group: u32, state: AnaState) -> bool {
        if self.state(group) == state {
            return false;
        }
        self.change_count += 1;
        let entry = self.groups.entry(group).or_insert(Group {
            state,
            change_count: 0,
        });
        entry.state = state;
        entry.change_count += 1;
        true
    }

    /// Counts a change of the log that is none of a group's state: a namespace came, went or moved.
    pub(in crate::target) fn note_membership(&mut self, group: u32) {
        self.change_count += 1;
        let entry = self.groups.entry(group).or_insert(Group {
            state: AnaState::OPTIMIZED,
            change_count: 0,
        });
        entry.change_count += 1;
    }

    /// Groups that were set or have a namespace in `members`, with their states.
    pub(in crate::target) fn list(
        &self,
        members: impl Iterator<Item = u32>,
    ) -> Vec<(u32, AnaState)> {
        let groups: BTreeSet<u32> = self.groups.keys().copied().chain(members).collect();
        groups.into_iter().map(|g| (g, self.state(g))).collect()
    }

    /// The log page for namespaces given as (group, NSID): only groups with a namespace are listed, in
    /// order; without their NSIDs if `groups_only` (RGO).
    pub(in crate::target) fn log(
        &self,
        members: impl Iterator<Item = (u32, u32)>,
        groups_only: bool,
    ) -> Vec<u8> {
        let mut by_group: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (group, nsid) in members {
            by_group.entry(group).or_default().push(nsid);
        }
        #[expect(clippy::expect_used, reason = "a group is at most ANA_GROUP_MAX")]
        let groups = u16::try_from(by_group.len()).expect("the number of groups");
        let mut log = AnaLogHeader {
            chgcnt: self.change_count.into(),
            ngrps: groups.into(),
            rsvd10: [0; 6],
        }
        .as_bytes()
        .to_vec();
        for (group, mut nsids) in by_group {
            if groups_only {
                nsids.clear();
            }
            #[expect(clippy::expect_used, reason = "an NSID is at most NAMESPACES_MAX")]
            let members = u32::try_from(nsids.len()).expect("the number of namespaces");
            let change_count = self.groups.get(&group).map_or(0, |g| g.change_count);
            log.extend_from_slice(
                AnaGroupDescriptor::new(group, members, change_count, self.state(group)).as_bytes(),
            );
            for nsid in nsids {
                log.extend_from_slice(&nsid.to_le_bytes());
            }
        }
        log
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_lists_groups_with_namespaces_in_order() {
        let mut groups = AnaGroups::default();
        assert!(groups.set(2, AnaState::INACCESSIBLE));
        assert!(!groups.set(2, AnaState::INACCESSIBLE));
        assert!(groups.set(9, AnaState::CHANGE));
        let log = groups.log([(2, 7), (1, 1), (2, 8)].into_iter(), false);
        assert_eq!(log.len(), 16 + 32 + 4 + 32 + 8);
        assert_eq!(log[0], 2);
        assert_eq!(log[8], 2);
        assert_eq!(log[16], 1);
        assert_eq!(log[32], 1);
        assert_eq!(log[52], 2);
        assert_eq!(log[56], 2);
        assert_eq!(log[60], 1);
        assert_eq!(log[68], 3);
        assert_eq!(log[84], 7);
        assert_eq!(log[88], 8);
    }

    #[test]
    fn groups_only_leaves_the_namespaces_out() {
        let groups = AnaGroups::default();
        let log = groups.log([(1, 1), (1, 2)].into_iter(), true);
        assert_eq!(log.len(), 48);
        assert_eq!(log[20..24], [0; 4]);
    }
}
