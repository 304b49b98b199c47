//! Keys by name, for in-band authentication.

use pollux_nvme_tcp::auth::HostAuth;
use pollux_nvme_tcp::auth::KeyNames;
use pollux_reactor::rpc::RpcError;

use super::State;

/// With what to authenticate.
#[cfg(feature = "auth")]
pub(super) fn auth(state: &State, names: &KeyNames) -> Result<HostAuth, RpcError> {
    Ok(HostAuth {
        keys: state.keyring.keys(names)?,
        policy: Default::default(),
        threads: true,
    })
}

/// Without a keyring there are no keys.
#[cfg(not(feature = "auth"))]
pub(super) fn auth(_: &State, names: &KeyNames) -> Result<HostAuth, RpcError> {
    let name = &names.dhchap_key;
    Err(RpcError::errno_of(super::ENOKEY, format!("key '{name}'")))
}
