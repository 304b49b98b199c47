//! What is counted: per job while it runs, merged for the report.
//!
//! A job fills a [`JobStats`]; once a second it is exchanged for an empty one and merged into [`RunStats`] by another
//! thread, so that a reactor never sums, sorts or prints.

use hdrhistogram::Histogram;

/// One hour in nanoseconds; longer latencies count as this.
const LATENCY_MAX_NS: u64 = 3_600_000_000_000;
const LATENCY_DIGITS: u8 = 3;
/// Shorter gaps are the ordinary rhythm of completions.
pub const GAP_MIN_NS: u64 = 50_000;
/// Of the gaps that end within one such slot a job keeps the longest.
const GAP_SLOT_NS: u64 = 1_000_000;
/// Gaps that a job can hold between two exchanges, eight seconds' worth.
const GAPS_MAX: usize = 8_192;
/// A job looks at its path states this often; a change may be older than its event by that much.
pub const PATH_LOOK_NS: u64 = 1_000_000;
/// A gap belongs to a path event if it touches the time from this much before it
const EVENT_BEFORE_NS: u64 = 2 * PATH_LOOK_NS;
/// to this much after it.
const EVENT_AFTER_NS: u64 = 5_000_000;
/// An event this much earlier may still explain the longest gap.
const NEARBY_NS: u64 = 100_000_000;
/// The same change seen by several jobs within this time is one event.
const SAME_EVENT_NS: u64 = 200_000_000;

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

    fn touches(&self, event: &PathEvent) -> bool {
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

/// What one path carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathIos {
    /// I/Os that succeeded.
    pub ios: u64,
    /// I/Os that failed and were on this path last.
    pub errors: u64,
}

/// Counters of one job since the last exchange. Nothing in it allocates while I/O completes.
#[derive(Clone, Debug)]
pub struct JobStats {
    /// Nanoseconds from submission to completion, of I/Os that succeeded.
    pub latency: Histogram<u64>,
    /// The same of I/Os that failed.
    pub failed_latency: Histogram<u64>,
    /// Nanoseconds since submission of I/Os that had not ended when the run was over.
    pub unfinished: Histogram<u64>,
    /// Reads that succeeded.
    pub reads: u64,
    /// Writes that succeeded.
    pub writes: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// I/Os that failed.
    pub errors: u64,
    /// Reads whose data was wrong.
    pub miscompares: u64,
    /// I/Os that succeeded and that failed by path, in attach order.
    pub paths: Vec<PathIos>,
    /// Longest gap.
    pub longest: Gap,
    /// Gaps of at least [`GAP_MIN_NS`], the longest of each slot, in order of time.
    pub gaps: Vec<Gap>,
    /// Path states that changed.
    pub events: Vec<PathEvent>,
    /// The first error or miscompare in words.
    pub first_error: Option<String>,
}

impl JobStats {
    /// Empty counters with all memory they will need.
    pub fn new() -> Self {
        Self {
            latency: latency_histogram(),
            failed_latency: latency_histogram(),
            unfinished: latency_histogram(),
            reads: 0,
            writes: 0,
            bytes: 0,
            errors: 0,
            miscompares: 0,
            paths: Vec::with_capacity(16),
            longest: Gap::default(),
            gaps: Vec::with_capacity(GAPS_MAX),
            events: Vec::new(),
            first_error: None,
        }
    }

    /// Empties it, keeping its memory.
    pub fn clear(&mut self) {
        for histogram in [
            &mut self.latency,
            &mut self.failed_latency,
            &mut self.unfinished,
        ] {
            // Each is large, and most are empty most of the time.
            if !histogram.is_empty() {
                histogram.reset();
            }
        }
        (self.reads, self.writes, self.bytes) = (0, 0, 0);
        (self.errors, self.miscompares) = (0, 0);
        self.paths.clear();
        self.longest = Gap::default();
        self.gaps.clear();
        self.events.clear();
        self.first_error = None;
    }

    /// I/Os that succeeded.
    pub fn ios(&self) -> u64 {
        self.reads + self.writes
    }

    /// The counters of path number `path`.
    pub fn path(&mut self, path: usize) -> &mut PathIos {
        if self.paths.len() <= path {
            self.paths.resize(path + 1, PathIos::default());
        }
        &mut self.paths[path]
    }

    /// Adds what was counted elsewhere, but for gaps and events.
    pub fn add_counts(&mut self, part: &Self) {
        for (sum, part) in [
            (&mut self.latency, &part.latency),
            (&mut self.failed_latency, &part.failed_latency),
            (&mut self.unfinished, &part.unfinished),
        ] {
            if !part.is_empty() {
                // All histograms have the same bounds, so that there is nothing that could not be added.
                let added = sum.add(part);
                debug_assert!(added.is_ok(), "{added:?}");
            }
        }
        self.reads += part.reads;
        self.writes += part.writes;
        self.bytes += part.bytes;
        self.errors += part.errors;
        self.miscompares += part.miscompares;
        for (index, part) in part.paths.iter().enumerate() {
            let sum = self.path(index);
            sum.ios += part.ios;
            sum.errors += part.errors;
        }
        if self.first_error.is_none() {
            self.first_error.clone_from(&part.first_error);
        }
    }

    /// Notes the time between two completions.
    pub fn note_gap(&mut self, gap: Gap) {
        if gap.length_ns() > self.longest.length_ns() {
            self.longest = gap;
        }
        if gap.length_ns() < GAP_MIN_NS {
            return;
        }
        let full = self.gaps.len() >= GAPS_MAX;
        match self.gaps.last_mut() {
            Some(last) if full || last.end_ns / GAP_SLOT_NS == gap.end_ns / GAP_SLOT_NS => {
                if gap.length_ns() > last.length_ns() {
                    *last = gap;
                }
            }
            _ => self.gaps.push(gap),
        }
    }

    /// Keeps the first error.
    pub fn note_error(&mut self, text: impl FnOnce() -> String) {
        self.first_error.get_or_insert_with(text);
    }
}

/// Percentiles in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LatencySummary {
    /// How many I/Os it is of.
    pub count: u64,
    /// The least time that an I/O has been in flight which has not ended, if there is one: it takes longer than that,
    /// nobody knows how much, and so does every figure from here on.
    pub at_least_from: Option<u64>,
    /// Arithmetic mean.
    pub mean: f64,
    /// Median.
    pub p50: u64,
    /// 90 %.
    pub p90: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p999: u64,
    /// 99.99 %.
    pub p9999: u64,
    /// Largest.
    pub max: u64,
}

impl LatencySummary {
    /// All zero if nothing was recorded.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let at = |quantile| histogram.value_at_quantile(quantile).min(histogram.max());
        Self {
            count: histogram.len(),
            at_least_from: None,
            mean: histogram.mean(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: histogram.max(),
        }
    }

    /// Of I/Os that ended and of those that did not, which took at least the time that they have been in flight.
    pub fn with_unfinished(ended: &Histogram<u64>, unfinished: &Histogram<u64>) -> Self {
        if unfinished.is_empty() {
            return Self::of(ended);
        }
        let mut all = ended.clone();
        // Both histograms have the same bounds.
        let added = all.add(unfinished);
        debug_assert!(added.is_ok(), "{added:?}");
        Self {
            at_least_from: Some(unfinished.min()),
            ..Self::of(&all)
        }
    }

    /// Whether a percentile of this distribution is a lower bound: an I/O that has not ended may end up above it.
    pub fn is_lower_bound(&self, percentile_ns: u64) -> bool {
        self.at_least_from.is_some_and(|from| percentile_ns >= from)
    }
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
    /// That time had not ended when the run was over.
    pub open: bool,
}

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

/// An empty histogram of latencies; all have the same bounds, so that they can be added.
pub fn latency_histogram() -> Histogram<u64> {
    match Histogram::new_with_bounds(1, LATENCY_MAX_NS, LATENCY_DIGITS) {
        Ok(histogram) => histogram,
        Err(error) => unreachable!("bounds are constants: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn gap(job: usize, start_ns: u64, length_ns: u64) -> Gap {
        Gap {
            job,
            start_ns,
            end_ns: start_ns + length_ns,
            open: false,
        }
    }

    fn event(job: usize, at_ns: u64, from: &str, to: &str) -> PathEvent {
        PathEvent {
            job,
            at_ns,
            path: "127.0.0.1:4420".to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
        }
    }

    #[test]
    fn merging_adds_up() {
        let mut run = RunStats::new();
        for (job, latency) in [(0, 1_000), (1, 3_000)] {
            let mut part = JobStats::new();
            for _ in 0..100 {
                part.latency.saturating_record(latency);
            }
            (part.reads, part.writes, part.bytes, part.errors) = (60, 40, 4096, 1);
            part.path(job).ios += 2;
            part.path(1).errors += 1;
            part.failed_latency.saturating_record(50);
            part.note_error(|| format!("error of {job}"));
            part.note_gap(gap(job, 10 * MS, latency * 100));
            run.merge(&part);
        }
        let total = &run.total;
        assert_eq!(
            (total.ios(), total.reads, total.bytes, total.errors),
            (200, 120, 8192, 2)
        );
        assert_eq!(
            total.paths,
            [PathIos { ios: 2, errors: 0 }, PathIos { ios: 2, errors: 2 }]
        );
        assert_eq!((total.latency.len(), total.failed_latency.len()), (200, 2));
        assert_eq!(total.first_error.as_deref(), Some("error of 0"));
        assert_eq!(total.longest, gap(1, 10 * MS, 300_000));
        let summary = LatencySummary::of(&total.latency);
        assert_eq!((summary.p50, summary.p99), (1_000, 3_000 | 1));
        assert!((1_990.0..=2_010.0).contains(&summary.mean), "{summary:?}");
        assert!(summary.max >= 3_000 && summary.p9999 <= summary.max);
    }

    #[test]
    fn nothing_recorded_is_zero() {
        assert_eq!(
            LatencySummary::of(&latency_histogram()),
            LatencySummary::default()
        );
    }

    #[test]
    fn what_has_not_ended_makes_lower_bounds_of_what_it_may_move() {
        let (mut ended, mut unfinished) = (latency_histogram(), latency_histogram());
        for _ in 0..98 {
            ended.saturating_record(1_000);
        }
        let exact = LatencySummary::with_unfinished(&ended, &unfinished);
        assert_eq!(exact, LatencySummary::of(&ended));
        assert!(!exact.is_lower_bound(exact.max));
        for age_ns in [2 * MS, 9 * MS] {
            unfinished.saturating_record(age_ns);
        }
        let summary = LatencySummary::with_unfinished(&ended, &unfinished);
        assert_eq!((summary.count, summary.p50), (100, 1_000));
        assert!(
            summary.p99 >= 2 * MS && summary.max >= 9 * MS,
            "{summary:?}"
        );
        for (value, bound) in [(summary.p50, false), (summary.p90, false)] {
            assert_eq!(summary.is_lower_bound(value), bound, "{value}");
        }
        for value in [summary.p99, summary.p999, summary.max] {
            assert!(summary.is_lower_bound(value), "{value}");
        }
    }

    #[test]
    fn a_latency_beyond_the_bounds_is_kept_at_the_bound() {
        let mut histogram = latency_histogram();
        histogram.saturating_record(u64::MAX);
        assert!(histogram.max() >= LATENCY_MAX_NS / 2);
    }

    #[test]
    fn clearing_keeps_memory_and_nothing_else() {
        let mut part = JobStats::new();
        part.latency.saturating_record(5);
        part.reads = 1;
        part.path(3).ios = 1;
        part.failed_latency.saturating_record(5);
        part.unfinished.saturating_record(5);
        part.note_gap(gap(0, 0, MS));
        part.events.push(event(0, 1, "a", "b"));
        part.note_error(|| "x".to_owned());
        part.clear();
        assert!(part.failed_latency.is_empty() && part.unfinished.is_empty());
        assert!(part.latency.is_empty() && part.gaps.is_empty() && part.events.is_empty());
        assert_eq!(
            (part.ios(), part.longest, part.first_error.as_ref()),
            (0, Gap::default(), None)
        );
        assert!(part.paths.is_empty() && part.gaps.capacity() >= GAPS_MAX);
    }

    #[test]
    fn gaps_keep_the_longest_of_a_slot_and_never_grow_beyond_their_memory() {
        let mut part = JobStats::new();
        part.note_gap(gap(0, 0, GAP_MIN_NS - 1));
        assert!(part.gaps.is_empty());
        assert_eq!(part.longest.length_ns(), GAP_MIN_NS - 1);
        part.note_gap(gap(0, 100_000, 60_000));
        part.note_gap(gap(0, 300_000, 90_000));
        part.note_gap(gap(0, 500_000, 70_000));
        assert_eq!(part.gaps, [gap(0, 300_000, 90_000)]);
        for slot in 1..20_000 {
            part.note_gap(gap(0, slot * MS, 60_000));
        }
        part.note_gap(gap(0, 30_000 * MS, 5 * MS));
        assert_eq!(part.gaps.len(), GAPS_MAX);
        assert_eq!(part.gaps.last(), Some(&gap(0, 30_000 * MS, 5 * MS)));
    }

    #[test]
    fn a_pause_belongs_to_the_event_it_touches() {
        let mut run = RunStats::new();
        let mut part = JobStats::new();
        part.note_gap(gap(0, 500 * MS, 9 * MS));
        part.note_gap(gap(0, 1_000 * MS, 300_000));
        part.events
            .push(event(0, 1_001 * MS, "optimized", "inaccessible"));
        part.note_gap(gap(0, 1_010 * MS, 800_000));
        part.note_gap(gap(0, 1_500 * MS, 700_000));
        run.merge(&part);
        let mut part = JobStats::new();
        part.events
            .push(event(0, 2_000 * MS, "inaccessible", "optimized"));
        run.merge(&part);
        let costs = run.event_costs();
        assert_eq!(costs.len(), 2);
        assert_eq!(costs[0].pause_ns, Some(300_000));
        assert_eq!(costs[1].pause_ns, None);
        assert_eq!(run.total.longest, gap(0, 500 * MS, 9 * MS));
        assert_eq!(run.around_longest(), "no path event near it");
    }

    #[test]
    fn one_change_seen_by_two_jobs_is_one_event_with_the_longer_pause() {
        let mut run = RunStats::new();
        for (job, pause) in [(0, 200_000), (1, 600_000)] {
            let mut part = JobStats::new();
            part.note_gap(gap(job, 1_000 * MS, pause));
            part.events.push(event(
                job,
                1_000 * MS + job as u64,
                "optimized",
                "inaccessible",
            ));
            run.merge(&part);
        }
        let costs = run.event_costs();
        assert_eq!(costs.len(), 1);
        assert_eq!(costs[0].pause_ns, Some(600_000));
    }

    #[test]
    fn gaps_near_an_event_survive_and_others_are_forgotten() {
        let mut run = RunStats::new();
        for second in 0..50 {
            let mut part = JobStats::new();
            let start = second * 1_000 * MS;
            for slot in 0..100 {
                part.note_gap(gap(0, start + slot * 2 * MS, 100_000));
            }
            if second == 3 {
                part.events
                    .push(event(0, start + 50 * MS, "optimized", "inaccessible"));
            }
            run.merge(&part);
        }
        assert!(run.total.gaps.len() < 100, "{}", run.total.gaps.len());
        assert_eq!(run.event_costs()[0].pause_ns, Some(100_000));
    }

    #[test]
    fn the_longest_gap_is_explained() {
        let mut run = RunStats::new();
        let mut part = JobStats::new();
        part.note_gap(gap(0, 1_000 * MS, 20 * MS));
        part.events.push(event(
            0,
            1_000 * MS + 1_500_000,
            "optimized",
            "disconnected",
        ));
        run.merge(&part);
        assert_eq!(
            run.around_longest(),
            "127.0.0.1:4420 went from optimized to disconnected, seen 1.500 ms after its start"
        );
        let mut late = RunStats::new();
        let mut part = JobStats::new();
        part.events
            .push(event(0, 950 * MS, "optimized", "inaccessible"));
        part.note_gap(gap(0, 1_000 * MS, 20 * MS));
        late.merge(&part);
        assert_eq!(
            late.around_longest(),
            "127.0.0.1:4420 went from optimized to inaccessible, seen 50.000 ms before its start"
        );
    }
}
