//! Blocks in a file or on a block device.
//!
//! What need not wait goes to the kernel by a ring of `io_uring` that each channel has for itself, past the page cache where
//! the file system allows that. Threads of the disk do everything else by calls that block: what the ring gives back
//! undone, compares, zeroing, deallocation, and syncs, which are one for all channels. Where there are no rings reads that
//! are in the page cache are done at once.

mod lock;
mod open_file;
mod uring;
mod workers;

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pollux_reactor::Time;

use self::open_file::OpenFile;
use self::uring::{Ended, Ring, say_once};
use self::workers::{Answers, Cancelled, Job, Workers};
use super::backend::FileEngine;
use super::{Capabilities, Disk, DiskChannel, DiskContext, Done, Io, IoId, Op, Opening, sys};
use crate::spec::status::Status;
use crate::target::LOG_FLAG;

/// Most bytes that are copied out of the page cache in the reactor's turn.
const CACHED_MAX: usize = 128 * 1024;

/// A disk in a file.
#[derive(Debug)]
pub(super) struct FileDisk {
    file: Arc<OpenFile>,
    /// Size of the disk, which is at most that of the file.
    bytes: AtomicU64,
    workers: Arc<Workers>,
}

impl FileDisk {
    /// Opens a file; creates it, or extends it, if `bytes` is given. `shared`: others may use it that say the same.
    pub(super) fn open(
        path: &Path,
        bytes: Option<u64>,
        shared: bool,
        engine: FileEngine,
    ) -> io::Result<Self> {
        let (file, bytes) = OpenFile::open(path, bytes, shared, engine)?;
        if engine != FileEngine::Threads {
            say_once();
        }
        Ok(Self {
            file: Arc::new(file),
            bytes: bytes.into(),
            workers: Arc::default(),
        })
    }
}

impl Disk for FileDisk {
    fn name(&self) -> String {
        self.file.path.display().to_string()
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn medium_bytes(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            in_place: false,
            reads_zeroes: false,
            deallocates_to_zeroes: self.file.punches,
            granularity: Some(self.file.granularity),
        }
    }

    fn open(&self, opening: Opening) -> Box<dyn DiskChannel> {
        let file = Arc::clone(&self.file);
        if opening.is_simulated() {
            return Box::new(InPlace(file));
        }
        let ring = Ring::new(&file).unwrap_or_else(|error| {
            log::warn!(
                target: LOG_FLAG,
                "{}: no io_uring for one of its reactors ({error}): threads do what that asks for",
                file.path.display()
            );
            None
        });
        Box::new(FileChannel {
            file,
            ring,
            queued: VecDeque::new(),
            is_ring_fault_said: false,
            now: Time::ZERO,
            workers: Arc::clone(&self.workers),
            answers: Arc::new(Answers::new(opening.waker())),
            open: Vec::new(),
            spare: Vec::new(),
        })
    }

    fn resize(&self, bytes: u64) -> io::Result<()> {
        self.file.grow(bytes)?;
        self.bytes.store(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn failure(&self) -> Option<io::Error> {
        self.file.failure()
    }

    fn errors(&self) -> u64 {
        self.file.errors.load(Ordering::Relaxed)
    }
}

/// A file in a simulation: all is done in place.
#[derive(Debug)]
struct InPlace(Arc<OpenFile>);

impl DiskChannel for InPlace {
    fn submit(&mut self, mut io: Io, _: &mut DiskContext<'_>) -> Option<Done> {
        self.0.note_alignment(&io);
        let result = self.0.run(&mut io);
        Some(io.done(result))
    }

    fn poll(&mut self, _: &mut Vec<Done>, _: &mut DiskContext<'_>) {}
}

#[derive(Debug)]
struct FileChannel {
    file: Arc<OpenFile>,
    ring: Option<Ring>,
    /// What goes to the ring with the next poll.
    queued: VecDeque<Io>,
    is_ring_fault_said: bool,
    /// The time of the last call.
    now: Time,
    workers: Arc<Workers>,
    answers: Arc<Answers>,
    /// The I/Os that the threads have, each with its sign that it is cancelled.
    open: Vec<(IoId, Cancelled)>,
    /// Signs for the next ones.
    spare: Vec<Cancelled>,
}

impl FileChannel {
    /// Whether an I/O is for the ring. What is written through the page cache may have to wait there.
    #[inline]
    fn is_for_ring(&self, io: &Io) -> bool {
        let can = match io.op {
            Op::Read { .. } => true,
            Op::Write { .. } => self.file.is_direct(),
            _ => false,
        };
        can && self.ring.is_some() && !io.data.is_empty()
    }

    fn hand_to_threads(&mut self, io: Io) {
        let cancelled = self.spare.pop().unwrap_or_default();
        cancelled.store(false, Ordering::Relaxed);
        self.open.push((io.id(), Arc::clone(&cancelled)));
        self.answers.look(self.now);
        self.workers.submit(Job {
            io,
            file: Arc::clone(&self.file),
            cancelled,
            answers: Arc::clone(&self.answers),
        });
    }

    /// Exchanges what there is with the kernel.
    #[inline]
    fn poll_ring(&mut self, done: &mut Vec<Done>) {
        let Some(ring) = &mut self.ring else {
            return;
        };
        while !self.queued.is_empty() && ring.has_room() {
            let Some(io) = self.queued.pop_front() else {
                break;
            };
            match self.file.check() {
                Err(status) if io.op.changes_data() => done.push(io.done(Err(status))),
                _ => ring.push(io),
            }
        }
        let entered = ring.enter();
        if let Err(error) = entered {
            self.note_ring(&error);
        }
        while let Some(Ended {
            io,
            result,
            cancelled,
        }) = self.ring.as_mut().and_then(Ring::next_ended)
        {
            match result {
                Ok(()) => done.push(io.done(Ok(()))),
                Err(_) if cancelled => done.push(io.done(Err(Status::ABORTED_BY_REQUEST))),
                // They do it again, and tell what is wrong with it if anything is.
                Err(_) => self.hand_to_threads(io),
            }
        }
    }

    /// The kernel has not taken what is in the ring. It stays there, and is handed over in the next turn.
    #[cold]
    fn note_ring(&mut self, error: &io::Error) {
        // No memory at present, or a signal.
        let passes = matches!(
            error.raw_os_error(),
            Some(libc::EAGAIN | libc::EBUSY | libc::EINTR)
        );
        if !passes && !std::mem::replace(&mut self.is_ring_fault_said, true) {
            log::error!(target: LOG_FLAG, "{}: io_uring: {error}", self.file.path.display());
        }
    }

    /// An I/O that the threads had is done.
    fn end(&mut self, answer: Done, done: &mut Vec<Done>) {
        let id = answer.io.id();
        if let Some(at) = self.open.iter().position(|(open, _)| *open == id) {
            self.spare.push(self.open.swap_remove(at).1);
        }
        done.push(answer);
    }
}

impl DiskChannel for FileChannel {
    fn submit(&mut self, mut io: Io, cx: &mut DiskContext<'_>) -> Option<Done> {
        self.now = cx.now;
        self.file.note_alignment(&io);
        if self.is_for_ring(&io) {
            self.queued.push_back(io);
            return None;
        }
        // What is in the page cache need not go to a thread and back.
        if let Op::Read { offset } = io.op
            && io.data.len() <= CACHED_MAX
            && !self.file.is_direct()
            && sys::read_cached(self.file.threads_file(), &mut io.data, offset)
        {
            return Some(io.done(Ok(())));
        }
        self.hand_to_threads(io);
        None
    }

    fn poll(&mut self, done: &mut Vec<Done>, cx: &mut DiskContext<'_>) {
        self.now = cx.now;
        self.answers.look(cx.now);
        self.poll_ring(done);
        while let Some(answer) = self.answers.next() {
            self.end(answer, done);
        }
        while let Some((io, cancelled)) = self.answers.next_asked() {
            match cancelled.load(Ordering::Relaxed) {
                false => self.workers.submit(Job {
                    io,
                    file: Arc::clone(&self.file),
                    cancelled,
                    answers: Arc::clone(&self.answers),
                }),
                true => self.end(io.done(Err(Status::ABORTED_BY_REQUEST)), done),
            }
        }
    }

    /// What is queued goes to the ring in the next turn, so that the reactor may not sleep.
    fn deadline(&self) -> Option<Time> {
        (!self.queued.is_empty()).then_some(self.now)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.ring.as_ref().map(Ring::descriptor)
    }

    fn cancel(&mut self, id: IoId) -> Option<Done> {
        if let Some(at) = self.queued.iter().position(|io| io.id() == id) {
            let queued = self.queued.remove(at);
            return queued.map(|io| io.done(Err(Status::ABORTED_BY_REQUEST)));
        }
        if let Some((_, cancelled)) = self.open.iter().find(|(open, _)| *open == id) {
            cancelled.store(true, Ordering::Relaxed);
        } else if let Some(ring) = &mut self.ring {
            ring.cancel(id);
        }
        None
    }
}
