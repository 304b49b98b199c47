//! Commands on I/O queues.

use pollux_nvme_tcp::spec::fabrics::cattr;
use pollux_nvme_tcp::spec::nvm::{DatasetRange, dsm};
use pollux_nvme_tcp::spec::opcode::{self, nvm};
use pollux_nvme_tcp::spec::pdu::{PduType, R2t};
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::spec::{SglDescriptor, Sqe};
use pollux_nvme_tcp::target::{Backend, FileEngine};
use pollux_nvme_tcp::testing::{Initiator, Options, TestTarget, pattern, wait_for};
use zerocopy::{FromBytes, IntoBytes};

const MIB: u64 = 1 << 20;

fn memory() -> TestTarget {
    TestTarget::start(2, &[Backend::Memory { bytes: 16 * MIB }])
}

/// Writes and reads back in many sizes, by both ways of sending data.
fn round_trips(io: &mut Initiator) {
    let sizes = [512, 4096, 8192, 8704, 65536, 131_072, 300_032, 1 << 20];
    for (i, size) in sizes.into_iter().enumerate() {
        let data = pattern(size, i as u64);
        let lba = 7 + i as u64 * 2048;
        assert_eq!(io.write(1, lba, &data), Status::SUCCESS, "size {size}");
        let blocks = u32::try_from(size / 512).unwrap();
        assert!(io.read(1, lba, blocks).unwrap() == data, "size {size}");
        if size <= 8192 {
            let other = pattern(size, 99);
            let status = io.send_blocks(nvm::WRITE, 1, lba, &other, false);
            assert_eq!(status, Status::SUCCESS);
            assert!(io.read(1, lba, blocks).unwrap() == other, "size {size}");
        }
    }
}

#[test]
fn what_was_written_is_read_with_every_framing() {
    let target = memory();
    for (hdgst, ddgst) in [(false, false), (true, false), (false, true), (true, true)] {
        for (hpda, cattr) in [(0, 0), (31, cattr::DISABLE_SQ_FLOW_CONTROL), (6, 0)] {
            let options = Options {
                hdgst,
                ddgst,
                hpda,
                cattr,
                ..Options::default()
            };
            let (_admin, mut io) = target.connect(options);
            round_trips(&mut io);
        }
    }
}

#[test]
fn queues_on_different_reactors_share_a_namespace() {
    let target = memory();
    let admin = Initiator::admin(target.addr, &target.nqn, Options::default());
    let mut queues: Vec<Initiator> = (1..=3)
        .map(|qid| {
            Initiator::io(
                target.addr,
                &target.nqn,
                admin.cntlid,
                qid,
                Options::default(),
            )
        })
        .collect();
    for (i, lba) in [(0, 0), (1, 100), (2, 200)] {
        let data = pattern(4096, lba);
        assert_eq!(queues[i].write(1, lba, &data), Status::SUCCESS);
        for queue in &mut queues {
            assert_eq!(queue.read(1, lba, 8).unwrap(), data);
        }
    }
    let status = target.status();
    let controller = &status.subsystems[0].controllers[0];
    let reactors: Vec<usize> = controller.qpairs.iter().map(|q| q.reactor).collect();
    assert_eq!(reactors, [0, 0, 1, 0]);
    assert_eq!(
        status.reactors[0].io.writes + status.reactors[1].io.writes,
        3
    );
    assert_eq!(status.reactors[1].io_qpairs, 1);
}

#[test]
fn success_flag_comes_only_without_flow_control() {
    let target = memory();
    for (attributes, response) in [(0, true), (cattr::DISABLE_SQ_FLOW_CONTROL, false)] {
        let options = Options {
            cattr: attributes,
            ..Options::default()
        };
        let (_admin, mut io) = target.connect(options);
        let mut sqe = Sqe::for_blocks(nvm::READ, 1, 0, 8);
        sqe.sgl = SglDescriptor::transport(4096);
        io.submit(sqe, &[]);
        let data = io.receive();
        assert_eq!(data.frame.pdu_type, PduType::C2H_DATA);
        assert!(data.frame.is_last());
        assert_eq!(data.frame.is_success(), !response);
        if response {
            assert_eq!(io.receive().cqe().sqhd.get(), 2);
        }
    }
}

#[test]
fn compare_write_zeroes_deallocate_and_flush() {
    let target = memory();
    let (_admin, mut io) = target.connect(Options::default());
    let data = pattern(16384, 1);
    assert_eq!(io.write(1, 0, &data), Status::SUCCESS);
    for in_capsule in [true, false] {
        let same = io.send_blocks(nvm::COMPARE, 1, 0, &data[..8192], in_capsule);
        assert_eq!(same, Status::SUCCESS);
        let other = io.send_blocks(nvm::COMPARE, 1, 1, &data[..8192], in_capsule);
        assert_eq!(other.code(), Status::COMPARE_FAILURE);
    }
    let (cqe, _) = io.command(Sqe::for_blocks(nvm::WRITE_ZEROES, 1, 2, 3), &[]);
    assert_eq!(cqe.status(), Status::SUCCESS);
    let mut expected = data;
    expected[1024..2560].fill(0);
    assert!(io.read(1, 0, 32).unwrap() == expected);

    // One range in a list of 4,096 bytes, as Linux sends it.
    let range = DatasetRange {
        nlb: 4.into(),
        slba: 10.into(),
        ..DatasetRange::default()
    };
    let mut list = range.as_bytes().to_vec();
    list.resize(4096, 0xff);
    let mut sqe = Sqe::new(nvm::DATASET_MANAGEMENT, 1);
    sqe.cdw11 = dsm::DEALLOCATE.into();
    sqe.sgl = SglDescriptor::in_capsule(0, 4096);
    assert_eq!(io.command(sqe, &list).0.status(), Status::SUCCESS);
    expected[5120..7168].fill(0);
    assert!(io.read(1, 0, 32).unwrap() == expected);

    for nsid in [1, 0xffff_ffff] {
        let (cqe, _) = io.command(Sqe::new(nvm::FLUSH, nsid), &[]);
        assert_eq!(cqe.status(), Status::SUCCESS);
    }
    // More zeroing than is done in place, with a command behind it that does not wait.
    let zero = io.submit(Sqe::for_blocks(nvm::WRITE_ZEROES, 1, 0, 32768), &[]);
    let flush = io.submit(Sqe::new(nvm::FLUSH, 1), &[]);
    let mut done = [io.receive().cqe(), io.receive().cqe()];
    done.sort_by_key(|cqe| cqe.cid != zero);
    assert_eq!(done.map(|cqe| cqe.cid.get()), [zero, flush]);
    assert!(done.iter().all(|cqe| cqe.status() == Status::SUCCESS));
    assert!(io.read(1, 0, 32).unwrap() == vec![0; 16384]);
}

#[test]
fn null_namespaces_read_zeroes() {
    let target = TestTarget::start(1, &[Backend::Null { bytes: 1 << 30 }]);
    for ddgst in [false, true] {
        let options = Options {
            ddgst,
            ..Options::default()
        };
        let (_admin, mut io) = target.connect(options);
        assert_eq!(io.write(1, 5, &pattern(4096, 1)), Status::SUCCESS);
        for blocks in [1, 8, 2048] {
            assert!(io.read(1, 5, blocks).unwrap() == vec![0; blocks as usize * 512]);
        }
    }
}

#[test]
fn a_file_outlives_the_target() {
    for engine in [FileEngine::Auto, FileEngine::Threads] {
        file_outlives_the_target(engine);
    }
}

fn file_outlives_the_target(engine: FileEngine) {
    let path = std::env::temp_dir().join(format!("pollux-target-{}", std::process::id()));
    let data = pattern(65536, 3);
    let backend = |bytes| Backend::File {
        path: path.clone(),
        bytes,
        shared: false,
        engine,
    };
    {
        let target = TestTarget::start(1, &[backend(Some(16 * MIB))]);
        let (_admin, mut io) = target.connect(Options::default());
        round_trips(&mut io);
        assert_eq!(io.write(1, 9, &data), Status::SUCCESS);
        let (cqe, _) = io.command(Sqe::new(nvm::FLUSH, 1), &[]);
        assert_eq!(cqe.status(), Status::SUCCESS);
    }
    let target = TestTarget::start(1, &[backend(None)]);
    let (_admin, mut io) = target.connect(Options::default());
    assert!(io.read(1, 9, 128).unwrap() == data);
    assert_eq!(
        io.read(1, 32768, 1).unwrap_err().code(),
        Status::LBA_OUT_OF_RANGE
    );
    std::fs::remove_file(path).unwrap();
}

#[test]
fn commands_that_cannot_be_done_get_their_status_and_the_queue_goes_on() {
    let target = memory();
    let (_admin, mut io) = target.connect(Options::default());
    let read = |lba, blocks: u32, len: u32| {
        let mut sqe = Sqe::for_blocks(nvm::READ, 1, lba, blocks);
        sqe.sgl = SglDescriptor::transport(len);
        sqe
    };
    let with = |sqe: Sqe, change: &dyn Fn(&mut Sqe)| {
        let mut sqe = sqe;
        change(&mut sqe);
        sqe
    };
    let write = Sqe {
        opcode: nvm::WRITE,
        ..read(0, 8, 4096)
    };
    let in_capsule = SglDescriptor::in_capsule(0, 4096);
    let cases: Vec<(Sqe, Status)> = vec![
        (Sqe::new(0x7e, 1), Status::INVALID_OPCODE),
        (Sqe::new(nvm::COPY, 1), Status::INVALID_OPCODE),
        (
            with(read(0, 8, 4096), &|s| s.nsid = 0.into()),
            Status::INVALID_NAMESPACE,
        ),
        (
            with(read(0, 8, 4096), &|s| s.nsid = 2.into()),
            Status::INVALID_NAMESPACE,
        ),
        (
            with(read(0, 8, 4096), &|s| s.nsid = 0xffff_ffff.into()),
            Status::INVALID_NAMESPACE,
        ),
        (read(32768, 1, 512), Status::LBA_OUT_OF_RANGE),
        (read(32760, 9, 4608), Status::LBA_OUT_OF_RANGE),
        (read(u64::MAX, 2, 1024), Status::LBA_OUT_OF_RANGE),
        (read(0, 8, 4095), Status::DATA_SGL_LENGTH_INVALID),
        (read(0, 2049, 2049 * 512), Status::INVALID_FIELD),
        (
            with(read(0, 8, 4096), &|s| s.sgl = in_capsule),
            Status::SGL_DESCRIPTOR_TYPE_INVALID,
        ),
        (
            with(read(0, 8, 4096), &|s| s.flags = 0),
            Status::INVALID_FIELD,
        ),
        (
            with(read(0, 8, 4096), &|s| s.flags |= 1),
            Status::INVALID_FIELD,
        ),
        (
            with(write, &|s| s.sgl.kind = 0x40),
            Status::SGL_DESCRIPTOR_TYPE_INVALID,
        ),
        (
            with(write, &|s| s.sgl = SglDescriptor::in_capsule(4, 4096)),
            Status::SGL_OFFSET_INVALID,
        ),
        (
            with(Sqe::new(nvm::DATASET_MANAGEMENT, 1), &|s| {
                s.cdw10 = 255.into();
                s.sgl = SglDescriptor::transport(16);
            }),
            Status::DATA_SGL_LENGTH_INVALID,
        ),
    ];
    let failed = cases.len() as u64;
    for (sqe, expected) in cases {
        let cid = io.submit(sqe, &[]);
        let (cqe, _) = io.finish(cid, &[]);
        assert_eq!(cqe.status().code(), expected, "{sqe:?}");
        assert!(cqe.status().dnr(), "{sqe:?}");
    }
    // A capsule with less data than its SGL says.
    let sqe = with(write, &|s| s.sgl = in_capsule);
    let cid = io.submit(sqe, &[0; 512]);
    let (cqe, _) = io.finish(cid, &[]);
    assert_eq!(cqe.status().code(), Status::DATA_SGL_LENGTH_INVALID);
    assert_eq!(io.read(1, 0, 1).unwrap(), [0; 512]);
    let status = target.status();
    let queue = &status.subsystems[0].controllers[0].qpairs[1];
    assert_eq!(queue.counters.failed, failed + 1);
    assert_eq!(queue.counters.reads, 1);
}

#[test]
fn many_commands_in_one_segment_are_all_answered() {
    let target = TestTarget::start(
        1,
        &[
            Backend::Memory { bytes: 16 * MIB },
            Backend::Null { bytes: MIB },
        ],
    );
    let (_admin, mut io) = target.connect(Options::default());
    for nsid in [1, 2] {
        let mut out = Vec::new();
        let cids: Vec<u16> = (0..120).map(|_| io.new_cid()).collect();
        for &cid in &cids {
            // 120 times 128 KiB is far more than the send queue holds.
            let mut sqe = Sqe::for_blocks(nvm::READ, nsid, 0, 256);
            sqe.cid = cid.into();
            sqe.sgl = SglDescriptor::transport(131_072);
            io.put_capsule(&mut out, sqe, &[]);
        }
        io.send_raw(&out);
        for cid in cids {
            let (cqe, data) = io.finish(cid, &[]);
            assert_eq!(cqe.status(), Status::SUCCESS);
            assert_eq!(data.len(), 131_072);
        }
    }
}

#[test]
fn more_large_writes_than_staging_memory_wait_their_turn() {
    let target = memory();
    let (_admin, mut io) = target.connect(Options::default());
    let len = 1 << 20;
    let count = 50u64;
    let mut cids = Vec::new();
    for i in 0..count {
        let mut sqe = Sqe::for_blocks(nvm::WRITE, 1, i % 8 * 2048, 2048);
        sqe.sgl = SglDescriptor::transport(1 << 20);
        cids.push(io.submit(sqe, &[]));
    }
    let mut done = 0;
    while done < count {
        let pdu = io.receive();
        if pdu.frame.pdu_type == PduType::R2T {
            let (r2t, _) = R2t::read_from_prefix(&pdu.bytes).unwrap();
            let cid = r2t.cccid.get();
            let i = cids.iter().position(|c| *c == cid).unwrap();
            io.send_data(cid, r2t.ttag.get(), 0, &pattern(len, i as u64), true);
        } else {
            assert_eq!(pdu.cqe().status(), Status::SUCCESS);
            done += 1;
        }
    }
    for i in count - 8..count {
        assert!(io.read(1, i % 8 * 2048, 2048).unwrap() == pattern(len, i));
    }
    // One connection has 19 MiB of it at most.
    let reactor = &target.status().reactors[0];
    assert!(reactor.staging_waits >= 30);
    assert_eq!(reactor.staging_held, 0);
    assert!(reactor.staging_longest_wait > std::time::Duration::ZERO);
}

#[test]
fn a_command_that_waits_for_its_r2t_can_be_aborted() {
    let target = memory();
    let (mut admin, mut io) = target.connect(Options::default());
    let cids: Vec<u16> = (0..40)
        .map(|i| {
            let mut sqe = Sqe::for_blocks(nvm::WRITE, 1, i % 8 * 2048, 2048);
            sqe.sgl = SglDescriptor::transport(1 << 20);
            io.submit(sqe, &[])
        })
        .collect();
    // As many as one connection may have.
    for _ in 0..19 {
        assert_eq!(io.receive().frame.pdu_type, PduType::R2T);
    }
    let mut abort = |cid: u16| {
        let mut sqe = Sqe::new(opcode::admin::ABORT, 0);
        sqe.cdw10 = (u32::from(cid) << 16 | 1).into();
        admin.command(sqe, &[]).0.dw0()
    };
    // The last capsule may still be on its way.
    wait_for("the command that waits", || abort(cids[39]) == 0);
    assert_eq!(abort(cids[0]), 1);
    let aborted = io.receive().cqe();
    assert_eq!(aborted.cid.get(), cids[39]);
    assert_eq!(aborted.status(), Status::ABORTED_BY_REQUEST);
}
