//! Gaps between completions, and the path events that explain them.

/// Shorter gaps are the ordinary rhythm of completions.
pub const GAP_MIN_NS: u64 = 50_000;

/// A job looks at its path states this often; a change may be older than its event by that much.
pub const PATH_LOOK_NS: u64 = 1_000_000;

/// A gap belongs to a path event if it touches the time from this much before it
const EVENT_BEFORE_NS: u64 = 2 * PATH_LOOK_NS;

/// to this much after it.
const EVENT_AFTER_NS: u64 = 5_000_000;

/// Time between two consecutive completions of one job that were successes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// Which job.
    pub job: usize,
    /// Time of the completion before it.
    pub start_ns: u64,
    /// Time of the completion after it.
    pub end_ns: u64,
    /// No completion came after it before the run was over: it is at least so long.
    pub open: bool,
}

impl Gap {
    /// Length in nanoseconds.
    pub fn length_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns)
    }

    /// Whether it may be the event's doing.
    pub fn touches(&self, event: &PathEvent) -> bool {
        self.job == event.job
            && self.end_ns + EVENT_BEFORE_NS >= event.at_ns
            && self.start_ns <= event.at_ns + EVENT_AFTER_NS
    }
}

/// A path's state changed, as one job saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathEvent {
    /// Which job.
    pub job: usize,
    /// When the job saw it.
    pub at_ns: u64,
    /// The path's address.
    pub path: String,
    /// State before.
    pub from: String,
    /// State after.
    pub to: String,
}

/// A path event with what it cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventCost {
    /// When the first job saw it.
    pub at_ns: u64,
    /// The path's address.
    pub path: String,
    /// State before.
    pub from: String,
    /// State after.
    pub to: String,
    /// Longest time without a success around it on any job; `None`: shorter than [`GAP_MIN_NS`].
    pub pause_ns: Option<u64>,
    /// The pause had not ended when the run was over.
    pub open: bool,
}
