//! How much two sides differ, and how sure that is.
//!
//! Everything is done on logarithms, so that differences are ratios. Runs in turns are judged by pairs (see [`SignedRanks`]).
//! Saved results come as two groups, each with an order of its own: their means are compared as Student does, with a spread
//! for each side (Welch). Parts of one run are alike where they are neighbours, and count for fewer than they are.

use super::ranks::SignedRanks;
use super::sample::Measured;
use super::student::{beyond, student};

/// How the new values compare with the base.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effect {
    /// Median.
    pub base: f64,
    /// See `base`.
    pub new: f64,
    /// New by base.
    pub ratio: f64,
    /// Confidence interval on the ratio.
    pub low: f64,
    /// See `low`.
    pub high: f64,
    /// Chance of a difference at least so large between equals.
    pub p: f64,
}

impl Effect {
    /// `None` where there are too few values to tell. The ratio is beyond either end of the interval with a chance of `alpha`.
    pub fn of(values: &Measured<f64>, alpha: f64) -> Option<Self> {
        let (estimate, (low, high), p) = match values {
            Measured::Pairs(pairs) => by_pairs(pairs, alpha)?,
            Measured::Runs(sides) => by_groups(sides, |side| side.len() as f64, alpha)?,
            Measured::Parts(sides) => by_groups(sides, independent, alpha)?,
        };
        let [base, new] = values
            .sides()
            .map(|side| median(side.into_iter().copied().collect()));
        Some(Self {
            base,
            new,
            ratio: estimate.exp(),
            low: low.exp(),
            high: high.exp(),
            p,
        })
    }
}

/// Difference of logarithms, where it may be, and the chance of it between equals.
type Difference = (f64, (f64, f64), f64);

fn by_pairs(pairs: &[[f64; 2]], alpha: f64) -> Option<Difference> {
    let differences = pairs.iter().map(|[base, new]| new.ln() - base.ln());
    let ranks = SignedRanks::new(differences.collect());
    let ends = ranks.interval(alpha)?;
    Some((ranks.estimate(), ends, ranks.p()))
}

/// `worth` says how many independent values those of a side are worth.
fn by_groups(
    sides: &[Vec<f64>; 2],
    worth: impl Fn(&[f64]) -> f64,
    alpha: f64,
) -> Option<Difference> {
    const LEAST: usize = 4;
    if sides.iter().any(|side| side.len() < LEAST) {
        return None;
    }
    let logs = sides
        .each_ref()
        .map(|side| side.iter().map(|value| value.ln()).collect::<Vec<_>>());
    let worth = logs.each_ref().map(|side| worth(side));
    let part = |side: usize| variance(&logs[side]) / worth[side];
    let sum = part(0) + part(1);
    let spread = part(0).powi(2) / (worth[0] - 1.0) + part(1).powi(2) / (worth[1] - 1.0);
    let freedom = if spread > 0.0 {
        sum * sum / spread
    } else {
        1e6
    };
    let (estimate, error) = (mean(&logs[1]) - mean(&logs[0]), sum.sqrt());
    let reach = error * student(1.0 - alpha, freedom);
    let p = match (error > 0.0, estimate == 0.0) {
        (true, _) => beyond(estimate / error, freedom),
        (false, same) => f64::from(u8::from(same)),
    };
    Some((estimate, (estimate - reach, estimate + reach), p))
}

/// How many independent values would vary in their mean as much as these, each of which goes with the one before it. What a
/// short series hides of that is added (Kendall); there are always two.
fn independent(values: &[f64]) -> f64 {
    let (count, middle) = (values.len() as f64, mean(values));
    let product = |pair: &[f64]| (pair[0] - middle) * (pair[1] - middle);
    let whole: f64 = values.iter().map(|value| (value - middle).powi(2)).sum();
    if whole <= 0.0 {
        return count;
    }
    let alike = values.windows(2).map(product).sum::<f64>() / whole;
    let alike = (alike + (1.0 + 4.0 * alike) / count).clamp(0.0, 0.99);
    (count * (1.0 - alike) / (1.0 + alike)).max(2.0)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn variance(values: &[f64]) -> f64 {
    let middle = mean(values);
    let squares = values.iter().map(|value| (value - middle).powi(2));
    squares.sum::<f64>() / (values.len() as f64 - 1.0)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    let at = |place: usize| values.get(place).copied().unwrap_or(0.0);
    f64::midpoint(at(last / 2), at(last.div_ceil(2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saved_runs_are_compared_as_two_groups() {
        let base: Vec<f64> = (0..10).map(|i| 100.0 + f64::from(i)).collect();
        let new: Vec<f64> = base.iter().map(|value| value * 1.5).collect();
        let runs = |new: &[f64]| Measured::Runs([base.clone(), new.to_vec()]);
        let effect = Effect::of(&runs(&new), 0.025).unwrap();
        assert!(
            (effect.ratio - 1.5).abs() < 1e-9 && effect.low > 1.4 && effect.high < 1.6,
            "{effect:?}"
        );
        assert!(effect.p < 0.001, "{effect:?}");
        let same = Effect::of(&runs(&base), 0.025).unwrap();
        assert!((same.ratio - 1.0).abs() < 1e-9 && same.p > 0.9, "{same:?}");
        assert_eq!(Effect::of(&runs(&new[..3]), 0.025), None, "too few");
        assert_eq!(Effect::of(&Measured::Pairs(Vec::new()), 0.025), None);
    }

    #[test]
    fn neighbours_that_are_alike_count_for_fewer() {
        let steady: Vec<f64> = (0..20).map(|i| f64::from(i % 2)).collect();
        let steps: Vec<f64> = (0..20).map(|i| f64::from(i / 10)).collect();
        assert!((independent(&steady) - 20.0).abs() < 1e-9);
        assert!((independent(&steps) - 2.0).abs() < 1e-9);
        assert!((independent(&[1.0; 9]) - 9.0).abs() < 1e-9);
    }

    #[test]
    fn values_without_any_spread_are_no_division_by_nothing() {
        let sides = || [vec![5.0; 4], vec![5.0; 4]];
        for values in [
            Measured::Runs(sides()),
            Measured::Parts(sides()),
            Measured::Pairs(vec![[5.0; 2]; 8]),
        ] {
            let effect = Effect::of(&values, 0.025).unwrap();
            assert_eq!(
                (effect.ratio, effect.low, effect.high, effect.p),
                (1.0, 1.0, 1.0, 1.0)
            );
        }
    }
}
