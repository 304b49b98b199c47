//! pollux-reactor
#![deny(missing_docs)]
