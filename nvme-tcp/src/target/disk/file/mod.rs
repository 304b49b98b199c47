//! Blocks in a file or on a block device. Threads of the disk do the calls that block: all but reads from the page cache.

mod lock;
pub(super) mod workers;

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use self::workers::{Answers, Cancelled, Job, Workers};
use super::sys;
use super::{Capabilities, Disk, DiskChannel, DiskContext, Done, Io, IoId, Op, Opening, Range};
use crate::spec::status::Status;
use crate::target::LOG_FLAG;

/// Most bytes that are copied out of the page cache in the reactor's turn.
const CACHED_MAX: usize = 128 * 1024;

/// Most bytes that one step zeroes or gives back: what other jobs of the disk wait for.
const STEP: u64 = 256 << 20;

/// Piece in which a file is compared with, or filled with, bytes from a fixed block.
const PIECE_LEN: usize = 16 * 1024;
static ZEROES: [u8; PIECE_LEN] = [0; PIECE_LEN];

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
    pub(super) fn open(path: &Path, bytes: Option<u64>, shared: bool) -> io::Result<Self> {
        let (file, bytes) = OpenFile::open(path, bytes, shared)?;
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
        Box::new(FileChannel {
            file: Arc::clone(&self.file),
            workers: (!opening.is_simulated()).then(|| Arc::clone(&self.workers)),
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

#[derive(Debug)]
struct FileChannel {
    file: Arc<OpenFile>,
    /// `None`: the calls are made in place.
    workers: Option<Arc<Workers>>,
    answers: Arc<Answers>,
    /// The I/Os that the threads have, each with its sign that it is cancelled.
    open: Vec<(IoId, Cancelled)>,
    /// Signs for the next ones.
    spare: Vec<Cancelled>,
}

impl FileChannel {
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
        let Some(workers) = &self.workers else {
            let result = self.file.run(&mut io);
            return Some(io.done(result));
        };
        // What is in the page cache need not go to a thread and back.
        if let Op::Read { offset } = io.op
            && io.data.len() <= CACHED_MAX
            && sys::read_cached(&self.file.file, &mut io.data, offset)
        {
            return Some(io.done(Ok(())));
        }
        let cancelled = self.spare.pop().unwrap_or_default();
        cancelled.store(false, Ordering::Relaxed);
        self.open.push((io.id(), Arc::clone(&cancelled)));
        self.answers.look(cx.now);
        workers.submit(Job {
            io,
            file: Arc::clone(&self.file),
            cancelled,
            answers: Arc::clone(&self.answers),
        });
        None
    }

    fn poll(&mut self, done: &mut Vec<Done>, cx: &mut DiskContext<'_>) {
        self.answers.look(cx.now);
        while let Some(answer) = self.answers.next() {
            self.end(answer, done);
        }
        while let Some((io, cancelled)) = self.answers.next_asked() {
            match &self.workers {
                Some(workers) if !cancelled.load(Ordering::Relaxed) => workers.submit(Job {
                    io,
                    file: Arc::clone(&self.file),
                    cancelled,
                    answers: Arc::clone(&self.answers),
                }),
                _ => self.end(io.done(Err(Status::ABORTED_BY_REQUEST)), done),
            }
        }
    }

    fn cancel(&mut self, id: IoId) -> Option<Done> {
        if let Some((_, cancelled)) = self.open.iter().find(|(open, _)| *open == id) {
            cancelled.store(true, Ordering::Relaxed);
        }
        None
    }
}

/// What is left of an I/O after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    More,
    /// Nothing but to make it durable.
    Sync,
    Finished,
}

/// An opened file. Its methods block.
#[derive(Debug)]
pub(super) struct OpenFile {
    file: File,
    path: PathBuf,
    is_device: bool,
    /// Space that is given back reads as zeroes.
    punches: bool,
    /// The smallest piece of space that is given back, in bytes.
    granularity: u32,
    /// The system's number of the error of a sync, once one has failed: the kernel has dropped what it could not write,
    /// and a later sync would not say so.
    failure: AtomicI32,
    /// Errors so far.
    errors: AtomicU64,
    /// Error number of the last of them.
    last_errno: AtomicI32,
}

impl OpenFile {
    /// Does all of an I/O.
    fn run(&self, io: &mut Io) -> Result<(), Status> {
        loop {
            match self.step(io)? {
                Step::More => {}
                Step::Sync => return self.sync(),
                Step::Finished => return Ok(()),
            }
        }
    }

    /// Does the next step of an I/O.
    pub(super) fn step(&self, io: &mut Io) -> Result<Step, Status> {
        let after = |fua| if fua { Step::Sync } else { Step::Finished };
        match io.op {
            Op::Read { offset } => self.read(offset, &mut io.data).map(|()| Step::Finished),
            Op::Write { offset, fua } => self.write(offset, &io.data).map(|()| after(fua)),
            Op::Compare { offset } => match self.compare(offset, &io.data)? {
                true => Ok(Step::Finished),
                false => Err(Status::COMPARE_FAILURE.with_dnr()),
            },
            Op::Zero {
                deallocate, fua, ..
            } => match io.op.next_piece(STEP) {
                Some(Range { offset, len }) => {
                    self.zero(offset, len, deallocate).map(|()| Step::More)
                }
                None => Ok(after(fua)),
            },
            Op::Deallocate { .. } => match io.op.next_piece(STEP) {
                Some(Range { offset, len }) => self.deallocate(offset, len).map(|()| Step::More),
                None => Ok(Step::Finished),
            },
            Op::Flush => Ok(Step::Sync),
        }
    }

    /// Opens a file; creates it, or extends it, if `bytes` is given. Returns its size too. `shared`: others may use it
    /// that say the same.
    fn open(path: &Path, bytes: Option<u64>, shared: bool) -> io::Result<(Self, u64)> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        // Whoever is no regular file or device is not opened, which may wait or do something.
        let is_device = match std::fs::metadata(path) {
            Ok(metadata) if metadata.file_type().is_block_device() => true,
            Ok(metadata) if metadata.is_file() => false,
            Ok(_) => {
                let text = "neither a regular file nor a block device";
                return Err(io::Error::new(ErrorKind::InvalidInput, text));
            }
            Err(error) if error.kind() == ErrorKind::NotFound && bytes.is_some() => {
                options.create(true).truncate(false);
                false
            }
            Err(error) => return Err(error),
        };
        if is_device && !shared {
            // Nor may it be mounted.
            options.custom_flags(libc::O_EXCL);
        }
        let file = options.open(path)?;
        lock::lock(&file, path, shared)?;
        let metadata = file.metadata()?;
        let disk = Self {
            punches: !is_device && punches(&file, metadata.len()),
            granularity: u32::try_from(metadata.blksize()).unwrap_or(4096),
            file,
            path: path.to_owned(),
            is_device,
            failure: AtomicI32::new(0),
            errors: AtomicU64::new(0),
            last_errno: AtomicI32::new(0),
        };
        let len = disk.grow(bytes.unwrap_or(0))?;
        Ok((disk, bytes.unwrap_or(len)))
    }

    /// Size of the file or device in bytes.
    fn size(&self) -> io::Result<u64> {
        match self.is_device {
            // Its metadata says 0.
            true => (&self.file).seek(SeekFrom::End(0)),
            false => Ok(self.file.metadata()?.len()),
        }
    }

    /// Extends the file if it is smaller. Returns its size.
    fn grow(&self, bytes: u64) -> io::Result<u64> {
        let size = self.size()?;
        if size >= bytes {
            return Ok(size);
        }
        if self.is_device {
            let text = format!("the device has {size} bytes, {bytes} were asked for");
            return Err(io::Error::new(ErrorKind::InvalidInput, text));
        }
        self.file.set_len(bytes)?;
        Ok(bytes)
    }

    /// Fills `out` from `offset` on.
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Status> {
        let result = self.file.read_exact_at(out, offset);
        result.map_err(|error| self.read_failed(offset, &error))
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Status> {
        self.check()?;
        let result = self.file.write_all_at(data, offset);
        result.map_err(|error| self.write_failed("write", offset, &error))
    }

    /// True if the bytes from `offset` on are those of `data`.
    fn compare(&self, offset: u64, data: &[u8]) -> Result<bool, Status> {
        let mut buffer = [0; PIECE_LEN];
        let mut at = offset;
        for piece in data.chunks(PIECE_LEN) {
            let stored = &mut buffer[..piece.len()];
            let result = self.file.read_exact_at(stored, at);
            result.map_err(|error| self.read_failed(at, &error))?;
            if stored != piece {
                return Ok(false);
            }
            at += piece.len() as u64;
        }
        Ok(true)
    }

    /// Makes a range read as zeroes. `deallocate`: gives its space back if that is possible.
    fn zero(&self, offset: u64, len: u64, deallocate: bool) -> Result<(), Status> {
        self.check()?;
        let wanted: &[sys::Space] = match deallocate {
            true => &[sys::Space::Punch, sys::Space::Zero],
            false => &[sys::Space::Zero],
        };
        for &what in wanted {
            match sys::allocate(&self.file, what, offset, len) {
                Ok(()) => return Ok(()),
                Err(error) if cannot(&error) => {}
                Err(error) => return Err(self.write_failed("zeroing", offset, &error)),
            }
        }
        let mut at = offset;
        while at < offset + len {
            let left = usize::try_from(offset + len - at).unwrap_or(usize::MAX);
            let piece = &ZEROES[..left.min(PIECE_LEN)];
            let result = self.file.write_all_at(piece, at);
            result.map_err(|error| self.write_failed("zeroing", at, &error))?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// Gives the space of a range back. Where that cannot be done nothing is: a host only says that it does not need what
    /// is there.
    fn deallocate(&self, offset: u64, len: u64) -> Result<(), Status> {
        self.check()?;
        let mut result = sys::allocate(&self.file, sys::Space::Punch, offset, len);
        if self.is_device && result.as_ref().is_err_and(cannot) {
            result = sys::discard(&self.file, offset, len);
        }
        match result {
            Ok(()) => Ok(()),
            Err(error) if cannot(&error) => Ok(()),
            Err(error) => Err(self.write_failed("deallocation", offset, &error)),
        }
    }

    /// Makes what was written survive a loss of power.
    pub(super) fn sync(&self) -> Result<(), Status> {
        self.check()?;
        loop {
            match self.sync_data() {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    let number = error.raw_os_error().unwrap_or(libc::EIO);
                    self.errors.fetch_add(1, Ordering::Relaxed);
                    if self.failure.swap(number, Ordering::Relaxed) == 0 {
                        log::error!(
                            target: LOG_FLAG,
                            "{}: what was written could not be made durable ({error}); its writes and flushes fail from \
                             now on, until the disk is made anew",
                            self.path.display()
                        );
                    }
                    return Err(Status::WRITE_FAULT.with_dnr());
                }
            }
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Why writes and flushes fail for good, if they do.
    fn failure(&self) -> Option<io::Error> {
        match self.failure.load(Ordering::Relaxed) {
            0 => None,
            number => Some(io::Error::from_raw_os_error(number)),
        }
    }

    #[inline]
    fn check(&self) -> Result<(), Status> {
        match self.failure.load(Ordering::Relaxed) {
            0 => Ok(()),
            _ => Err(Status::WRITE_FAULT.with_dnr()),
        }
    }

    #[cold]
    fn read_failed(&self, offset: u64, error: &io::Error) -> Status {
        self.note("read", offset, error);
        Status::UNRECOVERED_READ_ERROR
    }

    #[cold]
    fn write_failed(&self, what: &str, offset: u64, error: &io::Error) -> Status {
        self.note(what, offset, error);
        match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => Status::CAPACITY_EXCEEDED,
            _ => Status::WRITE_FAULT,
        }
    }

    /// Says in the log what went wrong: the first time, the second, the fourth and so on, and whenever it is
    /// another error than the one before.
    fn note(&self, what: &str, offset: u64, error: &io::Error) {
        let count = self.errors.fetch_add(1, Ordering::Relaxed) + 1;
        let errno = error.raw_os_error().unwrap_or(0);
        let is_news = self.last_errno.swap(errno, Ordering::Relaxed) != errno;
        if is_news || count.is_power_of_two() {
            log::error!(
                target: LOG_FLAG,
                "{}: {what} at offset {offset} failed: {error} (error {count} of this disk)",
                self.path.display()
            );
        }
    }
}

/// Gives the lock back at once. Closing the file would not, while a child that the process has just started still has it.
impl Drop for OpenFile {
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

/// Whether the file system can make holes: behind the end of a file there is nothing to lose.
fn punches(file: &File, len: u64) -> bool {
    let behind = len.next_multiple_of(4096).max(4096);
    sys::allocate(file, sys::Space::Punch, behind, 4096).is_ok()
}

/// The system cannot do this at all, or not for such a range.
fn cannot(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOTTY | libc::EINVAL)
    )
}
