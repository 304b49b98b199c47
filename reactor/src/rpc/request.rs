//! From the text of a JSON value to the requests in it.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::error::RpcError;
use super::params::Params;

/// Most requests of one batch.
const BATCH_MAX: usize = 256;

/// A request whose form is right.
#[derive(Debug)]
pub(super) struct Request {
    /// As it was written; `None`: a notification, which gets no answer.
    pub(super) id: Option<Box<str>>,
    pub(super) method: String,
    pub(super) params: Result<Params, RpcError>,
}

/// One entry of what arrived: a request, or what is wrong with it and its identifier as far as it has one.
pub(super) type Entry = Result<Request, (Box<str>, RpcError)>;

/// What one JSON value holds.
#[derive(Debug)]
pub(super) enum Requests {
    One(Entry),
    Batch(Vec<Entry>),
}

/// Reads a value, which is an object or an array. The error is that it is no JSON.
pub(super) fn read(text: &[u8]) -> Result<Requests, RpcError> {
    let value: &RawValue = serde_json::from_slice(text).map_err(RpcError::parse)?;
    if !value.get().starts_with('[') {
        return Ok(Requests::One(entry(value)));
    }
    let list: Vec<&RawValue> = serde_json::from_str(value.get()).map_err(RpcError::parse)?;
    let no_batch = |what| {
        Ok(Requests::One(Err((
            null(),
            RpcError::invalid_request(what),
        ))))
    };
    match list.len() {
        0 => no_batch("an empty batch"),
        1..=BATCH_MAX => Ok(Requests::Batch(list.into_iter().map(entry).collect())),
        _ => no_batch("more than 256 requests in a batch"),
    }
}

fn null() -> Box<str> {
    "null".into()
}

fn entry(value: &RawValue) -> Entry {
    let invalid = |id: Option<Box<str>>, what: &str| {
        Err((id.unwrap_or_else(null), RpcError::invalid_request(what)))
    };
    let Ok(mut members) = serde_json::from_str::<BTreeMap<String, &RawValue>>(value.get()) else {
        return invalid(None, "a request is an object");
    };
    let id = match members.remove("id").map(RawValue::get) {
        Some(id) if id.starts_with(['{', '[', 't', 'f']) => {
            return invalid(None, "'id' is a string, a number or null");
        }
        // What the first look did not see, as below: whoever reads the answer could not read it either.
        Some(id) if serde_json::from_str::<Value>(id).is_err() => {
            return invalid(None, "'id' is no text or number that can be read");
        }
        id => id.map(Box::from),
    };
    if members.remove("jsonrpc").map(RawValue::get) != Some("\"2.0\"") {
        return invalid(id, "'jsonrpc' must be \"2.0\"");
    }
    let method = members
        .remove("method")
        .and_then(|m| serde_json::from_str::<String>(m.get()).ok());
    let Some(method) = method else {
        return invalid(id, "'method' must be a string");
    };
    let params = match members.remove("params").map(RawValue::get) {
        None | Some("null") => Ok(Params::default()),
        Some(text) if text.starts_with('{') => {
            serde_json::from_str::<Map<String, Value>>(text)
                .map(Params::new)
                // Only what the first look did not see: a number out of range, half of a surrogate pair.
                .map_err(RpcError::invalid_params)
        }
        Some(text) if text.starts_with('[') => {
            Err(RpcError::invalid_params("they go by name, in an object"))
        }
        Some(_) => return invalid(id, "'params' must be an object"),
    };
    Ok(Request { id, method, params })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Entry {
        match read(text.as_bytes()) {
            Ok(Requests::One(entry)) => entry,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn identifiers_stay_as_they_were_written() {
        for id in [
            "1",
            "-7",
            "1.0",
            "123456789012345678901234567890",
            "\"\\u0041\"",
            "null",
        ] {
            let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"m"}}"#);
            assert_eq!(one(&text).unwrap().id.as_deref(), Some(id));
        }
        assert!(
            one(r#"{"jsonrpc":"2.0","method":"m"}"#)
                .unwrap()
                .id
                .is_none()
        );
    }

    #[test]
    fn invalid_requests_keep_the_identifier_if_there_is_one() {
        for (text, id) in [
            (r#"{"id":3,"method":"m"}"#, "3"),
            (r#"{"jsonrpc":"1.0","id":"x","method":"m"}"#, "\"x\""),
            (r#"{"jsonrpc":"2.0","id":4}"#, "4"),
            (r#"{"jsonrpc":"2.0","id":4,"method":1}"#, "4"),
            (r#"{"jsonrpc":"2.0","id":4,"method":"m","params":"p"}"#, "4"),
            (r#"{"jsonrpc":"2.0","id":{},"method":"m"}"#, "null"),
            (r#"{"jsonrpc":"2.0","id":true,"method":"m"}"#, "null"),
            (r#"{"jsonrpc":"2.0","id":"\ude00","method":"m"}"#, "null"),
            (r#"{"jsonrpc":"2.0","id":1e999,"method":"m"}"#, "null"),
            ("[]", "null"),
        ] {
            let (found, error) = one(text).unwrap_err();
            assert_eq!((&*found, error.code), (id, -32600), "{text}");
        }
    }

    #[test]
    fn a_batch_is_read_entry_by_entry() {
        let text = r#"[1, {"jsonrpc":"2.0","method":"m"}, []]"#;
        let Ok(Requests::Batch(list)) = read(text.as_bytes()) else {
            panic!("{text}");
        };
        let good: Vec<_> = list.iter().map(Result::is_ok).collect();
        assert_eq!(good, [false, true, false]);
        let many = format!("[{}1]", "1,".repeat(BATCH_MAX));
        assert_eq!(one(&many).unwrap_err().1.code, -32600);
    }

    #[test]
    fn positional_parameters_are_refused() {
        let request = one(r#"{"jsonrpc":"2.0","id":1,"method":"m","params":[1]}"#).unwrap();
        assert_eq!(request.params.unwrap_err().code, -32602);
    }

    #[test]
    fn what_is_no_json_is_a_parse_error() {
        for text in [&b"{\"a\":}"[..], b"{\"a\" 1}", b"[1,]", b"{\"a\":\"\xff\"}"] {
            assert_eq!(read(text).unwrap_err().code, -32700, "{text:?}");
        }
    }
}
