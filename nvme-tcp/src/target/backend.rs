//! What a namespace's blocks are kept in.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use zerocopy::FromZeros;

use super::layers::{Layer, Layers, are_same};

/// Piece in which a file is compared with, or filled with, bytes from a fixed block.
const PIECE_LEN: usize = 16 * 1024;
static ZEROES: [u8; PIECE_LEN] = [0; PIECE_LEN];

/// Where the blocks of a namespace are to be kept; all lengths in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// Memory of this process, zero at first. Pages are taken when they are first written.
    Memory {
        /// Size of the namespace.
        bytes: u64,
    },
    /// Nothing: reads give zeroes, writes are dropped. For measuring everything but the medium.
    Null {
        /// Size of the namespace.
        bytes: u64,
    },
    /// A file. Reads and writes are blocking calls on the reactor that serves the queue, so a slow disk
    /// stalls the other queues of that reactor meanwhile.
    File {
        /// The file.
        path: PathBuf,
        /// Create the file if it is missing and extend it to this size. `None`: the file must exist and
        /// its size is the namespace's.
        bytes: Option<u64>,
    },
    /// Blocks that were opened before. They outlive the namespace, and several namespaces may share them.
    Disk(Disk),
}

impl Backend {
    pub(super) fn layers(&self) -> Option<&Layers> {
        match self {
            Self::Disk(disk) => disk.layers.as_ref(),
            Self::Memory { .. } | Self::Null { .. } | Self::File { .. } => None,
        }
    }
}

/// An opened [`Backend`]: keeps its blocks for as long as it, or a namespace on it, exists.
#[derive(Debug, Clone)]
pub struct Disk {
    store: Store,
    bytes: u64,
    /// What I/O goes through before it comes to the blocks.
    layers: Option<Layers>,
}

impl Disk {
    /// Opens `backend`; a file by blocking calls.
    ///
    /// # Errors
    /// There is not that much memory, or the file cannot be opened.
    pub fn open(backend: &Backend) -> io::Result<Self> {
        let (store, bytes) = Store::open(backend)?;
        Ok(Self {
            store,
            bytes,
            layers: backend.layers().cloned(),
        })
    }

    /// The same layers over these blocks.
    pub(super) fn with_store(&self, store: Store, bytes: u64) -> Self {
        Self {
            store,
            bytes,
            layers: self.layers.clone(),
        }
    }

    /// The same layers over the blocks of `other`.
    pub(super) fn with_blocks_of(&self, other: &Self) -> Self {
        self.with_store(other.store.clone(), other.bytes)
    }

    /// The same disk with one more layer on top.
    pub(super) fn under(&self, layer: Layer) -> Self {
        let below = self.layers.iter().flat_map(|layers| layers.iter());
        let layers = std::iter::once(layer).chain(below.cloned()).collect();
        Self {
            layers: Some(layers),
            ..self.clone()
        }
    }

    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// The same blocks, not merely blocks with the same content.
impl PartialEq for Disk {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
            && are_same(self.layers.as_ref(), other.layers.as_ref())
            && match (&self.store, &other.store) {
                (Store::Memory(a), Store::Memory(b)) => Arc::ptr_eq(a, b),
                (Store::Null, Store::Null) => true,
                (Store::File(a), Store::File(b)) => Arc::ptr_eq(a, b),
                _ => false,
            }
    }
}

impl Eq for Disk {}

/// Words of one chunk of memory (32 MiB).
const CHUNK_WORDS: usize = 4 * 1024 * 1024;
type Chunk = Arc<Box<[AtomicU64]>>;

/// An opened [`Backend`]; clones share the same blocks. Whoever calls has checked the range.
///
/// Memory is kept as 64-bit atomics that are loaded and stored with relaxed ordering: reactors share it
/// without locks, and overlapping accesses that run at the same time may mix old and new data, as on any
/// disk. It comes in chunks, so that a namespace can grow while others write to it. All offsets and
/// lengths are multiples of 512 bytes.
#[derive(Debug, Clone)]
pub(super) enum Store {
    Memory(Arc<[Chunk]>),
    Null,
    File(Arc<File>),
}

impl Store {
    /// Opens `backend`. Returns the store and its size in bytes.
    pub(super) fn open(backend: &Backend) -> io::Result<(Self, u64)> {
        match backend {
            Backend::Memory { bytes } => Ok((Self::Memory(chunks(*bytes, &[])?), *bytes)),
            Backend::Null { bytes } => Ok((Self::Null, *bytes)),
            Backend::File { path, bytes } => {
                let file = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .create(bytes.is_some())
                    .truncate(false)
                    .open(path)?;
                let mut len = file.metadata()?.len();
                if let Some(wanted) = *bytes
                    && len < wanted
                {
                    file.set_len(wanted)?;
                    len = wanted;
                }
                Ok((Self::File(Arc::new(file)), bytes.unwrap_or(len)))
            }
            Backend::Disk(disk) => Ok((disk.store.clone(), disk.bytes)),
        }
    }

    /// The same blocks with room for `bytes`; what is shared with the old store stays shared. What lies
    /// behind the end of a namespace that shrinks may or may not be there when it grows again.
    pub(super) fn resize(&self, bytes: u64) -> io::Result<Self> {
        match self {
            Self::Memory(old) => Ok(Self::Memory(chunks(bytes, old)?)),
            Self::Null => Ok(Self::Null),
            Self::File(file) => {
                if file.metadata()?.len() < bytes {
                    file.set_len(bytes)?;
                }
                Ok(self.clone())
            }
        }
    }

    /// Appends `len` bytes from `offset` on to `out`, which has the capacity for them.
    #[inline]
    pub(super) fn read(&self, offset: u64, len: usize, out: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Memory(chunks) => {
                for words in Pieces::new(chunks, offset, len)? {
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
            Self::Null => {
                out.resize(out.len() + len, 0);
                Ok(())
            }
            Self::File(file) => {
                let start = out.len();
                out.resize(start + len, 0);
                let result = file.read_exact_at(out.get_mut(start..).unwrap_or_default(), offset);
                if result.is_err() {
                    out.truncate(start);
                }
                result
            }
        }
    }

    /// Stores `data` from `offset` on.
    #[inline]
    pub(super) fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        match self {
            Self::Memory(chunks) => {
                let mut data = data.as_chunks::<8>().0;
                for words in Pieces::new(chunks, offset, data.len() * 8)? {
                    let (now, later) = data.split_at(words.len().min(data.len()));
                    for (word, from) in words.iter().zip(now) {
                        word.store(u64::from_ne_bytes(*from), Ordering::Relaxed);
                    }
                    data = later;
                }
                Ok(())
            }
            Self::Null => Ok(()),
            Self::File(file) => file.write_all_at(data, offset),
        }
    }

    /// Stores `len` zero bytes from `offset` on.
    pub(super) fn write_zeroes(&self, offset: u64, len: usize) -> io::Result<()> {
        match self {
            Self::Memory(chunks) => {
                for word in Pieces::new(chunks, offset, len)?.flatten() {
                    // Reading first leaves memory that was never written untouched, so it costs nothing.
                    if word.load(Ordering::Relaxed) != 0 {
                        word.store(0, Ordering::Relaxed);
                    }
                }
                Ok(())
            }
            Self::Null => Ok(()),
            Self::File(file) => {
                let mut done = 0;
                while done < len {
                    let piece = ZEROES.get(..PIECE_LEN.min(len - done)).unwrap_or_default();
                    file.write_all_at(piece, offset + done as u64)?;
                    done += piece.len();
                }
                Ok(())
            }
        }
    }

    /// True if the bytes from `offset` on are those of `data`.
    pub(super) fn compare(&self, offset: u64, data: &[u8]) -> io::Result<bool> {
        match self {
            Self::Memory(chunks) => Ok(Pieces::new(chunks, offset, data.len())?
                .flatten()
                .zip(data.as_chunks::<8>().0)
                .all(|(word, from)| word.load(Ordering::Relaxed) == u64::from_ne_bytes(*from))),
            Self::Null => Ok(data.iter().all(|&b| b == 0)),
            Self::File(file) => {
                let mut buffer = [0; PIECE_LEN];
                let mut at = offset;
                for piece in data.chunks(PIECE_LEN) {
                    let stored = buffer.get_mut(..piece.len()).unwrap_or_default();
                    file.read_exact_at(stored, at)?;
                    if stored != piece {
                        return Ok(false);
                    }
                    at += piece.len() as u64;
                }
                Ok(true)
            }
        }
    }

    /// Makes what was written survive a loss of power.
    pub(super) fn flush(&self) -> io::Result<()> {
        match self {
            Self::Memory(_) | Self::Null => Ok(()),
            Self::File(file) => file.sync_data(),
        }
    }
}

/// Chunks for `bytes`, the first of them those of `old`. Pages are taken when they are first written.
fn chunks(bytes: u64, old: &[Chunk]) -> io::Result<Arc<[Chunk]>> {
    let too_large = || io::Error::from(ErrorKind::OutOfMemory);
    let count = usize::try_from(bytes / 8)
        .map_err(|_| too_large())?
        .div_ceil(CHUNK_WORDS);
    let mut chunks = Vec::new();
    chunks.try_reserve(count).map_err(|_| too_large())?;
    chunks.extend(old.iter().take(count).cloned());
    while chunks.len() < count {
        let chunk =
            <[AtomicU64]>::new_box_zeroed_with_elems(CHUNK_WORDS).map_err(|_| too_large())?;
        chunks.push(Arc::new(chunk));
    }
    Ok(chunks.into())
}

/// The words of a byte range, chunk by chunk.
struct Pieces<'a> {
    chunks: &'a [Chunk],
    at: usize,
    left: usize,
}

impl<'a> Pieces<'a> {
    /// Out of the store is an error although callers have checked: a namespace may shrink below a queue
    /// that has not heard of it yet.
    #[inline]
    fn new(chunks: &'a [Chunk], offset: u64, len: usize) -> io::Result<Self> {
        let at = usize::try_from(offset / 8).unwrap_or(usize::MAX);
        let left = len / 8;
        match at.checked_add(left) {
            Some(end) if end <= chunks.len() * CHUNK_WORDS => Ok(Self { chunks, at, left }),
            _ => Err(ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [AtomicU64];

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let chunk = self.chunks.get(self.at / CHUNK_WORDS)?;
        let rest = chunk.get(self.at % CHUNK_WORDS..)?;
        let piece = rest.get(..self.left).unwrap_or(rest);
        self.at += piece.len();
        self.left -= piece.len();
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exercise(backend: &Backend) {
        let (store, bytes) = Store::open(backend).unwrap();
        assert_eq!(bytes, 64 * 1024);
        let data: Vec<u8> = (0..4096u32).map(|i| (i % 251) as u8).collect();
        store.write(8192, &data).unwrap();
        let mut out = Vec::new();
        store.read(8192, 4096, &mut out).unwrap();
        assert_eq!(out, data);
        assert!(store.compare(8192, &data).unwrap());
        assert!(!store.compare(8192 + 512, &data[..512]).unwrap());
        store.write_zeroes(8192 + 512, 512).unwrap();
        out.clear();
        store.read(8192, 1536, &mut out).unwrap();
        assert_eq!(out[..512], data[..512]);
        assert_eq!(out[512..1024], [0; 512]);
        assert_eq!(out[1024..], data[1024..1536]);
        let grown = store.resize(128 * 1024).unwrap();
        assert!(grown.compare(8192, &data[..512]).unwrap());
        grown.write(127 * 1024, &data[..1024]).unwrap();
        assert!(grown.compare(127 * 1024, &data[..1024]).unwrap());
        store.flush().unwrap();
    }

    #[test]
    fn a_disk_outlives_its_namespaces() {
        let disk = Disk::open(&Backend::Memory { bytes: 65536 }).unwrap();
        let backend = Backend::Disk(disk.clone());
        exercise(&backend);
        let (again, bytes) = Store::open(&backend).unwrap();
        assert_eq!((bytes, disk.bytes()), (65536, 65536));
        assert!(!again.compare(8192, &[0; 512]).unwrap());
        assert_eq!(backend, Backend::Disk(disk));
        let other = Disk::open(&Backend::Memory { bytes: 65536 }).unwrap();
        assert_ne!(backend, Backend::Disk(other));
    }

    #[test]
    fn memory_keeps_what_was_written() {
        exercise(&Backend::Memory { bytes: 65536 });
    }

    #[test]
    fn memory_is_one_across_chunks_and_growth() {
        let chunk = (CHUNK_WORDS * 8) as u64;
        let (old, _) = Store::open(&Backend::Memory { bytes: chunk }).unwrap();
        let new = old.resize(2 * chunk).unwrap();
        let data: Vec<u8> = (0..2048u32).map(|i| (i % 249) as u8).collect();
        new.write(chunk - 1024, &data).unwrap();
        assert!(old.compare(chunk - 1024, &data[..1024]).unwrap());
        let mut out = Vec::new();
        new.read(chunk - 1024, 2048, &mut out).unwrap();
        assert_eq!(out, data);
        new.write_zeroes(chunk - 512, 1024).unwrap();
        assert!(new.compare(chunk - 512, &[0; 1024]).unwrap());
        assert!(new.compare(chunk + 512, &data[1536..]).unwrap());
    }

    #[test]
    fn a_file_keeps_what_was_written() {
        let path = std::env::temp_dir().join(format!("pollux-backend-{}", std::process::id()));
        exercise(&Backend::File {
            path: path.clone(),
            bytes: Some(65536),
        });
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 128 * 1024);
        std::fs::remove_file(&path).unwrap();
        let missing = Store::open(&Backend::File { path, bytes: None });
        assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn memory_refuses_what_lies_beyond_its_end() {
        let (store, _) = Store::open(&Backend::Memory { bytes: 4096 }).unwrap();
        let end = (CHUNK_WORDS * 8) as u64;
        assert!(store.read(end, 512, &mut Vec::new()).is_err());
        assert!(store.write(u64::MAX - 511, &[0; 512]).is_err());
        assert!(store.compare(end - 512, &[0; 1024]).is_err());
    }
}
