//! Volumes, which clients know as bdevs.

use pollux_nvme_tcp::spec::status::Status;
use pollux_reactor::rpc::{Answer, Call, Outcome};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::paths::{chosen, counters};
use super::{State, address, ana_name, forward, no_volume};
use crate::request::HostRequest;
use crate::status::{NotificationKind, PathCounters, VolumeStatus};

/// Ticks of the clock that latencies are counted in.
const TICKS_PER_SEC: u64 = 1_000_000_000;

/// `bdev_get_bdevs`
pub(super) fn list(state: &mut State, call: &mut Call<State>) -> Outcome {
    let name: Option<String> = call.params.optional("name")?;
    if call
        .params
        .optional::<u64>("timeout")?
        .is_some_and(|n| n > 0)
    {
        return Err(call.params.invalid("timeout", "waiting is not supported"));
    }
    call.params.finish()?;
    forward(state, call, HostRequest::Volumes, move |volumes| {
        let volumes = chosen(volumes, name.as_deref())?;
        Ok(volumes.iter().map(show).collect())
    })
}

fn show(volume: &VolumeStatus) -> Value {
    let ids = volume.ids;
    let uuid = ids
        .uuid
        .or(ids.nguid)
        .map(|id| Uuid::from_bytes(id).to_string());
    let controllers: Vec<Value> = volume
        .reactors
        .first()
        .into_iter()
        .flat_map(|part| &part.paths)
        .filter_map(|path| {
            Some(json!({
                "trid": address::show(path.transport.as_ref()?),
                "ctrlr_data": {"cntlid": path.cntlid, "ana_reporting": path.ana_group != 0},
                "ns_data": {
                    "id": volume.nsid,
                    "ana_state": ana_name(path.ana_state),
                    "anagrpid": path.ana_group,
                },
            }))
        })
        .collect();
    json!({
        "name": volume.name,
        "aliases": uuid.iter().collect::<Vec<_>>(),
        "product_name": "NVMe disk",
        "block_size": volume.block_size,
        "num_blocks": volume.blocks,
        "uuid": uuid.unwrap_or_default(),
        "nguid": ids.nguid.map(hex),
        "eui64": ids.eui64.map(hex),
        "assigned_rate_limits": {
            "rw_ios_per_sec": 0,
            "rw_mbytes_per_sec": 0,
            "r_mbytes_per_sec": 0,
            "w_mbytes_per_sec": 0,
        },
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
        },
    })
}

fn hex<const N: usize>(bytes: [u8; N]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// `bdev_get_iostat`: counters of volumes, all paths and reactors together.
pub(super) fn iostat(state: &mut State, call: &mut Call<State>) -> Outcome {
    let mut names: Vec<String> = call.params.optional("names")?.unwrap_or_default();
    names.extend(call.params.optional::<String>("name")?);
    call.params.off(&["per_channel"])?;
    call.params.one_of("reset_mode", &[("none", ())])?;
    call.params.finish()?;
    forward(state, call, HostRequest::Volumes, move |volumes| {
        if let Some(name) = names
            .iter()
            .find(|n| !volumes.iter().any(|v| v.name == **n))
        {
            return Err(no_volume(name));
        }
        let wanted = |v: &&VolumeStatus| names.is_empty() || names.contains(&v.name);
        let stats: Vec<Value> = volumes
            .iter()
            .filter(wanted)
            .map(|volume| {
                let mut stat = counters(&sum(volume));
                if let Some(members) = stat.as_object_mut() {
                    members.insert("name".into(), volume.name.clone().into());
                    let errors = json!({"nvme_error": errors(volume)});
                    members.insert("driver_specific".into(), errors);
                }
                stat
            })
            .collect();
        Ok(json!({"tick_rate": TICKS_PER_SEC, "bdevs": stats}))
    })
}

/// Errors of the volume's I/O by type and by code, under the names that SPDK forms from the specification's.
fn errors(volume: &VolumeStatus) -> Value {
    let (mut types, mut codes) = (Map::new(), Map::new());
    for (status, count) in volume.reactors.iter().flat_map(|part| &part.errors) {
        let kind = match status.sct() {
            0 => "generic",
            1 => "command_specific",
            2 => "media_error",
            3 => "path",
            _ => "vendor_specific",
        };
        let name = match *status {
            Status::TRANSIENT_TRANSPORT_ERROR => "command_transient_transport_error".to_owned(),
            status => match status.name() {
                Some(name) => name.to_ascii_lowercase().replace([' ', '-', '/'], "_"),
                None => format!("sct_{:x}_sc_{:02x}", status.sct(), status.sc()),
            },
        };
        for (members, name) in [(&mut types, kind.to_owned()), (&mut codes, name)] {
            let sum = members.get(&name).and_then(Value::as_u64).unwrap_or(0);
            members.insert(name, (sum + count).into());
        }
    }
    json!({"status_type": types, "status_code": codes})
}

fn sum(volume: &VolumeStatus) -> PathCounters {
    let mut sum = PathCounters::default();
    for part in &volume.reactors {
        sum.add(&part.removed);
        part.paths.iter().for_each(|path| sum.add(&path.counters));
    }
    sum
}

/// `bdev_examine`: nothing is made of volumes here, so there is nothing to be found on them.
pub(super) fn examine(_: &mut State, call: &mut Call<State>) -> Outcome {
    call.params.required::<String>("name")?;
    call.params.finish()?;
    Ok(Answer::Now(Value::Bool(true)))
}

/// `bdev_set_options`: sizes of pools that there are none of.
pub(super) fn set_options(_: &mut State, call: &mut Call<State>) -> Outcome {
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
pub(super) fn wait_for_examine(_: &mut State, call: &mut Call<State>) -> Outcome {
    call.params.finish()?;
    Ok(Answer::Now(Value::Bool(true)))
}

/// `notify_get_notifications`: volumes that came, went and changed their size.
pub(super) fn notifications(state: &mut State, call: &mut Call<State>) -> Outcome {
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
pub(super) fn notification_types(_: &mut State, call: &mut Call<State>) -> Outcome {
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
