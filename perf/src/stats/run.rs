//! Everything of a run, merged.

use super::JobStats;
use super::events::{EventCost, GAP_MIN_NS, Gap, PathEvent};

/// An event this much earlier may still explain the longest gap.
const NEARBY_NS: u64 = 100_000_000;

/// The same change seen by several jobs within this time is one event.
const SAME_EVENT_NS: u64 = 200_000_000;

/// Everything of a run, over all jobs and exchanges.
#[derive(Clone, Debug)]
pub struct RunStats {
    /// Sums and the latency of all; its gaps are only those that may still matter.
    pub total: JobStats,
}

impl RunStats {
    /// Nothing yet.
    pub fn new() -> Self {
        Self {
            total: JobStats::new(),
        }
    }

    /// Adds what one job counted since its last exchange.
    pub fn merge(&mut self, part: &JobStats) {
        let total = &mut self.total;
        total.add_counts(part);
        if part.longest.length_ns() > total.longest.length_ns() {
            total.longest = part.longest;
        }
        total.events.extend_from_slice(&part.events);
        total.gaps.extend_from_slice(&part.gaps);
        self.forget_gaps();
    }

    /// Drops gaps that no event touches and that are too old for an event that is still to be reported.
    fn forget_gaps(&mut self) {
        let latest_ns = self
            .total
            .gaps
            .iter()
            .map(|gap| gap.end_ns)
            .max()
            .unwrap_or(0);
        let events = &self.total.events;
        self.total.gaps.retain(|gap| {
            gap.end_ns + NEARBY_NS >= latest_ns || events.iter().any(|event| gap.touches(event))
        });
    }

    /// The path events in order of time, one for all jobs that saw it, with the pause around each.
    pub fn event_costs(&self) -> Vec<EventCost> {
        let mut events: Vec<&PathEvent> = self.total.events.iter().collect();
        events.sort_by_key(|event| event.at_ns);
        let mut costs: Vec<EventCost> = Vec::new();
        for event in events {
            let pause = self.pause(event);
            let (pause_ns, open) = (
                pause.map(|gap| gap.length_ns()),
                pause.is_some_and(|gap| gap.open),
            );
            let same = costs.iter_mut().find(|cost| {
                cost.path == event.path
                    && cost.from == event.from
                    && cost.to == event.to
                    && event.at_ns - cost.at_ns <= SAME_EVENT_NS
            });
            match same {
                Some(cost) => {
                    (cost.pause_ns, cost.open) = (cost.pause_ns, cost.open).max((pause_ns, open));
                }
                None => costs.push(EventCost {
                    at_ns: event.at_ns,
                    path: event.path.clone(),
                    from: event.from.clone(),
                    to: event.to.clone(),
                    pause_ns,
                    open,
                }),
            }
        }
        costs
    }

    fn pause(&self, event: &PathEvent) -> Option<Gap> {
        let gaps = self.total.gaps.iter().chain([&self.total.longest]);
        gaps.filter(|gap| gap.length_ns() >= GAP_MIN_NS && gap.touches(event))
            .max_by_key(|gap| gap.length_ns())
            .copied()
    }

    /// What happened around the longest gap, in words.
    pub fn around_longest(&self) -> String {
        let gap = self.total.longest;
        let events = || {
            self.total
                .events
                .iter()
                .filter(|event| event.job == gap.job)
        };
        let near = events()
            .filter(|event| gap.touches(event))
            .min_by_key(|event| event.at_ns.abs_diff(gap.start_ns))
            .or_else(|| {
                events()
                    .filter(|event| {
                        event.at_ns <= gap.start_ns && event.at_ns + NEARBY_NS >= gap.start_ns
                    })
                    .max_by_key(|event| event.at_ns)
            });
        match near {
            None => "no path event near it".to_owned(),
            Some(event) => {
                let (distance_ns, side) = if event.at_ns >= gap.start_ns {
                    (event.at_ns - gap.start_ns, "after its start")
                } else {
                    (gap.start_ns - event.at_ns, "before its start")
                };
                format!(
                    "{} went from {} to {}, seen {}.{:03} ms {side}",
                    event.path,
                    event.from,
                    event.to,
                    distance_ns / 1_000_000,
                    distance_ns / 1_000 % 1_000
                )
            }
        }
    }
}
