//! Named disks (`bdev_malloc_*`, `bdev_null_*`, `bdev_aio_*`, `bdev_uring_*`), which namespaces are made of.

pub(super) mod resize;
pub(super) mod stacked;

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pollux_reactor::rpc::{Answer, Call, MethodResult, Params, Phase, RpcError};
use serde_json::Value;
use uuid::Uuid;

use super::namespaces::take_uuid;
use super::{Module, State, forward_removal, take_limit};
use crate::rate_limit::RateLimits;
use crate::spec::nqn::Nqn;
use crate::target::control::request::TargetRequest;
use crate::target::disk::{Backend, DiskRef, Faults, FileEngine, Latencies};

/// The methods of this room.
pub(in crate::target::rpc) fn methods(module: Module<'_>) -> Module<'_> {
    module
        .method("bdev_aio_create", Phase::Runtime, aio_create)
        .method("bdev_aio_delete", Phase::Runtime, aio_delete)
        .method("bdev_malloc_create", Phase::Runtime, malloc_create)
        .method("bdev_malloc_delete", Phase::Runtime, malloc_delete)
        .method("bdev_null_create", Phase::Runtime, null_create)
        .method("bdev_null_delete", Phase::Runtime, null_delete)
        .method("bdev_uring_create", Phase::Runtime, uring_create)
        .method("bdev_uring_delete", Phase::Runtime, uring_delete)
}

const EPERM: i32 = 1;
const ENOMEM: i32 = 12;
pub(super) const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
pub(super) const ENODEV: i32 = 19;
pub(super) const EINVAL: i32 = 22;
const EOPNOTSUPP: i32 = 95;

/// Notifications kept.
const NOTIFICATIONS_MAX: usize = 4096;

/// What a disk is made of.
#[derive(Debug)]
pub(super) enum Kind {
    Malloc,
    Null,
    /// A file with whichever engine there is.
    Aio {
        path: PathBuf,
        /// Others may use it that say the same.
        shared: bool,
    },
    /// A file with `io_uring`.
    Uring {
        path: PathBuf,
        shared: bool,
    },
    /// Another disk, but later.
    Delay {
        base: String,
        latencies: Arc<Latencies>,
    },
    /// Somebody else has it, who lists and saves it; it is here while a namespace is made of it.
    Foreign,
    /// Another disk, with errors.
    Error {
        base: String,
        faults: Arc<Faults>,
    },
}

impl Kind {
    pub(super) fn product(&self) -> &'static str {
        match self {
            Kind::Malloc => "Malloc disk",
            Kind::Null => "Null disk",
            Kind::Aio { .. } => "AIO disk",
            Kind::Uring { .. } => "URING bdev",
            Kind::Delay { .. } => "delay",
            Kind::Foreign => "disk of another module",
            Kind::Error { .. } => "Error Injection Disk",
        }
    }
}

/// Who uses a disk.
#[derive(Debug, Clone)]
pub(super) struct User {
    pub(super) disk: String,
    pub(super) nqn: Nqn,
    /// `None`: the namespace is being made.
    pub(super) nsid: Option<u32>,
}

#[derive(Debug)]
pub(super) struct NamedDisk {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) disk: DiskRef,
    pub(super) block_size: u32,
    pub(super) uuid: Uuid,
    pub(super) user: Option<User>,
    /// The disk that lies on this one. It and a user exclude each other.
    pub(super) over: Option<String>,
    /// What hosts may do with it. None of what lies under another disk.
    pub(super) limits: RateLimits,
}

impl NamedDisk {
    pub(super) fn backend(&self) -> Backend {
        Backend::Disk(self.disk.clone())
    }

    pub(super) fn blocks(&self) -> u64 {
        self.disk.bytes() / u64::from(self.block_size)
    }
}

/// All disks, in the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct Disks {
    pub(super) list: Vec<NamedDisk>,
    /// What happened to disks, with the number of each.
    pub(super) notifications: VecDeque<(u64, &'static str, String)>,
    notified: u64,
}

impl Disks {
    pub(super) fn find(&mut self, name: &str) -> Result<&mut NamedDisk, RpcError> {
        let found = self.list.iter_mut().find(|d| d.name == name);
        found.ok_or_else(|| RpcError::errno(ENODEV))
    }

    /// The disks that are listed, saved and counted here: those that nobody else has.
    pub(super) fn own(&self) -> impl Iterator<Item = &NamedDisk> {
        let is_own = |disk: &&NamedDisk| !matches!(disk.kind, Kind::Foreign);
        self.list.iter().filter(is_own)
    }

    pub(super) fn find_own(&self, name: &str) -> Result<&NamedDisk, RpcError> {
        let found = self.own().find(|disk| disk.name == name);
        found.ok_or_else(|| RpcError::errno(ENODEV))
    }

    pub(super) fn notify(&mut self, kind: &'static str, name: &str) {
        if self.notifications.len() == NOTIFICATIONS_MAX {
            self.notifications.pop_front();
        }
        self.notifications
            .push_back((self.notified, kind, name.to_owned()));
        self.notified += 1;
    }

    /// Takes a disk for a namespace that is being made.
    pub(super) fn claim(&mut self, name: &str, nqn: &Nqn) -> Result<&NamedDisk, RpcError> {
        let disk = self.find_free(name)?;
        disk.user = Some(User {
            disk: name.to_owned(),
            nqn: nqn.clone(),
            nsid: None,
        });
        Ok(disk)
    }

    /// A disk that nobody uses.
    pub(super) fn find_free(&mut self, name: &str) -> Result<&mut NamedDisk, RpcError> {
        let disk = self.find(name)?;
        let text = match (&disk.user, &disk.over) {
            (None, None) => return Ok(disk),
            (Some(user), _) => format!("bdev '{name}' is used by subsystem '{}'", user.nqn),
            (None, Some(over)) => format!("bdev '{name}' is used by bdev '{over}'"),
        };
        Err(RpcError::errno_of(EPERM, text))
    }

    /// The namespace of a claim was made.
    pub(super) fn confirm(&mut self, name: &str, nsid: u32) {
        if let Ok(disk) = self.find(name)
            && let Some(user) = &mut disk.user
        {
            user.nsid = Some(nsid);
        }
    }

    /// Gives the disks back whose user is one of those.
    pub(super) fn release(&mut self, of: impl Fn(&User) -> bool) {
        for disk in &mut self.list {
            disk.user.take_if(|user| of(user));
        }
        let is_left = |disk: &NamedDisk| disk.user.is_some() || disk.over.is_some();
        self.list
            .retain(|disk| !matches!(disk.kind, Kind::Foreign) || is_left(disk));
    }

    /// Name of the disk that a namespace is made of.
    pub(super) fn used_by(&self, nqn: &Nqn, nsid: u32) -> Option<&str> {
        let is_user = |u: &User| u.nqn == *nqn && u.nsid == Some(nsid);
        let disk = self
            .list
            .iter()
            .find(|d| d.user.as_ref().is_some_and(is_user));
        disk.map(|d| d.name.as_str())
    }

    /// Adds a disk that is open and that nobody uses yet; without a UUID it gets the one that follows from its name.
    pub(super) fn add(
        &mut self,
        name: String,
        kind: Kind,
        disk: DiskRef,
        block_size: u32,
        uuid: Option<Uuid>,
    ) -> MethodResult {
        self.notify("bdev_register", &name);
        self.list.push(NamedDisk {
            uuid: uuid.unwrap_or_else(|| default_uuid(&kind, &name)),
            name: name.clone(),
            kind,
            disk,
            block_size,
            user: None,
            over: None,
            limits: RateLimits::default(),
        });
        Ok(Answer::Now(name.into()))
    }

    pub(super) fn check_new(&self, name: &str) -> Result<(), RpcError> {
        if name.is_empty() {
            return Err(RpcError::errno_of(EINVAL, "the name is empty"));
        }
        if self.list.iter().any(|d| d.name == name) {
            return Err(RpcError::errno_of(EEXIST, format!("bdev '{name}'")));
        }
        Ok(())
    }

    /// Removes a disk that nobody uses, and frees the one that it lies on.
    fn remove(&mut self, name: &str) -> Result<Option<NamedDisk>, RpcError> {
        let Some(index) = self.list.iter().position(|d| d.name == name) else {
            return Ok(None);
        };
        self.check_nothing_over(name)?;
        let disk = self.list.remove(index);
        for base in &mut self.list {
            base.over.take_if(|over| over == name);
        }
        self.notify("bdev_unregister", name);
        Ok(Some(disk))
    }

    /// A disk can only go before what lies on it if that goes first.
    fn check_nothing_over(&mut self, name: &str) -> Result<(), RpcError> {
        match &self.find(name)?.over {
            None => Ok(()),
            Some(over) => {
                let text = format!("bdev '{name}' is used by bdev '{over}'");
                Err(RpcError::errno_of(EBUSY, text))
            }
        }
    }
}

/// Size in bytes of so many blocks.
fn size(blocks: u64, block_size: u32) -> Result<u64, RpcError> {
    if !block_size.is_power_of_two() || !(512..=65536).contains(&block_size) {
        let text = format!("block_size {block_size}, a power of two from 512 to 65536 is allowed");
        return Err(RpcError::errno_of(EINVAL, text));
    }
    let bytes = blocks.checked_mul(block_size.into());
    bytes.filter(|&bytes| bytes > 0).ok_or_else(|| {
        let text = format!("num_blocks {blocks}, from 1 up to 2^64 bytes is allowed");
        RpcError::errno_of(EINVAL, text)
    })
}

fn open(backend: &Backend) -> Result<DiskRef, RpcError> {
    DiskRef::open(backend).map_err(|error| {
        let number = match error.kind() {
            ErrorKind::ResourceBusy => EBUSY,
            ErrorKind::InvalidInput => EINVAL,
            ErrorKind::Unsupported => EOPNOTSUPP,
            _ => ENOMEM,
        };
        RpcError::new(
            -error.raw_os_error().unwrap_or(number),
            match backend {
                Backend::File { path, .. } => format!("{}: {error}", path.display()),
                _ => error.to_string(),
            },
        )
    })
}

/// A host takes a disk that comes back for the same only if its UUID is the same. That of a file or a null disk
/// follows from its name, so that it outlives a restart; memory does not outlive one.
pub(super) fn default_uuid(kind: &Kind, name: &str) -> Uuid {
    if matches!(kind, Kind::Malloc) {
        return Uuid::new_v4();
    }
    uuid_of(kind.product().bytes().chain(name.bytes()))
}

/// The UUID that follows from these bytes.
pub(super) fn uuid_of(bytes: impl Iterator<Item = u8>) -> Uuid {
    // FNV-1a of 128 bits.
    const OFFSET_BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = (1 << 88) + 0x13b;
    let hash = bytes.fold(OFFSET_BASIS, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(PRIME)
    });
    uuid::Builder::from_custom_bytes(hash.to_be_bytes()).into_uuid()
}

/// Metadata and protection information, which there is none of.
fn no_metadata(params: &mut Params) -> Result<(), RpcError> {
    for name in ["md_size", "dif_type", "dif_pi_format"] {
        if params
            .optional::<u32>(name)?
            .is_some_and(|value| value != 0)
        {
            return Err(params.invalid(name, "only 0 is supported"));
        }
    }
    params.off(&["md_interleave", "dif_is_head_of_md"])
}

/// Hints on how a disk likes to be used, which these disks do not care about.
const HINTS: [&str; 7] = [
    "optimal_io_boundary",
    "physical_block_size",
    "preferred_write_granularity",
    "preferred_write_alignment",
    "optimal_write_size",
    "preferred_unmap_granularity",
    "preferred_unmap_alignment",
];

fn malloc_create(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let params = &mut call.params;
    let name: Option<String> = params.optional("name")?;
    let (block_size, blocks) = (
        params.required("block_size")?,
        params.required("num_blocks")?,
    );
    let uuid = take_uuid(params)?;
    no_metadata(params)?;
    params.unused::<u32>(&HINTS)?;
    params.unused::<i32>(&["numa_id"])?;
    params.finish()?;
    let disks = &mut state.disks;
    let name = name.unwrap_or_else(|| {
        let free = (0..).map(|n: u32| format!("Malloc{n}"));
        let mut free = free.filter(|name| disks.check_new(name).is_ok());
        free.next().unwrap_or_default()
    });
    disks.check_new(&name)?;
    let bytes = size(blocks, block_size)?;
    let disk = open(&Backend::Memory { bytes })?;
    disks.add(name, Kind::Malloc, disk, block_size, uuid)
}

fn null_create(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let params = &mut call.params;
    let name: String = params.required("name")?;
    let (block_size, blocks) = (
        params.required("block_size")?,
        params.required("num_blocks")?,
    );
    let uuid = take_uuid(params)?;
    no_metadata(params)?;
    params.unused::<u32>(&HINTS)?;
    params.finish()?;
    state.disks.check_new(&name)?;
    let bytes = size(blocks, block_size)?;
    let disk = open(&Backend::Null { bytes })?;
    state.disks.add(name, Kind::Null, disk, block_size, uuid)
}

/// Opens a file or device for as many whole blocks as it holds.
fn open_file(
    path: &Path,
    block_size: u32,
    shared: bool,
    engine: FileEngine,
) -> Result<DiskRef, RpcError> {
    size(1, block_size)?;
    let disk = open(&Backend::File {
        path: path.to_owned(),
        bytes: None,
        shared,
        engine,
    })?;
    let bytes = whole_blocks(&disk, block_size)?;
    disk.resize(bytes)
        .map_err(|error| RpcError::errno_of(EINVAL, error))?;
    Ok(disk)
}

/// Bytes of the whole blocks that the medium of a disk has now.
pub(super) fn whole_blocks(disk: &DiskRef, block_size: u32) -> Result<u64, RpcError> {
    let bytes = disk.medium_bytes().map_err(|error| {
        let number = error.raw_os_error().unwrap_or(EINVAL);
        RpcError::errno_of(number, error)
    })?;
    size(bytes / u64::from(block_size), block_size)
}

fn aio_create(state: &mut State, call: &mut Call<State>) -> MethodResult {
    call.params.off(&["readonly", "fallocate", "nowait"])?;
    create_file(state, call, FileEngine::Auto, |path, shared| Kind::Aio {
        path,
        shared,
    })
}

fn uring_create(state: &mut State, call: &mut Call<State>) -> MethodResult {
    create_file(state, call, FileEngine::Uring, |path, shared| Kind::Uring {
        path,
        shared,
    })
}

fn create_file(
    state: &mut State,
    call: &mut Call<State>,
    engine: FileEngine,
    kind: impl FnOnce(PathBuf, bool) -> Kind,
) -> MethodResult {
    let params = &mut call.params;
    let name: String = params.required("name")?;
    let path = params.file("filename")?;
    let block_size = params.optional("block_size")?.filter(|&size| size != 0);
    let uuid = take_uuid(params)?;
    let shared = params.optional("shared")?.unwrap_or(false);
    params.finish()?;
    state.disks.check_new(&name)?;
    let block_size = block_size.unwrap_or(512);
    let disk = open_file(&path, block_size, shared, engine)?;
    let kind = kind(path, shared);
    state.disks.add(name, kind, disk, block_size, uuid)
}

pub(super) fn of_kind<'a>(
    state: &'a mut State,
    name: &str,
    is_kind: fn(&Kind) -> bool,
) -> Result<&'a NamedDisk, RpcError> {
    let disk = state.disks.find(name)?;
    if is_kind(&disk.kind) {
        return Ok(disk);
    }
    let text = format!("bdev '{name}' is a {}", disk.kind.product());
    Err(RpcError::errno_of(ENODEV, text))
}

/// Removes a disk; a namespace that is made of it goes first.
pub(super) fn delete(
    state: &mut State,
    call: &mut Call<State>,
    is_kind: fn(&Kind) -> bool,
) -> MethodResult {
    let name: String = call.params.required("name")?;
    let limit = take_limit(&mut call.params)?;
    call.params.finish()?;
    of_kind(state, &name, is_kind)?;
    state.disks.check_nothing_over(&name)?;
    let (nqn, nsid) = match &state.disks.find(&name)?.user {
        None => return remove(state, &name).map(Answer::Now),
        Some(User { nsid: None, .. }) => return Err(RpcError::errno(EBUSY)),
        Some(User {
            nqn,
            nsid: Some(nsid),
            ..
        }) => (nqn.clone(), *nsid),
    };
    let request = TargetRequest::remove_namespace(nqn, nsid);
    // The namespace is gone afterwards, whoever removed it.
    let gone = move |state: &mut State, _| remove(state, &name);
    forward_removal(state, call, (request, limit), gone)
}

fn remove(state: &mut State, name: &str) -> Result<Value, RpcError> {
    if let Some(NamedDisk {
        kind: Kind::Error { faults, .. },
        ..
    }) = state.disks.remove(name)?
    {
        // Nobody could let go on any more what it holds.
        stacked::let_go_on(state, &faults, |_| ());
    }
    Ok(true.into())
}

fn malloc_delete(state: &mut State, call: &mut Call<State>) -> MethodResult {
    delete(state, call, |kind| matches!(kind, Kind::Malloc))
}

fn null_delete(state: &mut State, call: &mut Call<State>) -> MethodResult {
    delete(state, call, |kind| matches!(kind, Kind::Null))
}

fn aio_delete(state: &mut State, call: &mut Call<State>) -> MethodResult {
    delete(state, call, |kind| matches!(kind, Kind::Aio { .. }))
}

fn uring_delete(state: &mut State, call: &mut Call<State>) -> MethodResult {
    delete(state, call, |kind| matches!(kind, Kind::Uring { .. }))
}
