//! Who has asked for an attach, and how it has ended.

use crate::error::HostError;
use crate::request::{Attached, Reply};
use crate::transport_id::TransportId;

/// Who has asked for an attach, and is told how it has ended.
pub(super) enum AttachAsker {
    /// Somebody outside.
    Request(Reply<Attached>),
    /// A discovery, for what is listed at an address.
    Discovery {
        discovery: String,
        transport: TransportId,
    },
}

/// How an attach of a discovery has ended.
pub(super) struct AttachResult {
    pub discovery: String,
    pub transport: TransportId,
    pub error: Option<HostError>,
}
