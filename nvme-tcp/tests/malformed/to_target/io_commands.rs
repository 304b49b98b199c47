//! Commands that an I/O queue does not take.

use pollux_nvme_tcp::spec::opcode::{FABRICS, admin, fctype, nvm};
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::spec::{SglDescriptor, Sqe};

use super::{Expect, Row, Stage, command, row};
use crate::client::write_by_r2t;

/// Commands on an I/O queue.
pub fn table() -> Vec<Row> {
    type Change = fn(&mut Sqe);
    let table: Vec<(&str, Status, u8, Change)> = vec![
        ("NSID 0", Status::INVALID_NAMESPACE, nvm::READ, |s| {
            s.nsid = 0.into()
        }),
        ("NSID 2", Status::INVALID_NAMESPACE, nvm::READ, |s| {
            s.nsid = 2.into()
        }),
        (
            "read of all namespaces",
            Status::INVALID_NAMESPACE,
            nvm::READ,
            |s| {
                s.nsid = u32::MAX.into();
            },
        ),
        (
            "NSID 2 of a write",
            Status::INVALID_NAMESPACE,
            nvm::WRITE,
            |s| s.nsid = 2.into(),
        ),
        (
            "block beyond the end",
            Status::LBA_OUT_OF_RANGE,
            nvm::READ,
            |s| s.set_slba(2048),
        ),
        (
            "blocks over the end",
            Status::LBA_OUT_OF_RANGE,
            nvm::WRITE,
            |s| s.set_slba(2041),
        ),
        ("block 2^64 - 1", Status::LBA_OUT_OF_RANGE, nvm::READ, |s| {
            s.set_slba(u64::MAX)
        }),
        (
            "write zeroes over the end",
            Status::LBA_OUT_OF_RANGE,
            nvm::WRITE_ZEROES,
            |s| {
                s.set_slba(2041);
            },
        ),
        ("65,536 blocks", Status::LBA_OUT_OF_RANGE, nvm::READ, |s| {
            s.cdw12 = 0xffff.into();
        }),
        (
            "SGL shorter than the blocks",
            Status::DATA_SGL_LENGTH_INVALID,
            nvm::READ,
            |s| {
                s.sgl.length = 512.into();
            },
        ),
        (
            "SGL longer than the blocks",
            Status::DATA_SGL_LENGTH_INVALID,
            nvm::WRITE,
            |s| {
                s.sgl.length = 8192.into();
            },
        ),
        (
            "SGL of no bytes",
            Status::DATA_SGL_LENGTH_INVALID,
            nvm::WRITE,
            |s| {
                s.sgl.length = 0.into();
            },
        ),
        (
            "read into the capsule",
            Status::SGL_DESCRIPTOR_TYPE_INVALID,
            nvm::READ,
            |s| {
                s.sgl.kind = SglDescriptor::IN_CAPSULE;
            },
        ),
        (
            "SGL with an address",
            Status::SGL_DESCRIPTOR_TYPE_INVALID,
            nvm::READ,
            |s| {
                s.sgl.kind = 0;
            },
        ),
        (
            "bit bucket SGL",
            Status::SGL_DESCRIPTOR_TYPE_INVALID,
            nvm::READ,
            |s| {
                s.sgl.kind = 0x10;
            },
        ),
        (
            "keyed SGL",
            Status::SGL_DESCRIPTOR_TYPE_INVALID,
            nvm::WRITE,
            |s| s.sgl.kind = 0x40,
        ),
        (
            "segment SGL",
            Status::SGL_DESCRIPTOR_TYPE_INVALID,
            nvm::WRITE,
            |s| s.sgl.kind = 0x20,
        ),
        (
            "SGL FFh",
            Status::SGL_DESCRIPTOR_TYPE_INVALID,
            nvm::WRITE,
            |s| s.sgl.kind = 0xff,
        ),
        ("PRPs", Status::INVALID_FIELD, nvm::READ, |s| s.flags = 0),
        ("metadata SGL", Status::INVALID_FIELD, nvm::WRITE, |s| {
            s.flags = Sqe::PSDT_SGL_METADATA;
        }),
        ("reserved PSDT", Status::INVALID_FIELD, nvm::WRITE, |s| {
            s.flags = 0xc0
        }),
        ("fused", Status::INVALID_FIELD, nvm::COMPARE, |s| {
            s.flags |= 1
        }),
        ("opcode 7Eh", Status::INVALID_OPCODE, 0x7e, |_| ()),
        ("opcode FFh", Status::INVALID_OPCODE, 0xff, |_| ()),
        (
            "Identify on an I/O queue",
            Status::INVALID_OPCODE,
            admin::IDENTIFY,
            |_| (),
        ),
        (
            "Keep Alive on an I/O queue",
            Status::INVALID_OPCODE,
            admin::KEEP_ALIVE,
            |_| (),
        ),
        (
            "Property Get on an I/O queue",
            Status::INVALID_OPCODE,
            FABRICS,
            |s| {
                s.nsid = u32::from(fctype::PROPERTY_GET).into();
            },
        ),
        (
            "Property Set on an I/O queue",
            Status::INVALID_OPCODE,
            FABRICS,
            |s| {
                s.nsid = u32::from(fctype::PROPERTY_SET).into();
            },
        ),
        (
            "Connect on an I/O queue",
            Status::COMMAND_SEQUENCE_ERROR,
            FABRICS,
            |s| {
                s.nsid = u32::from(fctype::CONNECT).into();
            },
        ),
        (
            "Disconnect with RECFMT 1",
            Status::CONNECT_INCOMPATIBLE_FORMAT,
            FABRICS,
            |s| {
                s.nsid = u32::from(fctype::DISCONNECT).into();
                s.cdw10 = 1.into();
            },
        ),
        (
            "deallocate 256 ranges with data for one",
            Status::DATA_SGL_LENGTH_INVALID,
            nvm::DATASET_MANAGEMENT,
            |s| {
                s.cdw10 = 255.into();
                s.sgl.length = 16.into();
            },
        ),
    ];
    let mut all: Vec<Row> = table
        .into_iter()
        .map(|(name, status, opcode, change)| {
            command(name, Stage::Io(0), Expect::Status(status), move || {
                // 8 blocks from the first on, unless changed.
                let mut sqe = Sqe::for_blocks(opcode, 1, 0, 8);
                sqe.sgl = SglDescriptor::transport(4096);
                change(&mut sqe);
                sqe
            })
        })
        .collect();
    let capsule = |name: &str, expect, offset: u64, sgl_len: u32, len: usize| {
        row(name, Stage::Io(0), expect, move |at| {
            let mut sqe = write_by_r2t(0, sgl_len);
            sqe.sgl = SglDescriptor::in_capsule(offset, sgl_len);
            at.capsule(sqe, &vec![0; len])
        })
    };
    let wrong_len = Expect::Status(Status::DATA_SGL_LENGTH_INVALID);
    let wrong_offset = Expect::Status(Status::SGL_OFFSET_INVALID);
    all.extend([
        capsule("in-capsule data below the SGL", wrong_len, 0, 4096, 512),
        capsule("in-capsule data above the SGL", wrong_len, 0, 512, 4096),
        capsule("in-capsule SGL without data", wrong_len, 0, 4096, 0),
        capsule(
            "in-capsule SGL with an offset",
            wrong_offset,
            512,
            512,
            1024,
        ),
        capsule(
            "in-capsule offset 2^64 - 1",
            wrong_offset,
            u64::MAX,
            512,
            512,
        ),
        capsule("in-capsule SGL above IOCCSZ", wrong_offset, 0, 16384, 8192),
        capsule(
            "in-capsule data above IOCCSZ",
            Expect::StatusThenTerm(Status::SGL_OFFSET_INVALID, 5, 0),
            0,
            16384,
            16384,
        ),
        row(
            "deallocate over the end",
            Stage::Io(0),
            Expect::Status(Status::LBA_OUT_OF_RANGE),
            |at| {
                let mut sqe = Sqe::new(nvm::DATASET_MANAGEMENT, 1);
                sqe.cdw11 = 4.into();
                sqe.sgl = SglDescriptor::in_capsule(0, 16);
                at.capsule(sqe, &[0xff; 16])
            },
        ),
    ]);
    all
}
