//! What was counted of volumes and their paths.

use std::sync::Arc;

use pollux_nvme_tcp::rpc::iostat::IostatParams;
use pollux_nvme_tcp::spec::status::Status;
use pollux_reactor::rpc::{Call, MethodResult, Phase};
use serde_json::{Map, Value, json};

use super::paths::chosen;
use super::{Module, State, TICKS_PER_SEC, address, forward, no_volume};
use crate::counters::{CounterReset, IoCounters};
use crate::ids::ControllerId;
use crate::request::{HostRequest, Reply};
use crate::status::{ReactorVolumeStatus, VolumeStatus};
use crate::transport_id::TransportId;

/// The methods of this room.
pub(super) fn methods(module: Module<'_>) -> Module<'_> {
    module
        .method("bdev_get_iostat", Phase::Runtime, get)
        .method("bdev_nvme_get_path_iostat", Phase::Runtime, paths)
        .method("bdev_reset_iostat", Phase::Runtime, reset)
}

/// `bdev_get_iostat`: counters of volumes, all paths and reactors together, or of one volume by reactor.
fn get(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let IostatParams {
        names,
        per_channel,
        reset,
        ..
    } = IostatParams::take(&mut call.params, "volume")?;
    let volumes = names.clone();
    let request = move |reply: Reply<Vec<VolumeStatus>>| match reset {
        None => HostRequest::Volumes(reply),
        Some(what) => HostRequest::ResetCounters {
            volumes,
            what,
            reply,
        },
    };
    forward(state, call, request, move |volumes| {
        let ticks = volumes.first().map_or(0, |v| v.at.as_nanos());
        let mut answer = Map::new();
        answer.insert("tick_rate".into(), TICKS_PER_SEC.into());
        answer.insert("ticks".into(), ticks.into());
        if let Some(name) = names
            .iter()
            .find(|n| !volumes.iter().any(|v| v.name == **n))
        {
            return Err(no_volume(name));
        }
        let wanted = |v: &&VolumeStatus| names.is_empty() || names.contains(&v.name);
        let mut wanted = volumes.iter().filter(wanted);
        if per_channel {
            if let Some(volume) = wanted.next() {
                answer.insert("name".into(), volume.name.clone().into());
                let channels = volume.reactors.iter().map(channel);
                answer.insert("channels".into(), channels.collect());
            }
        } else {
            answer.insert("bdevs".into(), wanted.map(volume_stat).collect());
        }
        Ok(answer.into())
    })
}

/// `bdev_reset_iostat`: of one volume or of all.
fn reset(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let name: Option<String> = call.params.optional("name")?;
    let mode = CounterReset::take(&mut call.params, "mode")?;
    call.params.finish()?;
    let what = mode.unwrap_or(CounterReset::All);
    let volumes = Vec::from_iter(name.clone());
    forward(
        state,
        call,
        |reply| HostRequest::ResetCounters {
            volumes,
            what,
            reply,
        },
        move |volumes| chosen(volumes, name.as_deref()).map(|_| Value::Bool(true)),
    )
}

fn volume_stat(volume: &VolumeStatus) -> Value {
    let mut total = IoCounters::default();
    for part in &volume.reactors {
        total.add(&sum(part));
    }
    let mut members = total.show();
    members.insert("name".into(), volume.name.clone().into());
    let errors = json!({"nvme_error": errors(volume)});
    members.insert("driver_specific".into(), errors);
    members.into()
}

fn channel(part: &ReactorVolumeStatus) -> Value {
    let mut members = sum(part).show();
    members.insert("thread_id".into(), part.reactor.into());
    members.into()
}

fn sum(part: &ReactorVolumeStatus) -> IoCounters {
    let mut sum = part.removed;
    part.paths.iter().for_each(|path| sum.add(&path.counters));
    sum
}

/// `bdev_nvme_get_path_iostat`: the counters of each path, all reactors together.
fn paths(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let name: String = call.params.required("name")?;
    call.params.finish()?;
    forward(state, call, HostRequest::Volumes, move |volumes| {
        let volumes = chosen(volumes, Some(&name))?;
        let mut sums: Vec<(ControllerId, Arc<TransportId>, IoCounters)> = Vec::new();
        let paths = volumes.iter().flat_map(|v| &v.reactors);
        for path in paths.flat_map(|part| &part.paths) {
            match sums.iter_mut().find(|(id, ..)| *id == path.controller) {
                Some((_, _, sum)) => sum.add(&path.counters),
                None => sums.push((path.controller, Arc::clone(&path.transport), path.counters)),
            }
        }
        let stats: Vec<Value> = sums
            .iter()
            .map(
                |(_, transport, sum)| json!({"trid": address::show(transport), "stat": sum.show()}),
            )
            .collect();
        Ok(json!({"name": name, "stats": stats}))
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
