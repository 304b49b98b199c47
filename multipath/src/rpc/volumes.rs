//! Volumes, which clients know as bdevs.

use std::time::Duration;

use pollux_nvme_tcp::target::DiskRef;
use pollux_nvme_tcp::target::rpc::{FindDisk, ForeignDisk};
use pollux_reactor::rpc::{Answer, Call, MethodResult, Phase};
use serde_json::{Value, json};
use uuid::Uuid;

use super::paths::chosen;
use super::{Module, State, address, ana_name, error, forward, no_volume, policy};
use crate::host::Host;
use crate::queue::QueueMessage;
use crate::request::{HostRequest, Reply};
use crate::status::{NotificationKind, VolumeStatus};
use crate::volume_disk::VolumeDisk;

/// The methods of this room.
pub(super) fn methods(module: Module<'_>) -> Module<'_> {
    module
        .method("bdev_examine", Phase::Any, examine)
        .method("bdev_get_bdevs", Phase::Runtime, list)
        .method("bdev_set_options", Phase::Startup, set_options)
        .method("bdev_wait_for_examine", Phase::Runtime, wait_for_examine)
        .method("notify_get_notifications", Phase::Runtime, notifications)
        .method("notify_get_types", Phase::Runtime, notification_types)
}

/// `bdev_get_bdevs`; with a `timeout` in ms it waits for the volume to appear.
fn list(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let name: Option<String> = call.params.optional("name")?;
    let timeout_ms: u64 = call.params.optional("timeout")?.unwrap_or(0);
    call.params.finish()?;
    if let Some(name) = name.clone().filter(|_| timeout_ms > 0) {
        let responder = call.responder()?;
        let mail = call.mail.clone();
        let wanted = name.clone();
        state.request(HostRequest::AwaitVolume {
            name,
            timeout: Duration::from_millis(timeout_ms),
            reply: Box::new(move |answer| match answer {
                Err(_) => responder.answer(Err(no_volume(&wanted))),
                Ok(()) => mail.run(move |state| {
                    state.request(HostRequest::Volumes(Box::new(move |answer| {
                        let volumes = answer.map_err(|e| error(&e));
                        let chosen = volumes.and_then(|v| chosen(v, Some(&wanted)));
                        responder.answer(chosen.map(|v| v.iter().map(show).collect()));
                    })));
                }),
            }),
        });
        return Ok(Answer::Later);
    }
    forward(state, call, HostRequest::Volumes, move |volumes| {
        let volumes = chosen(volumes, name.as_deref())?;
        Ok(volumes.iter().map(show).collect())
    })
}

fn show(volume: &VolumeStatus) -> Value {
    let ids = volume.ids;
    // The NGUID comes first, as SPDK's clients know it.
    let uuid = ids
        .nguid
        .or(ids.uuid)
        .map(|id| Uuid::from_bytes(id).to_string());
    let controllers: Vec<Value> = volume
        .reactors
        .first()
        .into_iter()
        .flat_map(|part| &part.paths)
        .map(|path| {
            json!({
                "trid": address::show(&path.transport),
                "ctrlr_data": {"cntlid": path.cntlid, "ana_reporting": path.ana_group != 0},
                "ns_data": {
                    "id": volume.nsid,
                    "ana_state": ana_name(path.ana_state),
                    "anagrpid": path.ana_group,
                },
            })
        })
        .collect();
    let (selector, min_io) = policy::parts(volume.policy);
    json!({
        "name": volume.name,
        "aliases": uuid.iter().collect::<Vec<_>>(),
        "product_name": "NVMe disk",
        "block_size": volume.block_size,
        "num_blocks": volume.blocks,
        "uuid": uuid.unwrap_or_default(),
        "nguid": ids.nguid.map(hex),
        "eui64": ids.eui64.map(hex),
        "assigned_rate_limits": volume.limits.show(true),
        "claimed": false,
        "zoned": false,
        "supported_io_types": {
            "read": true,
            "write": true,
            "unmap": true,
            "write_zeroes": true,
            "flush": true,
            "reset": false,
            "compare": true,
            "compare_and_write": false,
            "abort": false,
            "nvme_admin": false,
            "nvme_io": false,
        },
        "driver_specific": {
            "nvme": controllers,
            "mp_policy": volume.policy.name(),
            "selector": selector,
            "rr_min_io": min_io,
            "pollux": policy::show(volume.policy),
        },
    })
}

fn hex<const N: usize>(bytes: [u8; N]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// `bdev_examine`: nothing is made of volumes here, so there is nothing to be found on them.
fn examine(_: &mut State, call: &mut Call<State>) -> MethodResult {
    call.params.required::<String>("name")?;
    call.params.finish()?;
    Ok(Answer::Now(Value::Bool(true)))
}

/// `bdev_set_options`: sizes of pools that there are none of.
fn set_options(_: &mut State, call: &mut Call<State>) -> MethodResult {
    call.params.unused::<u32>(&[
        "bdev_io_pool_size",
        "bdev_io_cache_size",
        "iobuf_small_cache_size",
        "iobuf_large_cache_size",
    ])?;
    call.params.unused::<bool>(&["bdev_auto_examine"])?;
    call.params.finish()?;
    Ok(Answer::Now(Value::Bool(true)))
}

/// `bdev_wait_for_examine`: volumes are complete as soon as they are there.
fn wait_for_examine(_: &mut State, call: &mut Call<State>) -> MethodResult {
    call.params.finish()?;
    Ok(Answer::Now(Value::Bool(true)))
}

/// `notify_get_notifications`: volumes that came, went and changed their size.
fn notifications(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let first: u64 = call.params.optional("id")?.unwrap_or(0);
    let max: Option<u64> = call.params.optional("max")?;
    call.params.finish()?;
    let max = max.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
    forward(
        state,
        call,
        |reply| HostRequest::Notifications(first, reply),
        move |list| {
            let list = list.into_iter().take(max);
            Ok(list
                .map(|n| json!({"type": type_of(n.kind), "ctx": n.volume, "id": n.id}))
                .collect())
        },
    )
}

/// `notify_get_types`
fn notification_types(_: &mut State, call: &mut Call<State>) -> MethodResult {
    call.params.finish()?;
    let kinds = [
        NotificationKind::Added,
        NotificationKind::Removed,
        NotificationKind::Resized,
    ];
    Ok(Answer::Now(kinds.map(type_of).into_iter().collect()))
}

fn type_of(kind: NotificationKind) -> &'static str {
    match kind {
        NotificationKind::Added => "bdev_register",
        NotificationKind::Removed => "bdev_unregister",
        NotificationKind::Resized => "bdev_resize",
    }
}

/// Finds the volumes of `host` as disks, for [`target::rpc::register_beside`](pollux_nvme_tcp::target::rpc::register_beside):
/// a namespace made of one is served here, and its blocks are behind the paths of the volume. Its UUID is the volume's, or
/// one that follows from its name.
pub fn find_disk(host: Host<QueueMessage>) -> FindDisk {
    Box::new(move |wanted, found| {
        let (name, with_ana, host) = (wanted.name.to_owned(), wanted.with_ana, host.clone());
        let volumes = host.clone();
        let reply: Reply<Vec<VolumeStatus>> = Box::new(move |answer| {
            let volume = answer
                .ok()
                .and_then(|list| list.into_iter().find(|volume| volume.name == name));
            found(volume.map(|volume| {
                let served = DiskRef::new(match with_ana {
                    true => VolumeDisk::with_ana(&host, volume.info()),
                    false => VolumeDisk::new(&host, volume.info()),
                });
                let mut disk = ForeignDisk::new(served, volume.block_size);
                disk.uuid = volume.ids.uuid.or(volume.ids.nguid).map(Uuid::from_bytes);
                disk
            }));
        });
        // One that has stopped drops it, and with it the call that waits.
        drop(volumes.request(HostRequest::Volumes(reply)));
    })
}
