//! Values of options that several subcommands take.

use std::time::Duration;

use crate::size::IoSizes;

/// An NVMe queue has at most 65,536 entries, of which one stays empty.
pub const DEPTH_MAX: u32 = 65_535;

/// A depth times a size beyond this is a slip of the finger, not a workload.
pub const BUFFER_BYTES_MAX: u64 = 4 << 30;

const WEEK_S: f64 = 604_800.0;

/// Reads one I/O size in bytes.
pub fn parse_one_size(text: &str) -> Result<u32, String> {
    let sizes: IoSizes = text.parse()?;
    match sizes.bytes() {
        [one] => Ok(*one),
        _ => Err(format!("size '{text}' is a mix: floor takes one size")),
    }
}

/// Reads the seconds of a run.
pub fn parse_run_time(text: &str) -> Result<Duration, String> {
    parse_seconds(text, 0.01, WEEK_S)
}

/// Reads the deadline of an I/O.
pub fn parse_io_timeout(text: &str) -> Result<Duration, String> {
    parse_seconds(text, 0.001, 86_400.0)
}

/// Reads a number of seconds within bounds.
pub fn parse_seconds(text: &str, min: f64, max: f64) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text).trim();
    match number.parse::<f64>() {
        Ok(seconds) if (min..=max).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!(
            "time '{text}' is not possible: allowed are {min} to {max} seconds"
        )),
    }
}
