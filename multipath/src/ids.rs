//! What volumes and controllers are called.

use crate::messages::VolumeId;

/// A volume as its users see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeInfo {
    /// Its identity in messages.
    pub id: VolumeId,
    /// Its name, `<controller name>n<nsid>`.
    pub name: String,
    /// Namespace identifier behind every path.
    pub nsid: u32,
    /// Size in blocks.
    pub blocks: u64,
    /// Log2 of the block size in bytes.
    pub block_shift: u8,
}

impl VolumeInfo {
    /// Block size in bytes.
    pub fn block_size(&self) -> u32 {
        1 << self.block_shift
    }
}
