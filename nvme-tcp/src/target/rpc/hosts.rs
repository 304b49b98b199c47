//! Which hosts may connect.

use pollux_reactor::rpc::{Answer, Call, MethodResult, Params, Phase, RpcError};

use super::{Module, State, done, error, forward, limited, subsystem, take_limit};
use crate::auth::KeyNames;
use crate::spec::nqn::HostNqn;
use crate::spec::nqn::Nqn;
use crate::target::config::{HostAccess, HostKeys};
use crate::target::control::request::TargetRequest;
use crate::target::error::TargetError;
use crate::tls::HostPsk;

/// The methods of this room.
pub(super) fn methods(module: Module<'_>) -> Module<'_> {
    module
        .method("nvmf_subsystem_add_host", Phase::Runtime, add)
        .method("nvmf_subsystem_allow_any_host", Phase::Runtime, allow_any)
        .method("nvmf_subsystem_remove_host", Phase::Runtime, remove)
        .method("nvmf_subsystem_set_keys", Phase::Runtime, set_keys)
}

#[cfg(not(feature = "tls"))]
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
    let keys = names.map(|names| keys(state, names)).transpose()?;
    let psk = psk.map(|name| host_psk(state, &name, &host, &subsystem));
    let psk = psk.transpose()?;
    let access = HostAccess { keys, psk };
    let request = TargetRequest::add_host_with(subsystem, host, access);
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

#[cfg(feature = "tls")]
fn host_psk(state: &State, name: &str, host: &HostNqn, nqn: &Nqn) -> Result<HostPsk, RpcError> {
    let psk = state.keyring.psk(name)?;
    HostPsk::new(name, &psk, host, nqn)
        .map_err(|error| RpcError::invalid_params(format!("key '{name}': {error}")))
}

/// Without TLS there are no keys for it.
#[cfg(not(feature = "tls"))]
fn host_psk(_: &State, name: &str, _: &HostNqn, _: &Nqn) -> Result<HostPsk, RpcError> {
    Err(RpcError::errno_of(ENOKEY, format!("'{name}'")))
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
