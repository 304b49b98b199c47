//! What there is: named disks, the calls that make them again, and notifications.

use std::path::Path;

use pollux_reactor::rpc::{Answer, Call, MethodResult, Phase};
use serde_json::{Map, Value, json};

use super::disks::stacked;
use super::disks::{Disks, Kind, NamedDisk};
use super::{Module, State};

/// The methods of this room.
pub(super) fn methods(module: Module<'_>) -> Module<'_> {
    module
        .method("bdev_get_bdevs", Phase::Runtime, get_bdevs)
        .method("bdev_wait_for_examine", Phase::Runtime, wait_for_examine)
        .method("notify_get_notifications", Phase::Runtime, notifications)
        .method("notify_get_types", Phase::Runtime, notification_types)
}

/// The calls that make the disks again; what was in memory is empty then, and no error is injected any more. A disk comes
/// after the one that it lies on, since it could only be made then.
pub(super) fn saved(disks: &Disks) -> Value {
    let limits = disks.own().filter_map(|disk| disk.limits.call(&disk.name));
    disks.own().flat_map(calls).chain(limits).collect()
}

fn calls(disk: &NamedDisk) -> Vec<Value> {
    let mut params = Map::new();
    let method = match &disk.kind {
        Kind::Malloc => "bdev_malloc_create",
        Kind::Null => "bdev_null_create",
        Kind::Foreign => return Vec::new(),
        Kind::Aio { path, shared } => {
            put_file(&mut params, path, *shared);
            "bdev_aio_create"
        }
        Kind::Uring { path, shared } => {
            put_file(&mut params, path, *shared);
            "bdev_uring_create"
        }
        Kind::Delay { base, latencies } => return stacked::saved_delay(disk, base, latencies),
        Kind::Error { base, .. } => return vec![stacked::saved_error(disk, base)],
    };
    params.insert("name".into(), disk.name.as_str().into());
    if !matches!(disk.kind, Kind::Aio { .. } | Kind::Uring { .. }) {
        params.insert("num_blocks".into(), disk.blocks().into());
    }
    params.insert("block_size".into(), disk.block_size.into());
    params.insert("uuid".into(), disk.uuid.to_string().into());
    vec![json!({"method": method, "params": params})]
}

fn put_file(params: &mut Map<String, Value>, path: &Path, shared: bool) {
    params.insert("filename".into(), path.to_string_lossy().into());
    if shared {
        params.insert("shared".into(), true.into());
    }
}

fn get_bdevs(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let name: Option<String> = call.params.optional("name")?;
    // There is nothing to wait for: a disk is there when its method has answered.
    call.params.unused::<u64>(&["timeout"])?;
    call.params.finish()?;
    if let Some(name) = name {
        let disk = state.disks.find_own(&name)?;
        return Ok(Answer::Now(vec![show(disk)].into()));
    }
    Ok(Answer::Now(state.disks.own().map(show).collect()))
}

fn show_file(disk: &NamedDisk, path: &Path, shared: bool) -> Value {
    let failure = disk.disk.failure().map(|error| error.to_string());
    json!({
        "filename": path.to_string_lossy(),
        "pollux": {"shared": shared, "errors": disk.disk.errors(), "failure": failure},
    })
}

fn show(disk: &NamedDisk) -> Value {
    let specific = match &disk.kind {
        Kind::Aio { path, shared } => json!({"aio": show_file(disk, path, *shared)}),
        Kind::Uring { path, shared } => json!({"uring": show_file(disk, path, *shared)}),
        Kind::Delay { base, latencies } => stacked::show_delay(&disk.name, base, latencies),
        Kind::Error { base, .. } => json!({"error_disk": {"base_bdev": base}}),
        Kind::Malloc | Kind::Null | Kind::Foreign => json!({}),
    };
    json!({
        "name": disk.name,
        "aliases": [disk.uuid.to_string()],
        "product_name": disk.kind.product(),
        "block_size": disk.block_size,
        "num_blocks": disk.blocks(),
        "uuid": disk.uuid.to_string(),
        "assigned_rate_limits": disk.limits.show(true),
        "claimed": disk.user.is_some() || disk.over.is_some(),
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

fn wait_for_examine(_: &mut State, call: &mut Call<State>) -> MethodResult {
    call.params.finish()?;
    Ok(Answer::Now(true.into()))
}

fn notification_types(_: &mut State, call: &mut Call<State>) -> MethodResult {
    call.params.finish()?;
    let types = ["bdev_register", "bdev_unregister", "bdev_resize"];
    Ok(Answer::Now(types.as_slice().into()))
}

fn notifications(state: &mut State, call: &mut Call<State>) -> MethodResult {
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
