//! What a namespace's blocks are kept in.
//!
//! A [`Store`] is shared by all reactors. Short operations on it are done in place, in the turn of whoever asks: reads,
//! writes, compares, and zeroing of a little memory. What can take longer (see [`Store::is_short`]) is handed to the disk's
//! own thread as a [`Job`]; no turn of a reactor waits for it. [`Store::unanswered`] tells how many of those are not done.

mod file;
mod helper;
mod lock;
mod machine;
mod memory;
mod sys;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use self::file::FileDisk;
use self::memory::Memory;
use super::layers::{Layer, Layers, are_same};
use crate::spec::status::Status;

pub(super) use self::helper::{Asker, Job, Range, Task};
pub(super) use self::sys::note_cores;

/// Memory up to this size is zeroed in place: that takes a fraction of a millisecond.
const SHORT_MAX: u64 = 1 << 20;

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
    /// A file or a block device. Reads and writes are blocking calls on the reactor that serves the queue, so a
    /// slow disk stalls the other queues of that reactor meanwhile; flushes, zeroing and deallocation are not.
    File {
        /// The file or device.
        path: PathBuf,
        /// Create the file if it is missing and extend it to this size. `None`: the file must exist and
        /// its size is the namespace's. A device must have that size at least.
        bytes: Option<u64>,
        /// Others may have it open that say the same. Without it the file is locked, and nobody else can use it.
        shared: bool,
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

    /// These blocks without layers.
    pub(super) fn of_store(store: Store, bytes: u64) -> Self {
        Self {
            store,
            bytes,
            layers: None,
        }
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

    /// Why its writes and flushes fail for good, if they do: a flush failed, so that what was written before may be
    /// lost.
    pub fn failure(&self) -> Option<io::Error> {
        self.store.failure()
    }

    /// Errors of its file or device since it was opened.
    pub fn errors(&self) -> u64 {
        self.store.errors()
    }

    /// The same file at the size that it has now, in whole blocks of `block_size` bytes.
    pub(super) fn rescanned(&self, block_size: u32) -> io::Result<Self> {
        let bytes = match &self.store {
            Store::File(file) => file.size()?,
            Store::Memory(_) | Store::Null => self.bytes,
        };
        let bytes = bytes - bytes % u64::from(block_size);
        Ok(self.with_store(self.store.clone(), bytes))
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

/// An opened [`Backend`]; clones share the same blocks. Whoever calls has checked the range.
#[derive(Debug, Clone)]
pub(super) enum Store {
    Memory(Arc<Memory>),
    Null,
    File(Arc<FileDisk>),
}

impl Store {
    /// Opens `backend`. Returns the store and its size in bytes.
    pub(super) fn open(backend: &Backend) -> io::Result<(Self, u64)> {
        match backend {
            Backend::Memory { bytes } => Ok((Self::Memory(Arc::new(Memory::new(*bytes)?)), *bytes)),
            Backend::Null { bytes } => Ok((Self::Null, *bytes)),
            Backend::File {
                path,
                bytes,
                shared,
            } => {
                let (file, bytes) = FileDisk::open(path, *bytes, *shared)?;
                Ok((Self::File(Arc::new(file)), bytes))
            }
            Backend::Disk(disk) => Ok((disk.store.clone(), disk.bytes)),
        }
    }

    /// The same blocks with room for `bytes`; what is shared with the old store stays shared. What lies
    /// behind the end of a namespace that shrinks may or may not be there when it grows again.
    pub(super) fn resize(&self, bytes: u64) -> io::Result<Self> {
        match self {
            Self::Memory(old) => Ok(Self::Memory(Arc::new(old.resized(bytes)?))),
            Self::Null => Ok(Self::Null),
            Self::File(file) => {
                file.grow(bytes)?;
                Ok(self.clone())
            }
        }
    }

    /// Appends `len` bytes from `offset` on to `out`, which has the capacity for them.
    #[inline]
    pub(super) fn read(&self, offset: u64, len: usize, out: &mut Vec<u8>) -> Result<(), Status> {
        match self {
            Self::Memory(memory) => memory.read(offset, len, out).map_err(unreadable),
            Self::Null => {
                out.resize(out.len() + len, 0);
                Ok(())
            }
            Self::File(file) => file.read(offset, len, out),
        }
    }

    /// Stores `data` from `offset` on.
    #[inline]
    pub(super) fn write(&self, offset: u64, data: &[u8]) -> Result<(), Status> {
        match self {
            Self::Memory(memory) => memory.write(offset, data).map_err(unwritable),
            Self::Null => Ok(()),
            Self::File(file) => file.write(offset, data),
        }
    }

    /// True if the bytes from `offset` on are those of `data`.
    pub(super) fn compare(&self, offset: u64, data: &[u8]) -> Result<bool, Status> {
        match self {
            Self::Memory(memory) => memory.compare(offset, data).map_err(unreadable),
            Self::Null => Ok(data.iter().all(|&b| b == 0)),
            Self::File(file) => file.compare(offset, data),
        }
    }

    /// Makes a range read as zeroes. `deallocate`: gives its space back if that is possible.
    fn zero(&self, offset: u64, len: u64, deallocate: bool) -> Result<(), Status> {
        match self {
            Self::Memory(memory) => memory.zero(offset, len).map_err(unwritable),
            Self::Null => Ok(()),
            Self::File(file) => file.zero(offset, len, deallocate),
        }
    }

    /// Gives the space of a range back where that can be done.
    fn deallocate(&self, offset: u64, len: u64) -> Result<(), Status> {
        match self {
            Self::File(file) => file.deallocate(offset, len),
            Self::Memory(_) | Self::Null => self.zero(offset, len, true),
        }
    }

    /// Makes what was written survive a loss of power.
    fn sync(&self) -> Result<(), Status> {
        match self {
            Self::Memory(_) | Self::Null => Ok(()),
            Self::File(file) => file.sync(),
        }
    }

    /// Whether the task is done in less than a millisecond, so that it may be done in place.
    pub(super) fn is_short(&self, task: &Task) -> bool {
        match (self, task) {
            (Self::Null, _) | (Self::Memory(_), Task::Sync) => true,
            (Self::File(_), Task::Sync) => false,
            (_, Task::Zero { ranges, .. } | Task::Deallocate { ranges }) => {
                let bytes: u64 = ranges.iter().map(|range| range.len).sum();
                bytes == 0 || (bytes <= SHORT_MAX && matches!(self, Self::Memory(_)))
            }
        }
    }

    /// Has a job done by the thread of its disk.
    pub(super) fn submit(job: Job) {
        let store = job.store.clone();
        match &store {
            Self::Memory(memory) => memory.helper.submit(job),
            Self::File(file) => file.helper.submit(job),
            Self::Null => {}
        }
    }

    /// Jobs of this disk that are not done, whoever asked for them. What was cancelled may still be on its way; at 0
    /// nothing of it can execute any more.
    pub(super) fn unanswered(&self) -> usize {
        match self {
            Self::Memory(memory) => memory.helper.unanswered(),
            Self::File(file) => file.helper.unanswered(),
            Self::Null => 0,
        }
    }

    /// Why its writes and flushes fail for good, if they do: what was written before was lost.
    pub(super) fn failure(&self) -> Option<io::Error> {
        match self {
            Self::File(file) => file.failure(),
            Self::Memory(_) | Self::Null => None,
        }
    }

    /// Errors of the file or device since it was opened.
    pub(super) fn errors(&self) -> u64 {
        match self {
            Self::File(file) => file.errors(),
            Self::Memory(_) | Self::Null => 0,
        }
    }

    /// Whether blocks that were deallocated read as zeroes.
    pub(super) fn deallocates_to_zeroes(&self) -> bool {
        match self {
            Self::Memory(_) | Self::Null => true,
            Self::File(file) => file.punches(),
        }
    }

    /// The smallest aligned piece whose space is given back, in bytes; `None` if it does not matter.
    pub(super) fn granularity(&self) -> Option<u32> {
        match self {
            Self::Memory(_) => Some(Memory::GRANULARITY),
            Self::File(file) => Some(file.granularity()),
            Self::Null => None,
        }
    }
}

fn unreadable(_: io::Error) -> Status {
    Status::UNRECOVERED_READ_ERROR
}

fn unwritable(_: io::Error) -> Status {
    Status::WRITE_FAULT
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

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
        store.zero(8192 + 512, 512, false).unwrap();
        out.clear();
        store.read(8192, 1536, &mut out).unwrap();
        assert_eq!(out[..512], data[..512]);
        assert_eq!(out[512..1024], [0; 512]);
        assert_eq!(out[1024..], data[1024..1536]);
        let grown = store.resize(128 * 1024).unwrap();
        assert!(grown.compare(8192, &data[..512]).unwrap());
        grown.write(127 * 1024, &data[..1024]).unwrap();
        assert!(grown.compare(127 * 1024, &data[..1024]).unwrap());
        store.sync().unwrap();
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
    fn a_file_keeps_what_was_written() {
        let path = std::env::temp_dir().join(format!("pollux-backend-{}", std::process::id()));
        exercise(&Backend::File {
            path: path.clone(),
            bytes: Some(65536),
            shared: false,
        });
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 128 * 1024);
        std::fs::remove_file(&path).unwrap();
        let missing = Store::open(&Backend::File {
            path,
            bytes: None,
            shared: false,
        });
        assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
    }
}
