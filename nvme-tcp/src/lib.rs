//! NVMe over TCP for poll-mode reactors: the specification's structures ([`spec`]), framing of PDUs
//! ([`pdu`]), buffered byte streams ([`stream`]), the initiator ([`host`]) and the [`target`].
#![deny(missing_docs)]

pub mod host;
pub mod pdu;
pub mod spec;
pub mod stream;
pub mod target;
