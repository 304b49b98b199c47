//! The state of a path, as control makes it and every I/O reactor holds it.

use pollux_nvme_tcp::spec::log::AnaState;

/// What control knows of a path, as it was at `epoch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PathState {
    /// Grows with every change of this path; older states are dropped (rule B3.5).
    pub epoch: u64,
    pub ana: AnaState,
    /// ANA group, 0 without ANA reporting.
    pub group: u32,
    /// The namespace is active behind this controller.
    pub active: bool,
    /// The number of the read of the ANA log that this comes from, on the controller's present connection.
    pub log_read: u64,
}
