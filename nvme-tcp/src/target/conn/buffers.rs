//! The receive and send buffers of a reactor's connections. A connection has them only while it is busy: thousands that
//! are idle share the buffers of the few that are not.

use crate::stream::{RxBuffer, TxQueue, TxStore};

/// One receive takes 32 writes of 4 KiB in-capsule.
pub(in crate::target) const RX_CAPACITY: usize = 160 * 1024;

/// Inline bytes of answers: two of the largest C2HData PDUs, or 63 reads of 4 KiB.
pub(in crate::target) const TX_INLINE: usize = 2 * (128 * 1024 + 1024);

/// Pieces of answers: three for each of 512 null reads.
pub(in crate::target) const TX_SEGMENTS: usize = 1536;

/// Buffers of each kind that are kept for the next connection that becomes busy.
const KEPT_MAX: usize = 32;

/// Buffers that no connection has at present.
#[derive(Debug, Default)]
pub(in crate::target) struct Buffers {
    rx: Vec<Box<[u8]>>,
    tx: Vec<TxStore>,
}

impl Buffers {
    /// Sees to it that a connection can receive and send.
    #[inline]
    pub(in crate::target) fn lend(&mut self, rx: &mut RxBuffer, tx: &mut TxQueue) {
        if !rx.is_attached() {
            let buffer = self.rx.pop();
            rx.attach(buffer.unwrap_or_else(|| vec![0; RX_CAPACITY].into_boxed_slice()));
        }
        if !tx.is_attached() {
            let store = self.tx.pop();
            tx.attach(store.unwrap_or_else(|| TxStore::new(TX_INLINE, TX_SEGMENTS)));
        }
    }

    /// Takes back what a connection makes no use of: nothing is left to be sent, or next to nothing in the receive buffer.
    pub(in crate::target) fn take_back(&mut self, rx: &mut RxBuffer, tx: &mut TxQueue) {
        if let Some(buffer) = rx.detach()
            && self.rx.len() < KEPT_MAX
        {
            self.rx.push(buffer);
        }
        if let Some(store) = tx.detach()
            && self.tx.len() < KEPT_MAX
        {
            self.tx.push(store);
        }
    }
}
