//! Blocks in memory that reactors share without locks.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use pollux_reactor::Time;

use super::sys::{Mapping, PAGE, PAGE_WORDS};
use super::{Capabilities, Disk, DiskChannel, DiskContext, Done, Io, IoId, Op, Opening, Range};
use super::{machine, words};
use crate::spec::status::Status;

/// Mappings from this size on are taken apart by a thread of their own: freeing their pages takes longer than a turn may.
const LARGE_WORDS: usize = (16 << 20) / 8;

/// Bytes that are zeroed at a time: that takes a fraction of a millisecond.
const STEP: u64 = 1 << 20;

/// A disk in memory.
#[derive(Debug)]
pub(super) struct MemoryDisk(Arc<Memory>);

impl MemoryDisk {
    /// Memory for `bytes`.
    ///
    /// # Errors
    /// The machine, or what this process may have of it, has not as much to give.
    pub(super) fn new(bytes: u64) -> io::Result<Self> {
        Ok(Self(Arc::new(Memory::new(bytes)?)))
    }
}

impl Disk for MemoryDisk {
    fn name(&self) -> String {
        "memory disk".into()
    }

    fn bytes(&self) -> u64 {
        self.0.size() as u64 * 8
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            in_place: true,
            reads_zeroes: false,
            deallocates_to_zeroes: true,
            granularity: Some(PAGE),
        }
    }

    fn open(&self, _: Opening) -> Box<dyn DiskChannel> {
        Box::new(MemoryChannel {
            memory: Arc::clone(&self.0),
            zeroing: VecDeque::new(),
        })
    }

    fn resize(&self, bytes: u64) -> io::Result<()> {
        self.0.resize(bytes)
    }
}

/// What is large is zeroed step by step, one step a turn.
#[derive(Debug)]
struct MemoryChannel {
    memory: Arc<Memory>,
    zeroing: VecDeque<Io>,
}

impl MemoryChannel {
    /// The next step of a zeroing. Returns its result when nothing is left.
    fn zero(&self, op: &mut Op) -> Option<Result<(), Status>> {
        let Some(Range { offset, len }) = op.next_piece(STEP) else {
            return Some(Ok(()));
        };
        self.memory.zero(offset, len).err().map(|_| Err(BEYOND))
    }
}

/// A disk may shrink below a command that has been checked already.
const BEYOND: Status = Status::LBA_OUT_OF_RANGE;

impl DiskChannel for MemoryChannel {
    #[inline]
    fn read_in_place(&mut self, offset: u64, len: usize, out: &mut Vec<u8>) -> Result<(), Status> {
        self.memory.read(offset, len, out).map_err(|_| BEYOND)
    }

    #[inline]
    fn write_in_place(&mut self, offset: u64, data: &[u8], _: bool) -> Result<(), Status> {
        self.memory.write(offset, data).map_err(|_| BEYOND)
    }

    fn submit(&mut self, mut io: Io, _: &mut DiskContext<'_>) -> Option<Done> {
        let result = match io.op {
            Op::Read { offset } => self
                .memory
                .read_into(offset, &mut io.data)
                .map_err(|_| BEYOND),
            Op::Write { offset, .. } => self.memory.write(offset, &io.data).map_err(|_| BEYOND),
            Op::Compare { offset } => match self.memory.compare(offset, &io.data) {
                Ok(true) => Ok(()),
                Ok(false) => Err(Status::COMPARE_FAILURE.with_dnr()),
                Err(_) => Err(BEYOND),
            },
            Op::Flush => Ok(()),
            Op::Zero { range, .. } if range.len > STEP => {
                self.zeroing.push_back(io);
                return None;
            }
            Op::Deallocate { ref ranges } if ranges.iter().map(|r| r.len).sum::<u64>() > STEP => {
                self.zeroing.push_back(io);
                return None;
            }
            Op::Zero { .. } | Op::Deallocate { .. } => loop {
                if let Some(result) = self.zero(&mut io.op) {
                    break result;
                }
            },
        };
        Some(io.done(result))
    }

    fn poll(&mut self, done: &mut Vec<Done>, _: &mut DiskContext<'_>) {
        let Some(mut io) = self.zeroing.pop_front() else {
            return;
        };
        match self.zero(&mut io.op) {
            Some(result) => done.push(io.done(result)),
            None => self.zeroing.push_back(io),
        }
    }

    fn deadline(&self) -> Option<Time> {
        (!self.zeroing.is_empty()).then_some(Time::ZERO)
    }

    fn cancel(&mut self, id: IoId) -> Option<Done> {
        let at = self.zeroing.iter().position(|io| io.id() == id)?;
        Some(
            self.zeroing
                .remove(at)?
                .done(Err(Status::ABORTED_BY_REQUEST)),
        )
    }
}

/// 64-bit words that are loaded and stored as relaxed atomics are: overlapping accesses that run at the same time may
/// mix old and new data, as on any disk. Pages are taken when they are first written, and given back when they are
/// deallocated. All offsets and lengths are multiples of 512 bytes.
#[derive(Debug)]
struct Memory {
    /// One, and one more for each time that it grew, in order of their addresses.
    first: Segment,
    words: AtomicUsize,
}

#[derive(Debug)]
struct Segment {
    /// The word at which it starts.
    start: usize,
    pages: Pages,
    next: OnceLock<Box<Segment>>,
}

impl Segment {
    fn new(start: usize, words: usize) -> io::Result<Self> {
        machine::check_memory(words as u64 * 8)?;
        Ok(Self {
            start,
            pages: Pages(Some(Mapping::new(words)?)),
            next: OnceLock::new(),
        })
    }

    /// The word behind its last one.
    #[inline]
    fn end(&self) -> usize {
        self.start + self.pages.words().len()
    }
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
                pollux_reactor::leave_core();
                drop(mapping);
            });
        }
    }
}

impl Memory {
    fn new(bytes: u64) -> io::Result<Self> {
        let words = words_of(bytes)?;
        Ok(Self {
            first: Segment::new(0, words)?,
            words: words.into(),
        })
    }

    /// Words that it has at present.
    #[inline]
    fn size(&self) -> usize {
        self.words.load(Ordering::Relaxed)
    }

    /// Gives it room for `bytes`. What lies behind that is kept, out of reach, until the whole memory goes.
    fn resize(&self, bytes: u64) -> io::Result<()> {
        let words = words_of(bytes)?;
        let mut last = &self.first;
        while let Some(next) = last.next.get() {
            last = next;
        }
        while words > last.end() {
            let new = Segment::new(last.end(), words - last.end())?;
            // Somebody else may have been quicker.
            last = last.next.get_or_init(|| Box::new(new));
        }
        self.words.store(words, Ordering::Relaxed);
        Ok(())
    }

    /// Appends `len` bytes from `offset` on to `out`.
    #[inline]
    fn read(&self, offset: u64, len: usize, out: &mut Vec<u8>) -> io::Result<()> {
        for words in self.pieces(offset, len)? {
            words::append(words, out);
        }
        Ok(())
    }

    /// Fills `out` from `offset` on.
    fn read_into(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut left = out;
        for words in self.pieces(offset, left.len())? {
            let (now, later) = left.split_at_mut(size_of_val(words));
            words::fill(words, now);
            left = later;
        }
        Ok(())
    }

    #[inline]
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut left = data;
        for words in self.pieces(offset, data.len())? {
            let (now, later) = left.split_at(size_of_val(words));
            words::store(words, now);
            left = later;
        }
        Ok(())
    }

    fn compare(&self, offset: u64, data: &[u8]) -> io::Result<bool> {
        Ok(self
            .pieces(offset, data.len())?
            .flatten()
            .zip(data.as_chunks::<8>().0)
            .all(|(word, from)| word.load(Ordering::Relaxed) == u64::from_ne_bytes(*from)))
    }

    /// Makes a range read as zeroes, and gives its whole pages back.
    fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
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

    /// The words of a byte range, segment by segment.
    ///
    /// Out of the memory is an error although callers have checked: a namespace may shrink below a queue that has not
    /// heard of it yet.
    #[inline]
    fn pieces(&self, offset: u64, len: usize) -> io::Result<Pieces<'_>> {
        let at = usize::try_from(offset / 8).unwrap_or(usize::MAX);
        let left = len / 8;
        match at.checked_add(left) {
            Some(end) if end <= self.size() => Ok(Pieces {
                segment: Some(&self.first),
                at,
                left,
            }),
            _ => Err(ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn words_of(bytes: u64) -> io::Result<usize> {
    usize::try_from(bytes / 8).map_err(|_| ErrorKind::OutOfMemory.into())
}

fn store_zeroes(mapping: &Mapping, from: usize, to: usize) {
    for word in &mapping.words()[from..to] {
        // Reading first leaves memory that was never written untouched.
        if word.load(Ordering::Relaxed) != 0 {
            word.store(0, Ordering::Relaxed);
        }
    }
}

struct Pieces<'a> {
    segment: Option<&'a Segment>,
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
        let mut segment = self.segment?;
        // Nearly always there is only one.
        while self.at >= segment.end() {
            segment = segment.next.get()?;
        }
        self.segment = Some(segment);
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
        let new = Memory::new(8192).unwrap();
        let data: Vec<u8> = (0..2048u32).map(|i| (i % 249) as u8).collect();
        new.write(8192 - 1024, &data[..1024]).unwrap();
        assert!(new.write(8192, &data).is_err());
        new.resize(1 << 20).unwrap();
        new.write(8192, &data[1024..]).unwrap();
        assert!(new.compare(8192 - 1024, &data[..1024]).unwrap());
        let mut out = Vec::new();
        new.read(8192 - 1024, 2048, &mut out).unwrap();
        assert_eq!(out, data);
        let mut filled = vec![1; 2048];
        new.read_into(8192 - 1024, &mut filled).unwrap();
        assert_eq!(filled, data);
        new.zero(8192 - 512, 1024).unwrap();
        assert!(new.compare(8192 - 512, &[0; 1024]).unwrap());
        assert!(new.compare(8192 + 512, &data[1536..]).unwrap());
        new.resize(4096).unwrap();
        assert!(new.write(4096, &[0; 512]).is_err());
        new.resize(8192).unwrap();
        assert!(new.compare(7168, &data[..512]).unwrap());
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
        let mapping = memory.first.pages.mapping().unwrap();
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
