//! Management methods about sockets, by SPDK's names. There is one implementation of sockets here, the system's, and TLS around
//! them where a listener has `secure_channel` or a controller `psk`: so there is little to choose, and what is asked for that is
//! not there is refused.

use pollux_reactor::rpc::{Answer, Call, MethodResult, ModuleMethods, Params, Phase, RpcError};
use serde_json::{Value, json};

const EINVAL: i32 = 22;

/// TLS 1.3, as `tls_version` says it; 0 is whatever both sides have, which is the same.
const TLS_VERSIONS: [u32; 2] = [0, 13];

/// Plain sockets, and those with TLS around them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Implementation {
    Posix,
    Ssl,
}

/// What a module keeps of sockets: whether the kernel encrypts secure connections that are made from now on (`enable_ktls`).
pub trait SocketOptions: Sized {
    /// Answers with what `show` makes of it.
    ///
    /// # Errors
    /// What the module cannot tell, as the answer.
    fn show_ktls(&mut self, call: &mut Call<Self>, show: fn(bool) -> Value) -> MethodResult;

    /// Sets it, and answers with true.
    ///
    /// # Errors
    /// What the module cannot do, as the answer.
    fn set_ktls(&mut self, call: &mut Call<Self>, wanted: bool) -> MethodResult;
}

/// Adds the methods to a module.
pub fn register<S: SocketOptions + Send + 'static>(
    module: ModuleMethods<'_, S>,
) -> ModuleMethods<'_, S> {
    module
        .method("sock_get_default_impl", Phase::Any, default)
        .method("sock_impl_get_options", Phase::Any, options)
        .method("sock_impl_set_options", Phase::Any, set_options)
        .method("sock_set_default_impl", Phase::Any, set_default)
}

/// The call that sets `enable_ktls`, as a configuration has it.
pub fn saved(ktls: bool) -> Value {
    let params = json!({"impl_name": "ssl", "enable_ktls": ktls});
    json!({"method": "sock_impl_set_options", "params": params})
}

fn implementation(params: &mut Params) -> Result<Implementation, RpcError> {
    let name: String = params.required("impl_name")?;
    match name.as_str() {
        "posix" => Ok(Implementation::Posix),
        "ssl" if cfg!(feature = "tls") => Ok(Implementation::Ssl),
        _ => Err(RpcError::errno_of(
            EINVAL,
            format!(
                "sockets '{}': 'posix' and 'ssl' are there",
                name.escape_debug()
            ),
        )),
    }
}

fn default<S>(_: &mut S, call: &mut Call<S>) -> MethodResult {
    call.params.finish()?;
    Ok(Answer::Now(json!({"impl_name": "posix"})))
}

fn set_default<S>(_: &mut S, call: &mut Call<S>) -> MethodResult {
    let implementation = implementation(&mut call.params)?;
    call.params.finish()?;
    match implementation {
        Implementation::Posix => Ok(Answer::Now(true.into())),
        Implementation::Ssl => Err(RpcError::errno_of(
            EINVAL,
            "TLS is not for all connections: a listener has it by 'secure_channel', a controller by 'psk'",
        )),
    }
}

fn options<S: SocketOptions>(state: &mut S, call: &mut Call<S>) -> MethodResult {
    let implementation = implementation(&mut call.params)?;
    call.params.finish()?;
    match implementation {
        Implementation::Posix => Ok(Answer::Now(shown(0, false))),
        Implementation::Ssl => state.show_ktls(call, |ktls| shown(13, ktls)),
    }
}

fn shown(tls_version: u32, enable_ktls: bool) -> Value {
    // Sizes of 0 are the system's.
    json!({
        "recv_buf_size": 0,
        "send_buf_size": 0,
        "enable_recv_pipe": false,
        "enable_quickack": false,
        "enable_placement_id": 0,
        "enable_zerocopy_send_server": false,
        "enable_zerocopy_send_client": false,
        "zerocopy_threshold": 0,
        "tls_version": tls_version,
        "enable_ktls": enable_ktls,
    })
}

/// What only makes SPDK's sockets faster is taken and changes nothing. `enable_ktls` is for the connections that a target accepts
/// from then on, and for the controllers that a host attaches from then on.
fn set_options<S: SocketOptions>(state: &mut S, call: &mut Call<S>) -> MethodResult {
    let params = &mut call.params;
    let implementation = implementation(params)?;
    params.unused::<u32>(&[
        "recv_buf_size",
        "send_buf_size",
        "enable_placement_id",
        "zerocopy_threshold",
    ])?;
    params.unused::<bool>(&[
        "enable_recv_pipe",
        "enable_quickack",
        "enable_zerocopy_send_server",
        "enable_zerocopy_send_client",
    ])?;
    let version: Option<u32> = params.optional("tls_version")?;
    if version.is_some_and(|version| !TLS_VERSIONS.contains(&version)) {
        return Err(params.invalid(
            "tls_version",
            "13 is the only version of TLS for NVMe/TCP, 0 stands for it",
        ));
    }
    let enable_ktls: Option<bool> = match implementation {
        Implementation::Posix => {
            params.off(&["enable_ktls"])?;
            None
        }
        Implementation::Ssl => params.optional("enable_ktls")?,
    };
    params.finish()?;
    match enable_ktls {
        Some(wanted) => state.set_ktls(call, wanted),
        None => Ok(Answer::Now(true.into())),
    }
}
