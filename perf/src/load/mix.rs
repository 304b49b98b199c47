//! `--mix`: which operations, in which proportion.

use std::fmt;
use std::str::FromStr;

use pollux_multipath::Op;
use pollux_reactor::Rng;

/// Operations with their weights; at least one weighs something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix(Vec<(Op, u32)>);

impl Mix {
    /// Draws one.
    pub fn draw(&self, rng: &mut Rng) -> Op {
        let all = self.0.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mut left = rng.below(all);
        for &(op, weight) in &self.0 {
            match left.checked_sub(weight.into()) {
                Some(rest) => left = rest,
                None => return op,
            }
        }
        unreachable!("drawn below the sum of the weights")
    }
}

/// The operation of a name; NVMe's name for what SPDK calls unmap is known as well.
fn operation(name: &str) -> Option<Op> {
    let name = if name == "deallocate" { "unmap" } else { name };
    Op::ALL.into_iter().find(|op| op.name() == name)
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = Op::ALL.map(Op::name).join(", ");
        let bad = |why: String| format!("mix '{text}' is not possible: {why}");
        let mut mix = Vec::new();
        for part in text.split(',') {
            let (name, weight) = part.split_once(':').ok_or_else(|| {
                bad(format!(
                    "'{part}' has no weight: allowed is NAME:WEIGHT such as read:70"
                ))
            })?;
            let op = operation(name)
                .ok_or_else(|| bad(format!("'{name}' is no operation: allowed are {names}")))?;
            let weight = match weight.parse() {
                Ok(weight @ 1..=1_000_000) => weight,
                _ => {
                    return Err(bad(format!(
                        "weight '{weight}' of {name}: allowed are 1 to 1000000"
                    )));
                }
            };
            if mix.iter().any(|(known, _)| *known == op) {
                return Err(bad(format!("{name} is there twice")));
            }
            mix.push((op, weight));
        }
        Ok(Self(mix))
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (op, weight)) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{}:{weight}", op.name())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_shares() {
        let mix: Mix = "read:7,deallocate:2,flush:1".parse().unwrap();
        assert_eq!(mix.to_string(), "read:7,unmap:2,flush:1");
        let mut rng = Rng::seeded(5);
        let mut counts = [0; 3];
        for _ in 0..10_000 {
            let op = mix.draw(&mut rng);
            let place = mix.0.iter().position(|(known, _)| *known == op).unwrap();
            counts[place] += 1;
        }
        for (count, wanted) in counts.into_iter().zip([7_000, 2_000, 1_000]) {
            assert!((wanted - 200..wanted + 200).contains(&count), "{counts:?}");
        }
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (text, why) in [
            ("read", "no weight"),
            ("read:0", "'0'"),
            ("read:x", "'x'"),
            ("trim:1", "unmap"),
            ("read:1,read:2", "twice"),
            ("", "no weight"),
        ] {
            let error = text.parse::<Mix>().unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
