//! A ring of `io_uring`: what the kernel can read and write without waiting goes to it here, all that a turn has in one call,
//! and its answers are found in memory.
//!
//! Nothing else goes this way. What would wait, the kernel would hand to threads of its own: all disks of a reactor share
//! them, so that a slow one kept others waiting, and they carry out what they have although the reactor has stood still and
//! somebody else is served by now. So each I/O says that it must not wait (`RWF_NOWAIT`), and if it would, or anything is
//! wrong with it, the threads of the disk do it, which know all of that.
#![expect(
    unsafe_code,
    reason = "the one module that lends memory to the kernel for longer than a call"
)]

use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, Once, OnceLock};
use std::thread;

use io_uring::{IoUring, Probe, opcode, types};

use super::open_file::OpenFile;
use crate::target::LOG_FLAG;
use crate::target::disk::{Io, IoId, Op};

/// Most pieces of I/Os that the kernel has of one ring: devices take on some hundreds at once.
const ENTRIES: u32 = 256;

/// Most I/Os of them.
const SLOTS: usize = 128;

/// Most bytes of one piece. Devices have limits from 128 KiB on, and what is larger would wait to be cut.
const PIECE: usize = 128 * 1024;

/// Most pieces of one I/O.
const PIECES_MAX: usize = crate::target::io::TRANSFER_MAX as usize / PIECE;

/// Whether this process can have rings, or why not. Found out once.
pub(super) fn availability() -> Result<(), &'static str> {
    static FOUND: OnceLock<Result<(), String>> = OnceLock::new();
    let found = FOUND.get_or_init(try_out);
    found.as_ref().map(|&()| ()).map_err(String::as_str)
}

/// Says in the log what reads and writes files, when the first one is open.
pub(super) fn say_once() {
    static SAID: Once = Once::new();
    SAID.call_once(|| match availability() {
        Ok(()) => log::info!(target: LOG_FLAG, "files are read and written by io_uring"),
        Err(why) => log::info!(target: LOG_FLAG, "files are read and written by threads: {why}"),
    });
}

fn try_out() -> Result<(), String> {
    let cannot = |error: io::Error| {
        let why = match error.raw_os_error() {
            Some(libc::ENOSYS) => "this kernel has none",
            Some(libc::EPERM | libc::EACCES) => {
                "kernel.io_uring_disabled or a seccomp filter forbids it"
            }
            _ => "the system refuses it",
        };
        format!("io_uring cannot be had, {why} ({error})")
    };
    let uring = set_up().map_err(cannot)?;
    let mut probe = Probe::new();
    let probed = uring.submitter().register_probe(&mut probe);
    probed.map_err(cannot)?;
    let has = |code| probe.is_supported(code);
    match has(opcode::Read::CODE) && has(opcode::Write::CODE) {
        true => Ok(()),
        false => Err("io_uring of this kernel is too old (before Linux 5.6)".into()),
    }
}

fn set_up() -> io::Result<IoUring> {
    // Completions wait for the reactor's next system call instead of interrupting it, or until it sees their flag.
    let new = IoUring::builder()
        .dontfork()
        .setup_submit_all()
        .setup_coop_taskrun()
        .setup_taskrun_flag()
        .build(ENTRIES);
    match new {
        // Before Linux 5.19.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            IoUring::builder().dontfork().build(ENTRIES)
        }
        other => other,
    }
}

/// An I/O of which the kernel has at least a piece.
#[derive(Debug)]
struct Flight {
    io: Io,
    cancelled: bool,
    /// Pieces that are not done.
    missing: usize,
    /// What went wrong with one of them.
    error: Option<i32>,
}

/// An I/O of which the kernel has nothing any more.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) io: Io,
    /// The number of the system's error; that of another end than all of it is EIO.
    pub(super) result: Result<(), i32>,
    pub(super) cancelled: bool,
}

/// A ring for one file, and the I/Os that the kernel has.
#[derive(Debug)]
pub(super) struct Ring(ManuallyDrop<Books>);

struct Books {
    uring: IoUring,
    /// I/Os stay at their places while the kernel has them, and nobody looks at their data.
    slots: Box<[Option<Flight>]>,
    free: Vec<usize>,
    /// Pieces that were queued and are not done.
    open: usize,
    /// Keeps the file, and its lock, for as long as the kernel may write to it.
    _file: Arc<OpenFile>,
}

impl fmt::Debug for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Books")
            .field("slots", &self.slots)
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}

impl Ring {
    /// A ring for this file; `None` if it is not to have any.
    pub(super) fn new(file: &Arc<OpenFile>) -> io::Result<Option<Self>> {
        let Some(opened) = file.ring_file() else {
            return Ok(None);
        };
        let uring = set_up()?;
        uring.submitter().register_files(&[opened.as_raw_fd()])?;
        Ok(Some(Self(ManuallyDrop::new(Books {
            uring,
            slots: (0..SLOTS).map(|_| None).collect(),
            free: (0..SLOTS).rev().collect(),
            open: 0,
            _file: Arc::clone(file),
        }))))
    }

    /// Becomes readable when there are answers.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring is open for as long as `self` is borrowed, and is closed by `close` alone, which consumes it.
        unsafe { BorrowedFd::borrow_raw(self.0.uring.as_raw_fd()) }
    }

    /// Whether there is room for one more I/O.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        !self.0.free.is_empty() && self.0.open + PIECES_MAX <= ENTRIES as usize
    }

    /// Queues a read or a write, for which there is room.
    pub(super) fn push(&mut self, io: Io) {
        self.0.push(io, libc::RWF_NOWAIT);
    }

    /// Hands all that is queued to the kernel, and lets it say what it has done, by one call if there is either.
    #[inline]
    pub(super) fn enter(&mut self) -> io::Result<()> {
        let queue = self.0.uring.submission();
        if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
            return Ok(());
        }
        drop(queue);
        self.0.uring.submit().map(drop)
    }

    /// The next I/O that has come to its end.
    #[inline]
    pub(super) fn next_ended(&mut self) -> Option<Ended> {
        self.0.next_ended()
    }

    /// Notes that nobody waits for an I/O any more. What the kernel has begun cannot be taken back.
    pub(super) fn cancel(&mut self, id: IoId) {
        let mut flights = self.0.slots.iter_mut().flatten();
        if let Some(flight) = flights.find(|flight| flight.io.id() == id) {
            flight.cancelled = true;
        }
    }
}

impl Books {
    /// Queues a read or write in pieces.
    fn push(&mut self, io: Io, flags: i32) {
        let offset = match io.op {
            Op::Read { offset } | Op::Write { offset, .. } => offset,
            _ => unreachable!("no ring does this: {:?}", io.op),
        };
        #[expect(clippy::expect_used, reason = "it was asked whether there is one")]
        let slot = self.free.pop().expect("a free slot");
        let flight = self.slots[slot].insert(Flight {
            io,
            cancelled: false,
            missing: 0,
            error: None,
        });
        let file = types::Fixed(0);
        let mut queue = self.uring.submission();
        let mut at = offset;
        // The memory stays where it is when the I/O is moved; it is in its place already all the same.
        for piece in flight.io.data.chunks_mut(PIECE) {
            #[expect(clippy::expect_used, reason = "it is at most PIECE")]
            let len = u32::try_from(piece.len()).expect("the length of a piece");
            let entry = match flight.io.op {
                Op::Write { fua, .. } => {
                    let durable = if fua { libc::RWF_DSYNC } else { 0 };
                    opcode::Write::new(file, piece.as_ptr(), len)
                        .offset(at)
                        .rw_flags(flags | durable)
                        .build()
                }
                _ => opcode::Read::new(file, piece.as_mut_ptr(), len)
                    .offset(at)
                    .rw_flags(flags)
                    .build(),
            };
            let entry = entry.user_data(((slot as u64) << 32) | u64::from(len));
            // SAFETY: `piece` is memory of an I/O that is in `slots`, where nobody touches its data and from where it goes
            // when all its pieces are done: `next_ended` takes it out then, and `Ring::drop` drops nothing before. Held by the
            // tests `what_the_kernel_has_outlives_its_channel` and `a_ring_reads_what_it_has_written`.
            let pushed = unsafe { queue.push(&entry) };
            assert!(
                pushed.is_ok(),
                "a ring without room for what it was asked to take"
            );
            at += piece.len() as u64;
            flight.missing += 1;
            self.open += 1;
        }
    }

    fn next_ended(&mut self) -> Option<Ended> {
        loop {
            let answer = self.uring.completion().next()?;
            let (slot, len) = (answer.user_data() >> 32, answer.user_data() & 0xffff_ffff);
            #[expect(
                clippy::expect_used,
                reason = "the kernel hands back what it was given"
            )]
            let slot = usize::try_from(slot).expect("a slot");
            let place = &mut self.slots[slot];
            #[expect(clippy::expect_used, reason = "each piece is answered once")]
            let flight = place.as_mut().expect("an I/O that the kernel has");
            let result = answer.result();
            if result < 0 {
                flight.error = Some(-result);
            } else if u64::from(result.unsigned_abs()) != len {
                flight.error = Some(libc::EIO);
            }
            self.open -= 1;
            flight.missing -= 1;
            if flight.missing > 0 {
                continue;
            }
            self.free.push(slot);
            return place.take().map(|flight| Ended {
                io: flight.io,
                result: flight.error.map_or(Ok(()), Err),
                cancelled: flight.cancelled,
            });
        }
    }

    /// Waits until the kernel has nothing any more of what it was handed.
    fn wait(&mut self) {
        /// `IORING_ENTER_GETEVENTS` of linux/io_uring.h.
        const GETEVENTS: u32 = 1;
        // What is queued and was not handed over stays where it is.
        while self.open > self.uring.submission().len() {
            if self.next_ended().is_some() {
                continue;
            }
            let submitter = self.uring.submitter();
            // SAFETY: nothing is submitted, and there is no argument. A failure, by a signal, is tried again.
            let _ = unsafe { submitter.enter::<libc::sigset_t>(0, 1, GETEVENTS, None) };
        }
    }
}

/// What the kernel still has is waited for by a thread; if there is none to be had, it is never freed.
impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the field is not used again.
        let mut books = unsafe { ManuallyDrop::take(&mut self.0) };
        if books.open <= books.uring.submission().len() {
            close(books);
            return;
        }
        let books = ManuallyDrop::new(books);
        let wait = move || {
            pollux_reactor::leave_core();
            let mut books = books;
            books.wait();
            close(ManuallyDrop::into_inner(books));
        };
        let started = thread::Builder::new()
            .name("pollux-disk".into())
            .spawn(wait);
        if let Err(error) = started {
            log::warn!(
                target: LOG_FLAG,
                "no thread to wait for what the kernel has of a disk ({error}): its memory is lost"
            );
        }
    }
}

/// The file is closed when this returns: the kernel closes rings, and what is registered with them, at some later time.
fn close(books: Books) {
    // If it fails nothing is lost but time.
    let _ = books.uring.submitter().unregister_files();
}
