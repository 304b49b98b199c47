//! Paths: their status, counters and history, and how volumes choose among them.

use pollux_reactor::rpc::{Call, MethodResult, Phase, RpcError};
use serde_json::{Map, Value, json};

use super::{Module, State, address, ana_name, done, fencing, forward, no_volume, policy};
use crate::request::HostRequest;
use crate::status::{PathStatus, ReactorCounters, VolumeStatus};

/// The methods of this room.
pub(super) fn methods(module: Module<'_>) -> Module<'_> {
    module
        .method("bdev_nvme_get_io_paths", Phase::Runtime, io_paths)
        .method(
            "bdev_nvme_get_transport_statistics",
            Phase::Runtime,
            transport_statistics,
        )
        .method("bdev_nvme_set_multipath_policy", Phase::Runtime, set_policy)
        .method(
            "bdev_nvme_set_preferred_path",
            Phase::Runtime,
            set_preferred,
        )
        .method("pollux_get_path_events", Phase::Runtime, events)
}

/// Keeps the volume that was asked for, or all.
pub(super) fn chosen(
    mut volumes: Vec<VolumeStatus>,
    name: Option<&str>,
) -> Result<Vec<VolumeStatus>, RpcError> {
    if let Some(name) = name {
        volumes.retain(|v| v.name == name);
        if volumes.is_empty() {
            return Err(no_volume(name));
        }
    }
    Ok(volumes)
}

/// `bdev_nvme_get_io_paths`: one group for each I/O reactor, each as that reactor's table was at one moment.
fn io_paths(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let name: Option<String> = call.params.optional("name")?;
    call.params.finish()?;
    forward(state, call, HostRequest::Volumes, move |volumes| {
        let volumes = chosen(volumes, name.as_deref())?;
        type Group = (Vec<Value>, Map<String, Value>, Map<String, Value>);
        let mut groups: Vec<Group> = Vec::new();
        for volume in &volumes {
            for part in &volume.reactors {
                if groups.len() <= part.reactor {
                    groups.resize_with(part.reactor + 1, Default::default);
                }
                let (paths, waiting, fenced) = &mut groups[part.reactor];
                let shown = part.paths.iter().map(|p| show(&volume.name, p));
                paths.extend(shown);
                waiting.insert(volume.name.clone(), part.waiting.into());
                if let Some(fence) = part.fenced {
                    fenced.insert(volume.name.clone(), fencing::show_status(fence));
                }
            }
        }
        let groups: Vec<Value> = groups
            .into_iter()
            .enumerate()
            .map(|(reactor, (paths, waiting, fenced))| {
                let mut pollux = json!({"waiting_io": waiting});
                if !fenced.is_empty() {
                    pollux["fenced_io"] = fenced.into();
                }
                json!({
                    "thread": thread_name(reactor),
                    "io_paths": paths,
                    "pollux": pollux,
                })
            })
            .collect();
        Ok(json!({"poll_groups": groups}))
    })
}

fn show(volume: &str, path: &PathStatus) -> Value {
    json!({
        "bdev_name": volume,
        "cntlid": path.cntlid,
        "current": path.current,
        "connected": path.connected,
        "accessible": path.accessible,
        "transport": address::show_plain(&path.transport),
        "pollux": {
            "ana_state": ana_name(path.ana_state),
            "ana_group": path.ana_group,
            "epoch": path.epoch,
            "log_pending": path.log_pending,
            "anatt_expired": path.anatt_expired,
            "anatt_remaining_ms": path.anatt_remaining.map(|left| millis(left.as_millis())),
            "outstanding": path.outstanding,
            "longest_silence_ms": millis(path.longest_silence.as_millis()),
            "errors": path.counters.errors,
        },
    })
}

fn millis(ms: u128) -> u64 {
    u64::try_from(ms).unwrap_or(u64::MAX)
}

/// `bdev_nvme_get_transport_statistics`: what each I/O reactor has done with its queue pairs.
fn transport_statistics(state: &mut State, call: &mut Call<State>) -> MethodResult {
    call.params.finish()?;
    forward(state, call, HostRequest::Transport, |reactors| {
        let show = |(reactor, counters): (usize, ReactorCounters)| {
            json!({
                "thread": thread_name(reactor),
                "transports": [{
                    "trname": "TCP",
                    "polls": counters.polls,
                    "idle_polls": counters.idle_polls,
                    "socket_completions": counters.receives,
                    "nvme_completions": counters.completions,
                    "queued_requests": counters.queued,
                    "submitted_requests": counters.submitted,
                    "pollux": {"command_timeouts": counters.timeouts},
                }],
            })
        };
        let groups: Vec<Value> = reactors.into_iter().enumerate().map(show).collect();
        Ok(json!({"poll_groups": groups}))
    })
}

/// What stands for an I/O reactor where SPDK has a thread.
fn thread_name(reactor: usize) -> String {
    format!("io_reactor_{reactor}")
}

/// `bdev_nvme_set_multipath_policy`
fn set_policy(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let volume: String = call.params.required("name")?;
    let policy = policy::take_required(&mut call.params)?;
    call.params.finish()?;
    forward(
        state,
        call,
        |reply| HostRequest::SetPolicy {
            volume,
            policy,
            reply,
        },
        done,
    )
}

/// `bdev_nvme_set_preferred_path`
fn set_preferred(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let volume: String = call.params.required("name")?;
    let cntlid: u16 = call.params.required("cntlid")?;
    call.params.finish()?;
    forward(
        state,
        call,
        |reply| HostRequest::SetPreferredPath {
            volume,
            cntlid,
            reply,
        },
        done,
    )
}

/// `pollux_get_path_events`: what happened to the paths of one volume or of all, oldest first.
fn events(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let name: Option<String> = call.params.optional("name")?;
    call.params.finish()?;
    forward(state, call, HostRequest::Volumes, move |volumes| {
        let volumes = chosen(volumes, name.as_deref())?;
        let show = |volume: &VolumeStatus| {
            let events: Vec<Value> = volume
                .events
                .iter()
                .map(|event| {
                    json!({
                        "at_ns": event.at.as_nanos(),
                        "transport": address::show(&event.transport),
                        "event": event.kind.to_string(),
                    })
                })
                .collect();
            json!({"name": volume.name, "events": events})
        };
        Ok(volumes.iter().map(show).collect())
    })
}
