//! PDUs as bytes: framing of what arrives, emission of what is sent, digests. No I/O and no
//! allocation.
//!
//! [`RxFraming::frame`] looks at the start of a receive buffer and says where the PDU's parts are,
//! once enough of it has arrived to be sure of its header; it never panics, whatever a peer sends.
//! [`TxFraming::put_header`] is the other direction. What a PDU *means* (command ids, transfer
//! tags, data ranges) is checked by the host and the target.

mod digest;
mod emit;
mod error;
mod frame;

#[cfg(test)]
mod tests;

pub use digest::DataDigest;
pub use emit::{Layout, TxFraming, emit_term_req};
pub use error::ProtocolError;
pub use frame::{Before, Frame, Receiver, RxFraming};
