//! In-band authentication by DH-HMAC-CHAP (NVMe Base 2.1, 8.3.5.5), called KX-HMAC-CHAP in later revisions: host and
//! controller prove to each other that they have a [`Secret`], and nobody who listens learns it.
//!
//! Behind the feature `auth`. Nothing here shows a secret: not `Debug`, no error, no log. Copies of secrets are wiped when
//! they are dropped.

mod hash;
mod key_file;
mod secret;

pub use hash::Hash;
pub use key_file::{KeyFileError, KeyText};
pub use secret::{Secret, SecretError, TransformedSecret};
