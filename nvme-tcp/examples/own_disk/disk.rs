//! A disk whose blocks are in a map that a thread owns: each answer comes late, and wakes the reactor.
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};

use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::target::disk::{Disk, DiskChannel, DiskContext, Done, Io, Op, Opening, Waker};

const BLOCK: usize = 512;

/// An I/O, and its way back.
type Job = (Io, Sender<Done>, Waker);

fn carry_out(blocks: &mut BTreeMap<u64, Vec<u8>>, io: &mut Io) -> Result<(), Status> {
    match io.op {
        Op::Read { offset } => {
            for (at, to) in (offset..).step_by(BLOCK).zip(io.data.chunks_mut(BLOCK)) {
                to.copy_from_slice(blocks.get(&at).map_or(&[0; BLOCK], |block| block));
            }
        }
        Op::Write { offset, .. } => {
            let new = (offset..).step_by(BLOCK).zip(io.data.chunks(BLOCK));
            blocks.extend(new.map(|(at, block)| (at, block.to_vec())));
        }
        Op::Flush => {}
        _ => return Err(Status::INVALID_OPCODE.with_dnr()),
    }
    Ok(())
}

/// The disk: the way to its thread.
#[derive(Debug)]
pub struct MapDisk(Sender<Job>);

impl MapDisk {
    pub fn start() -> Self {
        let (jobs, queue) = channel::<Job>();
        std::thread::spawn(move || {
            let mut blocks = BTreeMap::new();
            for (mut io, answers, waker) in queue {
                let result = carry_out(&mut blocks, &mut io);
                // A reactor that has ended wants no answer.
                let _ = answers.send(io.done(result));
                waker.wake();
            }
        });
        Self(jobs)
    }
}

impl Disk for MapDisk {
    fn name(&self) -> String {
        "map disk".into()
    }

    fn bytes(&self) -> u64 {
        1 << 30
    }

    fn open(&self, opening: Opening) -> Box<dyn DiskChannel> {
        Box::new(MapChannel(self.0.clone(), channel(), opening.waker()))
    }
}

/// The disk as one reactor has it: the way to its thread, the way back, and how the thread wakes the reactor.
#[derive(Debug)]
struct MapChannel(Sender<Job>, (Sender<Done>, Receiver<Done>), Waker);

impl DiskChannel for MapChannel {
    fn submit(&mut self, io: Io, _: &mut DiskContext<'_>) -> Option<Done> {
        let job = (io, self.1.0.clone(), self.2.clone());
        let unsent = self.0.send(job).err()?;
        Some(unsent.0.0.done(Err(Status::INTERNAL_ERROR)))
    }

    fn poll(&mut self, done: &mut Vec<Done>, _: &mut DiskContext<'_>) {
        done.extend(self.1.1.try_iter());
    }
}
