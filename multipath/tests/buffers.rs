//! I/O to and from memory of owners of all kinds, over real sockets, with digests and without.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::sync::atomic::{AtomicBool, Ordering};

use pollux_multipath::{
    AttachOptions, AttachRequest, Buffer, Completion, Digests, Group, Host, Idle, Io, IoError, Op,
    Queue, Queues, Running, SubmitError, TransportId, VolumeId,
};
use pollux_nvme_tcp::target::Backend;
use pollux_nvme_tcp::testing::{TestTarget, nqn};

const BLOCK: usize = 512;
/// More than goes in a capsule, or comes with one receive.
const LARGE: usize = 1 << 20;

/// A host with a queue, and a target beside it.
struct World {
    _target: TestTarget,
    _running: Running,
    queue: Queue,
    volume: VolumeId,
}

impl World {
    fn new(digests: Digests) -> Self {
        let target = TestTarget::start(1, &[Backend::Memory { bytes: 4 << 20 }]);
        let mut group = Group::new();
        let reactor = group.add_reactor(None, Idle::Yield);
        let host = Host::builder().install(&mut group, Queues::new);
        let running = group.start().unwrap();
        let mut request = AttachRequest::new("disk0", TransportId::new(target.addr, nqn()));
        request.options = AttachOptions::default();
        request.options.digests = digests;
        host.attach(request).unwrap();
        let (queue, _) = host.queue(reactor, 8).unwrap();
        Self {
            _target: target,
            _running: running,
            queue,
            volume: host.volume("disk0n1").info().unwrap().id,
        }
    }

    fn do_io(&self, op: Op, buffer: impl Into<Buffer>) -> Completion {
        let buffer = buffer.into();
        let blocks = u32::try_from(buffer.len() / BLOCK).unwrap();
        let io = Io::new(op, 3, blocks.max(1), buffer);
        self.queue.start(self.volume, io).unwrap().wait()
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| ((at / 7 + at / 512) % 256).try_into().unwrap())
        .collect()
}

/// An owner that lends nothing any more, or panics, once it was asked so often.
struct Fickle {
    bytes: Vec<u8>,
    asked: std::sync::atomic::AtomicUsize,
    good_for: usize,
    panics: bool,
    failed: &'static AtomicBool,
}

impl Fickle {
    fn lends(&self) -> usize {
        if self.asked.fetch_add(1, Ordering::Relaxed) < self.good_for {
            return self.bytes.len();
        }
        self.failed.store(true, Ordering::Relaxed);
        assert!(!self.panics, "an owner that panics");
        self.bytes.len() - 1
    }
}

impl AsRef<[u8]> for Fickle {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.lends()]
    }
}

impl AsMut<[u8]> for Fickle {
    fn as_mut(&mut self) -> &mut [u8] {
        let len = self.lends();
        &mut self.bytes[..len]
    }
}

const DIGESTS: [Digests; 2] = [
    Digests {
        header: false,
        data: false,
    },
    Digests {
        header: true,
        data: true,
    },
];

#[test]
fn memory_of_any_owner_is_written_read_compared_and_handed_back() {
    for digests in DIGESTS {
        let world = World::new(digests);
        for len in [BLOCK, 8 * BLOCK, LARGE] {
            let written: Box<[u8]> = pattern(len).into();
            let done = world.do_io(Op::Write, Buffer::owned(written));
            assert_eq!(done.result, Ok(()));
            let done = world.do_io(Op::Compare, done.io.buffer);
            assert_eq!(done.result, Ok(()));
            // At an odd address, and back as the owner that it was.
            let place = vec![0; len + 1].leak();
            let done = world.do_io(Op::Read, Buffer::owned(&mut place[1..]));
            assert_eq!(done.result, Ok(()));
            assert!(done.io.buffer == pattern(len));
            let read = done.io.buffer.downcast::<&'static mut [u8]>().unwrap();
            assert!(*read == pattern(len));
        }
    }
}

#[test]
fn a_deallocate_makes_a_vec_long_enough_and_refuses_what_cannot_be() {
    let world = World::new(Digests::default());
    let done = world.do_io(Op::Deallocate, vec![]);
    assert_eq!((done.result, done.io.buffer.len()), (Ok(()), 16));
    assert_eq!(
        world.do_io(Op::Deallocate, Buffer::owned([0; 16])).result,
        Ok(())
    );
    let done = world.do_io(Op::Deallocate, Buffer::owned([0; 15]));
    let refused = IoError::Refused(SubmitError::BufferTooShort);
    assert_eq!(done.result, Err(refused));
    assert!(done.io.buffer.downcast::<[u8; 15]>().is_ok());
}

#[test]
fn an_owner_that_does_not_keep_its_bytes_ends_its_io_and_no_other() {
    static FAILED: AtomicBool = AtomicBool::new(false);
    for digests in DIGESTS {
        let world = World::new(digests);
        assert_eq!(world.do_io(Op::Write, pattern(LARGE)).result, Ok(()));
        for (op, panics) in [
            (Op::Read, false),
            (Op::Read, true),
            (Op::Write, false),
            (Op::Write, true),
        ] {
            // Its length is asked when the buffer is made; from then on it may fail at any time.
            for good_for in 1..=4 {
                FAILED.store(false, Ordering::Relaxed);
                let done = world.do_io(
                    op,
                    Buffer::owned(Fickle {
                        bytes: pattern(LARGE),
                        asked: 0.into(),
                        good_for,
                        panics,
                        failed: &FAILED,
                    }),
                );
                let expected = match FAILED.load(Ordering::Relaxed) {
                    true => Err(IoError::Buffer),
                    false => Ok(()),
                };
                assert_eq!(done.result, expected, "{op:?} {panics} {good_for}");
                assert!(good_for > 1 || expected.is_err(), "it was not asked");
                // On the connection that takes the place of the other.
                let read = world.do_io(Op::Read, vec![0; LARGE]);
                assert_eq!(read.result, Ok(()));
                assert!(read.io.buffer == pattern(LARGE));
            }
        }
    }
}
