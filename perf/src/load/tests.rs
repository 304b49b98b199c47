use std::collections::VecDeque;

use pollux_reactor::Rng;

use super::workload::Shape;
use super::*;
use crate::stats::LatencySummary;

const BLOCK: usize = 512;

fn plan(workload: Workload, sizes: &[u32], stride: Option<u64>, blocks: u64) -> Plan {
    Plan {
        job: 0,
        shape: Shape {
            workload,
            read_share: None,
            mix: None,
            sizes: sizes.to_vec(),
            weights: Vec::new(),
            distribution: Distribution::Uniform,
            stride,
            region: 0..blocks,
        },
        depth: 16,
        block_bytes: BLOCK,
        ios: None,
        seed: 3,
        pattern_seed: 5,
        arrivals: None,
    }
}

/// A volume in memory that completes in any order and checks that nothing overlaps.
struct Disk {
    data: Vec<u8>,
    flying: Vec<Prepared>,
    rng: Rng,
    log: VecDeque<Operation>,
}

fn bytes(blocks: &std::ops::Range<u64>) -> std::ops::Range<usize> {
    let at = |block| usize::try_from(block).unwrap() * BLOCK;
    at(blocks.start)..at(blocks.end)
}

impl Disk {
    fn new(blocks: u64) -> Self {
        Self {
            data: vec![0; usize::try_from(blocks).unwrap() * BLOCK],
            flying: Vec::new(),
            rng: Rng::seeded(1),
            log: VecDeque::new(),
        }
    }

    fn submit(&mut self, prepared: Prepared, exclusive: bool) {
        let range = prepared.operation.range();
        assert!(prepared.buffer.len() >= prepared.operation.blocks as usize * BLOCK);
        assert!(bytes(&range).end <= self.data.len());
        for other in &self.flying {
            let other = other.operation.range();
            assert!(
                !exclusive || other.end <= range.start || range.end <= other.start,
                "{range:?} meets {other:?}"
            );
        }
        self.flying.push(prepared);
    }

    fn take(&mut self) -> Option<Prepared> {
        let count = self.flying.len() as u64;
        if count == 0 {
            return None;
        }
        let index = usize::try_from(self.rng.below(count)).unwrap();
        let mut done = self.flying.swap_remove(index);
        let range = done.operation.range();
        let bytes = &mut self.data[bytes(&range)];
        if done.operation.writes() {
            bytes.copy_from_slice(&done.buffer[..bytes.len()]);
        } else {
            done.buffer[..bytes.len()].copy_from_slice(bytes);
        }
        self.log.push_back(done.operation);
        Some(done)
    }
}

/// Runs `steps` completions; `fail` says which of them end in an error.
fn drive(load: &mut Load, disk: &mut Disk, steps: usize, mut fail: impl FnMut(usize) -> bool) {
    let exclusive = load.verify.is_some();
    for step in 0..steps {
        let now = step as u64 * 1_000;
        while let Some(prepared) = load.prepare(now) {
            disk.submit(prepared, exclusive);
        }
        let Some(done) = disk.take() else {
            break;
        };
        let result = if fail(step) {
            Err("path error")
        } else {
            Ok(())
        };
        load.complete(done.slot, done.buffer, result, Some(step % 2), now + 500);
        load.note_completions(now + 500);
    }
}

fn finish(load: &mut Load, disk: &mut Disk) {
    load.stop(0);
    drive(load, disk, usize::MAX, |_| false);
    assert!(load.drained());
    load.start_sweep();
    drive(load, disk, usize::MAX, |_| false);
    assert!(load.drained());
    let (submitted, completed) = load.account();
    assert_eq!(submitted, completed);
}

#[test]
fn the_queue_is_kept_full_and_every_io_is_accounted_for() {
    let mut load = Load::new(plan(Workload::RandRw, &[8], None, 4096));
    let mut disk = Disk::new(4096);
    drive(&mut load, &mut disk, 1_000, |_| false);
    while let Some(prepared) = load.prepare(0) {
        disk.submit(prepared, false);
    }
    assert_eq!(disk.flying.len(), 16);
    finish(&mut load, &mut disk);
    let stats = load.exchange(Box::new(JobStats::new()));
    assert_eq!(stats.ios(), 1_016);
    assert_eq!(stats.latency.len(), 1_016);
    assert_eq!(stats.bytes, 1_016 * 8 * BLOCK as u64);
    assert_eq!(stats.paths.iter().map(|path| path.ios).sum::<u64>(), 1_016);
    assert!(
        load.exchange(stats).latency.is_empty(),
        "the exchanged one starts empty"
    );
}

#[test]
fn verify_holds_on_a_good_volume_whatever_the_sizes() {
    for (sizes, stride) in [
        (vec![8], None),
        (vec![1, 2, 4, 8, 64], Some(7)),
        (vec![1, 300], Some(1)),
    ] {
        let mut load = Load::new(plan(Workload::Verify, &sizes, stride, 1024));
        let mut disk = Disk::new(1024);
        drive(&mut load, &mut disk, 20_000, |_| false);
        finish(&mut load, &mut disk);
        let verified = load.verified().unwrap();
        assert!(verified.written >= 512, "{verified:?}");
        assert_eq!((verified.right, verified.open), (verified.written, 0));
        let stats = load.exchange(Box::new(JobStats::new()));
        assert_eq!(
            (stats.errors, stats.miscompares),
            (0, 0),
            "{:?}",
            stats.first_error
        );
        assert!(
            stats.reads > stats.writes,
            "each write is read back: {} {}",
            stats.reads,
            stats.writes
        );
    }
}

#[test]
fn verify_reads_each_write_back_before_its_blocks_are_free() {
    let mut load = Load::new(plan(Workload::Verify, &[8], None, 1024));
    let mut disk = Disk::new(1024);
    drive(&mut load, &mut disk, 5_000, |_| false);
    load.stop(0);
    drive(&mut load, &mut disk, usize::MAX, |_| false);
    let mut unread = std::collections::BTreeSet::new();
    for operation in &disk.log {
        if operation.writes() {
            assert!(unread.insert(operation.lba), "written twice without a read");
        } else {
            unread.remove(&operation.lba);
        }
    }
    assert!(unread.is_empty());
}

#[test]
fn failed_writes_leave_blocks_open_and_are_no_miscompare() {
    let mut load = Load::new(plan(Workload::Verify, &[4, 8], Some(3), 512));
    let mut disk = Disk::new(512);
    drive(&mut load, &mut disk, 20_000, |step| step % 7 == 0);
    finish(&mut load, &mut disk);
    let stats = load.exchange(Box::new(JobStats::new()));
    assert!(stats.errors > 2_000);
    assert_eq!(stats.miscompares, 0, "{:?}", stats.first_error);
    assert!(stats.first_error.unwrap().contains("path error"));
}

#[test]
fn damage_between_write_and_read_is_found() {
    let mut load = Load::new(plan(Workload::Verify, &[8], None, 256));
    let mut disk = Disk::new(256);
    drive(&mut load, &mut disk, 2_000, |_| false);
    load.stop(0);
    drive(&mut load, &mut disk, usize::MAX, |_| false);
    disk.data[100 * BLOCK + 300] ^= 1;
    load.start_sweep();
    drive(&mut load, &mut disk, usize::MAX, |_| false);
    let stats = load.exchange(Box::new(JobStats::new()));
    assert_eq!(stats.miscompares, 1);
    let text = stats.first_error.unwrap();
    assert!(text.contains("LBA 100 byte 300"), "{text}");
}

#[test]
fn a_lost_write_is_found_as_a_stale_block() {
    let mut load = Load::new(plan(Workload::Verify, &[8], None, 64));
    let mut disk = Disk::new(64);
    drive(&mut load, &mut disk, 2_000, |_| false);
    load.stop(0);
    drive(&mut load, &mut disk, usize::MAX, |_| false);
    let old = disk.data.clone();
    load.state = LoadState::Running;
    drive(&mut load, &mut disk, 2_000, |_| false);
    load.stop(0);
    drive(&mut load, &mut disk, usize::MAX, |_| false);
    disk.data = old;
    load.start_sweep();
    drive(&mut load, &mut disk, usize::MAX, |_| false);
    let stats = load.exchange(Box::new(JobStats::new()));
    assert!(stats.miscompares > 0);
    assert!(stats.first_error.unwrap().ends_with("whole"));
}

#[test]
fn a_limit_of_ios_is_kept() {
    for (workload, extra) in [(Workload::RandRead, 0), (Workload::Verify, 16)] {
        let mut limited = plan(workload, &[8], None, 4096);
        limited.ios = Some(1_000);
        let mut load = Load::new(limited);
        let mut disk = Disk::new(4096);
        drive(&mut load, &mut disk, usize::MAX, |_| false);
        assert!(load.drained());
        let (submitted, completed) = load.account();
        assert_eq!(submitted, completed);
        assert!(
            (1_000..=1_000 + extra).contains(&submitted),
            "{workload:?}: {submitted}"
        );
    }
}

#[test]
fn gaps_are_measured_from_the_first_submission() {
    let mut load = Load::new(plan(Workload::RandRead, &[8], None, 4096));
    let mut disk = Disk::new(4096);
    disk.submit(load.prepare(1_000_000).unwrap(), false);
    let done = disk.take().unwrap();
    load.complete(
        done.slot,
        done.buffer,
        Ok::<(), String>(()),
        Some(0),
        9_000_000,
    );
    load.note_completions(9_000_000);
    assert_eq!(
        load.stats_mut().longest,
        Gap {
            job: 0,
            start_ns: 1_000_000,
            end_ns: 9_000_000,
            open: false
        }
    );
    assert_eq!(load.span_ns(), (1_000_000, 9_000_000));
}

/// Completes one I/O, `ok` or not.
fn end_one(load: &mut Load, disk: &mut Disk, ok: bool, now_ns: u64) {
    let done = disk.take().unwrap();
    let result = if ok { Ok(()) } else { Err("path error") };
    load.complete(done.slot, done.buffer, result, Some(1), now_ns);
    load.note_completions(now_ns);
}

#[test]
fn failed_ios_are_counted_apart_with_their_own_latency() {
    let mut load = Load::new(plan(Workload::RandRead, &[8], None, 4096));
    let mut disk = Disk::new(4096);
    let mut now_ns = 0;
    // A success takes 2 ms, a failure 10 us: it must not make the figures better.
    for step in 0..1_000 {
        disk.submit(load.prepare(now_ns).unwrap(), false);
        let ok = step % 10 == 0;
        now_ns += if ok { 2_000_000 } else { 10_000 };
        end_one(&mut load, &mut disk, ok, now_ns);
    }
    let stats = load.exchange(Box::new(JobStats::new()));
    assert_eq!((stats.ios(), stats.reads, stats.errors), (100, 100, 900));
    assert_eq!(stats.bytes, 100 * 8 * BLOCK as u64);
    assert_eq!(
        (stats.latency.len(), stats.failed_latency.len()),
        (100, 900)
    );
    assert!(stats.latency.min() >= 1_990_000);
    assert!(stats.failed_latency.max() <= 10_100);
    assert_eq!((stats.paths[1].ios, stats.paths[1].errors), (100, 900));
}

#[test]
fn a_time_in_which_all_fails_is_a_gap() {
    let mut load = Load::new(plan(Workload::RandRead, &[8], None, 4096));
    let mut disk = Disk::new(4096);
    for now_ns in 1..=200 {
        disk.submit(load.prepare(now_ns * 1_000_000).unwrap(), false);
        let ok = now_ns <= 50 || now_ns == 150;
        end_one(&mut load, &mut disk, ok, now_ns * 1_000_000);
    }
    load.stop(200_000_000);
    load.close(215_000_000);
    let gaps = load.exchange(Box::new(JobStats::new()));
    let gap = |start: u64, end: u64, open| Gap {
        job: 0,
        start_ns: start * 1_000_000,
        end_ns: end * 1_000_000,
        open,
    };
    assert_eq!(gaps.longest, gap(50, 150, false));
    // Nothing was in flight any more: it ends with the time to run.
    assert_eq!(gaps.gaps.last(), Some(&gap(150, 200, true)));
    assert_eq!(load.span_ns(), (1_000_000, 200_000_000));
}

#[test]
fn what_fails_after_the_end_lengthens_the_gap_and_not_the_run() {
    let mut load = Load::new(plan(Workload::RandRead, &[8], None, 4096));
    let mut disk = Disk::new(4096);
    for now_ns in 1..=100 {
        disk.submit(load.prepare(now_ns * 1_000_000).unwrap(), false);
        end_one(&mut load, &mut disk, true, now_ns * 1_000_000 + 1_000);
    }
    disk.submit(load.prepare(101_000_000).unwrap(), false);
    load.stop(4_000_000_000);
    end_one(&mut load, &mut disk, false, 10_000_000_000);
    assert!(load.drained());
    load.close(10_000_000_000);
    let stats = load.exchange(Box::new(JobStats::new()));
    assert_eq!((stats.ios(), stats.errors), (100, 1));
    assert!(stats.longest.open && stats.longest.end_ns == 10_000_000_000);
    assert_eq!(load.span_ns(), (1_000_000, 4_000_000_000));
}

#[test]
fn what_has_not_ended_counts_with_its_age() {
    let mut load = Load::new(plan(Workload::RandRead, &[8], None, 4096));
    let mut disk = Disk::new(4096);
    for now_ns in 1..=100 {
        disk.submit(load.prepare(now_ns * 1_000_000).unwrap(), false);
        end_one(&mut load, &mut disk, true, now_ns * 1_000_000 + 1_000);
    }
    for _ in 0..16 {
        disk.submit(load.prepare(101_000_000).unwrap(), false);
    }
    load.stop(4_000_000_000);
    assert!(!load.drained());
    load.close(5_101_000_000);
    let stats = load.exchange(Box::new(JobStats::new()));
    assert_eq!((stats.ios(), stats.unfinished.len()), (100, 16));
    assert!(stats.unfinished.min() >= 4_990_000_000);
    assert!(stats.longest.open && stats.longest.length_ns() == 5_000_999_000);
    // The time to run is the time of the run, also if nothing came of it.
    assert_eq!(load.span_ns(), (1_000_000, 4_000_000_000));
    assert_eq!(load.account(), (116, 100));
}

#[test]
fn verify_counts_what_was_read_and_not_what_was_asked_for() {
    let mut load = Load::new(plan(Workload::Verify, &[8], None, 1024));
    let mut disk = Disk::new(1024);
    drive(&mut load, &mut disk, 5_000, |_| false);
    load.stop(0);
    drive(&mut load, &mut disk, usize::MAX, |_| false);
    load.start_sweep();
    // Every fourth read of the sweep fails.
    drive(&mut load, &mut disk, usize::MAX, |step| step % 4 == 0);
    assert!(load.drained());
    load.close(0);
    let verified = load.verified().unwrap();
    let stats = load.exchange(Box::new(JobStats::new()));
    assert!(stats.errors > 20);
    assert_eq!(verified.unread(), stats.errors * 8);
    assert_eq!(verified.right + verified.unread(), verified.written);
    assert_eq!((verified.wrong, verified.open), (0, 0));
}

#[test]
fn verify_vouches_for_nothing_that_it_did_not_read() {
    let mut load = Load::new(plan(Workload::Verify, &[8], None, 1024));
    let mut disk = Disk::new(1024);
    drive(&mut load, &mut disk, 500, |step| step == 3);
    // Interrupted, with writes in flight.
    let in_flight = disk
        .flying
        .iter()
        .filter(|io| io.operation.writes())
        .count();
    load.stop(0);
    load.close(0);
    let verified = load.verified().unwrap();
    assert!(verified.written > 0, "{verified:?}");
    assert_eq!((verified.right, verified.unread()), (0, verified.written));
    assert!(verified.open >= in_flight as u64 * 8, "{verified:?}");
}

/// Latencies of eight seconds on a disk that takes 2 ms for each of 16 I/Os at a time, and stands still for 200 ms.
fn latencies_of_a_stall(arrivals: Option<Arrivals>) -> LatencySummary {
    const US: u64 = 1_000;
    const STEP_NS: u64 = 20 * US;
    let (end_ns, service_ns) = (8_000_000 * US, 2_000 * US);
    let stall = 3_000_000 * US..3_200_000 * US;
    let mut plan = plan(Workload::RandRead, &[1], None, 100);
    plan.arrivals = arrivals;
    let mut load = Load::new(plan);
    // In the order in which they end, as all take the same time.
    let mut flying: VecDeque<(u64, Prepared)> = VecDeque::new();
    for now_ns in (0..end_ns).step_by(usize::try_from(STEP_NS).unwrap()) {
        let is_still = stall.contains(&now_ns);
        while !is_still && flying.front().is_some_and(|(at_ns, _)| *at_ns <= now_ns) {
            let (_, done) = flying.pop_front().unwrap();
            load.complete(done.slot, done.buffer, Ok::<(), String>(()), None, now_ns);
        }
        while let Some(prepared) = load.prepare(now_ns) {
            // What comes while the disk stands still is begun after that.
            let begun_ns = if is_still { stall.end } else { now_ns };
            flying.push_back((begun_ns + service_ns, prepared));
        }
    }
    let stats = load.exchange(Box::new(JobStats::new()));
    LatencySummary::of(&stats.latency)
}

#[test]
fn a_stall_has_the_share_in_an_open_loop_that_queueing_gives_it() {
    // 16 in 2 ms are 8,000 a second; of that 70 %.
    let (most, rho, seconds, stall) = (8_000.0, 0.7, 8.0, 0.2);
    let rate = Rate {
        iops: 5_600,
        process: Process::Poisson,
    };
    assert_eq!(rate.iops as f64, rho * most);
    let open = latencies_of_a_stall(Some(Arrivals::new(rate, 0, 1, 9)));
    // Who comes t after the beginning of the stall waits for its rest and for those before him: stall - t * (1 - rho), until
    // nobody waits any more. That many of all are worse off than one who waits w: (stall - w) / (1 - rho) / seconds.
    for (share, got_ns) in [(0.01, open.p99), (0.001, open.p999)] {
        let wait = stall - share * (1.0 - rho) * seconds + 0.002;
        let got = got_ns as f64 / 1e9;
        // Arrivals at random are not as even as that.
        assert!(
            (got / wait - 1.0).abs() < 0.05,
            "{share}: {got} s of {wait} s"
        );
    }
    // In a closed loop the same stall is in 16 of more than 60,000 I/Os.
    let closed = latencies_of_a_stall(None);
    assert!(
        closed.count > 60_000 && closed.p999 < 2_100_000,
        "{closed:?}"
    );
    assert!(closed.max > 200_000_000, "{closed:?}");
}
