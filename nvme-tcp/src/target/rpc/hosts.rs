//! Which hosts may connect.

use pollux_reactor::rpc::{Call, Outcome, RpcError};

use super::{State, done, forward, nqn, subsystem};
use crate::target::request::TargetRequest;

pub(super) fn add(state: &mut State, call: &mut Call<State>) -> Outcome {
    let params = &mut call.params;
    let (subsystem, host) = (subsystem(params)?, nqn(params, "host")?);
    let mut key = None;
    for name in ["psk", "dhchap_key", "dhchap_ctrlr_key"] {
        key = key.or(params.optional::<String>(name)?);
    }
    params.finish()?;
    if let Some(key) = key {
        // ENOKEY: there is no keyring, so there is no key.
        return Err(RpcError::errno_of(126, format!("'{key}'")));
    }
    let request = TargetRequest::AddHost {
        nqn: subsystem,
        host,
    };
    forward(state, call, request, done)
}

pub(super) fn remove(state: &mut State, call: &mut Call<State>) -> Outcome {
    let params = &mut call.params;
    let (subsystem, host) = (subsystem(params)?, nqn(params, "host")?);
    // The host's connections are closed at once, so there is nothing that could take longer.
    params.unused::<u64>(&["timeout_ms"])?;
    params.finish()?;
    let request = TargetRequest::RemoveHost {
        nqn: subsystem,
        host,
    };
    forward(state, call, request, done)
}

pub(super) fn allow_any(state: &mut State, call: &mut Call<State>) -> Outcome {
    let nqn = subsystem(&mut call.params)?;
    let allow = call.params.required("allow_any_host")?;
    call.params.finish()?;
    forward(
        state,
        call,
        TargetRequest::AllowAnyHost { nqn, allow },
        done,
    )
}
