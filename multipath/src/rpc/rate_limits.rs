//! How fast volumes may be used.

use pollux_nvme_tcp::rate_limit::RateChange;
use pollux_reactor::rpc::{Call, MethodResult, Phase};

use super::{Module, State, done, forward};
use crate::request::HostRequest;

/// The methods of this room.
pub(super) fn methods(module: Module<'_>) -> Module<'_> {
    module.method("bdev_set_qos_limit", Phase::Runtime, set)
}

/// `bdev_set_qos_limit`: answered when every I/O reactor keeps to the new limits.
fn set(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let volume: String = call.params.required("name")?;
    let change = RateChange::take(&mut call.params)?;
    let request = |reply| HostRequest::SetRateLimits {
        volume,
        change,
        reply,
    };
    forward(state, call, request, done)
}
