//! Plans: the options of a workload, checked against a volume, for each of its jobs.

use crate::errors::Usage;
use crate::size::{IoSizes, human_bytes};

use super::arrivals::Arrivals;
use super::distribution::Distribution;
use super::mix::Mix;
use super::workload::{Shape, Workload, regions};

/// Blocks that one verifying job works on at most; they cost four bytes each, and all are read at the end.
const VERIFY_BLOCKS_MAX: u64 = 2 << 20;

/// What a job does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Number of this job, for gaps and events.
    pub job: usize,
    /// Offsets, sizes and mix.
    pub shape: Shape,
    /// I/Os in flight.
    pub depth: usize,
    /// Bytes of a logical block.
    pub block_bytes: usize,
    /// Stop after this many I/Os.
    pub ios: Option<u64>,
    /// Seed of offsets and mix; each job has its own.
    pub seed: u64,
    /// Seed of the pattern, the same for all jobs.
    pub pattern_seed: u64,
    /// When I/Os are due; `None`: as soon as there is room.
    pub arrivals: Option<Arrivals>,
}

/// A seed that is new each time.
pub fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // Short enough to be typed again.
    RandomState::new().hash_one(()) >> 32
}

/// What jobs that are alike do.
#[derive(Clone, Debug)]
pub struct Work<'a> {
    /// What to do.
    pub workload: Workload,
    /// Share of reads in percent, where the workload is mixed.
    pub read_share: Option<u8>,
    /// I/O sizes.
    pub io_size: &'a IoSizes,
    /// I/Os start at multiples of this many blocks.
    pub stride: Option<u64>,
    /// I/Os in flight of each job.
    pub depth: u32,
    /// I/Os after which a job ends.
    pub ios: Option<u64>,
    /// Operations where there are more than reads and writes.
    pub mix: Option<Mix>,
    /// Where random I/Os go.
    pub distribution: Distribution,
}

impl<'a> Work<'a> {
    /// A workload at a depth, and nothing special about it.
    pub fn new(workload: Workload, io_size: &'a IoSizes, depth: u32) -> Self {
        Self {
            workload,
            read_share: None,
            io_size,
            stride: None,
            depth,
            ios: None,
            mix: None,
            distribution: Distribution::Uniform,
        }
    }
}

/// Checks the options against a volume and makes a plan for each of its jobs, all of them in a closed loop.
pub fn plans(
    args: &Work<'_>,
    volume_blocks: u64,
    block_size: u32,
    jobs: usize,
    seed: u64,
) -> Result<Vec<Plan>, Usage> {
    let mut sizes = Vec::new();
    for &bytes in args.io_size.bytes() {
        if !bytes.is_multiple_of(block_size) {
            return Err(Usage(format!(
                "-o {} does not fit the volume: allowed are multiples of its block size, {}",
                human_bytes(bytes.into()),
                human_bytes(block_size.into())
            )));
        }
        sizes.push(bytes / block_size);
    }
    let largest = sizes.iter().copied().max().unwrap_or(0);
    let verify = args.workload == Workload::Verify;
    let blocks = if verify {
        volume_blocks.min(VERIFY_BLOCKS_MAX * jobs as u64)
    } else {
        volume_blocks
    };
    let regions = regions(blocks, jobs, verify);
    if regions
        .iter()
        .any(|region| region.end - region.start < largest.into())
    {
        return Err(Usage(format!(
            "-o {} is too large for {jobs} job(s) on this volume of {}",
            args.io_size,
            human_bytes(volume_blocks * u64::from(block_size))
        )));
    }
    let plan = |(job, region)| Plan {
        job,
        shape: Shape {
            workload: args.workload,
            read_share: args.read_share,
            mix: args.mix.clone(),
            sizes: sizes.clone(),
            weights: args.io_size.weights().to_vec(),
            distribution: args.distribution,
            stride: args.stride,
            region,
        },
        depth: args.depth as usize,
        block_bytes: block_size as usize,
        ios: args.ios,
        seed: seed.wrapping_add(job as u64),
        pattern_seed: seed,
        arrivals: None,
    };
    Ok(regions.into_iter().enumerate().map(plan).collect())
}
