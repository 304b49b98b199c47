//! The disk as a host sees it, beside one in memory.

use pollux_nvme_tcp::spec::Sqe;
use pollux_nvme_tcp::spec::opcode::nvm;
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::target::{Backend, DiskRef};
use pollux_nvme_tcp::testing::{Options, TestTarget, pattern};

use crate::disk::MapDisk;

#[test]
fn a_disk_from_outside_is_a_namespace() {
    let disk = Backend::Disk(DiskRef::new(MapDisk::start()));
    let target = TestTarget::start(1, &[disk, Backend::Memory { bytes: 1 << 20 }]);
    let (_admin, mut io) = target.connect(Options::default());
    let mine = [(1, 0, 512), (1, 100, 4096), (1, 5, 1 << 20)];
    let other = [(2, 8, 4096), (2, 8, 65_536)];
    for (nsid, lba, len) in mine.into_iter().chain(other) {
        let data = pattern(len, lba);
        assert_eq!(io.write(nsid, lba, &data), Status::SUCCESS);
        let blocks = u32::try_from(len / 512).unwrap();
        assert!(io.read(nsid, lba, blocks).unwrap() == data);
    }
    assert!(io.read(1, 2_000_000, 8).unwrap().iter().all(|&b| b == 0));
    let flush = Sqe::new(nvm::FLUSH, u32::MAX);
    assert_eq!(io.command(flush, &[]).0.status(), Status::SUCCESS);
    let zeroes = Sqe::for_blocks(nvm::WRITE_ZEROES, 1, 0, 8);
    let (cqe, _) = io.command(zeroes, &[]);
    assert_eq!(cqe.status().code(), Status::INVALID_OPCODE);
}
