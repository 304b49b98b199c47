//! Fault injection between a controller and its host.

use std::time::Duration;

use pollux_nvme_tcp::host::{FaultChange, InjectedFault};
use pollux_nvme_tcp::spec::status::Status;
use pollux_reactor::rpc::{Call, MethodResult, Params, Phase, RpcError};

use super::{Module, State, done, forward};
use crate::request::HostRequest;

/// The methods of this room.
pub(super) fn methods(module: Module<'_>) -> Module<'_> {
    module
        .method("bdev_nvme_add_error_injection", Phase::Runtime, add)
        .method("bdev_nvme_remove_error_injection", Phase::Runtime, remove)
}

/// `bdev_nvme_add_error_injection`: the next commands of one opcode to the controllers of a name end with an
/// error, after they were carried out or instead of it. Each connection counts for itself, and one that is made
/// again has none of them.
fn add(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let (name, admin, opcode) = command(&mut call.params)?;
    let held = call.params.optional("do_not_submit")?.unwrap_or(false);
    let after_us: u64 = call.params.optional("timeout_in_us")?.unwrap_or(0);
    let count = call.params.optional("err_count")?.unwrap_or(1);
    let sct: u8 = call.params.optional("sct")?.unwrap_or(0);
    let sc: u8 = call
        .params
        .optional("sc")?
        .unwrap_or(Status::INVALID_OPCODE.sc());
    if sct > 7 {
        return Err(call.params.invalid("sct", "at most 7"));
    }
    if after_us > 0 && !held {
        let text = "has a meaning with 'do_not_submit' only";
        return Err(call.params.invalid("timeout_in_us", text));
    }
    call.params.finish()?;
    let mut fault = InjectedFault::new(opcode, count, Status::new(sct, sc));
    fault.held_for = held.then(|| Duration::from_micros(after_us));
    change(state, call, name, admin, FaultChange::Add(fault))
}

/// `bdev_nvme_remove_error_injection`
fn remove(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let (name, admin, opcode) = command(&mut call.params)?;
    call.params.finish()?;
    change(state, call, name, admin, FaultChange::Remove(opcode))
}

/// Name, whether it is about admin commands, and the opcode.
fn command(params: &mut Params) -> Result<(String, bool, u8), RpcError> {
    let name = params.required("name")?;
    let admin = params
        .one_of("cmd_type", &[("admin", true), ("io", false)])?
        .ok_or_else(|| RpcError::invalid_params("'cmd_type' is missing"))?;
    Ok((name, admin, params.required("opc")?))
}

fn change(
    state: &State,
    call: &mut Call<State>,
    name: String,
    admin: bool,
    change: FaultChange,
) -> MethodResult {
    forward(
        state,
        call,
        |reply| HostRequest::Fault {
            name,
            admin,
            change,
            reply,
        },
        done,
    )
}
