//! Controllers, queue pairs, statistics.

use pollux_reactor::rpc::{Call, MethodResult, Phase, RpcError};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Module, State, address, forward, forward_then, subsystem, target_name, transport};
use crate::target::control::request::TargetRequest;
use crate::target::status::ControllerStatus;

/// The methods of this room.
pub(super) fn methods(module: Module<'_>) -> Module<'_> {
    module
        .method("nvmf_get_stats", Phase::Runtime, stats)
        .method(
            "nvmf_subsystem_get_controllers",
            Phase::Runtime,
            controllers,
        )
        .method("nvmf_subsystem_get_qpairs", Phase::Runtime, qpairs)
}

fn stats(state: &mut State, call: &mut Call<State>) -> MethodResult {
    target_name(&mut call.params)?;
    call.params.finish()?;
    forward_then(state, call, TargetRequest::status(), |state, answer| {
        let status = answer?;
        let groups = status.reactors.iter().enumerate().map(|(index, r)| {
            json!({
                "name": format!("nvmf_tgt_poll_group_{index:03}"),
                "admin_qpairs": r.admin_qpairs,
                "io_qpairs": r.io_qpairs,
                "current_admin_qpairs": r.current_admin_qpairs,
                "current_io_qpairs": r.current_io_qpairs,
                "pending_bdev_io": 0,
                "completed_nvme_io": r.io.commands,
                "transports": transport::in_stats(state),
                "pollux": {
                    "reads": r.io.reads,
                    "writes": r.io.writes,
                    "bytes_read": r.io.bytes_read,
                    "bytes_written": r.io.bytes_written,
                    "failed": r.io.failed,
                    "staging_waits": r.staging_waits,
                    "staging_held_bytes": r.staging_held,
                    "staging_longest_wait_us": u64::try_from(r.staging_longest_wait.as_micros()).unwrap_or(u64::MAX),
                    "data_timeouts": r.data_timeouts,
                },
            })
        });
        Ok(json!({
            "tick_rate": 1_000_000_000,
            "poll_groups": groups.collect::<Value>(),
            "pollux": {
                "faults": status.faults_total,
                "refused_connects": status.refused_connects,
                "ended_unconnected": status.admission.ended_unconnected,
                "refused_connections": status.admission.refused_connections,
                "failed_accepts": status.admission.failed_accepts,
            },
        }))
    })
}

/// Answers with what `show` makes of the subsystem's controllers.
fn of_controllers(
    state: &State,
    call: &mut Call<State>,
    show: fn(&ControllerStatus) -> Vec<Value>,
) -> MethodResult {
    let nqn = subsystem(&mut call.params)?;
    call.params.finish()?;
    forward(state, call, TargetRequest::status(), move |reply| {
        let status = reply;
        let controllers = if nqn.is_discovery() {
            status.discovery_controllers
        } else {
            let mut subsystems = status.subsystems.into_iter();
            match subsystems.find(|s| s.nqn == nqn) {
                Some(subsystem) => subsystem.controllers,
                None => return Err(RpcError::new(-2, format!("no subsystem '{nqn}'"))),
            }
        };
        Ok(controllers.iter().flat_map(show).collect())
    })
}

fn controllers(state: &mut State, call: &mut Call<State>) -> MethodResult {
    of_controllers(state, call, |c| {
        vec![json!({
            "cntlid": c.cntlid,
            "hostnqn": c.hostnqn.as_str(),
            "hostid": Uuid::from_bytes(c.hostid).to_string(),
            "num_io_qpairs": c.qpairs.len().saturating_sub(1),
            "listen_address": address::show(c.listener),
        })]
    })
}

fn qpairs(state: &mut State, call: &mut Call<State>) -> MethodResult {
    of_controllers(state, call, |c| {
        let qpair = |q: &crate::target::status::QpairStatus| {
            let mut shown = json!({
                "cntlid": c.cntlid,
                "qid": q.qid,
                "state": "enabled",
                "thread": format!("nvmf_tgt_poll_group_{:03}", q.reactor),
                "hostnqn": c.hostnqn.as_str(),
                "listen_address": address::show(q.local),
                "peer_address": address::show(q.peer),
            });
            if q.secure {
                shown["pollux"] = json!({"tls": true, "ktls": q.ktls});
            }
            if let Some(agreed) = q.auth {
                let (digest, dhgroup) = agreed.names();
                shown["auth"] = json!({"state": "completed", "digest": digest, "dhgroup": dhgroup});
            }
            shown
        };
        c.qpairs.iter().map(qpair).collect()
    })
}
