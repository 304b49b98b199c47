//! Options of programs that run reactors: where, and how they rest.

use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use pollux_reactor::{Group, Idle};

/// Where the reactors of a program run, and how they rest.
#[derive(Debug, Args)]
pub struct ReactorArgs {
    /// Cores to run on, one reactor each: a list (0,2-3) or a mask (0x3). Without it one reactor runs
    /// wherever the system puts it.
    #[arg(long, value_name = "LIST|MASK")]
    pub cores: Option<Cores>,

    /// What a reactor does when it finds nothing to do.
    #[arg(long, default_value = "auto")]
    pub idle: IdlePolicy,
}

impl ReactorArgs {
    /// Adds the reactors, and says which they are.
    pub fn add_to(&self, group: &mut Group) -> Vec<usize> {
        let idle = match self.idle {
            IdlePolicy::Auto => Idle::Park { after: PARK_AFTER },
            IdlePolicy::Spin => Idle::Spin,
            IdlePolicy::Yield => Idle::Yield,
        };
        match &self.cores {
            None => vec![group.add_reactor(None, idle)],
            Some(Cores(cores)) => {
                let cores = cores.iter().map(|&core| Some(core));
                cores.map(|core| group.add_reactor(core, idle)).collect()
            }
        }
    }
}

/// An idle policy.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum IdlePolicy {
    /// Look again at once while there is work, and sleep after 100 microseconds without any until something arrives.
    #[value(alias = "park")]
    Auto,
    /// Look again at once, always; a core at 100 %.
    Spin,
    /// Let other threads run in between.
    Yield,
}

/// Idle time after which a parking reactor sleeps.
const PARK_AFTER: Duration = Duration::from_micros(100);

/// Core numbers, each once, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cores(pub Vec<usize>);

impl FromStr for Cores {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        /// More than any machine has; keeps ranges from growing without limit.
        const CORE_MAX: usize = 4095;
        let allowed = || {
            "a list such as 0,2-3 or a mask such as 0x3 is allowed, with cores up to 4095"
                .to_owned()
        };
        let mut cores = Vec::new();
        if let Some(mask) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            for (place, digit) in mask.chars().rev().enumerate() {
                let bits = digit.to_digit(16).ok_or_else(allowed)?;
                cores.extend((0..4).filter(|b| bits >> b & 1 == 1).map(|b| place * 4 + b));
            }
        } else {
            for part in text.split(',') {
                let (first, last) = part.split_once('-').unwrap_or((part, part));
                let core = |text: &str| text.trim().parse().map_err(|_| allowed());
                let (first, last): (usize, usize) = (core(first)?, core(last)?);
                if first > last || last > CORE_MAX {
                    return Err(allowed());
                }
                cores.extend(first..=last);
            }
        }
        cores.sort_unstable();
        cores.dedup();
        if cores.is_empty() || cores.iter().any(|&c| c > CORE_MAX) {
            return Err(allowed());
        }
        Ok(Self(cores))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_a_list_or_a_mask() {
        for (text, cores) in [
            ("0", &[0][..]),
            ("3,1", &[1, 3]),
            ("0-2,2", &[0, 1, 2]),
            ("0x3", &[0, 1]),
            ("0X10", &[4]),
        ] {
            assert_eq!(text.parse(), Ok(Cores(cores.to_vec())), "{text}");
        }
        for text in ["", "0x", "0x0", "0xg", "2-1", "1,", "a", "0-99999999", "-1"] {
            let error = text.parse::<Cores>().unwrap_err();
            assert!(error.contains("allowed"), "{text}: {error}");
        }
    }
}
