//! The rules of multipath behaviour, one by one, on simulated reactors in virtual time. `RULES.md` says which test
//! holds which rule.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod admin_status;
mod ana;
mod ana_log;
mod anatt;
mod attach;
mod common;
mod completions;
mod cross_controller_reset;
mod deadlines;
mod failover;
mod faults;
mod fencing;
mod identity;
mod keep_alive;
mod leaks;
mod many;
mod namespaces;
mod path_state;
mod rate_limits;
mod recovery;
mod resets;
mod selection;
mod silence;
mod status;
mod timeouts;
mod waiting;
