//! pollux-multipath
#![deny(missing_docs)]
