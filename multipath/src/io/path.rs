//! One path of a volume on one I/O reactor.

use pollux_nvme_tcp::spec::log::AnaState;

use super::link::Link;
use super::select::{Candidate, PathSet};
use crate::counters::IoCounters;
use crate::error::NoPath;
use crate::ids::ControllerId;
use crate::path_state::PathState;

/// Whether a completion carried an ANA status that no ANA log has explained yet (rule B2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pending {
    No,
    /// Control was told; it says which log to wait for.
    Told,
    /// For this read of the log, or a later one. What comes of an earlier read may be older than the status.
    Read(u64),
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
    pub counters: IoCounters,
}

impl Path {
    pub fn new(controller: ControllerId, name: PathSet, state: PathState) -> Self {
        Self {
            controller,
            name,
            state,
            pending: Pending::No,
            anatt_expired: false,
            counters: IoCounters::default(),
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
