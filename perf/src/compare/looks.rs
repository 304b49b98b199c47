//! When runs in turns are looked at, and how sure each look has to be: who looks often finds what is not there.
//!
//! All looks together may call equals worse with a chance of [`ALARM_MAX`], whatever the number of gates. Half of it is for
//! the look at the end of the time, the other half for the looks before, of which each has less than the one before it.

use super::ranks::pairs_min;

/// Chance that equals are called worse, by whichever gate.
pub const ALARM_MAX: f64 = 0.05;

/// The looks of a comparison.
#[derive(Clone, Copy, Debug)]
pub struct Looks {
    /// What is judged: each gate, of the whole and of each job.
    judged: usize,
    /// Looks before.
    done: u32,
    /// Pairs at the next one.
    next: usize,
}

impl Looks {
    /// None yet.
    pub fn new(judged: usize) -> Self {
        let mut looks = Self {
            judged: judged.max(1),
            done: 0,
            next: 0,
        };
        looks.next = pairs_min(looks.share(looks.before_the_end()));
        looks
    }

    /// The chance to be wrong that each side of an interval may have at a look, if one is due after so many pairs.
    pub fn due(&mut self, pairs: usize) -> Option<f64> {
        if pairs < self.next {
            return None;
        }
        let alpha = self.share(self.before_the_end());
        self.done += 1;
        self.next = pairs + (pairs / 2).max(1);
        Some(alpha)
    }

    /// The same of the last look.
    pub fn last(&self) -> f64 {
        self.share(ALARM_MAX / 2.0)
    }

    /// The fewest pairs with which the last look can tell.
    pub fn pairs_min(&self) -> usize {
        pairs_min(self.last())
    }

    /// 1/2, 1/6, 1/12 and so on: together no more than 1.
    fn before_the_end(&self) -> f64 {
        let number = f64::from(self.done + 1);
        ALARM_MAX / 2.0 / (number * (number + 1.0))
    }

    fn share(&self, alpha: f64) -> f64 {
        alpha / self.judged as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_come_less_often_and_share_what_they_may_err() {
        let mut looks = Looks::new(2);
        let all: Vec<(usize, f64)> = (1..2_000)
            .filter_map(|pairs| Some((pairs, looks.due(pairs)?)))
            .collect();
        let pairs: Vec<usize> = all.iter().map(|(pairs, _)| *pairs).collect();
        assert_eq!(pairs[..6], [8, 12, 18, 27, 40, 60]);
        let sum: f64 = all.iter().map(|(_, alpha)| alpha).sum();
        assert!(2.0 * (sum + looks.last()) <= ALARM_MAX, "{sum}");
        assert_eq!(looks.pairs_min(), 7);
    }
}
