//! Latencies of a volume's I/O on one reactor, in buckets whose width grows with the latency.
//!
//! The layout is the one that scripts for SPDK know how to read: ranges of `2^granularity` buckets each. The
//! buckets of the first range are `2^range_min` ns wide, those of each further one cover the next power of
//! two, and so are as precise as one part in `2^granularity`.

/// How latencies are put into buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistogramLayout {
    /// Log2 of the buckets of a range; 1 to 10.
    granularity: u8,
    /// The first range that is kept apart, and the one behind the last; what lies outside counts with them.
    range_min: u8,
    range_max: u8,
    /// Only I/Os of this kind; `None`: all.
    pub only: Option<crate::command::Op>,
}

impl Default for HistogramLayout {
    /// 128 buckets a range, of all I/Os, whatever they take.
    fn default() -> Self {
        Self {
            granularity: 7,
            range_min: 0,
            range_max: 58,
            only: None,
        }
    }
}

impl HistogramLayout {
    /// A layout that tells apart latencies from `min_ns` to `max_ns`. `None` if `granularity` is not 1 to
    /// 10, or there is nothing between the two.
    pub fn new(granularity: u8, min_ns: u64, max_ns: u64) -> Option<Self> {
        if !(1..=10).contains(&granularity) || min_ns >= max_ns {
            return None;
        }
        Some(Self {
            granularity,
            range_min: range_of(min_ns, granularity),
            range_max: range_of(max_ns, granularity) + 1,
            only: None,
        })
    }

    /// Log2 of the buckets of a range.
    pub fn granularity(&self) -> u8 {
        self.granularity
    }

    /// The first range, and the one behind the last. Range 0 is what is below `2^granularity` ns.
    pub fn ranges(&self) -> (u8, u8) {
        (self.range_min, self.range_max)
    }

    fn buckets(&self) -> usize {
        usize::from(self.range_max - self.range_min) << self.granularity
    }

    #[inline]
    fn bucket_of(&self, latency_ns: u64) -> usize {
        let range = range_of(latency_ns, self.granularity);
        // Within a range above the first, the bits below the leading one say where.
        let (range, shift) = match range.checked_sub(self.range_min) {
            None | Some(0) => (0, self.range_min),
            Some(above) => (usize::from(above), range - 1),
        };
        let place = latency_ns >> shift;
        let place = if range == 0 {
            place
        } else {
            place & ((1 << self.granularity) - 1)
        };
        debug_assert!(place < 1 << self.granularity, "beyond its range");
        #[expect(clippy::cast_possible_truncation, reason = "granularity is 10 at most")]
        let place = place as usize;
        ((range << self.granularity) + place).min(self.buckets() - 1)
    }
}

/// Range 0 is what fits into `granularity` bits; each further one has a bit more.
#[inline]
fn range_of(latency_ns: u64, granularity: u8) -> u8 {
    #[expect(clippy::cast_possible_truncation, reason = "64 at most")]
    let bits = (u64::BITS - latency_ns.leading_zeros()) as u8;
    bits.saturating_sub(granularity)
}

/// How many I/Os took how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatencyHistogram {
    layout: HistogramLayout,
    counts: Box<[u64]>,
}

impl LatencyHistogram {
    /// Nothing counted yet; all memory that it will need is taken now.
    pub fn new(layout: HistogramLayout) -> Self {
        Self {
            layout,
            counts: vec![0; layout.buckets()].into(),
        }
    }

    /// How the buckets lie.
    pub fn layout(&self) -> HistogramLayout {
        self.layout
    }

    /// I/Os in each bucket.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    #[inline]
    pub(crate) fn record(&mut self, latency_ns: u64) {
        self.counts[self.layout.bucket_of(latency_ns)] += 1;
    }

    /// Adds another reactor's counts. The reactors are told how to count, and asked what they counted, in the same order.
    pub(crate) fn add(&mut self, other: &Self) {
        assert_eq!(self.layout, other.layout, "two reactors count in two ways");
        for (sum, count) in self.counts.iter_mut().zip(&other.counts) {
            *sum += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The upper end of a bucket, by the formula that readers of the layout use.
    fn end_of(layout: &HistogramLayout, bucket: usize) -> u128 {
        let (granularity, min) = (u32::from(layout.granularity), u32::from(layout.range_min));
        let range = u32::try_from(bucket >> granularity).unwrap();
        let place = (bucket & ((1 << granularity) - 1)) as u128 + 1;
        match range {
            0 => place << min,
            _ => (1u128 << (range + granularity + min - 1)) + (place << (range + min - 1)),
        }
    }

    #[test]
    fn every_latency_lies_in_the_bucket_that_readers_compute() {
        let layouts = [
            HistogramLayout::default(),
            HistogramLayout::new(1, 0, u64::MAX).unwrap(),
            HistogramLayout::new(5, 1_000, 10_000_000).unwrap(),
        ];
        for layout in layouts {
            let last = layout.buckets() - 1;
            for bits in 0..64 {
                for near in [-1i64, 0, 1, 77] {
                    let latency = (1u64 << bits).saturating_add_signed(near);
                    let bucket = layout.bucket_of(latency);
                    if bucket < last {
                        assert!(u128::from(latency) < end_of(&layout, bucket), "{latency}");
                    }
                    if bucket > 0 {
                        let start = end_of(&layout, bucket - 1);
                        assert!(u128::from(latency) >= start, "{latency}");
                    }
                }
            }
        }
    }

    #[test]
    fn latencies_outside_count_at_the_ends() {
        let layout = HistogramLayout::new(3, 1 << 10, 1 << 20).unwrap();
        let mut histogram = LatencyHistogram::new(layout);
        for latency in [0, 1, u64::MAX, u64::MAX - 1, 1 << 40] {
            histogram.record(latency);
        }
        let counts = histogram.counts();
        assert_eq!((counts[0], counts[counts.len() - 1]), (2, 3));
        assert_eq!(HistogramLayout::new(0, 0, 1), None);
        assert_eq!(HistogramLayout::new(11, 0, 1), None);
        assert_eq!(HistogramLayout::new(7, 5, 5), None);
    }
}
