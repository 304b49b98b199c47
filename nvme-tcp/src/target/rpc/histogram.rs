//! Latency histograms of disks.

use pollux_reactor::rpc::{Call, MethodResult, Phase, RpcError};

use super::{Module, State, done, forward};
use crate::rpc::histogram::{EnableParams, HistogramParams};
use crate::target::control::request::TargetRequest;

/// The methods of this room.
pub(super) fn methods(module: Module<'_>) -> Module<'_> {
    module
        .method("bdev_enable_histogram", Phase::Runtime, enable)
        .method("bdev_get_histogram", Phase::Runtime, |state, call| {
            let params = HistogramParams::take(&mut call.params);
            get(state, call, params)
        })
        .method(
            "bdev_get_histogram_borders",
            Phase::Runtime,
            |state, call| {
                let params = HistogramParams::take_with_borders(&mut call.params);
                get(state, call, params)
            },
        )
}

/// `bdev_enable_histogram`: begins or ends to count, whether a namespace is made of the disk or not; what was counted before
/// is forgotten. What a disk below another one does is counted of the upper one.
fn enable(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let EnableParams { name, layout, .. } = EnableParams::take(&mut call.params)?;
    let disk = state.disks.find_own(&name)?.disk.clone();
    forward(
        state,
        call,
        TargetRequest::set_histogram(disk, layout),
        done,
    )
}

/// The counts of all reactors together, as they are asked for.
fn get(
    state: &State,
    call: &mut Call<State>,
    params: Result<HistogramParams, RpcError>,
) -> MethodResult {
    let params = params?;
    let disk = state.disks.find_own(&params.name)?.disk.clone();
    forward(
        state,
        call,
        TargetRequest::histogram(disk),
        move |counted| params.answer(counted),
    )
}
