//! What was counted of disks.

use pollux_reactor::rpc::{Answer, Call, MethodResult, Phase, RpcError};
use serde_json::{Map, Value, json};

use super::disks::{ENODEV, NamedDisk};
use super::{Module, State, error, forward_then};
use crate::counters::{CounterReset, IoCounters};
use crate::rpc::iostat::IostatParams;
use crate::target::control::request::TargetRequest;
use crate::target::disk::DiskRef;
use crate::target::status::TargetStatus;

/// The methods of this room.
pub(super) fn methods(module: Module<'_>) -> Module<'_> {
    module
        .method("bdev_get_iostat", Phase::Runtime, get)
        .method("bdev_reset_iostat", Phase::Runtime, reset)
}

/// `bdev_get_iostat`: counters of disks, all reactors together, or of one disk by reactor. What a disk below another one
/// does is counted of the upper one.
fn get(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let IostatParams {
        names,
        per_channel,
        reset,
        ..
    } = IostatParams::take(&mut call.params, "disk")?;
    chosen(state, &names)?;
    forward_then(
        state,
        call,
        TargetRequest::status(),
        move |state, status| {
            let status = status?;
            let disks = chosen(state, &names)?;
            if let Some(what) = reset {
                let disks = disks.iter().map(|disk| disk.disk.clone()).collect();
                let request = TargetRequest::reset_counters(Some(disks), what);
                state.target.request(request, |_| ());
            }
            let mut answer = Map::new();
            answer.insert("tick_rate".into(), 1_000_000_000.into());
            answer.insert("ticks".into(), status.at.as_nanos().into());
            if per_channel {
                for disk in disks {
                    answer.insert("name".into(), disk.name.as_str().into());
                    answer.insert("channels".into(), channels(&status, &disk.disk));
                }
            } else {
                let shown = disks.iter().map(|disk| show(&status, disk));
                answer.insert("bdevs".into(), shown.collect());
            }
            Ok(answer.into())
        },
    )
}

/// `bdev_reset_iostat`: of one disk or of all.
fn reset(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let name: Option<String> = call.params.optional("name")?;
    let mode = CounterReset::take(&mut call.params, "mode")?;
    call.params.finish()?;
    let what = mode.unwrap_or(CounterReset::All);
    let disks = match name {
        None => None,
        Some(name) => Some(vec![state.disks.find_own(&name)?.disk.clone()]),
    };
    let responder = call.responder()?;
    let request = TargetRequest::reset_counters(disks, what);
    state.target.request(request, move |answer| {
        responder.answer(answer.map(|()| true.into()).map_err(error));
    });
    Ok(Answer::Later)
}

/// The disks of these names, or all.
fn chosen<'a>(state: &'a State, names: &[String]) -> Result<Vec<&'a NamedDisk>, RpcError> {
    let own: Vec<_> = state.disks.own().collect();
    let is_there = |name: &String| own.iter().any(|disk| disk.name == *name);
    if !names.iter().all(is_there) {
        return Err(RpcError::errno(ENODEV));
    }
    let is_chosen = |disk: &&NamedDisk| names.is_empty() || names.contains(&disk.name);
    Ok(own.into_iter().filter(is_chosen).collect())
}

fn show(status: &TargetStatus, disk: &NamedDisk) -> Value {
    let mut total = IoCounters::default();
    let parts = status.disks.iter().filter(|part| part.disk == disk.disk);
    parts.for_each(|part| total.add(&part.counters));
    let mut members = total.show();
    members.insert("name".into(), disk.name.as_str().into());
    members.insert("driver_specific".into(), json!({}));
    members.into()
}

fn channels(status: &TargetStatus, disk: &DiskRef) -> Value {
    let parts = status.disks.iter().filter(|part| part.disk == *disk);
    let parts = parts.map(|part| {
        let mut members = part.counters.show();
        members.insert("thread_id".into(), part.reactor.into());
        Value::from(members)
    });
    parts.collect()
}
