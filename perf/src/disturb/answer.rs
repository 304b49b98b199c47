//! What an answer of `bdev_nvme_get_io_paths` says, and whether it contradicts itself.
//!
//! The rule is written here once more and not taken from the host: a path is current exactly if it is connected and
//! accessible and the policy would choose it among those that are.

use std::fmt::Write as _;

use anyhow::Context;
use pollux_multipath::Policy;
use serde_json::Value;

/// A path as one reactor sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathView {
    /// Port of the path's controller.
    pub port: String,
    /// What the answer says.
    pub current: bool,
    /// What the answer says.
    pub connected: bool,
    /// What the answer says.
    pub accessible: bool,
    /// ANA state in words.
    pub ana_state: String,
    /// I/Os outstanding on it.
    pub outstanding: u64,
}

impl PathView {
    fn is_available(&self) -> bool {
        self.connected && self.accessible
    }

    fn is_optimized(&self) -> bool {
        self.ana_state == "optimized"
    }
}

/// The paths of each I/O reactor, in attach order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// One list for each reactor.
    pub groups: Vec<Vec<PathView>>,
}

impl Answer {
    /// Reads the result of the method.
    ///
    /// # Errors
    ///
    /// Something is missing.
    pub fn read(result: &Value) -> anyhow::Result<Self> {
        let list = |value: &Value, name: &str| {
            let list = value.get(name).and_then(Value::as_array).cloned();
            list.with_context(|| format!("no list '{name}' in the answer"))
        };
        let mut groups = Vec::new();
        for group in list(result, "poll_groups")? {
            let paths = list(&group, "io_paths")?;
            groups.push(paths.iter().map(path).collect::<anyhow::Result<_>>()?);
        }
        Ok(Self { groups })
    }

    /// The first contradiction, in words.
    ///
    /// # Errors
    ///
    /// What contradicts what.
    pub fn check(&self, policy: Policy) -> Result<(), String> {
        for (reactor, paths) in self.groups.iter().enumerate() {
            check_group(paths, policy).map_err(|what| {
                let shown = self.shown();
                format!("I/O reactor {reactor}: {what}; all: {shown}")
            })?;
        }
        Ok(())
    }

    /// Everything but the numbers: two answers of the same text saw the same state.
    pub fn shown(&self) -> String {
        let mut text = String::new();
        for (reactor, paths) in self.groups.iter().enumerate() {
            for path in paths {
                let flag = |set: bool, letter: char| if set { letter } else { '-' };
                // Writing to a string does not fail.
                let _ = write!(
                    text,
                    "[{reactor}:{} {} {}{}{}]",
                    path.port,
                    path.ana_state,
                    flag(path.current, 'C'),
                    flag(path.connected, 'c'),
                    flag(path.accessible, 'a')
                );
            }
        }
        text
    }

    /// On every reactor a current path of this class carries I/O at this moment.
    pub fn carried_by(&self, optimized: bool) -> bool {
        let carries =
            |p: &PathView| p.current && p.outstanding > 0 && p.is_optimized() == optimized;
        !self.groups.is_empty() && self.groups.iter().all(|paths| paths.iter().any(carries))
    }
}

fn check_group(paths: &[PathView], policy: Policy) -> Result<(), String> {
    let optimized = paths.iter().any(|p| p.is_available() && p.is_optimized());
    let in_best_class = |p: &PathView| p.is_available() && p.is_optimized() == optimized;
    let first = paths.iter().position(in_best_class);
    for (index, path) in paths.iter().enumerate() {
        if path.current && !path.is_available() {
            return Err(format!(
                "port {} is current, connected: {}, accessible: {}",
                path.port, path.connected, path.accessible
            ));
        }
        let wanted = match policy {
            Policy::ActivePassive => first == Some(index),
            Policy::ActiveActive(_) => in_best_class(path),
            _ => return Err(format!("which paths are current is not known of {policy}")),
        };
        if path.current != wanted {
            let (is, should) = match path.current {
                true => ("is", "should not be"),
                false => ("is not", "should be"),
            };
            return Err(format!("port {} {is} current and {should}", path.port));
        }
    }
    Ok(())
}

fn path(value: &Value) -> anyhow::Result<PathView> {
    let flag = |name: &str| {
        let flag = value.get(name).and_then(Value::as_bool);
        flag.with_context(|| format!("no '{name}' in the answer"))
    };
    let text = |pointer: &str| {
        let text = value.pointer(pointer).and_then(Value::as_str);
        text.map(str::to_owned)
            .with_context(|| format!("no '{pointer}' in the answer"))
    };
    Ok(PathView {
        port: text("/transport/trsvcid")?,
        current: flag("current")?,
        connected: flag("connected")?,
        accessible: flag("accessible")?,
        ana_state: text("/pollux/ana_state")?,
        outstanding: value
            .pointer("/pollux/outstanding")
            .and_then(Value::as_u64)
            .context("no 'outstanding' in the answer")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pollux_multipath::Selector;
    use serde_json::json;

    const PASSIVE: Policy = Policy::ActivePassive;
    const ACTIVE: Policy = Policy::ActiveActive(Selector::QueueDepth);

    /// `C`urrent, `c`onnected, `a`ccessible, and the ANA state.
    fn view(flags: &str, ana_state: &str) -> PathView {
        PathView {
            port: "4420".to_owned(),
            current: flags.contains('C'),
            connected: flags.contains('c'),
            accessible: flags.contains('a'),
            ana_state: ana_state.to_owned(),
            outstanding: 1,
        }
    }

    fn check(policy: Policy, first: PathView, second: PathView) -> Result<(), String> {
        let groups = vec![vec![first, second]];
        Answer { groups }.check(policy)
    }

    #[test]
    fn current_implies_connected_and_accessible() {
        for flags in ["C", "Cc", "Ca"] {
            for policy in [PASSIVE, ACTIVE] {
                let told = check(policy, view(flags, "optimized"), view("", "inaccessible"));
                assert!(
                    told.is_err_and(|text| text.contains("is current")),
                    "{flags}"
                );
            }
        }
    }

    #[test]
    fn what_can_carry_io_is_current() {
        let gone = || view("a", "optimized");
        for policy in [PASSIVE, ACTIVE] {
            assert_eq!(check(policy, gone(), view("Cca", "non_optimized")), Ok(()));
            assert!(check(policy, gone(), view("ca", "non_optimized")).is_err());
            assert_eq!(check(policy, gone(), view("c", "inaccessible")), Ok(()));
        }
    }

    #[test]
    fn the_policy_decides_among_the_best() {
        let (on, off) = (|| view("Cca", "optimized"), || view("ca", "optimized"));
        assert_eq!(check(PASSIVE, on(), off()), Ok(()));
        assert!(check(PASSIVE, on(), on()).is_err());
        assert!(check(PASSIVE, off(), on()).is_err());
        assert_eq!(check(ACTIVE, on(), on()), Ok(()));
        assert!(check(ACTIVE, on(), off()).is_err());
        assert!(check(ACTIVE, on(), view("Cca", "non_optimized")).is_err());
    }

    #[test]
    fn an_answer_is_read() {
        let result = json!({"poll_groups": [{"thread": "io_reactor_0", "io_paths": [{
            "current": true, "connected": true, "accessible": true,
            "transport": {"trsvcid": "4420"},
            "pollux": {"ana_state": "non_optimized", "outstanding": 7},
        }]}]});
        let answer = Answer::read(&result).unwrap();
        assert_eq!(answer.check(PASSIVE), Ok(()));
        assert!(answer.carried_by(false) && !answer.carried_by(true));
        assert_eq!(answer.shown(), "[0:4420 non_optimized Cca]");
        assert!(Answer::read(&json!({"poll_groups": [{"io_paths": [{}]}]})).is_err());
        assert!(Answer::read(&json!({})).is_err());
    }
}
