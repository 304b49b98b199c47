//! `pollux identify`, `discover` and `ana`, run as their users run them.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails"
)]

mod bad_input;
mod programs;
mod read;
