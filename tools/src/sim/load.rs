//! What runs on each I/O reactor of a host: I/O as drawn from the seed, every completion judged.

use std::collections::BTreeMap;
use std::time::Duration;

use pollux_multipath::{
    Application, Completion, EndedEarly, Io, IoError, NoPath, Op, PollGroup, VolumeId, VolumeInfo,
};
use pollux_nvme_tcp::spec::opcode::nvm;
use pollux_nvme_tcp::spec::status::Status;
use pollux_reactor::{Context, Progress, Rng, Time};

use super::BLOCK;
use super::book::{Activity, Books};
use super::doubts::{Change, Queue};
use super::oracle::{Failed, Order, Write, fill};
use super::scenario::Shape;
use super::wire::Wires;

/// Blocks of one read of the verification.
const VERIFY_BLOCKS: u64 = 8;

/// The application.
pub struct Load {
    book: Books,
    wires: Wires,
    /// What names this reactor on the network: the host, and the identifier of its queues.
    queue: Queue,
    /// Volumes that there were last, by namespace.
    known: BTreeMap<u32, VolumeId>,
    shape: Shape,
    rng: Rng,
    /// The reactor, over all hosts, of how many.
    writer: u32,
    writers: u32,
    left: u32,
    next_at: Time,
    flying: BTreeMap<u64, Flying>,
    next_user: u64,
    /// What was verified: of which volume, up to which block.
    verified: (usize, u64),
}

/// An I/O that has not ended.
#[derive(Clone, Copy, Debug)]
struct Flying {
    volume: VolumeId,
    nsid: u32,
    op: Op,
    lba: u64,
    blocks: u32,
    start: Order,
    /// What it writes, if it does.
    tag: u64,
    submitted: Time,
}

impl Flying {
    /// What the network sees of a command that changes data.
    fn change(&self) -> Option<Change> {
        let opcode = match self.op {
            Op::Write => nvm::WRITE,
            Op::WriteZeroes => nvm::WRITE_ZEROES,
            Op::Deallocate => nvm::DATASET_MANAGEMENT,
            Op::Read | Op::Flush | Op::Compare => return None,
            other => unreachable!("{other:?} is not drawn"),
        };
        Some(Change::new(opcode, self.nsid, self.lba, self.blocks.into()))
    }

    fn write(&self, writer: u32) -> Write {
        Write {
            nsid: self.nsid,
            lba: self.lba,
            blocks: self.blocks,
            tag: self.tag,
            is_zeroes: self.op != Op::Write,
            writer,
        }
    }
}

/// The name of an error, for which it may be allowed.
pub fn name_of(error: IoError) -> &'static str {
    let no_path = |why| match why {
        NoPath::NoPaths => "no path: none",
        NoPath::NamespaceInactive => "no path: namespace inactive",
        NoPath::PersistentLoss => "no path: persistent loss",
        NoPath::AnattExpired => "no path: ANATT expired",
        NoPath::FastIoFail => "no path: fast I/O fail",
        NoPath::ControllerLost => "no path: controller lost",
        _ => "no path: of a kind that is not known",
    };
    match error {
        IoError::Status(status) if status.code() == Status::ABORTED_BY_REQUEST => "aborted",
        IoError::Status(_) => "status",
        IoError::NoPath(why) => no_path(why),
        IoError::Data => "data lost",
        IoError::Removed => "removed",
        IoError::Deadline => "deadline",
        IoError::InDoubt(EndedEarly::Aborted) => "aborted",
        IoError::InDoubt(EndedEarly::Deadline) => "deadline",
        IoError::InDoubt(EndedEarly::Removed) => "removed",
        IoError::InDoubt(EndedEarly::NoPath(why)) => no_path(why),
        _ => "of a kind that is not known",
    }
}

impl Load {
    pub fn new(
        (book, wires): (Books, Wires),
        shape: Shape,
        seed: u64,
        (queue, writer, writers): (Queue, u32, u32),
    ) -> Load {
        Load {
            book,
            wires,
            queue,
            known: BTreeMap::new(),
            shape,
            rng: Rng::seeded(seed),
            writer,
            writers,
            left: shape.budget,
            next_at: Time::ZERO,
            flying: BTreeMap::new(),
            next_user: 1,
            verified: (0, 0),
        }
    }

    fn below(&mut self, bound: u32) -> u32 {
        u32::try_from(self.rng.below(bound.into())).unwrap_or(0)
    }

    /// Takes an I/O that has ended.
    fn take(&mut self, completion: Completion) {
        let Completion { io, result, .. } = completion;
        let mut book = self.book.borrow_mut();
        book.ended += 1;
        book.hash(io.user);
        book.hash(u64::from(result.is_ok()));
        let writer = self.writer;
        let Some(flying) = self.flying.remove(&io.user) else {
            let what = format!("I/O {} of reactor {writer} ended twice", io.user);
            return book.violate("every I/O completes exactly once", what);
        };
        if let Some(change) = flying.change() {
            self.wires
                .doubts(|doubts| doubts.ends(self.queue, change, flying.submitted));
        }
        let Flying { nsid, lba, .. } = flying;
        let line = || {
            let Flying {
                op, blocks, tag, ..
            } = flying;
            let user = io.user;
            format!("reactor {writer} I/O {user} {op:?} {lba}+{blocks} of {nsid}, tag {tag:x}")
        };
        if let Err(error) = result {
            book.tell(|| format!("{}: {error}", line()));
            let name = name_of(error);
            *book.errors.entry(name).or_default() += 1;
            let miscompares = flying.op == Op::Compare
                && matches!(error, IoError::Status(status) if status.code() == Status::COMPARE_FAILURE);
            if !miscompares && (book.activity == Activity::Verify || !book.allowed.contains(&name))
            {
                let what = format!("{}: {error}, and nothing calls for that", line());
                book.violate("I/O fails only as rules B6 and B7 let it", what);
            }
        } else {
            book.tell(|| format!("{} done", line()));
        }
        match (flying.op, result) {
            (Op::Read | Op::Compare, Ok(())) => {
                let len = flying.blocks as usize * BLOCK;
                let judged = book.oracle.judge(
                    nsid,
                    lba,
                    &io.buffer.as_slice().unwrap_or_default()[..len],
                    flying.start,
                );
                if let Err(what) = judged {
                    book.violate(
                        "what is read was written last",
                        format!("{}: {what}", line()),
                    );
                }
            }
            (Op::Read | Op::Compare, Err(_)) => book.oracle.not_read(flying.start),
            (Op::Flush, Ok(())) => book.oracle.flushed(nsid, flying.start),
            (Op::Flush, Err(_)) => {}
            (Op::Write | Op::WriteZeroes, Ok(())) => {
                let end = book.oracle.next();
                book.oracle.written(&flying.write(writer), end);
            }
            // Whether deallocated blocks are zeroes is up to the disk.
            (Op::Deallocate, Ok(())) => {
                let end = book.oracle.next();
                let write = flying.write(writer);
                book.oracle.failed(&write, Failed::Ended, end);
            }
            (Op::Write | Op::WriteZeroes | Op::Deallocate, Err(error)) => {
                let how = match error {
                    IoError::Removed | IoError::InDoubt(EndedEarly::Removed) => Failed::Loose,
                    IoError::InDoubt(_) => Failed::InDoubt,
                    _ => Failed::Ended,
                };
                let end = book.oracle.next();
                book.oracle.failed(&flying.write(writer), how, end);
            }
            (other, _) => unreachable!("{other:?} is not drawn"),
        }
    }

    fn draw(&mut self, volume: &VolumeInfo) -> (Op, u64, u32) {
        let op = match self.below(100) {
            n if n < self.shape.reads => Op::Read,
            n => match (n - self.shape.reads) % 16 {
                0 => Op::Flush,
                1 => Op::WriteZeroes,
                2 => Op::Deallocate,
                3 => Op::Compare,
                _ => Op::Write,
            },
        };
        let all = u32::try_from(volume.blocks).unwrap_or(u32::MAX);
        let (first, count) = match op {
            Op::Write | Op::WriteZeroes | Op::Deallocate if self.shape.share == 0 => {
                let own = (all / self.writers).max(1);
                ((own * self.writer).min(all - own), own)
            }
            _ => (0, all),
        };
        if op == Op::Flush {
            return (op, 0, 0);
        }
        let most = match op {
            Op::Compare => 1,
            _ => self.shape.max_blocks.min(count),
        };
        let blocks = 1 + self.below(most);
        let lba = first + self.below(count - blocks + 1);
        (op, lba.into(), blocks)
    }

    fn submit(
        &mut self,
        volume: &VolumeInfo,
        (op, lba, blocks): (Op, u64, u32),
        group: &mut PollGroup,
    ) {
        let nsid = volume.nsid;
        let user = self.next_user;
        self.next_user += 1;
        let mut buffer = vec![0xEE; (blocks as usize * BLOCK).max(16)];
        let mut book = self.book.borrow_mut();
        let mut flying = Flying {
            volume: volume.id,
            nsid,
            op,
            lba,
            blocks,
            start: 0,
            tag: 0,
            submitted: book.now,
        };
        match op {
            Op::Read => flying.start = book.oracle.read(),
            Op::Compare => {
                let data = book.oracle.likely(nsid, lba);
                buffer[..BLOCK].copy_from_slice(&data);
                flying.start = book.oracle.read();
            }
            Op::Flush => flying.start = book.oracle.next(),
            Op::Write | Op::WriteZeroes | Op::Deallocate => {
                flying.tag = book.tag();
                flying.start = book.oracle.next();
                for (lba, block) in (lba..).zip(buffer.chunks_exact_mut(BLOCK)) {
                    fill(block, lba, flying.tag);
                }
                let write = flying.write(self.writer);
                book.oracle.write(&write, flying.start);
            }
            other => unreachable!("{other:?} is not drawn"),
        }
        let (writer, tag) = (self.writer, flying.tag);
        book.tell(|| {
            format!(
                "reactor {writer} I/O {user} {op:?} {lba}+{blocks} of {nsid}, tag {tag:x} submitted"
            )
        });
        book.submitted += 1;
        drop(book);
        if let Some(change) = flying.change() {
            self.wires
                .doubts(|doubts| doubts.begins(self.queue, change, flying.submitted));
        }
        self.flying.insert(user, flying);
        let io = Io::new(op, lba, blocks, buffer).with_user(user);
        let limit = Duration::from_millis(self.shape.deadline_ms.into());
        let is_limited = !limit.is_zero() && self.book.borrow().activity == Activity::Run;
        let submitted = match is_limited {
            true => group.submit_within(volume.id, io, limit),
            false => group.submit(volume.id, io),
        };
        if let Err((_, error)) = submitted {
            let what = format!("I/O {user} of reactor {writer} was refused: {error}");
            self.book
                .borrow_mut()
                .violate("an I/O on a volume that there is is taken", what);
        }
    }

    /// Submits some I/Os.
    fn run(&mut self, volumes: &[VolumeInfo], group: &mut PollGroup, now: Time) -> Progress {
        let free = self.shape.depth as usize - self.flying.len();
        let count = 1 + self.below(u32::try_from(free).unwrap_or(1).min(self.left));
        let mean =
            u64::from(self.shape.horizon_ms) * 1_000_000 / u64::from(self.shape.budget.max(1));
        let pause = self.rng.below(2 * mean * u64::from(count));
        self.next_at = now + Duration::from_nanos(pause.max(1));
        if volumes.is_empty() {
            return Progress::Idle;
        }
        for _ in 0..count {
            let which = self.below(u32::try_from(volumes.len()).unwrap_or(1)) as usize;
            let io = self.draw(&volumes[which]);
            self.submit(&volumes[which], io, group);
            self.left -= 1;
            if self.below(1000) < self.shape.aborts {
                self.abort(group);
            }
        }
        Progress::Busy
    }

    fn abort(&mut self, group: &mut PollGroup) {
        let count = u32::try_from(self.flying.len()).unwrap_or(1);
        let which = self.below(count) as usize;
        if let Some((&user, flying)) = self.flying.iter().nth(which) {
            let said = group.abort(flying.volume, user);
            let writer = self.writer;
            self.book
                .borrow_mut()
                .tell(|| format!("reactor {writer} I/O {user} aborted: {said:?}"));
        }
    }

    /// Reads what was not read yet.
    fn verify(&mut self, volumes: &[VolumeInfo], group: &mut PollGroup) -> Progress {
        let mut progress = Progress::Idle;
        while self.flying.len() < self.shape.depth as usize {
            let (which, lba) = self.verified;
            let Some(volume) = volumes.get(which) else {
                break;
            };
            let blocks = VERIFY_BLOCKS.min(volume.blocks - lba);
            self.verified = match lba + blocks {
                end if end == volume.blocks => (which + 1, 0),
                end => (which, end),
            };
            let blocks = u32::try_from(blocks).unwrap_or(1);
            self.submit(volume, (Op::Read, lba, blocks), group);
            progress = Progress::Busy;
        }
        if self.flying.is_empty() && self.verified.1 != u64::MAX {
            if volumes.len() != self.shape.namespaces as usize {
                let what = format!("{} volumes are there", volumes.len());
                self.book.borrow_mut().violate("volumes come back", what);
            }
            self.verified.1 = u64::MAX;
            self.book.borrow_mut().verified += 1;
            progress = Progress::Busy;
        }
        progress
    }

    fn wants_more(&self) -> bool {
        self.left > 0 && self.flying.len() < self.shape.depth as usize
    }
}

impl Application for Load {
    type Message = ();

    fn on_message(&mut self, (): (), _: &mut PollGroup, _: &mut Context<'_>) {}

    fn poll(&mut self, group: &mut PollGroup, cx: &mut Context<'_>) -> Progress {
        self.book.borrow_mut().now = cx.now();
        let mut progress = Progress::Idle;
        while let Some(completion) = group.next_completion() {
            self.take(completion);
            progress = Progress::Busy;
        }
        self.wires.turn(self.queue);
        let activity = self.book.borrow().activity;
        if activity == Activity::Drain {
            return progress;
        }
        for volume in group.volumes() {
            if self.known.insert(volume.nsid, volume.id) != Some(volume.id) {
                self.wires
                    .doubts(|doubts| doubts.forget(self.queue, volume.nsid));
            }
        }
        if activity == Activity::Run && (!self.wants_more() || cx.now() < self.next_at) {
            return progress;
        }
        let volumes: Vec<VolumeInfo> = group.volumes().cloned().collect();
        progress.or(match activity {
            Activity::Run => self.run(&volumes, group, cx.now()),
            _ => self.verify(&volumes, group),
        })
    }

    fn deadline(&self) -> Option<Time> {
        match self.book.borrow().activity {
            Activity::Run => self.wants_more().then_some(self.next_at),
            Activity::Drain => None,
            Activity::Verify => {
                let is_over = self.verified.1 == u64::MAX;
                let is_full = self.flying.len() >= self.shape.depth as usize;
                let volumes = self.shape.namespaces as usize;
                let waits = self.verified.0 >= volumes && !self.flying.is_empty();
                (!is_over && !is_full && !waits).then_some(Time::ZERO)
            }
        }
    }
}
