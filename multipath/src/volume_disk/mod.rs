//! A volume as a disk of the target: what others serve, over several paths, is a namespace here. That makes a gateway, with
//! ANA in front of it and behind it.

mod watched;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::time::Duration;

use pollux_nvme_tcp::spec::log::AnaState;
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::target::disk::{
    self, Disk, DiskChange, DiskChannel, DiskContext, Done, IoId, Opening,
};
use pollux_reactor::Time;

pub(crate) use self::watched::WatchedVolume;
use crate::LOG_FLAG;
use crate::command::{Completion, Io, Op};
use crate::error::{EndedEarly, IoError, SubmitError};
use crate::host::Host;
use crate::ids::{VolumeId, VolumeInfo};
use crate::messages::ControlMessage;
use crate::queue::{Completions, Queue, QueueMessage};

/// I/Os that one channel has under way; the others wait in it.
const DEPTH: usize = 128;

/// Blocks that one command sets to zero: what one Write Zeroes command takes (NVM Command Set 1.1, 3.3.8).
const ZERO_MAX: u64 = 1 << 16;

/// Buffers that a channel keeps for the next I/Os, and the largest of them in bytes.
const KEPT_MAX: usize = 32;
const KEPT_LEN_MAX: usize = 128 << 10;

/// When it looks again whether the I/O reactor takes what it did not take before.
const RETRY: Duration = Duration::from_millis(1);

/// A volume as a disk. Each reactor of the target that opens it has a queue to an I/O reactor of the host: the one of the
/// same number if there is one, so that in one process an I/O stays on its reactor.
///
/// Its size is the volume's, and changes with that. A write with FUA is a write and a flush. While the volume has no path
/// its I/O waits as that of any other user does (rule B7); what ends without a path ends with Internal Path Error, by which
/// a host in front goes to another gateway. With an ANA state ([`with_ana`](Self::with_ana)) it does not wait.
///
/// A volume that is removed and made again under its name carries on, if it is the same namespace by its identifiers (NGUID,
/// UUID, EUI64). Another one is not used; meanwhile, and then for good, I/O ends with Internal Path Error.
///
/// What it cannot promise is the target's Command Quiesce Time: an I/O that a controller behind it holds may execute for as
/// long as that controller lives.
#[derive(Debug)]
pub struct VolumeDisk {
    host: Host<QueueMessage>,
    volume: Arc<WatchedVolume>,
}

impl VolumeDisk {
    /// The volume of `host` as a disk; see [`VolumeHandle::info`](crate::VolumeHandle::info).
    pub fn new(host: &Host<QueueMessage>, volume: VolumeInfo) -> Self {
        Self::made_of(host, volume, false)
    }

    /// As [`new`](Self::new), with an ANA state that the namespace's ANA group follows
    /// ([`Disk::ana_state`](pollux_nvme_tcp::target::Disk::ana_state)): optimized while an optimized path behind is
    /// available on every I/O reactor of the host; non-optimized while only others are; without any, change while a path is
    /// in change (for no longer than ANATT), persistent loss if all are in it, and otherwise inaccessible, which it also is
    /// at first, until the reactors have told.
    ///
    /// Then nobody's I/O of this volume waits for a path (rule B7), since it is the host in front that goes another way: it
    /// ends with the status of that state there, and with [`NoPath::NotAwaited`](crate::NoPath::NotAwaited) here. Only what
    /// a lost controller may still execute waits (rule B14).
    pub fn with_ana(host: &Host<QueueMessage>, volume: VolumeInfo) -> Self {
        Self::made_of(host, volume, true)
    }

    fn made_of(host: &Host<QueueMessage>, volume: VolumeInfo, has_ana: bool) -> Self {
        let control = host.control().clone();
        Self {
            host: host.clone(),
            volume: Arc::new(WatchedVolume::new(volume, has_ana, control)),
        }
    }

    /// Block size in bytes, which a namespace on it has to have.
    pub fn block_size(&self) -> u32 {
        1 << self.volume.block_shift()
    }
}

impl Disk for VolumeDisk {
    fn name(&self) -> String {
        self.volume.name().to_owned()
    }

    fn bytes(&self) -> u64 {
        self.volume.bytes()
    }

    fn ana_state(&self) -> Option<AnaState> {
        self.volume.has_ana().then(|| self.volume.ana())
    }

    fn watch(&self, change: DiskChange) {
        let volume = Arc::downgrade(&self.volume);
        let watch = ControlMessage::Watch { volume, change };
        if self.host.control().send(watch).is_err() && !self.host.control().is_closed() {
            let name = self.volume.name();
            log::error!(target: LOG_FLAG, "{name}: the host has too much to do to tell what becomes of it");
        }
    }

    fn open(&self, opening: Opening) -> Box<dyn DiskChannel> {
        let reactor = opening.reactor() % self.host.io_reactors();
        Box::new(VolumeChannel {
            id: self.volume.id(),
            volume: Arc::clone(&self.volume),
            shift: self.volume.block_shift(),
            queue: self.host.queue(reactor, DEPTH).ok(),
            waker: Arc::new(WakeChannel(opening.waker())).into(),
            open: Vec::new(),
            free: Vec::new(),
            waiting: VecDeque::new(),
            retry_at: None,
            buffers: Vec::new(),
        })
    }
}

/// Has the channel polled when something has ended.
struct WakeChannel(disk::Waker);

impl Wake for WakeChannel {
    fn wake(self: Arc<Self>) {
        self.0.wake();
    }
}

/// An I/O, and which of its commands is the next.
#[derive(Debug)]
struct Open {
    io: disk::Io,
    step: usize,
    is_cancelled: bool,
}

struct VolumeChannel {
    volume: Arc<WatchedVolume>,
    /// The identity that it had last. It is looked at again where the host knows none such any more.
    id: VolumeId,
    shift: u8,
    /// `None`: the reactor has no room for another queue, or has stopped.
    queue: Option<(Queue, Completions)>,
    waker: std::task::Waker,
    open: Vec<Option<Open>>,
    free: Vec<usize>,
    /// Places of I/Os whose next command the queue has not taken yet.
    waiting: VecDeque<usize>,
    retry_at: Option<Time>,
    buffers: Vec<Vec<u8>>,
}

impl Open {
    /// The next command: what it does, with the first byte and how many there are of them.
    fn command(&self) -> Option<(Op, u64, u64)> {
        let first = self.step == 0;
        let len = self.io.data.len() as u64;
        match &self.io.op {
            disk::Op::Read { offset } if first => Some((Op::Read, *offset, len)),
            disk::Op::Compare { offset } if first => Some((Op::Compare, *offset, len)),
            disk::Op::Write { offset, .. } if first => Some((Op::Write, *offset, len)),
            disk::Op::Write { fua: true, .. } if self.step == 1 => Some((Op::Flush, 0, 0)),
            disk::Op::Flush if first => Some((Op::Flush, 0, 0)),
            disk::Op::Deallocate { ranges } => {
                let range = ranges.get(self.step)?;
                Some((Op::Deallocate, range.offset, range.len))
            }
            _ => None,
        }
    }

    /// The next command of an I/O that zeroes: as much of its range as one command takes, and a flush for FUA.
    fn zeroing(&self, max: u64) -> Option<(Op, u64, u64)> {
        let disk::Op::Zero { range, fua, .. } = &self.io.op else {
            return None;
        };
        let done = self.step as u64 * max;
        if done < range.len {
            let len = (range.len - done).min(max);
            return Some((Op::WriteZeroes, range.offset + done, len));
        }
        let is_last = done < range.len.next_multiple_of(max) + max;
        (*fua && is_last).then_some((Op::Flush, 0, 0))
    }
}

impl VolumeChannel {
    /// Sends the next command of the I/O at this place. Gives the I/O back if there is none, or none can be sent.
    fn go_on(&mut self, place: usize, now: Time) -> Option<Done> {
        let open = self.open[place].as_mut()?;
        let next = open
            .command()
            .or_else(|| open.zeroing(ZERO_MAX << self.shift));
        let is_known = open.step > 0 || matches!(open.io.op, disk::Op::Deallocate { .. });
        let Some((op, offset, len)) = next else {
            // The target knows nothing else today; it may come to know more.
            let unknown = Err(Status::INVALID_OPCODE);
            return self.end(place, if is_known { Ok(()) } else { unknown });
        };
        if open.is_cancelled {
            return self.end(place, Err(Status::ABORTED_BY_REQUEST));
        }
        let Some((queue, _)) = &self.queue else {
            return self.end(place, Err(Status::INTERNAL_PATH_ERROR));
        };
        // A command has 32 bits for its blocks at most, and so has what a host asks for.
        let blocks = u32::try_from(len >> self.shift).unwrap_or(u32::MAX);
        let mut buffer = self.buffers.pop().unwrap_or_default();
        buffer.clear();
        match op {
            Op::Write | Op::Compare => buffer.extend_from_slice(&open.io.data),
            Op::Read => buffer.resize(open.io.data.len(), 0),
            Op::Deallocate => buffer.resize(16, 0),
            Op::Flush | Op::WriteZeroes => {}
        }
        let io = Io::new(op, offset >> self.shift, blocks, buffer).with_user(place as u64);
        match queue.submit(self.id, io) {
            Ok(()) => {
                open.step += 1;
                None
            }
            Err((io, SubmitError::Full)) => {
                self.keep(io.buffer.into_vec());
                self.waiting.push_back(place);
                self.retry_at = Some(now + RETRY);
                None
            }
            Err((_, error)) => {
                let status = self.status(IoError::Refused(error));
                self.end(place, Err(status))
            }
        }
    }

    /// A command has ended.
    fn ended(&mut self, done: Completion, now: Time) -> Option<Done> {
        let place = usize::try_from(done.io.user).ok()?;
        let buffer = done.io.buffer.into_vec();
        if let Some(Some(open)) = self.open.get_mut(place)
            && done.io.op == Op::Read
            && done.result.is_ok()
        {
            open.io.data.copy_from_slice(&buffer);
        }
        self.keep(buffer);
        match done.result {
            Ok(()) => self.go_on(place, now),
            Err(IoError::Refused(SubmitError::NoVolume)) if self.has_come_back(done.volume) => {
                if let Some(Some(open)) = self.open.get_mut(place) {
                    open.step -= 1;
                }
                self.go_on(place, now)
            }
            Err(error) => {
                let status = self.status(error);
                self.end(place, Err(status))
            }
        }
    }

    /// The volume of this identity has gone; whether it is there again, with another one.
    fn has_come_back(&mut self, gone: VolumeId) -> bool {
        self.id = self.volume.id();
        self.id != gone
    }

    /// What a host in front is told.
    fn status(&self, error: IoError) -> Status {
        match error {
            IoError::Status(status) => status,
            IoError::Data => Status::DATA_TRANSFER_ERROR,
            IoError::Refused(SubmitError::OutOfRange) => Status::LBA_OUT_OF_RANGE,
            IoError::InDoubt(EndedEarly::Aborted) | IoError::Deadline => Status::ABORTED_BY_REQUEST,
            IoError::NoPath(_) | IoError::Removed | IoError::Refused(SubmitError::NoVolume)
                if self.volume.has_ana() =>
            {
                // The path that comes back meanwhile is heard of by the ANA log.
                let status = self.volume.ana().refusal();
                status.unwrap_or(Status::ASYMMETRIC_ACCESS_INACCESSIBLE)
            }
            IoError::NoPath(_)
            | IoError::Removed
            | IoError::Stopped
            | IoError::Buffer
            | IoError::Refused(_)
            | IoError::InDoubt(_) => Status::INTERNAL_PATH_ERROR,
        }
    }

    fn end(&mut self, place: usize, result: Result<(), Status>) -> Option<Done> {
        let open = self.open[place].take()?;
        self.free.push(place);
        Some(open.io.done(result))
    }

    fn keep(&mut self, buffer: Vec<u8>) {
        if self.buffers.len() < KEPT_MAX && buffer.capacity() <= KEPT_LEN_MAX {
            self.buffers.push(buffer);
        }
    }
}

impl DiskChannel for VolumeChannel {
    fn submit(&mut self, io: disk::Io, cx: &mut DiskContext<'_>) -> Option<Done> {
        let place = self.free.pop().unwrap_or_else(|| {
            self.open.push(None);
            self.open.len() - 1
        });
        self.open[place] = Some(Open {
            io,
            step: 0,
            is_cancelled: false,
        });
        self.go_on(place, cx.now)
    }

    fn poll(&mut self, done: &mut Vec<Done>, cx: &mut DiskContext<'_>) {
        while let Some((_, completions)) = &mut self.queue {
            let polled = completions.poll_completion(&mut Context::from_waker(&self.waker));
            let Poll::Ready(completion) = polled else {
                break;
            };
            done.extend(self.ended(completion, cx.now));
        }
        self.retry_at = None;
        for _ in 0..self.waiting.len() {
            let Some(place) = self.waiting.pop_front() else {
                break;
            };
            done.extend(self.go_on(place, cx.now));
            if self.retry_at.is_some() {
                // It is the last one now, and was the first.
                self.waiting.rotate_right(1);
                break;
            }
        }
    }

    fn deadline(&self) -> Option<Time> {
        self.retry_at
    }

    fn cancel(&mut self, id: IoId) -> Option<Done> {
        let is_it = |open: &Option<Open>| open.as_ref().is_some_and(|open| open.io.id() == id);
        let place = self.open.iter().position(is_it)?;
        self.open[place].as_mut()?.is_cancelled = true;
        if let Some(at) = self.waiting.iter().position(|&waiting| waiting == place) {
            self.waiting.remove(at);
            return self.end(place, Err(Status::ABORTED_BY_REQUEST));
        }
        // What may change blocks is waited for: it may only be handed back when it can do so no more.
        let open = self.open[place].as_ref()?;
        if let disk::Op::Read { .. } | disk::Op::Compare { .. } | disk::Op::Flush = open.io.op
            && let Some((queue, _)) = &self.queue
        {
            // Refused, it ends by itself.
            let _ = queue.abort(self.id, place as u64);
        }
        None
    }
}

impl fmt::Debug for VolumeChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VolumeChannel")
            .field("volume", &self.volume)
            .field("open", &(self.open.len() - self.free.len()))
            .field("waiting", &self.waiting.len())
            .finish_non_exhaustive()
    }
}
