//! Error disks: each kind of error, how often it strikes, and what is held until it is resumed.

use std::time::Duration;

use pollux_nvme_tcp::spec::opcode::nvm;
use pollux_nvme_tcp::spec::pdu::PduType;
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::spec::{SglDescriptor, Sqe};
use serde_json::json;

use crate::world::{Queue, SLACK, World, bring, deallocate, pattern, read, write};

const DISK: &str = "EE_Malloc0";

/// One namespace that can fail, and one that cannot.
fn world() -> World {
    World::new(|world| {
        let base = world.malloc("Malloc0");
        vec![world.error_disk(&base), world.malloc("Malloc1")]
    })
}

/// Status of a command of each kind, on a namespace: read, compare, write, zeroes, deallocate, flush.
fn statuses(io: &mut Queue, nsid: u32) -> [Status; 6] {
    let zero = [0; 512];
    let (dsm, range) = deallocate(nsid, 40, 1);
    let commands: [(Sqe, &[u8]); 6] = [
        (read(nsid, 40, 1), &[]),
        (bring(nvm::COMPARE, nsid, 41, 1, true), &zero),
        (bring(nvm::WRITE, nsid, 40, 1, false), &zero),
        (Sqe::for_blocks(nvm::WRITE_ZEROES, nsid, 40, 1), &[]),
        (dsm, &range),
        (Sqe::new(nvm::FLUSH, nsid), &[]),
    ];
    commands.map(|(sqe, data)| io.command(sqe, data).0.status())
}

#[test]
fn each_kind_fails_as_often_as_it_was_told_to() {
    const OK: Status = Status::SUCCESS;
    const NO: Status = Status::INTERNAL_ERROR;
    let mut w = world();
    let (_admin, mut io) = w.connect(false);
    for (io_type, num, first, second) in [
        ("read", 1, [NO, OK, OK, OK, OK, OK], [OK; 6]),
        (
            "read",
            3,
            [NO, NO, OK, OK, OK, OK],
            [NO, OK, OK, OK, OK, OK],
        ),
        (
            "write",
            3,
            [OK, OK, NO, NO, OK, OK],
            [OK, OK, NO, OK, OK, OK],
        ),
        ("unmap", 1, [OK, OK, OK, OK, NO, OK], [OK; 6]),
        (
            "flush",
            2,
            [OK, OK, OK, OK, OK, NO],
            [OK, OK, OK, OK, OK, NO],
        ),
        ("all", 1, [NO, OK, NO, OK, NO, NO], [OK; 6]),
        ("all", 0, [OK; 6], [OK; 6]),
    ] {
        w.inject(DISK, io_type, "failure", json!({"num": num}));
        assert_eq!(statuses(&mut io, 2), [OK; 6]);
        assert_eq!(statuses(&mut io, 1), first, "{io_type} {num}");
        assert_eq!(statuses(&mut io, 1), second, "{io_type} {num}");
        assert_eq!(statuses(&mut io, 1), [OK; 6], "{io_type} {num}");
    }
    // Once, if nothing is said; until it is cleared.
    w.inject(DISK, "flush", "failure", json!({}));
    w.inject(DISK, "read", "failure", json!({"num": 1000}));
    assert_eq!(statuses(&mut io, 1), [NO, NO, OK, OK, OK, NO]);
    assert_eq!(statuses(&mut io, 1), [NO, NO, OK, OK, OK, OK]);
    w.inject(DISK, "clear", "failure", json!({}));
    assert_eq!(statuses(&mut io, 1), [OK; 6]);
    // A flush of all namespaces finds the one that fails.
    w.inject(DISK, "flush", "failure", json!({}));
    let flush = Sqe::new(nvm::FLUSH, u32::MAX);
    assert_eq!(io.command(flush, &[]).0.status(), NO);
    assert_eq!(io.command(flush, &[]).0.status(), OK);
}

#[test]
fn what_fails_writes_nothing() {
    let mut w = world();
    let (_admin, mut io) = w.connect(true);
    let data = pattern(4096, 1);
    assert!(io.command(write(1, 0, 8), &data).0.status().is_success());
    w.inject(DISK, "all", "failure", json!({"num": 3}));
    let (dsm, range) = deallocate(1, 0, 8);
    let other = pattern(4096, 2);
    assert!(!io.command(write(1, 0, 8), &other).0.status().is_success());
    assert!(!io.command(dsm, &range).0.status().is_success());
    let zero = Sqe::for_blocks(nvm::WRITE_ZEROES, 1, 0, 8);
    assert!(!io.command(zero, &[]).0.status().is_success());
    // The disk is asked when the data is there.
    let on_r2t = bring(nvm::WRITE, 1, 0, 8, false);
    assert!(!io.command(on_r2t, &other).0.status().is_success());
    w.inject(DISK, "clear", "failure", json!({}));
    assert_eq!(io.read(1, 0, 8).unwrap(), data);
}

#[test]
fn commands_that_are_wrong_use_no_error_up() {
    let mut w = world();
    let (_admin, mut io) = w.connect(false);
    w.inject(DISK, "all", "failure", json!({}));
    let status = io.command(read(1, 1 << 50, 1), &[]).0.status();
    assert_eq!(status.code(), Status::LBA_OUT_OF_RANGE);
    let status = io.command(Sqe::new(0x70, 1), &[]).0.status();
    assert_eq!(status.code(), Status::INVALID_OPCODE);
    let mut short = write(1, 0, 8);
    short.sgl = SglDescriptor::in_capsule(0, 512);
    let status = io.command(short, &[1; 512]).0.status();
    assert_eq!(status.code(), Status::DATA_SGL_LENGTH_INVALID);
    let status = io.command(read(1, 0, 1), &[]).0.status();
    assert_eq!(status, Status::INTERNAL_ERROR);
}

#[test]
fn an_nvme_failure_has_the_status_that_was_asked_for() {
    let mut w = world();
    let (_admin, mut io) = w.connect(false);
    for (sct, sc) in [(2, 0x81), (0, 0x82), (3, 0x02), (1, 0), (7, 0xff)] {
        let status = json!({"nvme_sct": sct, "nvme_sc": sc});
        w.inject(DISK, "read", "nvme_failure", status);
        let found = io.command(read(1, 0, 1), &[]).0.status();
        assert_eq!(found, Status::new(sct, sc));
        assert!(io.command(read(1, 0, 1), &[]).0.status().is_success());
    }
}

#[test]
fn a_byte_is_changed_on_its_way() {
    let mut w = World::new(|w| {
        let null = json!({"name": "Null0", "num_blocks": 4096, "block_size": 512});
        w.call("bdev_null_create", null);
        let base = w.malloc("Malloc0");
        vec![w.error_disk(&base), w.error_disk("Null0")]
    });
    // The digest is right all the same: the data went wrong below it.
    let (_admin, mut io) = w.connect(true);
    let blocks = 600;
    let data = pattern(blocks as usize * 512, 1);
    let change = |data: &[u8], at: usize| {
        let mut data = data.to_vec();
        data[at] ^= 0x41;
        data
    };
    // In the first, and in the last PDU of the data.
    for at in [0, 700, 300_000] {
        let corrupt = json!({"corrupt_offset": at, "corrupt_value": 0x41});
        let sqe = bring(nvm::WRITE, 1, 0, blocks, false);
        assert!(io.command(sqe, &data).0.status().is_success());
        w.inject(DISK, "read", "corrupt_data", corrupt.clone());
        assert!(io.read(1, 0, blocks).unwrap() == change(&data, at), "{at}");
        assert!(io.read(1, 0, blocks).unwrap() == data, "{at}");
        w.inject("EE_Null0", "read", "corrupt_data", corrupt.clone());
        let zero = vec![0; data.len()];
        assert!(io.read(2, 0, blocks).unwrap() == change(&zero, at), "{at}");
        assert!(io.read(2, 0, blocks).unwrap() == zero, "{at}");
        w.inject(DISK, "write", "corrupt_data", corrupt.clone());
        assert!(io.command(sqe, &data).0.status().is_success());
        assert!(io.read(1, 0, blocks).unwrap() == change(&data, at), "{at}");
    }
    let corrupt = json!({"corrupt_offset": 511, "corrupt_value": 0x41, "num": 2});
    w.inject(DISK, "write", "corrupt_data", corrupt.clone());
    let one = &data[..512];
    assert!(io.command(write(1, 0, 1), one).0.status().is_success());
    assert_eq!(io.read(1, 0, 1).unwrap(), change(one, 511));
    // Ranges to deallocate are no data.
    let start = json!({"corrupt_offset": 8, "corrupt_value": 1});
    w.inject(DISK, "unmap", "corrupt_data", start);
    let (dsm, range) = deallocate(1, 0, 1);
    assert!(io.command(dsm, &range).0.status().is_success());
    assert_eq!(io.read(1, 0, 1).unwrap(), [0; 512]);
    // Beyond the data of the command, nothing is changed.
    let beyond = json!({"corrupt_offset": 512, "corrupt_value": 1});
    w.inject(DISK, "read", "corrupt_data", beyond);
    assert_eq!(io.read(1, 0, 1).unwrap(), [0; 512]);
}

#[test]
fn without_memory_a_command_comes_a_little_later() {
    let mut w = world();
    let (_admin, mut io) = w.connect(false);
    let data = pattern(512, 1);
    // One command that is sent away three times.
    w.inject(DISK, "all", "nomem", json!({"num": 3}));
    for (sqe, data) in [
        (write(1, 0, 1), &data[..]),
        (read(1, 0, 1), &[]),
        (Sqe::new(nvm::FLUSH, 1), &[]),
    ] {
        let (status, took) = w.timed(&mut io, sqe, data);
        assert!(status.is_success());
        let late = Duration::from_millis(3);
        assert!((late..late + SLACK).contains(&took), "{took:?}");
        assert!(w.timed(&mut io, sqe, data).1 < SLACK);
    }
    assert_eq!(io.read(1, 0, 1).unwrap(), data);
}

#[test]
fn an_error_can_wait_for_a_deep_queue() {
    let mut w = world();
    let (mut admin, mut io) = w.connect(false);
    w.inject(DISK, "flush", "pending", json!({}));
    w.inject(DISK, "read", "failure", json!({"num": 2, "queue_depth": 1}));
    assert!(io.command(read(1, 0, 1), &[]).0.status().is_success());
    let held = io.submit(Sqe::new(nvm::FLUSH, 1), &[]);
    assert!(!io.command(read(1, 0, 1), &[]).0.status().is_success());
    assert!(w.abort(&mut admin, held));
    io.finish(held, &[]);
    assert!(io.command(read(1, 0, 1), &[]).0.status().is_success());
}

#[test]
fn what_is_pending_stays_until_it_is_resumed() {
    let mut w = world();
    let (admin, mut first) = w.connect(false);
    // On the other reactor.
    let mut second = w.io_queue(&admin, 2);
    let (old, new) = (pattern(512, 1), pattern(512, 2));
    for lba in 0..4 {
        assert!(
            first
                .command(write(1, lba, 1), &old)
                .0
                .status()
                .is_success()
        );
    }
    w.inject(DISK, "all", "pending", json!({"num": 3}));
    let in_capsule = first.submit(write(1, 0, 1), &new);
    let on_r2t = first.submit(bring(nvm::WRITE, 1, 1, 1, false), &[]);
    let r2t = first.receive();
    assert_eq!(first.answer_r2t(&r2t, &new), on_r2t);
    let (dsm, range) = deallocate(1, 2, 1);
    let unmap = second.submit(dsm, &range);
    let zeroes = second.submit(Sqe::for_blocks(nvm::WRITE_ZEROES, 1, 3, 1), &[]);
    let reading = second.submit(read(1, 0, 1), &[]);
    let flush = second.submit(Sqe::new(nvm::FLUSH, 1), &[]);
    for queue in [&mut first, &mut second] {
        assert!(queue.receive_within(Duration::from_secs(600)).is_none());
    }
    // Everybody else goes on, and sees that nothing was written. Two of three reads are held by now.
    w.inject(DISK, "read", "failure", json!({"num": 0}));
    for lba in 0..4 {
        assert_eq!(first.read(1, lba, 1).unwrap(), old);
        assert_eq!(second.read(2, lba, 1).unwrap(), [0; 512]);
    }
    // To clear is not to resume.
    w.inject(DISK, "clear", "pending", json!({}));
    assert!(first.receive_within(SLACK).is_none());
    let start = w.now();
    assert_eq!(
        w.call("bdev_error_resume_pending", json!({"name": DISK})),
        true
    );
    assert!(first.finish(in_capsule, &[]).0.status().is_success());
    assert!(first.finish(on_r2t, &[]).0.status().is_success());
    for cid in [unmap, zeroes] {
        assert!(second.finish(cid, &[]).0.status().is_success());
    }
    // It is read when it goes on, wherever the write that was held before it is by now.
    let (cqe, read) = second.finish(reading, &[]);
    assert!(cqe.status().is_success() && (read == old || read == new));
    assert!(second.finish(flush, &[]).0.status().is_success());
    assert!(w.now() - start < SLACK);
    for (lba, data) in [(0, &new[..]), (1, &new), (2, &[0; 512]), (3, &[0; 512])] {
        assert_eq!(first.read(1, lba, 1).unwrap(), data);
    }
}

/// Lines of the log that were written on this thread, which the simulation runs on.
struct Lines;

thread_local! {
    static LINES: std::cell::RefCell<Vec<String>> = const { std::cell::RefCell::new(Vec::new()) };
}

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        LINES.with_borrow_mut(|lines| lines.push(record.args().to_string()));
    }

    fn flush(&self) {}
}

#[test]
fn a_disk_that_does_not_answer_is_named_in_the_log() {
    log::set_logger(&Lines).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    let mut w = world();
    let (_admin, mut io) = w.connect(false);
    w.inject(DISK, "read", "pending", json!({"num": 2}));
    io.submit(read(1, 0, 1), &[]);
    let silence =
        || LINES.with_borrow(|lines| lines.iter().filter(|l| l.starts_with(DISK)).count());
    w.sim.borrow_mut().run_for(Duration::from_secs(29));
    io.submit(read(1, 0, 1), &[]);
    assert_eq!(silence(), 0);
    w.sim.borrow_mut().run_for(Duration::from_secs(2));
    assert_eq!(silence(), 1);
    // Again after twice the time, as long as that lasts.
    w.sim.borrow_mut().run_for(Duration::from_secs(20));
    assert_eq!(silence(), 1);
    w.sim.borrow_mut().run_for(Duration::from_secs(20));
    assert_eq!(silence(), 2);
    w.call("bdev_error_resume_pending", json!({"name": DISK}));
    w.sim.borrow_mut().run_for(Duration::from_secs(600));
    assert_eq!(silence(), 2);
}

#[test]
fn a_resume_is_for_what_was_held_before_it() {
    let mut w = world();
    let (_admin, mut io) = w.connect(false);
    w.call("bdev_error_resume_pending", json!({"name": DISK}));
    w.inject(DISK, "read", "pending", json!({}));
    let held = io.submit(read(1, 0, 1), &[]);
    assert!(io.receive_within(SLACK).is_none());
    w.call("bdev_error_resume_pending", json!({"name": DISK}));
    assert!(io.finish(held, &[]).0.status().is_success());
}

#[test]
fn what_is_pending_can_be_aborted_and_has_written_nothing() {
    let mut w = world();
    let (mut admin, mut io) = w.connect(false);
    w.inject(DISK, "write", "pending", json!({"num": 2}));
    for sqe in [write(1, 0, 1), bring(nvm::WRITE, 1, 0, 1, false)] {
        let data: &[u8] = match sqe.sgl.kind {
            SglDescriptor::IN_CAPSULE => &[7; 512],
            _ => &[],
        };
        let cid = io.submit(sqe, data);
        if data.is_empty() {
            let r2t = io.receive();
            assert_eq!(r2t.frame.pdu_type, PduType::R2T);
            io.answer_r2t(&r2t, &[7; 512]);
        }
        assert!(w.abort(&mut admin, cid));
        let (cqe, _) = io.finish(cid, &[]);
        assert_eq!(cqe.status(), Status::ABORTED_BY_REQUEST);
        assert!(!w.abort(&mut admin, cid));
    }
    w.call("bdev_error_resume_pending", json!({"name": DISK}));
    assert!(io.receive_within(SLACK).is_none());
    assert_eq!(io.read(1, 0, 1).unwrap(), [0; 512]);
}

#[test]
fn what_is_pending_goes_with_its_connection() {
    let mut w = world();
    let (admin, mut io) = w.connect(false);
    w.inject(DISK, "all", "pending", json!({"num": 5}));
    for lba in 0..5 {
        io.submit(write(1, lba, 1), &[7; 512]);
        io.submit(bring(nvm::COMPARE, 1, lba, 1, true), &[7; 512]);
    }
    io.stream.close();
    let mut io = w.io_queue(&admin, 1);
    w.call("bdev_error_resume_pending", json!({"name": DISK}));
    assert!(io.receive_within(SLACK).is_none());
    for lba in 0..5 {
        assert_eq!(io.read(1, lba, 1).unwrap(), [0; 512]);
    }
}

#[test]
fn what_is_pending_ends_with_its_namespace() {
    let mut w = world();
    let (_admin, mut io) = w.connect(false);
    w.inject(DISK, "all", "pending", json!({"num": 5}));
    let reading = io.submit(read(1, 0, 1), &[]);
    let all = io.submit(Sqe::new(nvm::FLUSH, u32::MAX), &[]);
    assert!(io.receive_within(SLACK).is_none());
    w.call("bdev_error_delete", json!({"name": DISK}));
    let (cqe, _) = io.finish(reading, &[]);
    assert_eq!(cqe.status().code(), Status::INVALID_NAMESPACE);
    assert!(io.finish(all, &[]).0.status().is_success());
    let status = io.command(read(1, 0, 1), &[]).0.status();
    assert_eq!(status.code(), Status::INVALID_NAMESPACE);
}

#[test]
fn what_is_pending_ends_when_its_namespace_leaves_the_disk() {
    let mut w = world();
    let (admin, mut first) = w.connect(false);
    let mut second = w.io_queue(&admin, 2);
    w.inject(DISK, "read", "pending", json!({"num": 2}));
    let held = [&mut first, &mut second].map(|queue| queue.submit(read(1, 0, 1), &[]));
    let remove = json!({"nqn": crate::world::NQN, "nsid": 1});
    w.call("nvmf_subsystem_remove_ns", remove);
    for (queue, cid) in [&mut first, &mut second].into_iter().zip(held) {
        let (cqe, _) = queue.finish(cid, &[]);
        assert_eq!(cqe.status().code(), Status::INVALID_NAMESPACE);
    }
}

#[test]
fn what_was_held_does_not_go_to_another_disk() {
    let mut w = world();
    let (_admin, mut io) = w.connect(false);
    let place = |nsid: u32| json!({"nqn": crate::world::NQN, "nsid": nsid});
    w.call("nvmf_subsystem_remove_ns", place(2));
    w.inject(DISK, "write", "nomem", json!({}));
    let held = io.submit(write(1, 0, 1), &[7; 512]);
    w.call("nvmf_subsystem_remove_ns", place(1));
    assert_eq!(w.add_ns("Malloc1"), 1);
    let (cqe, _) = io.finish(held, &[]);
    assert_eq!(cqe.status().code(), Status::INVALID_NAMESPACE);
    assert_eq!(io.read(1, 0, 1).unwrap(), [0; 512]);
}
