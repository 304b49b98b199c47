//! Listeners and their ANA states.

use pollux_reactor::rpc::{Answer, Call, MethodResult, Params, Phase, RpcError};
use serde_json::{Value, json};

use super::{
    LISTEN_ADDRESS, Module, State, address, done, error, forward, forward_removal, forward_then,
    subsystem, take_limit, transport,
};
use crate::spec::log::AnaState;
use crate::target::control::request::TargetRequest;
use crate::target::status::ListenerStatus;

/// The methods of this room.
pub(super) fn methods(module: Module<'_>) -> Module<'_> {
    module
        .method_with_address(
            "nvmf_subsystem_add_listener",
            LISTEN_ADDRESS,
            Phase::Runtime,
            add,
        )
        .method("nvmf_subsystem_get_listeners", Phase::Runtime, list)
        .method_with_address(
            "nvmf_subsystem_listener_set_ana_state",
            LISTEN_ADDRESS,
            Phase::Runtime,
            set_ana_state,
        )
        .method_with_address(
            "nvmf_subsystem_remove_listener",
            LISTEN_ADDRESS,
            Phase::Runtime,
            remove,
        )
}

/// Takes the name of an ANA state.
fn ana_state(params: &mut Params) -> Result<Option<AnaState>, RpcError> {
    let Some(name) = params.optional::<String>("ana_state")? else {
        return Ok(None);
    };
    let known = name.parse().map(Some);
    known.map_err(|error| params.invalid("ana_state", format!("'{name}': {error}")))
}

fn add(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let params = &mut call.params;
    let nqn = subsystem(params)?;
    let addr = address::take(params, "listen_address")?;
    let ana = ana_state(params)?;
    let secure = params.optional("secure_channel")?.unwrap_or(false);
    params.one_of("sock_impl", &[("posix", ()), ("ssl", ())])?;
    // Where memory is, is for the system to decide.
    params.unused::<i32>(&["numa_id"])?;
    params.finish()?;
    transport::required(state)?;
    let is_discovery = nqn.is_discovery();
    let request = match secure {
        true => TargetRequest::add_secure_listener(nqn.clone(), addr),
        false => TargetRequest::add_listener(nqn.clone(), addr),
    };
    let Some(ana) = ana else {
        return forward_then(state, call, request, move |state, answer| {
            let addr = answer?;
            if is_discovery {
                state.discovery_listeners.push(addr);
            }
            Ok(true.into())
        });
    };
    let responder = call.responder()?;
    let target = state.target.clone();
    state.target.request(request, move |answer| {
        let addr = match answer {
            Ok(addr) => addr,
            Err(e) => return responder.answer(Err(error(e))),
        };
        let request = TargetRequest::set_ana_state(nqn.clone(), addr, None, ana);
        let again = target.clone();
        target.request(request, move |answer| match answer {
            Ok(()) => responder.answer(Ok(true.into())),
            // A call that fails leaves nothing.
            Err(e) => again.request(TargetRequest::remove_listener(nqn, addr), move |_| {
                responder.answer(Err(error(e)));
            }),
        });
    });
    Ok(Answer::Later)
}

fn remove(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let nqn = subsystem(&mut call.params)?;
    let addr = address::take(&mut call.params, "listen_address")?;
    let limit = take_limit(&mut call.params)?;
    call.params.finish()?;
    let is_discovery = nqn.is_discovery();
    let request = TargetRequest::remove_listener(nqn, addr);
    forward_removal(state, call, (request, limit), move |state, answer| {
        answer?;
        if is_discovery {
            state.discovery_listeners.retain(|l| *l != addr);
        }
        Ok(true.into())
    })
}

fn set_ana_state(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let params = &mut call.params;
    let nqn = subsystem(params)?;
    let addr = address::take(params, "listen_address")?;
    let wanted = ana_state(params)?;
    let wanted = wanted.ok_or_else(|| params.invalid("ana_state", "is missing"))?;
    // 0 stands for all groups.
    let group = params.optional::<u32>("anagrpid")?.filter(|&g| g != 0);
    params.finish()?;
    let request = TargetRequest::set_ana_state(nqn, addr, group, wanted);
    forward(state, call, request, done)
}

fn list(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let nqn = subsystem(&mut call.params)?;
    call.params.finish()?;
    if nqn.is_discovery() {
        let listeners = state.discovery_listeners.iter();
        let shown = listeners.map(|&addr| json!({"address": address::show(addr)}));
        return Ok(Answer::Now(shown.collect()));
    }
    forward(state, call, TargetRequest::subsystems(), move |reply| {
        let list = reply;
        let Some(subsystem) = list.iter().find(|s| s.nqn == nqn) else {
            return Err(RpcError::new(-2, format!("no subsystem '{nqn}'")));
        };
        Ok(subsystem.listeners.iter().map(show).collect())
    })
}

fn show(listener: &ListenerStatus) -> Value {
    let groups: &[(u32, AnaState)] = match listener.ana_states.as_slice() {
        // Without namespaces no group has members; what a first namespace would get is shown.
        [] => &[(1, AnaState::OPTIMIZED)],
        groups => groups,
    };
    let states = groups
        .iter()
        .map(|&(group, state)| json!({"ana_group": group, "ana_state": state.to_string()}));
    let mut shown =
        json!({"address": address::show(listener.addr), "ana_states": states.collect::<Value>()});
    if listener.secure {
        shown["secure_channel"] = true.into();
    }
    shown
}
