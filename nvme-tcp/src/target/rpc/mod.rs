//! The target's management methods (`nvmf_*`, `bdev_*`), with the names and shapes that SPDK's clients know.
//!
//! The methods are thin, and stand with their names in the room that they are about: they turn parameters into a [`TargetRequest`] and its answer into JSON. What they keep
//! themselves is what the target has no notion of: named disks, and the parameters of the transport.

mod address;
mod config;
mod disks;
mod flags;
mod foreign;
mod histogram;
mod hosts;
mod iostat;
mod listeners;
mod listing;
mod namespaces;
mod rate_limits;
mod settings;
mod status;
mod subsystems;
mod transport;

use pollux_reactor::rpc::{
    Answer, Call, Mail, MethodResult, Methods, ModuleMethods, Params, Responder, RpcError,
};
use serde_json::{Map, Value};

use std::net::SocketAddr;
use std::time::Duration;

use self::disks::Disks;
use self::disks::{resize, stacked};
pub use self::flags::register_with;
pub use self::foreign::{FindDisk, ForeignDisk, WantedDisk, register_beside};
use crate::auth::Keyring;
use crate::rpc::dhchap::PolicyNames;
use crate::spec::nqn::Nqn;
use crate::target::control::handle::TargetHandle;
use crate::target::control::request::{Removed, TargetRequest};
use crate::target::error::TargetError;

/// The only target that there is, for clients that name it.
const TARGET_NAME: &str = "nvmf_tgt";

/// The object with the address of a listener.
const LISTEN_ADDRESS: Option<&str> = Some("listen_address");

/// What the methods keep.
struct State {
    target: TargetHandle,
    /// Parameters of `nvmf_create_transport`, once it was called.
    transport: Option<Map<String, Value>>,
    /// The transport came with a command line, which cannot give it parameters; that method still can.
    transport_is_default: bool,
    /// Listeners of the discovery subsystem.
    discovery_listeners: Vec<SocketAddr>,
    retry_delays: [u16; 3],
    /// How many subsystems there may be, if that was set.
    max_subsystems: Option<u32>,
    /// What hosts that authenticate may choose from.
    auth: PolicyNames,
    disks: Disks,
    /// Finds disks that have no method here.
    foreign: Option<FindDisk>,
    #[cfg(feature = "auth")]
    keyring: Keyring,
}

#[cfg(feature = "auth")]
impl AsMut<Keyring> for State {
    fn as_mut(&mut self) -> &mut Keyring {
        &mut self.keyring
    }
}

/// Adds the target's methods, which act on `target`. They may run on any reactor.
pub fn register(methods: &mut Methods, target: TargetHandle) {
    register_state(methods, State::new(target, Keyring::default()));
}

impl State {
    fn new(target: TargetHandle, keyring: Keyring) -> State {
        #[cfg(not(feature = "auth"))]
        let Keyring {} = keyring;
        State {
            target,
            transport: None,
            transport_is_default: false,
            discovery_listeners: Vec::new(),
            retry_delays: [0; 3],
            max_subsystems: None,
            auth: PolicyNames::default(),
            disks: Disks::default(),
            foreign: None,
            #[cfg(feature = "auth")]
            keyring,
        }
    }
}

/// The methods that act on a [`State`]. Each room adds its own to them.
type Module<'a> = ModuleMethods<'a, State>;

/// The rooms that have methods.
const ROOMS: [fn(Module<'_>) -> Module<'_>; 13] = [
    disks::methods,
    resize::methods,
    stacked::methods,
    hosts::methods,
    iostat::methods,
    listeners::methods,
    listing::methods,
    namespaces::methods,
    rate_limits::methods,
    settings::methods,
    status::methods,
    subsystems::methods,
    transport::methods,
];

fn register_state(methods: &mut Methods, state: State) {
    let module = methods.module(state);
    #[cfg(feature = "auth")]
    let module = crate::rpc::keyring::register(module);
    let module = crate::rpc::sockets::register(module);
    let module = crate::rpc::iobuf::register(module);
    let module = crate::rpc::histogram::register(module);
    let module = module
        .subsystem("bdev", config::bdev)
        .subsystem("nvmf", config::nvmf);
    ROOMS.into_iter().fold(module, |module, room| room(module));
}

/// Sends a request whose answer becomes the result.
fn forward<A: Send + 'static>(
    state: &State,
    call: &mut Call<State>,
    request: TargetRequest<A>,
    result: impl FnOnce(A) -> Result<Value, RpcError> + Send + 'static,
) -> MethodResult {
    let responder = call.responder()?;
    state.target.request(request, move |answer| {
        responder.answer(answer.map_err(error).and_then(result));
    });
    Ok(Answer::Later)
}

/// Sends a request; `then` takes its answer in and makes the result of it.
fn forward_then<A: Send + 'static>(
    state: &State,
    call: &mut Call<State>,
    request: TargetRequest<A>,
    then: impl FnOnce(&mut State, Result<A, RpcError>) -> Result<Value, RpcError> + Send + 'static,
) -> MethodResult {
    let way = (call.responder()?, call.mail.clone());
    send_then(state, way, request, then);
    Ok(Answer::Later)
}

/// As [`forward_then`], for a call whose method has returned.
fn send_then<A: Send + 'static>(
    state: &State,
    (responder, mail): (Responder, Mail<State>),
    request: TargetRequest<A>,
    then: impl FnOnce(&mut State, Result<A, RpcError>) -> Result<Value, RpcError> + Send + 'static,
) {
    state.target.request(request, move |answer| {
        let answer = answer.map_err(error);
        mail.run(move |state| responder.answer(then(state, answer)));
    });
}

/// Takes the time that a removal may take: 0 or none is no limit.
fn take_limit(params: &mut Params) -> Result<Option<Duration>, RpcError> {
    let timeout_ms: Option<u64> = params.optional("timeout_ms")?;
    Ok(timeout_ms.filter(|&ms| ms > 0).map(Duration::from_millis))
}

/// Sends a removal. It is answered when nothing of what is removed can execute any more, or `limit` is over; `gone` takes
/// in that it has come to its end, which is later then, and makes the result.
fn forward_removal(
    state: &State,
    call: &mut Call<State>,
    (request, limit): (TargetRequest<Removed>, Option<Duration>),
    gone: impl FnOnce(&mut State, Result<Removed, RpcError>) -> Result<Value, RpcError> + Send + 'static,
) -> MethodResult {
    let responder = call.responder()?;
    let (mail, target, again) = (call.mail.clone(), state.target.clone(), request.clone());
    let reply = move |answer| match answer {
        Err(TargetError::Timeout) => {
            responder.answer(Err(error(TargetError::Timeout)));
            // The removal goes on all the same. Whoever asks for it again, without a limit, hears of its end.
            target.request(again, move |_| {
                mail.run(move |state| drop(gone(state, Ok(Removed))));
            });
        }
        answer => {
            mail.run(move |state| responder.answer(gone(state, answer.map_err(error))));
        }
    };
    state.target.request(limited(request, limit), reply);
    Ok(Answer::Later)
}

fn limited(request: TargetRequest<Removed>, limit: Option<Duration>) -> TargetRequest<Removed> {
    match limit {
        None => request,
        Some(limit) => request.within(limit),
    }
}

/// The result of a method that only does something.
fn done<A>(_: A) -> Result<Value, RpcError> {
    Ok(Value::Bool(true))
}

/// The name of the subsystem, and that of the target, which may be left out.
fn subsystem(params: &mut Params) -> Result<Nqn, RpcError> {
    target_name(params)?;
    nqn(params, "nqn")
}

fn target_name(params: &mut Params) -> Result<(), RpcError> {
    match params.optional::<String>("tgt_name")? {
        Some(name) if name != TARGET_NAME => Err(RpcError::internal(format!(
            "Unable to find target '{name}'"
        ))),
        _ => Ok(()),
    }
}

fn nqn(params: &mut Params, name: &str) -> Result<Nqn, RpcError> {
    let text: String = params.required(name)?;
    Nqn::new(&text).map_err(|e| params.invalid(name, format!("'{text}': {e}")))
}

/// EEXIST, ENOENT, EBUSY and so on of the errors that clients tell apart; the rest is -32602.
fn error(error: TargetError) -> RpcError {
    const ENOENT: i32 = 2;
    const EBUSY: i32 = 16;
    const EEXIST: i32 = 17;
    const ENOSPC: i32 = 28;
    let text = error.to_string();
    match error {
        TargetError::InvalidParameters(_) | TargetError::InvalidCntlidRange { .. } => {
            RpcError::new(-32602, text)
        }
        TargetError::InvalidValue(_) | TargetError::Discovery => RpcError::invalid_params(text),
        TargetError::NoSuchSubsystem(_)
        | TargetError::NoSuchNamespace(_)
        | TargetError::NoSuchListener(_)
        | TargetError::NoSuchHost(_)
        | TargetError::NoSuchReferral => RpcError::new(-ENOENT, text),
        TargetError::SubsystemExists(_)
        | TargetError::NamespaceExists(_)
        | TargetError::NoFreeNamespace
        | TargetError::ListenerExists(_)
        | TargetError::HostExists(_)
        | TargetError::ReferralExists => RpcError::new(-EEXIST, text),
        TargetError::TooManySubsystems(_) => RpcError::new(-ENOSPC, text),
        TargetError::Busy => RpcError::new(-EBUSY, text),
        TargetError::Timeout => RpcError::internal("Timeout reached during removal"),
        TargetError::Io { .. } | TargetError::Stopped => RpcError::internal(text),
    }
}
