//! What those who serve a volume know of it. Control writes it, when something has changed; a target reads it when it is told
//! so, and a channel when the host no longer knows the volume by the identity that it had. No I/O looks here on its way.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use pollux_nvme_tcp::spec::log::AnaState;
use pollux_reactor::Sender;

use crate::control::Told;
use crate::ids::{VolumeId, VolumeInfo};
use crate::messages::ControlMessage;

#[derive(Debug)]
pub(crate) struct WatchedVolume {
    name: String,
    block_shift: u8,
    has_ana: bool,
    /// Slot and generation.
    id: AtomicU32,
    bytes: AtomicU64,
    ana: AtomicU8,
    control: Sender<ControlMessage>,
}

fn packed(id: VolumeId) -> u32 {
    u32::from(id.slot) << 16 | u32::from(id.generation)
}

impl WatchedVolume {
    pub fn new(volume: VolumeInfo, has_ana: bool, control: Sender<ControlMessage>) -> Self {
        Self {
            block_shift: volume.block_shift,
            has_ana,
            id: packed(volume.id).into(),
            bytes: (volume.blocks << volume.block_shift).into(),
            ana: AnaState::INACCESSIBLE.0.into(),
            name: volume.name,
            control,
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn block_shift(&self) -> u8 {
        self.block_shift
    }

    pub fn has_ana(&self) -> bool {
        self.has_ana
    }

    /// The identity that it has, or had last.
    pub fn id(&self) -> VolumeId {
        let id = self.id.load(Ordering::Acquire);
        #[expect(clippy::cast_possible_truncation, reason = "each is half of it")]
        let (slot, generation) = ((id >> 16) as u16, id as u16);
        VolumeId { slot, generation }
    }

    /// The size that it has, or had last.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    pub fn ana(&self) -> AnaState {
        AnaState(self.ana.load(Ordering::Acquire))
    }

    /// What it is now; `None`: it has gone.
    pub fn take_in(&self, now: Option<Told>) {
        let ana = match now {
            None => AnaState::INACCESSIBLE,
            Some(now) => {
                self.id.store(packed(now.id), Ordering::Release);
                self.bytes.store(now.bytes, Ordering::Release);
                now.ana
            }
        };
        self.ana.store(ana.0, Ordering::Release);
    }
}

impl Drop for WatchedVolume {
    fn drop(&mut self) {
        // What nobody follows any more waits for paths again. A host without room for this, or that has stopped, has turns
        // of its own.
        let _ = self.control.send(ControlMessage::Woken);
    }
}
