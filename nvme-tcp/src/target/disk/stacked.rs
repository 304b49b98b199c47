//! A disk over a disk: what is not the business of the upper one is that of its base.

use std::fmt;
use std::io;
use std::sync::Arc;

use super::{Capabilities, Disk, DiskChange, DiskChannel, DiskRef, Opening};
use crate::spec::log::AnaState;

/// What lies over a base, and does something to each I/O on its way.
pub(in crate::target) trait Layer: fmt::Debug + Send + Sync + 'static {
    /// Lies down over a channel of the base.
    fn open(self: Arc<Self>, base: Box<dyn DiskChannel>) -> Box<dyn DiskChannel>;
}

/// The disk.
#[derive(Debug)]
pub(in crate::target) struct Stacked<L> {
    name: String,
    base: DiskRef,
    layer: Arc<L>,
}

impl<L: Layer> Stacked<L> {
    pub(in crate::target) fn new(name: String, base: DiskRef, layer: Arc<L>) -> Self {
        Self { name, base, layer }
    }
}

impl<L: Layer> Disk for Stacked<L> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn bytes(&self) -> u64 {
        self.base.bytes()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            in_place: false,
            reads_zeroes: false,
            ..self.base.capabilities()
        }
    }

    fn open(&self, opening: Opening) -> Box<dyn DiskChannel> {
        Arc::clone(&self.layer).open(self.base.open(opening))
    }

    fn resize(&self, bytes: u64) -> io::Result<()> {
        self.base.resize(bytes)
    }

    fn failure(&self) -> Option<io::Error> {
        self.base.failure()
    }

    fn errors(&self) -> u64 {
        self.base.errors()
    }

    fn ana_state(&self) -> Option<AnaState> {
        self.base.ana_state()
    }

    fn watch(&self, change: DiskChange) {
        self.base.watch(change);
    }
}
