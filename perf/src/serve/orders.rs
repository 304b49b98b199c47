//! What `perform_tests` is asked to run.

use std::time::Duration;

use crate::load::Workload;
use crate::size::IoSizes;

/// What to run.
#[derive(Clone, Debug)]
pub struct Orders {
    /// I/Os in flight of each job.
    pub depth: u32,
    /// The one size.
    pub io_size: IoSizes,
    /// What to do.
    pub workload: Workload,
    /// Share of reads in percent, where the workload is mixed.
    pub read_share: Option<u8>,
    /// How long.
    pub time: Duration,
}

impl Orders {
    /// Values that are right by themselves but not together.
    pub fn check(&self) -> Result<(), String> {
        let mixed = matches!(self.workload, Workload::Rw | Workload::RandRw);
        match self.read_share {
            Some(share) if !mixed => Err(format!(
                "read share {share} has no meaning for this workload: allowed with rw and randrw"
            )),
            _ => Ok(()),
        }
    }
}
