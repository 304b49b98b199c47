//! The host's management methods, from the socket to a target on real connections and back.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod attach;
mod authentication;
mod config;
mod controllers;
mod discovery;
mod faults;
mod paths;
mod tls;
mod world;
