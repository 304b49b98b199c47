//! The target over real TCP, seen by a small blocking initiator.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod admin;
mod allocations;
mod ana;
mod authentication;
mod configuration;
mod disks;
mod faults;
mod io;
mod layers;
mod lying;
mod masking;
mod power_cut;
mod removals;
mod resets;
mod turns;
