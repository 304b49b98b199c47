//! Sizes as people write them: `512`, `4k`, `1m`, and the mixes `512,4k,64k` and `512-1m`.

use std::fmt;
use std::str::FromStr;

/// The largest single I/O: what every transport and the buffer pool can still carry.
pub const IO_SIZE_MAX: u64 = 16 << 20;
/// Every logical block size is a multiple of this.
const SECTOR_BYTES: u64 = 512;

/// Parses a byte count with an optional binary unit (`k`, `m`, `g`, `t`; `KiB`, `MB` and the like mean the same).
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let trimmed = text.trim();
    let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = trimmed.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(bad_size(text)),
    };
    let number: u64 = number.parse().map_err(|_| bad_size(text))?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("size '{text}' is too large: it must fit in 64 bits"))
}

fn bad_size(text: &str) -> String {
    format!(
        "size '{text}' is not a number of bytes: allowed are digits with an optional unit k, m, g or t"
    )
}

/// Bytes in the largest unit that keeps them whole: 4096 is `4 KiB`, 1000 is `1000 B`.
pub fn human_bytes(bytes: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes >= 1 << shift && bytes.trailing_zeros() >= shift {
            return format!("{} {unit}", bytes >> shift);
        }
    }
    format!("{bytes} B")
}

/// The I/O sizes of a run, in bytes; one is drawn for each I/O, all equally likely unless they have weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoSizes {
    sizes: Vec<u32>,
    weights: Vec<u32>,
}

impl IoSizes {
    /// All sizes, ascending, without duplicates; never empty.
    pub fn bytes(&self) -> &[u32] {
        &self.sizes
    }

    /// How often each is drawn in proportion; empty: all alike.
    pub fn weights(&self) -> &[u32] {
        &self.weights
    }

    /// The largest size in bytes.
    pub fn max(&self) -> u32 {
        self.sizes[self.sizes.len() - 1]
    }
}

impl FromStr for IoSizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains(':') {
            return weighted(text);
        }
        let mut sizes = Vec::new();
        for part in text.split(',') {
            match part.split_once('-') {
                None => sizes.push(io_size(part)?),
                Some((low, high)) => {
                    let (low, high) = (io_size(low)?, io_size(high)?);
                    if low > high {
                        return Err(format!(
                            "size range '{part}' is empty: the first size must not be above the second"
                        ));
                    }
                    let mut size = low;
                    while size < high {
                        sizes.push(size);
                        size = size.saturating_mul(2);
                    }
                    sizes.push(high);
                }
            }
        }
        sizes.sort_unstable();
        sizes.dedup();
        let weights = Vec::new();
        Ok(Self { sizes, weights })
    }
}

/// `4k:70,64k:30`: each size once, each with its weight.
fn weighted(text: &str) -> Result<IoSizes, String> {
    let mut mix = Vec::new();
    for part in text.split(',') {
        let (size, weight) = part.split_once(':').ok_or_else(|| {
            format!("size '{part}' has no weight, others of '{text}' have: all or none may")
        })?;
        let size = io_size(size)?;
        let weight: u32 = match weight.parse() {
            Ok(weight @ 1..=1_000_000) => weight,
            _ => {
                return Err(format!(
                    "weight '{weight}' of size '{part}' is not possible: allowed are 1 to 1000000"
                ));
            }
        };
        if mix.iter().any(|(known, _)| *known == size) {
            return Err(format!("size '{part}' is there twice in '{text}'"));
        }
        mix.push((size, weight));
    }
    mix.sort_unstable();
    let (sizes, weights) = mix.into_iter().unzip();
    Ok(IoSizes { sizes, weights })
}

fn io_size(text: &str) -> Result<u32, String> {
    let bytes = parse_bytes(text)?;
    if bytes == 0 || bytes > IO_SIZE_MAX || !bytes.is_multiple_of(SECTOR_BYTES) {
        return Err(format!(
            "I/O size '{text}' is not possible: allowed are multiples of 512 up to {}",
            human_bytes(IO_SIZE_MAX)
        ));
    }
    u32::try_from(bytes).map_err(|_| format!("I/O size '{text}' is too large"))
}

impl fmt::Display for IoSizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.weights.is_empty() {
            let sizes = self.sizes.iter().zip(&self.weights);
            let shown = sizes.map(|(size, weight)| {
                format!("{}:{weight}", human_bytes((*size).into()).replace(' ', ""))
            });
            return f.write_str(&shown.collect::<Vec<_>>().join(","));
        }
        match self.sizes.as_slice() {
            [] => Ok(()),
            [one] => f.write_str(&human_bytes((*one).into())),
            [first, .., last] => write!(
                f,
                "{} to {} ({} sizes)",
                human_bytes((*first).into()),
                human_bytes((*last).into()),
                self.sizes.len()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_with_units() {
        for (text, bytes) in [
            ("512", 512),
            ("4k", 4096),
            ("4K", 4096),
            ("4KiB", 4096),
            ("1m", 1 << 20),
            ("2g", 2 << 30),
            ("1t", 1 << 40),
            ("0", 0),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "k",
            "4x",
            "-4k",
            "4.5k",
            "99999999999999999999",
            "20000000t",
        ] {
            let error = parse_bytes(text).unwrap_err();
            assert!(error.contains(&format!("'{text}'")), "{error}");
        }
    }

    #[test]
    fn one_size_a_list_and_a_range() {
        let sizes = |text: &str| text.parse::<IoSizes>().unwrap().bytes().to_vec();
        assert_eq!(sizes("4k"), [4096]);
        assert_eq!(sizes("64k,512,4k,512"), [512, 4096, 65536]);
        assert_eq!(sizes("512-4k"), [512, 1024, 2048, 4096]);
        assert_eq!(sizes("512-1536"), [512, 1024, 1536]);
        assert_eq!(sizes("512-1m").len(), 12);
        assert_eq!(sizes("4k-4k"), [4096]);
    }

    #[test]
    fn sizes_with_weights() {
        let sizes: IoSizes = "64k:30,4k:70".parse().unwrap();
        assert_eq!(
            (sizes.bytes(), sizes.weights()),
            (&[4096, 65_536][..], &[70, 30][..])
        );
        assert_eq!(sizes.to_string(), "4KiB:70,64KiB:30");
    }

    #[test]
    fn sizes_that_cannot_be() {
        for text in [
            "0",
            "100",
            "513",
            "17m",
            "8k-4k",
            "4k,",
            "4k-",
            "-4k",
            "4k,1",
            "4k:0",
            "4k:1,8k",
            "4k:1,4k:2",
            "4k:",
            "4k-8k:1",
            "4k:-1",
        ] {
            assert!(text.parse::<IoSizes>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_for_people() {
        assert_eq!(human_bytes(4096), "4 KiB");
        assert_eq!(human_bytes(1536), "1536 B");
        assert_eq!(human_bytes(0), "0 B");
        assert_eq!("4k".parse::<IoSizes>().unwrap().to_string(), "4 KiB");
        assert_eq!(
            "512-1m".parse::<IoSizes>().unwrap().to_string(),
            "512 B to 1 MiB (12 sizes)"
        );
    }
}
