//! Where a controller stands, and where it may go from there.
//!
//! ```text
//!      attach                all is read             all queue pairs are connected
//!        |                        |                        |
//!        v                        v                        v
//!    Connecting  ------------>  Queues  ------------->    Live
//!      ^    |                     |                        |
//!      |    +---------------------+------------------------+-- lost --> Waiting, or Failed
//!      |                                                               without a reconnect delay
//!      +-- the time has come (Waiting), reset (Waiting, Failed), enable (Disabled)
//! ```
//!
//! Every pair that is legal, and what it comes from:
//!
//! | from \ to  | Connecting | Queues | Live  | Waiting | Failed | Disabled | Stopping | Gone          |
//! |------------|------------|--------|-------|---------|--------|----------|----------|---------------|
//! | Connecting |            | read   |       | lost    | lost   | disable  | detach   | attach failed |
//! | Queues     |            |        | ready | lost    | lost   | disable  | detach   | attach failed |
//! | Live       |            |        |       | lost    | lost   | disable  | detach   |               |
//! | Waiting    | due, reset |        |       |         |        | disable  | detach   |               |
//! | Failed     | reset      |        |       |         |        | disable  | detach   |               |
//! | Disabled   | enable     |        |       |         |        |          | detach   |               |
//! | Stopping   |            |        |       |         |        |          |          | ended         |
//!
//! *detach* is also the end of the host and the end of `ctrlr_loss_timeout_sec`. Anything else is a mistake of ours.

use pollux_reactor::Time;

/// Where a controller stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lifecycle {
    /// The admin queue is connecting or the controller is being brought up.
    Connecting,
    /// The I/O queue pairs are connecting, one on each I/O reactor.
    Queues,
    /// Carries I/O.
    Live,
    /// Lost; tried again at this time.
    Waiting(Time),
    /// Lost, and not tried again by itself: there is no reconnect delay (rule B8.3).
    Failed,
    /// Disconnected until it is enabled again.
    Disabled,
    /// Being shut down for good.
    Stopping,
    /// Ended, and about to be forgotten.
    Gone,
}

impl Lifecycle {
    /// Whether this pair is in the table.
    pub fn may_become(self, next: Lifecycle) -> bool {
        use Lifecycle::{Connecting, Disabled, Failed, Gone, Live, Queues, Stopping, Waiting};
        match next {
            Connecting => matches!(self, Waiting(_) | Failed | Disabled),
            Queues => self == Connecting,
            Live => self == Queues,
            Waiting(_) | Failed => matches!(self, Connecting | Queues | Live),
            Disabled => !matches!(self, Disabled | Stopping | Gone),
            Stopping => !matches!(self, Stopping | Gone),
            Gone => matches!(self, Connecting | Queues | Stopping),
        }
    }

    /// A connection stands, or is being made.
    pub fn has_connection(self) -> bool {
        matches!(self, Self::Connecting | Self::Queues | Self::Live)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_legal_pairs_are_those_of_the_table() {
        let table = include_str!("lifecycle.rs");
        let states = [
            Lifecycle::Connecting,
            Lifecycle::Queues,
            Lifecycle::Live,
            Lifecycle::Waiting(Time::ZERO),
            Lifecycle::Failed,
            Lifecycle::Disabled,
            Lifecycle::Stopping,
            Lifecycle::Gone,
        ];
        for from in &states[..7] {
            let name = format!("{from:?}");
            let name = name.split('(').next().unwrap();
            let row = format!("//! | {name:<10} |");
            let row = table.lines().find(|line| line.starts_with(&row)).unwrap();
            let cells: Vec<_> = row.split('|').skip(2).take(states.len()).collect();
            for (to, cell) in states.iter().zip(cells) {
                let is_legal = !cell.trim().is_empty();
                assert_eq!(from.may_become(*to), is_legal, "{from:?} to {to:?}");
            }
        }
        assert!(states.iter().all(|&to| !Lifecycle::Gone.may_become(to)));
    }
}
