//! Keys by name, for in-band authentication.

use pollux_nvme_tcp::auth::HostAuth;
use pollux_nvme_tcp::auth::KeyNames;
use pollux_nvme_tcp::tls::HostTls;
use pollux_reactor::rpc::{Call, MethodResult, Phase, RpcError};

use super::{Module, State, done, forward};
use crate::request::HostRequest;

/// The methods of this room.
pub(super) fn methods(module: Module<'_>) -> Module<'_> {
    module.method("bdev_nvme_set_keys", Phase::Runtime, set)
}

/// `bdev_nvme_set_keys`: answers when the controllers of the name have authenticated with them.
fn set(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let name: String = call.params.required("name")?;
    let key_names = KeyNames::take(&mut call.params)?;
    call.params.finish()?;
    let auth = key_names.as_ref().map(|names| auth(state, names));
    let auth = auth.transpose()?.map(Box::new);
    let request = |reply| HostRequest::SetKeys {
        name,
        auth,
        key_names,
        reply,
    };
    forward(state, call, request, done)
}

/// With what to authenticate.
#[cfg(feature = "auth")]
pub(super) fn auth(state: &State, names: &KeyNames) -> Result<HostAuth, RpcError> {
    Ok(HostAuth::new(
        state.keyring.keys(names)?,
        state.options.auth.policy(),
    ))
}

/// With what to authenticate at an attach: `secure_concatenation` wants a key of it, and no other key for TLS.
pub(super) fn auth_of(
    state: &State,
    names: Option<&KeyNames>,
    concatenate: Option<bool>,
    psk: Option<&String>,
) -> Result<Option<HostAuth>, RpcError> {
    let mut auth = names.map(|names| auth(state, names)).transpose()?;
    if concatenate == Some(true) {
        if psk.is_some() {
            let text = "'secure_concatenation' makes a key of its own: it does not go with 'psk'";
            return Err(RpcError::invalid_params(text));
        }
        let Some(auth) = &mut auth else {
            let text = "'secure_concatenation' needs a 'dhchap_key'";
            return Err(RpcError::invalid_params(text));
        };
        auth.concatenate = true;
    }
    Ok(auth)
}

/// Without a keyring there are no keys.
#[cfg(not(feature = "auth"))]
pub(super) fn auth(_: &State, names: &KeyNames) -> Result<HostAuth, RpcError> {
    let name = &names.dhchap_key;
    Err(RpcError::errno_of(super::ENOKEY, format!("key '{name}'")))
}

/// With what to make connections secure.
#[cfg(feature = "tls")]
pub(super) fn tls(state: &State, name: &str) -> Result<HostTls, RpcError> {
    Ok(HostTls::new(state.keyring.psk(name)?))
}

/// Without TLS there are no keys for it.
#[cfg(not(feature = "tls"))]
pub(super) fn tls(_: &State, name: &str) -> Result<HostTls, RpcError> {
    Err(RpcError::errno_of(super::ENOKEY, format!("key '{name}'")))
}
