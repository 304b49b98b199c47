//! How fast hosts may use disks.

use pollux_reactor::rpc::{Call, MethodResult, Phase, RpcError};

use super::disks::EBUSY;
use super::{Module, State, done, forward};
use crate::rate_limit::RateChange;
use crate::target::control::request::TargetRequest;

/// The methods of this room.
pub(super) fn methods(module: Module<'_>) -> Module<'_> {
    module.method("bdev_set_qos_limit", Phase::Runtime, set)
}

/// `bdev_set_qos_limit`: answered when every reactor keeps to the new limits.
fn set(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let name: String = call.params.required("name")?;
    let change = RateChange::take(&mut call.params)?;
    state.disks.find_own(&name)?;
    let disk = state.disks.find(&name)?;
    let limits = change.apply(disk.limits);
    if let Some(over) = disk.over.as_ref().filter(|_| limits.is_limited()) {
        let text = format!("bdev '{name}' is used by bdev '{over}', which can have the limit");
        return Err(RpcError::errno_of(EBUSY, text));
    }
    disk.limits = limits;
    let request = TargetRequest::set_rate_limits(disk.disk.clone(), limits);
    forward(state, call, request, done)
}
