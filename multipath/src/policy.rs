//! How a volume chooses among its paths.

use std::fmt;
use std::str::FromStr;

/// Multipath policy of a volume (rule B5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Policy {
    /// One path at a time: the preferred one, else the first of the best class.
    #[default]
    ActivePassive,
    /// All paths of the best class.
    ActiveActive(Selector),
}

/// How `active_active` spreads I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Selector {
    /// The next path after `min_io` I/Os.
    RoundRobin {
        /// I/Os on one path before the next is taken, at least 1.
        min_io: u32,
    },
    /// The path with the fewest I/Os outstanding on this reactor.
    QueueDepth,
}

impl Selector {
    /// Every selector there is, each as it is unless more is said of it. Whoever takes one by name takes it from
    /// here.
    pub const ALL: [Self; 2] = [Self::RoundRobin { min_io: 1 }, Self::QueueDepth];

    /// The name that SPDK's users know.
    pub fn name(&self) -> &'static str {
        match self {
            Self::RoundRobin { .. } => "round_robin",
            Self::QueueDepth => "queue_depth",
        }
    }

    /// What it does, in half a line.
    pub fn about(&self) -> &'static str {
        match self {
            Self::RoundRobin { .. } => "The next path after --min-io I/Os",
            Self::QueueDepth => "The path with the fewest outstanding I/Os",
        }
    }

    /// I/Os on one path before the next is taken, where that has a meaning.
    pub fn min_io(&self) -> Option<u32> {
        match *self {
            Self::RoundRobin { min_io } => Some(min_io),
            Self::QueueDepth => None,
        }
    }

    /// The same with so many I/Os on one path before the next is taken; `None` where that has no meaning.
    pub fn with_min_io(self, min_io: u32) -> Option<Self> {
        match self {
            Self::RoundRobin { .. } => Some(Self::RoundRobin { min_io }),
            Self::QueueDepth => None,
        }
    }
}

impl Default for Selector {
    fn default() -> Self {
        Selector::RoundRobin { min_io: 1 }
    }
}

impl Policy {
    /// The name that SPDK's users know.
    pub fn name(&self) -> &'static str {
        match self {
            Policy::ActivePassive => "active_passive",
            Policy::ActiveActive(_) => "active_active",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        if let Policy::ActiveActive(selector) = self {
            write!(f, ", {}", selector.name())?;
            if let Some(min_io) = selector.min_io() {
                write!(f, ", min_io {min_io}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "active_passive" => Ok(Policy::ActivePassive),
            "active_active" => Ok(Policy::ActiveActive(Selector::default())),
            _ => Err(format!(
                "policy '{text}': expected active_passive or active_active"
            )),
        }
    }
}
