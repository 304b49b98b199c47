//! Quantiles and tails of the normal distribution and of Student's.

/// Quantile of Student's distribution (Hill, 1970, by the Cornish-Fisher expansion; exact for 1 and 2 degrees).
pub fn student(quantile: f64, freedom: f64) -> f64 {
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

/// The chance of values further from zero than `t`, in either direction.
pub fn beyond(t: f64, freedom: f64) -> f64 {
    // The quantile grows with the chance, so that the chance is found by halving; 1e-9 is as good as none.
    let (mut low, mut high) = (1e-9_f64.ln(), 0.0_f64);
    for _ in 0..50 {
        let middle = f64::midpoint(low, high);
        match student(1.0 - middle.exp() / 2.0, freedom) > t.abs() {
            true => low = middle,
            false => high = middle,
        }
    }
    high.exp()
}

/// Quantile of the normal distribution above one half, to 4.5e-4 (Abramowitz and Stegun, 26.2.23).
pub fn normal(quantile: f64) -> f64 {
    let t = (-2.0 * (1.0 - quantile).ln()).sqrt();
    t - (2.515_517 + t * (0.802_853 + t * 0.010_328))
        / (1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308)))
}

/// The chance of a normal value above `z`, to 1e-5 (Abramowitz and Stegun, 26.2.16).
pub fn tail(z: f64) -> f64 {
    if z < 0.0 {
        return 1.0 - tail(-z);
    }
    let t = 1.0 / (1.0 + 0.332_67 * z);
    let density = (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    density * t * (0.436_183_6 + t * (-0.120_167_6 + t * 0.937_298))
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let chance = 2.0 * (1.0 - quantile);
            let found = beyond(wanted, freedom);
            assert!((found / chance - 1.0).abs() < 0.05, "{wanted}: {found}");
        }
        assert!(beyond(0.0, 5.0) > 0.99);
    }

    #[test]
    fn tails_are_those_of_the_tables() {
        for (z, wanted) in [(0.0, 0.5), (1.0, 0.158_66), (1.96, 0.025), (-1.0, 0.841_34)] {
            assert!((tail(z) - wanted).abs() < 1e-4, "{z}: {}", tail(z));
        }
    }
}
