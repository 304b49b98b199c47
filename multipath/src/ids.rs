//! What volumes and controllers are called.

/// A volume, by its place in every reactor's table. Places are used again, generations are not, so that
/// nothing meant for a removed volume reaches its successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct VolumeId {
    pub(crate) slot: u16,
    pub(crate) generation: u16,
}

/// A controller that the host is or was connected to; as [`VolumeId`] never the same twice. Ids are ordered as the
/// controllers were attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ControllerId {
    pub(crate) generation: u32,
    pub(crate) slot: u16,
}

/// A volume as its users see it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
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
