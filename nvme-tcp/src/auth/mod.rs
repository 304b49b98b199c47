//! In-band authentication by DH-HMAC-CHAP (NVMe Base 2.1, 8.3.5.5), called KX-HMAC-CHAP in later revisions: host and
//! controller prove to each other that they have a secret, and nobody who listens learns it.
//!
//! Behind the feature `auth`; without it the types are there, and nobody can have keys. Nothing here shows a secret: not
//! `Debug`, no error, no log. Copies of secrets are wiped when they are dropped.
//!
//! Both sides are values without I/O: [`ControllerTransaction`] and [`HostTransaction`] take messages and give messages, of
//! the module [`authentication`](crate::spec::authentication), and hand out as a [`Job`] what takes too long for a
//! reactor's turn. A [`Computation`] is a job on another thread.

mod error;
pub use error::AuthError;

#[cfg(feature = "auth")]
mod controller;
#[cfg(feature = "auth")]
mod dh;
#[cfg(feature = "auth")]
mod hash;
#[cfg(feature = "auth")]
mod host;
#[cfg(feature = "auth")]
pub(crate) mod interchange;
#[cfg(feature = "auth")]
mod kernel_keyring;
#[cfg(feature = "auth")]
mod key_file;
#[cfg(feature = "auth")]
pub mod keyring;
#[cfg(feature = "auth")]
mod pool;
#[cfg(feature = "auth")]
mod primes;
#[cfg(feature = "auth")]
mod response;
#[cfg(feature = "auth")]
mod secret;
#[cfg(feature = "auth")]
#[cfg(test)]
mod tests;

/// What the keys of a host at a subsystem are called: all that status and saved configurations have of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyNames {
    /// That of the host.
    pub dhchap_key: String,
    /// That of the subsystem, if it can prove itself to the host.
    pub dhchap_ctrlr_key: Option<String>,
}

/// With what a host authenticates (DH-HMAC-CHAP).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostAuth {
    /// Its key; and that of the controller, if the controller has to prove itself as well.
    pub keys: Keys,
    /// What is offered to the controller.
    pub policy: Policy,
    /// Another thread may do what takes milliseconds; in a simulation there is none.
    pub threads: bool,
    /// The authentication of the admin queue is to bring a key for TLS, with which the host comes again, on all queues
    /// (secure concatenation). Without the feature `tls` that fails.
    pub concatenate: bool,
}

impl HostAuth {
    /// With these keys; what takes long is done by another thread.
    pub fn new(keys: Keys, policy: Policy) -> Self {
        Self {
            keys,
            policy,
            threads: true,
            concatenate: false,
        }
    }
}

#[cfg(feature = "auth")]
pub use self::{
    controller::{Answered, ControllerTransaction},
    dh::{DhGroup, Job, Powers},
    hash::Hash,
    host::{HostStep, HostTransaction},
    kernel_keyring::KernelKeyError,
    key_file::{KeyFileError, KeyText},
    keyring::{Keyring, KeyringError},
    pool::{Computation, LOOK_AGAIN},
    response::{Agreed, Keys, Names, Nonce, Policy},
    secret::{Secret, SecretError, TransformedSecret},
};

#[cfg(not(feature = "auth"))]
mod absent;
#[cfg(not(feature = "auth"))]
pub use self::absent::*;
