//! Latency histograms of disks.

use pollux_reactor::rpc::{Call, MethodResult, RpcError};
use serde_json::Value;

use super::{State, done, forward};
use crate::histogram::{HistogramLayout, LatencyHistogram};
use crate::rpc::histogram::Histograms;
use crate::target::control::request::TargetRequest;

/// Of a disk whether a namespace is made of it or not. What a disk below another one does is counted of the upper one.
impl Histograms for State {
    fn set_histogram(
        &mut self,
        call: &mut Call<State>,
        name: String,
        layout: Option<HistogramLayout>,
    ) -> MethodResult {
        let disk = self.disks.find_own(&name)?.disk.clone();
        let request = TargetRequest::set_histogram(disk, layout);
        forward(self, call, request, done)
    }

    fn show_histogram(
        &mut self,
        call: &mut Call<State>,
        name: String,
        show: impl FnOnce(Option<LatencyHistogram>) -> Result<Value, RpcError> + Send + 'static,
    ) -> MethodResult {
        let disk = self.disks.find_own(&name)?.disk.clone();
        forward(self, call, TargetRequest::histogram(disk), show)
    }
}
