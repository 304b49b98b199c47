//! The host's management methods (`bdev_nvme_*`, `bdev_*`), with the names and shapes that SPDK's clients know.
//!
//! The methods are thin, and stand with their names in the room that they are about: they turn parameters into a [`HostRequest`] and its answer into JSON. What they keep
//! themselves are the defaults of `bdev_nvme_set_options`. What SPDK does not have stands in members named
//! `pollux`.
//!
//! Options of SPDK that have no meaning here, such as the sizes of its pools, are checked for their type and
//! change nothing; what would be asked for in vain, such as keys for TLS, is refused.

mod address;
mod admin;
mod attach;
mod config;
mod controllers;
mod discovery;
mod faults;
mod fencing;
mod histogram;
mod iostat;
mod keys;
mod options;
mod paths;
mod policy;
mod rate_limits;
mod volumes;

pub use self::volumes::find_disk;

use pollux_nvme_tcp::rpc::sockets::SocketOptions;
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_reactor::rpc::{Answer, Call, MethodResult, Methods, ModuleMethods, RpcError};
use serde_json::Value;

use self::options::Options;
use crate::error::HostError;
use crate::host::Host;
use crate::request::{HostRequest, Reply};

/// Ticks of the clock that times and latencies are told in.
const TICKS_PER_SEC: u64 = 1_000_000_000;

const EIO: i32 = 5;
const EEXIST: i32 = 17;
const ENODEV: i32 = 19;
const EINVAL: i32 = 22;
const EOPNOTSUPP: i32 = 95;
const EALREADY: i32 = 114;
#[cfg(not(all(feature = "auth", feature = "tls")))]
const ENOKEY: i32 = 126;

/// What the methods keep.
struct State {
    host: SendRequest,
    options: Options,
    #[cfg(feature = "auth")]
    keyring: pollux_nvme_tcp::auth::Keyring,
}

#[cfg(feature = "auth")]
impl AsMut<pollux_nvme_tcp::auth::Keyring> for State {
    fn as_mut(&mut self) -> &mut pollux_nvme_tcp::auth::Keyring {
        &mut self.keyring
    }
}

type SendRequest = Box<dyn Fn(HostRequest) -> Result<(), HostRequest> + Send>;

impl SocketOptions for State {
    fn show_ktls(&mut self, _: &mut Call<State>, show: fn(bool) -> Value) -> MethodResult {
        Ok(Answer::Now(show(self.options.ktls)))
    }

    fn set_ktls(&mut self, _: &mut Call<State>, wanted: bool) -> MethodResult {
        self.options.ktls = wanted;
        Ok(Answer::Now(true.into()))
    }
}

impl State {
    /// Sends a request to the host. One that it does not take, because it has stopped or has too much to do, is dropped
    /// with its reply, and with that the responder, which answers by itself.
    fn request(&self, request: HostRequest) {
        drop((self.host)(request));
    }
}

/// The methods that act on a [`State`]. Each room adds its own to them.
type Module<'a> = ModuleMethods<'a, State>;

/// The rooms that have methods.
const ROOMS: [fn(Module<'_>) -> Module<'_>; 11] = [
    admin::methods,
    attach::methods,
    controllers::methods,
    discovery::methods,
    faults::methods,
    iostat::methods,
    keys::methods,
    options::methods,
    paths::methods,
    rate_limits::methods,
    volumes::methods,
];

/// Adds the host's methods, which act on `host`. They may run on any reactor.
pub fn register<M: Send + 'static>(methods: &mut Methods, host: Host<M>) {
    let state = State {
        host: Box::new(move |request| host.request(request)),
        options: Options::default(),
        #[cfg(feature = "auth")]
        keyring: Default::default(),
    };
    let module = methods.module(state);
    #[cfg(feature = "auth")]
    let module = pollux_nvme_tcp::rpc::keyring::register(module);
    let module = pollux_nvme_tcp::rpc::sockets::register(module);
    let module = pollux_nvme_tcp::rpc::iobuf::register(module);
    let module = pollux_nvme_tcp::rpc::histogram::register(module);
    let module = module.subsystem("bdev", config::bdev);
    ROOMS.into_iter().fold(module, |module, room| room(module));
}

/// Sends a request whose answer becomes the result.
fn forward<T: 'static>(
    state: &State,
    call: &mut Call<State>,
    request: impl FnOnce(Reply<T>) -> HostRequest,
    result: impl FnOnce(T) -> Result<Value, RpcError> + Send + 'static,
) -> MethodResult {
    let responder = call.responder()?;
    let reply: Reply<T> = Box::new(move |answer: Result<T, HostError>| {
        responder.answer(answer.map_err(|e| error(&e)).and_then(result));
    });
    state.request(request(reply));
    Ok(Answer::Later)
}

/// The result of a method that only does something.
fn done(_: ()) -> Result<Value, RpcError> {
    Ok(Value::Bool(true))
}

/// The error numbers that clients tell apart.
fn error(error: &HostError) -> RpcError {
    let number = match error {
        HostError::Connect { .. }
        | HostError::Timeout(_)
        | HostError::TooFewQueues { .. }
        | HostError::Discovery { .. }
        | HostError::Socket(..) => EIO,
        HostError::DiscoveryExists(_) => EEXIST,
        HostError::Exists(_) | HostError::Already(_) => EALREADY,
        HostError::Mismatch(_) | HostError::Invalid(_) | HostError::QueueLimit { .. } => EINVAL,
        HostError::NotFound(_) => ENODEV,
        HostError::Cancelled(_) => return RpcError::internal(error.to_string()),
    };
    RpcError::errno_of(number, error)
}

/// An ANA state as clients spell it.
fn ana_name(state: AnaState) -> String {
    state.to_string()
}

/// No such volume.
fn no_volume(name: &str) -> RpcError {
    RpcError::errno_of(ENODEV, format!("bdev '{name}'"))
}
