//! A configuration file: method calls to be made at the start.

use std::fmt;

use serde_json::{Map, Value};

/// Calls in the order of the file:
/// `{"subsystems": [{"subsystem": NAME, "config": [{"method": NAME, "params": {...}}, ...]}, ...]}`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    pub(super) calls: Vec<ConfigCall>,
    /// Subsystems without calls.
    pub(super) empty: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct ConfigCall {
    /// Where it stands in the file, in words.
    pub(super) place: String,
    pub(super) method: String,
    pub(super) params: Map<String, Value>,
}

/// What is wrong with a configuration; the text says where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub(super) String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads the text of a file.
    ///
    /// # Errors
    ///
    /// The line and column of what is no JSON, or the entry that has another form.
    pub fn parse(text: &str) -> Result<Config, ConfigError> {
        let root: Value = serde_json::from_str(text).map_err(|e| ConfigError(e.to_string()))?;
        let mut root = object(root, "the file", &["subsystems"])?;
        let (mut calls, mut empty) = (Vec::new(), Vec::new());
        let mut lines = Lines { text, at: 0 };
        for (index, subsystem) in list(&mut root, "subsystems", "")?.into_iter().enumerate() {
            let place = format!("subsystems[{index}]");
            let mut subsystem = object(subsystem, &place, &["subsystem", "config"])?;
            let name = text_of(&mut subsystem, "subsystem", &place)?;
            let before = calls.len();
            for (index, call) in list(&mut subsystem, "config", &place)?
                .into_iter()
                .enumerate()
            {
                let place = format!("subsystem '{name}', entry {}", index + 1);
                let mut call = object(call, &place, &["method", "params"])?;
                let method = text_of(&mut call, "method", &place)?;
                let params = match call.remove("params") {
                    None | Some(Value::Null) => Map::new(),
                    Some(Value::Object(params)) => params,
                    Some(_) => {
                        return Err(ConfigError(format!("{place}: 'params' must be an object")));
                    }
                };
                let line = lines.of_method(&method);
                let at = line.map_or_else(String::new, |line| format!("line {line}: "));
                calls.push(ConfigCall {
                    place: format!("{at}{place} ({method})"),
                    method,
                    params,
                });
            }
            if calls.len() == before {
                empty.push(name);
            }
        }
        Ok(Config { calls, empty })
    }
}

/// Finds the lines of calls, which are asked for in the order of the text.
struct Lines<'a> {
    text: &'a str,
    /// Byte offset behind the last one found.
    at: usize,
}

impl Lines<'_> {
    /// The line of the next `"method": "NAME"`; `None` if the file writes the name with escapes.
    fn of_method(&mut self, name: &str) -> Option<usize> {
        let name = Value::from(name).to_string();
        let rest = self.text.get(self.at..)?;
        for (found, key) in rest.match_indices("\"method\"") {
            let behind = rest.get(found + key.len()..)?.trim_start();
            let value = behind.strip_prefix(':').map(str::trim_start);
            if value.is_some_and(|value| value.starts_with(&name)) {
                self.at += found + key.len();
                let before = self.text.get(..self.at)?;
                return Some(before.matches('\n').count() + 1);
            }
        }
        None
    }
}

/// Methods with which SPDK's programs tune, and save, what this program does not have: pools of buffers, implementations
/// of sockets and accelerators, schedulers, other kinds of disks and front ends. A file may call them, since nothing is
/// asked for by them that would be missed.
const WITHOUT_MEANING: [&str; 22] = [
    "accel_assign_opc",
    "accel_set_options",
    "bdev_iscsi_set_options",
    "bdev_nvme_set_hotplug",
    "bdev_nvme_set_options",
    "bdev_raid_set_options",
    "bdev_set_options",
    "bdev_wait_for_examine",
    "dsa_scan_accel_module",
    "framework_set_scheduler",
    "fsdev_set_opts",
    "iobuf_set_options",
    "iscsi_set_options",
    "keyring_linux_set_options",
    "nvmf_set_config",
    "nvmf_set_max_subsystems",
    "scheduler_set_options",
    "sock_impl_set_options",
    "sock_set_default_impl",
    "thread_set_cpumask",
    "trace_set_tpoint_group_mask",
    "virtio_blk_create_transport",
];

/// Subsystems that SPDK's programs save, with calls or without.
const SPDK_SUBSYSTEMS: [&str; 16] = [
    "accel",
    "bdev",
    "fsdev",
    "iobuf",
    "iscsi",
    "keyring",
    "nbd",
    "nvmf",
    "scheduler",
    "scsi",
    "sock",
    "ublk",
    "vfio_user",
    "vhost_blk",
    "vhost_scsi",
    "vmd",
];

/// Whether SPDK's programs have a subsystem of this name.
pub(super) fn is_known_to_spdk(subsystem: &str) -> bool {
    SPDK_SUBSYSTEMS.contains(&subsystem)
}

impl ConfigCall {
    /// Nothing is missed if it is left out by a program that does not have the method.
    pub(super) fn is_without_meaning(&self) -> bool {
        // A TLS socket is what is asked for there, and there is none.
        let tls = self.method == "sock_set_default_impl"
            && self.params.get("impl_name").and_then(Value::as_str) == Some("ssl");
        WITHOUT_MEANING.contains(&self.method.as_str()) && !tls
    }
}

fn object(value: Value, place: &str, members: &[&str]) -> Result<Map<String, Value>, ConfigError> {
    let Value::Object(map) = value else {
        return Err(ConfigError(format!("{place} must be an object")));
    };
    match map.keys().find(|key| !members.contains(&key.as_str())) {
        None => Ok(map),
        Some(key) => Err(ConfigError(format!(
            "{place}: unknown member '{key}', expected {}",
            members.join(", ")
        ))),
    }
}

/// The list under `name`; null is an empty one.
fn list(map: &mut Map<String, Value>, name: &str, place: &str) -> Result<Vec<Value>, ConfigError> {
    match map.remove(name) {
        Some(Value::Array(list)) => Ok(list),
        Some(Value::Null) => Ok(Vec::new()),
        _ => Err(ConfigError(
            format!("{place} '{name}' must be an array").trim().into(),
        )),
    }
}

fn text_of(map: &mut Map<String, Value>, name: &str, place: &str) -> Result<String, ConfigError> {
    match map.remove(name) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(ConfigError(format!("{place}: '{name}' must be a string"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_come_in_the_order_of_the_file() {
        let text = r#"{"subsystems": [
            {"subsystem": "a", "config": [{"method": "x", "params": {"n": 1}}, {"method": "y"}]},
            {"subsystem": "b", "config": null}, {"subsystem": "c", "config": [{"method": "z"}]}]}"#;
        let config = Config::parse(text).unwrap();
        let names: Vec<_> = config.calls.iter().map(|c| c.method.as_str()).collect();
        assert_eq!(names, ["x", "y", "z"]);
        assert_eq!(config.empty, ["b"]);
        assert_eq!(config.calls[0].params["n"], 1);
        assert_eq!(config.calls[1].place, "line 2: subsystem 'a', entry 2 (y)");
    }

    #[test]
    fn errors_say_where() {
        for (text, part) in [
            ("{\n\"subsystems\": [,]}", "line 2 column 16"),
            ("[]", "the file must be an object"),
            ("{}", "'subsystems' must be an array"),
            (r#"{"subsystem": []}"#, "unknown member 'subsystem'"),
            (r#"{"subsystems": [{}]}"#, "subsystems[0]: 'subsystem'"),
            (
                r#"{"subsystems": [{"subsystem": "a"}]}"#,
                "'config' must be",
            ),
            (
                r#"{"subsystems": [{"subsystem": "a", "config": [{"metod": "x"}]}]}"#,
                "subsystem 'a', entry 1: unknown member 'metod'",
            ),
            (
                r#"{"subsystems": [{"subsystem": "a", "config": [{"method": "x", "params": []}]}]}"#,
                "entry 1: 'params'",
            ),
        ] {
            let error = Config::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
