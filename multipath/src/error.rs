//! Why an I/O was not accepted or has failed, and why a request to the host has.

use std::fmt;

use pollux_nvme_tcp::host::ControllerError;
use pollux_nvme_tcp::spec::status::Status;

/// Why an I/O failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IoError {
    /// The controller completed it with an error that is not retried, or was retried often enough.
    #[error("{0}")]
    Status(Status),
    /// No path can carry it, and none may become available in time.
    #[error("no path: {0}")]
    NoPath(NoPath),
    /// The data that arrived does not match its digest or is incomplete, more often than the retry limit.
    #[error("data lost on the way")]
    Data,
    /// The volume was removed.
    #[error("volume removed")]
    Removed,
    /// It had not ended by its deadline ([`PollGroup::submit_within`](crate::PollGroup::submit_within)). What it
    /// writes may have been written or not, where it had been sent.
    #[error("deadline passed")]
    Deadline,
    /// The owner of its buffer had fewer bytes than when the buffer was made, or has panicked: see
    /// [`Buffer::owned`](crate::Buffer::owned). What it writes was not written.
    #[error("the owner of the buffer does not have its bytes any more")]
    Buffer,
    /// It was not accepted: what a [`Queue`](crate::Queue) learns of it when the reactor has looked at it.
    #[error("not accepted: {0}")]
    Refused(SubmitError),
    /// The reactor has ended before the I/O has. Where it was sent it may have been executed or not.
    #[error("the host has stopped")]
    Stopped,
    /// It ended while it was fenced (rule B14): the controller that it was sent to is lost, and may still execute it.
    #[error("{0}; the write may still be executed by a controller that was lost")]
    InDoubt(EndedEarly),
}

/// What has ended an I/O that was fenced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndedEarly {
    /// Its submitter has aborted it.
    #[error("aborted")]
    Aborted,
    /// Its deadline has passed.
    #[error("deadline passed")]
    Deadline,
    /// The volume was removed.
    #[error("volume removed")]
    Removed,
    /// No path is left that could be waited for.
    #[error("no path: {0}")]
    NoPath(NoPath),
}

/// Why a volume has no path left that could be waited for (rule B7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum NoPath {
    /// The volume has no path at all.
    NoPaths,
    /// The namespace is not active behind any controller.
    NamespaceInactive,
    /// ANA state persistent loss.
    PersistentLoss,
    /// Inaccessible for longer than ANATT.
    AnattExpired,
    /// The controller is unreachable for longer than `fast_io_fail_timeout_sec`.
    FastIoFail,
    /// The controller is gone and is not reconnected to.
    ControllerLost,
    /// None is available now, and nobody waits for one: a host in front follows the ANA state of the volume
    /// ([`VolumeDisk::with_ana`](crate::VolumeDisk::with_ana)).
    NotAwaited,
}

impl fmt::Display for NoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NoPath::NoPaths => "the volume has none",
            NoPath::NamespaceInactive => "the namespace is not active",
            NoPath::PersistentLoss => "ANA persistent loss",
            NoPath::AnattExpired => "inaccessible for longer than ANATT",
            NoPath::FastIoFail => "unreachable for longer than fast_io_fail_timeout_sec",
            NoPath::ControllerLost => "controller lost",
            NoPath::NotAwaited => "none is available now",
        })
    }
}

/// Why an I/O was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// No such volume.
    #[error("no such volume")]
    NoVolume,
    /// No blocks, or blocks beyond the end of the volume.
    #[error("blocks outside the volume")]
    OutOfRange,
    /// The buffer is shorter than the blocks, or than the 16 bytes that a deallocate uses.
    #[error("buffer shorter than the blocks, or than the 16 bytes that a deallocate uses")]
    BufferTooShort,
    /// The [`Queue`](crate::Queue) has no room; there is some when an end of one of its I/Os was taken.
    #[error("the queue is full")]
    Full,
    /// The host has stopped; from a [`Queue`](crate::Queue).
    #[error("the host has stopped")]
    Stopped,
}

/// Why a request failed; nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// The controller could not be connected or brought up.
    #[error("{transport}: {error}")]
    Connect {
        /// Which one.
        transport: String,
        /// Why.
        error: ControllerError,
    },
    /// Not all of it was done by the connect timeout.
    #[error("{0}: not usable within the connect timeout")]
    Timeout(String),
    /// The controller grants fewer I/O queues than there are I/O reactors.
    #[error("{transport}: grants {granted} I/O queues, {needed} are needed (one per I/O reactor)")]
    TooFewQueues {
        /// Which one.
        transport: String,
        /// What it grants.
        granted: u16,
        /// What is needed.
        needed: usize,
    },
    /// More I/O queues are needed than the controller may be asked for
    /// ([`AttachOptions::max_io_queues`](crate::AttachOptions::max_io_queues)).
    #[error(
        "at most {max} I/O queues are allowed (num_io_queues), {needed} are needed (one per I/O reactor)"
    )]
    QueueLimit {
        /// What is allowed.
        max: u32,
        /// What is needed.
        needed: usize,
    },
    /// The operating system refused.
    #[error("{0}: {1}")]
    Socket(String, std::io::ErrorKind),
    /// Already attached under this name.
    #[error("{0}: already attached under this name")]
    Exists(String),
    /// It does not fit to what is attached under the name.
    #[error("{0}")]
    Mismatch(String),
    /// A value or a combination of values is not allowed.
    #[error("{0}")]
    Invalid(&'static str),
    /// No such name.
    #[error("no such {0}")]
    NotFound(String),
    /// A discovery of this name or address is followed already.
    #[error("discovery {0}: started already")]
    DiscoveryExists(String),
    /// What a discovery service lists was not attached while somebody waited for it.
    #[error("{transport}: what it lists could not be attached{}: {cause}", if *.in_time { "" } else { " in time" })]
    Discovery {
        /// The service.
        transport: String,
        /// What has failed so far.
        cause: String,
        /// False if the attach timeout has passed, true if the service failed too often.
        in_time: bool,
    },
    /// It is in the wanted state already.
    #[error("{0}")]
    Already(&'static str),
    /// The host is stopping, or the object went away meanwhile.
    #[error("cancelled: {0}")]
    Cancelled(&'static str),
}
