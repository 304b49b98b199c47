//! An opened file or block device, and what is done to it by calls that block.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

use zerocopy::IntoBytes;

use super::{lock, uring};
use crate::spec::status::Status;
use crate::target::LOG_FLAG;
use crate::target::disk::backend::FileEngine;
use crate::target::disk::io::{Io, Op, Page, Range};
use crate::target::disk::sys;

/// Most bytes that one step zeroes or gives back: what other jobs of the disk wait for.
const STEP: u64 = 256 << 20;

/// Piece in which a file is compared with, or filled with, bytes from a fixed block.
const PIECE_PAGES: usize = 4;
const PIECE_LEN: usize = PIECE_PAGES * size_of::<Page>();
static ZEROES: [Page; PIECE_PAGES] = [Page::ZERO; PIECE_PAGES];

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
    /// The same file opened once more, for rings. Of an error of write-back each of the two is told, so that a write of a
    /// ring with FUA takes nothing away from the syncs of the threads.
    ring_file: Option<File>,
    pub(super) path: PathBuf,
    is_device: bool,
    /// Space that is given back reads as zeroes.
    pub(super) punches: bool,
    /// The smallest piece of space that is given back, in bytes.
    pub(super) granularity: u32,
    /// What is read and written goes past the page cache.
    direct: AtomicBool,
    /// It can as long as offsets and lengths are multiples of this.
    alignment: u32,
    /// The system's number of the error of a sync, once one has failed: the kernel has dropped what it could not write,
    /// and a later sync would not say so.
    failure: AtomicI32,
    /// Errors so far.
    pub(super) errors: AtomicU64,
    /// Error number of the last of them.
    last_errno: AtomicI32,
}

impl OpenFile {
    /// Does all of an I/O.
    pub(super) fn run(&self, io: &mut Io) -> Result<(), Status> {
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
    pub(super) fn open(
        path: &Path,
        bytes: Option<u64>,
        shared: bool,
        engine: FileEngine,
    ) -> io::Result<(Self, u64)> {
        let has_ring = match engine {
            FileEngine::Threads => false,
            FileEngine::Auto => uring::availability().is_ok(),
            FileEngine::Uring => {
                let refused = |why| io::Error::new(ErrorKind::Unsupported, why);
                uring::availability().map_err(refused)?;
                true
            }
        };
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
        let ring_file = has_ring.then(|| reopen(&file)).transpose()?;
        let mut disk = Self {
            punches: !is_device && punches(&file, metadata.len()),
            granularity: u32::try_from(metadata.blksize()).unwrap_or(4096),
            file,
            ring_file,
            path: path.to_owned(),
            is_device,
            direct: AtomicBool::new(false),
            alignment: 1,
            failure: AtomicI32::new(0),
            errors: AtomicU64::new(0),
            last_errno: AtomicI32::new(0),
        };
        let len = disk.grow(bytes.unwrap_or(0))?;
        disk.go_direct();
        Ok((disk, bytes.unwrap_or(len)))
    }

    /// The file as rings have it, if there are to be any.
    pub(super) fn ring_file(&self) -> Option<&File> {
        self.ring_file.as_ref()
    }

    /// The file as threads have it.
    pub(super) fn threads_file(&self) -> &File {
        &self.file
    }

    /// Whether what is read and written goes past the page cache.
    #[inline]
    pub(super) fn is_direct(&self) -> bool {
        self.direct.load(Ordering::Relaxed)
    }

    /// Has what rings and threads read and write go past the page cache if the file system allows that. Without rings it
    /// goes through it, where reads need not wait.
    fn go_direct(&mut self) {
        if self.ring_file.is_none() {
            return;
        }
        let alignment = sys::direct_alignment(&self.file);
        if let Some(alignment) = alignment
            && self.set_direct(true).is_ok()
        {
            self.alignment = alignment;
            *self.direct.get_mut() = true;
            return;
        }
        // What was set of the two is undone.
        let _ = self.set_direct(false);
        log::info!(
            target: LOG_FLAG,
            "{}: its file system does not have it read and written past the page cache (O_DIRECT)",
            self.path.display()
        );
    }

    fn set_direct(&self, direct: bool) -> io::Result<()> {
        let files = [Some(&self.file), self.ring_file.as_ref()];
        let mut files = files.into_iter().flatten();
        files.try_for_each(|file| sys::set_direct(file, direct))
    }

    /// Sees to it that the page cache is used if an I/O is cut finer than can go past it. From then on all goes through
    /// it: both ways at the same time would contradict each other.
    #[inline]
    pub(super) fn note_alignment(&self, io: &Io) {
        if self.is_direct() && !io.is_aligned(self.alignment) {
            self.leave_direct();
        }
    }

    #[cold]
    fn leave_direct(&self) {
        if !self.direct.swap(false, Ordering::Relaxed) {
            return;
        }
        let (path, alignment) = (self.path.display(), self.alignment);
        match self.set_direct(false) {
            Ok(()) => log::warn!(
                target: LOG_FLAG,
                "{path}: read and written through the page cache from now on, since blocks are smaller than the \
                 {alignment} bytes that could go past it"
            ),
            Err(error) => {
                log::error!(target: LOG_FLAG, "{path}: no use of the page cache: {error}")
            }
        }
    }

    /// Size of the file or device in bytes.
    pub(super) fn size(&self) -> io::Result<u64> {
        match self.is_device {
            // Its metadata says 0.
            true => (&self.file).seek(SeekFrom::End(0)),
            false => Ok(self.file.metadata()?.len()),
        }
    }

    /// Extends the file if it is smaller. Returns its size.
    pub(super) fn grow(&self, bytes: u64) -> io::Result<u64> {
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
        let mut buffer = [const { Page::ZERO }; PIECE_PAGES];
        let mut at = offset;
        for piece in data.chunks(PIECE_LEN) {
            let stored = &mut buffer.as_mut_bytes()[..piece.len()];
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
            let piece = &ZEROES.as_bytes()[..left.min(PIECE_LEN)];
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
    pub(super) fn failure(&self) -> Option<io::Error> {
        match self.failure.load(Ordering::Relaxed) {
            0 => None,
            number => Some(io::Error::from_raw_os_error(number)),
        }
    }

    /// Writes and flushes are still allowed.
    #[inline]
    pub(super) fn check(&self) -> Result<(), Status> {
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

/// Opens the same file once more.
fn reopen(file: &File) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let again = OpenOptions::new().read(true).write(true).open(path);
    again.map_err(|error| {
        let text = format!("it cannot be opened once more for io_uring: {error}");
        io::Error::new(error.kind(), text)
    })
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
