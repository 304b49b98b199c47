use std::collections::VecDeque;

use pollux_reactor::Time;

use super::*;

const SECOND: u64 = 1_000_000_000;

/// Reactors that always have I/Os to spare, and an owner; messages take a while. All with a clock of its own.
struct Rig {
    budget: Budget,
    throttles: Vec<Throttle<u64>>,
    now: u64,
    /// When they arrive.
    asks: VecDeque<(u64, usize, Ask)>,
    grants: VecDeque<(u64, Granted)>,
    done: Vec<u64>,
    bytes: u64,
}

/// Time on the way of a message, and between two turns, in nanoseconds.
const WAY: u64 = 20_000;
const TURN: u64 = 5_000;

impl Rig {
    fn new(reactors: usize, limits: RateLimits) -> Rig {
        Rig {
            budget: Budget::new(limits),
            throttles: (0..reactors).map(|_| Throttle::new(1, limits)).collect(),
            now: SECOND,
            asks: VecDeque::new(),
            grants: VecDeque::new(),
            done: vec![0; reactors],
            bytes: 0,
        }
    }

    /// Runs for so many seconds; each reactor in `busy` has an I/O of `cost` whenever one can go.
    fn run(&mut self, seconds: u64, busy: &[usize], cost: Cost) {
        let end = self.now + seconds * SECOND;
        while self.now < end {
            self.turn(busy, cost);
            self.now += TURN;
        }
    }

    fn turn(&mut self, busy: &[usize], cost: Cost) {
        let now = Time::from_nanos(self.now);
        while let Some(&(at, reactor, ask)) = self.asks.front()
            && at <= self.now
        {
            self.asks.pop_front();
            self.budget.ask(reactor, ask, now);
        }
        while let Some(granted) = self.budget.grant(now) {
            self.grants.push_back((self.now + WAY, granted));
        }
        while let Some(&(at, granted)) = self.grants.front()
            && at <= self.now
        {
            self.grants.pop_front();
            self.throttles[granted.reactor].granted(1, granted.slice);
        }
        for &reactor in busy {
            let throttle = &mut self.throttles[reactor];
            loop {
                let new = match throttle.waiting() {
                    0 => throttle.offer(cost, 0),
                    _ => None,
                };
                if new.or_else(|| throttle.next_admitted()).is_none() {
                    break;
                }
                self.done[reactor] += 1;
                self.bytes += cost.amounts()[1];
            }
            for ask in throttle.asks() {
                self.asks.push_back((self.now + WAY, reactor, ask));
            }
        }
    }

    fn total(&self) -> u64 {
        self.done.iter().sum()
    }
}

fn within(count: u64, wanted: u64, percent: u64) -> bool {
    count.abs_diff(wanted) * 100 <= wanted * percent
}

#[test]
fn limits_hold_over_reactors_whatever_their_size() {
    for ios in [1, 100, 1_000, 10_000, 1_000_000] {
        for reactors in [1, 2, 8] {
            let mut rig = Rig::new(reactors, RateLimits::default().with_ios(ios));
            let busy: Vec<usize> = (0..reactors).collect();
            rig.run(10, &busy, Cost::Read(4096));
            let total = rig.total();
            // The first I/Os need not wait: they are paid off later.
            let first = reactors as u64 * ios.div_ceil(1000).min(1);
            assert!(
                within(total, ios * 10, 1) || total.abs_diff(ios * 10) <= first,
                "{ios} IOPS on {reactors} reactors: {total} in 10 s"
            );
            // All have the same.
            let least = rig.done.iter().min().unwrap();
            let most = rig.done.iter().max().unwrap();
            assert!(most - least <= ios.div_ceil(500).max(1), "{:?}", rig.done);
        }
    }
}

#[test]
fn bytes_are_limited_whatever_the_size_of_an_io() {
    for (limit, size) in [(1, 1 << 20), (10, 4096), (100, 1 << 20), (4000, 131_072)] {
        let mut rig = Rig::new(2, RateLimits::default().with_megabytes(limit, 0, 0));
        rig.run(10, &[0, 1], Cost::Write(size));
        let wanted = limit * MEGABYTE * 10;
        assert!(
            within(rig.bytes, wanted, 1) || rig.bytes.abs_diff(wanted) <= 2 * size,
            "{limit} MB/s by {size}: {}",
            rig.bytes
        );
    }
}

#[test]
fn who_is_alone_has_all_and_who_comes_later_has_its_share() {
    let mut rig = Rig::new(2, RateLimits::default().with_ios(10_000));
    rig.run(2, &[0], Cost::Read(512));
    assert!(within(rig.done[0], 20_000, 1), "{:?}", rig.done);
    rig.run(2, &[0, 1], Cost::Read(512));
    assert!(within(rig.done[1], 10_000, 1), "{:?}", rig.done);
    assert!(within(rig.total(), 40_000, 1));
}

#[test]
fn what_was_not_used_is_kept_for_a_short_time_only() {
    let mut rig = Rig::new(1, RateLimits::default().with_ios(1000));
    rig.run(1, &[0], Cost::Read(512));
    // Nobody comes for an hour.
    rig.now += 3600 * SECOND;
    let before = rig.total();
    rig.run(1, &[0], Cost::Read(512));
    assert!(rig.total() - before <= 1000 + 20 + 2, "{}", rig.total());
}

/// An owner that has no turn for longer than the burst loses nothing of what is waited for.
#[test]
fn a_late_owner_makes_up_for_it() {
    let mut budget = Budget::new(RateLimits::default().with_ios(1000));
    let ask = Ask {
        resource: Resource::Ios,
        amount: 1,
    };
    let at = |ms: u64| Time::from_nanos(SECOND + ms * 1_000_000);
    for _ in 0..1000 {
        budget.ask(0, ask, at(0));
    }
    let mut granted = 0;
    for ms in [0, 300, 600, 900] {
        while budget.grant(at(ms)).is_some() {
            granted += 1;
        }
    }
    // The burst at the start, and what 900 ms give.
    assert_eq!(granted, 20 + 1 + 900);
    assert_eq!(budget.deadline(), Some(at(901)));
}

#[test]
fn reads_pass_writes_that_wait_for_their_own_limit_and_nothing_else_is_passed() {
    let limits = RateLimits::default().with_megabytes(0, 0, 1);
    let mut throttle = Throttle::new(1, limits);
    let write = Cost::Write(4096);
    assert_eq!(throttle.offer(write, "first write"), None);
    assert_eq!(throttle.offer(Cost::Read(4096), "read"), Some("read"));
    // What costs nothing waits for its turn.
    assert_eq!(throttle.offer(Cost::Free, "flush"), None);
    assert_eq!(throttle.offer(write, "second write"), None);
    assert_eq!(throttle.next_admitted(), None);
    let asks: Vec<Ask> = throttle.asks().collect();
    let slice = Ask {
        resource: Resource::BytesWritten,
        amount: 4096,
    };
    assert_eq!(asks, [slice], "asked for once");
    // A slice of another limit counts for nothing.
    throttle.granted(0, slice);
    assert_eq!(throttle.next_admitted(), None);
    throttle.granted(1, slice);
    assert_eq!(throttle.next_admitted(), Some("first write"));
    assert_eq!(throttle.next_admitted(), Some("flush"));
    assert_eq!(throttle.next_admitted(), None);
    assert_eq!(
        throttle.remove(|io| *io == "second write"),
        Some("second write")
    );
    assert_eq!(throttle.waiting(), 0);
}

/// A large I/O that waits for what reads and writes share is not passed by small ones for ever.
#[test]
fn large_ios_are_not_starved() {
    let mut throttle = Throttle::new(1, RateLimits::default().with_megabytes(1, 0, 0));
    let bytes = |amount| Ask {
        resource: Resource::Bytes,
        amount,
    };
    assert_eq!(throttle.offer(Cost::Write(1 << 20), "large"), None);
    assert_eq!(throttle.asks().next(), Some(bytes(1 << 20)));
    throttle.granted(1, bytes(8192));
    assert_eq!(throttle.offer(Cost::Read(4096), "small"), None);
    assert_eq!(throttle.next_admitted(), None);
    throttle.granted(1, bytes(1 << 20));
    assert_eq!(throttle.next_admitted(), Some("large"));
    assert_eq!(throttle.next_admitted(), Some("small"));
}

#[test]
fn a_change_is_in_effect_at_once() {
    let mut throttle = Throttle::new(1, RateLimits::default().with_ios(1));
    for io in 0..3 {
        assert_eq!(throttle.offer(Cost::Read(512), io), None);
    }
    throttle.set(2, RateLimits::default().with_ios(5000));
    assert_eq!(throttle.next_admitted(), None);
    let asks: Vec<Ask> = throttle.asks().collect();
    assert_eq!(asks.len(), 1, "the owner is asked anew");
    assert_eq!(asks[0].amount, 5);
    throttle.set(3, RateLimits::default());
    assert_eq!(
        [
            throttle.next_admitted(),
            throttle.next_admitted(),
            throttle.next_admitted()
        ],
        [Some(0), Some(1), Some(2)]
    );
}
