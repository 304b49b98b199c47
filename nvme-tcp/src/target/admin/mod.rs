//! Controllers, and the commands on their admin queues: properties, Identify, log pages, features, asynchronous events, Abort.

pub(in crate::target) mod command;
pub(in crate::target) mod controller;
pub(in crate::target) mod events;
pub(in crate::target) mod features;
pub(in crate::target) mod identify;
pub(in crate::target) mod log_page;
pub(in crate::target) mod reset_log;

use crate::spec::cross_controller_reset::Impacted;

/// How a command went that did not fail.
#[derive(Debug)]
pub(in crate::target) enum Handled {
    /// Done, with this result (dwords 0 and 1).
    Done(u64),
    /// Done, with this data.
    Data(Vec<u8>),
    /// The answer comes later.
    Later,
    /// Done; the keep-alive timer is to start anew.
    KeepAlive,
    /// Done; the controller's queues are to go.
    Stopped,
    /// The answer is whether this reactor has aborted this command.
    Abort { reactor: usize, qid: u16, cid: u16 },
    /// The answer is whether this other controller of the host was reset.
    Reset(Impacted),
    /// The answer is this part of the SMART log, in bytes, which needs the counters of all reactors.
    Smart { offset: u64, len: usize },
}
