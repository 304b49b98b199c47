//! Where the blocks of a namespace are to be kept, as it is configured.

use std::io;
use std::path::PathBuf;

use super::DiskRef;
use super::file::FileDisk;
use super::memory::MemoryDisk;
use super::null::NullDisk;

/// Where the blocks of a namespace are to be kept; all lengths in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
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
    /// A file or a block device. A slow one keeps nobody waiting but its own users.
    File {
        /// The file or device.
        path: PathBuf,
        /// Create the file if it is missing and extend it to this size. `None`: the file must exist and
        /// its size is the namespace's. A device must have that size at least.
        bytes: Option<u64>,
        /// Others may have it open that say the same. Without it the file is locked, and nobody else can use it.
        shared: bool,
        /// What reads and writes it.
        engine: FileEngine,
    },
    /// A disk that was opened before, or one that was made outside this crate. It outlives the namespace, and several
    /// namespaces may share it.
    Disk(DiskRef),
}

/// What reads and writes a file or block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum FileEngine {
    /// `io_uring` where this process can have it, else threads.
    #[default]
    Auto,
    /// `io_uring`, past the page cache where the file system allows that. Where this process cannot have it the disk is
    /// refused.
    Uring,
    /// Threads of the disk's own, through the page cache.
    Threads,
}

impl Backend {
    pub(super) fn open(&self) -> io::Result<DiskRef> {
        Ok(match self {
            Self::Memory { bytes } => DiskRef::new(MemoryDisk::new(*bytes)?),
            Self::Null { bytes } => DiskRef::new(NullDisk::new(*bytes)),
            Self::File {
                path,
                bytes,
                shared,
                engine,
            } => DiskRef::new(FileDisk::open(path, *bytes, *shared, *engine)?),
            Self::Disk(disk) => disk.clone(),
        })
    }
}
