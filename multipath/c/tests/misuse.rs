//! What a C program may do wrong: null, closed and foreign handles, null pointers, queues that are full, threads that meet,
//! a host that has ended. All of it is an error code with a text.
#![expect(unsafe_code, reason = "as a C program calls")]
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::ffi::{CStr, CString, c_int};
use std::ptr::{null, null_mut};
use std::thread;

use pollux::*;
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_nvme_tcp::target::Backend;
use pollux_nvme_tcp::testing::TestTarget;

const BLOCK: usize = 512;

/// What was wrong, as the thread that asks is told.
fn error() -> String {
    // SAFETY: the text stands until the next call of this thread.
    unsafe { CStr::from_ptr(pollux_error()) }
        .to_str()
        .unwrap()
        .to_owned()
}

/// A host with the volume disk0n1, opened.
struct World {
    target: TestTarget,
    host: pollux_host,
    disk: pollux_disk,
}

impl World {
    fn new(depth: u32) -> Self {
        Self::with_queue_pairs(1, depth)
    }

    fn with_queue_pairs(queue_pairs: u32, depth: u32) -> Self {
        let target = TestTarget::start(1, &[Backend::Memory { bytes: 1 << 20 }]);
        let (mut host, mut disk) = (pollux_host(0), pollux_disk(0));
        let path = format!(
            "traddr:127.0.0.1 trsvcid:{} subnqn:{}",
            target.addr.port(),
            target.nqn
        );
        let path = CString::new(path).unwrap();
        // SAFETY: all of it is there.
        unsafe {
            assert_eq!(pollux_host_start(-1, 50, queue_pairs, &raw mut host), 0);
            assert_eq!(
                pollux_host_attach(host, c"disk0".as_ptr(), path.as_ptr()),
                0,
                "{}",
                error()
            );
            let name = c"disk0n1".as_ptr();
            assert_eq!(pollux_disk_open(host, name, depth, 1000, &raw mut disk), 0);
        }
        Self { target, host, disk }
    }

    fn submit(&self, io: pollux_io) -> c_int {
        // SAFETY: what is submitted here has its buffer.
        unsafe { pollux_disk_submit(self.disk, &raw const io) }
    }

    fn wait(&self, timeout_ms: u32) -> Result<pollux_completion, c_int> {
        wait(self.disk, timeout_ms)
    }
}

fn wait(disk: pollux_disk, timeout_ms: u32) -> Result<pollux_completion, c_int> {
    let mut done = pollux_completion {
        user: 0,
        buffer: null_mut(),
        result: 0,
        status: 0,
    };
    // SAFETY: there is room for one, and buffers outlive this.
    match unsafe { pollux_disk_wait(disk, &raw mut done, 1, timeout_ms) } {
        1 => Ok(done),
        other => Err(other),
    }
}

impl Drop for World {
    fn drop(&mut self) {
        pollux_disk_close(self.disk);
        pollux_host_stop(self.host, 1000);
    }
}

fn io(op: u32, user: u64, buffer: &mut [u8]) -> pollux_io {
    pollux_io {
        op,
        blocks: 1,
        lba: user,
        buffer: buffer.as_mut_ptr().cast(),
        length: buffer.len(),
        user,
        timeout_us: 0,
    }
}

#[test]
fn every_operation_ends_with_what_it_was_submitted_with() {
    let world = World::new(4);
    let mut info = pollux_disk_info {
        blocks: 0,
        block_size: 0,
        depth: 0,
    };
    // SAFETY: it is a place.
    let told = unsafe { pollux_disk_get_info(world.disk, &raw mut info) };
    assert_eq!(told, 0);
    assert_eq!((info.blocks, info.block_size, info.depth), (2048, 512, 4));
    let (mut written, mut read) = ([7u8; BLOCK], [0u8; BLOCK]);
    for op in [
        POLLUX_WRITE,
        POLLUX_READ,
        POLLUX_COMPARE,
        POLLUX_FLUSH,
        POLLUX_WRITE_ZEROES,
        POLLUX_DEALLOCATE,
    ] {
        let buffer = match op {
            POLLUX_READ => &mut read,
            _ => &mut written,
        };
        let address = buffer.as_mut_ptr();
        assert_eq!(world.submit(io(op, 9, buffer)), 0, "{op}: {}", error());
        let done = world.wait(10_000).unwrap();
        assert_eq!((done.result, done.user), (0, 9), "{op}");
        assert_eq!(done.buffer.cast(), address);
    }
    assert_eq!(read, [7; BLOCK]);
    // Block 9 is zeroes by now, and the comparison says so by NVMe's own status.
    assert_eq!(world.submit(io(POLLUX_COMPARE, 9, &mut written)), 0);
    let done = world.wait(10_000).unwrap();
    assert_eq!((done.result, done.status), (-libc::EIO, 0x285));
}

#[test]
fn handles_that_are_none_are_refused() {
    let world = World::new(1);
    let foreign = [0, 1, u64::MAX, 0x7044_0000_0001_ffff, world.host.0];
    let mut done = pollux_completion {
        user: 0,
        buffer: null_mut(),
        result: 0,
        status: 0,
    };
    for disk in foreign.map(pollux_disk) {
        // SAFETY: all pointers are null or places.
        let told = unsafe {
            [
                pollux_disk_submit(disk, null()),
                pollux_disk_poll(disk, &raw mut done, 1),
                pollux_disk_wait(disk, &raw mut done, 1, 0),
                pollux_disk_get_info(disk, null_mut()),
                pollux_disk_event_fd(disk),
                pollux_disk_abort(disk, 0),
                pollux_disk_close(disk),
            ]
        };
        assert_eq!(told, [-libc::EBADF; 7]);
        assert_eq!(error(), "this is no handle of a disk that is there");
    }
    let host = pollux_host(world.disk.0);
    // SAFETY: as above.
    unsafe {
        assert_eq!(pollux_host_attach(host, null(), null()), -libc::EBADF);
        assert_eq!(pollux_host_detach(host, null()), -libc::EBADF);
    }
    assert_eq!(pollux_host_stop(host, 0), -libc::EBADF);
    assert_eq!(error(), "this is no handle of a host that is there");
}

#[test]
fn pointers_and_values_that_cannot_be_are_refused() {
    let world = World::new(1);
    let (host, disk) = (world.host, world.disk);
    let mut buffer = [0; BLOCK];
    let mut opened = pollux_disk(0);
    let wrong = |told: c_int, errno: c_int, why: &str| {
        assert_eq!((told, error().as_str()), (-errno, why));
    };
    let nowhere = "the place for the result is null";
    // SAFETY: all pointers are null, texts, or places.
    unsafe {
        let start = pollux_host_start;
        wrong(start(-1, 0, 1, null_mut()), libc::EINVAL, nowhere);
        let mut other = pollux_host(1);
        let core = start(-2, 0, 1, &raw mut other);
        wrong(core, libc::EINVAL, "no such core");
        assert_eq!(start(5000, 0, 1, &raw mut other), -libc::EINVAL);
        assert!(error().starts_with("core 5000 cannot be had; cores that can: "));
        let allowed = "queue_pairs: 1 to 64 are allowed";
        for queue_pairs in [0, 65] {
            let told = start(-1, 0, queue_pairs, &raw mut other);
            wrong(told, libc::EINVAL, allowed);
        }
        assert_eq!(other.0, 0, "what failed leaves no handle");
        let name = c"disk0".as_ptr();
        let attach = |name, path| pollux_host_attach(host, name, path);
        wrong(attach(null(), name), libc::EINVAL, "name is null");
        wrong(attach(name, null()), libc::EINVAL, "transport is null");
        let path = c"\xff".as_ptr();
        wrong(attach(name, path), libc::EINVAL, "transport is not UTF-8");
        let none = c"other".as_ptr();
        assert_eq!(pollux_host_detach(host, none), -libc::ENOENT);
        let mut open = |name, depth| pollux_disk_open(host, name, depth, 0, &raw mut opened);
        assert_eq!(open(c"disk9n9".as_ptr(), 1), -libc::ENOENT);
        let volume = c"disk0n1".as_ptr();
        let depth = "depth of a queue: 1 to 4,096 are allowed";
        wrong(open(volume, 0), libc::EINVAL, depth);
        wrong(open(null(), 1), libc::EINVAL, "volume is null");
        let open = pollux_disk_open(host, volume, 1, 0, null_mut());
        wrong(open, libc::EINVAL, nowhere);
        wrong(
            pollux_disk_submit(disk, null()),
            libc::EINVAL,
            "the I/O is null",
        );
        let place = "there is no place for a completion";
        wrong(pollux_disk_poll(disk, null_mut(), 1), libc::EINVAL, place);
    }
    let short = "the buffer is null or shorter than the blocks";
    let mut bad = io(POLLUX_READ, 0, &mut buffer);
    bad.buffer = null_mut();
    wrong(world.submit(bad), libc::EINVAL, short);
    let mut bad = io(POLLUX_WRITE, 0, &mut buffer);
    bad.blocks = u32::MAX;
    wrong(world.submit(bad), libc::EINVAL, short);
    let bad = io(6, 0, &mut buffer);
    wrong(world.submit(bad), libc::EINVAL, "no such operation");
    let outside = "no blocks, or blocks outside the volume";
    wrong(
        world.submit(io(POLLUX_READ, u64::MAX, &mut buffer)),
        libc::EINVAL,
        outside,
    );
    // Beyond the end, which the reactor alone knows for sure.
    assert_eq!(world.submit(io(POLLUX_READ, 2048, &mut buffer)), 0);
    assert_eq!(world.wait(10_000).unwrap().result, -libc::EINVAL);
    assert_eq!(world.wait(1).err(), Some(0));
}

/// Disks take turns with the queue pairs of a path, which a depth of 4,096 in each shows: no two of the first three share one.
#[test]
fn a_path_has_as_many_queue_pairs_as_the_host_was_started_with() {
    let world = World::with_queue_pairs(3, 4096);
    let status = world.target.status();
    let controllers = status.subsystems.iter().flat_map(|s| &s.controllers);
    let qids = controllers.flat_map(|c| c.qpairs.iter().map(|q| q.qid));
    assert_eq!(qids.collect::<Vec<_>>(), [0, 1, 2, 3], "of one controller");
    let open = |depth| {
        let mut disk = pollux_disk(0);
        let name = c"disk0n1".as_ptr();
        // SAFETY: all of it is there.
        let told = unsafe { pollux_disk_open(world.host, name, depth, 0, &raw mut disk) };
        (told, disk)
    };
    let disks = [open(4096), open(4096)];
    assert_eq!(disks.map(|(told, _)| told), [0, 0], "{}", error());
    assert_eq!(open(1).0, -libc::EINVAL, "the turn of the first again");
    for (_, disk) in disks {
        let mut buffer = [1; BLOCK];
        let io = io(POLLUX_READ, 1, &mut buffer);
        // SAFETY: the buffer outlives it.
        assert_eq!(unsafe { pollux_disk_submit(disk, &raw const io) }, 0);
        assert_eq!(wait(disk, 10_000).map(|done| done.result), Ok(0));
        assert_eq!(buffer, [0; BLOCK]);
        assert_eq!(pollux_disk_close(disk), 0);
    }
}

#[test]
fn what_does_not_fit_is_for_later_and_what_waits_is_taken_back() {
    let world = World::new(2);
    world
        .target
        .set_ana(world.target.addr, AnaState::INACCESSIBLE);
    let mut buffers = [[1; BLOCK]; 3];
    let [one, two, three] = &mut buffers;
    // It may still be sent, and ends then at the target with an ANA status: it waits in either case.
    assert_eq!(world.submit(io(POLLUX_WRITE, 1, one)), 0);
    let late = pollux_io {
        timeout_us: 20_000,
        ..io(POLLUX_WRITE, 2, two)
    };
    assert_eq!(world.submit(late), 0);
    assert_eq!(world.submit(io(POLLUX_WRITE, 3, three)), -libc::EAGAIN);
    assert_eq!(error(), "the queue is full");
    let done = world.wait(10_000).unwrap();
    assert_eq!((done.user, done.result), (2, -libc::ETIMEDOUT));
    assert_eq!(pollux_disk_abort(world.disk, 1), 0);
    let done = world.wait(10_000).unwrap();
    assert_eq!((done.user, done.result, done.status), (1, -libc::EIO, 7));
    assert_eq!(pollux_disk_abort(world.disk, 1), 0, "it has ended");
}

#[test]
fn one_thread_takes_completions_at_a_time() {
    let world = World::new(1);
    thread::scope(|scope| {
        // Until the other thread has been told so.
        let waiting = scope.spawn(|| world.wait(60_000).map(|done| done.user));
        while pollux_disk_event_fd(world.disk) != -libc::EBUSY {
            thread::yield_now();
        }
        assert_eq!(
            error(),
            "another thread is at taking completions of this disk"
        );
        let mut buffer = [0; BLOCK];
        assert_eq!(world.submit(io(POLLUX_READ, 5, &mut buffer)), 0);
        assert_eq!(waiting.join().unwrap(), Ok(5));
    });
}

#[test]
fn a_disk_outlives_its_host() {
    let world = World::new(2);
    world
        .target
        .set_ana(world.target.addr, AnaState::INACCESSIBLE);
    let mut buffer = [0; BLOCK];
    assert_eq!(world.submit(io(POLLUX_WRITE, 1, &mut buffer)), 0);
    assert_eq!(pollux_host_stop(world.host, 1000), 0);
    assert_eq!(pollux_host_stop(world.host, 1000), -libc::EBADF);
    let done = world.wait(10_000).unwrap();
    assert_eq!(done.user, 1);
    assert!(done.result < 0);
    assert_eq!(
        world.submit(io(POLLUX_READ, 2, &mut buffer)),
        -libc::ESHUTDOWN
    );
    assert_eq!(error(), "the host has stopped");
}
