//! Why a controller could not be read from.

use std::io;
use std::mem::offset_of;
use std::time::Duration;

use pollux_nvme_tcp::host::{ControllerError, Lost, QueueError, RejectedReason};
use pollux_nvme_tcp::spec::fabrics::{ConnectData, ConnectInvalidParameter};
use pollux_nvme_tcp::spec::{Nqn, Status};

/// Why a command brought no data, or there was no controller to send it to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The operating system would not start the connection.
    #[error("cannot connect: {0}")]
    Socket(io::ErrorKind),
    /// The controller was lost or never came up.
    #[error(transparent)]
    Controller(#[from] ControllerError),
    /// The controller was not ready in time.
    #[error("the controller was not ready within {} s", .0.as_secs_f64())]
    NotReady(Duration),
    /// A command was not answered in time.
    #[error("no answer within {} s", .0.as_secs_f64())]
    NoAnswer(Duration),
    /// The controller refused the command.
    #[error("{0}")]
    Refused(Status),
    /// The command ended without data that can be believed.
    #[error("{0}")]
    Lost(Lost),
    /// The command could not be sent.
    #[error("the command cannot be sent: {0:?}")]
    Rejected(RejectedReason),
    /// The reactor has ended.
    #[error("the connection has ended")]
    Stopped,
}

impl ReadError {
    /// Why the controller did not come up, in terms of the options that were given; `None` where the error
    /// says all there is.
    pub fn explain(&self, subnqn: &Nqn, host_nqn: &Nqn, timeout: Duration) -> Option<String> {
        let within = format!("within the connect timeout of {} s", timeout.as_secs_f64());
        match self {
            Self::Controller(ControllerError::Timeout(step)) => {
                Some(format!("{step}: no answer {within}"))
            }
            Self::Controller(ControllerError::Queue(QueueError::Timeout(what))) => {
                Some(format!("no {what} {within}"))
            }
            Self::Controller(ControllerError::Queue(QueueError::Refused { status, result })) => {
                let unknown = offset_of!(ConnectData, subnqn);
                let unwelcome = offset_of!(ConnectData, hostnqn);
                let field = ConnectInvalidParameter::from(*result);
                let at_fault = usize::from(field.ipo());
                match status.code() {
                    Status::CONNECT_INVALID_PARAMETERS
                        if field.in_data() && at_fault == unknown =>
                    {
                        Some(format!(
                            "subsystem '{subnqn}' is not known there, or not to this host: {status}"
                        ))
                    }
                    Status::CONNECT_INVALID_PARAMETERS
                        if field.in_data() && at_fault == unwelcome =>
                    {
                        Some(format!("host NQN '{host_nqn}' is not accepted: {status}"))
                    }
                    Status::CONNECT_INVALID_HOST => Some(format!(
                        "host NQN '{host_nqn}' may not connect to subsystem '{subnqn}': {status}"
                    )),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_with_the_values_that_were_given() {
        let refused =
            |status, result| ReadError::Controller(QueueError::Refused { status, result }.into());
        let invalid = Status::CONNECT_INVALID_PARAMETERS;
        let data = |offset| u32::from(ConnectInvalidParameter::of_data(offset));
        for (error, parts) in [
            (
                ReadError::Controller(ControllerError::Timeout("Identify Controller")),
                &["Identify Controller", "1.5 s"][..],
            ),
            (
                ReadError::Controller(QueueError::Timeout("ICResp").into()),
                &["no ICResp", "1.5 s"],
            ),
            (
                refused(invalid, data(256)),
                &["'nqn.2014-08.org:a'", "SC 82h"],
            ),
            (refused(invalid, data(512)), &["'nqn.2014-08.org:host'"]),
            (
                refused(Status::CONNECT_INVALID_HOST, 0),
                &["'nqn.2014-08.org:host'", "'nqn.2014-08.org:a'"],
            ),
        ] {
            let subnqn = Nqn::new("nqn.2014-08.org:a").unwrap();
            let host = Nqn::new("nqn.2014-08.org:host").unwrap();
            let text = error
                .explain(&subnqn, &host, Duration::from_millis(1500))
                .unwrap();
            for part in parts {
                assert!(text.contains(part), "{text}");
            }
        }
    }
}
