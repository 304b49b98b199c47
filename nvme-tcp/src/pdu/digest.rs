//! Header and data digests: CRC32C, sent least significant byte first (NVMe/TCP 1.1, 3.3).
//!
//! Of a header the CRC32 instruction is as quick as anything. Of data, carry-less multiplication of many bytes at once is
//! three to four times as quick: 73 instead of 259 ns for 4 KiB that are in the cache. `crc-fast` picks at run time what the
//! processor has.

use crc_fast::{CrcAlgorithm, Digest};

use crate::spec::pdu::DIGEST_LEN;

/// The header digest of these bytes.
pub(super) fn header_digest(header: &[u8]) -> [u8; DIGEST_LEN] {
    crc32c::crc32c(header).to_le_bytes()
}

/// A data digest (DDGST) computed piece by piece, as the data goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DataDigest(u32);

impl DataDigest {
    /// The digest of no data.
    pub const fn new() -> Self {
        Self(0)
    }

    /// Takes in the next piece of the data.
    #[expect(clippy::cast_possible_truncation, reason = "a CRC of 32 bits")]
    pub fn update(&mut self, data: &[u8]) {
        // The state that goes on is the one before the last complement.
        let state = u64::from(!self.0);
        let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, state);
        digest.update(data);
        self.0 = digest.finalize() as u32;
    }

    /// The digest of all data so far, as it is sent.
    pub const fn finish(self) -> [u8; DIGEST_LEN] {
        self.0.to_le_bytes()
    }
}
