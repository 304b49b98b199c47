//! `nvmf_set_config` and `nvmf_set_max_subsystems`: what holds for the target as a whole. `dup_host_policy` is as SPDK's target has it; `cqt_ms` is the
//! Command Quiesce Time that controllers report. What tunes things that are not here is taken while it asks for what is
//! done anyhow.

use pollux_reactor::rpc::{Call, MethodResult, Phase, RpcError};
use serde_json::{Map, Value};

use super::{Module, State, done, forward, forward_then};
use crate::rpc::dhchap::PolicyNames;
use crate::rpc::sockets::SocketOptions;
use crate::target::control::request::TargetRequest;
use crate::target::status::TargetStatus;
use crate::target::subsystem::CQT_MS;

/// The methods of this room.
pub(super) fn methods(module: Module<'_>) -> Module<'_> {
    module.method("nvmf_set_config", Phase::Any, set).method(
        "nvmf_set_max_subsystems",
        Phase::Any,
        set_max_subsystems,
    )
}

/// Admin commands that SPDK's target can pass through to a device below.
const PASSTHRU: [&str; 9] = [
    "identify_ctrlr",
    "identify_uuid_list",
    "get_log_page",
    "get_set_features",
    "sanitize",
    "security_send_recv",
    "fw_update",
    "nvme_mi",
    "vendor_specific",
];

/// Policies, and whether a host may have several controllers of a subsystem by one listener.
const DUP_HOST_POLICIES: [(&str, bool); 2] = [("allow", true), ("restrict_per_listener", false)];

/// The only discovery filter: all subsystems are listed that the host may use.
const MATCH_ANY: &str = "match_any";

/// The parameters that set the same again, unless all is as at the start.
pub(super) fn saved(state: &State, status: &TargetStatus) -> Option<Value> {
    let mut params = Map::new();
    if status.cqt_ms != CQT_MS {
        params.insert("cqt_ms".into(), status.cqt_ms.into());
    }
    if !status.duplicate_hosts {
        params.insert("dup_host_policy".into(), "restrict_per_listener".into());
    }
    state.auth.put(&mut params);
    (!params.is_empty()).then(|| params.into())
}

fn set_max_subsystems(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let max: u32 = call.params.required("max_subsystems")?;
    call.params.finish()?;
    let request = TargetRequest::set_max_subsystems(max as usize);
    forward_then(state, call, request, move |state, answer| {
        answer?;
        state.max_subsystems = Some(max);
        Ok(true.into())
    })
}

fn set(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let params = &mut call.params;
    if let Some(mut passthru) = params.object("admin_cmd_passthru")? {
        passthru.off(&PASSTHRU)?;
        passthru.finish()?;
    }
    params.one_of("discovery_filter", &[(MATCH_ANY, ())])?;
    let filters: Vec<String> = params.optional("discovery_filters")?.unwrap_or_default();
    if let Some(filter) = filters.iter().find(|filter| *filter != MATCH_ANY) {
        let text = format!("'discovery_filters': '{filter}', one of {MATCH_ANY}");
        return Err(RpcError::invalid_params(text));
    }
    params.unused::<String>(&["poll_groups_mask"])?;
    let auth = PolicyNames::take(params)?;
    let allow = params.one_of("dup_host_policy", &DUP_HOST_POLICIES)?;
    let cqt_ms = params.optional("cqt_ms")?;
    params.finish()?;
    // Requests are carried out in order, so that the answer to the last one is that to all.
    if let Some(allow) = allow {
        let request = TargetRequest::allow_duplicate_hosts(allow);
        state.target.request(request, |_| {});
    }
    if !auth.is_empty() {
        state.auth = auth.or(&state.auth);
        let request = TargetRequest::set_auth_policy(state.auth.policy());
        state.target.request(request, |_| {});
    }
    let last = match cqt_ms {
        Some(ms) => TargetRequest::set_quiesce_time(ms),
        None => TargetRequest::sync(),
    };
    forward(state, call, last, done)
}

impl SocketOptions for State {
    fn show_ktls(&mut self, call: &mut Call<State>, show: fn(bool) -> Value) -> MethodResult {
        let request = TargetRequest::status();
        forward(self, call, request, move |status| Ok(show(status.ktls)))
    }

    fn set_ktls(&mut self, call: &mut Call<State>, wanted: bool) -> MethodResult {
        forward(self, call, TargetRequest::set_ktls(wanted), done)
    }
}
