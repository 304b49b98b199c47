//! TLS 1.3 with pre-shared keys (NVMe/TCP Transport 1.1, 3.6.1): keys as they are written down, what is derived from them for
//! one host and one subsystem, and streams that use them.
//!
//! Keys are behind the feature `auth`, which wants no C compiler; streams behind the feature `tls`. Without it the types are
//! there, and nobody can have any. Nothing here shows a key: not `Debug`, no error, no log. Copies of keys are wiped when they
//! are dropped.

use std::io;

#[cfg(feature = "tls")]
mod client_hello;
#[cfg(feature = "tls")]
mod engine;
#[cfg(feature = "tls")]
mod kernel;
#[cfg(feature = "auth")]
mod psk;
#[cfg(feature = "tls")]
mod secure;
#[cfg(feature = "tls")]
mod stream;

#[cfg(feature = "auth")]
pub use self::psk::{CipherSuite, ConfiguredPsk, IdentityVersion, PskError, TlsPsk};
#[cfg(feature = "tls")]
pub(crate) use self::secure::Session;
#[cfg(feature = "tls")]
pub use self::secure::{HostKey, HostPsk, HostTls};

#[cfg(not(feature = "tls"))]
mod absent;
#[cfg(not(feature = "tls"))]
pub(crate) use self::absent::Session;
#[cfg(not(feature = "tls"))]
pub use self::absent::{HostPsk, HostTls};

/// How a connection that was accepted does TLS.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(feature = "tls"),
    expect(dead_code, reason = "no connection does any")
)]
pub(crate) struct Manner {
    /// Other threads may do what takes long; in a simulation there are none.
    pub(crate) threads: bool,
    /// The peer may do without.
    pub(crate) optional: bool,
    /// The kernel is to encrypt where it can.
    pub(crate) ktls: bool,
}

/// Why there is no TLS connection. Says nothing of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The peer ended the connection during the handshake.
    #[error(
        "the peer ended the connection during the handshake: it has no such key, or does no TLS"
    )]
    Closed,
    /// The peer says by an alert that it does not agree (RFC 8446, 6.2).
    #[error("the peer refuses: {}", alert(*.0))]
    Alert(u8),
    /// The peer offers none of the keys that are known here.
    #[error("the peer offers no PSK identity that is known here")]
    UnknownIdentity,
    /// The peer offers a known identity, and has another key.
    #[error("the peer has another key for its PSK identity")]
    WrongKey,
    /// The peer speaks something else.
    #[error("the peer does no TLS")]
    NotTls,
    /// Something came about that is no handshake with a pre-shared key.
    #[error("the handshake used no pre-shared key")]
    NoKey,
    /// The peer sends and sends, and does not come to the end of its handshake.
    #[error("the peer sends too much for a handshake")]
    TooLong,
    /// The peer changes its keys, and the kernel encrypts: before Linux 6.14 it has one key for each direction.
    #[error(
        "the peer changes its keys (KeyUpdate), which the kernel that encrypts does not follow"
    )]
    KeyUpdate,
    /// A key has encrypted as many records as AES-GCM allows, and the kernel has one key for each direction.
    #[error(
        "one key has encrypted as many records as it may, and the kernel that encrypts takes no other: connect again"
    )]
    KeyLimit,
    /// What the peer sends is no TLS, or not this TLS: the library's name for it.
    #[error("what the peer sends is not what TLS 1.3 wants ({0})")]
    Failed(&'static str),
}

fn alert(code: u8) -> String {
    let name = match code {
        0 => "it closes",
        10 => "unexpected message",
        20 => "bad record MAC",
        40 => "handshake failure, as of a key or an identity that it does not know",
        47 => "illegal parameter",
        50 => "decode error",
        51 => "decrypt error, as of another key",
        70 => "protocol version",
        80 => "internal error",
        115 => "unknown PSK identity",
        code => return format!("alert {code}"),
    };
    name.into()
}

impl TlsError {
    /// Whether a peer ends a handshake like this that looks no further than the first PSK identity that it does not know: without
    /// a word, or as one that has no key (handshake_failure, unknown_psk_identity; OpenSSL: internal_error), or takes its only
    /// one, with which the first binder is wrong (illegal_parameter, decrypt_error).
    pub(crate) const fn may_be_of_order(self) -> bool {
        matches!(self, Self::Closed | Self::Alert(40 | 47 | 51 | 80 | 115))
    }

    /// The one that an error of a stream is about.
    pub(crate) fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}
