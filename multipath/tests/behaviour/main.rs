//! The rules of multipath behaviour, one by one, on simulated reactors in virtual time. `RULES.md` says which test
//! holds which rule.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod admin_status;
mod ana_log;
mod anatt;
mod attach;
#[path = "../common/mod.rs"]
mod common;
mod completions;
mod cross_controller_reset;
mod deadlines;
mod failover;
mod faults;
mod fencing;
mod identity;
mod keep_alive;
mod many;
mod namespaces;
mod path_state;
mod resets;
mod selection;
mod silence;
mod status;
mod timeouts;
mod waiting;
