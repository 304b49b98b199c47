//! What hosts were told is durable is there after a loss of power, which takes with it what was only in caches.
#![expect(
    clippy::disallowed_types,
    reason = "the power goes for all reactors at once"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use pollux_nvme_tcp::spec::nvm::NvmCdw12;
use pollux_nvme_tcp::spec::opcode::nvm;
use pollux_nvme_tcp::spec::sqe::NSID_ALL;
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::spec::{SglDescriptor, Sqe};
use pollux_nvme_tcp::target::disk::{Disk, DiskChannel, DiskContext, Done, Io, Op, Opening};
use pollux_nvme_tcp::target::{Backend, DiskRef, FileEngine};
use pollux_nvme_tcp::testing::{Initiator, Options, TestTarget, pattern};
use pollux_reactor::Rng;

use crate::disks::{ENGINES, run};
use crate::removals::Freezer;

const BLOCK: usize = 512;
const BLOCKS: u64 = 64;

type Block = [u8; BLOCK];

/// Blocks by number; those that are missing are zero.
#[derive(Debug, Default)]
struct Blocks {
    medium: BTreeMap<u64, Block>,
    cache: BTreeMap<u64, Block>,
}

/// A disk with a cache that is lost with the power. Its flushes take a poll more than all else, and make durable what was
/// in the cache when they came.
#[derive(Debug, Clone, Default)]
struct Volatile(Arc<Mutex<Blocks>>);

impl Volatile {
    /// Returns how many blocks were lost.
    fn cut_power(&self) -> usize {
        let cache = &mut self.0.lock().unwrap().cache;
        std::mem::take(cache).len()
    }
}

impl Disk for Volatile {
    fn name(&self) -> String {
        "volatile".into()
    }

    fn bytes(&self) -> u64 {
        BLOCKS * BLOCK as u64
    }

    fn open(&self, _: Opening) -> Box<dyn DiskChannel> {
        Box::new(VolatileChannel {
            disk: self.clone(),
            flushes: Vec::new(),
        })
    }
}

#[derive(Debug)]
struct VolatileChannel {
    disk: Volatile,
    flushes: Vec<(Io, BTreeMap<u64, Block>)>,
}

impl DiskChannel for VolatileChannel {
    fn submit(&mut self, mut io: Io, _: &mut DiskContext<'_>) -> Option<Done> {
        let mut blocks = self.disk.0.lock().unwrap();
        let mut put = |fua: bool, lba: u64, block: Block| {
            blocks.cache.insert(lba, block);
            if fua {
                blocks.cache.remove(&lba);
                blocks.medium.insert(lba, block);
            }
        };
        let result = match io.op {
            Op::Write { offset, fua } => {
                for (lba, block) in (offset / 512..).zip(io.data.chunks(BLOCK)) {
                    put(fua, lba, block.try_into().unwrap());
                }
                Ok(())
            }
            Op::Zero { range, fua, .. } => {
                for lba in range.offset / 512..(range.offset + range.len) / 512 {
                    put(fua, lba, [0; BLOCK]);
                }
                Ok(())
            }
            Op::Read { offset } => {
                for (lba, to) in (offset / 512..).zip(io.data.chunks_mut(BLOCK)) {
                    let block = blocks.cache.get(&lba).or(blocks.medium.get(&lba));
                    to.copy_from_slice(block.unwrap_or(&[0; BLOCK]));
                }
                Ok(())
            }
            Op::Flush => {
                let cache = blocks.cache.clone();
                self.flushes.push((io, cache));
                return None;
            }
            _ => Err(Status::INVALID_OPCODE.with_dnr()),
        };
        Some(io.done(result))
    }

    fn poll(&mut self, done: &mut Vec<Done>, _: &mut DiskContext<'_>) {
        let mut blocks = self.disk.0.lock().unwrap();
        for (io, cache) in self.flushes.drain(..) {
            for (lba, block) in cache {
                blocks.medium.insert(lba, block);
                if blocks.cache.get(&lba) == Some(&block) {
                    blocks.cache.remove(&lba);
                }
            }
            done.push(io.done(Ok(())));
        }
    }
}

fn with_fua(mut sqe: Sqe) -> Sqe {
    let cdw12 = NvmCdw12::from_bits(sqe.cdw12.get());
    sqe.cdw12 = cdw12.with_fua(true).into_bits().into();
    sqe
}

fn write_fua(io: &mut Initiator, lba: u64, data: &[u8]) -> Status {
    let blocks = u32::try_from(data.len() / BLOCK).unwrap();
    let mut sqe = with_fua(Sqe::for_blocks(nvm::WRITE, 1, lba, blocks));
    let len = u32::try_from(data.len()).unwrap();
    // Small data comes with its command, large data on an R2T.
    sqe.sgl = match len {
        ..=4096 => SglDescriptor::in_capsule(0, len),
        _ => SglDescriptor::transport(len),
    };
    let cid = io.submit(sqe, if len <= 4096 { data } else { &[] });
    io.finish(cid, data).0.status()
}

fn flush(io: &mut Initiator, nsid: u32) -> Status {
    io.command(Sqe::new(nvm::FLUSH, nsid), &[]).0.status()
}

/// Several queues on two reactors: what one has been told of is made durable by a flush of the other.
#[test]
fn what_was_flushed_or_written_with_fua_outlives_a_lost_cache() {
    let disk = Volatile::default();
    let target = TestTarget::start(2, &[Backend::Disk(DiskRef::new(disk.clone()))]);
    let (admin, first) = target.connect(Options::default());
    let options = Options::default();
    let second = Initiator::io(target.addr, &target.nqn, admin.cntlid, 2, options);
    let mut queues = [first, second];
    let mut lost = 0;
    for seed in 0..50 {
        let mut rng = Rng::seeded(seed);
        // For each block what it has to be, and what was written since.
        let mut promised = vec![vec![[0; BLOCK]]; 64];
        let zeroes = Sqe::for_blocks(nvm::WRITE_ZEROES, 1, 0, 64);
        assert!(
            queues[0]
                .command(with_fua(zeroes), &[])
                .0
                .status()
                .is_success()
        );
        for step in 0..rng.below(200) {
            let queue = &mut queues[usize::try_from(rng.below(2)).unwrap()];
            let lba = rng.below(BLOCKS);
            let data = pattern(BLOCK, seed << 32 | step);
            let block: Block = data.as_slice().try_into().unwrap();
            let known = &mut promised[usize::try_from(lba).unwrap()];
            let status = match rng.below(10) {
                0..6 => {
                    known.push(block);
                    queue.write(1, lba, &data)
                }
                6 | 7 => {
                    *known = vec![block];
                    write_fua(queue, lba, &data)
                }
                8 => {
                    *known = vec![[0; BLOCK]];
                    let zeroes = Sqe::for_blocks(nvm::WRITE_ZEROES, 1, lba, 1);
                    queue.command(with_fua(zeroes), &[]).0.status()
                }
                _ => {
                    for known in &mut promised {
                        known.drain(..known.len() - 1);
                    }
                    flush(queue, if step % 2 == 0 { 1 } else { NSID_ALL })
                }
            };
            assert_eq!(status, Status::SUCCESS, "seed {seed}, step {step}");
        }
        lost += disk.cut_power();
        for (lba, known) in (0..).zip(&promised) {
            let found = queues[0].read(1, lba, 1).unwrap();
            assert!(
                known.iter().any(|block| *block == found[..]),
                "seed {seed}, block {lba}"
            );
        }
    }
    assert!(lost > 100, "the power was never cut in time: {lost}");
}

/// A second mount of what a file system has brought to its device.
struct Copy(PathBuf, PathBuf);

impl Copy {
    fn of(freezer: &Freezer) -> Self {
        let dir = freezer.image().with_extension("after");
        let image = freezer.image().with_extension("copy");
        std::fs::copy(freezer.image(), &image).unwrap();
        std::fs::create_dir(&dir).unwrap();
        let (of, at) = (image.to_str().unwrap(), dir.to_str().unwrap());
        run("mount", &["-o", "loop", of, at]).expect("what was mounted can be mounted again");
        Self(dir, image)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        run("umount", &["-l", self.0.to_str().unwrap()]);
        let _ = std::fs::remove_dir(&self.0);
        let _ = std::fs::remove_file(&self.1);
    }
}

/// The page cache is lost: what counts is what the file system had given to its device. The file has no space at first, so
/// that data, size and space all have to come there.
#[test]
fn a_file_keeps_what_was_durable_without_its_page_cache() {
    for engine in ENGINES {
        file_without_its_page_cache(engine);
    }
}

fn file_without_its_page_cache(engine: FileEngine) {
    let Some(freezer) = Freezer::new("power-cut") else {
        eprintln!("no file system of its own for this user: not tested");
        return;
    };
    let target = TestTarget::start(
        1,
        &[Backend::File {
            path: freezer.file(),
            bytes: None,
            shared: false,
            engine,
        }],
    );
    let (_admin, mut io) = target.connect(Options::default());
    let data = |n| pattern(65536, n);
    let lba = |place: u64| place * 2048;
    // Twice each: into space that the file gets by it, and over what is there.
    for round in 0..2 {
        let n = round * 10;
        assert!(io.write(1, lba(0), &data(n)).is_success());
        assert!(io.write(1, lba(1), &data(n + 1)).is_success());
        assert!(flush(&mut io, 1).is_success());
        assert!(write_fua(&mut io, lba(2), &data(n + 2)).is_success());
        assert!(write_fua(&mut io, lba(3), &data(n + 3)[..4096]).is_success());
        let zeroes = with_fua(Sqe::for_blocks(nvm::WRITE_ZEROES, 1, lba(1), 8));
        assert!(io.command(zeroes, &[]).0.status().is_success());
        // Nobody was promised this.
        assert!(io.write(1, lba(4), &data(n + 4)).is_success());

        let after = Copy::of(&freezer);
        let found = std::fs::read(after.0.join("disk")).unwrap();
        let at = |place: usize, len: usize| &found[place << 20..][..len];
        assert_eq!(found.len(), 8 << 20);
        assert!(at(0, 65536) == data(n), "{engine:?}, {round}: flushed");
        assert!(
            at(1, 4096) == [0; 4096],
            "{engine:?}, {round}: zeroes with FUA"
        );
        assert!(
            at(1, 65536)[4096..] == data(n + 1)[4096..],
            "{engine:?}, {round}: flushed"
        );
        assert!(at(2, 65536) == data(n + 2), "{engine:?}, {round}: FUA");
        assert!(
            at(3, 4096) == &data(n + 3)[..4096],
            "{engine:?}, {round}: FUA in a capsule"
        );
    }
}
