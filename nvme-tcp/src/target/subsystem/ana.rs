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

/// The states of all ANA groups through one listener. A group that was never set is optimized. One whose namespace's disk
/// has a state of its own ([`Disk::ana_state`](crate::target::Disk::ana_state)) is in the worse of the two.
#[derive(Debug, Clone, Default)]
pub(in crate::target) struct AnaGroups {
    /// Grows with every change of any group: the log's change count.
    change_count: u64,
    groups: BTreeMap<u32, Group>,
}

#[derive(Debug, Clone, Copy)]
struct Group {
    /// As the administrator has set it.
    set: AnaState,
    /// What the disk of its namespace can be reached by, where the namespace has the group for itself and follows that.
    behind: AnaState,
    change_count: u64,
}

impl Group {
    const NEW: Self = Self {
        set: AnaState::OPTIMIZED,
        behind: AnaState::OPTIMIZED,
        change_count: 0,
    };

    fn state(&self) -> AnaState {
        self.set.worse(self.behind)
    }
}

impl AnaGroups {
    fn group(&self, group: u32) -> Group {
        self.groups.get(&group).copied().unwrap_or(Group::NEW)
    }

    pub(in crate::target) fn state(&self, group: u32) -> AnaState {
        self.group(group).state()
    }

    /// Sets one group. Returns whether that was a change of what is reported.
    pub(in crate::target) fn set(&mut self, group: u32, state: AnaState) -> bool {
        let before = self.group(group);
        self.change(
            group,
            Group {
                set: state,
                ..before
            },
        )
    }

    /// The state of the disk behind one group is this now. Returns whether that was a change of what is reported.
    pub(in crate::target) fn set_behind(&mut self, group: u32, state: AnaState) -> bool {
        let before = self.group(group);
        self.change(
            group,
            Group {
                behind: state,
                ..before
            },
        )
    }

    fn change(&mut self, group: u32, mut after: Group) -> bool {
        let before = self.group(group);
        if (before.set, before.behind) == (after.set, after.behind) {
            return false;
        }
        let is_seen = before.state() != after.state();
        self.change_count += u64::from(is_seen);
        after.change_count += u64::from(is_seen);
        self.groups.insert(group, after);
        is_seen
    }

    /// Counts a change of the log that is none of a group's state: a namespace came, went or moved.
    pub(in crate::target) fn note_membership(&mut self, group: u32) {
        self.change_count += 1;
        self.groups.entry(group).or_insert(Group::NEW).change_count += 1;
    }

    /// Groups that were set or have a namespace in `members`, with their states.
    pub(in crate::target) fn list(
        &self,
        members: impl Iterator<Item = u32>,
    ) -> Vec<(u32, AnaState)> {
        let groups: BTreeSet<u32> = self.groups.keys().copied().chain(members).collect();
        groups.into_iter().map(|g| (g, self.state(g))).collect()
    }

    /// Groups that the administrator has not left optimized, with the states that they were set to.
    pub(in crate::target) fn list_set(&self) -> Vec<(u32, AnaState)> {
        let groups = self.groups.iter();
        let set = groups.filter(|(_, group)| group.set != AnaState::OPTIMIZED);
        set.map(|(&number, group)| (number, group.set)).collect()
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
    fn what_is_behind_a_group_and_what_it_was_set_to_are_both_kept() {
        let (optimized, inaccessible) = (AnaState::OPTIMIZED, AnaState::INACCESSIBLE);
        let mut groups = AnaGroups::default();
        assert!(!groups.set_behind(1, optimized));
        assert!(groups.set(1, AnaState::NON_OPTIMIZED));
        // Nothing behind betters what was set.
        assert!(!groups.set_behind(1, optimized));
        assert!(groups.set_behind(1, inaccessible));
        assert_eq!(groups.state(1), inaccessible);
        // What is set meanwhile shows once it is the worse of the two.
        assert!(!groups.set(1, optimized));
        assert_eq!(groups.state(1), inaccessible);
        assert!(groups.set(1, AnaState::PERSISTENT_LOSS));
        assert_eq!(groups.list_set(), [(1, AnaState::PERSISTENT_LOSS)]);
        assert!(!groups.set_behind(1, AnaState::CHANGE));
        assert!(groups.set(1, optimized));
        assert_eq!(groups.state(1), AnaState::CHANGE);
        assert!(groups.list_set().is_empty());
        // As many changes as were seen.
        let log = groups.log([(1, 1)].into_iter(), true);
        assert_eq!((log[0], log[24]), (4, 4));
    }

    #[test]
    fn groups_only_leaves_the_namespaces_out() {
        let groups = AnaGroups::default();
        let log = groups.log([(1, 1), (1, 2)].into_iter(), true);
        assert_eq!(log.len(), 48);
        assert_eq!(log[20..24], [0; 4]);
    }
}
