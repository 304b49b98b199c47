//! Layers under namespaces: what `bdev_delay_*` and `bdev_error_*` do to the I/O of a host. And what hosts do to each other
//! that share a reactor's staging memory.
//!
//! The target and the initiator are simulated, so all times here are virtual.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod concatenation;
mod delay;
mod errors;
mod fairness;
mod management;
mod rate_limits;
mod resets;
mod stacked;
mod staging;
mod world;
