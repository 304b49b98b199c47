//! Host and target get broken bytes over TCP: that connection ends, or that command fails, as the specification says, and
//! no other connection notices.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod authentication;
mod authentication_to_target;
mod broken;
mod client;
mod host;
mod many_reads;
mod nonsense;
mod openssl;
mod target;
mod test_host;
mod tls;
mod to_host;
mod to_target;
