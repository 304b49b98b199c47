//! The receive and send buffers of a reactor's connections. A connection has them only while it is busy: thousands that
//! are idle share the buffers of the few that are not.

use super::connection::{RX_CAPACITY, TX_INLINE, TX_SEGMENTS};
use crate::stream::{RxBuffer, TxQueue, TxStore};

/// Buffers of each kind that are kept for the next connection that becomes busy.
const KEPT_MAX: usize = 32;

/// Buffers that no connection has at present.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    rx: Vec<Box<[u8]>>,
    tx: Vec<TxStore>,
}

impl Buffers {
    /// Sees to it that a connection can receive and send.
    #[inline]
    pub(super) fn lend(&mut self, rx: &mut RxBuffer, tx: &mut TxQueue) {
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
    pub(super) fn take_back(&mut self, rx: &mut RxBuffer, tx: &mut TxQueue) {
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
