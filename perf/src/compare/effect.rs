//! How much two sets of samples differ, and how sure that is.
//!
//! Everything is done on logarithms, so that differences are ratios. Samples come in blocks, each with some of both
//! sides: what drifts over minutes is the same within a block. A permutation test shuffles the sides within the blocks;
//! the confidence interval on the ratio is Student's, over the blocks where there are several, else over the samples.

use pollux_reactor::Rng;

/// Shuffles of the permutation test.
const SHUFFLES: u32 = 2_000;

/// Values of one metric, measured close to each other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Block {
    /// Values of the base.
    pub base: Vec<f64>,
    /// Values of what is compared with it.
    pub new: Vec<f64>,
}

/// How the new values compare with the base.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effect {
    /// Geometric means.
    pub base: f64,
    /// See `base`.
    pub new: f64,
    /// New by base.
    pub ratio: f64,
    /// Confidence interval on the ratio.
    pub low: f64,
    /// See `low`.
    pub high: f64,
    /// Probability of a difference at least so large between equals.
    pub p: f64,
}

impl Effect {
    /// `None` where there are too few values to know how much they spread. `confidence` is that of the interval.
    pub fn of(blocks: &[Block], confidence: f64, seed: u64) -> Option<Self> {
        let logs = |side: fn(&Block) -> &Vec<f64>| -> Vec<f64> {
            let values = blocks.iter().flat_map(side);
            values.map(|value| value.ln()).collect()
        };
        let (base, new) = (logs(|block| &block.base), logs(|block| &block.new));
        let (estimate, error, freedom) = match blocks {
            [_] => welch(&base, &new)?,
            _ => by_block(blocks)?,
        };
        let reach = error * student(1.0 - (1.0 - confidence) / 2.0, freedom);
        Some(Self {
            base: mean(&base).exp(),
            new: mean(&new).exp(),
            ratio: estimate.exp(),
            low: (estimate - reach).exp(),
            high: (estimate + reach).exp(),
            p: permutation(blocks, seed),
        })
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn variance(values: &[f64]) -> f64 {
    let middle = mean(values);
    let squares = values.iter().map(|value| (value - middle).powi(2));
    squares.sum::<f64>() / (values.len() as f64 - 1.0)
}

/// Difference of means, its standard error, and degrees of freedom; both sides on their own.
fn welch(base: &[f64], new: &[f64]) -> Option<(f64, f64, f64)> {
    const LEAST: usize = 4;
    if base.len() < LEAST || new.len() < LEAST {
        return None;
    }
    let parts = [base, new].map(|side| variance(side) / side.len() as f64);
    let sum = parts[0] + parts[1];
    let spread =
        parts[0].powi(2) / (base.len() as f64 - 1.0) + parts[1].powi(2) / (new.len() as f64 - 1.0);
    let freedom = if spread > 0.0 {
        sum * sum / spread
    } else {
        1e6
    };
    Some((mean(new) - mean(base), sum.sqrt(), freedom))
}

/// The same of the differences within blocks.
fn by_block(blocks: &[Block]) -> Option<(f64, f64, f64)> {
    const LEAST: usize = 3;
    let differences: Vec<f64> = blocks.iter().filter_map(difference).collect();
    if differences.len() < LEAST {
        return None;
    }
    let count = differences.len() as f64;
    let error = (variance(&differences) / count).sqrt();
    Some((mean(&differences), error, count - 1.0))
}

fn difference(block: &Block) -> Option<f64> {
    if block.base.is_empty() || block.new.is_empty() {
        return None;
    }
    let logs = |side: &[f64]| mean(&side.iter().map(|value| value.ln()).collect::<Vec<_>>());
    Some(logs(&block.new) - logs(&block.base))
}

/// The share of shuffles within blocks that differ at least as much as what was measured, that one included.
fn permutation(blocks: &[Block], seed: u64) -> f64 {
    let sum = |blocks: &[Block]| blocks.iter().filter_map(difference).sum::<f64>().abs();
    let found = sum(blocks) * (1.0 - 1e-12);
    let mut rng = Rng::seeded(seed);
    let mut shuffled = blocks.to_vec();
    let mut as_far = 1;
    for _ in 0..SHUFFLES {
        for block in &mut shuffled {
            let split = block.base.len();
            let mut all: Vec<f64> = block.base.iter().chain(&block.new).copied().collect();
            shuffle(&mut all, &mut rng);
            block.new = all.split_off(split);
            block.base = all;
        }
        as_far += u32::from(sum(&shuffled) >= found);
    }
    f64::from(as_far) / f64::from(SHUFFLES + 1)
}

/// Puts values into an order that is drawn.
pub fn shuffle<T>(values: &mut [T], rng: &mut Rng) {
    for last in (1..values.len()).rev() {
        #[expect(clippy::cast_possible_truncation, reason = "below a length")]
        let other = rng.below(last as u64 + 1) as usize;
        values.swap(last, other);
    }
}

/// Quantile of Student's distribution (Hill, 1970, by the Cornish-Fisher expansion; exact for 1 and 2 degrees).
fn student(quantile: f64, freedom: f64) -> f64 {
    if freedom < 1.5 {
        return (std::f64::consts::PI * (quantile - 0.5)).tan();
    }
    if freedom < 2.5 {
        let a = 2.0 * quantile - 1.0;
        return a * (2.0 / (1.0 - a * a)).sqrt();
    }
    let z = normal(quantile);
    let (z2, v) = (z * z, freedom);
    z + z * (z2 + 1.0) / (4.0 * v)
        + z * ((5.0 * z2 + 16.0) * z2 + 3.0) / (96.0 * v.powi(2))
        + z * (((3.0 * z2 + 19.0) * z2 + 17.0) * z2 - 15.0) / (384.0 * v.powi(3))
        + z * ((((79.0 * z2 + 776.0) * z2 + 1482.0) * z2 - 1920.0) * z2 - 945.0)
            / (92_160.0 * v.powi(4))
}

/// Quantile of the normal distribution above one half, to 4.5e-4 (Abramowitz and Stegun, 26.2.23).
fn normal(quantile: f64) -> f64 {
    let t = (-2.0 * (1.0 - quantile).ln()).sqrt();
    t - (2.515_517 + t * (0.802_853 + t * 0.010_328))
        / (1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::unit;

    /// Twelve of them add up to a normal distribution, nearly.
    fn noise(rng: &mut Rng, spread: f64) -> f64 {
        let sum: f64 = (0..12).map(|_| unit(rng)).sum();
        (spread * (sum - 6.0)).exp()
    }

    fn blocks(rng: &mut Rng, count: usize, ratio: f64, spread: f64) -> Vec<Block> {
        (0..count)
            .map(|_| {
                // The machine drifts by far more than what is looked for.
                let level = 1_000.0 * noise(rng, 0.2);
                let mut draw = |factor: f64| {
                    vec![
                        level * factor * noise(rng, spread),
                        level * factor * noise(rng, spread),
                    ]
                };
                Block {
                    base: draw(1.0),
                    new: draw(ratio),
                }
            })
            .collect()
    }

    #[test]
    fn quantiles_of_student_are_those_of_the_tables() {
        for (quantile, freedom, wanted) in [
            (0.975, 1.0, 12.706),
            (0.975, 2.0, 4.303),
            (0.975, 3.0, 3.182),
            (0.975, 10.0, 2.228),
            (0.995, 5.0, 4.032),
            (0.995, 1e6, 2.576),
        ] {
            let found = student(quantile, freedom);
            assert!(
                (found / wanted - 1.0).abs() < 0.01,
                "{quantile} {freedom}: {found}"
            );
        }
    }

    #[test]
    fn a_difference_of_five_percent_is_found_below_a_drift_of_twenty() {
        let mut rng = Rng::seeded(1);
        let mut found = 0;
        for trial in 0..20 {
            let effect = Effect::of(&blocks(&mut rng, 8, 0.95, 0.02), 0.99, trial).unwrap();
            found += u32::from(effect.high < 0.99 && effect.p < 0.05);
        }
        assert!(found >= 19, "{found} of 20");
    }

    #[test]
    fn equals_are_seldom_called_different() {
        let mut rng = Rng::seeded(2);
        let (mut outside, mut significant) = (0, 0);
        for trial in 0..200 {
            let effect = Effect::of(&blocks(&mut rng, 6, 1.0, 0.03), 0.95, trial).unwrap();
            outside += u32::from(effect.low > 1.0 || effect.high < 1.0);
            significant += u32::from(effect.p < 0.05);
        }
        assert!(
            (2..=20).contains(&outside) && (2..=20).contains(&significant),
            "{outside} {significant}"
        );
    }

    #[test]
    fn saved_samples_are_compared_as_two_groups() {
        let base: Vec<f64> = (0..10).map(|i| 100.0 + f64::from(i)).collect();
        let new: Vec<f64> = base.iter().map(|value| value * 1.5).collect();
        let block = |new: &[f64]| {
            [Block {
                base: base.clone(),
                new: new.to_vec(),
            }]
        };
        let effect = Effect::of(&block(&new), 0.95, 1).unwrap();
        assert!(
            (effect.ratio - 1.5).abs() < 1e-9 && effect.low > 1.4 && effect.high < 1.6,
            "{effect:?}"
        );
        assert!(effect.p < 0.001, "{effect:?}");
        let same = Effect::of(&block(&base), 0.95, 1).unwrap();
        assert!((same.ratio - 1.0).abs() < 1e-9 && same.p > 0.9, "{same:?}");
        assert_eq!(Effect::of(&block(&new[..3]), 0.95, 1), None, "too few");
        assert_eq!(Effect::of(&[], 0.95, 1), None);
    }

    #[test]
    fn values_without_any_spread_are_no_division_by_nothing() {
        let block = Block {
            base: vec![5.0; 4],
            new: vec![5.0; 4],
        };
        let effect = Effect::of(&[block], 0.95, 1).unwrap();
        assert_eq!(
            (effect.ratio, effect.low, effect.high, effect.p),
            (1.0, 1.0, 1.0, 1.0)
        );
    }
}
