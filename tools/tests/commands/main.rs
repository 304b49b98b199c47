//! `pollux identify`, `discover` and `ana`, and the target that they ask, run as their users run them.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails"
)]

mod bad_input;
#[cfg(feature = "tls")]
mod keys;
mod programs;
mod read;
