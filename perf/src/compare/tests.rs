//! The method against machines that do not hold still, as numbers from a seed: how often it errs.

use pollux_reactor::Rng;

use super::sample::{Measured, Sample};
use super::verdict::tests::figures;
use super::verdict::{Verdict, judge, looks};
use crate::load::unit;

const GATES: &str = "iops:-1%,p99:+1%";
/// Of each kind.
const COMPARISONS: usize = 40;
/// As many pairs as there is time for.
const PAIRS_MAX: usize = 48;

/// What a machine does by itself: its speed from run to run.
#[derive(Clone, Copy, Debug)]
enum Machine {
    /// Some noise.
    Quiet,
    /// It loses a third of its speed in the course of the comparison.
    Drifting,
    /// It is one and a half times as fast for some runs, and then is not.
    Stepping,
    /// Each run is much like the one before it.
    Wandering,
    /// In a third of the runs a neighbour takes half of it.
    Shared,
}

impl Machine {
    /// Speed and p99 of each of so many runs.
    fn runs(self, count: usize, rng: &mut Rng) -> Vec<[f64; 2]> {
        let (mut fast, mut place) = (false, 0.0);
        let mut run = |number: usize| {
            let chance = unit(rng);
            fast ^= chance < 0.15;
            place = 0.95 * place + 0.03 * normal(rng);
            let is_shared = matches!(self, Self::Shared) && chance > 0.66;
            let speed = match self {
                Self::Drifting => 1.0 - number as f64 / count as f64 / 3.0,
                Self::Stepping if fast => 1.5,
                Self::Wandering => place.exp(),
                Self::Shared if is_shared => 0.5,
                _ => 1.0,
            };
            let speed = speed * (0.01 * normal(rng)).exp();
            let tail = if is_shared { 30.0 } else { 1.0 };
            [speed, tail / speed * (0.02 * normal(rng)).exp()]
        };
        (0..count).map(&mut run).collect()
    }
}

/// Twelve of them add up to a normal distribution, nearly.
fn normal(rng: &mut Rng) -> f64 {
    (0..12).map(|_| unit(rng)).sum::<f64>() - 6.0
}

fn sample([speed, p99]: [f64; 2], factor: f64) -> Sample {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "nanoseconds"
    )]
    let p99 = (100_000.0 * p99 * factor) as u64;
    Sample {
        whole: figures(50_000.0 * speed / factor, p99),
        jobs: Vec::new(),
    }
}

/// Runs in turns, looked at as live ones are; the new side is slower by `factor`.
fn live(machine: Machine, factor: f64, rng: &mut Rng) -> Verdict {
    let gates = GATES.parse().unwrap();
    let runs = machine.runs(2 * PAIRS_MAX, rng);
    let mut looks = looks(None, &gates);
    let mut pairs = Vec::new();
    for (number, two) in runs.chunks(2).enumerate() {
        let base = usize::from(rng.below(2) == 1);
        pairs.push([sample(two[base], 1.0), sample(two[1 - base], factor)]);
        let last = number + 1 == PAIRS_MAX;
        let due = looks.due(pairs.len());
        if let Some(alpha) = if last { Some(looks.last()) } else { due } {
            let comparison = judge(&Measured::Pairs(pairs.clone()), &gates, alpha);
            if last || comparison.is_decided() {
                return comparison.verdict();
            }
        }
    }
    unreachable!("the last look gives a verdict")
}

/// How many of so many comparisons were failed and passed.
fn verdicts(count: usize, mut one: impl FnMut() -> Verdict) -> (usize, usize) {
    let all: Vec<Verdict> = (0..count).map(|_| one()).collect();
    let of = |wanted| all.iter().filter(|verdict| **verdict == wanted).count();
    (of(Verdict::Failed), of(Verdict::Passed))
}

#[test]
fn equals_are_seldom_called_worse_whatever_the_machine_does() {
    for machine in [
        Machine::Quiet,
        Machine::Drifting,
        Machine::Stepping,
        Machine::Wandering,
        Machine::Shared,
    ] {
        let mut rng = Rng::seeded(1);
        let (alarms, _) = verdicts(COMPARISONS, || live(machine, 1.0, &mut rng));
        assert!(alarms <= 2, "{machine:?}: {alarms} of {COMPARISONS}");
    }
}

#[test]
fn five_percent_are_caught_or_it_is_said_that_nothing_can_be_told() {
    for (machine, wanted) in [
        (Machine::Quiet, 38),
        (Machine::Drifting, 38),
        (Machine::Stepping, 38),
        (Machine::Wandering, 38),
        (Machine::Shared, 0),
    ] {
        let mut rng = Rng::seeded(2);
        let (caught, passed) = verdicts(COMPARISONS, || live(machine, 1.05, &mut rng));
        assert!(
            caught >= wanted && passed <= 1,
            "{machine:?}: {caught} caught, {passed} passed of {COMPARISONS}"
        );
    }
}

#[test]
fn parts_of_one_run_do_not_pass_for_runs() {
    let gates = GATES.parse().unwrap();
    for (machine, wanted) in [(Machine::Quiet, 95), (Machine::Wandering, 60)] {
        let mut rng = Rng::seeded(3);
        let mut one = |factor| {
            let mut side = |factor| -> Vec<Sample> {
                let parts = machine.runs(20, &mut rng).into_iter();
                parts.map(|part| sample(part, factor)).collect()
            };
            let samples = Measured::Parts([side(1.0), side(factor)]);
            judge(&samples, &gates, looks(None, &gates).last()).verdict()
        };
        let (alarms, _) = verdicts(100, || one(1.0));
        assert!(alarms <= 10, "{machine:?}: {alarms} of 100");
        let (caught, _) = verdicts(100, || one(2.0));
        assert!(caught >= wanted, "{machine:?}: {caught} of 100");
    }
}
