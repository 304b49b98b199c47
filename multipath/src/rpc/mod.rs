//! The host's management methods (`bdev_nvme_*`, `bdev_*`), with the names and shapes that SPDK's clients know.
//!
//! The methods are thin: they turn parameters into a [`HostRequest`] and its answer into JSON. What they keep
//! themselves are the defaults of `bdev_nvme_set_options`. What SPDK does not have stands in members named
//! `pollux`.
//!
//! Options of SPDK that have no meaning here, such as the sizes of its pools, are checked for their type and
//! change nothing; what would be asked for in vain, such as keys, is refused.

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
mod options;
mod paths;
mod policy;
mod volumes;

use pollux_nvme_tcp::spec::log::AnaState;
use pollux_reactor::rpc::{Answer, Call, Methods, Outcome, Phase, RpcError};
use serde_json::Value;

use self::options::Options;
use crate::error::HostError;
use crate::host::Host;
use crate::request::{HostRequest, Reply};

/// Ticks of the clock that times and latencies are told in.
const TICKS_PER_SEC: u64 = 1_000_000_000;

const EIO: i32 = 5;
const EFAULT: i32 = 14;
const EEXIST: i32 = 17;
const ENODEV: i32 = 19;
const EINVAL: i32 = 22;
const EALREADY: i32 = 114;
const ENOKEY: i32 = 126;

/// What the methods keep.
struct State {
    host: SendRequest,
    options: Options,
}

type SendRequest = Box<dyn Fn(HostRequest) -> Result<(), HostRequest> + Send>;

/// Adds the host's methods, which act on `host`. They may run on any reactor.
pub fn register<M: Send + 'static>(methods: &mut Methods, host: Host<M>) {
    let state = State {
        host: Box::new(move |request| host.request(request)),
        options: Options::default(),
    };
    let run = Phase::Runtime;
    methods
        .module(state)
        .subsystem("bdev", config::bdev)
        .method("bdev_enable_histogram", run, histogram::enable)
        .method("bdev_examine", Phase::Any, volumes::examine)
        .method("bdev_get_bdevs", run, volumes::list)
        .method("bdev_get_histogram", run, histogram::get)
        .method("bdev_get_iostat", run, iostat::get)
        .method("bdev_nvme_add_error_injection", run, faults::add)
        .method_with_address("bdev_nvme_attach_controller", None, run, attach::attach)
        .method_with_address("bdev_nvme_detach_controller", None, run, attach::detach)
        .method("bdev_nvme_disable_controller", run, controllers::disable)
        .method("bdev_nvme_enable_controller", run, controllers::enable)
        .method(
            "bdev_nvme_get_controller_health_info",
            run,
            admin::health_info,
        )
        .method("bdev_nvme_get_controllers", run, controllers::list)
        .method("bdev_nvme_get_discovery_info", run, discovery::info)
        .method("bdev_nvme_get_io_paths", run, paths::io_paths)
        .method("bdev_nvme_get_path_iostat", run, iostat::paths)
        .method(
            "bdev_nvme_get_transport_statistics",
            run,
            paths::transport_statistics,
        )
        .method("bdev_nvme_remove_error_injection", run, faults::remove)
        .method("bdev_nvme_reset_controller", run, controllers::reset)
        .method("bdev_nvme_send_cmd", run, admin::send_cmd)
        .method("bdev_nvme_set_multipath_policy", run, paths::set_policy)
        .method("bdev_nvme_set_options", Phase::Any, options::set)
        .method("bdev_nvme_set_preferred_path", run, paths::set_preferred)
        .method_with_address("bdev_nvme_start_discovery", None, run, discovery::start)
        .method("bdev_nvme_stop_discovery", run, discovery::stop)
        .method("bdev_reset_iostat", run, iostat::reset)
        .method("bdev_set_options", Phase::Startup, volumes::set_options)
        .method("bdev_wait_for_examine", run, volumes::wait_for_examine)
        .method("notify_get_notifications", run, volumes::notifications)
        .method("notify_get_types", run, volumes::notification_types)
        .method("pollux_get_path_events", run, paths::events);
}

/// Sends a request whose answer becomes the result.
fn forward<T: 'static>(
    state: &State,
    call: &mut Call<State>,
    request: impl FnOnce(Reply<T>) -> HostRequest,
    result: impl FnOnce(T) -> Result<Value, RpcError> + Send + 'static,
) -> Outcome {
    let responder = call.responder()?;
    let reply: Reply<T> = Box::new(move |answer: Result<T, HostError>| {
        responder.answer(answer.map_err(|e| error(&e)).and_then(result));
    });
    // A host that has stopped drops the reply, and with it the responder, which answers by itself.
    let _ = (state.host)(request(reply));
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
        HostError::Mismatch(_) | HostError::Invalid(_) => EINVAL,
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
