//! What a peer did wrong.

use crate::spec::pdu::Fes;

/// The peer broke the transport protocol: the connection ends with a TermReq that carries `fes` and
/// `fei`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} ({fes}, FEI {fei:#x})")]
pub struct ProtocolError {
    /// Fatal Error Status.
    pub fes: Fes,
    /// Fatal Error Information: the offset of the offending field from the start of the PDU, or the
    /// HDGST received; zero where the status has none.
    pub fei: u32,
    /// What was wrong, for a log line.
    pub reason: &'static str,
}

impl ProtocolError {
    /// A field of the PDU's header, `offset` bytes from its start, has a value it must not have.
    #[cold]
    pub const fn field(offset: u32, reason: &'static str) -> Self {
        Self {
            fes: Fes::INVALID_HEADER_FIELD,
            fei: offset,
            reason,
        }
    }

    /// A PDU that must not come now.
    #[cold]
    pub const fn sequence(reason: &'static str) -> Self {
        Self {
            fes: Fes::SEQUENCE_ERROR,
            fei: 0,
            reason,
        }
    }

    /// A status that carries no further information.
    #[cold]
    pub const fn new(fes: Fes, reason: &'static str) -> Self {
        Self {
            fes,
            fei: 0,
            reason,
        }
    }
}
