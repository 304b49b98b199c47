//! Pollux for C. What a C program sees of it is `include/pollux.h`, which is made from this crate; `examples/write_then_read.c`
//! is a program.
//!
//! Nothing here panics across the border, and no handle is a pointer: what a program hands in by mistake is told apart from
//! what it has been given. The one thing that has to be believed is that buffers are as long as they are said to be.
//!
//! # Features
//!
//! Both are off unless asked for, as in `cargo build --release -p pollux-c --features auth`, and the header is the same with
//! and without them. No function takes keys yet, so what they bring is only reached by a Rust program that has this crate and
//! `pollux-multipath`.
//!
//! * `auth`: in-band authentication (DH-HMAC-CHAP).
//! * `tls`: TLS 1.3 with pre-shared keys; implies `auth`, and wants a C compiler.
//!
//! # Pages
//!
//! `include/pollux.h` says of every function what it does and how it fails. The pages of a Rust program are those of
//! `pollux-multipath`; this crate has none, since the program `pollux` has its name there.
#![expect(non_camel_case_types, reason = "named as C names them")]
#![deny(missing_docs)]

mod disk;
mod failure;
mod handles;
mod host;

use std::ffi::c_char;

pub use self::disk::*;
pub use self::host::*;

/// The version of this header, as pollux_version() tells that of the library: 10,000 x major + 100 x minor + patch. Within one
/// minor version of 0, and one major version from 1 on, what is there stays as it is.
pub const POLLUX_VERSION: u32 = 100;

/// The version of the library that is linked.
#[expect(unsafe_code, reason = "a name for C")]
#[unsafe(no_mangle)]
pub extern "C" fn pollux_version() -> u32 {
    POLLUX_VERSION
}

/// What was wrong when a function last failed on this thread. It stands until this is called again on this thread.
#[expect(unsafe_code, reason = "a name for C")]
#[unsafe(no_mangle)]
pub extern "C" fn pollux_error() -> *const c_char {
    failure::last()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_version_is_the_packages() {
        let version = env!("CARGO_PKG_VERSION")
            .split('.')
            .fold(0, |version, part| {
                version * 100 + part.parse::<u32>().unwrap()
            });
        assert_eq!(super::pollux_version(), version);
    }
}
