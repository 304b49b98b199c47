//! Parameters of a request, taken out one by one; what is left at the end was not known.

use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::error::RpcError;
use super::files::FilesUnder;

/// The named parameters of a request.
#[derive(Clone, Debug, Default)]
pub struct Params {
    /// Where they stand, for errors: empty, or the path of an object with a dot at its end.
    place: String,
    values: Map<String, Value>,
    files: Option<FilesUnder>,
}

impl Params {
    /// The parameters of `values`.
    pub fn new(values: Map<String, Value>) -> Params {
        Params {
            place: String::new(),
            values,
            files: None,
        }
    }

    /// Names of files have to be of files in that folder.
    pub(super) fn confine_files(&mut self, files: Option<FilesUnder>) {
        self.files = files;
    }

    /// Takes the name of a file that is to be opened.
    ///
    /// # Errors
    ///
    /// As [`required`](Self::required), and if it is not in the folder that the server has for such files
    /// ([`Server::confine_files`](super::Server::confine_files)).
    pub fn file(&mut self, name: &str) -> Result<PathBuf, RpcError> {
        let text: String = self.required(name)?;
        match &self.files {
            None => Ok(text.into()),
            Some(files) => files
                .resolve(&text)
                .map_err(|what| self.invalid(name, what)),
        }
    }

    /// Parameters that were not taken yet.
    pub fn values(&self) -> &Map<String, Value> {
        &self.values
    }

    /// Puts an address in the place of `traddr`, of the parameters or of an object in them.
    pub(super) fn set_address(&mut self, object: Option<&str>, addr: IpAddr) {
        let members = match object {
            Some(object) => self.values.get_mut(object).and_then(Value::as_object_mut),
            None => Some(&mut self.values),
        };
        let member = members.and_then(|members| members.get_mut("traddr"));
        debug_assert!(member.is_some(), "a name was found there");
        if let Some(member) = member {
            *member = addr.to_string().into();
        }
    }

    /// Takes a parameter that must be there.
    ///
    /// # Errors
    ///
    /// -32602, with its name, if it is missing or not of the type.
    pub fn required<T: FromParam>(&mut self, name: &str) -> Result<T, RpcError> {
        self.optional(name)?
            .ok_or_else(|| RpcError::invalid_params(format!("'{}{name}' is missing", self.place)))
    }

    /// Takes a parameter that may be missing or null.
    ///
    /// # Errors
    ///
    /// -32602, with its name, if it is not of the type.
    pub fn optional<T: FromParam>(&mut self, name: &str) -> Result<Option<T>, RpcError> {
        let Some(value) = self.values.shift_remove(name).filter(|v| !v.is_null()) else {
            return Ok(None);
        };
        match T::from_param(value) {
            Ok(value) => Ok(Some(value)),
            Err(expected) => Err(self.invalid(name, expected)),
        }
    }

    /// Takes an object with parameters of its own. Its [`finish`](Self::finish) must be called as well.
    ///
    /// # Errors
    ///
    /// As [`optional`](Self::optional).
    pub fn object(&mut self, name: &str) -> Result<Option<Params>, RpcError> {
        let place = format!("{}{name}.", self.place);
        let values = self.optional::<Map<String, Value>>(name)?;
        let files = self.files.clone();
        Ok(values.map(|values| Params {
            place,
            values,
            files,
        }))
    }

    /// Takes a word out of a fixed set and returns what stands for it.
    ///
    /// # Errors
    ///
    /// -32602, with the name and the words that are allowed.
    pub fn one_of<T: Copy>(
        &mut self,
        name: &str,
        words: &[(&str, T)],
    ) -> Result<Option<T>, RpcError> {
        let Some(word) = self.optional::<String>(name)? else {
            return Ok(None);
        };
        let found = words.iter().find(|(w, _)| *w == word);
        match found {
            Some(&(_, value)) => Ok(Some(value)),
            None => {
                let words: Vec<_> = words.iter().map(|(w, _)| *w).collect();
                Err(self.invalid(name, format!("'{word}', one of {}", words.join(", "))))
            }
        }
    }

    /// Takes switches that some clients always send and that can only be off here.
    ///
    /// # Errors
    ///
    /// -32602 if one of them is on or no boolean.
    pub fn off(&mut self, names: &[&str]) -> Result<(), RpcError> {
        for name in names {
            if self.optional::<bool>(name)? == Some(true) {
                return Err(RpcError::invalid_params(format!(
                    "'{}{name}' is not supported",
                    self.place
                )));
            }
        }
        Ok(())
    }

    /// Takes parameters that are checked for their type and change nothing.
    ///
    /// # Errors
    ///
    /// -32602 if one of them is of another type.
    pub fn unused<T: FromParam>(&mut self, names: &[&str]) -> Result<(), RpcError> {
        for name in names {
            self.optional::<T>(name)?;
        }
        Ok(())
    }

    /// An error about a parameter: its name and what is wrong.
    pub fn invalid(&self, name: &str, what: impl std::fmt::Display) -> RpcError {
        RpcError::invalid_params(format!("'{}{name}': {what}", self.place))
    }

    /// To be called when all that is known was taken, and before anything is done.
    ///
    /// # Errors
    ///
    /// -32602, with the names of what is left.
    pub fn finish(&mut self) -> Result<(), RpcError> {
        if self.values.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = self
            .values
            .keys()
            .map(|name| format!("'{}{}'", self.place, name.escape_default()))
            .collect();
        Err(RpcError::invalid_params(format!(
            "unknown: {}",
            names.join(", ")
        )))
    }
}

/// A type that a parameter can have.
pub trait FromParam: Sized {
    /// Reads it. The error says what is expected.
    ///
    /// # Errors
    ///
    /// The value is of another type or out of range.
    fn from_param(value: Value) -> Result<Self, String>;
}

fn expected<T>(what: &str, value: &Value) -> Result<T, String> {
    let mut shown = value.to_string();
    if let Some((at, _)) = shown.char_indices().nth(40) {
        shown.truncate(at);
        shown.push_str("...");
    }
    Err(format!("{what} expected, not {shown}"))
}

impl FromParam for bool {
    fn from_param(value: Value) -> Result<bool, String> {
        value
            .as_bool()
            .map_or_else(|| expected("true or false", &value), Ok)
    }
}

impl FromParam for String {
    fn from_param(value: Value) -> Result<String, String> {
        match value {
            // The name of a file or of anything else has none, and some interfaces would end the text there.
            Value::String(text) if !text.contains('\0') => Ok(text),
            value => expected("a string", &value),
        }
    }
}

impl FromParam for Map<String, Value> {
    fn from_param(value: Value) -> Result<Map<String, Value>, String> {
        match value {
            Value::Object(map) => Ok(map),
            value => expected("an object", &value),
        }
    }
}

impl<T: FromParam> FromParam for Vec<T> {
    fn from_param(value: Value) -> Result<Vec<T>, String> {
        match value {
            Value::Array(list) => list.into_iter().map(T::from_param).collect(),
            value => expected("an array", &value),
        }
    }
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl FromParam for $type {
            fn from_param(value: Value) -> Result<$type, String> {
                let number = match value.as_u64() {
                    Some(n) => <$type>::try_from(n).ok(),
                    None => value.as_i64().and_then(|n| <$type>::try_from(n).ok()),
                };
                let what = concat!("an integer (", stringify!($type), ")");
                number.map_or_else(|| expected(what, &value), Ok)
            }
        }
    )*};
}

integers!(u8, u16, u32, u64, i32, i64);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn params(value: Value) -> Params {
        match value {
            Value::Object(map) => Params::new(map),
            _ => Params::default(),
        }
    }

    #[test]
    fn values_are_taken_by_name_and_type() {
        let mut p = params(json!({"a": 1, "b": "x", "c": true, "d": null, "e": [1, 2], "f": -1}));
        assert_eq!(p.required::<u16>("a").unwrap(), 1);
        assert_eq!(p.required::<String>("b").unwrap(), "x");
        assert_eq!(p.optional::<bool>("c").unwrap(), Some(true));
        assert_eq!(p.optional::<u64>("d").unwrap(), None);
        assert_eq!(p.required::<Vec<u8>>("e").unwrap(), [1, 2]);
        assert_eq!(p.required::<i32>("f").unwrap(), -1);
        p.finish().unwrap();
    }

    #[test]
    fn errors_name_the_parameter() {
        let mut p = params(json!({
            "n": 65536, "s": 1, "w": "z", "on": true, "f": 1.5, "o": {"x": 1, "y": "?"}, "zero": "a\0b"
        }));
        let mut errors = vec![
            p.required::<u16>("n").unwrap_err(),
            p.required::<String>("s").unwrap_err(),
            p.required::<String>("none").unwrap_err(),
            p.one_of("w", &[("a", 1), ("b", 2)]).unwrap_err(),
            p.off(&["on"]).unwrap_err(),
            p.required::<u32>("f").unwrap_err(),
            p.required::<String>("zero").unwrap_err(),
        ];
        let mut o = p.object("o").unwrap().unwrap();
        errors.push(o.required::<bool>("x").unwrap_err());
        errors.push(o.finish().unwrap_err());
        let names = [
            "'n'", "'s'", "'none'", "a, b", "'on'", "'f'", "'zero'", "'o.x'", "'o.y'",
        ];
        for (error, name) in errors.iter().zip(names) {
            assert_eq!(error.code, -32602);
            assert!(error.message.contains(name), "{error} {name}");
        }
        p.finish().unwrap();
    }
}
