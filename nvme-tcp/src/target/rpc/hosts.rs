//! Which hosts may connect.

use pollux_reactor::rpc::{Answer, Call, MethodResult, Params, Phase, RpcError};

use super::{Module, State, done, error, forward, limited, subsystem, take_limit};
use crate::auth::KeyNames;
use crate::spec::nqn::HostNqn;
use crate::target::config::HostKeys;
use crate::target::control::request::TargetRequest;
use crate::target::error::TargetError;

/// The methods of this room.
pub(super) fn methods(module: Module<'_>) -> Module<'_> {
    module
        .method("nvmf_subsystem_add_host", Phase::Runtime, add)
        .method("nvmf_subsystem_allow_any_host", Phase::Runtime, allow_any)
        .method("nvmf_subsystem_remove_host", Phase::Runtime, remove)
        .method("nvmf_subsystem_set_keys", Phase::Runtime, set_keys)
}

const ENOKEY: i32 = 126;

/// The name of a host that is listed: whatever it calls itself, but it must have a name.
pub(super) fn host(params: &mut Params) -> Result<HostNqn, RpcError> {
    let text: String = params.required("host")?;
    match HostNqn::new(&text) {
        Ok(_) if text.is_empty() => Err(params.invalid(
            "host",
            "'': a host without a name is let in by allow_any_host only",
        )),
        Ok(host) => Ok(host),
        Err(e) => Err(params.invalid("host", format!("'{}': {e}", text.escape_debug()))),
    }
}

fn add(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let params = &mut call.params;
    let (subsystem, host) = (subsystem(params)?, host(params)?);
    let names = KeyNames::take(params)?;
    let psk: Option<String> = params.optional("psk")?;
    params.finish()?;
    if let Some(key) = psk {
        // There is no TLS, so there is no key for it.
        return Err(RpcError::errno_of(ENOKEY, format!("'{key}'")));
    }
    let keys = names.map(|names| keys(state, names)).transpose()?;
    let request = TargetRequest::add_host_with_keys(subsystem, host, keys);
    forward(state, call, request, done)
}

fn set_keys(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let params = &mut call.params;
    let (subsystem, host) = (subsystem(params)?, host(params)?);
    let names = KeyNames::take(params)?;
    params.finish()?;
    let keys = names.map(|names| keys(state, names)).transpose()?;
    let request = TargetRequest::set_keys(subsystem, host, keys);
    forward(state, call, request, done)
}

#[cfg(feature = "auth")]
fn keys(state: &State, names: KeyNames) -> Result<HostKeys, RpcError> {
    let keys = state.keyring.keys(&names)?;
    Ok(HostKeys { keys, names })
}

/// Without a keyring there are no keys.
#[cfg(not(feature = "auth"))]
fn keys(_: &State, names: KeyNames) -> Result<HostKeys, RpcError> {
    Err(RpcError::errno_of(
        ENOKEY,
        format!("'{}'", names.dhchap_key),
    ))
}

fn remove(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let params = &mut call.params;
    let (subsystem, host) = (subsystem(params)?, host(params)?);
    let limit = take_limit(params)?;
    params.finish()?;
    let request = limited(TargetRequest::remove_host(subsystem, host), limit);
    let responder = call.responder()?;
    state.target.request(request, move |answer| {
        let answer = answer.map_err(|e| match e {
            // Clients look at these words.
            TargetError::Timeout => RpcError::internal("Timeout reached during host removal"),
            e => error(e),
        });
        responder.answer(answer.and_then(done));
    });
    Ok(Answer::Later)
}

fn allow_any(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let nqn = subsystem(&mut call.params)?;
    let allow = call.params.required("allow_any_host")?;
    call.params.finish()?;
    forward(state, call, TargetRequest::allow_any_host(nqn, allow), done)
}
