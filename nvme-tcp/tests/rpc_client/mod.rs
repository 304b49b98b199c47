//! Calls of tests, also of the crates above, that must succeed or must fail.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pollux_reactor::rpc::CallError;
use serde_json::Value;

/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a test's server may listen.
pub fn socket(test: &str) -> PathBuf {
    std::env::temp_dir().join(format!("pollux-{}-{test}", std::process::id()))
}

pub struct Client(pollux_reactor::rpc::Client);

impl Client {
    pub fn connect(socket: &Path) -> Client {
        Client(pollux_reactor::rpc::Client::connect(socket, Some(PATIENCE)).unwrap())
    }

    /// The result of a call that must succeed.
    pub fn call(&mut self, method: &str, params: &Value) -> Value {
        let answer = self.0.call(method, Some(params.clone()));
        answer.unwrap_or_else(|error| panic!("{method} {params}: {error}"))
    }

    /// Code and message of a call that must fail.
    pub fn error(&mut self, method: &str, params: &Value) -> (i64, String) {
        match self.0.call(method, Some(params.clone())) {
            Err(CallError::Refused { code, message, .. }) => (code, message),
            other => panic!("{method} {params}: {other:?}"),
        }
    }
}
