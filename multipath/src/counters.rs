//! What is counted of the I/O on a path, on the reactor that does it.

use std::time::Duration;

pub use pollux_nvme_tcp::counters::{CounterReset, IoCounters, OpCounters};

use crate::command::Op;

/// Counts an I/O that has succeeded, and moved so many bytes if it moves any.
#[inline]
pub(crate) fn count(counters: &mut IoCounters, op: Op, length: usize, latency: Duration) {
    let (kind, bytes) = match op {
        Op::Read => (&mut counters.reads, length as u64),
        Op::Deallocate => (&mut counters.deallocations, 0),
        op if op.moves_blocks() => (&mut counters.writes, length as u64),
        _ => (&mut counters.writes, 0),
    };
    kind.count(bytes, latency);
}
