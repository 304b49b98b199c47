//! Which hosts may see a namespace. For all others it is not there: not in what Identify and the log pages say, not for
//! commands, and no event tells of it.

use std::collections::BTreeSet;

use crate::spec::nqn::HostNqn;

/// The hosts that may see a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::target) enum Visibility {
    /// All of the subsystem's.
    Everybody,
    /// These alone, whether the subsystem lets them in or not.
    Only(BTreeSet<HostNqn>),
}

impl Visibility {
    /// What a namespace begins with: everybody sees it, or nobody before hosts are listed.
    pub(in crate::target) fn new(auto_visible: bool) -> Self {
        match auto_visible {
            true => Self::Everybody,
            false => Self::Only(BTreeSet::new()),
        }
    }

    pub(in crate::target) fn one(host: &HostNqn) -> Self {
        Self::Only(BTreeSet::from([host.clone()]))
    }

    pub(in crate::target) fn includes(&self, host: &HostNqn) -> bool {
        match self {
            Self::Everybody => true,
            Self::Only(hosts) => hosts.contains(host),
        }
    }

    /// The hosts that are listed; `None` where there is no list.
    pub(in crate::target) fn listed(&self) -> Option<Vec<HostNqn>> {
        match self {
            Self::Everybody => None,
            Self::Only(hosts) => Some(hosts.iter().cloned().collect()),
        }
    }
}
