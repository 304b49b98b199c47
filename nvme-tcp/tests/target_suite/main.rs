//! The target over real TCP, seen by a small blocking initiator.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod admin;
mod allocations;
mod ana;
mod configuration;
mod disks;
mod faults;
mod initiator;
mod io;
mod layers;
mod lying;
#[path = "../../examples/own_disk/disk.rs"]
mod own_disk;
mod removals;
mod resets;
mod turns;
