//! Blocks in memory that reactors share without locks.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::helper::Helper;
use super::machine;
use super::sys::{self, Mapping, PAGE, PAGE_WORDS};

/// Mappings from this size on are taken apart by a thread of their own: freeing their pages takes longer than a turn may.
const LARGE_WORDS: usize = (16 << 20) / 8;

/// 64-bit atomics that are loaded and stored with relaxed ordering: overlapping accesses that run at the same time may
/// mix old and new data, as on any disk. Pages are taken when they are first written, and given back when they are
/// deallocated. All offsets and lengths are multiples of 512 bytes.
#[derive(Debug)]
pub(in crate::target) struct Memory {
    /// One, and one more for each time that it grew, in order of their addresses.
    segments: Box<[Segment]>,
    words: usize,
    pub(super) helper: Helper,
}

#[derive(Debug, Clone)]
struct Segment {
    /// The word at which it starts.
    start: usize,
    pages: Arc<Pages>,
}

#[derive(Debug)]
struct Pages(Option<Mapping>);

impl Pages {
    #[inline]
    fn mapping(&self) -> Option<&Mapping> {
        self.0.as_ref()
    }

    #[inline]
    fn words(&self) -> &[AtomicU64] {
        self.mapping().map_or(&[], Mapping::words)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let large = self.0.take_if(|m| m.words().len() >= LARGE_WORDS);
        if let Some(mapping) = large {
            // Without a thread it is freed here.
            let _ = thread::Builder::new().spawn(move || {
                sys::leave_core();
                drop(mapping);
            });
        }
    }
}

impl Memory {
    /// Memory for `bytes`.
    ///
    /// # Errors
    /// The machine, or what this process may have of it, has not as much to give.
    pub(super) fn new(bytes: u64) -> io::Result<Self> {
        Self::grown(&[], 0, bytes)
    }

    /// The same memory with room for `bytes`; what lies behind that is given back when nobody uses it any more.
    pub(super) fn resized(&self, bytes: u64) -> io::Result<Self> {
        Self::grown(&self.segments, self.end(), bytes)
    }

    fn grown(old: &[Segment], end: usize, bytes: u64) -> io::Result<Self> {
        let words = usize::try_from(bytes / 8).map_err(|_| ErrorKind::OutOfMemory)?;
        let kept = old.iter().filter(|segment| segment.start < words);
        let mut segments: Vec<Segment> = kept.cloned().collect();
        if words > end {
            machine::check_memory((words - end) as u64 * 8)?;
            segments.push(Segment {
                start: end,
                pages: Arc::new(Pages(Some(Mapping::new(words - end)?))),
            });
        }
        Ok(Self {
            segments: segments.into(),
            words,
            helper: Helper::default(),
        })
    }

    /// The word behind the last one that there is memory for.
    fn end(&self) -> usize {
        let last = self.segments.last();
        last.map_or(0, |last| last.start + last.pages.words().len())
    }

    /// Appends `len` bytes from `offset` on to `out`.
    #[inline]
    pub(super) fn read(&self, offset: u64, len: usize, out: &mut Vec<u8>) -> io::Result<()> {
        for words in self.pieces(offset, len)? {
            // Lines of 64 bytes: one capacity check for eight words, no zeroing beforehand.
            for line in words.chunks(8) {
                let mut bytes = [0; 64];
                for (to, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(line) {
                    *to = word.load(Ordering::Relaxed).to_ne_bytes();
                }
                out.extend_from_slice(bytes.get(..line.len() * 8).unwrap_or_default());
            }
        }
        Ok(())
    }

    #[inline]
    pub(super) fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut data = data.as_chunks::<8>().0;
        for words in self.pieces(offset, data.len() * 8)? {
            let (now, later) = data.split_at(words.len().min(data.len()));
            for (word, from) in words.iter().zip(now) {
                word.store(u64::from_ne_bytes(*from), Ordering::Relaxed);
            }
            data = later;
        }
        Ok(())
    }

    pub(super) fn compare(&self, offset: u64, data: &[u8]) -> io::Result<bool> {
        Ok(self
            .pieces(offset, data.len())?
            .flatten()
            .zip(data.as_chunks::<8>().0)
            .all(|(word, from)| word.load(Ordering::Relaxed) == u64::from_ne_bytes(*from)))
    }

    /// Makes a range read as zeroes, and gives its whole pages back.
    pub(super) fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(|_| ErrorKind::UnexpectedEof)?;
        let mut pieces = self.pieces(offset, len)?;
        while let Some((segment, at, words)) = pieces.next_place() {
            let Some(mapping) = segment.pages.mapping() else {
                continue;
            };
            let first = at.next_multiple_of(PAGE_WORDS).min(at + words);
            let end = ((at + words) / PAGE_WORDS * PAGE_WORDS).max(first);
            store_zeroes(mapping, at, first);
            if mapping.give_back(first, end - first).is_err() {
                // Locked pages stay, and are zeroed.
                store_zeroes(mapping, first, end);
            }
            store_zeroes(mapping, end, at + words);
        }
        Ok(())
    }

    /// The smallest piece that is given back.
    pub(super) const GRANULARITY: u32 = PAGE;

    /// The words of a byte range, segment by segment.
    ///
    /// Out of the memory is an error although callers have checked: a namespace may shrink below a queue that has not
    /// heard of it yet.
    #[inline]
    fn pieces(&self, offset: u64, len: usize) -> io::Result<Pieces<'_>> {
        let at = usize::try_from(offset / 8).unwrap_or(usize::MAX);
        let left = len / 8;
        match at.checked_add(left) {
            Some(end) if end <= self.words => Ok(Pieces {
                segments: &self.segments,
                at,
                left,
            }),
            _ => Err(ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn store_zeroes(mapping: &Mapping, from: usize, to: usize) {
    for word in mapping.words().get(from..to).unwrap_or_default() {
        // Reading first leaves memory that was never written untouched.
        if word.load(Ordering::Relaxed) != 0 {
            word.store(0, Ordering::Relaxed);
        }
    }
}

struct Pieces<'a> {
    segments: &'a [Segment],
    at: usize,
    left: usize,
}

impl<'a> Pieces<'a> {
    /// A segment, the place in it and the number of words there.
    #[inline]
    fn next_place(&mut self) -> Option<(&'a Segment, usize, usize)> {
        if self.left == 0 {
            return None;
        }
        // Nearly always the only one.
        let segment = self.segments.iter().rev().find(|s| s.start <= self.at)?;
        let at = self.at - segment.start;
        let words = segment.pages.words().len().checked_sub(at)?.min(self.left);
        if words == 0 {
            return None;
        }
        self.at += words;
        self.left -= words;
        Some((segment, at, words))
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [AtomicU64];

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (segment, at, words) = self.next_place()?;
        segment.pages.words().get(at..at + words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_one_across_growth() {
        let old = Memory::new(8192).unwrap();
        let new = old.resized(1 << 20).unwrap();
        let data: Vec<u8> = (0..2048u32).map(|i| (i % 249) as u8).collect();
        new.write(8192 - 1024, &data).unwrap();
        assert!(old.compare(8192 - 1024, &data[..1024]).unwrap());
        let mut out = Vec::new();
        new.read(8192 - 1024, 2048, &mut out).unwrap();
        assert_eq!(out, data);
        new.zero(8192 - 512, 1024).unwrap();
        assert!(new.compare(8192 - 512, &[0; 1024]).unwrap());
        assert!(new.compare(8192 + 512, &data[1536..]).unwrap());
        let small = new.resized(4096).unwrap();
        assert!(small.write(4096, &[0; 512]).is_err());
        assert!(
            small
                .resized(8192)
                .unwrap()
                .compare(7168, &data[..512])
                .unwrap()
        );
    }

    #[test]
    fn memory_refuses_what_lies_beyond_its_end() {
        let memory = Memory::new(4096).unwrap();
        assert!(memory.read(4096, 512, &mut Vec::new()).is_err());
        assert!(memory.write(u64::MAX - 511, &[0; 512]).is_err());
        assert!(memory.compare(3584, &[0; 1024]).is_err());
        assert!(memory.zero(3584, 1024).is_err());
        assert!(memory.zero(0, u64::MAX).is_err());
    }

    #[test]
    fn what_is_zeroed_reads_as_zeroes_and_its_neighbours_stay() {
        let memory = Memory::new(1 << 20).unwrap();
        let data = vec![0xa5; 1 << 20];
        for (offset, len) in [
            (512, 512),
            (512, 4096),
            (4096, 8192),
            (3584, 9216),
            (0, 1 << 20),
        ] {
            memory.write(0, &data).unwrap();
            memory.zero(offset, len).unwrap();
            let mut out = Vec::new();
            memory.read(0, 1 << 20, &mut out).unwrap();
            let at = |bytes| usize::try_from(bytes).unwrap();
            let (start, end) = (at(offset), at(offset + len));
            assert!(out[..start].iter().all(|&b| b == 0xa5));
            assert!(out[start..end].iter().all(|&b| b == 0));
            assert!(out[end..].iter().all(|&b| b == 0xa5));
        }
    }

    #[test]
    fn zeroed_memory_is_given_back() {
        let memory = Memory::new(8 << 20).unwrap();
        let mapping = memory.segments[0].pages.mapping().unwrap();
        assert_eq!(mapping.resident(), 0);
        memory.write(0, &vec![1; 8 << 20]).unwrap();
        assert_eq!(mapping.resident(), 2048);
        memory.zero(512, (8 << 20) - 512).unwrap();
        assert_eq!(mapping.resident(), 1);
        // What was never written takes no memory when it is zeroed.
        memory.zero(0, 8 << 20).unwrap();
        assert_eq!(mapping.resident(), 0);
    }

    #[test]
    fn more_than_the_machine_has_is_refused_with_both_figures() {
        let error = Memory::new(100 << 40).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("109951162777600") && text.contains("can be had"),
            "{text}"
        );
    }
}
