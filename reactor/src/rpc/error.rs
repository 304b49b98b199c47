//! Errors as clients see them.

use std::fmt;
use std::io;

use serde_json::{Value, json};

/// The error of a request: a code and a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcError {
    /// One of JSON-RPC 2.0 (section 5.1), or a negative error number of the operating system.
    pub code: i32,
    /// For people; some clients look for words in it.
    pub message: String,
}

impl RpcError {
    /// An error with a code of its own.
    pub fn new(code: i32, message: impl Into<String>) -> RpcError {
        RpcError {
            code,
            message: message.into(),
        }
    }

    /// -32700: what arrived is no JSON.
    pub(super) fn parse(what: impl fmt::Display) -> RpcError {
        RpcError::new(-32700, format!("Parse error: {what}"))
    }

    /// -32600: it is JSON, but no request.
    pub(super) fn invalid_request(what: impl fmt::Display) -> RpcError {
        RpcError::new(-32600, format!("Invalid request: {what}"))
    }

    /// -32601.
    pub(super) fn method_not_found() -> RpcError {
        RpcError::new(-32601, "Method not found")
    }

    /// -32602: a parameter is missing, unknown, of the wrong type or out of range; `what` names it.
    pub fn invalid_params(what: impl fmt::Display) -> RpcError {
        RpcError::new(-32602, format!("Invalid parameters: {what}"))
    }

    /// -32603: the request was understood but could not be done.
    pub fn internal(what: impl Into<String>) -> RpcError {
        RpcError::new(-32603, what)
    }

    /// An error number of the operating system (positive, such as 17 for EEXIST), with the system's text for it.
    pub fn errno(number: i32) -> RpcError {
        let text = io::Error::from_raw_os_error(number).to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        RpcError::new(-number, text)
    }

    /// As [`errno`](Self::errno), with what it was about.
    pub fn errno_of(number: i32, what: impl fmt::Display) -> RpcError {
        let mut error = RpcError::errno(number);
        error.message = format!("{}: {what}", error.message);
        error
    }

    pub(super) fn to_value(&self) -> Value {
        json!({"code": self.code, "message": self.message})
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {})", self.message, self.code)
    }
}

impl std::error::Error for RpcError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_numbers_bring_the_systems_text() {
        let error = RpcError::errno(17);
        assert_eq!((error.code, error.message.as_str()), (-17, "File exists"));
        let error = RpcError::errno_of(19, "bdev 'x'");
        assert_eq!(error.message, "No such device: bdev 'x'");
    }
}
