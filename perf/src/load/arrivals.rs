//! Open loop: when I/Os are due, whatever became of those before.
//!
//! An I/O that is due while all slots are taken waits, and its latency counts from the moment it was due: a stall is in
//! the figures with all that it held up, and not only with the few I/Os that were in flight.

use clap::ValueEnum;
use pollux_reactor::Rng;

/// `--arrivals`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Process {
    /// One after the other at equal distances
    #[default]
    Constant,
    /// At random, independent of each other, as from many users
    Poisson,
}

impl Process {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Poisson => "poisson",
        }
    }
}

/// How often I/Os are due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// I/Os per second of all jobs together.
    pub iops: u64,
    /// How they are spread over time.
    pub process: Process,
}

/// I/Os that were due and had not been started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// The most at a time.
    pub most: u64,
    /// How many there are now.
    pub now: u64,
}

/// The times at which the I/Os of one job are due. The same seed gives the same times.
#[derive(Clone, Debug)]
pub struct Arrivals {
    /// When the next I/O is to be started.
    next: Times,
    /// Runs ahead of it, up to the present.
    ahead: Times,
    start_ns: Option<u64>,
    /// I/Os due until now.
    due: u64,
    started: u64,
    most: u64,
}

impl Arrivals {
    /// Job number `job` of `jobs` gets its share of the rate.
    pub fn new(rate: Rate, job: usize, jobs: usize, seed: u64) -> Self {
        let mean_ns = 1e9 * jobs as f64 / rate.iops as f64;
        let mut times = Times {
            // Apart from the generator's, so that a rate does not change the offsets.
            rng: Rng::seeded(seed ^ 0x6172_7269_7661_6c73),
            process: rate.process,
            mean_ns,
            at_ns: 0.0,
        };
        match rate.process {
            Process::Constant => times.at_ns = mean_ns * job as f64 / jobs as f64,
            Process::Poisson => times.advance(),
        }
        Self {
            ahead: times.clone(),
            next: times,
            start_ns: None,
            due: 0,
            started: 0,
            most: 0,
        }
    }

    /// Counts what has become due. The first call is the start.
    pub fn look(&mut self, now_ns: u64) {
        let start_ns = *self.start_ns.get_or_insert(now_ns);
        let since_ns = now_ns.saturating_sub(start_ns) as f64;
        while self.ahead.at_ns <= since_ns {
            self.ahead.advance();
            self.due += 1;
        }
    }

    /// When the next I/O was due, if it was by the latest [`look`](Self::look).
    pub fn next_due_ns(&self) -> Option<u64> {
        let start_ns = self.start_ns?;
        (self.started < self.due).then(|| start_ns + self.next.at_ns())
    }

    /// The next I/O is started.
    pub fn start(&mut self) {
        debug_assert!(
            self.started < self.due,
            "nothing is started before it is due"
        );
        self.started += 1;
        self.next.advance();
    }

    /// There is no room for what is due.
    pub fn note_backlog(&mut self) {
        self.most = self.most.max(self.due - self.started);
    }

    /// The backlog; the most of it since the last time.
    pub fn take_backlog(&mut self) -> Backlog {
        let now = self.due - self.started;
        let most = std::mem::replace(&mut self.most, now).max(now);
        Backlog { most, now }
    }

    /// The ages of what was due and will not be started any more, each with the number of I/Os it stands for. Of a very
    /// long backlog not every I/O has an age of its own, so that this takes milliseconds at most.
    pub fn unstarted(&self, now_ns: u64) -> impl Iterator<Item = (u64, u64)> {
        const AGES_MAX: u64 = 100_000;
        let left = self.due - self.started;
        let stride = left.div_ceil(AGES_MAX).max(1);
        let start_ns = self.start_ns.unwrap_or(now_ns);
        let now = now_ns.saturating_sub(start_ns);
        // Between the first that waits and the present, a very long backlog is as good as evenly spread.
        let step = (now.saturating_sub(self.next.at_ns())) as f64 / left.max(1) as f64;
        let mut times = self.next.clone();
        (0..left.div_ceil(stride)).map(move |index| {
            let first = index * stride;
            let age_ns = match stride {
                1 => {
                    let at_ns = times.at_ns();
                    times.advance();
                    now.saturating_sub(at_ns)
                }
                _ => whole((left - first) as f64 * step),
            };
            (age_ns, stride.min(left - first))
        })
    }
}

/// Times since the start, in nanoseconds.
#[derive(Clone, Debug)]
struct Times {
    rng: Rng,
    process: Process,
    mean_ns: f64,
    at_ns: f64,
}

impl Times {
    fn advance(&mut self) {
        self.at_ns += match self.process {
            Process::Constant => self.mean_ns,
            // The unit interval without its 0, whose logarithm is infinite.
            Process::Poisson => -self.mean_ns * (1.0 - unit(&mut self.rng)).ln(),
        };
    }

    fn at_ns(&self) -> u64 {
        whole(self.at_ns)
    }
}

/// A number from 0 to below 1.
pub fn unit(rng: &mut Rng) -> f64 {
    const BITS: u32 = f64::MANTISSA_DIGITS;
    (rng.next_u64() >> (64 - BITS)) as f64 / (1u64 << BITS) as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "times since the start: not negative, far below 2^64"
)]
fn whole(nanos: f64) -> u64 {
    nanos as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn arrivals(iops: u64, process: Process, seed: u64) -> Arrivals {
        Arrivals::new(Rate { iops, process }, 0, 1, seed)
    }

    fn times(mut arrivals: Arrivals, until_ns: u64) -> Vec<u64> {
        arrivals.look(0);
        arrivals.look(until_ns);
        let mut times = Vec::new();
        while let Some(at_ns) = arrivals.next_due_ns() {
            times.push(at_ns);
            arrivals.start();
        }
        times
    }

    #[test]
    fn constant_arrivals_are_equally_far_apart_and_jobs_share_them() {
        assert_eq!(
            times(arrivals(1_000, Process::Constant, 1), 3 * MS),
            [0, MS, 2 * MS, 3 * MS]
        );
        let rate = Rate {
            iops: 1_000,
            process: Process::Constant,
        };
        let second = Arrivals::new(rate, 1, 2, 1);
        assert_eq!(times(second, 4 * MS), [MS, 3 * MS]);
    }

    #[test]
    fn a_seed_gives_the_same_arrivals() {
        let draw = |seed| times(arrivals(10_000, Process::Poisson, seed), 100 * MS);
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_the_spread() {
        let times = times(arrivals(100_000, Process::Poisson, 3), 1_000 * MS);
        assert!((99_000..101_000).contains(&times.len()), "{}", times.len());
        let gaps: Vec<f64> = times
            .windows(2)
            .map(|pair| (pair[1] - pair[0]) as f64)
            .collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // An exponential distribution has equal ones.
        assert!(
            (variance.sqrt() / mean - 1.0).abs() < 0.03,
            "{mean} {variance}"
        );
        let beyond = gaps.iter().filter(|&&gap| gap > 3.0 * mean).count() as f64;
        assert!((beyond / gaps.len() as f64 - (-3.0_f64).exp()).abs() < 0.005);
    }

    #[test]
    fn what_waits_is_counted_and_has_an_age() {
        let mut arrivals = arrivals(1_000, Process::Constant, 1);
        arrivals.look(5 * MS);
        assert_eq!(
            arrivals.next_due_ns(),
            Some(5 * MS),
            "the first look is the start"
        );
        arrivals.start();
        assert_eq!(arrivals.next_due_ns(), None);
        arrivals.look(15 * MS);
        arrivals.note_backlog();
        for _ in 0..7 {
            arrivals.start();
        }
        assert_eq!(arrivals.take_backlog(), Backlog { most: 10, now: 3 });
        assert_eq!(arrivals.take_backlog(), Backlog { most: 3, now: 3 });
        let ages: Vec<_> = arrivals.unstarted(16 * MS).collect();
        assert_eq!(ages, [(3 * MS, 1), (2 * MS, 1), (MS, 1)]);
    }

    #[test]
    fn a_very_long_backlog_is_counted_in_full_and_in_little_time() {
        let mut arrivals = arrivals(1_000_000, Process::Constant, 1);
        arrivals.look(0);
        arrivals.look(1_000 * MS);
        let ages: Vec<_> = arrivals.unstarted(1_000 * MS).collect();
        assert!(ages.len() <= 100_000, "{}", ages.len());
        assert_eq!(ages.iter().map(|(_, count)| count).sum::<u64>(), 1_000_001);
        assert!(
            (999 * MS..=1_000 * MS).contains(&ages[0].0),
            "{:?}",
            ages[0]
        );
        assert!(ages[ages.len() - 1].0 < MS);
    }
}
