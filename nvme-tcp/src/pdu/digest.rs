//! Header and data digests: CRC32C, sent least significant byte first (NVMe/TCP 1.1, 3.3).

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
    #[inline]
    pub fn update(&mut self, data: &[u8]) {
        self.0 = crc32c::crc32c_append(self.0, data);
    }

    /// The digest of all data so far, as it is sent.
    pub const fn finish(self) -> [u8; DIGEST_LEN] {
        self.0.to_le_bytes()
    }
}
