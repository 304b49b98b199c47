//! Core lists as `-m` takes them, and which cores a run uses.

use std::fmt;
use std::str::FromStr;

/// No machine numbers its cores beyond this; it bounds what a range may expand to.
const CORE_INDEX_MAX: usize = 4095;

/// Cores in the order given (mask: ascending), without duplicates, never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreList(Vec<usize>);

impl CoreList {
    /// The core numbers.
    pub fn cores(&self) -> &[usize] {
        &self.0
    }
}

impl FromStr for CoreList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bare = text.trim();
        if let Some(mask) = bare.strip_prefix("0x").or_else(|| bare.strip_prefix("0X")) {
            return from_mask(text, mask);
        }
        let list = bare
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(bare);
        let mut cores = Vec::new();
        for part in list.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (core(text, first)?, core(text, last)?);
            if first > last {
                return Err(format!(
                    "core range '{part}' is empty: the first core must not be above the second"
                ));
            }
            for core in first..=last {
                if !cores.contains(&core) {
                    cores.push(core);
                }
            }
        }
        Ok(Self(cores))
    }
}

fn from_mask(text: &str, mask: &str) -> Result<CoreList, String> {
    if mask.is_empty() || !mask.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(bad_cores(text));
    }
    let mut cores = Vec::new();
    for (index, digit) in mask.chars().rev().enumerate() {
        let bits = digit.to_digit(16).unwrap_or(0);
        cores.extend(
            (0..4)
                .filter(|bit| bits >> bit & 1 == 1)
                .map(|bit| index * 4 + bit),
        );
    }
    match cores.last() {
        None => Err(format!(
            "core mask '{text}' names no core: at least one bit must be set"
        )),
        Some(&last) if last > CORE_INDEX_MAX => Err(bad_cores(text)),
        Some(_) => Ok(CoreList(cores)),
    }
}

fn core(text: &str, number: &str) -> Result<usize, String> {
    let number: usize = number.trim().parse().map_err(|_| bad_cores(text))?;
    if number > CORE_INDEX_MAX {
        return Err(bad_cores(text));
    }
    Ok(number)
}

fn bad_cores(text: &str) -> String {
    format!(
        "cores '{text}' cannot be read: allowed are a mask such as 0x3 or a list such as 0,2-3, each core up to {CORE_INDEX_MAX}"
    )
}

impl fmt::Display for CoreList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&join(&self.0))
    }
}

/// `0, 1, 3`
pub fn join(cores: &[usize]) -> String {
    cores
        .iter()
        .map(usize::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Which cores run what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The side under test: one I/O reactor each (`floor`: the client thread).
    pub host: Vec<usize>,
    /// The embedded target's reactor (`floor`: the server thread).
    pub target: usize,
    /// Target and host have to share a core: both yield instead of spinning.
    pub shared: bool,
}

impl Placement {
    /// Chooses among the cores this process may use. Without a request the host gets the last one and the target the first.
    pub fn new(requested: Option<&CoreList>, available: &[usize]) -> Result<Self, String> {
        let (Some(&first), Some(&last)) = (available.first(), available.last()) else {
            return Err("this process may run on no core that can be named".to_owned());
        };
        let host = match requested {
            None => vec![last],
            Some(list) => {
                check_available(list, available)?;
                list.cores().to_vec()
            }
        };
        let target = available
            .iter()
            .copied()
            .find(|core| !host.contains(core))
            .unwrap_or(first);
        Ok(Self {
            shared: host.contains(&target),
            host,
            target,
        })
    }

    /// Two threads: with two cores named the first is the server's, with one both share it.
    pub fn pair(requested: Option<&CoreList>, available: &[usize]) -> Result<Self, String> {
        let Some(list) = requested else {
            return Self::new(None, available);
        };
        let placement = match *list.cores() {
            [one] => Self {
                host: vec![one],
                target: one,
                shared: true,
            },
            [server, client] => Self {
                host: vec![client],
                target: server,
                shared: false,
            },
            _ => {
                return Err(format!(
                    "cores '{list}' are {}: floor takes one core or two (server, client)",
                    list.cores().len()
                ));
            }
        };
        check_available(list, available)?;
        Ok(placement)
    }
}

/// Says which core of the list this process may not use.
pub fn check_available(list: &CoreList, available: &[usize]) -> Result<(), String> {
    match list.cores().iter().find(|core| !available.contains(core)) {
        None => Ok(()),
        Some(core) => Err(format!(
            "core {core} is not available: this process may use {}",
            join(available)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cores(text: &str) -> Vec<usize> {
        text.parse::<CoreList>().unwrap().cores().to_vec()
    }

    #[test]
    fn masks_and_lists() {
        assert_eq!(cores("0x3"), [0, 1]);
        assert_eq!(cores("0x100000000000000000"), [68]);
        assert_eq!(cores("0,2-3"), [0, 2, 3]);
        assert_eq!(cores("[1,0]"), [1, 0]);
        assert_eq!(cores("2,2,1-2"), [2, 1]);
    }

    #[test]
    fn cores_that_cannot_be_read() {
        for text in [
            "",
            "0x",
            "0x0",
            "0xg",
            "a",
            "1-",
            "-1",
            "3-1",
            "5000",
            "0-99999999999",
        ] {
            assert!(text.parse::<CoreList>().is_err(), "{text}");
        }
    }

    #[test]
    fn placement_keeps_the_target_apart_when_it_can() {
        let list = |text: &str| text.parse::<CoreList>().unwrap();
        let place = |text: &str, available: &[usize]| Placement::new(Some(&list(text)), available);
        assert_eq!(
            Placement::new(None, &[0, 1]).unwrap(),
            Placement {
                host: vec![1],
                target: 0,
                shared: false
            }
        );
        assert_eq!(
            Placement::new(None, &[4]).unwrap(),
            Placement {
                host: vec![4],
                target: 4,
                shared: true
            }
        );
        assert_eq!(
            place("0", &[0, 1]).unwrap(),
            Placement {
                host: vec![0],
                target: 1,
                shared: false
            }
        );
        assert!(place("0,1", &[0, 1]).unwrap().shared);
        let error = place("7", &[0, 1]).unwrap_err();
        assert_eq!(error, "core 7 is not available: this process may use 0, 1");
        assert!(Placement::new(None, &[]).is_err());
    }

    #[test]
    fn floor_takes_a_pair() {
        let list = |text: &str| text.parse::<CoreList>().unwrap();
        let pair = |text: &str| Placement::pair(Some(&list(text)), &[0, 1, 2]);
        assert_eq!(
            pair("2,0").unwrap(),
            Placement {
                host: vec![0],
                target: 2,
                shared: false
            }
        );
        assert!(pair("1").unwrap().shared);
        assert!(pair("0-2").is_err());
        assert!(pair("9").is_err());
    }
}
