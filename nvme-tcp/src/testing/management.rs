//! Calls of a program's management that must succeed or must fail.

use std::path::{Path, PathBuf};

use pollux_reactor::rpc::CallError;
use serde_json::Value;

use super::DEADLINE;

/// Where the management of a test may listen, which no other test process has.
pub fn socket(test: &str) -> PathBuf {
    std::env::temp_dir().join(format!("pollux-{}-{test}", std::process::id()))
}

/// A client whose calls end as the test expects.
pub struct ManagementClient(pollux_reactor::rpc::Client);

impl ManagementClient {
    /// Connects to a Unix socket that somebody listens at.
    pub fn connect(socket: &Path) -> Self {
        Self(pollux_reactor::rpc::Client::connect(socket, Some(DEADLINE)).unwrap())
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
