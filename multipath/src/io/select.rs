//! Selection of a path (rule B5): a pure function of what the reactor's table says, and of what an I/O would rather avoid.

use crate::policy::{Policy, Selector};

/// What selection needs to know of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Connected, not resetting, not excluded, accessible (rule B2.3).
    pub available: bool,
    /// ANA state optimized; else non-optimized.
    pub optimized: bool,
    /// I/Os outstanding on this reactor's queue pair.
    pub outstanding: usize,
}

/// Some paths of one volume, by the names that its table has given them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PathSet(u64);

impl PathSet {
    pub const EMPTY: Self = Self(0);

    /// The set of the one path that is named next, where `last` was the last to be named and `taken` are in use. Names go
    /// round, so that what has failed on a path that is gone is not held against the next one. Of more than
    /// 64 paths some have no name, and cannot be avoided.
    pub fn name(last: Self, taken: Self) -> Self {
        let mut next = if last.is_empty() { 1 << 63 } else { last.0 };
        for _ in 0..64 {
            next = next.rotate_left(1);
            if taken.0 & next == 0 {
                return Self(next);
            }
        }
        Self::EMPTY
    }

    #[inline]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[inline]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The policy of a volume on one reactor, with the little it has to remember.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    policy: Policy,
    /// `active_passive` with automatic failback off stays on the path in use.
    failback: bool,
    preferred: Option<usize>,
    /// The path that carried the last I/O, if it is still there.
    last: Option<usize>,
    /// I/Os that `last` still gets before round-robin goes on.
    credit: u32,
}

impl Selection {
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            failback: true,
            preferred: None,
            last: None,
            credit: 0,
        }
    }

    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
        self.credit = 0;
    }

    /// Switches automatic failback on or off.
    pub fn set_failback(&mut self, failback: bool) {
        self.failback = failback;
    }

    /// Makes one path, by its place in the table, the preferred one.
    pub fn set_preferred(&mut self, path: Option<usize>) {
        self.preferred = path;
    }

    /// A path was put into the table at this place: those from there on moved down.
    pub fn path_added(&mut self, path: usize) {
        for place in [&mut self.preferred, &mut self.last].into_iter().flatten() {
            if *place >= path {
                *place += 1;
            }
        }
    }

    /// A path was taken out of the table: those behind it moved up.
    pub fn path_removed(&mut self, path: usize) {
        for place in [&mut self.preferred, &mut self.last] {
            *place = match *place {
                Some(p) if p == path => None,
                Some(p) if p > path => Some(p - 1),
                other => other,
            };
        }
        if self.last.is_none() {
            self.credit = 0;
        }
    }

    /// The path that the next I/O goes to; `None` if none of the `count` paths is available.
    #[inline]
    pub fn pick(&mut self, count: usize, path: impl Fn(usize) -> Candidate) -> Option<usize> {
        let optimized = best_class(count, &path)?;
        let chosen = match self.policy {
            Policy::ActivePassive => self.passive_choice(count, optimized, &path),
            Policy::ActiveActive(Selector::RoundRobin { min_io }) => {
                match self.last.filter(|&last| in_class(path(last), optimized)) {
                    Some(last) if self.credit > 0 => {
                        self.credit -= 1;
                        Some(last)
                    }
                    _ => {
                        self.credit = min_io.max(1) - 1;
                        self.after_last(count)
                            .find(|&i| in_class(path(i), optimized))
                    }
                }
            }
            Policy::ActiveActive(Selector::QueueDepth) => self
                .after_last(count)
                .filter(|&i| in_class(path(i), optimized))
                .min_by_key(|&i| path(i).outstanding),
        }?;
        self.last = Some(chosen);
        Some(chosen)
    }

    /// Whether the next I/O could go to path `index` (rule B13.2): the answer that `pick` acts by.
    pub fn is_current(
        &self,
        index: usize,
        count: usize,
        path: impl Fn(usize) -> Candidate,
    ) -> bool {
        let Some(optimized) = best_class(count, &path) else {
            return false;
        };
        match self.policy {
            Policy::ActivePassive => self.passive_choice(count, optimized, &path) == Some(index),
            Policy::ActiveActive(_) => in_class(path(index), optimized),
        }
    }

    fn passive_choice(
        &self,
        count: usize,
        optimized: bool,
        path: &impl Fn(usize) -> Candidate,
    ) -> Option<usize> {
        let usable = |i: &usize| in_class(path(*i), optimized);
        let in_use = if self.failback { None } else { self.last };
        in_use
            .filter(usable)
            .or_else(|| self.preferred.filter(usable))
            .or_else(|| (0..count).find(usable))
    }

    /// All paths, beginning behind the last one used: ties go round.
    fn after_last(&self, count: usize) -> impl Iterator<Item = usize> + use<> {
        let start = self.last.map_or(0, |last| last + 1);
        (start..count).chain(0..start)
    }
}

#[inline]
fn in_class(candidate: Candidate, optimized: bool) -> bool {
    candidate.available && candidate.optimized == optimized
}

/// The best class that has an *available* path: optimized before non-optimized (rule B5.1).
#[inline]
fn best_class(count: usize, path: &impl Fn(usize) -> Candidate) -> Option<bool> {
    let mut best = None;
    for i in 0..count {
        let candidate = path(i);
        if candidate.available {
            if candidate.optimized {
                return Some(true);
            }
            best = Some(false);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICIES: [Policy; 4] = [
        Policy::ActivePassive,
        Policy::ActiveActive(Selector::RoundRobin { min_io: 1 }),
        Policy::ActiveActive(Selector::RoundRobin { min_io: 3 }),
        Policy::ActiveActive(Selector::QueueDepth),
    ];

    fn candidate(code: usize) -> Candidate {
        Candidate {
            available: code & 1 != 0,
            optimized: code & 2 != 0,
            outstanding: code >> 2,
        }
    }

    /// Every table of three paths, each available or not, optimized or not, with 0 to 1 I/Os outstanding.
    fn every_table(check: impl Fn(&[Candidate; 3])) {
        for code in 0..512usize {
            check(&[
                candidate(code & 7),
                candidate(code >> 3 & 7),
                candidate(code >> 6 & 7),
            ]);
        }
    }

    /// B5.1: only available paths; non-optimized only while no optimized path is available.
    #[test]
    fn only_the_best_available_class_carries_io() {
        for policy in POLICIES {
            every_table(|table| {
                let mut selection = Selection::new(policy);
                for _ in 0..7 {
                    let picked = selection.pick(3, |i| table[i]);
                    assert_eq!(picked.is_some(), table.iter().any(|c| c.available));
                    if let Some(i) = picked {
                        assert!(table[i].available);
                        let optimized = table.iter().any(|c| c.available && c.optimized);
                        assert_eq!(table[i].optimized, optimized);
                    }
                }
            });
        }
    }

    /// B13.2: what is reported as current is what is picked, in every state and policy.
    #[test]
    fn current_is_what_the_next_submissions_use() {
        for policy in POLICIES {
            every_table(|table| {
                let mut selection = Selection::new(policy);
                let mut used = [false; 3];
                for _ in 0..12 {
                    let current: Vec<bool> = (0..3)
                        .map(|i| selection.is_current(i, 3, |i| table[i]))
                        .collect();
                    if let Some(i) = selection.pick(3, |i| table[i]) {
                        assert!(current[i], "{policy}: picked {i} of {table:?}");
                        used[i] = true;
                    }
                    for (i, c) in current.iter().enumerate() {
                        assert!(!c || table[i].available, "current implies available");
                    }
                }
                // Round robin reaches every current path; the others may be held back by load.
                if matches!(policy, Policy::ActiveActive(Selector::RoundRobin { .. })) {
                    for (i, used) in used.into_iter().enumerate() {
                        assert_eq!(used, selection.is_current(i, 3, |i| table[i]));
                    }
                }
            });
        }
    }

    /// B5.2
    #[test]
    fn active_passive_takes_the_preferred_path_and_fails_back() {
        let mut table = [candidate(3), candidate(3), candidate(1)];
        let mut selection = Selection::new(Policy::ActivePassive);
        assert_eq!(selection.pick(3, |i| table[i]), Some(0));
        selection.set_preferred(Some(1));
        assert_eq!(selection.pick(3, |i| table[i]), Some(1));
        table[1].optimized = false;
        assert_eq!(
            selection.pick(3, |i| table[i]),
            Some(0),
            "not in the best class"
        );
        table[0].available = false;
        assert_eq!(selection.pick(3, |i| table[i]), Some(1));
        table[0].available = true;
        assert_eq!(
            selection.pick(3, |i| table[i]),
            Some(0),
            "fails back by itself"
        );
        selection.path_removed(0);
        assert_eq!(
            selection.pick(2, |i| table[i + 1]),
            Some(0),
            "still preferred"
        );
    }

    /// B5.2, failback off
    #[test]
    fn without_failback_the_path_in_use_stays_while_it_is_in_the_best_class() {
        let mut table = [candidate(3), candidate(3)];
        let mut selection = Selection {
            failback: false,
            ..Selection::new(Policy::ActivePassive)
        };
        assert_eq!(selection.pick(2, |i| table[i]), Some(0));
        table[0].available = false;
        assert_eq!(selection.pick(2, |i| table[i]), Some(1));
        table[0].available = true;
        assert_eq!(selection.pick(2, |i| table[i]), Some(1), "stays");
        table[1].optimized = false;
        assert_eq!(
            selection.pick(2, |i| table[i]),
            Some(0),
            "no longer the best class"
        );
    }

    /// B5.2: the path in use and the preferred one are paths, wherever they stand in the table by now.
    #[test]
    fn paths_that_come_and_go_move_neither_the_path_in_use_nor_the_preferred_one() {
        let mut table = vec![candidate(3), candidate(3)];
        let mut selection = Selection {
            failback: false,
            ..Selection::new(Policy::ActivePassive)
        };
        table[0].available = false;
        assert_eq!(selection.pick(2, |i| table[i]), Some(1));
        table[0].available = true;
        table.insert(0, candidate(3));
        selection.path_added(0);
        assert_eq!(selection.pick(3, |i| table[i]), Some(2), "one before it");
        table.push(candidate(3));
        selection.path_added(3);
        assert_eq!(selection.pick(4, |i| table[i]), Some(2), "one behind it");
        table.remove(0);
        selection.path_removed(0);
        assert_eq!(selection.pick(3, |i| table[i]), Some(1), "one less");
        selection.set_failback(true);
        selection.set_preferred(Some(2));
        table.insert(1, candidate(3));
        selection.path_added(1);
        assert_eq!(selection.pick(4, |i| table[i]), Some(3), "preferred");
        table.remove(3);
        selection.path_removed(3);
        assert_eq!(selection.pick(3, |i| table[i]), Some(0), "gone");
    }

    /// B5.3
    #[test]
    fn round_robin_goes_on_after_min_io() {
        let table = [candidate(3), candidate(1), candidate(3)];
        let mut selection =
            Selection::new(Policy::ActiveActive(Selector::RoundRobin { min_io: 2 }));
        let picks: Vec<_> = (0..6)
            .filter_map(|_| selection.pick(3, |i| table[i]))
            .collect();
        assert_eq!(picks, [0, 0, 2, 2, 0, 0]);
    }

    /// B5.4
    #[test]
    fn queue_depth_takes_the_shortest_queue_and_ties_go_round() {
        let mut table = [candidate(3), candidate(3), candidate(3)];
        let mut selection = Selection::new(Policy::ActiveActive(Selector::QueueDepth));
        let picks: Vec<_> = (0..4)
            .filter_map(|_| selection.pick(3, |i| table[i]))
            .collect();
        assert_eq!(picks, [0, 1, 2, 0]);
        table[0].outstanding = 5;
        table[1].outstanding = 5;
        assert_eq!(selection.pick(3, |i| table[i]), Some(2));
    }

    #[test]
    fn a_name_is_given_again_only_after_all_others() {
        let mut taken = PathSet::EMPTY;
        let mut last = PathSet::EMPTY;
        for n in 0..64 {
            last = PathSet::name(last, taken);
            assert_eq!(last, PathSet(1 << n));
            taken = taken.and(last);
        }
        assert_eq!(PathSet::name(last, taken), PathSet::EMPTY);
        // One path stays, others come and go.
        let stays = PathSet(1 << 3);
        let mut seen = stays;
        for _ in 0..63 {
            last = PathSet::name(last, stays);
            assert!(!seen.has(last), "{last:?}");
            seen = seen.and(last);
        }
    }
}
