//! What a controller tells its owner: where it stands, what has happened, why it has ended.

use crate::host::queue_pair::QueueError;
use crate::host::request::Completed;
use crate::spec::status::Status;

/// Where bringing a controller up or ending it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// The admin queue pair is connecting, or the first round of steps is under way.
    Starting,
    /// Usable: identified, namespaces and ANA log known.
    Ready,
    /// Shutting down.
    Stopping,
    /// The admin queue pair has ended.
    Ended,
}

/// Why a controller was lost or could not be brought up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ControllerError {
    /// The admin queue pair ended.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// A step was refused.
    #[error("{step}: {status}")]
    Refused {
        /// What was asked.
        step: &'static str,
        /// What was answered.
        status: Status,
    },
    /// A step was not answered in time.
    #[error("{0}: no answer in time")]
    Timeout(&'static str),
    /// The owner wanted it so.
    #[error("{0} on request")]
    OnRequest(&'static str),
    /// An answer makes no sense.
    #[error("{0}")]
    BadData(&'static str),
    /// Identify Controller is that of another controller.
    #[error(
        "Identify Controller is that of controller {identified}, connected is controller {connected}"
    )]
    OtherController {
        /// CNTLID that Connect has answered.
        connected: u16,
        /// CNTLID of the Identify Controller data.
        identified: u16,
    },
    /// An admin command was not answered within the command timeout.
    #[error("an admin command was not answered within the command timeout")]
    CommandTimeout,
    /// Keep Alive was not answered within KATO.
    #[error("keep-alive not answered within the keep-alive timeout")]
    KeepAlive,
}

/// What a controller tells its owner.
#[derive(Debug)]
#[non_exhaustive]
pub enum ControllerEvent<U = ()> {
    /// The controller is usable.
    Ready,
    /// The controller announced that its ANA log has changed; it is read next.
    AnaNotice,
    /// A new ANA log was read: [`Controller::ana`](crate::host::Controller::ana).
    Ana,
    /// The namespaces were read again: [`Controller::namespaces`](crate::host::Controller::namespaces).
    Namespaces,
    /// The discovery log has changed.
    DiscoveryLog,
    /// A Cross-Controller Reset that this controller was asked for has ended: its log tells how.
    CrossControllerResetLog,
    /// A request of the owner's ended.
    Admin(Completed<U>),
    /// The admin queue has authenticated again, as was asked for.
    Authenticated,
    /// Admin commands, as many as this, have not been answered within the command timeout. The ones that wait for
    /// events do not count.
    Overdue(usize),
    /// An Abort command that the owner asked for was refused.
    AbortFailed(Status),
    /// The controller is gone; nothing follows.
    Ended(ControllerError),
}
