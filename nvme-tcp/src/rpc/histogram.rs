//! Methods about latency histograms, of disks and of volumes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pollux_reactor::rpc::{Call, MethodResult, ModuleMethods, Phase, RpcError};
use serde_json::{Value, json};

use crate::histogram::{HistogramLayout, LatencyHistogram};
use crate::spec::opcode::nvm;

const EFAULT: i32 = 14;
const EINVAL: i32 = 22;

/// Borders that can be asked for at once.
const BORDERS_MAX: usize = 256;

/// The commands that can be counted apart, by the names that SPDK's clients know.
const OPCODES: [(&str, u8); 6] = [
    ("read", nvm::READ),
    ("write", nvm::WRITE),
    ("unmap", nvm::DATASET_MANAGEMENT),
    ("flush", nvm::FLUSH),
    ("write_zeroes", nvm::WRITE_ZEROES),
    ("compare", nvm::COMPARE),
];

/// Whoever counts latencies: of disks or of volumes, which have names.
pub trait Histograms: Sized {
    /// Begins to count as this layout says, or with `None` ends it, and answers with true; what was counted before is
    /// forgotten.
    ///
    /// # Errors
    /// There is none of the name, as the answer.
    fn set_histogram(
        &mut self,
        call: &mut Call<Self>,
        name: String,
        layout: Option<HistogramLayout>,
    ) -> MethodResult;

    /// Answers with what `show` makes of the counts of all reactors together, which are `None` if nothing is counted.
    ///
    /// # Errors
    /// There is none of the name, as the answer.
    fn show_histogram(
        &mut self,
        call: &mut Call<Self>,
        name: String,
        show: impl FnOnce(Option<LatencyHistogram>) -> Result<Value, RpcError> + Send + 'static,
    ) -> MethodResult;
}

/// Adds the methods to a module.
pub fn register<S: Histograms + Send + 'static>(
    module: ModuleMethods<'_, S>,
) -> ModuleMethods<'_, S> {
    module
        .method("bdev_enable_histogram", Phase::Runtime, enable)
        .method("bdev_get_histogram", Phase::Runtime, get)
        .method("bdev_get_histogram_borders", Phase::Runtime, get_borders)
}

fn enable<S: Histograms>(state: &mut S, call: &mut Call<S>) -> MethodResult {
    let params = &mut call.params;
    let name = params.required("name")?;
    let enable: bool = params.required("enable")?;
    let only = params.one_of("opc", &OPCODES)?;
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
    state.set_histogram(call, name, enable.then_some(layout))
}

fn get<S: Histograms>(state: &mut S, call: &mut Call<S>) -> MethodResult {
    let name = call.params.required("name")?;
    call.params.finish()?;
    state.show_histogram(call, name, |counted| Ok(shown(&there(counted)?)))
}

/// Counts between borders in microseconds.
fn get_borders<S: Histograms>(state: &mut S, call: &mut Call<S>) -> MethodResult {
    let name = call.params.required("name")?;
    let borders: Vec<u64> = call.params.required("borders")?;
    call.params.finish()?;
    if !(1..=BORDERS_MAX).contains(&borders.len()) || !borders.is_sorted() {
        let text = format!("1 to {BORDERS_MAX} borders in ascending order are allowed");
        return Err(RpcError::errno_of(EINVAL, text));
    }
    let borders_ns: Vec<u64> = borders.iter().map(|&us| us.saturating_mul(1000)).collect();
    state.show_histogram(call, name, move |counted| {
        Ok(json!({"borders_count": there(counted)?.within(&borders_ns)}))
    })
}

fn there(counted: Option<LatencyHistogram>) -> Result<LatencyHistogram, RpcError> {
    counted.ok_or_else(|| {
        let text = "no histogram is counted; see bdev_enable_histogram";
        RpcError::errno_of(EFAULT, text)
    })
}

/// What `bdev_get_histogram` answers: the counts, 8 bytes each, little endian, in Base64.
fn shown(histogram: &LatencyHistogram) -> Value {
    let counts = histogram.counts().iter();
    let bytes: Vec<u8> = counts.flat_map(|count| count.to_le_bytes()).collect();
    let layout = histogram.layout();
    let (min_range, max_range) = layout.ranges();
    json!({
        "histogram": STANDARD.encode(bytes),
        "granularity": layout.granularity(),
        "min_range": min_range,
        "max_range": max_range,
        // Latencies are in ticks of a nanosecond.
        "tsc_rate": 1_000_000_000,
    })
}
