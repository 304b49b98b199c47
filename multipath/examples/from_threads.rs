//! I/O from the threads of a program: four of them write blocks of a volume and read them back. Each argument is a path:
//! `cargo run --example from_threads 'traddr:127.0.0.1 trsvcid:4420 subnqn:NQN' 'traddr:… subnqn:NQN'`
use std::error::Error;
use std::thread;
use std::time::Duration;

use pollux_multipath::{AttachRequest, Group, Host, Idle, Io, Op, Queue, Queues, VolumeInfo};

fn main() -> Result<(), Box<dyn Error>> {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    println!("{} blocks written and read", run(&paths)?);
    Ok(())
}

fn run(paths: &[String]) -> Result<u64, Box<dyn Error>> {
    let mut group = Group::new();
    let after = Duration::from_micros(100);
    group.add_reactor(None, Idle::Park { after });
    let host = Host::builder().install(&mut group, Queues::new);
    // Dropped at the end, the reactor stops.
    let _running = group.start()?;
    for path in paths {
        host.attach(AttachRequest::new("disk0", path.parse()?))?;
    }
    let volume = host.volume("disk0n1").info()?;
    let (queue, _) = host.queue(0, 128)?;
    let done = thread::scope(|scope| {
        let threads = [0, 1, 2, 3].map(|n| {
            let (queue, volume) = (queue.clone(), &volume);
            scope.spawn(move || write_and_read(&queue, volume, n * 10..(n + 1) * 10))
        });
        let joined = threads.map(|thread| thread.join().unwrap_or(Err("a thread panicked".into())));
        joined.into_iter().sum::<Result<u64, String>>()
    });
    host.shut_down()?;
    Ok(done?)
}

/// Writes blocks, one after the other, and reads each back.
fn write_and_read(
    queue: &Queue,
    volume: &VolumeInfo,
    blocks: std::ops::Range<u64>,
) -> Result<u64, String> {
    let io = |op, lba, buffer: Vec<u8>| {
        // What does not fit comes back with its buffer; this queue is deep enough for all.
        let started = queue.start(volume.id, Io::new(op, lba, 1, buffer));
        let done = started.map_err(|(_, error)| error.to_string())?.wait();
        let result = done.result.map(|()| done.io.buffer);
        result.map_err(|error| error.to_string())
    };
    let mut done = 0;
    for lba in blocks {
        let written = vec![b'a' + (lba % 26) as u8; volume.block_size() as usize];
        io(Op::Write, lba, written.clone())?;
        if io(Op::Read, lba, vec![0; written.len()])? != written {
            return Err(format!("block {lba} has other data"));
        }
        done += 1;
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use pollux_nvme_tcp::target::Backend;
    use pollux_nvme_tcp::testing::TestTarget;

    #[test]
    fn four_threads_have_their_blocks() {
        let target = TestTarget::start(1, &[Backend::Memory { bytes: 1 << 20 }]);
        let path = |port| format!("traddr:127.0.0.1 trsvcid:{port} subnqn:{}", target.nqn);
        let paths = [target.addr.port(), target.listen().port()].map(path);
        assert_eq!(super::run(&paths).unwrap(), 40);
    }
}
