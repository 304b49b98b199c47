//! Commands that are answered piece by piece while later ones wait: large reads, and zeroing.

use pollux_reactor::Context;

use super::io_command::{Namespaces, namespace};
use super::io_queue::IoQueue;
use super::layers::Corruption;
use super::read::{ReadCursor, Spoil};
use crate::spec::status::Status;

/// Bytes zeroed per poll.
const ZERO_STEP: u64 = 1 << 20;

/// A command that is answered piece by piece.
#[derive(Debug, Clone, Copy)]
pub(super) enum Work {
    Read(ReadCursor),
    ReadSpoiled(ReadCursor, Corruption),
    /// Zeroes what `IoQueue::ranges` lists.
    Zero {
        cid: u16,
        nsid: u32,
    },
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

    /// Zeroes a piece of what `ranges` lists. Returns whether it is finished; stops for this poll when
    /// enough was zeroed.
    pub(super) fn advance_zero(
        &mut self,
        cid: u16,
        nsid: u32,
        namespaces: &Namespaces,
        zeroed: &mut u64,
        cx: &Context<'_>,
    ) -> bool {
        while let Some(range) = self.ranges.last_mut() {
            if *zeroed >= ZERO_STEP {
                return false;
            }
            let step = range.len.min(ZERO_STEP - *zeroed);
            let result = namespace(namespaces, nsid).and_then(|view| {
                view.store
                    .write_zeroes(range.offset, usize::try_from(step).unwrap_or(0))
                    .map_err(|_| Status::WRITE_FAULT)
            });
            if let Err(status) = result {
                self.end_zero(cid, nsid, Err(status), cx);
                return true;
            }
            *zeroed += step;
            range.offset += step;
            range.len -= step;
            if range.len == 0 {
                self.ranges.pop();
            }
        }
        self.end_zero(cid, nsid, Ok(()), cx);
        true
    }

    fn end_zero(&mut self, cid: u16, nsid: u32, result: Result<(), Status>, cx: &Context<'_>) {
        self.work = None;
        match self.ruling(cid) {
            None => self.complete(cid, result, 0),
            Some(ruling) => self.settle(cid, nsid, result, ruling.delay, cx),
        }
    }
}
