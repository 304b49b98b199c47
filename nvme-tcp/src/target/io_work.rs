//! Commands that are answered piece by piece while later ones wait: large reads.

use super::io_command::{Namespaces, namespace};
use super::io_queue::IoQueue;
use super::layers::Corruption;
use super::read::{ReadCursor, Spoil};
use crate::spec::status::Status;

/// A command that is answered piece by piece.
#[derive(Debug, Clone, Copy)]
pub(super) enum Work {
    Read(ReadCursor),
    ReadSpoiled(ReadCursor, Corruption),
}

impl IoQueue {
    #[inline]
    pub(super) fn try_read<S: Spoil>(
        &mut self,
        cursor: &mut ReadCursor,
        spoil: &S,
        namespaces: &Namespaces,
    ) -> bool {
        let cqe = self.cqe(cursor.cid, Status::SUCCESS);
        let result = match namespace(namespaces, cursor.nsid) {
            Ok(view) => {
                let out = &mut self.conn.out;
                cursor.advance(out, &view.store, spoil, cqe, self.flow_control)
            }
            Err(status) => Err(status),
        };
        match result {
            Ok(true) => {
                self.counters.reads += 1;
                self.counters.bytes_read += cursor.len();
                true
            }
            Ok(false) => false,
            Err(status) => {
                self.complete(cursor.cid, Err(status), 0);
                true
            }
        }
    }

    /// Sends more of a large read. Returns whether it is finished; then it is not the work any more.
    pub(super) fn advance_read<S: Spoil>(
        &mut self,
        cursor: &mut ReadCursor,
        spoil: &S,
        namespaces: &Namespaces,
        busy: &mut bool,
    ) -> bool {
        let left = cursor.left();
        self.work = None;
        let finished = self.try_read(cursor, spoil, namespaces);
        *busy |= finished || cursor.left() < left;
        finished
    }
}
