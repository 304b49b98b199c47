use super::latency::LATENCY_MAX_NS;
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
