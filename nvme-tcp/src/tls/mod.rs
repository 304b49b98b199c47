//! TLS 1.3 with pre-shared keys (NVMe/TCP Transport 1.1, 3.6.1): keys as they are written down, and what is derived from them
//! for one host and one subsystem.
//!
//! Behind the feature `auth`: all of this wants no C compiler. Nothing here shows a key: not `Debug`, no error, no log. Copies of keys are wiped when they are
//! dropped.

mod psk;

pub use self::psk::{CipherSuite, ConfiguredPsk, IdentityVersion, PskError, TlsPsk};
