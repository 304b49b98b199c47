//! How a function fails: a negative errno, and a text for who asks.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ffi::{CString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

use pollux_multipath::{HostError, IoError, SubmitError};

/// Why a function failed.
pub(crate) struct Failure {
    /// An errno, positive.
    pub errno: c_int,
    pub text: Cow<'static, str>,
}

thread_local! {
    static LAST: RefCell<Cow<'static, str>> = const { RefCell::new(Cow::Borrowed("")) };
    static TOLD: RefCell<CString> = RefCell::new(CString::default());
}

impl Failure {
    pub fn new(errno: c_int, text: impl Into<Cow<'static, str>>) -> Self {
        let text = text.into();
        Self { errno, text }
    }

    pub fn invalid(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(libc::EINVAL, text)
    }
}

impl From<HostError> for Failure {
    fn from(error: HostError) -> Self {
        let errno = match &error {
            HostError::NotFound(_) => libc::ENOENT,
            HostError::Exists(_) | HostError::Already(_) => libc::EEXIST,
            HostError::Timeout(_) => libc::ETIMEDOUT,
            HostError::Cancelled(_) => libc::ESHUTDOWN,
            HostError::Connect { .. } | HostError::Socket(..) => libc::ECONNREFUSED,
            _ => libc::EINVAL,
        };
        Self::new(errno, error.to_string())
    }
}

impl From<SubmitError> for Failure {
    fn from(error: SubmitError) -> Self {
        match error {
            // Said again and again, so nothing is made for it.
            SubmitError::Full => Self::new(libc::EAGAIN, "the queue is full"),
            SubmitError::Stopped => Self::new(libc::ESHUTDOWN, "the host has stopped"),
            error => Self::invalid(error.to_string()),
        }
    }
}

/// The errno and the NVMe status that an I/O has ended with.
pub(crate) fn ended(result: Result<(), IoError>) -> (c_int, u16) {
    match result {
        Ok(()) => (0, 0),
        Err(IoError::Status(status)) => (libc::EIO, status.code().bits()),
        Err(IoError::NoPath(_)) => (libc::ENXIO, 0),
        Err(IoError::Removed) => (libc::ENODEV, 0),
        Err(IoError::Deadline) => (libc::ETIMEDOUT, 0),
        Err(IoError::Refused(_)) => (libc::EINVAL, 0),
        Err(IoError::Stopped) => (libc::ESHUTDOWN, 0),
        Err(_) => (libc::EIO, 0),
    }
}

/// Does what a function is there for. A panic is a failure like any other, and goes no further.
pub(crate) fn guard(run: impl FnOnce() -> Result<c_int, Failure>) -> c_int {
    let failure = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => return value,
        Ok(Err(failure)) => failure,
        Err(panic) => {
            // What it has panicked with might panic as well when it is dropped.
            std::mem::forget(panic);
            Failure::new(
                libc::ENOTRECOVERABLE,
                "Pollux has panicked; its log says why",
            )
        }
    };
    LAST.set(failure.text);
    -failure.errno
}

/// The text of the last failure of this thread.
pub(crate) fn last() -> *const c_char {
    let text = LAST.with_borrow(|text| CString::new(text.replace('\0', " ")));
    TOLD.with_borrow_mut(|told| {
        *told = text.unwrap_or_default();
        told.as_ptr()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_failure() {
        assert_eq!(guard(|| panic!("as a test")), -libc::ENOTRECOVERABLE);
        assert_eq!(LAST.take(), "Pollux has panicked; its log says why");
        assert_eq!(guard(|| Ok(3)), 3);
    }
}
