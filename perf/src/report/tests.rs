use super::table::verified_in_words;
use super::*;
use crate::stats::{Gap, JobStats, PathEvent};

const MS: u64 = 1_000_000;

fn report() -> Report {
    let mut part = JobStats::new();
    for latency in [80_000, 100_000, 120_000] {
        part.latency.saturating_record_n(latency, 100_000);
    }
    (part.reads, part.bytes) = (1_000_000, 4096 * 1_000_000);
    part.note_gap(Gap {
        job: 0,
        start_ns: 1_500 * MS,
        end_ns: 1_500 * MS + 412_000,
        open: false,
    });
    part.events.push(PathEvent {
        job: 0,
        at_ns: 1_500 * MS + 100_000,
        path: "127.0.0.1:4420".to_owned(),
        from: "optimized".to_owned(),
        to: "inaccessible".to_owned(),
    });
    let mut stats = RunStats::new();
    stats.merge(&part);
    let path = |port: &str, ios, state: &str| PathReport {
        traddr: "127.0.0.1".to_owned(),
        trsvcid: port.to_owned(),
        ios: PathIos { ios, errors: 0 },
        ana_state: state.to_owned(),
    };
    Report {
        title: "randread 4 KiB, depth 32".to_owned(),
        kind: "run",
        options: json!({ "depth": 32 }),
        jobs: Vec::new(),
        stats,
        start_ns: 1_000 * MS,
        end_ns: 3_000 * MS,
        submitted: 1_000_000,
        completed: 1_000_000,
        verified: None,
        interrupted: false,
        waited: Duration::from_secs(15),
        socket_calls: Some(250_000),
        paths: vec![
            path("4420", 750_000, "inaccessible"),
            path("4421", 250_000, "non_optimized"),
        ],
        host_cores: vec![1],
        target_core: Some(0),
        machine: Machine {
            cpu: "Example CPU".to_owned(),
            kernel: "6.12".to_owned(),
            cores: vec![0, 1],
            clocksource: "tsc".to_owned(),
            ..Machine::default()
        },
        host_busy: vec![0.5],
        doubts: Vec::new(),
        series: Vec::new(),
        open_loop: None,
        ramp: None,
        steady: None,
        began: UNIX_EPOCH,
        target: Value::Null,
    }
}

#[test]
fn json_has_every_field_that_users_rely_on() {
    let json = report().json();
    assert_eq!(json["iops"], 500_000.0);
    assert_eq!(json["bytes_per_sec"], 2_048_000_000.0);
    assert_eq!(json["errors"], 0);
    for name in ["mean", "p50", "p90", "p99", "p999", "p9999", "max"] {
        assert!(json["latency_ns"][name].is_number(), "{name}");
    }
    assert_eq!(json["longest_gap_ns"], 412_000);
    assert_eq!(json["longest_gap"]["at_ns"], 500 * MS);
    let paths = json["paths"].as_array().unwrap();
    assert_eq!(paths.len(), 2);
    assert_eq!(
        paths[1],
        json!({"traddr": "127.0.0.1", "trsvcid": "4421", "ios": 250_000, "errors": 0, "ana_state": "non_optimized"})
    );
    assert_eq!(json["path_events"][0]["pause_ns"], 412_000);
    assert_eq!(json["machine"]["cpu"], "Example CPU");
    assert_eq!(json["machine"]["kernel"], "6.12");
    assert_eq!(json["cores"]["host"], json!([1]));
    assert_eq!(
        (&json["submitted"], &json["completed"]),
        (&json!(1_000_000), &json!(1_000_000))
    );
}

#[test]
fn the_table_says_what_happened() {
    let table = report().table();
    for part in [
        "randread 4 KiB, depth 32",
        "Example CPU, Linux 6.12, host on core 1, target on core 0",
        "500,000",
        "1953.1",
        "127.0.0.1:4420         750,000     75.0%         0  inaccessible",
        "longest gap between completions: 0.412 ms at 0.500 s; 127.0.0.1:4420 went from optimized to inaccessible",
        "at 0.500 s 127.0.0.1:4420 went from optimized to inaccessible: I/O paused 0.412 ms",
        "1,000,000 I/Os submitted, 1,000,000 completed, no error",
        "0.250 socket calls per I/O on the host side",
    ] {
        assert!(
            unbroken(&table).contains(part),
            "'{part}' is not in\n{table}"
        );
    }
}

/// The table without the breaks between words.
fn unbroken(table: &str) -> String {
    assert!(
        table.lines().all(|line| line.chars().count() <= 80),
        "{table}"
    );
    table.replace("\n    ", " ")
}

#[test]
fn what_never_ended_is_in_the_figures() {
    let mut report = report();
    report.completed -= 1;
    let total = &mut report.stats.total;
    total.unfinished.saturating_record_n(2_500 * MS, 100_000);
    total.longest = Gap {
        job: 0,
        start_ns: 1_500 * MS,
        end_ns: 4_000 * MS,
        open: true,
    };
    let json = report.json();
    assert_eq!(json["unfinished"]["count"], 1);
    assert_eq!(
        json["latency_lower_bounds"],
        json!(["mean", "p90", "p99", "p999", "p9999", "max"])
    );
    assert!(json["latency_ns"]["max"].as_u64() >= Some(2_500 * MS));
    assert!(json["latency_ns"]["p50"].as_u64() < Some(MS));
    assert_eq!(
        (&json["longest_gap_ns"], &json["longest_gap"]["open"]),
        (&json!(2_500 * MS), &json!(true))
    );
    let table = unbroken(&report.table());
    for part in [
        "UNFINISHED: 1 of 1,000,000 I/Os had not ended 15.0 s after the end, the oldest after 2.50 s",
        ">=2.50 s",
        "longest gap between completions: >=2500.000 ms",
        "FAILED: 0 errors, 0 miscompares, 1 of 1,000,000 I/Os lost",
    ] {
        assert!(table.contains(part), "'{part}' is not in\n{table}");
    }
}

#[test]
fn failed_io_is_no_iops_and_has_a_latency_of_its_own() {
    let mut report = report();
    let good = report.json();
    let total = &mut report.stats.total;
    for _ in 0..1_000 {
        total.failed_latency.saturating_record(10);
    }
    total.errors = 1_000;
    total.paths = vec![PathIos::default()];
    report.submitted += 1_000;
    report.completed += 1_000;
    let json = report.json();
    for figure in [
        "iops",
        "bytes_per_sec",
        "reads",
        "latency_ns",
        "latency_lower_bounds",
        "socket_calls_per_io",
        "longest_gap_ns",
    ] {
        assert_eq!(json[figure], good[figure], "{figure}");
    }
    assert_eq!(
        (&json["errors"], &json["failed_latency_ns"]["p50"]),
        (&json!(1_000), &json!(10))
    );
    assert_eq!(good["failed_latency_ns"], Value::Null);
    assert!(
        report.table().contains("  failed      10 ns"),
        "{}",
        report.table()
    );
}

#[test]
fn verify_says_what_it_did_and_what_not() {
    let say = |verified| verified_in_words(verified);
    let all = Verified {
        written: 1_000,
        right: 1_000,
        ..Verified::default()
    };
    assert_eq!(
        say(all),
        "all 1,000 blocks that had been written were read once more at the end"
    );
    let some = Verified {
        written: 1_000,
        right: 900,
        wrong: 8,
        open: 16,
    };
    assert_eq!(
        say(some),
        "of 1,000 blocks that had been written 900 were read once more at the end and were right; 8 in reads with wrong data; 92 not read; 16 of unknown contents, as their last write failed or did not end"
    );
}

#[test]
fn an_interrupted_run_is_marked() {
    let mut report = report();
    report.interrupted = true;
    report.completed -= 3;
    assert_eq!((report.failures(), report.interrupted()), (0, true));
    assert_eq!(report.json()["interrupted"], true);
    assert!(report.table().contains("INTERRUPTED after 2.00 s"));
    report.stats.total.errors = 1;
    assert_eq!(report.failures(), 1);
}

#[test]
fn lost_io_and_errors_are_failures() {
    let mut report = report();
    assert_eq!(report.failures(), 0);
    report.completed -= 3;
    report.stats.total.errors = 2;
    report.stats.total.miscompares = 1;
    report.stats.total.first_error = Some("read of 8 blocks at LBA 0: lost".to_owned());
    assert_eq!((report.lost(), report.failures()), (3, 6));
    let table = report.table();
    assert!(
        table.contains("FAILED: 2 errors, 1 miscompares, 3 of 1,000,000 I/Os lost"),
        "{table}"
    );
    assert!(table.contains("first error: read of 8 blocks"), "{table}");
    assert_eq!(
        report.json()["first_error"],
        "read of 8 blocks at LBA 0: lost"
    );
}

#[test]
fn a_run_without_any_io_divides_by_nothing() {
    let mut report = report();
    report.stats = RunStats::new();
    (report.start_ns, report.end_ns) = (0, 0);
    report.paths.clear();
    assert!(report.table().contains("latency"));
    assert_eq!(report.json()["iops"], 0.0);
}
