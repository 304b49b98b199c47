//! A configuration file: method calls to be made at the start.

use std::fmt;

use serde_json::{Map, Value};

/// Calls in the order of the file:
/// `{"subsystems": [{"subsystem": NAME, "config": [{"method": NAME, "params": {...}}, ...]}, ...]}`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    pub(super) calls: Vec<ConfigCall>,
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
        let mut calls = Vec::new();
        for (index, subsystem) in list(&mut root, "subsystems", "")?.into_iter().enumerate() {
            let place = format!("subsystems[{index}]");
            let mut subsystem = object(subsystem, &place, &["subsystem", "config"])?;
            let name = text_of(&mut subsystem, "subsystem", &place)?;
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
                calls.push(ConfigCall {
                    place: format!("{place} ({method})"),
                    method,
                    params,
                });
            }
        }
        Ok(Config { calls })
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
        assert_eq!(config.calls[0].params["n"], 1);
        assert_eq!(config.calls[1].place, "subsystem 'a', entry 2 (y)");
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
