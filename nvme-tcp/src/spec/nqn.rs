//! NVMe Qualified Names (NVMe Base 2.1, 4.7).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use uuid::Uuid;

/// NQN of the well-known discovery subsystem.
pub const DISCOVERY_NQN: &str = "nqn.2014-08.org.nvmexpress.discovery";

/// Start of an NQN that is made of a UUID.
const UUID_PREFIX: &str = "nqn.2014-08.org.nvmexpress:uuid:";

/// A checked NVMe Qualified Name: `nqn.yyyy-mm.reverse.domain[:name]`, at most 223 bytes of UTF-8.
///
/// Names are compared byte by byte, as the specification wants. A clone shares the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nqn(Arc<str>);

/// Why a text is not an NQN. The message says what is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NqnError {
    /// Too long.
    #[error("NQN is longer than 223 bytes")]
    TooLong,
    /// Does not start with `nqn.yyyy-mm.`.
    #[error(
        "NQN must have the form 'nqn.yyyy-mm.reverse.domain:name', such as 'nqn.2014-08.org.example:a'"
    )]
    Form,
    /// A control character or white space.
    #[error("NQN must not hold white space or control characters")]
    Character,
    /// A control character in the name of a host.
    #[error("host NQN must not hold control characters")]
    Control,
    /// Not UTF-8.
    #[error("NQN is not valid UTF-8")]
    Encoding,
    /// A field of 256 bytes without a terminating zero.
    #[error("NQN field has no terminating zero byte")]
    Unterminated,
}

impl Nqn {
    /// The longest NQN in bytes.
    pub const MAX_LEN: usize = 223;
    /// Length of a field that holds an NQN in Connect data, Identify data and log pages, in bytes.
    pub const FIELD_LEN: usize = 256;

    /// Checks a name.
    ///
    /// # Errors
    /// The text is not an NQN; the error says what is wrong and what is allowed.
    pub fn new(text: &str) -> Result<Self, NqnError> {
        if text.len() > Self::MAX_LEN {
            return Err(NqnError::TooLong);
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(NqnError::Character);
        }
        if !has_nqn_form(text.as_bytes()) {
            return Err(NqnError::Form);
        }
        Ok(Self(text.into()))
    }

    /// The well-known discovery subsystem.
    pub fn discovery() -> Self {
        Self(DISCOVERY_NQN.into())
    }

    /// The NQN made of a UUID.
    pub fn from_uuid(uuid: Uuid) -> Self {
        Self(format!("{UUID_PREFIX}{}", uuid.hyphenated()).into())
    }

    /// Reads a zero-padded field: the name ends at the first zero byte.
    ///
    /// # Errors
    /// No zero byte, not UTF-8, or not an NQN.
    pub fn from_field(field: &[u8; Self::FIELD_LEN]) -> Result<Self, NqnError> {
        Self::new(text_of(field)?)
    }

    /// The name as a zero-padded field.
    pub fn to_field(&self) -> [u8; Self::FIELD_LEN] {
        let mut field = [0; Self::FIELD_LEN];
        for (to, from) in field.iter_mut().zip(self.0.bytes()) {
            *to = from;
        }
        field
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the well-known discovery NQN.
    pub fn is_discovery(&self) -> bool {
        self.as_str() == DISCOVERY_NQN
    }
}

/// The name of a host as Connect brings it: any text of at most 223 bytes of UTF-8 without control characters.
///
/// Hosts in the field do not keep to the form of an NQN: some send `iqn.…` or a bare word, and SPDK's tools send nothing at
/// all. What a host is called matters only where hosts are listed by name. Names are compared byte by byte. A clone shares
/// the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostNqn(Arc<str>);

impl HostNqn {
    /// Checks a name.
    ///
    /// # Errors
    /// Longer than 223 bytes, or a control character.
    pub fn new(text: &str) -> Result<Self, NqnError> {
        if text.len() > Nqn::MAX_LEN {
            return Err(NqnError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(NqnError::Control);
        }
        Ok(Self(text.into()))
    }

    /// Reads a zero-padded field: the name ends at the first zero byte.
    ///
    /// # Errors
    /// No zero byte, not UTF-8, too long, or a control character.
    pub fn from_field(field: &[u8; Nqn::FIELD_LEN]) -> Result<Self, NqnError> {
        Self::new(text_of(field)?)
    }

    /// The name; empty if the host has told none.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text of a zero-padded field.
fn text_of(field: &[u8; Nqn::FIELD_LEN]) -> Result<&str, NqnError> {
    let mut parts = field.splitn(2, |&b| b == 0);
    match (parts.next(), parts.next()) {
        (Some(name), Some(_)) => std::str::from_utf8(name).map_err(|_| NqnError::Encoding),
        _ => Err(NqnError::Unterminated),
    }
}

impl From<Nqn> for HostNqn {
    fn from(nqn: Nqn) -> Self {
        Self(nqn.0)
    }
}

impl FromStr for HostNqn {
    type Err = NqnError;

    fn from_str(text: &str) -> Result<Self, NqnError> {
        Self::new(text)
    }
}

impl PartialEq<Nqn> for HostNqn {
    fn eq(&self, other: &Nqn) -> bool {
        self.0 == other.0
    }
}

impl fmt::Display for HostNqn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for HostNqn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostNqn({})", self.as_str())
    }
}

/// `nqn.yyyy-mm.` and at least one more byte.
fn has_nqn_form(name: &[u8]) -> bool {
    let Some(rest) = name.strip_prefix(b"nqn.") else {
        return false;
    };
    let [y1, y2, y3, y4, b'-', m1, m2, b'.', domain @ ..] = rest else {
        return false;
    };
    let digits = [y1, y2, y3, y4, m1, m2].iter().all(|d| d.is_ascii_digit());
    let month = matches!((m1, m2), (b'0', b'1'..=b'9') | (b'1', b'0'..=b'2'));
    digits && month && !domain.is_empty() && domain.first() != Some(&b':')
}

impl FromStr for Nqn {
    type Err = NqnError;

    fn from_str(text: &str) -> Result<Self, NqnError> {
        Self::new(text)
    }
}

impl AsRef<str> for Nqn {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Nqn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Nqn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nqn({})", self.as_str())
    }
}
