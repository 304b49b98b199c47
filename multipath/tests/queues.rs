//! I/O from threads that are no reactors, on real threads and sockets: what comes back, when, and from whom.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use pollux_multipath::{
    AttachRequest, Completion, Completions, Host, HostError, Io, IoError, Op, Queue, QueueMessage,
    Queues, SubmitError, TransportId, VolumeId,
};
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::target::Backend;
use pollux_nvme_tcp::testing::{TestTarget, nqn};
use pollux_reactor::{Group, Idle, Progress, Running, Sender, Service, mailbox};

const BLOCK: usize = 512;
/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A host with queues on one reactor, and a target beside it.
struct World {
    target: TestTarget,
    host: Host<QueueMessage>,
    volume: VolumeId,
    running: Running,
    /// A message has the host's reactor panic.
    bomb: Sender<()>,
}

/// Panics when it is told to.
struct Bomb;

impl Service for Bomb {
    type Message = ();

    fn on_message(&mut self, (): (), _: &mut pollux_reactor::Context<'_>) {
        panic!("as it was told to");
    }

    fn poll(&mut self, _: &mut pollux_reactor::Context<'_>) -> Progress {
        Progress::Idle
    }
}

impl World {
    fn new(idle: Idle) -> Self {
        let target = TestTarget::start(1, &[Backend::Memory { bytes: 1 << 20 }]);
        let mut group = Group::new();
        let reactor = group.add_reactor(None, idle);
        let host = Host::builder().install(&mut group, Queues::new);
        let (bomb, receiver) = mailbox(1);
        group.add_service(reactor, receiver, || Bomb);
        let running = group.start().unwrap();
        let path = TransportId::new(target.addr, nqn());
        host.attach(AttachRequest::new("disk0", path)).unwrap();
        let volume = host.volume("disk0n1").info().unwrap();
        assert_eq!((volume.blocks, volume.block_size()), (2048, 512));
        Self {
            target,
            host,
            volume: volume.id,
            running,
            bomb,
        }
    }

    fn parking() -> Self {
        Self::new(Idle::Park {
            after: Duration::from_micros(20),
        })
    }

    fn queue(&self, depth: usize) -> (Queue, Completions) {
        self.host.queue(0, depth).unwrap()
    }

    /// Has all I/O wait, which the host knows when this is back.
    fn close_path(&self) {
        self.target
            .set_ana(self.target.addr, AnaState::INACCESSIBLE);
        while self.host.volume("disk0n1").status().unwrap().reactors[0].paths[0].accessible {
            thread::yield_now();
        }
    }

    fn open_path(&self) {
        self.target.set_ana(self.target.addr, AnaState::OPTIMIZED);
    }
}

fn write(lba: u64, byte: u8) -> Io {
    Io::new(Op::Write, lba, 1, vec![byte; BLOCK]).with_user(lba)
}

fn read(lba: u64) -> Io {
    Io::new(Op::Read, lba, 1, vec![0; BLOCK]).with_user(lba)
}

/// Submits, and tries again as long as the queue is full.
fn start(queue: &Queue, volume: VolumeId, mut io: Io) -> pollux_multipath::Pending {
    loop {
        match queue.start(volume, io) {
            Ok(pending) => return pending,
            Err((back, error)) => {
                assert_eq!(error, SubmitError::Full);
                io = back;
                thread::yield_now();
            }
        }
    }
}

fn threads_share_a_queue(world: &World) {
    let (queue, _completions) = world.queue(3);
    thread::scope(|scope| {
        for n in 0..4u8 {
            let queue = queue.clone();
            scope.spawn(move || {
                for round in 0..50 {
                    let lba = u64::from(n) * 100 + round;
                    let done = start(&queue, world.volume, write(lba, n + 1)).wait();
                    assert_eq!((done.result, done.io.user), (Ok(()), lba));
                    let done = start(&queue, world.volume, read(lba)).wait();
                    assert_eq!(done.result, Ok(()));
                    assert_eq!(done.io.buffer, [n + 1; BLOCK]);
                }
            });
        }
    });
}

fn a_thread_takes_what_others_submit(world: &World) {
    let (queue, mut completions) = world.queue(16);
    thread::scope(|scope| {
        for n in 0..2u64 {
            let queue = queue.clone();
            scope.spawn(move || {
                for lba in (0..200).map(|i| i * 2 + n) {
                    let mut io = write(lba, 1);
                    while let Err((back, error)) = queue.submit(world.volume, io) {
                        assert_eq!(error, SubmitError::Full);
                        io = back;
                        thread::yield_now();
                    }
                }
            });
        }
        let mut users: Vec<_> = (0..400)
            .map(|_| {
                let done = completions.wait(PATIENCE).unwrap();
                assert_eq!(done.result, Ok(()));
                done.io.user
            })
            .collect();
        users.sort_unstable();
        assert!(users.into_iter().eq(0..400));
    });
    assert!(completions.next_completion().is_none());
    assert!(completions.wait(Duration::from_millis(1)).is_none());
}

#[test]
fn threads_use_a_reactor_that_spins() {
    let world = World::new(Idle::Spin);
    threads_share_a_queue(&world);
    a_thread_takes_what_others_submit(&world);
}

#[test]
fn threads_use_a_reactor_that_parks() {
    let world = World::parking();
    threads_share_a_queue(&world);
    a_thread_takes_what_others_submit(&world);
}

#[test]
fn what_does_not_fit_comes_back_with_its_buffer() {
    let world = World::parking();
    let (queue, mut completions) = world.queue(4);
    assert_eq!(queue.depth(), 4);
    world.close_path();
    for lba in 0..3 {
        queue.submit(world.volume, write(lba, 1)).unwrap();
    }
    let pending = queue.start(world.volume, write(3, 1)).unwrap();
    let fifth = write(4, 1);
    let bytes = fifth.buffer.as_slice().map(<[u8]>::as_ptr);
    let (fifth, error) = queue.submit(world.volume, fifth).unwrap_err();
    assert_eq!(
        (error, fifth.buffer.as_slice().map(<[u8]>::as_ptr)),
        (SubmitError::Full, bytes)
    );
    assert_eq!(error.to_string(), "the queue is full");
    world.open_path();
    // There is room when an end was taken, and not before.
    assert_eq!(pending.wait().result, Ok(()));
    queue.submit(world.volume, fifth).unwrap();
    let mut users: Vec<_> = (0..4)
        .map(|_| completions.wait(PATIENCE).unwrap().io.user)
        .collect();
    users.sort_unstable();
    assert_eq!(users, [0, 1, 2, 4]);
}

#[test]
fn what_the_reactor_does_not_accept_ends_with_the_reason() {
    let world = World::parking();
    let (queue, _completions) = world.queue(4);
    let refused = |io| queue.start(world.volume, io).unwrap().wait();
    let done: Completion = refused(read(2048));
    assert_eq!(done.result, Err(IoError::Refused(SubmitError::OutOfRange)));
    assert_eq!((done.io.user, done.io.buffer.len()), (2048, BLOCK));
    let done = refused(Io::new(Op::Write, 0, 2, vec![0; BLOCK]));
    let why = done.result.unwrap_err().to_string();
    assert_eq!(
        why,
        "not accepted: buffer shorter than the blocks, or than the 16 bytes that a deallocate uses"
    );
    world.host.detach("disk0", None).unwrap();
    let done = refused(read(0));
    assert_eq!(done.result, Err(IoError::Refused(SubmitError::NoVolume)));
}

/// Tasks await I/Os that another task hands over to them; and when that has gone, the reactor does.
#[test]
fn awaited_ends_are_handed_over_on_their_executor() {
    const TASKS: u64 = 16;
    let world = World::parking();
    let (queue, completions) = world.queue(16);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.unwrap();
    let volume = world.volume;
    let write_all = async |round: u8| {
        let tasks: Vec<_> = (0..TASKS)
            .map(|lba| {
                let queue = queue.clone();
                tokio::spawn(async move {
                    for _ in 0..20 {
                        let pending = start(&queue, volume, write(lba, round));
                        let done = pending.await;
                        assert_eq!((done.result, done.io.lba), (Ok(()), lba));
                        assert_eq!(done.io.buffer.into_vec()[0], round);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    };
    runtime.block_on(async {
        let delivery = tokio::spawn(completions.deliver());
        write_all(1).await;
        assert!(!delivery.is_finished());
        let last = start(&queue, volume, read(0));
        delivery.abort();
        assert!(delivery.await.unwrap_err().is_cancelled());
        assert_eq!(last.await.io.buffer.into_vec()[0], 1);
        write_all(2).await;
    });
}

#[test]
fn a_future_that_is_dropped_leaves_its_buffer_to_the_reactor() {
    let world = World::parking();
    let (queue, _completions) = world.queue(1);
    world.close_path();
    drop(queue.start(world.volume, write(5, 7)).unwrap());
    // The buffer is still to be written from, so its place is not free.
    let (_, error) = queue.start(world.volume, read(5)).unwrap_err();
    assert_eq!(error, SubmitError::Full);
    world.open_path();
    let done = start(&queue, world.volume, read(5)).wait();
    assert_eq!(done.result, Ok(()));
    assert_eq!(done.io.buffer, [7; BLOCK]);
    // One whose end is there already.
    let (done_first, mut completions) = world.queue(1);
    drop(start(&queue, world.volume, write(6, 8)));
    done_first.submit(world.volume, read(6)).unwrap();
    completions.wait(PATIENCE).unwrap();
    assert_eq!(
        start(&queue, world.volume, read(6)).wait().io.buffer,
        [8; BLOCK]
    );
}

#[test]
fn completions_that_are_dropped_leave_no_place_taken() {
    let world = World::parking();
    let (queue, completions) = world.queue(2);
    world.close_path();
    queue.submit(world.volume, write(0, 1)).unwrap();
    drop(completions);
    world.open_path();
    for lba in 1..20 {
        let mut io = write(lba, 1);
        while let Err((back, error)) = queue.submit(world.volume, io) {
            assert_eq!(error, SubmitError::Full);
            io = back;
            thread::yield_now();
        }
    }
    assert_eq!(
        start(&queue, world.volume, read(0)).wait().io.buffer,
        [1; BLOCK]
    );
}

/// B7.1, B9.3: what waits for a path ends by its deadline, or when it is taken back, and of that queue alone.
#[test]
fn a_deadline_and_an_abort_end_what_waits() {
    let world = World::parking();
    let (queue, mut completions) = world.queue(8);
    let (other, mut of_other) = world.queue(1);
    world.close_path();
    let aborted = Err(IoError::Status(Status::ABORTED_BY_REQUEST));
    let soon = Duration::from_millis(5);
    let pending = queue.start_within(world.volume, read(0), soon).unwrap();
    assert_eq!(pending.wait().result, Err(IoError::Deadline));
    queue.submit_within(world.volume, read(1), soon).unwrap();
    let done = completions.wait(PATIENCE).unwrap();
    assert_eq!(done.result, Err(IoError::Deadline));
    let pending = queue.start(world.volume, read(2)).unwrap();
    pending.abort().unwrap();
    assert_eq!(pending.wait().result, aborted);
    other.submit(world.volume, read(3)).unwrap();
    queue.submit(world.volume, read(3)).unwrap();
    queue.submit(world.volume, read(4)).unwrap();
    queue.abort(world.volume, 3).unwrap();
    let done = completions.wait(PATIENCE).unwrap();
    assert_eq!((done.result, done.io.user), (aborted, 3));
    world.open_path();
    let done = completions.wait(PATIENCE).unwrap();
    assert_eq!((done.result, done.io.user), (Ok(()), 4));
    assert_eq!(of_other.wait(PATIENCE).unwrap().result, Ok(()));
}

/// A limit counts from when the reactor has the I/O, however long it has slept before.
#[test]
fn a_deadline_does_not_count_what_the_reactor_has_slept() {
    let world = World::parking();
    let (queue, mut completions) = world.queue(1);
    for _ in 0..10 {
        assert!(completions.wait(Duration::from_millis(20)).is_none());
        let limit = Duration::from_millis(15);
        let pending = queue.start_within(world.volume, read(0), limit).unwrap();
        assert_eq!(pending.wait().result, Ok(()));
    }
}

#[test]
fn a_reactor_that_stops_ends_what_is_under_way() {
    let world = World::parking();
    let (queue, mut completions) = world.queue(2);
    world.close_path();
    let pending = queue.start(world.volume, write(0, 1)).unwrap();
    queue.submit(world.volume, write(1, 2)).unwrap();
    let waiting = thread::spawn(move || pending.wait());
    world.running.stop();
    let done = waiting.join().unwrap();
    assert!(done.result.is_err());
    assert_eq!(
        (done.io.user, done.io.buffer.into_vec()),
        (0, vec![1; BLOCK])
    );
    let done = completions.wait(PATIENCE).unwrap();
    assert!(done.result.is_err());
    assert_eq!(
        (done.io.user, done.io.buffer.into_vec()),
        (1, vec![2; BLOCK])
    );
    world.running.join();
    let (io, error) = queue.submit(world.volume, write(2, 3)).unwrap_err();
    assert_eq!(
        (error, io.buffer.into_vec()),
        (SubmitError::Stopped, vec![3; BLOCK])
    );
    assert_eq!(queue.abort(world.volume, 2), Err(SubmitError::Stopped));
    assert!(completions.wait(Duration::from_millis(1)).is_none());
    let stopped = HostError::Cancelled("the host has stopped");
    assert_eq!(world.host.queue(0, 1).unwrap_err(), stopped);
}

#[test]
fn what_a_reactor_never_took_comes_back_with_its_buffer() {
    let mut group = Group::new();
    group.add_reactor(None, Idle::Yield);
    let host = Host::builder().install(&mut group, Queues::new);
    let world = World::parking();
    let (queue, mut completions) = host.queue(0, 2).unwrap();
    // A volume of whatever host: this one never looks.
    let pending = queue.start(world.volume, write(0, 1)).unwrap();
    queue.submit(world.volume, write(1, 2)).unwrap();
    drop(group);
    let done = pending.wait();
    assert_eq!(
        (done.result, done.io.buffer.into_vec()),
        (Err(IoError::Stopped), vec![1; BLOCK])
    );
    let done = completions.next_completion().unwrap();
    assert_eq!(
        (done.result, done.io.buffer.into_vec()),
        (Err(IoError::Stopped), vec![2; BLOCK])
    );
}

#[test]
fn a_reactor_that_panics_ends_what_is_under_way() {
    let world = World::parking();
    let (queue, mut completions) = world.queue(3);
    world.close_path();
    let pending = queue.start(world.volume, write(0, 1)).unwrap();
    queue.submit(world.volume, write(1, 2)).unwrap();
    // The reactor looks at I/Os in order: with the answer to this one it has both.
    let beyond = queue.start(world.volume, read(2048)).unwrap().wait();
    assert_eq!(
        beyond.result,
        Err(IoError::Refused(SubmitError::OutOfRange))
    );
    world.bomb.send(()).unwrap();
    let done = pending.wait();
    assert_eq!((done.result, done.io.user), (Err(IoError::Stopped), 0));
    assert!(done.io.buffer.is_empty(), "it is gone with the reactor");
    let done = completions.wait(PATIENCE).unwrap();
    assert_eq!((done.result, done.io.user), (Err(IoError::Stopped), 1));
    let why = thread::spawn(|| world.running.join()).join().unwrap_err();
    assert_eq!(*why.downcast::<&str>().unwrap(), "as it was told to");
}

/// Panics when it is called, and counts that.
struct Panicking(AtomicUsize);

impl Wake for Panicking {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
        panic!("a waker that panics");
    }
}

#[test]
fn a_waker_that_panics_harms_nobody() {
    let world = World::parking();
    let (queue, mut completions) = world.queue(4);
    world.close_path();
    let panicking = Arc::new(Panicking(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&panicking));
    let mut cx = Context::from_waker(&waker);
    let mut pending = queue.start(world.volume, write(0, 1)).unwrap();
    assert!(Pin::new(&mut pending).poll(&mut cx).is_pending());
    assert!(completions.poll_completion(&mut cx).is_pending());
    queue.submit(world.volume, write(1, 1)).unwrap();
    let good = queue.start(world.volume, write(2, 1)).unwrap();
    world.open_path();
    assert_eq!(good.wait().result, Ok(()));
    let taken = completions.wait(PATIENCE).unwrap();
    assert_eq!((taken.result, taken.io.user), (Ok(()), 1));
    let Poll::Ready(done) = Pin::new(&mut pending).poll(&mut cx) else {
        panic!("it was submitted before one that has ended");
    };
    assert_eq!(done.result, Ok(()));
    // They may have been woken by one call or two, and the reactor goes on.
    assert_ne!(panicking.0.load(Ordering::SeqCst), 0);
    assert_eq!(
        queue.start(world.volume, read(0)).unwrap().wait().result,
        Ok(())
    );
}

fn is_readable(fd: impl std::os::fd::AsFd, limit: Duration) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let limit = Timespec::try_from(limit).unwrap();
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&limit)).unwrap() == 1
}

#[test]
fn a_descriptor_is_readable_while_there_may_be_something_to_take() {
    let world = World::parking();
    let (queue, mut completions) = world.queue(8);
    queue.submit(world.volume, write(0, 1)).unwrap();
    // Asked for after an I/O has ended, or before: the first look is due anyway.
    assert!(is_readable(completions.event_fd().unwrap(), PATIENCE));
    while completions.next_completion().is_none() {
        assert!(is_readable(completions.event_fd().unwrap(), PATIENCE));
    }
    assert!(completions.next_completion().is_none());
    assert!(!is_readable(
        completions.event_fd().unwrap(),
        Duration::ZERO
    ));
    world.close_path();
    for lba in 0..8 {
        queue.submit(world.volume, write(lba, 1)).unwrap();
    }
    assert!(!is_readable(
        completions.event_fd().unwrap(),
        Duration::ZERO
    ));
    world.open_path();
    // Nothing is taken before all have ended: for all of them there was one call.
    let (last, _) = world.queue(1);
    start(&last, world.volume, read(7)).wait();
    let fd = completions.event_fd().unwrap();
    assert!(is_readable(fd, PATIENCE));
    let mut calls = [0; 8];
    rustix::io::read(fd, &mut calls).unwrap();
    assert_eq!(u64::from_ne_bytes(calls), 1);
    let taken = std::iter::from_fn(|| completions.next_completion());
    assert_eq!(taken.count(), 8);
    assert!(!is_readable(
        completions.event_fd().unwrap(),
        Duration::ZERO
    ));
}

#[test]
fn the_queues_of_a_reactor_have_a_depth_together() {
    let world = World::parking();
    let refused = |depth| world.host.queue(0, depth).unwrap_err().to_string();
    assert_eq!(refused(0), "depth of a queue: 1 to 4,096 are allowed");
    assert_eq!(refused(4097), "depth of a queue: 1 to 4,096 are allowed");
    let (queue, completions) = world.queue(4096);
    let together = "depth of a queue: all queues of one I/O reactor together may have 4,096";
    assert_eq!(refused(1), together);
    let pending = queue.start(world.volume, read(0)).unwrap();
    drop((queue, completions));
    assert_eq!(pending.wait().result, Ok(()));
    // The reactor may still be at putting its end down.
    while world.host.queue(0, 4096).is_err() {
        thread::yield_now();
    }
}

/// A queue that is busy for long does without edges, and a reactor that sleeps needs them.
#[test]
fn a_queue_that_was_busy_wakes_a_reactor_that_sleeps() {
    let world = World::new(Idle::Park {
        after: Duration::from_millis(1),
    });
    let (queue, mut completions) = world.queue(1);
    for _ in 0..3 {
        for lba in 0..1500 {
            queue.submit(world.volume, read(lba)).unwrap();
            let done = completions.wait(PATIENCE).unwrap();
            done.result.unwrap();
        }
        // Both sides are asleep when this is over.
        assert!(completions.wait(Duration::from_millis(10)).is_none());
    }
}

#[test]
fn an_io_reactor_has_as_many_queue_pairs_for_a_path_as_the_host_was_told() {
    let target = TestTarget::start(1, &[Backend::Memory { bytes: 1 << 20 }]);
    let mut group = Group::new();
    let after = Duration::from_micros(20);
    group.add_reactor(None, Idle::Park { after });
    let host = Host::builder()
        .queue_pairs(3)
        .install(&mut group, Queues::new);
    let running = group.start().unwrap();
    let path = TransportId::new(target.addr, nqn());
    host.attach(AttachRequest::new("disk0", path)).unwrap();
    let volume = host.volume("disk0n1").info().unwrap().id;
    assert_eq!(host.io_reactors(), 3);
    for nth in 0..3 {
        let (queue, _) = host.queue(nth, 4).unwrap();
        for lba in 0..=nth as u64 {
            start(&queue, volume, read(lba)).wait().result.unwrap();
        }
    }
    let reactors = host.volume("disk0n1").status().unwrap().reactors;
    let reads = reactors.iter().map(|r| r.paths[0].counters.reads.count);
    assert_eq!(reads.collect::<Vec<_>>(), [1, 2, 3], "each has its own");
    let status = target.status();
    let controllers = status.subsystems.iter().flat_map(|s| &s.controllers);
    let qids = controllers.flat_map(|c| c.qpairs.iter().map(|q| q.qid));
    assert_eq!(qids.collect::<Vec<_>>(), [0, 1, 2, 3], "of one controller");
    host.shut_down().unwrap();
    running.stop();
}
