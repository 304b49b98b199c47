//! The way of I/O commands: queue pairs on the reactors that serve them, from the bytes that were received to the disk and
//! back.
//!
//! [`part`] is what a reactor has of it: the queues it was given, the disks it has open ([`channels`]), and the staging memory
//! that hosts share. A queue ([`queue`]) parses, carries out and answers. This room knows of connections and disks; what it is
//! to do, and what it has to tell, are the messages in [`message`].

pub(in crate::target) mod channels;
pub(in crate::target) mod command;
mod counted;
pub(in crate::target) mod message;
pub(in crate::target) mod part;
pub(in crate::target) mod queue;
mod read;
mod round;
pub(in crate::target) mod shares;
mod staging;

/// Names a controller for the lifetime of the target; unlike a CNTLID it is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::target) struct ControllerKey(pub(in crate::target) u64);

/// Largest data of one command in bytes; Identify Controller reports it as MDTS.
pub(in crate::target) const TRANSFER_MAX: u32 = 1 << 20;
