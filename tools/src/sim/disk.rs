//! A disk that answers late and out of order, fails when told to, and loses at a crash what was not flushed.
#![expect(
    clippy::disallowed_types,
    reason = "a disk must be Sync although a run has one thread; the lock is never contended"
)]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::target::disk::{
    Disk, DiskChannel, DiskContext, Done, Io, IoId, Op, Opening, Range,
};
use pollux_reactor::{Rng, Time};

use super::BLOCK;
use super::book::Books;
use super::scenario::Shape;

/// The disk: what all reactors share.
#[derive(Debug)]
pub struct SimDisk(Mutex<State>);

#[derive(Debug)]
struct State {
    /// What reads see.
    now: Vec<u8>,
    /// What survives a crash.
    flushed: Vec<u8>,
    /// Blocks in which the two differ, or may.
    dirty: Vec<u64>,
    latency: Duration,
    /// I/Os that fail.
    errors: u64,
    /// Nothing is carried out before this time.
    stopped_until: Time,
    /// Nothing is carried out any more by whoever has it open with an older number.
    life: u64,
    nsid: u32,
    /// Whoever knows what may be carried out.
    books: Books,
}

impl SimDisk {
    pub fn new(shape: &Shape, nsid: u32, books: Books) -> SimDisk {
        let bytes = vec![0; shape.blocks as usize * BLOCK];
        let latency = Duration::from_micros(shape.disk_us.into());
        SimDisk(Mutex::new(State {
            nsid,
            books,
            flushed: bytes.clone(),
            now: bytes,
            dirty: Vec::new(),
            latency,
            errors: 0,
            stopped_until: Time::ZERO,
            life: 0,
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many I/Os fail.
    pub fn fail(&self, count: u64) {
        self.state().errors = count;
    }

    /// Nothing is carried out before `until`.
    pub fn stop(&self, until: Time) {
        self.state().stopped_until = until;
    }

    /// No more faults.
    pub fn heal(&self) {
        let mut state = self.state();
        state.errors = 0;
        state.stopped_until = Time::ZERO;
    }

    /// The machine dies: of each block that was not flushed, the new or the old content is left.
    pub fn crash(&self, rng: &mut Rng) {
        let mut state = self.state();
        state.life += 1;
        let dirty = std::mem::take(&mut state.dirty);
        for block in dirty {
            let at = bytes(block * BLOCK as u64, BLOCK as u64);
            let State { now, flushed, .. } = &mut *state;
            match rng.below(2) {
                0 => now[at.clone()].copy_from_slice(&flushed[at]),
                _ => flushed[at.clone()].copy_from_slice(&now[at]),
            }
        }
    }
}

fn bytes(offset: u64, len: u64) -> std::ops::Range<usize> {
    let at = usize::try_from(offset).unwrap_or(usize::MAX);
    at..at.saturating_add(usize::try_from(len).unwrap_or(usize::MAX))
}

impl State {
    /// Judges what is about to be carried out.
    fn judge(&self, io: &Io) {
        let mut book = self.books.borrow();
        let ranges: &[Range] = match &io.op {
            Op::Write { offset, .. } => &[Range {
                offset: *offset,
                len: io.data.len() as u64,
            }],
            Op::Zero { range, .. } => &[*range],
            Op::Deallocate { ranges } => ranges,
            _ => return,
        };
        let data = matches!(io.op, Op::Write { .. }).then_some(&io.data[..]);
        for range in ranges {
            let lba = range.offset / BLOCK as u64;
            let blocks = range.len / BLOCK as u64;
            if let Err(what) = book.oracle.carries_out(self.nsid, (lba, blocks), data) {
                book.violate("a disk carries out what has not ended", what);
            }
        }
    }

    fn carry_out(&mut self, io: &mut Io) -> Result<(), Status> {
        self.judge(io);
        if self.errors > 0 {
            self.errors -= 1;
            return Err(match self.errors % 3 {
                0 => Status::INTERNAL_ERROR,
                1 => Status::INTERNAL_ERROR.with_dnr(),
                _ => Status::new(3, 0x70),
            });
        }
        let len = io.data.len() as u64;
        match &io.op {
            Op::Read { offset } => io.data.copy_from_slice(&self.now[bytes(*offset, len)]),
            Op::Write { offset, fua } => {
                self.now[bytes(*offset, len)].copy_from_slice(&io.data);
                self.changed(*offset, len, *fua);
            }
            Op::Compare { offset } => {
                if self.now[bytes(*offset, len)] != *io.data {
                    return Err(Status::COMPARE_FAILURE);
                }
            }
            Op::Zero { range, fua, .. } => {
                let (Range { offset, len }, fua) = (*range, *fua);
                self.now[bytes(offset, len)].fill(0);
                self.changed(offset, len, fua);
            }
            Op::Deallocate { ranges } => {
                for &Range { offset, len } in ranges {
                    self.now[bytes(offset, len)].fill(0);
                    self.changed(offset, len, false);
                }
            }
            Op::Flush => {
                for block in std::mem::take(&mut self.dirty) {
                    let at = bytes(block * BLOCK as u64, BLOCK as u64);
                    self.flushed[at.clone()].copy_from_slice(&self.now[at]);
                }
            }
            _ => return Err(Status::INVALID_OPCODE.with_dnr()),
        }
        Ok(())
    }

    fn changed(&mut self, offset: u64, len: u64, fua: bool) {
        let block = BLOCK as u64;
        for block in offset / block..(offset + len) / block {
            if fua {
                let at = bytes(block * BLOCK as u64, BLOCK as u64);
                self.flushed[at.clone()].copy_from_slice(&self.now[at]);
                self.dirty.retain(|&dirty| dirty != block);
            } else if !self.dirty.contains(&block) {
                self.dirty.push(block);
            }
        }
    }
}

/// The disk by itself, for whoever keeps it beside the target.
#[derive(Clone, Debug)]
pub struct Shared(pub Arc<SimDisk>);

impl Disk for Shared {
    fn name(&self) -> String {
        "simulated disk".into()
    }

    fn bytes(&self) -> u64 {
        self.0.state().now.len() as u64
    }

    fn open(&self, _: Opening) -> Box<dyn DiskChannel> {
        Box::new(Channel {
            life: self.0.state().life,
            disk: self.0.clone(),
            pending: Vec::new(),
        })
    }
}

/// The disk as one reactor has it.
#[derive(Debug)]
struct Channel {
    disk: Arc<SimDisk>,
    life: u64,
    /// I/Os, and when they are carried out.
    pending: Vec<(Time, Io)>,
}

impl DiskChannel for Channel {
    fn submit(&mut self, io: Io, cx: &mut DiskContext<'_>) -> Option<Done> {
        let most = self.disk.state().latency.as_nanos();
        let most = u64::try_from(most).unwrap_or(u64::MAX);
        let due = cx.now + Duration::from_nanos(cx.rng.below(most.max(1)));
        self.pending.push((due, io));
        None
    }

    fn poll(&mut self, done: &mut Vec<Done>, cx: &mut DiskContext<'_>) {
        let mut state = self.disk.state();
        if cx.now < state.stopped_until || state.life != self.life {
            return;
        }
        let mut due: Vec<_> = self
            .pending
            .extract_if(.., |(at, _)| *at <= cx.now)
            .collect();
        due.sort_by_key(|(at, _)| *at);
        for (_, mut io) in due {
            let result = state.carry_out(&mut io);
            done.push(io.done(result));
        }
    }

    fn deadline(&self) -> Option<Time> {
        let next = self.pending.iter().map(|(at, _)| *at).min()?;
        Some(next.max(self.disk.state().stopped_until))
    }

    fn cancel(&mut self, id: IoId) -> Option<Done> {
        // One in two can still be taken back; the others come later.
        let at = self.pending.iter().position(|(_, io)| io.id() == id)?;
        if self.pending[at].0.as_nanos().is_multiple_of(2) {
            return None;
        }
        let (_, io) = self.pending.swap_remove(at);
        Some(io.done(Err(Status::ABORTED_BY_REQUEST)))
    }
}
