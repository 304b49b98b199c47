//! Calls that the standard library does not offer: memory that is given back, holes in files, and discards of devices.
#![expect(unsafe_code, reason = "the one module of the target that calls libc")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// Bytes of a page, as far as giving memory back is concerned: the smallest that there are. On systems with larger ones
/// the kernel refuses what is not aligned, and the memory is zeroed instead.
pub(super) const PAGE: u32 = 4096;

/// Words of a page.
pub(super) const PAGE_WORDS: usize = PAGE as usize / size_of::<AtomicU64>();

/// Anonymous memory, zero at first. Pages are taken when they are first written, and can be given back.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the mapping is plain memory that belongs to no thread.
unsafe impl Send for Mapping {}
// SAFETY: it is only accessed as atomics.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Reserves so many words of the address space, at least one page.
    pub(super) fn new(words: usize) -> io::Result<Self> {
        let pages = words.div_ceil(PAGE_WORDS).max(1);
        let len = pages
            .checked_mul(PAGE as usize)
            .ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            start,
            words: pages * PAGE_WORDS,
        })
    }

    /// The memory.
    #[inline]
    pub(super) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is valid for reads and writes of that length and aligned to pages for as long as `self`
        // lives; all bit patterns are values, and nobody accesses it but through these atomics.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }

    /// Gives whole pages back; they read as zeroes afterwards. Both numbers are in words.
    pub(super) fn give_back(&self, at: usize, words: usize) -> io::Result<()> {
        let piece = self.words().get(at..).and_then(|rest| rest.get(..words));
        let piece = piece.ok_or(io::ErrorKind::InvalidInput)?;
        if piece.is_empty() {
            return Ok(());
        }
        let start = piece.as_ptr().cast_mut().cast();
        // SAFETY: the range lies within this private anonymous mapping. Its pages become zero pages, which is a change
        // of memory that is only accessed as atomics, as a store from another thread is.
        let result = unsafe { libc::madvise(start, size_of_val(piece), libc::MADV_DONTNEED) };
        done(result)
    }
}

#[cfg(test)]
impl Mapping {
    /// Pages that take memory.
    pub(super) fn resident(&self) -> usize {
        let mut pages = vec![0u8; self.words / PAGE_WORDS];
        let start = self.start.as_ptr().cast();
        // SAFETY: the call writes one byte for each page of this mapping.
        let result = unsafe { libc::mincore(start, self.words * 8, pages.as_mut_ptr()) };
        done(result).unwrap();
        pages.iter().filter(|&&page| page & 1 == 1).count()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let len = self.words * size_of::<AtomicU64>();
        // SAFETY: the mapping was made by `new` with this length, and nobody can have a reference into it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), len) };
    }
}

/// What [`allocate`] does to a range of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    /// Gives its space back; it reads as zeroes.
    Punch,
    /// The range reads as zeroes and keeps its space.
    Zero,
}

/// Punches a hole into a file or zeroes a range of it; neither changes its size. On a block device as well.
pub(super) fn allocate(file: &File, what: Space, offset: u64, len: u64) -> io::Result<()> {
    let mode = match what {
        Space::Punch => libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
        Space::Zero => libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE,
    };
    let wrong = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let offset = libc::off_t::try_from(offset).map_err(wrong)?;
    let len = libc::off_t::try_from(len).map_err(wrong)?;
    // SAFETY: the descriptor is open for as long as `file` lives; the call takes integers only.
    done(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, len) })
}

/// Whether a file can be read and written past the page cache, and in multiples of how many bytes; the memory has to be
/// aligned to no more than [`PAGE`]. Where the system does not tell (before Linux 6.1) that of all disks is taken.
pub(super) fn direct_alignment(file: &File) -> Option<u32> {
    // SAFETY: `statx` is made of integers, for which all zeroes is a value.
    let mut told: libc::statx = unsafe { std::mem::zeroed() };
    let (path, flags, wanted) = (c"".as_ptr(), libc::AT_EMPTY_PATH, libc::STATX_DIOALIGN);
    // SAFETY: the descriptor is open for as long as `file` lives, the path is a string, `told` is valid for writes.
    let result = unsafe { libc::statx(file.as_raw_fd(), path, flags, wanted, &raw mut told) };
    if result != 0 || told.stx_mask & libc::STATX_DIOALIGN == 0 {
        return Some(PAGE);
    }
    let (memory, offset) = (told.stx_dio_mem_align, told.stx_dio_offset_align);
    let fits = |align: u32| align > 0 && align <= PAGE;
    (fits(memory) && fits(offset)).then_some(offset)
}

/// Has what is read and written from now on go past the page cache, or through it.
pub(super) fn set_direct(file: &File, direct: bool) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as `file` lives; the call takes integers only.
    let before = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    if before < 0 {
        return Err(io::Error::last_os_error());
    }
    let flags = match direct {
        true => before | libc::O_DIRECT,
        false => before & !libc::O_DIRECT,
    };
    // SAFETY: as above.
    done(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags) })
}

/// Fills `out` from `offset` on if all of that is in the page cache, so that nothing is waited for.
pub(super) fn read_cached(file: &File, out: &mut [u8], offset: u64) -> bool {
    let Ok(offset) = libc::off_t::try_from(offset) else {
        return false;
    };
    let piece = libc::iovec {
        iov_base: out.as_mut_ptr().cast(),
        iov_len: out.len(),
    };
    let flags = libc::RWF_NOWAIT;
    // SAFETY: the descriptor is open for as long as `file` lives; `piece` is `out`, which is valid for writes.
    let read = unsafe { libc::preadv2(file.as_raw_fd(), &raw const piece, 1, offset, flags) };
    usize::try_from(read).is_ok_and(|read| read == out.len())
}

/// Tells a block device that a range is not needed any more. What it reads as afterwards is not known.
pub(super) fn discard(device: &File, offset: u64, len: u64) -> io::Result<()> {
    /// `_IO(0x12, 119)` of linux/fs.h.
    const BLKDISCARD: libc::c_ulong = 0x1277;
    let range = [offset, len];
    // SAFETY: the descriptor is open for as long as `device` lives; BLKDISCARD reads two 64-bit numbers.
    done(unsafe { libc::ioctl(device.as_raw_fd(), BLKDISCARD as _, range.as_ptr()) })
}

fn done(result: libc::c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn memory_that_is_given_back_reads_as_zeroes_and_can_be_used_again() {
        let mapping = Mapping::new(3 * PAGE_WORDS).unwrap();
        let words = mapping.words();
        assert_eq!(words.len(), 3 * PAGE_WORDS);
        words
            .iter()
            .for_each(|word| word.store(7, Ordering::Relaxed));
        mapping.give_back(PAGE_WORDS, PAGE_WORDS).unwrap();
        let is = |at: usize| words[at].load(Ordering::Relaxed);
        assert_eq!((is(PAGE_WORDS - 1), is(2 * PAGE_WORDS)), (7, 7));
        assert_eq!((is(PAGE_WORDS), is(2 * PAGE_WORDS - 1)), (0, 0));
        words[PAGE_WORDS].store(8, Ordering::Relaxed);
        assert_eq!(is(PAGE_WORDS), 8);
        assert!(mapping.give_back(3 * PAGE_WORDS, 1).is_err());
        assert!(mapping.give_back(usize::MAX, 1).is_err());
    }

    #[test]
    fn what_is_cached_is_read_as_it_is_and_nothing_beyond_the_end() {
        let path = std::env::temp_dir().join(format!("pollux-cached-{}", std::process::id()));
        std::fs::write(&path, [7; 8192]).unwrap();
        let file = File::open(&path).unwrap();
        let mut out = [0; 4096];
        // Not every file system can tell.
        if read_cached(&file, &mut out, 4096) {
            assert_eq!(out, [7; 4096]);
        }
        assert!(!read_cached(&file, &mut out, 4097));
        assert!(!read_cached(&file, &mut out, u64::MAX));
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn memory_that_no_address_space_has_is_refused() {
        assert!(Mapping::new(usize::MAX / 16).is_err());
        assert!(Mapping::new(usize::MAX).is_err());
    }
}
