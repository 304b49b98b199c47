//! The two buffered sides of one connection: [`RxBuffer`] takes all that has arrived with one receive a
//! turn, [`TxQueue`] hands over all that a turn has queued with one vectored send.
//!
//! Neither grows, so neither allocates per I/O. A connection that is idle may give its memory away and take other memory
//! when it becomes busy.

mod rx;
mod tx;

pub use rx::RxBuffer;
pub use tx::{NoPayloads, Payloads, TxQueue, TxStore};
