//! Controllers, and the commands on their admin queues: properties, Identify, log pages, features, asynchronous events, Abort.

pub(in crate::target) mod command;
pub(in crate::target) mod controller;
pub(in crate::target) mod events;
pub(in crate::target) mod features;
pub(in crate::target) mod identify;
pub(in crate::target) mod log_page;

/// How a command went that did not fail.
#[derive(Debug)]
pub(in crate::target) enum Outcome {
    /// Done, with this result (dwords 0 and 1).
    Done(u64),
    /// Done, with this data.
    Data(Vec<u8>),
    /// The answer comes later.
    Later,
}
