//! Disks that change their size, together with all that lies on them.

use pollux_reactor::rpc::{Answer, Call, MethodResult, Phase, RpcError};

use super::{Disks, EBUSY, EINVAL, ENODEV, Kind, NamedDisk, User};
use crate::target::control::request::TargetRequest;
use crate::target::rpc::{Module, State, disks, forward_then};

/// The methods of this room.
pub(in crate::target::rpc) fn methods(module: Module<'_>) -> Module<'_> {
    module
        .method("bdev_aio_rescan", Phase::Runtime, aio_rescan)
        .method("bdev_null_resize", Phase::Runtime, null)
        .method("bdev_uring_rescan", Phase::Runtime, uring_rescan)
}

const MIB: u64 = 1 << 20;

impl Disks {
    /// The disk that lies on top of all others on this one; or the disk itself.
    fn top(&self, name: &str) -> Option<&NamedDisk> {
        let mut disk = self.list.iter().find(|d| d.name == name)?;
        while let Some(over) = &disk.over {
            disk = self.list.iter().find(|d| d.name == *over)?;
        }
        Some(disk)
    }

    /// A disk, and with it all that lies on it, has another size now.
    fn note_resize(&mut self, name: &str) -> Result<(), RpcError> {
        let mut next = Some(name.to_owned());
        while let Some(name) = next {
            next = self.find(&name)?.over.clone();
            self.notify("bdev_resize", &name);
        }
        Ok(())
    }
}

/// Gives a disk another size, and the namespace that uses it, or uses what lies on it.
fn resize(state: &mut State, call: &mut Call<State>, name: String, bytes: u64) -> MethodResult {
    let disk = state.disks.find(&name)?;
    if bytes == disk.disk.bytes() {
        return Ok(Answer::Now(true.into()));
    }
    let disk = disk.disk.clone();
    let top = state.disks.top(&name);
    let top = top.ok_or_else(|| RpcError::errno(ENODEV))?;
    let (nqn, nsid) = match &top.user {
        None => {
            let result = disk.resize(bytes);
            result.map_err(|error| RpcError::errno_of(EINVAL, error))?;
            state.disks.note_resize(&name)?;
            return Ok(Answer::Now(true.into()));
        }
        Some(User { nsid: None, .. }) => return Err(RpcError::errno(EBUSY)),
        Some(User {
            nqn,
            nsid: Some(nsid),
            ..
        }) => (nqn.clone(), *nsid),
    };
    let request = TargetRequest::resize_namespace(nqn, nsid, bytes);
    forward_then(state, call, request, move |state, answer| {
        answer?;
        state.disks.note_resize(&name)?;
        Ok(true.into())
    })
}

fn null(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let name: String = call.params.required("name")?;
    let mib: u64 = call.params.required("new_size")?;
    call.params.finish()?;
    disks::of_kind(state, &name, |kind| matches!(kind, Kind::Null))?;
    let bytes = mib.checked_mul(MIB).filter(|&bytes| bytes > 0);
    let bytes = bytes.ok_or_else(|| RpcError::errno_of(EINVAL, format!("new_size {mib} MiB")))?;
    resize(state, call, name, bytes)
}

fn aio_rescan(state: &mut State, call: &mut Call<State>) -> MethodResult {
    rescan(state, call, |kind| matches!(kind, Kind::Aio { .. }))
}

fn uring_rescan(state: &mut State, call: &mut Call<State>) -> MethodResult {
    rescan(state, call, |kind| matches!(kind, Kind::Uring { .. }))
}

/// Takes on the size that a file or device has now.
fn rescan(state: &mut State, call: &mut Call<State>, is_kind: fn(&Kind) -> bool) -> MethodResult {
    let name: String = call.params.required("name")?;
    call.params.finish()?;
    let disk = disks::of_kind(state, &name, is_kind)?;
    let bytes = disks::whole_blocks(&disk.disk, disk.block_size)?;
    resize(state, call, name, bytes)
}
