//! Which I/O comes next: offsets, sizes and the mix of reads and writes, all from one seed.

use std::ops::Range;

use clap::ValueEnum;
use pollux_multipath::Op;
use pollux_reactor::Rng;

use super::distribution::{Distribution, Picker};
use super::mix::Mix;

/// `-w`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
pub enum Workload {
    /// Sequential reads
    Read,
    /// Sequential writes
    Write,
    /// Random reads
    RandRead,
    /// Random writes
    RandWrite,
    /// Sequential reads and writes, mixed by -M or --mix
    Rw,
    /// Random reads and writes, mixed by -M or --mix
    RandRw,
    /// Random writes of a pattern that are read back and compared, and later reads of the same blocks
    Verify,
}

impl Workload {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::RandRead => "randread",
            Self::RandWrite => "randwrite",
            Self::Rw => "rw",
            Self::RandRw => "randrw",
            Self::Verify => "verify",
        }
    }

    /// Offsets are drawn, not counted up.
    pub fn random(self) -> bool {
        !matches!(self, Self::Read | Self::Write | Self::Rw)
    }

    /// Percentage of reads; `share` is the user's wish for mixed workloads.
    fn read_share(self, share: Option<u8>) -> u64 {
        match self {
            Self::Read | Self::RandRead => 100,
            Self::Write | Self::RandWrite => 0,
            Self::Rw | Self::RandRw => share.unwrap_or(50).into(),
            // Every write is also read back; of the rest, half.
            Self::Verify => 50,
        }
    }
}

/// What the I/Os of one job look like.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Pattern of offsets and directions.
    pub workload: Workload,
    /// Percentage of reads where the workload is mixed.
    pub read_share: Option<u8>,
    /// Operations where there are more than reads and writes; it takes the place of the read share.
    pub mix: Option<Mix>,
    /// Sizes in blocks, one of which is drawn for each I/O.
    pub sizes: Vec<u32>,
    /// How often each size is drawn in proportion; empty: all alike.
    pub weights: Vec<u32>,
    /// Where random I/Os go.
    pub distribution: Distribution,
    /// I/Os start at multiples of this many blocks rather than of their size.
    pub stride: Option<u64>,
    /// The blocks that this job works on. At least as long as the largest size.
    pub region: Range<u64>,
}

impl Shape {
    /// The largest size in blocks.
    #[expect(clippy::expect_used, reason = "a list of sizes is never empty")]
    pub fn largest(&self) -> u32 {
        let sizes = self.sizes.iter().copied();
        sizes.max().expect("a shape has at least one size")
    }
}

/// One I/O to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// What to do.
    pub op: Op,
    /// First block.
    pub lba: u64,
    /// Number of blocks.
    pub blocks: u32,
}

impl Operation {
    /// Whether the blocks have other contents afterwards, from its buffer.
    pub fn writes(&self) -> bool {
        self.op == Op::Write
    }

    /// The blocks it covers.
    pub fn range(&self) -> Range<u64> {
        self.lba..self.lba + u64::from(self.blocks)
    }
}

/// Draws the operations of one job.
#[derive(Debug)]
pub struct Generator {
    shape: Shape,
    read_share: u64,
    /// For each size.
    pickers: Vec<Picker>,
    rng: Rng,
    cursor: u64,
}

impl Generator {
    /// The same seed and shape give the same operations.
    pub fn new(shape: Shape, seed: u64) -> Self {
        let length = shape.region.end.saturating_sub(shape.region.start);
        let largest = shape.largest();
        assert!(
            largest > 0 && u64::from(largest) <= length,
            "I/Os of {largest} blocks do not fit in {length}"
        );
        let picker = |&blocks: &u32| {
            let step = shape.stride.unwrap_or(blocks.into());
            Picker::new(shape.distribution, (length - u64::from(blocks)) / step + 1)
        };
        Self {
            read_share: shape.workload.read_share(shape.read_share),
            pickers: shape.sizes.iter().map(picker).collect(),
            rng: Rng::seeded(seed),
            cursor: 0,
            shape,
        }
    }

    /// The next operation.
    #[inline]
    pub fn next_operation(&mut self) -> Operation {
        let op = match (&self.shape.mix, self.read_share) {
            (Some(mix), _) => mix.draw(&mut self.rng),
            (None, 0) => Op::Write,
            (None, 100) => Op::Read,
            (None, share) => match self.rng.below(100) >= share {
                true => Op::Write,
                false => Op::Read,
            },
        };
        if op == Op::Flush {
            return Operation {
                op,
                lba: 0,
                blocks: 0,
            };
        }
        let size = match self.shape.sizes.len() {
            1 => 0,
            sizes if self.shape.weights.is_empty() => self.below(sizes),
            _ => self.weighted(),
        };
        let blocks = self.shape.sizes[size];
        let lba = self.shape.region.start + self.offset(size, u64::from(blocks));
        Operation { op, lba, blocks }
    }

    #[expect(clippy::cast_possible_truncation, reason = "below a length")]
    fn below(&mut self, length: usize) -> usize {
        self.rng.below(length as u64) as usize
    }

    fn weighted(&mut self) -> usize {
        let weights = &self.shape.weights;
        let all = weights.iter().map(|weight| u64::from(*weight)).sum();
        let mut left = self.rng.below(all);
        for (size, &weight) in weights.iter().enumerate() {
            match left.checked_sub(weight.into()) {
                Some(rest) => left = rest,
                None => return size,
            }
        }
        unreachable!("drawn below the sum of the weights")
    }

    #[inline]
    fn offset(&mut self, size: usize, blocks: u64) -> u64 {
        let length = self.shape.region.end - self.shape.region.start;
        let room = length - blocks;
        let step = self.shape.stride.unwrap_or(blocks);
        if self.shape.workload.random() {
            return self.pickers[size].pick(&mut self.rng) * step;
        }
        if self.cursor > room {
            self.cursor = 0;
        }
        let offset = self.cursor;
        self.cursor += step;
        offset
    }
}

/// Splits `blocks` into one region for each of `jobs`, the last one taking the rest.
///
/// Verify needs regions apart from each other; other workloads all use the whole volume.
pub fn regions(blocks: u64, jobs: usize, apart: bool) -> Vec<Range<u64>> {
    let jobs = jobs.max(1) as u64;
    let share = blocks / jobs;
    (0..jobs)
        .map(|job| match (apart, job + 1 == jobs) {
            (false, _) => 0..blocks,
            (true, true) => job * share..blocks,
            (true, false) => job * share..(job + 1) * share,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(workload: Workload, sizes: &[u32], region: Range<u64>) -> Shape {
        Shape {
            workload,
            read_share: None,
            mix: None,
            sizes: sizes.to_vec(),
            weights: Vec::new(),
            distribution: Distribution::Uniform,
            stride: None,
            region,
        }
    }

    fn draw(shape: Shape, count: usize) -> Vec<Operation> {
        let mut generator = Generator::new(shape, 7);
        (0..count).map(|_| generator.next_operation()).collect()
    }

    #[test]
    fn a_seed_repeats() {
        let mixed = || shape(Workload::RandRw, &[1, 2, 8], 0..1000);
        assert_eq!(draw(mixed(), 500), draw(mixed(), 500));
        let mut other = Generator::new(mixed(), 8);
        let other: Vec<_> = (0..500).map(|_| other.next_operation()).collect();
        assert_ne!(draw(mixed(), 500), other);
    }

    #[test]
    fn sequential_covers_the_region_in_order_and_wraps() {
        let operations = draw(shape(Workload::Read, &[8], 100..133), 8);
        let lbas: Vec<_> = operations.iter().map(|operation| operation.lba).collect();
        assert_eq!(lbas, [100, 108, 116, 124, 100, 108, 116, 124]);
        assert!(operations.iter().all(|operation| !operation.writes()));
    }

    #[test]
    fn random_is_aligned_inside_and_covers() {
        let operations = draw(shape(Workload::RandRead, &[8], 64..64 + 803), 5000);
        let mut seen = [false; 100];
        for operation in &operations {
            assert!(operation.lba >= 64 && operation.range().end <= 64 + 803);
            assert_eq!((operation.lba - 64) % 8, 0);
            seen[usize::try_from((operation.lba - 64) / 8).unwrap()] = true;
        }
        assert!(seen.iter().all(|&seen| seen));
    }

    #[test]
    fn one_place_only_is_enough() {
        for workload in [Workload::Read, Workload::RandWrite] {
            let operations = draw(shape(workload, &[8], 0..8), 10);
            assert!(operations.iter().all(|operation| operation.lba == 0));
        }
    }

    #[test]
    fn stride_misaligns() {
        let mut shape = shape(Workload::Verify, &[8, 16], 0..1000);
        shape.stride = Some(7);
        let operations = draw(shape, 2000);
        assert!(operations.iter().all(|operation| operation.lba % 7 == 0));
        assert!(
            operations
                .iter()
                .all(|operation| operation.range().end <= 1000)
        );
        assert!(operations.iter().any(|operation| operation.lba % 8 != 0));
    }

    #[test]
    fn mixes_are_right() {
        for (workload, share, low, high) in [
            (Workload::RandRead, None, 100, 100),
            (Workload::Write, None, 0, 0),
            (Workload::Rw, Some(0), 0, 0),
            (Workload::Rw, Some(100), 100, 100),
            (Workload::RandRw, None, 48, 52),
            (Workload::RandRw, Some(70), 68, 72),
        ] {
            let mut shape = shape(workload, &[1], 0..1000);
            shape.read_share = share;
            let reads = draw(shape, 10_000)
                .iter()
                .filter(|operation| !operation.writes())
                .count();
            assert!(
                (low * 100..=high * 100).contains(&reads),
                "{workload:?} {share:?}: {reads}"
            );
        }
    }

    #[test]
    fn sizes_are_mixed_evenly() {
        let sizes = [1, 2, 4, 8];
        let operations = draw(shape(Workload::RandRead, &sizes, 0..1000), 8000);
        for size in sizes {
            let count = operations
                .iter()
                .filter(|operation| operation.blocks == size)
                .count();
            assert!((1800..2200).contains(&count), "{size}: {count}");
        }
    }

    #[test]
    fn sizes_and_operations_are_mixed_by_weight() {
        let mut shape = shape(Workload::RandRw, &[1, 16], 0..1000);
        shape.weights = vec![70, 30];
        shape.mix = Some("read:50,write_zeroes:40,flush:10".parse().unwrap());
        let operations = draw(shape, 10_000);
        let share =
            |wanted: fn(&&Operation) -> bool| operations.iter().filter(wanted).count() as u64;
        assert!((900..1_100).contains(&share(|o| o.op == Op::Flush && o.blocks == 0)));
        assert!((3_800..4_200).contains(&share(|o| o.op == Op::WriteZeroes)));
        assert!((6_100..6_500).contains(&share(|o| o.blocks == 1)));
        assert!((2_500..2_900).contains(&share(|o| o.blocks == 16)));
    }

    #[test]
    fn regions_are_apart_only_where_they_must() {
        assert_eq!(regions(100, 3, true), [0..33, 33..66, 66..100]);
        assert_eq!(regions(100, 2, false), [0..100, 0..100]);
    }
}
