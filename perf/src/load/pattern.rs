//! What `verify` writes: each block says which block it is, of which generation, in every word.
//!
//! A block starts with a header of four words (magic, block number, generation, key), the rest are words that follow
//! from the key, which follows from seed, block number and generation. So a block that is stale, misplaced, torn or
//! damaged is told apart from the right one at the exact byte.

use std::fmt;

const WORD: usize = 8;
const MAGIC: u64 = u64::from_le_bytes(*b"POLLUXvf");
const HEADER_WORDS: usize = 4;
/// Odd, so that no two words of a block are equal.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
/// How many older generations are tried to name the origin of a wrong word.
const ORIGIN_SEARCH: u32 = 4096;

/// Which contents of which block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Block number on the volume.
    pub lba: u64,
    /// How often the block had been written, this time included.
    pub generation: u32,
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {} generation {}", self.lba, self.generation)
    }
}

/// What stands where a block was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// All bytes are zero.
    Zeroes,
    /// No header of ours.
    Foreign,
    /// A header of ours, from a run with another seed, or damaged.
    OtherRun(Stamp),
    /// Another block or generation, complete.
    Whole(Stamp),
    /// This header, but the body does not follow from it; where the first wrong word comes from if that is known.
    Torn(Stamp, Option<Stamp>),
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zeroes => f.write_str("only zeroes"),
            Self::Foreign => f.write_str("no header of this pattern"),
            Self::OtherRun(stamp) => write!(
                f,
                "the header of {stamp} with another seed or a damaged key"
            ),
            Self::Whole(stamp) => write!(f, "{stamp}, whole"),
            Self::Torn(stamp, Some(origin)) => {
                write!(f, "the header of {stamp}, the wrong word from {origin}")
            }
            Self::Torn(stamp, None) => write!(
                f,
                "the header of {stamp}, the wrong word from nowhere known"
            ),
        }
    }
}

/// The first difference in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Miscompare {
    /// The block and generation that was expected.
    pub expected: Stamp,
    /// Byte offset in that block.
    pub block_offset: usize,
    /// Byte offset in the whole buffer.
    pub buffer_offset: usize,
    /// The byte expected there.
    pub expected_byte: u8,
    /// The byte found there.
    pub found_byte: u8,
    /// What the block is instead.
    pub found: Found,
}

impl fmt::Display for Miscompare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "miscompare at LBA {} byte {} (byte {} of the I/O): expected {:#04x}, found {:#04x}; expected {}, found {}",
            self.expected.lba,
            self.block_offset,
            self.buffer_offset,
            self.expected_byte,
            self.found_byte,
            self.expected,
            self.found
        )
    }
}

/// The pattern of one run. Blocks are multiples of 8 bytes, at least 64.
#[derive(Clone, Copy, Debug)]
pub struct Pattern {
    seed: u64,
    block_bytes: usize,
}

impl Pattern {
    /// `block_bytes` must be a multiple of 8 and at least 64; every logical block size is.
    pub fn new(seed: u64, block_bytes: usize) -> Self {
        assert!(
            block_bytes >= 64 && block_bytes.is_multiple_of(WORD),
            "block size {block_bytes}"
        );
        Self { seed, block_bytes }
    }

    /// Fills `buffer`, whose first block is `lba`; `generation_of` says which generation each block gets.
    pub fn fill(&self, buffer: &mut [u8], lba: u64, mut generation_of: impl FnMut(u64) -> u32) {
        for (block, lba) in buffer.chunks_exact_mut(self.block_bytes).zip(lba..) {
            let stamp = Stamp {
                lba,
                generation: generation_of(lba),
            };
            self.fill_block(block, stamp);
        }
    }

    /// Checks `buffer`, whose first block is `lba`; blocks without a generation are not looked at.
    pub fn check(
        &self,
        buffer: &[u8],
        lba: u64,
        mut generation_of: impl FnMut(u64) -> Option<u32>,
    ) -> Result<(), Miscompare> {
        for (index, (block, lba)) in buffer.chunks_exact(self.block_bytes).zip(lba..).enumerate() {
            let Some(generation) = generation_of(lba) else {
                continue;
            };
            let stamp = Stamp { lba, generation };
            if !self.matches(block, stamp) {
                return Err(self.explain(block, stamp, index * self.block_bytes));
            }
        }
        Ok(())
    }

    fn key(&self, stamp: Stamp) -> u64 {
        let mut key = self.seed;
        for part in [stamp.lba, u64::from(stamp.generation)] {
            key = (key ^ part).wrapping_add(STEP);
            key = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            key = (key ^ (key >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            key ^= key >> 31;
        }
        key
    }

    fn header(stamp: Stamp, key: u64) -> [u64; HEADER_WORDS] {
        [MAGIC, stamp.lba, u64::from(stamp.generation), key]
    }

    fn fill_block(&self, block: &mut [u8], stamp: Stamp) {
        let key = self.key(stamp);
        let (header, body) = block.split_at_mut(HEADER_WORDS * WORD);
        for (bytes, word) in header.chunks_exact_mut(WORD).zip(Self::header(stamp, key)) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let mut word = key;
        for bytes in body.chunks_exact_mut(WORD) {
            word = word.wrapping_add(STEP);
            bytes.copy_from_slice(&word.to_le_bytes());
        }
    }

    /// One pass without a branch per word, so that it runs at memory speed; where it fails, [`Self::explain`] looks again.
    fn matches(&self, block: &[u8], stamp: Stamp) -> bool {
        let key = self.key(stamp);
        let (header, body) = block.split_at(HEADER_WORDS * WORD);
        let mut difference = 0;
        for (bytes, word) in header.chunks_exact(WORD).zip(Self::header(stamp, key)) {
            difference |= load(bytes) ^ word;
        }
        let mut word = key;
        for bytes in body.chunks_exact(WORD) {
            word = word.wrapping_add(STEP);
            difference |= load(bytes) ^ word;
        }
        difference == 0
    }

    fn word(stamp: Stamp, key: u64, index: usize) -> u64 {
        match Self::header(stamp, key).get(index) {
            Some(word) => *word,
            None => key.wrapping_add(STEP.wrapping_mul((index + 1 - HEADER_WORDS) as u64)),
        }
    }

    #[cold]
    #[expect(clippy::expect_used, reason = "its caller has found a difference")]
    fn explain(&self, block: &[u8], expected: Stamp, start: usize) -> Miscompare {
        let key = self.key(expected);
        let mut wrong = block
            .chunks_exact(WORD)
            .enumerate()
            .map(|(index, bytes)| (index, load(bytes), Self::word(expected, key, index)))
            .filter(|(_, found, wanted)| found != wanted);
        let (index, found_word, wanted) = wrong
            .next()
            .expect("only a block that differs is explained");
        let byte = ((found_word ^ wanted).trailing_zeros() as usize / WORD).min(WORD - 1);
        let block_offset = index * WORD + byte;
        Miscompare {
            expected,
            block_offset,
            buffer_offset: start + block_offset,
            expected_byte: wanted.to_le_bytes()[byte],
            found_byte: found_word.to_le_bytes()[byte],
            found: self.identify(block, expected, index, found_word),
        }
    }

    fn identify(&self, block: &[u8], expected: Stamp, index: usize, found_word: u64) -> Found {
        let mut words = block.chunks_exact(WORD).map(load);
        #[expect(clippy::expect_used, reason = "a block is longer than its header")]
        let header: [u64; HEADER_WORDS] =
            std::array::from_fn(|_| words.next().expect("a block without a header"));
        let [magic, lba, generation, key] = header;
        if magic != MAGIC {
            return if block.iter().all(|&byte| byte == 0) {
                Found::Zeroes
            } else {
                Found::Foreign
            };
        }
        let Ok(generation) = u32::try_from(generation) else {
            return Found::Foreign;
        };
        let stamp = Stamp { lba, generation };
        if self.key(stamp) != key {
            return Found::OtherRun(stamp);
        }
        if self.matches(block, stamp) {
            return Found::Whole(stamp);
        }
        let oldest = expected.generation.saturating_sub(ORIGIN_SEARCH);
        let origin = (oldest..=expected.generation)
            .rev()
            .map(|generation| Stamp {
                generation,
                ..expected
            })
            .find(|&stamp| {
                index >= HEADER_WORDS && Self::word(stamp, self.key(stamp), index) == found_word
            });
        Found::Torn(stamp, origin)
    }
}

fn load(bytes: &[u8]) -> u64 {
    let mut word = [0; WORD];
    word.copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: usize = 512;
    const LBA: u64 = 100;

    fn buffer(seed: u64, generation: u32) -> Vec<u8> {
        let mut buffer = vec![0; 4 * BLOCK];
        Pattern::new(seed, BLOCK).fill(&mut buffer, LBA, |_| generation);
        buffer
    }

    fn check(buffer: &[u8]) -> Result<(), Miscompare> {
        Pattern::new(1, BLOCK).check(buffer, LBA, |_| Some(5))
    }

    #[test]
    fn what_was_filled_checks() {
        assert_eq!(check(&buffer(1, 5)), Ok(()));
    }

    #[test]
    fn every_single_byte_is_covered_and_named() {
        let good = buffer(1, 5);
        for offset in 0..good.len() {
            let mut bad = good.clone();
            bad[offset] ^= 0x40;
            let miscompare = check(&bad).unwrap_err();
            assert_eq!(miscompare.buffer_offset, offset);
            assert_eq!(miscompare.block_offset, offset % BLOCK);
            assert_eq!(miscompare.expected.lba, LBA + (offset / BLOCK) as u64);
            assert_eq!(miscompare.expected_byte, good[offset]);
            assert_eq!(miscompare.found_byte, good[offset] ^ 0x40);
        }
    }

    #[test]
    fn the_first_of_several_differences_is_reported() {
        let mut bad = buffer(1, 5);
        for offset in [1999, 700, 701, 1300] {
            bad[offset] = !bad[offset];
        }
        assert_eq!(check(&bad).unwrap_err().buffer_offset, 700);
    }

    #[test]
    fn a_stale_block_is_named() {
        let mut bad = buffer(1, 5);
        bad[BLOCK..2 * BLOCK].copy_from_slice(&buffer(1, 4)[BLOCK..2 * BLOCK]);
        let miscompare = check(&bad).unwrap_err();
        assert_eq!(
            miscompare.found,
            Found::Whole(Stamp {
                lba: LBA + 1,
                generation: 4
            })
        );
        assert_eq!(miscompare.block_offset, 16, "the generation's own word");
    }

    #[test]
    fn a_misplaced_block_is_named() {
        let mut bad = buffer(1, 5);
        bad.copy_within(3 * BLOCK..4 * BLOCK, 0);
        let miscompare = check(&bad).unwrap_err();
        assert_eq!(
            miscompare.found,
            Found::Whole(Stamp {
                lba: LBA + 3,
                generation: 5
            })
        );
        assert_eq!(miscompare.block_offset, 8, "the block number's own word");
    }

    #[test]
    fn a_torn_block_names_where_its_tail_comes_from() {
        let mut bad = buffer(1, 5);
        bad[256..BLOCK].copy_from_slice(&buffer(1, 3)[256..BLOCK]);
        let miscompare = check(&bad).unwrap_err();
        assert_eq!(
            miscompare.found,
            Found::Torn(
                Stamp {
                    lba: LBA,
                    generation: 5
                },
                Some(Stamp {
                    lba: LBA,
                    generation: 3
                })
            )
        );
        assert!((256..264).contains(&miscompare.block_offset));
        bad[256..264].fill(0xaa);
        assert!(matches!(
            check(&bad).unwrap_err().found,
            Found::Torn(_, None)
        ));
    }

    #[test]
    fn shifted_zeroed_and_foreign_data() {
        let mut shifted = buffer(1, 5);
        shifted.copy_within(64..BLOCK, 72);
        assert_eq!(check(&shifted).unwrap_err().block_offset / WORD, 72 / WORD);
        let mut zeroed = buffer(1, 5);
        zeroed[..BLOCK].fill(0);
        assert_eq!(check(&zeroed).unwrap_err().found, Found::Zeroes);
        let mut foreign = buffer(1, 5);
        foreign[..BLOCK].fill(0x55);
        assert_eq!(check(&foreign).unwrap_err().found, Found::Foreign);
        let other = Stamp {
            lba: LBA,
            generation: 5,
        };
        assert_eq!(
            check(&buffer(2, 5)).unwrap_err().found,
            Found::OtherRun(other)
        );
    }

    #[test]
    fn blocks_without_a_generation_are_not_looked_at() {
        let mut bad = buffer(1, 5);
        bad[BLOCK..2 * BLOCK].fill(0);
        let known = |lba| (lba != LBA + 1).then_some(5);
        assert_eq!(Pattern::new(1, BLOCK).check(&bad, LBA, known), Ok(()));
    }

    #[test]
    fn the_message_says_it_all() {
        let mut bad = buffer(1, 5);
        bad[BLOCK..2 * BLOCK].copy_from_slice(&buffer(1, 4)[BLOCK..2 * BLOCK]);
        assert_eq!(
            check(&bad).unwrap_err().to_string(),
            "miscompare at LBA 101 byte 16 (byte 528 of the I/O): expected 0x05, found 0x04; \
             expected block 101 generation 5, found block 101 generation 4, whole"
        );
    }
}
