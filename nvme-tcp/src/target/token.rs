//! Tokens of timers and of watched streams: a kind in the top byte, below it what it is about.

/// The time of a connection to send its Connect.
pub(in crate::target) const CONNECT: u8 = 1;
/// The keep-alive timer of a controller.
pub(in crate::target) const KEEP_ALIVE: u8 = 2;
/// A connection of the home part.
pub(in crate::target) const CONNECTION: u8 = 3;
/// An I/O queue, by its place on its reactor.
pub(in crate::target) const QUEUE: u8 = 4;
/// A connection that is about to be closed.
pub(in crate::target) const LINGERING: u8 = 5;

/// A disk, by its place on its reactor.
pub(in crate::target) const DISK: u8 = 6;

pub(in crate::target) const fn of(kind: u8, id: u64) -> u64 {
    ((kind as u64) << 56) | (id & ((1 << 56) - 1))
}

pub(in crate::target) const fn split(token: u64) -> (u8, u64) {
    (token.to_be_bytes()[0], token & ((1 << 56) - 1))
}
