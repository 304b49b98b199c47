//! Wilcoxon's signed ranks: what pairs of runs say about the difference within them.
//!
//! The order within each pair was drawn. If the sides are alike, whatever the machine does by itself (drifts, steps of its
//! speed, neighbours) therefore makes a difference as likely larger as smaller, and the signs of the differences are those of
//! coins. Nothing else is assumed: not that differences are normal, nor that pairs do not hang together.

use super::student::{normal, tail};

/// With more pairs the distribution of ranks is as good as normal.
const EXACT_MAX: usize = 60;

/// Ends of intervals are found to this part of a difference.
const NEAR: f64 = 1e-12;

/// Differences of pairs.
#[derive(Clone, Debug)]
pub struct SignedRanks {
    sorted: Vec<f64>,
}

impl SignedRanks {
    /// Of at least one difference.
    pub fn new(mut differences: Vec<f64>) -> Self {
        differences.sort_by(f64::total_cmp);
        Self {
            sorted: differences,
        }
    }

    /// The estimate of Hodges and Lehmann: the median of the means of any two differences, and of each with itself. Pairs in
    /// which something else happened hardly move it.
    pub fn estimate(&self) -> f64 {
        let all = self.means();
        (self.mean_at(all.div_ceil(2)) + self.mean_at(all / 2 + 1)) / 2.0
    }

    /// Where the difference is, but for a chance of `alpha` on each side; `None` where so few pairs cannot tell.
    pub fn interval(&self, alpha: f64) -> Option<(f64, f64)> {
        let place = place_of_end(self.sorted.len(), alpha);
        (place > 0).then(|| {
            let other = self.means() + 1 - place;
            (self.mean_at(place), self.mean_at(other))
        })
    }

    /// Chance of a difference at least so large, in either direction, between equals.
    pub fn p(&self) -> f64 {
        let above = self.means() - self.means_up_to(0.0);
        let below = self.means_up_to(-f64::MIN_POSITIVE);
        let ties = self.means() - above - below;
        let least = above.min(below) as f64 + ties as f64 / 2.0;
        (2.0 * chance_of_at_most(self.sorted.len(), least)).min(1.0)
    }

    /// How many means of two there are.
    fn means(&self) -> u64 {
        let count = self.sorted.len() as u64;
        count * (count + 1) / 2
    }

    /// How many of them are at most `limit`.
    fn means_up_to(&self, limit: f64) -> u64 {
        let mut end = self.sorted.len();
        let mut count = 0;
        for (first, one) in self.sorted.iter().enumerate() {
            while end > first && f64::midpoint(*one, self.sorted[end - 1]) > limit {
                end -= 1;
            }
            if end <= first {
                break;
            }
            count += (end - first) as u64;
        }
        count
    }

    /// The mean at a place of their order, the first of which is 1.
    fn mean_at(&self, place: u64) -> f64 {
        let (mut low, mut high) = (self.sorted[0], self.sorted[self.sorted.len() - 1]);
        if self.means_up_to(low) >= place {
            return low;
        }
        loop {
            let middle = f64::midpoint(low, high);
            if high - low < NEAR {
                return high;
            }
            match self.means_up_to(middle) >= place {
                true => high = middle,
                false => low = middle,
            }
        }
    }
}

/// The fewest pairs that can tell.
pub fn pairs_min(alpha: f64) -> usize {
    (1..EXACT_MAX)
        .find(|&pairs| place_of_end(pairs, alpha) > 0)
        .unwrap_or(EXACT_MAX)
}

/// The place of the lower end of an interval among the means; 0: there is none.
fn place_of_end(pairs: usize, alpha: f64) -> u64 {
    if pairs > EXACT_MAX {
        let (middle, spread) = middle_and_spread(pairs);
        let place = middle + 0.5 - normal(1.0 - alpha) * spread;
        return crate::text::rounded(place.floor().max(0.0));
    }
    let mut sum = 0.0;
    let fits = chances(pairs).into_iter().take_while(|chance| {
        sum += chance;
        sum <= alpha
    });
    fits.count() as u64
}

/// The chance of a sum of ranks that is no larger.
fn chance_of_at_most(pairs: usize, sum: f64) -> f64 {
    if pairs > EXACT_MAX {
        let (middle, spread) = middle_and_spread(pairs);
        return tail((middle - sum - 0.5) / spread);
    }
    let sums = (0_u32..).zip(chances(pairs));
    sums.take_while(|(at, _)| f64::from(*at) <= sum)
        .map(|(_, chance)| chance)
        .sum()
}

/// Of the sums of ranks.
fn middle_and_spread(pairs: usize) -> (f64, f64) {
    let n = pairs as f64;
    let spread = (n * (n + 1.0) * (2.0 * n + 1.0) / 24.0).sqrt();
    (n * (n + 1.0) / 4.0, spread)
}

/// The chance of each sum of ranks if every sign is that of a coin.
fn chances(pairs: usize) -> Vec<f64> {
    let mut chances = vec![1.0];
    for rank in 1..=pairs {
        let mut next = vec![0.0; chances.len() + rank];
        for (sum, chance) in chances.iter().enumerate() {
            next[sum] += chance / 2.0;
            next[sum + rank] += chance / 2.0;
        }
        chances = next;
    }
    chances
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_those_of_the_tables() {
        // Critical values of the signed-rank test, two-sided: the sum that is just refused, and with it the place.
        for (pairs, alpha, refused) in [
            (6, 0.025, 0),
            (10, 0.025, 8),
            (20, 0.025, 52),
            (20, 0.005, 37),
            (50, 0.025, 434),
        ] {
            assert_eq!(place_of_end(pairs, alpha), refused + 1, "{pairs} {alpha}");
        }
        assert_eq!((pairs_min(0.025), pairs_min(0.006_25)), (6, 8));
        // Exact and normal where one hands over to the other.
        let (exact, about) = (place_of_end(60, 0.01), place_of_end(61, 0.01));
        assert!((exact..exact + 25).contains(&about), "{exact} {about}");
    }

    #[test]
    fn the_estimate_is_the_median_of_all_means() {
        let differences = [0.3, -0.1, 0.5, 9.0, 0.2, 0.4, -7.0];
        let mut means: Vec<f64> = Vec::new();
        for (first, one) in differences.iter().enumerate() {
            means.extend(differences[first..].iter().map(|d| f64::midpoint(*one, *d)));
        }
        means.sort_by(f64::total_cmp);
        let ranks = SignedRanks::new(differences.to_vec());
        assert!((ranks.estimate() - f64::midpoint(means[13], means[14])).abs() < 1e-9);
        let (low, high) = ranks.interval(0.025).unwrap();
        assert!((low - means[2]).abs() < 1e-9 && (high - means[25]).abs() < 1e-9);
        assert_eq!(SignedRanks::new(vec![1.0; 3]).interval(0.025), None);
    }

    #[test]
    fn the_chance_is_that_of_coins() {
        let ranks = |differences: &[f64]| SignedRanks::new(differences.to_vec()).p();
        assert!((ranks(&[0.1, 0.2, 0.3, 0.4, 0.5]) - 0.0625).abs() < 1e-12);
        assert!((ranks(&[-0.1, 0.2, 0.3, 0.4, 0.5]) - 0.125).abs() < 1e-12);
        assert!(ranks(&[0.0; 5]) > 0.99);
        let many: Vec<f64> = (0..100).map(|n| f64::from(n) - 40.0).collect();
        assert!((0.001..0.05).contains(&ranks(&many)), "{}", ranks(&many));
    }
}
