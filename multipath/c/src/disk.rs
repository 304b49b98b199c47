//! A volume as a C program uses it: I/O that is submitted from any thread, and polled, waited for, or told by a descriptor.
#![expect(
    clippy::disallowed_types,
    reason = "the program's threads meet here, and no reactor"
)]

use std::ffi::{c_char, c_int, c_void};
use std::os::fd::AsRawFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pollux_multipath::{Completion, Completions, Io, Op, Queue, VolumeInfo};

use crate::failure::{Failure, ended, guard};
use crate::handles::Handles;
use crate::host::{HOSTS, pollux_host, put, text};

/// Reads blocks into the buffer.
pub const POLLUX_READ: u32 = 0;
/// Writes blocks from the buffer.
pub const POLLUX_WRITE: u32 = 1;
/// Makes everything written before durable; no blocks, no buffer.
pub const POLLUX_FLUSH: u32 = 2;
/// Sets blocks to zero; no buffer.
pub const POLLUX_WRITE_ZEROES: u32 = 3;
/// Tells that the contents of blocks are no longer needed; no buffer.
pub const POLLUX_DEALLOCATE: u32 = 4;
/// Compares blocks with the buffer.
pub const POLLUX_COMPARE: u32 = 5;

/// A volume that was opened, with a queue for its I/O. 0 is none.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct pollux_disk(pub u64);

/// An I/O.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct pollux_io {
    /// POLLUX_READ and so on.
    pub op: u32,
    /// Number of blocks.
    pub blocks: u32,
    /// First block.
    pub lba: u64,
    /// The caller's memory, of any alignment, where the operation has data. What is written is taken from it at once; what is
    /// read is put there by the poll or wait that brings the completion, and by nothing else.
    pub buffer: *mut c_void,
    /// Its bytes, at least those of the blocks.
    pub length: usize,
    /// Whatever is to be found again in the completion.
    pub user: u64,
    /// An I/O that has not ended after so long ends with -ETIMEDOUT; 0: never.
    pub timeout_us: u64,
}

/// An I/O that has ended.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct pollux_completion {
    /// As it was submitted.
    pub user: u64,
    /// As it was submitted.
    pub buffer: *mut c_void,
    /// 0, or: -EIO an error of the volume, -ENXIO no path, -ENODEV the volume was removed, -ETIMEDOUT its time was over,
    /// -EINVAL blocks outside the volume or no such volume, -ESHUTDOWN the host has ended.
    pub result: i32,
    /// With -EIO, the NVMe status that it ended with: status code type << 8 | status code; 0 if there is none.
    pub status: u32,
}

/// What a disk is.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct pollux_disk_info {
    /// Size in blocks, when it was opened.
    pub blocks: u64,
    /// Bytes of a block.
    pub block_size: u32,
    /// I/Os that may be under way at a time.
    pub depth: u32,
}

struct Disk {
    queue: Queue,
    volume: VolumeInfo,
    sent: Mutex<Sent>,
    completions: Mutex<Completions>,
}

/// I/Os under way, each by the place here that it is called by on its way.
struct Sent {
    places: Vec<Option<Place>>,
    free: Vec<usize>,
    /// Buffers that I/O has brought back.
    spare: Vec<Vec<u8>>,
}

#[derive(Clone, Copy)]
struct Place {
    user: u64,
    /// The caller's buffer; an address, as only a poll or a wait may touch it.
    buffer: usize,
    length: usize,
    is_read: bool,
}

static DISKS: Handles<Disk> = Handles::new(0x7044, "disk");

/// Opens a volume of a host, for which it waits for `timeout_ms` if it is not there yet, with a queue for `depth` I/Os at a
/// time.
///
/// `-ENOENT`: it is not there; `-EINVAL`: `depth` is 0 or more than 4,096, which is also what the disks of a host that share
/// its queue pairs may have together; `-ESHUTDOWN`.
///
/// # Safety
/// `volume` is null or ends with a zero; `disk` is null or valid for a write.
#[expect(unsafe_code, reason = "a function for C")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pollux_disk_open(
    host: pollux_host,
    volume: *const c_char,
    depth: u32,
    timeout_ms: u32,
    disk: *mut pollux_disk,
) -> c_int {
    guard(|| {
        // SAFETY: as this function's.
        unsafe { put(disk, pollux_disk(0)) }?;
        // SAFETY: as this function's.
        let name = unsafe { text(volume, "volume") }?;
        let started = HOSTS.get(host.0)?;
        let volume = started.host.volume(name);
        volume.wait(Duration::from_millis(timeout_ms.into()))?;
        let volume = volume.info()?;
        let depth = usize::try_from(depth).unwrap_or(usize::MAX);
        let (queue, completions) = started.host.queue(started.next_reactor(), depth)?;
        let opened = Disk {
            queue,
            volume,
            sent: Mutex::new(Sent {
                places: vec![None; depth],
                free: (0..depth).rev().collect(),
                spare: Vec::with_capacity(depth),
            }),
            completions: Mutex::new(completions),
        };
        // SAFETY: as this function's.
        unsafe { put(disk, pollux_disk(DISKS.add(opened)?)) }?;
        Ok(0)
    })
}

/// What it is.
///
/// # Safety
/// `info` is null or valid for a write.
#[expect(unsafe_code, reason = "a function for C")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pollux_disk_get_info(
    disk: pollux_disk,
    info: *mut pollux_disk_info,
) -> c_int {
    guard(|| {
        let disk = DISKS.get(disk.0)?;
        let told = pollux_disk_info {
            blocks: disk.volume.blocks,
            block_size: disk.volume.block_size(),
            depth: u32::try_from(disk.queue.depth()).unwrap_or(u32::MAX),
        };
        // SAFETY: as this function's.
        unsafe { put(info, told) }?;
        Ok(0)
    })
}

/// Submits an I/O; never blocks. It ends exactly once, by a completion.
///
/// `-EAGAIN`: the queue is full, until a completion was taken; `-EINVAL`; `-ESHUTDOWN`.
///
/// # Safety
/// `io` is null or valid for a read; its buffer has `length` bytes, until the completion is taken if it is read into.
#[expect(unsafe_code, reason = "a function for C")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pollux_disk_submit(disk: pollux_disk, io: *const pollux_io) -> c_int {
    guard(|| {
        let disk = DISKS.get(disk.0)?;
        if io.is_null() {
            return Err(Failure::invalid("the I/O is null"));
        }
        // SAFETY: by this function's contract, as it is not null.
        let io = unsafe { io.read() };
        // SAFETY: as this function's.
        unsafe { disk.submit(io) }?;
        Ok(0)
    })
}

/// Takes completions of I/Os that have ended, at most `max`, and says how many. Never blocks.
///
/// `-EBUSY`: another thread is at it; `-EINVAL`.
///
/// # Safety
/// `completions` is valid for writes of `max` completions, and the buffers of I/Os that have read are still there.
#[expect(unsafe_code, reason = "a function for C")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pollux_disk_poll(
    disk: pollux_disk,
    completions: *mut pollux_completion,
    max: u32,
) -> c_int {
    // SAFETY: as this function's.
    guard(|| unsafe { DISKS.get(disk.0)?.take(completions, max, None) })
}

/// As pollux_disk_poll(), but if nothing has ended it waits until something has, at most for `timeout_ms`.
///
/// `-EBUSY`: another thread is at it; `-EINVAL`.
///
/// # Safety
/// As pollux_disk_poll().
#[expect(unsafe_code, reason = "a function for C")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pollux_disk_wait(
    disk: pollux_disk,
    completions: *mut pollux_completion,
    max: u32,
    timeout_ms: u32,
) -> c_int {
    let limit = Some(Duration::from_millis(timeout_ms.into()));
    // SAFETY: as this function's.
    guard(|| unsafe { DISKS.get(disk.0)?.take(completions, max, limit) })
}

/// A descriptor (eventfd) for an event loop, which stays the disk's: it is readable when completions may be there, until
/// pollux_disk_poll() has brought fewer than it was asked for. Nothing else needs to read it.
///
/// `-EBUSY`: another thread is at taking completions; `-EMFILE`: the system has no descriptor left.
#[expect(unsafe_code, reason = "a function for C")]
#[unsafe(no_mangle)]
pub extern "C" fn pollux_disk_event_fd(disk: pollux_disk) -> c_int {
    guard(|| {
        let disk = DISKS.get(disk.0)?;
        let mut completions = disk.completions()?;
        let fd = completions.event_fd();
        let fd = fd.map_err(|error| Failure::new(libc::EMFILE, error.to_string()))?;
        Ok(fd.as_raw_fd())
    })
}

/// Aborts the I/O with this `user`, if it is under way. It ends in any case: with -EIO and a status of 7h if it was aborted.
///
/// `-EAGAIN`: the host has too much to do, to be tried again; `-ESHUTDOWN`.
#[expect(unsafe_code, reason = "a function for C")]
#[unsafe(no_mangle)]
pub extern "C" fn pollux_disk_abort(disk: pollux_disk, user: u64) -> c_int {
    guard(|| {
        let disk = DISKS.get(disk.0)?;
        let is_it = |place: &Option<Place>| place.is_some_and(|place| place.user == user);
        let place = disk.sent().places.iter().position(is_it);
        if let Some(place) = place {
            disk.queue.abort(disk.volume.id, place as u64)?;
        }
        Ok(0)
    })
}

/// Closes a disk. I/O that is under way goes on, but no completion tells of it, and no buffer of the caller's is touched any
/// more.
#[expect(unsafe_code, reason = "a function for C")]
#[unsafe(no_mangle)]
pub extern "C" fn pollux_disk_close(disk: pollux_disk) -> c_int {
    guard(|| DISKS.remove(disk.0).map(|_| 0))
}

/// The operation of a number.
fn op(number: u32) -> Option<Op> {
    Some(match number {
        POLLUX_READ => Op::Read,
        POLLUX_WRITE => Op::Write,
        POLLUX_FLUSH => Op::Flush,
        POLLUX_WRITE_ZEROES => Op::WriteZeroes,
        POLLUX_DEALLOCATE => Op::Deallocate,
        POLLUX_COMPARE => Op::Compare,
        _ => return None,
    })
}

impl Disk {
    fn sent(&self) -> MutexGuard<'_, Sent> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn completions(&self) -> Result<MutexGuard<'_, Completions>, Failure> {
        let busy = "another thread is at taking completions of this disk";
        self.completions
            .try_lock()
            .map_err(|_| Failure::new(libc::EBUSY, busy))
    }

    /// # Safety
    /// The buffer is as long as it is said to be.
    #[expect(unsafe_code, reason = "memory of C's")]
    unsafe fn submit(&self, io: pollux_io) -> Result<(), Failure> {
        let op = op(io.op).ok_or_else(|| Failure::invalid("no such operation"))?;
        let bytes = u64::from(io.blocks) << self.volume.block_shift;
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let has_data = matches!(op, Op::Read | Op::Write | Op::Compare);
        if has_data && (io.buffer.is_null() || io.length < bytes) {
            return Err(Failure::invalid(
                "the buffer is null or shorter than the blocks",
            ));
        }
        let end = io.lba.checked_add(io.blocks.into());
        if op != Op::Flush && (io.blocks == 0 || end.is_none()) {
            return Err(Failure::invalid("no blocks, or blocks outside the volume"));
        }
        let mut sent = self.sent();
        let Some(place) = sent.free.pop() else {
            return Err(pollux_multipath::SubmitError::Full.into());
        };
        let mut buffer = sent.spare.pop().unwrap_or_default();
        buffer.clear();
        if op == Op::Read {
            buffer.resize(bytes, 0);
        } else if has_data {
            // SAFETY: by this function's contract, and it is neither null nor shorter. Held by `tests/misuse.rs`.
            buffer.extend_from_slice(unsafe {
                std::slice::from_raw_parts(io.buffer.cast::<u8>(), bytes)
            });
        }
        sent.places[place] = Some(Place {
            user: io.user,
            buffer: io.buffer.expose_provenance(),
            length: bytes,
            is_read: op == Op::Read,
        });
        drop(sent);
        let what = Io::new(op, io.lba, io.blocks, buffer).with_user(place as u64);
        let submitted = match io.timeout_us {
            0 => self.queue.submit(self.volume.id, what),
            micros => {
                let limit = Duration::from_micros(micros);
                self.queue.submit_within(self.volume.id, what, limit)
            }
        };
        submitted.map_err(|(what, error)| {
            let mut sent = self.sent();
            sent.places[place] = None;
            sent.free.push(place);
            sent.spare.push(what.buffer.into_vec());
            Failure::from(error)
        })
    }

    /// # Safety
    /// As of [`pollux_disk_poll`].
    #[expect(unsafe_code, reason = "memory of C's")]
    unsafe fn take(
        &self,
        out: *mut pollux_completion,
        max: u32,
        limit: Option<Duration>,
    ) -> Result<c_int, Failure> {
        let max = c_int::try_from(max).unwrap_or(c_int::MAX);
        if out.is_null() || max == 0 {
            return Err(Failure::invalid("there is no place for a completion"));
        }
        let mut completions = self.completions()?;
        let mut taken = 0;
        while taken < max {
            let next = match limit {
                Some(limit) if taken == 0 => completions.wait(limit),
                _ => completions.next_completion(),
            };
            let Some(done) = next else {
                break;
            };
            // SAFETY: as this function's.
            let told = unsafe { self.end(done) };
            // SAFETY: by this function's contract, as fewer than `max` were taken.
            unsafe { out.add(usize::try_from(taken).unwrap_or(0)).write(told) };
            taken += 1;
        }
        Ok(taken)
    }

    /// Brings what was read to the caller's buffer.
    ///
    /// # Safety
    /// That buffer is still there.
    #[expect(unsafe_code, reason = "memory of C's")]
    #[expect(clippy::expect_used, reason = "an I/O ends once, under its name")]
    unsafe fn end(&self, done: Completion) -> pollux_completion {
        let mut sent = self.sent();
        let number = usize::try_from(done.io.user).ok();
        let place = number.and_then(|number| sent.places.get_mut(number)?.take());
        let place = place.expect("an I/O has ended that this disk has not submitted");
        sent.free.extend(number);
        let (errno, status) = ended(done.result);
        let bytes = done.io.buffer.into_vec();
        let buffer = std::ptr::with_exposed_provenance_mut::<u8>(place.buffer);
        if place.is_read && errno == 0 {
            let length = place.length.min(bytes.len());
            // SAFETY: the caller's buffer was as long when it was submitted, and by this function's contract is there still;
            // what was read is memory of its own. Held by `tests/program.rs`, under valgrind in CI.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), buffer, length) };
        }
        sent.spare.push(bytes);
        pollux_completion {
            user: place.user,
            buffer: buffer.cast(),
            result: -errno,
            status: status.into(),
        }
    }
}
