//! How a volume chooses among its paths.

use std::fmt;
use std::str::FromStr;

/// Multipath policy of a volume (rule B5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// One path at a time: the preferred one, else the first of the best class.
    #[default]
    ActivePassive,
    /// All paths of the best class.
    ActiveActive(Selector),
}

/// How `active_active` spreads I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selector {
    /// The next path after `min_io` I/Os.
    RoundRobin {
        /// I/Os on one path before the next is taken, at least 1.
        min_io: u32,
    },
    /// The path with the fewest I/Os outstanding on this reactor.
    QueueDepth,
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
        match self {
            Policy::ActivePassive => Ok(()),
            Policy::ActiveActive(Selector::RoundRobin { min_io }) => {
                write!(f, ", round_robin, min_io {min_io}")
            }
            Policy::ActiveActive(Selector::QueueDepth) => f.write_str(", queue_depth"),
        }
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
