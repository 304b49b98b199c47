//! Commands on namespaces with layers: down through the layers, held where a layer says so, carried out, answered late.
//!
//! A read is held before its data is read and sent. Everything else is carried out first and its answer is held; an abort
//! meanwhile finds it done. What a layer lets fail or holds for a resume is not carried out before: a held command that is
//! aborted then has written nothing.

use std::time::Duration;

use pollux_reactor::Context;

use super::disk::Range;
use super::held::{Ruling, Task, Then, Until};
use super::io_command::{Namespaces, Plan, execute, plan};
use super::io_queue::IoQueue;
use super::io_work::Work;
use super::layers::{Descent, Layers, Reached};
use super::read::{Intact, ReadCursor};
use crate::spec::opcode::nvm;
use crate::spec::sqe::NSID_ALL;
use crate::spec::status::Status;
use crate::spec::{SglDescriptor, Sqe};

/// After this time a layer that had no memory for a command is asked again.
const NO_MEMORY_RETRY: Duration = Duration::from_millis(1);

/// The layers that a command goes through. A flush of all namespaces goes through all layers that there are.
pub(super) fn layers_of(namespaces: &Namespaces, sqe: &Sqe) -> Option<Layers> {
    let nsid = sqe.nsid.get();
    if sqe.opcode == nvm::FLUSH && nsid == NSID_ALL {
        let layers = namespaces.iter().filter_map(|view| view.layers.as_deref());
        return Some(layers.flatten().cloned().collect());
    }
    namespaces.get(nsid)?.layers.clone()
}

impl IoQueue {
    /// Sends a command that may be done (see `plan`) down through `layers`.
    #[cold]
    pub(super) fn descend(
        &mut self,
        (sqe, plan, data): (Sqe, Plan, Box<[u8]>),
        layers: Layers,
        namespaces: &Namespaces,
        cx: &mut Context<'_>,
    ) {
        let task = Task {
            sqe,
            data,
            descent: Descent::new(layers),
        };
        self.go_on(Box::new(task), Some(plan), namespaces, cx);
    }

    /// `planned`: what is to be done, unless time has passed since that was found.
    fn go_on(
        &mut self,
        mut task: Box<Task>,
        planned: Option<Plan>,
        namespaces: &Namespaces,
        cx: &mut Context<'_>,
    ) {
        let Task { sqe, descent, .. } = &mut *task;
        let sqe = *sqe;
        let (cid, nsid) = (sqe.cid.get(), sqe.nsid.get());
        let others = self.outstanding;
        match descent.go_on(sqe.opcode, others, cx.rng()) {
            Reached::Bottom => match planned.map_or_else(|| plan_again(&task, namespaces), Ok) {
                Ok(plan) => self.carry_out(*task, plan, namespaces, cx),
                Err(status) => self.settle(cid, nsid, Err(status), task.descent.delay, cx),
            },
            Reached::Refused(status) => {
                self.settle(cid, nsid, Err(status), task.descent.delay, cx);
            }
            Reached::Pending { faults, resumed } => {
                let until = Until::Resumed(faults, resumed);
                self.hold(cid, nsid, until, Then::GoOn(task));
            }
            Reached::NoMemory => {
                let until = Until::Due(cx.now() + NO_MEMORY_RETRY);
                self.hold(cid, nsid, until, Then::GoOn(task));
            }
        }
    }

    fn hold(&mut self, cid: u16, nsid: u32, until: Until, then: Then) {
        self.outstanding += 1;
        self.held.hold(cid, nsid, until, then);
    }

    /// A command has come through all layers.
    fn carry_out(&mut self, task: Task, plan: Plan, namespaces: &Namespaces, cx: &mut Context<'_>) {
        let Task {
            sqe,
            mut data,
            descent,
        } = task;
        let (cid, nsid) = (sqe.cid.get(), sqe.nsid.get());
        let ruling = Ruling {
            delay: descent.delay,
            corruption: descent.corruption,
        };
        match plan {
            Plan::Read { offset, len } => {
                if ruling.delay.is_zero() {
                    let cursor = ReadCursor::new(cid, nsid, offset, len);
                    self.start_read(cursor, ruling, namespaces);
                } else {
                    let until = Until::Due(cx.now() + ruling.delay);
                    self.hold(cid, nsid, until, Then::Read(sqe, ruling.corruption));
                }
            }
            Plan::Receive { len } if sqe.sgl.kind == SglDescriptor::IN_CAPSULE => {
                let result = if data.len() == len as usize {
                    spoil(&sqe, ruling, &mut data);
                    execute(&sqe, &data, namespaces, &mut self.ranges)
                } else {
                    Err(Status::DATA_SGL_LENGTH_INVALID.with_dnr())
                };
                self.conclude_ruled(&sqe, result, ruling, namespaces, cx);
            }
            Plan::Receive { .. } => {
                self.held.rule(cid, ruling);
                self.outstanding += 1;
                self.waiting.push_back(sqe);
            }
            Plan::Zero { offset, len } => {
                self.ranges.clear();
                self.ranges.push(Range { offset, len });
                self.conclude_ruled(&sqe, Ok(()), ruling, namespaces, cx);
            }
            Plan::Flush => self.conclude_ruled(&sqe, Ok(()), ruling, namespaces, cx),
        }
    }

    fn start_read(&mut self, mut cursor: ReadCursor, ruling: Ruling, namespaces: &Namespaces) {
        let (finished, work) = match ruling.corruption {
            None => {
                let finished = self.try_read(&mut cursor, &Intact, namespaces);
                (finished, Work::Read(cursor))
            }
            Some(corruption) => {
                let finished = self.try_read(&mut cursor, &corruption, namespaces);
                (finished, Work::ReadSpoiled(cursor, corruption))
            }
        };
        self.work = (!finished).then_some(work);
    }

    /// As `conclude`, for a command that the layers have said something about.
    #[cold]
    pub(super) fn conclude_ruled(
        &mut self,
        sqe: &Sqe,
        result: Result<(), Status>,
        ruling: Ruling,
        namespaces: &Namespaces,
        cx: &Context<'_>,
    ) {
        let cid = sqe.cid.get();
        let result = match result {
            Ok(()) => match self.carry_on(sqe, namespaces) {
                Some(result) => result,
                None => {
                    self.held.rule(cid, ruling);
                    return;
                }
            },
            failed => failed,
        };
        self.count_write(sqe, result);
        self.settle(cid, sqe.nsid.get(), result, ruling.delay, cx);
    }

    /// Completes a command after `delay`.
    #[cold]
    pub(super) fn settle(
        &mut self,
        cid: u16,
        nsid: u32,
        result: Result<(), Status>,
        delay: Duration,
        cx: &Context<'_>,
    ) {
        if delay.is_zero() {
            self.complete(cid, result, 0);
        } else {
            let until = Until::Due(cx.now() + delay);
            self.hold(cid, nsid, until, Then::Answer(result));
        }
    }

    /// Lets everything go on that is held no more, as far as there is room. Returns whether anything did.
    #[cold]
    pub(super) fn release_held(&mut self, namespaces: &Namespaces, cx: &mut Context<'_>) -> bool {
        let mut busy = false;
        let is_gone = |nsid| nsid != NSID_ALL && namespaces.get(nsid).is_none();
        while self.work.is_none() && self.conn.out.has_room() {
            let Some((cid, nsid, then)) = self.held.take_due(cx.now(), is_gone) else {
                break;
            };
            busy = true;
            self.outstanding -= 1;
            match then {
                Then::GoOn(task) => self.go_on(task, None, namespaces, cx),
                Then::Answer(result) => self.complete(cid, result, 0),
                // Checked again: the namespace may have changed meanwhile.
                Then::Read(sqe, corruption) => match plan(&sqe, namespaces) {
                    Ok(Plan::Read { offset, len }) => {
                        let cursor = ReadCursor::new(cid, nsid, offset, len);
                        let delay = Duration::ZERO;
                        self.start_read(cursor, Ruling { delay, corruption }, namespaces);
                    }
                    Ok(_) => self.complete(cid, Err(Status::INTERNAL_ERROR), 0),
                    Err(status) => self.complete(cid, Err(status), 0),
                },
            }
        }
        busy
    }
}

/// What is to be done for a command that was held on its way. Its namespace may have changed meanwhile; if it is on another
/// disk now, the command was not meant for that.
fn plan_again(task: &Task, namespaces: &Namespaces) -> Result<Plan, Status> {
    let layers = layers_of(namespaces, &task.sqe);
    if task.sqe.nsid.get() != NSID_ALL && !task.descent.is_through(layers.as_ref()) {
        return Err(Status::INVALID_NAMESPACE.with_dnr());
    }
    plan(&task.sqe, namespaces)
}

/// Changes the data that a host has sent, if the layers say so; never the ranges of a Dataset Management command.
pub(super) fn spoil(sqe: &Sqe, ruling: Ruling, data: &mut [u8]) {
    if let Some(corruption) = ruling.corruption
        && sqe.opcode != nvm::DATASET_MANAGEMENT
    {
        corruption.apply(0, data);
    }
}
