//! Disks: what the blocks of namespaces are kept in. This is a seam; memory, null and file disks, delays and injected errors
//! are behind it, and so can disks be that are made outside this crate.
//!
//! A [`Disk`] is shared by all reactors and tells what it is: size, capabilities, failure. A reactor that serves a namespace
//! on it opens it once, and from then on talks to its own [`DiskChannel`] alone, which no other thread touches.
//!
//! # The contract
//!
//! * **Ranges are checked by the target** against the size that the disk has told last. Offsets and lengths are in bytes
//!   and multiples of the namespace's block size. A disk that has become smaller meanwhile fails what lies behind its end
//!   ([`Status::LBA_OUT_OF_RANGE`]); nobody else notices in time.
//! * **A late answer is the normal case.** [`DiskChannel::submit`] takes an [`Io`] with everything that it needs, the
//!   buffer too, and the disk owns all of it until it hands the same I/O back as a [`Done`]: from `submit` itself if it was
//!   done there and then, or from a later [`DiskChannel::poll`]. The buffer lives for as long as the disk keeps the I/O,
//!   even if the connection, the controller or the namespace that it is for has gone. A read fills the buffer that it
//!   comes with.
//! * **Everything completes exactly once.** An [`Io`] cannot be made or copied by a disk, so to hand it back is the only way
//!   to answer it, and that can be done once. A disk that never hands it back harms its own namespace only: the host's
//!   command stays open, a removal of the namespace waits (for as long as it was told to), and the log names the disk
//!   after 30 s. The same holds for one that hands back another buffer, or an I/O of another disk: what it says does not
//!   count, the command ends with an error, and the log names it.
//! * **In place** ([`Capabilities::in_place`]) is the fast case, for disks that never wait: reads go straight into what is
//!   about to be sent ([`DiskChannel::read_in_place`]), writes come straight out of what was received
//!   ([`DiskChannel::write_in_place`]), and neither has an [`Io`] or a buffer of its own. All else still comes by
//!   `submit`.
//! * **Nothing blocks.** No call may take longer than some 100 us. What takes longer is done piece by piece from `poll`, or
//!   by a thread of the disk's own that wakes the channel ([`Waker`]) when it has an answer. In a simulation there are no
//!   such threads ([`Opening::is_simulated`]), and the disk waits in place.
//! * **When a channel is polled**: in every turn of its reactor while it has an I/O, when its [`DiskChannel::deadline`] has
//!   come, and after it was woken, by its waker or its [`DiskChannel::descriptor`]. A reactor without work sleeps until one
//!   of these.
//! * **Cancelling** ([`DiskChannel::cancel`]) is a request: the disk hands the I/O back at once if nothing of it can execute
//!   any more, or leaves undone what it has not done yet and hands it back later. It is asked for when a host aborts a
//!   command and when its connection, controller or namespace goes. A removal is answered when nothing of what is removed
//!   is with a disk any more, so an I/O may only be handed back when nothing of it can execute any more.
//! * **Order**: none between I/Os that are open at the same time. A flush makes durable what was handed back before it was
//!   submitted.
//! * **Size and failure** may change at any time. The disk then wakes its channels; the target asks again, tells the hosts,
//!   and a removed disk's channels are dropped with their last I/O. A disk that changes while nobody uses it, too, tells
//!   [`DiskChange`].
//! * **A disk that is reached by paths** may have an ANA state ([`Disk::ana_state`]), which the state of its namespace's ANA
//!   group follows. It then has nothing wait for a path: an I/O without one ends with the status of that state, so that the
//!   host in front, which is told of the state, goes another way.

mod backend;
mod change;
#[cfg(feature = "rpc")]
mod delay;
#[cfg(feature = "rpc")]
mod error;
mod file;
mod io;
mod machine;
mod memory;
mod null;
#[cfg(feature = "rpc")]
mod stacked;
mod sys;
mod waker;
mod words;

use std::fmt;
use std::io::{Error, ErrorKind, Result as IoResult};
use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Weak};

use pollux_reactor::{Rng, Time};
use uuid::Uuid;

pub use self::backend::{Backend, FileEngine};
pub use self::change::DiskChange;
pub use self::io::{Buffer, Done, Io, IoId, Op, Range};
pub(in crate::target) use self::io::{PAGE_LEN, Page};
pub(in crate::target) use self::waker::Doorbell;
pub use self::waker::{Opening, Waker};

pub(super) use self::io::IoName;
#[cfg(feature = "rpc")]
pub(super) use self::{
    delay::{Latencies, Latency},
    error::{Corruption, Faults, Injection, IoKind},
    stacked::Stacked,
};

use crate::spec::log::AnaState;
use crate::spec::status::Status;

/// What a disk can do. It does not change while the disk exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Capabilities {
    /// Reads and writes are done in place: they never wait for anything.
    pub in_place: bool,
    /// Every read gives zeroes, so that nobody need ask. Only together with `in_place`.
    pub reads_zeroes: bool,
    /// Blocks that were deallocated read as zeroes, and zeroing can deallocate.
    pub deallocates_to_zeroes: bool,
    /// The smallest aligned piece whose space is given back, in bytes; `None` if it does not matter.
    pub granularity: Option<u32>,
}

/// What blocks are kept in. See the [module](self) for the contract.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// What the log calls it.
    fn name(&self) -> String;

    /// Size in bytes, as of now.
    fn bytes(&self) -> u64;

    /// Size of what it keeps its blocks in, in bytes: a file may have grown, and the disk with it if it is told to.
    ///
    /// # Errors
    /// That cannot be found out.
    fn medium_bytes(&self) -> IoResult<u64> {
        Ok(self.bytes())
    }

    /// What it can do.
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    /// Identity of the blocks: the UUID of a namespace on it that was given none. `None`: one that follows from subsystem
    /// and NSID.
    fn uuid(&self) -> Option<Uuid> {
        None
    }

    /// Opens it for one reactor.
    fn open(&self, opening: Opening) -> Box<dyn DiskChannel>;

    /// Makes it this large, in bytes. What lies behind the end of a disk that shrinks may or may not be there when it
    /// grows again.
    ///
    /// # Errors
    /// It cannot have that size; it is as it was.
    fn resize(&self, bytes: u64) -> IoResult<()> {
        if bytes == self.bytes() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unsupported,
            "its size is not to be changed",
        ))
    }

    /// Why its writes and flushes fail for good, if they do: a flush failed, so that what was written before may be lost.
    fn failure(&self) -> Option<Error> {
        None
    }

    /// Errors of the medium since it was opened.
    fn errors(&self) -> u64 {
        0
    }

    /// The best ANA state among the ways to its blocks. Through each listener the ANA group of a namespace on it is in this
    /// state, or in the one that the group was set to if that is the worse ([`AnaState::worse`]); the namespace has that group
    /// for itself. `None`: it has none, and never will; the group is as it was set.
    fn ana_state(&self) -> Option<AnaState> {
        None
    }

    /// There is a namespace on it: `change` is to be told from now on when its size, its failure or its ANA state is another
    /// than before, whether it is open anywhere or not. A disk that only changes where it is open need not take it.
    fn watch(&self, change: DiskChange) {
        let _ = change;
    }
}

/// A disk as one reactor uses it. See the [module](self) for the contract.
pub trait DiskChannel: fmt::Debug + Send {
    /// Appends `len` bytes from `offset` on to `out`, which has the capacity for them. Only called where
    /// [`Capabilities::in_place`] says so.
    ///
    /// # Errors
    /// The status that the command ends with; what was appended does not count.
    fn read_in_place(&mut self, offset: u64, len: usize, out: &mut Vec<u8>) -> Result<(), Status> {
        let _ = (offset, len, out);
        Err(Status::INTERNAL_ERROR)
    }

    /// Stores `data` from `offset` on. `fua`: so that it survives a loss of power. Only called where
    /// [`Capabilities::in_place`] says so.
    ///
    /// # Errors
    /// The status that the command ends with.
    fn write_in_place(&mut self, offset: u64, data: &[u8], fua: bool) -> Result<(), Status> {
        let _ = (offset, data, fua);
        Err(Status::INTERNAL_ERROR)
    }

    /// Takes an I/O; hands it back if it is done already.
    fn submit(&mut self, io: Io, cx: &mut DiskContext<'_>) -> Option<Done>;

    /// Goes on, and puts what is done into `done`.
    fn poll(&mut self, done: &mut Vec<Done>, cx: &mut DiskContext<'_>);

    /// When it is to be polled even if nothing wakes it.
    fn deadline(&self) -> Option<Time> {
        None
    }

    /// A descriptor that becomes readable when there is something for [`poll`](Self::poll): its reactor watches it, also
    /// while it sleeps, so that no thread of the disk has to call the [`Waker`]. Asked for once, after
    /// [`Disk::open`].
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Nobody waits any more for the I/O of this name. Hands it back if nothing of it can execute any more, or will:
    /// with its result if it was carried out, or as [`Status::ABORTED_BY_REQUEST`]. Otherwise it is handed back later.
    fn cancel(&mut self, id: IoId) -> Option<Done> {
        let _ = id;
        None
    }
}

/// What a channel may use during one call.
#[derive(Debug)]
#[non_exhaustive]
pub struct DiskContext<'a> {
    /// The time.
    pub now: Time,
    /// Random numbers, the same ones in each run of a simulation.
    pub rng: &'a mut Rng,
}

/// A disk and its users: it exists for as long as a namespace, or whoever made it, has one of these. Two are equal if they
/// are the same disk, not if they have the same content.
#[derive(Debug, Clone)]
pub struct DiskRef(Arc<dyn Disk>);

impl DiskRef {
    /// A disk of one's own.
    pub fn new(disk: impl Disk) -> Self {
        Self(Arc::new(disk))
    }

    /// One that its maker keeps as well.
    pub fn shared<D: Disk>(disk: &Arc<D>) -> Self {
        let disk = Arc::clone(disk);
        Self(disk)
    }

    pub(super) fn downgrade(&self) -> WeakDisk {
        WeakDisk(Arc::downgrade(&self.0))
    }

    /// Opens `backend`; a file by blocking calls.
    ///
    /// # Errors
    /// There is not that much memory, or the file cannot be opened.
    pub fn open(backend: &Backend) -> IoResult<Self> {
        backend.open()
    }
}

/// A disk that may be gone.
#[derive(Debug, Clone)]
pub(super) struct WeakDisk(Weak<dyn Disk>);

impl WeakDisk {
    pub(super) fn get(&self) -> Option<DiskRef> {
        self.0.upgrade().map(DiskRef)
    }
}

impl Deref for DiskRef {
    type Target = dyn Disk;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl PartialEq for DiskRef {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::addr_eq(Arc::as_ptr(&self.0), Arc::as_ptr(&other.0))
    }
}

impl Eq for DiskRef {}

#[cfg(test)]
mod tests;
