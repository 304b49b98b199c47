//! Named disks (`bdev_malloc_*`, `bdev_null_*`, `bdev_aio_*`), which namespaces are made of.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use pollux_reactor::rpc::{Answer, Call, Outcome, Params, RpcError};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::namespaces::take_uuid;
use super::{State, forward_then};
use crate::spec::nqn::Nqn;
use crate::target::backend::{Backend, Disk};
use crate::target::request::TargetRequest;

const EPERM: i32 = 1;
const ENOMEM: i32 = 12;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
const ENODEV: i32 = 19;
const EINVAL: i32 = 22;

/// Largest disk in memory: what can be set up without anybody waiting for it.
const MEMORY_MAX: u64 = 1 << 40;

/// Notifications kept.
const NOTIFICATIONS_MAX: usize = 4096;

const MIB: u64 = 1 << 20;

/// What a disk is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Malloc,
    Null,
    Aio { path: PathBuf },
}

impl Kind {
    fn product(&self) -> &'static str {
        match self {
            Kind::Malloc => "Malloc disk",
            Kind::Null => "Null disk",
            Kind::Aio { .. } => "AIO disk",
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
    name: String,
    kind: Kind,
    disk: Disk,
    pub(super) block_size: u32,
    pub(super) uuid: Uuid,
    user: Option<User>,
}

impl NamedDisk {
    pub(super) fn backend(&self) -> Backend {
        Backend::Disk(self.disk.clone())
    }

    fn blocks(&self) -> u64 {
        self.disk.bytes() / u64::from(self.block_size)
    }
}

/// All disks, in the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct Disks {
    list: Vec<NamedDisk>,
    /// What happened to disks, with the number of each.
    notifications: VecDeque<(u64, &'static str, String)>,
    notified: u64,
}

impl Disks {
    fn find(&mut self, name: &str) -> Result<&mut NamedDisk, RpcError> {
        let found = self.list.iter_mut().find(|d| d.name == name);
        found.ok_or_else(|| RpcError::errno(ENODEV))
    }

    fn notify(&mut self, kind: &'static str, name: &str) {
        if self.notifications.len() == NOTIFICATIONS_MAX {
            self.notifications.pop_front();
        }
        self.notifications
            .push_back((self.notified, kind, name.to_owned()));
        self.notified += 1;
    }

    /// Takes a disk for a namespace that is being made.
    pub(super) fn claim(&mut self, name: &str, nqn: &Nqn) -> Result<&NamedDisk, RpcError> {
        let disk = self.find(name)?;
        if let Some(user) = &disk.user {
            let text = format!("bdev '{name}' is used by subsystem '{}'", user.nqn);
            return Err(RpcError::errno_of(EPERM, text));
        }
        disk.user = Some(User {
            disk: name.to_owned(),
            nqn: nqn.clone(),
            nsid: None,
        });
        Ok(disk)
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

    fn add(&mut self, disk: NamedDisk) -> Outcome {
        let name = disk.name.clone();
        self.notify("bdev_register", &name);
        self.list.push(disk);
        Ok(Answer::Now(name.into()))
    }

    fn check_new(&self, name: &str) -> Result<(), RpcError> {
        if name.is_empty() {
            return Err(RpcError::errno_of(EINVAL, "the name is empty"));
        }
        if self.list.iter().any(|d| d.name == name) {
            return Err(RpcError::errno_of(EEXIST, format!("bdev '{name}'")));
        }
        Ok(())
    }

    fn remove(&mut self, name: &str) {
        if let Some(index) = self.list.iter().position(|d| d.name == name) {
            self.list.remove(index);
            self.notify("bdev_unregister", name);
        }
    }

    /// The calls that make the disks again; what was in memory is empty then.
    pub(super) fn saved(&self) -> Value {
        let entry = |disk: &NamedDisk| {
            let mut params = Map::new();
            params.insert("name".into(), disk.name.as_str().into());
            let method = match &disk.kind {
                Kind::Malloc => "bdev_malloc_create",
                Kind::Null => "bdev_null_create",
                Kind::Aio { path } => {
                    let path = path.to_string_lossy().into_owned();
                    params.insert("filename".into(), path.into());
                    "bdev_aio_create"
                }
            };
            if !matches!(disk.kind, Kind::Aio { .. }) {
                params.insert("num_blocks".into(), disk.blocks().into());
            }
            params.insert("block_size".into(), disk.block_size.into());
            params.insert("uuid".into(), disk.uuid.to_string().into());
            json!({"method": method, "params": params})
        };
        self.list.iter().map(entry).collect()
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

fn open(backend: &Backend) -> Result<Disk, RpcError> {
    Disk::open(backend).map_err(|error| {
        RpcError::new(
            -error.raw_os_error().unwrap_or(ENOMEM),
            match backend {
                Backend::File { path, .. } => format!("{}: {error}", path.display()),
                _ => error.to_string(),
            },
        )
    })
}

/// A host takes a disk that comes back for the same only if its UUID is the same. That of a file or a null disk
/// follows from its name, so that it outlives a restart; memory does not outlive one.
fn default_uuid(kind: &Kind, name: &str) -> Uuid {
    // FNV-1a of 128 bits.
    const OFFSET_BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = (1 << 88) + 0x13b;
    if *kind == Kind::Malloc {
        return Uuid::new_v4();
    }
    let bytes = kind.product().bytes().chain(name.bytes());
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

pub(super) fn malloc_create(state: &mut State, call: &mut Call<State>) -> Outcome {
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
    if bytes > MEMORY_MAX {
        return Err(RpcError::errno_of(ENOMEM, "1 TiB is the most"));
    }
    let disk = open(&Backend::Memory { bytes })?;
    let kind = Kind::Malloc;
    disks.add(NamedDisk {
        uuid: uuid.unwrap_or_else(|| default_uuid(&kind, &name)),
        name,
        kind,
        disk,
        block_size,
        user: None,
    })
}

pub(super) fn null_create(state: &mut State, call: &mut Call<State>) -> Outcome {
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
    let kind = Kind::Null;
    state.disks.add(NamedDisk {
        uuid: uuid.unwrap_or_else(|| default_uuid(&kind, &name)),
        name,
        kind,
        disk,
        block_size,
        user: None,
    })
}

/// Opens a file for as many whole blocks as it holds.
fn open_file(path: &Path, block_size: u32) -> Result<Disk, RpcError> {
    // A look at it first, so that a name with a typo does not become a new file.
    let fail = |error: std::io::Error| {
        let number = error.raw_os_error().unwrap_or(EINVAL);
        RpcError::errno_of(number, path.display())
    };
    let len = std::fs::metadata(path).map_err(fail)?.len();
    let bytes = size(len / u64::from(block_size.max(1)), block_size)?;
    open(&Backend::File {
        path: path.to_owned(),
        bytes: Some(bytes),
    })
}

pub(super) fn aio_create(state: &mut State, call: &mut Call<State>) -> Outcome {
    let params = &mut call.params;
    let name: String = params.required("name")?;
    let path = PathBuf::from(params.required::<String>("filename")?);
    let block_size = params.optional("block_size")?.filter(|&size| size != 0);
    let uuid = take_uuid(params)?;
    params.off(&["readonly", "fallocate", "nowait"])?;
    params.finish()?;
    state.disks.check_new(&name)?;
    let block_size = block_size.unwrap_or(512);
    let disk = open_file(&path, block_size)?;
    let kind = Kind::Aio { path };
    state.disks.add(NamedDisk {
        uuid: uuid.unwrap_or_else(|| default_uuid(&kind, &name)),
        name,
        kind,
        disk,
        block_size,
        user: None,
    })
}

/// Puts other blocks, or other many of them, under a name, and tells the namespace that uses it.
fn resize(state: &mut State, call: &mut Call<State>, name: String, new: Disk) -> Outcome {
    let disk = state.disks.find(&name)?;
    if new.bytes() == disk.disk.bytes() {
        return Ok(Answer::Now(true.into()));
    }
    let (nqn, nsid) = match &disk.user {
        None => {
            disk.disk = new;
            state.disks.notify("bdev_resize", &name);
            return Ok(Answer::Now(true.into()));
        }
        Some(User { nsid: None, .. }) => return Err(RpcError::errno(EBUSY)),
        Some(User {
            nqn,
            nsid: Some(nsid),
            ..
        }) => (nqn.clone(), *nsid),
    };
    let bytes = new.bytes();
    let request = TargetRequest::ResizeNamespace { nqn, nsid, bytes };
    forward_then(state, call, request, move |state, answer| {
        answer?;
        state.disks.find(&name)?.disk = new;
        state.disks.notify("bdev_resize", &name);
        Ok(true.into())
    })
}

pub(super) fn null_resize(state: &mut State, call: &mut Call<State>) -> Outcome {
    let name: String = call.params.required("name")?;
    let mib: u64 = call.params.required("new_size")?;
    call.params.finish()?;
    of_kind(state, &name, |kind| *kind == Kind::Null)?;
    let bytes = mib.checked_mul(MIB).filter(|&bytes| bytes > 0);
    let bytes = bytes.ok_or_else(|| RpcError::errno_of(EINVAL, format!("new_size {mib} MiB")))?;
    let disk = open(&Backend::Null { bytes })?;
    resize(state, call, name, disk)
}

pub(super) fn aio_rescan(state: &mut State, call: &mut Call<State>) -> Outcome {
    let name: String = call.params.required("name")?;
    call.params.finish()?;
    let disk = of_kind(state, &name, |kind| matches!(kind, Kind::Aio { .. }))?;
    let Kind::Aio { path } = &disk.kind else {
        return Err(RpcError::errno(ENODEV));
    };
    let disk = open_file(path, disk.block_size)?;
    resize(state, call, name, disk)
}

fn of_kind<'a>(
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
fn delete(state: &mut State, call: &mut Call<State>, is_kind: fn(&Kind) -> bool) -> Outcome {
    let name: String = call.params.required("name")?;
    call.params.finish()?;
    let disk = of_kind(state, &name, is_kind)?;
    let (nqn, nsid) = match &disk.user {
        None => {
            state.disks.remove(&name);
            return Ok(Answer::Now(true.into()));
        }
        Some(User { nsid: None, .. }) => return Err(RpcError::errno(EBUSY)),
        Some(User {
            nqn,
            nsid: Some(nsid),
            ..
        }) => (nqn.clone(), *nsid),
    };
    let request = TargetRequest::RemoveNamespace { nqn, nsid };
    // It is gone afterwards, whoever removed it.
    forward_then(state, call, request, move |state, _| {
        state.disks.remove(&name);
        Ok(true.into())
    })
}

pub(super) fn malloc_delete(state: &mut State, call: &mut Call<State>) -> Outcome {
    delete(state, call, |kind| *kind == Kind::Malloc)
}

pub(super) fn null_delete(state: &mut State, call: &mut Call<State>) -> Outcome {
    delete(state, call, |kind| *kind == Kind::Null)
}

pub(super) fn aio_delete(state: &mut State, call: &mut Call<State>) -> Outcome {
    delete(state, call, |kind| matches!(kind, Kind::Aio { .. }))
}

pub(super) fn get_bdevs(state: &mut State, call: &mut Call<State>) -> Outcome {
    let name: Option<String> = call.params.optional("name")?;
    // There is nothing to wait for: a disk is there when its method has answered.
    call.params.unused::<u64>(&["timeout"])?;
    call.params.finish()?;
    if let Some(name) = name {
        let disk = state.disks.find(&name)?;
        return Ok(Answer::Now(vec![show(disk)].into()));
    }
    Ok(Answer::Now(state.disks.list.iter().map(show).collect()))
}

fn show(disk: &NamedDisk) -> Value {
    let specific = match &disk.kind {
        Kind::Aio { path } => json!({"aio": {"filename": path.to_string_lossy()}}),
        Kind::Malloc | Kind::Null => json!({}),
    };
    json!({
        "name": disk.name,
        "aliases": [disk.uuid.to_string()],
        "product_name": disk.kind.product(),
        "block_size": disk.block_size,
        "num_blocks": disk.blocks(),
        "uuid": disk.uuid.to_string(),
        "claimed": disk.user.is_some(),
        "zoned": false,
        "supported_io_types": {
            "read": true,
            "write": true,
            "unmap": true,
            "flush": true,
            "reset": false,
            "write_zeroes": true,
            "compare": true,
            "abort": true,
        },
        "driver_specific": specific,
    })
}

pub(super) fn wait_for_examine(_: &mut State, call: &mut Call<State>) -> Outcome {
    call.params.finish()?;
    Ok(Answer::Now(true.into()))
}

pub(super) fn notification_types(_: &mut State, call: &mut Call<State>) -> Outcome {
    call.params.finish()?;
    let types = ["bdev_register", "bdev_unregister", "bdev_resize"];
    Ok(Answer::Now(types.as_slice().into()))
}

pub(super) fn notifications(state: &mut State, call: &mut Call<State>) -> Outcome {
    let first: u64 = call.params.optional("id")?.unwrap_or(0);
    let max: Option<u64> = call.params.optional("max")?;
    call.params.finish()?;
    let max = max.and_then(|max| usize::try_from(max).ok());
    let list = state.disks.notifications.iter();
    let list = list.filter(|(id, ..)| *id >= first);
    let shown = list
        .take(max.unwrap_or(usize::MAX))
        .map(|(id, kind, name)| json!({"id": id, "type": kind, "ctx": name}));
    Ok(Answer::Now(shown.collect()))
}
