//! Commands that end with a task for their disk: flushes, writes with FUA, zeroing and deallocation.
//!
//! A short task is done in place. Any other is handed to the disk's own thread; the command is in flight meanwhile and
//! others go on. Nothing that the thread still does can be taken back: an abort only keeps it from going on, and the
//! command is answered when nothing of it can execute any more. When its queue ends, so does what waits for the answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pollux_reactor::{Context, Sender};

use super::disk::{Asker, Job, Store, Task};
use super::io_command::{Namespaces, namespace};
use super::io_queue::IoQueue;
use super::message::TargetMessage;
use crate::spec::Sqe;
use crate::spec::opcode::nvm;
use crate::spec::sqe::NSID_ALL;
use crate::spec::status::Status;

/// Who does what takes long.
#[derive(Debug, Clone)]
pub(super) enum Helpers {
    /// The disks' threads, which answer to the mailbox of the queue's reactor.
    Threads(Sender<TargetMessage>),
    /// The turn itself: in a simulation nothing may depend on how threads run.
    InPlace,
}

/// A command whose task is with a disk.
#[derive(Debug)]
pub(super) struct InFlight {
    sqe: Sqe,
    /// Disks that have not answered: a flush of all namespaces has several.
    missing: usize,
    result: Result<(), Status>,
    cancelled: Arc<AtomicBool>,
}

impl IoQueue {
    /// Goes on with a command that is done but for a task for its disk, if it has one; `ranges` are those to zero or to
    /// deallocate. Returns the command's result, or nothing if it is in flight now.
    pub(super) fn carry_on(
        &mut self,
        sqe: &Sqe,
        namespaces: &Namespaces,
    ) -> Option<Result<(), Status>> {
        let mut task = match sqe.opcode {
            nvm::FLUSH => Task::Sync,
            nvm::WRITE if sqe.nvm_cdw12().fua() => Task::Sync,
            nvm::WRITE_ZEROES => Task::Zero {
                ranges: std::mem::take(&mut self.ranges),
                deallocate: sqe.nvm_cdw12().deac(),
                sync: sqe.nvm_cdw12().fua(),
            },
            nvm::DATASET_MANAGEMENT => Task::Deallocate {
                ranges: std::mem::take(&mut self.ranges),
            },
            _ => return Some(Ok(())),
        };
        let nsid = sqe.nsid.get();
        if nsid == NSID_ALL && sqe.opcode == nvm::FLUSH {
            let stores = namespaces.iter().map(|view| &view.store);
            return self.start(sqe, stores, || Task::Sync);
        }
        match namespace(namespaces, nsid) {
            Ok(view) if view.store.is_short(&task) => {
                let result = task.run(&view.store);
                // Its room is used again, so that short tasks allocate nothing.
                self.ranges = task.into_ranges();
                Some(result)
            }
            Ok(view) => {
                let mut task = Some(task);
                let store = std::iter::once(&view.store);
                self.start(sqe, store, || task.take().unwrap_or(Task::Sync))
            }
            Err(status) => Some(Err(status)),
        }
    }

    /// Hands a task to each of the disks.
    #[cold]
    fn start<'a>(
        &mut self,
        sqe: &Sqe,
        stores: impl Iterator<Item = &'a Store>,
        mut task: impl FnMut() -> Task,
    ) -> Option<Result<(), Status>> {
        let cancelled = Arc::new(AtomicBool::new(false));
        let mut missing = 0;
        for store in stores {
            let mut task = task();
            if store.is_short(&task) {
                if let Err(status) = task.run(store) {
                    return Some(Err(status));
                }
                continue;
            }
            let Helpers::Threads(sender) = &self.helpers else {
                if let Err(status) = task.run(store) {
                    return Some(Err(status));
                }
                continue;
            };
            Store::submit(Job {
                store: store.clone(),
                task,
                cancelled: Arc::clone(&cancelled),
                asker: Asker {
                    sender: sender.clone(),
                    token: self.token,
                    connection: self.conn.id,
                    cid: sqe.cid.get(),
                },
            });
            missing += 1;
        }
        if missing == 0 {
            return Some(Ok(()));
        }
        self.outstanding += 1;
        self.in_flight.push(InFlight {
            sqe: *sqe,
            missing,
            result: Ok(()),
            cancelled,
        });
        None
    }

    /// A disk has answered. Returns whether a command is to be answered now.
    pub(super) fn job_done(&mut self, cid: u16, result: Result<(), Status>) -> bool {
        let found = self.in_flight.iter_mut();
        let Some(command) = found.into_iter().find(|c| c.sqe.cid.get() == cid) else {
            debug_assert!(false, "an answer to a command that is not in flight");
            return false;
        };
        command.result = command.result.and(result);
        command.missing -= 1;
        let is_ready = command.missing == 0;
        self.ready_jobs += usize::from(is_ready);
        is_ready
    }

    /// Answers one command whose disks have answered; there is one, and room for the answer.
    #[cold]
    pub(super) fn finish_job(&mut self, cx: &Context<'_>) {
        self.ready_jobs = self.ready_jobs.saturating_sub(1);
        let Some(at) = self.in_flight.iter().position(|c| c.missing == 0) else {
            return;
        };
        let InFlight { sqe, result, .. } = self.in_flight.remove(at);
        self.outstanding -= 1;
        self.count_write(&sqe, result);
        match self.ruling(sqe.cid.get()) {
            None => self.complete(sqe.cid.get(), result, 0),
            Some(ruling) => {
                self.settle(sqe.cid.get(), sqe.nsid.get(), result, ruling.delay, cx);
            }
        }
    }

    pub(super) fn is_in_flight(&self, cid: u16) -> bool {
        self.in_flight.iter().any(|c| c.sqe.cid.get() == cid)
    }

    /// Keeps what is in flight for these commands from going on; each is answered when its disk has stopped. Returns
    /// the commands of which something may still execute, with the number of disks that have not answered.
    pub(super) fn cancel_jobs(&self, of: impl Fn(&Sqe) -> bool) -> Vec<(u16, usize)> {
        let commands = self.in_flight.iter().filter(|c| of(&c.sqe));
        commands
            .inspect(|command| command.cancelled.store(true, Ordering::Relaxed))
            .filter(|command| command.missing > 0)
            .map(|command| (command.sqe.cid.get(), command.missing))
            .collect()
    }
}
