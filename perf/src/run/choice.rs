//! `--nsid`: which volumes a job works on.

use std::fmt;
use std::str::FromStr;

use crate::errors::Usage;

/// Some of the volumes that a host has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The first one.
    #[default]
    First,
    /// All of them.
    All,
    /// The ones that are listed.
    Listed(Vec<Listed>),
}

/// One of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listed {
    /// Namespace identifier; of several subsystems each may have one.
    Nsid(u32),
    /// A volume's name.
    Name(String),
}

impl Choice {
    /// The namespace identifiers in it.
    pub fn nsids(&self) -> impl Iterator<Item = u32> {
        let listed = match self {
            Self::Listed(listed) => listed.as_slice(),
            Self::First | Self::All => &[],
        };
        listed.iter().filter_map(|one| match one {
            Listed::Nsid(nsid) => Some(*nsid),
            Listed::Name(_) => None,
        })
    }

    /// Places in a list of volumes, by name and namespace identifier: each of them once, and at least one.
    pub fn among(&self, volumes: &[(&str, u32)]) -> Result<Vec<usize>, Usage> {
        let listed = match self {
            Self::First => return Ok(vec![0]),
            Self::All => return Ok((0..volumes.len()).collect()),
            Self::Listed(listed) => listed,
        };
        let mut places = Vec::new();
        for one in listed {
            let is_meant = |volume: (&str, u32)| match one {
                Listed::Nsid(nsid) => volume.1 == *nsid,
                Listed::Name(name) => volume.0 == name,
            };
            let found = (0..volumes.len()).filter(|&place| is_meant(volumes[place]));
            let before = places.len();
            places.extend(found);
            if places.len() == before {
                let there: Vec<String> = volumes
                    .iter()
                    .map(|(name, nsid)| match one {
                        Listed::Nsid(_) => nsid.to_string(),
                        Listed::Name(_) => (*name).to_owned(),
                    })
                    .collect();
                return Err(Usage(format!(
                    "--nsid {one} is not there: allowed are {}",
                    there.join(", ")
                )));
            }
        }
        places.sort_unstable();
        places.dedup();
        Ok(places)
    }
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const NSID_MAX: u32 = 0xffff_fffe;
        if text == "all" {
            return Ok(Self::All);
        }
        let one = |part: &str| {
            let part = part.trim();
            let is_name = part.starts_with(|first: char| first.is_ascii_alphabetic());
            match part.parse() {
                Ok(nsid @ 1..=NSID_MAX) => Ok(Listed::Nsid(nsid)),
                Err(_) if is_name => Ok(Listed::Name(part.to_owned())),
                _ => Err(format!(
                    "namespace '{part}' is not possible: allowed are a list of namespace identifiers such as 1,3 or of names of volumes, and all"
                )),
            }
        };
        let listed: Result<Vec<Listed>, String> = text.split(',').map(one).collect();
        Ok(Self::Listed(listed?))
    }
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nsid(nsid) => write!(f, "{nsid}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_chosen_by_number_by_name_or_all() {
        let volumes = [("perfn1", 1), ("perfn3", 3), ("perf2n1", 1)];
        let among = |text: &str| text.parse::<Choice>().unwrap().among(&volumes);
        assert_eq!(Choice::First.among(&volumes).unwrap(), [0]);
        assert_eq!(among("all").unwrap(), [0, 1, 2]);
        assert_eq!(among("3").unwrap(), [1]);
        assert_eq!(among("1").unwrap(), [0, 2], "one of each subsystem");
        assert_eq!(among("perf2n1, 3,3").unwrap(), [1, 2]);
        let error = |text: &str| among(text).unwrap_err().to_string();
        assert!(error("2").contains("allowed are 1, 3, 1"), "{}", error("2"));
        assert!(error("disk").contains("perf2n1"), "{}", error("disk"));
    }

    #[test]
    fn what_is_no_choice_is_named() {
        for text in ["0", "", "1,,2", "4294967295", "-1"] {
            let error = text.parse::<Choice>().unwrap_err();
            assert!(error.contains("all"), "{text}: {error}");
        }
    }
}
