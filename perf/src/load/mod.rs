//! One job's work without the I/O: fills its slots with operations, takes completions, checks data, counts.
//!
//! Its owner moves buffers between here and the volume. Every operation that was handed out comes back exactly once,
//! and `verify` never has two I/Os in flight on one block.

mod arrivals;
mod check;
mod distribution;
mod job;
mod ledger;
mod mix;
mod pattern;
mod plan;
mod workload;

use std::fmt::Display;

use pollux_multipath::Op;

#[cfg(test)]
pub use self::arrivals::unit;
pub use self::arrivals::{Arrivals, Backlog, Process, Rate};
pub use self::check::Verified;
pub use self::distribution::Distribution;
pub use self::job::{Collected, JobMessage, Jobs, News, Start};
pub use self::mix::Mix;
pub use self::plan::{Plan, Work, plans, random_seed};
pub use self::workload::{Operation, Workload};

use self::check::Verify;
use self::ledger::Ledger;
use self::pattern::Pattern;
use self::workload::Generator;
use crate::stats::{Gap, JobStats};

/// So many draws in a row that hit blocks in flight mean that there is no room now.
const DRAWS_MAX: usize = 32;

/// An I/O to submit.
#[derive(Debug)]
pub struct Prepared {
    /// To be given back with the completion.
    pub slot: usize,
    /// What to do.
    pub operation: Operation,
    /// At least as long as the operation; filled if `verify` writes.
    pub buffer: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Free,
    /// In flight.
    Flying {
        operation: Operation,
        since_ns: u64,
    },
    /// Written; its blocks stay reserved until they are read back.
    Written(Operation),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LoadState {
    /// New operations are drawn.
    Running,
    /// What is in flight comes home.
    Draining,
    /// All blocks with known contents are read once more, from this one on.
    Sweeping(u64),
}

/// The state of one job.
#[derive(Debug)]
pub struct Load {
    plan: Plan,
    generator: Generator,
    verify: Option<Verify>,
    slots: Vec<Stage>,
    buffers: Vec<Vec<u8>>,
    free: Vec<usize>,
    written: Vec<usize>,
    state: LoadState,
    stats: Box<JobStats>,
    submitted: u64,
    completed: u64,
    /// All slots were taken at least once.
    is_full: bool,
    /// Successes since the latest [`note_completions`](Self::note_completions).
    succeeded: bool,
    last_success_ns: Option<u64>,
    started_ns: Option<u64>,
    /// Set by [`stop`](Self::stop) while new operations were drawn.
    stopped_ns: Option<u64>,
    ended_ns: u64,
    /// When the latest failure was.
    failed_ns: u64,
}

impl Load {
    /// All memory of the job, buffers included, is taken here.
    pub fn new(plan: Plan) -> Self {
        let largest = plan.shape.largest() as usize * plan.block_bytes;
        let verify = (plan.shape.workload == Workload::Verify).then(|| Verify {
            ledger: Ledger::new(plan.shape.region.clone()),
            pattern: Pattern::new(plan.pattern_seed, plan.block_bytes),
            verified: Verified::default(),
        });
        // Written once, so that the pages are there before the clock runs.
        let fill = Pattern::new(plan.pattern_seed, plan.block_bytes);
        let buffers = (0..plan.depth as u64)
            .map(|slot| {
                let mut buffer = vec![0; largest];
                fill.fill(&mut buffer, slot, |_| 0);
                buffer
            })
            .collect();
        Self {
            generator: Generator::new(plan.shape.clone(), plan.seed),
            verify,
            slots: vec![Stage::Free; plan.depth],
            buffers,
            free: (0..plan.depth).rev().collect(),
            written: Vec::with_capacity(plan.depth),
            state: LoadState::Running,
            stats: Box::new(JobStats::new()),
            submitted: 0,
            completed: 0,
            is_full: false,
            succeeded: false,
            last_success_ns: None,
            started_ns: None,
            stopped_ns: None,
            ended_ns: 0,
            failed_ns: 0,
            plan,
        }
    }

    /// The next I/O, if a slot is free and there is something to do.
    #[inline]
    pub fn prepare(&mut self, now_ns: u64) -> Option<Prepared> {
        let (slot, operation, since_ns) = self.next_step(now_ns)?;
        let mut buffer = std::mem::take(self.buffers.get_mut(slot)?);
        if let (Some(verify), true) = (&self.verify, operation.writes()) {
            let ledger = &verify.ledger;
            let data = &mut buffer[..operation.blocks as usize * self.plan.block_bytes];
            verify
                .pattern
                .fill(data, operation.lba, |lba| ledger.next_generation(lba));
        }
        self.slots[slot] = Stage::Flying {
            operation,
            since_ns,
        };
        self.submitted += 1;
        if self.started_ns.is_none() {
            self.started_ns = Some(now_ns);
            self.last_success_ns = Some(now_ns);
        }
        if self.state == LoadState::Running
            && self.plan.ios.is_some_and(|limit| self.submitted >= limit)
        {
            self.state = LoadState::Draining;
        }
        Some(Prepared {
            slot,
            operation,
            buffer,
        })
    }

    /// A slot, what to do in it, and since when it has been due.
    #[inline]
    fn next_step(&mut self, now_ns: u64) -> Option<(usize, Operation, u64)> {
        if let Some(slot) = self.written.pop()
            && let Some(Stage::Written(operation)) = self.slots.get(slot).copied()
        {
            let read_back = Operation {
                op: Op::Read,
                ..operation
            };
            return Some((slot, read_back, now_ns));
        }
        let mut since_ns = now_ns;
        if let (Some(arrivals), LoadState::Running) = (&mut self.plan.arrivals, self.state) {
            arrivals.look(now_ns);
            since_ns = arrivals.next_due_ns()?;
            if self.free.is_empty() {
                arrivals.note_backlog();
            }
        }
        let slot = *self.free.last()?;
        let operation = match self.state {
            LoadState::Running => self.draw()?,
            LoadState::Draining => return None,
            LoadState::Sweeping(from) => self.sweep(from)?,
        };
        if let (Some(arrivals), LoadState::Running) = (&mut self.plan.arrivals, self.state) {
            arrivals.start();
        }
        self.free.pop();
        self.is_full |= self.free.is_empty();
        Some((slot, operation, since_ns))
    }

    #[inline]
    fn draw(&mut self) -> Option<Operation> {
        let Some(verify) = &mut self.verify else {
            return Some(self.generator.next_operation());
        };
        for _ in 0..DRAWS_MAX {
            let mut operation = self.generator.next_operation();
            if verify.ledger.reserve(operation) {
                if !verify.ledger.checkable(operation) {
                    operation.op = Op::Write;
                }
                return Some(operation);
            }
        }
        None
    }

    fn sweep(&mut self, from: u64) -> Option<Operation> {
        let verify = self.verify.as_mut()?;
        let lba = verify.ledger.next_known(from)?;
        let largest = self.plan.shape.largest();
        let left = u32::try_from(self.plan.shape.region.end - lba).unwrap_or(u32::MAX);
        let operation = Operation {
            op: Op::Read,
            lba,
            blocks: largest.min(left),
        };
        if !verify.ledger.reserve(operation) {
            return None;
        }
        self.state = LoadState::Sweeping(operation.range().end);
        Some(operation)
    }

    /// Takes a completion. `path` numbers the path that carried it, if one did.
    #[inline]
    pub fn complete<E: Display>(
        &mut self,
        slot: usize,
        buffer: Vec<u8>,
        result: Result<(), E>,
        path: Option<usize>,
        now_ns: u64,
    ) {
        let Some(Stage::Flying {
            operation,
            since_ns,
        }) = self.slots.get(slot).copied()
        else {
            unreachable!("completion of slot {slot}, which is not in flight");
        };
        self.completed += 1;
        let swept = matches!(self.state, LoadState::Sweeping(_));
        if !swept {
            // A failure that comes late is the end of an outage, not of the load.
            match result {
                Ok(()) => self.ended_ns = now_ns,
                Err(_) => self.failed_ns = now_ns,
            }
        }
        let bytes = operation.blocks as usize * self.plan.block_bytes;
        let latency_ns = now_ns.saturating_sub(since_ns);
        let stats = &mut self.stats;
        match &result {
            // What is read at the end is no part of the load.
            Ok(()) if swept => {}
            Ok(()) => {
                self.succeeded = true;
                stats.latency.saturating_record(latency_ns);
                match operation.op {
                    Op::Read => {
                        stats.reads += 1;
                        stats.bytes += bytes as u64;
                    }
                    Op::Write => {
                        stats.writes += 1;
                        stats.bytes += bytes as u64;
                    }
                    other => stats.note_other(other, bytes as u64),
                }
                if let Some(path) = path {
                    stats.path(path).ios += 1;
                }
            }
            Err(error) => {
                stats.failed_latency.saturating_record(latency_ns);
                stats.errors += 1;
                if let Some(path) = path {
                    stats.path(path).errors += 1;
                }
                stats.note_error(|| {
                    let verb = operation.op.name();
                    format!(
                        "{verb} of {} blocks at LBA {}: {error}",
                        operation.blocks, operation.lba
                    )
                });
            }
        }
        let stage = match &mut self.verify {
            None => Stage::Free,
            Some(verify) => {
                let (data, ok) = (&buffer[..bytes], result.is_ok());
                verify.settle(operation, data, ok, swept, stats)
            }
        };
        self.slots[slot] = stage;
        self.buffers[slot] = buffer;
        match stage {
            Stage::Written(_) => self.written.push(slot),
            _ => self.free.push(slot),
        }
    }

    /// To be called once after each batch of completions.
    pub fn note_completions(&mut self, now_ns: u64) {
        if !std::mem::take(&mut self.succeeded) {
            return;
        }
        if let Some(start_ns) = self.last_success_ns.replace(now_ns) {
            self.stats.note_gap(Gap {
                job: self.plan.job,
                start_ns,
                end_ns: now_ns,
                open: false,
            });
        }
    }

    /// Nothing new is started; what is in flight, read-backs included, still comes home.
    pub fn stop(&mut self, now_ns: u64) {
        if self.state == LoadState::Running {
            self.state = LoadState::Draining;
            self.stopped_ns = Some(now_ns);
            // What was due has waited until now, and nobody knows for how much longer it would have.
            if let Some(arrivals) = &mut self.plan.arrivals {
                arrivals.look(now_ns);
                arrivals.note_backlog();
                for (age_ns, count) in arrivals.unstarted(now_ns) {
                    self.stats.unfinished.saturating_record_n(age_ns, count);
                }
            }
        }
    }

    /// New operations are drawn.
    pub fn is_running(&self) -> bool {
        self.state == LoadState::Running
    }

    /// The run is over, and what is still in flight is not waited for any longer: each I/O counts with the time that it
    /// has been in flight, and the time since the latest success counts as a gap that is still open.
    pub fn close(&mut self, now_ns: u64) {
        let mut in_flight = false;
        for stage in &self.slots {
            let Stage::Flying {
                operation,
                since_ns,
            } = *stage
            else {
                continue;
            };
            in_flight = true;
            let age_ns = now_ns.saturating_sub(since_ns);
            self.stats.unfinished.saturating_record(age_ns);
            if let (Some(verify), true) = (&mut self.verify, operation.writes()) {
                verify.ledger.write_failed(operation);
            }
        }
        let swept = matches!(self.state, LoadState::Sweeping(_));
        if let (Some(verify), false) = (&mut self.verify, swept) {
            (verify.verified.written, verify.verified.open) = verify.ledger.count();
        }
        // What is read at the end is no part of the load: an outage before it was noted then.
        if !swept {
            self.note_open_gap(in_flight.then_some(now_ns));
        }
    }

    /// The time since the latest success counts as a gap that is still open: until now for what is in flight, else until
    /// the end of the time to run, or the failure that came after it.
    fn note_open_gap(&mut self, until_ns: Option<u64>) {
        let failed_ns = self.failed_ns;
        let stopped_ns = self.stopped_ns.map(|stopped_ns| stopped_ns.max(failed_ns));
        if let (Some(start_ns), Some(end_ns)) = (self.last_success_ns, until_ns.or(stopped_ns))
            && end_ns > start_ns
        {
            self.stats.note_gap(Gap {
                job: self.plan.job,
                start_ns,
                end_ns,
                open: true,
            });
        }
    }

    /// Reads once more whatever was written. Call it when drained.
    pub fn start_sweep(&mut self) {
        self.note_open_gap(None);
        if let Some(verify) = &mut self.verify {
            (verify.verified.written, verify.verified.open) = verify.ledger.count();
            self.state = LoadState::Sweeping(self.plan.shape.region.start);
        }
    }

    /// No new I/O will be drawn, and none is in flight or waits to be read back.
    pub fn drained(&self) -> bool {
        let more = match (self.state, &self.verify) {
            (LoadState::Running, _) => true,
            (LoadState::Sweeping(from), Some(verify)) => verify.ledger.next_known(from).is_some(),
            _ => false,
        };
        !more && self.free.len() == self.slots.len()
    }

    /// Exchanges the counters for `empty`.
    pub fn exchange(&mut self, mut empty: Box<JobStats>) -> Box<JobStats> {
        empty.clear();
        std::mem::replace(&mut self.stats, empty)
    }

    /// The counters, for events.
    pub fn stats_mut(&mut self) -> &mut JobStats {
        &mut self.stats
    }

    /// What was due and not started, since the last time; `None` in a closed loop.
    pub fn take_backlog(&mut self) -> Option<Backlog> {
        self.plan.arrivals.as_mut().map(Arrivals::take_backlog)
    }

    /// As many I/Os as its depth have been in flight.
    pub fn reached_depth(&self) -> bool {
        self.is_full
    }

    /// I/Os handed out and I/Os that came back.
    pub fn account(&self) -> (u64, u64) {
        (self.submitted, self.completed)
    }

    /// What the final reading came to, under `verify`.
    pub fn verified(&self) -> Option<Verified> {
        self.verify.as_ref().map(|verify| verify.verified)
    }

    /// Time of the first submission, and the end: of the time to run, or of the latest success after it.
    pub fn span_ns(&self) -> (u64, u64) {
        let start_ns = self.started_ns.or(self.stopped_ns).unwrap_or(0);
        let end_ns = self.ended_ns.max(self.stopped_ns.unwrap_or(0));
        (start_ns, end_ns.max(start_ns))
    }
}

#[cfg(test)]
mod tests;
