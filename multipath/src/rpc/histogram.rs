//! Latency histograms of volumes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pollux_reactor::rpc::{Call, MethodResult, Phase, RpcError};
use serde_json::json;

use super::{EFAULT, EINVAL, Module, State, TICKS_PER_SEC, done, forward};
use crate::command::Op;
use crate::histogram::{HistogramLayout, LatencyHistogram};
use crate::request::HostRequest;

/// The methods of this room.
pub(super) fn methods(module: Module<'_>) -> Module<'_> {
    module
        .method("bdev_enable_histogram", Phase::Runtime, enable)
        .method("bdev_get_histogram", Phase::Runtime, get)
}

/// `bdev_enable_histogram`: begins or ends to count; what was counted before is forgotten.
fn enable(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let params = &mut call.params;
    let volume: String = params.required("name")?;
    let enable: bool = params.required("enable")?;
    let only = params.one_of("opc", &Op::ALL.map(|op| (op.name(), op)))?;
    let granularity = params.optional("granularity")?.filter(|&g: &u8| g > 0);
    let min_ns: Option<u64> = params.optional("min_nsec")?;
    let max_ns = params.optional("max_nsec")?.filter(|&max: &u64| max > 0);
    params.finish()?;
    let granularity = granularity.unwrap_or(HistogramLayout::default().granularity());
    let layout = HistogramLayout::new(granularity, min_ns.unwrap_or(0), max_ns.unwrap_or(u64::MAX));
    let Some(mut layout) = layout else {
        let text = "a granularity of 1 to 10 and a min_nsec below max_nsec are allowed";
        return Err(RpcError::errno_of(EINVAL, text));
    };
    layout.only = only;
    forward(
        state,
        call,
        |reply| HostRequest::SetHistogram {
            volume,
            layout: enable.then_some(layout),
            reply,
        },
        done,
    )
}

/// `bdev_get_histogram`: the counts of all reactors together, 8 bytes each, little endian, in Base64.
fn get(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let volume: String = call.params.required("name")?;
    call.params.finish()?;
    forward(
        state,
        call,
        |reply| HostRequest::Histogram { volume, reply },
        |histogram: Option<LatencyHistogram>| {
            let Some(histogram) = histogram else {
                let text = "no histogram is counted; see bdev_enable_histogram";
                return Err(RpcError::errno_of(EFAULT, text));
            };
            let counts = histogram.counts().iter();
            let bytes: Vec<u8> = counts.flat_map(|count| count.to_le_bytes()).collect();
            let layout = histogram.layout();
            let (min_range, max_range) = layout.ranges();
            Ok(json!({
                "histogram": STANDARD.encode(bytes),
                "granularity": layout.granularity(),
                "min_range": min_range,
                "max_range": max_range,
                "tsc_rate": TICKS_PER_SEC,
            }))
        },
    )
}
