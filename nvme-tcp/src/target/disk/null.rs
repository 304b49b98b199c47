//! Blocks that are kept nowhere: reads give zeroes, writes are dropped.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Capabilities, Disk, DiskChannel, DiskContext, Done, Io, Op, Opening};
use crate::spec::status::Status;

#[derive(Debug)]
pub(super) struct NullDisk {
    bytes: AtomicU64,
}

impl NullDisk {
    pub(super) fn new(bytes: u64) -> Self {
        Self {
            bytes: bytes.into(),
        }
    }
}

impl Disk for NullDisk {
    fn name(&self) -> String {
        "null disk".into()
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            in_place: true,
            reads_zeroes: true,
            deallocates_to_zeroes: true,
            granularity: None,
        }
    }

    fn open(&self, _: Opening) -> Box<dyn DiskChannel> {
        Box::new(NullChannel)
    }

    fn resize(&self, bytes: u64) -> io::Result<()> {
        self.bytes.store(bytes, Ordering::Relaxed);
        Ok(())
    }
}

#[derive(Debug)]
struct NullChannel;

impl DiskChannel for NullChannel {
    fn read_in_place(&mut self, _: u64, len: usize, out: &mut Vec<u8>) -> Result<(), Status> {
        out.resize(out.len() + len, 0);
        Ok(())
    }

    #[inline]
    fn write_in_place(&mut self, _: u64, _: &[u8], _: bool) -> Result<(), Status> {
        Ok(())
    }

    fn submit(&mut self, mut io: Io, _: &mut DiskContext<'_>) -> Option<Done> {
        let result = match io.op {
            Op::Read { .. } => {
                io.data.fill(0);
                Ok(())
            }
            Op::Compare { .. } if io.data.iter().any(|&byte| byte != 0) => {
                Err(Status::COMPARE_FAILURE.with_dnr())
            }
            _ => Ok(()),
        };
        Some(io.done(result))
    }

    fn poll(&mut self, _: &mut Vec<Done>, _: &mut DiskContext<'_>) {}
}
