//! `keyring_*`: keys by name.

use pollux_reactor::rpc::{Answer, Call, MethodResult, ModuleMethods, Phase, RpcError};
use serde_json::{Value, json};

use crate::auth::{KernelKeyError, Keyring, KeyringError};

/// EEXIST, ENOENT, ENOKEY.
const EEXIST: i32 = 17;
const ENOENT: i32 = 2;
const ENOKEY: i32 = 126;

impl From<KeyringError> for RpcError {
    fn from(error: KeyringError) -> Self {
        let text = error.to_string();
        match error {
            KeyringError::Exists(_) => Self::new(-EEXIST, text),
            KeyringError::Unknown(name) => Self::errno_of(ENOKEY, format!("key '{name}'")),
            KeyringError::Kernel {
                error: KernelKeyError::Absent,
                ..
            } => Self::new(-ENOKEY, text),
            KeyringError::File { .. } | KeyringError::Kernel { .. } => Self::new(-1, text),
            KeyringError::Secret { .. } | KeyringError::Psk { .. } => Self::invalid_params(text),
        }
    }
}

/// Adds the methods of a keyring to a module that has one. First of its methods: a configuration is loaded in the order of
/// subsystems, and keys come before those who use them.
pub fn register<S: AsMut<Keyring> + Send + 'static>(
    module: ModuleMethods<'_, S>,
) -> ModuleMethods<'_, S> {
    module
        .subsystem("keyring", saved::<S>)
        .method("keyring_file_add_key", Phase::Any, add::<S>)
        .method("keyring_file_remove_key", Phase::Any, remove::<S>)
        .method("keyring_get_keys", Phase::Any, list::<S>)
        .method("keyring_linux_set_options", Phase::Any, set_linux::<S>)
}

fn add<S: AsMut<Keyring>>(state: &mut S, call: &mut Call<S>) -> MethodResult {
    let name: String = call.params.required("name")?;
    let path = call.params.file("path")?;
    call.params.finish()?;
    state.as_mut().add_file(&name, &path)?;
    Ok(Answer::Now(Value::Bool(true)))
}

fn remove<S: AsMut<Keyring>>(state: &mut S, call: &mut Call<S>) -> MethodResult {
    let name: String = call.params.required("name")?;
    call.params.finish()?;
    state
        .as_mut()
        .remove(&name)
        .map_err(|error| RpcError::new(-ENOENT, error.to_string()))?;
    Ok(Answer::Now(Value::Bool(true)))
}

fn set_linux<S: AsMut<Keyring>>(state: &mut S, call: &mut Call<S>) -> MethodResult {
    let enable = call.params.optional("enable")?.unwrap_or(false);
    call.params.finish()?;
    state.as_mut().set_with_kernel(enable);
    Ok(Answer::Now(Value::Bool(true)))
}

fn list<S: AsMut<Keyring>>(state: &mut S, call: &mut Call<S>) -> MethodResult {
    call.params.finish()?;
    let keys = state.as_mut().files().map(|(name, path)| {
        json!({
            "name": name,
            "module": "keyring_file",
            "removed": false,
            "probed": true,
            "path": path.display().to_string(),
        })
    });
    Ok(Answer::Now(keys.collect()))
}

fn saved<S: AsMut<Keyring>>(state: &mut S, call: &mut Call<S>) -> MethodResult {
    call.params.finish()?;
    let keyring = state.as_mut();
    let kernel = keyring
        .is_with_kernel()
        .then(|| json!({"method": "keyring_linux_set_options", "params": {"enable": true}}));
    let files = keyring.files().map(|(name, path)| {
        let params = json!({"name": name, "path": path.display().to_string()});
        json!({"method": "keyring_file_add_key", "params": params})
    });
    Ok(Answer::Now(kernel.into_iter().chain(files).collect()))
}
