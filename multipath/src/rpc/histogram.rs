//! Latency histograms of volumes.

use pollux_nvme_tcp::histogram::{HistogramLayout, LatencyHistogram};
use pollux_nvme_tcp::rpc::histogram::Histograms;
use pollux_reactor::rpc::{Call, MethodResult, RpcError};
use serde_json::Value;

use super::{State, done, forward};
use crate::request::HostRequest;

impl Histograms for State {
    fn set_histogram(
        &mut self,
        call: &mut Call<State>,
        volume: String,
        layout: Option<HistogramLayout>,
    ) -> MethodResult {
        let request = |reply| HostRequest::SetHistogram {
            volume,
            layout,
            reply,
        };
        forward(self, call, request, done)
    }

    fn show_histogram(
        &mut self,
        call: &mut Call<State>,
        volume: String,
        show: impl FnOnce(Option<LatencyHistogram>) -> Result<Value, RpcError> + Send + 'static,
    ) -> MethodResult {
        let request = |reply| HostRequest::Histogram { volume, reply };
        forward(self, call, request, show)
    }
}
