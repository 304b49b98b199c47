//! Which of the places that a random I/O may start at: all alike, few often (Zipf), or a hot part of the volume.

use std::fmt;
use std::str::FromStr;

use pollux_reactor::Rng;

use super::arrivals::unit;

/// `--random-distribution`
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Distribution {
    /// All places alike.
    #[default]
    Uniform,
    /// The place of rank k is as likely as k to the power of minus theta. Ranks are scattered over the volume.
    Zipf(f64),
    /// So many percent of the I/O go to the first so many percent of the places, the rest to the others.
    Hot {
        /// Percent of the I/O.
        ios: u8,
        /// Percent of the places.
        places: u8,
    },
}

impl FromStr for Distribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "distribution '{text}' is not possible: allowed are random, zipf:THETA with 0.01 to 5, and hot:IOS/PLACES in percent such as hot:80/20"
            )
        };
        let (name, value) = text.split_once(':').unwrap_or((text, ""));
        let percent = |text: &str| match text.parse() {
            Ok(percent @ 1..=99) => Ok(percent),
            _ => Err(bad()),
        };
        match name {
            "random" | "uniform" if value.is_empty() => Ok(Self::Uniform),
            "zipf" => zipf(value).ok_or_else(bad),
            "hot" => {
                let (ios, places) = value.split_once('/').ok_or_else(bad)?;
                let (ios, places) = (percent(ios)?, percent(places)?);
                Ok(Self::Hot { ios, places })
            }
            // As -F of spdk_nvme_perf has it.
            _ => zipf(text).ok_or_else(bad),
        }
    }
}

fn zipf(theta: &str) -> Option<Distribution> {
    let theta = theta.parse().ok()?;
    (0.01..=5.0)
        .contains(&theta)
        .then_some(Distribution::Zipf(theta))
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uniform => f.write_str("random"),
            Self::Zipf(theta) => write!(f, "zipf:{theta}"),
            Self::Hot { ios, places } => write!(f, "hot:{ios}/{places}"),
        }
    }
}

/// Draws places from 0 to below a number of them.
#[derive(Clone, Debug)]
pub struct Picker {
    places: u64,
    way: Way,
}

#[derive(Clone, Debug)]
enum Way {
    Uniform,
    Zipf { zipf: Zipf, scatter: u64 },
    Hot { ios: u64, hot: u64 },
}

impl Picker {
    /// `places` is at least 1.
    pub fn new(distribution: Distribution, places: u64) -> Self {
        assert!(places > 0, "an I/O has at least one place");
        let way = match distribution {
            Distribution::Uniform => Way::Uniform,
            Distribution::Zipf(theta) => Way::Zipf {
                zipf: Zipf::new(theta, places),
                scatter: coprime(places),
            },
            Distribution::Hot { ios, places: share } => Way::Hot {
                ios: ios.into(),
                hot: (places / 100 * u64::from(share) + places % 100 * u64::from(share) / 100)
                    .max(1),
            },
        };
        Self { places, way }
    }

    /// The next place.
    pub fn pick(&self, rng: &mut Rng) -> u64 {
        match &self.way {
            Way::Uniform => rng.below(self.places),
            Way::Zipf { zipf, scatter } => {
                let rank = u128::from(zipf.draw(rng) - 1);
                let place = rank * u128::from(*scatter) % u128::from(self.places);
                #[expect(clippy::cast_possible_truncation, reason = "below `places`")]
                let place = place as u64;
                place
            }
            Way::Hot { ios, hot } => {
                let cold = self.places - hot;
                if cold == 0 || rng.below(100) < *ios {
                    rng.below(*hot)
                } else {
                    hot + rng.below(cold)
                }
            }
        }
    }
}

/// A multiplier that reaches every place exactly once: far from a small fraction of `places`, and without a divisor in
/// common with it.
fn coprime(places: u64) -> u64 {
    let divisor = |mut a: u64, mut b: u64| {
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    // The golden section.
    let first = places / 1000 * 618 + places % 1000 * 618 / 1000;
    let mut numbers = first.max(1)..;
    numbers
        .find(|&number| divisor(number, places) == 1)
        .unwrap_or(1)
}

/// Ranks from 1 to n by rejection inversion (Hörmann and Derflinger, 1996): no table, a constant number of draws.
#[derive(Clone, Debug)]
struct Zipf {
    theta: f64,
    n: f64,
    low: f64,
    high: f64,
    shortcut: f64,
}

impl Zipf {
    fn new(theta: f64, n: u64) -> Self {
        let mut zipf = Self {
            theta,
            n: n as f64,
            low: 0.0,
            high: 0.0,
            shortcut: 0.0,
        };
        zipf.low = zipf.integral(1.5) - 1.0;
        zipf.high = zipf.integral(zipf.n + 0.5);
        zipf.shortcut = 2.0 - zipf.inverse(zipf.integral(2.5) - zipf.height(2.0));
        zipf
    }

    fn draw(&self, rng: &mut Rng) -> u64 {
        loop {
            let area = self.high + unit(rng) * (self.low - self.high);
            let x = self.inverse(area);
            let rank = x.round().clamp(1.0, self.n);
            if rank - x <= self.shortcut || area >= self.integral(rank + 0.5) - self.height(rank) {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a whole number from 1 to n"
                )]
                return rank as u64;
            }
        }
    }

    fn height(&self, x: f64) -> f64 {
        (-self.theta * x.ln()).exp()
    }

    fn integral(&self, x: f64) -> f64 {
        let log = x.ln();
        let t = (1.0 - self.theta) * log;
        let factor = if t.abs() > 1e-8 {
            t.exp_m1() / t
        } else {
            1.0 + t / 2.0
        };
        factor * log
    }

    fn inverse(&self, area: f64) -> f64 {
        let t = (area * (1.0 - self.theta)).max(-1.0);
        let factor = if t.abs() > 1e-8 {
            t.ln_1p() / t
        } else {
            1.0 - t / 2.0
        };
        (factor * area).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(distribution: &str, places: u64, draws: u32) -> Vec<u32> {
        let picker = Picker::new(distribution.parse().unwrap(), places);
        let mut rng = Rng::seeded(11);
        let mut counts = vec![0; usize::try_from(places).unwrap()];
        for _ in 0..draws {
            counts[usize::try_from(picker.pick(&mut rng)).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn zipf_has_the_shares_of_its_ranks() {
        for theta in [0.5_f64, 0.99, 1.0, 1.2, 2.5] {
            let mut counts = counts(&format!("zipf:{theta}"), 1_000, 200_000);
            counts.sort_unstable_by(|a, b| b.cmp(a));
            let all: f64 = (1..=1_000).map(|k| f64::from(k).powf(-theta)).sum();
            for rank in [1_usize, 2, 5] {
                let wanted = (rank as f64).powf(-theta) / all;
                let found = f64::from(counts[rank - 1]) / 200_000.0;
                let slack = 0.03 * wanted + 4.0 * (wanted / 200_000.0).sqrt();
                assert!(
                    (found - wanted).abs() < slack,
                    "{theta} {rank}: {found} {wanted}"
                );
            }
        }
    }

    #[test]
    fn zipf_scatters_and_reaches_every_place() {
        let counts = counts("zipf:0.2", 97, 100_000);
        assert!(counts.iter().all(|&count| count > 0), "{counts:?}");
        let (first, _) = counts.iter().enumerate().max_by_key(|(_, c)| **c).unwrap();
        assert_eq!(first, 0);
        for places in [1, 2, 3, 100, 131_072, u64::MAX] {
            let picker = Picker::new(Distribution::Zipf(1.1), places);
            assert!(picker.pick(&mut Rng::seeded(1)) < places);
        }
    }

    #[test]
    fn a_hot_part_gets_its_share() {
        let counts = counts("hot:80/20", 1_000, 100_000);
        let hot: u32 = counts[..200].iter().sum();
        assert!((79_000..81_000).contains(&hot), "{hot}");
        assert!(counts.iter().all(|&count| count > 0));
        assert_eq!(self::counts("hot:80/20", 1, 10), [10]);
    }

    #[test]
    fn what_cannot_be_is_named() {
        for text in [
            "zipf",
            "zipf:0",
            "zipf:nan",
            "zipf:9",
            "hot:80",
            "hot:0/20",
            "hot:80/100",
            "pareto:1",
            "random:1",
            "",
        ] {
            let error = text.parse::<Distribution>().unwrap_err();
            assert!(
                error.contains(&format!("'{text}'")) && error.contains("zipf:THETA"),
                "{error}"
            );
        }
        for text in ["random", "zipf:1.2", "hot:80/20"] {
            assert_eq!(text.parse::<Distribution>().unwrap().to_string(), text);
        }
    }
}
