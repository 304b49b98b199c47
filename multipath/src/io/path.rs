//! One path of a volume on one I/O reactor.

use pollux_nvme_tcp::spec::log::AnaState;

use super::link::Link;
use super::select::Candidate;
use crate::counters::PathCounters;
use crate::error::NoPath;
use crate::messages::{ControllerId, PathState};

/// Whether a completion carried an ANA status that no ANA log has explained yet (rule B2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pending {
    No,
    /// Control was told; it says which log to wait for.
    Told,
    /// For this read of the log, or a later one. What comes of an earlier read may be older than the status.
    Read(u64),
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

/// A path as its reactor holds it (rule B2.1). Only this reactor writes it.
#[derive(Debug)]
pub(crate) struct Path {
    pub controller: ControllerId,
    /// Its name among the paths of the volume.
    pub name: PathSet,
    pub state: PathState,
    pub pending: Pending,
    pub anatt_expired: bool,
    pub counters: PathCounters,
}

impl Path {
    pub fn new(controller: ControllerId, name: PathSet, state: PathState) -> Self {
        Self {
            controller,
            name,
            state,
            pending: Pending::No,
            anatt_expired: false,
            counters: PathCounters::default(),
        }
    }

    /// Rule B2.2.
    #[inline]
    pub fn is_accessible(&self) -> bool {
        self.state.active && self.pending == Pending::No && self.state.ana.is_accessible()
    }

    /// The log that is waited for has come, if the state is of that one.
    pub fn settle(&mut self) {
        if matches!(self.pending, Pending::Read(read) if self.state.log_read >= read) {
            self.pending = Pending::No;
        }
    }

    #[inline]
    pub fn candidate(&self, links: &[Option<Box<Link>>]) -> Candidate {
        let link = link_of(links, self.controller);
        Candidate {
            available: self.is_accessible()
                && link.is_some_and(|l| l.is_connected() && !l.excluded),
            optimized: self.state.ana == AnaState::OPTIMIZED,
            outstanding: link.map_or(0, Link::outstanding),
        }
    }

    /// Why I/O need not wait for this path (rule B7.1); `None` if it may become available.
    pub fn hopeless(&self, links: &[Option<Box<Link>>]) -> Option<NoPath> {
        let Some(link) = link_of(links, self.controller) else {
            return Some(NoPath::ControllerLost);
        };
        if link.excluded {
            return Some(NoPath::FastIoFail);
        }
        if !link.is_connected() && !link.recovering {
            return Some(NoPath::ControllerLost);
        }
        if !self.state.active {
            return Some(NoPath::NamespaceInactive);
        }
        match self.state.ana {
            AnaState::PERSISTENT_LOSS => Some(NoPath::PersistentLoss),
            AnaState::INACCESSIBLE | AnaState::CHANGE if self.anatt_expired => {
                Some(NoPath::AnattExpired)
            }
            _ => None,
        }
    }
}

/// The link of a path's controller; `None` if the controller is gone.
#[inline]
pub(super) fn link_of(links: &[Option<Box<Link>>], id: ControllerId) -> Option<&Link> {
    links.get(usize::from(id.slot))?.as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;

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
