//! Why a connection ended or never came to be.

use std::io;

use super::handshake::Digests;
use crate::auth::AuthError;
use crate::pdu::ProtocolError;
use crate::spec::fabrics::ConnectInvalidParameter;
use crate::spec::status::Status;
use crate::tls::TlsError;

/// Why a connection ended or never came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// TCP could not connect: refused, unreachable, reset.
    #[error("TCP connect failed: {0}")]
    TcpConnect(io::ErrorKind),
    /// A step of connecting was not answered in time.
    #[error("no {0} within the connect timeout")]
    Timeout(&'static str),
    /// The peer closed the connection.
    #[error("connection closed by the peer")]
    Closed,
    /// The socket failed.
    #[error("socket error: {0}")]
    Socket(io::ErrorKind),
    /// The peer broke the protocol; it was told so by H2CTermReq.
    #[error("the controller broke the protocol: {0}")]
    Protocol(ProtocolError),
    /// The peer says that the host broke the protocol.
    #[error("the controller ended the connection (C2HTermReq, FES {fes:#x}, FEI {fei:#x})")]
    Terminated {
        /// Fatal error status.
        fes: u16,
        /// Fatal error information.
        fei: u32,
    },
    /// ICResp holds something this host cannot work with; the peer was told so by H2CTermReq.
    #[error("ICResp: {0}")]
    Icresp(ProtocolError),
    /// The Connect command was completed with an error.
    #[error("Connect refused: {status}{}", connect_detail(*result))]
    Refused {
        /// Status of the refusal.
        status: Status,
        /// Dword 0 of the completion; for invalid parameters the offset of the field at fault.
        result: u32,
    },
    /// A command was not answered within the command timeout.
    #[error("a command was not answered within the command timeout")]
    CommandTimeout,
    /// The owner of a buffer had fewer bytes than when the buffer was made, or has panicked: see
    /// [`Buffer::owned`](crate::host::Buffer::owned).
    #[error("the owner of a buffer does not have its bytes any more")]
    Buffer,
    /// A command that was aborted, or whose deadline has passed, was not given back.
    #[error("an unwanted command was not given back, although its abort was asked for")]
    NotGivenBack,
    /// Commands were outstanding, no byte came for too long, and a probe was not answered either (rule B9.4).
    #[error("silent with commands outstanding, and a probe was not answered")]
    Silent,
    /// The controller does not grant the digests that are required.
    #[error("{asked} are required, the controller grants {granted}")]
    NoDigests {
        /// What was asked for.
        asked: Digests,
        /// What ICResp says.
        granted: Digests,
    },
    /// Host and controller did not prove to each other who they are.
    #[error("authentication failed: {0}")]
    Authentication(AuthError),
    /// The connection could not be made secure, or is so no longer.
    #[error("TLS: {0}")]
    Tls(TlsError),
    /// The owner closed it.
    #[error("closed by the host")]
    HostClosed,
}

impl QueueError {
    /// Why the stream of a connection that stood failed.
    pub(super) fn of_stream(error: &io::Error) -> Self {
        TlsError::of(error).map_or(Self::Socket(error.kind()), Self::Tls)
    }

    /// Why [`TxQueue::flush`](crate::stream::TxQueue::flush) failed on such a stream.
    pub(super) fn of_flush(error: &io::Error) -> Self {
        match Self::of_stream(error) {
            Self::Socket(io::ErrorKind::InvalidData) => Self::Buffer,
            error => error,
        }
    }
}

impl From<AuthError> for QueueError {
    /// Not as a source: the text has it already.
    fn from(error: AuthError) -> Self {
        Self::Authentication(error)
    }
}

fn connect_detail(result: u32) -> String {
    let detail = ConnectInvalidParameter::from(result);
    match (detail.ipo(), detail.in_data()) {
        (0, false) => String::new(),
        (offset, false) => format!(" (field at byte {offset} of the command)"),
        (offset, true) => format!(" (field at byte {offset} of the Connect data)"),
    }
}
