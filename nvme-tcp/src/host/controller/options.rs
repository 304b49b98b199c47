//! How a controller is brought up, and what its commands may take.

use std::time::Duration;

use crate::host::queue_pair::ConnectOptions;

/// How to bring a controller up.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ControllerOptions {
    /// The admin connection.
    pub connect: ConnectOptions,
    /// I/O queue pairs to ask for; 0 for a controller that is only asked questions.
    pub io_queues: u16,
    /// Entries of each I/O queue that are wanted; the controller's limit (CAP.MQES) holds.
    pub io_queue_size: u16,
    /// Time within which an admin command, but for those that wait for events, must be answered, and whether
    /// the controller is ended when one is not; `None`: no limit.
    pub command_timeout: Option<CommandTimeout>,
}

impl ControllerOptions {
    /// Options for a controller that is only asked questions, without a limit on its commands. I/O queues of 128 entries, once
    /// some are asked for.
    pub fn new(connect: ConnectOptions) -> Self {
        Self {
            connect,
            io_queues: 0,
            io_queue_size: 128,
            command_timeout: None,
        }
    }
}

/// A limit on the time that commands may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandTimeout {
    /// From when a command is submitted. It is noticed at most an eighth later.
    pub after: Duration,
    /// What to do then.
    pub action: TimeoutAction,
}

/// What to do about a command that is not answered in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum TimeoutAction {
    /// Nothing but to tell.
    #[default]
    None,
    /// Abort the command; end the connection if that is of no avail for as long again.
    Abort,
    /// End the connection.
    Reset,
}

impl CommandTimeout {
    /// Calls of [`QueuePair::age`](crate::host::QueuePair::age) that a command may see.
    pub const TICKS: u32 = 9;

    /// Time between two calls of [`QueuePair::age`](crate::host::QueuePair::age): a command is found not before `after`.
    pub fn tick(&self) -> Duration {
        (self.after / (Self::TICKS - 1)).max(Duration::from_nanos(1))
    }
}
