//! The two buffered sides of one connection: [`RxBuffer`] takes all that has arrived with one receive a
//! turn, [`TxQueue`] hands over all that a turn has queued with one vectored send.
//!
//! Both are allocated when the connection is made and never grow, so neither allocates per I/O.

mod rx;
mod tx;

pub use rx::RxBuffer;
pub use tx::{NoPayloads, Payloads, TxQueue};
