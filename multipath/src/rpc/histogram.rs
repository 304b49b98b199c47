//! Latency histograms of volumes.

use pollux_nvme_tcp::rpc::histogram::{EnableParams, HistogramParams};
use pollux_reactor::rpc::{Call, MethodResult, Phase, RpcError};

use super::{Module, State, done, forward};
use crate::request::HostRequest;

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

/// `bdev_enable_histogram`: begins or ends to count; what was counted before is forgotten.
fn enable(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let EnableParams { name, layout, .. } = EnableParams::take(&mut call.params)?;
    forward(
        state,
        call,
        |reply| HostRequest::SetHistogram {
            volume: name,
            layout,
            reply,
        },
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
    let volume = params.name.clone();
    forward(
        state,
        call,
        |reply| HostRequest::Histogram { volume, reply },
        move |counted| params.answer(counted),
    )
}
