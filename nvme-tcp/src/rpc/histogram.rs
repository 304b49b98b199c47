//! Parameters and answers of methods about latency histograms.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pollux_reactor::rpc::{Params, RpcError};
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

impl LatencyHistogram {
    /// What `bdev_get_histogram` answers: the counts, 8 bytes each, little endian, in Base64.
    pub fn show(&self) -> Value {
        let bytes: Vec<u8> = self
            .counts()
            .iter()
            .flat_map(|count| count.to_le_bytes())
            .collect();
        let (min_range, max_range) = self.layout().ranges();
        json!({
            "histogram": STANDARD.encode(bytes),
            "granularity": self.layout().granularity(),
            "min_range": min_range,
            "max_range": max_range,
            // Latencies are in ticks of a nanosecond.
            "tsc_rate": 1_000_000_000,
        })
    }
}

/// What `bdev_enable_histogram` asks for.
#[derive(Debug)]
#[non_exhaustive]
pub struct EnableParams {
    /// Of which volume or disk.
    pub name: String,
    /// How to count from now on; `None`: no more.
    pub layout: Option<HistogramLayout>,
}

impl EnableParams {
    /// Takes all parameters of the method.
    ///
    /// # Errors
    /// One is missing, unknown, of the wrong type, or out of its range.
    pub fn take(params: &mut Params) -> Result<Self, RpcError> {
        let name = params.required("name")?;
        let enable: bool = params.required("enable")?;
        let only = params.one_of("opc", &OPCODES)?;
        let granularity = params.optional("granularity")?.filter(|&g: &u8| g > 0);
        let min_ns: Option<u64> = params.optional("min_nsec")?;
        let max_ns = params.optional("max_nsec")?.filter(|&max: &u64| max > 0);
        params.finish()?;
        let granularity = granularity.unwrap_or(HistogramLayout::default().granularity());
        let layout =
            HistogramLayout::new(granularity, min_ns.unwrap_or(0), max_ns.unwrap_or(u64::MAX));
        let Some(mut layout) = layout else {
            let text = "a granularity of 1 to 10 and a min_nsec below max_nsec are allowed";
            return Err(RpcError::errno_of(EINVAL, text));
        };
        layout.only = only;
        Ok(Self {
            name,
            layout: enable.then_some(layout),
        })
    }
}

/// What `bdev_get_histogram` and `bdev_get_histogram_borders` ask for.
#[derive(Debug)]
#[non_exhaustive]
pub struct HistogramParams {
    /// Of which volume or disk.
    pub name: String,
    /// The borders in ns, if the counts are asked for by borders.
    borders_ns: Option<Vec<u64>>,
}

impl HistogramParams {
    /// Takes all parameters of `bdev_get_histogram`.
    ///
    /// # Errors
    /// One is missing, unknown or of the wrong type.
    pub fn take(params: &mut Params) -> Result<Self, RpcError> {
        let name = params.required("name")?;
        params.finish()?;
        Ok(Self {
            name,
            borders_ns: None,
        })
    }

    /// Takes all parameters of `bdev_get_histogram_borders`.
    ///
    /// # Errors
    /// As [`take`](Self::take); the borders, in microseconds, do not ascend, or are none or too many.
    pub fn take_with_borders(params: &mut Params) -> Result<Self, RpcError> {
        let name = params.required("name")?;
        let borders: Vec<u64> = params.required("borders")?;
        params.finish()?;
        if !(1..=BORDERS_MAX).contains(&borders.len()) || !borders.is_sorted() {
            let text = format!("1 to {BORDERS_MAX} borders in ascending order are allowed");
            return Err(RpcError::errno_of(EINVAL, text));
        }
        let borders_ns = borders.iter().map(|&us| us.saturating_mul(1000)).collect();
        Ok(Self {
            name,
            borders_ns: Some(borders_ns),
        })
    }

    /// Answers with what was counted.
    ///
    /// # Errors
    /// Nothing is.
    pub fn answer(&self, counted: Option<LatencyHistogram>) -> Result<Value, RpcError> {
        let Some(histogram) = counted else {
            let text = "no histogram is counted; see bdev_enable_histogram";
            return Err(RpcError::errno_of(EFAULT, text));
        };
        Ok(match &self.borders_ns {
            None => histogram.show(),
            Some(borders) => json!({"borders_count": histogram.within(borders)}),
        })
    }
}
