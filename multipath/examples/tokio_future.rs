//! I/O from tasks under tokio: each I/O is a future, and a task of tokio's wakes those whose I/Os have ended. Each argument
//! is a path:
//! `cargo run --example tokio_future 'traddr:127.0.0.1 trsvcid:4420 subnqn:NQN' 'traddr:… subnqn:NQN'`
use std::error::Error;
use std::time::Duration;

use pollux_multipath::{
    AttachRequest, Group, Host, Idle, Io, Op, Queue, QueueMessage, Queues, VolumeInfo,
};

type Failed = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failed> {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    println!("{} blocks written and read", run(&paths)?);
    Ok(())
}

fn run(paths: &[String]) -> Result<u64, Failed> {
    let mut group = Group::new();
    let after = Duration::from_micros(100);
    group.add_reactor(None, Idle::Park { after });
    let host = Host::builder().install(&mut group, Queues::new);
    // Dropped at the end, the reactor stops.
    let _running = group.start()?;
    for path in paths {
        host.attach(AttachRequest::new("disk0", path.parse()?))?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().build()?;
    let done = runtime.block_on(tasks(&host));
    host.shut_down()?;
    done
}

async fn tasks(host: &Host<QueueMessage>) -> Result<u64, Failed> {
    let volume = host.volume("disk0n1").info()?;
    let (queue, completions) = host.queue(0, 128)?;
    // Without it the reactor wakes each task by itself.
    tokio::spawn(completions.deliver());
    let tasks: Vec<_> = (0..40)
        .map(|lba| tokio::spawn(write_and_read(queue.clone(), volume.clone(), lba)))
        .collect();
    let mut done = 0;
    for task in tasks {
        task.await??;
        done += 1;
    }
    Ok(done)
}

/// Writes a block and reads it back.
async fn write_and_read(queue: Queue, volume: VolumeInfo, lba: u64) -> Result<(), Failed> {
    let written = vec![b'a' + (lba % 26) as u8; volume.block_size() as usize];
    // What does not fit comes back with its buffer; this queue is deep enough for all.
    let write = Io::new(Op::Write, lba, 1, written.clone());
    let write = queue.start(volume.id, write).map_err(|(_, error)| error)?;
    let done = write.await;
    done.result?;
    let read = Io::new(Op::Read, lba, 1, done.io.buffer);
    let read = queue.start(volume.id, read).map_err(|(_, error)| error)?;
    let done = read.await;
    done.result?;
    match done.io.buffer == written {
        true => Ok(()),
        false => Err(format!("block {lba} has other data").into()),
    }
}

#[cfg(test)]
mod tests {
    use pollux_nvme_tcp::target::Backend;
    use pollux_nvme_tcp::testing::TestTarget;

    #[test]
    fn forty_tasks_have_their_blocks() {
        let target = TestTarget::start(1, &[Backend::Memory { bytes: 1 << 20 }]);
        let path = |port| format!("traddr:127.0.0.1 trsvcid:{port} subnqn:{}", target.nqn);
        let paths = [target.addr.port(), target.listen().port()].map(path);
        assert_eq!(super::run(&paths).unwrap(), 40);
    }
}
